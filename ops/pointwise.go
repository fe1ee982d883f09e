package ops

import (
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// The families of pointwise ops: they supply type rule and cost.
type (
	unaryFloat    struct{ pointwise } // float -> same type
	unaryNumeric  struct{ pointwise } // float or i32 -> same type
	binaryFloat   struct{ pointwise }
	binaryNumeric struct{ pointwise }
	pointwise     struct{}
)

func (pointwise) Cost(_, outs []ir.Type) ir.Cost { return ir.Cost{FLOPs: int64(outs[0].Len())} }

func (unaryFloat) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := alike(args, 1, isFloat, "a floating-point tensor"); err != nil {
		return nil, err
	}
	return args[:1], nil
}

func (unaryNumeric) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := alike(args, 1, numeric, "floating point or i32"); err != nil {
		return nil, err
	}
	return args[:1], nil
}

func (binaryFloat) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := alike(args, 2, isFloat, "floating-point tensors"); err != nil {
		return nil, err
	}
	return args[:1], nil
}

func (binaryNumeric) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := alike(args, 2, numeric, "floating point or i32"); err != nil {
		return nil, err
	}
	return args[:1], nil
}

func init() {
	ir.Register(AddOp{}, SubOp{}, MulOp{}, DivOp{}, MaxOp{}, MinOp{}, NegOp{}, AbsOp{}, ExpOp{}, LogOp{},
		SqrtOp{}, FloorOp{}, AddConstOp{}, MulConstOp{}, ClampOp{})
}

// AddOp is a + b.
type AddOp struct{ binaryNumeric }

// Name is add.
func (AddOp) Name() string { return "add" }

// Ref adds.
func (AddOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return x[0] + x[1] })
}

// Element emits add.
func (AddOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Add)
}

// Cheap is true.
func (AddOp) Cheap() bool { return true }

// VJP is dy for both.
func (AddOp) VJP(_ *ir.Instr, g []*ir.Value) []*ir.Value { return grads(g[0], g[0]) }

// Samples covers f32 and i32.
func (op AddOp) Samples() []Sample {
	return append(pointwiseSamples(op, 2, ir.F32), integerSamples(op)...)
}

func integerSamples(op Op) []Sample {
	return withoutGrad(pointwiseSamples(op, 2, ir.I32, Fill{Kind: "index", N: 9}, Fill{Kind: "index", N: 9})[2:4])
}

// Add is a + b with broadcasting.
func Add(a, b *ir.Value) *ir.Value { return apply(AddOp{}, broadcast(a, b)...) }

// SubOp is a - b.
type SubOp struct{ binaryNumeric }

// Name is sub.
func (SubOp) Name() string { return "sub" }

// Ref subtracts.
func (SubOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return x[0] - x[1] })
}

// Element emits sub.
func (SubOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Sub)
}

// Cheap is true.
func (SubOp) Cheap() bool { return true }

// VJP is dy and -dy.
func (SubOp) VJP(_ *ir.Instr, g []*ir.Value) []*ir.Value { return grads(g[0], Neg(g[0])) }

// Samples covers f32 and i32.
func (op SubOp) Samples() []Sample {
	return append(pointwiseSamples(op, 2, ir.F32), integerSamples(op)...)
}

// Sub is a - b with broadcasting.
func Sub(a, b *ir.Value) *ir.Value { return apply(SubOp{}, broadcast(a, b)...) }

// MulOp is a * b.
type MulOp struct{ binaryNumeric }

// Name is mul.
func (MulOp) Name() string { return "mul" }

// Ref multiplies.
func (MulOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return x[0] * x[1] })
}

// Element emits mul.
func (MulOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Mul)
}

// Cheap is true.
func (MulOp) Cheap() bool { return true }

// Simplify finds tensors of ones, which gradients of sums begin with.
func (MulOp) Simplify(in *ir.Instr) *ir.Value {
	for i, a := range in.Args {
		if ones(a) {
			return in.Args[1-i]
		}
	}
	return nil
}

