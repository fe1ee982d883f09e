package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	device "github.com/gouache-ml/gouache/runtime/device/cpu"
)

// machine is what this processor can do right now, with one thread and with
// all that were asked for.
type machine struct {
	lib     *device.Library
	target  *build.Target
	threads int
	arena   *device.Arena
	pools   []*device.Pool // one thread, all threads
	levels  []level
	flops   [2]float64 // a second
	launch  float64    // seconds of an empty launch on all threads
	at      time.Time
}

// level is a working set of a size that some cache holds, or memory.
type level struct {
	bytes int        // of all threads
	rate  [2]float64 // bytes a second
}

func (l *level) String() string {
	switch kib := l.bytes >> 10; {
	case kib < 1<<10:
		return fmt.Sprintf("%dKiB", kib)
	default:
		return fmt.Sprintf("%dMiB", kib>>10)
	}
}

const (
	// fmaSteps and fmaChains make a chunk of about 50 us: enough chains to
	// cover the latency of 4 cycles on 2 ports, few enough for 16 registers.
	fmaSteps, fmaChains = 16 << 10, 12
	// staleAfter is how long peaks are believed.
	staleAfter = time.Minute
)

// Tests make these smaller.
var (
	// memoryBytes is larger than the caches of most processors.
	memoryBytes = 512 << 20
	// bestTime bounds the time for one peak.
	bestTime = 100 * time.Millisecond
)

// probes has the loops that measure the peaks. Slots of their arguments: the
// address, the number of elements a chunk takes, and its repetitions.
func probes(t *build.Target) *build.Module {
	m := build.NewModule(t)
	vec := m.Vec()
	one := build.Int(1)
	kernel := func(name string, body func(f *build.Func, p, n, again build.V)) {
		f, args, c0, c1, _ := m.Kernel(name)
		f.Range(c0, c1, one, func(c build.V) {
			n := f.Slot(args, 1)
			body(f, f.At(f.SlotPtr(args, 0, build.F32), f.Mul(c, n)), n, f.Slot(args, 2))
		})
		f.Return()
	}
	kernel("empty", func(*build.Func, build.V, build.V, build.V) {})
	kernel("fma", func(f *build.Func, p, _, again build.V) {
		x := f.Load(vec, p)
		acc := make([]build.V, fmaChains)
		for i := range acc {
			acc[i] = f.Load(vec, f.Offset(p, i*t.Lanes))
		}
		acc = f.For(build.Int(0), again, one, acc, func(_ build.V, a []build.V) []build.V {
			out := make([]build.V, len(a))
			for i := range a {
				out[i] = f.FMA(a[i], x, x)
			}
			return out
		})
		for i := range acc {
			f.Store(acc[i], f.Offset(p, i*t.Lanes))
		}
	})
	const unroll = 8
	step := build.Int(int64(unroll * t.Lanes))
	kernel("read", func(f *build.Func, p, n, again build.V) {
		zero := make([]build.V, unroll)
		for i := range zero {
			zero[i] = build.Zero(vec)
		}
		sum := f.For(build.Int(0), again, one, zero, func(_ build.V, acc []build.V) []build.V {
			return f.For(build.Int(0), n, step, acc, func(i build.V, a []build.V) []build.V {
				out := make([]build.V, unroll)
				for u := range a {
					out[u] = f.FAdd(a[u], f.Load(vec, f.At(p, f.Add(i, build.Int(int64(u*t.Lanes))))))
				}
				return out
			})
		})
		for u := 1; u < unroll; u++ {
			sum[0] = f.FAdd(sum[0], sum[u])
		}
		f.Store(sum[0], p)
	})
	// triad: of three thirds, the first is the sum of the others.
	kernel("triad", func(f *build.Func, p, n, again build.V) {
		third := f.UDiv(n, build.Int(3))
		a, b, c := p, f.At(p, third), f.At(p, f.Add(third, third))
		f.Range(build.Int(0), again, one, func(build.V) {
			f.Range(build.Int(0), third, step, func(i build.V) {
				for u := 0; u < unroll; u++ {
					j := f.Add(i, build.Int(int64(u*t.Lanes)))
					f.Store(f.FAdd(f.Load(vec, f.At(b, j)), f.Load(vec, f.At(c, j))), f.At(a, j))
				}
			})
		})
	})
	return m
}

func newMachine(ctx context.Context, tools *toolchain.Tools, t *build.Target, threads int) (*machine, error) {
	so, err := tools.Compile(ctx, t, []toolchain.Module{{Name: "probes", Text: probes(t).Text()}})
	if err != nil {
		return nil, err
	}
	m := &machine{target: t, threads: threads}
	if m.lib, err = device.Load(so); err != nil {
		return nil, err
	}
	l1, l2, l3 := device.Caches()
	for _, n := range []int{threads * l1 / 2, threads * l2 / 2, 2 * threads * l2, 8 * threads * l2, l3 / 4 * 3, memoryBytes} {
		if len(m.levels) == 0 || n > m.levels[len(m.levels)-1].bytes {
			m.levels = append(m.levels, level{bytes: n})
		}
	}
	if m.arena, err = device.NewArena(int64(4096 + memoryBytes)); err != nil {
		return nil, err
	}
	// Memory that was never written is one page of zeros, in the caches.
	for b := m.arena.Bytes(0, 4096+memoryBytes); len(b) > 0; b = b[min(4096, len(b)):] {
		b[0] = 0
	}
	for _, n := range []int{1, threads} {
		p, err := device.NewPool(device.PoolOptions{Workers: n})
		if err != nil {
			return nil, err
		}
		m.pools = append(m.pools, p)
	}
	return m, m.measure()
}

