package dalle

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/modeltest"
	"github.com/gouache-ml/gouache/models/nn"
)

// tiny has a layer of each mask.
var tiny = Config{
	TextLen: 3, TextVocab: 7, GridW: 4, GridH: 3, ImageVocab: 9,
	Dim: 8, Heads: 2, Layers: 3, Kernel: 3, Batch: 2, SampleBatch: 2,
	Optimizer: nn.AdamW{Beta1: 0.9, Beta2: 0.96, Eps: 1e-8, Decay: 4.5e-2, VarianceMax: 5},
}

func machine(t *testing.T, c Config) *modeltest.Machine {
	t.Helper()
	m, err := Build(c)
	return modeltest.Start(t, m, err)
}

// batch draws texts that end in pads, and images.
func batch(c Config, seed uint64) map[string][]float64 {
	r := rand.New(rand.NewPCG(seed, 2))
	text, image := make([]float64, c.Batch*c.TextLen), make([]float64, c.Batch*c.Image())
	for i := range text {
		text[i] = float64(r.IntN(c.TextVocab))
		if p := i % c.TextLen; p > i/c.TextLen {
			text[i] = float64(c.TextVocab + p)
		}
	}
	for i := range image {
		image[i] = float64(r.IntN(c.ImageVocab))
	}
	return map[string][]float64{"text": text, "image": image}
}

func TestInitialLossIsThatOfUniformGuesses(t *testing.T) {
	c := tiny
	out := machine(t, c).MustCall(t, "eval", batch(c, 1))
	text, image := math.Log(float64(c.TextClasses())), math.Log(float64(c.ImageVocab))
	for name, want := range map[string]float64{"text_loss": text, "image_loss": image, "loss": text/8 + image*7/8} {
		if got := out[name].Data[0]; math.Abs(got-want) > 1e-12 {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// Logit row p predicts target p, text first: changing target j may change
// rows after j alone, and does change some of them.
func TestTargetsDoNotInfluenceTheirOwnOrEarlierLogits(t *testing.T) {
	c := tiny
	c.Batch = 1
	x := machine(t, c)
	x.Scramble(3, 0.5)
	in := batch(c, 2)
	rows := func() [][]float64 {
		out := x.MustCall(t, "logits", in)
		var rows [][]float64
		for i := range c.TextLen {
			rows = append(rows, out["text_logits"].Data[i*c.TextClasses():][:c.TextClasses()])
		}
		for i := range c.Image() {
			rows = append(rows, out["image_logits"].Data[i*c.ImageVocab:][:c.ImageVocab])
		}
		return rows
	}
	before := rows()
	for j := range c.Stream() {
		target, of := in["text"], c.TextVocab
		k := j
		if j >= c.TextLen {
			target, of, k = in["image"], c.ImageVocab, j-c.TextLen
		}
		old := target[k]
		target[k] = float64((int(old) + 1) % of)
		after := rows()
		target[k] = old
		later := 0
		for p := range after {
			for i, v := range after[p] {
				if v == before[p][i] {
					continue
				}
				if p <= j {
					t.Fatalf("target %d changes logit row %d, which predicts it or an earlier one", j, p)
				}
				later++
			}
		}
		if later == 0 && j < c.Stream()-1 {
			t.Errorf("target %d changes no later logit", j)
		}
	}
}

func TestDecodeEqualsForward(t *testing.T) {
	c := tiny
	x := machine(t, c)
	x.Scramble(4, 0.5)
	in := batch(c, 3)
	want := x.MustCall(t, "logits", in)["image_logits"].Data
	check := func(how string, image int, got []float64) {
		t.Helper()
		for b := range c.Batch {
			for v := range c.ImageVocab {
				w, g := want[(b*c.Image()+image)*c.ImageVocab+v], got[b*c.ImageVocab+v]
				if math.Abs(w-g) > 1e-9 {
					t.Fatalf("%s: image token %d of sample %d: logit %d is %v, want %v", how, image, b, v, g, w)
				}
			}
		}
	}
	column := func(name string, width, i int) []float64 {
		var out []float64
		for b := range c.Batch {
			out = append(out, in[name][b*width+i])
		}
		return out
	}
	images := func(how string, slots ...float64) {
		for i := range c.Image() - 1 {
			out := x.MustCall(t, "decode", map[string][]float64{"token": column("image", c.Image(), i), "slot": slots, "pos": {float64(c.TextLen + 1 + i)}})
			check(how, i+1, out["logits"].Data)
		}
	}
	// prefill puts the texts of samples into these slots.
	prefill := func(slots ...float64) {
		var logits []float64
		for b, slot := range slots {
			out := x.MustCall(t, "prefill", map[string][]float64{"text": in["text"][b*c.TextLen:][:c.TextLen], "slot": {slot}})
			logits = append(logits, out["logits"].Data...)
		}
		check("prefill", 0, logits)
	}
	// What is left in the caches must not matter.
	for _, g := range x.Module.Globals {
		if g.Role == ir.State {
			for i := range x.Globals[g.Name].Data {
				x.Globals[g.Name].Data[i] = 1e3
			}
		}
	}
	prefill(0, 1)
	images("after prefill", 0, 1)
	images("again after prefill", 0, 1)
	prefill(1, 0)
	images("each with the text in the other's caches", 1, 0)

	for pos := range c.TextLen + 1 {
		token := make([]float64, c.Batch)
		if pos > 0 {
			token = column("text", c.TextLen, pos-1)
		}
		out := x.MustCall(t, "decode", map[string][]float64{"token": token, "slot": {0, 1}, "pos": {float64(pos)}})
		if pos == c.TextLen {
			check("text by decode", 0, out["logits"].Data)
		}
	}
	images("after text by decode", 0, 1)

	// Both samples have the first one's text, which is prefilled once.
	copy(in["text"][c.TextLen:], in["text"][:c.TextLen])
	want = x.MustCall(t, "logits", in)["image_logits"].Data
	x.MustCall(t, "prefill", map[string][]float64{"text": in["text"][:c.TextLen], "slot": {1}})
	images("candidates of one text", 1, 1)
}

func TestAverageFollowsParameters(t *testing.T) {
	x := machine(t, tiny)
	x.Scramble(5, 0.5)
	x.MustCall(t, "average", map[string][]float64{"decay": {0}})
	first := x.Globals["norm.gain"].Data[0]
	if got := x.Globals["norm.gain.avg"].Data[0]; got != first {
		t.Fatalf("decay 0 gives %v, want a copy of %v", got, first)
	}
	x.Globals["norm.gain"].Data[0] = first + 1
	x.MustCall(t, "average", map[string][]float64{"decay": {0.75}})
	if got, want := x.Globals["norm.gain.avg"].Data[0], first+0.25; math.Abs(got-want) > 1e-12 {
		t.Errorf("average %v, want %v", got, want)
	}
}
