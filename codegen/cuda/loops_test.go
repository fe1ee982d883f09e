package cuda_test

import (
	"fmt"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops"
)

// normed are rows less their mean over their deviation, as layer norm has them: three
// loops over what each row has, of which the last stores.
func normed(rows, n int, in, out ir.DType) *kern.Kernel {
	b := kern.NewBuilder("normed")
	i := b.Dim(rows)
	x := b.Buf("x", in, rows*n, kern.In)
	at := func(v *kern.Var) kern.Index { return kern.V(i).Scale(n).Add(kern.V(v)) }
	mean := func(of func(v *kern.Var) *kern.Node) *kern.Node {
		s, err := b.For(n, []kern.Combine{kern.Sum}, func(v *kern.Var) ([]*kern.Node, error) { return []*kern.Node{of(v)}, nil })
		if err != nil {
			panic(err)
		}
		return b.Op(kern.Mul, s[0], b.F(1/float64(n)))
	}
	m := mean(func(v *kern.Var) *kern.Node { return b.Load(x, at(v)) })
	d := mean(func(v *kern.Var) *kern.Node {
		y := b.Op(kern.Sub, b.Load(x, at(v)), m)
		return b.Op(kern.Mul, y, y)
	})
	d = b.Op(kern.Sqrt, b.Op(kern.Add, d, b.F(1e-5)))
	y := b.Buf("y", out, rows*n, kern.Out)
	if _, err := b.For(n, nil, func(v *kern.Var) ([]*kern.Node, error) {
		b.Store(y, at(v), b.Op(kern.Div, b.Op(kern.Sub, b.Load(x, at(v)), m), d))
		return nil, nil
	}); err != nil {
		panic(err)
	}
	return b.Done()
}

// parted has sums of columns whose rows come from two buffers, the first of them from
// one, divided by a number for each row, and the largest of each.
func parted(rows, first, n int, in ir.DType) *kern.Kernel {
	b := kern.NewBuilder("parted")
	i := b.Dim(n)
	x, y := b.Buf("x", in, first*n, kern.In), b.Buf("y", in, (rows-first)*n, kern.In)
	z := b.Buf("z", ir.F32, rows, kern.In)
	out, err := b.For(rows, []kern.Combine{kern.Sum, kern.MaxOf}, func(v *kern.Var) ([]*kern.Node, error) {
		at := kern.V(v).Scale(n).Add(kern.V(i))
		below, above := []kern.Guard{{At: kern.V(v), Lo: 0, Hi: first}}, []kern.Guard{{At: kern.V(v), Lo: first, Hi: rows}}
		load := func(buf int, at kern.Index, gs []kern.Guard) *kern.Node {
			n, err := b.Within(gs, func() (*kern.Node, error) { return b.Load(buf, at), nil })
			if err != nil {
				panic(err)
			}
			return n
		}
		s := b.Op(kern.Add, load(x, at, below), load(y, at.Plus(-first*n), above))
		w := b.Load(z, kern.V(v))
		return []*kern.Node{b.Op(kern.Div, s, b.Op(kern.Add, b.Op(kern.Mul, w, w), b.F(1))), s}, nil
	})
	if err != nil {
		panic(err)
	}
	b.Store(b.Buf("sum", ir.F32, n, kern.Out), kern.V(i), out[0])
	b.Store(b.Buf("largest", ir.F32, n, kern.Out), kern.V(i), out[1])
	return b.Done()
}

// gathered are sums of squares of so many rows of n elements, which a list picks.
func gathered(parts, rows, n int) *kern.Kernel {
	b := kern.NewBuilder("gathered")
	i := b.Dim(parts)
	list := b.Buf("list", ir.F32, parts*rows, kern.In)
	x := b.Buf("x", ir.F32, rows*n, kern.In)
	one := func(n int, body func(v *kern.Var) *kern.Node) *kern.Node {
		s, err := b.For(n, []kern.Combine{kern.Sum}, func(v *kern.Var) ([]*kern.Node, error) { return []*kern.Node{body(v)}, nil })
		if err != nil {
			panic(err)
		}
		return s[0]
	}
	total := one(rows, func(r *kern.Var) *kern.Node {
		// Some row for any number.
		l := b.Load(list, kern.V(i).Scale(rows).Add(kern.V(r)))
		row := b.Cast(ir.I32, b.Op(kern.Mul, b.Op(kern.Min, b.Op(kern.Abs, l), b.F(0.999)), b.F(float64(rows))))
		return one(n, func(v *kern.Var) *kern.Node {
			y := b.Load(x, kern.At(row).Scale(n).Add(kern.V(v)))
			return b.Op(kern.Mul, y, y)
		})
	})
	b.Store(b.Buf("sum", ir.F32, parts, kern.Out), kern.V(i), total)
	return b.Done()
}

// Sizes that leave the last batch of loads, the last iteration of a thread or the last
// block unfinished, and sums that one block has or the blocks of a cluster.
func TestLoops(t *testing.T) {
	for _, c := range []struct {
		name    string
		k       *kern.Kernel
		cluster int // on sm_90a
	}{
		{"rows of a warp", sums(5, 300, false), 0},
		{"rows that a list picks", gathered(3, 50, 36), 0},
		{"rows of a block", sums(5, 1000, false), 0},
		{"rows of half a block", sums(5, 400, false), 0},
		{"rows of clusters", sums(3, 70000, false), 8},
		{"a row", sums(1, 8195, false), 2},
		{"columns", sums(24, 40, true), 0},
		{"columns of clusters", sums(72, 5000, true), 8},
		{"columns of lines", sums(640, 700, true), 4},
		{"columns one by one", sums(37, 700, true), 8},
		{"normed f32", normed(3, 1920, ir.F32, ir.F16), 0},
		{"normed f16", normed(5, 1000, ir.F16, ir.F32), 0},
		{"normed bf16, few", normed(35, 200, ir.BF16, ir.BF16), 0},
		{"normed, long", normed(2, 9001, ir.F32, ir.F32), 2},
		{"two parts", parted(700, 130, 96, ir.F16), 4},
		{"two parts f32", parted(50, 7, 33, ir.F32), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, tg := range cuda.Targets() {
				_, entries, err := cuda.Text(c.k, tg, false)
				if err != nil {
					t.Fatal(err)
				}
				if tg.Name == "sm_90a" && entries[0].Cluster != c.cluster {
					t.Errorf("a cluster of %d blocks shares the loops, want %d: %+v", entries[0].Cluster, c.cluster, entries[0])
				}
				tolerance := 2e-6
				for _, b := range c.k.Bufs {
					if b.Mode == kern.Out && b.DType.Size() == 2 {
						tolerance = map[ir.DType]float64{ir.F16: 1e-3, ir.BF16: 8e-3}[b.DType]
					}
				}
				check(t, c.k, tg.Name, 1, tolerance)
			}
		})
	}
}

// Rows of tables that many name, that nobody names, and more of them than a block
// writes down at once.
func TestScatterAdd(t *testing.T) {
	for _, c := range []struct{ rows, count, n, named int }{
		{5, 300, 130, 5}, {600, 300, 8, 600}, {7, 3500, 24, 1}, {33, 1024, 33, 33}, {1, 4097, 3, 1},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			k := ops.ScatterAddOp{Rows: c.rows}.Kernel([]ir.Type{ir.T(ir.I32, c.count), ir.T(ir.F32, c.count, c.n)}, []ir.Type{ir.T(ir.F32, c.rows, c.n)})
			for _, tg := range cuda.Targets() {
				check(t, k, tg.Name, c.named, 1e-5)
			}
		})
	}
}
