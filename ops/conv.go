package ops

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

func init() { ir.Register(Conv2DOp{}, Conv2DInputGradOp{}, Conv2DWeightGradOp{}) }

// Conv2DOp is the cross-correlation of x [B,H,W,CI] with w [KH,KW,CI,CO] in
// steps of Stride, with Pad zeros on every side:
//
//	y[b,h,w,o] = sum over i,j,c of x[b, h*Stride+i-Pad, w*Stride+j-Pad, c] * w[i,j,c,o]
type Conv2DOp struct{ Pad, Stride int }

// Name is conv2d.
func (Conv2DOp) Name() string { return "conv2d" }

// convArgs checks what the three convolutions have in common.
func convArgs(args []ir.Type, pad, stride int) error {
	if err := arity(args, 2); err != nil {
		return err
	}
	switch {
	case !isFloat(args[0]) || !isFloat(args[1]):
		return fmt.Errorf("wants floating-point tensors")
	case args[0].DType != args[1].DType:
		return fmt.Errorf("element types differ; cast one operand")
	case args[0].Rank() != 4 || args[1].Rank() != 4:
		return fmt.Errorf("wants rank 4: pictures [B,H,W,C], weights [KH,KW,CI,CO]")
	case pad < 0 || stride < 1:
		return fmt.Errorf("pad %d must not be negative and stride %d must be at least 1", pad, stride)
	}
	return nil
}

// Infer computes the output's extents.
func (op Conv2DOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := convArgs(args, op.Pad, op.Stride); err != nil {
		return nil, err
	}
	x, w := args[0].Shape, args[1].Shape
	if x[3] != w[2] {
		return nil, fmt.Errorf("the picture has %d channels, the weights take %d", x[3], w[2])
	}
	if x[1]+2*op.Pad < w[0] || x[2]+2*op.Pad < w[1] {
		return nil, fmt.Errorf("the padded picture is smaller than the kernel")
	}
	h, wd := (x[1]+2*op.Pad-w[0])/op.Stride+1, (x[2]+2*op.Pad-w[1])/op.Stride+1
	return []ir.Type{args[0].With(x[0], h, wd, w[3])}, nil
}

// Cost counts padding as work.
func (Conv2DOp) Cost(args, outs []ir.Type) ir.Cost {
	w := args[1].Shape
	return ir.Cost{FLOPs: 2 * int64(outs[0].Len()) * int64(w[0]*w[1]*w[2])}
}

// Contraction sums over the kernel's window, channels innermost.
func (op Conv2DOp) Contraction(args []ir.Type, out []kern.Index, newVar func(int) *kern.Var) Contraction {
	x, w := args[0].Shape, args[1].Shape
	i, j, c := newVar(w[0]), newVar(w[1]), newVar(w[2])
	h := out[1].Scale(op.Stride).Add(kern.V(i)).Plus(-op.Pad)
	v := out[2].Scale(op.Stride).Add(kern.V(j)).Plus(-op.Pad)
	return Contraction{
		Vars: []*kern.Var{i, j, c},
		A:    []kern.Index{out[0], h, v, kern.V(c)},
		GA:   []kern.Guard{{At: h, Lo: 0, Hi: x[1]}, {At: v, Lo: 0, Hi: x[2]}},
		B:    []kern.Index{kern.V(i), kern.V(j), kern.V(c), out[3]},
	}
}

// convTaps calls f for every pair of picture element and output element that
// a weight connects.
func convTaps(x, w, y ir.Type, pad, stride int, f func(xi, wi, yi int)) {
	for b := 0; b < y.Shape[0]; b++ {
		for h := 0; h < y.Shape[1]; h++ {
			for v := 0; v < y.Shape[2]; v++ {
				for i := 0; i < w.Shape[0]; i++ {
					for j := 0; j < w.Shape[1]; j++ {
						r, s := h*stride+i-pad, v*stride+j-pad
						if r < 0 || r >= x.Shape[1] || s < 0 || s >= x.Shape[2] {
							continue
						}
						for c := 0; c < w.Shape[2]; c++ {
							for o := 0; o < w.Shape[3]; o++ {
								f(((b*x.Shape[1]+r)*x.Shape[2]+s)*x.Shape[3]+c,
									((i*w.Shape[1]+j)*w.Shape[2]+c)*w.Shape[3]+o,
									((b*y.Shape[1]+h)*y.Shape[2]+v)*y.Shape[3]+o)
							}
						}
					}
				}
			}
		}
	}
}

// Ref is the sum of the definition.
func (op Conv2DOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	x, w, y := args[0], args[1], ir.NewTensor(outs[0])
	convTaps(x.Type, w.Type, y.Type, op.Pad, op.Stride, func(xi, wi, yi int) { y.Data[yi] += x.Data[xi] * w.Data[wi] })
	return []*ir.Tensor{y}
}