// ones reports whether v is a constant 1, or views and casts of one.
func ones(v *ir.Value) bool {
	if v.Def == nil {
		return false
	}
	switch op := v.Def.Op.(type) {
	case ConstantOp:
		return op.Value == 1
	case CastOp, ReshapeOp, BroadcastToOp, TransposeOp:
		return ones(v.Def.Args[0])
	}
	return false
}

// VJP is dy*b and dy*a.
func (MulOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	if in.Args[0] == in.Args[1] {
		return grads(MulConst(Mul(g[0], in.Args[0]), 2), nil)
	}
	return grads(Mul(g[0], in.Args[1]), Mul(g[0], in.Args[0]))
}

// Samples covers f32 and i32.
func (op MulOp) Samples() []Sample {
	return append(pointwiseSamples(op, 2, ir.F32), integerSamples(op)...)
}

// Mul is a * b with broadcasting.
func Mul(a, b *ir.Value) *ir.Value { return apply(MulOp{}, broadcast(a, b)...) }

// Square is x * x.
func Square(x *ir.Value) *ir.Value { return Mul(x, x) }

// DivOp is a / b.
type DivOp struct{ binaryFloat }

// Name is div.
func (DivOp) Name() string { return "div" }

// Ref divides.
func (DivOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return x[0] / x[1] })
}

// Element emits div.
func (DivOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Div)
}

// Cheap is false: a division takes as long as ten additions.
func (DivOp) Cheap() bool { return false }

// VJP is dy/b and -dy*y/b.
func (DivOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	q := Div(g[0], in.Args[1])
	return grads(q, Neg(Mul(q, in.Results[0])))
}

// Samples keeps b positive.
func (op DivOp) Samples() []Sample {
	return pointwiseSamples(op, 2, ir.F32, Fill{}, Fill{Kind: "positive"})
}

// Div is a / b with broadcasting.
func Div(a, b *ir.Value) *ir.Value { return apply(DivOp{}, broadcast(a, b)...) }

// MaxOp is the larger of a and b.
type MaxOp struct{ binaryNumeric }

// Name is max.
func (MaxOp) Name() string { return "max" }

// Ref compares.
func (MaxOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return math.Max(x[0], x[1]) })
}

// Element emits max.
func (MaxOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Max)
}

// Cheap is true.
func (MaxOp) Cheap() bool { return true }

// VJP gives dy to the larger operand, to a where they tie.
func (MaxOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	first, zero := Le(in.Args[1], in.Args[0]), zeros(g[0])
	return grads(Select(first, g[0], zero), Select(first, zero, g[0]))
}

// Samples covers f32 and i32.
func (op MaxOp) Samples() []Sample {
	return append(pointwiseSamples(op, 2, ir.F32), integerSamples(op)...)
}

// Max is the larger of a and b with broadcasting.
func Max(a, b *ir.Value) *ir.Value { return apply(MaxOp{}, broadcast(a, b)...) }

// MinOp is the smaller of a and b.
type MinOp struct{ binaryNumeric }

// Name is min.
func (MinOp) Name() string { return "min" }

// Ref compares.
func (MinOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return math.Min(x[0], x[1]) })
}

// Element emits min.
func (MinOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Min)
}

// Cheap is true.
func (MinOp) Cheap() bool { return true }

// VJP gives dy to the smaller operand, to a where they tie.
func (MinOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	first, zero := Le(in.Args[0], in.Args[1]), zeros(g[0])
	return grads(Select(first, g[0], zero), Select(first, zero, g[0]))
}

// Samples covers f32 and i32.
func (op MinOp) Samples() []Sample {
	return append(pointwiseSamples(op, 2, ir.F32), integerSamples(op)...)
}

// Min is the smaller of a and b with broadcasting.
func Min(a, b *ir.Value) *ir.Value { return apply(MinOp{}, broadcast(a, b)...) }

// NegOp is -x.
type NegOp struct{ unaryNumeric }

// Name is neg.
func (NegOp) Name() string { return "neg" }

// Ref negates.
func (NegOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return -x[0] })
}

// Element emits neg.
func (NegOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Neg)
}

// Cheap is true.
func (NegOp) Cheap() bool { return true }

// VJP is -dy.
func (NegOp) VJP(_ *ir.Instr, g []*ir.Value) []*ir.Value { return grads(Neg(g[0])) }

