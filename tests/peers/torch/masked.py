"""Dense masked attention of one layer of S, forward or with gradients: 8 heads of 64, 1280 positions."""
import common
P = common.parser(__doc__)
P.add_argument("--kind", choices=["row", "column", "conv"], default="row")
P.add_argument("--backward", action="store_true")
A = P.parse_args()
torch = common.setup(A.threads)
import attention

mask = attention.additive(attention.allowed(A.kind, 256, 32))[None]
q, k, v = (torch.randn(8, 1280, 64, requires_grad=A.backward) for _ in range(3))
d_out = torch.randn(8, 1280, 64)


def step():
    with torch.set_grad_enabled(A.backward):
        out = attention.dense(q, k, v, mask)
    if A.backward:
        torch.autograd.grad(out, (q, k, v), d_out)


times = common.measure(step, A.steps, A.warmup)
common.emit(what="attention", kind=A.kind, backward=A.backward, threads=A.threads, torch=torch.__version__, s_step=common.stats(times), peak_rss_mb=common.peak_mb())
