package sched

import (
	"slices"

	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// Delay moves launches of the backward pass of p to later places, one by one, as long
// as that lowers what is alive at most: those with results that are larger than
// what need not be kept after them, and that are read much later. So is the
// gradient of a large table, which waits for the norm of all gradients. It comes
// before Fit and Place, and sets First and Last anew. It reports the launches moved.
func Delay(p *plan.Program) int {
	lifetimes(p)
	moved := 0
	for {
		at, to := bestDelay(p)
		if at < 0 {
			return moved
		}
		l := p.Launches[at]
		copy(p.Launches[at:to], p.Launches[at+1:to+1])
		p.Launches[to] = l
		lifetimes(p)
		moved++
	}
}

// minDelay is the least part of the peak that a move must save.
const minDelay = 1000

// bestDelay finds the move that lowers the peak most, of a launch to where another
// is, which is then before it. It is -1 where none does.
func bestDelay(p *plan.Program) (at, to int) {
	n := len(p.Launches)
	alive := live(p)
	across := append(slices.Clone(alive), 0) // alive in a launch and before it
	for _, b := range p.Buffers {
		if b.Arena == plan.Work && b.First >= 0 && b.First < n && b.Last >= b.First {
			across[b.First] -= bytesOf(b)
		}
	}
	before, after := make([]int, n+1), make([]int, n+1) // most alive in launches before i, and from i on
	for i, a := range alive {
		before[i+1] = max(before[i], a)
	}
	for i := n - 1; i >= 0; i-- {
		after[i] = max(after[i+1], alive[i])
	}
	at, least := -1, before[n]-before[n]/minDelay
	for i, l := range p.Launches {
		if !l.Backward || before[i] >= least || after[i] <= least {
			continue
		}
		grown, ins := resultOf(p, i)
		// kept is what l reads that nothing after j does.
		kept := func(j int) (bytes int) {
			for _, b := range ins {
				if b.Last <= j {
					bytes += bytesOf(b)
				}
			}
			return bytes
		}
		if grown <= kept(i) {
			continue
		}
		within := 0 // most alive between
		for j, end := i+1, latest(p, i); j < end; j++ {
			within = max(within, alive[j]-grown+kept(j-1))
			if within >= least {
				break
			}
			here := across[j+1] + kept(j) // its results are alive across j+1 already
			if most := max(before[i], within, here, after[j+1]); most < least {
				at, to, least = i, j, most
			}
		}
	}
	return at, to
}

// resultOf is how many bytes launch i makes, and which work buffers it reads. A launch
// that is not free to move makes nothing.
func resultOf(p *plan.Program, i int) (grown int, ins []*plan.Buffer) {
	l := p.Launches[i]
	for a, b := range l.Args {
		switch m := l.Kernel.Bufs[a].Mode; {
		case m == kern.InOut || m == kern.Out && (b.Arena != plan.Work || b.First != i):
			return 0, nil
		case slices.Index(l.Args, b) < a:
			continue
		case m == kern.Out:
			grown += bytesOf(b)
		case b.Arena == plan.Work:
			ins = append(ins, b)
		}
	}
	return grown, ins
}

// latest is the launch before which launch i must run: one that reads or changes
// what it writes, or changes what it reads.
func latest(p *plan.Program, i int) int {
	l := p.Launches[i]
	for j := i + 1; j < len(p.Launches); j++ {
		next := p.Launches[j]
		for a, b := range next.Args {
			k := slices.Index(l.Args, b)
			if k >= 0 && (l.Kernel.Bufs[k].Mode != kern.In || next.Kernel.Bufs[a].Mode != kern.In) {
				return j
			}
		}
	}
	return len(p.Launches)
}
