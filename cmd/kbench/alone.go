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
	Roof      float64 `json:"roof"`  // share of the bound, 0 to 1
	Bound     string  `json:"bound"` // fma, or the working set whose bandwidth it is
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
	var rows []row
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
		}
		b.arena.Close()
	}
	if s.program == "" {
		return nil
	}
	total := func(r row) float64 { return r.Ns * float64(r.Launches) }
	sort.SliceStable(rows, func(i, j int) bool { return total(rows[i]) > total(rows[j]) })
	sum := 0.0
	for _, r := range rows {
		s.print(r)
		sum += total(r) / float64(s.count)
	}
	if !s.json {
		fmt.Fprintf(s.out, "%s: launches x time is %.3f ms\n", s.program, sum/1e6)
	}
	return nil
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
	fmt.Fprintf(s.out, "goos: %s\ngoarch: %s\npkg: github.com/gouache-ml/gouache/gen/%s\ncpu: %s\n%s\n", runtime.GOOS, runtime.GOARCH, s.system, processor(), s.machine)
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
	for range n {
		b.pool.Run(b.fn, b.arena.Addr(0), b.k.Chunks)
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
	roof, bound := s.machine.roof(x.FLOPs, x.bytes, working(x.Kernel), x.Chunks)
	r.Roof, r.Bound = roof/t.at(0.5), bound
	switch {
	case r.Roof > 1:
		r.Roof, r.Note = 0, fmt.Sprintf("faster than the %s peak measured: buffers nearer than their sizes say, operations counted that are not done, or a disturbed peak", bound)
	case t.disturbed > t.all-minSamples && s.threads > 1:
		r.Note = fmt.Sprintf("%d of %d samples disturbed by other processes", t.disturbed, t.all)
	case s.machine.launch > 0.5*t.at(0.5):
		r.Note = "mostly the launch itself"
	}
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

// print writes r as JSON or as a line for benchstat.
func (s *session) print(r row) {
	if s.json {
		b, err := json.Marshal(r)
		if err == nil {
			fmt.Fprintf(s.out, "%s\n", b)
		}
		return
	}
	line := fmt.Sprintf("BenchmarkKernel/%s-%d\t%8d\t%12.0f ns/op\t%8.2f GFLOP/s\t%8.2f GB/s", r.Kernel, r.Threads, r.Runs, r.Ns, float64(r.FLOPs)/r.Ns, float64(r.Bytes)/r.Ns)
	if r.Roof > 0 {
		line += fmt.Sprintf("\t%6.1f %%roof", 100*r.Roof)
	}
	if r.Launches > 0 {
		line += fmt.Sprintf("\t%6d launches\t%9.3f ms/run", r.Launches, r.Ns*float64(r.Launches)/1e6)
	}
	fmt.Fprintln(s.out, line)
	note := fmt.Sprintf("# %s: %s, %s; +%.0f%% -%.0f%% between quartiles", r.Kernel, r.Kind, r.Bound, 100*(r.HighNs/r.Ns-1), 100*(1-r.LowNs/r.Ns))
	if r.Note != "" {
		note += "; " + r.Note
	}
	fmt.Fprintln(s.out, note)
}
