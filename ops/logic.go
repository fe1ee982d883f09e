package ops

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

func init() {
	ir.Register(LtOp{}, LeOp{}, EqOp{}, AndOp{}, OrOp{}, NotOp{}, SelectOp{}, CastOp{})
}

// comparison is the family numeric, numeric -> bool; logical is bool -> bool.
// Neither has a gradient.
type (
	comparison struct{ pointwise }
	logical    struct{ pointwise }
)

func (comparison) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := alike(args, 2, numeric, "floating point or i32"); err != nil {
		return nil, err
	}
	return []ir.Type{ir.T(ir.Bool, args[0].Shape...)}, nil
}

func (comparison) Cheap() bool                                 { return true }
func (comparison) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return noGrads(in) }
func (logical) Cheap() bool                                    { return true }
func (logical) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value    { return noGrads(in) }
func (logical) infer(args []ir.Type, n int) ([]ir.Type, error) {
	if err := alike(args, n, isBool, "bool"); err != nil {
		return nil, err
	}
	return args[:1], nil
}

func comparisonSamples(op Op) []Sample {
	return append(withoutGrad(pointwiseSamples(op, 2, ir.F32)), integerSamples(op)...)
}

func logicalSamples(op Op, n int) []Sample {
	return withoutGrad(pointwiseSamples(op, n, ir.Bool, Fill{Kind: "bool"}, Fill{Kind: "bool"}))
}

// LtOp is a < b.
type LtOp struct{ comparison }

// Name is lt.
func (LtOp) Name() string { return "lt" }

// Ref compares.
func (LtOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return truth(x[0] < x[1]) })
}

// Element emits lt.
func (LtOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Lt)
}

// Samples covers f32 and i32.
func (op LtOp) Samples() []Sample { return comparisonSamples(op) }

// Lt is a < b with broadcasting.
func Lt(a, b *ir.Value) *ir.Value { return apply(LtOp{}, broadcast(a, b)...) }

// LeOp is a <= b.
type LeOp struct{ comparison }

// Name is le.
func (LeOp) Name() string { return "le" }

// Ref compares.
func (LeOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return truth(x[0] <= x[1]) })
}

// Element emits le.
func (LeOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Le)
}

// Samples covers f32 and i32.
func (op LeOp) Samples() []Sample { return comparisonSamples(op) }

// Le is a <= b with broadcasting.
func Le(a, b *ir.Value) *ir.Value { return apply(LeOp{}, broadcast(a, b)...) }

// EqOp is a == b.
type EqOp struct{ comparison }

// Name is eq.
func (EqOp) Name() string { return "eq" }

// Ref compares.
func (EqOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return truth(x[0] == x[1]) })
}

// Element emits eq.
func (EqOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Eq)
}

// Samples covers f32 and i32.
func (op EqOp) Samples() []Sample { return comparisonSamples(op) }

// Eq is a == b with broadcasting.
func Eq(a, b *ir.Value) *ir.Value { return apply(EqOp{}, broadcast(a, b)...) }

// AndOp is the logical and.
type AndOp struct{ logical }

// Name is and.
func (AndOp) Name() string { return "and" }

// Infer wants two bools.
func (op AndOp) Infer(args []ir.Type) ([]ir.Type, error) { return op.infer(args, 2) }

// Ref is the truth table.
func (AndOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return truth(x[0] == 1 && x[1] == 1) })
}

// Element emits and.
func (AndOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.And)
}

// Samples covers bool.
func (op AndOp) Samples() []Sample { return logicalSamples(op, 2) }

// And is the logical and with broadcasting.
func And(a, b *ir.Value) *ir.Value { return apply(AndOp{}, broadcast(a, b)...) }

// OrOp is the logical or.
type OrOp struct{ logical }

// Name is or.
func (OrOp) Name() string { return "or" }

// Infer wants two bools.
func (op OrOp) Infer(args []ir.Type) ([]ir.Type, error) { return op.infer(args, 2) }

// Ref is the truth table.
func (OrOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return truth(x[0] == 1 || x[1] == 1) })
}

// Element emits or.
func (OrOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Or)
}

// Samples covers bool.
func (op OrOp) Samples() []Sample { return logicalSamples(op, 2) }

// Or is the logical or with broadcasting.
func Or(a, b *ir.Value) *ir.Value { return apply(OrOp{}, broadcast(a, b)...) }

// NotOp is the logical not.
type NotOp struct{ logical }

// Name is not.
func (NotOp) Name() string { return "not" }

// Infer wants one bool.
func (op NotOp) Infer(args []ir.Type) ([]ir.Type, error) { return op.infer(args, 1) }

// Ref is the truth table.
func (NotOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return 1 - x[0] })
}

// Element emits not.
func (NotOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Not)
}

// Samples covers bool.
func (op NotOp) Samples() []Sample { return logicalSamples(op, 1) }

// Not is the logical not.
func Not(x *ir.Value) *ir.Value { return apply(NotOp{}, x) }

// SelectOp is cond ? a : b; what is not chosen has no influence, even NaN.
type SelectOp struct{ pointwise }

// Name is select.
func (SelectOp) Name() string { return "select" }