// VJP uses the two ops below; a strided convolution's dy is first dilated to
// that of stride 1.
func (op Conv2DOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	x, w := in.Args[0], in.Args[1]
	spread := Dilate(g[0], 1, op.Stride, op.Stride, 1)
	dx := apply(Conv2DInputGradOp{Height: x.Type.Shape[1], Width: x.Type.Shape[2], Pad: op.Pad}, spread, w)
	dw := apply(Conv2DWeightGradOp{KernelHeight: w.Type.Shape[0], KernelWidth: w.Type.Shape[1], Pad: op.Pad, Stride: op.Stride}, x, g[0])
	return grads(dx, dw)
}

// Samples covers 1x1, 3x3, 7x7 kernels, strides, no padding, odd sizes, and sizes for minimal filtering.
func (op Conv2DOp) Samples() []Sample {
	sample := func(pad, stride, b, h, w, ci, k, co int) Sample {
		return Sample{Op: Conv2DOp{Pad: pad, Stride: stride}, Args: []ir.Type{ir.T(ir.F32, b, h, w, ci), ir.T(ir.F32, k, k, ci, co)}}
	}
	return []Sample{
		sample(0, 1, 1, 1, 1, 1, 1, 1),
		sample(0, 1, 2, 3, 5, 7, 1, 16),
		sample(1, 1, 2, 4, 5, 3, 3, 7),
		sample(0, 1, 1, 5, 4, 2, 3, 3),
		sample(3, 1, 1, 4, 3, 1, 7, 2),
		sample(1, 2, 1, 6, 7, 2, 3, 3),
		sample(1, 1, 1, 3, 3, 16, 3, 33),
		sample(0, 4, 1, 8, 9, 1, 4, 2),
		sample(1, 1, 2, 16, 16, 16, 3, 16), // tiles of minimal filtering
	}
}

// Conv2D is the cross-correlation of x [B,H,W,CI] with w [KH,KW,CI,CO] in
// steps of stride, with pad zeros on every side.
func Conv2D(x, w *ir.Value, stride, pad int) *ir.Value {
	return apply(Conv2DOp{Pad: pad, Stride: stride}, x, w)
}

// Conv2DInputGradOp is the gradient of a convolution of stride 1 with respect
// to its picture, which is Height by Width: from dy [B,OH,OW,CO] and w
// [KH,KW,CI,CO],
//
//	dx[b,h,w,c] = sum over i,j,o of dy[b, h+Pad-i, w+Pad-j, o] * w[i,j,c,o]
//
// dy may be larger or smaller than such a convolution's output; what it lacks
// counts as zero.
type Conv2DInputGradOp struct{ Height, Pad, Width int }

// Name is conv2d_input_grad.
func (Conv2DInputGradOp) Name() string { return "conv2d_input_grad" }

// Infer gives the picture's type.
func (op Conv2DInputGradOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := convArgs(args, op.Pad, 1); err != nil {
		return nil, err
	}
	dy, w := args[0].Shape, args[1].Shape
	if dy[3] != w[3] {
		return nil, fmt.Errorf("the gradient has %d channels, the weights make %d", dy[3], w[3])
	}
	out := args[0].With(dy[0], op.Height, op.Width, w[2])
	return []ir.Type{out}, extents(out)
}

// Cost counts padding as work.
func (Conv2DInputGradOp) Cost(args, outs []ir.Type) ir.Cost {
	w := args[1].Shape
	return ir.Cost{FLOPs: 2 * int64(outs[0].Len()) * int64(w[0]*w[1]*w[3])}
}

// Contraction sums over the kernel's window, output channels innermost.
func (op Conv2DInputGradOp) Contraction(args []ir.Type, out []kern.Index, newVar func(int) *kern.Var) Contraction {
	dy, w := args[0].Shape, args[1].Shape
	i, j, o := newVar(w[0]), newVar(w[1]), newVar(w[3])
	h := out[1].Add(kern.V(i).Scale(-1)).Plus(op.Pad)
	v := out[2].Add(kern.V(j).Scale(-1)).Plus(op.Pad)
	return Contraction{
		Vars: []*kern.Var{i, j, o},
		A:    []kern.Index{out[0], h, v, kern.V(o)},
		GA:   []kern.Guard{{At: h, Lo: 0, Hi: dy[1]}, {At: v, Lo: 0, Hi: dy[2]}},
		B:    []kern.Index{kern.V(i), kern.V(j), out[3], kern.V(o)},
	}
}

// Ref scatters along the taps of the convolution.
func (op Conv2DInputGradOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	dy, w, dx := args[0], args[1], ir.NewTensor(outs[0])
	convTaps(dx.Type, w.Type, dy.Type, op.Pad, 1, func(xi, wi, yi int) { dx.Data[xi] += dy.Data[yi] * w.Data[wi] })
	return []*ir.Tensor{dx}
}

