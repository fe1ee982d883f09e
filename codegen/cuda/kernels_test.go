package cuda_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/cuda/emu"
	"github.com/gouache-ml/gouache/codegen/cuda/simt"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// fill makes contents for the buffers of k: small numbers, indices below index.
func fill(k *kern.Kernel, index int) [][]float64 {
	r := rand.New(rand.NewPCG(1, 2))
	var bufs [][]float64
	for _, b := range k.Bufs {
		x := make([]float64, b.Len)
		f, small := b.DType.Format()
		for i := range x {
			switch {
			case b.DType == ir.I32:
				x[i] = float64(r.IntN(index))
			case b.DType == ir.Bool:
				x[i] = float64(r.IntN(2))
			case small:
				x[i] = float64(f.Round(float32(r.NormFloat64())))
			default:
				x[i] = float64(float32(r.NormFloat64()))
			}
		}
		bufs = append(bufs, x)
	}
	return bufs
}

// check runs k on the emulator under several schedules and compares what it
// writes with the evaluator: errors relative to the largest magnitude.
func check(t *testing.T, k *kern.Kernel, target string, index int, tolerance float64) float64 {
	t.Helper()
	tg, err := cuda.TargetByName(target)
	if err != nil {
		t.Fatal(err)
	}
	x, err := emu.Compile(k, tg)
	if err != nil {
		t.Fatal(err)
	}
	want := fill(k, index)
	if err := kern.Eval(k, want); err != nil {
		t.Fatal(err)
	}
	worst := 0.0
	var first [][]float64
	for seed := range 2 {
		got := fill(k, index)
		if _, err := x.Run(simt.Options{Seed: int64(seed + 1), Check: true}, got); err != nil {
			t.Fatalf("%s: %v\n%s", target, err, k)
		}
		for i, b := range k.Bufs {
			if b.Mode == kern.In {
				continue
			}
			size, diff, at := 1e-3, 0.0, 0
			for j, w := range want[i] {
				size = max(size, math.Abs(w))
				if d := math.Abs(got[i][j] - w); !(d <= diff) {
					diff, at = d, j
				}
				if first != nil && got[i][j] != first[i][j] && !math.IsNaN(got[i][j]) {
					t.Fatalf("%s: buffer %d has other bits under another schedule\n%s", target, i, k)
				}
			}
			if !(diff <= tolerance*size) {
				t.Fatalf("%s: buffer %d: element %d is %v, want %v\n%s", target, i, at, got[i][at], want[i][at], k)
			}
			worst = max(worst, diff/size)
		}
		first = got
	}
	return worst
}

func TestMap(t *testing.T) {
	for _, n := range []int{1, 7, 33, 64, 300, 4096} {
		b := kern.NewBuilder("map")
		v := b.Dim(n)
		x, y := b.Buf("x", ir.F32, n, kern.In), b.Buf("y", ir.F32, n, kern.Out)
		a := b.Load(x, kern.V(v))
		b.Store(y, kern.V(v), b.Op(kern.Add, b.Op(kern.Mul, a, b.Op(kern.Exp, a)), b.Op(kern.Tanh, a)))
		k := b.Done()
		t.Logf("%d: %.3g", n, check(t, k, "sm_90a", 1, 1e-6))
	}
}

func TestCompilingTwiceGivesTheSameText(t *testing.T) {
	var kernels []*kern.Kernel
	for _, n := range []int{64, 4096} {
		b := kern.NewBuilder("")
		v := b.Dim(n)
		x, y := b.Buf("x", ir.F16, n, kern.In), b.Buf("y", ir.F32, n, kern.Out)
		b.Store(y, kern.V(v), b.Op(kern.Exp, b.Load(x, kern.V(v))))
		k := b.Done()
		k.Name = "exp" + string(rune('a'+len(kernels)))
		kernels = append(kernels, k)
	}
	var first *cuda.Code
	for range 3 {
		c, err := cuda.Compile(kernels, cuda.Targets())
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && !reflect.DeepEqual(c, first) {
			t.Error("two compilations of the same kernels differ")
		}
		first = c
	}
}

