package train

import (
	"errors"
	"fmt"
)

// Config is everything a training run can be told. Batch sizes and the sizes of the
// models are not in it: they are compiled into the system.
type Config struct {
	Seed     uint64       `toml:"seed" comment:"of weights, order of data, dropout and noise"`
	Out      string       `toml:"out" comment:"where snapshots, tokens, logs and samples go"`
	Data     DataConfig   `toml:"data"`
	DVAE     DVAEConfig   `toml:"dvae"`
	Prior    PriorConfig  `toml:"prior"`
	CLIP     CLIPConfig   `toml:"clip"`
	Snapshot SnapConfig   `toml:"snapshot"`
	Log      LogConfig    `toml:"log"`
	Sample   SampleConfig `toml:"sample" comment:"of the demo and eval; sample has flags"`
}

// DataConfig says where captioned pictures come from.
type DataConfig struct {
	Source     string  `toml:"source" comment:"\"shapes\", a folder, or a pattern of WebDataset shards"`
	Validation string  `toml:"validation" comment:"another source; empty: held back from the first"`
	HoldBack   int     `toml:"hold_back" comment:"samples held back for validation; at most a tenth is"`
	Pictures   int     `toml:"pictures" comment:"pictures encoded for the prior; 0: all, for sources that end"`
	Views      int     `toml:"views" comment:"augmented views of each picture encoded for the prior"`
	MinWords   int     `toml:"min_words" comment:"shorter captions are skipped"`
	MaxAspect  float64 `toml:"max_aspect" comment:"longer pictures are skipped; the paper has 2"`
}

// Options are the settings that all stages have.
type Options struct {
	Steps           int64   `toml:"steps"`
	LR              float64 `toml:"lr" comment:"largest step size"`
	LRMin           float64 `toml:"lr_min" comment:"where cosine and linear end"`
	Schedule        string  `toml:"schedule" comment:"constant, cosine, linear, or plateau: halved up to 5 times"`
	WarmUp          int64   `toml:"warm_up" comment:"steps to reach lr"`
	DecayOver       float64 `toml:"decay_over" comment:"part of the steps after which lr_min is reached"`
	PlateauWindow   int     `toml:"plateau_window" comment:"validations without improvement before lr is halved"`
	Clip            float64 `toml:"clip" comment:"largest norm of the gradient; 0: no limit"`
	ClipInWarmUp    bool    `toml:"clip_in_warm_up" comment:"clip during warm-up only"`
	AverageDecay    float64 `toml:"average_decay" comment:"of the averaged weights that sampling uses; 0: no averages"`
	AverageEvery    int64   `toml:"average_every" comment:"updates between averages"`
	ValidateEvery   int64   `toml:"validate_every" comment:"steps; 0: never"`
	ValidateBatches int     `toml:"validate_batches"`
	MaxSkipped      int     `toml:"max_skipped" comment:"non-finite updates in a row that end the run"`
}

// DVAEConfig has the schedules of appendix A.2; all are cosines. The release
// of the KL term is ours: the weight that spreads a short run's codes over the
// codebook keeps them noisy, so it falls again once they are spread.
type DVAEConfig struct {
	Options
	Beta        float64 `toml:"beta" comment:"final weight of the KL term"`
	BetaOver    float64 `toml:"beta_over" comment:"part of the steps after which it is reached"`
	ReleaseFrom float64 `toml:"release_from" comment:"part of the steps from which that weight falls again; 0 for never"`
	ReleaseOver float64 `toml:"release_over" comment:"part of the steps this takes"`
	Release     float64 `toml:"release" comment:"what it falls to in the end"`
	Tau         float64 `toml:"tau" comment:"final temperature of the relaxation, from 1"`
	TauOver     float64 `toml:"tau_over" comment:"part of the steps after which it is reached"`
}

// PriorConfig is the transformer's (appendix B.2).
type PriorConfig struct {
	Options
	Dropout float64 `toml:"bpe_dropout" comment:"probability that a merge of the tokenizer is skipped"`
}

// CLIPConfig is the contrastive model's.
type CLIPConfig struct {
	Options
	Dropout float64 `toml:"bpe_dropout"`
	Pool    int     `toml:"pool" comment:"batches dealt out together so that similar captions share one (hard negatives); below 2: as they come"`
}

// SnapConfig says when training state is saved.
type SnapConfig struct {
	Every int64 `toml:"every" comment:"steps; 0: at the end and when interrupted only"`
	Keep  int   `toml:"keep" comment:"snapshots kept; 0: all"`
}

// LogConfig says what is written down.
type LogConfig struct {
	Every       int64 `toml:"every" comment:"steps between records of metrics.jsonl"`
	TensorBoard bool  `toml:"tensorboard" comment:"write event files too"`
	Exponents   int64 `toml:"exponents" comment:"steps between histograms of the gradients' exponents, by part of the model; 0: none"`
}

