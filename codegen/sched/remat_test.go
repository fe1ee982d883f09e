package sched

import (
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// chain is a program of two blocks and a loss: in -> a -> b (block one), b -> c
// -> d (block two), d -> e. Going back, c and a are read. With update, the
// stored tensor that a is made from changes before a is read.
func chain(update bool) *plan.Program {
	p := &plan.Program{Name: "f"}
	buffer := func(name string, arena plan.Arena) *plan.Buffer {
		b := &plan.Buffer{ID: len(p.Buffers), Name: name, Type: ir.T(ir.F32, 16), Bytes: 64, Arena: arena}
		p.Buffers = append(p.Buffers, b)
		return b
	}
	copies := func(n int) *kern.Kernel {
		k := kern.NewBuilder("")
		v := k.Dim(16)
		out := k.Buf("", ir.F32, 16, kern.Out)
		var sum *kern.Node
		for range n {
			x := k.Load(k.Buf("", ir.F32, 16, kern.In), kern.V(v))
			if sum == nil {
				sum = x
			} else {
				sum = k.Op(kern.Add, sum, x)
			}
		}
		k.Store(out, kern.V(v), sum)
		return k.Done()
	}
	launch := func(block string, backward bool, out *plan.Buffer, in ...*plan.Buffer) *plan.Buffer {
		p.Launches = append(p.Launches, plan.Launch{Kernel: copies(len(in)), Args: append([]*plan.Buffer{out}, in...), Block: block, Backward: backward, Values: out.Name})
		return out
	}
	in, w := buffer("in", plan.Work), buffer("@w", plan.State)
	p.Inputs = []*plan.Buffer{in}
	a := launch("one", false, buffer("a", plan.Work), in, w)
	b := launch("one", false, buffer("b", plan.Work), a)
	c := launch("two", false, buffer("c", plan.Work), b)
	d := launch("two", false, buffer("d", plan.Work), c)
	e := launch("loss", false, buffer("e", plan.Work), d)
	g := launch("two", true, buffer("g", plan.Work), e, c)
	if update {
		launch("", false, w, g)
	}
	h := launch("one", true, buffer("h", plan.Work), g, a)
	p.Outputs = []plan.Output{{Name: "h", Type: h.Type, Buffer: h}}
	return p
}

func TestRematLaunchesAgainWhatStaysInABlock(t *testing.T) {
	for _, c := range []struct {
		update bool
		want   string
	}{
		{false, "a b c d e recomputed c g recomputed a h"},
		{true, "a b c d e recomputed c g @w h"}, // a can't be made from another @w
	} {
		p := chain(c.update)
		Remat(p, map[string]bool{"one": true, "two": true})
		var got []string
		for _, l := range p.Launches {
			got = append(got, l.Values)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("launches %s, want %s", s, c.want)
		}
		if _, err := Place(p); err != nil {
			t.Fatal(err)
		}
		if err := Check(p); err != nil {
			t.Error(err)
		}
	}
}
