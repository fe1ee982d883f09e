package nn_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/graph"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/modeltest"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/ops"
)

// eval runs one function built over inputs of the given types.
func eval(t *testing.T, build func(f *ir.Func) *ir.Value, in map[string][]float64) []float64 {
	t.Helper()
	m := ir.NewModule("m")
	f := m.NewFunc("f")
	f.Result("out", build(f))
	return machine(t, m).MustCall(t, "f", in)["out"].Data
}

func machine(t *testing.T, m *ir.Module) *modeltest.Machine {
	t.Helper()
	for _, f := range m.Funcs {
		if err := f.Err(); err != nil {
			t.Fatal(err)
		}
		if err := graph.Autodiff(f); err != nil {
			t.Fatal(err)
		}
	}
	return modeltest.Start(t, m, nil)
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-12*(1+math.Abs(b)) }

func TestCrossEntropyOfHugeLogitsIsFinite(t *testing.T) {
	got := eval(t, func(f *ir.Func) *ir.Value {
		return nn.CrossEntropy(f.Input("x", ir.T(ir.F32, 2, 3)), f.Input("y", ir.T(ir.I32, 2)))
	}, map[string][]float64{"x": {1e4, 0, -1e4, 0, 0, 0}, "y": {1, 2}})
	if want := (1e4 + math.Log(3)) / 2; !near(got[0], want) {
		t.Errorf("cross-entropy %v, want %v", got[0], want)
	}
}

// Chunks of 2 leave one row of 5 over.
func TestCrossEntropyInChunksIsThatOfAllRows(t *testing.T) {
	const rows, width, classes = 5, 3, 4
	m := ir.NewModule("m")
	for _, chunk := range []int{5, 2, 1} {
		f := m.NewFunc(fmt.Sprint("rows", chunk))
		x, y := f.Input("x", ir.T(ir.F32, rows, width)), f.Input("y", ir.T(ir.I32, rows))
		w := nn.In(f).Param("w", nn.Zeros(), width, classes)
		loss := nn.CrossEntropyInChunks("loss", x, chunk, y, func(x *ir.Value) *ir.Value { return ops.MatMul(x, w) })
		f.Result("loss", loss)
		for i, g := range ops.Gradient(loss, x, w) {
			f.Result([]string{"dx", "dw"}[i], g)
		}
	}
	c := machine(t, m)
	c.Scramble(1, 1)
	in := map[string][]float64{"x": {1, -2, 3, 0.5, 0, -1, 2, 2, 2, -3, 1, 0, 0.1, 0.2, 0.3}, "y": {0, 3, 1, 2, 3}}
	want := c.MustCall(t, "rows5", in)
	for _, name := range []string{"rows2", "rows1"} {
		got := c.MustCall(t, name, in)
		for result, w := range want {
			for i, v := range got[result].Data {
				if !near(v, w.Data[i]) {
					t.Errorf("%s: %s[%d] = %v, want %v", name, result, i, v, w.Data[i])
				}
			}
		}
	}
}

func TestChunksAreFewEqualAndNoLargerThanTheWeights(t *testing.T) {
	for _, c := range []struct{ m, k, classes, want int }{
		{512, 128, 544, 512},          // demo's text
		{1024, 128, 256, 1024},        // and images
		{256, 512, 16640, 256},        // peers' s: half the weights are as much
		{1024, 512, 8192, 512},        // 16 MiB
		{1280, 512, 8192, 320},        // 3 chunks would not be equal
		{8192, 3968, 8192, 1024},      // paper with a batch of 8: 1,984 rows are half the weights, 5 chunks would not be equal
		{1 << 20, 512, 8192, 1 << 17}, // no more than 8
		{1031, 512, 8192, 344},        // a prime
		{1, 1, 1, 1},
	} {
		if got := nn.ChunkRows(c.m, c.k, c.classes); got != c.want {
			t.Errorf("%d rows of width %d to %d classes: chunks of %d, want %d", c.m, c.k, c.classes, got, c.want)
		}
	}
}

func TestSoftmaxIsInvariantToShifts(t *testing.T) {
	got := eval(t, func(f *ir.Func) *ir.Value { return nn.Softmax(f.Input("x", ir.T(ir.F32, 2, 2))) },
		map[string][]float64{"x": {0, math.Log(3), 1e5, 1e5 + math.Log(3)}})
	for i, want := range []float64{0.25, 0.75, 0.25, 0.75} {
		if math.Abs(got[i]-want) > 1e-10 {
			t.Errorf("element %d: %v, want %v", i, got[i], want)
		}
	}
}

func TestLayerNormHasMeanZeroAndVarianceOne(t *testing.T) {
	got := eval(t, func(f *ir.Func) *ir.Value {
		return nn.LayerNorm(nn.In(f), "norm", f.Input("x", ir.T(ir.F32, 1, 4)), 0)
	}, map[string][]float64{"x": {1, 2, 3, 10}})
	var mean, square float64
	for _, v := range got {
		mean += v / 4
		square += v * v / 4
	}
	if math.Abs(mean) > 1e-12 || !near(square, 1) {
		t.Errorf("mean %v, variance %v", mean, square)
	}
}

