package graph

import (
	"slices"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// Join replaces a sum of padded parts that lie side by side, which is what the
// gradient of a tensor taken apart by slices looks like, by their
// concatenation. It does so where ops can write the parts to their places in
// it (ops.Strided), and with more than two parts; others are best added up by
// whoever reads the sum.
func Join(f *ir.Func) error {
	uses := make([]int, f.NumValues())
	for _, in := range f.Body {
		for _, a := range in.Args {
			uses[a.ID]++
		}
	}
	for _, r := range f.Results {
		uses[r.Value.ID]++
	}
	for _, u := range f.Updates {
		uses[u.Value.ID]++
	}
	// A sum stands after the sums it adds, so backwards the largest come first.
	for _, in := range slices.Backward(f.Body) {
		if _, ok := in.Op.(ops.AddOp); !ok {
			continue
		}
		var parts []*ir.Instr
		if !collect(in, uses, &parts) || len(parts) <= 2 && slices.ContainsFunc(parts, copied) {
			continue
		}
		if axis := sideBySide(parts); axis >= 0 {
			in.Op = ops.ConcatOp{Axis: axis}
			in.Args = nil
			for _, p := range parts {
				in.Args = append(in.Args, p.Args[0])
			}
		}
	}
	return nil
}

// collect finds the paddings that a sum adds up; it fails where the sum adds
// anything else.
func collect(in *ir.Instr, uses []int, parts *[]*ir.Instr) bool {
	for _, x := range in.Args {
		d := x.Def
		if d == nil || uses[x.ID] != 1 {
			return false
		}
		switch d.Op.(type) {
		case ops.AddOp:
			if !collect(d, uses, parts) {
				return false
			}
		case ops.PadOp:
			if made := padded(d); made == nil {
				return false
			} else if _, product := made.Op.(ops.Contracter); copied(d) && !product {
				return false
			}
			*parts = append(*parts, d)
		default:
			return false
		}
	}
	return true
}

// copied reports whether the op that makes what p pads can't write it to its
// place in a concatenation.
func copied(p *ir.Instr) bool {
	in := padded(p)
	if in == nil {
		return true
	}
	_, ok := in.Op.(ops.Strided)
	return !ok
}

// padded is the instruction that makes what p pads, under reshapes; nil where
// that is the caller's.
func padded(p *ir.Instr) *ir.Instr {
	in := p.Args[0].Def
	for in != nil {
		r, ok := in.Op.(ops.Reshaper)
		if !ok || !r.Reshapes() {
			break
		}
		in = in.Args[0].Def
	}
	return in
}

// sideBySide sorts parts and returns the axis along which they follow one
// another without a gap or an overlap, or -1.
func sideBySide(parts []*ir.Instr) int {
	axis := -1
	for _, p := range parts {
		op := p.Op.(ops.PadOp)
		for d := range op.Low {
			if op.Low[d]+op.High[d] == 0 {
				continue
			}
			if axis >= 0 && axis != d {
				return -1
			}
			axis = d
		}
	}
	if axis < 0 {
		return -1
	}
	low := func(p *ir.Instr) int { return p.Op.(ops.PadOp).Low[axis] }
	slices.SortStableFunc(parts, func(p, q *ir.Instr) int { return low(p) - low(q) })
	at := 0
	for _, p := range parts {
		if low(p) != at {
			return -1
		}
		at += p.Args[0].Type.Shape[axis]
	}
	if at != parts[0].Results[0].Type.Shape[axis] {
		return -1
	}
	return axis
}
