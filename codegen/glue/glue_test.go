package glue_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"go/format"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	"github.com/gouache-ml/gouache/codegen/glue"
	"github.com/gouache-ml/gouache/codegen/sched"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	device "github.com/gouache-ml/gouache/runtime/device/cpu"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const rows, cols = 24, 96

// tile cuts the rows of the grid into chunks.
func tile(k *kern.Kernel, runs int) *kern.Kernel {
	k.Tile = kern.Tile{Rows: runs, Cols: k.Dims[len(k.Dims)-1].Extent}
	outer := k.Points() / k.Dims[len(k.Dims)-1].Extent
	k.Chunks = (outer + runs - 1) / runs
	return k
}

// affine is y = a*x + b along rows, square y = x*x, sum the sum of each row,
// tick adds one to a counter.
func affine() *kern.Kernel {
	b := kern.NewBuilder("affine")
	a, c, x, y := b.Buf("a", ir.F32, cols, kern.In), b.Buf("b", ir.F32, cols, kern.In), b.Buf("x", ir.F32, rows*cols, kern.In), b.Buf("y", ir.F32, rows*cols, kern.Out)
	i, j := b.Dim(rows), b.Dim(cols)
	at := kern.V(i).Scale(cols).Add(kern.V(j))
	b.Store(y, at, b.Op(kern.Add, b.Op(kern.Mul, b.Load(a, kern.V(j)), b.Load(x, at)), b.Load(c, kern.V(j))))
	b.K.Vector, b.K.FLOPs, b.K.Source = j, 2*rows*cols, "y = a*x + b"
	return tile(b.Done(), 4)
}

func square() *kern.Kernel {
	b := kern.NewBuilder("square")
	x, y := b.Buf("x", ir.F32, rows*cols, kern.In), b.Buf("y", ir.F32, rows*cols, kern.Out)
	i, j := b.Dim(rows), b.Dim(cols)
	at := kern.V(i).Scale(cols).Add(kern.V(j))
	v := b.Load(x, at)
	b.Store(y, at, b.Op(kern.Mul, v, v))
	b.K.Vector, b.K.FLOPs = j, rows*cols
	return tile(b.Done(), 5)
}

