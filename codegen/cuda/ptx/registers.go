package ptx

import (
	"fmt"
	"slices"
	"sort"
)

// span is a stretch of a kernel in which a value is needed, in positions: a
// block starts at one, and each instruction reads at one and writes at the next.
type span struct{ from, to int }

// liveness finds where each register is needed, in order.
func liveness(f *fn) [][]span {
	start, end := make([]int, len(f.blocks)), make([]int, len(f.blocks)) // of blocks
	type use struct{ block, pos int }
	uses := make([][]use, len(f.class))
	home, born := make([]int, len(f.class)), make([]int, len(f.class))
	pos := 0
	for _, b := range f.blocks {
		start[b.n] = pos
		for _, p := range b.phis {
			home[p.dst], born[p.dst] = b.n, pos
		}
		pos += 2
		for _, in := range b.insts {
			for _, o := range in.src {
				if o.r != 0 {
					uses[o.r] = append(uses[o.r], use{b.n, pos})
				}
			}
			for _, r := range in.dst {
				home[r], born[r] = b.n, pos+1
			}
			pos += 2
		}
		if b.cond != 0 {
			uses[b.cond] = append(uses[b.cond], use{b.n, pos})
		}
		pos += 2
		end[b.n] = pos
	}
	// A phi reads on the way into its block.
	for _, b := range f.blocks {
		for _, p := range b.phis {
			for i, o := range p.src {
				if o.r != 0 {
					from := b.preds[i].n
					uses[o.r] = append(uses[o.r], use{from, end[from]})
				}
			}
		}
	}
	spans := make([][]span, len(f.class))
	seen, last := make([]int, len(f.blocks)), make([]int, len(f.blocks))
	var in []int
	var todo []use
	for r := 1; r < len(f.class); r++ {
		if len(uses[r]) == 0 {
			spans[r] = []span{{born[r], born[r] + 1}}
			continue
		}
		in, todo = in[:0], append(todo[:0], uses[r]...)
		for len(todo) > 0 {
			u := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			if seen[u.block] == r {
				last[u.block] = max(last[u.block], u.pos)
				continue
			}
			seen[u.block], last[u.block] = r, u.pos
			in = append(in, u.block)
			if u.block != home[r] {
				for _, p := range f.blocks[u.block].preds {
					todo = append(todo, use{p.n, end[p.n]})
				}
			}
		}
		slices.Sort(in)
		for _, b := range in {
			s := span{start[b], last[b]}
			if b == home[r] {
				s.from = born[r]
			}
			if n := len(spans[r]); n > 0 && spans[r][n-1].to == s.from {
				spans[r][n-1].to = s.to
			} else {
				spans[r] = append(spans[r], s)
			}
		}
	}
	return spans
}

// allocation says which virtual registers are one.
type allocation struct {
	parent []reg
	spans  [][]span // of roots
}

func (a *allocation) root(r reg) reg {
	for a.parent[r] != r {
		a.parent[r] = a.parent[a.parent[r]]
		r = a.parent[r]
	}
	return r
}

// join makes x and y one register, unless both are needed at a time.
func (a *allocation) join(x, y reg) bool {
	x, y = a.root(x), a.root(y)
	if x == y {
		return true
	}
	p, q := a.spans[x], a.spans[y]
	if overlap(p, q) {
		return false
	}
	a.parent[y] = x
	all := append(append(make([]span, 0, len(p)+len(q)), p...), q...)
	sort.Slice(all, func(i, j int) bool { return all[i].from < all[j].from })
	n := 0
	for _, s := range all[1:] {
		if all[n].to == s.from {
			all[n].to = s.to
		} else {
			n++
			all[n] = s
		}
	}
	a.spans[x], a.spans[y] = all[:n+1], nil
	return true
}

func overlap(p, q []span) bool {
	for len(p) > 0 && len(q) > 0 {
		if p[0].from > q[0].from {
			p, q = q, p
		}
		if p[0].to > q[0].from {
			return true
		}
		p = p[1:]
	}
	return false
}

// allocate makes registers one where an instruction writes over its operand,
// which must work, and then where that saves a copy.
func allocate(f *fn) (*allocation, error) {
	a := &allocation{parent: make([]reg, len(f.class)), spans: liveness(f)}
	for r := range a.parent {
		a.parent[r] = reg(r)
	}
	for _, b := range f.blocks {
		for _, in := range b.insts {
			for k, r := range in.dst[:in.tied] {
				// wgmma writes while others compute: a copy would wait for it.
				if !a.join(r, in.src[k].r) {
					return nil, fmt.Errorf("internal: kernel %s: %saccumulator %d is used after %s overwrites it", f.name, where(in.line), k, mnemonic(in.t.text))
				}
			}
		}
	}
	for _, b := range f.blocks {
		for _, in := range b.insts {
			if in.copy && in.src[0].r != 0 {
				a.join(in.dst[0], in.src[0].r)
			}
		}
	}
	// Copies at the end of a loop cost most.
	for _, back := range []bool{true, false} {
		for _, b := range f.blocks {
			for _, p := range b.phis {
				for i, o := range p.src {
					if o.r != 0 && (b.preds[i].n >= b.n) == back {
						a.join(p.dst, o.r)
					}
				}
			}
		}
	}
	return a, nil
}

func where(line string) string {
	if line == "" {
		return ""
	}
	return line + ": "
}
