package exec

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

type launchTime struct {
	kernel int
	count  int
	total  time.Duration
}

// LaunchTime is the time of one launch of a program, summed over its runs.
type LaunchTime struct {
	Launch int // number in the program
	Kernel string
	Block  string // region of the model
	Values string // IR values computed
	Pos    string // line of the model's source
	Count  int
	Total  time.Duration
	FLOPs  int64 // of one launch
}

// Profile returns the time of each launch since the program was loaded or ResetProfile, in order
// of execution; nil unless Options.Profile was set.
func (p *Program) Profile() []LaunchTime {
	var out []LaunchTime
	for i, t := range p.run.times {
		if t.count == 0 {
			continue
		}
		k, l := p.model.sys.spec.Kernels[t.kernel], p.spec.Launches[i]
		out = append(out, LaunchTime{i, k.Name, l.Block, l.Values, l.Pos, t.count, t.total, k.FLOPs})
	}
	return out
}

// ResetProfile forgets the times measured so far.
func (p *Program) ResetProfile() { clear(p.run.times) }

// WriteProfile prints the times by block, by kernel and for the top launches, the slowest first.
func (p *Program) WriteProfile(w io.Writer, top int) error {
	launches := p.Profile()
	if len(launches) == 0 {
		_, err := fmt.Fprintf(w, "%s: nothing was measured; open the system with Profile and run the program\n", p.Name())
		return err
	}
	runs, total := launches[0].Count, time.Duration(0)
	for _, l := range launches {
		total += l.Total
	}
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', tabwriter.AlignRight)
	row := func(t time.Duration, flops int64, count int, name string) {
		rate := ""
		if flops > 0 && t > 0 {
			rate = fmt.Sprintf("%.1f", float64(flops)/t.Seconds()/1e9)
		}
		fmt.Fprintf(tw, "%.3f\t%.1f%%\t%s\t%d\t  %s\n", float64(t.Microseconds())/1e3/float64(runs), 100*float64(t)/float64(total), rate, count/runs, name)
	}
	section := func(title string, key func(LaunchTime) string) {
		type sum struct {
			name  string
			t     time.Duration
			flops int64
			n     int
		}
		var sums []*sum
		byName := map[string]*sum{}
		for _, l := range launches {
			n := key(l)
			s := byName[n]
			if s == nil {
				s = &sum{name: n}
				byName[n] = s
				sums = append(sums, s)
			}
			s.t += l.Total
			s.flops += l.FLOPs * int64(l.Count)
			s.n += l.Count
		}
		slices.SortStableFunc(sums, func(x, y *sum) int { return cmp.Compare(y.t, x.t) })
		fmt.Fprintf(tw, "ms/run\tshare\tGFLOP/s\tlaunches\t  %s\n", title)
		for _, s := range sums[:min(len(sums), top)] {
			row(s.t, s.flops, s.n, s.name)
		}
		fmt.Fprintln(tw, "\t\t\t\t")
	}
	fmt.Fprintf(w, "%s: %d runs of %d launches, %.3f ms each\n", p.Name(), runs, len(launches), float64(total.Microseconds())/1e3/float64(runs))
	section("block", func(l LaunchTime) string { return orDash(l.Block) })
	section("kernel", func(l LaunchTime) string { return l.Kernel })
	section("launch", func(l LaunchTime) string {
		return fmt.Sprintf("%d %s: %s (%s) %s", l.Launch, l.Kernel, l.Values, orDash(l.Block), l.Pos)
	})
	return tw.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
