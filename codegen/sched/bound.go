package sched

import "math"

// relaxation bounds from below what recomputation to a target costs, for any
// choice of buffers. It counts what surely is alive in a slot: a buffer while
// the forward pass touches it and while the backward pass itself does; between
// these two unless its launch runs again; and, where only launches that run
// again need it, until the first that could. It forgets copies made early and
// what launches need meanwhile, so no choice has less alive.
//
// With a price on every byte above the target, cheapest choices are minimum
// cuts, and the prices that make them dearest give the bound (Lagrange). It is
// that of the linear program: a choice may run a launch half.
type relaxation struct {
	t     *tally
	fixed []int // surely alive in a slot
	kept  []window
	floor int // most surely alive: no choice has a smaller peak
	cut   network
}

// window is where a choice decides whether a buffer is alive: slots lo to hi-1.
type window struct {
	lo, hi, size int
	run          int   // launch that makes it, which may run again, or -1
	needs        []int // launches that need it if they run again; none: the backward pass does
}

func newRelaxation(t *tally) *relaxation {
	r := &relaxation{t: t, fixed: append([]int(nil), t.base...)}
	const never = math.MaxInt
	direct, lastDirect := make([]int, len(t.buffers)), make([]int, len(t.buffers))
	for x := range direct {
		direct[x] = never
	}
	for _, a := range t.reads {
		for _, x := range a.buffers {
			direct[x], lastDirect[x] = min(direct[x], int(a.slot)), int(a.slot)
		}
	}
	readers := make([][]int, len(t.buffers))
	for m, k := range t.reruns {
		for _, x := range k.in {
			readers[x] = append(readers[x], m)
		}
	}
	// A launch can run again no earlier than for its first reader of all.
	earliest := make([]int, len(t.reruns))
	for m := len(t.reruns) - 1; m >= 0; m-- {
		earliest[m] = never
		for _, x := range t.reruns[m].out {
			if x < 0 {
				continue
			}
			earliest[m] = min(earliest[m], direct[x])
			for _, u := range readers[x] {
				earliest[m] = min(earliest[m], earliest[u])
			}
		}
	}
	delta := make([]int, len(t.base)+1)
	sure := func(x, lo, hi int) {
		delta[lo] += t.size[x]
		delta[hi] -= t.size[x]
	}
	for x := range t.buffers {
		w := window{lo: int(t.last[x]) + 1, size: t.size[x], run: -1}
		if x < t.n {
			w.run = int(t.run[x])
		}
		switch {
		case x >= t.n && direct[x] != never:
			sure(x, int(t.first[x]), lastDirect[x]+1)
			continue
		case direct[x] != never:
			w.hi = direct[x]
			sure(x, direct[x], lastDirect[x]+1)
		default:
			w.needs, w.hi = readers[x], never
			for _, u := range readers[x] {
				w.hi = min(w.hi, earliest[u])
			}
		}
		sure(x, int(t.first[x]), int(t.last[x])+1)
		if w.hi != never && w.lo < w.hi {
			r.kept = append(r.kept, w)
		}
	}
	n := 0
	for s := range r.fixed {
		n += delta[s]
		r.fixed[s] += n
		r.floor = max(r.floor, r.fixed[s])
	}
	r.build()
	return r
}

// build makes the network: a node for every launch, on the side of the source
// when it runs again, and one for every buffer that only such launches need.
func (r *relaxation) build() {
	g := &r.cut
	g.source, g.sink = g.node(), g.node()
	runs := make([]int, len(r.t.reruns))
	for m := range runs {
		runs[m] = g.node()
		g.edge(runs[m], g.sink) // its time
	}
	for _, w := range r.kept {
		if w.needs == nil {
			g.edge(g.source, runs[w.run]) // kept unless it runs again
			continue
		}
		need := g.node()
		if w.run < 0 {
			g.edge(need, g.sink)
		} else {
			g.edge(need, runs[w.run])
		}
		for _, u := range w.needs {
			g.edge(runs[u], need)
		}
	}
	g.done()
}

