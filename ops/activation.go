package ops

import (
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

func init() { ir.Register(TanhOp{}, SigmoidOp{}, ReLUOp{}, QuickGELUOp{}, GELUTanhOp{}) }

// TanhOp is the hyperbolic tangent.
type TanhOp struct{ unaryFloat }

// Name is tanh.
func (TanhOp) Name() string { return "tanh" }

// Ref is math.Tanh.
func (TanhOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return math.Tanh(x[0]) })
}

// Element emits tanh.
func (TanhOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return primitive(e, idx, kern.Tanh)
}

// Cheap is false.
func (TanhOp) Cheap() bool { return false }

// VJP is dy*(1-y*y).
func (TanhOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	return grads(Mul(g[0], oneMinus(Square(in.Results[0]))))
}

// Samples covers f32.
func (op TanhOp) Samples() []Sample { return pointwiseSamples(op, 1, ir.F32) }

// Tanh is the hyperbolic tangent of x.
func Tanh(x *ir.Value) *ir.Value { return apply(TanhOp{}, x) }

func oneMinus(x *ir.Value) *ir.Value { return AddConst(Neg(x), 1) }

// SigmoidOp is 1/(1+exp(-x)).
type SigmoidOp struct{ unaryFloat }

// Name is sigmoid.
func (SigmoidOp) Name() string { return "sigmoid" }

// Ref uses the form that does not overflow for either sign.
func (SigmoidOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return sigmoid(x[0]) })
}

func sigmoid(x float64) float64 {
	if x < 0 {
		return math.Exp(x) / (1 + math.Exp(x))
	}
	return 1 / (1 + math.Exp(-x))
}

// Element emits 1/(1+exp(-x)): for very negative x the exponential is +Inf
// and the quotient 0, as it should be.
func (SigmoidOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	x, err := e.Arg(0, idx)
	if err != nil {
		return nil, err
	}
	return e.B.Op(kern.Div, e.B.F(1), logisticDenominator(e.B, x, -1)), nil
}

// logisticDenominator emits 1 + exp(c*x).
func logisticDenominator(b *kern.Builder, x *kern.Node, c float64) *kern.Node {
	return b.Op(kern.Add, b.F(1), b.Op(kern.Exp, b.Op(kern.Mul, x, b.F(c))))
}

// Cheap is false.
func (SigmoidOp) Cheap() bool { return false }

// Weight counts an exponential and a division.
func (SigmoidOp) Weight() int { return 2 }

// VJP is dy*y*(1-y).
func (SigmoidOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	y := in.Results[0]
	return grads(Mul(g[0], Mul(y, oneMinus(y))))
}

// Samples covers f32.
func (op SigmoidOp) Samples() []Sample { return pointwiseSamples(op, 1, ir.F32) }

// Sigmoid is 1/(1+exp(-x)).
func Sigmoid(x *ir.Value) *ir.Value { return apply(SigmoidOp{}, x) }

// ReLUOp is max(x, 0).
type ReLUOp struct{ unaryFloat }

// Name is relu.
func (ReLUOp) Name() string { return "relu" }

// Ref compares.
func (ReLUOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 {
		if x[0] > 0 {
			return x[0]
		}
		return 0
	})
}

// Element emits max.
func (ReLUOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	x, err := e.Arg(0, idx)
	if err != nil {
		return nil, err
	}
	return e.B.Op(kern.Max, x, e.B.F(0)), nil
}

// Cheap is true.
func (ReLUOp) Cheap() bool { return true }

// VJP is dy where x > 0.
func (ReLUOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	zero := zeros(g[0])
	return grads(Select(Lt(zero, in.Args[0]), g[0], zero))
}

// Samples stays off 0.
func (op ReLUOp) Samples() []Sample {
	return pointwiseSamples(op, 1, ir.F32, Fill{Kind: "distinct"})
}

// ReLU is max(x, 0).
func ReLU(x *ir.Value) *ir.Value { return apply(ReLUOp{}, x) }

// QuickGELUOp is x*sigmoid(1.702*x), the paper's activation.
type QuickGELUOp struct{ unaryFloat }

const quickGELU = 1.702

// Name is quick_gelu.
func (QuickGELUOp) Name() string { return "quick_gelu" }

// Ref is x*sigmoid(1.702*x).
func (QuickGELUOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 { return x[0] * sigmoid(quickGELU*x[0]) })
}

// Element emits x/(1+exp(-1.702*x)).
func (QuickGELUOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	x, err := e.Arg(0, idx)
	if err != nil {
		return nil, err
	}
	return e.B.Op(kern.Div, x, logisticDenominator(e.B, x, -quickGELU)), nil
}

// Cheap is false.
func (QuickGELUOp) Cheap() bool { return false }

// Weight counts an exponential and a division.
func (QuickGELUOp) Weight() int { return 2 }

// VJP is dy*s*(1 + 1.702*x*(1-s)) with s = sigmoid(1.702*x).
func (QuickGELUOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	z := MulConst(in.Args[0], quickGELU)
	s := Sigmoid(z)
	return grads(Mul(g[0], Mul(s, AddConst(Mul(z, oneMinus(s)), 1))))
}

// Samples covers f32.
func (op QuickGELUOp) Samples() []Sample { return pointwiseSamples(op, 1, ir.F32) }

// QuickGELU is x*sigmoid(1.702*x).
func QuickGELU(x *ir.Value) *ir.Value { return apply(QuickGELUOp{}, x) }

// GELUTanhOp is x/2*(1+tanh(sqrt(2/pi)*(x+0.044715*x^3))).
type GELUTanhOp struct{ unaryFloat }

const geluCubic = 0.044715

var geluScale = math.Sqrt(2 / math.Pi)

// Name is gelu_tanh.
func (GELUTanhOp) Name() string { return "gelu_tanh" }

// Ref is the formula.
func (GELUTanhOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return elementwise(args, outs, func(x []float64) float64 {
		return x[0] / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x[0]+0.044715*math.Pow(x[0], 3))))
	})
}

// Element emits the formula.
func (GELUTanhOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	x, err := e.Arg(0, idx)
	if err != nil {
		return nil, err
	}
	b := e.B
	cubic := b.Op(kern.Mul, b.Op(kern.Mul, x, x), b.F(geluScale*geluCubic))
	t := b.Op(kern.Tanh, b.Op(kern.Mul, x, b.Op(kern.Add, cubic, b.F(geluScale))))
	return b.Op(kern.Mul, b.Op(kern.Mul, x, b.F(0.5)), b.Op(kern.Add, t, b.F(1))), nil
}

// Cheap is false.
func (GELUTanhOp) Cheap() bool { return false }

// VJP is dy*(1+t)/2 + dy*x/2*(1-t*t)*u', u the argument of the tangent t.
func (GELUTanhOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	x := in.Args[0]
	xx := Square(x)
	t := Tanh(Mul(x, AddConst(MulConst(xx, geluScale*geluCubic), geluScale)))
	du := AddConst(MulConst(xx, 3*geluScale*geluCubic), geluScale)
	slope := Add(AddConst(t, 1), Mul(x, Mul(oneMinus(Square(t)), du)))
	return grads(MulConst(Mul(g[0], slope), 0.5))
}

// Samples covers f32.
func (op GELUTanhOp) Samples() []Sample { return pointwiseSamples(op, 1, ir.F32) }

// GELUTanh is the tanh form of GELU.
func GELUTanh(x *ir.Value) *ir.Value { return apply(GELUTanhOp{}, x) }
