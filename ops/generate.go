package ops

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

func init() { ir.Register(ConstantOp{}, IotaOp{}, RandomUniformOp{}) }

// ConstantOp is a tensor of DType whose elements all equal Value.
type ConstantOp struct {
	pointwise
	DType ir.DType
	Value float64
	Shape []int
}

// Name is constant.
func (ConstantOp) Name() string { return "constant" }

// Infer gives the type of the attributes.
func (op ConstantOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if op.DType == ir.Invalid {
		return nil, fmt.Errorf("no element type given")
	}
	return generated(args, 0, ir.T(op.DType, op.Shape...))
}

func generated(args []ir.Type, n int, t ir.Type) ([]ir.Type, error) {
	if err := arity(args, n); err != nil {
		return nil, err
	}
	return []ir.Type{t}, extents(t)
}

// Ref fills.
func (op ConstantOp) Ref(_ []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return []*ir.Tensor{fill(outs[0], func([]int) float64 { return op.Value })}
}

// Element emits the constant.
func (op ConstantOp) Element(e *Emitter, _ []kern.Index) (*kern.Node, error) {
	switch kern.ScalarType(op.DType) {
	case ir.I32:
		return e.B.I(int(op.Value)), nil
	case ir.Bool:
		return e.B.B(op.Value != 0), nil
	}
	return e.B.F(op.Value), nil
}

// Cheap is true.
func (ConstantOp) Cheap() bool { return true }

// VJP has no argument to serve.
func (ConstantOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return noGrads(in) }

// Samples covers f32, i32 and bool.
func (op ConstantOp) Samples() []Sample {
	return []Sample{
		{Op: ConstantOp{DType: ir.F32, Value: 1.25}, NoGrad: true},
		{Op: ConstantOp{DType: ir.F32, Value: -3, Shape: []int{3, 17}}, NoGrad: true},
		{Op: ConstantOp{DType: ir.I32, Value: 5, Shape: []int{33}}, NoGrad: true},
		{Op: ConstantOp{DType: ir.Bool, Value: 1, Shape: []int{7}}, NoGrad: true},
	}
}

// Full is a tensor of type t with all elements equal to x.
func Full(f *ir.Func, t ir.Type, x float64) *ir.Value {
	return f.Append(ConstantOp{DType: t.DType, Value: x, Shape: shapeOf(t.Shape)})[0]
}

// Scalar is the f32 scalar x; binary ops broadcast it.
func Scalar(f *ir.Func, x float64) *ir.Value { return Full(f, ir.T(ir.F32), x) }

// zeros is 0 in the type of x.
func zeros(x *ir.Value) *ir.Value { return Full(x.Func, x.Type, 0) }

// IotaOp is the i32 tensor whose elements are their index along Axis.
type IotaOp struct {
	pointwise
	Axis  int
	Shape []int
}

// Name is iota.
func (IotaOp) Name() string { return "iota" }

// Infer gives the type of the attributes.
func (op IotaOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if op.Axis < 0 || op.Axis >= len(op.Shape) {
		return nil, fmt.Errorf("axis %d is outside a shape of rank %d", op.Axis, len(op.Shape))
	}
	return generated(args, 0, ir.T(ir.I32, op.Shape...))
}

// Ref counts.
func (op IotaOp) Ref(_ []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return []*ir.Tensor{fill(outs[0], func(idx []int) float64 { return float64(idx[op.Axis]) })}
}

// Element emits the index.
func (op IotaOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return e.B.Pos(idx[op.Axis]), nil
}

// Cheap is true.
func (IotaOp) Cheap() bool { return true }

// VJP has no argument to serve.
func (IotaOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return noGrads(in) }

// Samples covers both axes.
func (op IotaOp) Samples() []Sample {
	return []Sample{
		{Op: IotaOp{Axis: 0, Shape: []int{33}}, NoGrad: true},
		{Op: IotaOp{Axis: 0, Shape: []int{3, 17}}, NoGrad: true},
		{Op: IotaOp{Axis: 1, Shape: []int{3, 17}}, NoGrad: true},
	}
}

// Iota counts along axis of an i32 tensor of the given shape.
func Iota(f *ir.Func, axis int, shape ...int) *ir.Value {
	return f.Append(IotaOp{Axis: axis, Shape: shapeOf(shape)})[0]
}

// RandomUniformOp is uniform in (0,1), a function of the scalars seed and
// step, of Stream and of the element's number: Philox4x32-10 with counter
// (element, stream, 0, 0) and key (seed, step), whose first word w becomes
// (w>>9 + 1/2) / 2^23. Elements don't share evaluations, as those of
// CastRandomlyOp do: noise is mostly added where a product ends, and there a lane
// would have to choose one of four words.
type RandomUniformOp struct {
	pointwise
	Shape  []int
	Stream int
}

// Name is random_uniform.
func (RandomUniformOp) Name() string { return "random_uniform" }

// Infer wants two i32 scalars.
func (op RandomUniformOp) Infer(args []ir.Type) ([]ir.Type, error) {
	out, err := generated(args, 2, ir.T(ir.F32, op.Shape...))
	if err != nil {
		return nil, err
	}
	for _, t := range args {
		if !t.Equal(ir.T(ir.I32)) {
			return nil, fmt.Errorf("seed and step must be i32[]")
		}
	}
	return out, nil
}

// Ref draws.
func (op RandomUniformOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	out := ir.NewTensor(outs[0])
	u := uniform(args[0], args[1], op.Stream)
	for i := range out.Data {
		out.Data[i] = u(4 * i)
	}
	return []*ir.Tensor{out}
}

// Element emits random.
func (op RandomUniformOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	seed, err := e.Arg(0, nil)
	if err != nil {
		return nil, err
	}
	step, err := e.Arg(1, nil)
	if err != nil {
		return nil, err
	}
	return e.B.Random(seed, step, op.Stream, kern.Flat(e.Out.Shape, idx).Scale(4)), nil
}

// Cheap is false: ten rounds of multiplications.
func (RandomUniformOp) Cheap() bool { return false }

// Weight is that of ten divisions.
func (RandomUniformOp) Weight() int { return 10 }

// VJP is nil.
func (RandomUniformOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return noGrads(in) }

// Samples covers several keys and streams.
func (op RandomUniformOp) Samples() []Sample {
	key := []ir.Type{ir.T(ir.I32), ir.T(ir.I32)}
	return []Sample{
		{Op: RandomUniformOp{Shape: []int{33}}, Args: key, Fill: []Fill{{Kind: "index", N: 1000}, {Kind: "index", N: 1000}}, NoGrad: true},
		{Op: RandomUniformOp{Shape: []int{3, 17}, Stream: 7}, Args: key, Fill: []Fill{{Kind: "const", X: -5}, {Kind: "const", X: 123456789}}, NoGrad: true},
		{Op: RandomUniformOp{Stream: 1}, Args: key, Fill: []Fill{{Kind: "const"}, {Kind: "const"}}, NoGrad: true},
	}
}

// RandomUniform draws uniformly from (0,1). Within one step every use needs a
// stream number of its own.
func RandomUniform(seed, step *ir.Value, stream int, shape ...int) *ir.Value {
	return apply(RandomUniformOp{Shape: shapeOf(shape), Stream: stream}, seed, step)
}