// price solves the relaxation for a price on each slot, in nanoseconds a byte:
// the least of time and price of what is alive, the launches that run again,
// and what is alive then.
func (r *relaxation) price(prices []float64, run []bool, alive []int) float64 {
	sum := make([]float64, len(prices)+1)
	value := 0.0
	for s, p := range prices {
		sum[s+1] = sum[s] + p
		value += p * float64(r.fixed[s])
	}
	g := &r.cut
	e := 0
	set := func(capacity float64) {
		g.setCapacity(e, capacity)
		e++
	}
	for m := range r.t.reruns {
		set(float64(r.t.reruns[m].cost))
	}
	for _, w := range r.kept {
		set(float64(w.size) * (sum[w.hi] - sum[w.lo]))
		for range w.needs {
			set(math.Inf(1))
		}
	}
	flow := g.flow()
	for m := range run {
		run[m] = g.reached(2 + m)
	}
	delta := make([]int, len(alive)+1)
	for _, w := range r.kept {
		on := w.run < 0 || !run[w.run]
		if w.needs != nil {
			needed := false
			for _, u := range w.needs {
				needed = needed || run[u]
			}
			on = on && needed
		}
		if on {
			delta[w.lo] += w.size
			delta[w.hi] -= w.size
		}
	}
	n := 0
	for s := range alive {
		n += delta[s]
		alive[s] = r.fixed[s] + n
	}
	return value + flow
}

// bound is at least so many nanoseconds of launches that run again for a peak of
// at most target bytes; +Inf where there is none. Known is what some choice
// costs. See is called with the launches of every solution on the way: good
// starts for a search.
func (r *relaxation) bound(target int, known int64, rounds int, see func(run []bool)) float64 {
	if r.floor > target {
		return math.Inf(1)
	}
	prices := make([]float64, len(r.fixed))
	best := make([]float64, len(r.fixed))
	run, alive := make([]bool, len(r.t.reruns)), make([]int, len(r.fixed))
	bound, length, stale := 0.0, 1.0, 0
	for range rounds {
		value := r.price(prices, run, alive)
		for _, p := range prices {
			value -= p * float64(target)
		}
		if see != nil {
			see(run)
		}
		if value > bound {
			bound, stale = value, 0
			copy(best, prices)
		} else if stale++; stale == 5 {
			length, stale = length/2, 0
			copy(prices, best)
		}
		square := 0.0
		for s, a := range alive {
			if g := float64(a - target); g > 0 || prices[s] > 0 {
				square += g * g
			}
		}
		if square == 0 || bound >= float64(known) {
			break
		}
		// Polyak's step, towards what is known to be possible.
		step := length * max(float64(known)-value, 0.01*float64(known)) / square
		for s, a := range alive {
			prices[s] = max(0, prices[s]+step*float64(a-target))
		}
	}
	return min(bound, float64(known))
}

// network finds maximum flows (Dinic).
type network struct {
	source, sink int
	to           []int
	out          [][]int // edges of a node; e^1 is the reverse of e
	rest         []float64
	level, next  []int
	queue        []int
}

func (g *network) node() int {
	g.out = append(g.out, nil)
	return len(g.out) - 1
}

func (g *network) edge(from, to int) {
	g.out[from] = append(g.out[from], len(g.to))
	g.out[to] = append(g.out[to], len(g.to)+1)
	g.to = append(g.to, to, from)
}

func (g *network) done() {
	g.rest = make([]float64, len(g.to))
	g.level, g.next = make([]int, len(g.out)), make([]int, len(g.out))
}

// setCapacity sets that of the i-th edge.
func (g *network) setCapacity(i int, c float64) { g.rest[2*i], g.rest[2*i+1] = c, 0 }

// tiny is a rest that counts as none, in nanoseconds.
const tiny = 1e-6

func (g *network) flow() float64 {
	total := 0.0
	for g.layers() {
		clear(g.next)
		for {
			f := g.push(g.source, math.Inf(1))
			if f <= 0 {
				break
			}
			total += f
		}
	}
	return total
}

// layers numbers the nodes by distance from the source, and reports whether the
// sink can be reached.
func (g *network) layers() bool {
	for i := range g.level {
		g.level[i] = -1
	}
	g.level[g.source] = 0
	g.queue = append(g.queue[:0], g.source)
	for i := 0; i < len(g.queue); i++ {
		n := g.queue[i]
		for _, e := range g.out[n] {
			if to := g.to[e]; g.level[to] < 0 && g.rest[e] > tiny {
				g.level[to] = g.level[n] + 1
				g.queue = append(g.queue, to)
			}
		}
	}
	return g.level[g.sink] >= 0
}

func (g *network) push(n int, limit float64) float64 {
	if n == g.sink {
		return limit
	}
	for ; g.next[n] < len(g.out[n]); g.next[n]++ {
		e := g.out[n][g.next[n]]
		to := g.to[e]
		if g.level[to] != g.level[n]+1 || g.rest[e] <= tiny {
			continue
		}
		if f := g.push(to, min(limit, g.rest[e])); f > 0 {
			g.rest[e] -= f
			g.rest[e^1] += f
			return f
		}
	}
	return 0
}

// reached reports whether a node is on the source's side of the cut.
func (g *network) reached(n int) bool { return g.level[n] >= 0 }
