"""Single-precision products by OpenBLAS (cblas_sgemm) or oneDNN (a matmul primitive whose weights are in the
format it likes best; putting them there is not counted), called without anything in between.

forward is x[M,K] w[K,N], input is y[M,N] w^T, weight is x^T y.
"""
import common
P = common.parser(__doc__)
P.add_argument("--library", choices=["openblas", "onednn"], default="openblas")
P.add_argument("--product", choices=["forward", "input", "weight"], default="forward")
P.add_argument("--size", default="1280x512x512", help="MxNxK of the forward product")
A = P.parse_args()
common.setup(A.threads, torch=False)
import ctypes
from ctypes import byref, c_char, c_float, c_int, c_int64, c_void_p
import random, struct

M, N, K = map(int, A.size.split("x"))
# rows, columns and length of the sum, and which operands are stored transposed
m, n, k, trans_a, trans_b = {"forward": (M, N, K, False, False), "input": (M, K, N, False, True), "weight": (K, N, M, True, False)}[A.product]


def floats(count):
    """An aligned array of numbers in (-1, 1)."""
    raw = ctypes.create_string_buffer(4 * count + 64)
    at = ctypes.addressof(raw) + (-ctypes.addressof(raw)) % 64
    array = (c_float * count).from_address(at)
    block = [random.uniform(-1, 1) for _ in range(4096)]
    for i in range(0, count, 4096):
        part = min(4096, count - i)
        array[i:i + part] = block[:part]
    array.keep = raw
    return array


a, b, c = floats(m * k), floats(k * n), floats(m * n)
if A.library == "openblas":
    lib = ctypes.CDLL("libopenblas.so.0")
    def step():
        lib.cblas_sgemm(101, 112 if trans_a else 111, 112 if trans_b else 111, m, n, k, c_float(1), a, m if trans_a else k,
                        b, k if trans_b else n, c_float(0), c, n)
else:
    lib = ctypes.CDLL("libdnnl.so.2")
    def call(name, *args):
        status = getattr(lib, "dnnl_" + name)(*args)
        assert status == 0, "dnnl_%s: status %d" % (name, status)
    F32, ANY, SRC, WEIGHTS, DST, WEIGHTS_MD = 3, 1, 1, 33, 17, 131
    def described(dims, strides):
        d = ctypes.create_string_buffer(4096)  # larger than dnnl_memory_desc_t
        two = c_int64 * 2
        if strides is None:
            call("memory_desc_init_by_tag", d, 2, two(*dims), F32, ANY)
        else:
            call("memory_desc_init_by_strides", d, 2, two(*dims), F32, two(*strides))
        return d
    engine, stream, pd, primitive, reorder_pd, reorder = (c_void_p() for _ in range(6))
    call("engine_create", byref(engine), 1, ctypes.c_size_t(0))
    call("stream_create", byref(stream), engine, 1)
    plain_b = described((k, n), (1, k) if trans_b else (n, 1))
    da, dc = described((m, k), (1, m) if trans_a else (k, 1)), described((m, n), (n, 1))
    # What is weights in a layer may be packed; the gradient of the weights has none.
    db = plain_b if A.product == "weight" else described((k, n), None)
    op = ctypes.create_string_buffer(32768)  # larger than dnnl_matmul_desc_t
    call("matmul_desc_init", op, da, db, None, dc)
    call("primitive_desc_create", byref(pd), op, None, engine, None)
    call("primitive_create", byref(primitive), pd)
    lib.dnnl_primitive_desc_query_md.restype = c_void_p
    packed = c_void_p(lib.dnnl_primitive_desc_query_md(pd, WEIGHTS_MD, 0))
    def memory(md, data):
        mem = c_void_p()
        call("memory_create", byref(mem), md, engine, c_void_p(-1) if data is None else data)
        return mem
    ma, mb, mc, plain = memory(da, a), memory(packed, None), memory(dc, c), memory(plain_b, b)
    class Arg(ctypes.Structure):
        _fields_ = [("arg", c_int), ("memory", c_void_p)]
    call("reorder_primitive_desc_create", byref(reorder_pd), plain_b, engine, packed, engine, None)
    call("primitive_create", byref(reorder), reorder_pd)
    call("primitive_execute", reorder, stream, 2, (Arg * 2)(Arg(SRC, plain), Arg(DST, mb)))
    call("stream_wait", stream)
    args = (Arg * 3)(Arg(SRC, ma), Arg(WEIGHTS, mb), Arg(DST, mc))
    def step():
        call("primitive_execute", primitive, stream, 3, args)
        call("stream_wait", stream)

times = common.measure(step, A.steps, A.warmup)
i, j = m // 2, n // 3  # one element, so that a wrong call does not count as a fast one
want = sum((a[l * m + i] if trans_a else a[i * k + l]) * (b[j * k + l] if trans_b else b[l * n + j]) for l in range(k))
assert abs(want - c[i * n + j]) < 1e-3 * k ** 0.5, (want, c[i * n + j])
s = common.stats(times)
common.emit(what="gemm", library=A.library, product=A.product, size=A.size, threads=A.threads, s_step=s, gflops=2e-9 * m * n * k / s["median"])
