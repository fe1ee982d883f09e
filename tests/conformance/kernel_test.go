package conformance

import (
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops"
)

// TestKernelsComputeTheReference evaluates, for each sample, the simplest
// kernel of the op's family in float64 and compares it with Ref.
func TestKernelsComputeTheReference(t *testing.T) {
	eachSample(t, func(t *testing.T, s ops.Sample, args []*ir.Tensor) {
		want := reference(t, s, args)
		kernels, err := simplest(s.Op, types(args), types(want))
		if err != nil {
			t.Fatal(err)
		}
		bufs := make([][]float64, 0, len(args)+len(want))
		for _, a := range args {
			bufs = append(bufs, append([]float64(nil), a.Data...))
		}
		for _, w := range want {
			out := make([]float64, len(w.Data))
			for i := range out {
				out[i] = math.NaN() // what is not written shows
			}
			bufs = append(bufs, out)
		}
		if a, ok := s.Op.(ops.Aliaser); ok && a.Aliases() {
			copy(bufs[len(args)], args[0].Data)
		}
		for _, k := range kernels {
			if len(k.Bufs) != len(bufs) {
				t.Fatalf("kernel has %d buffers, want arguments and results: %d", len(k.Bufs), len(bufs))
			}
			for i, b := range k.Bufs {
				typ := append(types(args), types(want)...)[i]
				if b.Len != len(bufs[i]) || b.DType != typ.DType || (b.Mode == kern.In) != (i < len(args)) {
					t.Errorf("buffer %d is %s %s of %d elements, want %s of %d", i, b.Mode, b.DType, b.Len, typ, len(bufs[i]))
				}
			}
			if err := kern.Eval(k, bufs); err != nil {
				t.Fatal(err)
			}
		}
		for i, w := range want {
			same(t, fmt.Sprintf("result %d", i), bufs[len(args)+i], w.Data, 1e-9)
		}
		for i, a := range args {
			same(t, fmt.Sprintf("argument %d afterwards", i), bufs[i], a.Data, 0)
		}
	})
}

// simplest builds an op alone, without fusion: one grid over the result, or
// whole kernels where the op has them.
func simplest(op ops.Op, args, outs []ir.Type) ([]*kern.Kernel, error) {
	switch op := op.(type) {
	case ops.Opaque:
		return []*kern.Kernel{op.Kernel(args, outs)}, nil
	case ops.Concatenator:
		var ks []*kern.Kernel
		off := 0
		for i, a := range args {
			n := nest{args: args, outs: outs, grid: a.Shape}
			shift := off
			k, err := n.build(func(b *kern.Builder, idx []kern.Index, load loader) error {
				x, err := load(i, idx)
				to := append([]kern.Index(nil), idx...)
				to[op.ConcatAxis()] = to[op.ConcatAxis()].Plus(shift)
				b.Store(len(args), kern.Flat(outs[0].Shape, to), x)
				return err
			})
			if err != nil {
				return nil, err
			}
			off += a.Shape[op.ConcatAxis()]
			ks = append(ks, k)
		}
		return ks, nil
	}
	n := nest{args: args, outs: outs, grid: outs[0].Shape}
	k, err := n.build(func(b *kern.Builder, idx []kern.Index, load loader) error {
		x, err := element(op, args, outs[0], b, idx, load)
		if err != nil {
			return err
		}
		b.Store(len(args), kern.Flat(outs[0].Shape, idx), x)
		return nil
	})
	return []*kern.Kernel{k}, err
}

type loader func(i int, idx []kern.Index) (*kern.Node, error)

// element emits one element of the result of an inline, reducing or
// contracting op.
func element(op ops.Op, args []ir.Type, out ir.Type, b *kern.Builder, idx []kern.Index, load loader) (*kern.Node, error) {
	switch op := op.(type) {
	case ops.Inline:
		return op.Element(&ops.Emitter{B: b, Args: args, Out: out, Arg: load}, idx)
	case ops.Reducer:
		combine, axes := op.Reduction()
		at := append([]kern.Index(nil), idx...)
		var loop func(d int) (*kern.Node, error)
		loop = func(d int) (*kern.Node, error) {
			if d == len(axes) {
				return load(0, at)
			}
			acc, err := b.For(args[0].Shape[axes[d]], []kern.Combine{combine}, func(v *kern.Var) ([]*kern.Node, error) {
				at[axes[d]] = kern.V(v)
				x, err := loop(d + 1)
				return []*kern.Node{x}, err
			})
			if err != nil {
				return nil, err
			}
			return acc[0], nil
		}
		return loop(0)
	case ops.Contracter:
		c := op.Contraction(args, idx, b.NewVar)
		return b.Contract(c.Vars, 0, kern.Flat(args[0].Shape, c.A), c.GA, 1, kern.Flat(args[1].Shape, c.B), c.GB), nil
	}
	return nil, fmt.Errorf("%s has no kernel", op.Name())
}

// nest is a grid over a shape; axes are cut where an index division needs it.
type nest struct {
	args, outs []ir.Type
	grid       []int
}

func (n nest) build(body func(b *kern.Builder, idx []kern.Index, load loader) error) (*kern.Kernel, error) {
	parts := make([][]int, len(n.grid))
	for d, e := range n.grid {
		parts[d] = []int{e}
	}
	for try := 0; ; try++ {
		b := kern.NewBuilder("sample")
		for i, a := range n.args {
			b.Buf(fmt.Sprintf("arg%d", i), a.DType, a.Len(), kern.In)
		}
		for i, o := range n.outs {
			b.Buf(fmt.Sprintf("out%d", i), o.DType, o.Len(), kern.Out)
		}
		owner := map[*kern.Var][2]int{}
		idx := make([]kern.Index, len(n.grid))
		for d, ps := range parts {
			for i, e := range ps {
				v := b.Dim(e)
				owner[v] = [2]int{d, i}
				idx[d] = idx[d].Scale(e).Add(kern.V(v))
			}
		}
		err := body(b, idx, func(i int, at []kern.Index) (*kern.Node, error) {
			return b.Load(i, kern.Flat(n.args[i].Shape, at)), nil
		})
		var split *kern.SplitError
		if !errors.As(err, &split) || try == 16 {
			return b.Done(), err
		}
		o := owner[split.Var]
		p := parts[o[0]]
		cut := append(append([]int(nil), p[:o[1]]...), p[o[1]]/split.Inner, split.Inner)
		parts[o[0]] = append(cut, p[o[1]+1:]...)
	}
}
