package sched

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/gouache-ml/gouache/ir/plan"
)

// Align is the alignment in bytes of every offset: one cache line, and one
// 512-bit register.
const Align = 64

// Report says how well a program's work buffers were packed.
type Report struct {
	Buffers    int    // work buffers placed
	Bytes      int    // size of the work arena
	LowerBound int    // largest sum of sizes alive during one launch: no placement needs less
	Order      string // the heuristic that won
	Cheap      Cheap  // what is made again because it costs little
	Delayed    int    // launches that run later than the graph says, so that less is alive
	Again      Again  // what runs again, where a budget asks for that
}

// Gap is the share of the arena above the lower bound, 0 for a perfect fit.
func (r Report) Gap() float64 {
	if r.LowerBound == 0 {
		return 0
	}
	return float64(r.Bytes-r.LowerBound) / float64(r.LowerBound)
}

// String is one line for the compiler's log.
func (r Report) String() string {
	return fmt.Sprintf("%d buffers in %d bytes, %.2f%% above the largest live sum of %d (%s)",
		r.Buffers, r.Bytes, 100*r.Gap(), r.LowerBound, r.Order)
}

// Place gives every work buffer of p an offset such that buffers alive during
// the same launch are disjoint, and sets p.WorkBytes. It trusts First and Last;
// Check does not. The result depends on p alone.
func Place(p *plan.Program) (Report, error) {
	var a packer
	for _, b := range p.Buffers {
		if b.Arena != plan.Work {
			continue
		}
		if b.First > b.Last || b.First < -1 || b.Last > len(p.Launches) {
			return Report{}, fmt.Errorf("internal: place: %s: buffer %s lives from launch %d to %d of %d; fix First and Last", p.Name, b.Name, b.First, b.Last, len(p.Launches))
		}
		if b.Bytes < 0 {
			return Report{}, fmt.Errorf("internal: place: %s: buffer %s has %d bytes", p.Name, b.Name, b.Bytes)
		}
		a.items = append(a.items, item{size: alignUp(max(b.Bytes, 1)), first: b.First, last: b.Last})
	}
	a.bound = a.lowerBound(len(p.Launches))
	a.search()
	a.squeeze()
	i := 0
	for _, b := range p.Buffers {
		if b.Arena == plan.Work {
			b.Offset = a.best[i]
			i++
		}
	}
	p.WorkBytes = a.bestBytes
	return Report{Buffers: len(a.items), Bytes: a.bestBytes, LowerBound: a.bound, Order: a.bestOrder}, nil
}

func alignUp(n int) int { return (n + Align - 1) &^ (Align - 1) }

// item is a buffer as the packer sees it: a rectangle that may slide along the
// byte axis but not along time.
type item struct {
	size, first, last int
	pressure          int // most bytes alive in a launch of its life
}

func (x item) span() int { return x.last - x.first + 1 }

type packer struct {
	items []item
	bound int

	best      []int
	bestBytes int
	bestOrder string
}

// lowerBound is the largest sum of sizes alive in one launch. It gives the
// buffers their pressure.
func (a *packer) lowerBound(launches int) int {
	delta := make([]int, launches+3)
	for _, x := range a.items {
		delta[x.first+1] += x.size
		delta[x.last+2] -= x.size
	}
	live, most := 0, 0
	for i, d := range delta {
		live += d
		delta[i] = live
		most = max(most, live)
	}
	for i := range a.items {
		x := &a.items[i]
		x.pressure = slices.Max(delta[x.first+1 : x.last+2])
	}
	return most
}

const (
	bySize = iota
	byArea
	bySpan
	byPressureSpan
	byPressureSize
	byStart
	byEnd
)

// orders are the orders in which buffers are placed. Long-lived activations
// first leaves the short-lived rest one open range above them; largest first
// avoids holes that nothing fits; what is alive in the fullest launches, placed
// before all else, has no holes there; order of creation imitates a stack.
var orders = [...]struct {
	name string
	less func(x, y item) int
}{
	bySize: {"size", func(x, y item) int { return cmp.Compare(y.size, x.size) }},
	byArea: {"area", func(x, y item) int { return cmp.Compare(y.size*y.span(), x.size*x.span()) }},
	bySpan: {"span", func(x, y item) int {
		return cmp.Or(cmp.Compare(y.span(), x.span()), cmp.Compare(y.size, x.size))
	}},
	byPressureSpan: {"pressure, then span", func(x, y item) int {
		return cmp.Or(cmp.Compare(y.pressure, x.pressure), cmp.Compare(y.span(), x.span()), cmp.Compare(y.size, x.size))
	}},
	byPressureSize: {"pressure, then size", func(x, y item) int {
		return cmp.Or(cmp.Compare(y.pressure, x.pressure), cmp.Compare(y.size, x.size), cmp.Compare(y.span(), x.span()))
	}},
	byStart: {"start", func(x, y item) int {
		return cmp.Or(cmp.Compare(x.first, y.first), cmp.Compare(y.last, x.last))
	}},
	byEnd: {"end", func(x, y item) int {
		return cmp.Or(cmp.Compare(y.last, x.last), cmp.Compare(x.first, y.first))
	}},
}

