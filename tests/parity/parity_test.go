package parity

import (
	"encoding/binary"
	"math"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/graph"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/clip"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/dvae"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/runtime/snapshot"
	machinecode "github.com/gouache-ml/gouache/tests/compiled"
)

// The sizes of goldens.py.
var (
	tinyDVAE = dvae.Config{
		ImageSize: 8, Width: 8, Groups: 2, BlocksPerGroup: 2, Stem: 3, Codebook: 8, CodeDim: 4, Batch: 2,
		Optimizer: nn.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 1e-4},
	}
	tinyPrior = dalle.Config{
		TextLen: 4, TextVocab: 10, GridW: 4, GridH: 4, ImageVocab: 12, Dim: 8, Heads: 2, Layers: 6, Kernel: 3, Batch: 2, SampleBatch: 2,
		Optimizer: nn.AdamW{Beta1: 0.9, Beta2: 0.96, Eps: 1e-8, Decay: 4.5e-2, VarianceMax: 5},
	}
	tinyCLIP = clip.Config{
		ImageSize: 8, Patch: 4, ImageDim: 8, ImageHeads: 2, TextLen: 5, TextVocab: 12, TextDim: 8, TextHeads: 2, Layers: 2, Embed: 6, Batch: 3,
		Optimizer: nn.AdamW{Beta1: 0.9, Beta2: 0.98, Eps: 1e-8, Decay: 0.2},
	}
)

// tolerances are relative to the largest magnitude of a tensor, or 1e-3 if that
// is larger. Where a gradient is within rounding of 0, AdamW divides one
// rounding error by another; so weights after some steps agree less, and those
// with a first gradient below a share small of the tensor's largest are left
// out.
type tolerances struct{ result, gradient, after, small float64 }

// Sums of a few thousand terms in two orders, in float64 and f32.
var (
	inFloat64 = tolerances{1e-10, 1e-10, 1e-7, 0}
	inFloat32 = tolerances{1e-5, 2e-5, 1e-4, 1e-3}
)

// prepare readies a module for execution.
type prepare func(*testing.T, *ir.Module) model

// golden is a file written by goldens.py.
type golden map[string][]float64