func (m *machine) close() {
	for _, p := range m.pools {
		p.Close()
	}
	m.arena.Close()
	m.lib.Close()
}

// refresh measures again where the last time is long ago.
func (m *machine) refresh() error {
	if time.Since(m.at) < staleAfter {
		return nil
	}
	return m.measure()
}

// best is the shortest of some runs: a peak is what happens when nothing else
// does, so where others compute too it takes many to see all threads at once.
func best(runs int, f func()) float64 {
	t := math.Inf(1)
	for i, began := 0, time.Now(); i < runs && time.Since(began) < bestTime || i < 3; i++ {
		start := time.Now()
		f()
		t = min(t, time.Since(start).Seconds())
	}
	return t
}

func (m *machine) measure() error {
	fn := map[string]uintptr{}
	for _, n := range []string{"empty", "fma", "read", "triad"} {
		a, err := m.lib.Symbol(n)
		if err != nil {
			return err
		}
		fn[n] = a
	}
	args := m.arena.I64(0, 3)
	args[0] = int64(m.arena.Addr(4096))
	for i, pool := range m.pools {
		w := pool.Workers()
		chunks := 4 * w
		args[1], args[2] = 1024, fmaSteps
		work := float64(chunks * fmaSteps * fmaChains * 2 * m.target.Lanes)
		m.flops[i] = work / best(1000, func() { pool.Run(fn["fma"], m.arena.Addr(0), chunks) })
		for j := range m.levels {
			l := &m.levels[j]
			last := j == len(m.levels)-1
			each := l.bytes / m.threads / 4
			each -= each % (3 * 8 * m.target.Lanes)
			if last {
				each /= 16 // chunks of memory are dealt out
			}
			chunks, runs := w, 300
			// About 100 us at 100 GB/s; memory is passed through once.
			args[1], args[2] = int64(each), int64(max(1, 10_000_000/(4*each)))
			if last {
				chunks, runs = 16*m.threads, 3
				args[2] = 1
			}
			bytes := float64(4*each*chunks) * float64(args[2])
			l.rate[i] = 0
			for _, name := range []string{"read", "triad"} {
				l.rate[i] = max(l.rate[i], bytes/best(runs, func() { pool.Run(fn[name], m.arena.Addr(0), chunks) }))
			}
		}
	}
	pool := m.pools[1]
	m.launch = best(30, func() {
		for range 100 {
			pool.Run(fn["empty"], m.arena.Addr(0), m.threads)
		}
	}) / 100
	m.at = time.Now()
	return nil
}

// levelFor is the smallest level that holds a working set.
func (m *machine) levelFor(bytes int) *level {
	for i := range m.levels {
		if bytes <= m.levels[i].bytes {
			return &m.levels[i]
		}
	}
	return &m.levels[len(m.levels)-1]
}

// roof is the least time for some work, in seconds: for its multiply-adds, and for its
// memory traffic at the bandwidth of a level.
type roof struct {
	compute, memory float64
	level           string
}

// bound is what takes longer.
func (r roof) bound() string {
	if r.compute >= r.memory {
		return "fma"
	}
	return r.level
}

func (r roof) seconds() float64 { return max(r.compute, r.memory) }

// roof is for work on the threads of the pool that so many chunks use.
func (m *machine) roof(flops int64, bytes, working, chunks int) roof {
	i := 1
	if chunks == 1 {
		i = 0
	}
	l := m.levelFor(working)
	return roof{float64(flops) / m.flops[i], float64(bytes) / l.rate[i], l.String()}
}

// peaks is what -peaks -json writes. Pairs are for one thread and for all.
type peaks struct {
	CPU     string     `json:"cpu"`
	Target  string     `json:"target"`
	Threads int        `json:"threads"`
	GFLOPS  [2]float64 `json:"gflops"` // a second
	Levels  []peakRate `json:"levels"`
}

type peakRate struct {
	Bytes int        `json:"bytes"` // of a working set, of all threads together
	GBs   [2]float64 `json:"gbs"`   // a second
}

// peaksAlone prints the peaks of the machine.
func (s *session) peaksAlone(ctx context.Context) error {
	if err := s.start(ctx); err != nil || !s.json {
		return err
	}
	m := s.machine
	p := peaks{CPU: processor(), Target: m.target.Name, Threads: m.threads, GFLOPS: [2]float64{m.flops[0] / 1e9, m.flops[1] / 1e9}}
	for _, l := range m.levels {
		p.Levels = append(p.Levels, peakRate{l.bytes, [2]float64{l.rate[0] / 1e9, l.rate[1] / 1e9}})
	}
	b, err := json.Marshal(p)
	if err == nil {
		fmt.Fprintf(s.out, "%s\n", b)
	}
	return err
}

// String is the head of a report.
func (m *machine) String() string {
	s := fmt.Sprintf("peak %s: %.1f GFLOP/s on 1 thread, %.1f on %d; GB/s", m.target.Name, m.flops[0]/1e9, m.flops[1]/1e9, m.threads)
	for i := range m.levels {
		l := &m.levels[i]
		s += fmt.Sprintf(" %s %.0f/%.0f", l, l.rate[0]/1e9, l.rate[1]/1e9)
	}
	return s + fmt.Sprintf("; empty launch %.1f us", m.launch*1e6)
}
