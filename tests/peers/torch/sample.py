"""Drawing image tokens with a KV cache: the text at once, then one token at a time."""
import time
import common
P = common.parser(__doc__)
P.add_argument("--config", choices=["S", "T"], default="S")
P.add_argument("--batch", type=int, default=1)
P.add_argument("--tokens", type=int, default=64)
P.add_argument("--check", action="store_true", help="compare with the forward pass of training")
A = P.parse_args()
torch = common.setup(A.threads)
import torch.nn.functional as F
import attention, transformer

torch.set_grad_enabled(False)
c = transformer.SIZES[A.config]
B, T, W, H, D = A.batch, c["text"], c["grid"], c["heads"], c["dim"]
N, d = W * W, D // H
scale, kinds = d ** -0.5, [attention.kind_of(i + 1, c["layers"]) for i in range(c["layers"])]
model = transformer.Transformer(c, "dense").eval()
text = torch.randint(0, c["text_vocab"], (B, T), generator=torch.Generator().manual_seed(1))
masks = {k: attention.allowed(k, T, W) for k in set(kinds)}
keys = {k: [masks[k][T + n].nonzero()[T:, 0] for n in range(N)] for k in masks}  # of each image position, without the text
noise = torch.Generator().manual_seed(2)


def prefill():
    x, caches = model.text(text) + model.position.weight, []
    for b, kind in zip(model.blocks, kinds):
        q, k, v = b.qkv(b.norm1(x)).view(B, T, 3, H, d).permute(2, 0, 3, 1, 4).unbind(0)
        ck, cv = torch.zeros(B, H, T + N, d), torch.zeros(B, H, T + N, d)
        ck[:, :, :T], cv[:, :, :T] = k, v
        p = torch.softmax(q @ k.transpose(-1, -2) * scale + attention.additive(masks[kind][:T, :T]), -1)
        x = x + b.out((p @ v).transpose(1, 2).reshape(B, T, D))
        x = x + b.back(F.gelu(b.wide(b.norm2(x))))
        caches.append((ck, cv))
    return caches, model.norm(x[:, -1])


def decode(token, n, caches):
    """The hidden state after image token n, which predicts the next."""
    x, at = model.image(token) + model.row.weight[n // W] + model.column.weight[n % W], T + n
    for b, kind, (ck, cv) in zip(model.blocks, kinds, caches):
        q, k, v = b.qkv(b.norm1(x)).view(B, 3, H, d).unbind(1)
        ck[:, :, at], cv[:, :, at] = k, v
        if kind == "row":  # the window is a view
            low = max(T, at - W)
            kw, vw = ck[:, :, low:at + 1], cv[:, :, low:at + 1]
        else:
            kw, vw = ck.index_select(2, keys[kind][n]), cv.index_select(2, keys[kind][n])
        q = (q * scale).unsqueeze(-1)
        a = torch.cat([(ck[:, :, :T] @ q).squeeze(-1), (kw @ q).squeeze(-1)], -1)
        p = torch.softmax(a, -1).unsqueeze(-2)
        x = x + b.out((p[..., :T] @ cv[:, :, :T] + p[..., T:] @ vw).reshape(B, D))
        x = x + b.back(F.gelu(b.wide(b.norm2(x))))
    return model.norm(x)


def pick(hidden):
    return torch.multinomial(torch.softmax(model.to_image(hidden), -1), 1, generator=noise)[:, 0]


if A.check:
    image = torch.randint(0, c["image_vocab"], (B, N))
    want = model.trunk(text, image)
    caches, hidden = prefill()
    error = (hidden - want[:, T - 1]).abs().max().item()
    for n in range(min(N, 200)):
        error = max(error, (decode(image[:, n], n, caches) - want[:, T + n]).abs().max().item())
    assert error < 1e-3, error
    print("decoding equals training: states differ by %.1e" % error)
    raise SystemExit

common.reset_peak()
times = []
for i in range(A.warmup + A.steps):
    caches, hidden = prefill()
    token = pick(hidden)
    start = time.perf_counter()
    for n in range(A.tokens - 1):
        token = pick(decode(token, n, caches))
    if i >= A.warmup:
        times.append((time.perf_counter() - start) / (A.tokens - 1))
common.emit(what="sample", config=A.config, batch=B, threads=A.threads, torch=torch.__version__, s_step=common.stats(times), peak_rss_mb=common.peak_mb())