func read(t *testing.T, name string) golden {
	t.Helper()
	tensors, _, err := snapshot.ReadFile(filepath.Join("testdata", name+".safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	g := golden{}
	for _, x := range tensors {
		var out []float64
		for b := x.Data; len(b) > 0; {
			if x.DType == "I32" {
				out, b = append(out, float64(int32(binary.LittleEndian.Uint32(b)))), b[4:]
			} else {
				out, b = append(out, math.Float64frombits(binary.LittleEndian.Uint64(b))), b[8:]
			}
		}
		g[x.Name] = out
	}
	return g
}

// with lists what follows prefix in the names, sorted.
func (g golden) with(prefix string) []string {
	var names []string
	for n := range g {
		if rest, ok := strings.CutPrefix(n, prefix); ok {
			names = append(names, rest)
		}
	}
	sort.Strings(names)
	return names
}

func largest(x []float64) float64 {
	size := 0.0
	for _, v := range x {
		size = max(size, math.Abs(v))
	}
	return size
}

func compare(t *testing.T, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d elements, want %d", what, len(got), len(want))
		return
	}
	size := max(1e-3, largest(want))
	for i, w := range want {
		if !(math.Abs(got[i]-w) <= tol*size) {
			t.Errorf("%s: element %d is %v, want %v (largest %v)", what, i, got[i], w, size)
			return
		}
	}
}

// model is one way of executing a module.
type model interface {
	// call runs a function and gives its results.
	call(name string, in map[string][]float64) (map[string][]float64, error)
	// get and set access a stored tensor.
	get(global string) []float64
	set(global string, data []float64)
}

// trains runs three steps on x and compares everything; inputs gives those of
// one step besides the optimiser's.
func trains(t *testing.T, g golden, x model, c nn.AdamW, inputs map[string][]float64, tol tolerances) {
	t.Helper()
	for step := 1; step <= 3; step++ {
		number := string(rune('0' + step))
		in := map[string][]float64{
			"lr": g["input.lr"], "clip": g["input.clip"+number], "step": {float64(step)}, "update": {float64(step)},
		}
		for k, v := range inputs {
			in[k] = v
		}
		out := call(t, x, "train", in)
		for _, n := range g.with("step" + number + ".") {
			if out[n] == nil {
				t.Fatalf("train has no result %q", n)
			}
			compare(t, "step "+number+" "+n, out[n], g["step"+number+"."+n], tol.result)
		}
		if out["skipped"][0] != 0 {
			t.Errorf("step %d was skipped", step)
		}
		if step > 1 {
			continue
		}
		for _, n := range g.with("grad.") {
			// The first mean is (1-beta1) times the unclipped gradient.
			grad := x.get(n + ".m")
			for i := range grad {
				grad[i] /= 1 - c.Beta1
			}
			compare(t, "gradient of "+n, grad, g["grad."+n], tol.gradient)
		}
	}
	for _, n := range g.with("after.") {
		got, want := x.get(n), append([]float64(nil), g["after."+n]...)
		limit := tol.small * largest(g["grad."+n])
		for i, v := range g["grad."+n] {
			if math.Abs(v) < limit || largest(g["grad."+n]) < tol.small {
				want[i] = got[i]
			}
		}
		compare(t, n+" after three steps", got, want, tol.after)
	}
}

func call(t *testing.T, x model, name string, in map[string][]float64) map[string][]float64 {
	t.Helper()
	out, err := x.call(name, in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// load builds a module and gives it the parameters of the goldens.
func load(t *testing.T, g golden, b prepare, m *ir.Module, err error) model {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	x := b(t, m)
	for _, global := range m.Globals {
		if global.Role != ir.Param {
			continue
		}
		data := g["param."+global.Name]
		if len(data) != global.Type.Len() {
			t.Fatalf("@%s %s: goldens have %d elements of that name", global.Name, global.Type, len(data))
		}
		x.set(global.Name, data)
	}
	return x
}

func checkDVAE(t *testing.T, b prepare, tol tolerances) {
	g := read(t, "dvae")
	m, err := dvae.Build(tinyDVAE)
	x := load(t, g, b, m, err)
	in := map[string][]float64{"images": g["input.images"], "seed": g["input.seed"], "tau": g["input.tau"], "beta": g["input.beta"]}
	out := call(t, x, "eval", in)
	for _, n := range g.with("extra.eval_") {
		compare(t, "eval "+n, out[n], g["extra.eval_"+n], tol.result)
	}
	compare(t, "tokens", call(t, x, "encode", in)["tokens"], g["extra.tokens"], 0)
	images := call(t, x, "decode", map[string][]float64{"tokens": g["extra.tokens"]})["images"]
	compare(t, "decoded images", images, g["extra.images"], tol.result)
	trains(t, g, x, tinyDVAE.Optimizer, in, tol)
}

func checkPrior(t *testing.T, b prepare, tol tolerances) {
	g := read(t, "prior")
	m, err := dalle.Build(tinyPrior)
	x := load(t, g, b, m, err)
	in := map[string][]float64{"text": g["input.text"], "image": g["input.image"]}
	out := call(t, x, "logits", in)
	compare(t, "text logits", out["text_logits"], g["extra.text_logits"], tol.result)
	compare(t, "image logits", out["image_logits"], g["extra.image_logits"], tol.result)

	// Token by token against the logits of the whole stream.
	c := tinyPrior
	var logits, slots []float64
	for s := range c.SampleBatch {
		slot := float64(c.SampleBatch - 1 - s) // in each other's caches
		text := g["input.text"][s*c.TextLen:][:c.TextLen]
		logits = append(logits, call(t, x, "prefill", map[string][]float64{"text": text, "slot": {slot}})["logits"]...)
		slots = append(slots, slot)
	}
	for i := range c.Image() {
		var want, token []float64
		for s := range c.Batch {
			want = append(want, g["extra.image_logits"][(s*c.Image()+i)*c.ImageVocab:][:c.ImageVocab]...)
			token = append(token, g["input.image"][s*c.Image()+i])
		}
		compare(t, "decoded logits", logits, want, tol.result)
		if i < c.Image()-1 {
			logits = call(t, x, "decode", map[string][]float64{"token": token, "slot": slots, "pos": {float64(c.TextLen + 1 + i)}})["logits"]
		}
	}
	trains(t, g, x, c.Optimizer, in, tol)
}

func checkCLIP(t *testing.T, b prepare, tol tolerances) {
	g := read(t, "clip")
	m, err := clip.Build(tinyCLIP)
	x := load(t, g, b, m, err)
	in := map[string][]float64{"images": g["input.images"], "text": g["input.text"], "end": g["input.end"]}
	compare(t, "image features", call(t, x, "embed_image", in)["features"], g["extra.image_features"], tol.result)
	compare(t, "text features", call(t, x, "embed_text", in)["features"], g["extra.text_features"], tol.result)
	trains(t, g, x, tinyCLIP.Optimizer, in, tol)
}

func TestInterpretedModelsMatchPyTorch(t *testing.T) {
	for name, pass := range map[string]func(*ir.Func) error{
		"autodiff": graph.Autodiff,
		"graph":    func(f *ir.Func) error { return pipeline.Graph(f, pipeline.Options{}) },
	} {
		b := func(t *testing.T, m *ir.Module) model { return interpreted(t, m, pass) }
		t.Run("dvae/"+name, func(t *testing.T) { checkDVAE(t, b, inFloat64) })
		t.Run("prior/"+name, func(t *testing.T) { checkPrior(t, b, inFloat64) })
		t.Run("clip/"+name, func(t *testing.T) { checkCLIP(t, b, inFloat64) })
	}
}

func TestPlannedModelsMatchPyTorch(t *testing.T) {
	t.Run("dvae", func(t *testing.T) { checkDVAE(t, planned, inFloat64) })
	t.Run("prior", func(t *testing.T) { checkPrior(t, planned, inFloat64) })
	t.Run("clip", func(t *testing.T) { checkCLIP(t, planned, inFloat64) })
}

func TestCompiledModelsMatchPyTorch(t *testing.T) {
	for _, target := range machinecode.Targets() {
		c := compileFor(target)
		t.Run("dvae/"+target, func(t *testing.T) { checkDVAE(t, c, inFloat32) })
		t.Run("prior/"+target, func(t *testing.T) { checkPrior(t, c, inFloat32) })
		t.Run("clip/"+target, func(t *testing.T) { checkCLIP(t, c, inFloat32) })
	}
}
