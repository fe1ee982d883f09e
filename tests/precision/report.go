package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gouache-ml/gouache/runtime/metrics"
)

// The exponents at which f16 begins to lose: of the smallest number with all its bits,
// and of the largest that rounds to zero.
const (
	leastNormal = -14
	leastKept   = -25
)

// report prints the tables and writes the page.
func (s *study) report(out io.Writer) error {
	all, err := s.results()
	if err != nil {
		return err
	}
	system := s.system
	if s.sizes != "" {
		system += " with " + s.sizes
	}
	title := fmt.Sprintf("%s, %s, on %s", system, time.Now().Format(time.DateOnly), metrics.ReadHardware())
	tables := []metrics.Table{s.losses(all), s.underflow(all), s.scales(all)}
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s\n\n", title)
	page := metrics.Report{Title: "A transformer in 16 bits", Subtitle: title, Sections: []metrics.Section{{Title: "Figures"}, s.curves(all), s.maps(all)}}
	for _, t := range tables {
		markdown(&text, t)
		page.Sections[0].Blocks = append(page.Sections[0].Blocks, t)
	}
	if err := page.Save(filepath.Join(s.out, "report.html")); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.out, "tables.md"), text.Bytes(), 0o666); err != nil {
		return err
	}
	_, err = out.Write(text.Bytes())
	return err
}

func markdown(w io.Writer, t metrics.Table) {
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(t.Columns, " | "), strings.Repeat("---|", len(t.Columns)))
	for _, r := range t.Rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(r, " | "))
	}
	fmt.Fprintln(w)
}

// last is the last value of a metric, NaN if there is none.
func (t *trained) last(name string) float64 {
	for _, r := range slices.Backward(t.records) {
		if v, ok := r.Values[name]; ok {
			return v
		}
	}
	return math.NaN()
}

// tail is the mean of a metric over the last tenth of the steps.
func (t *trained) tail(name string) float64 {
	if len(t.records) == 0 {
		return math.NaN()
	}
	from := t.records[len(t.records)-1].Step * 9 / 10
	sum, n := 0.0, 0.0
	for _, r := range t.records {
		if v, ok := r.Values[name]; ok && r.Step > from {
			sum, n = sum+v, n+1
		}
	}
	return sum / n
}

func (s *study) of(all []trained, w way) []trained {
	var out []trained
	for _, t := range all {
		if t.name == w.name {
			out = append(out, t)
		}
	}
	return out
}

func meanOf(ts []trained, f func(*trained) float64) float64 {
	sum := 0.0
	for i := range ts {
		sum += f(&ts[i])
	}
	return sum / float64(len(ts))
}

// losses compares where training ended, and how fast it went.
func (s *study) losses(all []trained) metrics.Table {
	t := metrics.Table{Columns: []string{"way", "what", "loss, last tenth", "validation loss at the end", "beside " + s.ways[0].name, "by seed", "skipped updates", "s a step"}}
	base := math.NaN()
	for i, x := range s.ways {
		ts := s.of(all, x)
		end := meanOf(ts, func(t *trained) float64 { return t.last("validation_loss") })
		if i == 0 {
			base = end
		}
		var seeds []string
		for j := range ts {
			seeds = append(seeds, fmt.Sprintf("%.4f", ts[j].last("validation_loss")))
		}
		t.Rows = append(t.Rows, []string{x.name, x.doc,
			fmt.Sprintf("%.4f", meanOf(ts, func(t *trained) float64 { return t.tail("loss") })), fmt.Sprintf("%.4f", end),
			fmt.Sprintf("%+.2f%%", 100*(end/base-1)), strings.Join(seeds, ", "),
			fmt.Sprintf("%.0f", meanOf(ts, func(t *trained) float64 { return t.last("skipped") })),
			fmt.Sprintf("%.3f", meanOf(ts, func(t *trained) float64 { return t.last("seconds") / float64(t.records[len(t.records)-1].Step) }))})
	}
	return t
}

// isResblock tells the transformer's resblocks, attn3 or mlp3, from its other parts, and
// numbers them from the input.
func isResblock(name string) (n int, ok bool) {
	for i, kind := range []string{"attn", "mlp"} {
		if rest, found := strings.CutPrefix(name, kind); found {
			layer, err := strconv.Atoi(rest)
			return 2*layer + i, err == nil
		}
	}
	return 0, false
}

// histograms are those of the resblocks at a step, from the input on: of 16-bit gradients
// where there are any.
func (t *trained) histograms(step int64) []metrics.Exponents {
	var out []metrics.Exponents
	narrow := slices.ContainsFunc(t.exponents, func(e metrics.Exponents) bool { return e.DType != "f32" })
	for _, e := range t.exponents {
		if _, ok := isResblock(e.Block); ok && e.Step == step && (e.DType != "f32") == narrow {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b metrics.Exponents) int {
		i, _ := isResblock(a.Block)
		j, _ := isResblock(b.Block)
		return cmp.Compare(i, j)
	})
	return out
}

// steps are those that have histograms.
func (t *trained) steps() []int64 {
	var out []int64
	for _, e := range t.exponents {
		if len(out) == 0 || out[len(out)-1] != e.Step {
			out = append(out, e.Step)
		}
	}
	return out
}