// improveWork bounds the work of the improvement phase, in visited pairs of
// buffers: about 0.2 s.
const improveWork = 100e6

// search tries every order with both ways of choosing a gap, then improves the
// winner: buffers that end at the top of the arena are the ones that came too
// late, so they move up in the order.
func (a *packer) search() {
	n := len(a.items)
	a.best = make([]int, n)
	a.bestOrder = "empty"
	if n == 0 {
		return
	}
	a.bestBytes = -1
	off := make([]int, n)
	order := make([]int, n)
	var won []int
	for _, o := range orders {
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, func(i, j int) int { return o.less(a.items[i], a.items[j]) })
		for _, tight := range []bool{true, false} {
			name := o.name + ", lowest gap"
			if tight {
				name = o.name + ", smallest gap"
			}
			if a.try(name, order, tight, off) {
				won = slices.Clone(order)
			}
			if a.bestBytes == a.bound {
				return
			}
		}
	}
	name := a.bestOrder
	rounds := min(300, int(improveWork/float64(n*n)))
	cur := won
	for round := 0; round < rounds && a.bestBytes > a.bound; round++ {
		tight := round%2 == 0
		total := a.pack(cur, tight, off)
		if total < a.bestBytes {
			a.keep(fmt.Sprintf("%s, improved %d times", name, round), total, off)
			won = slices.Clone(cur)
		}
		cur = a.promote(cur, off, total)
	}
	a.shake(won, rounds)
}

// shake moves a buffer that reaches above the bound, whichever chance picks, to a
// place before its own in the order, and keeps what is no worse.
func (a *packer) shake(order []int, rounds int) {
	rng := rand.New(rand.NewPCG(1, uint64(len(order))))
	off := make([]int, len(order))
	now := a.pack(order, false, off)
	name := a.bestOrder
	for round := 0; round < rounds && a.bestBytes > a.bound; round++ {
		var above []int
		for i, b := range order {
			if i > 0 && off[b]+a.items[b].size > a.bound {
				above = append(above, i)
			}
		}
		if len(above) == 0 {
			return
		}
		from := above[rng.IntN(len(above))]
		to := rng.IntN(from)
		next := slices.Clone(order)
		copy(next[to+1:from+1], order[to:from])
		next[to] = order[from]
		other := make([]int, len(off))
		total := a.pack(next, false, other)
		if total > now {
			continue
		}
		order, off, now = next, other, total
		if total < a.bestBytes {
			a.keep(fmt.Sprintf("%s, shaken %d times", name, round+1), total, off)
		}
	}
}

// promote moves the buffers that reach the top to half their place in the
// order, keeping the rest as it is.
func (a *packer) promote(order, off []int, total int) []int {
	key := make(map[int]int, len(order))
	for i, b := range order {
		key[b] = 2*i + 1
		if off[b]+a.items[b].size == total {
			key[b] = i
		}
	}
	next := slices.Clone(order)
	slices.SortStableFunc(next, func(x, y int) int { return cmp.Compare(key[x], key[y]) })
	return next
}

func (a *packer) try(name string, order []int, tight bool, off []int) bool {
	total := a.pack(order, tight, off)
	if a.bestBytes >= 0 && total >= a.bestBytes {
		return false
	}
	a.keep(name, total, off)
	return true
}

func (a *packer) keep(name string, total int, off []int) {
	copy(a.best, off)
	a.bestBytes, a.bestOrder = total, name
}

// pack places the buffers in the given order, each into a gap between those
// already placed that live at the same time: the smallest that fits, or the
// lowest. It returns the size of the arena.
func (a *packer) pack(order []int, tight bool, off []int) int {
	type placed struct{ off, end, first, last int }
	var at []placed // sorted by offset
	total := 0
	for _, b := range order {
		x := a.items[b]
		top, where, room := 0, -1, 0
		for i := range at {
			q := &at[i]
			if q.first > x.last || q.last < x.first {
				continue
			}
			if gap := q.off - top; gap >= x.size && (where < 0 || gap < room) {
				where, room = top, gap
				if !tight || gap == x.size {
					break
				}
			}
			top = max(top, q.end)
		}
		if where < 0 {
			where = top
		}
		off[b] = where
		total = max(total, where+x.size)
		i, _ := slices.BinarySearchFunc(at, where, func(q placed, w int) int { return cmp.Compare(q.off, w) })
		at = slices.Insert(at, i, placed{where, where + x.size, x.first, x.last})
	}
	return total
}
