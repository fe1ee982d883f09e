package ops

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// apply appends op to the function of its first argument.
func apply(op ir.Op, args ...*ir.Value) *ir.Value { return args[0].Func.Append(op, args...)[0] }

// arity checks the number of arguments and that no extent is below 1: an
// empty tensor has no maximum, no mean and no use here.
func arity(args []ir.Type, n int) error {
	if len(args) != n {
		return fmt.Errorf("takes %d arguments, has %d", n, len(args))
	}
	return extents(args...)
}

func extents(types ...ir.Type) error {
	for _, t := range types {
		for _, d := range t.Shape {
			if d < 1 {
				return fmt.Errorf("%s has an extent below 1; every extent must be at least 1", t)
			}
		}
	}
	return nil
}

func numeric(t ir.Type) bool { return t.DType.IsFloat() || t.DType == ir.I32 }

// alike checks n arguments of one type, accepted by ok.
func alike(args []ir.Type, n int, ok func(ir.Type) bool, want string) error {
	if err := arity(args, n); err != nil {
		return err
	}
	for _, t := range args {
		if !ok(t) {
			return fmt.Errorf("wants %s, not %s", want, t.DType)
		}
		if t.DType != args[0].DType {
			return fmt.Errorf("element types differ; cast one operand")
		}
		if !ir.SameShape(t.Shape, args[0].Shape) {
			return fmt.Errorf("shapes differ and don't broadcast")
		}
	}
	return nil
}

func isFloat(t ir.Type) bool { return t.DType.IsFloat() }
func isBool(t ir.Type) bool  { return t.DType == ir.Bool }

// shapeOf copies a shape attribute; an empty one is nil, so that equal ops
// have equal text.
func shapeOf(s []int) []int { return append([]int(nil), s...) }

// axisOf makes a possibly negative axis count from the front.
func axisOf(t ir.Type, axis int) int {
	if axis < 0 {
		return axis + t.Rank()
	}
	return axis
}

// fill computes a reference result element by element.
func fill(t ir.Type, at func(idx []int) float64) *ir.Tensor {
	out := ir.NewTensor(t)
	idx := make([]int, t.Rank())
	for i := range out.Data {
		out.Data[i] = at(idx)
		for d := t.Rank() - 1; d >= 0; d-- {
			idx[d]++
			if idx[d] < t.Shape[d] {
				break
			}
			idx[d] = 0
		}
	}
	return out
}

// at reads element idx of a reference tensor.
func at(t *ir.Tensor, idx ...int) float64 {
	n := 0
	for d, i := range idx {
		n = n*t.Type.Shape[d] + i
	}
	return t.Data[n]
}

// elementwise computes a pointwise reference result.
func elementwise(args []*ir.Tensor, outs []ir.Type, f func(x []float64) float64) []*ir.Tensor {
	out := ir.NewTensor(outs[0])
	x := make([]float64, len(args))
	for i := range out.Data {
		for j, a := range args {
			x[j] = a.Data[i]
		}
		out.Data[i] = f(x)
	}
	return []*ir.Tensor{out}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// operands emits element idx of every argument.
func operands(e *Emitter, idx []kern.Index) ([]*kern.Node, error) {
	ns := make([]*kern.Node, len(e.Args))
	for i := range ns {
		n, err := e.Arg(i, idx)
		if err != nil {
			return nil, err
		}
		ns[i] = n
	}
	return ns, nil
}

// primitive emits one kernel primitive applied to all arguments.
func primitive(e *Emitter, idx []kern.Index, p kern.Prim) (*kern.Node, error) {
	ns, err := operands(e, idx)
	if err != nil {
		return nil, err
	}
	return e.B.Op(p, ns...), nil
}

// grads is the result of a VJP with one argument.
func grads(g ...*ir.Value) []*ir.Value { return g }

// noGrads is the VJP of ops whose results carry no gradient.
func noGrads(in *ir.Instr) []*ir.Value { return make([]*ir.Value, len(in.Args)) }

// undifferentiable records that a gradient was asked where none is defined.
func undifferentiable(in *ir.Instr) []*ir.Value {
	f := in.Results[0].Func
	f.At(in.Pos, func() {
		f.Errorf("%s has no gradient; put stop_gradient on its result", in.Op.Name())
	})
	return noGrads(in)
}

// odd sizes every pointwise sample set covers: 1, below, at and above a
// vector's width, and a shape whose rows are no multiple of it.
var oddShapes = [][]int{{1}, {7}, {16}, {33}, {3, 17}}

func pointwiseSamples(op Op, n int, d ir.DType, fills ...Fill) []Sample {
	var out []Sample
	for _, s := range oddShapes {
		args := make([]ir.Type, n)
		for i := range args {
			args[i] = ir.T(d, s...)
		}
		out = append(out, Sample{Op: op, Args: args, Fill: fills})
	}
	return out
}

func withoutGrad(ss []Sample) []Sample {
	for i := range ss {
		ss[i].NoGrad = true
	}
	return ss
}

// broadcast gives both values their common shape, as NumPy does. Where there
// is none it returns them unchanged and leaves the error to the type rule.
func broadcast(vs ...*ir.Value) []*ir.Value {
	var shape []int
	for _, v := range vs {
		if v.Invalid() {
			return vs
		}
		s, ok := commonShape(shape, v.Type.Shape)
		if !ok {
			return vs
		}
		shape = s
	}
	out := make([]*ir.Value, len(vs))
	for i, v := range vs {
		out[i] = BroadcastTo(v, shape...)
	}
	return out
}

func commonShape(a, b []int) ([]int, bool) {
	if len(a) < len(b) {
		a, b = b, a
	}
	out := append([]int(nil), a...)
	off := len(a) - len(b)
	for i, d := range b {
		switch {
		case out[off+i] == d || d == 1:
		case out[off+i] == 1:
			out[off+i] = d
		default:
			return nil, false
		}
	}
	return out, true
}
