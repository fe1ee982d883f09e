package graph

import (
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// Sizes of what Halve cuts.
const (
	halveRows   = 16       // at most
	halveCols   = 2048     // at most: longer rows are read as fast in parts
	halveLen    = 1 << 18  // weights, at least
	halveAll    = 32 << 20 // bytes of all such weights of a function, at least: those that caches hold don't gain
	leastHalved = 64       // columns
)

// Halve makes products of a few rows and a matrix of weights sums of two, of
// the upper and the lower half of the weights. Such a product takes as long as
// reading the weights, and a processor reads whole rows, one after the other,
// faster than a part of each: so two threads had better share rows. Threads
// that share columns as well, or a single one, add up the same.
func Halve(f *ir.Func) error {
	bytes := 0
	for _, in := range f.Body {
		if halved(in) {
			bytes += in.Args[1].Type.Len() * paramOf(in.Args[1]).DType.Size()
		}
	}
	if bytes < halveAll {
		return nil
	}
	rewrite(f, func(in *ir.Instr) []*ir.Value {
		if !halved(in) {
			return nil
		}
		x, w := in.Args[0], in.Args[1]
		m, k, n := x.Type.Shape[0], x.Type.Shape[1], w.Type.Shape[1]
		p := ops.MatMul(ops.Transpose(ops.Reshape(x, m, 2, k/2), 1, 0, 2), ops.Reshape(w, 2, k/2, n))
		half := func(i int) *ir.Value { return ops.Reshape(ops.SliceAxis(p, 0, i, i+1), m, n) }
		return []*ir.Value{ops.Add(half(0), half(1))}
	})
	return f.Err()
}

// halved reports whether in is a product that Halve cuts, if there are enough of them.
func halved(in *ir.Instr) bool {
	op, ok := in.Op.(ops.MatMulOp)
	if !ok || op != (ops.MatMulOp{}) {
		return false
	}
	x, w := in.Args[0].Type, in.Args[1].Type
	return x.DType == ir.F32 && x.Rank() == 2 && x.Shape[0] <= halveRows && x.Shape[1]%2 == 0 &&
		w.Rank() == 2 && w.Shape[1] >= leastHalved && w.Shape[1] <= halveCols && w.Len() >= halveLen && paramOf(in.Args[1]) != nil
}

// paramOf is the type of the parameter that w is, perhaps in another type, or nil.
func paramOf(w *ir.Value) *ir.Type {
	for w.Def != nil {
		if _, cast := w.Def.Op.(ops.CastOp); !cast {
			return nil
		}
		w = w.Def.Args[0]
	}
	if w.Global == nil || w.Global.Role != ir.Param && w.Global.Role != ir.Average {
		return nil
	}
	return &w.Global.Type
}
