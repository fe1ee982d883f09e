package trainer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gouache-ml/gouache/runtime/config"
	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/metrics"
	"github.com/gouache-ml/gouache/runtime/sample"
	"github.com/gouache-ml/gouache/runtime/train"
)

// app is a system with its settings, at work for one command.
type app struct {
	sys    train.System
	cfg    *train.Config
	text   string // cfg as TOML
	sizes  train.Sizes
	out    io.Writer // results
	log    io.Writer // progress
	resume bool

	opened *train.Data
}

// data opens the pictures once.
func (a *app) data() (*train.Data, error) {
	if a.opened != nil {
		return a.opened, nil
	}
	d, err := train.OpenData(a.cfg, a.sizes.Side)
	if err != nil {
		return nil, err
	}
	if r := d.Training.Report(); r.Total() > 0 || len(r.Faults) > 0 {
		fmt.Fprintln(a.log, r)
	}
	a.opened = d
	return d, nil
}

// with lends a model to f; its memory is given back afterwards, so that one model at
// a time takes any.
func (a *app) with(name string, f func(m train.Model) error) error {
	m, err := a.sys.Model(name)
	if err != nil {
		return err
	}
	err = f(m)
	if closed := m.Close(); err == nil {
		err = closed
	}
	return err
}

// target is the kernel variant in use, with the device that runs it if a processor doesn't.
func (a *app) target() string { return on(a.sys.Target(), a.device()) }

// device is the name of the device in use, "" for a processor.
func (a *app) device() string {
	if d, ok := a.sys.(interface{ Device() string }); ok {
		return d.Device()
	}
	return ""
}

func on(target, device string) string {
	if device == "" {
		return target
	}
	return target + " on " + device
}

// has tells whether the system has a model.
func (a *app) has(name string) bool { return slices.Contains(a.sys.Models(), name) }

// keepConfig saves the settings in the run's folder, where later commands find them.
func (a *app) keepConfig() error {
	if err := os.MkdirAll(a.cfg.Out, 0o777); err != nil {
		return fmt.Errorf("%w; check -out", err)
	}
	return config.Save(a.cfg, configPath(a.cfg.Out))
}

// stages are the models in order of training.
var stages = []string{"dvae", "prior", "clip"}

// trainStage trains one model.
func (a *app) trainStage(ctx context.Context, name string) error {
	d, err := a.data()
	if err != nil {
		return err
	}
	a.compareSettings(name)
	switch name {
	case "dvae":
		return a.with(name, func(m train.Model) error {
			s, err := train.DVAE(a.cfg, d, m, a.sizes.Codes)
			if err != nil {
				return err
			}
			return a.loop(ctx, m, s)
		})
	case "prior":
		t, err := train.MakeTokenizer(a.cfg, d, a.sizes.TextVocab, a.log)
		if err != nil {
			return err
		}
		training, validation, dvae, err := a.encode(ctx)
		if err != nil {
			return err
		}
		return a.with(name, func(m train.Model) error {
			s, err := train.Prior(a.cfg, m, training, validation, t, dvae)
			if err != nil {
				return err
			}
			return a.loop(ctx, m, s)
		})
	case "clip":
		t, err := train.MakeTokenizer(a.cfg, d, a.sizes.TextVocab, a.log)
		if err != nil {
			return err
		}
		return a.with(name, func(m train.Model) error {
			s, err := train.CLIP(a.cfg, d, m, t)
			if err != nil {
				return err
			}
			return a.loop(ctx, m, s)
		})
	}
	return fmt.Errorf("internal: no stage %q", name)
}

func (a *app) loop(ctx context.Context, m train.Model, s *train.Stage) error {
	l := &train.Loop{Model: m, Stage: s, Config: a.cfg, Text: a.text, Resume: a.resume, Log: a.log, Begin: a.keepConfig}
	if p, ok := a.sys.(interface{ Profile() *exec.Profile }); ok {
		l.Profile = p.Profile()
	}
	a.expect(m, s.Name)
	err := l.Run(ctx)
	interrupted := errors.Is(err, train.ErrInterrupted)
	if l.Profile == nil || err != nil && !interrupted {
		return err
	}
	if failed := a.writeProfile(l.Profile, s.Name); !interrupted {
		return failed
	}
	return err
}

// arenas is the memory that stored tensors and work take in training, 0 where that
// is not known.
func arenas(m train.Model) int64 {
	t, ok := m.(interface {
		Touched(programs ...string) (int64, error)
	})
	if !ok {
		return 0
	}
	used := []string{"train"}
	for _, p := range []string{"eval", "average"} {
		if slices.Contains(m.Programs(), p) {
			used = append(used, p)
		}
	}
	n, err := t.Touched(used...)
	if err != nil {
		return 0 // a device has its own
	}
	return n
}

