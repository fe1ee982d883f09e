package bench

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/flags"
	"github.com/gouache-ml/gouache/runtime/metrics"
	"github.com/gouache-ml/gouache/runtime/sample"
)

// started is as near to the start of the process as Go code gets.
var started = time.Now()

// Main runs the command line and ends the process where it fails. A first argument "bench" is
// passed over: trainers have this as a command of that name.
func Main(open func(exec.Options) (*exec.System, error)) {
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "bench" {
		args = args[1:]
	}
	if err := Run(args, os.Stdout, os.Stderr, open); err != nil {
		fmt.Fprintf(os.Stderr, "trainer: %v\n", err)
		os.Exit(1)
	}
}

// Result is the line of JSON that a run prints.
type Result struct {
	What        string   `json:"what"` // MODEL.PROGRAM, or MODEL.sample
	Target      string   `json:"target"`
	Threads     int      `json:"threads"`
	Step        Times    `json:"s_step"`                 // seconds; of a token for sampling, all pictures of the batch
	GFLOP       float64  `json:"gflop,omitempty"`        // of a step, counted by the compiler
	GFLOPS      float64  `json:"gflops,omitempty"`       // a second, at the median
	Ready       float64  `json:"s_ready,omitempty"`      // from the start of the process to the start of the first step
	FirstStep   float64  `json:"s_first_step,omitempty"` // from the start of the process to the end of the first step
	PeakMB      float64  `json:"peak_rss_mb"`
	ExpectedMB  float64  `json:"expected_rss_mb,omitempty"` // of one program in a process, known before it runs
	ParametersM float64  `json:"params_m"`
	Kernels     []Kernel `json:"kernels,omitempty"` // by launch
}

// Kernel is a launch: its times, and what it computes and moves at least.
type Kernel struct {
	Times
	GFLOP float64 `json:"gflop,omitempty"`
	MB    float64 `json:"mb,omitempty"` // 10^6 bytes
}

// Times are seconds.
type Times struct {
	Name   string  `json:"name,omitempty"` // of the kernel
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

func times(name string, t []float64) Times {
	t = slices.Clone(t)
	slices.Sort(t)
	n := len(t)
	return Times{name, (t[(n-1)/2] + t[n/2]) / 2, t[0], t[n-1], n}
}

// numbers are the -in flags: input names with a number each.
type numbers map[string]float64

func (n numbers) String() string { return "" }

func (n numbers) Set(s string) error {
	name, value, ok := strings.Cut(s, "=")
	x, err := strconv.ParseFloat(value, 64)
	if !ok || err != nil {
		return fmt.Errorf("want NAME=NUMBER")
	}
	n[name] = x
	return nil
}

type options struct {
	program, sample       string
	steps, warmUp, tokens int
	kernels, list         bool
	candidates            bool
	in                    numbers
	used                  map[string]bool // of in
}

// Run does what the arguments say; Main is Run with the process's own.
func Run(args []string, out, diag io.Writer, open func(exec.Options) (*exec.System, error)) error {
	o, e := options{in: numbers{}, used: map[string]bool{}}, exec.Options{}
	f := flags.Set("trainer")
	f.StringVar(&o.program, "program", "", "`MODEL.PROGRAM` to run, several with commas between; MODEL.* is all of a model")
	f.StringVar(&o.sample, "sample", "", "`MODEL` to draw image tokens with")
	f.IntVar(&o.steps, "steps", 5, "runs that are timed")
	f.IntVar(&o.warmUp, "warmup", 1, "runs before them")
	f.IntVar(&o.tokens, "tokens", 64, "image tokens to draw with -sample")
	f.BoolVar(&o.candidates, "candidates", false, "draw the pictures of a batch with -sample for one text, not one each")
	f.BoolVar(&o.kernels, "kernels", false, "time every launch of the program too")
	f.BoolVar(&o.list, "list", false, "list the programs, run nothing")
	f.Var(o.in, "in", "`NAME=NUMBER`: the value of a scalar input, or the limit below which random integers of an input lie (without it, that of what they look up); may be repeated")
	f.IntVar(&e.Threads, "threads", 0, "threads (default GOUACHE_THREADS, or one for each processor)")
	f.StringVar(&e.Target, "target", "", "kernels to use, such as x86-64-v4 (default the best)")
	switch err := flags.Parse(f, args, 0, diag); {
	case err == flag.ErrHelp:
		return nil
	case err != nil:
		return err
	}
	switch {
	case o.steps < 1 || o.warmUp < 0 || o.tokens < 3:
		return fmt.Errorf("-steps must be at least 1, -warmup 0, -tokens 3")
	case !o.list && (o.program == "") == (o.sample == ""):
		return fmt.Errorf("give one of -program and -sample; -list shows what there is")
	}
	e.Profile = o.kernels
	sys, err := open(e)
	if err != nil {
		return err
	}
	defer sys.Close()
	if o.list {
		return list(sys, out)
	}
	print := func(r *Result, err error) error {
		if err != nil {
			return err
		}
		r.Target, r.Threads, r.PeakMB = sys.Target(), sys.Threads(), float64(metrics.PeakMemory())/1e6
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "%s\n", b)
		return err
	}
	if o.sample != "" {
		return print(o.draw(sys))
	}
	for name := range strings.SplitSeq(o.program, ",") {
		model, program, ok := strings.Cut(name, ".")
		if !ok {
			return fmt.Errorf("-program %s: want MODEL.PROGRAM, such as s.train", name)
		}
		m, err := sys.Model(model)
		if err != nil {
			return err
		}
		if err := m.Init(1); err != nil {
			return err
		}
		programs := []string{program}
		if program == "*" {
			programs = m.Programs()
		}
		for _, program := range programs {
			if err := print(o.run(m, program)); err != nil {
				return err
			}
		}
		if err := m.Close(); err != nil {
			return err
		}
	}
	for name := range o.in {
		if !o.used[name] {
			return fmt.Errorf("%s has no input %q", o.program, name)
		}
	}
	return nil
}

