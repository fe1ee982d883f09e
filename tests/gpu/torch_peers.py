#!/usr/bin/env python3
"""Times PyTorch on the work our CUDA kernels are compared with (one H100/H200, PyTorch 2.11).

    python3 tests/gpu/torch_peers.py --out $OUT/torch.jsonl [--budget 130] [--only REGEX] [--amp fp16|bf16] [--list]

One JSON line per row on stdout and in --out, a table at the end. Rows run in order of importance; no row starts after
--budget seconds (counted from the start of this script, imports included), nor one whose rough cost would end more than 10 s
after it; such rows are printed as skipped. A watchdog ends the process --grace seconds after the budget.
Times are GPU times between CUDA events with the launches queued ahead, so Python's own overhead is hidden (in PyTorch's
favour); the training step alone is timed as it runs, with wall time beside. Compile time is never in a row's ms.
Shapes: paper-spec.md section B; 256 text + 32x32 image tokens, image at position 256 (no start token, so that every mask
falls on a tile boundary: in PyTorch's favour).
"""
import time
T0 = time.perf_counter()
import argparse, contextlib, dataclasses, gc, json, math, os, re, statistics, subprocess, sys, threading, traceback, warnings

ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
ap.add_argument('--out', default='')
ap.add_argument('--only', default='', help='run rows whose name matches this regular expression')
ap.add_argument('--budget', type=float, default=130., help='seconds after which no row starts')
ap.add_argument('--grace', type=float, default=30., help='seconds after the budget at which the process ends itself')
ap.add_argument('--amp', choices=['fp16', 'bf16'], default='fp16', help='autocast type of the block and step rows')
ap.add_argument('--layers', type=int, default=16)
ap.add_argument('--list', action='store_true', help='list the rows and exit (needs no GPU)')
A = ap.parse_args()

# ---------------------------------------------------------------- output
RES, OUTF, PEAK, LOCK = [], (open(A.out, 'w') if A.out else None), {}, threading.Lock()

def put(r):
    r = {k: (float('%.6g' % v) if isinstance(v, float) else v) for k, v in r.items() if v is not None}
    r['t'] = round(time.perf_counter() - T0, 1)
    with LOCK:
        RES.append(r)
        s = json.dumps(r)
        print(s, flush=True)
        if OUTF:
            OUTF.write(s + '\n'); OUTF.flush()

def emit(name, ms, dtype, note='', flops=None, nbytes=None, **extra):
    """ms: (median, min, repetitions)"""
    med, mn, n = ms
    r = dict(name=name, ms=med, min_ms=mn, tflops=flops / med / 1e9 if flops else None,
             gbps=nbytes / med / 1e6 if nbytes else None, dtype=dtype, note=note, reps=n)
    if flops and PEAK.get('tflops'): r['of_peak'] = r['tflops'] / PEAK['tflops']
    if nbytes and PEAK.get('gbps'): r['of_copy'] = r['gbps'] / PEAK['gbps']
    r.update(extra)
    put(r)

def table():
    print('\n%-42s %9s %9s %8s %8s %6s %-5s %s' % ('row', 'ms', 'min', 'TFLOP/s', 'GB/s', '%peak', 'type', 'note'))
    for r in list(RES):
        if 'ms' not in r:
            print('%-42s %s' % (r['name'], r.get('error', r.get('skipped', r.get('note', '')))[:110])); continue
        p = r.get('of_peak', r.get('of_copy'))
        print('%-42s %9.4f %9.4f %8s %8s %6s %-5s %s' % (r['name'], r['ms'], r['min_ms'],
              '%.1f' % r['tflops'] if 'tflops' in r else '-', '%.0f' % r['gbps'] if 'gbps' in r else '-',
              '%.1f' % (100 * p) if p else '-', r['dtype'], r['note'][:60]))
    sys.stdout.flush()

def die():
    try:
        put(dict(name='watchdog', error='stopped %.0f s after the start, a row was still running' % (time.perf_counter() - T0)))
        table()
    finally:
        os._exit(3)

# ---------------------------------------------------------------- shapes and masks
T, W = 256, 32
N = W * W
S = T + N                                  # 1280
B = 8
M = B * S                                  # 10240
HD = 64
VT, VI = 16384, 8192

