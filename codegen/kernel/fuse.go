package kernel

import (
	"errors"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// Limits of a merged unit: more outputs or buffers than this spill registers
// in the inner loop.
const (
	maxOuts = 10
	maxBufs = 20
	// minRows is the least number of grid points of a row kernel that takes
	// in work of full shape: fewer would leave threads idle.
	minRows = 16
)

var errCycle = errors.New("internal: fuse: units depend on each other in a circle")

// fusion merges units over a function.
type fusion struct {
	a      *analysis
	units  []*unit // nil where merged away
	of     map[*ir.Value]*unit
	leaves map[*unit]map[*ir.Value]bool // stored values read that other units (or nobody) compute
	users  map[*ir.Value]map[*unit]bool
	needed map[*ir.Value]bool // results and updates
}

// fuse returns the units of f in an order that respects their dependences.
func fuse(a *analysis) ([]*unit, error) {
	fu := &fusion{a: a, of: map[*ir.Value]*unit{}, leaves: map[*unit]map[*ir.Value]bool{}, users: map[*ir.Value]map[*unit]bool{}, needed: map[*ir.Value]bool{}}
	for _, r := range a.f.Results {
		fu.needed[a.find(r.Value)] = true
	}
	for _, u := range a.f.Updates {
		fu.needed[a.find(u.Value)] = true
	}
	for _, in := range a.f.Body {
		switch op := in.Op.(type) {
		case ops.Opaque, ops.Concatenator:
			u := &unit{root: in, has: map[*ir.Value]bool{}}
			for _, r := range in.Results {
				u.outs = append(u.outs, r)
			}
			fu.add(u)
		case ops.Contracter:
			fu.add(&unit{root: in, outs: in.Results, sp: newSpace(in.Results[0].Type.Shape, nil)})
		case ops.Reducer:
			_, axes := op.Reduction()
			fu.add(&unit{outs: in.Results, sp: newSpace(in.Args[0].Type.Shape, axes)})
		default:
			if r := in.Results[0]; a.stored[r.ID] {
				fu.add(&unit{outs: in.Results, sp: newSpace(r.Type.Shape, nil)})
			}
		}
	}
	fu.epilogues()
	fu.rows()
	fu.maps()
	fu.siblings()
	return fu.finish()
}

func (fu *fusion) add(u *unit) {
	u.has = map[*ir.Value]bool{}
	for _, v := range u.outs {
		u.has[v] = true
		fu.of[v] = u
	}
	fu.units = append(fu.units, u)
	fu.index(u)
}

// index records what u reads.
func (fu *fusion) index(u *unit) {
	ls := fu.a.reads(u)
	fu.leaves[u] = ls
	for l := range ls {
		if fu.users[l] == nil {
			fu.users[l] = map[*unit]bool{}
		}
		fu.users[l][u] = true
	}
}

// reads is the set of stored values that u reads and doesn't compute.
func (a *analysis) reads(u *unit) map[*ir.Value]bool {
	ls := map[*ir.Value]bool{}
	seen := map[*ir.Value]bool{}
	var walk func(v *ir.Value)
	walk = func(v *ir.Value) {
		if seen[v] {
			return
		}
		seen[v] = true
		if s := a.find(v); s != nil && !u.has[s] {
			ls[s] = true
			return
		}
		if v.Def != nil {
			for _, x := range v.Def.Args {
				walk(x)
			}
		}
	}
	for _, v := range u.outs {
		walk(v)
	}
	return ls
}

// fusable reports whether u is written in the kernel language point by point.
func fusable(u *unit) bool { return u.sp != nil }

func (u *unit) isContract() bool { return u.root != nil && u.sp != nil }
func (u *unit) isMap() bool      { return u.root == nil && !u.sp.reduces() }
func (u *unit) isRow() bool      { return u.root == nil && u.sp.reduces() }

// innermost reports that the last axis (of extent over 1) is summed over.
func (u *unit) innermost() bool {
	for d := len(u.sp.shape) - 1; d >= 0; d-- {
		if u.sp.shape[d] > 1 {
			return u.sp.reduced[d]
		}
	}
	return false
}

// consumers is the set of units reading something u computes.
func (fu *fusion) consumers(u *unit) map[*unit]bool {
	set := map[*unit]bool{}
	for _, v := range u.outs {
		for c := range fu.users[v] {
			set[c] = true
		}
	}
	return set
}

// ordered lists a set of units in program order.
func (fu *fusion) ordered(set map[*unit]bool) []*unit {
	var out []*unit
	for c := range set {
		i := len(out)
		out = append(out, c)
		for i > 0 && fu.first(out[i]) < fu.first(out[i-1]) {
			out[i], out[i-1] = out[i-1], out[i]
			i--
		}
	}
	return out
}

func (fu *fusion) first(u *unit) int { return fu.a.pos[u.outs[0].Def] }

// cyclic reports whether p reaches q through a third unit, so that merging
// them would make the merged unit depend on itself.
func (fu *fusion) cyclic(p, q *unit) bool {
	seen := map[*unit]bool{}
	var reach func(u *unit) bool
	reach = func(u *unit) bool {
		if u == q {
			return true
		}
		if seen[u] {
			return false
		}
		seen[u] = true
		for _, v := range u.outs {
			for c := range fu.users[v] {
				if reach(c) {
					return true
				}
			}
		}
		return false
	}
	for _, v := range p.outs {
		for c := range fu.users[v] {
			if c != q && reach(c) {
				return true
			}
		}
	}
	return false
}

// merge tries to make p and q one unit over p's or q's space; root units keep
// theirs. It reports whether it did.
func (fu *fusion) merge(p, q *unit, shape *unit) bool {
	if p == q || len(p.outs)+len(q.outs) > maxOuts+2 || fu.cyclic(p, q) || fu.cyclic(q, p) {
		return false
	}
	var axes []int
	for d, r := range shape.sp.reduced {
		if r {
			axes = append(axes, d)
		}
	}
	m := &unit{root: shape.root, sp: newSpace(shape.sp.shape, axes), has: map[*ir.Value]bool{}}
	i, j := 0, 0
	for i < len(p.outs) || j < len(q.outs) {
		if j == len(q.outs) || i < len(p.outs) && fu.a.pos[p.outs[i].Def] <= fu.a.pos[q.outs[j].Def] {
			m.outs = append(m.outs, p.outs[i])
			i++
		} else {
			m.outs = append(m.outs, q.outs[j])
			j++
		}
	}
	for _, v := range m.outs {
		m.has[v] = true
	}
	m.keep = fu.kept(m, map[*unit]bool{p: true, q: true})
	if len(m.keep) > maxOuts {
		return false
	}
	k, _, err := m.lower(fu.a)
	if err != nil || len(k.Bufs) > maxBufs {
		return false
	}
	for _, u := range []*unit{p, q} {
		for l := range fu.leaves[u] {
			delete(fu.users[l], u)
		}
		delete(fu.leaves, u)
		for x := range fu.units {
			if fu.units[x] == u {
				fu.units[x] = nil
			}
		}
	}
	for _, v := range m.outs {
		fu.of[v] = m
	}
	fu.units = append(fu.units, m)
	fu.index(m)
	return true
}

// kept lists the outputs of m that units outside (or the caller) read.
func (fu *fusion) kept(m *unit, inside map[*unit]bool) map[*ir.Value]bool {
	keep := map[*ir.Value]bool{}
	for _, v := range m.outs {
		if fu.needed[v] {
			keep[v] = true
		}
		for c := range fu.users[v] {
			if !inside[c] {
				keep[v] = true
			}
		}
	}
	return keep
}

// grow merges into every unit that start accepts, in program order, the units
// near it that fit, the earliest first, until none does.
func (fu *fusion) grow(start func(u *unit) bool, near func(u *unit) map[*unit]bool, fits func(u, c *unit) bool) {
	for _, u := range append([]*unit(nil), fu.units...) {
		if u == nil || !fusable(u) || !start(u) || fu.of[u.outs[0]] != u {
			continue
		}
		for again := true; again; {
			again = false
			for _, c := range fu.ordered(near(u)) {
				if fusable(c) && fits(u, c) && fu.merge(u, c, u) {
					u = fu.units[len(fu.units)-1]
					again = true
					break
				}
			}
		}
	}
}

// epilogues merges pointwise units into the contraction they follow. Of a sum
// of products that is the last, so that none waits for another.
func (fu *fusion) epilogues() {
	follows := func(u, c *unit) bool { return c.isMap() && c.sp.fullLen() == u.sp.fullLen() }
	fu.grow((*unit).isContract, fu.consumers, func(u, c *unit) bool { return follows(u, c) && !fu.waits(u, c) })
	fu.grow((*unit).isContract, fu.consumers, follows)
}

// waits reports whether c is a sum of products, one of which comes after u.
func (fu *fusion) waits(u, c *unit) bool {
	if !fu.a.total(c.outs[0]) {
		return false
	}
	for l := range fu.leaves[c] {
		if p := fu.of[l]; p != nil && p.isContract() && fu.first(p) > fu.first(u) {
			return true
		}
	}
	return false
}

// rows merges reductions over the same rows with each other and with
// pointwise units over the same rows or elements.
func (fu *fusion) rows() {
	fu.grow((*unit).isRow, func(u *unit) map[*unit]bool {
		near := fu.consumers(u)
		for l := range fu.leaves[u] {
			if p := fu.of[l]; p != nil && l.Type.Len() == u.sp.fullLen() {
				near[p] = true
			}
		}
		return near
	}, fu.sameRows)
}

func (fu *fusion) sameRows(u, c *unit) bool {
	if c.isRow() {
		if !ir.SameShape(u.sp.shape, c.sp.shape) {
			return false
		}
		for d := range u.sp.reduced {
			if u.sp.reduced[d] != c.sp.reduced[d] {
				return false
			}
		}
		return true
	}
	if !c.isMap() {
		return false
	}
	n := c.sp.fullLen()
	if n == u.sp.outerLen() {
		return true
	}
	return n == u.sp.fullLen() && u.innermost() && u.sp.outerLen() >= minRows
}

// maps merges pointwise units into their pointwise consumers.
func (fu *fusion) maps() {
	fu.grow((*unit).isMap, fu.consumers, func(u, c *unit) bool { return c.isMap() && c.sp.fullLen() == u.sp.fullLen() })
}

// siblings merges units of the same space that read a common large value.
func (fu *fusion) siblings() {
	fu.grow(func(u *unit) bool { return u.root == nil }, func(u *unit) map[*unit]bool {
		near := map[*unit]bool{}
		for l := range fu.leaves[u] {
			if 2*l.Type.Len() > u.sp.fullLen() && u.sp.fullLen() > 64 {
				for c := range fu.users[l] {
					near[c] = true
				}
			}
		}
		delete(near, u)
		return near
	}, func(u, c *unit) bool {
		return c.root == nil && c.sp.fullLen() == u.sp.fullLen() && c.isMap() == u.isMap() && (u.isMap() || fu.sameRows(u, c))
	})
}

// finish orders the units: each after what it reads, otherwise by the place
// of its last instruction.
func (fu *fusion) finish() ([]*unit, error) {
	var left []*unit
	for _, u := range fu.units {
		if u != nil {
			u.keep = fu.kept(u, map[*unit]bool{u: true})
			if u.root == nil || u.sp != nil {
				if len(u.keep) == 0 {
					continue
				}
			}
			left = append(left, u)
		}
	}
	key := func(u *unit) int { return fu.a.pos[u.outs[len(u.outs)-1].Def] }
	wait := map[*unit]int{}
	for _, u := range left {
		for l := range fu.leaves[u] {
			if fu.of[l] != nil {
				wait[u]++
			}
		}
	}
	var ready, out []*unit
	push := func(u *unit) {
		i := len(ready)
		ready = append(ready, u)
		for i > 0 && key(ready[i]) < key(ready[i-1]) {
			ready[i], ready[i-1] = ready[i-1], ready[i]
			i--
		}
	}
	for _, u := range left {
		if wait[u] == 0 {
			push(u)
		}
	}
	for len(ready) > 0 {
		u := ready[0]
		ready = ready[1:]
		out = append(out, u)
		for _, v := range u.outs {
			for c := range fu.users[v] {
				if wait[c]--; wait[c] == 0 {
					push(c)
				}
			}
		}
	}
	if len(out) != len(left) {
		return nil, errCycle
	}
	return out, nil
}
