package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/models/dvae"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/models/system"
)

func init() {
	memoryBytes, bestTime = 32<<20, 2*time.Millisecond
	tiny := system.System{Name: "tiny", Doc: "a small autoencoder", Build: func() ([]*ir.Module, error) {
		m, err := dvae.Build(dvae.Config{ImageSize: 8, Width: 8, Groups: 2, BlocksPerGroup: 1, Stem: 3, Codebook: 16, CodeDim: 8, Batch: 2, Optimizer: nn.AdamW{Beta1: 0.9, Beta2: 0.99, Eps: 1e-8}})
		return []*ir.Module{m}, err
	}}
	if err := system.Register(tiny); err != nil {
		panic(err)
	}
}

// embedding gathers rows shift+id of a table of 20 rows of 8.
func embedding(shift int) (*kern.Kernel, []*plan.Buffer) {
	b := kern.NewBuilder("embedding")
	i, j := b.Dim(5), b.Dim(8)
	ids, table, out := b.Buf("", ir.I32, 5, kern.In), b.Buf("", ir.F32, 160, kern.In), b.Buf("", ir.F32, 40, kern.Out)
	id := b.Op(kern.Add, b.Load(ids, kern.V(i)), b.I(shift))
	b.Store(out, kern.V(i).Scale(8).Add(kern.V(j)), b.Load(table, kern.At(id).Scale(8).Add(kern.V(j))))
	k := b.Done()
	var bufs []*plan.Buffer
	for range k.Bufs {
		bufs = append(bufs, &plan.Buffer{Arena: plan.Work})
	}
	return k, bufs
}

func TestIndicesFillTheirTable(t *testing.T) {
	for _, c := range []struct{ shift, lo, hi int }{{0, 0, 19}, {7, 0, 12}, {-3, 3, 22}} {
		k, bufs := embedding(c.shift)
		r := &ranges{launches: []plan.Launch{{Kernel: k, Args: bufs}}, known: map[*plan.Buffer]interval{}}
		if err := r.solve(bufs[:1]); err != nil {
			t.Fatal(err)
		}
		if got, want := r.known[bufs[0]], (interval{c.lo, c.hi, false}); got != want {
			t.Errorf("shift %d: indices %v, want %v", c.shift, got, want)
		}
	}
}

func TestIndicesAreFollowedThroughLaunches(t *testing.T) {
	b := kern.NewBuilder("double")
	i := b.Dim(5)
	x, y := b.Buf("", ir.I32, 5, kern.In), b.Buf("", ir.I32, 5, kern.Out)
	b.Store(y, kern.V(i), b.Op(kern.Mul, b.Load(x, kern.V(i)), b.I(2)))
	double := b.Done()
	k, bufs := embedding(0)
	in := &plan.Buffer{Arena: plan.Work}
	r := &ranges{launches: []plan.Launch{{Kernel: double, Args: []*plan.Buffer{in, bufs[0]}}, {Kernel: k, Args: bufs}}, known: map[*plan.Buffer]interval{}}
	if err := r.solve([]*plan.Buffer{in}); err != nil {
		t.Fatal(err)
	}
	if got := r.known[in]; got.lo != 0 || got.hi != 9 {
		t.Errorf("indices %v, want 0..9", got)
	}
	// An index nobody gives is an error, not a fault in the kernel.
	r = &ranges{launches: r.launches[1:], known: map[*plan.Buffer]interval{}}
	if err := r.solve(nil); err == nil {
		t.Error("a gather with unknown indices was accepted")
	}
}

