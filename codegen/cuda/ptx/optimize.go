package ptx

// optimize merges equal computations, moves what a loop does not change before
// it, and drops what nothing uses. ptxas schedules and allocates registers, but
// leaves much of this to its callers. Only pure instructions move.
func optimize(f *fn) {
	d := dominate(f)
	merge(f, d)
	hoist(f, d)
	sweep(f)
}

// dominance is the tree of dominators, with the numbers of a walk through it:
// a block's descendants are numbered from its own number to its last.
type dominance struct {
	idom        []int
	first, last []int
}

func (d *dominance) of(a, b int) bool { return d.first[a] <= d.first[b] && d.first[b] <= d.last[a] }

// dominate finds dominators as Cooper, Harvey and Kennedy do. In reverse
// postorder, two passes suffice for loops that are entered at one place.
func dominate(f *fn) *dominance {
	n := len(f.blocks)
	d := &dominance{idom: make([]int, n), first: make([]int, n), last: make([]int, n)}
	for i := range d.idom {
		d.idom[i] = -1
	}
	d.idom[0] = 0
	for changed := true; changed; {
		changed = false
		for i := 1; i < n; i++ {
			x := -1
			for _, p := range f.blocks[i].preds {
				y := p.n
				if d.idom[y] < 0 {
					continue
				}
				if x < 0 {
					x = y
					continue
				}
				for x != y {
					for x > y {
						x = d.idom[x]
					}
					for y > x {
						y = d.idom[y]
					}
				}
			}
			if d.idom[i] != x {
				d.idom[i], changed = x, true
			}
		}
	}
	// Children have larger numbers, so sizes add up backwards.
	size := make([]int, n)
	for i := n - 1; i >= 0; i-- {
		size[i]++
		if i > 0 {
			size[d.idom[i]] += size[i]
		}
	}
	free := make([]int, n) // the next number among a block's descendants
	for i := range n {
		if i > 0 {
			p := d.idom[i]
			d.first[i] = free[p]
			free[p] += size[i]
		}
		free[i] = d.first[i] + 1
		d.last[i] = d.first[i] + size[i] - 1
	}
	return d
}

// merge replaces instructions by equal ones that dominate them.
func merge(f *fn, d *dominance) {
	type def struct {
		block int
		in    *inst
	}
	avail := map[string][]def{}
	same := make([]reg, len(f.class)) // what a register was replaced by
	fix := func(o *operand) {
		if r := same[o.r]; r != 0 {
			o.r = r
		}
	}
	var key []byte
	number := map[*template]int32{}
	word := func(n int32) { key = append(key, byte(n), byte(n>>8), byte(n>>16), byte(n>>24)) }
	for _, b := range f.blocks {
		keep := b.insts[:0]
	next:
		for _, in := range b.insts {
			for i := range in.src {
				fix(&in.src[i])
			}
			if in.pure {
				t, ok := number[in.t]
				if !ok {
					t = int32(len(number))
					number[in.t] = t
				}
				key = key[:0]
				word(t)
				if in.t.commutes && before(in.src[1], in.src[0]) {
					in.src[0], in.src[1] = in.src[1], in.src[0]
				}
				for _, o := range in.src {
					word(int32(o.r))
					if o.r == 0 {
						key = append(append(key, o.s...), 0)
					}
				}
				for _, x := range avail[string(key)] {
					if d.of(x.block, b.n) {
						for i, r := range in.dst {
							same[r] = x.in.dst[i]
						}
						continue next
					}
				}
				avail[string(key)] = append(avail[string(key)], def{b.n, in})
			}
			keep = append(keep, in)
		}
		b.insts = keep
		if r := same[b.cond]; r != 0 {
			b.cond = r
		}
	}
	for _, b := range f.blocks {
		for _, p := range b.phis {
			for i := range p.src {
				fix(&p.src[i])
			}
		}
	}
}

// before orders operands: registers by number, then text.
func before(a, b operand) bool {
	if a.isReg() && b.isReg() {
		return a.r < b.r
	}
	return a.isReg() || !b.isReg() && a.s < b.s
}

// loop is the blocks from which its head is reached again.
type loop struct {
	head  *block
	outer *loop
	depth int    // 1 is outermost
	pre   *block // where what the loop does not change can go, or nil
}

