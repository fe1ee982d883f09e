package sched

import (
	"cmp"
	"slices"
	"strings"
)

// Bounds of squeeze.
const (
	// A gap of more than one part in squeezeAbove of the bound is worth its time.
	// Limits closer than one part in squeezeStep are not told apart.
	squeezeAbove = 200
	squeezeStep  = 1000
	// A first try looks at n buffers tryTurns times for each of n, which places each
	// some five times.
	tryTurns = 10
	// All tries look at squeezeWork buffers, in some 0.15 s. Where there are few
	// that is more than manyTries of the first ones, which must do; where there are
	// many, fewTries take longer, up to mostSqueezeWork.
	squeezeWork     = 100e6
	mostSqueezeWork = 300e6
	manyTries       = 200
	fewTries        = 20
)

// tactic is a way to choose the buffer that is placed next.
type tactic struct {
	order int  // the first in this order is next
	chain bool // but what was just evicted comes before all others
	keep  bool // starts from the best placement, not from an empty arena
}

// tactics are tried in turn, for where one fails another may not.
var tactics = []tactic{
	{order: bySize, keep: true},
	{order: bySize},
	{order: byPressureSpan},
	{order: byPressureSize, chain: true},
	{order: byStart},
	{order: bySize, chain: true},
	{order: byPressureSpan, chain: true},
	{order: byPressureSize},
	{order: byStart, chain: true},
}

// squeeze lowers the top of the arena while some tactic places every buffer below
// it. Orders alone can't: where a buffer is as large as two holes with a third
// buffer between them, that one has to move, though it was well placed.
func (a *packer) squeeze() {
	try := tryTurns * len(a.items) * len(a.items)
	work := min(manyTries*try, max(squeezeWork, fewTries*try), mostSqueezeWork)
	step := max(a.bound/squeezeStep, Align)
	floor := a.bound - Align // no try of this length gets down to here
	ts := slices.Clone(tactics)
	for work > 0 && a.bestBytes-a.bound > a.bound/squeezeAbove {
		if a.bestBytes-floor <= step {
			floor = a.bound - Align
			try *= 4
		}
		limit := floor + max((a.bestBytes-floor)*3/4/Align*Align, Align)
		found := false
		for i := 0; i < len(ts) && !found && work > 0; i++ {
			e := newEviction(a, ts[i], limit)
			if found = e.run(try); found {
				a.adopt(e)
				if i > 0 { // and does it again, often
					ts = slices.Concat(ts[:1], ts[i:], ts[1:i])
				}
			}
			work -= e.work
		}
		if !found {
			floor = limit
		}
	}
}

// adopt makes a complete eviction the best placement.
func (a *packer) adopt(e *eviction) {
	off, total := make([]int, len(a.items)), 0
	for _, s := range e.at {
		off[s.item] = s.off
		total = max(total, s.end)
	}
	const squeezed = ", squeezed"
	name := strings.TrimSuffix(a.bestOrder, squeezed) + squeezed
	if !e.t.keep {
		name = orders[e.t.order].name + ", evicting"
		if e.t.chain {
			name += " in chains"
		}
	}
	a.keep(name, total, off)
}

// eviction places buffers below a limit that is no smaller than any of them: where
// no gap takes the next one, those in its way are lifted out again and wait.
type eviction struct {
	a      *packer
	t      tactic
	limit  int
	at     []spot // where buffers lie, by offset
	wait   []int  // those that lie nowhere; the last is next
	rank   []int  // of each buffer, in the order from its end
	weight []int  // what it costs to lift each out
	work   int    // buffers looked at

	near []int // indices of those at that live at the same time as the next
	ends []end // of these
}

type spot struct{ off, end, first, last, item int }

// end is where a buffer ends, with its weight.
type end struct{ at, weight int }

func newEviction(a *packer, t tactic, limit int) *eviction {
	n := len(a.items)
	e := &eviction{a: a, t: t, limit: limit, rank: make([]int, n), weight: make([]int, n)}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	less := orders[t.order].less
	slices.SortStableFunc(order, func(i, j int) int { return less(a.items[j], a.items[i]) })
	for r, i := range order {
		x := a.items[i]
		e.rank[i], e.weight[i] = r, x.size/Align
		if hi := a.best[i] + x.size; t.keep && hi <= limit {
			e.at = append(e.at, spot{a.best[i], hi, x.first, x.last, i})
		} else {
			e.wait = append(e.wait, i)
		}
	}
	slices.SortFunc(e.at, func(x, y spot) int { return cmp.Or(cmp.Compare(x.off, y.off), cmp.Compare(x.item, y.item)) })
	return e
}

// run places until nothing waits or the work is done.
func (e *eviction) run(work int) bool {
	for len(e.wait) > 0 {
		if e.work > work {
			return false
		}
		i := e.wait[len(e.wait)-1]
		e.wait = e.wait[:len(e.wait)-1]
		x := e.a.items[i]
		off, free := e.lowest(x)
		if !free {
			off = e.cheapest(x)
			e.evict(off, off+x.size)
		}
		k, _ := slices.BinarySearchFunc(e.at, off, func(s spot, off int) int { return cmp.Compare(s.off, off) })
		e.at = slices.Insert(e.at, k, spot{off, off + x.size, x.first, x.last, i})
	}
	return true
}

// lowest finds the lowest gap that takes x, and the buffers near it.
func (e *eviction) lowest(x item) (off int, ok bool) {
	e.near = e.near[:0]
	e.work += len(e.at)
	for i := range e.at {
		s := &e.at[i]
		if s.first > x.last || s.last < x.first {
			continue
		}
		if s.off-off >= x.size {
			return off, true
		}
		off = max(off, s.end)
		e.near = append(e.near, i)
	}
	return off, off+x.size <= e.limit
}

// cheapest finds the place where what is in x's way weighs least. It is the floor
// or on top of another buffer, for sliding down to one gets nothing more in the way.
func (e *eviction) cheapest(x item) int {
	e.work += 8 * len(e.near)
	e.ends = append(e.ends[:0], end{})
	for _, i := range e.near {
		s := &e.at[i]
		if s.end+x.size > e.limit {
			continue
		}
		k := len(e.ends)
		e.ends = append(e.ends, end{})
		for ; e.ends[k-1].at > s.end; k-- { // few: ends come nearly in order
			e.ends[k] = e.ends[k-1]
			e.work++
		}
		e.ends[k] = end{s.end, e.weight[s.item]}
	}
	where, least, cost, above := 0, -1, 0, e.near
	for _, top := range e.ends {
		cost -= top.weight
		for ; len(above) > 0 && e.at[above[0]].off < top.at+x.size; above = above[1:] {
			cost += e.weight[e.at[above[0]].item]
		}
		if least < 0 || cost < least {
			where, least = top.at, cost
		}
	}
	return where
}

// evict lifts those near out of the bytes from lo to hi. Every time that makes them
// dearer, so that the same few don't drive each other out for ever.
func (e *eviction) evict(lo, hi int) {
	for _, i := range e.near {
		s := &e.at[i]
		if s.off >= hi || s.end <= lo {
			continue
		}
		e.weight[s.item] += 2 * e.a.items[s.item].size / Align
		k := len(e.wait)
		if !e.t.chain {
			k, _ = slices.BinarySearchFunc(e.wait, e.rank[s.item], func(i, rank int) int { return cmp.Compare(e.rank[i], rank) })
		}
		e.wait = slices.Insert(e.wait, k, s.item)
		s.item = -1
	}
	e.at = slices.DeleteFunc(e.at, func(s spot) bool { return s.item < 0 })
}
