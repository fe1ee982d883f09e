package dump

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/gouache-ml/gouache/codegen/sched"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// memory prints the certificate of every program asked for: what lies where and
// when, what made it, how much must be held at least, and what the checker says.
// With a folder it writes each as a page too, with a drawing. Of a plan that the
// checker refuses it prints the same, and fails.
func (in *input) memory(dir string, w io.Writer) error {
	s, err := in.plan()
	if err != nil {
		return err
	}
	names, _, err := in.programs(s)
	if err != nil {
		return err
	}
	var errs []error
	first := true
	for _, m := range s.Models {
		state := sched.CheckState(m)
		shown := false
		for _, p := range m.Programs {
			name := m.Name + "." + p.Name
			if !slices.Contains(names, name) {
				continue
			}
			if !first {
				fmt.Fprintln(w)
			}
			first = false
			c := certify(name, p)
			if err := c.table(w); err != nil {
				return err
			}
			errs = append(errs, c.verdict)
			shown = true
			if dir == "" {
				continue
			}
			if err := os.MkdirAll(dir, 0o777); err != nil {
				return err
			}
			path := filepath.Join(dir, name+".html")
			if err := os.WriteFile(path, []byte(c.page()), 0o666); err != nil {
				return err
			}
			fmt.Fprintln(w, path)
		}
		if shown {
			errs = append(errs, state)
			fmt.Fprintln(w)
			if err := stateTable(w, m, state); err != nil {
				return err
			}
		}
	}
	return errors.Join(errs...)
}

// certificate is what can be said of a program's memory by looking at its
// launches alone.
type certificate struct {
	name    string
	program *plan.Program
	buffers []*plan.Buffer       // of the work arena, by address, then time
	maker   map[*plan.Buffer]int // the first launch that writes it
	alive   []int                // bytes that must be held during each launch
	peak    int                  // the launch with most
	verdict error                // of the checker
}

func certify(name string, p *plan.Program) *certificate {
	c := &certificate{name: name, program: p, buffers: work(p), maker: map[*plan.Buffer]int{}, alive: sched.Alive(p), verdict: sched.Check(p)}
	for t := range c.alive {
		if c.alive[t] > c.alive[c.peak] {
			c.peak = t
		}
	}
	for i, l := range p.Launches {
		for a, b := range l.Args {
			if _, ok := c.maker[b]; !ok && l.Kernel.Bufs[a].Mode != kern.In {
				c.maker[b] = i
			}
		}
	}
	return c
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

// summary is the lines above the table.
func (c *certificate) summary() []string {
	p := c.program
	state, sum, again := 0, 0, 0
	for _, b := range p.Buffers {
		if b.Arena == plan.State {
			state += b.Bytes
		} else {
			sum += b.Bytes
		}
	}
	for _, l := range p.Launches {
		if recomputed(l.Values) {
			again++
		}
	}
	lines := []string{fmt.Sprintf("%s: %d launches; work arena %s for %d buffers of %s in all; state read or written %s",
		c.name, len(p.Launches), size(p.WorkBytes), len(c.buffers), size(sum), size(state))}
	if len(c.alive) > 0 {
		l, least := p.Launches[c.peak], c.alive[c.peak]
		lines = append(lines, fmt.Sprintf("most alive: %s at launch %d, %s, %s; no placement takes less, this one %.2f%% more",
			size(least), c.peak, l.Kernel.Name, l.Pos, 100*float64(p.WorkBytes-least)/float64(max(least, 1))))
	}
	if again > 0 {
		lines = append(lines, fmt.Sprintf("%d launches run again in the backward pass", again))
	}
	return append(lines, verdict(c.verdict, "checked: every launch finds what it reads as it was written, and nothing that it writes overlaps another argument"))
}

func verdict(err error, good string) string {
	if err == nil {
		return good
	}
	return "refused: " + strings.ReplaceAll(err.Error(), "\n", "\nrefused: ")
}

func recomputed(name string) bool { return strings.HasPrefix(name, "recomputed ") }

// madeBy says what first writes a buffer: kernel, region, line of the model.
func (c *certificate) madeBy(b *plan.Buffer) string {
	i, ok := c.maker[b]
	if !ok {
		return "the caller"
	}
	l := c.program.Launches[i]
	s := l.Kernel.Name
	if l.Block != "" {
		s += ", " + l.Block
		if l.Backward {
			s += " backward"
		}
	}
	return s + ", " + l.Pos.String()
}

func (c *certificate) table(w io.Writer) error {
	for _, l := range c.summary() {
		fmt.Fprintln(w, l)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "offset\tend\tbytes\tfirst\tlast\t\tbuffer, made by")
	for _, b := range c.buffers {
		fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%d\t\t%s %s, %s\n", b.Offset, b.Offset+b.Bytes, b.Bytes, b.First, b.Last, b.Name, b.Type, c.madeBy(b))
	}
	return t.Flush()
}

// stateTable lists a model's stored tensors, which all its programs share.
func stateTable(w io.Writer, m *plan.Model, state error) error {
	gs := slices.Clone(m.Globals)
	slices.SortStableFunc(gs, func(a, b *plan.Global) int { return cmp.Compare(a.Offset, b.Offset) })
	fmt.Fprintf(w, "%s: state arena %s for %d stored tensors\n%s\n", m.Name, size(m.StateBytes), len(gs),
		verdict(state, "checked: no two overlap, and the programs' are where they should be"))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "offset\tend\tbytes\t\ttensor")
	for _, g := range gs {
		fmt.Fprintf(t, "%d\t%d\t%d\t\t@%s %s, %s\n", g.Offset, g.Offset+g.Type.Bytes(), g.Type.Bytes(), g.Name, g.Type, g.Role)
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
