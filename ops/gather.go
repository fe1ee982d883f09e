package ops

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

func init() { ir.Register(TakeOp{}, ScatterAddOp{}) }

// TakeOp picks rows of a table: table [V,...] at idx i32[...] is
// [idx dimensions..., row dimensions...]. Every index must be in [0, V).
type TakeOp struct{ view }

// Name is take.
func (TakeOp) Name() string { return "take" }

// Infer joins the shapes.
func (TakeOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 2); err != nil {
		return nil, err
	}
	if args[0].Rank() == 0 {
		return nil, fmt.Errorf("a scalar has no rows")
	}
	if args[1].DType != ir.I32 {
		return nil, fmt.Errorf("indices must be i32, not %s", args[1].DType)
	}
	return []ir.Type{args[0].With(append(shapeOf(args[1].Shape), args[0].Shape[1:]...)...)}, nil
}

// Ref looks up.
func (TakeOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	out := ir.NewTensor(outs[0])
	row := args[0].Type.Len() / args[0].Type.Shape[0]
	for i, x := range args[1].Data {
		copy(out.Data[i*row:], args[0].Data[int(x)*row:int(x)*row+row])
	}
	return []*ir.Tensor{out}
}

// Element uses the index as the first coordinate of the table.
func (TakeOp) Element(e *Emitter, idx []kern.Index) (*kern.Node, error) {
	n := e.Args[1].Rank()
	row, err := e.Arg(1, idx[:n])
	if err != nil {
		return nil, err
	}
	return e.Arg(0, append([]kern.Index{kern.At(row)}, idx[n:]...))
}

// VJP adds the rows of dy up where they came from. Of a table with many more rows
// than are taken most would be zeros, stored and read again: then the sums stay
// as short as the list of indices, and the gradient takes them from there.
func (TakeOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	idx, rows := in.Args[1], in.Args[0].Type.Shape[0]
	n := idx.Type.Len()
	if rows < 2*(n+1) || n >= 1<<24 {
		return grads(ScatterAdd(idx, g[0], rows), nil)
	}
	list := Reshape(idx, n)
	first := firsts(list, rows)
	dy := Reshape(g[0], append([]int{n}, in.Args[0].Type.Shape[1:]...)...)
	return grads(Take(ScatterAdd(Take(first, list), dy, n+1), first), nil)
}

// firsts is for each number below rows its first position in list i32[n], n
// where it is not there: i32[rows]. n must be below 2^24.
func firsts(list *ir.Value, rows int) *ir.Value {
	f, n := list.Func, list.Type.Len()
	there := Eq(Reshape(list, 1, n), Iota(f, 0, rows, 1))
	back := Select(there, Neg(Cast(Iota(f, 1, 1, n), ir.F32)), Full(f, ir.T(ir.F32, 1, 1), -float64(n)))
	return Cast(Neg(ReduceMax(back, 1)), ir.I32)
}

// Samples covers repeated indices, rows that are scalars and matrices.
func (op TakeOp) Samples() []Sample {
	sample := func(table, idx []int) Sample {
		return Sample{Op: op, Args: []ir.Type{ir.T(ir.F32, table...), ir.T(ir.I32, idx...)}, Fill: []Fill{{}, {Kind: "index", N: table[0]}}}
	}
	return []Sample{
		sample([]int{1, 1}, []int{1}),
		sample([]int{7}, []int{16}),
		sample([]int{5, 16}, []int{33}),
		sample([]int{9, 17}, []int{2, 3}),
		sample([]int{4, 2, 3}, []int{7}),
		sample([]int{4, 7}, nil),
		sample([]int{40, 5}, []int{2, 3}), // mostly rows that nobody takes
	}
}

// Take picks rows of table at the i32 indices idx: an embedding lookup.
func Take(table, idx *ir.Value) *ir.Value { return apply(TakeOp{}, table, idx) }

// ScatterAddOp is the transpose of take: row i of x is added to row idx[i] of
// a result of Rows rows, in the order of i. The result is f32 whatever x is: it
// is the accumulator, and in 16 bits a long sum would stop growing.
type ScatterAddOp struct{ Rows int }

// Name is scatter_add.
func (ScatterAddOp) Name() string { return "scatter_add" }