# Masks as FlexAttention mask functions; the constants are 256 = T, 32 = W. They also work on plain integers (selftest below).
def m_row(b, h, q, k):                     # raster window: offsets 0..32
    d = q - k
    return (d >= 0) & ((k < 256) | (d <= 32))
def m_col(b, h, q, k):                     # same column, rows above, in raster order
    d = q - k
    return (d >= 0) & ((k < 256) | ((d & 31) == 0))
def m_colt(b, h, q, k):                    # the same mask on transposed image states: causal inside each block of 32
    d = q - k
    return (d >= 0) & ((k < 256) | (d <= (q & 31)))
def m_conv(b, h, q, k):                    # 61 flat offsets dr*32+dc >= 0, dr 0..5, dc -5..5
    d = q - k
    e = d + 5
    return (d >= 0) & ((k < 256) | ((e < 192) & ((e & 31) <= 10)))
MASKS = dict(row=m_row, col=m_col, colt=m_colt, conv=m_conv)

def kind_of(i, n):                         # 1-based layer number, the paper's order
    return 'conv' if i == n else ('colt' if (i - 2) % 4 == 0 else 'row')

def pairs_of(kind):                        # allowed (query, key) pairs, counted on the host
    text = T * (T + 1) // 2 + N * T
    if kind == 'row': im = sum(min(i, W) + 1 for i in range(N))
    elif kind in ('col', 'colt'): im = sum(i // W + 1 for i in range(N))
    elif kind == 'conv':
        offs = [dr * W + dc for dr in range(6) for dc in range(-5, 6) if dr * W + dc >= 0]
        assert len(offs) == 61
        im = sum(sum(1 for o in offs if o <= i) for i in range(N))
    else: return S * (S + 1) // 2          # causal
    return text + im

# ---------------------------------------------------------------- rows are registered in order of importance
ROWS = []
def row(name, est, fn, *a, **k): ROWS.append((name, est, lambda: fn(name, *a, **k)))

def timeit(fn, target=0.08, lo=7, hi=50, warm=4, ahead=3e7):
    """fn(i) enqueues one repetition. -> (median ms, min ms, repetitions); launches are queued behind a sleeping kernel."""
    for i in range(warm): fn(i)
    torch.cuda.synchronize()
    ev = lambda: torch.cuda.Event(enable_timing=True)
    a, b = ev(), ev()
    a.record(); fn(warm); b.record(); torch.cuda.synchronize()
    n = max(lo, min(hi, int(target * 1e3 / max(a.elapsed_time(b), 1e-3))))
    es = [(ev(), ev()) for _ in range(n)]
    torch.cuda._sleep(int(ahead))
    for i, (s, e) in enumerate(es):
        s.record(); fn(i); e.record()
    torch.cuda.synchronize()
    ts = [s.elapsed_time(e) for s, e in es]
    return statistics.median(ts), min(ts), n

def rnd(*sh, dtype=None, std=1.):
    x = torch.randn(*sh, device='cuda', dtype=dtype or torch.float32)
    return x if std == 1. else x.mul_(std)

def nm(dt): return {torch.float16: 'fp16', torch.bfloat16: 'bf16', torch.float32: 'fp32'}[dt]
def DT(s): return {'fp16': torch.float16, 'bf16': torch.bfloat16, 'fp32': torch.float32}[s]

# ---- device
def r_device(name):
    p = torch.cuda.get_device_properties(0)
    smi = ''
    try:
        smi = subprocess.run(['nvidia-smi', '--query-gpu=driver_version,name,clocks.max.sm,power.limit,temperature.gpu', '--format=csv,noheader'],
                             capture_output=True, text=True, timeout=10).stdout.strip()
    except Exception as e: smi = 'nvidia-smi: %s' % type(e).__name__
    xs = [(rnd(8192, 8192, dtype=torch.bfloat16), rnd(8192, 8192, dtype=torch.bfloat16)) for _ in range(2)]
    c = torch.empty(8192, 8192, device='cuda', dtype=torch.bfloat16)
    g = timeit(lambda i: torch.matmul(*xs[i % 2], out=c), warm=150)   # long warm-up: the clocks start idle
    PEAK['tflops'] = 2 * 8192 ** 3 / g[0] / 1e9
    del xs, c
    n = 1 << 29                            # 2 GiB of fp32
    src = rnd(n); dst = torch.empty_like(src)
    q = timeit(lambda i: dst.copy_(src))
    PEAK['gbps'] = 2 * 4 * n / q[0] / 1e6
    try: import triton; tv = triton.__version__
    except Exception: tv = '?'
    emit(name, g, 'bf16', 'bf16 8192^3 matmul, random data; copy of 2 GiB, bytes read + written', flops=2 * 8192 ** 3,
         device=p.name, smi=smi, torch=torch.__version__, cuda=torch.version.cuda, triton=tv, python=sys.version.split()[0],
         sms=p.multi_processor_count, l2_mb=round(getattr(p, 'L2_cache_size', 0) / 2 ** 20), mem_gb=round(p.total_memory / 2 ** 30, 1),
         copy_gbps=PEAK['gbps'], copy_ms=q[0],
         fp16_reduced_reduction=str(torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction))

# ---- GEMM: out [m,n], inner k; form NN: A[m,k] B[k,n]; NT: B stored [n,k]; TN: A stored [k,m]
def r_gemm(name, m, n, k, form, dt='fp16', note=''):
    d = DT(dt)
    sets = []
    for _ in range(3):
        a = rnd(k, m, dtype=d).t() if form == 'TN' else rnd(m, k, dtype=d)
        b = rnd(n, k, dtype=d).t() if form == 'NT' else rnd(k, n, dtype=d)
        sets.append((a, b, torch.empty(m, n, device='cuda', dtype=d)))
    def f(i):
        a, b, c = sets[i % 3]
        torch.matmul(a, b, out=c)
    emit(name, timeit(f, target=0.06, hi=40), dt, note, flops=2 * m * n * k)

def gemms(d, dt='fp16', forms='abcdef'):
    suf = '' if dt == 'fp16' else '_' + dt
    for key, m, n, k, form, note in (('a', M, 4 * d, d, 'NN', 'x[M,d] w[d,4d]'), ('b', M, d, 4 * d, 'NN', 'x[M,4d] w[4d,d]'),
                                     ('e', M, d, 4 * d, 'NT', 'dX of the first: dy[M,4d] w[d,4d]^T'),
                                     ('f', d, 4 * d, M, 'TN', 'dW of the first: x[M,d]^T dy[M,4d]'),
                                     ('d', M, 3 * d, d, 'NN', 'x[M,d] w[d,3d]'), ('c', M, d, d, 'NN', 'x[M,d] w[d,d]')):
        if key in forms:
            row('gemm_%dx%dx%d_%s%s' % (m, n, k, form, suf), .5, r_gemm, m, n, k, form, dt, 'd=%d: %s' % (d, note))

# ---- attention at batch 8, 62 heads
H62 = 62
def qkvdo(dt):
    q, k, v = (torch.randn(B, H62, S, HD, device='cuda', dtype=dt).requires_grad_() for _ in range(3))
    return q, k, v, torch.randn(B, H62, S, HD, device='cuda', dtype=dt)

def att_rows(name, f, q, k, v, do, pairs, dt, note, **extra):
    P = pairs * B * H62
    emit(name + '_fwd', timeit(lambda i: f(q, k, v)), nm(dt), note, flops=4 * HD * P, pairs=pairs, **extra)
    def fb(i): torch.autograd.grad(f(q, k, v), (q, k, v), do)
    emit(name + '_fwdbwd', timeit(fb), nm(dt), note, flops=14 * HD * P, pairs=pairs, **extra)

def r_sdpa(name, backend, dt='fp16'):
    from torch.nn.attention import sdpa_kernel, SDPBackend
    d = DT(dt); q, k, v, do = qkvdo(d)
    with sdpa_kernel([getattr(SDPBackend, backend)]):
        att_rows(name, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), q, k, v, do, pairs_of('causal'), d,
                 'causal over all 1280, flops by causal pairs')

