#!/usr/bin/env python3
"""Writes testdata/*.safetensors: the three models at tiny sizes in PyTorch.

The models are written here a second time, from the paper and its released
autoencoder, sharing nothing with the Go sources but parameter names, layouts
and the sizes below. Each file holds, in float64:

    param.NAME    parameters before the first step
    input.NAME    inputs of the train function (int32 or float64)
    step1.NAME    scalar results of the first step
    step3.NAME    scalar results of the third step
    grad.NAME     gradient of the loss in the first step
    after.NAME    parameters after three AdamW steps
    extra.NAME    further values: logits, features, images

Run it with Debian's python3-torch and python3-numpy, no arguments. The output
is deterministic up to the last bits of PyTorch's sums.
"""
import json
import math
import os
import struct

import numpy as np
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

LR, CLIP_SHARE = 3e-3, 0.5


def save(path, tensors):
    kinds = {np.dtype("float64"): "F64", np.dtype("int32"): "I32"}
    header, blobs, at = {}, [], 0
    for name in sorted(tensors):
        a = np.ascontiguousarray(tensors[name])
        b = a.tobytes()
        header[name] = {"dtype": kinds[a.dtype], "shape": list(np.shape(tensors[name])), "data_offsets": [at, at + len(b)]}
        blobs.append(b)
        at += len(b)
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


class Params(dict):
    """Parameters by name, filled from a seed in the order of first use."""

    def __init__(self, seed):
        super().__init__()
        self.rng = np.random.RandomState(seed)

    def get_(self, name, shape, std=0.3, mean=0.0):
        if name not in self:
            a = mean + std * self.rng.standard_normal(shape)
            a = np.asarray(a, np.float32).astype(np.float64)  # exact in f32
            self[name] = torch.tensor(a, requires_grad=True)
        assert tuple(self[name].shape) == tuple(shape), name
        return self[name]


def philox(seed, step, stream, n):
    """The first n words of Philox4x32-10 for counters (0, stream, 0, 0), (1, stream, 0, 0), ..."""
    m0, m1, w0, w1, mask = 0xD2511F53, 0xCD9E8D57, 0x9E3779B9, 0xBB67AE85, 0xFFFFFFFF
    out = np.zeros(n, np.uint32)
    for e in range(0, n, 4):
        c = [e // 4, stream, 0, 0]
        k = [seed & mask, step & mask]
        for _ in range(10):
            p0, p1 = m0 * c[0], m1 * c[2]
            c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & mask, (p0 >> 32) ^ c[3] ^ k[1], p0 & mask]
            k = [(k[0] + w0) & mask, (k[1] + w1) & mask]
        out[e : e + 4] = c[: n - e]
    return out


# Philox4x32-10 of counter 0 and key 0, from Random123's known answers.
assert [hex(w) for w in philox(0, 0, 0, 4)] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


def uniform(seed, step, stream, shape):
    words = philox(seed, step, stream, int(np.prod(shape)))
    return torch.tensor(((words >> 9).astype(np.float64) + 0.5) / 2**23).reshape(shape)


def train(params, loss_of, no_decay, betas, decay):
    """Three AdamW steps; the second and third clip the gradient to half its norm."""
    names = list(params)
    groups = [
        {"params": [params[n] for n in names if params[n].dim() >= 2 and n not in no_decay], "weight_decay": decay},
        {"params": [params[n] for n in names if params[n].dim() < 2 or n in no_decay], "weight_decay": 0.0},
    ]
    out = {"param." + n: params[n].detach().numpy().copy() for n in names}
    opt = torch.optim.AdamW(groups, lr=LR, betas=betas, eps=1e-8)
    for step in (1, 2, 3):
        opt.zero_grad()
        results = loss_of(step)
        results["loss"].backward()
        for n in names:
            assert params[n].grad is not None, n
        norm = math.sqrt(sum(float((params[n].grad**2).sum()) for n in names))
        if step == 1:
            clip = 0.0
            for n in names:
                out["grad." + n] = params[n].grad.numpy().copy()
        else:
            clip = CLIP_SHARE * norm
            for n in names:
                params[n].grad.mul_(CLIP_SHARE)
        out["input.clip%d" % step] = np.array(clip)
        for k, v in results.items():
            out["step%d.%s" % (step, k)] = np.array(float(v))
        out["step%d.grad_norm" % step] = np.array(norm)
        opt.step()
    for n in names:
        out["after." + n] = params[n].detach().numpy().copy()
    out["input.lr"] = np.array(LR)
    return out


