package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"gonum.org/v1/gonum/stat"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	device "github.com/gouache-ml/gouache/runtime/device/cpu"
)

// row is the result for one kernel; times are of one launch.
type row struct {
	Kernel    string  `json:"kernel"`
	Kind      string  `json:"kind"`
	Target    string  `json:"target"`
	Threads   int     `json:"threads"`
	Chunks    int     `json:"chunks"`
	Runs      int     `json:"runs"`
	Ns        float64 `json:"ns"` // median
	MinNs     float64 `json:"min_ns"`
	LowNs     float64 `json:"p25_ns"`
	HighNs    float64 `json:"p75_ns"`
	Samples   int     `json:"samples"`
	Disturbed int     `json:"disturbed"` // samples with another process in between, left out where enough others are
	FLOPs     int64   `json:"flops"`
	Bytes     int     `json:"bytes"`
	GFLOPS    float64 `json:"gflops,omitempty"` // a second; left out above the measured peak, as are the next two
	GBs       float64 `json:"gbs,omitempty"`    // a second
	Roof      float64 `json:"roof"`             // share of the bound, 0 to 1
	Bound     string  `json:"bound"`            // fma, or the working set whose bandwidth it is
	Program   string  `json:"program,omitempty"`
	Launches  int     `json:"launches,omitempty"`
	Note      string  `json:"note,omitempty"`
}

// kernels measures every subject alone.
func (s *session) kernels(ctx context.Context) error {
	if len(s.subjects) == 0 {
		return fmt.Errorf("system %s: no kernel matches -run %q; kbench -system %s -list shows their names", s.system, s.options.run, s.system)
	}
	var ks []*kern.Kernel
	for _, x := range s.subjects {
		ks = append(ks, x.Kernel)
	}
	lib, err := s.load(ctx, ks)
	if err != nil {
		return err
	}
	defer lib.Close()
	if err := s.start(ctx); err != nil {
		return err
	}
	defer s.machine.close()
	pool, err := device.NewPool(device.PoolOptions{Workers: s.threads, Scratch: cpu.ScratchBytes(ks, []*build.Target{s.variant})})
	if err != nil {
		return err
	}
	defer pool.Close()
	runtime.LockOSThread() // for its processor time
	defer runtime.UnlockOSThread()
	var before map[string]row
	if s.compare != "" {
		if before, err = readRows(s.compare); err != nil {
			return err
		}
	}
	var rows []row
	took := map[*kern.Kernel]float64{} // ns
	for _, x := range s.subjects {
		c, err := fill(x)
		if err != nil {
			fmt.Fprintf(s.diag, "kbench: left out: %v\n", err)
			continue
		}
		fn, err := lib.Symbol(x.Name)
		if err != nil {
			return err
		}
		b, err := newBench(x.Kernel, c, fn, pool)
		if err != nil {
			return err
		}
		for range s.count {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.machine.refresh(); err != nil {
				return err
			}
			r := s.rate(x, b.measure(s.budget))
			if s.program == "" {
				s.print(r)
			}
			rows = append(rows, r)
			took[x.Kernel] += r.Ns / float64(s.count)
		}
		b.arena.Close()
	}
	if s.program != "" {
		total := func(r row) float64 { return r.Ns * float64(r.Launches) }
		sort.SliceStable(rows, func(i, j int) bool { return total(rows[i]) > total(rows[j]) })
		sum := 0.0
		for _, r := range rows {
			s.print(r)
			sum += total(r) / float64(s.count)
		}
		if !s.json {
			fmt.Fprintf(s.out, "%s%s: launches x time is %.3f ms\n", s.comment(), s.program, sum/1e6)
		}
	}
	if before != nil {
		s.difference(before, rows)
	}
	if s.pprof == "" {
		return nil
	}
	return s.writePprof(func(_ *plan.Program, i int, l *plan.Launch) float64 { return took[l.Kernel] })
}