def dense(kind):
    i = torch.arange(S, device='cuda')
    return MASKS[kind](0, 0, i[:, None], i[None, :])

BM = {}
def block_mask(kind, bs=128):
    if (kind, bs) not in BM:
        BM[kind, bs] = create_block_mask(MASKS[kind], None, None, S, S, device='cuda', BLOCK_SIZE=bs)
    return BM[kind, bs]

CC = {}
def compiled(f):                           # one compiled object per function; each mask, type and shape is its own graph in it
    if f not in CC: CC[f] = torch.compile(f, dynamic=False, fullgraph=True)
    return CC[f]

def rel(a, b): return ((a.float() - b.float()).norm() / b.float().norm()).item()

@contextlib.contextmanager
def small_backward(on):
    """Inductor's backward tile on Hopper at head size 64 is 64x128 in some versions and cannot be set by kernel_options (read in its
    source); a 64 block needs 64x64, so its table is overridden while such a row compiles."""
    cls = old = None
    if on:
        try:
            from torch._inductor.choices import InductorChoices as cls
            old = cls.get_flex_attention_bwd_configs
            def new(self, *a, **k):
                return [dataclasses.replace(c, block_m1=64, block_n1=64, block_m2=64, block_n2=64, num_warps=4) for c in old(self, *a, **k)[:1]]
            cls.get_flex_attention_bwd_configs = new
        except Exception as e: old = None; print('small_backward: %r' % e, file=sys.stderr)
    try: yield
    finally:
        if old is not None: cls.get_flex_attention_bwd_configs = old

