package ops

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

func init() { ir.Register(ReduceSumOp{}, ReduceMaxOp{}, ArgmaxOp{}) }

// inferReduce keeps the reduced axes with extent 1.
func inferReduce(args []ir.Type, axes []int) ([]ir.Type, error) {
	if err := alike(args, 1, isFloat, "a floating-point tensor"); err != nil {
		return nil, err
	}
	out := args[0].With(shapeOf(args[0].Shape)...)
	last := -1
	for _, a := range axes {
		if a <= last || a >= out.Rank() {
			return nil, fmt.Errorf("axes %v must be ascending and below the rank %d", axes, out.Rank())
		}
		out.Shape[a] = 1
		last = a
	}
	return []ir.Type{out}, nil
}

// reduceRef folds f over the reduced axes.
func reduceRef(args []*ir.Tensor, outs []ir.Type, start float64, f func(acc, x float64) float64) []*ir.Tensor {
	out := fill(outs[0], func([]int) float64 { return start })
	strides := ir.Strides(outs[0].Shape)
	next := 0
	fill(args[0].Type, func(idx []int) float64 {
		n := 0
		for d, i := range idx {
			if outs[0].Shape[d] > 1 {
				n += i * strides[d]
			}
		}
		out.Data[n] = f(out.Data[n], args[0].Data[next])
		next++
		return 0
	})
	return []*ir.Tensor{out}
}

func reduceCost(args []ir.Type) ir.Cost { return ir.Cost{FLOPs: int64(args[0].Len())} }

// sortedAxes makes axes non-negative and ascending without repeats; none
// means all.
func sortedAxes(t ir.Type, axes []int) []int {
	on := make([]bool, t.Rank())
	var out []int
	for _, a := range axes {
		if a = axisOf(t, a); a < 0 || a >= len(on) {
			return []int{a} // left to the type rule
		}
		on[a] = true
	}
	for i, set := range on {
		if set || len(axes) == 0 {
			out = append(out, i)
		}
	}
	return out
}

func squeeze(y *ir.Value, axes []int) *ir.Value {
	if y.Invalid() {
		return y
	}
	var shape []int
	next := 0
	for i, d := range y.Type.Shape {
		if next < len(axes) && axes[next] == i {
			next++
			continue
		}
		shape = append(shape, d)
	}
	return Reshape(y, shape...)
}

var reduceShapes = []struct{ shape, axes []int }{
	{[]int{1}, []int{0}},
	{[]int{7}, []int{0}},
	{[]int{33}, []int{0}},
	{[]int{3, 16}, []int{1}},
	{[]int{3, 17}, []int{0}},
	{[]int{5, 33}, []int{0, 1}},
	{[]int{2, 3, 7}, []int{1}},
	{[]int{2, 3, 7}, []int{0, 2}},
	{[]int{2, 3, 2, 5}, []int{1, 3}},
}

// ReduceSumOp sums over Axes, which stay with extent 1.
type ReduceSumOp struct{ Axes []int }

// Name is reduce_sum.
func (ReduceSumOp) Name() string { return "reduce_sum" }

// Infer sets the summed extents to 1.
func (op ReduceSumOp) Infer(args []ir.Type) ([]ir.Type, error) { return inferReduce(args, op.Axes) }

// Reduction is sum.
func (op ReduceSumOp) Reduction() (kern.Combine, []int) { return kern.Sum, op.Axes }

// Cost is one addition an element.
func (ReduceSumOp) Cost(args, _ []ir.Type) ir.Cost { return reduceCost(args) }

// Ref sums.
func (ReduceSumOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return reduceRef(args, outs, 0, func(acc, x float64) float64 { return acc + x })
}

// VJP repeats dy.
func (ReduceSumOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	return grads(BroadcastTo(g[0], in.Args[0].Type.Shape...))
}

// Samples covers rows, columns and several axes.
func (op ReduceSumOp) Samples() []Sample {
	var out []Sample
	for _, r := range reduceShapes {
		out = append(out, Sample{Op: ReduceSumOp{r.axes}, Args: []ir.Type{ir.T(ir.F32, r.shape...)}})
	}
	return out
}

// SumKeep sums over axes (all when none are given), which stay with extent 1.
func SumKeep(x *ir.Value, axes ...int) *ir.Value {
	if x.Invalid() {
		return x
	}
	return apply(ReduceSumOp{sortedAxes(x.Type, axes)}, x)
}

// Sum sums over axes (all when none are given) and drops them.
func Sum(x *ir.Value, axes ...int) *ir.Value {
	if x.Invalid() {
		return x
	}
	return squeeze(SumKeep(x, axes...), sortedAxes(x.Type, axes))
}

// MeanKeep averages over axes (all when none are given), which stay with
// extent 1.
func MeanKeep(x *ir.Value, axes ...int) *ir.Value {
	s := SumKeep(x, axes...)
	if s.Invalid() {
		return s
	}
	return MulConst(s, float64(s.Type.Len())/float64(x.Type.Len()))
}

// Mean averages over axes (all when none are given) and drops them.
func Mean(x *ir.Value, axes ...int) *ir.Value {
	if x.Invalid() {
		return x
	}
	return squeeze(MeanKeep(x, axes...), sortedAxes(x.Type, axes))
}

// ReduceMaxOp is the maximum over Axes, which stay with extent 1.
type ReduceMaxOp struct{ Axes []int }

// Name is reduce_max.
func (ReduceMaxOp) Name() string { return "reduce_max" }

