package ops

import (
	"fmt"
	"math/bits"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

func init() { ir.Register(CastRandomlyOp{}, GradScaleOp{}, GradFilterOp{}, GradUnscaleOp{}, KeepOp{}) }

// CastRandomlyOp converts to To, a 16-bit floating-point type, by stochastic
// rounding: to one of the two numbers next to x, so that the expected result
// is x. The random number is word element%4 of Philox4x32-10 with counter
// (element/4, stream, 0, 0) and key (seed, step), mapped as RandomUniformOp's:
// four neighbours share an evaluation. A sum whose terms are smaller than half a unit
// of the format advances on average, where rounding to nearest would lose them
// all: that is how weights of 16 bits are trained without a copy of 32.
type CastRandomlyOp struct {
	pointwise
	To     ir.DType
	Stream int
}

// Name is cast_randomly.
func (CastRandomlyOp) Name() string { return "cast_randomly" }

// Infer wants a floating-point tensor and two i32 scalars.
func (op CastRandomlyOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 3); err != nil {
		return nil, err
	}
	if _, ok := op.To.Format(); !ok {
		return nil, fmt.Errorf("rounds to 16-bit floating-point types, not to %s", op.To)
	}
	if !isFloat(args[0]) || !args[1].Equal(ir.T(ir.I32)) || !args[2].Equal(ir.T(ir.I32)) {
		return nil, fmt.Errorf("wants floating point, and a seed and a step that are i32[]")
	}
	return []ir.Type{ir.T(op.To, args[0].Shape...)}, nil
}

// Ref rounds.
func (op CastRandomlyOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	f, _ := op.To.Format()
	u := uniform(args[1], args[2], op.Stream)
	out := ir.NewTensor(outs[0])
	for i, x := range args[0].Data {
		out.Data[i] = float64(f.RoundRandomly(float32(x), float32(u(i))))
	}
	return []*ir.Tensor{out}
}

// Element emits random and round.
func (op CastRandomlyOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	x, err := e.Arg(0, idx)
	if err != nil {
		return nil, err
	}
	seed, err := e.Arg(1, nil)
	if err != nil {
		return nil, err
	}
	step, err := e.Arg(2, nil)
	if err != nil {
		return nil, err
	}
	return e.B.Round(op.To, x, e.B.Random(seed, step, op.Stream, kern.Flat(e.Out.Shape, idx))), nil
}

// Cheap is false: there is a random number in it.
func (CastRandomlyOp) Cheap() bool { return false }

// Weight is that of four divisions: neighbours share a random number's rounds.
func (CastRandomlyOp) Weight() int { return 4 }

// VJP casts back.
func (op CastRandomlyOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	return grads(Cast(g[0], in.Args[0].Type.DType), nil, nil)
}

// Samples covers every format.
func (op CastRandomlyOp) Samples() []Sample {
	var out []Sample
	for i, d := range []ir.DType{ir.F16, ir.BF16, ir.E6M9, ir.UE6M10} {
		out = append(out, Sample{Op: CastRandomlyOp{To: d, Stream: i}, NoGrad: true, Args: []ir.Type{ir.T(ir.F32, 3, 17), ir.T(ir.I32), ir.T(ir.I32)},
			Fill: []Fill{{Kind: "positive"}, {Kind: "index", N: 1000}, {Kind: "index", N: 1000}}})
	}
	return out
}

// CastRandomly rounds x to d stochastically. Within one step every use needs a
// stream number of its own.
func CastRandomly(x *ir.Value, d ir.DType, seed, step *ir.Value, stream int) *ir.Value {
	return apply(CastRandomlyOp{To: d, Stream: stream}, x, seed, step)
}

// uniform is RandomUniformOp's reference, by element: Philox4x32-10 written
// from its published description, apart from kern.Philox.
func uniform(seed, step *ir.Tensor, stream int) func(i int) float64 {
	s, t := uint32(int32(seed.Data[0])), uint32(int32(step.Data[0]))
	return func(i int) float64 {
		x := [4]uint32{uint32(i) / 4, uint32(stream)}
		for round := uint32(0); round < 10; round++ {
			k0, k1 := s+round*0x9E3779B9, t+round*0xBB67AE85
			h0, l0 := bits.Mul32(x[0], 0xD2511F53)
			h1, l1 := bits.Mul32(x[2], 0xCD9E8D57)
			x = [4]uint32{h1 ^ x[1] ^ k0, l1, h0 ^ x[3] ^ k1, l0}
		}
		return (float64(x[i%4]/512) + 0.5) / 8388608
	}
}

// scaled is the family of ops that do nothing but change the gradient that
// goes back through them: they take a value and a scale, an f32 scalar. The
// autodiff pass puts the value in their place when it has used their VJP.
type scaled struct{ pointwise }

// ExpandedBy is autodiff.
func (scaled) ExpandedBy() string { return "autodiff" }

// Passes is true: the result is argument 0.
func (scaled) Passes() bool { return true }

