package sample

import (
	"context"
	"fmt"
	"slices"

	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/feed/dice"
)

// Program is one compiled function; *exec.Program implements it.
type Program interface {
	Run()
	Input(name string) (*exec.Tensor, error)
	Output(name string) (*exec.Tensor, error)
	InputF32(name string) ([]float32, error)
	InputI32(name string) ([]int32, error)
	OutputF32(name string) ([]float32, error)
	OutputI32(name string) ([]int32, error)
}

// parallel calls f for each 0 <= i < n, on p's workers if it has some, as an *exec.Program does.
func parallel(p Program, n int, f func(i int)) {
	if w, ok := p.(interface{ Parallel(n int, f func(i int)) }); ok {
		w.Parallel(n, f)
		return
	}
	for i := range n {
		f(i)
	}
}

// Prior draws image tokens with the transformer's prefill and decode programs, which
// share KV caches. Prefill works on captions, decode on batches of pictures: the
// candidates of a caption have its prefix in common.
type Prior struct {
	prefill, decode                 Program
	batch, textLen, image, codebook int
}

// NewPrior finds the sizes of the programs; image is the number of tokens of a
// picture.
func NewPrior(prefill, decode Program, image int) (*Prior, error) {
	text, err := prefill.Input("text")
	if err != nil {
		return nil, err
	}
	slot, err := decode.Input("slot")
	if err != nil {
		return nil, err
	}
	logits, err := decode.Output("logits")
	if err != nil {
		return nil, err
	}
	if len(text.Shape) != 2 || text.Shape[0] != 1 || len(logits.Shape) != 2 || len(slot.Shape) != 1 || slot.Shape[0] != logits.Shape[0] {
		return nil, fmt.Errorf("prior: text is %s, slot %s and logits %s; want [1,length], [batch] and [batch,codes]", text, slot, logits)
	}
	return &Prior{prefill, decode, logits.Shape[0], text.Shape[1], image, logits.Shape[1]}, nil
}

// TextLen is the number of text positions, which a Request's Text must have.
func (p *Prior) TextLen() int { return p.textLen }

// Batch is how many pictures are drawn at a time.
func (p *Prior) Batch() int { return p.batch }

// Request is one picture to draw.
type Request struct {
	Text []int32 // padded token ids
	// Caption and Candidate are the keys of the picture's random numbers.
	Caption, Candidate uint64
	// Given are the first image tokens, if a part of the picture is known: an image
	// prompt (section 3.3).
	Given []int32
}

// Drawn are the image tokens of a picture.
type Drawn struct {
	Tokens []int32
	// LogLikelihood is the logarithm of the probability that the model gives to the tokens
	// that weren't given, at temperature 1.
	LogLikelihood float64
}

// Draw gives the image tokens of each request. progress, which may be nil, is called
// with the number of pictures done.
func (p *Prior) Draw(ctx context.Context, requests []Request, o Options, progress func(done int)) ([]Drawn, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	for i, r := range requests {
		if len(r.Text) != p.textLen {
			return nil, fmt.Errorf("prior: text %d has %d tokens, want %d with pads", i, len(r.Text), p.textLen)
		}
		if len(r.Given) > p.image {
			return nil, fmt.Errorf("prior: %d image tokens are given, a picture has %d", len(r.Given), p.image)
		}
		for _, t := range r.Given {
			if t < 0 || int(t) >= p.codebook {
				return nil, fmt.Errorf("prior: given image token %d is outside 0..%d", t, p.codebook-1)
			}
		}
	}
	out := make([]Drawn, len(requests))
	dists := make([]*Distribution, p.batch) // one for each stream
	for j := range dists {
		dists[j] = NewDistribution(o, p.codebook)
	}
	cached := make([]prefix, p.batch)
	for at := 0; at < len(requests); at += p.batch {
		n := min(p.batch, len(requests)-at)
		if err := p.drawBatch(ctx, requests[at:at+n], out[at:at+n], dists, cached); err != nil {
			return nil, err
		}
		if progress != nil {
			progress(at + n)
		}
	}
	return out, nil
}

// prefix is what prefill has left in the caches of one stream: a text, and its
// logits. Decoding overwrites the image's positions alone, so any candidate of the
// caption can go on from there.
type prefix struct {
	text   []int32 // nil: none
	logits []float32
}

// prefixes has the texts of requests, at most a batch, in the caches, and gives the
// stream that each one's is in. Texts that are there already are left; others take
// the place of those no longer needed.
func (p *Prior) prefixes(requests []Request, cached []prefix) ([]int32, error) {
	slots, needed := make([]int32, len(requests)), make([]bool, len(cached))
	find := func(text []int32) int {
		return slices.IndexFunc(cached, func(c prefix) bool { return slices.Equal(c.text, text) })
	}
	for _, r := range requests {
		if at := find(r.Text); at >= 0 {
			needed[at] = true
		}
	}
	for j, r := range requests {
		at := find(r.Text)
		if at < 0 {
			at = slices.Index(needed, false) // there are as many places as requests
			needed[at] = true
			text, err := p.prefill.InputI32("text")
			if err != nil {
				return nil, err
			}
			slot, err := p.prefill.InputI32("slot")
			if err != nil {
				return nil, err
			}
			copy(text, r.Text)
			slot[0] = int32(at)
			p.prefill.Run()
			logits, err := p.prefill.OutputF32("logits")
			if err != nil {
				return nil, err
			}
			cached[at] = prefix{slices.Clone(r.Text), slices.Clone(logits)}
		}
		slots[j] = int32(at)
	}
	return slots, nil
}

// drawBatch draws at most a batch; places of the batch that no request needs repeat
// the last.
func (p *Prior) drawBatch(ctx context.Context, requests []Request, out []Drawn, dists []*Distribution, cached []prefix) error {
	slots, err := p.prefixes(requests, cached)
	if err != nil {
		return err
	}
	token, err := p.decode.InputI32("token")
	if err != nil {
		return err
	}
	pos, err := p.decode.InputI32("pos")
	if err != nil {
		return err
	}
	slot, err := p.decode.InputI32("slot")
	if err != nil {
		return err
	}
	for j := range out {
		out[j].Tokens = make([]int32, p.image)
	}
	var decoded []float32
	failed := make([]error, len(requests))
	for i := range p.image {
		if err := ctx.Err(); err != nil {
			return err
		}
		parallel(p.decode, len(requests), func(j int) {
			r, dist := requests[j], dists[j]
			if i < len(r.Given) {
				out[j].Tokens[i] = r.Given[i]
				return
			}
			logits := cached[slots[j]].logits
			if i > 0 {
				logits = decoded[j*p.codebook : (j+1)*p.codebook]
			}
			if failed[j] = dist.Set(logits); failed[j] != nil {
				return
			}
			t := dist.Draw(dice.New(dist.options.Seed, r.Caption, r.Candidate, uint64(i)).Float64())
			out[j].Tokens[i] = t
			out[j].LogLikelihood += dist.LogP(t)
		})
		for _, err := range failed {
			if err != nil {
				return fmt.Errorf("prior: image token %d: %w", i, err)
			}
		}
		if i == p.image-1 {
			break
		}
		// The position of image token i, after the start token and the text, gives
		// the logits of token i+1. Inputs are written last: logits may share memory
		// with them.
		for j := range p.batch {
			of := min(j, len(requests)-1)
			token[j], slot[j] = out[of].Tokens[i], slots[of]
		}
		pos[0] = int32(p.textLen + 1 + i)
		p.decode.Run()
		if decoded, err = p.decode.OutputF32("logits"); err != nil {
			return err
		}
	}
	return nil
}