// VJP records that there is none.
func (Conv2DInputGradOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return undifferentiable(in) }

// Samples covers padding, none, and a dy with surplus rows (from dilating).
func (op Conv2DInputGradOp) Samples() []Sample {
	sample := func(h, w, pad, b, oh, ow, co, k, ci int) Sample {
		return Sample{Op: Conv2DInputGradOp{Height: h, Pad: pad, Width: w}, Args: []ir.Type{ir.T(ir.F32, b, oh, ow, co), ir.T(ir.F32, k, k, ci, co)}, NoGrad: true}
	}
	return []Sample{
		sample(1, 1, 0, 1, 1, 1, 1, 1, 1),
		sample(4, 5, 1, 2, 4, 5, 7, 3, 16),
		sample(5, 4, 0, 1, 3, 2, 3, 3, 33),
		sample(6, 7, 1, 1, 6, 8, 3, 3, 2),
		sample(16, 16, 1, 2, 16, 16, 16, 3, 16), // tiles of minimal filtering
	}
}

// Conv2DWeightGradOp is the gradient of a convolution with respect to its
// weights, KernelHeight by KernelWidth: from x [B,H,W,CI] and dy [B,OH,OW,CO],
//
//	dw[i,j,c,o] = sum over b,h,w of x[b, h*Stride+i-Pad, w*Stride+j-Pad, c] * dy[b,h,w,o]
type Conv2DWeightGradOp struct{ KernelHeight, KernelWidth, Pad, Stride int }

// Name is conv2d_weight_grad.
func (Conv2DWeightGradOp) Name() string { return "conv2d_weight_grad" }

// Infer gives the weights' type.
func (op Conv2DWeightGradOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := convArgs(args, op.Pad, op.Stride); err != nil {
		return nil, err
	}
	x, dy := args[0].Shape, args[1].Shape
	if x[0] != dy[0] {
		return nil, fmt.Errorf("batch sizes differ")
	}
	out := args[0].With(op.KernelHeight, op.KernelWidth, x[3], dy[3])
	return []ir.Type{out}, extents(out)
}

// Cost counts padding as work.
func (Conv2DWeightGradOp) Cost(args, outs []ir.Type) ir.Cost {
	dy := args[1].Shape
	return ir.Cost{FLOPs: 2 * int64(outs[0].Len()) * int64(dy[0]*dy[1]*dy[2])}
}

// Contraction sums over pictures and positions.
func (op Conv2DWeightGradOp) Contraction(args []ir.Type, out []kern.Index, newVar func(int) *kern.Var) Contraction {
	x, dy := args[0].Shape, args[1].Shape
	b, r, s := newVar(dy[0]), newVar(dy[1]), newVar(dy[2])
	h := kern.V(r).Scale(op.Stride).Add(out[0]).Plus(-op.Pad)
	v := kern.V(s).Scale(op.Stride).Add(out[1]).Plus(-op.Pad)
	return Contraction{
		Vars: []*kern.Var{b, r, s},
		A:    []kern.Index{kern.V(b), h, v, out[2]},
		GA:   []kern.Guard{{At: h, Lo: 0, Hi: x[1]}, {At: v, Lo: 0, Hi: x[2]}},
		B:    []kern.Index{kern.V(b), kern.V(r), kern.V(s), out[3]},
	}
}

// Ref collects along the taps of the convolution.
func (op Conv2DWeightGradOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	x, dy, dw := args[0], args[1], ir.NewTensor(outs[0])
	convTaps(x.Type, dw.Type, dy.Type, op.Pad, op.Stride, func(xi, wi, yi int) { dw.Data[wi] += x.Data[xi] * dy.Data[yi] })
	return []*ir.Tensor{dw}
}

// VJP records that there is none.
func (Conv2DWeightGradOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return undifferentiable(in) }

// Samples covers padding, none, and strides.
func (op Conv2DWeightGradOp) Samples() []Sample {
	sample := func(k, pad, stride, b, h, w, ci, oh, ow, co int) Sample {
		return Sample{Op: Conv2DWeightGradOp{KernelHeight: k, KernelWidth: k, Pad: pad, Stride: stride}, Args: []ir.Type{ir.T(ir.F32, b, h, w, ci), ir.T(ir.F32, b, oh, ow, co)}, NoGrad: true}
	}
	return []Sample{
		sample(1, 0, 1, 1, 1, 1, 1, 1, 1, 1),
		sample(3, 1, 1, 2, 4, 5, 7, 4, 5, 16),
		sample(3, 0, 1, 1, 5, 4, 3, 3, 2, 33),
		sample(3, 1, 2, 1, 6, 7, 2, 3, 4, 3),
		sample(3, 1, 1, 2, 16, 16, 16, 16, 16, 16), // tiles of minimal filtering
	}
}