// Infer wants an f32 tensor and an f32 scalar.
func (scaled) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 2); err != nil {
		return nil, err
	}
	if args[0].DType != ir.F32 || !args[1].Equal(ir.T(ir.F32)) {
		return nil, fmt.Errorf("wants an f32 tensor and a scale, f32[]")
	}
	return args[:1], nil
}

// Ref copies.
func (scaled) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return []*ir.Tensor{{Type: outs[0], Data: append([]float64(nil), args[0].Data...)}}
}

func scaledSamples(op Op) []Sample {
	return []Sample{{Op: op, Args: []ir.Type{ir.T(ir.F32, 3, 7), ir.T(ir.F32)}, NoGrad: true}}
}

// Passer is implemented by ops whose result is their first argument and which
// matter to gradients alone.
type Passer interface {
	Op
	Passes() bool
}

// GradScaleOp multiplies the gradient by a scale: where it enters a resblock
// (figure 4 of the paper).
type GradScaleOp struct{ scaled }

// Name is grad_scale.
func (GradScaleOp) Name() string { return "grad_scale" }

// VJP is dy*scale.
func (GradScaleOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	return grads(Mul(g[0], in.Args[1]), nil)
}

// Samples covers the type rule.
func (op GradScaleOp) Samples() []Sample { return scaledSamples(op) }

// GradScale is x, whose gradient is multiplied by scale.
func GradScale(x, scale *ir.Value) *ir.Value { return apply(GradScaleOp{}, x, scale) }

// GradFilterOp divides the gradient by a scale and makes what is not finite 0:
// where it leaves a resblock for the identity path, so that one block's
// overflow does not reach those before it.
type GradFilterOp struct{ scaled }

// Name is grad_filter.
func (GradFilterOp) Name() string { return "grad_filter" }

// VJP is dy/scale where dy is finite.
func (GradFilterOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	return grads(Select(Finite(g[0]), Div(g[0], in.Args[1]), zeros(g[0])), nil)
}

// Samples covers the type rule.
func (op GradFilterOp) Samples() []Sample { return scaledSamples(op) }

// GradFilter is x, whose gradient is divided by scale, and 0 where it is not
// finite.
func GradFilter(x, scale *ir.Value) *ir.Value { return apply(GradFilterOp{}, x, scale) }

// GradUnscaleOp divides the gradient by a scale and leaves what is not finite:
// for the parameters of a resblock, whose gradients tell whether the scale was
// too large.
type GradUnscaleOp struct{ scaled }

// Name is grad_unscale.
func (GradUnscaleOp) Name() string { return "grad_unscale" }

// VJP is dy/scale.
func (GradUnscaleOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	return grads(Div(g[0], in.Args[1]), nil)
}

// Samples covers the type rule.
func (op GradUnscaleOp) Samples() []Sample { return scaledSamples(op) }

// GradUnscale is x, whose gradient is divided by scale.
func GradUnscale(x, scale *ir.Value) *ir.Value { return apply(GradUnscaleOp{}, x, scale) }

// largestFloat32 is the largest finite f32.
const largestFloat32 = 0x1.fffffep127

// Finite is true where x is neither infinite nor NaN, which compares false.
func Finite(x *ir.Value) *ir.Value { return Le(Abs(x), Full(x.Func, x.Type, largestFloat32)) }

// Mover is implemented by ops that move elements of argument 0 about without
// computing anything.
type Mover interface {
	Op
	Moves() bool
}

// Narrower is implemented by ops other than contractions that the precision
// pass makes read and write 16 bits: they take floating-point arguments of one
// type, whichever it is.
type Narrower interface {
	Op
	Narrows() bool
}

// Narrows is true.
func (AttentionOp) Narrows() bool { return true }

// KeepOp is x. A product or attention that reads it stays in the element types
// it has, whatever precision the module is compiled with.
type KeepOp struct{ view }

// Name is keep.
func (KeepOp) Name() string { return "keep" }

// ExpandedBy is autodiff.
func (KeepOp) ExpandedBy() string { return "autodiff" }

// Passes is true.
func (KeepOp) Passes() bool { return true }

// Infer takes anything.
func (KeepOp) Infer(args []ir.Type) ([]ir.Type, error) { return args, arity(args, 1) }

// Ref copies.
func (KeepOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return []*ir.Tensor{{Type: outs[0], Data: append([]float64(nil), args[0].Data...)}}
}

// VJP is dy.
func (KeepOp) VJP(_ *ir.Instr, g []*ir.Value) []*ir.Value { return grads(g[0]) }

// Samples covers the type rule.
func (op KeepOp) Samples() []Sample {
	return []Sample{{Op: op, Args: []ir.Type{ir.T(ir.F32, 3, 7)}, NoGrad: true}}
}

// Keep is x, and keeps the product or attention that reads it from being
// stored in 16 bits.
func Keep(x *ir.Value) *ir.Value { return apply(KeepOp{}, x) }
