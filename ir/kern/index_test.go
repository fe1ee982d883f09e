package kern_test

import (
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// Runs against what it promises, at every value of the variables.
func TestRunsAreElementsSideBySideFromAMultipleOn(t *testing.T) {
	b := kern.NewBuilder("k")
	v, w := b.Dim(12), b.Dim(5)
	gathered := b.Load(b.Buf("id", ir.I32, 5, kern.In), kern.V(w))
	x, y, g := kern.V(v), kern.V(w), kern.At(gathered)
	for _, c := range []struct {
		at   kern.Index
		n    int
		want bool
	}{
		{x, 4, true},
		{x.Plus(8), 4, true},
		{x.Plus(-4), 4, true},
		{x.Plus(2), 4, false},
		{x.Plus(2), 2, true},
		{x.Scale(2), 4, false},
		{x.Scale(-1), 4, false},
		{y, 4, false},
		{kern.C(4), 4, false},
		{x.Add(y.Scale(12)), 4, true},
		{x.Add(y.Scale(12)), 8, false},
		{x.Add(y.Scale(-8)), 8, true},
		{x.Add(y.Scale(41)), 4, false},
		{x.Add(g.Scale(4)), 4, true},
		{x.Add(g.Scale(6)), 4, false},
	} {
		if got := c.at.Runs(v, c.n); got != c.want {
			t.Errorf("%s runs by %d along %s: %v, want %v", c.at, c.n, v, got, c.want)
		}
		// A gather may be anything: here 0 to 4, as w is.
		side := true
		for j := range w.Extent {
			for id := range 5 {
				for i := 0; i < v.Extent; i += c.n {
					value := func(i int) int {
						n := c.at.Const + i*c.at.Coef(v) + j*c.at.Coef(w)
						for _, d := range c.at.Ind {
							n += id * d.Coef
						}
						return n
					}
					side = side && value(i)%c.n == 0
					for l := range c.n {
						side = side && value(i+l) == value(i)+l
					}
				}
			}
		}
		if side != c.want {
			t.Errorf("%s by %d along %s: side by side from a multiple on: %v, want %v", c.at, c.n, v, side, c.want)
		}
	}
}
