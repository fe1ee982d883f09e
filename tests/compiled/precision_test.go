package compiled

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/models/system"
	"github.com/gouache-ml/gouache/runtime/exec"
)

// presets are the precisions that one small transformer is compiled with.
var presets = []string{"fp32", "bf16", "paper", "paper,scaling=none", "paper,scaling=loss", "paper,scale=exact", "paper,multiply=f16", "bf16,scaling=resblock"}

// compilePresets compiles it, wide enough that its weights have the paper's
// moments.
var compilePresets = sync.OnceValues(func() (*exec.Spec, error) {
	b := NewBatch("precision")
	for _, p := range presets {
		m, err := dalle.Build(dalle.Config{TextLen: 12, TextVocab: 30, GridW: 6, GridH: 6, ImageVocab: 40, Dim: 96, Heads: 3, Layers: 3, Kernel: 3, Batch: 4, SampleBatch: 2,
			Optimizer: nn.AdamW{Beta1: 0.9, Beta2: 0.98, Eps: 1e-8, Decay: 0.01, VarianceMax: 5}})
		if err != nil {
			return nil, err
		}
		m.Name = p
		m.Funcs = slices.DeleteFunc(m.Funcs, func(f *ir.Func) bool { return f.Name != "train" && f.Name != "average" })
		if err := system.SetPrecision([]*ir.Module{m}, p); err != nil {
			return nil, err
		}
		if err := b.Add(false, m); err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
	}
	return b.Compile()
})

