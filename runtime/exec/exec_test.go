package exec

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

const (
	testElems  = 1 << 17
	testChunks = 8
)

// floats are the elements of one chunk of a buffer at an address.
func floats(addr int64, chunk int) []float32 {
	p := *(*unsafe.Pointer)(unsafe.Pointer(&addr))
	return unsafe.Slice((*float32)(p), testElems)[chunk*testElems/testChunks : (chunk+1)*testElems/testChunks]
}

// testSpec is y = a*x + x, z = y*y, with a stored; kernels in Go.
func testSpec() (*Spec, map[string]goKernel) {
	fakes := map[string]goKernel{
		"axpy": func(args []int64, c int) {
			a, x, y := floats(args[0], c), floats(args[1], c), floats(args[2], c)
			for i := range y {
				y[i] = a[i]*x[i] + x[i]
			}
		},
		"square": func(args []int64, c int) {
			y, z := floats(args[0], c), floats(args[1], c)
			for i := range z {
				z[i] = y[i] * y[i]
			}
		},
	}
	shape := []int{testElems}
	const n = 4 * testElems
	forward := func(r *Run, l int) {
		r.Launch(0, l)
		r.Launch(1, l+1)
	}
	return &Spec{
		Name:    "demo",
		Kernels: []Kernel{{Name: "axpy", Args: 3, Chunks: testChunks, FLOPs: 2 * testElems}, {Name: "square", Args: 2, Chunks: testChunks, FLOPs: testElems}},
		Models: []ModelSpec{{
			Name: "prior", Fingerprint: "f", StateBytes: 4*n + 192, Consts: []byte{1, 0, 0, 0, 2, 0, 0, 0},
			Globals: []GlobalSpec{
				{Name: "a", Role: RoleParam, DType: F32, Shape: shape, Init: "normal", Std: 0.5, Const: -1},
				{Name: "a.m", Role: RoleMoment1, DType: E6M9, Shape: shape, Offset: n, Init: "zeros", Of: "a", Const: -1},
				{Name: "a.avg", Role: RoleAverage, DType: F32, Shape: shape, Offset: 2 * n, Of: "a", Const: -1},
				{Name: "scale", Role: RoleState, DType: F32, Offset: 3 * n, Init: "const", Std: 8192, Const: -1},
				{Name: "half", Role: RoleParam, DType: F16, Shape: []int{testElems}, Offset: 3*n + 64, Init: "normal", Std: 1, Const: -1},
				{Name: "table", Role: RoleConst, DType: I32, Shape: []int{2}, Offset: 4*n + 64, Const: 0},
			},
			Programs: []ProgramSpec{{
				Name: "forward", WorkBytes: 3 * n,
				Inputs:  []TensorSpec{{Name: "x", DType: F32, Shape: shape, Addr: Work}},
				Outputs: []TensorSpec{{Name: "z", DType: F32, Shape: shape, Addr: Work + 2*n}, {Name: "a", DType: F32, Shape: shape, Addr: State}},
				Launches: []Launch{
					{"block0", false, "%y = axpy", "demo.go:3", []Addr{State, Work, Work + n}},
					{"block0", false, "%z = square", "demo.go:4", []Addr{Work + n, Work + 2*n}},
				},
				Run: func(r *Run) { forward(r, 0) },
			}, {
				Name: "other", Run: func(*Run) {},
			}},
		}},
	}, fakes
}

