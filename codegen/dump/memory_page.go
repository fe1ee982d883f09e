package dump

import (
	_ "embed"
	"fmt"
	"html"
	"math"
	"strings"

	"github.com/gouache-ml/gouache/ir/plan"
)

//go:embed memory.css
var memoryCSS string

//go:embed memory.js
var memoryJS string

// page is the certificate with its drawing, in one file.
func (c *certificate) page() string {
	var b strings.Builder
	fmt.Fprintf(&b, "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>%s: memory</title>\n<style>\n%s</style>\n", html.EscapeString(c.name), memoryCSS)
	b.WriteString("<header>")
	for i, l := range c.summary() {
		tag := "p"
		if i == 0 {
			tag = "h1"
		}
		fmt.Fprintf(&b, "<%s>%s</%s>\n", tag, html.EscapeString(l), tag)
	}
	b.WriteString("</header>\n<figure>")
	b.WriteString(memorySVG(c))
	b.WriteString("<figcaption>Each buffer is as wide as it lives and as high as it is large, in the colour of the block that makes it, pale in the backward pass. The black line is what must be held; " +
		"white between it and the top of the arena is what fragmentation costs. Striped: computed again. Point at a buffer or a row of the table to find one in the other; click to keep it.</figcaption></figure>\n")
	b.WriteString("<table><thead><tr><th>offset<th>end<th>bytes<th>first<th>last<th>buffer<th>made by</thead><tbody>\n")
	for i, w := range c.buffers {
		fmt.Fprintf(&b, "<tr data-b=%d><td>%d<td>%d<td>%d<td>%d<td>%d<td>%s %s<td>%s\n", i, w.Offset, w.Offset+w.Bytes, w.Bytes, w.First, w.Last,
			html.EscapeString(w.Name), w.Type, html.EscapeString(c.madeBy(w)))
	}
	fmt.Fprintf(&b, "</tbody></table>\n<script>%s</script>\n", memoryJS)
	return b.String()
}

// The picture, in pixels: the plot, what is left of it, above it for the title
// and the passes, and below for the blocks and the axis.
const (
	plotWidth, plotHeight = 1180, 560
	left, top, bottom     = 84, 62, 66
	strip                 = 16 // height of the rows of passes and blocks
)

const svgStyle = `text{font:12px system-ui,sans-serif;fill:#57606a}.t{font-size:15px;font-weight:600;fill:#1f2328}` +
	`rect.b{stroke:#fff;stroke-width:.4}rect.b:hover,rect.on{stroke:#1f2328;stroke-width:1.5}.l{font-size:10px;fill:#1f2328;pointer-events:none}` +
	`.axis{stroke:#d0d7de}.live{fill:none;stroke:#1f2328;stroke-width:1.3;pointer-events:none}.least{stroke:#cf222e;stroke-dasharray:5 4;pointer-events:none}.peak{fill:#cf222e}`