func TestFunctionsShareParametersByName(t *testing.T) {
	m := ir.NewModule("m")
	a, b := m.NewFunc("a"), m.NewFunc("b")
	v := nn.In(a).Sub("x").Param("w", nn.Normal(1), 2, 3)
	w := nn.In(b).Sub("x").Param("w", nn.Normal(1), 2, 3)
	if v.Global != w.Global || len(m.Globals) != 1 || v.Global.Name != "x.w" {
		t.Errorf("globals %v and %v of %d", v.Global, w.Global, len(m.Globals))
	}
	nn.In(b).Sub("x").Param("w", nn.Normal(1), 3, 2)
	err := b.Err()
	if err == nil || !strings.Contains(err.Error(), "nn_test.go") || !strings.Contains(err.Error(), "f32[2,3]") || !strings.Contains(err.Error(), "f32[3,2]") {
		t.Errorf("error %v, want the line and both types", err)
	}
}

// linear has the loss sum(w*x), whose gradient is x.
func linear(t *testing.T, c nn.AdamW) *modeltest.Machine {
	m := ir.NewModule("m")
	f := m.NewFunc("train")
	w := nn.In(f).Param("w", nn.Value(2), 1, 2)
	c.Update(f, ops.Sum(ops.Mul(w, f.Input("x", ir.T(ir.F32, 1, 2)))))
	return machine(t, m)
}

var adam = nn.AdamW{Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Decay: 0.1}

func inputs(clip float64, x ...float64) map[string][]float64 {
	return map[string][]float64{"x": x, "lr": {0.5}, "update": {1}, "clip": {clip}}
}

func TestAdamWFirstStep(t *testing.T) {
	x := linear(t, adam)
	out := x.MustCall(t, "train", inputs(0, 3, -4))
	if out["grad_norm"].Data[0] != 5 || out["skipped"].Data[0] != 0 {
		t.Errorf("norm %v, skipped %v", out["grad_norm"].Data[0], out["skipped"].Data[0])
	}
	// The first step moves by lr*(sign(g) + decay*w).
	for i, want := range []float64{2 - 0.5*(1+0.2), 2 - 0.5*(-1+0.2)} {
		if got := x.Globals["w"].Data[i]; math.Abs(got-want) > 1e-7 {
			t.Errorf("w[%d] = %v, want %v", i, got, want)
		}
	}
}

func TestBiasCorrectionKeepsItsDigits(t *testing.T) {
	for _, beta := range []float64{0, 0.9, 0.999, 0.99999} {
		c := nn.AdamW{Beta1: beta, Beta2: 0.5}
		for _, update := range []float64{1, 2, 10, 1000, 1e6} {
			x := linear(t, c)
			in := inputs(0, 3, -4)
			in["update"] = []float64{update}
			x.MustCall(t, "train", in)
			// m is (1-beta1)*g, v is g*g/2: the move is lr*bias1*(1-beta1)*sqrt(2/bias2).
			want := 2 - 0.5*(1-beta)/(1-math.Pow(beta, update))*math.Sqrt(2*(1-math.Pow(0.5, update)))
			if got := x.Globals["w"].Data[0]; math.Abs(got-want) > 1e-12 {
				t.Errorf("beta %v, update %v: w = %v, want %v", beta, update, got, want)
			}
		}
	}
}

func TestClippingScalesTheGradientToTheLimit(t *testing.T) {
	for limit, factor := range map[float64]float64{0: 1, -1: 1, 10: 1, 2.5: 0.5} {
		x := linear(t, adam)
		out := x.MustCall(t, "train", inputs(limit, 3, -4))
		if out["grad_norm"].Data[0] != 5 {
			t.Errorf("clip %v: norm %v, want that before clipping, 5", limit, out["grad_norm"].Data[0])
		}
		if got := x.Globals["w.m"].Data[0]; !near(got, 0.1*3*factor) {
			t.Errorf("clip %v: first moment %v, want %v", limit, got, 0.3*factor)
		}
	}
}

func TestNonFiniteGradientsUpdateNothing(t *testing.T) {
	for _, bad := range []float64{math.NaN(), math.Inf(1), 1e300} {
		for _, limit := range []float64{0, 1} {
			x := linear(t, adam)
			x.MustCall(t, "train", inputs(limit, 3, -4))
			before := map[string]float64{}
			for _, n := range []string{"w", "w.m", "w.v"} {
				before[n] = x.Globals[n].Data[0]
			}
			out := x.MustCall(t, "train", inputs(limit, 1, bad))
			if out["skipped"].Data[0] != 1 {
				t.Errorf("gradient %v is not skipped", bad)
			}
			for n, want := range before {
				if got := x.Globals[n].Data[0]; got != want {
					t.Errorf("gradient %v, clip %v: @%s goes from %v to %v", bad, limit, n, want, got)
				}
			}
		}
	}
}

func TestVarianceIsLimited(t *testing.T) {
	c := adam
	c.VarianceMax = 5
	x := linear(t, c)
	x.MustCall(t, "train", inputs(0, 3, -400))
	if v := x.Globals["w.v"].Data; !near(v[0], 0.09) || v[1] != 5 {
		t.Errorf("second moments %v, want 0.09 and 5", v)
	}
}

func TestMomentTypesApplyToLargeParameters(t *testing.T) {
	m := ir.NewModule("m")
	f := m.NewFunc("train")
	s := nn.In(f)
	w, b := s.Param("w", nn.Zeros(), 64, 128), s.Param("b", nn.Zeros(), 128)
	c := adam
	c.Moment1, c.Moment2 = ir.E6M9, ir.UE6M10
	c.Update(f, ops.Sum(ops.Add(w, b)))
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]ir.DType{"w.m": ir.E6M9, "w.v": ir.UE6M10, "b.m": ir.F32, "b.v": ir.F32} {
		if got := m.Global(name).Type.DType; got != want {
			t.Errorf("@%s is %s, want %s", name, got, want)
		}
	}
}
