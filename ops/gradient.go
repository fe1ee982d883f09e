package ops

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
)

func init() { ir.Register(GradientOp{}) }

// Expanded is implemented by ops that a pass replaces by others before
// anything is lowered; they belong to no kernel family.
type Expanded interface {
	Op
	// ExpandedBy names the pass.
	ExpandedBy() string
}

// GradientName is the text name of GradientOp.
const GradientName = "gradient"

// GradientOp is the gradient of its first argument, a scalar, with respect to
// the others. The autodiff pass expands it by the VJP hooks.
type GradientOp struct{}

// Name is gradient.
func (GradientOp) Name() string { return GradientName }

// ExpandedBy is autodiff.
func (GradientOp) ExpandedBy() string { return "autodiff" }

// Infer gives the types of the values differentiated by.
func (GradientOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if len(args) < 2 {
		return nil, fmt.Errorf("takes a loss and at least one value")
	}
	if err := extents(args...); err != nil {
		return nil, err
	}
	if args[0].Len() != 1 || !isFloat(args[0]) {
		return nil, fmt.Errorf("the loss must be one floating-point number")
	}
	for _, t := range args[1:] {
		if !isFloat(t) {
			return nil, fmt.Errorf("%s has no gradient", t)
		}
	}
	return args[1:], nil
}

// Ref is nil: the gradient depends on how the loss was computed, which
// tensors don't tell.
func (GradientOp) Ref([]*ir.Tensor, []ir.Type) []*ir.Tensor { return nil }

// VJP records that there is none.
func (GradientOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return undifferentiable(in) }

// Cost is that of what it expands to, unknown here.
func (GradientOp) Cost(_, _ []ir.Type) ir.Cost { return ir.Cost{} }

// Samples covers the type rule.
func (op GradientOp) Samples() []Sample {
	return []Sample{{Op: op, Args: []ir.Type{ir.T(ir.F32), ir.T(ir.F32, 3, 7), ir.T(ir.F16, 5)}, NoGrad: true}}
}

// Gradient is the gradient of loss, a scalar, with respect to each value.
func Gradient(loss *ir.Value, values ...*ir.Value) []*ir.Value {
	out := loss.Func.Append(GradientOp{}, append([]*ir.Value{loss}, values...)...)
	for len(out) < len(values) {
		out = append(out, out[0]) // construction failed: keep the length
	}
	return out[:len(values)]
}
