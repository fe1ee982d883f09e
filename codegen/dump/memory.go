package dump

import (
	"cmp"
	"fmt"
	"html"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/gouache-ml/gouache/ir/plan"
)

// memory prints the work arena of every program asked for; with a folder it
// draws each as an SVG too.
func (in *input) memory(dir string, w io.Writer) error {
	s, err := in.plan()
	if err != nil {
		return err
	}
	names, programs, err := in.programs(s)
	if err != nil {
		return err
	}
	for i, p := range programs {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := memoryTable(w, names[i], p); err != nil {
			return err
		}
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		path := filepath.Join(dir, names[i]+".svg")
		if err := os.WriteFile(path, []byte(memorySVG(names[i], p)), 0o666); err != nil {
			return err
		}
		fmt.Fprintln(w, path)
	}
	return nil
}

// work lists the work buffers by address, then time.
func work(p *plan.Program) []*plan.Buffer {
	var bs []*plan.Buffer
	for _, b := range p.Buffers {
		if b.Arena == plan.Work {
			bs = append(bs, b)
		}
	}
	slices.SortStableFunc(bs, func(a, b *plan.Buffer) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.First, b.First))
	})
	return bs
}

// alive gives the bytes of work buffers alive during each launch.
func alive(p *plan.Program) []int {
	live := make([]int, len(p.Launches))
	for _, b := range work(p) {
		for t := max(b.First, 0); t <= min(b.Last, len(live)-1); t++ {
			live[t] += b.Bytes
		}
	}
	return live
}

func memoryTable(w io.Writer, name string, p *plan.Program) error {
	bs, live := work(p), alive(p)
	state, sum, peak := 0, 0, 0
	for _, b := range p.Buffers {
		if b.Arena == plan.State {
			state += b.Bytes
		} else {
			sum += b.Bytes
		}
	}
	for t := range live {
		if live[t] > live[peak] {
			peak = t
		}
	}
	fmt.Fprintf(w, "%s: %d launches; work arena %s for %d buffers of %s in all; state read or written %s\n",
		name, len(p.Launches), size(p.WorkBytes), len(bs), size(sum), size(state))
	if len(live) > 0 {
		l := p.Launches[peak]
		fmt.Fprintf(w, "most alive: %s at launch %d, %s, %s\n", size(live[peak]), peak, l.Kernel.Name, l.Pos)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "offset\tbytes\tfirst\tlast\t\tbuffer")
	for _, b := range bs {
		fmt.Fprintf(t, "%d\t%d\t%d\t%d\t\t%s %s\n", b.Offset, b.Bytes, b.First, b.Last, b.Name, b.Type)
	}
	return t.Flush()
}

// size prints bytes for people.
func size(n int) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// The picture, in pixels.
const (
	plotWidth, plotHeight = 1080, 460
	left, top, bottom     = 84, 44, 44
)

const svgStyle = `text{font:12px system-ui,sans-serif;fill:#57606a}.t{font-size:15px;font-weight:600;fill:#1f2328}` +
	`rect.b{stroke:#fff;stroke-width:.4}rect.b:hover{stroke:#1f2328;stroke-width:1.5}` +
	`.axis{stroke:#d0d7de}.live{fill:none;stroke:#1f2328;stroke-width:1.3}`

// memorySVG draws every work buffer as a rectangle over time (launches) and
// address, and the bytes alive as a line: white between line and top of the
// arena is what fragmentation costs.
func memorySVG(name string, p *plan.Program) string {
	n, arena := max(len(p.Launches), 1), max(p.WorkBytes, 1)
	x := func(t int) float64 { return left + plotWidth*float64(t)/float64(n) }
	y := func(a int) float64 { return top + plotHeight*(1-float64(a)/float64(arena)) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif"><style>%s</style>`, left+plotWidth+24, top+plotHeight+bottom, svgStyle)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/><text class="t" x="%d" y="24">%s: %s of work memory over %d launches</text>`, left, html.EscapeString(name), size(p.WorkBytes), len(p.Launches))
	for i := 0; i <= 4; i++ {
		a := arena * i / 4
		fmt.Fprintf(&b, `<line class="axis" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`, left, left+plotWidth, y(a), y(a), left-8, y(a)+4, size(a))
		if t := n * i / 4; i == 0 || t > n*(i-1)/4 {
			fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`, x(t), top+plotHeight+18, t)
		}
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">launch</text>`, left+plotWidth/2, top+plotHeight+36)
	hue := hues(p)
	for _, w := range work(p) {
		first, last := max(w.First, 0), min(w.Last, n-1)
		if last < first {
			continue
		}
		fmt.Fprintf(&b, `<rect class="b" x="%.1f" y="%.1f" width="%.1f" height="%.2f" fill="%s"><title>%s %s&#10;%s at %d, launches %d to %d%s</title></rect>`,
			x(first), y(w.Offset+w.Bytes), x(last+1)-x(first), y(w.Offset)-y(w.Offset+w.Bytes), hue(w),
			html.EscapeString(w.Name), w.Type, size(w.Bytes), w.Offset, w.First, w.Last, html.EscapeString(where(p, w)))
	}
	b.WriteString(`<path class="live" d="`)
	for t, a := range alive(p) {
		op := "L"
		if t == 0 {
			op = "M"
		}
		fmt.Fprintf(&b, "%s%.1f %.1fH%.1f", op, x(t), y(a), x(t+1))
	}
	b.WriteString(`"/></svg>` + "\n")
	return b.String()
}

// where names the block whose launch first writes w.
func where(p *plan.Program, w *plan.Buffer) string {
	if w.First < 0 || w.First >= len(p.Launches) {
		return ""
	}
	l := p.Launches[w.First]
	s := ""
	if l.Block != "" {
		s = ", " + l.Block
	}
	if l.Backward {
		s += " backward"
	}
	return s + ", " + l.Pos.String()
}

// hues colours buffers by the block that writes them: forward in the order of
// blocks from blue to green, the backward pass of a block in the same hue but
// paler, inputs grey.
func hues(p *plan.Program) func(*plan.Buffer) string {
	index := map[string]int{}
	for _, l := range p.Launches {
		if _, ok := index[l.Block]; !ok {
			index[l.Block] = len(index)
		}
	}
	return func(w *plan.Buffer) string {
		if w.First < 0 || w.First >= len(p.Launches) {
			return "#afb8c1"
		}
		l := p.Launches[w.First]
		h := 215 + 300*index[l.Block]/max(len(index), 1)
		if l.Backward {
			return fmt.Sprintf("hsl(%d 48%% 76%%)", h%360)
		}
		return fmt.Sprintf("hsl(%d 55%% 56%%)", h%360)
	}
}
