package cpu

import (
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// emitElement emits an operand's element from a load of it.
type emitElement func(b *kern.Builder, x *kern.Node) *kern.Node

func relu(b *kern.Builder, x *kern.Node) *kern.Node { return b.Op(kern.Max, x, b.F(0)) }

// shifted is not 0 where x is: padding must not go through it.
func shifted(b *kern.Builder, x *kern.Node) *kern.Node {
	return b.Op(kern.Add, b.Op(kern.Mul, x, b.F(0.5)), b.F(3))
}

// normalised is a layer norm given its statistics, of rows or columns.
func normalised(d ir.DType, row, column kern.Index, rows, columns int) emitElement {
	return func(b *kern.Builder, x *kern.Node) *kern.Node {
		load := func(d ir.DType, n int, at kern.Index) *kern.Node { return b.Load(b.Buf("", d, n, kern.In), at) }
		y := b.Op(kern.Sub, x, load(ir.F32, rows, row))
		variance := b.Op(kern.Add, b.Op(kern.Abs, load(ir.F32, rows, row)), b.F(0.5))
		y = b.Op(kern.Div, y, b.Op(kern.Sqrt, variance))
		y = b.Op(kern.Add, b.Op(kern.Mul, y, load(d, columns, column)), load(d, columns, column))
		if d != ir.F32 {
			y = b.Round(d, y, nil)
		}
		return y
	}
}

// operandOf emits the element of buffer x at index at, given vars.
func operandOf(t *testing.T, b *kern.Builder, vars []*kern.Var, x int, at kern.Index, f emitElement) *kern.Node {
	t.Helper()
	n, err := b.Detached(vars, func() (*kern.Node, error) {
		n := b.Load(x, at)
		if f != nil {
			n = f(b, n)
		}
		return n, nil
	})
	if err != nil || !kern.IsOperand(n) {
		t.Fatalf("%v is no operand (%v)", n, err)
	}
	return n
}

func TestPrologueOnEitherOperandOfEveryTransposition(t *testing.T) {
	var ss []sample
	for _, s := range []struct {
		m, n, k int
		d       ir.DType
	}{{1, 1, 1, ir.F32}, {37, 33, 16, ir.F32}, {60, 40, 200, ir.F32}, {33, 20, 300, ir.F16}, {20, 24, 1030, ir.BF16}, {4, 140, 29, ir.F32}} {
		for i := range 16 {
			if s.m != 37 && i%5 != s.m%5 {
				continue // all sixteen for one shape
			}
			ta, tb, onA, onB := i&1 != 0, i&2 != 0, i&4 != 0, i&8 != 0
			b := kern.NewBuilder("prologue")
			r, c := b.Dim(s.m), b.Dim(s.n)
			v := b.NewVar(s.k)
			i, j, q := kern.V(r), kern.V(c), kern.V(v)
			x, y := b.Buf("a", s.d, s.m*s.k, kern.In), b.Buf("b", s.d, s.k*s.n, kern.In)
			at, bt := i.Scale(s.k).Add(q), q.Scale(s.n).Add(j)
			if ta {
				at = q.Scale(s.m).Add(i)
			}
			if tb {
				bt = j.Scale(s.k).Add(q)
			}
			var fa, fb emitElement
			if onA {
				if fa = relu; onB || tb {
					// statistics of the stored rows, whichever those are
					row, column, rows, columns := i, q, s.m, s.k
					if ta {
						row, column, rows, columns = q, i, s.k, s.m
					}
					fa = normalised(s.d, row, column, rows, columns)
				}
			}
			if onB {
				fb = normalised(s.d, q, j, s.k, s.n)
			}
			vars := []*kern.Var{v}
			p := b.ContractOf(vars, operandOf(t, b, vars, x, at, fa), nil, operandOf(t, b, vars, y, bt, fb), nil)
			b.Store(b.Buf("y", ir.F32, s.m*s.n, kern.Out), i.Scale(s.n).Add(j), p)
			b.K.Vector = c
			// A number rounded the other way is one step of its type off.
			tol := map[ir.DType]float64{ir.F32: 1e-4, ir.F16: 3e-4, ir.BF16: 2e-3}[s.d]
			ss = append(ss, sample{k: chunked(b.Done()), tol: tol})
		}
	}
	check(t, ss)
}

// Convolutions with a prologue on the picture, of every kind of product: read
// in place with a border of zeros, and packed. The border is 0 after the
// prologue.
func TestPrologueOfConvolutions(t *testing.T) {
	var ss []sample
	f32 := ir.F32
	for _, s := range []struct {
		n, h, w, c, o, stride int
		d                     ir.DType
	}{{2, 5, 6, 3, 7, 1, f32}, {1, 8, 8, 16, 33, 2, f32}, {1, 4, 4, 1, 1, 1, f32}, {4, 16, 16, 4, 16, 1, f32}, {2, 7, 8, 12, 32, 1, ir.F16}, {1, 6, 6, 4, 160, 1, f32}} {
		for kind := range 3 {
			prologue := func(channel kern.Index, channels int) emitElement {
				switch kind {
				case 0:
					return relu
				case 1:
					return shifted
				}
				return func(b *kern.Builder, x *kern.Node) *kern.Node {
					return relu(b, b.Op(kern.Add, shifted(b, x), b.Load(b.Buf("shift", f32, channels, kern.In), channel)))
				}
			}
			oh, ow := (s.h+2-3)/s.stride+1, (s.w+2-3)/s.stride+1
			picture := func(n, r, q, c kern.Index) kern.Index {
				return kern.Flat([]int{s.n, s.h, s.w, s.c}, []kern.Index{n, r, q, c})
			}
			reach := func(at, tap *kern.Var) kern.Index { return kern.V(at).Scale(s.stride).Add(kern.V(tap)).Plus(-1) }
			inside := func(r, q kern.Index) []kern.Guard {
				return []kern.Guard{{At: r, Lo: 0, Hi: s.h}, {At: q, Lo: 0, Hi: s.w}}
			}
			filter := func(i, j, c, o *kern.Var) kern.Index {
				return kern.Flat([]int{3, 3, s.c, s.o}, []kern.Index{kern.V(i), kern.V(j), kern.V(c), kern.V(o)})
			}
			result := func(n, h, w, o *kern.Var) kern.Index {
				return kern.Flat([]int{s.n, oh, ow, s.o}, []kern.Index{kern.V(n), kern.V(h), kern.V(w), kern.V(o)})
			}
			// the convolution
			b := kern.NewBuilder("conv")
			n, h, w, o := b.Dim(s.n), b.Dim(oh), b.Dim(ow), b.Dim(s.o)
			i, j, c := b.NewVar(3), b.NewVar(3), b.NewVar(s.c)
			vars := []*kern.Var{i, j, c}
			x, wt := b.Buf("x", s.d, s.n*s.h*s.w*s.c, kern.In), b.Buf("w", f32, 9*s.c*s.o, kern.In)
			r, q := reach(h, i), reach(w, j)
			y := b.ContractOf(vars, operandOf(t, b, vars, x, picture(kern.V(n), r, q, kern.V(c)), prologue(kern.V(c), s.c)), inside(r, q),
				operandOf(t, b, vars, wt, filter(i, j, c, o), nil), nil)
			b.Store(b.Buf("y", f32, s.n*oh*ow*s.o, kern.Out), result(n, h, w, o), y)
			b.K.Vector = o
			ss = append(ss, sample{k: chunked(b.Done()), tol: 1e-4})
			// the gradient of its filters
			b = kern.NewBuilder("conv_filters")
			i, j, c, o = b.Dim(3), b.Dim(3), b.Dim(s.c), b.Dim(s.o)
			n, h, w = b.NewVar(s.n), b.NewVar(oh), b.NewVar(ow)
			vars = []*kern.Var{n, h, w}
			x, dy := b.Buf("x", s.d, s.n*s.h*s.w*s.c, kern.In), b.Buf("dy", f32, s.n*oh*ow*s.o, kern.In)
			r, q = reach(h, i), reach(w, j)
			y = b.ContractOf(vars, operandOf(t, b, vars, x, picture(kern.V(n), r, q, kern.V(c)), prologue(kern.V(c), s.c)), inside(r, q),
				operandOf(t, b, vars, dy, result(n, h, w, o), nil), nil)
			b.Store(b.Buf("dw", f32, 9*s.c*s.o, kern.Out), filter(i, j, c, o), y)
			b.K.Vector = o
			ss = append(ss, sample{k: chunked(b.Done()), tol: 1e-3})
			// the gradient of the picture, of stride 1: patches run backwards
			if s.stride > 1 {
				continue
			}
			b = kern.NewBuilder("conv_picture")
			n, h, w, c = b.Dim(s.n), b.Dim(s.h), b.Dim(s.w), b.Dim(s.c)
			i, j, o = b.NewVar(3), b.NewVar(3), b.NewVar(s.o)
			vars = []*kern.Var{i, j, o}
			dy, wt = b.Buf("dy", s.d, s.n*oh*ow*s.o, kern.In), b.Buf("w", f32, 9*s.c*s.o, kern.In)
			r, q = kern.V(h).Add(kern.V(i).Scale(-1)).Plus(1), kern.V(w).Add(kern.V(j).Scale(-1)).Plus(1)
			from := kern.Flat([]int{s.n, oh, ow, s.o}, []kern.Index{kern.V(n), r, q, kern.V(o)})
			y = b.ContractOf(vars, operandOf(t, b, vars, dy, from, prologue(kern.V(o), s.o)), inside(r, q),
				operandOf(t, b, vars, wt, filter(i, j, c, o), nil), nil)
			b.Store(b.Buf("dx", f32, s.n*s.h*s.w*s.c, kern.Out), picture(kern.V(n), kern.V(h), kern.V(w), kern.V(c)), y)
			b.K.Vector = c
			ss = append(ss, sample{k: chunked(b.Done()), tol: 1e-3})
		}
	}
	check(t, ss)
}

// A product that is written as loops pads after its prologue, too.
func TestPrologueOfLoops(t *testing.T) {
	b := kern.NewBuilder("loops")
	i, j := b.Dim(6), b.Dim(21)
	v := b.NewVar(35)
	id := b.Load(b.Buf("id", ir.Bool, 6, kern.In), kern.V(i))
	q, k := b.Buf("table", ir.F32, 2*35, kern.In), b.Buf("b", ir.F32, 35*21, kern.In)
	vars := []*kern.Var{v}
	left := &kern.Node{Prim: kern.Load, Type: ir.F32, Buf: q, At: kern.At(b.Cast(ir.I32, id)).Scale(35).Add(kern.V(v))}
	y := b.ContractOf(vars, left, nil, operandOf(t, b, vars, k, kern.V(v).Scale(21).Add(kern.V(j)), shifted), []kern.Guard{{At: kern.V(v).Add(kern.V(j)), Lo: 5, Hi: 50}})
	b.Store(b.Buf("y", ir.F32, 6*21, kern.Out), kern.V(i).Scale(21).Add(kern.V(j)), y)
	b.K.Vector = j
	check(t, []sample{{k: chunked(b.Done()), tol: 1e-4, fill: nil}})
}