// Infer sets the reduced extents to 1.
func (op ReduceMaxOp) Infer(args []ir.Type) ([]ir.Type, error) { return inferReduce(args, op.Axes) }

// Reduction is max.
func (op ReduceMaxOp) Reduction() (kern.Combine, []int) { return kern.MaxOf, op.Axes }

// Cost is one comparison an element.
func (ReduceMaxOp) Cost(args, _ []ir.Type) ir.Cost { return reduceCost(args) }

// Ref compares.
func (ReduceMaxOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	return reduceRef(args, outs, math.Inf(-1), math.Max)
}

// VJP shares dy equally among the maxima.
func (op ReduceMaxOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	x := in.Args[0]
	hit := Cast(Eq(x, in.Results[0]), x.Type.DType)
	return grads(Mul(hit, Div(g[0], SumKeep(hit, op.Axes...))))
}

// Samples covers rows, columns and several axes.
func (op ReduceMaxOp) Samples() []Sample {
	var out []Sample
	for _, r := range reduceShapes {
		out = append(out, Sample{Op: ReduceMaxOp{r.axes}, Args: []ir.Type{ir.T(ir.F32, r.shape...)}, Fill: []Fill{{Kind: "distinct"}}})
	}
	return out
}

// ReduceMaxKeep is the maximum over axes (all when none are given), which
// stay with extent 1.
func ReduceMaxKeep(x *ir.Value, axes ...int) *ir.Value {
	if x.Invalid() {
		return x
	}
	return apply(ReduceMaxOp{sortedAxes(x.Type, axes)}, x)
}

// ReduceMax is the maximum over axes (all when none are given), dropped.
func ReduceMax(x *ir.Value, axes ...int) *ir.Value {
	if x.Invalid() {
		return x
	}
	return squeeze(ReduceMaxKeep(x, axes...), sortedAxes(x.Type, axes))
}

// ArgmaxOp is the i32 position of the maximum along the last axis, which is
// dropped. The first of several wins; where nothing compares (NaN) it is the
// last position, so that it can always be used as an index.
type ArgmaxOp struct{}

// Name is argmax.
func (ArgmaxOp) Name() string { return "argmax" }

// Infer drops the last axis.
func (ArgmaxOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := alike(args, 1, isFloat, "a floating-point tensor"); err != nil {
		return nil, err
	}
	if args[0].Rank() == 0 {
		return nil, fmt.Errorf("a scalar has no axis")
	}
	n := args[0].Rank() - 1
	if args[0].Shape[n] > 1<<24 {
		return nil, fmt.Errorf("the last axis must not exceed 2^24")
	}
	return []ir.Type{ir.T(ir.I32, shapeOf(args[0].Shape[:n])...)}, nil
}

// Cost is two comparisons an element.
func (ArgmaxOp) Cost(args, _ []ir.Type) ir.Cost { return ir.Cost{FLOPs: 2 * int64(args[0].Len())} }

// Ref searches.
func (ArgmaxOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	out := ir.NewTensor(outs[0])
	n := args[0].Type.Shape[args[0].Type.Rank()-1]
	for i := range out.Data {
		row := args[0].Data[i*n : i*n+n]
		best := 0
		for j, x := range row {
			if x > row[best] {
				best = j
			}
		}
		out.Data[i] = float64(best)
	}
	return []*ir.Tensor{out}
}

// Kernel finds the maximum of each row, then the smallest position that has
// it, as the largest of the negated positions (exact in f32 up to 2^24).
func (ArgmaxOp) Kernel(args, outs []ir.Type) *kern.Kernel {
	b := kern.NewBuilder("argmax")
	n := args[0].Shape[args[0].Rank()-1]
	x := b.Buf("x", args[0].DType, args[0].Len(), kern.In)
	y := b.Buf("y", ir.I32, outs[0].Len(), kern.Out)
	row := kern.V(b.Dim(outs[0].Len()))
	elem := func(j *kern.Var) *kern.Node { return b.Load(x, row.Scale(n).Add(kern.V(j))) }
	top, _ := b.For(n, []kern.Combine{kern.MaxOf}, func(j *kern.Var) ([]*kern.Node, error) {
		return []*kern.Node{elem(j)}, nil
	})
	none := b.F(float64(1 - n))
	pos, _ := b.For(n, []kern.Combine{kern.MaxOf}, func(j *kern.Var) ([]*kern.Node, error) {
		at := b.Op(kern.Neg, b.Cast(ir.F32, b.Pos(kern.V(j))))
		return []*kern.Node{b.Op(kern.Select, b.Op(kern.Eq, elem(j), top[0]), at, none)}, nil
	})
	b.Store(y, row, b.Cast(ir.I32, b.Op(kern.Neg, pos[0])))
	return b.Done()
}

// VJP is nil.
func (ArgmaxOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return noGrads(in) }

// Samples covers ties as well.
func (op ArgmaxOp) Samples() []Sample {
	var out []Sample
	for _, s := range [][]int{{1}, {7}, {3, 16}, {5, 33}, {2, 3, 17}} {
		out = append(out, Sample{Op: op, Args: []ir.Type{ir.T(ir.F32, s...)}, NoGrad: true})
	}
	return append(out, Sample{Op: op, Args: []ir.Type{ir.T(ir.F32, 4, 9)}, Fill: []Fill{{Kind: "index", N: 3}}, NoGrad: true})
}

// Argmax is the i32 position of the maximum along the last axis.
func Argmax(x *ir.Value) *ir.Value { return apply(ArgmaxOp{}, x) }
