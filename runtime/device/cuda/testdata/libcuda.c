// A libcuda for tests: it records how it is called, and runs a few kernels on
// the host. Memory of "the device" has addresses that are none of the host's.
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int R;
typedef uint64_t P;
typedef struct context context;
typedef struct module { char *text; } module;
typedef struct function { char name[64]; int maps, args, max_shared; module *m; } function;
// A captured launch is a node of a graph: number n, which waits for the nodes of after.
typedef struct launch launch;
struct launch { function *f; unsigned grid[3], block, shared, cluster; unsigned char maps[8][128]; P args[32]; int n, waits; launch *after[16]; };
typedef struct stream { int capturing; int n; launch *ls[4096]; size_t waits; launch *after[16]; } stream;
typedef struct graph { int n; launch *ls[4096]; } graph;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char text[1 << 20];
static int used;
static char failing[64];
static int code, sticky, live, tick;
static int the_context, count = 1;
static __thread void *current;

#define DEVICE ((P)1 << 62)

static void note(const char *f, ...) {
  va_list a;
  va_start(a, f);
  pthread_mutex_lock(&lock);
  if (used > (int)sizeof text - 4096) used = 0; // long runs keep the end
  used += vsnprintf(text + used, sizeof text - used, f, a);
  pthread_mutex_unlock(&lock);
  va_end(a);
}

// For the test: what was recorded, forgetting all, what is to fail, what was not freed.
const char *stub_log(void) { return text; }
void stub_reset(void) { used = 0; text[0] = failing[0] = 0; sticky = 0; count = 1; }
void stub_fail(const char *name, int r) { snprintf(failing, sizeof failing, "%s", name); code = r; }
void stub_devices(int n) { count = n; }
int stub_live(void) { return live; }

#define CALL(name) do { if (!strcmp(failing, #name)) return code; } while (0)
#define IN_CONTEXT(name) do { CALL(name); if (current != &the_context) return 201; if (sticky) return sticky; } while (0)

static void *host(P p) { return p & DEVICE ? (void *)(p & ~DEVICE) : 0; }

R cuInit(unsigned flags) { CALL(cuInit); return flags ? 1 : 0; }
R cuDriverGetVersion(int *v) { *v = 12040; return 0; }
R cuGetErrorName(R r, const char **s) {
  *s = r == 1 ? "CUDA_ERROR_INVALID_VALUE" : r == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : r == 100 ? "CUDA_ERROR_NO_DEVICE" : r == 201 ? "CUDA_ERROR_INVALID_CONTEXT"
     : r == 209 ? "CUDA_ERROR_NO_BINARY_FOR_GPU" : r == 218 ? "CUDA_ERROR_INVALID_PTX" : r == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS" : 0;
  return *s ? 0 : 1;
}
R cuGetErrorString(R r, const char **s) {
  *s = r == 1 ? "invalid argument" : r == 2 ? "out of memory" : r == 209 ? "no kernel image is available for execution on the device" : r == 218 ? "a PTX JIT compilation failed" : r == 201 ? "invalid device context"
     : r == 700 ? "an illegal memory access was encountered" : 0;
  return *s ? 0 : 1;
}
R cuDeviceGetCount(int *n) { CALL(cuDeviceGetCount); *n = count; return 0; }
R cuDeviceGet(int *d, int n) { CALL(cuDeviceGet); *d = 40 + n; return 0; }
R cuDeviceGetName(char *s, int n, int d) { if (d != 40) return 101; snprintf(s, n, "Stub H100"); return 0; }
R cuDeviceGetAttribute(int *v, int a, int d) { if (d != 40) return 101; *v = a == 75 ? 9 : a == 76 ? 0 : a == 16 ? 132 : -1; return 0; }
R cuDeviceTotalMem_v2(size_t *n, int d) { *n = (size_t)80 << 30; return d == 40 ? 0 : 101; }
R cuDevicePrimaryCtxRetain(void **c, int d) { CALL(cuDevicePrimaryCtxRetain); live++; *c = &the_context; return d == 40 ? 0 : 101; }
R cuDevicePrimaryCtxRelease_v2(int d) { live--; return d == 40 ? 0 : 101; }
R cuCtxSetCurrent(void *c) { current = c; return 0; }

