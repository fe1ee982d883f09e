package ops

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

func init() { ir.Register(CacheWriteOp{}) }

// CacheWriteOp is a cache [B,T,...] with its rows from position pos i32[] on
// replaced by those of new [B,R,...], where pos is in [0, T-R]. The result
// lives in the cache's memory.
type CacheWriteOp struct{ view }

// Name is cache_write.
func (CacheWriteOp) Name() string { return "cache_write" }

// Infer gives the type of the cache.
func (CacheWriteOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 3); err != nil {
		return nil, err
	}
	if args[0].Rank() < 2 {
		return nil, fmt.Errorf("wants a cache [B,T,...]")
	}
	s := shapeOf(args[0].Shape)
	s[1] = 1
	if args[1].Rank() == len(s) {
		s[1] = min(max(1, args[1].Shape[1]), args[0].Shape[1])
	}
	if want := args[0].With(s...); !args[1].Equal(want) {
		return nil, fmt.Errorf("the new rows must be %s", want)
	}
	if !args[2].Equal(ir.T(ir.I32)) {
		return nil, fmt.Errorf("the position must be i32[]")
	}
	return args[:1], nil
}

// Aliases is true.
func (CacheWriteOp) Aliases() bool { return true }

// Ref copies the cache and replaces the rows.
func (CacheWriteOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	out := &ir.Tensor{Type: outs[0], Data: append([]float64(nil), args[0].Data...)}
	b, t := outs[0].Shape[0], outs[0].Shape[1]
	row, n := len(out.Data)/(b*t), len(args[1].Data)/b
	for i := 0; i < b; i++ {
		copy(out.Data[(i*t+int(args[2].Data[0]))*row:], args[1].Data[i*n:i*n+n])
	}
	return []*ir.Tensor{out}
}

// Kernel stores the rows alone.
func (CacheWriteOp) Kernel(args, outs []ir.Type) *kern.Kernel {
	b := kern.NewBuilder("cache_write")
	b.Buf("cache", args[0].DType, args[0].Len(), kern.In)
	src := b.Buf("new", args[1].DType, args[1].Len(), kern.In)
	pos := b.Buf("pos", ir.I32, 1, kern.In)
	dst := b.Buf("out", outs[0].DType, outs[0].Len(), kern.Out)
	idx := make([]kern.Index, args[1].Rank())
	var last *kern.Var
	for d, n := range args[1].Shape {
		last = b.Dim(n)
		idx[d] = kern.V(last)
	}
	x := b.Load(src, kern.Flat(args[1].Shape, idx))
	idx[1] = idx[1].Add(kern.At(b.Load(pos, kern.C(0))))
	b.Store(dst, kern.Flat(args[0].Shape, idx), x)
	k := b.Done()
	k.Vector = last
	return k
}

// Strides lets the new rows lie anyhow.
func (CacheWriteOp) Strides(i int, s []int) bool { return i == 1 || headStrides(s) }

// VJP records that there is none.
func (CacheWriteOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return undifferentiable(in) }

// Samples covers first, middle and last positions, one row, several and all.
func (op CacheWriteOp) Samples() []Sample {
	sample := func(pos float64, rows, b, t, h, d int) Sample {
		return Sample{Op: op, Args: []ir.Type{ir.T(ir.F32, b, t, h, d), ir.T(ir.F32, b, rows, h, d), ir.T(ir.I32)}, Fill: []Fill{{}, {}, {Kind: "const", X: pos}}, NoGrad: true}
	}
	return []Sample{sample(0, 1, 1, 1, 1, 1), sample(0, 1, 2, 7, 2, 3), sample(5, 1, 1, 16, 1, 4), sample(32, 1, 2, 33, 3, 5), sample(4, 3, 2, 7, 2, 3), sample(0, 33, 2, 33, 3, 5)}
}

// CacheWrite is cache [B,T,...] with the rows from pos on replaced by rows
// [B,R,...]; it overwrites the cache's memory, so the old value must not be
// used after it.
func CacheWrite(cache, rows, pos *ir.Value) *ir.Value { return apply(CacheWriteOp{}, cache, rows, pos) }
