package exec

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// fakeDevice has addresses that are no host addresses, and does nothing before Wait: host memory
// that is read too early or changed too early shows.
type fakeDevice struct {
	memory  map[uint64][]byte
	next    uint64
	pinned  map[*byte]int
	queue   []func() error
	target  string
	parts   []Part
	after   [][]int // of the last recording
	closed  bool
	bytes   int64
	fail    string // what fails: alloc, or the name of an entry
	entries []string

	up, down            int64 // bytes copied
	ups, downs          int   // copies
	records, replays    int
	runs, timed, loaded int
}

var errFake = errors.New("fake: something burnt out")

func newFake() *fakeDevice {
	return &fakeDevice{memory: map[uint64][]byte{}, next: 1 << 60, pinned: map[*byte]int{}, bytes: 1 << 30}
}

// use makes d the device that Open opens.
func (d *fakeDevice) use() {
	RegisterDevice("fake", func() (Device, error) { return d, nil })
}

func (d *fakeDevice) Name() string { return "Fake 9000" }

func (d *fakeDevice) Best(targets []string) (string, error) {
	if !slices.Contains(targets, "sm_80") {
		return "", fmt.Errorf("fake: runs sm_80 alone, kernels are compiled for %s", strings.Join(targets, ", "))
	}
	return "sm_80", nil
}

func (d *fakeDevice) Memory() int64 { return d.bytes }

func (d *fakeDevice) Load(target string, parts []Part) (Code, error) {
	d.target, d.parts = target, parts
	d.loaded++
	return d, nil
}

func (d *fakeDevice) Alloc(n int64, _ bool) (uint64, error) {
	if d.fail == "alloc" {
		return 0, errFake
	}
	addr := d.next
	d.next += uint64(n+255)&^255 + 256
	d.memory[addr] = make([]byte, n)
	return addr, nil
}

func (d *fakeDevice) Free(addr uint64) error {
	if d.memory[addr] == nil {
		return fmt.Errorf("fake: free of %#x", addr)
	}
	delete(d.memory, addr)
	return nil
}

func (d *fakeDevice) Pin(n int64) ([]byte, error) {
	b := make([]byte, n)
	d.pinned[&b[0]]++
	return b, nil
}

func (d *fakeDevice) Unpin(b []byte) error {
	if d.pinned[&b[0]] != 1 {
		return errors.New("fake: unpin of other memory")
	}
	delete(d.pinned, &b[0])
	return nil
}

// at finds n bytes of the device's memory.
func (d *fakeDevice) at(addr uint64, n int) ([]byte, error) {
	for base, m := range d.memory {
		if addr >= base && addr+uint64(n) <= base+uint64(len(m)) {
			return m[addr-base:][:n], nil
		}
	}
	return nil, fmt.Errorf("fake: no %d bytes at %#x", n, addr)
}

func (d *fakeDevice) Upload(to uint64, from []byte) error {
	d.up += int64(len(from))
	d.ups++
	d.queue = append(d.queue, func() error {
		m, err := d.at(to, len(from))
		copy(m, from)
		return err
	})
	return nil
}

func (d *fakeDevice) Download(to []byte, from uint64) error {
	d.down += int64(len(to))
	d.downs++
	d.queue = append(d.queue, func() error {
		m, err := d.at(from, len(to))
		copy(to, m)
		return err
	})
	return nil
}

