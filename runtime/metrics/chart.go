package metrics

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// Series is one curve: Y over X, X ascending. Values that aren't finite are gaps.
type Series struct {
	Name   string
	X, Y   []float64
	Smooth int // points of a moving average drawn over the faint raw curve; 0 or 1 draws the raw curve alone
}

// Chart is a block with a line chart, drawn as inline SVG.
type Chart struct {
	Title   string
	X, Y    string // axis labels
	Series  []Series
	LogY    bool
	Caption string
}

// The drawing's coordinates; the page scales it to the column.
const (
	chartWidth, chartHeight = 760.0, 300.0
	plotLeft, plotRight     = 62.0, 744.0
	plotTop, plotBottom     = 12.0, 250.0
	chartColors             = 8   // of the style sheet; series beyond share them
	maxPoints               = 700 // per curve: about one a pixel
)

type axis struct {
	min, max float64
	log      bool
	from, to float64 // pixels
}

func (a axis) scale(v float64) float64 {
	lo, hi := a.min, a.max
	if a.log {
		v, lo, hi = math.Log10(v), math.Log10(lo), math.Log10(hi)
	}
	return a.from + (v-lo)/(hi-lo)*(a.to-a.from)
}

func (a axis) shows(v float64) bool {
	return finite(v) && (!a.log || v > 0)
}

// fit makes an axis that spans the values with round ends.
func fit(values [][]float64, log bool, from, to float64) (axis, []float64) {
	a := axis{min: math.Inf(1), max: math.Inf(-1), log: log, from: from, to: to}
	for _, vs := range values {
		for _, v := range vs {
			if a.shows(v) {
				a.min, a.max = min(a.min, v), max(a.max, v)
			}
		}
	}
	if a.min > a.max { // nothing to show
		a.min, a.max, a.log = 0, 1, false
	}
	if a.log {
		return a.fitLog()
	}
	if a.min == a.max {
		pad := max(math.Abs(a.min)*0.1, 1e-12)
		a.min, a.max = a.min-pad, a.max+pad
	}
	step := niceStep((a.max - a.min) / 5)
	lo, hi := math.Floor(a.min/step+1e-9), math.Ceil(a.max/step-1e-9)
	a.min, a.max = lo*step, hi*step
	var ticks []float64
	for k := lo; k <= hi && len(ticks) < 20; k++ {
		ticks = append(ticks, k*step)
	}
	return a, ticks
}

func (a axis) fitLog() (axis, []float64) {
	lo, hi := math.Floor(math.Log10(a.min)), math.Ceil(math.Log10(a.max))
	if hi-lo <= 2 { // within two decades: 1, 2, 5 and tight ends
		steps := []float64{1, 2, 3, 5, 7}
		var all []float64
		for d := lo - 1; d <= hi+1; d++ {
			for _, s := range steps {
				all = append(all, s*math.Pow(10, d))
			}
		}
		first, last := 0, len(all)-1
		for first+1 < len(all) && all[first+1] <= a.min {
			first++
		}
		for last > 0 && all[last-1] >= a.max {
			last--
		}
		if first == last {
			last++
		}
		a.min, a.max = all[first], all[last]
		return a, all[first : last+1]
	}
	a.min, a.max = math.Pow(10, lo), math.Pow(10, hi)
	every := math.Ceil((hi - lo) / 6)
	var ticks []float64
	for d := lo; d <= hi; d += every {
		ticks = append(ticks, math.Pow(10, d))
	}
	return a, ticks
}

// niceStep rounds up to 1, 2, 2.5 or 5 times a power of ten.
func niceStep(raw float64) float64 {
	p := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 2.5, 5} {
		if raw <= m*p*(1+1e-9) {
			return m * p
		}
	}
	return 10 * p
}

// SVG draws the chart. All colours are classes of the report's style sheet.
func (c Chart) SVG() template.HTML {
	var xs, ys [][]float64
	for _, s := range c.Series {
		n := min(len(s.X), len(s.Y))
		xs, ys = append(xs, s.X[:n]), append(ys, s.Y[:n])
	}
	x, xTicks := fitX(xs)
	y, yTicks := fit(ys, c.LogY, plotBottom, plotTop)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, chartWidth, chartHeight, html.EscapeString(c.label()))
	for _, t := range yTicks {
		at := y.scale(t)
		fmt.Fprintf(&b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, plotLeft, plotRight, at, at)
		fmt.Fprintf(&b, `<text class="tick" x="%g" y="%.1f" text-anchor="end">%s</text>`, plotLeft-8, at+4, tickText(t, yTicks))
	}
	for _, t := range xTicks {
		at := x.scale(t)
		if at > plotRight+0.5 {
			continue
		}
		fmt.Fprintf(&b, `<line class="axis" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/>`, at, at, plotBottom, plotBottom+4)
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%g" text-anchor="middle">%s</text>`, at, plotBottom+18, tickText(t, xTicks))
	}
	fmt.Fprintf(&b, `<line class="axis" x1="%g" x2="%g" y1="%g" y2="%g"/>`, plotLeft, plotRight, plotBottom, plotBottom)
	fmt.Fprintf(&b, `<text class="label" x="%g" y="%g" text-anchor="middle">%s</text>`, (plotLeft+plotRight)/2, chartHeight-10, html.EscapeString(c.X))
	fmt.Fprintf(&b, `<text class="label" transform="translate(14 %g) rotate(-90)" text-anchor="middle">%s</text>`, (plotTop+plotBottom)/2, html.EscapeString(c.Y))
	for i, s := range c.Series {
		class := fmt.Sprintf("c%d", i%chartColors)
		if s.Smooth > 1 {
			drawCurve(&b, s, x, y, class+" faint")
			s = Smooth(s, s.Smooth)
		}
		drawCurve(&b, s, x, y, class)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}

