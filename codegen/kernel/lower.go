package kernel

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops"
)

// unit is a set of stored values computed by one kernel.
type unit struct {
	outs []*ir.Value // in program order
	root *ir.Instr   // the contraction, opaque op or concat, if any
	sp   *space
	has  map[*ir.Value]bool
	keep map[*ir.Value]bool // outs somebody else reads; nil: all
}

func (u *unit) computes(v *ir.Value) bool { return u != nil && u.has[v] }

func (u *unit) stores(v *ir.Value) bool { return u.keep == nil || u.keep[v] }

func asReducer(v *ir.Value) (ops.Reducer, bool) {
	if v.Def == nil {
		return nil, false
	}
	r, ok := v.Def.Op.(ops.Reducer)
	return r, ok
}

// lower writes the unit as a kernel and returns the values in its buffers.
func (u *unit) lower(a *analysis) (*kern.Kernel, []*ir.Value, error) {
	for try := 0; ; try++ {
		e := newEmission(a, u, u.sp)
		var err error
		switch {
		case u.root != nil:
			err = e.contraction()
		case u.sp.reduces():
			err = e.reductions()
		default:
			for _, v := range u.outs {
				if u.stores(v) && err == nil {
					err = e.output(v)
				}
			}
		}
		if err == nil {
			k := e.b.Done()
			collapse(k)
			return k, e.bufs, nil
		}
		if try == maxSplits || !u.sp.split(err) {
			return nil, nil, err
		}
	}
}

// contraction emits the sum of products of the unit's root, then the other
// outputs as its epilogue.
func (e *emission) contraction() error {
	in := e.u.root
	op := in.Op.(ops.Contracter)
	types := make([]ir.Type, len(in.Args))
	for i, a := range in.Args {
		types[i] = a.Type
	}
	var vars []*kern.Var
	sub := map[*kern.Var]kern.Index{}
	made := 0
	c := op.Contraction(types, e.full, func(extent int) *kern.Var {
		whole := &kern.Var{ID: -1 - made, Extent: extent}
		if made == len(e.sp.kparts) {
			e.sp.kparts = append(e.sp.kparts, []int{extent})
		}
		var vs []*kern.Var
		for i, n := range e.sp.kparts[made] {
			v := e.b.NewVar(n)
			e.sp.owner[v] = [3]int{1, made, i}
			vs = append(vs, v)
		}
		made++
		vars = append(vars, vs...)
		sub[whole] = join(vs)
		return whole
	})
	operand := func(v *ir.Value, idx []kern.Index, gs []kern.Guard) (*kern.Node, []kern.Guard, error) {
		at := make([]kern.Index, len(idx))
		for i := range idx {
			at[i] = substitute(idx[i], sub)
		}
		gg := make([]kern.Guard, len(gs))
		for i, g := range gs {
			gg[i] = kern.Guard{At: substitute(g.At, sub), Lo: g.Lo, Hi: g.Hi}
		}
		emit := func(inside []kern.Guard) (*kern.Node, error) {
			return e.b.Detached(vars, func() (*kern.Node, error) {
				return e.b.Within(inside, func() (*kern.Node, error) { return e.value(v, at) })
			})
		}
		n, err := emit(gg)
		if err == nil && n.Prim == kern.Load {
			return n, n.Guards, nil
		}
		// A prologue is 0 where a guard fails, not what it makes of zeros.
		if err == nil {
			n, err = emit(nil)
		}
		if err == nil && !kern.IsOperand(n) {
			err = fmt.Errorf("internal: %s: %s: %s is not made of plain loads", in.Pos, in.Op.Name(), v)
		}
		return n, gg, err
	}
	x, gx, err := operand(in.Args[0], c.A, c.GA)
	if err != nil {
		return err
	}
	y, gy, err := operand(in.Args[1], c.B, c.GB)
	if err != nil {
		return err
	}
	product := e.b.ContractOf(vars, x, gx, y, gy)
	product.I = int64(c.Multiply)
	// Whoever reads what is stored in 16 bits reads the same number, here as elsewhere.
	if r := in.Results[0]; e.u.stores(r) {
		if _, narrow := r.Type.DType.Format(); narrow {
			product = e.b.Round(r.Type.DType, product, nil)
		}
	}
	e.done[in.Results[0]] = product
	for _, v := range e.u.outs {
		if e.u.stores(v) {
			if err := e.output(v); err != nil {
				return err
			}
		}
	}
	return nil
}