// Infer wants x to continue the shape of idx.
func (op ScatterAddOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 2); err != nil {
		return nil, err
	}
	idx, x := args[0], args[1]
	switch {
	case idx.DType != ir.I32:
		return nil, fmt.Errorf("indices must be i32, not %s", idx.DType)
	case !isFloat(x):
		return nil, fmt.Errorf("wants floating-point rows")
	case x.Rank() < idx.Rank() || !ir.SameShape(idx.Shape, x.Shape[:idx.Rank()]):
		return nil, fmt.Errorf("the rows' leading dimensions must be those of the indices")
	case op.Rows < 1:
		return nil, fmt.Errorf("rows must be at least 1")
	}
	return []ir.Type{ir.T(ir.F32, append([]int{op.Rows}, x.Shape[idx.Rank():]...)...)}, nil
}

// Cost is one addition an element.
func (ScatterAddOp) Cost(args, _ []ir.Type) ir.Cost { return reduceCost(args[1:]) }

// Ref adds.
func (ScatterAddOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	out := ir.NewTensor(outs[0])
	row := outs[0].Len() / outs[0].Shape[0]
	for i, r := range args[0].Data {
		for j := 0; j < row; j++ {
			out.Data[int(r)*row+j] += args[1].Data[i*row+j]
		}
	}
	return []*ir.Tensor{out}
}

// Kernel is parallel over columns alone, so that the order of additions is
// always that of the indices.
func (op ScatterAddOp) Kernel(args, outs []ir.Type) *kern.Kernel {
	b := kern.NewBuilder("scatter_add")
	n := args[0].Len()
	cols := args[1].Len() / n
	idx := b.Buf("idx", ir.I32, n, kern.In)
	x := b.Buf("x", args[1].DType, args[1].Len(), kern.In)
	y := b.Buf("y", outs[0].DType, outs[0].Len(), kern.Out)
	dim := b.Dim(cols)
	col := kern.V(dim)
	zero := b.F(0)
	b.For(op.Rows, nil, func(r *kern.Var) ([]*kern.Node, error) {
		b.Store(y, kern.V(r).Scale(cols).Add(col), zero)
		return nil, nil
	})
	b.For(n, nil, func(i *kern.Var) ([]*kern.Node, error) {
		to := kern.At(b.Load(idx, kern.V(i))).Scale(cols).Add(col)
		sum := b.Op(kern.Add, b.Load(y, to), b.Load(x, kern.V(i).Scale(cols).Add(col)))
		b.Store(y, to, sum)
		return nil, nil
	})
	k := b.Done()
	k.Vector = dim
	return k
}

// VJP takes rows.
func (ScatterAddOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	return grads(nil, Cast(Take(g[0], in.Args[0]), in.Args[1].Type.DType))
}

// Samples covers rows never hit and hit repeatedly.
func (op ScatterAddOp) Samples() []Sample {
	sample := func(rows int, idx, x []int) Sample {
		return Sample{Op: ScatterAddOp{rows}, Args: []ir.Type{ir.T(ir.I32, idx...), ir.T(ir.F32, x...)}, Fill: []Fill{{Kind: "index", N: rows}}}
	}
	return []Sample{
		sample(1, []int{1}, []int{1, 1}),
		sample(5, []int{16}, []int{16, 7}),
		sample(3, []int{33}, []int{33, 16}),
		sample(40, []int{2, 3}, []int{2, 3, 17}),
		sample(4, []int{7}, []int{7}),
		// In bf16 a sum of ones ends at 256.
		{
			Op: ScatterAddOp{1}, Args: []ir.Type{ir.T(ir.I32, 300), ir.T(ir.BF16, 300, 3)},
			Fill:   []Fill{{Kind: "index", N: 1}, {Kind: "const", X: 1}},
			NoGrad: true, // which is rounded to bf16
		},
	}
}

// ScatterAdd adds row i of x to row idx[i] of a table of that many rows that
// starts at zero. It sums in f32 and gives x's type.
func ScatterAdd(idx, x *ir.Value, rows int) *ir.Value {
	return Cast(apply(ScatterAddOp{rows}, idx, x), x.Type.DType)
}