// fitX spans the data exactly: empty space beside a curve says nothing.
func fitX(xs [][]float64) (axis, []float64) {
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range xs {
		for _, x := range v {
			if finite(x) {
				lo, hi = min(lo, x), max(hi, x)
			}
		}
	}
	if lo > hi {
		lo, hi = 0, 1
	}
	if lo == hi {
		lo, hi = lo-0.5, hi+0.5
	}
	a := axis{min: lo, max: hi, from: plotLeft, to: plotRight}
	step := niceStep((hi - lo) / 7)
	var ticks []float64
	for k := math.Ceil(lo/step - 1e-9); k*step <= hi*(1+1e-9) && len(ticks) < 20; k++ {
		ticks = append(ticks, k*step)
	}
	return a, ticks
}

// drawCurve draws a series as one path. Long ones are thinned to the lowest and highest value
// of each pixel column, so that spikes stay visible.
func drawCurve(b *strings.Builder, s Series, x, y axis, class string) {
	n := min(len(s.X), len(s.Y))
	var path strings.Builder
	pen, points := false, 0
	var lastX, lastY float64
	visit := func(i int) {
		if !y.shows(s.Y[i]) || !finite(s.X[i]) {
			pen = false
			return
		}
		op := "L"
		if !pen {
			op = "M"
		}
		lastX, lastY = x.scale(s.X[i]), y.scale(s.Y[i])
		fmt.Fprintf(&path, "%s%.1f %.1f", op, lastX, lastY)
		pen = true
		points++
	}
	if n <= maxPoints {
		for i := range n {
			visit(i)
		}
	} else {
		for k := range maxPoints / 2 {
			from, to := k*n/(maxPoints/2), (k+1)*n/(maxPoints/2)
			low, high := from, from
			for i := from; i < to; i++ {
				if !y.shows(s.Y[i]) {
					low, high = i, i // a gap in the column is a gap in the curve
					break
				}
				if s.Y[i] < s.Y[low] {
					low = i
				}
				if s.Y[i] > s.Y[high] {
					high = i
				}
			}
			visit(min(low, high))
			if low != high {
				visit(max(low, high))
			}
		}
	}
	if points == 1 {
		fmt.Fprintf(b, `<circle class="dot %s" cx="%.1f" cy="%.1f" r="3"/>`, class, lastX, lastY)
	} else if points > 1 {
		fmt.Fprintf(b, `<path class="curve %s" d="%s"/>`, class, path.String())
	}
}

// tickText writes a tick with as many digits as tell it from its neighbours.
func tickText(v float64, ticks []float64) string {
	step := math.Inf(1)
	for i := 1; i < len(ticks); i++ {
		step = min(step, math.Abs(ticks[i]-ticks[i-1]))
	}
	a := math.Abs(v)
	switch {
	case a < step*1e-6:
		return "0"
	case a >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 6, 64) + "M"
	case a >= 1e4:
		return strconv.FormatFloat(v/1e3, 'g', 6, 64) + "k"
	case a < 1e-3:
		mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(v, 'e', 2, 64), "e-")
		if strings.Contains(mantissa, ".") {
			mantissa = strings.TrimRight(strings.TrimRight(mantissa, "0"), ".")
		}
		return mantissa + "e-" + strings.TrimLeft(exponent, "0")
	}
	return strconv.FormatFloat(v, 'g', 6, 64)
}

func (c Chart) label() string {
	if c.Title != "" {
		return c.Title
	}
	return c.Y + " over " + c.X
}

// LegendEntry is a curve's name, colour class and last value.
type LegendEntry struct{ Class, Name, Last string }

// Legend lists the curves in order. The last value of a smoothed curve is the mean
// of its last points.
func (c Chart) Legend() []LegendEntry {
	var out []LegendEntry
	for i, s := range c.Series {
		e := LegendEntry{Class: fmt.Sprintf("c%d", i%chartColors), Name: s.Name}
		w := NewWindow(s.Smooth)
		for _, y := range s.Y[:min(len(s.X), len(s.Y))] {
			w.Add(y)
		}
		if v := w.Mean(); finite(v) {
			e.Last = formatStat(v)
		}
		out = append(out, e)
	}
	return out
}
