package train

import (
	"context"
	"fmt"

	"github.com/gouache-ml/gouache/runtime/feed"
	"github.com/gouache-ml/gouache/runtime/feed/dice"
)

// DVAE is the stage of the first model. codes is the size of its codebook.
func DVAE(c *Config, d *Data, m Model, codes int) (*Stage, error) {
	train, batch, side, err := pictureInput(m, "train")
	if err != nil {
		return nil, err
	}
	loader, err := d.loader(d.Training, feed.LoaderOptions{Side: side, Batch: batch, Seed: c.Seed, Augment: feed.AugmentVAE(side)})
	if err != nil {
		return nil, err
	}
	next, last := int64(-1), int64(0)
	usage := NewUsage(codes)
	o := c.DVAE
	s := &Stage{Name: "dvae", Unit: "images", Options: o.Options, Close: loader.Close, Report: loader.Report}
	s.Fill = func(ctx context.Context, step int64) (float64, error) {
		b, err := nextBatch(ctx, loader, &next, step)
		if err != nil {
			return 0, err
		}
		last = step
		images, err := train.InputF32("images")
		if err != nil {
			return 0, err
		}
		pixels(images, b.Pixels)
		if err := setInt(train, "seed", int64(dice.Hash(c.Seed)>>33)); err != nil {
			return 0, err
		}
		if err := setInt(train, "step", step); err != nil {
			return 0, err
		}
		if err := setScalar(train, "tau", o.tau(step)); err != nil {
			return 0, err
		}
		return float64(batch), setScalar(train, "beta", o.beta(step))
	}
	s.Observe = func() error {
		tokens, err := train.OutputI32("tokens")
		if err != nil {
			return err
		}
		usage.Add(tokens)
		return nil
	}
	s.Extra = func(v map[string]float64) {
		v["codebook_perplexity"] = usage.Perplexity()
		v["codes_used"] = float64(usage.Used())
		v["tau"], v["beta"] = o.tau(last), o.beta(last)
		usage.Reset()
	}
	s.Validation, err = DVAEValidation(c, d, m)
	// What pictures look like in the end is the reconstruction's business; the full
	// loss changes with beta alone.
	s.Loss = "reconstruction"
	return s, err
}

func (o DVAEConfig) beta(step int64) float64 {
	if from := int64(o.ReleaseFrom * float64(o.Steps)); o.ReleaseFrom > 0 && step >= from {
		return Cosine(o.Beta, o.Release, step-from, int64(o.ReleaseOver*float64(o.Steps)))
	}
	return Cosine(0, o.Beta, step, int64(o.BetaOver*float64(o.Steps)))
}

func (o DVAEConfig) tau(step int64) float64 {
	return Cosine(1, o.Tau, step, int64(o.TauOver*float64(o.Steps)))
}

// DVAEValidation fills the dVAE's eval program with batch n of the validation
// pictures; the weight of the KL term is its final one.
func DVAEValidation(c *Config, d *Data, m Model) (func(n int) error, error) {
	eval, batch, side, err := pictureInput(m, "eval")
	if err != nil {
		return nil, err
	}
	at, err := validationBatches(c, d, side, batch, 1)
	if err != nil {
		return nil, err
	}
	return func(n int) error {
		b, err := at(n)
		if err != nil {
			return err
		}
		images, err := eval.InputF32("images")
		if err != nil {
			return err
		}
		pixels(images, b.Pixels)
		return setScalar(eval, "beta", c.DVAE.Beta)
	}, nil
}

// validationBatches looks up batches of validation pictures in order.
func validationBatches(c *Config, d *Data, side, batch, pool int) (func(n int) (*feed.Batch, error), error) {
	loader, err := d.loader(d.Validation, feed.LoaderOptions{
		Side: side, Batch: batch, Seed: c.Seed, InOrder: true, Pool: pool, Augment: feed.AugmentPrior(side),
	})
	if err != nil {
		return nil, err
	}
	return func(n int) (*feed.Batch, error) { return loader.At(uint64(n)) }, nil
}

// pictureInput finds a program with its input images [batch,side,side,3].
func pictureInput(m Model, program string) (p Program, batch, side int, err error) {
	if p, err = m.Program(program); err != nil {
		return nil, 0, 0, err
	}
	in, err := p.Input("images")
	if err != nil {
		return nil, 0, 0, err
	}
	shape, err := shapeOf(in, 4)
	if err != nil {
		return nil, 0, 0, err
	}
	return p, shape[0], shape[1], nil
}

// nextBatch takes the batch of a step, repositioning the loader where steps don't
// follow each other, as after a resume.
func nextBatch(ctx context.Context, l *feed.Loader, next *int64, step int64) (*feed.Batch, error) {
	if *next != step {
		l.StartAt(uint64(step))
	}
	b, err := l.Next(ctx)
	*next = step + 1
	if err != nil {
		*next = -1
	}
	return b, err
}

// priorInputs are the inputs of the prior's train and eval programs.
type priorInputs struct {
	text, image    []int32
	batch, textLen int
}

func newPriorInputs(m Model, program string) (*priorInputs, error) {
	p, err := m.Program(program)
	if err != nil {
		return nil, err
	}
	in, err := p.Input("text")
	if err != nil {
		return nil, err
	}
	shape, err := shapeOf(in, 2)
	if err != nil {
		return nil, err
	}
	f := &priorInputs{batch: shape[0], textLen: shape[1]}
	if f.text, err = in.I32(); err != nil {
		return nil, err
	}
	f.image, err = p.InputI32("image")
	return f, err
}