// Samples covers f32.
func (op NegOp) Samples() []Sample { return pointwiseSamples(op, 1, ir.F32) }

// Simplify finds the negative of a negative.
func (NegOp) Simplify(in *ir.Instr) *ir.Value {
	_, x := before[NegOp](in.Args[0])
	return x
}

// Neg is -x.
func Neg(x *ir.Value) *ir.Value { return apply(NegOp{}, x) }

// AbsOp is |x|.
type AbsOp struct{ unaryFloat }

// Name is abs.
func (AbsOp) Name() string { return "abs" }

// Ref takes the absolute value.
func (AbsOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return math.Abs(x[0]) })
}

// Element emits abs.
func (AbsOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Abs)
}

// Cheap is true.
func (AbsOp) Cheap() bool { return true }

// VJP is dy*sign(x), 0 at 0.
func (AbsOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	x, zero := in.Args[0], zeros(g[0])
	return grads(Select(Lt(zero, x), g[0], Select(Lt(x, zero), Neg(g[0]), zero)))
}

// Samples stays off 0, where the derivative jumps.
func (op AbsOp) Samples() []Sample {
	return append(pointwiseSamples(op, 1, ir.F32, Fill{Kind: "distinct"}), pointwiseSamples(op, 1, ir.F32, Fill{Kind: "positive"})[1:2]...)
}

// Abs is |x|.
func Abs(x *ir.Value) *ir.Value { return apply(AbsOp{}, x) }

// ExpOp is e^x.
type ExpOp struct{ unaryFloat }

// Name is exp.
func (ExpOp) Name() string { return "exp" }

// Ref is math.Exp.
func (ExpOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return math.Exp(x[0]) })
}

// Element emits exp.
func (ExpOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Exp)
}

// Cheap is false.
func (ExpOp) Cheap() bool { return false }

// VJP is dy*y.
func (ExpOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value { return grads(Mul(g[0], in.Results[0])) }

// Samples covers f32.
func (op ExpOp) Samples() []Sample { return pointwiseSamples(op, 1, ir.F32) }

// Exp is e^x.
func Exp(x *ir.Value) *ir.Value { return apply(ExpOp{}, x) }

// LogOp is the natural logarithm.
type LogOp struct{ unaryFloat }

// Name is log.
func (LogOp) Name() string { return "log" }

// Ref is math.Log.
func (LogOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return math.Log(x[0]) })
}

// Element emits log.
func (LogOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Log)
}

// Cheap is false.
func (LogOp) Cheap() bool { return false }

// VJP is dy/x.
func (LogOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value { return grads(Div(g[0], in.Args[0])) }

// Samples keeps x positive.
func (op LogOp) Samples() []Sample { return pointwiseSamples(op, 1, ir.F32, Fill{Kind: "positive"}) }

// Log is the natural logarithm of x.
func Log(x *ir.Value) *ir.Value { return apply(LogOp{}, x) }

// SqrtOp is the square root.
type SqrtOp struct{ unaryFloat }

// Name is sqrt.
func (SqrtOp) Name() string { return "sqrt" }

// Ref is math.Sqrt.
func (SqrtOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return math.Sqrt(x[0]) })
}

// Element emits sqrt.
func (SqrtOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Sqrt)
}

// Cheap is false.
func (SqrtOp) Cheap() bool { return false }

// VJP is dy/(2y).
func (SqrtOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	return grads(Div(MulConst(g[0], 0.5), in.Results[0]))
}

// Samples keeps x positive.
func (op SqrtOp) Samples() []Sample { return pointwiseSamples(op, 1, ir.F32, Fill{Kind: "positive"}) }

// Sqrt is the square root of x.
func Sqrt(x *ir.Value) *ir.Value { return apply(SqrtOp{}, x) }

// FloorOp rounds down; its gradient is zero.
type FloorOp struct{ unaryFloat }

// Name is floor.
func (FloorOp) Name() string { return "floor" }

// Ref is math.Floor.
func (FloorOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return math.Floor(x[0]) })
}

// Element emits floor.
func (FloorOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Floor)
}

// Cheap is true.
func (FloorOp) Cheap() bool { return true }

