package trainer

import (
	"bytes"
	"fmt"
	"path/filepath"
	"time"

	"github.com/gouache-ml/gouache/runtime/feed/picture"
	"github.com/gouache-ml/gouache/runtime/metrics"
	"github.com/gouache-ml/gouache/runtime/sample"
)

// writeReport writes report.html.
func (a *app) writeReport(s *summary, hardware metrics.Hardware, recon *reconstructed, results []sample.Result, j *judged) error {
	r := metrics.Report{
		Title:    "Gouache: " + s.System,
		Subtitle: fmt.Sprintf("%s, kernels for %s, %d threads, commit %.12s", hardware, on(s.Target, s.Device), s.Threads, s.Commit),
	}
	figures := metrics.Figures{}
	if s.JudgeAccuracy != nil {
		figures = append(figures,
			metrics.Figure{Label: "held-out captions right in shape and colour", Value: percent(*s.JudgeAccuracy), Note: fmt.Sprintf("best of %d for each of %d captions", s.Candidates, s.Captions)},
			metrics.Figure{Label: "by chance", Value: percent(*s.JudgeAccuracyRandom), Note: "the same pictures, other captions"})
	}
	figures = append(figures,
		metrics.Figure{Label: "codebook perplexity", Value: fmt.Sprintf("%.1f", s.CodebookPerplexity), Note: fmt.Sprintf("%d of %d codes in use", s.CodesUsed, s.Codes)},
		metrics.Figure{Label: "time", Value: duration(s.Seconds["total"]), Note: "training and sampling"},
		metrics.Figure{Label: "memory", Value: metrics.FormatBytes(s.PeakBytes), Note: "peak, resident"})
	r.Sections = append(r.Sections, metrics.Section{Title: "Summary", Blocks: []metrics.Block{figures}})

	samples, err := sampleSection(results, j)
	if err != nil {
		return err
	}
	pictures, err := reconstructionSection(recon)
	if err != nil {
		return err
	}
	r.Sections = append(r.Sections, samples, pictures)
	for _, name := range stages {
		if !a.has(name) {
			continue
		}
		section, err := a.curves(name)
		if err != nil {
			return err
		}
		r.Sections = append(r.Sections, section)
	}
	r.Sections = append(r.Sections, a.costs(s), metrics.Section{Title: "Settings", Blocks: []metrics.Block{metrics.Text{Body: a.text, Mono: true}}})
	return r.Save(filepath.Join(a.cfg.Out, "report.html"))
}

func percent(x float64) string { return fmt.Sprintf("%.1f%%", 100*x) }

func duration(seconds float64) string {
	return metrics.FormatDuration(time.Duration(seconds * float64(time.Second)))
}

func png(p picture.Picture) ([]byte, error) {
	var b bytes.Buffer
	err := p.Encode(&b)
	return b.Bytes(), err
}

// samplesShown is how many captions the report has pictures of.
const samplesShown = 48

func sampleSection(results []sample.Result, j *judged) (metrics.Section, error) {
	shown := metrics.Images{Title: "The best candidate of each caption", Width: 128}
	for i, r := range results[:min(len(results), samplesShown)] {
		best := r.Candidates[0]
		data, err := png(best.Picture)
		if err != nil {
			return metrics.Section{}, err
		}
		im := metrics.Image{PNG: data, Caption: r.Caption}
		if j != nil {
			badge := metrics.Badge{Text: "wrong", Verdict: metrics.Bad}
			switch {
			case j.Grades[i].all:
				badge = metrics.Badge{Text: "all right", Verdict: metrics.Good}
			case j.Grades[i].shapes:
				badge = metrics.Badge{Text: "shape, colour right", Verdict: metrics.Warn}
			}
			im.Badges = append(im.Badges, badge)
		}
		im.Badges = append(im.Badges, metrics.Badge{Text: fmt.Sprintf("score %.2f", best.Score)})
		shown.Items = append(shown.Items, im)
	}
	s := metrics.Section{Title: "Samples", Blocks: []metrics.Block{shown}}
	if len(results) > 0 && len(results[0].Candidates) > 1 {
		all := metrics.Images{Title: fmt.Sprintf("All candidates for %q, by score", results[0].Caption), Width: 96}
		for _, c := range results[0].Candidates {
			data, err := png(c.Picture)
			if err != nil {
				return s, err
			}
			all.Items = append(all.Items, metrics.Image{PNG: data, Caption: fmt.Sprintf("%.2f", c.Score)})
		}
		s.Blocks = append(s.Blocks, all)
	}
	if j != nil {
		t := metrics.Table{
			Title:   "What the judge reads in the pictures",
			Columns: []string{"pictures", "shapes and colours", "and sizes", "and places", "single objects", "pairs"},
			Caption: "Each column includes the ones to its left; the last two are the third, by kind of caption.",
		}
		for _, row := range []struct {
			name string
			s    score
		}{{"best ranked", j.Best}, {"first drawn", j.First}, {"all drawn", j.Any}, {"best, other captions", j.Other}} {
			t.Rows = append(t.Rows, []string{row.name, percent(row.s.Shapes), percent(row.s.Sizes), percent(row.s.All), percent(row.s.Singles), percent(row.s.Relations)})
		}
		s.Blocks = append(s.Blocks, t)
	}
	return s, nil
}