func (d *fakeDevice) Wait() error {
	q := d.queue
	d.queue = nil
	for _, f := range q {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (d *fakeDevice) Close() error {
	if d.closed || len(d.memory) > 0 || len(d.pinned) > 0 {
		return fmt.Errorf("fake: closed %v, %d allocations and %d pinned left", d.closed, len(d.memory), len(d.pinned))
	}
	return nil
}

// fakeCall is an entry with the addresses it gets.
type fakeCall struct {
	name string
	args []uint64 // of the maps, then of the buffers
}

func (d *fakeDevice) Prepare(e *Entry, buffers []uint64) (Call, error) {
	c := fakeCall{name: e.Name}
	for _, m := range e.Maps {
		c.args = append(c.args, buffers[m.Arg]+uint64(m.Offset))
	}
	for _, a := range e.Args {
		c.args = append(c.args, buffers[a])
	}
	return c, nil
}

// do is the kernels.
func (d *fakeDevice) do(c fakeCall) error {
	if c.name == d.fail {
		return errFake
	}
	f := func(arg int, n int) []float32 {
		b, err := d.at(c.args[arg], 4*n)
		if err != nil {
			panic(err)
		}
		return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), n)
	}
	d.entries = append(d.entries, c.name)
	switch c.name {
	case "times": // y = a*x
		a, x, y := f(0, farElems), f(1, farElems), f(2, farElems)
		for i := range y {
			y[i] = a[i] * x[i]
		}
	case "plus": // y += x
		x, y := f(0, farElems), f(1, farElems)
		for i := range y {
			y[i] += x[i]
		}
	case "square": // z = y*y
		y, z := f(0, farElems), f(1, farElems)
		for i := range z {
			z[i] = y[i] * y[i]
		}
	case "tick": // n += by
		n, by := f(0, 1), f(1, 1)
		n[0] += by[0]
	case "log": // y = log x
		x, y := f(0, farElems), f(1, farElems)
		for i := range y {
			y[i] = float32(math.Log(float64(x[i])))
		}
	default:
		return fmt.Errorf("fake: no kernel %s", c.name)
	}
	return nil
}

func (d *fakeDevice) Run(calls []Call) error {
	d.runs += len(calls)
	d.enqueue(calls)
	return nil
}

func (d *fakeDevice) enqueue(calls []Call) {
	for _, c := range calls {
		d.queue = append(d.queue, func() error { return d.do(c.(fakeCall)) })
	}
}

type fakeRecording struct {
	d     *fakeDevice
	calls []Call
}

func (d *fakeDevice) Record(calls []Call, after [][]int) (Recording, error) {
	d.records++
	d.after = after
	return &fakeRecording{d, slices.Clone(calls)}, nil
}

func (r *fakeRecording) Replay() error {
	r.d.replays++
	r.d.enqueue(r.calls)
	return nil
}

func (r *fakeRecording) Close() error { return nil }

func (d *fakeDevice) Time(calls []Call, ends []time.Duration) error {
	d.timed++
	d.enqueue(calls)
	for i := range calls {
		ends[i] = time.Duration(i+1) * time.Microsecond
	}
	return d.Wait()
}

const (
	farElems = 1024
	farBytes = 4 * farElems
)

