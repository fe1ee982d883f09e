package clip

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/modeltest"
	"github.com/gouache-ml/gouache/models/nn"
)

var tiny = Config{
	ImageSize: 8, Patch: 4, ImageDim: 8, ImageHeads: 2, TextLen: 5, TextVocab: 11, TextDim: 12, TextHeads: 3,
	Layers: 2, Embed: 6, Batch: 3,
}

func machine(t *testing.T) *modeltest.Machine {
	t.Helper()
	m, err := Build(tiny)
	return modeltest.Start(t, m, err)
}

func batch() map[string][]float64 {
	r := rand.New(rand.NewPCG(1, 1))
	images, text := make([]float64, tiny.Batch*tiny.ImageSize*tiny.ImageSize*3), make([]float64, tiny.Batch*tiny.TextLen)
	for i := range images {
		images[i] = r.Float64()
	}
	for i := range text {
		text[i] = float64(r.IntN(tiny.TextVocab))
	}
	return map[string][]float64{"images": images, "text": text, "end": {1, 4, 2}}
}

func TestTextAfterTheEndHasNoInfluence(t *testing.T) {
	x, in := machine(t), batch()
	x.Scramble(2, 0.5)
	before := x.MustCall(t, "embed_text", in)["features"].Data
	change := func(at int) []float64 {
		text := append([]float64(nil), in["text"]...)
		text[at] = math.Mod(text[at]+1, float64(tiny.TextVocab))
		return x.MustCall(t, "embed_text", map[string][]float64{"text": text, "end": in["end"]})["features"].Data
	}
	for b := range tiny.Batch {
		for p := range tiny.TextLen {
			after := change(b*tiny.TextLen + p)
			for s := range tiny.Batch {
				same := true
				for i := range tiny.Embed {
					same = same && after[s*tiny.Embed+i] == before[s*tiny.Embed+i]
				}
				if want := s != b || p > int(in["end"][b]); same != want {
					t.Errorf("changing token %d of text %d: feature %d unchanged is %v, want %v", p, b, s, same, want)
				}
			}
		}
	}
}

func TestFeaturesHaveUnitLength(t *testing.T) {
	for _, stem := range []int{0, 4} {
		c, in := tiny, batch()
		c.Stem = stem
		m, err := Build(c)
		x := modeltest.Start(t, m, err)
		x.Scramble(3, 0.5)
		for _, f := range []string{"embed_image", "embed_text"} {
			out := x.MustCall(t, f, in)["features"].Data
			for b := range tiny.Batch {
				var sum float64
				for _, v := range out[b*tiny.Embed:][:tiny.Embed] {
					sum += v * v
				}
				if math.Abs(sum-1) > 1e-12 {
					t.Errorf("stem %d, %s: feature %d has squared length %v", stem, f, b, sum)
				}
			}
		}
	}
}

// Patches are seen by their own tokens alone, with a stem by their
// neighbours' too: a pixel changes the sum of the embedding at the patches
// that see it.
func TestStemSeesAcrossPatches(t *testing.T) {
	for stem, want := range map[int]int{0: 1, 4: 4} {
		c := tiny
		c.Stem = stem
		m := ir.NewModule("clip")
		f := m.NewFunc("patches")
		f.Result("rows", c.patches(nn.In(f), f.Input("images", ir.T(ir.F32, 1, 8, 8, 3)), 1))
		x := modeltest.Start(t, m, f.Err())
		x.Scramble(4, 1)
		images := batch()["images"][:8*8*3]
		before := x.MustCall(t, "patches", map[string][]float64{"images": images})["rows"]
		images[(3*8+3)*3] += 50 // the last pixel of the first patch
		after := x.MustCall(t, "patches", map[string][]float64{"images": images})["rows"]
		n, changed := len(before.Data)/4, 0
		for p := range 4 {
			if !slices.Equal(before.Data[p*n:(p+1)*n], after.Data[p*n:(p+1)*n]) {
				changed++
			}
		}
		if changed != want {
			t.Errorf("stem %d: a pixel changes %d patches of 4, want %d", stem, changed, want)
		}
	}
}

func TestScaleStartsAtItsValueAndIsCapped(t *testing.T) {
	x, in := machine(t), batch()
	if got := x.MustCall(t, "eval", in)["scale"].Data[0]; math.Abs(got-1/0.07) > 1e-9 {
		t.Errorf("scale starts at %v, want 1/0.07", got)
	}
	x.Globals["temperature"].Data[0] = 10
	out := x.MustCall(t, "eval", in)
	if got := out["scale"].Data[0]; got != 100 {
		t.Errorf("scale %v, want the cap 100", got)
	}
	// The loss by hand from the similarities.
	var loss, hits float64
	s := func(i, j int) float64 { return 100 * out["similarity"].Data[i*tiny.Batch+j] }
	for i := range tiny.Batch {
		var row, col float64
		best := 0
		for j := range tiny.Batch {
			row += math.Exp(s(i, j))
			col += math.Exp(s(j, i))
			if s(i, j) > s(i, best) {
				best = j
			}
		}
		loss += (math.Log(row) + math.Log(col) - 2*s(i, i)) / float64(2*tiny.Batch)
		if best == i {
			hits++
		}
	}
	if got := out["loss"].Data[0]; math.Abs(got-loss) > 1e-9 {
		t.Errorf("loss %v, want %v", got, loss)
	}
	if got := out["accuracy"].Data[0]; math.Abs(got-hits/float64(tiny.Batch)) > 1e-12 {
		t.Errorf("accuracy %v, want %v of %d", got, hits, tiny.Batch)
	}
}
