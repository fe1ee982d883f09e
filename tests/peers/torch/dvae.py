"""One training step of the discrete VAE: 64x64 pictures, batch 8, the released architecture a quarter as wide."""
import common
P = common.parser(__doc__)
P.add_argument("--format", choices=["nchw", "nhwc"], default="nhwc")
A = P.parse_args()
torch = common.setup(A.threads)
import math
import torch.nn as nn, torch.nn.functional as F

WIDTH, BLOCKS, CODES, CODE_DIM, SIDE, BATCH = 64, 2, 1024, 64, 64, 8
GAIN = 1 / (4 * BLOCKS) ** 2


class Block(nn.Module):
    def __init__(s, cin, cout, kernels):
        super().__init__()
        h = cout // 4
        s.skip = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()
        widths = [cin, h, h, h, cout]
        s.convs = nn.ModuleList([nn.Conv2d(widths[i], widths[i + 1], k, padding=k // 2) for i, k in enumerate(kernels)])

    def forward(s, x):
        y = x
        for conv in s.convs:
            y = conv(F.relu(y))
        return s.skip(x) + y * GAIN


def stack(width, groups, kernels, between):
    layers = []
    for i, k in enumerate(groups):
        for _ in range(BLOCKS):
            layers.append(Block(width, k * WIDTH, kernels))
            width = k * WIDTH
        if i < len(groups) - 1:
            layers.append(between())
    return layers, width


layers, w = stack(WIDTH, (1, 2, 4, 8), (3, 3, 3, 1), lambda: nn.MaxPool2d(2))
encoder = nn.Sequential(nn.Conv2d(3, WIDTH, 7, padding=3), *layers, nn.ReLU(), nn.Conv2d(w, CODES, 1))
layers, w = stack(CODE_DIM, (8, 4, 2, 1), (1, 3, 3, 3), lambda: nn.Upsample(scale_factor=2, mode="nearest"))
decoder = nn.Sequential(nn.Conv2d(CODES, CODE_DIM, 1), *layers, nn.ReLU(), nn.Conv2d(w, 6, 1))
x = torch.rand(BATCH, 3, SIDE, SIDE) * 0.8 + 0.1
if A.format == "nhwc":
    encoder, decoder = encoder.to(memory_format=torch.channels_last), decoder.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
parameters = list(encoder.parameters()) + list(decoder.parameters())
optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-4)


def loss():
    """Logit-Laplace reconstruction of a Gumbel-softmax relaxation, and KL to uniform."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=A.dtype == "bf16"):
        logits = encoder(x).float()
        z = torch.softmax(logits - torch.empty_like(logits).exponential_().log(), 1)
        out = decoder(z).float()
    mu, ln_b = out[:, :3], out[:, 3:].clamp(-7, 7)
    reconstruction = (torch.log(2 * x * (1 - x)) + ln_b + (torch.logit(x) - mu).abs() * torch.exp(-ln_b)).mean()
    lp = torch.log_softmax(logits, 1)
    kl = (lp.exp() * (lp + math.log(CODES))).sum(1).mean()
    return reconstruction + 6.6 / 192 * kl


def step():
    loss().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


common.reset_peak()
times = common.measure(step, A.steps, A.warmup)
common.emit(what="dvae", format=A.format, dtype=A.dtype, threads=A.threads, torch=torch.__version__, s_step=common.stats(times),
            peak_rss_mb=common.peak_mb(), params_m=sum(p.numel() for p in parameters) / 1e6)
