package sched

import (
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// activations is a program of n layers: each makes x, and y of it, which the next
// reads. Going back, a layer reads its y and, with reread, its x later. With update,
// the stored tensor that y is made with besides changes first.
func activations(n int, reread, update bool) *plan.Program {
	var m maker
	w := m.buffer("@w", 64)
	w.Arena = plan.State
	last := m.input("in", 64)
	var xs, ys []*plan.Buffer
	for range n {
		x, y := m.buffer("x", 640), m.buffer("y", 640)
		m.launch([]*plan.Buffer{last, w}, []*plan.Buffer{x, y}, nil)
		xs, ys, last = append(xs, x), append(ys, y), y
	}
	forward := len(m.p.Launches)
	if update {
		m.launch(nil, nil, []*plan.Buffer{w})
	}
	g := last
	for i := n - 1; i >= 0; i-- {
		h := m.buffer("g", 64)
		m.launch([]*plan.Buffer{g, ys[i]}, []*plan.Buffer{h}, nil)
		if g = h; reread {
			h = m.buffer("h", 64)
			m.launch([]*plan.Buffer{g, xs[i]}, []*plan.Buffer{h}, nil)
			g = h
		}
	}
	m.output("g", g)
	p := m.done()
	w.First, w.Last = -1, len(p.Launches)
	for i := range p.Launches {
		p.Launches[i].Backward = i >= forward
		p.Launches[i].Kernel.FLOPs = 1000 * rates.Loop
	}
	return p
}

// remaking makes the last output of a kernel with two of those before it: x and w.
func remaking(flops int64) func(k *kern.Kernel, out int) (*kern.Kernel, []int) {
	return func(k *kern.Kernel, out int) (*kern.Kernel, []int) {
		if out != 3 {
			return nil, nil
		}
		b := kern.NewBuilder("remake")
		for _, m := range []kern.Mode{kern.In, kern.In, kern.Out} {
			b.Buf("", ir.F32, 1, m)
		}
		made := b.Done()
		made.FLOPs = flops * rates.Loop
		return made, []int{2, 1, 3}
	}
}

func TestWhatIsCheapIsMadeAgain(t *testing.T) {
	for _, c := range []struct {
		name           string
		reread, update bool
		flops          int64
		worth          float64
		buffers        int
	}{
		{"what it is made of is kept for others", true, false, 10, 2, 3},
		{"it dies before", false, false, 10, 2, 0},
		{"it changes before", true, true, 10, 2, 0},
		{"it saves too little for its time", true, false, 1000, 2, 0},
		{"its time doesn't count", true, false, 1000, 0, 3},
	} {
		p := activations(4, c.reread, c.update)
		kept, launches := peak(p), len(p.Launches)
		said := MakeCheap(p, rates, c.worth, remaking(c.flops))
		// The last layer's y is read at once: nothing is gained by making it again.
		if said.Buffers != c.buffers || len(p.Launches) != launches+c.buffers {
			t.Errorf("%s: %d buffers are made again by %d launches, want %d", c.name, said.Buffers, len(p.Launches)-launches, c.buffers)
		}
		live, _ := liveAndTime(p)
		if said.Kept != kept || said.Peak != live || live >= kept && c.buffers > 0 {
			t.Errorf("%s: %d bytes alive at most, %d if all is kept; it says %d and %d", c.name, live, kept, said.Peak, said.Kept)
		}
		for i, l := range p.Launches {
			if strings.HasPrefix(l.Values, "recomputed ") && (!l.Copy || !l.Backward || p.Launches[i+1].Args[1] != l.Args[2]) {
				t.Errorf("%s: launch %d makes %s, which the next doesn't read", c.name, i, l.Values)
			}
		}
		if _, err := Place(p); err != nil {
			t.Fatal(err)
		}
		if err := Check(p); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