func list(sys *exec.System, out io.Writer) error {
	for _, name := range sys.Models() {
		m, err := sys.Model(name)
		if err != nil {
			return err
		}
		for _, p := range m.Programs() {
			fmt.Fprintf(out, "%s.%s\n", name, p)
		}
		if err := m.Close(); err != nil {
			return err
		}
	}
	return nil
}

// run times a program.
func (o *options) run(m *exec.Model, program string) (*Result, error) {
	p, err := m.Program(program)
	if err != nil {
		return nil, err
	}
	fill, err := o.inputs(p)
	if err != nil {
		return nil, err
	}
	r := &Result{What: strings.TrimPrefix(p.Name(), p.Name()[:strings.IndexByte(p.Name(), '.')+1]), GFLOP: float64(p.FLOPs()) / 1e9, ParametersM: float64(m.Params()) / 1e6}
	if n, err := m.Touched(program); err == nil { // not on a device
		r.ExpectedMB = float64(n+exec.ProgramBytes) / 1e6
	}
	var all []float64
	launches := make([][]float64, p.Launches())
	kernels := make([]Kernel, p.Launches())
	for i := range o.warmUp + o.steps {
		fill()
		p.ResetProfile()
		start := time.Now()
		if i == 0 {
			r.Ready = start.Sub(started).Seconds()
		}
		p.Run()
		t := time.Since(start).Seconds()
		if i == 0 {
			r.FirstStep = time.Since(started).Seconds()
		}
		if i < o.warmUp {
			continue
		}
		all = append(all, t)
		for _, l := range p.Profile() {
			kernels[l.Launch] = Kernel{Times{Name: l.Kernel}, float64(l.FLOPs) / 1e9, float64(l.Bytes) / 1e6}
			launches[l.Launch] = append(launches[l.Launch], l.Total.Seconds())
		}
	}
	if err := p.CheckFinite(); err != nil {
		return nil, fmt.Errorf("%w; a step that fails is not worth timing: give -in lr=1e-4 or the like", err)
	}
	r.Step = times("", all)
	r.GFLOPS = r.GFLOP / r.Step.Median
	if o.kernels {
		for i, t := range launches {
			k := kernels[i]
			k.Times = times(k.Name, t)
			r.Kernels = append(r.Kernels, k)
		}
	}
	return r, nil
}

