package ops

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

func init() { ir.Register(MatMulOp{}) }

// MatMulOp is the matrix product over the last two dimensions: A [...,M,K]
// times B [K,N], or [...,K,N] with the same leading dimensions, is [...,M,N].
// TransA and TransB say that the operand is stored with its last two
// dimensions exchanged. With SumBatch the leading dimensions, which both
// operands must have, are summed over and the result is [M,N].
//
// Multiply F16, for operands in f16, lets processors that can multiply in f16, and add up to 128 products in
// f16 before they go on in f32. Otherwise products and sums are those of f32.
type MatMulOp struct {
	TransA, TransB, SumBatch bool
	Multiply                 ir.DType
}

// Name is matmul.
func (MatMulOp) Name() string { return "matmul" }

// dims gives M, K, N and the number of leading dimensions of B.
func (op MatMulOp) dims(a, b ir.Type) (m, k, kb, n int) {
	m, k = a.Shape[a.Rank()-2], a.Shape[a.Rank()-1]
	if op.TransA {
		m, k = k, m
	}
	kb, n = b.Shape[b.Rank()-2], b.Shape[b.Rank()-1]
	if op.TransB {
		kb, n = n, kb
	}
	return m, k, kb, n
}

// Infer matches inner and leading dimensions.
func (op MatMulOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 2); err != nil {
		return nil, err
	}
	a, b := args[0], args[1]
	switch {
	case !isFloat(a) || !isFloat(b):
		return nil, fmt.Errorf("wants floating-point matrices")
	case op.Multiply != ir.Invalid && (op.Multiply != ir.F16 || a.DType != ir.F16):
		return nil, fmt.Errorf("multiplies %s in %s; want f16 for operands in f16, or nothing", a.DType, op.Multiply)
	case a.DType != b.DType:
		return nil, fmt.Errorf("element types differ; cast one operand")
	case a.Rank() < 2 || b.Rank() < 2:
		return nil, fmt.Errorf("wants matrices")
	}
	m, k, kb, n := op.dims(a, b)
	if k != kb {
		return nil, fmt.Errorf("inner dimensions differ")
	}
	batch := a.Shape[:a.Rank()-2]
	if b.Rank() > 2 || op.SumBatch {
		if !ir.SameShape(batch, b.Shape[:b.Rank()-2]) {
			return nil, fmt.Errorf("leading dimensions differ")
		}
	}
	if op.SumBatch {
		if len(batch) == 0 {
			return nil, fmt.Errorf("sum_batch needs leading dimensions")
		}
		return []ir.Type{a.With(m, n)}, nil
	}
	return []ir.Type{a.With(append(shapeOf(batch), m, n)...)}, nil
}

// Cost is one multiply-add for each m, k, n and leading index.
func (op MatMulOp) Cost(args, _ []ir.Type) ir.Cost {
	_, _, _, n := op.dims(args[0], args[1])
	return ir.Cost{FLOPs: 2 * int64(args[0].Len()) * int64(n)}
}

// Contraction sums over k, inside the leading dimensions with SumBatch.
func (op MatMulOp) Contraction(args []ir.Type, out []kern.Index, newVar func(int) *kern.Var) Contraction {
	c := Contraction{Multiply: op.Multiply}
	if args[0].DType == ir.BF16 {
		c.Multiply = ir.BF16
	}
	var batch []kern.Index
	if op.SumBatch {
		for _, d := range args[0].Shape[:args[0].Rank()-2] {
			v := newVar(d)
			c.Vars = append(c.Vars, v)
			batch = append(batch, kern.V(v))
		}
	} else {
		batch = out[:len(out)-2]
	}
	_, depth, _, _ := op.dims(args[0], args[1])
	v := newVar(depth)
	c.Vars = append(c.Vars, v)
	m, k, n := out[len(out)-2], kern.V(v), out[len(out)-1]
	c.A = append(append(c.A, batch...), pair(m, k, op.TransA)...)
	if args[1].Rank() > 2 {
		c.B = append(c.B, batch...)
	}
	c.B = append(c.B, pair(k, n, op.TransB)...)
	return c
}

func pair(i, j kern.Index, swap bool) []kern.Index {
	if swap {
		return []kern.Index{j, i}
	}
	return []kern.Index{i, j}
}