// Infer wants a bool and two operands of one type.
func (SelectOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 3); err != nil {
		return nil, err
	}
	if args[0].DType != ir.Bool {
		return nil, fmt.Errorf("the condition must be bool, not %s", args[0].DType)
	}
	if args[1].DType != args[2].DType {
		return nil, fmt.Errorf("element types differ; cast one operand")
	}
	if !args[1].Equal(args[2]) || !ir.SameShape(args[0].Shape, args[1].Shape) {
		return nil, fmt.Errorf("shapes differ and don't broadcast")
	}
	return args[1:2], nil
}

// Ref chooses.
func (SelectOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 {
		if x[0] == 1 {
			return x[1]
		}
		return x[2]
	})
}

// Element emits select.
func (SelectOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Select)
}

// Cheap is true.
func (SelectOp) Cheap() bool { return true }

// VJP sends dy to the chosen operand.
func (SelectOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	zero := zeros(g[0])
	return grads(nil, Select(in.Args[0], g[0], zero), Select(in.Args[0], zero, g[0]))
}

// Samples covers f32 and i32.
func (op SelectOp) Samples() []Sample {
	var out []Sample
	for _, s := range oddShapes {
		out = append(out, Sample{Op: op, Args: []ir.Type{ir.T(ir.Bool, s...), ir.T(ir.F32, s...), ir.T(ir.F32, s...)}, Fill: []Fill{{Kind: "bool"}}})
	}
	i := Fill{Kind: "index", N: 9}
	return append(out, Sample{Op: op, Args: []ir.Type{ir.T(ir.Bool, 7), ir.T(ir.I32, 7), ir.T(ir.I32, 7)}, Fill: []Fill{{Kind: "bool"}, i, i}, NoGrad: true})
}

// Select is cond ? a : b with broadcasting.
func Select(cond, a, b *ir.Value) *ir.Value { return apply(SelectOp{}, broadcast(cond, a, b)...) }

// CastOp converts to element type To: truncating to integers, non-zero to
// true, to the nearest number of a 16-bit type.
type CastOp struct {
	pointwise
	To ir.DType
}

// Name is cast.
func (CastOp) Name() string { return "cast" }

// Infer replaces the element type.
func (op CastOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 1); err != nil {
		return nil, err
	}
	if op.To == ir.Invalid {
		return nil, fmt.Errorf("no target type given")
	}
	return []ir.Type{ir.T(op.To, args[0].Shape...)}, nil
}

// Ref converts.
func (op CastOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 {
		switch op.To {
		case ir.I32, ir.I8:
			return math.Trunc(x[0])
		case ir.Bool:
			return truth(x[0] != 0)
		}
		if f, ok := op.To.Format(); ok {
			return float64(f.Round(float32(x[0])))
		}
		return x[0]
	})
}

// Element emits the scalar conversion and the rounding.
func (op CastOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	x, err := e.Arg(0, idx)
	if err != nil {
		return nil, err
	}
	n := e.B.Cast(kern.ScalarType(op.To), x)
	if _, ok := op.To.Format(); ok {
		n = e.B.Round(op.To, n, nil)
	}
	return n, nil
}

// Cheap is true.
func (CastOp) Cheap() bool { return true }

// VJP casts back between floating-point types; others have no gradient.
func (op CastOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	from := in.Args[0].Type.DType
	if !from.IsFloat() || !op.To.IsFloat() {
		return noGrads(in)
	}
	return grads(Cast(g[0], from))
}

// Samples covers the conversions that occur.
func (op CastOp) Samples() []Sample {
	sample := func(from, to ir.DType, f Fill, n ...int) Sample {
		return Sample{Op: CastOp{To: to}, Args: []ir.Type{ir.T(from, n...)}, Fill: []Fill{f}, NoGrad: true} // rounding has no difference quotient
	}
	return []Sample{
		sample(ir.F32, ir.I32, Fill{Kind: "positive"}, 33),
		sample(ir.F32, ir.I32, Fill{}, 3, 7),
		sample(ir.I32, ir.F32, Fill{Kind: "index", N: 100}, 17),
		sample(ir.Bool, ir.F32, Fill{Kind: "bool"}, 33),
		sample(ir.Bool, ir.I32, Fill{Kind: "bool"}, 7),
		sample(ir.F32, ir.Bool, Fill{Kind: "const"}, 7),
		sample(ir.I32, ir.Bool, Fill{Kind: "index", N: 2}, 16),
		sample(ir.F32, ir.F16, Fill{}, 33),
		sample(ir.F32, ir.BF16, Fill{}, 7),
		sample(ir.F32, ir.E6M9, Fill{}, 16),
		sample(ir.F32, ir.UE6M10, Fill{Kind: "positive"}, 33),
		sample(ir.F16, ir.F32, Fill{}, 33),
		sample(ir.E6M9, ir.F32, Fill{}, 7),
		sample(ir.UE6M10, ir.F32, Fill{Kind: "positive"}, 7),
	}
}

// Simplify finds casts to the type that is there.
func (CastOp) Simplify(in *ir.Instr) *ir.Value { return sameType(in, in.Args[0]) }

// Cast converts x to element type d; x itself when it has that type.
func Cast(x *ir.Value, d ir.DType) *ir.Value {
	if !x.Invalid() && x.Type.DType == d {
		return x
	}
	return apply(CastOp{To: d}, x)
}
