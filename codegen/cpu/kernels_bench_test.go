package cpu

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops/mask"
	"github.com/gouache-ml/gouache/runtime/device/cpu"
)

// bench times k on one worker and reports bytes of its buffers a second.
func bench(b *testing.B, k *kern.Kernel, flops float64, fill func(buf, i int, r *rand.Rand) float64) {
	targets, tools := here(b)
	t := targets[0]
	libs, err := Compile(context.Background(), tools, []*kern.Kernel{k}, targets[:1])
	if err != nil {
		b.Fatal(err)
	}
	lib, err := cpu.Load(libs[t.Name])
	if err != nil {
		b.Fatal(err)
	}
	defer lib.Close()
	size := int64(4096)
	var at []int64
	for _, buf := range k.Bufs {
		at = append(at, size)
		size += int64(roundUp(buf.Len*buf.DType.Size()+256, 64))
	}
	arena, err := cpu.NewArena(size)
	if err != nil {
		b.Fatal(err)
	}
	defer arena.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	for i, buf := range k.Bufs {
		arena.I64(int64(8*i), 1)[0] = int64(arena.Addr(at[i]))
		for j := 0; j < buf.Len; j++ {
			put(buf.DType, arena.Bytes(at[i]+int64(j*buf.DType.Size()), buf.DType.Size()), fill(i, j, rng))
		}
	}
	pool, err := cpu.NewPool(cpu.PoolOptions{Workers: 1, Scratch: ScratchBytes([]*kern.Kernel{k}, targets)})
	if err != nil {
		b.Fatal(err)
	}
	defer pool.Close()
	fn, err := lib.Symbol(k.Name)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size - 4096)
	best := time.Hour
	for b.Loop() {
		start := time.Now()
		pool.Run(fn, arena.Addr(0), k.Chunks)
		best = min(best, time.Since(start))
	}
	b.ReportMetric(float64(best.Nanoseconds())/1e3, "us-best")
	b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/float64(k.Chunks)*1e6, "us/chunk")
}

func BenchmarkGelu(b *testing.B) {
	k := mapKernel("gelu", 640, 1024, []ir.DType{ir.F32}, ir.F32, func(b *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node {
		u := b.Op(kern.Mul, x[0], b.Op(kern.Add, b.F(1), b.Op(kern.Mul, b.F(0.044715), b.Op(kern.Mul, x[0], x[0]))))
		return b.Op(kern.Mul, b.Op(kern.Mul, x[0], b.F(0.5)), b.Op(kern.Add, b.F(1), b.Op(kern.Tanh, b.Op(kern.Mul, b.F(0.79788), u))))
	})
	bench(b, tiled(k, 64, 1024), 0, normals)
}

func BenchmarkAddBF16(b *testing.B) {
	k := mapKernel("add", 640, 1024, []ir.DType{ir.BF16, ir.F32}, ir.F32, func(b *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node {
		return b.Op(kern.Add, x[0], x[1])
	})
	bench(b, tiled(k, 64, 1024), 0, normals)
}

func BenchmarkUniform(b *testing.B) {
	k := mapKernel("uniform", 640, 1024, []ir.DType{ir.F32}, ir.F32, func(b *kern.Builder, x []*kern.Node, at kern.Index) *kern.Node {
		return b.Op(kern.Mul, x[0], b.Random(b.I(1), b.I(2), 3, at))
	})
	bench(b, tiled(k, 64, 1024), 0, normals)
}

func BenchmarkSoftmax(b *testing.B)   { bench(b, tiled(softmax(640, 1024, ir.F32), 64, 0), 0, normals) }
func BenchmarkLayerNorm(b *testing.B) { bench(b, tiled(layerNorm(640, 1024), 64, 0), 0, normals) }

func BenchmarkColumnSums(b *testing.B) {
	kb := kern.NewBuilder("column_sums")
	j := kb.Dim(1024)
	x := kb.Buf("x", ir.F32, 640*1024, kern.In)
	s := sumOf(640, kern.Sum, func(v *kern.Var) *kern.Node { return kb.Load(x, kern.V(v).Scale(1024).Add(kern.V(j))) }, kb)
	kb.Store(kb.Buf("sum", ir.F32, 1024, kern.Out), kern.V(j), s)
	kb.K.Vector = j
	bench(b, tiled(kb.Done(), 1, 256), 0, normals)
}

func BenchmarkMatmulInPlace(b *testing.B) {
	bench(b, matmulKernel(1, 1280, 512, 512, false, false, true, ir.F32), 2*1280*512*512, normals)
}

func BenchmarkMatmulTransposed(b *testing.B) {
	bench(b, matmulKernel(1, 1280, 512, 512, true, true, true, ir.F32), 2*1280*512*512, normals)
}

func BenchmarkMatmulPacked(b *testing.B) {
	k := matmulKernel(1, 1280, 2048, 512, false, false, true, ir.F32)
	k.Packed = true
	k.Bufs[1].Len = PackBytes(k) / 4
	bench(b, chunked(k), 2*1280*512*2048, normals)
}

func BenchmarkAttention(b *testing.B) {
	for _, m := range []struct {
		name string
		m    mask.Mask
	}{{"causal", mask.Causal()}, {"row", mask.Row(256, 32, 32)}, {"column", mask.Column(256, 32, 32)}, {"conv", mask.Conv(256, 32, 32, mask.ConvSize)}} {
		c := attentionCase{m.m, 1, 1280, 1, 64, ir.F32}
		pairs := float64(mask.Pairs(c.m, c.t) * c.h)
		for _, n := range []struct {
			name string
			f    float64
		}{{"attention_fwd", 4}, {"attention_bwd", 10}, {"attention_decode", 0}} {
			b.Run(n.name+"/"+m.name, func(b *testing.B) {
				k, fill := c.kernel(n.name)
				bench(b, k, n.f*pairs*float64(c.d), fill)
			})
		}
	}
}

// The paper's rank on the shards of its matrices, and a smaller one.
func BenchmarkHouseholder(b *testing.B) {
	for _, s := range [][2]int{{3968, 112}, {1024, 64}} {
		n, r := s[0], s[1]
		b.Run(fmt.Sprintf("%dx%d", n, r), func(b *testing.B) {
			bench(b, householderKernel(1, n, r), float64(4*n*r*r-4*r*r*r/3), normals)
		})
	}
}