R cuModuleLoadDataEx(module **m, const char *image, unsigned n, int *options, void **values) {
  IN_CONTEXT(cuModuleLoadDataEx);
  int binary = !memcmp(image, "\x7f" "ELF", 4) ? image[5] : 0; // the capability, then the text it was
  if (binary && binary != 90) return 209;
  if (binary) image += 6;
  char *bad = strstr(image, "bad");
  if (bad) {
    for (unsigned i = 0; i < n; i++)
      if (options[i] == 5)
        snprintf(values[i], (size_t)values[i + 1], "ptxas application ptx input, line 7; error   : Unknown symbol '%.5s'\nptxas fatal   : Ptx assembly aborted due to errors\n", bad);
    return 218;
  }
  *m = malloc(sizeof **m);
  (*m)->text = strdup(image);
  live++;
  if (binary) note("load binary for %d\n", binary); else note("load text\n");
  return 0;
}
R cuModuleUnload(module *m) { IN_CONTEXT(cuModuleUnload); free(m->text); free(m); live--; return 0; }
R cuModuleGetFunction(function **f, module *m, const char *name) {
  IN_CONTEXT(cuModuleGetFunction);
  char want[100];
  snprintf(want, sizeof want, ".entry %s(", name);
  char *p = strstr(m->text, want);
  if (!p) return 500;
  *f = calloc(1, sizeof **f);
  snprintf((*f)->name, sizeof (*f)->name, "%s", name);
  (*f)->m = m;
  for (; *p != ')'; p++) {
    if (!strncmp(p, "[128]", 5)) (*f)->maps++;
    if (!strncmp(p, ".u64", 4)) (*f)->args++;
  }
  note("get %s\n", name);
  return 0;
}
R cuFuncSetAttribute(function *f, int a, int v) {
  IN_CONTEXT(cuFuncSetAttribute);
  note("set %s %d %d\n", f->name, a, v);
  if (a == 8) f->max_shared = v;
  return 0;
}
R cuFuncGetAttribute(int *v, int a, function *f) {
  IN_CONTEXT(cuFuncGetAttribute);
  *v = a == 1 ? (strstr(f->name, "static") ? 16384 : 0) : a == 3 ? 8 : a == 4 ? 168 : -1;
  return 0;
}
#ifndef OLD
R cuFuncLoad(function *f) { IN_CONTEXT(cuFuncLoad); note("loaded %s\n", f->name); return 0; }
#endif

R cuMemGetInfo_v2(size_t *free, size_t *total) { IN_CONTEXT(cuMemGetInfo_v2); *free = (size_t)60 << 30; *total = (size_t)80 << 30; return 0; }
R cuMemAlloc_v2(P *p, size_t n) {
  IN_CONTEXT(cuMemAlloc_v2);
  void *h = aligned_alloc(256, (n + 255) / 256 * 256);
  memset(h, 0xee, n);
  live++;
  *p = (P)h | DEVICE;
  return 0;
}
R cuMemFree_v2(P p) { IN_CONTEXT(cuMemFree_v2); if (!host(p)) return 1; free(host(p)); live--; return 0; }
R cuMemHostAlloc(void **p, size_t n, unsigned flags) { IN_CONTEXT(cuMemHostAlloc); *p = malloc(n); memset(*p, 0xee, n); live++; return flags ? 1 : 0; }
R cuMemFreeHost(void *p) { IN_CONTEXT(cuMemFreeHost); free(p); live--; return 0; }

