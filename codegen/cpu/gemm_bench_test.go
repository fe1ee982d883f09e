package cpu

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/internal/jit"
	device "github.com/gouache-ml/gouache/runtime/device/cpu"
)

var (
	benchRows    = flag.Int("gemm.rows", 0, "rows of a chunk; 0 chooses")
	benchCols    = flag.Int("gemm.cols", 0, "columns of a chunk; 0 chooses")
	benchWorkers = flag.Int("gemm.workers", 1, "workers of the benchmark")
	benchTarget  = flag.Int("gemm.target", 0, "index of the target, the fastest first")
)

// emitPeak adds a kernel that does 32 multiply-adds of vectors a turn on registers alone, for
// 200,000 turns a chunk.
const peakTurns = 100_000

func emitPeak(m *build.Module) {
	acc := min(12, m.Target.MR*m.Target.NV)
	f, args, _, _, _ := m.Kernel("peak")
	vt := m.Vec()
	p := f.SlotPtr(args, slotA, build.F32)
	a, b := f.Load(vt, p), f.Load(vt, f.Offset(p, 16))
	init := make([]V, acc)
	for i := range init {
		init[i] = f.Load(vt, f.Offset(p, 16*i))
	}
	out := f.For(build.Int(0), build.Int(peakTurns), build.Int(1), init, func(_ V, c []V) []V {
		o := append([]V(nil), c...)
		for range 2 {
			for i := range o {
				o[i] = f.FMA(a, b, o[i])
			}
		}
		return o
	})
	for i, v := range out {
		f.Store(v, f.Offset(p, 16*i))
	}
	f.Return()
}

func peakFLOPs(t *build.Target) float64 {
	return float64(peakTurns * 2 * min(12, t.MR*t.NV) * t.Lanes * 2)
}

// benchTile cuts products as TileFor does, unless flags say how.
func benchTile(m, n, k int, byColumns bool) (rows, cols int) {
	if byColumns {
		rows, cols = columnsTile(1, m, n, k)
	} else {
		rows, cols = rowsTile(1, m, n, k, true)
	}
	if *benchRows > 0 {
		rows = *benchRows
	}
	if *benchCols > 0 {
		cols = *benchCols
	}
	return min(rows, m), min(cols, n)
}

// best runs f for about the time given and returns the least of its durations in
// seconds: other processes only ever add time.
func best(d time.Duration, f func()) float64 {
	f()
	var ts []float64
	for start := time.Now(); time.Since(start) < d || len(ts) < 5; {
		t := time.Now()
		f()
		ts = append(ts, time.Since(t).Seconds())
	}
	slices.Sort(ts)
	return ts[0]
}

// BenchmarkGemm reports GFLOP/s and the fraction of the multiply-add peak measured beside it.
// "packed" excludes packing the right operand, "whole" includes it, "inline" packs in the kernel.
// NN, NT and TN are a layer's product, that of its input's gradient and that of its weights', of
// [m,k] times [k,n].
func BenchmarkGemm(b *testing.B) {
	targets, err := jit.Targets()
	if err != nil {
		b.Fatal(err)
	}
	r := newRig(b, targets[*benchTarget], *benchWorkers)
	pm := build.NewModule(r.t)
	emitPeak(pm)
	peakLib, err := jit.Load(pm)
	if err != nil {
		b.Fatal(err)
	}
	defer peakLib.Close()
	for _, s := range [][3]int{{1280, 512, 512}, {1280, 2048, 512}, {1280, 512, 2048}, {2560, 3072, 1024}, {1024, 1024, 1024},
		{256, 192, 768}, {8, 512, 512}, {64, 512, 512}, {1, 3072, 1024}} {
		m, n, k := s[0], s[1], s[2]
		benchProduct(b, r, peakLib, "NN", [3]int{m, n, k}, false, false)
		benchProduct(b, r, peakLib, "NT", [3]int{m, k, n}, false, true)
		benchProduct(b, r, peakLib, "TN", [3]int{k, n, m}, true, false)
	}
}

func benchProduct(b *testing.B, r *rig, peakLib *device.Library, layout string, s [3]int, ta, tb bool) {
	p := simple(s[0], s[1], s[2], ta, tb)
	p.Rows, p.Cols = benchTile(s[0], s[1], s[2], ta)
	p.fill(1)
	l := r.compile(b, []*problem{p})
	r.place(p)
	flops := 2 * float64(s[0]) * float64(s[1]) * float64(s[2])
	pack := func() { r.launch(b, l, "b0", 3) }
	ways := []struct {
		name string
		f    func()
	}{
		{"packed", func() { r.launch(b, l, "p0", p.Chunks()) }},
		{"whole", func() { pack(); r.launch(b, l, "p0", p.Chunks()) }},
	}
	if p.M[0] <= 128 || ta {
		ways = append(ways[:1], struct {
			name string
			f    func()
		}{"inline", func() { r.launch(b, l, "g0", p.Chunks()) }})
	}
	pack()
	for _, w := range ways {
		b.Run(fmt.Sprintf("%dx%dx%d/%s/%s", s[0], s[1], s[2], layout, w.name), func(b *testing.B) {
			for b.Loop() {
				w.f()
			}
			b.StopTimer()
			t := best(60*time.Millisecond, w.f)
			peak := peakFLOPs(r.t) / best(20*time.Millisecond, func() { r.launch(b, peakLib, "peak", 1) })
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(t*1e6, "us")
			b.ReportMetric(flops/t/1e9, "GFLOP/s")
			b.ReportMetric(flops/t/(peak*float64(r.pool.Workers())), "of-peak")
			b.ReportMetric(float64(p.Chunks()), "chunks")
		})
	}
}

// BenchmarkWeightGradient multiplies X transposed with dY, which packs both in every chunk, and
// beside it X with dY of the same sizes whose right operand is packed already.
func BenchmarkWeightGradient(b *testing.B) {
	targets, err := jit.Targets()
	if err != nil {
		b.Fatal(err)
	}
	r := newRig(b, targets[*benchTarget], *benchWorkers)
	for _, s := range [][3]int{{104, 128, 512}, {128, 128, 3072}, {128, 512, 3072}, {512, 128, 3072}, {512, 512, 10240}, {2048, 512, 10240}} {
		p, q := simple(s[0], s[1], s[2], true, false), simple(s[0], s[1], s[2], false, false)
		p.Rows, p.Cols = benchTile(s[0], s[1], s[2], true)
		q.Rows, q.Cols = benchTile(s[0], s[1], s[2], false)
		l := r.compile(b, []*problem{p.fill(1), q.fill(1)})
		r.place(p)
		b.Run(fmt.Sprintf("%dx%dx%d", s[0], s[1], s[2]), func(b *testing.B) {
			for b.Loop() {
				r.launch(b, l, "g0", p.Chunks())
			}
			b.StopTimer()
			// Alternated, so that both meet the same neighbours.
			flops := 2 * float64(s[0]) * float64(s[1]) * float64(s[2])
			gradient, forward := 0.0, 0.0
			for range 10 {
				gradient = max(gradient, flops/best(20*time.Millisecond, func() { r.launch(b, l, "g0", p.Chunks()) }))
				forward = max(forward, flops/best(20*time.Millisecond, func() { r.launch(b, l, "p1", q.Chunks()) }))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(gradient/1e9, "GFLOP/s")
			b.ReportMetric(forward/1e9, "forward-GFLOP/s")
			b.ReportMetric(float64(p.Chunks()), "chunks")
		})
	}
}
