package metrics

import (
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// Stat is a number shown on the progress line, such as {"loss", 3.41}.
type Stat struct {
	Name  string
	Value float64
}

// Progress shows how far a long task is. On a terminal it rewrites one line,
// elsewhere it prints a line every few seconds.
type Progress struct {
	w       io.Writer
	label   string
	unit    string
	total   int64
	width   int // of the terminal; 0 if it is none
	every   time.Duration
	now     func() time.Time
	started time.Time
	printed time.Time
	open    bool // a line without its newline is on the terminal
	history []mark
	first   int64
	last    int64
	line    string
}

type mark struct {
	at    time.Time
	step  int64
	units float64
}

// NewProgress begins a task of total steps (0 if unknown) at step first. The unit
// names what Update counts: "tokens" is shown as tokens/s.
func NewProgress(w io.Writer, label, unit string, first, total int64) *Progress {
	p := &Progress{w: w, label: label, unit: unit, first: first, last: first, total: total, every: 5 * time.Second, now: time.Now}
	if f, ok := w.(*os.File); ok {
		if p.width = terminalWidth(f); p.width > 0 {
			p.every = 100 * time.Millisecond
		}
	}
	p.begin()
	return p
}

func (p *Progress) begin() {
	p.started = p.now()
	p.history = []mark{{p.started, p.first, 0}}
}

const rateWindow = 30 * time.Second

// Update reports that a step is done and how many units it took in; it prints if
// the last print is long enough ago.
func (p *Progress) Update(step int64, units float64, stats ...Stat) {
	now := p.now()
	before := p.history[len(p.history)-1]
	p.history = append(p.history, mark{now, step, before.units + units})
	for len(p.history) > 2 && now.Sub(p.history[1].at) > rateWindow {
		p.history = p.history[1:]
	}
	p.last = step
	p.line = p.format(stats)
	if p.printed.IsZero() || now.Sub(p.printed) >= p.every {
		p.print(now)
	}
}

func (p *Progress) format(stats []Stat) string {
	a, b := p.history[0], p.history[len(p.history)-1]
	seconds := b.at.Sub(a.at).Seconds()
	var parts []string
	head := fmt.Sprintf("%s %d", p.label, p.last)
	if p.total > 0 {
		head = fmt.Sprintf("%s %d/%d %3d%%", p.label, p.last, p.total, p.last*100/p.total)
	}
	parts = append(parts, head)
	for _, s := range stats {
		parts = append(parts, s.Name+" "+formatStat(s.Value))
	}
	if seconds > 0 && b.units > a.units {
		parts = append(parts, formatCount((b.units-a.units)/seconds)+" "+p.unit+"/s")
	}
	if p.total > p.last && b.step > a.step && seconds > 0 {
		left := float64(p.total-p.last) * seconds / float64(b.step-a.step)
		parts = append(parts, FormatDuration(time.Duration(min(left, 1e9)*float64(time.Second)))+" left")
	}
	return strings.Join(parts, " | ")
}

func (p *Progress) print(now time.Time) {
	p.printed = now
	if p.width == 0 {
		fmt.Fprintln(p.w, p.line)
		return
	}
	line := p.line
	if f, ok := p.w.(*os.File); ok {
		if w := terminalWidth(f); w > 0 {
			p.width = w
		}
	}
	if utf8.RuneCountInString(line) >= p.width {
		line = string([]rune(line)[:p.width-1])
	}
	fmt.Fprintf(p.w, "\r%s\x1b[K", line)
	p.open = true
}

// Note prints a line of text without tearing the progress line.
func (p *Progress) Note(format string, args ...any) {
	if p.open {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	fmt.Fprintf(p.w, format+"\n", args...)
	if p.open {
		p.print(p.now())
	}
}

// Done prints the last state and how long it took.
func (p *Progress) Done() {
	now := p.now()
	took := FormatDuration(now.Sub(p.started))
	if p.line == "" {
		p.line = fmt.Sprintf("%s %d", p.label, p.last)
	}
	if i := strings.LastIndex(p.line, " | "); i >= 0 && strings.HasSuffix(p.line, " left") {
		p.line = p.line[:i]
	}
	p.line += " | took " + took
	p.print(now)
	if p.open {
		fmt.Fprintln(p.w)
		p.open = false
	}
}

func formatStat(v float64) string {
	a := math.Abs(v)
	switch {
	case a != 0 && (a < 1e-3 || a >= 1e6) || math.IsNaN(v) || math.IsInf(v, 0):
		return fmt.Sprintf("%.3g", v)
	case a >= 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.4f", v)
}

func formatCount(v float64) string {
	switch {
	case v >= 1e9:
		return fmt.Sprintf("%.2fG", v/1e9)
	case v >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.1fk", v/1e3)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// FormatDuration gives a duration in two units at most: 12s, 3m12s, 1h02m, 2d03h.
func FormatDuration(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	s := int64(d.Seconds() + 0.5)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
}

// FormatBytes gives a size in binary units: 812 MiB, 1.50 GiB.
func FormatBytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f %ciB", v, units[i])
	case v >= 10:
		return fmt.Sprintf("%.1f %ciB", v, units[i])
	}
	return fmt.Sprintf("%.2f %ciB", v, units[i])
}