// memorySVG draws every work buffer as a rectangle over time (launches) and
// address, the bytes that must be held as a line, the passes above and the blocks
// below.
func memorySVG(c *certificate) string {
	p := c.program
	n, arena := max(len(p.Launches), 1), max(p.WorkBytes, 1)
	x := func(t int) float64 { return left + plotWidth*float64(t)/float64(n) }
	y := func(a int) float64 { return top + plotHeight*(1-float64(a)/float64(arena)) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif"><style>%s</style>`, left+plotWidth+24, top+plotHeight+bottom, svgStyle)
	b.WriteString(`<defs><pattern id="again" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="2.5" height="6" fill="#fff" fill-opacity=".55"/></pattern></defs>`)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text class="t" x="%d" y="22">%s: %s of work memory over %d launches</text>`, left, html.EscapeString(c.name), size(p.WorkBytes), len(p.Launches))
	for a, step := 0, round(arena, 8); a <= arena; a += step {
		fmt.Fprintf(&b, `<line class="axis" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`, left, left+plotWidth, y(a), y(a), left-8, y(a)+4, size(a))
	}
	foot := top + plotHeight + strip + 4
	for t, step := 0, round(n, 12); t <= n; t += step {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`, x(t), foot+14, t)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">launch</text>`, left+plotWidth/2, foot+32)
	hue := hues(p)
	for _, r := range passes(p) {
		fmt.Fprintf(&b, `<line class="axis" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, x(r.from), x(r.from), top-strip-4, top+plotHeight)
		label(&b, x(r.from), x(r.to), top-strip-4, strip, r.name, "")
	}
	for _, r := range blockRuns(p) {
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"><title>%s, launches %d to %d</title></rect>`, x(r.from), top+plotHeight+2, x(r.to)-x(r.from), strip, hue(r.from), html.EscapeString(r.name), r.from, r.to-1)
		label(&b, x(r.from), x(r.to), top+plotHeight+2, strip, r.name, "l")
	}
	for i, w := range c.buffers {
		first, last := max(w.First, 0), min(w.Last, n-1)
		if last < first {
			continue
		}
		at := w.First
		if m, ok := c.maker[w]; ok {
			at = m
		}
		high := y(w.Offset) - y(w.Offset+w.Bytes)
		rect := func(more string) {
			fmt.Fprintf(&b, `<rect class="b" data-b="%d" x="%.1f" y="%.1f" width="%.1f" height="%.2f" %s><title>%s %s&#10;%s at %d, launches %d to %d&#10;%s</title></rect>`,
				i, x(first), y(w.Offset+w.Bytes), x(last+1)-x(first), high, more,
				html.EscapeString(w.Name), w.Type, size(w.Bytes), w.Offset, w.First, w.Last, html.EscapeString(c.madeBy(w)))
		}
		rect(`fill="` + hue(at) + `"`)
		if recomputed(w.Name) {
			rect(`fill="url(#again)"`)
		}
		name, block := strings.TrimPrefix(w.Name, "recomputed "), ""
		if at >= 0 && at < len(p.Launches) {
			block = p.Launches[at].Block
		}
		if !label(&b, x(first), x(last+1), y(w.Offset+w.Bytes), high, name+" "+block, "l") {
			label(&b, x(first), x(last+1), y(w.Offset+w.Bytes), high, name, "l")
		}
	}
	b.WriteString(`<path class="live" d="`)
	for t, a := range c.alive {
		op := "L"
		if t == 0 {
			op = "M"
		}
		fmt.Fprintf(&b, "%s%.1f %.1fH%.1f", op, x(t), y(a), x(t+1))
	}
	b.WriteString(`"/>`)
	if len(c.alive) > 0 {
		least := c.alive[c.peak]
		fmt.Fprintf(&b, `<line class="least" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><circle class="peak" cx="%.1f" cy="%.1f" r="3.5"/><text class="peak" x="%d" y="%.1f" text-anchor="end">%s must be held at launch %d</text>`,
			left, left+plotWidth, y(least), y(least), (x(c.peak)+x(c.peak+1))/2, y(least), left+plotWidth, y(least)+16, size(least), c.peak)
	}
	b.WriteString(`</svg>` + "\n")
	return b.String()
}

// round is a step for an axis of about so many: a power of two, or half again.
func round(n, parts int) int {
	step := math.Exp2(math.Ceil(math.Log2(max(float64(n)/float64(parts), 1))))
	if s := step * 3 / 4; s >= 1 && s == math.Trunc(s) && s*float64(parts) >= float64(n) {
		step = s
	}
	return int(step)
}

// label writes text in the middle of a box, and reports whether it fits.
func label(b *strings.Builder, x0, x1, y, high float64, text, class string) bool {
	const wide = 6.2 // a character, about
	if high < 10 || x1-x0 < wide*float64(len(text))+4 || text == "" {
		return false
	}
	if class != "" {
		class = fmt.Sprintf(` class="%s"`, class)
	}
	fmt.Fprintf(b, `<text%s x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, class, (x0+x1)/2, y+high/2+3.5, html.EscapeString(text))
	return true
}

// span is a run of launches.
type span struct {
	from, to int
	name     string
}

// passes are the forward and the backward pass and what follows, of a program
// that has a backward pass.
func passes(p *plan.Program) []span {
	first, last := -1, -1
	for i, l := range p.Launches {
		if l.Backward {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first < 0 {
		return nil
	}
	return []span{{0, first, "forward pass"}, {first, last + 1, "backward pass"}, {last + 1, len(p.Launches), "update"}}
}

// blockRuns are the runs of launches of one block.
func blockRuns(p *plan.Program) []span {
	var out []span
	for i, l := range p.Launches {
		if n := len(out); n > 0 && out[n-1].name == l.Block && p.Launches[i-1].Backward == l.Backward {
			out[n-1].to = i + 1
			continue
		}
		out = append(out, span{i, i + 1, l.Block})
	}
	return out
}

// hues colours launches by their block: in the order of blocks from blue to
// green, the backward pass of a block in the same hue but paler, what is not
// launched grey.
func hues(p *plan.Program) func(launch int) string {
	index := map[string]int{}
	for _, l := range p.Launches {
		if _, ok := index[l.Block]; !ok {
			index[l.Block] = len(index)
		}
	}
	return func(launch int) string {
		if launch < 0 || launch >= len(p.Launches) {
			return "#afb8c1"
		}
		l := p.Launches[launch]
		h := 215 + 300*index[l.Block]/max(len(index), 1)
		if l.Backward && !recomputed(l.Values) {
			return fmt.Sprintf("hsl(%d 48%% 76%%)", h%360)
		}
		return fmt.Sprintf("hsl(%d 55%% 60%%)", h%360)
	}
}
