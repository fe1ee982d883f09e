package compiled

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/cuda/simt"
	"github.com/gouache-ml/gouache/codegen/load"
	"github.com/gouache-ml/gouache/ir/plan"
	_ "github.com/gouache-ml/gouache/runtime/device/cuda" // for GOUACHE_TEST_DEVICE=cuda
	"github.com/gouache-ml/gouache/runtime/exec"
)

// Device is what the tests of this package and of tests/parity run kernels on,
// by the variable GOUACHE_TEST_DEVICE: "" is this processor, "emu" a GPU that is
// emulated, with all checks of package simt, "cuda" a real one.
func Device() string { return os.Getenv("GOUACHE_TEST_DEVICE") }

func init() {
	exec.RegisterDevice("emu", func() (exec.Device, error) { return newEmulator(), nil })
}

// threadCounts are the numbers of threads to try; on a GPU they change nothing.
func threadCounts() []int {
	if Device() != "" {
		return []int{1}
	}
	return []int{1, 2, 3}
}

// gpuTargets are the targets to test on a GPU.
func gpuTargets() []*cuda.Target {
	if Device() == "emu" {
		return cuda.Targets()
	}
	return cuda.Targets()[:1]
}

// compileForGPU makes an object of the system's kernels for every target.
func compileForGPU(sys *plan.System, s *exec.Spec) error {
	code, err := cuda.Compile(sys.Kernels, gpuTargets())
	if err != nil {
		return err
	}
	for _, t := range gpuTargets() {
		o := exec.Object{Target: t.Name, Device: Device()}
		for _, text := range code.PTX[t.Name] {
			o.Code = append(append(o.Code, text...), 0)
		}
		for _, k := range sys.Kernels {
			o.Entries = append(o.Entries, load.Entries(code.Entries[t.Name][k.Name]))
		}
		s.Objects = append(s.Objects, o)
	}
	return nil
}

// emulator is an exec.Device that runs PTX on package simt.
type emulator struct {
	mach    *simt.Machine
	buffers []*simt.Buffer
	failed  error
}

func newEmulator() *emulator {
	return &emulator{mach: simt.NewMachine(simt.Options{Seed: 1, Check: true})}
}

// emulated is a loaded object: entries by name.
type emulated struct {
	dev     *emulator
	modules map[string]*simt.Module
}

// emulatedCall is an entry with its parameters.
type emulatedCall struct {
	module *simt.Module
	launch simt.Launch
}

func (*emulator) Name() string { return "emulated GPU" }

func (*emulator) Best(targets []string) (string, error) { return targets[0], nil }

func (*emulator) Memory() int64 { return 1 << 40 }

func (d *emulator) Load(_ string, parts []exec.Part) (exec.Code, error) {
	c := &emulated{d, map[string]*simt.Module{}}
	for _, p := range parts {
		m, err := simt.Parse(p.Text)
		if err != nil {
			return nil, err
		}
		for _, name := range m.Entries() {
			c.modules[name] = m
		}
	}
	return c, nil
}

func (d *emulator) Alloc(n int64, zeroed bool) (uint64, error) {
	b := d.mach.Alloc(fmt.Sprintf("arena %d", len(d.buffers)), int(n))
	if zeroed {
		clear(b.Bytes())
		b.Init()
	}
	d.buffers = append(d.buffers, b)
	return b.Addr(), nil
}

func (d *emulator) Free(uint64) error { return nil }

func (*emulator) Pin(n int64) ([]byte, error) { return make([]byte, n), nil }

func (*emulator) Unpin([]byte) error { return nil }

// find is the memory of n bytes at an address.
func (d *emulator) find(addr uint64, n int) ([]byte, *simt.Buffer, error) {
	for _, b := range d.buffers {
		if off := addr - b.Addr(); addr >= b.Addr() && off+uint64(n) <= uint64(len(b.Bytes())) {
			return b.Bytes()[off : off+uint64(n)], b, nil
		}
	}
	return nil, nil, fmt.Errorf("emulator: %d bytes at %#x are not allocated", n, addr)
}

func (d *emulator) Upload(to uint64, from []byte) error {
	mem, b, err := d.find(to, len(from))
	if err == nil {
		copy(mem, from)
		b.InitRange(int(to-b.Addr()), len(from))
	}
	return err
}

func (d *emulator) Download(to []byte, from uint64) error {
	mem, _, err := d.find(from, len(to))
	copy(to, mem)
	return err
}

func (c *emulated) Prepare(e *exec.Entry, buffers []uint64) (exec.Call, error) {
	m := c.modules[e.Name]
	if m == nil {
		return nil, fmt.Errorf("emulator: no entry %s", e.Name)
	}
	l := simt.Launch{Entry: e.Name, Grid: e.Grid, Block: [3]int{e.Block, 1, 1}, Shared: e.Shared, Cluster: [3]int{max(1, e.Cluster), 1, 1}}
	for _, m := range e.Maps {
		code, err := simt.MapOf(buffers[m.Arg]+uint64(m.Offset), string(m.DType), m.Dims, m.Strides, m.Box, m.Swizzle)
		if err != nil {
			return nil, err
		}
		l.Params = append(l.Params, code)
	}
	for _, a := range e.Args {
		l.Params = append(l.Params, buffers[a])
	}
	return emulatedCall{m, l}, nil
}

func (*emulated) Close() error { return nil }

func (d *emulator) Run(calls []exec.Call) error {
	for _, c := range calls {
		if d.failed == nil {
			x := c.(emulatedCall)
			d.failed = d.mach.Launch(x.module, x.launch)
		}
	}
	return d.failed
}

// ReplaySeed chooses the orders in which an emulated GPU replays recordings: at random among those
// that the calls' dependencies allow, another one each time.
var ReplaySeed uint64 = 1

// choices counts how often a replay had several calls to go on with.
var choices atomic.Int64

type recorded struct {
	dev   *emulator
	calls []exec.Call
	after [][]int
	draw  *rand.Rand
}

func (d *emulator) Record(calls []exec.Call, after [][]int) (exec.Recording, error) {
	return &recorded{d, slices.Clone(calls), after, rand.New(rand.NewPCG(ReplaySeed, uint64(len(calls))))}, nil
}

func (r *recorded) Replay() error {
	if r.after == nil {
		return r.dev.Run(r.calls)
	}
	waits := make([]int, len(r.calls)) // for so many calls
	next := make([][]int, len(r.calls))
	var ready []int
	for i, l := range r.after {
		waits[i] = len(l)
		for _, j := range l {
			next[j] = append(next[j], i)
		}
		if len(l) == 0 {
			ready = append(ready, i)
		}
	}
	for range r.calls {
		if len(ready) > 1 {
			choices.Add(1)
		}
		at := r.draw.IntN(len(ready))
		i := ready[at]
		ready[at] = ready[len(ready)-1]
		ready = ready[:len(ready)-1]
		if err := r.dev.Run(r.calls[i : i+1]); err != nil {
			return err
		}
		for _, j := range next[i] {
			if waits[j]--; waits[j] == 0 {
				ready = append(ready, j)
			}
		}
	}
	return nil
}

func (*recorded) Close() error { return nil }

func (d *emulator) Time(calls []exec.Call, ends []time.Duration) error {
	start := time.Now()
	for i := range calls {
		if err := d.Run(calls[i : i+1]); err != nil {
			return err
		}
		ends[i] = time.Since(start)
	}
	return nil
}

func (d *emulator) Wait() error {
	err := d.failed
	d.failed = nil
	return err
}

func (*emulator) Close() error { return nil }
