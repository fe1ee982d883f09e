package trainer

import (
	"path/filepath"

	"github.com/gouache-ml/gouache/runtime/train"
)

// Recipe is the settings of a system: the paper's where the system has none of its
// own.
func Recipe(system string) train.Config {
	c := paper()
	c.Out = filepath.Join("out", system)
	if adapt := recipes[system]; adapt != nil {
		adapt(&c)
	}
	return c
}

var recipes = map[string]func(*train.Config){
	"deep":  deep,
	"demo":  demo,
	"emoji": emoji,
}

// paper has the numbers of appendices A.2 and B.2, and CLIP's; parts of a run are
// fractions of its steps.
func paper() train.Config {
	const dvaeSteps = 3_000_000
	return train.Config{
		Seed: 1,
		Data: train.DataConfig{Source: "data/train-*.tar", HoldBack: 4096, Views: 1, MinWords: 3, MaxAspect: 2},
		DVAE: train.DVAEConfig{
			Options: train.Options{
				Steps: dvaeSteps, LR: 1e-4, LRMin: 1.25e-6, Schedule: train.ScheduleCosine, DecayOver: 1.2e6 / dvaeSteps,
				AverageDecay: 0.999, AverageEvery: 1,
				PlateauWindow: 10, ValidateEvery: 5000, ValidateBatches: 16, MaxSkipped: 20,
			},
			Beta: 6.6, BetaOver: 5000. / dvaeSteps, Tau: 1. / 16, TauOver: 150_000. / dvaeSteps,
		},
		Prior: train.PriorConfig{
			Options: train.Options{
				Steps: 430_000, LR: 4.5e-4, LRMin: 4.5e-4 / 32, Schedule: train.SchedulePlateau, WarmUp: 5000, DecayOver: 1,
				Clip: 4, ClipInWarmUp: true, AverageDecay: 0.99, AverageEvery: 25,
				PlateauWindow: 10, ValidateEvery: 2000, ValidateBatches: 64, MaxSkipped: 20,
			},
			Dropout: 0.1,
		},
		CLIP: train.CLIPConfig{
			Options: train.Options{
				Steps: 400_000, LR: 5e-4, Schedule: train.ScheduleCosine, WarmUp: 2000, DecayOver: 1,
				AverageDecay: 0.999, AverageEvery: 1,
				PlateauWindow: 10, ValidateEvery: 5000, ValidateBatches: 16, MaxSkipped: 20,
			},
			Dropout: 0.1,
		},
		Snapshot: train.SnapConfig{Every: 2000, Keep: 2},
		Log:      train.LogConfig{Every: 50, Exponents: 500},
		Sample:   train.SampleConfig{Captions: 64, Candidates: 32, Temperature: 1, TopP: 1},
	}
}

// demo is for minutes on two CPU cores, on drawn shapes.
func demo(c *train.Config) {
	c.Data = train.DataConfig{Source: "shapes", HoldBack: 1024, Pictures: 40_000, Views: 1}
	d := &c.DVAE
	d.Steps, d.LR, d.LRMin, d.DecayOver = 3500, 4e-3, 5e-5, 1
	d.WarmUp, d.AverageDecay = 100, 0.998
	d.Beta, d.BetaOver, d.Tau, d.TauOver = 4, 0.03, 1./16, 1
	d.ValidateEvery, d.ValidateBatches = 250, 4
	p := &c.Prior
	p.Steps, p.LR, p.LRMin, p.Schedule = 5200, 1.5e-3, 2e-5, train.ScheduleCosine
	p.WarmUp, p.AverageDecay, p.AverageEvery = 100, 0.9, 10
	p.ValidateEvery, p.ValidateBatches = 500, 16
	k := &c.CLIP
	k.Steps, k.LR, k.LRMin, k.WarmUp, k.AverageDecay = 2200, 6e-4, 1e-5, 100, 0.99
	k.Pool, k.Dropout = 256, 0
	k.ValidateEvery, k.ValidateBatches = 400, 8
	c.Snapshot.Every = 250
	c.Log.Every, c.Log.Exponents = 10, 0
	c.Sample.Captions, c.Sample.Candidates, c.Sample.Temperature, c.Sample.Likelihood = 100, 64, 0.85, 0.002
}

// deep is short: it is trained several times over.
func deep(c *train.Config) {
	demo(c)
	c.DVAE.Steps = 1500
	p := &c.Prior
	p.Steps, p.LR, p.AverageDecay, p.Dropout = 400, 1e-3, 0, 0
	p.ValidateEvery, p.ValidateBatches = 50, 8
	c.Log.Exponents = 100
}

// emoji is for hours on one GPU, on a folder of small pictures.
func emoji(c *train.Config) {
	c.Data = train.DataConfig{Source: "data/emoji", HoldBack: 256, Views: 4}
	d := &c.DVAE
	d.Steps, d.LR, d.LRMin, d.DecayOver = 20_000, 5e-4, 1e-5, 1
	d.WarmUp, d.AverageDecay = 200, 0.999
	d.Beta, d.BetaOver, d.Tau, d.TauOver = 2, 0.1, 1./16, 0.5
	d.ValidateEvery, d.ValidateBatches = 1000, 8
	p := &c.Prior
	p.Steps, p.LR, p.LRMin, p.Schedule = 40_000, 6e-4, 2e-5, train.ScheduleCosine
	p.WarmUp, p.AverageDecay, p.AverageEvery = 500, 0.99, 25
	p.ValidateEvery, p.ValidateBatches = 1000, 8
	k := &c.CLIP
	k.Steps, k.LR, k.LRMin, k.WarmUp, k.AverageDecay = 10_000, 5e-4, 1e-5, 200, 0.999
	k.ValidateEvery, k.ValidateBatches = 1000, 2
	c.Snapshot.Every = 1000
	c.Log.Every = 20
	c.Sample.Captions, c.Sample.Candidates = 64, 32
}