func reconstructionSection(r *reconstructed) (metrics.Section, error) {
	const shown = 12
	pairs := metrics.Images{Title: "Validation pictures, each beside what the dVAE makes of it", Width: 112}
	for i := range min(shown, len(r.originals)) {
		for k, p := range []picture.Picture{r.originals[i], r.again[i]} {
			data, err := png(p)
			if err != nil {
				return metrics.Section{}, err
			}
			pairs.Items = append(pairs.Items, metrics.Image{PNG: data, Caption: []string{r.captions[i], "from tokens"}[k]})
		}
	}
	figures := metrics.Figures{{Label: "mean squared error", Value: fmt.Sprintf("%.5f", r.mse), Note: fmt.Sprintf("of pixels in [0,1], %d pictures", len(r.originals))}}
	if r.score != nil {
		figures = append(figures, metrics.Figure{Label: "still read right", Value: percent(r.score.Shapes), Note: "by the judge: what samples can reach"})
	}
	return metrics.Section{Title: "Reconstructions", Blocks: []metrics.Block{figures, pairs}}, nil
}

// curves draws the log of a stage.
func (a *app) curves(stage string) (metrics.Section, error) {
	records, err := a.records(stage)
	if err != nil {
		return metrics.Section{}, err
	}
	chart := func(title, y string, names ...string) metrics.Chart {
		c := metrics.Chart{Title: title, X: "step", Y: y}
		for _, n := range names {
			if s := metrics.SeriesOf(records, n); len(s.X) > 0 {
				if len(s.X) > 100 {
					s.Smooth = len(s.X) / 20
				}
				c.Series = append(c.Series, s)
			}
		}
		return c
	}
	var charts []metrics.Chart
	switch stage {
	case "dvae":
		charts = []metrics.Chart{
			chart("Reconstruction", "nats per value", "reconstruction", "validation_reconstruction"),
			chart("KL", "nats per position", "kl", "validation_kl"),
			chart("Codebook", "perplexity", "codebook_perplexity"),
		}
	case "prior":
		charts = []metrics.Chart{
			chart("Image tokens", "nats per token", "image_loss", "validation_image_loss"),
			chart("Text tokens", "nats per token", "text_loss", "validation_text_loss"),
		}
	case "clip":
		charts = []metrics.Chart{
			chart("Loss", "nats", "loss", "validation_loss"),
			chart("Captions found", "part of the batch", "accuracy", "validation_accuracy"),
		}
	}
	charts = append(charts, chart("Gradient", "norm", "grad_norm"), chart("Step size", "lr", "lr"))
	s := metrics.Section{Title: "Training of " + stage}
	for _, c := range charts {
		if len(c.Series) > 0 {
			s.Blocks = append(s.Blocks, c)
		}
	}
	return s, nil
}

func (a *app) costs(s *summary) metrics.Section {
	t := metrics.Table{Title: "Time", Columns: []string{"stage", "steps", "time", "parameters"}}
	for _, name := range []string{"dvae", "encode", "prior", "clip", "sample", "total"} {
		seconds, ok := s.Seconds[name]
		if !ok {
			continue
		}
		row := []string{name, "-", duration(seconds), "-"}
		if n, ok := s.Steps[name]; ok {
			row[1], row[3] = fmt.Sprint(n), fmt.Sprint(s.Parameters[name])
		}
		t.Rows = append(t.Rows, row)
	}
	losses := metrics.Table{Title: "Validation, averaged weights", Columns: []string{"model", "figure", "value"}}
	for _, name := range stages {
		for _, k := range sortedKeys(s.Validation[name]) {
			losses.Rows = append(losses.Rows, []string{name, k, fmt.Sprintf("%.4f", s.Validation[name][k])})
		}
	}
	return metrics.Section{Title: "Figures", Blocks: []metrics.Block{t, losses}}
}