// Ref multiplies.
func (op MatMulOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	a, b := args[0], args[1]
	m, k, _, n := op.dims(a.Type, b.Type)
	out := ir.NewTensor(outs[0])
	element := func(t *ir.Tensor, base, i, j, rows, cols int, trans bool) float64 {
		if trans {
			return t.Data[base+j*rows+i]
		}
		return t.Data[base+i*cols+j]
	}
	for batch := 0; batch < a.Type.Len()/(m*k); batch++ {
		ba, bb, bo := batch*m*k, batch*k*n, batch*m*n
		if b.Type.Rank() == 2 {
			bb = 0
		}
		if op.SumBatch {
			bo = 0
		}
		for i := 0; i < m; i++ {
			for j := 0; j < n; j++ {
				for x := 0; x < k; x++ {
					out.Data[bo+i*n+j] += element(a, ba, i, x, m, k, op.TransA) * element(b, bb, x, j, k, n, op.TransB)
				}
			}
		}
	}
	return []*ir.Tensor{out}
}

// VJP is dA = dY B' and dB = A' dY, arranged so that neither operand is
// copied transposed; where only the transpose of a gradient has a form with a
// matrix as second operand, that is computed and turned round.
func (op MatMulOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	a, b, dy := in.Args[0], in.Args[1], g[0]
	mul := func(a, b *ir.Value, ta, tb, sum bool) *ir.Value {
		return apply(MatMulOp{TransA: ta, TransB: tb, SumBatch: sum, Multiply: op.Multiply}, a, b)
	}
	if op.SumBatch { // dY is [M,N]
		da := mul(b, dy, op.TransB, true, false) // [...,K,M]
		if !op.TransA {
			da = Transpose(da)
		}
		db := mul(a, dy, !op.TransA, false, false) // [...,K,N]
		if op.TransB {
			db = Transpose(db)
		}
		return grads(da, db)
	}
	shared := b.Type.Rank() == 2 && a.Type.Rank() > 2
	var da, db *ir.Value
	switch {
	case !op.TransA:
		da = mul(dy, b, false, !op.TransB, false)
	case shared:
		da = Transpose(mul(dy, b, false, !op.TransB, false))
	default:
		da = mul(b, dy, op.TransB, true, false)
	}
	if op.TransB {
		db = mul(dy, a, true, op.TransA, shared)
	} else {
		db = mul(a, dy, !op.TransA, false, shared)
	}
	return grads(da, db)
}

// Samples covers all flags, with and without leading dimensions, at sizes
// around those of a register block.
func (op MatMulOp) Samples() []Sample {
	var out []Sample
	sample := func(ta, tb, sum bool, m, k, n int, ba, bb []int) {
		shape := func(batch []int, i, j int, swap bool) ir.Type {
			if swap {
				i, j = j, i
			}
			return ir.T(ir.F32, append(shapeOf(batch), i, j)...)
		}
		out = append(out, Sample{Op: MatMulOp{TransA: ta, TransB: tb, SumBatch: sum}, Args: []ir.Type{shape(ba, m, k, ta), shape(bb, k, n, tb)}})
	}
	for i := 0; i < 4; i++ {
		ta, tb := i&1 != 0, i&2 != 0
		sample(ta, tb, false, 5, 7, 3, nil, nil)
		sample(ta, tb, false, 3, 4, 5, []int{2}, nil)
		sample(ta, tb, false, 3, 4, 5, []int{2, 3}, []int{2, 3})
		sample(ta, tb, true, 3, 4, 5, []int{2, 2}, []int{2, 2})
	}
	sample(false, false, false, 1, 1, 1, nil, nil)
	sample(false, false, false, 16, 33, 7, nil, nil)
	sample(false, true, false, 7, 16, 33, nil, nil)
	sample(true, false, true, 17, 3, 16, []int{2}, []int{2})
	return out
}

// In is the same product with Multiply d.
func (op MatMulOp) In(d ir.DType) ir.Op {
	op.Multiply = d
	return op
}

// MatMul is a [...,M,K] times b [K,N] or [...,K,N].
func MatMul(a, b *ir.Value) *ir.Value { return apply(MatMulOp{}, a, b) }

// MatMulT is a [...,M,K] times the transpose of b [N,K] or [...,N,K].
func MatMulT(a, b *ir.Value) *ir.Value { return apply(MatMulOp{TransB: true}, a, b) }
