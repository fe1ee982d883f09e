package ops_test

import (
	"math"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// backward is the vector-Jacobian product of the op that made y, for gradient g.
func backward(y, g *ir.Value) *ir.Value { return y.Def.Op.VJP(y.Def, []*ir.Value{g})[0] }

func TestGradientsAreScaledAndFiltered(t *testing.T) {
	f := newFunc()
	x, s := f.Input("x", ir.T(ir.F32, 5)), ops.Scalar(f, 4)
	inf := ops.Div(ops.Scalar(f, 1), ops.Scalar(f, 0))
	nan := ops.Sub(inf, inf)
	// 0, 1, inf, nan, 4
	at := func(i float64) *ir.Value { return ops.Eq(x, ops.Scalar(f, i)) }
	g := ops.Select(at(2), inf, ops.Select(at(3), nan, x))
	wantValue(t, backward(ops.GradScale(x, s), x), x.Type, 0, 4, 8, 12, 16)
	wantValue(t, backward(ops.GradUnscale(x, s), x), x.Type, 0, 0.25, 0.5, 0.75, 1)
	wantValue(t, backward(ops.GradFilter(x, s), g), x.Type, 0, 0.25, 0, 0, 1)
	if got := run(t, backward(ops.GradUnscale(x, s), g)); !math.IsInf(got[2], 1) || !math.IsNaN(got[3]) {
		t.Errorf("unscaling hides %v", got)
	}
	one := ops.Scalar(f, 1)
	once := backward(ops.GradFilter(x, one), g)
	twice := backward(ops.GradFilter(x, one), once)
	wantValue(t, twice, x.Type, run(t, once)...)
}

func TestCastsRoundAndGradientsReturn(t *testing.T) {
	f := newFunc()
	x := f.Input("x", ir.T(ir.F32, 4))
	y := ops.Cast(ops.AddConst(ops.MulConst(x, 0x1p-12), 1), ir.F16)
	wantValue(t, y, ir.T(ir.F16, 4), 1, 1, 1, 1+0x1p-10)
	wantValue(t, backward(y, ops.Cast(x, ir.F16)), ir.T(ir.F32, 4), 0, 1, 2, 3)
}

func TestRandomCastsAreOfEitherNeighbour(t *testing.T) {
	f := newFunc()
	x := ops.Full(f, ir.T(ir.F32, 4000), 1+0x1p-12)
	zero := ops.Full(f, ir.T(ir.I32), 0)
	up := 0
	for _, v := range run(t, ops.CastRandomly(x, ir.F16, zero, zero, 3)) {
		switch v {
		case 1:
		case 1 + 0x1p-10:
			up++
		default:
			t.Fatalf("%v", v)
		}
	}
	if up < 900 || up > 1100 {
		t.Errorf("%d of 4000 are rounded up, want about a quarter", up)
	}
}
