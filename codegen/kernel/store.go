package kernel

import (
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops"
)

// analysis knows, for every value of a function, where it is found: in a
// buffer of its own, in the buffer of another value with the same layout, or
// nowhere (recomputed by its consumers).
type analysis struct {
	f      *ir.Func
	stored []bool
	alias  []*ir.Value // dense view of a stored value: same bytes
	uses   []int
	info   []inlineInfo
	pos    map[*ir.Instr]int

	be      Backend
	readers [][]*ir.Instr
	must    []bool             // must be stored whatever it costs
	fresh   map[*ir.Value]bool // what prologue found out
}

// inlineInfo describes the expression that recomputes a value from stored ones.
type inlineInfo struct {
	leaves map[*ir.Value]bool // stored values it reads
	heavy  int                // expensive scalar operations per element
	reduce bool               // reads a reduction's result
}

// maxHeavy is how many expensive operations (exp, log, division; a random
// number counts four) a value used several times may cost and still be
// recomputed: one is about 0.3 ns an element vectorised, about what storing
// and reloading it costs.
const maxHeavy = 4

// manyElements take longer to make than a launch that makes a number for them.
const manyElements = 1 << 16

// Heavy may be implemented by Inline ops whose element costs more than the
// one unit that "not cheap" stands for.
type Heavy interface{ Weight() int }

func analyse(f *ir.Func, be Backend, force map[*ir.Value]bool) *analysis {
	n := f.NumValues()
	a := &analysis{f: f, stored: make([]bool, n), alias: make([]*ir.Value, n), uses: make([]int, n), info: make([]inlineInfo, n), pos: map[*ir.Instr]int{}, be: be,
		readers: make([][]*ir.Instr, n), must: make([]bool, n), fresh: map[*ir.Value]bool{}}
	for i, in := range f.Body {
		a.pos[in] = i
		for _, x := range in.Args {
			a.uses[x.ID]++
			a.readers[x.ID] = append(a.readers[x.ID], in)
		}
	}
	must := a.must
	for _, r := range f.Results {
		must[r.Value.ID] = true
	}
	for _, u := range f.Updates {
		must[u.Value.ID] = true
	}
	for v := range force {
		must[v.ID] = true
	}
	for _, v := range f.Inputs {
		a.stored[v.ID] = true
	}
	for _, v := range f.Reads() {
		a.stored[v.ID] = true
	}
	for _, in := range f.Body {
		switch in.Op.(type) {
		case ops.Strided:
			for _, x := range in.Args {
				must[a.source(x).ID] = true
			}
		case ops.Opaque:
			for _, x := range in.Args {
				must[x.ID] = true
			}
		}
	}
	// Operands of matrix products must be plain loads, those of strided
	// kernels evenly spaced; found out by trial once what they are made of is
	// known, so in program order.
	for _, in := range f.Body {
		switch op := in.Op.(type) {
		case ops.Contracter:
			for i, x := range in.Args {
				if i < 2 && a.find(x) == nil && !a.plainLoad(in, i) && !a.prologue(x) {
					a.store(x)
				}
			}
		case ops.Strided:
			al, ok := in.Op.(ops.Aliaser)
			inPlace := ok && al.Aliases()
			for i, x := range in.Args {
				base, w, ok := a.view(x)
				// What an op in place reads of its own memory must be copied.
				if !ok || !op.Strides(i, w.Strides) || inPlace && i > 0 && base == a.find(in.Args[0]) {
					a.store(x)
				}
			}
		}
		for _, r := range in.Results {
			a.decide(in, r, must[r.ID])
		}
	}
	return a
}

