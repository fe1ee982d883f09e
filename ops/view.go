package ops

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

func init() {
	ir.Register(ReshapeOp{}, TransposeOp{}, BroadcastToOp{}, SliceOp{}, PadOp{}, DilateOp{}, ConcatOp{}, StopGradientOp{})
}

// view is the family of ops that move elements without arithmetic.
type view struct{}

func (view) Cost(_, _ []ir.Type) ir.Cost { return ir.Cost{} }
func (view) Cheap() bool                 { return true }

// Moves is true: see Mover.
func (view) Moves() bool { return true }

// ReshapeOp gives the elements, in row-major order, another shape.
type ReshapeOp struct {
	view
	Shape []int
}

// Name is reshape.
func (ReshapeOp) Name() string { return "reshape" }

// Infer wants an equal number of elements.
func (op ReshapeOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 1); err != nil {
		return nil, err
	}
	t := args[0].With(op.Shape...)
	if err := extents(t); err != nil {
		return nil, err
	}
	if t.Len() != args[0].Len() {
		return nil, fmt.Errorf("shape %v has %d elements, the operand has %d", op.Shape, t.Len(), args[0].Len())
	}
	return []ir.Type{t}, nil
}

// Ref copies.
func (op ReshapeOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return []*ir.Tensor{{Type: outs[0], Data: append([]float64(nil), args[0].Data...)}}
}

// Reshapes is true.
func (ReshapeOp) Reshapes() bool { return true }

// Element divides the element's number by the extents of the operand.
func (op ReshapeOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	src, err := kern.Unflatten(e.Args[0].Shape, kern.Flat(e.Out.Shape, idx))
	if err != nil {
		return nil, err
	}
	return e.Arg(0, src)
}

// VJP reshapes back.
func (ReshapeOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	return grads(Reshape(g[0], in.Args[0].Type.Shape...))
}

// Samples merges, splits, and does both at once.
func (op ReshapeOp) Samples() []Sample {
	sample := func(from, to []int) Sample {
		return Sample{Op: ReshapeOp{Shape: to}, Args: []ir.Type{ir.T(ir.F32, from...)}}
	}
	return []Sample{
		sample([]int{1}, nil),
		sample(nil, []int{1, 1}),
		sample([]int{33}, []int{3, 11}),
		sample([]int{3, 7}, []int{21}),
		sample([]int{2, 3, 16}, []int{6, 16}),
		sample([]int{6, 16}, []int{2, 3, 4, 4}),
		sample([]int{4, 6}, []int{8, 3}),
		sample([]int{2, 12}, []int{2, 3, 1, 4}),
	}
}

// Simplify skips a reshape before this one.
func (ReshapeOp) Simplify(in *ir.Instr) *ir.Value {
	if _, x := before[ReshapeOp](in.Args[0]); x != nil {
		in.Args[0] = x
	}
	return sameType(in, in.Args[0])
}

// Reshape gives x another shape of as many elements. One extent may be -1: it
// becomes what is left. x itself when it has that shape.
func Reshape(x *ir.Value, shape ...int) *ir.Value {
	if x.Invalid() {
		return x
	}
	shape = shapeOf(shape)
	rest, at := x.Type.Len(), -1
	for i, d := range shape {
		if d == -1 && at < 0 {
			at = i
		} else if d > 0 {
			rest /= d
		}
	}
	if at >= 0 {
		shape[at] = rest
	}
	if ir.SameShape(shape, x.Type.Shape) {
		return x
	}
	return apply(ReshapeOp{Shape: shape}, x)
}

// TransposeOp reorders dimensions: dimension i of the result is dimension
// Perm[i] of the operand.
type TransposeOp struct {
	view
	Perm []int
}

// Name is transpose.
func (TransposeOp) Name() string { return "transpose" }

// Infer wants a permutation.
func (op TransposeOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 1); err != nil {
		return nil, err
	}
	seen := make([]bool, args[0].Rank())
	shape := make([]int, len(op.Perm))
	for i, p := range op.Perm {
		if p < 0 || p >= len(seen) || seen[p] {
			return nil, fmt.Errorf("%v is not a permutation of %d dimensions", op.Perm, len(seen))
		}
		seen[p] = true
		shape[i] = args[0].Shape[p]
	}
	if len(op.Perm) != len(seen) {
		return nil, fmt.Errorf("%v is not a permutation of %d dimensions", op.Perm, len(seen))
	}
	return []ir.Type{args[0].With(shape...)}, nil
}

