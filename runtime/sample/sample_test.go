package sample_test

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/runtime/bpe"
	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/feed/dice"
	"github.com/gouache-ml/gouache/runtime/feed/shapes"
	"github.com/gouache-ml/gouache/runtime/sample"
	"github.com/gouache-ml/gouache/runtime/train"
	"github.com/gouache-ml/gouache/runtime/train/toy"
)

// logits of probabilities 0.4, 0.1, 0.3, 0.15, 0.05.
func logits() []float32 {
	var x []float32
	for _, p := range []float64{0.4, 0.1, 0.3, 0.15, 0.05} {
		x = append(x, float32(math.Log(p)+5))
	}
	return x
}

func TestDistributionFollowsItsOptions(t *testing.T) {
	plain := []float64{0.4, 0.1, 0.3, 0.15, 0.05}
	for _, c := range []struct {
		name string
		o    sample.Options
		want []float64
	}{
		{"plain", sample.Options{Temperature: 1}, []float64{0.4, 0.1, 0.3, 0.15, 0.05}},
		{"top-p 1", sample.Options{Temperature: 1, TopP: 1}, []float64{0.4, 0.1, 0.3, 0.15, 0.05}},
		{"greedy", sample.Options{}, []float64{1, 0, 0, 0, 0}},
		{"cold", sample.Options{Temperature: 0.5}, []float64{0.16 / 0.285, 0.01 / 0.285, 0.09 / 0.285, 0.0225 / 0.285, 0.0025 / 0.285}},
		{"top-k 2", sample.Options{Temperature: 1, TopK: 2}, []float64{4. / 7, 0, 3. / 7, 0, 0}},
		{"top-k 1", sample.Options{Temperature: 3, TopK: 1}, []float64{1, 0, 0, 0, 0}},
		{"top-k more than there are", sample.Options{Temperature: 1, TopK: 9}, []float64{0.4, 0.1, 0.3, 0.15, 0.05}},
		{"top-p 0.5", sample.Options{Temperature: 1, TopP: 0.5}, []float64{4. / 7, 0, 3. / 7, 0, 0}},
		{"top-p 0.39", sample.Options{Temperature: 1, TopP: 0.39}, []float64{1, 0, 0, 0, 0}},
		{"top-p 0.8", sample.Options{Temperature: 1, TopP: 0.8}, []float64{0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85, 0}},
		{"top-p of what top-k leaves", sample.Options{Temperature: 1, TopK: 2, TopP: 0.55}, []float64{1, 0, 0, 0, 0}},
	} {
		d := sample.NewDistribution(c.o, 5)
		for range 2 { // memory is used again
			if err := d.Set(logits()); err != nil {
				t.Fatal(err)
			}
			for i, p := range d.P() {
				if math.Abs(p-c.want[i]) > 1e-6 {
					t.Errorf("%s: probability of %d is %g, want %g", c.name, i, p, c.want[i])
				}
				// Whatever is drawn from, the likelihood is the model's own.
				if got, want := d.LogP(int32(i)), math.Log(plain[i]); math.Abs(got-want) > 1e-6 {
					t.Errorf("%s: log-probability of %d is %g, want %g", c.name, i, got, want)
				}
			}
		}
	}
}