// underflow tells which share of the resblocks' gradients is lost.
func (s *study) underflow(all []trained) metrics.Table {
	table := metrics.Table{Columns: []string{"way", "update", "gradients stored as", "zero", "with fewer bits (below 2^-14)", "zero in the worst resblock", "median exponent, lowest and highest resblock"}}
	for _, x := range s.ways {
		t := s.of(all, x)[0]
		steps := t.steps()
		if len(steps) == 0 {
			continue
		}
		if len(steps) > 3 && steps[0] == 1 {
			steps = steps[1:] // unembeddings begin as zeros, and so do gradients
		}
		for _, step := range slices.Compact([]int64{steps[0], steps[len(steps)/2], steps[len(steps)-1]}) {
			hs := t.histograms(step)
			var zero, weak, n, worst float64
			name := ""
			low, high := math.MaxInt, math.MinInt
			for i := range hs {
				h := &hs[i]
				z, b := float64(h.Zero), float64(h.Below(leastNormal))
				if h.DType == "f32" { // what f16 would lose
					z += float64(h.Below(leastKept))
					b -= float64(h.Below(leastKept))
				}
				zero, weak, n = zero+z, weak+b, n+float64(h.Len())
				if share := z / float64(h.Len()); share >= worst {
					worst, name = share, h.Block
				}
				low, high = min(low, median(h)), max(high, median(h))
			}
			if n == 0 {
				continue
			}
			stored := hs[0].DType
			if stored == "f32" {
				stored = "f32; counted as f16 would keep them"
			}
			table.Rows = append(table.Rows, []string{x.name, fmt.Sprint(step), stored, fmt.Sprintf("%.2f%%", 100*zero/n), fmt.Sprintf("%.1f%%", 100*weak/n),
				fmt.Sprintf("%.1f%% (%s)", 100*worst, name), fmt.Sprintf("%d, %d", low, high)})
		}
	}
	return table
}

// median is the median exponent of what isn't zero.
func median(h *metrics.Exponents) int {
	half := (h.Len() - h.Zero - h.NonFinite) / 2
	for i, c := range h.Counts {
		if half -= c; half <= 0 {
			return h.First + i
		}
	}
	return h.First
}

// scales tells where the scales ended.
func (s *study) scales(all []trained) metrics.Table {
	table := metrics.Table{Columns: []string{"way", "least scale at the end", "median", "greatest"}, Caption: "Powers of 2."}
	for _, x := range s.ways {
		t := s.of(all, x)[0]
		type scale struct {
			block string
			log   float64
		}
		var end []scale
		for name, v := range t.records[len(t.records)-1].Values {
			if block, ok := strings.CutPrefix(name, "grad_scale/"); ok {
				end = append(end, scale{block, v})
			}
		}
		if len(end) == 0 {
			continue
		}
		slices.SortFunc(end, func(a, b scale) int { return cmp.Or(cmp.Compare(a.log, b.log), cmp.Compare(a.block, b.block)) })
		first, middle, last := end[0], end[len(end)/2], end[len(end)-1]
		table.Rows = append(table.Rows, []string{x.name, fmt.Sprintf("2^%.1f (%s)", first.log, first.block), fmt.Sprintf("2^%.1f", middle.log), fmt.Sprintf("2^%.1f (%s)", last.log, last.block)})
	}
	return table
}

// curves are the losses of the first seed, and the scales as in figure 12 of the paper.
func (s *study) curves(all []trained) metrics.Section {
	section := metrics.Section{Title: "Over the updates"}
	loss := metrics.Chart{Title: "Validation loss", X: "update", Y: "loss"}
	for _, w := range s.ways {
		curve := metrics.SeriesOf(s.of(all, w)[0].records, "validation_loss")
		curve.Name = w.name
		loss.Series = append(loss.Series, curve)
	}
	section.Blocks = append(section.Blocks, loss)
	for _, w := range s.ways {
		t := s.of(all, w)[0]
		var names []string
		for name := range t.records[len(t.records)-1].Values {
			if strings.HasPrefix(name, "grad_scale/") {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			continue
		}
		order := func(name string) int {
			n, _ := isResblock(strings.TrimPrefix(name, "grad_scale/"))
			return n
		}
		slices.SortFunc(names, func(a, b string) int { return cmp.Compare(order(a), order(b)) })
		c := metrics.Chart{Title: "Scales, " + w.name, X: "update", Y: "logarithm of the scale"}
		for i, name := range names {
			if len(names) > 12 && i%(len(names)/12) > 0 {
				continue // a legend of a hundred says nothing
			}
			curve := metrics.SeriesOf(t.records, name)
			curve.Name = strings.TrimPrefix(name, "grad_scale/")
			c.Series = append(c.Series, curve)
		}
		if len(names) > 12 {
			c.Caption = fmt.Sprintf("One of every %d resblocks.", len(names)/12)
		}
		section.Blocks = append(section.Blocks, c)
	}
	return section
}

// The exponents shown.
const firstShown, lastShown = -40, 16

// maps show where the gradients of each resblock lie, and what f16 holds.
func (s *study) maps(all []trained) metrics.Section {
	section := metrics.Section{Title: "Exponents of the gradients"}
	for _, w := range s.ways {
		t := s.of(all, w)[0]
		steps := t.steps()
		if len(steps) == 0 {
			continue
		}
		step := steps[len(steps)-1]
		m := metrics.HeatMap{
			Title: fmt.Sprintf("%s, update %d", w.name, step), X: "binary exponent", Y: "resblock, from the input", First: firstShown, Dark: 0.2,
			Marks:   []metrics.Mark{{Column: leastNormal, Text: "fewer bits in f16"}, {Column: leastKept + 1, Text: "zero in f16"}, {Column: lastShown, Text: "overflow"}},
			Caption: "Of the gradients that the backward pass of each resblock stores: " + w.doc + ".",
		}
		for _, h := range t.histograms(step) {
			row := make([]float64, lastShown-firstShown+1)
			for i, c := range h.Counts {
				column := min(max(h.First+i, firstShown), lastShown) - firstShown
				row[column] += float64(c) / float64(h.Len())
			}
			m.Rows = append(m.Rows, row)
		}
		section.Blocks = append(section.Blocks, m)
	}
	return section
}