// Ref moves.
func (op TransposeOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	src := make([]int, len(op.Perm))
	return []*ir.Tensor{fill(outs[0], func(idx []int) float64 {
		for i, p := range op.Perm {
			src[p] = idx[i]
		}
		return at(args[0], src...)
	})}
}

// Element permutes the indices.
func (op TransposeOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	src := make([]kern.Index, len(idx))
	for i, p := range op.Perm {
		src[p] = idx[i]
	}
	return e.Arg(0, src)
}

// VJP applies the inverse permutation.
func (op TransposeOp) VJP(_ *ir.Instr, g []*ir.Value) []*ir.Value {
	inv := make([]int, len(op.Perm))
	for i, p := range op.Perm {
		inv[p] = i
	}
	return grads(Transpose(g[0], inv...))
}

// Samples covers ranks 2 to 4.
func (op TransposeOp) Samples() []Sample {
	sample := func(shape, perm []int) Sample {
		return Sample{Op: TransposeOp{Perm: perm}, Args: []ir.Type{ir.T(ir.F32, shape...)}}
	}
	return []Sample{
		sample([]int{1, 7}, []int{1, 0}),
		sample([]int{33, 16}, []int{1, 0}),
		sample([]int{2, 3, 7}, []int{2, 0, 1}),
		sample([]int{2, 5, 3, 4}, []int{0, 2, 1, 3}),
	}
}

// Simplify joins two transpositions, and finds those that change nothing.
func (op TransposeOp) Simplify(in *ir.Instr) *ir.Value {
	if inner, x := before[TransposeOp](in.Args[0]); x != nil {
		perm := make([]int, len(op.Perm))
		for i, p := range op.Perm {
			perm[i] = inner.Perm[p]
		}
		op.Perm = perm
		in.Op, in.Args[0] = op, x
	}
	for i, p := range op.Perm {
		if p != i {
			return nil
		}
	}
	return in.Args[0]
}

// Transpose reorders dimensions: dimension i of the result is dimension
// perm[i] of x. Without perm the last two are exchanged.
func Transpose(x *ir.Value, perm ...int) *ir.Value {
	if x.Invalid() {
		return x
	}
	if n := x.Type.Rank(); len(perm) == 0 && n >= 2 {
		for i := 0; i < n; i++ {
			perm = append(perm, i)
		}
		perm[n-1], perm[n-2] = n-2, n-1
	}
	same := len(perm) == x.Type.Rank()
	for i, p := range perm {
		same = same && p == i
	}
	if same {
		return x
	}
	return apply(TransposeOp{Perm: shapeOf(perm)}, x)
}

// BroadcastToOp repeats the operand along dimensions of extent 1 and along
// new leading dimensions.
type BroadcastToOp struct {
	view
	Shape []int
}

// Name is broadcast_to.
func (BroadcastToOp) Name() string { return "broadcast_to" }

// Infer is NumPy's rule.
func (op BroadcastToOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 1); err != nil {
		return nil, err
	}
	t := args[0].With(op.Shape...)
	if err := extents(t); err != nil {
		return nil, err
	}
	if s, ok := commonShape(op.Shape, args[0].Shape); !ok || !ir.SameShape(s, op.Shape) {
		return nil, fmt.Errorf("shape %v does not broadcast to %v", args[0].Shape, op.Shape)
	}
	return []ir.Type{t}, nil
}

// Ref repeats.
func (op BroadcastToOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	shape := args[0].Type.Shape
	src := make([]int, len(shape))
	return []*ir.Tensor{fill(outs[0], func(idx []int) float64 {
		for i := range src {
			src[i] = idx[len(idx)-len(shape)+i] % shape[i]
		}
		return at(args[0], src...)
	})}
}

// Element drops the repeated dimensions' indices.
func (op BroadcastToOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	shape := e.Args[0].Shape
	src := append([]kern.Index(nil), idx[len(idx)-len(shape):]...)
	for i, d := range shape {
		if d == 1 {
			src[i] = kern.C(0)
		}
	}
	return e.Arg(0, src)
}

