package dvae

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/modeltest"
)

var tiny = Config{ImageSize: 8, Width: 8, Groups: 3, BlocksPerGroup: 1, Stem: 3, Codebook: 6, CodeDim: 4, Batch: 2}

func machine(t *testing.T) *modeltest.Machine {
	t.Helper()
	m, err := Build(tiny)
	x := modeltest.Start(t, m, err)
	x.Scramble(2, 0.5)
	return x
}

func images() []float64 {
	r := rand.New(rand.NewPCG(1, 1))
	x := make([]float64, tiny.Batch*tiny.ImageSize*tiny.ImageSize*3)
	for i := range x {
		x[i] = float64(r.IntN(256)) / 255
	}
	return x
}

func TestDecodeUndoesEncodeAsEvalDoes(t *testing.T) {
	x, in := machine(t), images()
	eval := x.MustCall(t, "eval", map[string][]float64{"images": in, "beta": {6.6}})
	tokens := x.MustCall(t, "encode", map[string][]float64{"images": in})["tokens"]
	decoded := x.MustCall(t, "decode", map[string][]float64{"tokens": tokens.Data})["images"]
	var mse float64
	for i, v := range decoded.Data {
		if v < 0 || v > 1 {
			t.Fatalf("decoded value %d is %v, outside [0,1]", i, v)
		}
		mse += (v - in[i]) * (v - in[i]) / float64(len(in))
	}
	if got := eval["mse"].Data[0]; math.Abs(got-mse) > 1e-12 {
		t.Errorf("eval's mse is %v, the decoded images' %v", got, mse)
	}
	if kl := eval["kl"].Data[0]; kl < 0 || kl > math.Log(float64(tiny.Codebook)) {
		t.Errorf("kl %v is outside [0, ln %d]", kl, tiny.Codebook)
	}
	for i, v := range tokens.Data {
		if v != eval["tokens"].Data[i] || v < 0 || v >= float64(tiny.Codebook) {
			t.Errorf("token %d is %v from encode, %v from eval", i, v, eval["tokens"].Data[i])
		}
	}
}

// A black value has logit(0.1) = -2.19722; at its exact mean the loss is
// ln 2 + ln b + ln(0.1*0.9), which has no lower bound without a floor for b.
func TestLogScaleHasAFloor(t *testing.T) {
	x := machine(t)
	for _, g := range x.Module.Globals {
		if g.Role == ir.Param {
			clear(x.Globals[g.Name].Data)
		}
	}
	copy(x.Globals["dec.out.b"].Data, []float64{math.Log(0.1 / 0.9), math.Log(0.1 / 0.9), math.Log(0.1 / 0.9), -100, -100, -100})
	black := make([]float64, len(images()))
	out := x.MustCall(t, "eval", map[string][]float64{"images": black, "beta": {0}})
	want := math.Ln2 - 7 + math.Log(0.09)
	if got := out["reconstruction"].Data[0]; math.Abs(got-want) > 1e-9 {
		t.Errorf("reconstruction loss %v, want %v", got, want)
	}
	if out["loss"].Data[0] != out["reconstruction"].Data[0] {
		t.Errorf("with beta 0 the loss %v differs from the reconstruction", out["loss"].Data[0])
	}
}

func TestKLIsThatOfThePlainLogits(t *testing.T) {
	x := machine(t)
	for _, g := range x.Module.Globals {
		if g.Role == ir.Param {
			clear(x.Globals[g.Name].Data)
		}
	}
	in := map[string][]float64{"images": images(), "beta": {1}}
	if kl := x.MustCall(t, "eval", in)["kl"].Data[0]; math.Abs(kl) > 1e-12 {
		t.Errorf("equal logits give KL %v, want 0", kl)
	}
	x.Globals["enc.out.b"].Data[2] = 200
	out := x.MustCall(t, "eval", in)
	kl, want := out["kl"].Data[0], math.Log(float64(tiny.Codebook))
	if math.Abs(kl-want) > 1e-12 {
		t.Errorf("one certain code gives KL %v, want ln K = %v", kl, want)
	}
	// beta weighs the sum over positions against the mean over pixel values.
	positions, values := float64(tiny.Grid()*tiny.Grid()), float64(tiny.ImageSize*tiny.ImageSize*3)
	if got, want := out["loss"].Data[0]-out["reconstruction"].Data[0], want*positions/values; math.Abs(got-want) > 1e-12 {
		t.Errorf("KL adds %v to the loss, want %v", got, want)
	}
}

// Codes that explain a patch equally well give way to the one in use, and the
// running shares are those of the tokens.
func TestUsualCodesArePreferred(t *testing.T) {
	c := tiny
	c.UsageWeight = 0.5
	m, err := Build(c)
	if err != nil {
		t.Fatal(err)
	}
	f := m.NewFunc("count")
	c.countUsage(f, f.Input("tokens", ir.T(ir.I32, 2, 2, 2)))
	x := modeltest.Start(t, m, f.Err())
	for _, g := range x.Module.Globals {
		if g.Role == ir.Param {
			clear(x.Globals[g.Name].Data)
		}
	}
	logits := x.Globals["enc.out.b"].Data
	copy(logits, []float64{1, 1.3, 0.9, 1.2, 0, 0})
	encode := func() float64 {
		return x.MustCall(t, "encode", map[string][]float64{"images": images()})["tokens"].Data[0]
	}
	if got := encode(); got != 1 {
		t.Errorf("codes used alike give token %v, want the argmax 1", got)
	}
	usage := x.Globals["enc.usage"].Data
	copy(usage, []float64{0.1, 0.1, 0.1, 0.7, 0, 0})
	if got := encode(); got != 3 {
		t.Errorf("the usual code 3 is 0.1 behind, and token %v is taken", got)
	}
	logits[1] = 3
	if got := encode(); got != 1 {
		t.Errorf("code 1 is far ahead, and token %v is taken", got)
	}
	x.MustCall(t, "count", map[string][]float64{"tokens": {1, 1, 1, 1, 1, 1, 3, 3}})
	for i, want := range []float64{0.099, 0.1065, 0.099, 0.6955, 0, 0} {
		if got := x.Globals["enc.usage"].Data[i]; math.Abs(got-want) > 1e-12 {
			t.Errorf("code %d has the share %v after a batch, want %v", i, got, want)
		}
	}
}