static R on(stream *s) { return !s ? 400 : s->capturing ? 900 : 0; }
R cuMemcpyHtoDAsync_v2(P to, const void *from, size_t n, stream *s) {
  IN_CONTEXT(cuMemcpyHtoDAsync_v2);
  if (on(s)) return on(s);
  if (!host(to) || (P)from & DEVICE) return 1;
  memcpy(host(to), from, n);
  return 0;
}
R cuMemcpyDtoHAsync_v2(void *to, P from, size_t n, stream *s) {
  IN_CONTEXT(cuMemcpyDtoHAsync_v2);
  if (on(s)) return on(s);
  if (!host(from) || (P)to & DEVICE) return 1;
  memcpy(to, host(from), n);
  return 0;
}
R cuMemsetD8Async(P p, unsigned char v, size_t n, stream *s) {
  IN_CONTEXT(cuMemsetD8Async);
  if (on(s)) return on(s);
  memset(host(p), v, n);
  return 0;
}
#ifndef OLD
R cuTensorMapEncodeTiled(void *map, int type, uint32_t rank, void *addr, const uint64_t *dims, const uint64_t *strides, const uint32_t *box,
                         const uint32_t *steps, int interleave, int swizzle, int promotion, int fill) {
  CALL(cuTensorMapEncodeTiled);
  if ((uintptr_t)map & 63 || !((P)addr & DEVICE)) return 1;
  note("map type %d rank %u offset %d", type, rank, (int)((P)addr & 255));
  for (uint32_t i = 0; i < rank; i++) note(" dim %llu", (unsigned long long)dims[i]);
  for (uint32_t i = 0; i + 1 < rank; i++) note(" stride %llu", (unsigned long long)strides[i]);
  for (uint32_t i = 0; i < rank; i++) note(" box %u step %u", box[i], steps[i]);
  note(" interleave %d swizzle %d promotion %d fill %d\n", interleave, swizzle, promotion, fill);
  memset(map, 0x40 + rank, 128);
  return 0;
}
#endif

R cuStreamCreate(stream **s, unsigned flags) { IN_CONTEXT(cuStreamCreate); *s = calloc(1, sizeof **s); live++; return flags == 1 ? 0 : 1; }
R cuStreamDestroy_v2(stream *s) { IN_CONTEXT(cuStreamDestroy_v2); free(s); live--; return 0; }
R cuStreamSynchronize(stream *s) { IN_CONTEXT(cuStreamSynchronize); return on(s); }

// Kernels.
static void run(launch *l) {
  float *a = host(l->args[0]), *b = host(l->args[1]);
  if (!strcmp(l->f->name, "fault")) sticky = 700;
  if (!strncmp(l->f->name, "plus_one", 8))
    for (int i = 0; i < 64; i++) b[i] = a[i] + 1;
  if (!strncmp(l->f->name, "twice", 5))
    for (int i = 0; i < 64; i++) a[i] *= 2;
}

static R start(function *f, const unsigned *g, unsigned block, unsigned shared, unsigned cluster, stream *s, void **params) {
  if (!s) return 400;
  if (shared > 49152 && (int)shared > f->max_shared) return 1;
  launch *l = calloc(1, sizeof *l);
  l->f = f, l->block = block, l->shared = shared, l->cluster = cluster;
  memcpy(l->grid, g, sizeof l->grid);
  for (int i = 0; i < f->maps; i++) {
    if ((uintptr_t)params[i] & 63) return 1;
    memcpy(l->maps[i], params[i], 128);
  }
  for (int i = 0; i < f->args; i++) {
    if ((uintptr_t)params[f->maps + i] & 7) return 1;
    memcpy(&l->args[i], params[f->maps + i], 8);
  }
  note("launch %s grid %u %u %u block %u shared %u cluster %u", f->name, g[0], g[1], g[2], block, shared, cluster);
  for (int i = 0; i < f->maps; i++) note(" map %#x", l->maps[i][127]);
  for (int i = 0; i < f->args; i++) note(" %#llx", (unsigned long long)l->args[i]);
  note("\n");
  if (s->capturing) {
    l->n = s->n, l->waits = s->waits;
    memcpy(l->after, s->after, sizeof s->after);
    s->ls[s->n++] = l;
    s->waits = 1, s->after[0] = l;
    note("node %d %s after", l->n, f->name);
    for (int i = 0; i < l->waits; i++) note(" %d", l->after[i]->n);
    note("\n");
    return 0;
  }
  run(l);
  free(l);
  return 0;
}
R cuLaunchKernel(function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, stream *s, void **params, void **extra) {
  IN_CONTEXT(cuLaunchKernel);
  unsigned g[3] = {gx, gy, gz};
  return by != 1 || bz != 1 || extra ? 1 : start(f, g, bx, shared, 0, s, params);
}
#ifndef OLD
// As in cuda.h.
typedef struct { int id; char pad[8 - sizeof(int)]; union { char pad[64]; struct { unsigned x, y, z; } cluster; } value; } attribute;
typedef struct { unsigned gx, gy, gz, bx, by, bz, shared; stream *s; attribute *attrs; unsigned n; } config;
R cuLaunchKernelEx(const config *c, function *f, void **params, void **extra) {
  IN_CONTEXT(cuLaunchKernelEx);
  if (c->by != 1 || c->bz != 1 || extra || c->n != 1 || c->attrs->id != 4 || c->attrs->value.cluster.y != 1 || c->attrs->value.cluster.z != 1) return 1;
  return start(f, &c->gx, c->bx, c->shared, c->attrs->value.cluster.x, c->s, params);
}
#endif

