package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// randomKernel draws a kernel: affine loads of any stride with and without
// guards and gathers, arithmetic, nested loops, in lanes of the last dimension
// or of the loops.
func randomKernel(rng *rand.Rand) *kern.Kernel {
	b := kern.NewBuilder("random")
	pick := func(xs ...int) int { return xs[rng.IntN(len(xs))] }
	var vars []*kern.Var
	var shape []int
	var out []kern.Index
	for range 1 + rng.IntN(3) {
		v := b.Dim(pick(1, 3, 5, 16, 33))
		vars, shape, out = append(vars, v), append(shape, v.Extent), append(out, kern.V(v))
	}
	ids := b.Buf("ids", ir.I32, 4096, kern.In) // values below 10
	types := []ir.DType{ir.F32, ir.F32, ir.F32, ir.BF16}
	affine := func() kern.Index {
		ix := kern.Index{}
		stride := 1
		for i := len(vars) - 1; i >= 0; i-- {
			switch rng.IntN(5) {
			case 0:
			case 1:
				ix = ix.Add(kern.V(vars[i]).Scale(pick(-1, 2)))
			default:
				ix = ix.Add(kern.V(vars[i]).Scale(stride))
				stride *= vars[i].Extent
			}
		}
		lo, _, _ := ix.Range()
		return ix.Plus(-lo + rng.IntN(3))
	}
	load := func() *kern.Node {
		at := affine()
		_, hi, _ := at.Range()
		n := hi + 1
		if rng.IntN(4) == 0 {
			i := affine()
			if _, top, _ := i.Range(); top < 4096 {
				at = at.Add(kern.At(b.Load(ids, i)).Scale(pick(1, 7)))
				n += 7 * 10
			}
		}
		buf := b.Buf(fmt.Sprint("x", len(b.K.Bufs)), types[rng.IntN(len(types))], n, kern.In)
		if rng.IntN(3) > 0 {
			return b.Load(buf, at)
		}
		g := affine()
		lo, top, _ := g.Range()
		x, _ := b.Within([]kern.Guard{{At: g, Lo: lo + (top-lo)/3, Hi: top + 1 - (top-lo)/4}}, func() (*kern.Node, error) { return b.Load(buf, at), nil })
		return x
	}
	var expr func(depth int) *kern.Node
	expr = func(depth int) *kern.Node {
		if depth == 0 {
			return load()
		}
		switch rng.IntN(9) {
		case 0:
			return b.Op(kern.Tanh, expr(depth-1))
		case 1:
			return b.Op(kern.Select, b.Op(kern.Lt, expr(depth-1), b.F(0.1)), expr(depth-1), b.F(2))
		case 2, 3:
			if len(vars) < 5 {
				c := kern.Combine(rng.IntN(2))
				acc, _ := b.For(pick(1, 4, 20, 70), []kern.Combine{c, kern.Sum}, func(v *kern.Var) ([]*kern.Node, error) {
					vars = append(vars, v)
					x := expr(depth - 1)
					y := b.Op(kern.Mul, expr(0), b.F(0.1))
					vars = vars[:len(vars)-1]
					return []*kern.Node{x, y}, nil
				})
				return b.Op(kern.Tanh, b.Op(kern.Add, b.Op(kern.Mul, acc[0], b.F(0.05)), acc[1]))
			}
		}
		p := []kern.Prim{kern.Add, kern.Sub, kern.Mul, kern.Max, kern.Min}[rng.IntN(5)]
		return b.Op(p, expr(depth-1), expr(depth-1))
	}
	x := expr(3)
	n := 1
	for _, d := range shape {
		n *= d
	}
	b.Store(b.Buf("y", ir.F32, n, kern.Out), kern.Flat(shape, out), x)
	k := b.Done()
	last := k.Dims[len(k.Dims)-1]
	cols := 0
	if rng.IntN(2) == 0 {
		k.Vector, cols = last, pick(16, 20, 64)
	}
	return tiled(k, 1+rng.IntN(8), cols)
}

func TestRandomKernelsAgreeWithTheEvaluator(t *testing.T) {
	var ss []sample
	for seed := uint64(0); len(ss) < 40; seed++ {
		k := randomKernel(rand.New(rand.NewPCG(seed, 0)))
		k.Name = fmt.Sprintf("seed%d", seed)
		if k.Points()*weightOf(k.Body) > 1e6 {
			continue
		}
		ss = append(ss, sample{k: k, tol: 1e-4, fill: func(b, _ int, r *rand.Rand) float64 {
			if b == 0 {
				return float64(r.IntN(10))
			}
			return r.NormFloat64()
		}})
	}
	check(t, ss)
}

// weightOf counts the nodes that one grid point evaluates.
func weightOf(body []*kern.Node) int {
	n := 0
	for _, m := range body {
		n++
		if m.Prim == kern.Loop {
			n += m.Vars[0].Extent * weightOf(m.Body)
		}
	}
	return n
}
