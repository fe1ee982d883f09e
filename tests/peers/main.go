package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gouache-ml/gouache/codegen/driver"
	"github.com/gouache-ml/gouache/runtime/bench"
	"github.com/gouache-ml/gouache/runtime/flags"
	"github.com/gouache-ml/gouache/runtime/metrics"
)

type options struct {
	ours, emoji, kbench, python, scripts, llmc, gomlx, out string

	run           *regexp.Regexp
	rounds, steps int
	patience      float64
	quiet         time.Duration
}

func main() {
	driver.Command("peers", func(ctx context.Context, args []string, out io.Writer) error { return run(ctx, args, out, os.Stderr) })
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	var o options
	var only string
	f := flags.Set("peers")
	f.StringVar(&o.ours, "ours", "bin/peers", "`command` of the system peers")
	f.StringVar(&o.emoji, "emoji", "bin/emoji", "`command` of the system emoji")
	f.StringVar(&o.kbench, "kbench", "bin/kbench", "`command` that measures the peaks")
	f.StringVar(&o.python, "python", "/usr/bin/python3", "`command` that has torch")
	f.StringVar(&o.scripts, "scripts", "tests/peers/torch", "`folder` of the peers' scripts")
	f.StringVar(&o.llmc, "llmc", "", "`command` of llm.c (see llmc/gpt2.c); without one that row is left out")
	f.StringVar(&o.gomlx, "gomlx", "", "`command` of GoMLX (see gomlx/main.go), which takes minutes; without one that row is left out")
	f.StringVar(&o.out, "out", "out/bench", "`folder` for peers.json and peers.txt")
	f.StringVar(&only, "run", "", "rows whose name matches the `regexp` (default all)")
	f.IntVar(&o.rounds, "rounds", 3, "turns of each side")
	f.IntVar(&o.steps, "steps", 5, "timed steps of each turn")
	f.Float64Var(&o.patience, "patience", 3, "a peer's way of doing it is stopped, and left out, when it has taken so many `times` as long as another one; 0 waits for all")
	f.DurationVar(&o.quiet, "quiet", 10*time.Second, "longest wait, before each turn, for other processes to be quiet")
	err := flags.Parse(f, args, 0, log)
	switch {
	case err == flag.ErrHelp:
		return nil
	case err != nil:
		return err
	}
	if o.run, err = regexp.Compile(only); err != nil {
		return fmt.Errorf("-run: %v", err)
	}
	if o.rounds < 1 || o.steps < 1 {
		return fmt.Errorf("-rounds and -steps must be positive")
	}
	if !(o.patience == 0 || o.patience >= 1) {
		return fmt.Errorf("-patience is %g; want 0, or at least 1", o.patience)
	}
	check := exec.CommandContext(ctx, o.python, "-B", "-c", "import common; common.check()")
	check.Env = append(os.Environ(), "PYTHONPATH="+o.scripts)
	if text, err := check.CombinedOutput(); err != nil {
		return fmt.Errorf("%s lacks torch or OpenBLAS with OpenMP (%s); on Debian: apt-get install --no-install-recommends python3-torch libopenblas0-openmp libdnnl2", o.python, lastLine(text))
	}
	var chosen []duel
	for _, d := range duels(o.llmc, o.gomlx) {
		if o.run.MatchString(d.name) {
			chosen = append(chosen, d)
		}
	}
	startUp := o.run.MatchString(startUpRow)
	if len(chosen) == 0 && !startUp {
		return fmt.Errorf("no row matches -run %q", only)
	}
	start := time.Now()
	var fought []outcome
	for i, d := range chosen {
		fmt.Fprintf(log, "%d/%d %s\n", i+1, len(chosen), d.name)
		result, err := o.fight(ctx, d)
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
		fought = append(fought, result)
	}
	peak := 0.0
	if slices.ContainsFunc(chosen, func(d duel) bool { return d.name == "S step, 2 threads" }) {
		if peak, err = o.peak(ctx); err != nil {
			return err
		}
	}
	rows := table(fought, peak)
	if startUp {
		fmt.Fprintln(log, startUpRow)
		r, err := o.startUp(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", startUpRow, err)
		}
		rows = append(rows, r)
	}
	busy := 0.0
	for _, x := range fought {
		busy = max(busy, x.others)
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s, %s; %d turns of %d steps in %s; other processes took up to %.0f%% of the machine\n\n",
		time.Now().Format(time.DateOnly), metrics.ReadHardware(), o.rounds, o.steps, metrics.FormatDuration(time.Since(start)), 100*busy)
	write(&text, rows)
	for _, x := range fought {
		for _, line := range x.slow {
			fmt.Fprintf(&text, "%s, %g times as long as another way took\n", line, o.patience)
		}
	}
	if _, err := out.Write(text.Bytes()); err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o777); err != nil {
		return err
	}
	var list bytes.Buffer
	e := json.NewEncoder(&list)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // goals have < and >
	if err := e.Encode(rows); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, "peers.json"), list.Bytes(), 0o666); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.out, "peers.txt"), text.Bytes(), 0o666)
}

