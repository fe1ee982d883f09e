package ops

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

func init() { ir.Register(MaxPool2DOp{}, MaxPool2DGradOp{}) }

// MaxPool2DOp is the maximum of each K by K tile of x [B,H,W,C].
type MaxPool2DOp struct{ K int }

// Name is max_pool2d.
func (MaxPool2DOp) Name() string { return "max_pool2d" }

func poolArgs(x ir.Type, k int) error {
	switch {
	case !isFloat(x) || x.Rank() != 4:
		return fmt.Errorf("wants a floating-point [B,H,W,C]")
	case k < 1 || x.Shape[1]%k != 0 || x.Shape[2]%k != 0:
		return fmt.Errorf("height %d and width %d must be divisible by k = %d", x.Shape[1], x.Shape[2], k)
	}
	return nil
}

// Infer divides height and width by K.
func (op MaxPool2DOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 1); err != nil {
		return nil, err
	}
	if err := poolArgs(args[0], op.K); err != nil {
		return nil, err
	}
	s := args[0].Shape
	return []ir.Type{args[0].With(s[0], s[1]/op.K, s[2]/op.K, s[3])}, nil
}

// Cost is one comparison an element.
func (MaxPool2DOp) Cost(args, _ []ir.Type) ir.Cost { return reduceCost(args) }

// first finds the first maximum of the tile of x that holds (h, w).
func (op MaxPool2DOp) first(x *ir.Tensor, b, h, w, c int) (float64, int, int) {
	h0, w0 := h/op.K*op.K, w/op.K*op.K
	best, bh, bw := at(x, b, h0, w0, c), h0, w0
	for i := h0; i < h0+op.K; i++ {
		for j := w0; j < w0+op.K; j++ {
			if v := at(x, b, i, j, c); v > best {
				best, bh, bw = v, i, j
			}
		}
	}
	return best, bh, bw
}

// Ref searches each tile.
func (op MaxPool2DOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return []*ir.Tensor{fill(outs[0], func(i []int) float64 {
		v, _, _ := op.first(args[0], i[0], i[1]*op.K, i[2]*op.K, i[3])
		return v
	})}
}

// Element compares the K*K elements of the tile.
func (op MaxPool2DOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	var top *kern.Node
	for i := 0; i < op.K*op.K; i++ {
		x, err := e.Arg(0, []kern.Index{idx[0], idx[1].Scale(op.K).Plus(i / op.K), idx[2].Scale(op.K).Plus(i % op.K), idx[3]})
		if err != nil {
			return nil, err
		}
		if top == nil {
			top = x
		} else {
			top = e.B.Op(kern.Max, top, x)
		}
	}
	return top, nil
}

// Cheap is false: K*K loads.
func (MaxPool2DOp) Cheap() bool { return false }

// VJP is max_pool2d_grad.
func (op MaxPool2DOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	return grads(apply(MaxPool2DGradOp{op.K}, in.Args[0], g[0]))
}

// Samples covers k = 1 to 3 and non-square pictures.
func (op MaxPool2DOp) Samples() []Sample {
	sample := func(k int, shape ...int) Sample {
		return Sample{Op: MaxPool2DOp{k}, Args: []ir.Type{ir.T(ir.F32, shape...)}, Fill: []Fill{{Kind: "distinct"}}}
	}
	return []Sample{
		sample(1, 1, 1, 1, 1),
		sample(2, 1, 2, 2, 7),
		sample(2, 2, 4, 6, 3),
		sample(2, 1, 2, 4, 16),
		sample(3, 1, 6, 3, 5),
	}
}

// MaxPool2D is the maximum of each k by k tile of x [B,H,W,C].
func MaxPool2D(x *ir.Value, k int) *ir.Value { return apply(MaxPool2DOp{k}, x) }

// MaxPool2DGradOp sends dy [B,H/K,W/K,C] to the first maximum, in row-major
// order, of each tile of x [B,H,W,C].
type MaxPool2DGradOp struct{ K int }

// Name is max_pool2d_grad.
func (MaxPool2DGradOp) Name() string { return "max_pool2d_grad" }