// start measures the machine and prints the head of the report.
func (s *session) start(ctx context.Context) error {
	var err error
	if s.machine, err = newMachine(ctx, s.tools, s.variant, s.threads); err != nil {
		return err
	}
	if s.json {
		return nil
	}
	if s.benchstat {
		fmt.Fprintf(s.out, "goos: %s\ngoarch: %s\npkg: github.com/gouache-ml/gouache/gen/%s\n", runtime.GOOS, runtime.GOARCH, s.system)
	}
	fmt.Fprintf(s.out, "cpu: %s\n%s%s\n", processor(), s.comment(), s.machine)
	if m := s.machine; s.threads > 1 && m.flops[1] < 1.2*m.flops[0] {
		fmt.Fprintf(s.out, "# %d threads never ran at the same time: other processes hold the processors, and the peaks are those of one\n", s.threads)
	}
	return nil
}

// processor is the processor's own name.
func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

// bench is a kernel ready to be launched.
type bench struct {
	k     *kern.Kernel
	c     *contents
	fn    uintptr
	pool  *device.Pool
	arena *device.Arena
	at    []int64 // offset of each buffer
}

func newBench(k *kern.Kernel, c *contents, fn uintptr, pool *device.Pool) (*bench, error) {
	b := &bench{k: k, c: c, fn: fn, pool: pool}
	size := int64(4096)
	for _, d := range c.data {
		b.at = append(b.at, size)
		size += int64(len(d)+127) &^ 63
	}
	var err error
	if b.arena, err = device.NewArena(size); err != nil {
		return nil, err
	}
	for i, at := range b.at {
		b.arena.I64(0, len(b.at))[i] = int64(b.arena.Addr(at))
	}
	b.restore(true)
	return b, nil
}

// restore writes the contents, those of changed buffers only unless all is
// set: a value that every launch halves would end among the slow denormals.
func (b *bench) restore(all bool) {
	for i, d := range b.c.data {
		if all || b.k.Bufs[i].Mode == kern.InOut {
			copy(b.arena.Bytes(b.at[i], len(d)), d)
		}
	}
}

func (b *bench) launches(n int) time.Duration {
	start := time.Now()
	deal := device.DealFor(b.k.Tile.Together, b.k.FLOPs, int64(b.k.Traffic()))
	for range n {
		b.pool.RunDealt(b.fn, b.arena.Addr(0), b.k.Chunks, deal)
	}
	return time.Since(start)
}

// samples are the times of a launch in seconds.
type samples struct {
	times     []float64 // sorted
	disturbed int
	all, runs int
}

const (
	sampleTime = 300 * time.Microsecond // short, so that most fall between two interruptions
	minSamples = 5
	maxSamples = 2000
)

// measure launches the kernel for about the given time, after a warm-up.
// Samples that the system interrupted for another process are left out if
// there are enough others; if not, on one thread they count with the thread's
// processor time, and on several as they are.
func (b *bench) measure(budget time.Duration) samples {
	b.restore(true)
	b.launches(1)
	n := 1
	for n < 1<<20 {
		if t := b.launches(n); t >= sampleTime/2 {
			n = max(1, int(float64(n)*float64(sampleTime)/float64(t)))
			break
		}
		n *= 2
	}
	s := samples{}
	var dirty []float64
	for start := time.Now(); s.all < minSamples || s.all < maxSamples && time.Since(start) < budget; s.all++ {
		b.restore(false)
		before, cpu, _ := usage()
		t := b.launches(n).Seconds() / float64(n)
		after, cpu2, _ := usage()
		s.runs += n
		switch {
		case after == before:
			s.times = append(s.times, t)
		case b.pool.Workers() == 1:
			dirty = append(dirty, (cpu2-cpu).Seconds()/float64(n))
		default:
			dirty = append(dirty, t)
		}
	}
	s.disturbed = len(dirty)
	if len(s.times) < minSamples {
		s.times = append(s.times, dirty...)
	}
	slices.Sort(s.times)
	return s
}

func (s *samples) at(q float64) float64 {
	return stat.Quantile(q, stat.LinInterp, s.times, nil)
}

