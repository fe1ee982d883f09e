"""One training step of a causal language model: 1280 positions, 8 layers of 8 heads, 512 wide, 8192 tied tokens."""
import common
A = common.parser(__doc__).parse_args()
torch = common.setup(A.threads)
import torch.nn as nn, torch.nn.functional as F
import attention

T, LAYERS, HEADS, DIM, VOCAB = 1280, 8, 8, 512, 8192
mask = attention.additive(torch.ones(T, T, dtype=torch.bool).tril())[None]


class Block(nn.Module):
    def __init__(s):
        super().__init__()
        s.norm1, s.qkv, s.out = nn.LayerNorm(DIM), nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)
        s.norm2, s.wide, s.back = nn.LayerNorm(DIM), nn.Linear(DIM, 4 * DIM), nn.Linear(4 * DIM, DIM)

    def forward(s, x):
        q, k, v = s.qkv(s.norm1(x)).view(T, 3, HEADS, DIM // HEADS).permute(1, 2, 0, 3).contiguous().unbind(0)
        x = x + s.out(attention.dense(q, k, v, mask).transpose(0, 1).reshape(T, DIM))
        return x + s.back(F.gelu(s.wide(s.norm2(x)), approximate="tanh"))


class Model(nn.Module):
    def __init__(s):
        super().__init__()
        s.token, s.position = nn.Embedding(VOCAB, DIM), nn.Embedding(T, DIM)
        s.blocks, s.norm = nn.ModuleList([Block() for _ in range(LAYERS)]), nn.LayerNorm(DIM)
        for p in s.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)

    def forward(s, tokens, targets):
        x = s.token(tokens) + s.position.weight
        for b in s.blocks:
            x = b(x)
        return F.cross_entropy(F.linear(s.norm(x), s.token.weight).float(), targets)


common.reset_peak()
model = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
tokens = torch.randint(0, VOCAB, (T + 1,))


def step():
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=A.dtype == "bf16"):
        loss = model(tokens[:-1], tokens[1:])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


times = common.measure(step, A.steps, A.warmup)
common.emit(what="gpt2", dtype=A.dtype, threads=A.threads, torch=torch.__version__, s_step=common.stats(times), peak_rss_mb=common.peak_mb())