// farSpec has kernels for the fake device. Its stored tensors are two large ones, a small one
// between them, and a constant.
func farSpec(t *testing.T) *Spec {
	t.Helper()
	shape := []int{farElems}
	var code bytes.Buffer
	z := gzip.NewWriter(&code)
	if _, err := z.Write([]byte("first text\x00second text\x00")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	one := func(name string, args ...int) []Entry {
		return []Entry{{Name: name, Grid: [3]int{1, 1, 1}, Block: 32, Args: args}}
	}
	whole := TensorMap{Arg: 0, DType: F32, Dims: shape, Box: []int{64}}
	const (
		axpy = iota
		square
		tick
		log
	)
	const w, b = Work, Addr(farBytes)
	a, n, m := State, State+b, State+b+64
	written := func(arg int) []Written { return []Written{{arg, F32, farElems}} }
	return &Spec{
		Name: "far",
		Kernels: []Kernel{
			{Name: "axpy", Args: 3, Chunks: 1, FLOPs: 2 * farElems, Writes: written(2), Changes: []int{2}, Sizes: []int{farBytes, farBytes, farBytes}},
			{Name: "square", Args: 2, Chunks: 1, FLOPs: farElems, Writes: written(1), Changes: []int{1}, Sizes: []int{farBytes, farBytes}},
			{Name: "tick", Args: 2, Chunks: 1, Changes: []int{0}, Sizes: []int{4, 4}},
			{Name: "log", Args: 2, Chunks: 1, Writes: written(1)}, // changes any
		},
		Objects: []Object{{Target: "sm_80", Device: "fake", Code: code.Bytes(), Entries: [][]Entry{
			// y = a*x, then y += x, in two entries; a comes as a map.
			{{Name: "times", Grid: [3]int{1, 1, 1}, Block: 32, Maps: []TensorMap{whole}, Args: []int{1, 2}}, {Name: "plus", Grid: [3]int{1, 1, 1}, Block: 32, Args: []int{1, 2}}},
			one("square", 0, 1), one("tick", 0, 1), one("log", 0, 1),
		}}},
		Models: []ModelSpec{{
			Name: "m", Fingerprint: "f", StateBytes: 2*farBytes + 128, Consts: []byte{1, 0, 0, 0},
			Globals: []GlobalSpec{
				{Name: "a", Role: RoleParam, DType: F32, Shape: shape, Init: "normal", Std: 0.5, Const: -1},
				{Name: "m", Role: RoleMoment1, DType: F32, Shape: shape, Offset: farBytes + 64, Init: "zeros", Of: "a", Const: -1},
				{Name: "n", Role: RoleState, DType: F32, Shape: []int{1}, Offset: farBytes, Init: "const", Std: 10, Const: -1},
				{Name: "table", Role: RoleConst, DType: I32, Shape: []int{1}, Offset: 2*farBytes + 64, Const: 0},
			},
			Programs: []ProgramSpec{{
				Name: "forward", WorkBytes: 3 * farBytes,
				Inputs: []TensorSpec{{Name: "x", DType: F32, Shape: shape, Addr: w}},
				// z lies over x, y is an output that another output was made of.
				Outputs: []TensorSpec{{Name: "z", DType: F32, Shape: shape, Addr: w}, {Name: "y", DType: F32, Shape: shape, Addr: w + b}, {Name: "a", DType: F32, Shape: shape, Addr: a}, {Name: "rows", DType: F32, Shape: []int{2, farElems / 2}, Addr: w + b}},
				Launches: []Launch{
					{"block0", false, "%y = axpy", "far.go:3", []Addr{a, w, w + b}},
					{"block0", false, "%z = square", "far.go:4", []Addr{w + b, w}},
				},
				Run: func(r *Run) { r.Launch(axpy, 0); r.Launch(square, 1) },
			}, {
				Name: "update", WorkBytes: 64,
				Inputs:   []TensorSpec{{Name: "by", DType: F32, Shape: []int{1}, Addr: w}},
				Outputs:  []TensorSpec{{Name: "n", DType: F32, Shape: []int{1}, Addr: n}},
				Launches: []Launch{{"", false, "%n = tick", "far.go:5", []Addr{n, w}}},
				Run:      func(r *Run) { r.Launch(tick, 0) },
			}, {
				Name: "train", WorkBytes: 64, // m = a*a
				Launches: []Launch{{"", false, "%m = square", "far.go:6", []Addr{a, m}}},
				Run:      func(r *Run) { r.Launch(square, 0) },
			}, {
				Name: "log", WorkBytes: 5 * farBytes,
				Inputs:   []TensorSpec{{Name: "x", DType: F32, Shape: shape, Addr: w}},
				Outputs:  []TensorSpec{{Name: "y", DType: F32, Shape: shape, Addr: w + 4*b}},
				Launches: []Launch{{"head", false, "%y = log", "far.go:7", []Addr{w, w + 4*b}}},
				Run:      func(r *Run) { r.Launch(log, 0) },
			}, {
				Name: "nothing", Run: func(*Run) {},
			}},
		}},
	}
}

// far opens farSpec on a fake device, with initial values.
func far(t *testing.T, o Options) (*fakeDevice, *Model) {
	t.Helper()
	d := newFake()
	d.use()
	o.Threads = 1
	s, err := Open(farSpec(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		d.closed = true
	})
	m, err := s.Model("m")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(7); err != nil {
		t.Fatal(err)
	}
	return d, m
}

// program gets a program and fills its inputs with (i%100)/64.
func program(t *testing.T, m *Model, name string) *Program {
	t.Helper()
	p, err := m.Program(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := range p.Inputs() {
		xv, err := p.Inputs()[i].F32()
		for i, x := 0, f32(t, xv, err); i < len(x); i++ {
			x[i] = float32(i%100+1) / 64
		}
	}
	return p
}

func stored(t *testing.T, m *Model, name string) []float32 {
	t.Helper()
	x, err := m.F32(name)
	return f32(t, x, err)
}

func output(t *testing.T, p *Program, name string) []float32 {
	t.Helper()
	x, err := p.OutputF32(name)
	return f32(t, x, err)
}

// checkForward compares outputs of forward with a's values.
func checkForward(t *testing.T, p *Program, a []float32) {
	t.Helper()
	x, y, z, rows := program(t, p.model, "forward").inputs[0], output(t, p, "y"), output(t, p, "z"), output(t, p, "rows")
	xs := raw[float32](&x)
	for i := range z {
		want := float32(a[i]*xs[i]) + xs[i]
		if y[i] != want || z[i] != want*want || rows[i] != want {
			t.Fatalf("element %d: y %v, z %v, rows %v; want y %v", i, y[i], z[i], rows[i], want)
		}
	}
	if !slices.Equal(output(t, p, "a"), a) {
		t.Error("the output that is a stored tensor differs from it")
	}
}

func TestDeviceComputesOutputsFromInputsAndState(t *testing.T) {
	d, m := far(t, Options{})
	if s := m.sys; s.Target() != "sm_80" || s.Device() != "Fake 9000" {
		t.Errorf("runs %s on %q", s.Target(), s.Device())
	}
	if len(d.parts) != 2 || d.parts[0].Text != "first text" || d.parts[1].Text != "second text" || d.parts[0].Binary != nil || d.target != "sm_80" {
		t.Errorf("the code for %s is %q", d.target, d.parts)
	}
	p := program(t, m, "forward")
	y := output(t, p, "y") // held over all runs
	for range 3 {
		p.Run()
		checkForward(t, p, stored(t, m, "a"))
	}
	if y[5] == 0 {
		t.Error("a view of an output that was taken before the run has not changed")
	}
	if !slices.Equal(d.entries[:3], []string{"times", "plus", "square"}) {
		t.Errorf("entries ran in the order %v", d.entries)
	}
}

func TestStoredTensorsAreCopiedWhenOneSideAsks(t *testing.T) {
	d, m := far(t, Options{})
	forward, update, train := program(t, m, "forward"), program(t, m, "update"), program(t, m, "train")
	moved := func(what string, up, down int64) {
		t.Helper()
		if d.up != up || d.down != down {
			t.Errorf("%s: %d bytes went up and %d down, want %d and %d", what, d.up, d.down, up, down)
		}
		d.up, d.down = 0, 0
	}
	moved("before a run", 0, 0)
	forward.Run()
	moved("the first run", 2*farBytes, 4*farBytes) // x and a; z, y, a, rows
	forward.Run()
	moved("the second run", farBytes, 4*farBytes)
	train.Run() // changes m, which was zero on both sides
	moved("a program that changes a large tensor", 0, 0)
	update.Run()
	moved("a program that changes a small tensor", 4+4, 4)
	if n := stored(t, m, "n"); n[0] != 10+1./64 {
		t.Errorf("the counter is %v", n[0])
	}
	moved("a look at the small tensor", 0, 4)
	update.Run() // the host may have written n
	moved("a program after the look", 4+4, 4)
	if err := m.CheckFinite(); err != nil {
		t.Error(err)
	}
	moved("a check of all", 0, 64+farBytes) // n and m, in one piece
	if err := m.CheckFinite(); err != nil {
		t.Error(err)
	}
	update.Run()
	moved("a second check, and a program after checks that write nothing", 4, 4)
	if a, s := stored(t, m, "a"), stored(t, m, "m"); s[3] != a[3]*a[3] {
		t.Errorf("m is %v, want %v", s[3], a[3]*a[3])
	}
	moved("a second look", 0, 0)
}

func TestHostWritesReachTheDevice(t *testing.T) {
	_, m := far(t, Options{})
	forward, update := program(t, m, "forward"), program(t, m, "update")
	forward.Run()
	a := stored(t, m, "a")
	for i := range a {
		a[i] = float32(i)
	}
	forward.Run()
	checkForward(t, forward, a)

	update.Run()
	x, err := m.Tensor("n")
	if err != nil {
		t.Fatal(err)
	}
	x.set(0, 100)
	update.Run()
	if n := x.Float64s(); n[0] != 100+1./64 { // the same Tensor, after another run
		t.Errorf("the counter is %v", n[0])
	}
	for _, g := range m.Globals() {
		if g.Name == "n" {
			copy(g.Data, []byte{0, 0, 0, 0})
		}
	}
	update.Run()
	if n := output(t, update, "n"); n[0] != 1./64 {
		t.Errorf("the counter, zeroed by way of Globals, is %v", n[0])
	}

	before := slices.Clone(stored(t, m, "a"))
	if err := m.Init(7); err != nil {
		t.Fatal(err)
	}
	if now := stored(t, m, "a"); slices.Equal(before, now) {
		t.Error("Init leaves what the host wrote")
	}
	update.Run()
	if n := output(t, update, "n"); n[0] != 10+1./64 {
		t.Errorf("the counter, after Init, is %v", n[0])
	}
}

func TestInitAsksTheDeviceForNothing(t *testing.T) {
	d, m := far(t, Options{})
	train := program(t, m, "train")
	train.Run()
	d.down = 0
	if err := m.Init(9); err != nil || d.down != 0 {
		t.Errorf("%d bytes came down (%v)", d.down, err)
	}
	if s := stored(t, m, "m"); slices.Max(s) != 0 {
		t.Error("a moment is not zero after Init")
	}
	train.Run()
	if a, s := stored(t, m, "a"), stored(t, m, "m"); s[3] != a[3]*a[3] {
		t.Errorf("m is %v, want %v", s[3], a[3]*a[3])
	}
}

func TestSelectMovesWhatItSelects(t *testing.T) {
	d, m := far(t, Options{})
	train, update := program(t, m, "train"), program(t, m, "update")
	train.Run()
	update.Run()
	d.up, d.down = 0, 0
	small := m.Select(func(g *Global) bool { return g.Role == RoleState })
	if len(small) != 1 || d.down != 4 {
		t.Fatalf("%d tensors, %d bytes came down", len(small), d.down)
	}
	copy(small[0].Data, []byte{0, 0, 0, 0})
	train.Run()
	update.Run()
	if n := output(t, update, "n"); n[0] != 1./64 || d.up != 4+4 {
		t.Errorf("the counter is %v, %d bytes went up", n[0], d.up)
	}
}

func TestNeighboursAreOneCopy(t *testing.T) {
	d, m := far(t, Options{})
	program(t, m, "train").Run()
	program(t, m, "update").Run()
	d.downs = 0
	m.Globals() // n and m lie side by side and have changed, a has not
	if d.downs != 1 {
		t.Errorf("%d copies", d.downs)
	}
}

func TestBinariesComeWithTheirTexts(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte("1\x00code2")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for _, binaries := range [][]byte{packed.Bytes(), []byte("1\x00code2")} {
		d := newFake()
		d.use()
		spec := farSpec(t)
		spec.Objects[0].Binaries, spec.Objects[0].Lengths = binaries, []int{3, 4}
		s, err := Open(spec, Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		if len(d.parts) != 2 || d.parts[1].Text != "second text" || string(d.parts[0].Binary) != "1\x00c" || string(d.parts[1].Binary) != "ode2" {
			t.Errorf("the code is %q", d.parts)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestProgramsAreRecordedOnceAndReplayed(t *testing.T) {
	d, m := far(t, Options{})
	p, none := program(t, m, "forward"), program(t, m, "nothing")
	for range 3 {
		p.Run()
		none.Run()
	}
	if d.records != 1 || d.replays != 3 || d.runs != 0 {
		t.Errorf("%d records, %d replays, %d single calls", d.records, d.replays, d.runs)
	}
}

func TestLaunchesCanBeSingle(t *testing.T) {
	for _, how := range []string{"single", "wait"} {
		t.Setenv("GOUACHE_LAUNCH", how)
		d, m := far(t, Options{})
		p := program(t, m, "forward")
		p.Run()
		checkForward(t, p, stored(t, m, "a"))
		if d.records != 0 || d.runs != 3 {
			t.Errorf("%s: %d records, %d single calls", how, d.records, d.runs)
		}
	}
	t.Setenv("GOUACHE_LAUNCH", "wait")
	d, m := far(t, Options{})
	d.fail = "plus"
	p := program(t, m, "forward")
	p.Run()
	want := "far.m.forward: launch 0, axpy: %y = axpy (block0) far.go:3: fake: something burnt out"
	if _, err := p.OutputF32("z"); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	t.Setenv("GOUACHE_LAUNCH", "often")
	if _, err := Open(farSpec(t), Options{}); err == nil || err.Error() != `exec: GOUACHE_LAUNCH="often" is not known; set graph, chain, single or wait` {
		t.Errorf("got %v", err)
	}
}

// Work memory is as large as the programs in use need; when it grows, it moves.
func TestWorkMemoryGrowsWithTheProgramsAskedFor(t *testing.T) {
	d, m := far(t, Options{})
	if len(d.memory) != 0 {
		t.Errorf("%d allocations before a program runs", len(d.memory))
	}
	size := func() (n int) {
		for _, b := range d.memory {
			n += len(b)
		}
		return n - 2*farBytes - 128
	}
	update := program(t, m, "update")
	update.Run()
	if size() != 64 {
		t.Errorf("%d bytes of work memory for a program of 64", size())
	}
	forward := program(t, m, "forward")
	update.Run()
	forward.Run()
	log := program(t, m, "log")
	log.Run()
	forward.Run()
	update.Run()
	checkForward(t, forward, stored(t, m, "a"))
	if n := output(t, update, "n"); n[0] != 10+3./64 {
		t.Errorf("the counter is %v", n[0])
	}
	if size() != 5*farBytes || len(d.memory) != 2 {
		t.Errorf("%d bytes of work memory, %d allocations", size(), len(d.memory))
	}
	if state, work := m.Bytes(); state != 2*farBytes+128 || work != 5*farBytes {
		t.Errorf("the model says it takes %d and %d", state, work)
	}
}

func TestDeviceTimesAreProfiled(t *testing.T) {
	_, m := far(t, Options{Profile: true})
	p := program(t, m, "forward")
	profile := m.sys.Profile()
	profile.Reset()
	for range 3 {
		p.Run()
		profile.Step()
	}
	checkForward(t, p, stored(t, m, "a"))
	l := p.Profile()
	if len(l) != 2 || l[0].Kernel != "axpy" || l[0].Count != 3 || l[0].Total != 6*time.Microsecond || l[0].Busy != l[0].Total || l[1].Total != 3*time.Microsecond {
		t.Errorf("%+v", l)
	}
	var text, trace strings.Builder
	if err := profile.WriteText(&text, 10); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"far: 3 steps of ", "on Fake 9000 (sm_80)", "forward: kernels", "forward: copies, and starting kernels", "far.m.forward: 3 runs of 2 launches"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
	if strings.Contains(text.String(), "threads") {
		t.Errorf("threads are no matter on a device:\n%s", &text)
	}
	if err := profile.WriteTrace(&trace); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"name":"axpy"`, `"name":"block0"`, `"name":"far.m.forward"`} {
		if !strings.Contains(trace.String(), want) {
			t.Errorf("no %s in\n%s", want, &trace)
		}
	}
	if p.FLOPs() != 3*farElems {
		t.Errorf("%d FLOPs", p.FLOPs())
	}
}

func TestTraceLooksIntoTheDevice(t *testing.T) {
	_, m := far(t, Options{})
	p, log := program(t, m, "forward"), program(t, m, "log")
	p.Run()
	if c := p.Trace(); c != nil {
		t.Errorf("a finite run has a culprit: %v", c)
	}
	checkForward(t, p, stored(t, m, "a"))
	stored(t, m, "a")[3] = float32(math.Inf(1))
	want := "far.go:3: axpy in block0 (%y = axpy) wrote +Inf as element 3 of its f32 result"
	if c := p.Trace(); c == nil || c.String() != want {
		t.Errorf("got  %v\nwant %s", c, want)
	}
	xv, err := log.InputF32("x")
	f32(t, xv, err)[8] = -1
	log.Run()
	if c := log.Trace(); c == nil || c.Kernel != "log" || c.Elem != 8 || !math.IsNaN(c.Value) {
		t.Errorf("got %v", c)
	}
	if err := log.CheckFinite(); err == nil || !strings.Contains(err.Error(), "far.m.log: output y f32[1024]: element 8 is NaN") {
		t.Errorf("got %v", err)
	}
}

func TestDeviceFailuresStayWithTheModel(t *testing.T) {
	for what, want := range map[string]string{
		"plus":  "far.m.forward: fake: something burnt out; GOUACHE_LAUNCH=wait says in which launch",
		"alloc": "far.m.forward: 0.0 GiB of stored tensors: fake: something burnt out",
	} {
		d, m := far(t, Options{})
		d.fail = what
		p := program(t, m, "forward")
		x, err := m.Tensor("a")
		if err != nil {
			t.Fatal(err)
		}
		p.Run()
		d.fail = ""
		p.Run() // does nothing
		_, e1 := p.OutputF32("z")
		_, e2 := m.F32("a")
		_, e3 := x.F32()
		_, e4 := p.Outputs()[0].F32()
		for _, err := range []error{e1, e2, e3, e4, p.CheckFinite(), m.CheckFinite(), m.Init(1)} {
			if err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		}
		// What can't return an error has nothing that could be taken for a result.
		if v := p.Outputs()[0].Float64s(); !math.IsNaN(v[0]) || p.Outputs()[0].NonFinite() != 0 {
			t.Error("an output looks like a result")
		}
		for i, g := range m.Globals() {
			if g.Data != nil || m.globals[i].Data == nil {
				t.Errorf("%s can be saved", g.Name)
			}
		}
		if g := m.Select(func(*Global) bool { return true }); g[0].Data != nil {
			t.Errorf("%s can be saved", g[0].Name)
		}
		if c := p.Trace(); c != nil {
			t.Errorf("got %v", c)
		}
		// A new model starts anew.
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		n, err := m.sys.Model("m")
		if err != nil {
			t.Fatal(err)
		}
		q := program(t, n, "forward")
		q.Run()
		checkForward(t, q, stored(t, n, "a"))
	}
}

func TestClosedModelsOnADeviceSaySo(t *testing.T) {
	_, m := far(t, Options{})
	p := program(t, m, "forward")
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	p.Run()
	if _, err := m.F32("a"); err == nil || err.Error() != "far.m: it is closed; ask the system for it again" {
		t.Errorf("got %v", err)
	}
}

func TestProgramsLargerThanTheDeviceAreRefused(t *testing.T) {
	d, m := far(t, Options{})
	d.bytes = 4096
	want := "far.m.forward: it needs 0.0 GiB of memory (0.0 GiB stored tensors, 0.0 GiB work), Fake 9000 has 0.0 GiB; choose a smaller system or batch"
	if _, err := m.Program("forward"); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestDevicesThatAreMissingAreErrors(t *testing.T) {
	for want, spoil := range map[string]func(s *Spec){
		"far: kernels are for a tpu device, and no package that drives one is linked in; import runtime/device/tpu": func(s *Spec) { s.Objects[0].Device = "tpu" },
		"far: fake: runs sm_80 alone, kernels are compiled for sm_90a":                                              func(s *Spec) { s.Objects[0].Target = "sm_90a" },
		"far: internal: kernels for sm_80: there are entries of 3 kernels, and 4 kernels; regenerate the package":   func(s *Spec) { s.Objects[0].Entries = s.Objects[0].Entries[:3] },
		"far: internal: kernels for sm_80: kernel tick: entry tick takes buffer 2 of 2; regenerate the package":     func(s *Spec) { s.Objects[0].Entries[2][0].Args[1] = 2 },
		"far: internal: kernels for sm_80: kernel axpy: entry times maps buffer -1 of 3; regenerate the package":    func(s *Spec) { s.Objects[0].Entries[0][0].Maps[0].Arg = -1 },
		"far: kernels for sm_80: damaged: unexpected EOF; regenerate the package":                                   func(s *Spec) { s.Objects[0].Code = s.Objects[0].Code[:20] },
		"far: internal: kernels for sm_80: kernel tick: sizes of 1 buffers, it has 2; regenerate the package":       func(s *Spec) { s.Kernels[2].Sizes = []int{4} },
		"far: internal: kernels for sm_80: kernel log has no entry; regenerate the package":                         func(s *Spec) { s.Objects[0].Entries[3] = nil },
		"far: kernels for sm_80: damaged: 2 texts, and binaries of [4] bytes in 4; regenerate the package": func(s *Spec) {
			s.Objects[0].Binaries, s.Objects[0].Lengths = []byte("code"), []int{4}
		},
		"far: kernels for sm_80: damaged: 2 texts, and binaries of [2 3] bytes in 4; regenerate the package": func(s *Spec) {
			s.Objects[0].Binaries, s.Objects[0].Lengths = []byte("code"), []int{2, 3}
		},
		"far: kernels for sm_80: damaged: 2 texts, and binaries of [5 -1] bytes in 4; regenerate the package": func(s *Spec) {
			s.Objects[0].Binaries, s.Objects[0].Lengths = []byte("code"), []int{5, -1}
		},
	} {
		newFake().use()
		s := farSpec(t)
		spoil(s)
		if _, err := Open(s, Options{}); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	RegisterDevice("fake", func() (Device, error) { return nil, errFake })
	if _, err := Open(farSpec(t), Options{}); err == nil || err.Error() != "far: fake: something burnt out" {
		t.Errorf("got %v", err)
	}
	newFake().use()
	if _, err := Open(farSpec(t), Options{Target: "x86-64-v3"}); err == nil || err.Error() != `far: target "x86-64-v3": kernels are compiled for sm_80` {
		t.Errorf("got %v", err)
	}
}

func TestTensorsOutsideADevicesMemoryAreRefused(t *testing.T) {
	for want, spoil := range map[string]func(p *ProgramSpec){
		"far.m: internal: x f32[1024] of forward does not fit its memory; regenerate the package":                    func(p *ProgramSpec) { p.WorkBytes = 64 },
		"far.m: internal: launch 1 of forward: byte 1048576 lies outside its arena of 12288; regenerate the package": func(p *ProgramSpec) { p.Launches[1].Args[0] = 1 << 20 },
	} {
		d := newFake()
		d.use()
		spec := farSpec(t)
		spoil(&spec.Models[0].Programs[0])
		s, err := Open(spec, Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Model("m"); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