// inputs makes contents for the program's inputs: numbers in (0.1, 0.9) and integers
// below the limits given. They are written before every run, because a program may
// use their memory for other things.
func (o *options) inputs(p *exec.Program) (fill func(), err error) {
	rng := rand.New(rand.NewPCG(1, 2))
	var copies [][]byte
	for _, t := range p.Inputs() {
		x, given := o.in[t.Name]
		o.used[t.Name] = true
		switch t.DType {
		case exec.F32:
			v, err := t.F32()
			if err != nil {
				return nil, err
			}
			for i := range v {
				v[i] = 0.1 + 0.8*rng.Float32()
			}
			if given && len(v) == 1 {
				v[0] = float32(x)
			}
		case exec.I32:
			v, err := t.I32()
			if err != nil {
				return nil, err
			}
			if err := o.integers(v, &t, rng); err != nil {
				return nil, fmt.Errorf("%s: input %s: %w", p.Name(), &t, err)
			}
		}
		copies = append(copies, slices.Clone(t.Data))
	}
	return func() {
		for i, t := range p.Inputs() {
			copy(t.Data, copies[i])
		}
	}, nil
}

// integers fills v, the elements of t, with integers below the limit given, or that the program has; one number is
// as given.
func (o *options) integers(v []int32, t *exec.Tensor, rng *rand.Rand) error {
	x, given := o.in[t.Name]
	from, below, limited := int64(t.From), int64(t.Below), t.Below > t.From
	switch {
	case !given && !limited, given && len(v) > 1 && !(x >= 1), x != x:
		return fmt.Errorf("give -in %s=NUMBER, the limit below which its integers lie", t.Name)
	case given && len(v) == 1 && limited && (x < float64(from) || x >= float64(below)):
		return fmt.Errorf("-in %s=%g: want %d to %d", t.Name, x, from, below-1)
	case given && len(v) > 1 && limited && x > float64(below):
		return fmt.Errorf("-in %s=%g: want at most %d, since what its integers look up has no more places", t.Name, x, below)
	case given && len(v) == 1:
		from, below = int64(x), int64(x)+1
	case given:
		below = int64(x)
		from = min(from, below-1)
	}
	for i := range v {
		v[i] = int32(from + rng.Int64N(below-from))
	}
	return nil
}

// clocked notes when its program starts.
type clocked struct {
	*exec.Program
	starts []time.Time
}

func (c *clocked) Run() {
	c.starts = append(c.starts, time.Now())
	c.Program.Run()
}

// draw times the drawing of image tokens, from one run of decode to the next: what is
// done once for a picture is left out, and what the host does for each token is not.
func (o *options) draw(sys *exec.System) (*Result, error) {
	m, err := sys.Model(o.sample)
	if err != nil {
		return nil, err
	}
	prefill, err := m.Program("prefill")
	if err != nil {
		return nil, err
	}
	decode, err := m.Program("decode")
	if err != nil {
		return nil, err
	}
	if err := m.Init(1); err != nil {
		return nil, err
	}
	clock := &clocked{Program: decode}
	p, err := sample.NewPrior(prefill, clock, o.tokens)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 2))
	input, err := prefill.Input("text")
	if err != nil {
		return nil, err
	}
	var requests []sample.Request
	for i := range p.Batch() {
		r := sample.Request{Text: make([]int32, p.TextLen()), Caption: uint64(i)}
		if err := o.integers(r.Text, input, rng); err != nil {
			return nil, fmt.Errorf("%s: text tokens: %w", o.sample, err)
		}
		if o.candidates && i > 0 {
			r = requests[0]
			r.Candidate = uint64(i)
		}
		requests = append(requests, r)
	}
	var all []float64
	for i := range o.warmUp + o.steps {
		clock.starts = clock.starts[:0]
		if _, err = p.Draw(context.Background(), requests, sample.Options{Temperature: 1, Seed: 1}, nil); err != nil {
			return nil, err
		}
		if n := len(clock.starts) - 1; i >= o.warmUp {
			all = append(all, clock.starts[n].Sub(clock.starts[0]).Seconds()/float64(n))
		}
	}
	r := &Result{What: o.sample + ".sample", Step: times("", all), GFLOP: float64(decode.FLOPs()) / 1e9, ParametersM: float64(m.Params()) / 1e6}
	r.GFLOPS = r.GFLOP / r.Step.Median
	return r, nil
}