// rate compares samples with the roof.
func (s *session) rate(x *subject, t samples) row {
	r := row{Kernel: x.Name, Kind: x.kind, Target: s.variant.Name, Threads: s.threads, Chunks: x.Chunks, Runs: t.runs,
		Ns: t.at(0.5) * 1e9, MinNs: t.times[0] * 1e9, LowNs: t.at(0.25) * 1e9, HighNs: t.at(0.75) * 1e9,
		Samples: t.all, Disturbed: t.disturbed, FLOPs: x.FLOPs, Bytes: x.bytes, Program: s.program, Launches: x.launches[s.program]}
	median := t.at(0.5)
	roof := s.machine.roof(x.FLOPs, x.bytes, working(x.Kernel), x.Chunks)
	r.GFLOPS, r.GBs = float64(x.FLOPs)/r.Ns, float64(x.bytes)/r.Ns
	r.Roof, r.Bound = max(roof.compute, roof.memory)/median, roof.bound()
	// A figure above what the machine can do is wrong, whatever the reason, so it isn't given.
	var notes []string
	if roof.compute > median {
		r.GFLOPS = 0
		notes = append(notes, "GFLOP/s withheld: above the measured peak of multiply-adds, so operations are counted that the kernel does not do, or the peak was disturbed")
	}
	if roof.memory > median {
		r.GBs = 0
		notes = append(notes, fmt.Sprintf("GB/s withheld: above the measured bandwidth of %s, so buffers lie nearer than their sizes say or are not moved whole, or the peak was disturbed", roof.level))
	}
	if r.Roof > 1 {
		r.Roof = 0
	}
	switch {
	case t.disturbed > t.all-minSamples && s.threads > 1:
		notes = append(notes, fmt.Sprintf("%d of %d samples disturbed by other processes", t.disturbed, t.all))
	case s.machine.launch > 0.5*median:
		notes = append(notes, "mostly the launch itself")
	}
	r.Note = strings.Join(notes, "; ")
	return r
}

// working is the size of a kernel's buffers.
func working(k *kern.Kernel) int {
	n := 0
	for _, b := range k.Bufs {
		n += b.Len * b.DType.Size()
	}
	return n
}

// comment begins lines that benchstat must pass over.
func (s *session) comment() string {
	if s.benchstat {
		return "# "
	}
	return ""
}

// print writes r as JSON, as a line for benchstat, or as a line of the table.
func (s *session) print(r row) {
	switch {
	case s.json:
		if b, err := json.Marshal(r); err == nil {
			fmt.Fprintf(s.out, "%s\n", b)
		}
	case s.benchstat:
		s.printBenchmark(r)
	default:
		s.printLine(r)
	}
}

func (s *session) printBenchmark(r row) {
	line := fmt.Sprintf("BenchmarkKernel/%s-%d\t%8d\t%12.0f ns/op", r.Kernel, r.Threads, r.Runs, r.Ns)
	for _, m := range []struct {
		x    float64
		unit string
	}{{r.GFLOPS, "GFLOP/s"}, {r.GBs, "GB/s"}, {100 * r.Roof, "%roof"}} {
		if m.x > 0 {
			line += fmt.Sprintf("\t%8.2f %s", m.x, m.unit)
		}
	}
	if r.Launches > 0 {
		line += fmt.Sprintf("\t%6d launches\t%9.3f ms/run", r.Launches, r.Ns*float64(r.Launches)/1e6)
	}
	fmt.Fprintln(s.out, line)
	if r.Note != "" {
		fmt.Fprintf(s.out, "# %s: %s\n", r.Kernel, r.Note)
	}
}

func (s *session) printLine(r row) {
	if !s.headed {
		s.headed = true
		fmt.Fprintf(s.out, "\n%12s %9s %9s %8s %15s", "median", "quartiles", "GFLOP/s", "GB/s", "of the roof")
		if s.program != "" {
			fmt.Fprintf(s.out, " %12s", "launches")
		}
		fmt.Fprintln(s.out, "  kernel")
	}
	figure := func(format string, x float64) string {
		if x == 0 {
			return "-"
		}
		return fmt.Sprintf(format, x)
	}
	fmt.Fprintf(s.out, "%9.2f us %+3.0f%% %+3.0f%% %9s %8s %6s of %-5s", r.Ns/1e3, 100*(r.LowNs/r.Ns-1), 100*(r.HighNs/r.Ns-1),
		figure("%.1f", r.GFLOPS), figure("%.1f", r.GBs), figure("%.1f%%", 100*r.Roof), r.Bound)
	if s.program != "" {
		fmt.Fprintf(s.out, " %4d %7.2fms", r.Launches, r.Ns*float64(r.Launches)/1e6)
	}
	fmt.Fprintf(s.out, "  %s [%s]\n", r.Kernel, r.Kind)
	if r.Note != "" {
		fmt.Fprintf(s.out, "%14s%s\n", "", r.Note)
	}
}