// preset opens one of them, newly initialised.
func preset(t *testing.T, name string, threads int) *exec.Model {
	t.Helper()
	spec, err := compilePresets()
	if err != nil {
		t.Fatal(err)
	}
	m, err := open(t, spec, Targets()[0], threads).Model(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	return m
}

// step runs one update on batch n of four and returns the scalar results.
func step(t *testing.T, m *exec.Model, update, n int) map[string]float64 {
	t.Helper()
	p, err := m.Program("train")
	if err != nil {
		t.Fatal(err)
	}
	batch(t, p, update, n)
	p.Run()
	out := map[string]float64{}
	for i := range p.Outputs() {
		if y := &p.Outputs()[i]; y.Len() == 1 {
			out[y.Name] = y.Float64s()[0]
		}
	}
	return out
}

// batch fills in the inputs of an update.
func batch(t *testing.T, p *exec.Program, update, n int) {
	t.Helper()
	r := rand.New(rand.NewPCG(uint64(n), 7))
	for i := range p.Inputs() {
		x := &p.Inputs()[i]
		data := make([]float64, x.Len())
		for e := range data {
			switch x.Name {
			case "update":
				data[e] = float64(update)
			case "lr":
				data[e] = 5e-4
			case "text", "image":
				data[e] = float64(r.IntN(30))
			}
		}
		if err := Put(x, data); err != nil {
			t.Fatal(err)
		}
	}
}

// bytesOf copies the stored tensors that keep accepts.
func bytesOf(m *exec.Model, keep func(g *exec.Global) bool) []byte {
	var out []byte
	globals := m.Globals()
	for i := range globals {
		if keep(&globals[i]) {
			out = append(out, globals[i].Data...)
		}
	}
	return out
}

func learned(g *exec.Global) bool { return g.Role != exec.RoleState && g.Role != exec.RoleConst }
func all(*exec.Global) bool       { return true }

func TestPresetsLearnAlike(t *testing.T) {
	losses := map[string]float64{}
	for _, name := range presets {
		m := preset(t, name, 2)
		var last float64
		for i := range 60 {
			out := step(t, m, i+1, i%4)
			if out["skipped"] != 0 {
				t.Errorf("%s: update %d is skipped", name, i)
			}
			if i >= 56 {
				last += out["loss"] / 4
			}
		}
		losses[name] = last
	}
	want := losses["fp32"]
	for name, got := range losses {
		t.Logf("%s: loss %.6f, %+.2g of fp32's", name, got, got/want-1)
		const near = 1e-3 // 6.8e-4 where products multiply in f16, else 2.5e-4
		if !(math.Abs(got-want) <= near*want) {
			t.Errorf("%s: loss %v after 60 updates, fp32 has %v", name, got, want)
		}
	}
}

func TestPaperStoresWhatItSays(t *testing.T) {
	m := preset(t, "paper", 1)
	want := map[string]exec.DType{
		"layer0.attn.qkv.w": exec.F16, "layer0.attn.qkv.w.m": exec.E6M9, "layer0.attn.qkv.w.v": exec.UE6M10, "layer0.attn.qkv.w.avg": exec.F32,
		"layer0.attn.qkv.b": exec.F32, "layer0.mlp.norm.gain": exec.F32, "embed.token": exec.F32, "unembed.image.w": exec.F32, "unembed.image.w.m": exec.F32,
	}
	for _, g := range m.Globals() {
		if d, ok := want[g.Name]; ok && d != g.DType {
			t.Errorf("%s is %s, want %s", g.Name, g.DType, d)
		}
		delete(want, g.Name)
	}
	for name := range want {
		t.Errorf("there is no %s", name)
	}
}

func TestPresetsHaveTheSameBitsOnAnyNumberOfThreads(t *testing.T) {
	for _, name := range []string{"paper", "paper,multiply=f16", "bf16"} {
		var first []byte
		for _, threads := range []int{1, 2, 3} {
			m := preset(t, name, threads)
			for i := range 3 {
				step(t, m, i+1, i)
			}
			if got := bytesOf(m, all); first == nil {
				first = got
			} else if !bytes.Equal(got, first) {
				t.Errorf("%s: %d threads give other bits than 1", name, threads)
			}
		}
	}
}

// scales gives access to the scales of a model.
func scales(t *testing.T, m *exec.Model) (levels, clean []int32, applied []float32) {
	t.Helper()
	get := func(name string) *exec.Tensor {
		x, err := m.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	var err error
	for _, e := range []error{
		func() error { levels, err = get("scale.levels").I32(); return err }(),
		func() error { clean, err = get("scale.clean").I32(); return err }(),
		func() error { applied, err = get("scale.applied").F32(); return err }(),
	} {
		if e != nil {
			t.Fatal(e)
		}
	}
	return levels, clean, applied
}

// Where nothing over- or underflows, as in bf16 with its exponent of 8 bits,
// scales that are powers of two change no bit of what is learned.
func TestPowersOfTwoScaleGradientsExactly(t *testing.T) {
	var first []byte
	for _, exponent := range []int{0, 7, 13, 24} {
		m := preset(t, "bf16,scaling=resblock", 2)
		levels, _, applied := scales(t, m)
		for i := range applied {
			levels[i], applied[i] = int32(exponent*1000), float32(math.Ldexp(1, exponent+i%3))
		}
		step(t, m, 1, 0)
		if got := bytesOf(m, learned); first == nil {
			first = got
		} else if !bytes.Equal(got, first) {
			t.Errorf("scales of 2^%d give other bits than 1", exponent)
		}
	}
}

// What is not finite in one resblock lowers its scale alone, and the whole
// update is skipped.
func TestOneBlocksOverflowLowersItsScaleAlone(t *testing.T) {
	for name, bad := range map[string]float32{"nan": float32(math.NaN()), "inf": float32(math.Inf(1)), "overflow": 0x1p100} {
		m := preset(t, "paper", 2)
		step(t, m, 1, 0)
		levels, clean, applied := scales(t, m)
		if slices.ContainsFunc(levels, func(l int32) bool { return l != 13001 }) || slices.ContainsFunc(applied, func(a float32) bool { return a != 0x1p13 }) {
			t.Fatalf("after one clean update the scales are %v, applied %v", levels, applied)
		}
		before := bytesOf(m, learned)
		const k = 3
		for range 2 { // the second time within the window
			applied[k] = bad
			out := step(t, m, 2, 1)
			levels, clean, applied = scales(t, m)
			if out["skipped"] != 1 {
				t.Errorf("%s: the update is not skipped", name)
			}
			for result, v := range out {
				block, ok := strings.CutPrefix(result, "grad_norm/")
				if finite := !math.IsNaN(v) && !math.IsInf(v, 0); ok && finite == (block == "mlp1") {
					t.Errorf("%s: the gradient's norm in %s is %v", name, block, v)
				}
			}
			if !bytes.Equal(bytesOf(m, learned), before) {
				t.Errorf("%s: a skipped update changes what is learned", name)
			}
		}
		for i, l := range levels {
			want, wantClean := int32(13003), int32(128)
			if i == k {
				want, wantClean = 13001-500, 1
			}
			if l != want || clean[i] != wantClean {
				t.Errorf("%s: scale %d is 2^%v after %d clean updates, want 2^%v after %d", name, i, float64(l)/1000, clean[i], float64(want)/1000, wantClean)
			}
		}
		if applied[k] != 0x1p13 { // 2^12.501
			t.Errorf("%s: scale %v is applied", name, applied[k])
		}
	}
}

func TestScalesStayInTheirRange(t *testing.T) {
	m := preset(t, "paper", 1)
	levels, clean, applied := scales(t, m)
	levels[0], levels[1], levels[2], levels[4] = 24000, 7200, 12499, 12498
	clean[1] = 125
	applied[1] = float32(math.Inf(1))
	step(t, m, 1, 0)
	levels, _, applied = scales(t, m)
	if levels[0] != 24000 || levels[1] != 7000 || applied[0] != 0x1p24 || applied[1] != 0x1p7 || applied[2] != 0x1p13 || applied[4] != 0x1p12 {
		t.Errorf("scales %v, applied %v", levels, applied)
	}
}

func TestExactScalesAreThePapers(t *testing.T) {
	m := preset(t, "paper,scale=exact", 1)
	levels, _, applied := scales(t, m)
	levels[0] = 13498
	step(t, m, 1, 0)
	_, _, applied = scales(t, m)
	if want := math.Exp2(13.499); math.Abs(float64(applied[0])-want) > 1e-5*want {
		t.Errorf("scale %v, want %v", applied[0], want)
	}
}

func TestLossScaleHalvesAndDoubles(t *testing.T) {
	m := preset(t, "paper,scaling=loss", 1)
	levels, clean, applied := scales(t, m)
	if len(levels) != 1 || levels[0] != 16000 || applied[0] != 0x1p16 {
		t.Fatalf("the loss starts at %v, %v", levels, applied)
	}
	clean[0] = 1999
	step(t, m, 1, 0)
	levels, clean, applied = scales(t, m)
	if levels[0] != 17000 || applied[0] != 0x1p17 || clean[0] != 0 {
		t.Errorf("after 2000 clean updates: %v, %v, %v", levels, applied, clean)
	}
	before := bytesOf(m, learned)
	applied[0] = float32(math.Inf(1))
	out := step(t, m, 2, 0)
	levels, _, applied = scales(t, m)
	if out["skipped"] != 1 || levels[0] != 16000 || applied[0] != 0x1p16 || !bytes.Equal(bytesOf(m, learned), before) {
		t.Errorf("after an overflow: %v, %v, results %v", levels, applied, out)
	}
}

// The stored tensors are all that an update depends on.
func TestPaperGoesOnWithTheSameBits(t *testing.T) {
	m := preset(t, "paper", 2)
	for i := range 3 {
		step(t, m, i+1, i)
	}
	n := preset(t, "paper", 1)
	for i, g := range n.Globals() {
		copy(g.Data, m.Globals()[i].Data)
	}
	for i := 3; i < 6; i++ {
		step(t, m, i+1, i)
		step(t, n, i+1, i)
	}
	if !bytes.Equal(bytesOf(m, all), bytesOf(n, all)) {
		t.Error("copied tensors train to other bits")
	}
}

// A number that isn't finite is traced to the launch that wrote it first.
func TestTraceFindsTheLaunch(t *testing.T) {
	m := preset(t, "paper", 2)
	step(t, m, 1, 0)
	p, err := m.Program("train")
	if err != nil {
		t.Fatal(err)
	}
	if c := p.Trace(); c != nil {
		t.Errorf("a clean update: %s", c)
	}
	_, _, applied := scales(t, m)
	applied[3] = 0x1p100
	c := p.Trace()
	// The kernel that hands attn2's gradient on also rounds it for mlp1.
	if c == nil || c.Block != "attn2 backward" || c.DType != exec.F16 || !math.IsInf(c.Value, 0) || !strings.HasPrefix(c.Pos, "dalle.go:") {
		t.Errorf("found %v", c)
	}
}

// A run that shows what every launch writes has the bits of any other, and what it shows of a
// resblock's backward pass are its gradients, in the type of the precision.
func TestObservedRunsHaveTheSameBits(t *testing.T) {
	m, same := preset(t, "paper", 2), preset(t, "paper", 1)
	step(t, m, 1, 0)
	step(t, same, 1, 0)
	step(t, same, 2, 1)
	p, err := m.Program("train")
	if err != nil {
		t.Fatal(err)
	}
	batch(t, p, 2, 1)
	narrow, largest := map[string]bool{}, 0.0
	if !p.Observe(func(k *exec.Kernel, l *exec.Launch, x *exec.Tensor) {
		if !l.Gradient {
			return
		}
		if strings.HasPrefix(k.Name, "pack") {
			t.Errorf("%s of %s: a copy counts as a gradient", k.Name, l.Block)
		}
		if x.DType == exec.F16 && !narrow[l.Block] {
			narrow[l.Block] = true
			for _, v := range x.Float64s() {
				largest = max(largest, math.Abs(v))
			}
		}
	}) {
		t.Fatal("nothing to see")
	}
	for i := range 3 {
		for _, kind := range []string{"attn", "mlp"} {
			if name := fmt.Sprintf("%s%d backward", kind, i); !narrow[name] {
				t.Errorf("no 16-bit gradients in %s, only in %v", name, narrow)
			}
		}
	}
	// Scales start at 2^13: unscaled, the gradients of a mean over some 190 tokens are below 1.
	if largest < 1 {
		t.Errorf("the largest scaled gradient is %g", largest)
	}
	if !bytes.Equal(bytesOf(m, all), bytesOf(same, all)) {
		t.Error("an observed update gives other bits")
	}
}
