"""One training step (forward, backward, AdamW) of the transformer at the sizes S or T."""
import common
P = common.parser(__doc__)
P.add_argument("--config", choices=["S", "T"], default="S")
P.add_argument("--masks", choices=["dense", "smart"], default="smart")
P.add_argument("--check", action="store_true", help="compare smart with dense, and look for a leak of the future")
A = P.parse_args() if __name__ == "__main__" else P.parse_args([])
if __name__ == "__main__":
    torch = common.setup(A.threads)
import math, torch
import torch.nn as nn, torch.nn.functional as F
import attention

SIZES = {"S": dict(dim=512, heads=8, layers=8, text=256, grid=32, text_vocab=16384, image_vocab=8192, batch=1),
         "T": dict(dim=256, heads=4, layers=4, text=64, grid=16, text_vocab=2048, image_vocab=1024, batch=8)}


class Block(nn.Module):
    def __init__(s, c, kind, masks):
        super().__init__()
        d, s.heads = c["dim"], c["heads"]
        s.norm1, s.qkv, s.out = nn.LayerNorm(d), nn.Linear(d, 3 * d), nn.Linear(d, d)
        s.norm2, s.wide, s.back = nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.Linear(4 * d, d)
        s.attend = (attention.Smart if masks == "smart" else attention.Dense)(kind, c["text"], c["grid"])

    def forward(s, x):
        B, T, d = x.shape
        x = x + s.out(s.attend(s.qkv(s.norm1(x)).view(B, T, 3, s.heads, d // s.heads)))
        return x + s.back(F.gelu(s.wide(s.norm2(x))))


class Transformer(nn.Module):
    def __init__(s, c, masks):
        super().__init__()
        s.c, d = c, c["dim"]
        s.text, s.image = nn.Embedding(c["text_vocab"], d), nn.Embedding(c["image_vocab"], d)
        s.position, s.row, s.column = nn.Embedding(c["text"], d), nn.Embedding(c["grid"], d), nn.Embedding(c["grid"], d)
        s.blocks = nn.ModuleList([Block(c, attention.kind_of(i + 1, c["layers"]), masks) for i in range(c["layers"])])
        s.norm, s.to_text, s.to_image = nn.LayerNorm(d), nn.Linear(d, c["text_vocab"]), nn.Linear(d, c["image_vocab"])
        for name, p in s.named_parameters():
            if p.dim() > 1:
                end = name.endswith("out.weight") or name.endswith("back.weight")
                nn.init.normal_(p, std=0.02 / (math.sqrt(2 * c["layers"]) if end else 1))

    def trunk(s, text, image):
        n = s.c["grid"] ** 2
        xt = s.text(text) + s.position.weight
        xi = s.image(image) + (s.row.weight[:, None] + s.column.weight[None]).view(n, -1)
        x = torch.cat([xt, xi], 1)
        for b in s.blocks:
            x = b(x)
        return s.norm(x)

    def forward(s, text, image):
        """Position p predicts token p+1; text logits for text positions, image logits for image positions."""
        t = s.c["text"]
        x = s.trunk(text, image)[:, :-1]
        lt = F.cross_entropy(s.to_text(x[:, :t - 1]).flatten(0, 1).float(), text[:, 1:].flatten())
        li = F.cross_entropy(s.to_image(x[:, t - 1:]).flatten(0, 1).float(), image.flatten())
        return lt / 8 + 7 * li / 8


def batch(c):
    g = torch.Generator().manual_seed(1)
    return (torch.randint(0, c["text_vocab"], (c["batch"], c["text"]), generator=g),
            torch.randint(0, c["image_vocab"], (c["batch"], c["grid"] ** 2), generator=g))


def check(c):
    text, image = batch(c)
    got = []
    for masks in ("dense", "smart"):
        torch.manual_seed(0)
        m = Transformer(c, masks)
        loss = m(text, image)
        loss.backward()
        got.append((loss.item(), torch.cat([p.grad.flatten() for p in m.parameters()])))
        at = c["grid"] ** 2 // 2 + 5
        other = image.clone()
        other[:, at:] = (other[:, at:] + 1) % c["image_vocab"]
        with torch.no_grad():
            leak = (m.trunk(text, other) - m.trunk(text, image))[:, :c["text"] + at].abs().max().item()
        assert leak == 0, "%s: the future leaks: %g" % (masks, leak)
    (l0, g0), (l1, g1) = got
    error = ((g1 - g0).norm() / g0.norm()).item()
    assert abs(l0 - l1) < 1e-4 and error < 1e-4, (l0, l1, error)
    print("smart equals dense: gradients differ by %.1e" % error)


if __name__ == "__main__":
    c = SIZES[A.config]
    if A.check:
        check(c)
        raise SystemExit
    common.reset_peak()
    model = Transformer(c, A.masks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.96), eps=1e-8, weight_decay=4.5e-2)
    text, image = batch(c)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=A.dtype == "bf16"):
            loss = model(text, image)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    times = common.measure(step, A.steps, A.warmup)
    common.emit(what="transformer", config=A.config, masks=A.masks, dtype=A.dtype, threads=A.threads, torch=torch.__version__,
                s_step=common.stats(times), peak_rss_mb=common.peak_mb(), params_m=sum(p.numel() for p in model.parameters()) / 1e6)
