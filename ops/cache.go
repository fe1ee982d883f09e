package ops

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

func init() { ir.Register(CacheWriteOp{}) }

// CacheWriteOp is a cache [B,T,...] with its row at position pos i32[], in
// [0, T), replaced by new [B,1,...]. The result lives in the cache's memory.
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
	if want := args[0].With(s...); !args[1].Equal(want) {
		return nil, fmt.Errorf("the new row must be %s", want)
	}
	if !args[2].Equal(ir.T(ir.I32)) {
		return nil, fmt.Errorf("the position must be i32[]")
	}
	return args[:1], nil
}

// Aliases is true.
func (CacheWriteOp) Aliases() bool { return true }

// Ref copies the cache and replaces the row.
func (CacheWriteOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	out := &ir.Tensor{Type: outs[0], Data: append([]float64(nil), args[0].Data...)}
	b, t := outs[0].Shape[0], outs[0].Shape[1]
	row := len(args[1].Data) / b
	for i := 0; i < b; i++ {
		copy(out.Data[(i*t+int(args[2].Data[0]))*row:], args[1].Data[i*row:i*row+row])
	}
	return []*ir.Tensor{out}
}

// Kernel stores the row alone.
func (CacheWriteOp) Kernel(args, outs []ir.Type) *kern.Kernel {
	b := kern.NewBuilder("cache_write")
	n, t := args[0].Shape[0], args[0].Shape[1]
	row := args[1].Len() / n
	b.Buf("cache", args[0].DType, args[0].Len(), kern.In)
	src := b.Buf("new", args[1].DType, args[1].Len(), kern.In)
	pos := b.Buf("pos", ir.I32, 1, kern.In)
	dst := b.Buf("out", outs[0].DType, outs[0].Len(), kern.Out)
	i, col := b.Dim(n), b.Dim(row)
	at := kern.At(b.Load(pos, kern.C(0)))
	x := b.Load(src, kern.V(i).Scale(row).Add(kern.V(col)))
	b.Store(dst, kern.V(i).Scale(t*row).Add(at.Scale(row)).Add(kern.V(col)), x)
	k := b.Done()
	k.Vector = col
	return k
}

// VJP records that there is none.
func (CacheWriteOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return undifferentiable(in) }

// Samples covers first, middle and last positions.
func (op CacheWriteOp) Samples() []Sample {
	sample := func(pos float64, b, t, h, d int) Sample {
		return Sample{Op: op, Args: []ir.Type{ir.T(ir.F32, b, t, h, d), ir.T(ir.F32, b, 1, h, d), ir.T(ir.I32)}, Fill: []Fill{{}, {}, {Kind: "const", X: pos}}, NoGrad: true}
	}
	return []Sample{sample(0, 1, 1, 1, 1), sample(0, 2, 7, 2, 3), sample(5, 1, 16, 1, 4), sample(32, 2, 33, 3, 5)}
}

// CacheWrite is cache [B,T,...] with row pos replaced by row [B,1,...]; it
// overwrites the cache's memory, so the old value must not be used after it.
func CacheWrite(cache, row, pos *ir.Value) *ir.Value { return apply(CacheWriteOp{}, cache, row, pos) }
