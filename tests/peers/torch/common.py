"""What the scripts share: a fair set-up of PyTorch and its BLAS, timing, and a line of JSON.

The environment must be set before torch loads, so setup() starts the script again once:
- OPENBLAS_CORETYPE: Debian's OpenBLAS 0.3.21 takes processors newer than itself for a Prescott and runs
  SSE3, five times slower; it is told what the processor has.
- ATEN_CPU_CAPABILITY: torch uses AVX2 unless asked for AVX-512.
- OpenBLAS built with OpenMP shares torch's threads; with pthreads the two pools hold each other up, and a
  token takes four times as long. Without it nothing is timed (check).
- malloc keeps freed memory, which saves the page faults of every step.
"""
import argparse, ctypes, json, os, resource, statistics, sys, time

OPENBLAS = "/usr/lib/x86_64-linux-gnu/openblas-openmp"


def parser(doc):
    p = argparse.ArgumentParser(description=doc)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    p.add_argument("--steps", type=int, default=5)
    p.add_argument("--warmup", type=int, default=1)
    return p


def check():
    """Fails where something is missing that the scripts need."""
    import torch
    ctypes.CDLL(OPENBLAS + "/libopenblas.so.0")


def setup(threads, torch=True):
    if os.environ.get("GOUACHE_PEER") != "1":
        flags = next((l for l in open("/proc/cpuinfo") if l.startswith("flags")), "").split()
        core, aten = ("SkylakeX", "avx512") if "avx512f" in flags else ("Haswell", "avx2") if "avx2" in flags else ("", "")
        env = dict(os.environ, GOUACHE_PEER="1", OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads),
                   MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_="100000000000", PYTHONDONTWRITEBYTECODE="1",
                   LD_LIBRARY_PATH=OPENBLAS)
        if core:
            env.update(OPENBLAS_CORETYPE=core, ATEN_CPU_CAPABILITY=aten)
        os.execve(sys.executable, [sys.executable] + sys.argv, env)
    if not torch:
        return None
    import torch
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    return torch


def reset_peak():
    """Starts the peak of memory anew, so that importing does not count."""
    try:
        open("/proc/self/clear_refs", "w").write("5")
    except OSError:
        pass


def peak_mb():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure(step, steps, warmup):
    """Seconds of each call of step after the first few."""
    for _ in range(warmup):
        step()
    out = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        out.append(time.perf_counter() - start)
    return out


def stats(times):
    return dict(median=statistics.median(times), min=min(times), max=max(times), n=len(times))


def emit(**fields):
    print(json.dumps(fields), flush=True)
