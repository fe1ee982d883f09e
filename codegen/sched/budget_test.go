package sched

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// training is a random training step: a forward pass of n launches, each made
// from one or two earlier results or stored tensors, and a backward pass in
// reverse that reads some of them.
func training(rng *rand.Rand, n int) *plan.Program {
	var m maker
	bytes := func() int { return 64 * (1 + rng.IntN(40)) }
	one := func(b ...*plan.Buffer) []*plan.Buffer { return b }
	x := m.input("x", bytes())
	var stored []*plan.Buffer
	for i := range 2 {
		w := m.buffer(fmt.Sprintf("@w%d", i), bytes())
		w.Arena = plan.State
		stored = append(stored, w)
	}
	have := one(x)
	type op struct {
		ins, outs []*plan.Buffer
	}
	var ops []op
	for i := range n {
		var o op
		for range 1 + rng.IntN(2) {
			from := have[max(0, len(have)-4):]
			if b := from[rng.IntN(len(from))]; !slices.Contains(o.ins, b) {
				o.ins = append(o.ins, b)
			}
		}
		if rng.IntN(2) == 0 {
			o.ins = append(o.ins, stored[rng.IntN(2)])
		}
		for j := range 1 + rng.IntN(5)/4 {
			o.outs = append(o.outs, m.buffer(fmt.Sprintf("f%d.%d", i, j), bytes()))
		}
		m.launch(o.ins, o.outs, nil)
		have = append(have, o.outs...)
		ops = append(ops, o)
	}
	g := m.buffer("loss", bytes())
	m.launch(one(have[len(have)-1]), one(g), nil)
	backward := len(m.p.Launches)
	slices.Reverse(ops)
	for i, o := range ops {
		ins := one(g)
		for _, b := range slices.Concat(o.ins, o.outs) {
			if rng.IntN(3) > 0 && !slices.Contains(ins, b) {
				ins = append(ins, b)
			}
		}
		g = m.buffer(fmt.Sprintf("g%d", i), bytes())
		outs := one(g)
		if rng.IntN(3) == 0 { // a parameter's gradient, needed at the end
			dw := m.buffer(fmt.Sprintf("dw%d", i), bytes()/4+64)
			outs = append(outs, dw)
			m.output(dw.Name, dw)
		}
		m.launch(ins, outs, nil)
		if rng.IntN(6) == 0 { // what is made from it can't be made again
			m.launch(one(g), nil, one(stored[rng.IntN(2)]))
		}
	}
	m.output("g", g)
	p := m.done()
	for i := range p.Launches {
		l := &p.Launches[i]
		l.Backward = i >= backward
		l.Kernel.Template = &kern.Template{}
		l.Kernel.FLOPs = int64(1+rng.IntN(100)) * 1000 * rates.Template
	}
	for _, w := range stored {
		w.First, w.Last = -1, len(p.Launches)
	}
	return p
}

// rates are a small processor's.
var rates = kern.Rates{Product: 77, Narrow: 77, Template: 28, Loop: 20, Bytes: 23, Launch: 600}

// liveAndTime are the largest sum of sizes alive and the estimated time of all
// launches, straight from the definitions.
func liveAndTime(p *plan.Program) (peak int, time int64) {
	for i, l := range p.Launches {
		live := 0
		for _, b := range p.Buffers {
			if b.Arena == plan.Work && b.First <= i && i <= b.Last {
				live += bytesOf(b)
			}
		}
		peak = max(peak, live)
		time += rates.Time(l.Kernel)
	}
	return peak, time
}

// set is a choice as a set of buffers.
func (t *tally) set(choice func(x int) bool) map[*plan.Buffer]bool {
	set := map[*plan.Buffer]bool{}
	for x := range t.n {
		set[t.buffers[x]] = choice(x)
	}
	return set
}

func TestTallyIsTheProgram(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		p := training(rng, 3+rng.IntN(20))
		f := readForward(p)
		y := newTally(f, rates)
		_, before := liveAndTime(p)
		if before != y.time {
			t.Fatalf("%d ns without recomputation, want %d", y.time, before)
		}
		for range 10 {
			choice := make([]bool, y.n)
			for x := range choice {
				choice[x] = rng.IntN(2) == 0
			}
			got := y.measure(choice, 0)
			q := f.again(f.launches(y.set(func(x int) bool { return choice[x] })))
			peak, time := liveAndTime(q)
			if got.peak != peak || got.cost != time-before {
				t.Fatalf("peak %d and %d ns more, want %d and %d", got.peak, got.cost, peak, time-before)
			}
		}
	}
}

