package sched

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// seen lists, for every launch by the name of its kernel, which of the contents that
// its buffers have in turn it finds there.
func seen(p *plan.Program) map[string]string {
	writes := map[*plan.Buffer]int{}
	found := map[string]string{}
	for _, l := range p.Launches {
		var s []string
		for a, b := range l.Args {
			if l.Kernel.Bufs[a].Mode != kern.Out {
				s = append(s, fmt.Sprint(b.Name, " ", writes[b]))
			}
		}
		for a, b := range l.Args {
			if l.Kernel.Bufs[a].Mode != kern.In {
				writes[b]++
			}
		}
		found[l.Kernel.Name] = fmt.Sprint(s)
	}
	return found
}

// layers is a random training step: going back, a launch passes the gradient on,
// another makes that of a stored tensor, which some change at once and some at the end.
func layers(rng *rand.Rand, n int) *plan.Program {
	var m maker
	one := func(b ...*plan.Buffer) []*plan.Buffer { return b }
	bytes := func() int { return 64 * (1 + rng.IntN(40)) }
	x := m.input("x", bytes())
	var kept, stored, wait []*plan.Buffer
	for i := range n {
		w, y := m.buffer(fmt.Sprintf("@w%d", i), 64), m.buffer(fmt.Sprintf("y%d", i), bytes())
		w.Arena = plan.State
		m.launch(one(x, w), one(y), nil)
		kept, stored, x = append(kept, x), append(stored, w), y
	}
	forward := len(m.p.Launches)
	for i := n - 1; i >= 0; i-- {
		g, dw := m.buffer(fmt.Sprintf("g%d", i), bytes()), m.buffer(fmt.Sprintf("dw%d", i), bytes())
		m.launch(one(x, kept[i]), one(dw), nil)
		m.launch(one(x, stored[i]), one(g), nil)
		if wait = append(wait, dw); rng.IntN(3) == 0 {
			m.launch(one(dw), nil, one(stored[rng.IntN(n)]))
		}
		x = g
	}
	for i, dw := range wait {
		m.launch(one(dw), nil, one(stored[n-1-i]))
	}
	m.output("g", x)
	p := m.done()
	for i := range p.Launches {
		p.Launches[i].Backward = i >= forward
	}
	for _, w := range stored {
		w.First, w.Last = -1, len(p.Launches)
	}
	return p
}

// A launch that is delayed finds what it found before, the others too, and less is
// alive at most: what the search expected.
func TestDelayedLaunchesFindTheSame(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	all := 0
	for range 400 {
		p := layers(rng, 2+rng.IntN(8))
		before, kept := seen(p), peak(p)
		order := slices.Clone(p.Launches)
		moved := Delay(p)
		all += moved
		if after := seen(p); len(after) != len(before) {
			t.Fatalf("%d launches of %d are left", len(after), len(before))
		} else {
			for name, s := range before {
				if after[name] != s {
					t.Fatalf("%s finds %s, before %s", name, after[name], s)
				}
			}
		}
		live, _ := liveAndTime(p)
		if moved > 0 && live >= kept || moved == 0 && live != kept {
			t.Errorf("%d bytes alive at most after %d moves, %d before", live, moved, kept)
		}
		if moved == 0 && !slices.EqualFunc(order, p.Launches, func(a, b plan.Launch) bool { return a.Kernel == b.Kernel }) {
			t.Error("launches are in another order without a move")
		}
		if _, err := Place(p); err != nil {
			t.Fatal(err)
		}
		if err := Check(p); err != nil {
			t.Fatal(err)
		}
	}
	if all < 20 {
		t.Errorf("%d launches of 400 programs are delayed", all)
	}
}

// The gradient of a table, larger than the rows that it is made of, waits until what
// the backward pass reads is gone.
func TestALargeGradientWaits(t *testing.T) {
	var m maker
	in := m.input("in", 64)
	kept := m.buffer("kept", 6400)
	m.launch([]*plan.Buffer{in}, []*plan.Buffer{kept}, nil)
	rows := m.buffer("rows", 640)
	m.launch([]*plan.Buffer{in}, []*plan.Buffer{rows}, nil)
	table := m.buffer("table", 3200)
	m.launch([]*plan.Buffer{rows}, []*plan.Buffer{table}, nil)
	g := m.buffer("g", 640)
	m.launch([]*plan.Buffer{kept}, []*plan.Buffer{g}, nil)
	for range 2 {
		h := m.buffer("h", 640)
		m.launch([]*plan.Buffer{g}, []*plan.Buffer{h}, nil)
		g = h
	}
	m.output("g", g)
	m.output("table", table)
	p := m.done()
	for i := range p.Launches {
		p.Launches[i].Backward = i >= 2
	}
	if n := Delay(p); n != 1 || p.Launches[3].Args[1] != table || peak(p) != 6400+640+640+64 {
		t.Errorf("%d launches moved, %d bytes alive at most", n, peak(p))
	}
}
