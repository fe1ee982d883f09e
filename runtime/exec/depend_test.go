package exec

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// hazard tells whether two launches must not run at the same time or change places.
func hazard(a, b []touch) bool {
	for _, x := range a {
		for _, y := range b {
			if (x.writes || y.writes) && max(x.from, y.from) < min(x.to, y.to) {
				return true
			}
		}
	}
	return false
}

// reachable[i][j] tells whether i waits for j, directly or not.
func reachable(after [][]int) [][]bool {
	r := make([][]bool, len(after))
	for i, l := range after {
		r[i] = make([]bool, len(after))
		for _, j := range l {
			r[i][j] = true
			for k := range j {
				r[i][k] = r[i][k] || r[j][k]
			}
		}
	}
	return r
}

// randomLaunches touch memory of so many bytes: few or many ranges, short and long ones, some that
// lie next to each other, some empty, some within what the same launch touches otherwise.
func randomLaunches(r *rand.Rand, n, memory int) [][]touch {
	out := make([][]touch, n)
	for i := range out {
		for range r.IntN(5) {
			from := uint64(r.IntN(memory)) &^ uint64(r.IntN(8))
			out[i] = append(out[i], touch{from, from + uint64(r.IntN(1+r.IntN(memory/4))), r.IntN(3) == 0})
		}
		if r.IntN(40) == 0 {
			out[i] = everything
		}
	}
	return out
}

func TestLaunchesWaitForWhatTheyMustAndNothingElse(t *testing.T) {
	edges := 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		launches := randomLaunches(r, r.IntN(150), 16+r.IntN(4000))
		after := waits(launches)
		if len(after) != len(launches) {
			t.Fatalf("seed %d: %d lists for %d launches", seed, len(after), len(launches))
		}
		for i, l := range after {
			edges += len(l)
			if !slices.IsSorted(l) || len(l) > 0 && (l[0] < 0 || l[len(l)-1] >= i) {
				t.Fatalf("seed %d: launch %d waits for %v", seed, i, l)
			}
			for _, j := range l {
				if !hazard(launches[i], launches[j]) {
					t.Errorf("seed %d: launch %d waits for %d and need not", seed, i, j)
				}
			}
		}
		reach := reachable(after)
		for i, l := range after {
			for j := range i {
				if hazard(launches[i], launches[j]) && !reach[i][j] {
					t.Errorf("seed %d: launch %d does not wait for %d", seed, i, j)
				}
			}
			for _, j := range l {
				if slices.ContainsFunc(l, func(k int) bool { return reach[k][j] }) {
					t.Errorf("seed %d: launch %d waits for %d by others, too", seed, i, j)
				}
			}
		}
		if t.Failed() {
			return
		}
	}
	if edges < 10_000 {
		t.Errorf("only %d edges in all", edges)
	}
}

func TestWaits(t *testing.T) {
	in := func(from, to uint64) touch { return touch{from, to, false} }
	out := func(from, to uint64) touch { return touch{from, to, true} }
	for _, c := range []struct {
		name     string
		launches [][]touch
		want     [][]int
	}{
		{"read after write", [][]touch{{out(0, 8)}, {in(4, 5)}}, [][]int{nil, {0}}},
		{"write after read", [][]touch{{in(0, 8)}, {out(7, 9)}}, [][]int{nil, {0}}},
		{"write after write", [][]touch{{out(0, 8)}, {out(7, 9)}}, [][]int{nil, {0}}},
		{"reads beside each other", [][]touch{{in(0, 8)}, {in(0, 8)}}, [][]int{nil, nil}},
		{"neighbours", [][]touch{{out(0, 8)}, {out(8, 16)}, {in(4, 12)}}, [][]int{nil, nil, {0, 1}}},
		{"a writer behind its readers", [][]touch{{out(0, 8)}, {in(0, 4)}, {in(4, 8)}, {out(0, 8)}}, [][]int{nil, {0}, {0}, {1, 2}}},
		{"part of it read", [][]touch{{out(0, 8)}, {in(0, 4)}, {out(0, 8)}}, [][]int{nil, {0}, {1}}},
		{"in place", [][]touch{{in(0, 8), out(0, 8)}, {in(0, 8), out(0, 8)}}, [][]int{nil, {0}}},
		{"implied by the later one", [][]touch{{out(0, 8)}, {in(0, 8), out(8, 16)}, {in(0, 16)}}, [][]int{nil, {0}, {1}}},
		{"everything", [][]touch{{in(0, 8)}, {in(8, 16)}, everything, {in(0, 8)}, everything, everything}, [][]int{nil, nil, {0, 1}, {2}, {3}, {4}}},
		{"nothing", [][]touch{{out(0, 8)}, nil, {out(4, 4)}, {in(0, 8)}}, [][]int{nil, nil, nil, {0}}},
	} {
		if got := waits(c.launches); !slices.EqualFunc(got, c.want, slices.Equal[[]int]) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}

// The kernel of two entries is one piece; without sizes a launch waits for all.
func TestRecordingsKnowWhatCallsWaitFor(t *testing.T) {
	for _, c := range []struct {
		how   string
		spoil func(s *Spec)
		want  [][]int
	}{
		{"graph", nil, [][]int{nil, {0}, nil, {1}}},
		{"graph", func(s *Spec) { s.Kernels[1].Sizes = nil }, [][]int{nil, {0}, {1}, {2}}},
		{"graph", func(s *Spec) { s.Kernels[0].Sizes, s.Kernels[0].Changes = []int{farBytes, farBytes, farBytes}, nil }, [][]int{nil, {0}, {1}, {1}}},
		{"chain", nil, nil},
	} {
		t.Setenv("GOUACHE_LAUNCH", c.how)
		d := newFake()
		d.use()
		spec := farSpec(t)
		// y = axpy(a, x) beside m = a*a; then z = y*y over x.
		p := &spec.Models[0].Programs[0]
		p.Launches = slices.Insert(p.Launches, 1, Launch{Values: "%m = square", Args: []Addr{State, State + farBytes + 64}})
		p.Run = func(r *Run) { r.Launch(0, 0); r.Launch(1, 1); r.Launch(1, 2) }
		if c.spoil != nil {
			c.spoil(spec)
		}
		s, err := Open(spec, Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Model("m")
		if err != nil {
			t.Fatal(err)
		}
		program(t, m, "forward").Run()
		if !slices.EqualFunc(d.after, c.want, slices.Equal[[]int]) || (d.after == nil) != (c.want == nil) {
			t.Errorf("%s: got %v, want %v", c.how, d.after, c.want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
