package sample

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestExponentials(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const top = 0.25
	logits := []float32{top, top - 0x1p-20, -0.75, top - math.Ln2, -707.75, -707, -708, -1e30, float32(math.Inf(-1))}
	for range 200_000 {
		logits = append(logits, float32(top-r.ExpFloat64()*float64(uint(1)<<r.IntN(7))))
	}
	out := make([]float64, len(logits))
	for _, temperature := range []float64{1, 0.7, 3} {
		exponentials(out, logits, top, temperature)
		worst := 0.0
		for i, v := range logits {
			x := (float64(v) - top) / temperature
			if x < -708 {
				if out[i] != 0 {
					t.Fatalf("e^%g is %g, want 0", x, out[i])
				}
				continue
			}
			want := math.Exp(x) // within 1 unit itself
			worst = max(worst, math.Abs(out[i]-want)/(math.Nextafter(want, 2)-want))
		}
		t.Logf("temperature %g: within %.2f units in the last place of math.Exp", temperature, worst)
		if worst > 3 || out[0] != 1 {
			t.Errorf("temperature %g: %.2f units in the last place from math.Exp, want 3 at most; e^0 is %v", temperature, worst, out[0])
		}
	}
}

func BenchmarkDraw(b *testing.B) {
	logits := make([]float32, 8192)
	for i := range logits {
		logits[i] = float32(rand.NormFloat64())
	}
	d := NewDistribution(Options{Temperature: 1}, len(logits))
	for b.Loop() {
		if err := d.Set(logits); err != nil {
			b.Fatal(err)
		}
		d.LogP(d.Draw(0.5))
	}
}
