package exec

import (
	"cmp"
	"math"
	"slices"
)

// touch is memory from one address up to another, which a launch reads, or may write.
type touch struct {
	from, to uint64
	writes   bool
}

// everything is what a launch touches of which nothing is known.
var everything = []touch{{0, math.MaxUint64, true}}

// stretch is a piece of memory that the launches so far have treated alike.
type stretch struct {
	from, to uint64
	writer   int   // the last launch that may have written it, -1: none
	readers  []int // the launches that have read it since, in order
}

// stretches cover all memory, in order.
type stretches []stretch

// cut makes a stretch begin at an address and returns its number.
func (m *stretches) cut(at uint64) int {
	i, found := slices.BinarySearchFunc(*m, at, func(s stretch, at uint64) int { return cmp.Compare(s.from, at) })
	if found || at == math.MaxUint64 {
		return i
	}
	s := (*m)[i-1]
	(*m)[i-1].to = at
	s.from, s.readers = at, slices.Clone(s.readers)
	*m = slices.Insert(*m, i, s)
	return i
}

// between are the stretches from one address to another.
func (m *stretches) between(t touch) (first, end int) {
	first = m.cut(t.from)
	return first, m.cut(t.to)
}

// waits says for each launch which launches before it must be over when it starts, ascending:
// those that may have written what it reads or writes, and those that read what it writes.
// A launch that another one of the list waits for anyway, directly or not, is left out.
func waits(launches [][]touch) [][]int {
	memory := stretches{{0, math.MaxUint64, -1, nil}}
	after := make([][]int, len(launches))
	before := make([]set, len(launches)) // all that must be over, directly or not
	for i, l := range launches {
		var found []int
		for _, t := range l {
			first, end := memory.between(t)
			for _, s := range memory[first:end] {
				if s.writer >= 0 {
					found = append(found, s.writer)
				}
				if t.writes {
					found = append(found, s.readers...)
				}
			}
		}
		// The latest first: what it waits for itself is implied.
		slices.SortFunc(found, func(a, b int) int { return b - a })
		before[i] = newSet(i)
		for _, x := range found {
			if !before[i].has(x) {
				before[i].add(x)
				before[i].addAll(before[x])
				after[i] = append(after[i], x)
			}
		}
		slices.Reverse(after[i])
		// A launch may write what it reads: writing comes second.
		for _, t := range l {
			if !t.writes {
				memory.read(t, i)
			}
		}
		for _, t := range l {
			if t.writes {
				memory.write(t, i)
			}
		}
	}
	return after
}

func (m *stretches) read(t touch, by int) {
	first, end := m.between(t)
	for i := first; i < end; i++ {
		if s := &(*m)[i]; len(s.readers) == 0 || s.readers[len(s.readers)-1] != by {
			s.readers = append(s.readers, by)
		}
	}
}

func (m *stretches) write(t touch, by int) {
	if first, end := m.between(t); first < end {
		*m = slices.Replace(*m, first, end, stretch{t.from, t.to, by, nil})
	}
}

// set is a set of small numbers.
type set []uint64

func newSet(n int) set       { return make(set, (n+63)/64) }
func (s set) has(i int) bool { return s[i/64]>>(i%64)&1 != 0 }
func (s set) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s set) addAll(t set) {
	for i, w := range t {
		s[i] |= w
	}
}

// dependencies says for each call which calls before it must be over when it starts.
func (p *Program) dependencies() [][]int {
	m, d := p.model, p.remote
	launches := make([][]touch, len(d.steps))
	for i, s := range d.steps {
		k := &m.sys.spec.Kernels[s.kernel]
		if k.Sizes == nil {
			launches[i] = everything
			continue
		}
		for j, a := range p.spec.Launches[s.launch].Args {
			from := m.address(a)
			launches[i] = append(launches[i], touch{from, from + uint64(k.Sizes[j]), k.changes(j)})
		}
	}
	after := make([][]int, len(d.calls))
	for i, steps := range waits(launches) {
		first := d.first(i)
		for _, s := range steps {
			after[first] = append(after[first], d.ends[s]-1)
		}
		for c := first + 1; c < d.ends[i]; c++ {
			after[c] = []int{c - 1}
		}
	}
	return after
}
