package trainer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/gouache-ml/gouache/runtime/feed/picture"
	"github.com/gouache-ml/gouache/runtime/metrics"
	"github.com/gouache-ml/gouache/runtime/sample"
	"github.com/gouache-ml/gouache/runtime/train"
)

type demoCommand struct {
	common
	settings
	Profile bool `help:"Measure every launch of training, and write profile.txt and trace.json (for ui.perfetto.dev) beside the snapshots."`
}

func (c *demoCommand) profiled() bool { return c.Profile }

// summary is summary.json.
type summary struct {
	JudgeAccuracy       *float64           `json:"judge_accuracy"`        // best of the candidates, everything right; null where nothing can judge
	JudgeAccuracyRandom *float64           `json:"judge_accuracy_random"` // the same pictures against the captions of others
	Captions            int                `json:"captions"`
	Seconds             map[string]float64 `json:"seconds"`
	PeakBytes           int64              `json:"peak_bytes"`
	CodebookPerplexity  float64            `json:"codebook_perplexity"` // over the pictures the prior trains on
	CPU                 string             `json:"cpu"`
	Commit              string             `json:"commit"`

	System                     string                        `json:"system"`
	Target                     string                        `json:"target"`
	Device                     string                        `json:"device,omitempty"`
	Threads                    int                           `json:"threads"`
	Seed                       uint64                        `json:"seed"`
	Candidates                 int                           `json:"candidates"`
	Judge                      map[string]score              `json:"judge,omitempty"`
	JudgeAccuracyReconstructed *float64                      `json:"judge_accuracy_reconstructed,omitempty"` // what the dVAE leaves of true pictures
	ReconstructionMSE          float64                       `json:"reconstruction_mse"`
	CodesUsed                  int                           `json:"codes_used"`
	Codes                      int                           `json:"codes"`
	Parameters                 map[string]int                `json:"parameters"`
	Steps                      map[string]int64              `json:"steps"`
	Validation                 map[string]map[string]float64 `json:"validation"`
}

// reconstructions is how many validation pictures the report's figures are over.
const reconstructions = 256

func (c *demoCommand) run(ctx context.Context, a *app) error {
	a.resume = true
	s := &summary{
		Seconds: map[string]float64{}, Steps: map[string]int64{}, Validation: map[string]map[string]float64{},
		System: a.sys.Name(), Target: a.sys.Target(), Device: a.device(), Threads: a.sys.Threads(), Seed: a.cfg.Seed,
		Codes: a.sizes.Codes, Parameters: a.sizes.Parameters, Commit: commit(),
	}
	hardware := metrics.ReadHardware()
	s.CPU = hardware.CPU
	fmt.Fprintf(a.log, "# %s: %s, %d threads on %s; settings in %s\n", s.System, a.target(), s.Threads, hardware, configPath(a.cfg.Out))
	for _, name := range stages {
		if !a.has(name) {
			continue
		}
		if err := a.trainStage(ctx, name); err != nil {
			return err
		}
		t, err := train.Inspect(a.cfg.Out, name)
		if err != nil {
			return err
		}
		s.Seconds[name], s.Steps[name] = t.Seconds, t.Step
		if s.Validation[name], err = a.measure(ctx, name); err != nil {
			return err
		}
	}
	training, _, _, err := a.encode(ctx)
	if err != nil {
		return err
	}
	s.Seconds["encode"] = training.Seconds
	usage := train.NewUsage(a.sizes.Codes)
	for i := range training.Len() {
		for _, t := range training.Picture(i) {
			usage.Add([]int32{int32(t)})
		}
	}
	s.CodebookPerplexity, s.CodesUsed = usage.Perplexity(), usage.Used()

	recon, err := a.reconstruct(reconstructions)
	if err != nil {
		return err
	}
	s.ReconstructionMSE = recon.mse
	if recon.score != nil {
		s.JudgeAccuracyReconstructed = &recon.score.Shapes
	}
	captions, err := a.heldOut(a.cfg.Sample.Captions)
	if err != nil {
		return err
	}
	s.Captions, s.Candidates = len(captions), a.cfg.Sample.Candidates
	start := time.Now()
	results, err := a.draw(ctx, captions, s.Candidates, true, nil, a.sampleOptions())
	if err != nil {
		return err
	}
	s.Seconds["sample"] = time.Since(start).Seconds()
	var j *judged
	if a.cfg.Data.Source == "shapes" {
		if j, err = judgeSamples(results); err != nil {
			return err
		}
		s.JudgeAccuracy, s.JudgeAccuracyRandom = &j.Best.Shapes, &j.Other.Shapes
		s.Judge = map[string]score{"best": j.Best, "first": j.First, "any": j.Any, "random": j.Other}
	}
	for _, name := range sortedKeys(s.Seconds) {
		if name != "total" {
			s.Seconds["total"] += s.Seconds[name]
		}
	}
	s.PeakBytes = metrics.PeakMemory()
	return a.finish(s, hardware, recon, results, j)
}

// finish writes what the demo leaves behind.
func (a *app) finish(s *summary, hardware metrics.Hardware, recon *reconstructed, results []sample.Result, j *judged) error {
	if err := a.joinMetrics(); err != nil {
		return err
	}
	var pictures []picture.Picture
	var captions []string
	for _, r := range results[:min(len(results), 48)] {
		pictures, captions = append(pictures, r.Candidates[0].Picture), append(captions, r.Caption)
	}
	grid, err := picture.Grid(pictures, captions, picture.GridOptions{Columns: 8})
	if err != nil {
		return err
	}
	if err := grid.Save(filepath.Join(a.cfg.Out, "samples.png")); err != nil {
		return err
	}
	if err := a.writeReport(s, hardware, recon, results, j); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(a.cfg.Out, "summary.json"), s); err != nil {
		return err
	}
	if s.JudgeAccuracy != nil {
		fmt.Fprintf(a.out, "%d held-out captions: %.1f%% of the best pictures are right in shape and colour of every object (chance %.1f%%)\n",
			s.Captions, 100**s.JudgeAccuracy, 100**s.JudgeAccuracyRandom)
	}
	fmt.Fprintf(a.out, "%s in all; report: %s\n", metrics.FormatDuration(time.Duration(s.Seconds["total"]*float64(time.Second))), filepath.Join(a.cfg.Out, "report.html"))
	return nil
}

// joinMetrics writes the logs of all stages into one metrics.jsonl, names prefixed
// with their stage.
func (a *app) joinMetrics() error {
	log, err := metrics.OpenLog(filepath.Join(a.cfg.Out, "metrics.jsonl"), -1)
	if err != nil {
		return err
	}
	for _, name := range stages {
		if !a.has(name) {
			continue
		}
		records, err := a.records(name)
		if err != nil {
			return errors.Join(err, log.Close())
		}
		for _, r := range records {
			values := map[string]float64{}
			for k, v := range r.Values {
				values[name+"."+k] = v
			}
			if err := log.Write(r.Step, values); err != nil {
				return errors.Join(err, log.Close())
			}
		}
	}
	return log.Close()
}

func (a *app) records(stage string) ([]metrics.Record, error) {
	return metrics.ReadLog(filepath.Join(train.StageDir(a.cfg.Out, stage), "metrics.jsonl"))
}

// commit is the revision this program was built from.
func commit() string {
	if c := os.Getenv("GOUACHE_COMMIT"); c != "" {
		return c
	}
	revision, modified := "", false
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				revision = s.Value
			case "vcs.modified":
				modified = s.Value == "true"
			}
		}
	}
	switch {
	case revision == "":
		return "unknown"
	case modified:
		return revision + "+changes"
	}
	return revision
}