def r_flex(name, kind, bs=128, dt='fp16', opts=None):
    try:
        with small_backward(bs == 64): flex_row(name, kind, bs, dt, opts)
    except Exception:
        if bs != 128 and not any(r['name'].startswith(name + '_fwd') for r in RES):   # perhaps only the backward does not compile
            q, k, v, _ = qkvdo(DT(dt)); bm = block_mask(kind, bs); fl = compiled(flex_attention)
            with torch.no_grad():
                emit(name + '_fwd', timeit(lambda i: fl(q, k, v, block_mask=bm, kernel_options=opts)), dt,
                     'forward alone (no_grad; forward + backward failed), unchecked', flops=4 * HD * pairs_of(kind) * B * H62)
        raise

def flex_row(name, kind, bs, dt, opts):
    d = DT(dt); q, k, v, do = qkvdo(d); bm = block_mask(kind, bs); m = dense(kind)
    pairs = int(m.sum())
    if pairs != pairs_of(kind): raise RuntimeError('mask %s has %d pairs, %d expected' % (kind, pairs, pairs_of(kind)))
    fl = compiled(flex_attention)
    f = (lambda q, k, v: fl(q, k, v, block_mask=bm, kernel_options=opts)) if opts else (lambda q, k, v: fl(q, k, v, block_mask=bm))
    t = time.perf_counter()
    o = f(q, k, v); g = torch.autograd.grad(o, (q, k, v), do); torch.cuda.synchronize()
    ct = time.perf_counter() - t
    # check against a dense softmax in fp32 on two heads
    r = [x[:1, :2].detach().float().requires_grad_() for x in (q, k, v)]
    a = (r[0] @ r[1].transpose(-1, -2) * HD ** -.5).masked_fill(~m, -math.inf).softmax(-1)
    ro = a @ r[2]; rg = torch.autograd.grad(ro, r, do[:1, :2].float())
    e = rel(o[:1, :2], ro), max(rel(x[:1, :2], y) for x, y in zip(g, rg))
    bad = '' if e[0] < .02 and e[1] < .05 else 'WRONG RESULT, do not use; '
    del o, g, r, a, ro, rg
    att_rows(name, f, q, k, v, do, pairs, d, bad + 'FlexAttention %s, block %s%s' % (kind, bs, ' tiles 64x64' if opts else ' (default)'),
             err_fwd=e[0], err_bwd=e[1], compile_s=ct, visited=1 - bm.sparsity() / 100)

# ---- one residual block and the whole model, mixed precision: fp32 weights and residual, autocast for the products
def swap(h):                               # transpose the image grid; its own inverse
    b, s, d = h.shape
    return torch.cat([h[:, :T], h[:, T:].reshape(b, W, W, d).transpose(1, 2).reshape(b, N, d)], 1)

