package graph

import (
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// Products of few rows and many weights are cut in two, if there is more of these
// than caches hold; other products are left alone.
func TestHalveCutsProductsThatWaitForMemory(t *testing.T) {
	type product struct {
		rows, sum, cols int
		weights         bool
		halved          bool
	}
	for _, c := range []struct {
		name     string
		products []product
	}{
		{"enough", []product{{1, 4096, 2048, true, true}, {16, 512, 512, true, true}}},
		{"not enough", []product{{1, 4096, 1920, true, false}, {8, 512, 512, true, false}}},
		{"others beside", []product{
			{8, 4096, 2048, true, true},
			{17, 512, 2048, true, false}, // many rows
			{8, 512, 4096, true, false},  // long rows
			{8, 511, 1024, true, false},  // no two halves
			{8, 256, 512, true, false},   // few weights
			{8, 512, 2048, false, false}, // no weights
		}},
	} {
		m := ir.NewModule("m")
		f := m.NewFunc("f")
		for _, p := range c.products {
			name := string(rune('a' + len(f.Results)))
			x := f.Input("x"+name, ir.T(ir.F32, p.rows, p.sum))
			w := f.Input("y"+name, ir.T(ir.F32, p.sum, p.cols))
			if p.weights {
				g := &ir.Global{Name: name, Type: w.Type, Role: ir.Param}
				if err := m.AddGlobal(g); err != nil {
					t.Fatal(err)
				}
				w = f.Read(g)
			}
			f.Result(name, ops.MatMul(x, w))
		}
		if err := Halve(f); err != nil {
			t.Fatal(err)
		}
		for i, p := range c.products {
			op := f.Results[i].Value.Def.Op
			if _, sum := op.(ops.AddOp); sum != p.halved {
				t.Errorf("%s: the product of %+v is made by %s", c.name, p, op.Name())
			}
		}
	}
}