// VJP sums over the repeated dimensions.
func (BroadcastToOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	from, to := in.Args[0].Type.Shape, in.Results[0].Type.Shape
	var axes []int
	for i := range to {
		if j := i - (len(to) - len(from)); j < 0 || from[j] != to[i] {
			axes = append(axes, i)
		}
	}
	return grads(Reshape(SumKeep(g[0], axes...), from...))
}

// Samples covers scalars, new leading and inner dimensions.
func (op BroadcastToOp) Samples() []Sample {
	sample := func(from, to []int) Sample {
		return Sample{Op: BroadcastToOp{Shape: to}, Args: []ir.Type{ir.T(ir.F32, from...)}}
	}
	return []Sample{
		sample(nil, []int{7}),
		sample([]int{1}, []int{33}),
		sample([]int{16}, []int{3, 16}),
		sample([]int{3, 1}, []int{3, 17}),
		sample([]int{2, 1, 5}, []int{4, 2, 3, 5}),
		sample([]int{3, 1, 1}, []int{3, 1, 4}),
	}
}

// Simplify skips a broadcast before this one.
func (BroadcastToOp) Simplify(in *ir.Instr) *ir.Value {
	if _, x := before[BroadcastToOp](in.Args[0]); x != nil {
		in.Args[0] = x
	}
	return sameType(in, in.Args[0])
}

// BroadcastTo repeats x to the given shape; x itself when it has it.
func BroadcastTo(x *ir.Value, shape ...int) *ir.Value {
	if !x.Invalid() && ir.SameShape(x.Type.Shape, shape) {
		return x
	}
	return apply(BroadcastToOp{Shape: shapeOf(shape)}, x)
}

// Upsample repeats every pixel of x [B,H,W,C] k by k times (nearest neighbour).
func Upsample(x *ir.Value, k int) *ir.Value {
	if x.Invalid() {
		return x
	}
	if x.Type.Rank() != 4 {
		x.Func.Errorf("upsample: wants [B,H,W,C]: %s is %s", x, x.Type)
		return &ir.Value{Func: x.Func, Name: "invalid"}
	}
	s := x.Type.Shape
	y := BroadcastTo(Reshape(x, s[0], s[1], 1, s[2], 1, s[3]), s[0], s[1], k, s[2], k, s[3])
	return Reshape(y, s[0], s[1]*k, s[2]*k, s[3])
}

// SliceOp takes the elements Start, Start+Stride, ... below Limit of every
// dimension.
type SliceOp struct {
	view
	Start, Limit, Stride []int
}

// Name is slice.
func (SliceOp) Name() string { return "slice" }

// Infer wants 0 <= Start < Limit <= extent.
func (op SliceOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 1); err != nil {
		return nil, err
	}
	n := args[0].Rank()
	if len(op.Start) != n || len(op.Limit) != n || len(op.Stride) != n {
		return nil, fmt.Errorf("start, limit and stride need %d entries each", n)
	}
	shape := make([]int, n)
	for i, d := range args[0].Shape {
		if op.Start[i] < 0 || op.Start[i] >= op.Limit[i] || op.Limit[i] > d || op.Stride[i] < 1 {
			return nil, fmt.Errorf("range %d:%d:%d does not fit dimension %d of extent %d", op.Start[i], op.Limit[i], op.Stride[i], i, d)
		}
		shape[i] = (op.Limit[i] - op.Start[i] + op.Stride[i] - 1) / op.Stride[i]
	}
	return []ir.Type{args[0].With(shape...)}, nil
}

// Ref picks.
func (op SliceOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	src := make([]int, len(op.Start))
	return []*ir.Tensor{fill(outs[0], func(idx []int) float64 {
		for i := range src {
			src[i] = op.Start[i] + idx[i]*op.Stride[i]
		}
		return at(args[0], src...)
	})}
}

// Element scales and shifts the indices.
func (op SliceOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	src := make([]kern.Index, len(idx))
	for i := range src {
		src[i] = idx[i].Scale(op.Stride[i]).Plus(op.Start[i])
	}
	return e.Arg(0, src)
}

// VJP spreads dy by the strides and pads it.
func (op SliceOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	x, y := in.Args[0].Type.Shape, in.Results[0].Type.Shape
	d := Dilate(g[0], op.Stride...)
	n := len(x)
	start, used, high := make([]int, n), make([]int, n), make([]int, n)
	for i := range x {
		used[i] = (y[i]-1)*op.Stride[i] + 1
		high[i] = x[i] - op.Start[i] - used[i]
	}
	return grads(Pad(Slice(d, start, used), op.Start, high))
}

