package exec

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// table sums up times under names and prints the largest.
type table struct {
	rows   []*tableRow
	byName map[string]*tableRow
}

type tableRow struct {
	name        string
	total, busy time.Duration
	flops       int64
	count       int
}

func (t *table) add(name string, l LaunchTime) {
	r := t.byName[name]
	if r == nil {
		r = &tableRow{name: name}
		if t.byName == nil {
			t.byName = map[string]*tableRow{}
		}
		t.byName[name] = r
		t.rows = append(t.rows, r)
	}
	r.total += l.Total
	r.busy += l.Busy
	r.flops += l.FLOPs * int64(l.Count)
	r.count += l.Count
}

// WriteText prints where the time of a step went: by what the threads did, then for each program by
// block, by kernel and for the top launches, the slowest first.
func (p *Profile) WriteText(w io.Writer, top int) error {
	if p == nil || p.steps == 0 {
		_, err := fmt.Fprintln(w, "no step was measured")
		return err
	}
	workers, on := time.Duration(p.sys.Threads()), fmt.Sprintf("%d threads", p.sys.Threads())
	if p.sys.device != nil {
		workers, on = 1, p.sys.Device()
	}
	wall := p.last - p.from
	type line struct {
		what string
		t    time.Duration
	}
	var lines []line
	var nameless time.Duration
	for _, program := range p.programs {
		var inside, busy time.Duration
		for _, l := range program.Profile() {
			inside += l.Total
			busy += l.Busy
		}
		name := program.spec.Name
		if p.sys.device != nil {
			lines = append(lines, line{name + ": kernels", inside}, line{name + ": copies, and starting kernels", program.total.total - inside})
			continue
		}
		lines = append(lines, line{name + ": kernels", busy / workers},
			line{name + ": threads without a chunk, while others finish theirs", inside - busy/workers},
			line{name + ": between launches", program.total.total - inside})
	}
	for _, h := range p.host {
		if h.name == unnamed {
			nameless = h.total
		} else {
			lines = append(lines, line{h.name, h.total})
		}
	}
	lines = append(lines, line{unnamed, nameless})
	slices.SortStableFunc(lines, func(x, y line) int { return cmp.Compare(y.t, x.t) })
	ms := func(t time.Duration, n int) float64 { return t.Seconds() * 1e3 / float64(n) }
	share := func(t time.Duration) float64 { return 100 * float64(t) / float64(wall) }
	fmt.Fprintf(w, "%s: %d steps of %.3f ms on %s (%s), %.1f%% of it accounted for by name\n\n",
		p.sys.Name(), p.steps, ms(wall, p.steps), on, p.sys.Target(), 100-share(nameless))
	// Each flush ends a table, whose columns are as wide as they need to be.
	tw := tabwriter.NewWriter(w, 2, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "ms/step\tshare\t  what")
	for _, l := range lines {
		fmt.Fprintf(tw, "%.3f\t%.1f%%\t  %s\n", ms(l.t, p.steps), share(l.t), l.what)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, program := range p.programs {
		launches := program.Profile()
		fmt.Fprintf(w, "\n%s: %d runs of %d launches, %.3f ms each\n", program.Name(), program.total.runs, len(launches), ms(program.total.total, program.total.runs))
		for _, section := range []struct {
			title string
			key   func(LaunchTime) string
		}{
			{"block", func(l LaunchTime) string { return orDash(l.Block) }},
			{"kernel", func(l LaunchTime) string { return l.Kernel }},
			{"launch", func(l LaunchTime) string {
				return fmt.Sprintf("%d %s: %s (%s) %s", l.Launch, l.Kernel, l.Values, orDash(l.Block), l.Pos)
			}},
		} {
			var t table
			for _, l := range launches {
				t.add(section.key(l), l)
			}
			slices.SortStableFunc(t.rows, func(x, y *tableRow) int { return cmp.Compare(y.total, x.total) })
			fmt.Fprintf(tw, "\nms/step\tshare\tGFLOP/s\tidle\tlaunches\t  %s\n", section.title)
			for _, r := range t.rows[:min(len(t.rows), top)] {
				rate := ""
				if r.flops > 0 && r.total > 0 {
					rate = fmt.Sprintf("%.1f", float64(r.flops)/r.total.Seconds()/1e9)
				}
				fmt.Fprintf(tw, "%.3f\t%.1f%%\t%s\t%.0f%%\t%.4g\t  %s\n", ms(r.total, p.steps), share(r.total), rate,
					100*(1-float64(r.busy)/float64(max(1, r.total*workers))), float64(r.count)/float64(p.steps), r.name)
			}
			if err := tw.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// traceEvent is one in the JSON format that Perfetto and chrome://tracing open.
type traceEvent struct {
	Name  string         `json:"name"`
	Phase string         `json:"ph"`
	At    float64        `json:"ts"` // microseconds
	Dur   float64        `json:"dur,omitempty"`
	PID   int            `json:"pid"`
	TID   int            `json:"tid"`
	Args  map[string]any `json:"args,omitempty"`
}

// WriteTrace writes the fastest step for ui.perfetto.dev: one track for the host, in which programs
// hold blocks and blocks hold launches, and one for each thread of the pool.
func (p *Profile) WriteTrace(w io.Writer) error {
	if p == nil || len(p.trace) == 0 {
		return fmt.Errorf("no step was traced; open the system with Profile and end a step")
	}
	b := bufio.NewWriter(w)
	fmt.Fprint(b, `{"displayTimeUnit":"ms","traceEvents":[`)
	first := true
	var failed error
	emit := func(e traceEvent) {
		text, err := json.Marshal(e)
		if err != nil {
			failed = err
			return
		}
		if !first {
			b.WriteString(",\n")
		}
		first = false
		b.Write(text)
	}
	origin := p.trace[0].from
	slice := func(thread int, name string, from, to time.Duration, args map[string]any) {
		emit(traceEvent{name, "X", float64(from-origin) / 1e3, float64(to-from) / 1e3, 1, thread, args})
	}
	name := func(kind string, thread int, name string) {
		emit(traceEvent{Name: kind, Phase: "M", PID: 1, TID: thread, Args: map[string]any{"name": name}})
	}
	name("process_name", 0, p.sys.Name()+" "+p.sys.Target())
	name("thread_name", 0, "step")
	if p.sys.device == nil {
		for i := range p.sys.Threads() {
			name("thread_name", i+1, fmt.Sprintf("thread %d", i))
		}
	}
	for i := 0; i < len(p.trace); i++ {
		e := &p.trace[i]
		switch {
		case e.program == nil:
			if e.name != unnamed || e.to-e.from > time.Microsecond {
				slice(0, e.name, e.from, e.to, nil)
			}
			continue
		case e.launch < 0:
			slice(0, e.program.Name(), e.from, e.to, nil)
			continue
		}
		l := &e.program.spec.Launches[e.launch]
		// A block's slice ends with its last launch in a row.
		if i == 0 || p.trace[i-1].launch < 0 || p.block(i-1) != l.Block {
			end := i
			for end+1 < len(p.trace) && p.trace[end+1].launch >= 0 && p.block(end+1) == l.Block {
				end++
			}
			slice(0, orDash(l.Block), e.from, p.trace[end].to, nil)
		}
		k := &p.sys.spec.Kernels[e.program.times[e.launch].kernel]
		args := map[string]any{"launch": e.launch, "values": l.Values, "source": l.Pos, "block": l.Block, "MFLOP": float64(k.FLOPs) / 1e6,
			"GFLOP/s": float64(k.FLOPs) / float64(max(1, e.to-e.from))}
		slice(0, k.Name, e.from, e.to, args)
		for worker, t := range e.workers {
			if t.Chunks > 0 {
				slice(worker+1, k.Name, t.First, t.Last, map[string]any{"launch": e.launch, "chunks": t.Chunks, "block": l.Block})
			}
		}
	}
	fmt.Fprint(b, "]}\n")
	if failed != nil {
		return failed
	}
	return b.Flush()
}

func (p *Profile) block(i int) string {
	e := &p.trace[i]
	return e.program.spec.Launches[e.launch].Block
}
