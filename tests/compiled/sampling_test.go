package compiled

import (
	"context"
	"fmt"
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

// drawn is what the model makes of each request: the tokens, and all logits that
// they were drawn from but the first's.
func drawn(t *testing.T, m *exec.Model, c dalle.Config, requests []sample.Request) []string {
	t.Helper()
	prefill, err := m.Program("prefill")
	if err != nil {
		t.Fatal(err)
	}
	decode, err := m.Program("decode")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{Program: decode}
	p, err := sample.NewPrior(prefill, r, c.Image())
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := p.Draw(context.Background(), requests, sample.Options{Temperature: 1, Seed: 3}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i := range requests {
		s := fmt.Sprint(tokens[i])
		for step := range c.Image() - 1 {
			s += fmt.Sprintf(" %x", r.logits[i/c.SampleBatch*(c.Image()-1)+step][i%c.SampleBatch*c.ImageVocab:][:c.ImageVocab])
		}
		out = append(out, s)
	}
	return out
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