// set writes sample j: picture i of the codes.
func (f *priorInputs) set(j int, c *Codes, i int, t *Tokenizer, dropout float64, seed, slot uint64) {
	n := len(f.image) / f.batch
	for k, v := range c.Picture(i) {
		f.image[j*n+k] = int32(v)
	}
	t.encodeCaption(f.text[j*f.textLen:(j+1)*f.textLen], c.Captions[i], dropout, seed, slot)
}

// PriorBatch is the number of pairs of the prior's eval program.
func PriorBatch(m Model) (int, error) {
	f, err := newPriorInputs(m, "eval")
	if err != nil {
		return 0, err
	}
	return f.batch, nil
}

// Prior is the stage of the transformer, on encoded pictures: every epoch in another
// order, with other dropout. dvae is the hash of the weights that encoded them.
func Prior(c *Config, m Model, training, validation *Codes, t *Tokenizer, dvae string) (*Stage, error) {
	f, err := newPriorInputs(m, "train")
	if err != nil {
		return nil, err
	}
	if n := len(f.image) / f.batch; n != training.Image {
		return nil, fmt.Errorf("%s: takes %d image tokens, the dvae gives %d", m.Name(), n, training.Image)
	}
	s := &Stage{Name: "prior", Unit: "tokens", Options: c.Prior.Options, Upstream: Upstream{DVAE: dvae, Tokenizer: t.SHA256}}
	s.Fill = func(ctx context.Context, step int64) (float64, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n := uint64(training.Len())
		for j := range f.batch {
			slot := uint64(step)*uint64(f.batch) + uint64(j)
			i := dice.Permute(n, c.Seed, keyOrder, slot/n).At(slot % n)
			f.set(j, training, int(i), t, c.Prior.Dropout, c.Seed, slot)
		}
		return float64(len(f.text) + len(f.image)), nil
	}
	s.Validation, err = PriorValidation(m, validation, t)
	return s, err
}

// PriorValidation fills the prior's eval program with batch n of encoded pictures,
// without dropout.
func PriorValidation(m Model, codes *Codes, t *Tokenizer) (func(n int) error, error) {
	f, err := newPriorInputs(m, "eval")
	if err != nil {
		return nil, err
	}
	return func(n int) error {
		for j := range f.batch {
			f.set(j, codes, (n*f.batch+j)%codes.Len(), t, 0, 0, 0)
		}
		return nil
	}, nil
}

// pairInputs are the inputs of the contrastive model's train and eval programs.
type pairInputs struct {
	images               []float32
	text, end            []int32
	batch, side, textLen int
}

func newPairInputs(m Model, program string) (*pairInputs, error) {
	p, batch, side, err := pictureInput(m, program)
	if err != nil {
		return nil, err
	}
	f := &pairInputs{batch: batch, side: side}
	if f.images, err = p.InputF32("images"); err != nil {
		return nil, err
	}
	if f.text, err = p.InputI32("text"); err != nil {
		return nil, err
	}
	if f.end, err = p.InputI32("end"); err != nil {
		return nil, err
	}
	f.textLen = len(f.text) / batch
	return f, nil
}

func (f *pairInputs) set(b *feed.Batch, t *Tokenizer, dropout float64, seed, first uint64) {
	pixels(f.images, b.Pixels)
	for j, caption := range b.Captions {
		ids := f.text[j*f.textLen : (j+1)*f.textLen]
		n := t.encodeCaption(ids, caption, dropout, seed, first+uint64(j))
		f.end[j] = Unpad(ids, n)
	}
}

// Unpad turns padded ids into what the contrastive model reads: 0 after the last
// token, whose position it returns. The model has no pads, and its attention is
// causal.
func Unpad(ids []int32, tokens int) (end int32) {
	clear(ids[tokens:])
	return int32(max(0, tokens-1))
}

// CLIP is the stage of the contrastive model, on pictures and captions.
func CLIP(c *Config, d *Data, m Model, t *Tokenizer) (*Stage, error) {
	f, err := newPairInputs(m, "train")
	if err != nil {
		return nil, err
	}
	loader, err := d.loader(d.Training, feed.LoaderOptions{
		Side: f.side, Batch: f.batch, Seed: dice.Hash(c.Seed, keyCaptions), Pool: c.CLIP.Pool, Augment: feed.AugmentPrior(f.side),
	})
	if err != nil {
		return nil, err
	}
	next := int64(-1)
	s := &Stage{Name: "clip", Unit: "images", Options: c.CLIP.Options, Close: loader.Close, Report: loader.Report, Upstream: Upstream{Tokenizer: t.SHA256}}
	s.Fill = func(ctx context.Context, step int64) (float64, error) {
		b, err := nextBatch(ctx, loader, &next, step)
		if err != nil {
			return 0, err
		}
		f.set(b, t, c.CLIP.Dropout, c.Seed, uint64(step)*uint64(f.batch))
		return float64(f.batch), nil
	}
	s.Validation, err = CLIPValidation(c, d, m, t)
	return s, err
}

// CLIPValidation fills the contrastive model's eval program with batch n of the
// validation pairs, without dropout.
func CLIPValidation(c *Config, d *Data, m Model, t *Tokenizer) (func(n int) error, error) {
	f, err := newPairInputs(m, "eval")
	if err != nil {
		return nil, err
	}
	at, err := validationBatches(c, d, f.side, f.batch, c.CLIP.Pool)
	if err != nil {
		return nil, err
	}
	return func(n int) error {
		b, err := at(n)
		if err != nil {
			return err
		}
		f.set(b, t, 0, 0, 0)
		return nil
	}, nil
}