// write prints the table.
func write(w io.Writer, rows []Row) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "what\tours\tpeer\tunit\tratio\tgoal\t\tagainst")
	for _, r := range rows {
		reached := ""
		if r.Goal != "" {
			reached = "missed"
			if r.met() {
				reached = "met"
			}
		}
		fmt.Fprintf(tw, "%s\t%.4g\t%.4g\t%s\t%.2f\t%s\t%s\t%s\n", r.Name, r.Ours, r.Peer, r.Unit, r.Ratio, r.Goal, reached, r.Against)
	}
	tw.Flush()
}

// score is what a contender reached: medians over its turns.
type score struct {
	name                    string
	seconds, gflops, peakMB float64
}

// outcome is a duel that was fought.
type outcome struct {
	name   string
	ours   score
	peers  []score
	others float64  // largest share of the machine that other processes took in a turn
	slow   []string // peers that were stopped
}

func (o *outcome) best() score {
	return slices.MinFunc(o.peers, func(a, b score) int { return cmp.Compare(a.seconds, b.seconds) })
}

func (o *outcome) leastMemory() score {
	return slices.MinFunc(o.peers, func(a, b score) int { return cmp.Compare(a.peakMB, b.peakMB) })
}

// turn is the line of JSON of one process, ours or a peer's.
type turn struct {
	bench.Result
	Product string        `json:"product"`
	took    time.Duration // by the whole process
}

// fight runs everybody in turns.
func (o *options) fight(ctx context.Context, d duel) (outcome, error) {
	type side struct {
		contender
		command []string
		turns   []turn
	}
	steps := fmt.Sprint(o.steps * d.more)
	sides := []*side{{contender{name: "ours"}, append([]string{o.ours, "-steps", steps}, d.ours...), nil}}
	for _, p := range d.peers {
		command, n := []string{p.command}, steps
		if p.command == "" {
			command = []string{o.python, "-B", filepath.Join(o.scripts, p.args[0])}
			p.args = p.args[1:]
		}
		if p.once {
			n = "1"
		}
		sides = append(sides, &side{p, append(append(command, "--steps", n), p.args...), nil})
	}
	result := outcome{name: d.name}
	running := slices.Clone(sides)
	var fastest time.Duration // of the peers' first turns
	for round := range o.rounds {
		for _, s := range running {
			limit := time.Duration(0)
			if round == 0 && !s.once {
				limit = time.Duration(o.patience * float64(fastest))
			}
			t, others, err := o.turn(ctx, s.command, limit)
			if errors.Is(err, errSlow) {
				result.slow = append(result.slow, fmt.Sprintf("%s: %s was stopped after %s", d.name, s.name, metrics.FormatDuration(limit)))
				continue
			}
			if err != nil {
				return result, err
			}
			if s != sides[0] && (fastest == 0 || t.took < fastest) {
				fastest = t.took
			}
			s.turns = append(s.turns, t)
			result.others = max(result.others, others)
		}
		stopped := func(s *side) bool { return len(s.turns) == 0 }
		running, sides = slices.DeleteFunc(running, stopped), slices.DeleteFunc(sides, stopped)
		if round == 0 && !strings.HasPrefix(d.name, "GEMM ") {
			best := running[1].turns[0].Step.Median
			for _, s := range running[1:] {
				best = min(best, s.turns[0].Step.Median)
			}
			running = slices.DeleteFunc(running, func(s *side) bool { return s != sides[0] && s.turns[0].Step.Median > 1.5*best })
		}
		running = slices.DeleteFunc(running, func(s *side) bool { return s.once })
		slices.Reverse(running)
	}
	for i, s := range sides {
		of := func(f func(turn) float64) float64 {
			var x []float64
			for _, t := range s.turns {
				x = append(x, f(t))
			}
			return middle(x)
		}
		sc := score{s.name, of(func(t turn) float64 { return t.Step.Median }), of(turn.rate), of(func(t turn) float64 { return t.PeakMB })}
		if i == 0 {
			result.ours = sc
		} else {
			result.peers = append(result.peers, sc)
		}
	}
	return result, nil
}