// Every subset of the buffers is made and counted, and for every peak that one of
// them has the search must do as well as the best.
func TestSearchAgainstEverySubset(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	plans, budgets, paid, worse := 0, 0, 0, 0
	most, bounds := 0.0, 0.0
	for plans < 150 {
		p := training(rng, 6+rng.IntN(9))
		f := readForward(p)
		y := newTally(f, rates)
		if y.n == 0 || y.n > 12 {
			continue
		}
		plans++
		s := newSearch(y, nil)
		s.run()
		best := map[int]int64{} // cost by peak
		_, before := liveAndTime(p)
		for c := range 1 << y.n {
			peak, time := liveAndTime(f.again(f.launches(y.set(func(x int) bool { return c>>x&1 == 1 }))))
			if old, ok := best[peak]; !ok || time-before < old {
				best[peak] = time - before
			}
		}
		for budget := range best {
			want := int64(math.MaxInt64)
			for peak, cost := range best {
				if peak <= budget {
					want = min(want, cost)
				}
			}
			got := int64(-1)
			for _, x := range s.points {
				if x.peak <= budget {
					got = x.cost
				}
			}
			budgets++
			if got < 0 {
				t.Fatalf("plan %d: a choice of %d bytes is not found", plans, budget)
			}
			bound := s.relax.bound(budget, got, boundRounds, nil)
			if got < want || bound > float64(want)+1 {
				t.Fatalf("plan %d, %d bytes: cost %d ns, bound %.0f, but the best is %d", plans, budget, got, bound, want)
			}
			if want > 0 {
				paid++
				bounds += bound / float64(want)
			}
			if got > want {
				worse++
				most = max(most, float64(got-want)/float64(want))
			}
		}
	}
	t.Logf("%d plans, %d budgets: %d not optimal, by %.1f%% at most; the bound is %.0f%% of the optimum", plans, budgets, worse, 100*most, 100*bounds/float64(paid))
	if worse > budgets/500 {
		t.Errorf("%d of %d choices are not optimal, want at most one in 500", worse, budgets)
	}
}

func TestLessBudgetIsSmallerAndMoreIsFaster(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 3))
	for range 5 {
		n, seed := 12+rng.IntN(20), rng.Uint64()
		fit := func(budget int) (*plan.Program, Report) {
			p := training(rand.New(rand.NewPCG(seed, 0)), n)
			r, err := Fit(p, nil, budget, rates)
			if err != nil {
				t.Fatal(err)
			}
			if err := Check(p); err != nil {
				t.Fatal(err)
			}
			if r.Bytes != p.WorkBytes {
				t.Fatalf("reported %d bytes, the arena has %d", r.Bytes, p.WorkBytes)
			}
			return p, r
		}
		_, whole := fit(math.MaxInt)
		_, least := fit(0)
		bytes, again := whole.Bytes, int64(0)
		for i := range 9 {
			budget := whole.Bytes - (whole.Bytes-least.Bytes)*i/8
			_, r := fit(budget)
			if r.Bytes > budget {
				t.Errorf("budget %d gets %d bytes, though %d are possible", budget, r.Bytes, least.Bytes)
			}
			if r.Bytes > bytes || r.Again.Time < again {
				t.Errorf("budget %d gets %d bytes and %d ns, a larger one %d and %d", budget, r.Bytes, r.Again.Time, bytes, again)
			}
			if a := r.Again; a.Bound > a.Time || a.Launches > 0 != (a.Time > 0) {
				t.Errorf("budget %d: %+v", budget, a)
			}
			bytes, again = r.Bytes, r.Again.Time
		}
		p, _ := fit((whole.Bytes + least.Bytes) / 2)
		q, _ := fit((whole.Bytes + least.Bytes) / 2)
		same := func(a, b *plan.Buffer) bool {
			return a.Name == b.Name && a.Offset == b.Offset && a.First == b.First && a.Last == b.Last
		}
		if !slices.EqualFunc(p.Buffers, q.Buffers, same) {
			t.Error("one budget gets two programs")
		}
		if _, r := fit(least.Bytes - 1); r.Bytes != least.Bytes {
			t.Errorf("the least arena is %d bytes for no budget and %d for one byte too little", least.Bytes, r.Bytes)
		}
	}
}
