package metrics

import (
	"fmt"
	"html"
	"html/template"
	"strings"
)

// HeatMap is a block with a histogram in each row: the darker a cell, the more of the row's
// numbers lie in its column.
type HeatMap struct {
	Title   string
	X, Y    string      // axis labels
	First   int         // number of the first column
	Rows    [][]float64 // shares, from 0 to 1; the first row is the lowest
	Dark    float64     // the share that is darkest; 0 for 1
	Marks   []Mark
	Caption string
}

// Mark is a line before a column.
type Mark struct {
	Column int
	Text   string
}

// SVG draws the map. All colours are classes of the report's style sheet.
func (h HeatMap) SVG() template.HTML {
	columns := 1
	for _, r := range h.Rows {
		columns = max(columns, len(r))
	}
	rows := max(1, len(h.Rows))
	height := min(14, max(3, 320/float64(rows)))
	bottom := plotTop + 16 + height*float64(rows)
	width := (plotRight - plotLeft) / float64(columns)
	dark := h.Dark
	if dark <= 0 {
		dark = 1
	}
	x := func(column int) float64 { return plotLeft + width*float64(column-h.First) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %.1f" role="img" aria-label="%s"><g class="c0">`, chartWidth, bottom+50, html.EscapeString(h.Title))
	for i, r := range h.Rows {
		top := bottom - height*float64(i+1)
		for j, share := range r {
			if share > 0 {
				fmt.Fprintf(&b, `<rect class="cell" x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill-opacity="%.3g"/>`, x(h.First+j), top, width, height, min(1, max(0.02, share/dark)))
			}
		}
	}
	b.WriteString(`</g>`)
	for _, m := range h.Marks {
		fmt.Fprintf(&b, `<line class="mark" x1="%.1f" x2="%.1f" y1="%g" y2="%.1f"/>`, x(m.Column), x(m.Column), plotTop+14, bottom)
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%g" text-anchor="middle">%s</text>`, x(m.Column), plotTop+10, html.EscapeString(m.Text))
	}
	every := max(1, (columns+11)/12)
	for c := h.First; c < h.First+columns; c++ {
		if c%every == 0 {
			fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%d</text>`, x(c)+width/2, bottom+16, c)
		}
	}
	fmt.Fprintf(&b, `<line class="axis" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/>`, plotLeft, plotRight, bottom, bottom)
	fmt.Fprintf(&b, `<text class="label" x="%g" y="%.1f" text-anchor="middle">%s</text>`, (plotLeft+plotRight)/2, bottom+40, html.EscapeString(h.X))
	fmt.Fprintf(&b, `<text class="label" transform="translate(14 %.1f) rotate(-90)" text-anchor="middle">%s</text>`, (plotTop+bottom)/2, html.EscapeString(h.Y))
	b.WriteString(`</svg>`)
	return template.HTML(b.String())
}