func openTest(t *testing.T, o Options) (*System, *Model, *Program) {
	t.Helper()
	spec, fakes := testSpec()
	s, err := open(spec, o, fakes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	m, err := s.Model("prior")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(7); err != nil {
		t.Fatal(err)
	}
	p, err := m.Program("forward")
	if err != nil {
		t.Fatal(err)
	}
	x, err := p.InputF32("x")
	if err != nil {
		t.Fatal(err)
	}
	for i := range x {
		x[i] = float32(i%100) / 64
	}
	return s, m, p
}

func f32(t *testing.T, x []float32, err error) []float32 {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestRunComputesOutputsFromInputsAndState(t *testing.T) {
	_, m, p := openTest(t, Options{Threads: 2})
	p.Run()
	av, err := m.F32("a")
	a := f32(t, av, err)
	zv, err := p.OutputF32("z")
	z := f32(t, zv, err)
	xv, err := p.InputF32("x")
	x := f32(t, xv, err)
	for i := range z {
		y := a[i]*x[i] + x[i]
		if z[i] != y*y {
			t.Fatalf("z[%d] = %v, want %v", i, z[i], y*y)
		}
	}
	if err := p.CheckFinite(); err != nil {
		t.Error(err)
	}
	first := slices.Clone(z)
	p.Run()
	if !slices.Equal(first, z) {
		t.Error("a second run on the same inputs gives other outputs")
	}
}

func TestThreadsDoNotChangeABit(t *testing.T) {
	var states, outs [][]byte
	for _, n := range []int{1, 2, 5} {
		_, m, p := openTest(t, Options{Threads: n})
		p.Run()
		z, err := p.Output("z")
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, bytes.Clone(m.state.Bytes(0, int(m.state.Size()))))
		outs = append(outs, bytes.Clone(z.Data))
	}
	for i := 1; i < len(states); i++ {
		if !bytes.Equal(states[0], states[i]) || !bytes.Equal(outs[0], outs[i]) {
			t.Errorf("state or output differ between numbers of threads (case %d)", i)
		}
	}
}

func TestInitFillsEachTensorItsWay(t *testing.T) {
	_, m, _ := openTest(t, Options{Threads: 2})
	get := func(name string) []float64 {
		x, err := m.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		return x.Float64s()
	}
	for name, std := range map[string]float64{"a": 0.5, "half": 1} {
		var sum, sq, cube, four float64
		x := get(name)
		n := float64(len(x))
		for _, v := range x {
			v /= std
			sum += v
			sq += v * v
			cube += v * v * v
			four += v * v * v * v
		}
		// Five standard errors of each moment of a normal sample.
		for k, d := range map[string][2]float64{"mean": {sum / n, 5 / math.Sqrt(n)}, "variance": {sq/n - 1, 5 * math.Sqrt(2/n)},
			"skewness": {cube / n, 5 * math.Sqrt(15/n)}, "kurtosis": {four/n - 3, 5 * math.Sqrt(96/n)}} {
			if math.Abs(d[0]) > d[1] {
				t.Errorf("%s: %s is off by %v, more than %v", name, k, d[0], d[1])
			}
		}
	}
	if !slices.Equal(get("a"), get("a.avg")) {
		t.Error("the average does not start as its parameter")
	}
	if s := get("scale"); s[0] != 8192 {
		t.Errorf("scale starts at %v", s[0])
	}
	if s := get("table"); s[0] != 1 || s[1] != 2 {
		t.Errorf("table is %v", s)
	}
	before := get("a")
	if err := m.Init(7); err != nil || !slices.Equal(before, get("a")) {
		t.Errorf("the same seed gives other values (%v)", err)
	}
	if err := m.Init(8); err != nil || slices.Equal(before, get("a")) {
		t.Errorf("another seed gives the same values (%v)", err)
	}
}

func TestNormalsAreNormal(t *testing.T) {
	const parts, n = 64, fillElems
	var sum, squares, fourth, with float64
	beyond := 0
	for part := range parts {
		a, b := normals(7, hashName("w"), part), normals(7, hashName("w"), part+1)
		for range n {
			x := a.NormFloat64()
			sum, squares, fourth, with = sum+x, squares+x*x, fourth+x*x*x*x, with+x*b.NormFloat64()
			if math.Abs(x) > 3 {
				beyond++
			}
		}
	}
	const all = parts * n
	// Six standard errors of each figure.
	for _, c := range []struct {
		what            string
		got, want, near float64
	}{
		{"mean", sum / all, 0, 6 / math.Sqrt(all)},
		{"variance", squares / all, 1, 6 * math.Sqrt(2./all)},
		{"fourth moment", fourth / all, 3, 6 * math.Sqrt(96./all)},
		{"product with the next part", with / all, 0, 6 / math.Sqrt(all)},
		{"share beyond 3", float64(beyond) / all, 0.0026998, 6 * math.Sqrt(0.0027/all)},
	} {
		if math.Abs(c.got-c.want) > c.near {
			t.Errorf("%s is %v, want %v within %v", c.what, c.got, c.want, c.near)
		}
	}
	if normals(7, 1, 0).NormFloat64() == normals(8, 1, 0).NormFloat64() || normals(7, 1, 0).NormFloat64() == normals(7, 2, 0).NormFloat64() {
		t.Error("another seed or name draws the same numbers")
	}
}

func TestRunAllocatesNothing(t *testing.T) {
	_, _, p := openTest(t, Options{Threads: 1})
	base := testing.AllocsPerRun(50, func() {
		p.run.pool.RunFunc(testChunks, func(int, int) {})
	})
	// The two launches of Go kernels may cost what two RunFuncs cost with a closure.
	if n := testing.AllocsPerRun(50, p.Run); n > 2*(base+1) {
		t.Errorf("%v allocations a run", n)
	}
}

func TestProfileNamesLaunches(t *testing.T) {
	_, _, p := openTest(t, Options{Threads: 1, Profile: true})
	for i := 0; i < 3; i++ {
		p.Run()
	}
	l := p.Profile()
	if len(l) != 2 || l[0].Kernel != "axpy" || l[1].Values != "%z = square" || l[1].Count != 3 || l[0].Total <= 0 || l[0].Busy <= 0 || l[0].Busy > l[0].Total {
		t.Fatalf("%+v", l)
	}
	p.ResetProfile()
	if len(p.Profile()) != 0 {
		t.Error("times remain after ResetProfile")
	}
}

func TestFLOPsAreThoseOfAllLaunches(t *testing.T) {
	for _, profile := range []bool{false, true} {
		_, _, p := openTest(t, Options{Threads: 1, Profile: profile})
		if got, want := p.FLOPs(), int64(3*testElems); got != want {
			t.Errorf("%d FLOPs, want %d", got, want)
		}
	}
}

func TestStepIsAccountedFor(t *testing.T) {
	s, _, p := openTest(t, Options{Threads: 2, Profile: true})
	profile := s.Profile()
	profile.Reset()
	for range 3 {
		time.Sleep(2 * time.Millisecond)
		profile.Mark("data")
		p.Run()
		profile.Step()
	}
	wall := profile.last - profile.from
	sum, names := p.total.total, ""
	for _, h := range profile.host {
		sum += h.total
		names += h.name + " "
	}
	if sum != wall || names != "data unnamed " {
		t.Errorf("%v of %v are accounted for, by %s", sum, wall, names)
	}
	var b strings.Builder
	if err := profile.WriteText(&b, 10); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"demo: 3 steps of ", "on 2 threads", "data", "forward: kernels", "forward: between launches", "forward: threads without a chunk",
		"demo.prior.forward: 3 runs of 2 launches", "0 axpy: %y = axpy (block0) demo.go:3", "GFLOP/s"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}

// The trace must open in a viewer: slices of a track lie side by side or inside each other.
func TestTraceNestsItsSlices(t *testing.T) {
	s, _, p := openTest(t, Options{Threads: 2, Profile: true})
	for range 2 {
		p.Run()
		s.Profile().Mark("log")
		s.Profile().Step()
	}
	var b bytes.Buffer
	if err := s.Profile().WriteTrace(&b); err != nil {
		t.Fatal(err)
	}
	var trace struct {
		TraceEvents []struct {
			Name, Ph string
			TS, Dur  float64
			TID      int
		}
	}
	if err := json.Unmarshal(b.Bytes(), &trace); err != nil {
		t.Fatal(err)
	}
	type slice struct{ from, to float64 }
	open, names := map[int][]slice{}, map[string]int{}
	for _, e := range trace.TraceEvents {
		if e.Ph != "X" {
			continue
		}
		names[e.Name]++
		x, stack := slice{e.TS, e.TS + e.Dur}, open[e.TID]
		for len(stack) > 0 && stack[len(stack)-1].to <= x.from+1e-6 {
			stack = stack[:len(stack)-1]
		}
		if len(stack) > 0 && x.to > stack[len(stack)-1].to+1e-6 {
			t.Errorf("%s of track %d lies across another slice", e.Name, e.TID)
		}
		open[e.TID] = append(stack, x)
	}
	if names["demo.prior.forward"] != 1 || names["block0"] != 1 || names["log"] != 1 || names["axpy"] < 2 {
		t.Errorf("slices %v", names)
	}
}

func TestNonFiniteOutputsAreNamed(t *testing.T) {
	_, m, p := openTest(t, Options{Threads: 1})
	xv, err := p.InputF32("x")
	x := f32(t, xv, err)
	x[5] = float32(math.Inf(1))
	p.Run()
	if err := p.CheckFinite(); err == nil || !strings.Contains(err.Error(), "demo.prior.forward: output z f32[131072]: element 5 is ") {
		t.Errorf("got %v", err)
	}
	h, err := m.Tensor("half")
	if err != nil {
		t.Fatal(err)
	}
	h.set(3, math.NaN())
	if err := m.CheckFinite(); err == nil || !strings.Contains(err.Error(), "demo.prior: stored tensor half f16[131072]: element 3 is NaN") {
		t.Errorf("got %v", err)
	}
}

func TestUnknownNamesListTheValidOnes(t *testing.T) {
	s, m, p := openTest(t, Options{Threads: 1})
	_, e1 := s.Model("clip")
	_, e2 := m.Program("train")
	_, e3 := m.Tensor("b")
	_, e4 := p.InputF32("tokens")
	_, e5 := p.OutputF32("loss")
	_, e6 := p.InputI32("x")
	for err, want := range map[error]string{
		e1: `demo: no model "clip"; it has prior`,
		e2: `demo.prior: no program "train"; it has forward, other`,
		e3: `demo.prior: no stored tensor "b"; it has a, a.m, a.avg, scale, half, table`,
		e4: `demo.prior.forward: no input "tokens"; it has x`,
		e5: `demo.prior.forward: no output "loss"; it has z, a`,
		e6: `exec: x f32[131072] is not i32; use Data or Float64s`,
	} {
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	spec := &Spec{Name: "demo", Objects: []Object{{Target: "pdp-11"}}}
	if _, err := Open(spec, Options{Threads: -1}); err == nil || !strings.Contains(err.Error(), "-1 threads are not possible") {
		t.Errorf("got %v", err)
	}
	if _, err := Open(spec, Options{}); err == nil || !strings.Contains(err.Error(), "pdp-11") {
		t.Errorf("got %v", err)
	}
	if _, err := Open(spec, Options{Target: "vax"}); err == nil || err.Error() != `demo: target "vax": kernels are compiled for pdp-11` {
		t.Errorf("got %v", err)
	}
	t.Setenv("GOUACHE_TARGET", "pdp-11")
	if _, err := Open(spec, Options{}); err == nil || !strings.Contains(err.Error(), `demo: GOUACHE_TARGET "pdp-11": this processor runs `) {
		t.Errorf("got %v", err)
	}
	t.Setenv("GOUACHE_THREADS", "many")
	if _, err := Open(spec, Options{}); err == nil || err.Error() != `exec: GOUACHE_THREADS="many" is not a positive number` {
		t.Errorf("got %v", err)
	}
	if n, err := threads(3); n != 3 || err != nil {
		t.Errorf("an explicit number of threads gives %d, %v", n, err)
	}
	t.Setenv("GOUACHE_THREADS", "4")
	if n, err := threads(0); n != 4 || err != nil {
		t.Errorf("GOUACHE_THREADS=4 gives %d, %v", n, err)
	}
}

func TestTensorsOutsideTheirArenaAreRefused(t *testing.T) {
	spec, fakes := testSpec()
	spec.Models[0].StateBytes = 4 * testElems
	s, err := open(spec, Options{Threads: 1}, fakes)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Model("prior"); err == nil || !strings.Contains(err.Error(), "a.m e6m9[131072] does not fit") {
		t.Errorf("got %v", err)
	}
}

func TestProgramsLargerThanTheMachineAreRefused(t *testing.T) {
	_, m, _ := openTest(t, Options{Threads: 1})
	defer func(f func() int64) { machineBytes = f }(machineBytes)
	machineBytes = func() int64 { return 3 << 20 }
	_, err := m.Program("forward")
	want := "demo.prior.forward: it needs 0.0 GiB of memory (0.0 GiB stored tensors, 0.0 GiB work), this machine has 0.0 GiB; choose a smaller system or batch"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if _, err := m.Program("other"); err != nil {
		t.Errorf("a program without work memory: %v", err)
	}
	machineBytes = func() int64 { return 0 }
	if _, err := m.Program("forward"); err != nil {
		t.Errorf("on a machine that does not tell its size: %v", err)
	}
}

func TestClosedModelsStartAnew(t *testing.T) {
	s, m, _ := openTest(t, Options{Threads: 1})
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
	n, err := s.Model("prior")
	if err != nil || n == m {
		t.Fatalf("%v, same model %v", err, n == m)
	}
	if a, err := n.F32("a"); err != nil || a[0] != 0 {
		t.Errorf("a parameter of a new model is %v (%v)", a[0], err)
	}
	if x, err := n.I32("table"); err != nil || x[1] != 2 {
		t.Errorf("a constant of a new model is %v (%v)", x, err)
	}
}

func TestStorageTypesRoundTripAllCodes(t *testing.T) {
	for _, d := range []DType{F16, BF16, E6M9, UE6M10} {
		x := &Tensor{Name: "x", DType: d, Shape: []int{1}, Data: make([]byte, 2)}
		for code := 0; code < 1<<16; code++ {
			x.Data[0], x.Data[1] = byte(code), byte(code>>8)
			v := x.at(0)
			if math.IsNaN(v) || d == E6M9 && code == 0x8000 { // -0 is stored as it is decoded: zero
				continue
			}
			x.set(0, v)
			if got := int(x.bits16(0)); got != code {
				t.Fatalf("%s code %#x is %v, stored as %#x", d, code, v, got)
			}
		}
	}
}

func TestOptimiserFormatsRoundAsThePaperSays(t *testing.T) {
	for _, tt := range []struct {
		d    DType
		x    float64
		want float64
	}{
		{E6M9, 1 + 1.0/1024, 1 + 1.0/512}, // a tie goes away from zero
		{E6M9, -(1 + 1.0/1024), -(1 + 1.0/512)},
		{E6M9, 1 + 0.99/1024, 1},
		{E6M9, 1e9, 15.984375},
		{E6M9, 1.9999, 2},
		{E6M9, 1e-30, 0},
		{UE6M10, 1e9, 15.9921875},
		{UE6M10, 1 + 1.0/2048, 1 + 1.0/1024},
		{BF16, 1 + 1.0/256, 1}, // a tie goes to even
		{BF16, 1 + 3.0/256, 1 + 1.0/64},
	} {
		x := &Tensor{Name: "x", DType: tt.d, Shape: []int{1}, Data: make([]byte, 2)}
		if x.set(0, tt.x); x.at(0) != tt.want {
			t.Errorf("%v as %s is %v, want %v", tt.x, tt.d, x.at(0), tt.want)
		}
	}
}
