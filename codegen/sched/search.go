package sched

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/gouache-ml/gouache/ir/plan"
)

// search looks for the frontier of memory against time: choices of buffers to
// make again of which none is beaten in both by another. It doesn't know what
// budget is wanted: a budget picks from what it finds. So more budget never gets
// a slower plan, nor less a larger one.
//
// It goes down from the peak without recomputation in even steps. At each it
// starts from the choice before and from what the relaxation takes, changes that
// until it fits, takes back what was not needed, and then tries every exchange.
// All choices that it measures on the way count.
//
// Layers are alike, and which of them makes something again matters little: so
// it changes the first and the last of like buffers, and others where that
// doesn't help.
type search struct {
	t        *tally
	relax    *relaxation
	families [][][]int // of sets of candidates that change together: like sets, in order of launches
	idle     []bool    // candidates that only launches that run again need: made again when they do
	all      int64     // cost of running everything again
	points   []point   // the frontier, by rising peak and falling cost
	work     int       // slots that may yet be visited
	reserve  int       // and how many of them are for later
	pairs    bool      // two changes are made at once where one doesn't help
}

type point struct {
	outcome
	choice []bool
}

// Bounds of a search.
const (
	// rounds is the work of a search, in measurements of every single change;
	// in slots it is bounded, from above to some 20 s.
	rounds    = 2000
	leastWork = 3e7
	mostWork  = 1e9
	// targets is how many peaks are aimed at on the way down, and lastTargets
	// how many more between the last that was reached and the first that was not.
	targets     = 64
	lastTargets = 8
	// chances is how many chance changes are tried for the latter.
	chances = 32
	// relaxRounds is how often prices are changed for a target, and relaxStarts
	// how many of the choices on the way, within the target and beyond it, are
	// starts.
	relaxRounds = 60
	relaxStarts = 2
)

func newSearch(t *tally, blocks map[string]bool) *search {
	s := &search{t: t, relax: newRelaxation(t), idle: make([]bool, t.n)}
	for x := range s.idle {
		s.idle[x] = true
	}
	for _, r := range t.reads {
		for _, x := range r.buffers {
			if int(x) < t.n {
				s.idle[x] = false
			}
		}
	}
	s.group(blocks)
	sets := 0
	for _, f := range s.families {
		sets += len(f)
	}
	for _, k := range t.reruns {
		s.all += k.cost
	}
	s.work = max(leastWork, min(mostWork, rounds*2*sets*len(t.base)))
	return s
}

// group makes the families: buffers that launches of one kernel write, what one
// launch writes together, what stays in a block, and everything.
func (s *search) group(blocks map[string]bool) {
	at := map[string]int{}
	add := func(key string, set []int) {
		i, ok := at[key]
		if !ok {
			i = len(s.families)
			at[key] = i
			s.families = append(s.families, nil)
		}
		s.families[i] = append(s.families[i], set)
	}
	inside := s.t.f.inside(blocks)
	of, kernels := map[string][]int{}, map[string][]string{}
	var order []string
	for _, k := range s.t.reruns {
		l := s.t.f.p.Launches[k.launch]
		var set []int
		for i, x := range k.out {
			if x < 0 {
				continue
			}
			set = append(set, int(x))
			add("buffer "+l.Kernel.Name+string(rune('0'+i)), []int{int(x)})
			if inside[s.t.buffers[x]] {
				of[l.Block] = append(of[l.Block], int(x))
			}
		}
		if len(set) > 1 {
			add("launch "+l.Kernel.Name, set)
		}
		if kernels[l.Block] == nil {
			order = append(order, l.Block)
		}
		kernels[l.Block] = append(kernels[l.Block], l.Kernel.Name)
	}
	for _, b := range order {
		if len(of[b]) > 1 {
			add("block "+strings.Join(kernels[b], " "), of[b])
		}
	}
	var all []int
	for x := range s.t.n {
		all = append(all, x)
	}
	add("all", all)
}

// choose is a choice of these buffers.
func (s *search) choose(set map[*plan.Buffer]bool) []bool {
	choice := make([]bool, s.t.n)
	for x := range choice {
		choice[x] = set[s.t.buffers[x]]
	}
	return choice
}

// run searches; starts are choices that are good to know.
func (s *search) run(starts ...[]bool) {
	choice := slices.Clone(s.idle)
	from := s.try(choice, 0)
	for _, c := range starts {
		s.try(c, 0)
	}
	share := s.work / 5
	step := max((from.peak-s.relax.floor)/targets, Align)
	target := from.peak - Align
	for target >= s.relax.floor && s.work > 2*share {
		s.reserve = s.work - (s.work-2*share)/((target-s.relax.floor)/step+1)
		o, ok := s.aim(choice, target)
		if !ok {
			break
		}
		target = min(o.peak-Align, target-step)
	}
	// No choice has less than the floor, and the last target was not reached:
	// but by chance it may be.
	s.pairs = true
	target = min(target, s.points[0].peak-Align)
	for i := lastTargets; i > 0 && s.work > share; i-- {
		target = max(target, s.relax.floor)
		least := s.points[0].peak
		if target >= least {
			break
		}
		s.reserve = s.work - (s.work-share)/i
		if s.insist(target) {
			target = s.points[0].peak - Align
		} else {
			target += (least - target + 2*Align) / 2 / Align * Align
		}
	}
	s.reserve = 0
	s.polish()
}

