package trainer

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/gouache-ml/gouache/runtime/feed"
	"github.com/gouache-ml/gouache/runtime/feed/picture"
	"github.com/gouache-ml/gouache/runtime/feed/shapes"
	"github.com/gouache-ml/gouache/runtime/sample"
	"github.com/gouache-ml/gouache/runtime/train"
)

type evalCommand struct {
	common
	settings
	NoSamples bool `help:"Measure losses only."`
}

func (c *evalCommand) run(ctx context.Context, a *app) error {
	all := map[string]map[string]float64{}
	for _, name := range stages {
		if !a.has(name) {
			continue
		}
		v, err := a.measure(ctx, name)
		if errors.Is(err, train.ErrUntrained) {
			fmt.Fprintf(a.out, "%-6s not trained\n", name)
			continue
		}
		if err != nil {
			return err
		}
		all[name] = v
		fmt.Fprintf(a.out, "%-6s", name)
		for _, k := range sortedKeys(v) {
			fmt.Fprintf(a.out, " %s %.4f", k, v[k])
		}
		fmt.Fprintln(a.out)
	}
	if len(all) == 0 {
		return fmt.Errorf("%s: nothing is trained yet; train first", a.cfg.Out)
	}
	out := map[string]any{"losses": all}
	if a.cfg.Data.Source == "shapes" && all["prior"] != nil && !c.NoSamples {
		s := a.cfg.Sample
		captions, err := a.heldOut(s.Captions)
		if err != nil {
			return err
		}
		results, err := a.draw(ctx, captions, s.Candidates, all["clip"] != nil, nil, a.sampleOptions())
		if err != nil {
			return err
		}
		j, err := judgeSamples(results)
		if err != nil {
			return err
		}
		out["judge"] = map[string]score{"best": j.Best, "first": j.First, "any": j.Any, "random": j.Other}
		fmt.Fprintf(a.out, "judge  best of %d %.3f first %.3f any %.3f random %.3f on %d held-out captions\n",
			s.Candidates, j.Best.Shapes, j.First.Shapes, j.Any.Shapes, j.Other.Shapes, len(captions))
	}
	return writeJSON(filepath.Join(a.cfg.Out, "eval.json"), out)
}

func (a *app) sampleOptions() sample.Options {
	s := a.cfg.Sample
	return sample.Options{Temperature: s.Temperature, TopK: s.TopK, TopP: s.TopP, Likelihood: s.Likelihood, Seed: a.cfg.Seed}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// measure runs a model's eval program on validation data, with its averaged weights.
func (a *app) measure(ctx context.Context, name string) (map[string]float64, error) {
	if _, err := train.Inspect(a.cfg.Out, name); err != nil {
		return nil, err
	}
	d, err := a.data()
	if err != nil {
		return nil, err
	}
	var t *train.Tokenizer
	var codes *train.Codes
	batches := max(1, a.cfg.DVAE.ValidateBatches)
	switch name {
	case "prior":
		batches = max(1, a.cfg.Prior.ValidateBatches)
		if _, codes, _, err = a.encode(ctx); err != nil {
			return nil, err
		}
		fallthrough
	case "clip":
		if name == "clip" {
			batches = max(1, a.cfg.CLIP.ValidateBatches)
		}
		if t, err = a.tokenizer(); err != nil {
			return nil, err
		}
	}
	var means map[string]float64
	err = a.with(name, func(m train.Model) error {
		if _, err := train.Load(a.cfg.Out, name, m); err != nil {
			return err
		}
		var fill func(int) error
		switch name {
		case "dvae":
			fill, err = train.DVAEValidation(a.cfg, d, m)
		case "prior":
			fill, err = train.PriorValidation(m, codes, t)
		case "clip":
			fill, err = train.CLIPValidation(a.cfg, d, m, t)
		}
		if err != nil {
			return err
		}
		eval, err := m.Program("eval")
		if err != nil {
			return err
		}
		means, err = train.Evaluate(eval, batches, fill)
		return err
	})
	return means, err
}

// reconstructed is validation pictures beside what the dVAE makes of them.
type reconstructed struct {
	captions         []string
	originals, again []picture.Picture
	mse              float64 // of pixels in [0,1]
	score            *score  // what the judge reads in them; nil if they aren't shapes
}

// reconstruct encodes and decodes the first n validation pictures.
func (a *app) reconstruct(n int) (*reconstructed, error) {
	d, err := a.data()
	if err != nil {
		return nil, err
	}
	r := &reconstructed{}
	if size := d.Validation.Len(); size > 0 {
		n = min(n, int(size))
	}
	o := feed.LoaderOptions{Side: a.sizes.Side, Batch: n, Seed: a.cfg.Seed, InOrder: true}
	if !d.Drawn {
		o.Augment = feed.AugmentPrior(a.sizes.Side)
	}
	loader, err := feed.NewLoader(d.Validation, o)
	if err != nil {
		return nil, err
	}
	b, err := loader.At(0)
	if err != nil {
		return nil, err
	}
	r.captions = b.Captions
	for i := range n {
		r.originals = append(r.originals, b.Picture(i))
	}
	err = a.with("dvae", func(m train.Model) error {
		if _, err := train.Load(a.cfg.Out, "dvae", m); err != nil {
			return err
		}
		e, err := train.NewEncoder(m)
		if err != nil {
			return err
		}
		tokens, err := e.Encode(r.originals)
		if err != nil {
			return err
		}
		p, err := m.Program("decode")
		if err != nil {
			return err
		}
		decoder, err := sample.NewDecoder(p)
		if err != nil {
			return err
		}
		r.again, err = decoder.Decode(tokens)
		return err
	})
	if err != nil {
		return nil, err
	}
	if a.cfg.Data.Source == "shapes" {
		r.score = &score{}
	}
	sum, count := 0.0, 0
	for i, p := range r.again {
		for k, v := range p.Pixels {
			e := (float64(v) - float64(r.originals[i].Pixels[k])) / 255
			sum += e * e
			count++
		}
		if r.score != nil {
			scene, err := shapes.ParseCaption(r.captions[i])
			if err != nil {
				return nil, err
			}
			r.score.add(judge(p), scene)
		}
	}
	r.mse = sum / float64(count)
	if r.score != nil {
		r.score.share()
	}
	return r, nil
}
