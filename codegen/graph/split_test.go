package graph

import (
	"slices"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// A sum is cut between rows where that leaves enough parts; where it cannot be,
// anywhere.
func TestSplitCutsBetweenRows(t *testing.T) {
	for _, c := range []struct{ shape, parts []int }{
		{[]int{24833, 512}, []int{19, 1307 * 512}}, // 64 parts would begin within rows
		{[]int{512, 1536}, []int{64, 8 * 1536}},
		{[]int{3, 4096}, []int{48, 256}},          // rows of whole parts
		{[]int{24829, 512}, []int{64, 24829 * 8}}, // a prime number of rows
		{[]int{4093}, nil},                        // short
	} {
		m := ir.NewModule("m")
		f := m.NewFunc("f")
		x := f.Input("x", ir.T(ir.F32, c.shape...))
		f.Result("sum", ops.Sum(ops.Square(x)))
		if err := Split(f); err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, in := range f.Body {
			if _, ok := in.Op.(ops.ReshapeOp); ok && in.Results[0].Type.Rank() == 2 && len(got) == 0 {
				got = in.Results[0].Type.Shape
			}
		}
		if !slices.Equal(got, c.parts) {
			t.Errorf("%v is cut as %v, want %v", c.shape, got, c.parts)
		}
	}
}