func rowSum(t *testing.T) *kern.Kernel {
	b := kern.NewBuilder("row_sum")
	x, y := b.Buf("x", ir.F32, rows*cols, kern.In), b.Buf("y", ir.F32, rows, kern.Out)
	i := b.Dim(rows)
	s, err := b.For(cols, []kern.Combine{kern.Sum}, func(j *kern.Var) ([]*kern.Node, error) {
		return []*kern.Node{b.Load(x, kern.V(i).Scale(cols).Add(kern.V(j)))}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Store(y, kern.V(i), s[0])
	b.K.Tile, b.K.Chunks = kern.Tile{Rows: 1, Cols: 7}, (rows+6)/7
	return b.Done()
}

func tick() *kern.Kernel {
	b := kern.NewBuilder("tick")
	n := b.Buf("n", ir.F32, 1, kern.InOut)
	b.Dim(1)
	b.Store(n, kern.C(0), b.Op(kern.Add, b.Load(n, kern.C(0)), b.F(1)))
	b.K.Tile, b.K.Chunks = kern.Tile{Rows: 1, Cols: 1}, 1
	return b.Done()
}

// lineSystem has one model whose program applies two equal layers
// x <- (a*x + b)^2, sums the rows and counts its runs.
func lineSystem(t *testing.T) *plan.System {
	t.Helper()
	ka, ks, kr, kt := affine(), square(), rowSum(t), tick()
	m := &plan.Model{Name: "line", Fingerprint: "f1"}
	global := func(name string, ty ir.Type, role ir.Role, init ir.Init) *plan.Global {
		g := &plan.Global{Global: &ir.Global{Name: name, Type: ty, Role: role, Init: init, Pos: ir.Pos{File: "line.go", Line: 5}}}
		m.Globals = append(m.Globals, g)
		return g
	}
	p := &plan.Program{Name: "forward"}
	buffer := func(name string, ty ir.Type, arena plan.Arena, first, last int) *plan.Buffer {
		b := &plan.Buffer{ID: len(p.Buffers), Name: name, Type: ty, Bytes: ty.Bytes(), Arena: arena, First: first, Last: last}
		p.Buffers = append(p.Buffers, b)
		return b
	}
	stored := func(g *plan.Global) *plan.Buffer { return buffer("@"+g.Name, g.Type, plan.State, -1, 6) }
	mat := ir.T(ir.F32, rows, cols)
	count := global("count", ir.T(ir.F32), ir.State, ir.Init{Kind: "const", Std: 40})
	x := buffer("x", mat, plan.Work, -1, 6)
	p.Inputs = []*plan.Buffer{x}
	h := x
	for i := 0; i < 2; i++ {
		a := stored(global(fmt.Sprintf("a%d", i), ir.T(ir.F32, cols), ir.Param, ir.Init{Kind: "normal", Std: 0.5}))
		b := stored(global(fmt.Sprintf("b%d", i), ir.T(ir.F32, cols), ir.Param, ir.Init{Kind: "normal", Std: 0.25}))
		y := buffer(fmt.Sprintf("%%y%d", i), mat, plan.Work, 2*i, 2*i+1)
		z := buffer(fmt.Sprintf("%%z%d", i), mat, plan.Work, 2*i+1, 2*i+2)
		block := fmt.Sprintf("layer%d", i)
		p.Launches = append(p.Launches,
			plan.Launch{Kernel: ka, Args: []*plan.Buffer{a, b, h, y}, Block: block, Pos: ir.Pos{File: "line.go", Line: 11}, Values: y.Name + " = add"},
			plan.Launch{Kernel: ks, Args: []*plan.Buffer{y, z}, Block: block, Pos: ir.Pos{File: "line.go", Line: 12}, Values: z.Name + " = mul"})
		h = z
	}
	h.Last = 6
	sum := buffer("%sum", ir.T(ir.F32, rows), plan.Work, 4, 6)
	p.Launches = append(p.Launches,
		plan.Launch{Kernel: kr, Args: []*plan.Buffer{h, sum}, Pos: ir.Pos{File: "line.go", Line: 14}, Values: "%sum = sum"},
		plan.Launch{Kernel: kt, Args: []*plan.Buffer{stored(count)}, Values: "%n = add"})
	p.Outputs = []plan.Output{{Name: "z", Buffer: h}, {Name: "sum", Buffer: sum, Type: ir.T(ir.F32, rows, 1)}}
	table := global("table", ir.T(ir.I32, 2), ir.Const, ir.Init{})
	table.Data = []byte{7, 0, 0, 0, 9, 0, 0, 0}
	m.Programs = []*plan.Program{p}

	if err := sched.PlaceState(m); err != nil {
		t.Fatal(err)
	}
	if _, err := sched.Place(p); err != nil {
		t.Fatal(err)
	}
	if err := sched.CheckState(m); err != nil {
		t.Fatal(err)
	}
	if err := sched.Check(p); err != nil {
		t.Fatal(err)
	}
	return &plan.System{Name: "line-1", Models: []*plan.Model{m}, Kernels: []*kern.Kernel{ka, kr, ks, kt}}
}

func generate(t *testing.T, s *plan.System, o glue.Options) []glue.File {
	t.Helper()
	files, err := glue.Generate(s, o)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

var fakeOptions = glue.Options{
	ImportPath: "example.org/gen/line",
	Objects:    []glue.Object{{Target: "x86-64-v4", Code: []byte("four"), Scratch: 128}, {Target: "x86-64-v3", Code: []byte("three")}},
	Runner:     "github.com/gouache-ml/gouache/runtime/train",
}

// gpuOptions are for two GPUs, on which affine runs two entries; for one of them the code is assembled.
var gpuOptions = glue.Options{
	ImportPath: "example.org/gen/line",
	Objects: []glue.Object{
		{Target: "sm_90a", Device: "cuda", Code: []byte("first\x00second\x00"), Binaries: [][]byte{{1, 0, 2}, []byte("2nd")}, Entries: gpuEntries(384)},
		{Target: "sm_80", Device: "cuda", Code: []byte("one\x00"), Entries: gpuEntries(128)},
	},
}

func gpuEntries(block int) map[string][]glue.Entry {
	one := func(name string, args ...int) []glue.Entry {
		return []glue.Entry{{Name: name, Grid: [3]int{rows, 1, 1}, Block: block, Args: args}}
	}
	m := map[string][]glue.Entry{"square": one("square", 0, 1), "row_sum": one("row_sum", 0, 1), "tick": one("tick", 0)}
	m["affine"] = append(one("affine_part", 0, 2, 3), glue.Entry{Name: "affine", Grid: [3]int{2, 3, 1}, Block: block, Shared: 65536, Cluster: 2, Args: []int{1, 3}, Maps: []glue.TensorMap{
		{Arg: 2, DType: ir.F32, Dims: []int{cols, rows}, Strides: []int64{4 * cols}, Box: []int{32, 8}, Swizzle: 128},
		{Arg: 0, Offset: 64, DType: ir.F32, Dims: []int{cols - 16}, Box: []int{16}}}})
	return m
}

func TestGeneratedPackageIsTheGoldenOne(t *testing.T) {
	golden(t, "testdata", generate(t, lineSystem(t), fakeOptions))
	files := generate(t, lineSystem(t), gpuOptions)
	golden(t, filepath.Join("testdata", "gpu"), slices.DeleteFunc(files, func(f glue.File) bool { return f.Path == "z_line.go" })) // it is the same
}

// golden compares the Go files among files with those of a folder.
func golden(t *testing.T, folder string, files []glue.File) {
	t.Helper()
	for _, f := range files {
		if !strings.HasSuffix(f.Path, ".go") {
			continue
		}
		if got, err := format.Source(f.Data); err != nil || !bytes.Equal(got, f.Data) {
			t.Errorf("%s is not formatted (%v)", f.Path, err)
		}
		golden := filepath.Join(folder, filepath.FromSlash(f.Path)+".golden")
		if *update {
			if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(golden, f.Data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.Data, want) {
			t.Errorf("%s differs from %s; run go test -update and read the difference:\n%s", f.Path, golden, f.Data)
		}
	}
}

func TestGeneratingTwiceGivesTheSameBytes(t *testing.T) {
	for _, o := range []glue.Options{fakeOptions, gpuOptions} {
		a, b := generate(t, lineSystem(t), o), generate(t, lineSystem(t), o)
		if !slices.EqualFunc(a, b, func(x, y glue.File) bool { return x.Path == y.Path && bytes.Equal(x.Data, y.Data) }) {
			t.Error("two runs differ")
		}
	}
}

func TestCodeForDevicesIsCompressed(t *testing.T) {
	files := generate(t, lineSystem(t), gpuOptions)
	for name, want := range map[string]string{"z_sm_90a.ptx.gz": "first\x00second\x00", "z_sm_90a.cubin.gz": "\x01\x00\x022nd", "z_sm_80.ptx.gz": "one\x00"} {
		i := slices.IndexFunc(files, func(f glue.File) bool { return f.Path == name })
		if i < 0 {
			t.Errorf("no file %s", name)
			continue
		}
		z, err := gzip.NewReader(bytes.NewReader(files[i].Data))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(z); err != nil || string(got) != want {
			t.Errorf("%s holds %q (%v)", name, got, err)
		}
	}
}

func TestEveryFileIsMarkedAsGenerated(t *testing.T) {
	for _, f := range generate(t, lineSystem(t), fakeOptions) {
		if base := filepath.Base(f.Path); !strings.HasPrefix(base, "z_") {
			t.Errorf("%s does not start with z_", f.Path)
		}
		if strings.HasSuffix(f.Path, ".go") && !bytes.HasPrefix(f.Data, []byte("// Code generated by gouachec. DO NOT EDIT.\n")) {
			t.Errorf("%s lacks the header", f.Path)
		}
	}
}

func TestAwkwardNamesStayDistinct(t *testing.T) {
	s := lineSystem(t)
	s.Models[0].Name = "arm64" // z_arm64.go would be for one processor
	s.Kernels[0].Name, s.Kernels[1].Name, s.Kernels[2].Name = "x_1", "x.1", "type"
	s.Models[0].Programs[0].Launches[0].Block = "attn0 \"q\"\n"
	files := generate(t, s, glue.Options{})
	var text string
	for _, f := range files {
		text += f.Path + "\n" + string(f.Data)
	}
	for _, want := range []string{"z_arm64_model.go", "kX1 ", "kX1_2\n", "kType\n", `"attn0 \"q\"\n"`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestBadPlansAreRefused(t *testing.T) {
	for want, spoil := range map[string]func(s *plan.System, o *glue.Options){
		"launch 5 runs kernel tick, which the system doesn't list": func(s *plan.System, _ *glue.Options) { s.Kernels = s.Kernels[:3] },
		"launch 0 gives kernel affine 3 buffers, it takes 4": func(s *plan.System, _ *glue.Options) {
			l := &s.Models[0].Programs[0].Launches[0]
			l.Args = l.Args[:3]
		},
		"kernel affine has 0 chunks":         func(s *plan.System, _ *glue.Options) { s.Kernels[0].Chunks = 0 },
		"not a multiple of 64":               func(s *plan.System, _ *glue.Options) { s.Models[0].Programs[0].Buffers[0].Offset = 4 },
		"@table is i32[2], its contents are": func(s *plan.System, _ *glue.Options) { s.Models[0].Globals[5].Data = []byte{1} },
		"two objects for target x86-64-v3":   func(_ *plan.System, o *glue.Options) { o.Objects[0].Target = "x86-64-v3" },
		"needs the import path":              func(_ *plan.System, o *glue.Options) { o.ImportPath = "" },
		"targets sm_80 and x86-64-v4 run on different devices; compile them into folders of their own": func(_ *plan.System, o *glue.Options) {
			o.Objects[1] = gpuOptions.Objects[1]
		},
		"kernel tick has no entry for sm_80": func(_ *plan.System, o *glue.Options) {
			o.Objects = []glue.Object{{Target: "sm_80", Device: "cuda", Entries: gpuEntries(1)}}
			delete(o.Objects[0].Entries, "tick")
		},
		"1 binaries of 2 texts for target sm_80": func(_ *plan.System, o *glue.Options) {
			o.Objects = []glue.Object{{Target: "sm_80", Device: "cuda", Code: []byte("a\x00b\x00"), Binaries: [][]byte{{1}}, Entries: gpuEntries(1)}}
		},
		"entry tick for sm_80 takes buffer 1 of kernel tick, which has 1": func(_ *plan.System, o *glue.Options) {
			o.Objects = []glue.Object{{Target: "sm_80", Device: "cuda", Entries: gpuEntries(1)}}
			o.Objects[0].Entries["tick"][0].Args[0] = 1
		},
	} {
		s, o := lineSystem(t), fakeOptions
		o.Objects = slices.Clone(o.Objects)
		spoil(s, &o)
		if _, err := glue.Generate(s, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// Depth costs a call and table rows, no functions; and generating stays quick.
func TestCodeGrowsWithDistinctRegions(t *testing.T) {
	s := lineSystem(t)
	p := s.Models[0].Programs[0]
	two := slices.Clone(p.Launches[:2])
	p.Launches = nil
	for i := 0; i < 2000; i++ {
		for _, l := range two {
			l.Block = fmt.Sprintf("layer%d", i)
			p.Launches = append(p.Launches, l)
		}
	}
	start := time.Now()
	files := generate(t, s, glue.Options{})
	// Measured at 0.15 s on one core; the rest is for a busy machine.
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("4000 launches took %v", d)
	}
	i := slices.IndexFunc(files, func(f glue.File) bool { return f.Path == "z_line.go" })
	if n := bytes.Count(files[i].Data, []byte("\nfunc ")); n != 2 {
		t.Errorf("%d functions, want one for the program and one for its regions", n)
	}
	if n := bytes.Count(files[i].Data, []byte("lineForwardLayer(r, ")); n != 2000 {
		t.Errorf("%d calls, want 2000", n)
	}
}

func TestWriteRemovesStaleFilesAndKeepsOthers(t *testing.T) {
	dir := t.TempDir()
	put := func(name string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	stale, mine := put("z_old.go"), put("extra.go")
	if err := glue.Write(dir, []glue.File{{"z_a.go", []byte("a")}, {"trainer/z_main.go", []byte("m")}}); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(filepath.Join(dir, "z_a.go"))
	if err != nil {
		t.Fatal(err)
	}
	if err := glue.Write(dir, []glue.File{{"z_a.go", []byte("a")}}); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(filepath.Join(dir, "z_a.go"))
	if err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("an unchanged file was written again (%v)", err)
	}
	for p, want := range map[string]bool{stale: false, mine: true, filepath.Join(dir, "trainer", "z_main.go"): false} {
		if _, err := os.Stat(p); (err == nil) != want {
			t.Errorf("%s: exists %v, want %v", filepath.Base(p), err == nil, want)
		}
	}
}

func TestWriteChangesNothingIfItFails(t *testing.T) {
	dir := t.TempDir()
	if err := glue.Write(dir, []glue.File{{"z_a.go", []byte("old")}}); err != nil {
		t.Fatal(err)
	}
	// A folder where a file should be stands for a disk that is full.
	if err := os.MkdirAll(filepath.Join(dir, "z_b.go.new"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := glue.Write(dir, []glue.File{{"z_a.go", []byte("new")}, {"z_b.go", []byte("b")}}); err == nil {
		t.Error("no error")
	}
	for name, want := range map[string]string{"z_a.go": "old", "z_a.go.new": "", "z_b.go": ""} {
		if got, _ := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
}

const mainSource = `package main

import (
	"encoding/json"
	"os"
	"testing"

	line "example.org/gen/line"
	"github.com/gouache-ml/gouache/runtime/exec"
)

type result struct {
	Target  string
	Threads int
	State   map[string][]float64
	X, Z, Sum []float64
	Allocs  float64
	Profile int
}

func try(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	sys, err := line.Open(exec.Options{})
	try(err)
	m, err := sys.Model("line")
	try(err)
	try(m.Init(3))
	p, err := m.Program("forward")
	try(err)
	x, err := p.InputF32("x")
	try(err)
	for i := range x {
		x[i] = float32(i%37)/32 - 0.5
	}
	r := result{Target: sys.Target(), Threads: sys.Threads(), State: map[string][]float64{}}
	r.Allocs = testing.AllocsPerRun(9, p.Run) // ten runs
	try(p.CheckFinite())
	for _, g := range m.Globals() {
		r.State[g.Name] = g.Float64s()
	}
	for _, o := range []struct {
		name string
		into *[]float64
	}{{"z", &r.Z}, {"sum", &r.Sum}} {
		t, err := p.Output(o.name)
		try(err)
		*o.into = t.Float64s()
	}
	t, err := p.Input("x")
	try(err)
	r.X = t.Float64s()
	try(sys.Close())

	sys, err = line.Open(exec.Options{Profile: true})
	try(err)
	m, err = sys.Model("line")
	try(err)
	p, err = m.Program("forward")
	try(err)
	p.Run()
	r.Profile = len(p.Profile())
	try(json.NewEncoder(os.Stdout).Encode(r))
}
`

type result struct {
	Target    string
	Threads   int
	State     map[string][]float64
	X, Z, Sum []float64
	Allocs    float64
	Profile   int
}

// Kernels in the kernel language, through LLVM, placement and glue to a static
// program of its own module.
func TestGeneratedProgramComputesItsPlan(t *testing.T) {
	s := lineSystem(t)
	tools, err := toolchain.Find()
	if err != nil {
		t.Fatal(err)
	}
	var targets []*build.Target
	for _, name := range device.Targets() {
		bt, err := build.TargetByName(name)
		if err != nil {
			t.Fatal(err)
		}
		targets = append(targets, bt)
	}
	objects, err := cpu.Compile(context.Background(), tools, s.Kernels, targets)
	if err != nil {
		t.Fatal(err)
	}
	o := glue.Options{ImportPath: "example.org/gen/line"}
	for name, code := range objects {
		o.Objects = append(o.Objects, glue.Object{Target: name, Code: code, Scratch: cpu.ScratchBytes(s.Kernels, targets)})
	}
	bin := buildMain(t, generate(t, s, o), mainSource)

	var first []byte
	for _, target := range device.Targets() {
		for _, threads := range []string{"1", "2"} {
			cmd := exec.Command(bin)
			cmd.Env = append(os.Environ(), "GOUACHE_TARGET="+target, "GOUACHE_THREADS="+threads)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var r result
			if err := json.Unmarshal(out, &r); err != nil {
				t.Fatal(err)
			}
			if r.Target != target || fmt.Sprint(r.Threads) != threads {
				t.Errorf("asked for %s on %s threads, got %s on %d", target, threads, r.Target, r.Threads)
			}
			checkResult(t, r)
			numbers, err := json.Marshal([]any{target, r.State, r.Z, r.Sum})
			if err != nil {
				t.Fatal(err)
			}
			if threads == "1" {
				first = numbers
			} else if !bytes.Equal(first, numbers) {
				t.Errorf("%s: two threads give other bits than one", target)
			}
		}
	}
}

// buildMain builds a module with the generated package and mainSource.
func buildMain(t *testing.T, files []glue.File, main string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := glue.Write(filepath.Join(dir, "gen", "line"), files); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(mod), "module github.com/gouache-ml/gouache\n", "module example.org\n", 1) +
		"\nrequire github.com/gouache-ml/gouache v0.0.0\n\nreplace github.com/gouache-ml/gouache => " + root + "\n"
	for name, data := range map[string]string{"go.mod": text, "go.sum": string(sum), "main.go": main} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bin := filepath.Join(dir, "line")
	for _, args := range [][]string{{"build", "-o", bin, "."}, {"vet", "./..."}} {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", args[0], err, out)
		}
	}
	return bin
}

// A package for GPUs builds without C, and says in a line what it lacks.
func TestGeneratedProgramForGPUsOpensOne(t *testing.T) {
	bin := buildMain(t, generate(t, lineSystem(t), gpuOptions), `package main

import (
	"fmt"

	line "example.org/gen/line"
	"github.com/gouache-ml/gouache/runtime/exec"
)

func main() {
	_, err := line.Open(exec.Options{})
	fmt.Println(err)
}
`)
	cmd := exec.Command(bin)
	cmd.Env = append(os.Environ(), "GOUACHE_LIBCUDA=libcuda-of-nobody.so")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if want := "line-1: cuda: libcuda-of-nobody.so: not found; install NVIDIA's driver, or choose a processor target\n"; err != nil || string(out) != want {
		t.Errorf("got %q (%v), want %q", out, err, want)
	}
}

func checkResult(t *testing.T, r result) {
	t.Helper()
	for i := 0; i < rows; i++ {
		sum, size := 0.0, 0.0
		for j := 0; j < cols; j++ {
			v := r.X[i*cols+j]
			for l := 0; l < 2; l++ {
				y := r.State[fmt.Sprintf("a%d", l)][j]*v + r.State[fmt.Sprintf("b%d", l)][j]
				v = y * y
			}
			if got := r.Z[i*cols+j]; math.Abs(got-v) > 1e-6*(1+math.Abs(v)) {
				t.Fatalf("%s: z[%d,%d] = %v, want %v", r.Target, i, j, got, v)
			}
			sum += v
			size += math.Abs(v)
		}
		if math.Abs(r.Sum[i]-sum) > 1e-5*size {
			t.Fatalf("%s: sum[%d] = %v, want %v", r.Target, i, r.Sum[i], sum)
		}
	}
	if n := r.State["count"][0]; n != 50 {
		t.Errorf("the counter started at 40 and stands at %v after ten runs", n)
	}
	if !slices.Equal(r.State["table"], []float64{7, 9}) {
		t.Errorf("the constant table is %v", r.State["table"])
	}
	if r.Allocs != 0 {
		t.Errorf("a run allocates %v times", r.Allocs)
	}
	if r.Profile != 6 {
		t.Errorf("the profile has %d launches, want 6", r.Profile)
	}
}