// The gradient of a long table is a list of rows, and a row's place in it a float: the negated largest of
// negated positions.
func TestIndicesMayBeFloats(t *testing.T) {
	b := kern.NewBuilder("place")
	i := b.Dim(5)
	x, y := b.Buf("", ir.F32, 5, kern.In), b.Buf("", ir.I32, 5, kern.Out)
	b.Store(y, kern.V(i), b.Cast(ir.I32, b.Op(kern.Neg, b.Load(x, kern.V(i)))))
	place := b.Done()
	k, bufs := embedding(0)
	in := &plan.Buffer{Arena: plan.Work, Type: ir.Type{DType: ir.F32}}
	launches := []plan.Launch{{Kernel: place, Args: []*plan.Buffer{in, bufs[0]}}, {Kernel: k, Args: bufs}}
	r := &ranges{launches: launches, known: map[*plan.Buffer]interval{}}
	if err := r.solve([]*plan.Buffer{in}); err != nil {
		t.Fatal(err)
	}
	if got, want := r.known[in], (interval{-19, 0, false}); got != want {
		t.Errorf("places %v, want %v", got, want)
	}

	b = kern.NewBuilder("rank")
	i = b.Dim(5)
	ids, out := b.Buf("", ir.I32, 20, kern.In), b.Buf("", ir.F32, 5, kern.Out)
	largest, err := b.For(20, []kern.Combine{kern.MaxOf}, func(v *kern.Var) ([]*kern.Node, error) {
		here := b.Op(kern.Eq, b.Load(ids, kern.V(v)), b.Pos(kern.V(i)))
		at := b.Op(kern.Neg, b.Cast(ir.F32, b.Pos(kern.V(v))))
		return []*kern.Node{b.Op(kern.Select, here, at, b.F(-19))}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Store(out, kern.V(i), largest[0])
	rank := b.Done()
	rows := &plan.Buffer{Arena: plan.Work, Type: ir.Type{DType: ir.I32}}
	r = &ranges{launches: append([]plan.Launch{{Kernel: rank, Args: []*plan.Buffer{rows, in}}}, launches...), known: map[*plan.Buffer]interval{rows: {0, 4, false}}}
	if err := r.check(); err != nil {
		t.Error(err)
	}
	r.launches[2].Kernel, _ = embedding(1)
	if err := r.check(); err == nil {
		t.Error("a place beyond the table was accepted")
	}

	if got := indexing(place); len(got) != 0 {
		t.Errorf("float buffers %v of a kernel without gathers are taken for indices", got)
	}
	b = kern.NewBuilder("gather")
	i = b.Dim(5)
	at, table, to := b.Buf("", ir.F32, 5, kern.In), b.Buf("", ir.F32, 20, kern.In), b.Buf("", ir.F32, 5, kern.Out)
	b.Store(to, kern.V(i), b.Load(table, kern.At(b.Cast(ir.I32, b.Load(at, kern.V(i))))))
	if got := indexing(b.Done()); len(got) != 1 || !got[at] {
		t.Errorf("float buffers %v are taken for indices, want #%d", got, at)
	}
}

func TestTrafficCountsWhatIsReached(t *testing.T) {
	k, _ := embedding(0)
	if got, want := k.Traffic(), 4*(5+40+40); got != want {
		t.Errorf("traffic %d bytes, want %d: 5 indices, 40 of 160 elements gathered, 40 written", got, want)
	}
	b := kern.NewBuilder("scale")
	i := b.Dim(64)
	x := b.Buf("", ir.F16, 100, kern.InOut)
	b.Store(x, kern.V(i), b.Op(kern.Mul, b.Load(x, kern.V(i)), b.F(2)))
	if got, want := b.Done().Traffic(), 2*2*64; got != want {
		t.Errorf("in place: traffic %d bytes, want %d", got, want)
	}
}

func TestRandomNumbersAreOrdinary(t *testing.T) {
	for _, c := range []struct {
		d    ir.DType
		x    float64
		bits uint16
	}{{ir.F16, 1, 0x3c00}, {ir.F16, -2.5, 0xc100}, {ir.BF16, 1, 0x3f80}, {ir.BF16, -2.5, 0xc020},
		{ir.E6M9, 1.5, 60<<9 | 1<<8}, {ir.UE6M10, 1.5, 60<<10 | 1<<9}, {ir.F16, 0, 0}} {
		if got := sixteen(c.d, c.x); got != c.bits {
			t.Errorf("%s %g is %#x, want %#x", c.d, c.x, got, c.bits)
		}
	}
}

func TestRoofIsTheLongerTime(t *testing.T) {
	m := &machine{threads: 2, flops: [2]float64{100, 200}, levels: []level{{1 << 10, [2]float64{50, 80}}, {1 << 20, [2]float64{10, 10}}}}
	for _, c := range []struct {
		flops                  int64
		bytes, working, chunks int
		seconds                float64
		bound                  string
	}{{1000, 100, 1000, 1, 10, "fma"}, {1000, 100, 1000, 2, 5, "fma"}, {10, 100, 1000, 1, 2, "1KiB"}, {10, 100, 2000, 8, 10, "1MiB"}, {10, 100, 1 << 30, 8, 10, "1MiB"}} {
		r := m.roof(c.flops, c.bytes, c.working, c.chunks)
		if math.Abs(r.seconds()-c.seconds) > 1e-9 || r.bound() != c.bound {
			t.Errorf("%+v: %g s by %s", c, r.seconds(), r.bound())
		}
	}
}

// A kernel that would do more than the machine can has its figures left out, and says why.
func TestFiguresAboveThePeakAreWithheld(t *testing.T) {
	k, _ := embedding(0)
	x := &subject{Kernel: k, bytes: 1000, kind: "map"}
	s := &session{variant: &build.Target{}, machine: &machine{threads: 1, flops: [2]float64{100, 100}, levels: []level{{1 << 20, [2]float64{100, 100}}}}}
	for _, c := range []struct {
		flops  int64
		ns     float64
		gflops bool
		gbs    bool
		note   string
	}{
		{1000, 20e9, true, true, ""},
		{5000, 20e9, false, true, "GFLOP/s withheld: above the measured peak"},
		{100, 5e9, true, false, "GB/s withheld: above the measured bandwidth of 1MiB"},
	} {
		x.FLOPs = c.flops
		r := s.rate(x, samples{times: []float64{c.ns / 1e9}, all: 1, runs: 1})
		if (r.GFLOPS > 0) != c.gflops || (r.GBs > 0) != c.gbs || (r.Roof > 0) != (c.note == "") || !strings.HasPrefix(r.Note, c.note) || c.note == "" && r.Note != "" {
			t.Errorf("%d FLOPs in %g ns: %+v", c.flops, c.ns, r)
		}
		var out bytes.Buffer
		s.out, s.headed = &out, true
		s.printLine(r)
		if above := float64(c.flops) / c.ns; !c.gflops && strings.Contains(out.String(), fmt.Sprint(above)) {
			t.Errorf("the figure is printed all the same: %s", &out)
		}
	}
}

func TestComparisonKnowsNoise(t *testing.T) {
	at := func(name string, low, ns, high float64) row {
		return row{Kernel: name, LowNs: low, Ns: ns, HighNs: high, Threads: 1}
	}
	before := byKernel([]row{at("same", 90, 100, 120), at("slower", 90, 100, 110), at("gone", 1, 1, 1), at("twice", 10, 10, 10), at("twice", 30, 30, 30), at("twice", 20, 20, 20)})
	if r := before["twice"]; r.Ns != 20 || r.LowNs != 10 || r.HighNs != 30 {
		t.Errorf("three rows joined: %+v", r)
	}
	var out bytes.Buffer
	s := &session{out: &out, options: options{compare: "old"}}
	s.difference(before, []row{at("same", 110, 125, 130), at("slower", 140, 150, 160), at("twice", 40, 40, 40), at("fresh", 1, 1, 1)})
	for _, want := range []string{"~  same", "+50.0%  slower", "+100.0%  twice", "new  fresh", "of 3 kernels: +55.4%; 1 are new, 1 are gone"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

func TestProfileHasStacksOfFourFrames(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.pb.gz")
	if err := run(context.Background(), []string{"-system", "tiny", "-program", "dvae.decode", "-time", "1ms", "-pprof", path}, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckValid(); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(p.SampleType[0].Type, p.SampleType[1].Type, p.SampleType[2].Type); got != "timeflopsbytes" {
		t.Errorf("sample types %s", got)
	}
	seen := false
	for _, s := range p.Sample {
		var names []string
		for _, l := range s.Location {
			names = append(names, l.Line[0].Function.Name)
		}
		if len(names) != 4 || names[3] != "dvae.decode" || !strings.HasPrefix(names[0], names[1]+"_") || s.Value[0] <= 0 || s.Value[2] <= 0 {
			t.Fatalf("stack %v with %v", names, s.Value)
		}
		seen = seen || names[2] == "dec.group1.block1" && s.Value[1] > 0
	}
	if !seen {
		t.Error("no sample in dec.group1.block1 has FLOPs")
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			// Scripts have a home of their own, and kernels compiled for one test serve the next.
			cache, err := os.UserCacheDir()
			e.Vars = append(e.Vars, "GOUACHE_LLVM="+os.Getenv("GOUACHE_LLVM"), "XDG_CACHE_HOME="+cache)
			return err
		}})
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kbench": main})
}

func TestKernelsAreMeasured(t *testing.T) {
	var out, diag bytes.Buffer
	args := []string{"-system", "tiny", "-program", "dvae.average", "-run", ".", "-time", "1ms", "-json", "-threads", "1"}
	if err := run(context.Background(), args, &out, &diag); err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(&out)
	launches := 0
	for {
		var r row
		if err := d.Decode(&r); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if r.Ns <= 0 || r.MinNs > r.Ns || r.Samples < minSamples || r.Bytes <= 0 || r.Roof > 1 {
			t.Errorf("row %+v", r)
		}
		launches += r.Launches
	}
	if launches < 10 || diag.Len() > 0 {
		t.Errorf("rows cover %d launches; %s", launches, &diag)
	}
}

func TestProgramIsAccountedFor(t *testing.T) {
	var out bytes.Buffer
	if err := run(context.Background(), []string{"-system", "tiny", "-program", "dvae.average", "-time", "1ms"}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"dvae.average: ", "launches account for", "  block\n", "  kernel\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, &out)
		}
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"-system nope", `unknown system "nope"`},
		{"-program prior", "MODEL.PROGRAM"},
		{"-system tiny -program prior.fly", "dvae.train"},
		{"-run (", "-run"},
		{"-threads 0", "-threads"},
		{"-system tiny -run ^nothing$", "-list"},
		{"-target vax", "x86-64-v3"},
		{"extra", "extra"},
	} {
		err := run(context.Background(), strings.Fields(c.args), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", c.args, err, c.want)
		}
	}
}