func substitute(ix kern.Index, sub map[*kern.Var]kern.Index) kern.Index {
	out := kern.Index{Const: ix.Const, Ind: ix.Ind}
	for _, t := range ix.Terms {
		if s, ok := sub[t.Var]; ok {
			out = out.Add(s.Scale(t.Coef))
		} else {
			out = out.Add(kern.Index{Terms: []kern.Term{t}})
		}
	}
	return out
}

// reductions emits, for every level of reductions that need earlier ones, one
// loop nest over the reduced axes that computes them all; outputs of full
// shape are stored in the first nest where everything they need is known.
func (e *emission) reductions() error {
	levels := map[*ir.Value]int{}
	last := 0
	for _, v := range e.u.outs {
		if l := e.level(v, levels); l > last {
			last = l
		}
	}
	stored := map[*ir.Value]bool{}
	for l := 1; l <= last+1; l++ {
		var reds []*ir.Value
		for _, v := range e.u.outs {
			if _, ok := asReducer(v); ok && levels[v] == l {
				reds = append(reds, v)
			}
		}
		var full []*ir.Value
		for _, v := range e.u.outs {
			if _, ok := asReducer(v); !ok && e.u.stores(v) && !stored[v] && v.Type.Len() == e.sp.fullLen() && e.sp.fullLen() != e.sp.outerLen() && levels[v] < l {
				full = append(full, v)
				stored[v] = true
			}
		}
		if len(reds)+len(full) > 0 {
			if err := e.nest(reds, full); err != nil {
				return err
			}
		}
		for _, v := range e.u.outs {
			if e.u.stores(v) && !stored[v] && v.Type.Len() == e.sp.outerLen() && levels[v] <= l {
				if _, ok := asReducer(v); ok && e.done[v] == nil {
					continue
				}
				stored[v] = true
				if err := e.output(v); err != nil {
					return err
				}
			}
		}
	}
	for _, v := range e.u.outs {
		if e.u.stores(v) && !stored[v] {
			return errShape
		}
	}
	return nil
}

// level is the number of the loop nest after which v can be computed: that of
// a reduction is one more than the largest of those it reads.
func (e *emission) level(v *ir.Value, memo map[*ir.Value]int) int {
	if l, ok := memo[v]; ok {
		return l
	}
	l := 0
	if s := e.a.find(v); s != nil && !e.u.computes(s) {
		memo[v] = 0
		return 0
	}
	if v.Def != nil {
		for _, x := range v.Def.Args {
			if m := e.level(x, memo); m > l {
				l = m
			}
		}
		if _, ok := asReducer(v); ok && e.u.computes(v) {
			l++
		}
	}
	memo[v] = l
	return l
}

func (e *emission) nest(reds, full []*ir.Value) error {
	var axes []int
	for d := range e.sp.shape {
		if e.sp.reduced[d] {
			axes = append(axes, d)
		}
	}
	combine := make([]kern.Combine, len(reds))
	for i, v := range reds {
		r, _ := asReducer(v)
		combine[i], _ = r.Reduction()
	}
	saved := append([]kern.Index(nil), e.full...)
	vars := make([][]*kern.Var, len(e.sp.shape))
	var loop func(ai, pi int) ([]*kern.Node, error)
	loop = func(ai, pi int) ([]*kern.Node, error) {
		if ai == len(axes) {
			var vals []*kern.Node
			for _, v := range reds {
				n, err := e.value(v.Def.Args[0], e.full)
				if err != nil {
					return nil, err
				}
				vals = append(vals, n)
			}
			for _, v := range full {
				if err := e.output(v); err != nil {
					return nil, err
				}
			}
			return vals, nil
		}
		d := axes[ai]
		return e.b.For(e.sp.parts[d][pi], combine, func(v *kern.Var) ([]*kern.Node, error) {
			e.sp.owner[v] = [3]int{0, d, pi}
			vars[d] = append(vars[d], v)
			if pi+1 < len(e.sp.parts[d]) {
				return loop(ai, pi+1)
			}
			e.full[d] = join(vars[d])
			return loop(ai+1, 0)
		})
	}
	accs, err := loop(0, 0)
	e.full = saved
	if err != nil {
		return err
	}
	for i, v := range reds {
		e.done[v] = accs[i]
	}
	return nil
}
