package cuda

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/gouache-ml/gouache/runtime/exec"
)

// text is PTX as far as the stub reads it: entries with so many tensor maps and addresses.
func text(entries ...string) string {
	var b strings.Builder
	for _, e := range entries {
		var name string
		var maps, args int
		if _, err := fmt.Sscan(e, &name, &maps, &args); err != nil {
			panic(err)
		}
		var params []string
		for i := range maps {
			params = append(params, fmt.Sprintf(".param .align 64 .b8 m%d[128]", i))
		}
		for i := range args {
			params = append(params, fmt.Sprintf(".param .u64 p%d", i))
		}
		fmt.Fprintf(&b, ".visible .entry %s(%s) { ret; }\n", name, strings.Join(params, ", "))
	}
	return b.String()
}

func parts(texts ...string) []exec.Part {
	var out []exec.Part
	for _, text := range texts {
		out = append(out, exec.Part{Text: text})
	}
	return out
}

func load(t *testing.T, d *Device, texts ...string) *Code {
	t.Helper()
	c, err := d.Load("sm_80", parts(texts...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c.(*Code)
}

func prepare(t *testing.T, c *Code, e exec.Entry, buffers ...uint64) exec.Call {
	t.Helper()
	x, err := c.Prepare(&e, buffers)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func alloc(t *testing.T, d *Device, n int64) uint64 {
	t.Helper()
	a, err := d.Alloc(n, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Free(a); err != nil {
			t.Error(err)
		}
	})
	return a
}

func entry(name string, args ...int) exec.Entry {
	return exec.Entry{Name: name, Grid: [3]int{1, 1, 1}, Block: 64, Args: args}
}

func try(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// floats are 64 numbers in the device's memory.
func floats(t *testing.T, d *Device, addr uint64) []float32 {
	t.Helper()
	b := make([]byte, 256)
	try(t, d.Download(b, addr), d.Wait())
	return unsafe.Slice((*float32)(unsafe.Pointer(&b[0])), 64)
}

func TestMissingLibraryIsOneLine(t *testing.T) {
	t.Setenv("GOUACHE_LIBCUDA", "libcuda-of-nobody.so.1")
	_, err := Open()
	if err == nil || err.Error() != "cuda: libcuda-of-nobody.so.1: not found; install NVIDIA's driver, or choose a processor target" {
		t.Errorf("got %v", err)
	}
	t.Setenv("GOUACHE_LIBCUDA", "testdata/libcuda.c")
	if _, err := Open(); err == nil || !strings.HasPrefix(err.Error(), "cuda: testdata/libcuda.c: ") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}

func TestNoDeviceIsOneLine(t *testing.T) {
	s := useStub(t)
	const want = "cuda: no GPU: the driver finds none; see what nvidia-smi says, or choose a processor target"
	s.fail("cuInit", 100)
	if _, err := Open(); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	s.reset()
	s.devices(0)
	if _, err := Open(); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestOldDriversAreNamed(t *testing.T) {
	s := useStub(t, "-DOLD", "-DcuGraphLaunch=cuGraphGone")
	if _, err := Open(); err == nil || !strings.HasSuffix(err.Error(), ": it has no function cuGraphLaunch; install a newer driver, of CUDA 11.4 or later") {
		t.Errorf("got %v", err)
	}
	s = useStub(t, "-DOLD")
	d := s.device(t)
	c := load(t, d, text("twice 0 1"))
	a := alloc(t, d, 256)
	try(t, d.Run([]exec.Call{prepare(t, c, entry("twice", 0), a)}))
	e := entry("twice", 0)
	e.Cluster = 1
	prepare(t, c, e, a)
	e.Grid[0], e.Cluster = 2, 2
	if _, err := c.Prepare(&e, []uint64{a}); err == nil || !strings.HasSuffix(err.Error(), ": entry twice wants clusters; install a newer driver, of CUDA 11.8 or later") {
		t.Errorf("got %v", err)
	}
	e = entry("twice", 0)
	e.Maps = []exec.TensorMap{{DType: exec.F16, Dims: []int{64}, Box: []int{64}}}
	if _, err := c.Prepare(&e, []uint64{a}); err == nil || !strings.Contains(err.Error(), ": it has no tensor maps; install a newer driver, of CUDA 12.0 or later") {
		t.Errorf("got %v", err)
	}
}

func TestDriverErrorsSayWhatWasDone(t *testing.T) {
	s := useStub(t)
	s.fail("cuDevicePrimaryCtxRetain", 700)
	if _, err := Open(); err == nil || err.Error() != "cuda: opening Stub H100: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered" {
		t.Errorf("got %v", err)
	}
	s.fail("cuDeviceGetCount", 12345)
	if _, err := Open(); err == nil || err.Error() != "cuda: counting GPUs: error 12345, which the driver does not explain" {
		t.Errorf("got %v", err)
	}
	s.reset()
	d := s.device(t)
	s.fail("cuMemAlloc_v2", 2)
	_, err := d.Alloc(4096, true)
	if err == nil || err.Error() != "cuda: taking 4096 bytes of memory: CUDA_ERROR_OUT_OF_MEMORY: out of memory; 60.0 of 80.0 GiB are free: end what else uses the GPU, or choose a smaller system or batch" {
		t.Errorf("got %v", err)
	}
	var e *Error
	if !errors.As(err, &e) || e.Code != 2 {
		t.Errorf("the code is not in %v", err)
	}
	s.fail("cuMemHostAlloc", 1)
	if _, err := d.Pin(64); err == nil || err.Error() != "cuda: pinning 64 bytes of host memory: CUDA_ERROR_INVALID_VALUE: invalid argument" {
		t.Errorf("got %v", err)
	}
	s.fail("cuMemsetD8Async", 1)
	if _, err := d.Alloc(64, true); err == nil || err.Error() != "cuda: clearing memory: CUDA_ERROR_INVALID_VALUE: invalid argument" {
		t.Errorf("got %v", err)
	}
}

func TestDeviceDescribesItself(t *testing.T) {
	d := useStub(t).device(t)
	major, minor := d.Capability()
	free, err := d.FreeMemory()
	v, err2 := d.Version()
	if d.Name() != "Stub H100" || major != 9 || minor != 0 || d.Memory() != 80<<30 || free != 60<<30 || d.Multiprocessors() != 132 || v != 12040 || err != nil || err2 != nil {
		t.Errorf("%s, capability %d.%d, %d bytes, %d free, %d multiprocessors, CUDA %d (%v, %v)", d.Name(), major, minor, d.Memory(), free, d.Multiprocessors(), v, err, err2)
	}
}

func TestBestTargetIsTheHighestThatRuns(t *testing.T) {
	for _, c := range []struct {
		major, minor int
		targets      string
		want         string
	}{
		{9, 0, "sm_70 sm_80 sm_90a", "sm_90a"},
		{9, 0, "sm_90a sm_90", "sm_90a"},
		{9, 0, "sm_70 sm_80", "sm_80"},
		{10, 0, "sm_90a sm_80 sm_70", "sm_80"},
		{8, 6, "sm_90a sm_80", "sm_80"},
		{7, 5, "sm_70 sm_80", "sm_70"},
		{8, 0, "sm_90a", ""},
		{6, 1, "sm_70 sm_80", ""},
	} {
		d := &Device{major: c.major, minor: c.minor, name: "X"}
		got, err := d.Best(strings.Fields(c.targets))
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("capability %d.%d of %s: %q, %v", c.major, c.minor, c.targets, got, err)
		}
		if want := fmt.Sprintf("cuda: kernels are compiled for %s, which X (compute capability %d.%d) does not run; compile with -target sm_80, or sm_70 for older ones",
			strings.ReplaceAll(c.targets, " ", ", "), c.major, c.minor); err != nil && err.Error() != want {
			t.Errorf("got %v", err)
		}
	}
	if _, err := (&Device{}).Best([]string{"x86-64-v3"}); err == nil {
		t.Error("a processor's target is taken for a GPU's")
	}
}

func TestAssemblersLogIsInTheError(t *testing.T) {
	d := useStub(t).device(t)
	_, err := d.Load("sm_90a", parts(text("twice 0 1"), "badly written"))
	want := "cuda: assembling text 2 of 2 of PTX: CUDA_ERROR_INVALID_PTX: a PTX JIT compilation failed: ptxas application ptx input, line 7; error : Unknown symbol 'badly'; ptxas fatal : Ptx assembly aborted due to errors"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if got := firstLines(strings.Repeat("line\n\n", 99)); got != "line; line; line; line; line; line; and more" {
		t.Errorf("a long log becomes %q", got)
	}
}

func TestMemoryIsClearedAndCopied(t *testing.T) {
	d := useStub(t).device(t)
	a := alloc(t, d, 1000)
	got := make([]byte, 1000)
	try(t, d.Download(got, a), d.Wait())
	if !bytes.Equal(got, make([]byte, 1000)) {
		t.Error("new memory is not zero")
	}
	p, err := d.Pin(1000)
	if err != nil || len(p) != 1000 || !bytes.Equal(p, make([]byte, 1000)) {
		t.Fatalf("pinned memory is not zero, or not as long (%v)", err)
	}
	for i := range p {
		p[i] = byte(i)
	}
	try(t, d.Upload(a, p), d.Upload(a+10, p[:0]), d.Download(got[10:], a), d.Download(got[:0], a))
	if err := d.Wait(); err != nil || !bytes.Equal(got[10:], p[:990]) {
		t.Errorf("what comes back is another (%v)", err)
	}
	if err := d.Upload(0, p); err == nil {
		t.Error("a copy to no address succeeds")
	}
	try(t, d.Unpin(p))
}

func TestLaunchesArriveAsTheABISays(t *testing.T) {
	s := useStub(t)
	d := s.device(t)
	c := load(t, d, text("one 0 0", "maps 2 3"), text("clustered 1 1"))
	a, b := alloc(t, d, 4096), alloc(t, d, 4096)
	m := func(arg, rank int) exec.TensorMap {
		return exec.TensorMap{Arg: arg, Offset: 32, DType: exec.BF16, Dims: []int{64, 100, 7}[:rank], Strides: []int64{128, 12800}[:rank-1], Box: []int{64, 32, 1}[:rank], Swizzle: 128}
	}
	try(t, d.Run([]exec.Call{
		prepare(t, c, exec.Entry{Name: "one", Grid: [3]int{1, 2, 3}, Block: 1024}),
		prepare(t, c, exec.Entry{Name: "maps", Grid: [3]int{70000, 65535, 4}, Block: 96, Shared: 48 << 10, Maps: []exec.TensorMap{m(1, 3), m(0, 1)}, Args: []int{1, 0, 1}}, a, b),
		prepare(t, c, exec.Entry{Name: "clustered", Grid: [3]int{8, 2, 1}, Block: 384, Shared: 200 << 10, Cluster: 2, Maps: []exec.TensorMap{m(0, 2)}, Args: []int{0}}, a),
	}), d.Wait())
	want := []string{
		"launch one grid 1 2 3 block 1024 shared 0 cluster 0",
		fmt.Sprintf("launch maps grid 70000 65535 4 block 96 shared 49152 cluster 0 map 0x43 map 0x41 %#x %#x %#x", b, a, b),
		fmt.Sprintf("launch clustered grid 8 2 1 block 384 shared 204800 cluster 2 map 0x42 %#x", a),
	}
	if got := s.lines("launch"); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	want = []string{
		"map type 9 rank 3 offset 32 dim 64 dim 100 dim 7 stride 128 stride 12800 box 64 step 1 box 32 step 1 box 1 step 1 interleave 0 swizzle 3 promotion 3 fill 0",
		"map type 9 rank 1 offset 32 dim 64 box 64 step 1 interleave 0 swizzle 3 promotion 3 fill 0",
		"map type 9 rank 2 offset 32 dim 64 dim 100 stride 128 box 64 step 1 box 32 step 1 interleave 0 swizzle 3 promotion 3 fill 0",
	}
	if got := s.lines("map"); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := s.lines("set"); !slices.Equal(got, []string{"set clustered 8 204800"}) {
		t.Errorf("attributes set: %q", got)
	}
}

func TestStructsAreThoseOfTheDriver(t *testing.T) {
	var c launchConfig
	var a launchAttribute
	if unsafe.Sizeof(c) != 56 || unsafe.Offsetof(c.stream) != 32 || unsafe.Offsetof(c.attributes) != 40 || unsafe.Offsetof(c.numAttributes) != 48 {
		t.Error("CUlaunchConfig is laid out differently")
	}
	if unsafe.Sizeof(a) != 72 || unsafe.Offsetof(a.x) != 8 {
		t.Error("CUlaunchAttribute is laid out differently")
	}
}

func TestSharedMemoryIsAskedForOnce(t *testing.T) {
	s := useStub(t)
	d := s.device(t)
	c := load(t, d, text("plain 0 0", "with_static 0 0", "large 0 0"))
	for _, shared := range []int{0, 48 << 10, 48<<10 + 16, 64 << 10, 48<<10 + 16, 64 << 10} {
		for _, name := range []string{"plain", "with_static"} {
			prepare(t, c, exec.Entry{Name: name, Grid: [3]int{1, 1, 1}, Block: 1, Shared: shared})
		}
	}
	prepare(t, c, exec.Entry{Name: "large", Grid: [3]int{32, 1, 1}, Block: 1, Cluster: 16})
	prepare(t, c, exec.Entry{Name: "large", Grid: [3]int{32, 1, 1}, Block: 1, Cluster: 16})
	want := []string{"set with_static 8 49152", "set plain 8 49168", "set with_static 8 49168", "set plain 8 65536", "set with_static 8 65536", "set large 14 1"}
	if got := s.lines("set"); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if got := s.lines("loaded"); len(got) != 3 {
		t.Errorf("functions are loaded more or less than once: %q", got)
	}
	if r, local, shared, err := c.Attributes("with_static"); r != 168 || local != 8 || shared != 16384 || err != nil {
		t.Errorf("%d registers, %d bytes of local and %d of shared memory (%v)", r, local, shared, err)
	}
}

func TestImpossibleEntriesAreRefused(t *testing.T) {
	d := useStub(t).device(t)
	c := load(t, d, text("twice 0 1"))
	for want, spoil := range map[string]func(e *exec.Entry){
		"cuda: entry thrice is not in the code":                                       func(e *exec.Entry) { e.Name = "thrice" },
		"cuda: entry twice: a grid of [1 65536 1] blocks is not possible":             func(e *exec.Entry) { e.Grid[1] = 65536 },
		"cuda: entry twice: a grid of [0 1 1] blocks is not possible":                 func(e *exec.Entry) { e.Grid[0] = 0 },
		"cuda: entry twice: a block of 2048 threads is not possible":                  func(e *exec.Entry) { e.Block = 2048 },
		"cuda: entry twice: 999999 bytes of shared memory are not possible":           func(e *exec.Entry) { e.Shared = 999999 },
		"cuda: entry twice: a grid of [1 1 1] blocks can't be cut into clusters of 2": func(e *exec.Entry) { e.Cluster = 2 },
		"cuda: entry twice: it takes buffer 1 of 1":                                   func(e *exec.Entry) { e.Args = []int{1} },
		"cuda: entry twice: it maps buffer 3 of 1":                                    func(e *exec.Entry) { e.Maps = []exec.TensorMap{{Arg: 3}} },
		"cuda: a map of f16, dimensions [64 64], strides [], box [64], swizzle 48 is not possible, tensor map 0 of twice": func(e *exec.Entry) {
			e.Maps = []exec.TensorMap{{DType: exec.F16, Dims: []int{64, 64}, Box: []int{64}, Swizzle: 48}}
		},
	} {
		e := entry("twice", 0)
		spoil(&e)
		if _, err := c.Prepare(&e, []uint64{1 << 62}); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestGraphsReplayTheirCalls(t *testing.T) {
	s := useStub(t)
	d := s.device(t)
	c := load(t, d, text("plus_one 0 2"), text("twice 0 1"))
	a, b := alloc(t, d, 256), alloc(t, d, 256)
	calls := []exec.Call{prepare(t, c, entry("plus_one", 0, 1), a, b), prepare(t, c, entry("plus_one", 0, 1), b, a), prepare(t, c, entry("twice", 0), a)}
	r, err := d.Record(calls, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := floats(t, d, a)[5]; got != 0 {
		t.Errorf("recording runs kernels: %v", got)
	}
	clear(calls)                                // the graph has its own
	for _, want := range []float32{4, 12, 28} { // x -> 2(x+2)
		try(t, r.Replay())
		if got := floats(t, d, a)[5]; got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	try(t, r.Close(), r.Close())
	if got := s.lines("graph"); !slices.Equal(got, []string{"graph of 3"}) {
		t.Errorf("got %q", got)
	}
	// A capture that fails must leave the stream usable.
	calls = []exec.Call{prepare(t, c, entry("twice", 0), a)}
	for _, name := range []string{"cuStreamUpdateCaptureDependencies", "cuLaunchKernel", "cuStreamGetCaptureInfo_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"} {
		s.fail(name, 1)
		if _, err := d.Record(calls, [][]int{nil}); err == nil || !strings.Contains(err.Error(), "CUDA_ERROR_INVALID_VALUE") {
			t.Errorf("%s: got %v", name, err)
		}
		s.reset()
		if got := floats(t, d, a)[5]; got != 28 {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// The stub replays the last call first where dependencies allow that.
func TestGraphsKeepToTheirDependencies(t *testing.T) {
	for _, flags := range [][]string{nil, {"-DOLD"}} {
		s := useStub(t, flags...)
		d := s.device(t)
		c := load(t, d, text("plus_one 0 2", "twice 0 1", "clustered 0 0"))
		w, x, y := alloc(t, d, 256), alloc(t, d, 256), alloc(t, d, 256)
		clustered := exec.Entry{Name: "clustered", Grid: [3]int{2, 1, 1}, Block: 64, Cluster: 2}
		calls := []exec.Call{prepare(t, c, entry("plus_one", 0, 1), w, x), prepare(t, c, entry("plus_one", 0, 1), w, y), prepare(t, c, entry("twice", 0), x), prepare(t, c, entry("twice", 0), y)}
		after := [][]int{nil, nil, {0}, {1}}
		if flags == nil { // clusters go another way
			calls, after = append(calls, prepare(t, c, clustered)), append(after, []int{2, 3})
			calls, after = append(calls, prepare(t, c, entry("twice", 0), x)), append(after, []int{4})
		}
		r, err := d.Record(calls, after)
		if err != nil {
			t.Fatal(err)
		}
		try(t, r.Replay())
		want, runs := []string{"node 0 plus_one after", "node 1 plus_one after", "node 2 twice after 0", "node 3 twice after 1", "node 4 clustered after 2 3", "node 5 twice after 4"},
			[]string{"run 1", "run 3", "run 0", "run 2", "run 4", "run 5"}
		value := float32(4)
		if flags != nil { // a driver that knows chains alone
			want, runs = []string{"node 0 plus_one after", "node 1 plus_one after 0", "node 2 twice after 1", "node 3 twice after 2"}, []string{"run 0", "run 1", "run 2", "run 3"}
			value = 2
		}
		if got := s.lines("node"); !slices.Equal(got, want) {
			t.Errorf("%q: got  %q\nwant %q", flags, got, want)
		}
		if got := s.lines("run"); !slices.Equal(got, runs) {
			t.Errorf("%q: got  %q\nwant %q", flags, got, runs)
		}
		if got := floats(t, d, x)[5]; got != value {
			t.Errorf("%q: got %v, want %v", flags, got, value)
		}
		if got := floats(t, d, y)[5]; got != 2 {
			t.Errorf("%q: got %v, want 2", flags, got)
		}
		try(t, r.Close())
	}
}

// cubin is what the stub takes for a binary: its magic number, the capability, and the text.
func cubin(capability int, text string) []byte {
	return append([]byte{0x7f, 'E', 'L', 'F', 0, byte(capability)}, text+"\x00"...)
}

func TestBinariesAreLoadedWhereTheyFit(t *testing.T) {
	ptx := text("twice 0 1")
	for _, c := range []struct {
		target string
		binary []byte
		loads  []string
		warns  string
	}{
		{"sm_90a", cubin(90, ptx), []string{"load binary for 90"}, ""},
		{"sm_90", cubin(90, ptx), []string{"load binary for 90"}, ""},
		{"sm_80", cubin(80, ptx), []string{"load text"}, ""}, // the GPU's capability is 9.0
		{"sm_90a", nil, []string{"load text"}, ""},
		{"sm_90a", cubin(100, ptx), []string{"load text"},
			"cuda: loading binary 1 of 1: CUDA_ERROR_NO_BINARY_FOR_GPU: no kernel image is available for execution on the device; the driver assembles PTX instead, which takes longer\n"},
	} {
		s := useStub(t)
		d := s.device(t)
		var warnings bytes.Buffer
		d.warnings = &warnings
		code, err := d.Load(c.target, []exec.Part{{Text: ptx, Binary: c.binary}})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.lines("load "); !slices.Equal(got, c.loads) {
			t.Errorf("%s, binary %q: got %q, want %q", c.target, c.binary, got, c.loads)
		}
		if warnings.String() != c.warns {
			t.Errorf("%s: got  %q\nwant %q", c.target, &warnings, c.warns)
		}
		a := alloc(t, d, 256)
		try(t, d.Run([]exec.Call{prepare(t, code.(*Code), entry("twice", 0), a)}), d.Wait(), code.Close())
	}
}

// One line tells of all that were refused; texts that fail, too, are the error.
func TestRefusedBinariesAreReportedOnce(t *testing.T) {
	d := useStub(t).device(t)
	var warnings bytes.Buffer
	d.warnings = &warnings
	old := cubin(100, "")
	code, err := d.Load("sm_90a", []exec.Part{
		{Text: text("one 0 0"), Binary: cubin(90, text("one 0 0"))}, {Text: text("two 0 0"), Binary: old}, {Text: text("three 0 0"), Binary: old}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"one", "two", "three"} {
		prepare(t, code.(*Code), entry(name))
	}
	try(t, code.Close())
	if n := strings.Count(warnings.String(), "\n"); n != 1 || !strings.HasPrefix(warnings.String(), "cuda: loading binary 2 of 3: ") {
		t.Errorf("%d lines: %q", n, &warnings)
	}
	if _, err := d.Load("sm_90a", []exec.Part{{Text: "bad", Binary: old}}); err == nil || !strings.Contains(err.Error(), "assembling text 1 of 1 of PTX: ") {
		t.Errorf("got %v", err)
	}
	if _, err := d.Load("x86-64-v3", nil); err == nil || err.Error() != `cuda: target "x86-64-v3" is no name of a GPU's, such as sm_80` {
		t.Errorf("got %v", err)
	}
}

func TestKernelFaultsShowInWait(t *testing.T) {
	s := useStub(t)
	d := s.device(t)
	c := load(t, d, text("fault 0 0"))
	t.Cleanup(s.reset)
	try(t, d.Run([]exec.Call{prepare(t, c, entry("fault"))}))
	if err := d.Wait(); err == nil || err.Error() != "cuda: running on the GPU: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered" {
		t.Errorf("got %v", err)
	}
	s.reset()
	s.fail("cuLaunchKernel", 1)
	if err := d.Run([]exec.Call{prepare(t, c, entry("fault"))}); err == nil || err.Error() != "cuda: starting fault, grid [1 1 1], 64 threads, 0 bytes of shared memory: CUDA_ERROR_INVALID_VALUE: invalid argument" {
		t.Errorf("got %v", err)
	}
}

func TestCallsAreTimed(t *testing.T) {
	d := useStub(t).device(t)
	c := load(t, d, text("twice 0 1"))
	a := alloc(t, d, 256)
	x := prepare(t, c, entry("twice", 0), a)
	ends := make([]time.Duration, 3)
	for range 2 { // the second time with events that are there
		try(t, d.Time([]exec.Call{x, x, x}, ends))
		if !slices.Equal(ends, []time.Duration{500 * time.Microsecond, time.Millisecond, 1500 * time.Microsecond}) {
			t.Errorf("got %v", ends)
		}
	}
	try(t, d.Time(nil, nil))
}

// The stub refuses calls on threads where the context is not current.
func TestContextFollowsGoroutines(t *testing.T) {
	d := useStub(t).device(t)
	a := alloc(t, d, 256)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			b := make([]byte, 256)
			if err := errors.Join(d.Download(b, a), d.Wait()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// exec on top of this package, down to the stub.
func TestProgramRunsOnTheDriver(t *testing.T) {
	for _, how := range []string{"graph", "chain", "single", "wait"} {
		s := useStub(t)
		t.Setenv("GOUACHE_LAUNCH", how)
		shape := []int{64}
		const w, b = exec.Work, exec.Addr(256)
		spec := &exec.Spec{
			Name:    "small",
			Kernels: []exec.Kernel{{Name: "plus_one", Args: 2, Chunks: 1, Changes: []int{1}, Sizes: []int{256, 256}}, {Name: "twice", Args: 1, Chunks: 1, Sizes: []int{256}}},
			Objects: []exec.Object{
				{Target: "sm_80", Device: "cuda", Code: []byte("bad"), Entries: make([][]exec.Entry, 2)},
				{Target: "sm_90a", Device: "cuda", Code: []byte(text("plus_one_k 0 2") + "\x00" + text("twice_k 0 1")), Entries: [][]exec.Entry{{entry("plus_one_k", 0, 1)}, {entry("twice_k", 0)}}},
			},
			Models: []exec.ModelSpec{{Name: "m", StateBytes: 256,
				Globals: []exec.GlobalSpec{{Name: "count", Role: exec.RoleState, DType: exec.F32, Shape: shape, Init: "const", Std: 3, Const: -1}},
				Programs: []exec.ProgramSpec{{Name: "p", WorkBytes: 512,
					Inputs:   []exec.TensorSpec{{Name: "x", DType: exec.F32, Shape: shape, Addr: w}},
					Outputs:  []exec.TensorSpec{{Name: "y", DType: exec.F32, Shape: shape, Addr: w + b}},
					Launches: []exec.Launch{{Args: []exec.Addr{w, w + b}}, {Args: []exec.Addr{exec.State}}},
					Run:      func(r *exec.Run) { r.Launch(0, 0); r.Launch(1, 1) }}}}},
		}
		sys, err := exec.Open(spec, exec.Options{Threads: 1})
		if err != nil {
			t.Fatal(err)
		}
		if sys.Target() != "sm_90a" || sys.Device() != "Stub H100" {
			t.Errorf("runs %s on %s", sys.Target(), sys.Device())
		}
		m, err := sys.Model("m")
		if err != nil {
			t.Fatal(err)
		}
		p, err := m.Program("p")
		if err != nil {
			t.Fatal(err)
		}
		x, err := p.InputF32("x")
		try(t, err)
		for i := range 3 {
			x[7] = float32(i)
			p.Run()
			y, err := p.OutputF32("y")
			if err != nil || y[7] != float32(i)+1 || y[0] != 1 {
				t.Errorf("%s: run %d gives %v, %v (%v)", how, i, y[7], y[0], err)
			}
		}
		if n, err := m.F32("count"); err != nil || n[9] != 24 {
			t.Errorf("%s: the stored tensor is %v (%v)", how, n[9], err)
		}
		if n := len(s.lines("replay")); (how == "graph" || how == "chain") && n != 3 || (how == "single" || how == "wait") && n != 0 {
			t.Errorf("%s: %d replays", how, n)
		}
		// The launches have no memory in common.
		nodes := map[string][]string{"graph": {"node 0 plus_one_k after", "node 1 twice_k after"}, "chain": {"node 0 plus_one_k after", "node 1 twice_k after 0"}}[how]
		if got := s.lines("node"); !slices.Equal(got, nodes) {
			t.Errorf("%s: got %q, want %q", how, got, nodes)
		}
		s.fail("cuMemcpyHtoDAsync_v2", 700)
		p.Run()
		s.reset()
		want := "small.m.p: cuda: copying 256 bytes to the GPU: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered"
		if _, err := p.OutputF32("y"); err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}
		try(t, sys.Close())
	}
	t.Setenv("GOUACHE_LIBCUDA", "libcuda-of-nobody.so.1")
	spec := &exec.Spec{Name: "small", Objects: []exec.Object{{Target: "sm_80", Device: "cuda"}}}
	if _, err := exec.Open(spec, exec.Options{}); err == nil || err.Error() != "small: cuda: libcuda-of-nobody.so.1: not found; install NVIDIA's driver, or choose a processor target" {
		t.Errorf("got %v", err)
	}
}
