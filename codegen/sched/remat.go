package sched

import (
	"slices"

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
	f := readForward(p)
	if set := f.inside(blocks); len(set) > 0 {
		*p = *f.again(f.launches(set))
	}
}

// forward is what of a program's forward pass can be launched again.
type forward struct {
	p      *plan.Program
	end    int                    // the first launch of the backward pass
	writes map[*plan.Buffer][]int // the launches that write a buffer
	reads  map[*plan.Buffer][]int // and that read it
	// latest has the buffers that can be made again, and the launch before
	// which that happens at the latest: the first of the backward pass that
	// reads it, or that makes something else from it.
	latest map[*plan.Buffer]int
}

func readForward(p *plan.Program) *forward {
	f := &forward{p: p, writes: map[*plan.Buffer][]int{}, reads: map[*plan.Buffer][]int{}, latest: map[*plan.Buffer]int{}}
	for f.end < len(p.Launches) && !p.Launches[f.end].Backward {
		f.end++
	}
	for i, l := range p.Launches {
		for a, b := range l.Args {
			if l.Kernel.Bufs[a].Mode != kern.In {
				f.writes[b] = append(f.writes[b], i)
			}
			if l.Kernel.Bufs[a].Mode != kern.Out {
				f.reads[b] = append(f.reads[b], i)
			}
		}
	}
	if f.end == len(p.Launches) {
		return f
	}
	outer := map[*plan.Buffer]bool{}
	for _, b := range p.Inputs {
		outer[b] = true
	}
	for _, o := range p.Outputs {
		outer[o.Buffer] = true
	}
	for i := f.end - 1; i >= 0; i-- {
		if !f.repeatable(i) {
			continue
		}
		l := p.Launches[i]
		for a, b := range l.Args {
			if l.Kernel.Bufs[a].Mode == kern.In || outer[b] || len(f.writes[b]) > 1 {
				continue
			}
			if at, ok := f.needed(b); ok && f.unchanged(i, at) {
				f.latest[b] = at
			}
		}
	}
	return f
}

// repeatable reports whether launch i may run twice: it updates nothing.
func (f *forward) repeatable(i int) bool {
	l := f.p.Launches[i]
	for a, b := range l.Args {
		if m := l.Kernel.Bufs[a].Mode; m == kern.InOut || m == kern.Out && b.Arena != plan.Work {
			return false
		}
	}
	return true
}

// needed is the launch before which a copy of b would be made at the latest.
func (f *forward) needed(b *plan.Buffer) (at int, ok bool) {
	for _, i := range f.reads[b] {
		if i >= f.end {
			return i, true
		}
		l := f.p.Launches[i]
		for a, x := range l.Args {
			if l.Kernel.Bufs[a].Mode != kern.In {
				if t, can := f.latest[x]; can {
					at, ok = max(at, t), true
				}
			}
		}
	}
	return at, ok
}

// unchanged reports whether what launch i reads is the same before launch at.
func (f *forward) unchanged(i, at int) bool {
	l := f.p.Launches[i]
	for a, x := range l.Args {
		if l.Kernel.Bufs[a].Mode != kern.In {
			continue
		}
		for _, w := range f.writes[x] {
			if w >= i && w < at {
				return false
			}
		}
	}
	return true
}

// inside lists what can be made again that launches of the blocks write and
// that no other block reads in the forward pass.
func (f *forward) inside(blocks map[string]bool) map[*plan.Buffer]bool {
	set := map[*plan.Buffer]bool{}
	for b := range f.latest {
		block := f.p.Launches[f.writes[b][0]].Block
		outside := func(i int) bool { return i < f.end && f.p.Launches[i].Block != block }
		if blocks[block] && !slices.ContainsFunc(f.reads[b], outside) {
			set[b] = true
		}
	}
	return set
}

// launches are those that write the buffers of set.
func (f *forward) launches(set map[*plan.Buffer]bool) map[*plan.Buffer]plan.Launch {
	by := map[*plan.Buffer]plan.Launch{}
	for b, in := range set {
		if in {
			by[b] = f.p.Launches[f.writes[b][0]]
		}
	}
	return by
}

// again is the program that makes buffers again where its backward pass needs
// them, each when it is first needed and by the launch it has in by. It shares its
// other buffers with p, and has set First and Last of all.
func (f *forward) again(by map[*plan.Buffer]plan.Launch) *plan.Program {
	q := *f.p
	q.Buffers = slices.Clone(f.p.Buffers)
	q.Launches = slices.Clone(f.p.Launches[:f.end])
	r := repeater{by, &q, map[*plan.Buffer]*plan.Buffer{}}
	for _, l := range f.p.Launches[f.end:] {
		l.Args = r.args(l)
		q.Launches = append(q.Launches, l)
	}
	lifetimes(&q)
	return &q
}

type repeater struct {
	by     map[*plan.Buffer]plan.Launch
	q      *plan.Program
	copies map[*plan.Buffer]*plan.Buffer // made again
}

// args makes what l reads again, where by says so, and lists l's arguments.
func (r *repeater) args(l plan.Launch) []*plan.Buffer {
	args := slices.Clone(l.Args)
	for a, b := range args {
		if m, ok := r.by[b]; ok && l.Kernel.Bufs[a].Mode == kern.In {
			if r.copies[b] == nil {
				r.launch(m)
			}
			args[a] = r.copies[b]
		}
	}
	return args
}

// launch launches l once more. Of its results those that are in by are kept.
func (r *repeater) launch(l plan.Launch) {
	args := r.args(l)
	made := map[*plan.Buffer]*plan.Buffer{}
	for a, x := range l.Args {
		if l.Kernel.Bufs[a].Mode == kern.In {
			continue
		}
		if made[x] == nil {
			c := *x
			c.ID, c.Name = len(r.q.Buffers), "recomputed "+x.Name
			made[x] = &c
			r.q.Buffers = append(r.q.Buffers, &c)
			if _, ok := r.by[x]; ok {
				r.copies[x] = &c
			}
		}
		args[a] = made[x]
	}
	l.Args, l.Backward, l.Copy, l.Values = args, true, true, "recomputed "+l.Values
	r.q.Launches = append(r.q.Launches, l)
	r.q.FLOPs += l.Kernel.FLOPs
}

// lifetimes sets First and Last of every buffer.
func lifetimes(p *plan.Program) {
	n := len(p.Launches)
	for _, b := range p.Buffers {
		if b.Arena == plan.Work {
			b.First, b.Last = n, -1
		} else {
			b.First, b.Last = -1, n
		}
	}
	for i, l := range p.Launches {
		for _, b := range l.Args {
			if b.Arena == plan.Work {
				b.First, b.Last = min(b.First, i), max(b.Last, i)
			}
		}
	}
	for _, b := range p.Inputs {
		b.First, b.Last = -1, n
	}
	for _, o := range p.Outputs {
		o.Buffer.Last = n
	}
}

// live are the bytes of work buffers alive in each launch, by First and Last.
func live(p *plan.Program) []int {
	delta := make([]int, len(p.Launches)+1)
	for _, b := range p.Buffers {
		if first, last := max(b.First, 0), min(b.Last, len(p.Launches)-1); b.Arena == plan.Work && last >= first {
			delta[first] += bytesOf(b)
			delta[last+1] -= bytesOf(b)
		}
	}
	for i := 1; i < len(delta); i++ {
		delta[i] += delta[i-1]
	}
	return delta[:len(p.Launches)]
}

// peak is the most of them.
func peak(p *plan.Program) int { return slices.Max(append(live(p), 0)) }
