"""Attention under the masks of the transformer: dense with an additive mask, or gathering blocks ("smart").

Dense is what a PyTorch program does without further thought. Smart attends image queries to the text and to
a window of rows of the picture, through overlapping views without copies, and has a backward pass of its own:
the fastest of several ways that were tried. check() compares the two.
"""
import torch
import torch.nn.functional as F

NEG = -1e9


def kind_of(layer, layers):
    """The mask of a layer, counted from 1, in the paper's order."""
    return "conv" if layer == layers else "column" if (layer - 2) % 4 == 0 else "row"


def allowed(kind, text, w, kernel=11):
    """bool [T,T] for text and w*w image tokens. The column mask here is a window in the transposed raster, cut to
    be causal: one key more than the paper's, the same blocks of work."""
    n = w * w
    m = torch.zeros(text + n, text + n, dtype=torch.bool)
    m[:text, :text] = torch.ones(text, text, dtype=torch.bool).tril()
    m[text:, :text] = True
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    if kind == "row":
        image = (j <= i) & (j >= i - w)
    elif kind == "column":
        ti, tj = (i % w) * w + i // w, (j % w) * w + j // w
        image = (tj <= ti) & (tj >= ti - w) & (j <= i)
    else:
        image = torch.zeros(n, n, dtype=torch.bool)
        r = kernel // 2
        for dr in range(r + 1):
            for dc in range(-r, r + 1):
                if dr > 0 or dc >= 0:
                    image |= i - j == dr * w + dc
        image &= j <= i
    m[text:, text:] = image
    return m


def additive(mask):
    return torch.where(mask, 0.0, NEG)


def dense(q, k, v, mask):
    """softmax(q k^T / sqrt(d) + mask) v for [G,T,d]."""
    g, t, d = q.shape
    a = torch.baddbmm(mask.to(q.dtype).expand(g, t, t), q, k.transpose(1, 2), alpha=d ** -0.5)
    return torch.bmm(torch.softmax(a, -1).to(v.dtype), v)


class Blocks(torch.autograd.Function):
    """Image queries [G,N,d] over all text keys and, for each run of rows of the picture, the keys of these rows and
    the ones before them."""

    @staticmethod
    def forward(ctx, q, k, v, kt, vt, mask, rows, halo, w, scale):
        G, N, d = q.shape
        T, run = kt.shape[1], rows * w
        nb, K = N // run, (rows + halo) * w
        kp, vp = F.pad(k, (0, 0, halo * w, 0)), F.pad(v, (0, 0, halo * w, 0))
        window = lambda x: x.as_strided((G, nb, K, d), (x.stride(0), run * d, d, 1))
        kw, vw = window(kp), window(vp)
        a = torch.empty(G, N, T + K, dtype=q.dtype)
        a4, q4 = a.view(G, nb, run, T + K), q.view(G, nb, run, d)
        torch.baddbmm(a[:, :, :T], q, kt.transpose(1, 2), alpha=scale, beta=0, out=a[:, :, :T])
        for g in range(G):
            torch.baddbmm(mask, q4[g], kw[g].transpose(1, 2), alpha=scale, out=a4[g, :, :, T:])
        p = torch.softmax(a, -1)
        p4, out = p.view(G, nb, run, T + K), torch.bmm(p[:, :, :T], vt)
        o4 = out.view(G, nb, run, d)
        for g in range(G):
            torch.baddbmm(o4[g], p4[g, :, :, T:], vw[g], out=o4[g])
        ctx.save_for_backward(q, kp, vp, kt, vt, p)
        ctx.rest = rows, halo, w, scale, a
        return out

    @staticmethod
    def backward(ctx, do):
        q, kp, vp, kt, vt, p = ctx.saved_tensors
        rows, halo, w, scale, dp = ctx.rest  # dp takes the memory of the logits
        ctx.rest = None
        G, N, d = q.shape
        T, run = kt.shape[1], rows * w
        nb, K = N // run, (rows + halo) * w
        do = do.contiguous()
        window = lambda x: x.as_strided((G, nb, K, d), (x.stride(0), run * d, d, 1))
        kw, vw = window(kp), window(vp)
        four = lambda x: x.view(G, nb, run, x.shape[-1])
        p4, do4, dp4, q4 = four(p), four(do), four(dp), four(q)
        torch.bmm(do, vt.transpose(1, 2), out=dp[:, :, :T])
        for g in range(G):
            torch.bmm(do4[g], vw[g].transpose(1, 2), out=dp4[g, :, :, T:])
        dvt = torch.bmm(p[:, :, :T].transpose(1, 2), do)
        dl = torch._softmax_backward_data(dp, p, -1, p.dtype).mul_(scale)
        dl4, dq = four(dl), torch.bmm(dl[:, :, :T], kt)
        dq4, dkt = four(dq), torch.bmm(dl[:, :, :T].transpose(1, 2), q)
        dk, dv = torch.zeros_like(kp), torch.zeros_like(vp)
        part = torch.empty(nb, K, d, dtype=q.dtype)
        lines = (N + halo * w) // w
        for g in range(G):
            torch.baddbmm(dq4[g], dl4[g, :, :, T:], kw[g], out=dq4[g])
            for to, a, b in ((dk, dl4, q4), (dv, p4, do4)):
                torch.bmm(a[g, :, :, T:].transpose(1, 2), b[g], out=part)
                line, parts = to[g].view(lines, w * d), part.view(nb, rows + halo, w * d)
                if halo <= rows:  # two groups that don't overlap: the own rows, and those before them
                    line[halo:].view(nb, rows, w * d).add_(parts[:, halo:])
                    line[:nb * rows].view(nb, rows, w * d)[:, :halo].add_(parts[:, :halo])
                else:
                    for j in range(rows + halo):
                        line[j:j + (nb - 1) * rows + 1:rows].add_(parts[:, j])
        return dq, dk[:, halo * w:], dv[:, halo * w:], dkt, dvt, None, None, None, None, None


