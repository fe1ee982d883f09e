package cuda_test

import (
	"math"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/cuda/emu"
	"github.com/gouache-ml/gouache/codegen/cuda/simt"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// The bounds that math.go gives, on a sample of all float32 and at the edges. The
// emulator rounds ex2 and rcp to nearest, which a GPU misses by up to 2 and 1 units
// in the last place; the bounds here are those without.
func TestElementaryFunctionsStayWithinTheirBounds(t *testing.T) {
	edges := []float64{0, math.Copysign(0, -1), 1, -1, 0.625, -0.625, 0.62499994, 88.72283, 88.722835, 88.7228, 88.72279, 89, -87.33654, -87.3366, -103.9, -104, 1e-45, 1e-38, math.MaxFloat32,
		math.Inf(1), math.Inf(-1), math.NaN()}
	type node = *kern.Node
	prim := func(p kern.Prim) func(b *kern.Builder, x node) node {
		return func(b *kern.Builder, x node) node { return b.Op(p, x) }
	}
	for _, c := range []struct {
		name string
		of   func(b *kern.Builder, x node) node
		want func(float64) float64
		ulps float64 // largest error measured: below
		tiny float64 // results up to this may be 0
	}{
		{"exp", prim(kern.Exp), math.Exp, 1, 0},      // 0.97
		{"log", prim(kern.Log), math.Log, 1, 0},      // 0.63
		{"tanh", prim(kern.Tanh), math.Tanh, 1.5, 0}, // 1.24
		{"sqrt", prim(kern.Sqrt), math.Sqrt, 0.5, 0},
		// What absorbed finds.
		{"logistic", func(b *kern.Builder, x node) node {
			return b.Op(kern.Div, b.F(1), b.Op(kern.Add, b.F(1), b.Op(kern.Exp, b.Op(kern.Neg, x))))
		}, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, 64, 0x1p-126}, // 53 at -78.4
		{"divisor", func(b *kern.Builder, x node) node {
			return b.Op(kern.Div, b.F(1), b.Op(kern.Add, b.Op(kern.Sqrt, x), b.F(0x1p-26)))
		}, func(x float64) float64 {
			if math.Abs(x) < 0x1p-126 {
				x = 0 // denormal numbers, also below 0
			}
			return 1 / (math.Sqrt(x) + 0x1p-26)
		}, 2.5, 0}, // 2.19
	} {
		x := make([]float64, 1<<15)
		for i := range x {
			x[i] = float64(math.Float32frombits(uint32(i)*131071 + 12345))
			if i < len(edges) {
				x[i] = float64(float32(edges[i]))
			} else if i%2 == 0 {
				x[i] = float64(float32(math.Mod(x[i], 100)))
			}
		}
		b := kern.NewBuilder("f")
		v := b.Dim(len(x))
		in, out := b.Buf("x", ir.F32, len(x), kern.In), b.Buf("y", ir.F32, len(x), kern.Out)
		b.Store(out, kern.V(v), c.of(b, b.Load(in, kern.V(v))))
		k, err := emu.Compile(b.Done(), cuda.Targets()[0])
		if err != nil {
			t.Fatal(err)
		}
		y := make([]float64, len(x))
		if _, err := k.Run(simt.Options{Seed: 1}, [][]float64{x, y}); err != nil {
			t.Fatal(err)
		}
		worst, at := 0.0, 0.0
		for i := range x {
			w := c.want(x[i])
			switch {
			case math.IsNaN(w) && math.IsNaN(y[i]), float64(float32(w)) == y[i], y[i] == 0 && math.Abs(w) <= c.tiny:
				continue
			case math.IsNaN(w) || math.IsNaN(y[i]) || math.IsInf(y[i], 0) != math.IsInf(float64(float32(w)), 0):
				t.Errorf("%s of %v is %v, want %v", c.name, x[i], y[i], w)
				continue
			}
			_, e := math.Frexp(w)
			if d := math.Abs(y[i]-w) / math.Ldexp(1, max(e-24, -149)); d > worst {
				worst, at = d, x[i]
			}
		}
		t.Logf("%s: at most %.2f ulp, at %v", c.name, worst, at)
		if worst > c.ulps {
			t.Errorf("%s is off by %.2f ulp at %v, more than %v", c.name, worst, at, c.ulps)
		}
	}
}