// Samples covers offsets and strides.
func (op SliceOp) Samples() []Sample {
	sample := func(shape, start, limit, stride []int) Sample {
		return Sample{Op: SliceOp{Start: start, Limit: limit, Stride: stride}, Args: []ir.Type{ir.T(ir.F32, shape...)}}
	}
	return []Sample{
		sample([]int{7}, []int{0}, []int{1}, []int{1}),
		sample([]int{33}, []int{5}, []int{33}, []int{1}),
		sample([]int{3, 17}, []int{1, 1}, []int{3, 17}, []int{1, 1}),
		sample([]int{5, 16}, []int{0, 3}, []int{5, 16}, []int{2, 5}),
		sample([]int{2, 9, 4}, []int{0, 2, 0}, []int{2, 9, 4}, []int{1, 3, 2}),
	}
}

// Simplify finds slices that are the whole.
func (SliceOp) Simplify(in *ir.Instr) *ir.Value { return sameType(in, in.Args[0]) }

// Slice takes elements start to limit-1 of every dimension. x itself when
// that is all of it.
func Slice(x *ir.Value, start, limit []int) *ir.Value {
	stride := make([]int, len(start))
	for i := range stride {
		stride[i] = 1
	}
	return SliceStride(x, start, limit, stride)
}

// SliceStride is Slice in steps of stride.
func SliceStride(x *ir.Value, start, limit, stride []int) *ir.Value {
	if x.Invalid() {
		return x
	}
	whole := ir.SameShape(limit, x.Type.Shape) && len(start) == len(limit) && len(stride) == len(limit)
	for i := range start {
		whole = whole && start[i] == 0 && stride[i] == 1
	}
	if whole {
		return x
	}
	return apply(SliceOp{Start: shapeOf(start), Limit: shapeOf(limit), Stride: shapeOf(stride)}, x)
}

// SliceAxis takes elements start to limit-1 along one axis.
func SliceAxis(x *ir.Value, axis, start, limit int) *ir.Value {
	if x.Invalid() {
		return x
	}
	axis = axisOf(x.Type, axis)
	lo, hi := make([]int, x.Type.Rank()), shapeOf(x.Type.Shape)
	if axis < 0 || axis >= len(lo) {
		x.Func.Errorf("slice: axis %d does not exist: %s is %s", axis, x, x.Type)
		return &ir.Value{Func: x.Func, Name: "invalid"}
	}
	lo[axis], hi[axis] = start, limit
	return Slice(x, lo, hi)
}

// PadOp puts Low zeros before and High zeros after every dimension.
type PadOp struct {
	view
	Low, High []int
}

// Name is pad.
func (PadOp) Name() string { return "pad" }

// Infer adds to the extents.
func (op PadOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 1); err != nil {
		return nil, err
	}
	n := args[0].Rank()
	if len(op.Low) != n || len(op.High) != n {
		return nil, fmt.Errorf("low and high need %d entries each", n)
	}
	shape := make([]int, n)
	for i, d := range args[0].Shape {
		if op.Low[i] < 0 || op.High[i] < 0 {
			return nil, fmt.Errorf("padding %d,%d of dimension %d is negative; use slice", op.Low[i], op.High[i], i)
		}
		shape[i] = op.Low[i] + d + op.High[i]
	}
	return []ir.Type{args[0].With(shape...)}, nil
}

// Ref copies into zeros.
func (op PadOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	src := make([]int, len(op.Low))
	return []*ir.Tensor{fill(outs[0], func(idx []int) float64 {
		for i := range src {
			src[i] = idx[i] - op.Low[i]
			if src[i] < 0 || src[i] >= args[0].Type.Shape[i] {
				return 0
			}
		}
		return at(args[0], src...)
	})}
}

// Element guards the operand: its loads give 0 outside, and what it computes
// from them (exp(0) is 1) is replaced by 0.
func (op PadOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	src := make([]kern.Index, len(idx))
	gs := make([]kern.Guard, len(idx))
	for i := range src {
		src[i] = idx[i].Plus(-op.Low[i])
		gs[i] = kern.Guard{At: src[i], Lo: 0, Hi: e.Args[0].Shape[i]}
	}
	return guarded(e, gs, src)
}