// SampleConfig says how pictures are drawn and ranked.
type SampleConfig struct {
	Captions    int     `toml:"captions" comment:"held-out captions"`
	Candidates  int     `toml:"candidates" comment:"pictures drawn for each; the best ranked counts"`
	Temperature float64 `toml:"temperature"`
	TopK        int     `toml:"top_k" comment:"0: all"`
	TopP        float64 `toml:"top_p" comment:"1: all"`
	Likelihood  float64 `toml:"likelihood" comment:"what a nat of the tokens' log-likelihood adds to a candidate's cosine; 0: the contrastive model ranks alone"`
}

// Validate checks values that no schedule or model can work with.
func (c *Config) Validate() error {
	switch {
	case c.Out == "":
		return errors.New("out is empty; name a folder")
	case c.Data.Source == "":
		return errors.New(`data.source is empty; want "shapes", a folder, or a pattern of .tar shards`)
	case c.Data.Source == "shapes" && c.Data.Pictures < 1:
		return errors.New("data.pictures is 0: shapes has no end, so say how many pictures the prior trains on")
	case c.Data.Pictures < 0 || c.Data.HoldBack < 1 || c.Data.Views < 1:
		return errors.New("data.pictures, data.hold_back and data.views must be positive")
	case c.Snapshot.Every < 0 || c.Snapshot.Keep < 0:
		return errors.New("snapshot.every and snapshot.keep must not be negative")
	case c.Log.Every < 1:
		return errors.New("log.every must be at least 1")
	case c.Log.Exponents < 0:
		return errors.New("log.exponents must not be negative")
	case c.CLIP.Pool < 0:
		return fmt.Errorf("clip.pool is %d; want a number of batches, 0 for none", c.CLIP.Pool)
	case c.DVAE.Tau <= 0 || c.DVAE.Beta < 0:
		return errors.New("dvae.tau must be above 0 and dvae.beta not below")
	case c.Sample.Captions < 1 || c.Sample.Candidates < 1:
		return errors.New("sample.captions and sample.candidates must be at least 1")
	case !(c.Sample.Temperature >= 0) || c.Sample.TopK < 0 || !(c.Sample.Likelihood >= 0):
		return errors.New("sample.temperature, sample.top_k and sample.likelihood must not be negative")
	case !(c.Sample.TopP > 0 && c.Sample.TopP <= 1):
		return fmt.Errorf("sample.top_p is %g; want a number above 0 and at most 1", c.Sample.TopP)
	}
	for _, d := range []struct {
		key string
		v   float64
	}{
		{"dvae.beta_over", c.DVAE.BetaOver}, {"dvae.tau_over", c.DVAE.TauOver}, {"dvae.release_from", c.DVAE.ReleaseFrom}, {"dvae.release_over", c.DVAE.ReleaseOver},
		{"prior.bpe_dropout", c.Prior.Dropout}, {"clip.bpe_dropout", c.CLIP.Dropout},
	} {
		if !(d.v >= 0 && d.v <= 1) {
			return fmt.Errorf("%s is %g; want a number from 0 to 1", d.key, d.v)
		}
	}
	for _, s := range []struct {
		name string
		Options
	}{{"dvae", c.DVAE.Options}, {"prior", c.Prior.Options}, {"clip", c.CLIP.Options}} {
		if err := s.validate(); err != nil {
			return fmt.Errorf("%s.%w", s.name, err)
		}
	}
	return nil
}

// validate's errors begin with a key, without the stage.
func (o Options) validate() error {
	if err := checkSchedule(o.Schedule); err != nil {
		return fmt.Errorf("schedule: %w", err)
	}
	switch {
	case o.Steps < 1:
		return fmt.Errorf("steps is %d; want at least 1", o.Steps)
	case !(o.LR >= 0) || !(o.LRMin >= 0):
		return fmt.Errorf("lr is %g and lr_min %g; want positive numbers", o.LR, o.LRMin)
	case o.WarmUp < 0:
		return fmt.Errorf("warm_up is %d; want a number of steps, 0 for none", o.WarmUp)
	case !(o.DecayOver >= 0 && o.DecayOver <= 1):
		return fmt.Errorf("decay_over is %g; want a number from 0 to 1", o.DecayOver)
	case o.Schedule == SchedulePlateau && (o.ValidateEvery < 1 || o.PlateauWindow < 1):
		return errors.New("schedule: plateau needs validate_every and plateau_window above 0")
	case !(o.AverageDecay >= 0 && o.AverageDecay < 1):
		return fmt.Errorf("average_decay is %g; want a number from 0 to below 1", o.AverageDecay)
	case o.AverageDecay > 0 && o.AverageEvery < 1:
		return fmt.Errorf("average_every is %d; want at least 1", o.AverageEvery)
	case o.ValidateEvery < 0 || o.ValidateEvery > 0 && o.ValidateBatches < 1:
		return errors.New("validate_every must not be negative, and validate_batches at least 1")
	case o.MaxSkipped < 1:
		return fmt.Errorf("max_skipped is %d; want at least 1", o.MaxSkipped)
	}
	return nil
}