// decide settles whether r, a result of in, is stored.
func (a *analysis) decide(in *ir.Instr, r *ir.Value, must bool) {
	op, inline := in.Op.(ops.Inline)
	if !inline {
		a.stored[r.ID] = true
		if _, ok := in.Op.(ops.Reducer); ok {
			a.info[r.ID].reduce = true
		}
		return
	}
	if len(in.Args) == 1 && a.find(in.Args[0]) == nil && !a.addressable(r) {
		a.store(in.Args[0]) // a reshape that cuts across a transposition
	}
	if src := a.denseAlias(in, r); src != nil {
		a.alias[r.ID] = src
		return
	}
	inf := inlineInfo{leaves: map[*ir.Value]bool{}}
	for _, x := range in.Args {
		if s := a.find(x); s != nil {
			inf.leaves[s] = true
			if s.Def != nil {
				if _, ok := s.Def.Op.(ops.Reducer); ok {
					inf.reduce = true
				}
			}
			continue
		}
		xi := a.info[x.ID]
		if x.Type.Len() < r.Type.Len() && xi.heavy > 0 && !xi.reduce && len(xi.leaves) > 0 && (x.Type.Len() > 1 || a.scalar(xi, r)) {
			a.store(x) // would be recomputed once per repetition
			inf.leaves[x] = true
			continue
		}
		for l := range xi.leaves {
			inf.leaves[l] = true
		}
		inf.heavy += xi.heavy
		inf.reduce = inf.reduce || xi.reduce
	}
	if w, ok := in.Op.(Heavy); ok {
		inf.heavy += w.Weight()
	} else if !op.Cheap() {
		inf.heavy++
	}
	a.info[r.ID] = inf
	full := 0
	for l := range inf.leaves {
		if 2*l.Type.Len() > r.Type.Len() {
			full++
		}
	}
	if must || a.uses[r.ID] > 1 && (full > 1 || inf.heavy > maxHeavy) || a.total(r) && in.Op == (ops.AddOp{}) {
		a.stored[r.ID] = true
	}
}

// scalar reports whether a number had better be stored than computed again by every thread that makes some elements
// of r: AdamW's corrections of its moments, of which each is 20 instructions a thread with 8 elements.
func (a *analysis) scalar(number inlineInfo, r *ir.Value) bool {
	return a.be.Repeats() && number.heavy > 1 && r.Type.Len() >= manyElements
}

// total reports whether v is a product or a sum of products. Such sums are
// stored, each by the product that comes last in it: otherwise all the products
// would be kept for whoever reads the sum.
func (a *analysis) total(v *ir.Value) bool {
	if v.Def == nil {
		return false
	}
	switch v.Def.Op.(type) {
	case ops.Contracter:
		return true
	case ops.AddOp:
		return a.total(v.Def.Args[0]) && a.total(v.Def.Args[1])
	case ops.CastOp, ops.ReshapeOp:
		return a.total(v.Def.Args[0])
	}
	return false
}

func (a *analysis) store(v *ir.Value) {
	if a.alias[v.ID] == nil {
		a.stored[v.ID] = true
	}
}

// find returns the stored value whose buffer holds v densely, or nil.
func (a *analysis) find(v *ir.Value) *ir.Value {
	for a.alias[v.ID] != nil {
		v = a.alias[v.ID]
	}
	if a.stored[v.ID] {
		return v
	}
	return nil
}

// denseAlias reports the stored value that r, the result of a view, lays out
// exactly as it is: a reshape.
func (a *analysis) denseAlias(in *ir.Instr, r *ir.Value) *ir.Value {
	if len(in.Args) != 1 || in.Args[0].Type.Len() != r.Type.Len() || in.Args[0].Type.DType != r.Type.DType {
		return nil
	}
	src := a.find(in.Args[0])
	if src == nil {
		return nil
	}
	if rs, ok := in.Op.(ops.Reshaper); ok && rs.Reshapes() {
		return src
	}
	same := false
	err := overSpace(a, r.Type.Shape, func(e *emission) error {
		n, err := e.inline(r, e.full)
		same = err == nil && n.Prim == kern.Load && len(n.Guards) == 0 && n.At.String() == kern.Flat(r.Type.Shape, e.full).String()
		return err
	})
	if err != nil || !same {
		return nil
	}
	return src
}

// addressable reports whether an element of v can be computed from stored
// values with affine indices.
func (a *analysis) addressable(v *ir.Value) bool {
	return overSpace(a, v.Type.Shape, func(e *emission) error {
		_, err := e.inline(v, e.full)
		return err
	}) == nil
}

// plainLoad reports whether operand i of a contraction is a load of a stored
// value under views.
func (a *analysis) plainLoad(in *ir.Instr, i int) bool {
	x := in.Args[i]
	var n *kern.Node
	err := overSpace(a, x.Type.Shape, func(e *emission) (err error) {
		n, err = e.value(x, e.full)
		return err
	})
	return err == nil && n.Prim == kern.Load && len(n.At.Ind) == 0
}