// loops gives each block its innermost loop.
func loops(f *fn, d *dominance) []*loop {
	of := make([]*loop, len(f.blocks))
	var all []*loop
	// Heads of inner loops come later, so inner loops are found first.
	for h := len(f.blocks) - 1; h >= 0; h-- {
		l := &loop{head: f.blocks[h]}
		var todo, entries []*block
		for _, p := range l.head.preds {
			if d.of(h, p.n) {
				todo = append(todo, p)
			} else {
				entries = append(entries, p)
			}
		}
		if len(todo) == 0 {
			continue
		}
		if len(entries) == 1 && len(entries[0].succs) == 1 {
			l.pre = entries[0]
		}
		all = append(all, l)
		of[h] = l
		for len(todo) > 0 {
			b := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			x := of[b.n]
			if x == nil {
				of[b.n] = l
				todo = append(todo, b.preds...)
				continue
			}
			for x != l && x.outer != nil {
				x = x.outer
			}
			if x != l { // a loop inside: what enters it belongs here too
				x.outer = l
				todo = append(todo, x.head.preds...)
			}
		}
	}
	for i := len(all) - 1; i >= 0; i-- {
		l := all[i]
		if l.depth = 1; l.outer != nil {
			l.depth += l.outer.depth
		}
	}
	return of
}

// hoist moves instructions before the loops that do not change them.
func hoist(f *fn, d *dominance) {
	of := loops(f, d)
	home := make([]int, len(f.class)) // the blocks of registers
	for _, b := range f.blocks {
		for _, p := range b.phis {
			home[p.dst] = b.n
		}
	}
	late := make([][]*inst, len(f.blocks))
	for _, b := range f.blocks {
		keep := b.insts[:0]
		for _, in := range b.insts {
			to := b
			if in.pure {
				// The loops that hold an operand must hold the result.
				deepest := 0
				for _, o := range in.src {
					if o.r == 0 {
						continue
					}
					deepest = max(deepest, shared(of[home[o.r]], of[b.n]))
				}
				for l := of[b.n]; l != nil && l.depth > deepest && l.pre != nil; l = l.outer {
					to = l.pre
				}
			}
			for _, r := range in.dst {
				home[r] = to.n
			}
			if to == b {
				keep = append(keep, in)
			} else {
				late[to.n] = append(late[to.n], in)
			}
		}
		b.insts = keep
	}
	for i, b := range f.blocks {
		b.insts = append(b.insts, late[i]...)
	}
}

// shared is the depth of the innermost loop around both.
func shared(a, b *loop) int {
	for a != b {
		if a == nil || b == nil {
			return 0
		}
		if a.depth >= b.depth {
			a = a.outer
		} else {
			b = b.outer
		}
	}
	if a == nil {
		return 0
	}
	return a.depth
}

// sweep drops pure instructions, copies and phis that nothing uses.
func sweep(f *fn) {
	def := make([]*inst, len(f.class))
	join := make([]*phi, len(f.class))
	live := make([]bool, len(f.class))
	var todo []reg
	use := func(r reg) {
		if r != 0 && !live[r] {
			live[r] = true
			todo = append(todo, r)
		}
	}
	for _, b := range f.blocks {
		for _, p := range b.phis {
			join[p.dst] = p
		}
		for _, in := range b.insts {
			for _, r := range in.dst {
				def[r] = in
			}
			if !in.pure && !in.copy {
				for _, o := range in.src {
					use(o.r)
				}
			}
		}
		use(b.cond)
	}
	for len(todo) > 0 {
		r := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if p := join[r]; p != nil {
			for _, o := range p.src {
				use(o.r)
			}
		} else if in := def[r]; in != nil && (in.pure || in.copy) {
			for _, o := range in.src {
				use(o.r)
			}
		}
	}
	used := func(in *inst) bool {
		if !in.pure && !in.copy {
			return true
		}
		for _, r := range in.dst {
			if live[r] {
				return true
			}
		}
		return false
	}
	for _, b := range f.blocks {
		insts := b.insts[:0]
		for _, in := range b.insts {
			if used(in) {
				insts = append(insts, in)
			}
		}
		b.insts = insts
		phis := b.phis[:0]
		for _, p := range b.phis {
			if live[p.dst] {
				phis = append(phis, p)
			}
		}
		b.phis = phis
	}
}