def attn_half(x, g, b, wqkv, bqkv, wo, bo, bm, tr):
    Bx, Sx, d = x.shape
    h = F.layer_norm(x, (d,), g, b).to(AMP)
    if tr: h = swap(h)
    q, k, v = F.linear(h, wqkv, bqkv).view(Bx, Sx, 3, d // HD, HD).permute(2, 0, 3, 1, 4).unbind(0)
    o = flex_attention(q, k, v, block_mask=bm)
    y = F.linear(o.transpose(1, 2).reshape(Bx, Sx, d), wo, bo)
    if tr: y = swap(y)
    return x + y

def mlp_half(x, g, b, w1, b1, w2, b2):
    h = F.layer_norm(x, (x.shape[-1],), g, b).to(AMP)
    u = F.linear(h, w1, b1)
    return x + F.linear(u * torch.sigmoid(1.702 * u), w2, b2)

def block_fn(x, ap_, mp, bm, tr): return mlp_half(attn_half(x, *ap_, bm, tr), *mp)

def head_loss(x, g, b, wt, bt, wi, bi, t, im):
    d = x.shape[-1]
    h = F.layer_norm(x, (d,), g, b).to(AMP)      # position p predicts token p+1; position T-1 predicts image token 0
    lt = F.cross_entropy(F.linear(h[:, :T - 1].reshape(-1, d), wt, bt).float(), t[:, 1:].reshape(-1))
    li = F.cross_entropy(F.linear(h[:, T - 1:S - 1].reshape(-1, d), wi, bi).float(), im.reshape(-1))
    return lt / 8 + 7 * li / 8

def par(*sh, std=.02): return torch.nn.Parameter(rnd(*sh, std=std))
def const(n, v): return torch.nn.Parameter(torch.full((n,), v, device='cuda'))
def attn_par(d, n): return [const(d, 1.), const(d, 0.), par(3 * d, d), const(3 * d, 0.), par(d, d, std=.02 / math.sqrt(2 * n)), const(d, 0.)]
def mlp_par(d, n): return [const(d, 1.), const(d, 0.), par(4 * d, d), const(4 * d, 0.), par(d, 4 * d, std=.02 / math.sqrt(2 * n)), const(d, 0.)]
def autocast(): return torch.autocast('cuda', dtype=AMP)

MIX = 'autocast %s, fp32 weights (casts counted), fp32 residual'
def r_block(name, which, d=1920):
    ps = mlp_par(d, 16) if which == 'mlp' else attn_par(d, 16)
    x = rnd(B, S, d).requires_grad_(); dy = rnd(B, S, d, std=.01)
    if which == 'mlp':
        c = compiled(mlp_half); f = lambda: c(x, *ps); fl = 6 * M * 8 * d * d
    else:
        c = compiled(attn_half); bm = block_mask('row'); f = lambda: c(x, *ps, bm, False)
        fl = 6 * M * 4 * d * d + 14 * HD * pairs_of('row') * B * (d // HD)
    def fb(i=0):
        with autocast(): y = f()
        torch.autograd.grad(y, [x] + ps, dy)
    def fo(i):
        with autocast(): f()
    t = time.perf_counter(); fb(); torch.cuda.synchronize(); ct = time.perf_counter() - t
    note = MIX % A.amp + (', row mask, Flex block 128' if which != 'mlp' else ', quick GELU')
    emit(name + '_fwdbwd', timeit(fb), A.amp, note, flops=fl, compile_s=ct)
    emit(name + '_fwd', timeit(fo), A.amp, note + ' (saves for backward)')

def r_step(name, whole=False, d=1920, steps=8):
    L = A.layers
    t = torch.randint(0, VT, (B, T), device='cuda'); im = torch.randint(0, VI, (B, N), device='cuda')
    te, ie, tp, rp, cp = par(VT, d), par(VI, d), par(T, d), par(W, d), par(W, d)
    lay = [(attn_par(d, L), mlp_par(d, L), kind_of(i, L)) for i in range(1, L + 1)]
    hp = [const(d, 1.), const(d, 0.), par(VT, d), const(VT, 0.), par(VI, d), const(VI, 0.)]
    ps = [te, ie, tp, rp, cp] + hp + [p for a, m, _ in lay for p in a + m]
    opt = torch.optim.AdamW(ps, lr=1e-4, betas=(.9, .96), eps=1e-8, weight_decay=4.5e-2, fused=True)
    fp16 = AMP == torch.float16
    sc = torch.amp.GradScaler('cuda', init_scale=1024., growth_interval=10 ** 6, enabled=fp16)
    for k in set(k for _, _, k in lay): block_mask(k)
    ca, cm, cb, ch = compiled(attn_half), compiled(mlp_half), compiled(block_fn), compiled(head_loss)
    losses = []
    ev = lambda: torch.cuda.Event(enable_timing=True)
    def step():
        e = [ev() for _ in range(4)]
        e[0].record()
        with autocast():
            x = torch.cat([F.embedding(t, te) + tp, F.embedding(im, ie) + (rp[:, None] + cp[None]).reshape(N, d)], 1)
            for a, m, k in lay:
                if whole: x = cb(x, a, m, block_mask(k), k == 'colt')
                else:
                    x = ca(x, *a, block_mask(k), k == 'colt')
                    x = cm(x, *m)
            loss = ch(x, *hp, t, im)
        e[1].record()
        sc.scale(loss).backward()
        e[2].record()
        sc.step(opt); sc.update(); opt.zero_grad(set_to_none=True)
        e[3].record()
        losses.append(loss.detach())
        return e
    t0 = time.perf_counter()
    step(); torch.cuda.synchronize(); ct = time.perf_counter() - t0
    step(); step(); torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    t0 = time.perf_counter()
    es = [step() for _ in range(steps)]
    torch.cuda.synchronize()
    wall = (time.perf_counter() - t0) / steps * 1e3
    ms = [e[0].elapsed_time(e[3]) for e in es]
    part = [statistics.median([e[i].elapsed_time(e[i + 1]) for e in es]) for i in range(3)]
    peak = torch.cuda.max_memory_allocated() / 2 ** 30
    ok = not fp16 or sc.get_scale() == 1024.
    l0, l1 = losses[0].item(), losses[-1].item()
    prs = sum(pairs_of(k) for _, _, k in lay)
    fl = 6 * M * 12 * d * d * L + 14 * HD * B * (d // HD) * prs + 6 * d * (B * (T - 1) * VT + B * N * VI)
    emit(name, (statistics.median(ms), min(ms), steps), A.amp,
         ('' if ok else 'OVERFLOW, steps were skipped: do not use; ') + ('' if math.isfinite(l1) else 'NONFINITE LOSS; ')
         + MIX % A.amp + ', %d layers d=%d, fused AdamW%s, no checkpointing, no clipping, %s compiled' %
         (L, d, ', GradScaler' if fp16 else '', 'whole block' if whole else 'attention and MLP halves'),
         flops=fl, tokens_s=M / statistics.median(ms) * 1e3, wall_ms=wall, fwd_ms=part[0], bwd_ms=part[1], opt_ms=part[2],
         peak_gib=peak, params_m=sum(p.numel() for p in ps) / 1e6, compile_s=ct, loss_first=l0, loss_last=l1)

# ---- memory-bound rows
def r_adamw(name, kind):
    n, sh = 34, (1920, 7680)               # 501.4M parameters
    ps = [par(*sh) for _ in range(n)]
    for p in ps: p.grad = rnd(*sh, std=1e-3)
    opt = torch.optim.AdamW(ps, lr=1e-4, betas=(.9, .96), eps=1e-8, weight_decay=4.5e-2, **{kind: True})
    tot = n * sh[0] * sh[1]
    emit(name, timeit(lambda i: opt.step(), target=.15, hi=25), 'fp32', '%.1fM parameters in %d tensors, 28 bytes each (p g m v read, p m v written)' % (tot / 1e6, n), nbytes=28 * tot)

def ce_fn(z, t): return F.cross_entropy(z.float(), t)
def r_ce(name, m, n, dt):
    d = DT(dt)
    zs = [rnd(m, n, dtype=d).requires_grad_() for _ in range(3)]
    t = torch.randint(0, n, (m,), device='cuda')
    scale = torch.tensor(float(m), device='cuda')      # as a loss scale: a mean's gradient underflows fp16
    c = compiled(ce_fn)
    def fb(i=0):
        z = zs[i % 3]
        return torch.autograd.grad(c(z, t), z, scale)[0]
    t0 = time.perf_counter(); g = fb(); torch.cuda.synchronize(); ct = time.perf_counter() - t0
    z = zs[0].detach()[:64].float()
    ref = z.softmax(-1) - F.one_hot(t[:64], n)
    e = rel(g[:64], ref)
    del g, z, ref
    emit(name, timeit(fb), dt, ('' if e < .02 else 'WRONG RESULT, do not use; ') + 'torch.compile, forward + backward; bytes: logits read twice, gradient written once', nbytes=3 * m * n * (2 if dt != 'fp32' else 4), err=e, compile_s=ct)

def ln_fn(x, g, b): return F.layer_norm(x.float(), (x.shape[-1],), g, b).to(x.dtype)
def r_ln(name, d, how):
    xs = [rnd(M, d, dtype=torch.float16).requires_grad_() for _ in range(4)]
    dys = [rnd(M, d, dtype=torch.float16) for _ in range(4)]
    gd = torch.float32 if how == 'compile' else torch.float16
    g, b = torch.ones(d, device='cuda', dtype=gd).requires_grad_(), torch.zeros(d, device='cuda', dtype=gd).requires_grad_()
    f = compiled(ln_fn) if how == 'compile' else (lambda x, g, b: F.layer_norm(x, (d,), g, b))
    def fb(i=0):
        x = xs[i % 4]
        torch.autograd.grad(f(x, g, b), (x, g, b), dys[i % 4])
    fb(); torch.cuda.synchronize()
    emit(name, timeit(fb), 'fp16', ('torch.compile, fp32 gain and bias' if how == 'compile' else 'eager F.layer_norm, fp16 gain and bias')
         + '; forward + backward, bytes: x twice, dy, y, dx', nbytes=10 * M * d)

# ---------------------------------------------------------------- the list, most important first
row('device', 4, r_device)
for d in (1920, 3968, 2688): gemms(d)
row('gemm_8192x8192x8192_NN', .7, r_gemm, 8192, 8192, 8192, 'NN')
row('attn_sdpa_flash_causal', 1, r_sdpa, 'FLASH_ATTENTION')
row('attn_sdpa_cudnn_causal', 2, r_sdpa, 'CUDNN_ATTENTION')
row('attn_flex_row_bs128', 15, r_flex, 'row')
row('attn_flex_colt_bs128', 6, r_flex, 'colt')
row('attn_flex_conv_bs128', 6, r_flex, 'conv')
row('block_mlp_d1920', 7, r_block, 'mlp')
row('block_attn_row_d1920', 9, r_block, 'attn')
row('step_%dL_d1920_b8' % A.layers, 30, r_step)
row('adamw_fused_500m', 1.5, r_adamw, 'fused')
row('adamw_foreach_500m', 1.5, r_adamw, 'foreach')
row('ce_10240x8192_fp16', 4, r_ce, 10240, 8192, 'fp16')
row('ln_10240x1920_compile', 4, r_ln, 1920, 'compile')
row('ln_10240x1920_eager', .5, r_ln, 1920, 'eager')
row('ln_10240x3968_eager', .5, r_ln, 3968, 'eager')
row('gemm_8192x8192x8192_NN_bf16', .7, r_gemm, 8192, 8192, 8192, 'NN', 'bf16')
gemms(1920, 'bf16', 'af')
gemms(3968, 'bf16', 'a')
row('attn_sdpa_cudnn_causal_bf16', 1.5, r_sdpa, 'CUDNN_ATTENTION', 'bf16')
SMALL = {'fwd_BLOCK_M': 64, 'fwd_BLOCK_N': 64}     # the default forward tile 128x128 does not divide a 64 block
row('attn_flex_row_bs64', 6, r_flex, 'row', 64, 'fp16', SMALL)
row('ce_10240x8192_fp32', 3.5, r_ce, 10240, 8192, 'fp32')
row('ln_10240x3968_compile', 3.5, r_ln, 3968, 'compile')
row('attn_flex_colraster_bs128', 6, r_flex, 'col')
row('attn_flex_colt_bs64', 6, r_flex, 'colt', 64, 'fp16', SMALL)
row('ce_2560x16384_fp16', 3.5, r_ce, 2560, 16384, 'fp16')
row('ce_2560x16384_fp32', 3.5, r_ce, 2560, 16384, 'fp32')
row('attn_flex_conv_bs64', 6, r_flex, 'conv', 64, 'fp16', SMALL)
row('attn_flex_row_bs128_bf16', 6, r_flex, 'row', 128, 'bf16')
row('step_%dL_d1920_b8_wholeblock' % A.layers, 40, r_step, True)

def selftest():
    """the mask functions on plain integers, against the paper's definitions (also pairs_of)"""
    offs = set(dr * W + dc for dr in range(6) for dc in range(-5, 6) if dr * W + dc >= 0)
    tr = lambda p: p if p < T else T + ((p - T) % W) * W + (p - T) // W
    for kind, want in (('row', lambda i, j: 0 <= i - j <= W), ('col', lambda i, j: j <= i and i % W == j % W),
                       ('conv', lambda i, j: i - j in offs)):
        n = 0
        for q in range(S):
            for k in range(S):
                w = (k <= q) if q < T else (k < T or want(q - T, k - T))
                n += w
                assert bool(MASKS[kind](0, 0, q, k)) == w, (kind, q, k)
                if kind == 'col': assert bool(m_colt(0, 0, tr(q), tr(k))) == w, ('colt', q, k)
        assert n == pairs_of(kind), (kind, n, pairs_of(kind))
    assert pairs_of('colt') == pairs_of('col')

if A.list:
    for name, est, _ in ROWS: print('%-42s %5.1f s' % (name, est))
    print('%d rows, %.0f s by rough estimate' % (len(ROWS), sum(e for _, e, _ in ROWS)))
    selftest(); print('masks agree with their definitions; pairs: ' + ', '.join('%s %d' % (k, pairs_of(k)) for k in MASKS))
    sys.exit()

dog = threading.Timer(max(1., A.budget + A.grace - (time.perf_counter() - T0)), die)
dog.daemon = True; dog.start()

import torch
import torch.nn.functional as F
FLEXERR = ''
try: from torch.nn.attention.flex_attention import flex_attention, create_block_mask
except Exception as e:
    FLEXERR = repr(e)
    def flex_attention(*a, **k): raise RuntimeError('no FlexAttention: ' + FLEXERR)
    create_block_mask = flex_attention
warnings.filterwarnings('ignore')
AMP = DT(A.amp)
if not torch.cuda.is_available():
    put(dict(name='device', error='no CUDA device')); sys.exit(2)
import torch._dynamo
for key, val in (('recompile_limit', 64), ('cache_size_limit', 64), ('accumulated_recompile_limit', 1024), ('accumulated_cache_size_limit', 1024)):
    try:
        if hasattr(torch._dynamo.config, key): setattr(torch._dynamo.config, key, val)
    except Exception: pass
torch.manual_seed(1)

rx = re.compile(A.only) if A.only else None
for name, est, fn in ROWS:
    if rx and name != 'device' and not rx.search(name): continue
    el = time.perf_counter() - T0
    if el >= A.budget or el + est > A.budget + 10:
        put(dict(name=name, skipped='at %.0f s, would take about %.0f s of a budget of %.0f s' % (el, est, A.budget))); continue
    try: fn()
    except Exception as e:
        put(dict(name=name, error='%s: %s' % (type(e).__name__, ' '.join(str(e).split())[:400])))
        traceback.print_exc(limit=-4)
        sys.stderr.flush()
    try:
        gc.collect(); torch.cuda.empty_cache()
    except Exception: pass
dog.cancel()
table()
print('%d rows in %.1f s on %s' % (sum('ms' in r for r in RES), time.perf_counter() - T0, torch.cuda.get_device_name(0)), flush=True)
os._exit(0 if any('ms' in r for r in RES) else 1)   # do not wait for compile workers
