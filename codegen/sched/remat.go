package sched

import (
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// Remat makes the backward pass of p compute again what the launches of the
// named blocks keep for it inside the block, by launching the same kernels
// right before the first backward launch that reads their results. Kept are
// what other blocks read, what several launches write, and what can't be
// computed again because the contents it was made from are gone.
//
// The kernels are the forward pass's own, so no bit changes, whatever else
// those kernels compute or how they order their sums. It comes before Place,
// and sets First and Last anew.
func Remat(p *plan.Program, blocks map[string]bool) {
	backward := 0
	for backward < len(p.Launches) && !p.Launches[backward].Backward {
		backward++
	}
	r := remat{p: p, backward: backward, copies: map[*plan.Buffer]*plan.Buffer{}, writes: map[*plan.Buffer][]int{}, inside: map[*plan.Buffer]bool{}, old: p.Launches}
	for i, l := range r.old {
		for a, b := range l.Args {
			if l.Kernel.Bufs[a].Mode != kern.In {
				r.writes[b] = append(r.writes[b], i)
			}
		}
	}
	outer := map[*plan.Buffer]bool{}
	for _, b := range p.Inputs {
		outer[b] = true
	}
	for _, o := range p.Outputs {
		outer[o.Buffer] = true
	}
	for _, b := range p.Buffers {
		w := r.writes[b]
		if b.Arena != plan.Work || outer[b] || len(w) == 0 || w[0] != w[len(w)-1] || w[0] >= backward {
			continue
		}
		l := r.old[w[0]]
		r.inside[b] = blocks[l.Block]
		for a, x := range l.Args {
			if x == b && l.Kernel.Bufs[a].Mode != kern.Out {
				r.inside[b] = false
			}
		}
	}
	for _, l := range r.old[:backward] {
		for _, b := range l.Args {
			if w := r.writes[b]; r.inside[b] && r.old[w[0]].Block != l.Block {
				r.inside[b] = false
			}
		}
	}
	if backward == len(r.old) {
		return
	}
	p.Launches = append([]plan.Launch(nil), r.old[:backward]...)
	for i := backward; i < len(r.old); i++ {
		l := r.old[i]
		args := append([]*plan.Buffer(nil), l.Args...)
		for a, b := range args {
			if r.can(b, i) {
				args[a] = r.again(b, i)
			}
		}
		l.Args = args
		p.Launches = append(p.Launches, l)
	}
	if len(r.copies) > 0 {
		r.lifetimes()
	}
}

type remat struct {
	p        *plan.Program
	old      []plan.Launch
	backward int                           // the first launch of the backward pass
	writes   map[*plan.Buffer][]int        // the launches that write a buffer
	inside   map[*plan.Buffer]bool         // nobody but its block and the backward pass reads it
	copies   map[*plan.Buffer]*plan.Buffer // computed again
}

// can reports whether the contents of b can be computed again right before
// launch at.
func (r *remat) can(b *plan.Buffer, at int) bool {
	if r.copies[b] != nil {
		return true
	}
	if !r.inside[b] {
		return false
	}
	w := r.writes[b][0]
	l := r.old[w]
	for a, x := range l.Args {
		switch {
		case l.Kernel.Bufs[a].Mode == kern.InOut:
			return false
		case l.Kernel.Bufs[a].Mode == kern.Out:
			if x.Arena != plan.Work {
				return false
			}
		case !r.can(x, at):
			for _, o := range r.writes[x] {
				if o >= w && o < at {
					return false
				}
			}
		}
	}
	return true
}

// again launches what computes b once more, before launch at, and returns the
// copy.
func (r *remat) again(b *plan.Buffer, at int) *plan.Buffer {
	if c := r.copies[b]; c != nil {
		return c
	}
	l := r.old[r.writes[b][0]]
	args := append([]*plan.Buffer(nil), l.Args...)
	made := map[*plan.Buffer]*plan.Buffer{}
	for a, x := range args {
		if l.Kernel.Bufs[a].Mode == kern.In {
			if r.can(x, at) {
				args[a] = r.again(x, at)
			}
			continue
		}
		if made[x] == nil {
			c := *x
			c.ID, c.Name = len(r.p.Buffers), "recomputed "+x.Name
			made[x] = &c
			r.p.Buffers = append(r.p.Buffers, &c)
			if r.inside[x] {
				r.copies[x] = &c
			}
		}
		args[a] = made[x]
	}
	l.Args, l.Backward, l.Values = args, true, "recomputed "+l.Values
	r.p.Launches = append(r.p.Launches, l)
	r.p.FLOPs += l.Kernel.FLOPs
	return r.copies[b]
}

// lifetimes sets First and Last of every buffer.
func (r *remat) lifetimes() {
	n := len(r.p.Launches)
	for _, b := range r.p.Buffers {
		if b.Arena == plan.Work {
			b.First, b.Last = n, -1
		} else {
			b.First, b.Last = -1, n
		}
	}
	for i, l := range r.p.Launches {
		for _, b := range l.Args {
			if b.Arena == plan.Work {
				b.First, b.Last = min(b.First, i), max(b.Last, i)
			}
		}
	}
	for _, b := range r.p.Inputs {
		b.First, b.Last = -1, n
	}
	for _, o := range r.p.Outputs {
		o.Buffer.Last = n
	}
}