class Smart:
    """The masks and sizes of the blocks of one kind of layer."""

    def __init__(s, kind, text, w):
        s.kind, s.text, s.w = kind, text, w
        s.halo = 6 if kind == "conv" else 1
        s.rows = min(4 if kind == "conv" else 2, w)
        m = allowed(kind, text, w)
        s.text_mask = additive(m[:text, :text])[None]
        image, n, run = m[text:, text:], w * w, s.rows * w
        if kind == "column":
            order = torch.arange(n).view(w, w).t().reshape(-1)
            image = image[order][:, order]
        s.mask = torch.full((w // s.rows, run, run + s.halo * w), NEG)
        for b in range(w // s.rows):
            low = (b * s.rows - s.halo) * w
            for key in range(run + s.halo * w):
                if low + key >= 0:
                    s.mask[b, :, key] = torch.where(image[b * run:(b + 1) * run, low + key], 0.0, NEG)

    def __call__(s, qkv):
        """qkv [B,T,3,H,d] to [B,T,H*d]."""
        B, T, _, H, d = qkv.shape
        t, w, n, G = s.text, s.w, s.w * s.w, B * H
        qt, kt, vt = qkv[:, :t].permute(2, 0, 3, 1, 4).reshape(3, G, t, d).contiguous().unbind(0)
        order = (3, 0, 4, 2, 1, 5) if s.kind == "column" else (3, 0, 4, 1, 2, 5)
        qi, ki, vi = qkv[:, t:].reshape(B, w, w, 3, H, d).permute(*order).reshape(3, G, n, d).contiguous().unbind(0)
        ot = dense(qt, kt, vt, s.text_mask)
        oi = Blocks.apply(qi, ki, vi, kt, vt, s.mask.to(qi.dtype), s.rows, s.halo, w, d ** -0.5)
        order = (0, 3, 2, 1, 4) if s.kind == "column" else (0, 2, 3, 1, 4)
        oi = oi.view(B, H, w, w, d).permute(*order).reshape(B, n, H * d)
        return torch.cat([ot.view(B, H, t, d).transpose(1, 2).reshape(B, t, H * d), oi], 1)


class Dense:
    def __init__(s, kind, text, w):
        s.mask = additive(allowed(kind, text, w))[None]

    def __call__(s, qkv):
        B, T, _, H, d = qkv.shape
        q, k, v = qkv.permute(2, 0, 3, 1, 4).reshape(3, B * H, T, d).unbind(0)
        return dense(q, k, v, s.mask).view(B, H, T, d).transpose(1, 2).reshape(B, T, H * d)