// A few tiles with long sums, such as gradients of small weights: the blocks of a
// cluster share each sum, also where they have more threads than results.
func TestFewTilesShareLongSums(t *testing.T) {
	for _, c := range []struct{ m, n, k int }{{20, 33, 5000}, {3, 5, 4096}, {70, 32, 2500}} {
		b := kern.NewBuilder("product")
		i, j := b.Dim(c.m), b.Dim(c.n)
		k := b.NewVar(c.k)
		x, y := b.Buf("x", ir.F32, c.m*c.k, kern.In), b.Buf("y", ir.F32, c.n*c.k, kern.In)
		o := b.Buf("o", ir.F32, c.m*c.n, kern.Out)
		p := b.Contract([]*kern.Var{k}, x, kern.V(k).Scale(c.m).Add(kern.V(i)), nil, y, kern.V(k).Scale(c.n).Add(kern.V(j)), nil)
		b.Store(o, kern.V(i).Scale(c.n).Add(kern.V(j)), b.Op(kern.Mul, p, b.F(0.5)))
		kernel := b.Done()
		_, entries, err := cuda.Text(kernel, cuda.Targets()[0], false)
		if err != nil {
			t.Fatal(err)
		}
		if entries[0].Cluster != 8 {
			t.Errorf("%v: a cluster of %d blocks shares the sums, want 8", c, entries[0].Cluster)
		}
		check(t, kernel, "sm_90a", 1, 1e-6)
	}
}

// Random numbers of a thread's neighbours from multiples of 4 on, and of all other
// points: the evaluator's bits, and as many evaluations of Philox as written here.
func TestRandomBitsAreExact(t *testing.T) {
	const cols = 8192
	flat := func(_ *kern.Builder, i, j kern.Index) kern.Index { return i.Scale(cols).Add(j) }
	gathered := func(b *kern.Builder, at kern.Index) kern.Index {
		return kern.At(b.Load(b.Buf("id", ir.I32, cols, kern.In), at))
	}
	for _, c := range []struct {
		name string
		at   func(b *kern.Builder, i, j kern.Index) kern.Index
		out  ir.DType
		loop bool // over the row, instead of in the grid
		want int  // evaluations
	}{
		{"flat", flat, ir.F32, false, 1},
		{"flat f16", flat, ir.F16, false, 2},
		{"from 4", func(_ *kern.Builder, i, j kern.Index) kern.Index { return i.Scale(cols).Add(j).Plus(4) }, ir.F16, false, 2},
		{"from 5", func(_ *kern.Builder, i, j kern.Index) kern.Index { return i.Scale(cols).Add(j).Plus(5) }, ir.F32, false, 4},
		{"late", func(_ *kern.Builder, i, j kern.Index) kern.Index { return i.Scale(cols).Add(j).Plus(3 << 30) }, ir.F32, false, 1},
		{"strided", func(_ *kern.Builder, i, j kern.Index) kern.Index { return i.Scale(cols).Add(j.Scale(4)) }, ir.F32, false, 4},
		{"row", func(_ *kern.Builder, i, _ kern.Index) kern.Index { return i }, ir.F32, false, 1},
		{"gathered row", func(b *kern.Builder, i, j kern.Index) kern.Index { return gathered(b, i).Scale(cols).Add(j) }, ir.F32, false, 1},
		{"gathered column", func(b *kern.Builder, i, j kern.Index) kern.Index { return gathered(b, j).Scale(4).Add(j) }, ir.F32, false, 4},
		{"loop", flat, ir.F16, true, 2},
		{"loop from 5", func(_ *kern.Builder, i, j kern.Index) kern.Index { return i.Scale(cols).Add(j).Plus(5) }, ir.F16, true, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := kern.NewBuilder("random")
			rows := 33 // as few as give a thread 16 bytes of points
			if c.out == ir.F16 && !c.loop {
				rows = 66
			}
			i := b.Dim(rows)
			key := b.Buf("key", ir.I32, 2, kern.In)
			seed, step := b.Load(key, kern.C(0)), b.Load(key, kern.C(1))
			y := b.Buf("y", c.out, rows*cols, kern.Out)
			write := func(j *kern.Var) {
				u := b.Random(seed, step, 0x7fffffff, c.at(b, kern.V(i), kern.V(j)))
				if c.out == ir.F16 {
					u = b.Round(ir.F16, b.F(1+0x1p-12), u)
				}
				b.Store(y, flat(b, kern.V(i), kern.V(j)), u)
			}
			if c.loop {
				b.For(cols, nil, func(j *kern.Var) ([]*kern.Node, error) { write(j); return nil, nil })
			} else {
				write(b.Dim(cols))
			}
			k := b.Done()
			check(t, k, "sm_90a", 1<<20, 0)
			text, _, err := cuda.Text(k, cuda.Targets()[0], false)
			if err != nil {
				t.Fatal(err)
			}
			// Each of ten rounds multiplies once by the first factor, the second what is
			// the same for all counters.
			rounds := strings.Count(text, fmt.Sprint(", ", 0xd2511f53-1<<32, ";"))
			if want := 1 + 9*c.want; rounds != want {
				t.Errorf("%d rounds, want %d for %d evaluations\n%s", rounds, want, c.want, text)
			}
		})
	}
}