// VJP is nil: the derivative is 0 almost everywhere.
func (FloorOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return noGrads(in) }

// Samples covers f32.
func (op FloorOp) Samples() []Sample { return withoutGrad(pointwiseSamples(op, 1, ir.F32)) }

// Floor is the largest integer not above x.
func Floor(x *ir.Value) *ir.Value { return apply(FloorOp{}, x) }

// AddConstOp is x + Value.
type AddConstOp struct {
	unaryFloat
	Value float64
}

// Name is add_const.
func (AddConstOp) Name() string { return "add_const" }

// Ref adds.
func (op AddConstOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return x[0] + op.Value })
}

// Element emits add.
func (op AddConstOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	x, err := e.Arg(0, idx)
	if err != nil {
		return nil, err
	}
	return e.B.Op(kern.Add, x, e.B.F(op.Value)), nil
}

// Cheap is true.
func (AddConstOp) Cheap() bool { return true }

// VJP is dy.
func (AddConstOp) VJP(_ *ir.Instr, g []*ir.Value) []*ir.Value { return grads(g[0]) }

// Samples covers f32.
func (op AddConstOp) Samples() []Sample {
	op.Value = 0.75
	return pointwiseSamples(op, 1, ir.F32)
}

// AddConst is x + c.
func AddConst(x *ir.Value, c float64) *ir.Value { return apply(AddConstOp{Value: c}, x) }

// MulConstOp is x * Value.
type MulConstOp struct {
	unaryFloat
	Value float64
}

// Name is mul_const.
func (MulConstOp) Name() string { return "mul_const" }

// Ref multiplies.
func (op MulConstOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return x[0] * op.Value })
}

// Element emits mul.
func (op MulConstOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	x, err := e.Arg(0, idx)
	if err != nil {
		return nil, err
	}
	return e.B.Op(kern.Mul, x, e.B.F(op.Value)), nil
}

// Cheap is true.
func (MulConstOp) Cheap() bool { return true }

// VJP is dy*Value.
func (op MulConstOp) VJP(_ *ir.Instr, g []*ir.Value) []*ir.Value {
	return grads(MulConst(g[0], op.Value))
}

// Samples covers f32.
func (op MulConstOp) Samples() []Sample {
	op.Value = -1.5
	return pointwiseSamples(op, 1, ir.F32)
}

// Simplify finds factors of 1.
func (op MulConstOp) Simplify(in *ir.Instr) *ir.Value {
	if op.Value == 1 {
		return in.Args[0]
	}
	return nil
}

// MulConst is x * c.
func MulConst(x *ir.Value, c float64) *ir.Value { return apply(MulConstOp{Value: c}, x) }

// ClampOp limits x to [Lo, Hi].
type ClampOp struct {
	unaryFloat
	Lo, Hi float64
}

// Name is clamp.
func (ClampOp) Name() string { return "clamp" }

// Ref limits.
func (op ClampOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 {
		switch {
		case x[0] < op.Lo:
			return op.Lo
		case x[0] > op.Hi:
			return op.Hi
		}
		return x[0]
	})
}

// Element emits max and min.
func (op ClampOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	x, err := e.Arg(0, idx)
	if err != nil {
		return nil, err
	}
	return e.B.Op(kern.Min, e.B.Op(kern.Max, x, e.B.F(op.Lo)), e.B.F(op.Hi)), nil
}

// Cheap is true.
func (ClampOp) Cheap() bool { return true }

// VJP is dy inside the limits and 0 outside.
func (op ClampOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	x := in.Args[0]
	inside := And(Le(Full(x.Func, x.Type, op.Lo), x), Le(x, Full(x.Func, x.Type, op.Hi)))
	return grads(Select(inside, g[0], zeros(g[0])))
}

// Samples crosses both limits.
func (op ClampOp) Samples() []Sample {
	op.Lo, op.Hi = -0.505, 0.715
	return pointwiseSamples(op, 1, ir.F32, Fill{Kind: "distinct"})
}

// Clamp limits x to [lo, hi].
func Clamp(x *ir.Value, lo, hi float64) *ir.Value { return apply(ClampOp{Lo: lo, Hi: hi}, x) }