R cuStreamBeginCapture_v2(stream *s, int mode) { IN_CONTEXT(cuStreamBeginCapture_v2); s->capturing = 1; s->n = 0; s->waits = 0; return mode == 2 ? 0 : 1; }
#ifndef OLD
R cuStreamGetCaptureInfo_v2(stream *s, int *status, uint64_t *id, graph **g, launch *const **after, size_t *n) {
  IN_CONTEXT(cuStreamGetCaptureInfo_v2);
  *status = s->capturing, *id = 1, *g = 0, *after = s->after, *n = s->waits;
  return 0;
}
R cuStreamUpdateCaptureDependencies(stream *s, launch **after, size_t n, unsigned flags) {
  IN_CONTEXT(cuStreamUpdateCaptureDependencies);
  if (!s->capturing) return 401;
  if (flags != 1 || n > sizeof s->after / sizeof *s->after) return 1;
  memcpy(s->after, after, n * sizeof *after);
  s->waits = n;
  return 0;
}
#endif
R cuStreamEndCapture(stream *s, graph **g) {
  if (current != &the_context) return 201;
  s->capturing = 0;
  *g = malloc(sizeof **g);
  (*g)->n = s->n;
  memcpy((*g)->ls, s->ls, sizeof s->ls);
  live++;
  CALL(cuStreamEndCapture);
  return 0;
}
R cuGraphInstantiateWithFlags(graph **x, graph *g, unsigned long long flags) {
  IN_CONTEXT(cuGraphInstantiateWithFlags);
  *x = malloc(sizeof **x);
  **x = *g;
  live++;
  note("graph of %d\n", g->n);
  return flags ? 1 : 0;
}
R cuGraphDestroy(graph *g) { free(g); live--; return 0; }
R cuGraphExecDestroy(graph *g) { IN_CONTEXT(cuGraphExecDestroy); free(g); live--; return 0; }
R cuGraphLaunch(graph *g, stream *s) {
  IN_CONTEXT(cuGraphLaunch);
  if (on(s)) return on(s);
  note("replay of %d\n", g->n);
  // Of the nodes that wait for nothing more, the last comes first.
  char *done = calloc(g->n, 1);
  for (int left = g->n; left > 0; left--) {
    int i = g->n, ready = 0;
    while (!ready && i > 0)
      if (!done[--i]) {
        ready = 1;
        for (int k = 0; k < g->ls[i]->waits; k++) ready &= done[g->ls[i]->after[k]->n];
      }
    note("run %d\n", i);
    run(g->ls[i]);
    done[i] = 1;
  }
  free(done);
  return 0;
}

R cuEventCreate(int **e, unsigned flags) { IN_CONTEXT(cuEventCreate); *e = calloc(1, sizeof **e); live++; return flags ? 1 : 0; }
R cuEventDestroy_v2(int *e) { IN_CONTEXT(cuEventDestroy_v2); free(e); live--; return 0; }
R cuEventRecord(int *e, stream *s) { IN_CONTEXT(cuEventRecord); if (!s) return 400; *e = ++tick; return 0; }
R cuEventElapsedTime(float *ms, int *from, int *to) { IN_CONTEXT(cuEventElapsedTime); *ms = (*to - *from) * 0.5f; return 0; }