// guarded emits element src of argument 0 where the guards hold, else 0.
func guarded(e *Emitter, gs []kern.Guard, src []kern.Index) (*kern.Node, error) {
	x, err := e.B.Within(gs, func() (*kern.Node, error) { return e.Arg(0, src) })
	if err != nil {
		return nil, err
	}
	zero := e.B.F(0)
	switch x.Type {
	case ir.I32:
		zero = e.B.I(0)
	case ir.Bool:
		zero = e.B.B(false)
	}
	return e.B.Op(kern.Select, e.B.Test(gs), x, zero), nil
}

// VJP slices.
func (op PadOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	limit := make([]int, len(op.Low))
	for i, d := range in.Args[0].Type.Shape {
		limit[i] = op.Low[i] + d
	}
	return grads(Slice(g[0], op.Low, limit))
}

// Samples pads either side, both and none.
func (op PadOp) Samples() []Sample {
	sample := func(shape, low, high []int) Sample {
		return Sample{Op: PadOp{Low: low, High: high}, Args: []ir.Type{ir.T(ir.F32, shape...)}}
	}
	return []Sample{
		sample([]int{1}, []int{2}, []int{0}),
		sample([]int{7}, []int{0}, []int{9}),
		sample([]int{3, 16}, []int{1, 0}, []int{1, 1}),
		sample([]int{2, 5, 4}, []int{0, 2, 0}, []int{0, 1, 3}),
	}
}

// Pad puts zeros around x. x itself when there are none to put.
func Pad(x *ir.Value, low, high []int) *ir.Value {
	none := true
	for i := range low {
		none = none && low[i] == 0 && i < len(high) && high[i] == 0
	}
	if none && len(low) == len(high) {
		return x
	}
	return apply(PadOp{Low: shapeOf(low), High: shapeOf(high)}, x)
}

// DilateOp puts Factors[i]-1 zeros after every element along dimension i: the
// transpose of taking every Factors[i]-th element.
type DilateOp struct {
	view
	Factors []int
}

// Name is dilate.
func (DilateOp) Name() string { return "dilate" }

// Infer multiplies the extents.
func (op DilateOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 1); err != nil {
		return nil, err
	}
	if len(op.Factors) != args[0].Rank() {
		return nil, fmt.Errorf("factors needs %d entries", args[0].Rank())
	}
	shape := make([]int, len(op.Factors))
	for i, d := range args[0].Shape {
		if op.Factors[i] < 1 {
			return nil, fmt.Errorf("factor %d of dimension %d is below 1", op.Factors[i], i)
		}
		shape[i] = d * op.Factors[i]
	}
	return []ir.Type{args[0].With(shape...)}, nil
}

// Ref spreads.
func (op DilateOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	src := make([]int, len(op.Factors))
	return []*ir.Tensor{fill(outs[0], func(idx []int) float64 {
		for i, f := range op.Factors {
			if idx[i]%f != 0 {
				return 0
			}
			src[i] = idx[i] / f
		}
		return at(args[0], src...)
	})}
}

// Element divides the indices and guards for remainder 0.
func (op DilateOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	src := make([]kern.Index, len(idx))
	gs := make([]kern.Guard, len(idx))
	for i, f := range op.Factors {
		q, r, err := idx[i].DivMod(f)
		if err != nil {
			return nil, err
		}
		src[i], gs[i] = q, kern.Guard{At: r, Lo: 0, Hi: 1}
	}
	return guarded(e, gs, src)
}

// VJP takes the elements that are not filling.
func (op DilateOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	return grads(SliceStride(g[0], make([]int, len(op.Factors)), g[0].Type.Shape, op.Factors))
}

// Samples covers one and several dimensions.
func (op DilateOp) Samples() []Sample {
	sample := func(shape, factors []int) Sample {
		return Sample{Op: DilateOp{Factors: factors}, Args: []ir.Type{ir.T(ir.F32, shape...)}}
	}
	return []Sample{
		sample([]int{1}, []int{3}),
		sample([]int{7}, []int{2}),
		sample([]int{2, 5, 4}, []int{1, 2, 3}),
	}
}