# ------------------------------------------------------------------ dVAE

DVAE = dict(size=8, width=8, groups=2, blocks=2, codebook=8, stem=3, code=4, batch=2, eps=0.1)


def conv(p, name, x, cin, cout, k):
    """x is NCHW; 1x1 weights are [cin, cout], others [k, k, cin, cout]."""
    if k == 1:
        w = p.get_(name + ".w", (cin, cout)).t()[:, :, None, None]
    else:
        w = p.get_(name + ".w", (k, k, cin, cout)).permute(3, 2, 0, 1)
    return F.conv2d(x, w, p.get_(name + ".b", (cout,), 0.1), padding=(k - 1) // 2)


def dvae_block(p, name, x, cin, cout, kernels, gain):
    h, width = x, cin
    for i, k in enumerate(kernels):
        to = cout if i == 3 else cout // 4
        h = conv(p, "%s.conv%d" % (name, i + 1), F.relu(h), width, to, k)
        width = to
    skip = x if cin == cout else conv(p, name + ".skip", x, cin, cout, 1)
    return skip + gain * h


def dvae_encode(p, c, images):
    x = conv(p, "enc.in", images.permute(0, 3, 1, 2), 3, c["width"], c["stem"])
    cin, gain = c["width"], 1 / (c["groups"] * c["blocks"]) ** 2
    for g in range(c["groups"]):
        for b in range(c["blocks"]):
            cout = c["width"] * 2**g
            x = dvae_block(p, "enc.group%d.block%d" % (g + 1, b + 1), x, cin, cout, (3, 3, 3, 1), gain)
            cin = cout
        if g < c["groups"] - 1:
            x = F.max_pool2d(x, 2)
    return conv(p, "enc.out", F.relu(x), cin, c["codebook"], 1)


def dvae_decode(p, c, z):
    x = conv(p, "dec.in", z, c["codebook"], c["code"], 1)
    cin, gain = c["code"], 1 / (c["groups"] * c["blocks"]) ** 2
    for g in range(c["groups"]):
        for b in range(c["blocks"]):
            cout = c["width"] * 2 ** (c["groups"] - 1 - g)
            x = dvae_block(p, "dec.group%d.block%d" % (g + 1, b + 1), x, cin, cout, (1, 3, 3, 3), gain)
            cin = cout
        if g < c["groups"] - 1:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
    return conv(p, "dec.out", F.relu(x), cin, 6, 1)


def dvae_loss(p, c, images, z, logits, beta):
    out = dvae_decode(p, c, z)
    mu, lnb = out[:, :3], out[:, 3:].clamp(-7, 7)
    x = (1 - 2 * c["eps"]) * images.permute(0, 3, 1, 2) + c["eps"]
    density = torch.distributions.Laplace(mu, lnb.exp())
    nll = -density.log_prob(torch.logit(x)) + torch.log(x * (1 - x))
    q = F.softmax(logits, 1)
    kl = math.log(c["codebook"]) + (q * F.log_softmax(logits, 1)).sum(1)
    recon = nll.mean()
    loss = recon + beta * kl.sum() / nll.numel()
    return {"loss": loss, "reconstruction": recon, "kl": kl.mean()}


def dvae():
    c, p = DVAE, Params(1)
    rng = np.random.RandomState(11)
    images = torch.tensor(rng.uniform(size=(c["batch"], c["size"], c["size"], 3)).astype(np.float32).astype(np.float64))
    seed, tau, beta = 1234, 0.7, 6.6

    def loss_of(step):
        logits = dvae_encode(p, c, images)
        n, k, h, w = logits.shape
        u = uniform(seed, step, 0, (n, h, w, k)).permute(0, 3, 1, 2)
        z = F.softmax((logits - torch.log(-torch.log(u))) / tau, 1)
        return dvae_loss(p, c, images, z, logits, beta)

    with torch.no_grad():
        logits = dvae_encode(p, c, images)
        tokens = logits.argmax(1)
        hard = F.one_hot(tokens, c["codebook"]).permute(0, 3, 1, 2).double()
        pixels = torch.sigmoid(dvae_decode(p, c, hard)[:, :3])
        pixels = ((pixels - c["eps"]) / (1 - 2 * c["eps"])).clamp(0, 1).permute(0, 2, 3, 1)
        hard_loss = dvae_loss(p, c, images, hard, logits, beta)
        soft = loss_of(1)
    extra = {"extra.logits": logits.permute(0, 2, 3, 1).numpy().copy(), "extra.images": pixels.numpy().copy()}
    extra["extra.tokens"] = tokens.numpy().astype(np.int32)
    for k, v in hard_loss.items():
        extra["extra.eval_" + k] = np.array(float(v))
    assert math.isfinite(float(soft["loss"]))
    out = train(p, loss_of, (), (0.9, 0.999), 1e-4)
    out.update(extra)
    out["input.images"] = images.numpy()
    out["input.seed"] = np.array(seed, np.int32)
    out["input.tau"], out["input.beta"] = np.array(tau), np.array(beta)
    return out


# ----------------------------------------------------------- transformer

PRIOR = dict(text=4, text_vocab=10, w=4, h=4, image_vocab=12, dim=8, heads=2, layers=6, kernel=3, batch=2)


def layer_norm(p, name, x, eps):
    d = x.shape[-1]
    return F.layer_norm(x, (d,), p.get_(name + ".gain", (d,), 0.1, 1.0), p.get_(name + ".bias", (d,), 0.1), eps)


def linear(p, name, x, n):
    return x @ p.get_(name + ".w", (x.shape[-1], n)) + p.get_(name + ".b", (n,), 0.1)


def block(p, name, x, heads, allowed):
    b, t, d = x.shape
    n = layer_norm(p, name + ".attn.norm", x, 1e-5)
    qkv = linear(p, name + ".attn.qkv", n, 3 * d).view(b, t, 3, heads, d // heads)
    q, k, v = (qkv[:, :, i].transpose(1, 2) for i in range(3))
    s = q @ k.transpose(-1, -2) / math.sqrt(d // heads)
    a = F.softmax(s.masked_fill(~allowed, -math.inf), -1) @ v
    x = x + linear(p, name + ".attn.out", a.transpose(1, 2).reshape(b, t, d), d)
    n = layer_norm(p, name + ".mlp.norm", x, 1e-5)
    h = linear(p, name + ".mlp.in", n, 4 * d)
    return x + linear(p, name + ".mlp.out", h * torch.sigmoid(1.702 * h), d)


def prior_mask(c, layer):
    """Layers count from 1."""
    text, w = c["text"] + 1, c["w"]
    t = c["text"] + c["w"] * c["h"]
    allowed = torch.zeros(t, t, dtype=torch.bool)
    if layer == c["layers"]:
        kind, r = "conv", c["kernel"] // 2
        window = {dr * w + dc for dr in range(r + 1) for dc in range(-r, r + 1)}
    else:
        kind = "column" if (layer - 2) % 4 == 0 else "row"
    for i in range(t):
        for j in range(i + 1):
            if j < text:
                ok = True
            elif kind == "row":
                ok = i - j <= w
            elif kind == "column":
                ok = (i - j) % w == 0
            else:
                ok = i - j in window
            allowed[i, j] = ok
    return allowed


def prior_logits(p, c, text, image):
    d, b = c["dim"], text.shape[0]
    classes = c["text_vocab"] + c["text"]
    table = p.get_("embed.token", (classes + 1 + c["image_vocab"], d))
    start = torch.full((b, 1), classes)
    x = table[torch.cat([start, text, image[:, :-1] + classes + 1], 1)]
    grid = p.get_("embed.row", (c["h"], 1, d)) + p.get_("embed.column", (1, c["w"], d))
    pos = torch.cat([p.get_("embed.text_position", (c["text"] + 1, d)), grid.reshape(-1, d)[:-1]])
    x = x + pos
    for i in range(c["layers"]):
        x = block(p, "layer%d" % i, x, c["heads"], prior_mask(c, i + 1))
    x = layer_norm(p, "norm", x, 1e-6)
    return (x[:, : c["text"]] @ p.get_("unembed.text.w", (d, classes)),
            x[:, c["text"]:] @ p.get_("unembed.image.w", (d, c["image_vocab"])))


def prior():
    c, p = PRIOR, Params(2)
    rng = np.random.RandomState(12)
    text = rng.randint(0, c["text_vocab"], (c["batch"], c["text"]))
    text[0, 2:] = c["text_vocab"] + np.arange(2, c["text"])  # pads of these positions
    image = rng.randint(0, c["image_vocab"], (c["batch"], c["w"] * c["h"]))
    tt, ti = torch.tensor(text), torch.tensor(image)

    def loss_of(_):
        lt, li = prior_logits(p, c, tt, ti)
        a = F.cross_entropy(lt.flatten(0, 1), tt.flatten())
        b = F.cross_entropy(li.flatten(0, 1), ti.flatten())
        return {"loss": a / 8 + 7 * b / 8, "text_loss": a, "image_loss": b}

    with torch.no_grad():
        lt, li = prior_logits(p, c, tt, ti)
    out = train(p, loss_of, ("embed.text_position", "embed.row", "embed.column"), (0.9, 0.96), 4.5e-2)
    out["extra.text_logits"], out["extra.image_logits"] = lt.numpy().copy(), li.numpy().copy()
    out["input.text"], out["input.image"] = text.astype(np.int32), image.astype(np.int32)
    return out


# ----------------------------------------------------------- contrastive

CLIP = dict(size=8, patch=4, text=5, vocab=12, dim=8, heads=2, layers=2, embed=6, batch=3)


def clip_image(p, c, images):
    b, g, k, d = images.shape[0], c["size"] // c["patch"], c["patch"], c["dim"]
    w = p.get_("image.patch.w", (k * k * 3, d)).view(k, k, 3, d).permute(3, 2, 0, 1)
    x = F.conv2d(2 * images.permute(0, 3, 1, 2) - 1, w, stride=k).flatten(2).transpose(1, 2)
    x = torch.cat([p.get_("image.class", (1, d)).expand(b, 1, d), x], 1)
    x = layer_norm(p, "image.pre", x + p.get_("image.position", (g * g + 1, d)), 1e-5)
    full = torch.ones(g * g + 1, g * g + 1, dtype=torch.bool)
    for i in range(c["layers"]):
        x = block(p, "image.layer%d" % i, x, c["heads"], full)
    x = layer_norm(p, "image.post", x[:, 0], 1e-5) @ p.get_("image.projection", (d, c["embed"]))
    return x / x.norm(dim=-1, keepdim=True)


def clip_text(p, c, text, end):
    b, d = text.shape[0], c["dim"]
    x = p.get_("text.token", (c["vocab"], d))[text] + p.get_("text.position", (c["text"], d))
    causal = torch.ones(c["text"], c["text"], dtype=torch.bool).tril()
    for i in range(c["layers"]):
        x = block(p, "text.layer%d" % i, x, c["heads"], causal)
    x = layer_norm(p, "text.norm", x, 1e-5)[torch.arange(b), end]
    x = x @ p.get_("text.projection", (d, c["embed"]))
    return x / x.norm(dim=-1, keepdim=True)


def clip():
    c, p = CLIP, Params(3)
    rng = np.random.RandomState(13)
    images = rng.uniform(size=(c["batch"], c["size"], c["size"], 3)).astype(np.float32).astype(np.float64)
    text = rng.randint(0, c["vocab"], (c["batch"], c["text"]))
    end = np.array([1, 4, 2])
    ti, tt, te = torch.tensor(images), torch.tensor(text), torch.tensor(end)
    with torch.no_grad():
        p.get_("temperature", (), 0.0, math.log(1 / 0.07))

    def loss_of(_):
        s = p["temperature"].exp().clamp(max=100) * clip_image(p, c, ti) @ clip_text(p, c, tt, te).t()
        y = torch.arange(c["batch"])
        return {"loss": (F.cross_entropy(s, y) + F.cross_entropy(s.t(), y)) / 2}

    with torch.no_grad():
        fi, ft = clip_image(p, c, ti), clip_text(p, c, tt, te)
    out = train(p, loss_of, ("image.class", "image.position", "text.position"), (0.9, 0.98), 0.2)
    out["extra.image_features"], out["extra.text_features"] = fi.numpy().copy(), ft.numpy().copy()
    out["input.images"], out["input.text"], out["input.end"] = images, text.astype(np.int32), end.astype(np.int32)
    return out


if __name__ == "__main__":
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "testdata")
    for name, make in (("dvae", dvae), ("prior", prior), ("clip", clip)):
        tensors = make()
        save(os.path.join(here, name + ".safetensors"), tensors)
        print(name, "loss", float(tensors["step1.loss"]), "then", float(tensors["step3.loss"]), "norm", float(tensors["step1.grad_norm"]))