func TestEqualLogitsKeepLowerIDs(t *testing.T) {
	d := sample.NewDistribution(sample.Options{Temperature: 1, TopK: 2}, 4)
	if err := d.Set([]float32{1, 1, 1, 1}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(d.P(), []float64{0.5, 0.5, 0, 0}) {
		t.Errorf("got %v", d.P())
	}
}

func TestDrawsHaveTheDistribution(t *testing.T) {
	d := sample.NewDistribution(sample.Options{Temperature: 1}, 5)
	if err := d.Set(logits()); err != nil {
		t.Fatal(err)
	}
	const n = 100_000
	var counts [5]int
	r := dice.New(1)
	for range n {
		counts[d.Draw(r.Float64())]++
	}
	chi := 0.0
	for i, c := range counts {
		e := d.P()[i] * n
		chi += (float64(c) - e) * (float64(c) - e) / e
	}
	if chi > 23.5 { // one in ten thousand, 4 degrees of freedom
		t.Errorf("counts %v: chi-squared %g", counts, chi)
	}
	if d.Draw(0) != 0 || d.Draw(math.Nextafter(1, 0)) != 4 {
		t.Errorf("ends are %d and %d", d.Draw(0), d.Draw(math.Nextafter(1, 0)))
	}
}

func TestExtremeLogitsAreFineAndNaNIsNot(t *testing.T) {
	d := sample.NewDistribution(sample.Options{Temperature: 0.01}, 3)
	inf := float32(math.Inf(-1))
	if err := d.Set([]float32{3e38, -3e38, inf}); err != nil || !slices.Equal(d.P(), []float64{1, 0, 0}) {
		t.Errorf("%v: %v", err, d.P())
	}
	for _, bad := range [][]float32{{0, float32(math.NaN()), 0}, {0, float32(math.Inf(1)), 0}, {inf, inf, inf}} {
		if err := d.Set(bad); err == nil {
			t.Errorf("%v is accepted", bad)
		}
	}
}

// pipeline is the toy with random weights.
func pipeline(t *testing.T) *sample.Pipeline {
	t.Helper()
	sys := toy.New()
	program := func(model, name string) train.Program {
		m, err := sys.Model(model)
		if err != nil {
			t.Fatal(err)
		}
		p, err := m.Program(name)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, name := range sys.Models() {
		m, err := sys.Model(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Init(5); err != nil {
			t.Fatal(err)
		}
		for _, g := range m.Select(func(*exec.Global) bool { return true }) { // weights that matter
			x, _ := g.F32()
			for i := range x {
				x[i] *= 20
			}
		}
	}
	tok, err := bpe.Train(slices.Values(shapes.TrainingCaptions()), toy.TextVocab)
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.Reserve(toy.TextVocab); err != nil {
		t.Fatal(err)
	}
	p := &sample.Pipeline{Tokenizer: tok}
	if p.Decoder, err = sample.NewDecoder(program("dvae", "decode")); err != nil {
		t.Fatal(err)
	}
	if p.Prior, err = sample.NewPrior(program("prior", "prefill"), program("prior", "decode"), p.Decoder.Image()); err != nil {
		t.Fatal(err)
	}
	if p.Ranker, err = sample.NewRanker(program("clip", "embed_image"), program("clip", "embed_text")); err != nil {
		t.Fatal(err)
	}
	return p
}

func draw(t *testing.T, p *sample.Pipeline, captions []string, n int, given []int32, o sample.Options) []sample.Result {
	t.Helper()
	r, err := p.Draw(context.Background(), captions, n, given, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSamplesDontDependOnWhatIsDrawnBeside(t *testing.T) {
	p := pipeline(t)
	captions := shapes.HeldOutCaptions(7, 1)
	o := sample.Options{Temperature: 1, TopP: 0.95, Seed: 4}
	together := draw(t, p, captions, 3, nil, o) // 21 pictures in batches of 6
	distinct := map[string]bool{}
	// In another order, more of each: other neighbours, batches and places.
	backwards := slices.Clone(captions)
	slices.Reverse(backwards)
	more := draw(t, p, backwards, 5, nil, o)
	for i, caption := range captions {
		for k := range 3 {
			alone := draw(t, p, []string{caption}, k+1, nil, o)
			find := func(r sample.Result) sample.Candidate {
				for _, c := range r.Candidates {
					if c.Number == k {
						return c
					}
				}
				t.Fatalf("no candidate %d", k)
				return sample.Candidate{}
			}
			a := find(together[i])
			for how, b := range map[string]sample.Candidate{"alone": find(alone[0]), "among more": find(more[len(captions)-1-i])} {
				if !slices.Equal(a.Tokens, b.Tokens) || a.Score != b.Score || !slices.Equal(a.Picture.Pixels, b.Picture.Pixels) {
					t.Errorf("%q, candidate %d differs when it is drawn %s", caption, k, how)
				}
			}
			s := make([]byte, len(a.Tokens))
			for i, v := range a.Tokens {
				s[i] = byte(v)
			}
			distinct[string(s)] = true
		}
	}
	if len(distinct) < 20 {
		t.Errorf("%d distinct pictures of 21", len(distinct))
	}
	o.Seed++
	if other := draw(t, p, captions[:1], 1, nil, o); slices.Equal(other[0].Candidates[0].Tokens, together[0].First().Tokens) {
		t.Error("another seed gives the same picture")
	}
}

func TestLikelihoodRanksBesideTheCosine(t *testing.T) {
	p := pipeline(t)
	captions := shapes.HeldOutCaptions(3, 1)
	o := sample.Options{Temperature: 1, Seed: 4}
	byNumber := func(r sample.Result) []sample.Candidate {
		c := slices.Clone(r.Candidates)
		slices.SortFunc(c, func(a, b sample.Candidate) int { return a.Number - b.Number })
		return c
	}
	alone := draw(t, p, captions, 8, nil, o)
	o.Likelihood = 0.05
	both := draw(t, p, captions, 8, nil, o)
	o.Likelihood = 1e6
	likely := draw(t, p, captions, 8, nil, o)
	for i := range captions {
		a, b := byNumber(alone[i]), byNumber(both[i])
		for k := range a {
			if a[k].LogLikelihood >= 0 || a[k].LogLikelihood != b[k].LogLikelihood {
				t.Errorf("candidate %d has log-likelihoods %g and %g", k, a[k].LogLikelihood, b[k].LogLikelihood)
			}
			if want := a[k].Score + 0.05*a[k].LogLikelihood; b[k].Score != want {
				t.Errorf("candidate %d scores %g, want %g", k, b[k].Score, want)
			}
		}
		order := likely[i].Candidates
		if !slices.IsSortedFunc(order, func(a, b sample.Candidate) int { return cmp.Compare(b.LogLikelihood, a.LogLikelihood) }) {
			t.Errorf("%q: with all weight on it, likelihood doesn't decide", captions[i])
		}
		// What is given says nothing of how likely the rest is.
		c := alone[i].First()
		rest := draw(t, p, captions[i:i+1], 1, c.Tokens, o)[0].First()
		if rest.LogLikelihood != 0 {
			t.Errorf("a picture that is given has a log-likelihood of %g", rest.LogLikelihood)
		}
	}
}

func TestCachedDecodingFollowsTheModel(t *testing.T) {
	// The toy's logits of token i depend on token i-1 and the text: greedy decoding
	// must follow that chain, whatever was in the caches.
	p := pipeline(t)
	o := sample.Options{}
	first := draw(t, p, []string{"a small red circle", "a large blue cross"}, 1, nil, o)
	draw(t, p, shapes.HeldOutCaptions(6, 2), 1, nil, sample.Options{Temperature: 1})
	again := draw(t, p, []string{"a large blue cross"}, 1, nil, o)
	if !slices.Equal(first[1].Candidates[0].Tokens, again[0].Candidates[0].Tokens) {
		t.Error("greedy tokens depend on what was drawn before")
	}
	given := first[1].Candidates[0].Tokens[:6]
	prompted := draw(t, p, []string{"a large blue cross"}, 1, given, o)
	if !slices.Equal(prompted[0].Candidates[0].Tokens, again[0].Candidates[0].Tokens) {
		t.Error("greedy tokens differ when their beginning is given")
	}
}

// counted counts a program's runs.
type counted struct {
	sample.Program
	runs int
}

func (c *counted) Run() {
	c.runs++
	c.Program.Run()
}

func TestCandidatesShareTheirCaptionsPrefix(t *testing.T) {
	sys := toy.New()
	m, err := sys.Model("prior")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(5); err != nil {
		t.Fatal(err)
	}
	prefill, err := m.Program("prefill")
	if err != nil {
		t.Fatal(err)
	}
	decode, err := m.Program("decode")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		captions []int // of each request
		want     int
	}{
		{"one caption, five batches", make([]int, 4*toy.Batch+1), 1},
		{"two captions that meet in a batch", slices.Concat(make([]int, toy.Batch+1), repeat(1, toy.Batch+1)), 2},
		{"a caption each", []int{0, 1, 2, 3, 4, 5, 6, 7}, 8},
		{"two captions in turns", []int{0, 1, 0, 1, 0, 1, 0, 1, 0, 1}, 2},
		// Caption 1 stays while others take the places that batches leave free.
		{"one among others", []int{0, 1, 2, 3, 4, 5, 1, 6, 7, 8, 9, 10, 1, 11}, 12},
	} {
		count := &counted{Program: prefill}
		p, err := sample.NewPrior(count, decode, 16)
		if err != nil {
			t.Fatal(err)
		}
		var requests []sample.Request
		for i, caption := range c.captions {
			text := make([]int32, p.TextLen())
			text[0] = int32(caption)
			requests = append(requests, sample.Request{Text: text, Caption: uint64(caption), Candidate: uint64(i)})
		}
		if _, err := p.Draw(context.Background(), requests, sample.Options{Temperature: 1}, nil); err != nil {
			t.Fatal(err)
		}
		if count.runs != c.want {
			t.Errorf("%s: %d runs of prefill, want %d", c.name, count.runs, c.want)
		}
	}
}

func repeat(x, n int) []int { return slices.Repeat([]int{x}, n) }

func TestCandidatesAreRankedByScore(t *testing.T) {
	p := pipeline(t)
	r := draw(t, p, []string{"a small green square"}, 9, nil, sample.Options{Temperature: 1})[0]
	numbers := map[int]bool{}
	for k, c := range r.Candidates {
		numbers[c.Number] = true
		if k > 0 && c.Score > r.Candidates[k-1].Score {
			t.Errorf("rank %d scores %g, the one before %g", k, c.Score, r.Candidates[k-1].Score)
		}
		if math.Abs(c.Score) > 1+1e-6 || c.Score == 0 {
			t.Errorf("score %g is no cosine", c.Score)
		}
	}
	if len(numbers) != 9 || r.First().Number != 0 {
		t.Errorf("candidates %v", numbers)
	}
	p.Ranker = nil
	for k, c := range draw(t, p, []string{"a small green square"}, 9, nil, sample.Options{Temperature: 1})[0].Candidates {
		if c.Number != k || c.Score != 0 {
			t.Errorf("without a ranker, place %d has candidate %d with score %g", k, c.Number, c.Score)
		}
	}
}

func TestLongCaptionsAreCutAndSaidToBe(t *testing.T) {
	r := draw(t, pipeline(t), []string{"a small red circle", strings.Repeat("circle and square ", 30)}, 1, nil, sample.Options{Temperature: 1})
	if r[0].Truncated || !r[1].Truncated {
		t.Errorf("truncated: %t, %t", r[0].Truncated, r[1].Truncated)
	}
}

func TestWrongRequestsAreErrors(t *testing.T) {
	p := pipeline(t)
	for _, c := range []struct {
		given []int32
		o     sample.Options
		want  string
	}{
		{nil, sample.Options{Temperature: -1}, "temperature"},
		{nil, sample.Options{Temperature: math.NaN()}, "temperature"},
		{nil, sample.Options{TopK: -1}, "top-k"},
		{nil, sample.Options{TopP: 1.5}, "top-p"},
		{[]int32{27}, sample.Options{}, "given image token 27"},
		{make([]int32, 17), sample.Options{}, "17 image tokens"},
	} {
		if _, err := p.Draw(context.Background(), []string{"a cross"}, 1, c.given, c.o, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Draw(ctx, []string{"a cross"}, 1, nil, sample.Options{}, nil); err == nil {
		t.Error("drawing went on after it was cancelled")
	}
}