func middle(x []float64) float64 {
	slices.Sort(x)
	return (x[(len(x)-1)/2] + x[len(x)/2]) / 2
}

// rate is GFLOP/s. Of our products it is that of the kernels: where the right operand is the weights of a layer, a
// step packs it once for all its uses, so packing is left out there, as it is for oneDNN.
func (t turn) rate() float64 {
	if len(t.Kernels) == 0 {
		return t.GFLOPS
	}
	weights := !strings.HasPrefix(t.What, "gemm.weight")
	seconds := 0.0
	for _, k := range t.Kernels {
		if !weights || !strings.HasPrefix(k.Name, "pack_") {
			seconds += k.Median
		}
	}
	return t.GFLOP / seconds
}

// errSlow is what became of a turn that had a limit.
var errSlow = errors.New("took too long")

// turn runs one process, when the others are quiet, for limit at most if that isn't 0.
func (o *options) turn(parent context.Context, command []string, limit time.Duration) (turn, float64, error) {
	var t turn
	waitQuiet(parent, o.quiet)
	ctx := parent
	if limit > 0 {
		var stop func()
		ctx, stop = context.WithTimeoutCause(parent, limit, errSlow)
		defer stop()
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	before, start := busy(), time.Now()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return t, 0, context.Cause(ctx)
		}
		return t, 0, fmt.Errorf("%s: %v: %s", strings.Join(command, " "), err, lastLine(diag.Bytes()))
	}
	own := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	t.took = time.Since(start)
	others := share(busy()-before-own, t.took)
	if err := json.Unmarshal(out.Bytes(), &t); err != nil || t.Step.Median <= 0 {
		return t, 0, fmt.Errorf("%s: printed no times: %s", strings.Join(command, " "), lastLine(out.Bytes()))
	}
	return t, others, nil
}

// startUpRow has no peer: it is the time from the start of a process to its first step.
const startUpRow = "emoji, start to first step"

func (o *options) startUp(ctx context.Context) (Row, error) {
	var ready []float64
	for range o.rounds {
		t, _, err := o.turn(ctx, append([]string{o.emoji, "bench", "-program", "prior.train", "-warmup", "0", "-steps", "1"}, inputs("emoji")...), 0)
		if err != nil {
			return Row{}, err
		}
		ready = append(ready, t.Ready)
	}
	r := Row{Name: startUpRow, Ours: middle(ready), Peer: startUpLimit, Goal: "<=1.00", Unit: "s", Against: "the limit"}
	r.Ratio = r.Ours / r.Peer
	return r, nil
}

// peak is the measured peak of multiply-adds on two threads, in GFLOP/s.
func (o *options) peak(ctx context.Context) (float64, error) {
	waitQuiet(ctx, o.quiet)
	out, err := exec.CommandContext(ctx, o.kbench, "-peaks", "-threads", "2", "-json").Output()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", o.kbench, err)
	}
	var p struct {
		GFLOPS []float64 `json:"gflops"`
	}
	if err := json.Unmarshal(out, &p); err != nil || len(p.GFLOPS) != 2 {
		return 0, fmt.Errorf("%s: printed no peaks: %s", o.kbench, lastLine(out))
	}
	return p.GFLOPS[1], nil
}

func lastLine(b []byte) string {
	s := strings.TrimSpace(string(b))
	return s[strings.LastIndexByte(s, '\n')+1:]
}