// expect says how much memory training a model is going to take: what the program
// takes with its data loaded, and the arenas, which take none before the first step.
// Batches add up to 4 MiB.
func (a *app) expect(m train.Model, stage string) {
	if n, now := arenas(m), metrics.ResidentMemory(); n > 0 && now > 0 {
		fmt.Fprintf(a.log, "%s: %s of memory expected: %s stored tensors and work, %s program and data\n",
			stage, metrics.FormatBytes(n+now), metrics.FormatBytes(n), metrics.FormatBytes(now))
	}
}

// writeProfile writes where the time of the steps went, and the last step as a trace.
func (a *app) writeProfile(p *exec.Profile, stage string) error {
	for _, file := range []struct {
		name  string
		write func(io.Writer) error
	}{
		{"profile.txt", func(w io.Writer) error { return p.WriteText(w, 30) }},
		{"trace.json", p.WriteTrace},
	} {
		path := filepath.Join(train.StageDir(a.cfg.Out, stage), file.name)
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		err = file.write(f)
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		fmt.Fprintf(a.log, "%s: %s\n", stage, path)
	}
	return nil
}

// compareSettings says which settings of a stage differ from those it was trained
// with so far.
func (a *app) compareSettings(stage string) {
	t, err := train.Inspect(a.cfg.Out, stage)
	if err != nil || !a.resume {
		return
	}
	was := *a.cfg
	if config.Parse(&was, "snapshot", []byte(t.Config)) != nil {
		return // of another version of the program; its own check decides
	}
	for _, d := range config.Differences(&was, a.cfg) {
		if strings.HasPrefix(d, stage+".") || strings.HasPrefix(d, "data.") {
			fmt.Fprintf(a.log, "%s: changed since step %d: %s\n", stage, t.Step, d)
		}
	}
}

// encode makes the prior's data with the trained dVAE, and returns the hash of its
// weights.
func (a *app) encode(ctx context.Context) (training, validation *train.Codes, dvae string, err error) {
	d, err := a.data()
	if err != nil {
		return nil, nil, "", err
	}
	held := 0
	err = a.with("prior", func(m train.Model) error {
		batch, err := train.PriorBatch(m)
		held = batch * max(1, a.cfg.Prior.ValidateBatches)
		return err
	})
	if err != nil {
		return nil, nil, "", err
	}
	err = a.with("dvae", func(m train.Model) error {
		t, err := train.Load(a.cfg.Out, "dvae", m)
		if err != nil {
			return err
		}
		dvae = t.Weights
		training, validation, err = train.Encode(ctx, a.cfg, d, m, dvae, held, a.log)
		return err
	})
	return training, validation, dvae, err
}

// tokenizer loads the run's tokenizer.
func (a *app) tokenizer() (*train.Tokenizer, error) {
	return train.LoadTokenizer(a.cfg.Out, a.sizes.TextVocab)
}

// pipeline loads what sampling needs. The contrastive model is left out where the
// system has none, or where it isn't trained and ranking isn't asked for.
func (a *app) pipeline(rank bool) (*sample.Pipeline, func() error, error) {
	var used []train.Model
	done := func() error {
		var errs []error
		for _, m := range used {
			errs = append(errs, m.Close())
		}
		return errors.Join(errs...)
	}
	p, err := a.loadPipeline(rank, &used)
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	return p, done, nil
}

func (a *app) loadPipeline(rank bool, used *[]train.Model) (*sample.Pipeline, error) {
	load := func(name string, programs ...string) (*train.Trained, []train.Program, error) {
		m, err := a.sys.Model(name)
		if err != nil {
			return nil, nil, err
		}
		*used = append(*used, m)
		t, err := train.Load(a.cfg.Out, name, m)
		if err != nil {
			return nil, nil, err
		}
		var ps []train.Program
		for _, program := range programs {
			p, err := m.Program(program)
			if err != nil {
				return nil, nil, err
			}
			ps = append(ps, p)
		}
		return t, ps, nil
	}
	dvae, ps, err := load("dvae", "decode")
	if err != nil {
		return nil, err
	}
	decoder, err := sample.NewDecoder(ps[0])
	if err != nil {
		return nil, err
	}
	prior, ps, err := load("prior", "prefill", "decode")
	if err != nil {
		return nil, err
	}
	drawer, err := sample.NewPrior(ps[0], ps[1], a.sizes.Image())
	if err != nil {
		return nil, err
	}
	tokenizer, err := a.tokenizer()
	if err != nil {
		return nil, err
	}
	now := train.Upstream{DVAE: dvae.Weights, Tokenizer: tokenizer.SHA256}
	if err := prior.Upstream.Check(now, train.StageDir(a.cfg.Out, "prior")); err != nil {
		return nil, err
	}
	p := &sample.Pipeline{Tokenizer: tokenizer.Tokenizer, Prior: drawer, Decoder: decoder}
	if !rank || !a.has("clip") {
		return p, nil
	}
	clip, ps, err := load("clip", "embed_image", "embed_text")
	if err != nil {
		return nil, err
	}
	if err := clip.Upstream.Check(now, train.StageDir(a.cfg.Out, "clip")); err != nil {
		return nil, err
	}
	p.Ranker, err = sample.NewRanker(ps[0], ps[1])
	return p, err
}
