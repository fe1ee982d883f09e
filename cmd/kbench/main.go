package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/gouache-ml/gouache/codegen/cpu"
	_ "github.com/gouache-ml/gouache/models/systems" // registers demo and the others
	"github.com/gouache-ml/gouache/runtime/flags"
)

// options are the command line.
type options struct {
	system, program, target string
	device                  string         // cpu, emu, cuda
	run                     *regexp.Regexp // nil for not given
	threads, count          int
	budget                  time.Duration
	json, benchstat, list   bool
	peaks                   bool
	compare, pprof, trace   string // files
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if err == flag.ErrHelp {
			return
		}
		fmt.Fprintf(os.Stderr, "kbench: %v\n", err)
		os.Exit(1)
	}
}

func parse(args []string, usage io.Writer) (options, error) {
	var o options
	var run string
	f := flags.Set("kbench")
	f.StringVar(&o.system, "system", "demo", "`system` whose kernels to measure")
	f.StringVar(&o.program, "program", "", "run `MODEL.PROGRAM` whole and show where its time goes; with -run, measure its kernels alone")
	f.StringVar(&run, "run", "", "measure kernels whose name matches the `regexp` (default all)")
	f.IntVar(&o.threads, "threads", runtime.GOMAXPROCS(0), "threads that share a kernel's chunks")
	f.StringVar(&o.target, "target", "", "kernel `variant`, such as x86-64-v3 (default the best this processor runs) or sm_80 (default the best); several GPU targets with semicolons between")
	f.StringVar(&o.device, "device", "cpu", "where kernels run: cpu; emu, a GPU that is emulated, which counts instructions and memory accesses; or cuda")
	f.IntVar(&o.count, "count", 1, "measure every kernel this many times, for benchstat; least runs of a program")
	f.DurationVar(&o.budget, "time", 200*time.Millisecond, "time for each measurement")
	f.BoolVar(&o.json, "json", false, "write one JSON object per row")
	f.BoolVar(&o.benchstat, "benchstat", false, "write lines of Go benchmarks, for benchstat")
	f.StringVar(&o.compare, "compare", "", "compare with the rows in `FILE`, written with -json")
	f.StringVar(&o.pprof, "pprof", "", "write a profile to `FILE`, for go tool pprof: time, flops and bytes by model, block, op and kernel")
	f.StringVar(&o.trace, "trace", "", "with -program, write its fastest run to `FILE`, for ui.perfetto.dev")
	f.BoolVar(&o.list, "list", false, "list kernels and programs, measure nothing")
	f.BoolVar(&o.peaks, "peaks", false, "measure the peaks of the machine, and no kernel")
	if err := flags.Parse(f, args, 0, usage); err != nil {
		return o, err
	}
	switch {
	case o.threads < 1 || o.count < 1 || o.budget <= 0:
		return o, fmt.Errorf("-threads, -count and -time must be positive")
	case o.program != "" && !strings.Contains(o.program, "."):
		return o, fmt.Errorf("-program %s: want MODEL.PROGRAM, such as prior.train", o.program)
	case o.json && (o.benchstat || o.compare != ""):
		return o, fmt.Errorf("-json goes with neither -benchstat nor -compare")
	case o.program != "" && run == "" && (o.benchstat || o.compare != ""):
		return o, fmt.Errorf("-benchstat and -compare are for kernels alone: add -run REGEXP, such as -run .")
	case o.trace != "" && (o.program == "" || run != ""):
		return o, fmt.Errorf("-trace is for a whole program: give -program, and no -run")
	}
	switch {
	case o.device != "cpu" && o.device != "emu" && o.device != "cuda":
		return o, fmt.Errorf("-device %s: there are cpu, emu and cuda", o.device)
	case o.device != "cpu" && (o.peaks || o.benchstat || o.compare != "" || o.pprof != "" || o.trace != "" || o.program != "" && run == ""):
		return o, fmt.Errorf("-device %s measures kernels alone: of the flags -system, -program with -run, -run, -target, -json and -list apply", o.device)
	}
	if run != "" {
		re, err := regexp.Compile(run)
		if err != nil {
			return o, fmt.Errorf("-run: %v", err)
		}
		o.run = re
	}
	return o, nil
}

func run(ctx context.Context, args []string, out, diag io.Writer) error {
	o, err := parse(args, diag)
	if err != nil {
		return err
	}
	if o.device != "cpu" {
		return gpu(ctx, o, out, diag)
	}
	s, err := newSession(o, out, diag)
	if err != nil {
		return err
	}
	s.backend = cpu.Backend{}
	if o.peaks {
		return s.peaksAlone(ctx)
	}
	if err := s.plans(); err != nil {
		return err
	}
	switch {
	case o.list:
		return s.list()
	case o.program != "" && o.run == nil:
		return s.profile(ctx)
	}
	return s.kernels(ctx)
}
