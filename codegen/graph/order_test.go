package graph

import (
	"slices"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// regions lists f's regions in order, backward parts with a prime.
func regions(f *ir.Func) []string {
	var names []string
	for _, in := range f.Body {
		if in.Block == nil {
			continue
		}
		name := in.Block.Name
		if in.Block.Backward {
			name += "'"
		}
		names = append(names, name)
	}
	return slices.Compact(names)
}

func TestOrderPutsLossesBesideTheirGradients(t *testing.T) {
	m := ir.NewModule("m")
	f := m.NewFunc("f")
	w := f.Input("w", ir.T(ir.F32, 4))
	region := func(name string, body func() *ir.Value) (v *ir.Value) {
		f.Region(name, false, func() { v = body() })
		return v
	}
	h := region("layer", func() *ir.Value { return ops.Square(w) })
	a := region("first", func() *ir.Value { return ops.Sum(ops.Exp(h)) })
	b := region("second", func() *ir.Value { return ops.Sum(ops.Square(h)) })
	loss := region("loss", func() *ir.Value { return ops.Mul(a, b) }) // whose gradient needs both
	sum := region("other", func() *ir.Value { return ops.Sum(ops.Tanh(h)) })
	total := ops.Add(loss, sum)
	f.Result("loss", total)
	f.Result("gradient", ops.Gradient(total, w)[0])
	if err := Autodiff(f); err != nil {
		t.Fatal(err)
	}
	if got, want := regions(f), []string{"layer", "first", "second", "loss", "other", "other'", "loss'", "second'", "first'", "layer'"}; !slices.Equal(got, want) {
		t.Fatalf("regions before %q, want %q", got, want)
	}
	for range 2 {
		if err := Order(f); err != nil {
			t.Fatal(err)
		}
		// The gradient of a product needs its factors, so those come before it.
		if got, want := regions(f), []string{"layer", "other", "other'", "second", "loss'", "first", "loss'", "second'", "loss", "first'", "layer'"}; !slices.Equal(got, want) {
			t.Errorf("regions after %q, want %q", got, want)
		}
	}
}
