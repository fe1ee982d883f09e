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
	b := kern.NewBuilder("copy")
	i := b.Dim(40)
	in, out := b.Buf("", ir.F32, 40, kern.In), b.Buf("", ir.F32, 40, kern.Out)
	b.Store(out, kern.V(i), b.Load(in, kern.V(i)))
	k := b.Done()
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
