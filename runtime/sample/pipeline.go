package sample

import (
	"cmp"
	"context"
	"slices"

	"github.com/gouache-ml/gouache/runtime/bpe"
	"github.com/gouache-ml/gouache/runtime/feed/dice"
	"github.com/gouache-ml/gouache/runtime/feed/picture"
)

// Pipeline draws pictures for captions and ranks them.
type Pipeline struct {
	Tokenizer *bpe.Tokenizer // with the models' text vocabulary reserved
	Prior     *Prior
	Decoder   *Decoder
	Ranker    *Ranker // nil: no ranking, pictures stay in the order they were drawn in
}

// Candidate is one picture drawn for a caption.
type Candidate struct {
	Number int // in order of drawing, from 0
	Drawn
	Picture picture.Picture
	// Score is the cosine of picture and caption, and what Options.Likelihood adds; 0
	// without a ranker.
	Score float64
}

// Result is what was drawn for a caption, the best candidate first.
type Result struct {
	Caption    string
	Truncated  bool // the caption has more tokens than the model's text positions
	Candidates []Candidate
}

// First is the candidate that was drawn first: what there would be without ranking.
func (r Result) First() Candidate {
	for _, c := range r.Candidates {
		if c.Number == 0 {
			return c
		}
	}
	return Candidate{}
}

// Draw draws n candidates for each caption. given is an image prompt for all of them,
// or nil. progress, which may be nil, is called with the number of pictures whose
// tokens are drawn.
func (p *Pipeline) Draw(ctx context.Context, captions []string, n int, given []int32, o Options, progress func(done int)) ([]Result, error) {
	var requests []Request
	results := make([]Result, len(captions))
	for i, caption := range captions {
		ids, _, truncated := p.Tokenizer.EncodePadded(caption, p.Prior.TextLen())
		results[i] = Result{Caption: caption, Truncated: truncated}
		for k := range n {
			requests = append(requests, Request{Text: ids, Caption: dice.HashString(caption), Candidate: uint64(k), Given: given})
		}
	}
	drawn, err := p.Prior.Draw(ctx, requests, o, progress)
	if err != nil {
		return nil, err
	}
	tokens := make([][]int32, len(drawn))
	for i, d := range drawn {
		tokens[i] = d.Tokens
	}
	pictures, err := p.Decoder.Decode(tokens)
	if err != nil {
		return nil, err
	}
	for i := range results {
		for k := range n {
			results[i].Candidates = append(results[i].Candidates, Candidate{Number: k, Drawn: drawn[i*n+k], Picture: pictures[i*n+k]})
		}
	}
	if p.Ranker == nil {
		return results, nil
	}
	return results, p.rank(results, pictures, n, o.Likelihood)
}

func (p *Pipeline) rank(results []Result, pictures []picture.Picture, n int, likelihood float64) error {
	var texts []Text
	for _, r := range results {
		texts = append(texts, p.Ranker.Text(p.Tokenizer, r.Caption))
	}
	ofText, err := p.Ranker.EmbedTexts(texts)
	if err != nil {
		return err
	}
	ofPicture, err := p.Ranker.EmbedPictures(pictures)
	if err != nil {
		return err
	}
	for i := range results {
		c := results[i].Candidates
		for k := range c {
			c[k].Score = Cosine(ofText[i], ofPicture[i*n+k]) + likelihood*c[k].LogLikelihood
		}
		slices.SortStableFunc(c, func(a, b Candidate) int { return cmp.Compare(b.Score, a.Score) })
	}
	return nil
}

// Text is a caption as the ranker's text tower reads it: the tokens, then zeros.
func (r *Ranker) Text(t *bpe.Tokenizer, caption string) Text {
	ids := t.Encode(caption)
	ids = ids[:min(len(ids), r.textLen)]
	end := max(0, len(ids)-1)
	return Text{append(ids, make([]int32, r.textLen-len(ids))...), int32(end)}
}
