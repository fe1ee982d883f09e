package graph

import (
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops"
)

// Sizes that Split works to.
const (
	splitLen   = 4096 // shorter sums are not worth a second kernel
	splitParts = 64   // at most this many partial results
	fewParts   = 8    // fewer are accepted only where nothing else can be
	wideRows   = 64   // so many independent sums keep all threads busy
	wideCols   = 1024
)

// Split cuts a long reduction with few results (the loss, a bias gradient)
// into partial ones and a reduction of those, so that threads can share it.
// The parts depend on sizes alone. A reduction over axes of extent 1 becomes a
// reshape: lowering takes every reduction for a loop.
func Split(f *ir.Func) error {
	rewrite(f, func(in *ir.Instr) []*ir.Value {
		r, ok := in.Op.(ops.Reducer)
		if !ok {
			return nil
		}
		x, want := in.Args[0], in.Results[0].Type
		if x.Type.Len() == want.Len() {
			return []*ir.Value{ops.Reshape(x, want.Shape...)}
		}
		combine, axes := r.Reduction()
		shape := x.Type.Shape
		pre, parts, rest := cut(shape, axes)
		if parts == 0 {
			return nil
		}
		reduce := ops.SumKeep
		if combine == kern.MaxOf {
			reduce = ops.ReduceMaxKeep
		}
		run := rest[0]
		split := append(append(append([]int(nil), shape[:pre]...), parts, run/parts), shape[pre+rest[1]:]...)
		var first []int
		for d := pre + 1; d < len(split); d++ {
			if d == pre+1 || contains(axes, d-2+rest[1]) {
				first = append(first, d)
			}
		}
		y := reduce(reduce(ops.Reshape(x, split...), first...), pre)
		return []*ir.Value{ops.Reshape(y, want.Shape...)}
	})
	return f.Err()
}

// cut decides how a reduction of shape over axes is split: the run of reduced
// axes starting at pre, of rest[0] elements over rest[1] axes, into parts.
// parts is 0 when it stays whole.
func cut(shape, axes []int) (pre, parts int, rest [2]int) {
	if len(axes) == 0 {
		return 0, 0, rest
	}
	kept, sum := 1, 1
	for d, n := range shape {
		if contains(axes, d) {
			sum *= n
		} else {
			kept *= n
		}
	}
	last := len(shape) - 1
	for last > 0 && shape[last] == 1 {
		last--
	}
	wide := wideCols
	if contains(axes, last) {
		wide = wideRows
	}
	if sum < splitLen || kept >= wide {
		return 0, 0, rest
	}
	pre = axes[0]
	run, n := 1, 0
	for d := pre; d < len(shape) && contains(axes, d); d++ {
		run *= shape[d]
		n++
	}
	fits := func(p int) bool { return run%p == 0 && sum/p >= 64 }
	for p := splitParts; p >= fewParts; p-- {
		if fits(p) && whole(shape[pre:pre+n], p) {
			return pre, p, [2]int{run, n}
		}
	}
	for p := splitParts; p > 1; p-- {
		if fits(p) {
			return pre, p, [2]int{run, n}
		}
	}
	return 0, 0, rest
}

// whole reports whether p equal parts of a tensor of this shape are made of
// whole rows, or rows of whole parts: then what is computed of the tensor on the
// way into the sum has places in the parts, and need not be stored.
func whole(shape []int, p int) bool {
	for _, n := range shape {
		if p%n != 0 {
			return n%p == 0
		}
		p /= n
	}
	return p == 1
}

func contains(xs []int, x int) bool {
	for _, y := range xs {
		if y == x {
			return true
		}
	}
	return false
}
