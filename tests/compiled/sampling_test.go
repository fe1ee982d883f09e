package compiled

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/sample"
)

// recorder keeps the logits of every run.
type recorder struct {
	sample.Program
	logits [][]float32
}

func (r *recorder) Run() {
	r.Program.Run()
	x, err := r.OutputF32("logits")
	if err != nil {
		panic(err)
	}
	r.logits = append(r.logits, slices.Clone(x))
}

// drawn is what the model makes of each request: the tokens and their likelihood, and
// all logits that they were drawn from but the first's.
func drawn(t *testing.T, m *exec.Model, c dalle.Config, requests []sample.Request) []string {
	t.Helper()
	program := func(name string) *recorder {
		p, err := m.Program(name)
		if err != nil {
			t.Fatal(err)
		}
		return &recorder{Program: p}
	}
	prefill, decode := program("prefill"), program("decode")
	p, err := sample.NewPrior(prefill, decode, c.Image())
	if err != nil {
		t.Fatal(err)
	}
	pictures, err := p.Draw(context.Background(), requests, sample.Options{Temperature: 0.9, Seed: 3}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i, x := range pictures {
		s := fmt.Sprint(x)
		likelihood := logSoftmax(prefill.logits[0], x.Tokens[0]) // of the first request's caption
		for step := range c.Image() - 1 {
			logits := decode.logits[i/c.SampleBatch*(c.Image()-1)+step][i%c.SampleBatch*c.ImageVocab:][:c.ImageVocab]
			s += fmt.Sprintf(" %x", logits)
			likelihood += logSoftmax(logits, x.Tokens[step+1])
		}
		if i == 0 && math.Abs(x.LogLikelihood-likelihood) > 1e-9 {
			t.Errorf("the log-likelihood is %g, by the logits %g", x.LogLikelihood, likelihood)
		}
		out = append(out, s)
	}
	return out
}

// logSoftmax is the logarithm of a token's probability.
func logSoftmax(logits []float32, token int32) float64 {
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v) - float64(logits[token]))
	}
	return -math.Log(sum)
}

// A candidate has the same bits alone and beside others of its caption or of other
// captions, whatever was drawn before, with any number of threads.
func TestSamplesHaveTheSameBitsInAnyBatch(t *testing.T) {
	c := dalle.Config{TextLen: 12, TextVocab: 30, GridW: 6, GridH: 6, ImageVocab: 40, Dim: 96, Heads: 3, Layers: 3, Kernel: 3, Batch: 2, SampleBatch: 6, Optimizer: adam}
	m, err := dalle.Build(c)
	if err != nil {
		t.Fatal(err)
	}
	m.Funcs = slices.DeleteFunc(m.Funcs, func(f *ir.Func) bool { return f.Name != "prefill" && f.Name != "decode" })
	spec, err := Compile("sampling", m)
	if err != nil {
		t.Fatal(err)
	}
	var all []sample.Request
	for caption := range 3 {
		text := make([]int32, c.TextLen)
		for i := range text {
			text[i] = int32((7*caption + 5*i) % c.TextVocab)
		}
		for candidate := range 5 { // batches of 5 and 1, 4 and 2, 3
			all = append(all, sample.Request{Text: text, Caption: uint64(caption), Candidate: uint64(candidate)})
		}
	}
	backwards := slices.Clone(all)
	slices.Reverse(backwards)
	for _, target := range Targets() {
		var want []string
		for _, threads := range threadCounts() {
			x, err := open(t, spec, target, threads).Model(m.Name)
			if err != nil {
				t.Fatal(err)
			}
			if err := x.Init(1); err != nil {
				t.Fatal(err)
			}
			// The unembedding begins as 0, and would give all pictures the same logits.
			r := rand.New(rand.NewPCG(1, 2))
			for _, g := range x.Globals() {
				values, err := g.F32()
				if err != nil {
					continue // a table of a mask
				}
				for i := range values {
					values[i] += 0.1 * float32(r.NormFloat64())
				}
			}
			got := drawn(t, x, c, all)
			if want == nil {
				want = got
				distinct := map[string]bool{}
				for _, s := range want {
					distinct[s] = true
				}
				if len(distinct) != len(all) {
					t.Errorf("%s: %d distinct pictures of %d", target, len(distinct), len(all))
				}
			}
			check := func(how string, i int, s string) {
				if s != want[i] {
					t.Errorf("%s, %d threads: caption %d, candidate %d has other bits %s", target, threads, all[i].Caption, all[i].Candidate, how)
				}
			}
			for i, s := range got {
				check("than with one thread", i, s)
			}
			for i, s := range drawn(t, x, c, backwards) {
				check("in another order", len(all)-1-i, s)
			}
			for i := range all {
				check("alone", i, drawn(t, x, c, all[i:i+1])[0])
			}
		}
	}
}