// Dilate puts factors[i]-1 zeros after every element along dimension i.
func Dilate(x *ir.Value, factors ...int) *ir.Value {
	none := !x.Invalid() && len(factors) == x.Type.Rank()
	for _, f := range factors {
		none = none && f == 1
	}
	if none {
		return x
	}
	return apply(DilateOp{Factors: shapeOf(factors)}, x)
}

// ConcatOp joins its arguments along Axis.
type ConcatOp struct{ Axis int }

// Name is concat.
func (ConcatOp) Name() string { return "concat" }

// Infer wants shapes that differ along Axis at most.
func (op ConcatOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if len(args) == 0 {
		return nil, fmt.Errorf("takes at least one argument")
	}
	if err := extents(args...); err != nil {
		return nil, err
	}
	if op.Axis < 0 || op.Axis >= args[0].Rank() {
		return nil, fmt.Errorf("axis %d does not exist", op.Axis)
	}
	out := args[0].With(shapeOf(args[0].Shape)...)
	for _, t := range args[1:] {
		if t.DType != out.DType {
			return nil, fmt.Errorf("element types differ; cast one operand")
		}
		if t.Rank() != out.Rank() {
			return nil, fmt.Errorf("ranks differ")
		}
		for i, d := range t.Shape {
			if i != op.Axis && d != out.Shape[i] {
				return nil, fmt.Errorf("shapes differ along dimension %d, which is not the axis", i)
			}
		}
		out.Shape[op.Axis] += t.Shape[op.Axis]
	}
	return []ir.Type{out}, nil
}

// ConcatAxis is Axis.
func (op ConcatOp) ConcatAxis() int { return op.Axis }

// Cost is copying alone.
func (ConcatOp) Cost(_, _ []ir.Type) ir.Cost { return ir.Cost{} }

// Ref places each argument.
func (op ConcatOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	src := make([]int, outs[0].Rank())
	return []*ir.Tensor{fill(outs[0], func(idx []int) float64 {
		copy(src, idx)
		i := 0
		for src[op.Axis] >= args[i].Type.Shape[op.Axis] {
			src[op.Axis] -= args[i].Type.Shape[op.Axis]
			i++
		}
		return at(args[i], src...)
	})}
}

// VJP cuts dy into the arguments' parts.
func (op ConcatOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	var out []*ir.Value
	off := 0
	for _, a := range in.Args {
		n := a.Type.Shape[op.Axis]
		out = append(out, SliceAxis(g[0], op.Axis, off, off+n))
		off += n
	}
	return out
}

// Samples covers first, middle and last axis.
func (op ConcatOp) Samples() []Sample {
	sample := func(axis int, shapes ...[]int) Sample {
		s := Sample{Op: ConcatOp{axis}}
		for _, x := range shapes {
			s.Args = append(s.Args, ir.T(ir.F32, x...))
		}
		return s
	}
	return []Sample{
		sample(0, []int{7}),
		sample(0, []int{1}, []int{16}, []int{33}),
		sample(1, []int{2, 3}, []int{2, 1}),
		sample(1, []int{2, 3, 5}, []int{2, 4, 5}),
	}
}

// Concat joins values along axis, which may count from the end.
func Concat(axis int, vs ...*ir.Value) *ir.Value {
	if vs[0].Invalid() {
		return vs[0]
	}
	return apply(ConcatOp{axisOf(vs[0].Type, axis)}, vs...)
}

// StopGradientOp is the identity whose gradient is zero.
type StopGradientOp struct{ view }

// Name is stop_gradient.
func (StopGradientOp) Name() string { return "stop_gradient" }

// Infer keeps the type.
func (StopGradientOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 1); err != nil {
		return nil, err
	}
	return args[:1], nil
}

// Ref copies.
func (StopGradientOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return []*ir.Tensor{{Type: outs[0], Data: append([]float64(nil), args[0].Data...)}}
}

// Element is the operand's.
func (StopGradientOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	return e.Arg(0, idx)
}

// VJP is nil.
func (StopGradientOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return noGrads(in) }

// Samples covers f32.
func (op StopGradientOp) Samples() []Sample { return withoutGrad(pointwiseSamples(op, 1, ir.F32)) }

// StopGradient is x, with no gradient flowing back.
func StopGradient(x *ir.Value) *ir.Value { return apply(StopGradientOp{}, x) }