// aim looks for the cheapest choice with at most target alive, and leaves it in
// choice, which comes with one for a higher target.
func (s *search) aim(choice []bool, target int) (best outcome, ok bool) {
	limit := s.all + 1
	take := func(from []bool) {
		if o, reached := s.reach(from, target, limit); reached {
			if o = s.prune(from, target, o); o.cost < limit {
				best, limit, ok = o, o.cost, true
				copy(choice, from)
			}
		}
	}
	take(slices.Clone(choice))
	var within, beyond []point
	s.relax.bound(target, limit, relaxRounds, func(run []bool) {
		next := slices.Clone(s.idle)
		for x, m := range s.t.run {
			next[x] = next[x] || run[m]
		}
		p := point{s.try(next, target), next}
		if p.peak <= target {
			within = append(within, p)
		} else {
			beyond = append(beyond, p)
		}
	})
	var starts []point
	for _, ps := range [][]point{within, beyond} {
		slices.SortStableFunc(ps, func(a, b point) int {
			return cmp.Or(cmp.Compare(max(a.peak, target), max(b.peak, target)), cmp.Compare(a.cost, b.cost))
		})
		ps = slices.CompactFunc(ps, func(a, b point) bool { return a.outcome == b.outcome })
		starts = append(starts, ps[:min(relaxStarts, len(ps))]...)
	}
	for _, p := range starts {
		if !ok || s.work > s.reserve {
			take(p.choice)
		}
	}
	if ok {
		best = s.improve(choice, target, best)
	}
	return best, ok
}

// insist tries to reach a target by chance changes of the choice with the least
// peak.
func (s *search) insist(target int) bool {
	from := slices.Clone(s.points[0].choice)
	if _, ok := s.aim(slices.Clone(from), target); ok {
		return true
	}
	random := rand.New(rand.NewPCG(0, 0))
	for i := 0; i < chances && s.work > s.reserve; i++ {
		choice := slices.Clone(from)
		for _, f := range s.families {
			for _, set := range f {
				if random.IntN(4) == 0 {
					flip(choice, set)
				}
			}
		}
		if _, ok := s.reach(choice, target, s.all+1); ok {
			return true
		}
	}
	return false
}

// try measures a choice and remembers it if none is better in both.
func (s *search) try(choice []bool, target int) outcome {
	o := s.t.measure(choice, target)
	s.work -= len(s.t.base)
	i, found := slices.BinarySearchFunc(s.points, o.peak, func(p point, peak int) int { return cmp.Compare(p.peak, peak) })
	if found && s.points[i].cost <= o.cost || i > 0 && s.points[i-1].cost <= o.cost {
		return o
	}
	j := i
	for j < len(s.points) && s.points[j].cost >= o.cost {
		j++
	}
	s.points = slices.Replace(s.points, i, j, point{o, slices.Clone(choice)})
	return o
}

// change is a step of a search: a set of a family that is not made again is
// from now on, or the other way round.
type change struct {
	family int
	to     bool
	at     int // index of the set, or one of these
}

// The first and the last set of a family that would change.
const (
	firstOpen = -1
	lastOpen  = -2
)

// open finds what a change would change; nil when there is nothing.
func (s *search) open(choice []bool, c change) []int {
	f := s.families[c.family]
	differs := func(set []int) bool {
		for _, x := range set {
			if choice[x] != c.to {
				return true
			}
		}
		return false
	}
	switch c.at {
	case firstOpen:
		for _, set := range f {
			if differs(set) {
				return set
			}
		}
	case lastOpen:
		for i := len(f) - 1; i >= 0; i-- {
			if differs(f[i]) {
				return f[i]
			}
		}
	default:
		if differs(f[c.at]) {
			return f[c.at]
		}
	}
	return nil
}

// apply makes a change and lists the buffers it changed.
func (s *search) apply(choice []bool, c change) (changed []int) {
	for _, x := range s.open(choice, c) {
		if choice[x] != c.to {
			choice[x] = c.to
			changed = append(changed, x)
		}
	}
	return changed
}

func flip(choice []bool, set []int) {
	for _, x := range set {
		choice[x] = !choice[x]
	}
}

// after measures a choice with a change.
func (s *search) after(choice []bool, c change, target int) (o outcome, ok bool) {
	changed := s.apply(choice, c)
	if changed == nil {
		return o, false
	}
	o = s.try(choice, target)
	flip(choice, changed)
	return o, true
}