// Infer gives the type of x.
func (op MaxPool2DGradOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 2); err != nil {
		return nil, err
	}
	if err := poolArgs(args[0], op.K); err != nil {
		return nil, err
	}
	s := args[0].Shape
	if !args[1].Equal(args[0].With(s[0], s[1]/op.K, s[2]/op.K, s[3])) {
		return nil, fmt.Errorf("the gradient's type is not that of the pooled picture")
	}
	return args[:1], nil
}

// Cost is K*K comparisons an element.
func (op MaxPool2DGradOp) Cost(args, _ []ir.Type) ir.Cost {
	return ir.Cost{FLOPs: int64(args[0].Len()) * int64(op.K*op.K)}
}

// Ref searches each tile.
func (op MaxPool2DGradOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return []*ir.Tensor{fill(outs[0], func(i []int) float64 {
		_, h, w := MaxPool2DOp(op).first(args[0], i[0], i[1], i[2], i[3])
		if h != i[1] || w != i[2] {
			return 0
		}
		return at(args[1], i[0], h/op.K, w/op.K, i[3])
	})}
}

// Element is dy where the element exceeds all earlier ones of its tile and is
// not below any.
func (op MaxPool2DGradOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	h, i, err := idx[1].DivMod(op.K)
	if err != nil {
		return nil, err
	}
	w, j, err := idx[2].DivMod(op.K)
	if err != nil {
		return nil, err
	}
	self, err := e.Arg(0, idx)
	if err != nil {
		return nil, err
	}
	place := i.Scale(op.K).Add(j)
	first := e.B.B(true)
	for n := 0; n < op.K*op.K; n++ {
		x, err := e.Arg(0, []kern.Index{idx[0], h.Scale(op.K).Plus(n / op.K), w.Scale(op.K).Plus(n % op.K), idx[3]})
		if err != nil {
			return nil, err
		}
		earlier := e.B.Test([]kern.Guard{{At: place, Lo: n + 1, Hi: op.K * op.K}})
		beats := e.B.Op(kern.Select, earlier, e.B.Op(kern.Lt, x, self), e.B.Op(kern.Le, x, self))
		first = e.B.Op(kern.And, first, beats)
	}
	dy, err := e.Arg(1, []kern.Index{idx[0], h, w, idx[3]})
	if err != nil {
		return nil, err
	}
	return e.B.Op(kern.Select, first, dy, e.B.F(0)), nil
}

// Cheap is false.
func (MaxPool2DGradOp) Cheap() bool { return false }

// VJP records that there is none.
func (MaxPool2DGradOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return undifferentiable(in) }

// Samples covers ties.
func (op MaxPool2DGradOp) Samples() []Sample {
	sample := func(k int, f Fill, b, h, w, c int) Sample {
		return Sample{Op: MaxPool2DGradOp{k}, Args: []ir.Type{ir.T(ir.F32, b, h, w, c), ir.T(ir.F32, b, h/k, w/k, c)}, Fill: []Fill{f}, NoGrad: true}
	}
	return []Sample{
		sample(1, Fill{}, 1, 1, 1, 1),
		sample(2, Fill{}, 1, 2, 2, 7),
		sample(2, Fill{Kind: "index", N: 3}, 2, 4, 6, 3),
		sample(2, Fill{Kind: "const"}, 1, 2, 4, 16),
		sample(3, Fill{Kind: "index", N: 4}, 1, 6, 3, 5),
	}
}

// AvgPool2D is the mean of each k by k tile of x [B,H,W,C].
func AvgPool2D(x *ir.Value, k int) *ir.Value {
	if x.Invalid() {
		return x
	}
	if err := poolArgs(x.Type, k); err != nil {
		x.Func.Errorf("avg_pool2d: %v: %s is %s", err, x, x.Type)
		return &ir.Value{Func: x.Func, Name: "invalid"}
	}
	s := x.Type.Shape
	return Mean(Reshape(x, s[0], s[1]/k, k, s[2]/k, k, s[3]), 2, 4)
}
