package sched

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// Cheap is what a program's backward pass makes again by kernels of their own.
// Times are estimated from sizes, in nanoseconds.
type Cheap struct {
	Buffers    int   // made again instead of kept
	Peak, Kept int   // most bytes alive, and if all were kept
	Time       int64 // of the launches that make them
	Step       int64 // of all others
}

// String is one line for the compiler's log.
func (c Cheap) String() string {
	return fmt.Sprintf("%d buffers made again from others that are kept: %s alive at most in place of %s, for %.1f%% of a step's estimated time",
		c.Buffers, ir.Bytes(c.Peak), ir.Bytes(c.Kept), 100*float64(c.Time)/float64(max(c.Step, 1)))
}

// MakeCheap lets the backward pass of p make again what one kernel can make, without
// products or sums, of buffers that are kept anyway: an activation from the product
// that its derivative needs, a normalised row from its sums. That is done for
// buffers without which less is alive at most, and if what is alive becomes less by
// worth times the share by which the time becomes more.
//
// Remake gives the kernel that makes output out of k again, and which of k's
// arguments it takes; or nil. Its numbers are those of k, so no bit changes. MakeCheap
// comes before Fit and Place, and sets First and Last anew.
func MakeCheap(p *plan.Program, rates kern.Rates, worth float64, remake func(k *kern.Kernel, out int) (*kern.Kernel, []int)) Cheap {
	f := readForward(p)
	c := Cheap{Kept: peak(p)}
	c.Peak = c.Kept
	by := f.remakes(remake)
	if len(by) == 0 {
		return c
	}
	// What takes most time for its bytes is kept first, where that costs nothing.
	order := make([]*plan.Buffer, 0, len(by))
	for b := range by {
		order = append(order, b)
	}
	cost := func(b *plan.Buffer) float64 { return float64(rates.Time(by[b].Kernel)) / float64(bytesOf(b)) }
	slices.SortFunc(order, func(a, b *plan.Buffer) int {
		return cmp.Or(cmp.Compare(cost(b), cost(a)), cmp.Compare(b.ID, a.ID))
	})
	c.Peak = peak(f.again(by))
	for _, b := range order {
		l := by[b]
		delete(by, b)
		if least := peak(f.again(by)); least <= c.Peak {
			c.Peak = least
		} else {
			by[b] = l
		}
	}
	for _, l := range p.Launches {
		c.Step += rates.Time(l.Kernel)
	}
	for _, l := range by {
		c.Time += rates.Time(l.Kernel)
	}
	if c.Buffers = len(by); float64(c.Kept-c.Peak)*float64(c.Step) < worth*float64(c.Time)*float64(c.Kept) {
		c.Buffers, c.Peak, c.Time = 0, c.Kept, 0
		clear(by)
	}
	*p = *f.again(by)
	return c
}

// remakes finds the buffers of the forward pass that launches of their own can
// make again from what is there anyway when the backward pass first reads them.
func (f *forward) remakes(remake func(k *kern.Kernel, out int) (*kern.Kernel, []int)) map[*plan.Buffer]plan.Launch {
	type key struct {
		k   *kern.Kernel
		out int
	}
	type way struct {
		k    *kern.Kernel
		args []int
	}
	known := map[key]way{}
	by := map[*plan.Buffer]plan.Launch{}
	for i, l := range f.p.Launches[:f.end] {
		for out, b := range l.Args {
			if _, can := f.latest[b]; !can || l.Kernel.Bufs[out].Mode != kern.Out {
				continue
			}
			at := slices.IndexFunc(f.reads[b], func(j int) bool { return j >= f.end })
			if at < 0 {
				continue
			}
			at = f.reads[b][at]
			w, ok := known[key{l.Kernel, out}]
			if !ok {
				w.k, w.args = remake(l.Kernel, out)
				known[key{l.Kernel, out}] = w
			}
			if w.k == nil {
				continue
			}
			m := l
			m.Kernel, m.Args = w.k, make([]*plan.Buffer, len(w.args))
			there := true
			for a, x := range w.args {
				m.Args[a] = l.Args[x]
				_, gone := by[l.Args[x]]
				there = there && (l.Args[x] == b || !gone && l.Args[x].Last >= at)
			}
			if there && f.unchanged(i, at) {
				by[b] = m
			}
		}
	}
	return by
}