// changes lists the steps from a choice that make something again, or no
// longer: those at the ends of families, or all others.
func (s *search) changes(choice []bool, to, inner bool) []change {
	var out []change
	for i, f := range s.families {
		first := s.open(choice, change{i, to, firstOpen})
		if first == nil {
			continue
		}
		last := s.open(choice, change{i, to, lastOpen})
		if inner {
			for at, set := range f {
				if &set[0] != &first[0] && &set[0] != &last[0] && s.open(choice, change{i, to, at}) != nil {
					out = append(out, change{i, to, at})
				}
			}
			continue
		}
		out = append(out, change{i, to, firstOpen})
		if &last[0] != &first[0] {
			out = append(out, change{i, to, lastOpen})
		}
	}
	return out
}

// worth is how much less is above the target, for the time it costs.
func worth(from, to outcome) float64 {
	return float64(from.excess-to.excess) / float64(max(to.cost-from.cost, 1))
}

// reach changes a choice until its peak is at most target, by the steps worth
// most. It fails where none helps, and where the cost reaches limit.
func (s *search) reach(choice []bool, target int, limit int64) (outcome, bool) {
	o := s.try(choice, target)
	for o.peak > target && s.work > 0 {
		var best change
		var to outcome
		first, second := 0.0, 0.0
		for _, of := range []struct{ to, inner bool }{{true, false}, {false, false}, {true, true}, {false, true}} {
			if first > 0 {
				break
			}
			for _, c := range s.changes(choice, of.to, of.inner) {
				n, _ := s.after(choice, c, target)
				switch w := worth(o, n); {
				case w > first:
					best, to, first, second = c, n, w, first
				case w > second:
					second = w
				}
			}
		}
		if first <= 0 {
			n, ok := outcome{}, false
			if s.pairs {
				n, ok = s.pair(choice, target, o)
			}
			if !ok || n.cost >= limit {
				return o, false
			}
			o = n
			continue
		}
		// What was best is likely to be so again, in the next layer.
		for ok := true; ok && worth(o, to) > 0 && worth(o, to) >= second && o.peak > target; to, ok = s.after(choice, best, target) {
			if to.cost >= limit {
				return o, false
			}
			s.apply(choice, best)
			o = to
		}
	}
	return o, o.peak <= target
}

// pair makes the two changes at once that are worth most.
func (s *search) pair(choice []bool, target int, o outcome) (to outcome, ok bool) {
	var best []int
	first := 0.0
	for _, a := range []bool{true, false} {
		for _, c := range s.changes(choice, a, false) {
			one := s.apply(choice, c)
			for _, b := range []bool{true, false} {
				for _, d := range s.changes(choice, b, false) {
					if s.work <= s.reserve {
						break
					}
					two := s.apply(choice, d)
					n := s.try(choice, target)
					if w := worth(o, n); w > first {
						best, to, first = slices.Concat(one, two), n, w
					}
					flip(choice, two)
				}
			}
			flip(choice, one)
		}
	}
	flip(choice, best)
	return to, best != nil
}

// prune takes back what is not needed for the target, most expensive first.
func (s *search) prune(choice []bool, target int, o outcome) outcome {
	better := func(n, than outcome) bool {
		return n.peak <= target && (n.cost < than.cost || n.cost == than.cost && n.peak < than.peak)
	}
	for s.work > 0 {
		var best change
		to := o
		for _, again := range []bool{false, true} { // at last what can be made again at no cost
			if to != o {
				break
			}
			for _, c := range s.changes(choice, again, false) {
				if n, _ := s.after(choice, c, target); better(n, to) {
					best, to = c, n
				}
			}
		}
		if to == o {
			break
		}
		for ok := true; ok && better(to, o); to, ok = s.after(choice, best, target) {
			s.apply(choice, best)
			o = to
		}
	}
	return o
}

// improve takes one thing back and reaches the target by other means, while that
// is cheaper.
func (s *search) improve(choice []bool, target int, o outcome) outcome {
	for again := true; again; {
		again = false
		for _, c := range s.changes(choice, false, false) {
			if s.work <= s.reserve {
				return o
			}
			next := slices.Clone(choice)
			s.apply(next, c)
			n, ok := s.reach(next, target, o.cost)
			if !ok {
				continue
			}
			if n = s.prune(next, target, n); n.cost < o.cost {
				copy(choice, next)
				o, again = n, true
			}
		}
	}
	return o
}

// polish tries every single change of every choice of the frontier, and of what
// that adds to it.
func (s *search) polish() {
	done := map[string]bool{}
	for more := true; more; {
		more = false
		for _, p := range slices.Clone(s.points) {
			key := string(bits(p.choice))
			if done[key] {
				continue
			}
			done[key], more = true, true
			for i, f := range s.families {
				for at := range f {
					for _, to := range []bool{true, false} {
						if s.work <= s.reserve {
							return
						}
						s.after(p.choice, change{i, to, at}, 0)
					}
				}
			}
		}
	}
}

// bits packs a choice.
func bits(choice []bool) []byte {
	b := make([]byte, (len(choice)+7)/8)
	for x, c := range choice {
		if c {
			b[x/8] |= 1 << (x % 8)
		}
	}
	return b
}
