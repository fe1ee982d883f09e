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
	"github.com/gouache-ml/gouache/models/modeltest"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/runtime/snapshot"
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

// tolerance is relative to the largest magnitude of a tensor, or 1e-3 if that
// is larger: float64 sums of a few thousand terms in two orders.
const tolerance = 1e-10

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

func compare(t *testing.T, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d elements, want %d", what, len(got), len(want))
		return
	}
	size := 1e-3
	for _, w := range want {
		size = max(size, math.Abs(w))
	}
	for i, w := range want {
		if !(math.Abs(got[i]-w) <= tol*size) {
			t.Errorf("%s: element %d is %v, want %v (largest %v)", what, i, got[i], w, size)
			return
		}
	}
}

// passes are the ways a function is prepared for the interpreter.
var passes = map[string]func(*ir.Func) error{
	"autodiff": graph.Autodiff,
	"graph":    func(f *ir.Func) error { return pipeline.Graph(f, pipeline.Options{}) },
}

// run trains three steps and compares everything; inputs gives those of one
// step besides the optimiser's.
func run(t *testing.T, g golden, build func() (*ir.Module, error), c nn.AdamW, inputs map[string][]float64, then func(*testing.T, *modeltest.Machine)) {
	for name, pass := range passes {
		t.Run(name, func(t *testing.T) {
			m, err := build()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range m.Funcs {
				if err := pass(f); err != nil {
					t.Fatal(err)
				}
			}
			x, err := modeltest.New(m, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, global := range m.Globals {
				if global.Role != ir.Param {
					continue
				}
				data, ok := g["param."+global.Name]
				if !ok || len(data) != global.Type.Len() {
					t.Fatalf("@%s %s: goldens have %d elements of that name", global.Name, global.Type, len(data))
				}
				copy(x.Globals[global.Name].Data, data)
			}
			if then != nil {
				then(t, x)
			}
			for step := 1; step <= 3; step++ {
				clipTo := g["input.clip"+string(rune('0'+step))]
				in := map[string][]float64{
					"lr": g["input.lr"], "clip": clipTo, "step": {float64(step)},
					"bias1": {1 / (1 - math.Pow(c.Beta1, float64(step)))},
					"bias2": {1 / (1 - math.Pow(c.Beta2, float64(step)))},
				}
				for k, v := range inputs {
					in[k] = v
				}
				out, err := x.Call("train", in)
				if err != nil {
					t.Fatal(err)
				}
				prefix := "step" + string(rune('0'+step)) + "."
				for _, n := range g.with(prefix) {
					if out[n] == nil {
						t.Fatalf("train has no result %q", n)
					}
					compare(t, prefix+n, out[n].Data, g[prefix+n], tolerance)
				}
				if out["skipped"].Data[0] != 0 {
					t.Errorf("step %d was skipped", step)
				}
				if step == 1 {
					for _, n := range g.with("grad.") {
						// The first mean is (1-beta1) times the unclipped gradient.
						grad := append([]float64(nil), x.Globals[n+".m"].Data...)
						for i := range grad {
							grad[i] /= 1 - c.Beta1
						}
						compare(t, "gradient of "+n, grad, g["grad."+n], tolerance)
					}
				}
			}
			for _, n := range g.with("after.") {
				// Where the gradient is within rounding of 0 AdamW divides one
				// rounding error by another, so look no closer than 1e-7.
				compare(t, n+" after three steps", x.Globals[n].Data, g["after."+n], 1e-7)
			}
		})
	}
}

func call(t *testing.T, x *modeltest.Machine, name string, in map[string][]float64) map[string]*ir.Tensor {
	t.Helper()
	out, err := x.Call(name, in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDVAEMatchesPyTorch(t *testing.T) {
	g := read(t, "dvae")
	in := map[string][]float64{"images": g["input.images"], "seed": g["input.seed"], "tau": g["input.tau"], "beta": g["input.beta"]}
	run(t, g, func() (*ir.Module, error) { return dvae.Build(tinyDVAE) }, tinyDVAE.Optimizer, in, func(t *testing.T, x *modeltest.Machine) {
		out := call(t, x, "eval", in)
		for _, n := range g.with("extra.eval_") {
			compare(t, "eval "+n, out[n].Data, g["extra.eval_"+n], tolerance)
		}
		compare(t, "tokens", call(t, x, "encode", in)["tokens"].Data, g["extra.tokens"], 0)
		images := call(t, x, "decode", map[string][]float64{"tokens": g["extra.tokens"]})["images"]
		compare(t, "decoded images", images.Data, g["extra.images"], tolerance)
	})
}

func TestPriorMatchesPyTorch(t *testing.T) {
	g := read(t, "prior")
	in := map[string][]float64{"text": g["input.text"], "image": g["input.image"]}
	run(t, g, func() (*ir.Module, error) { return dalle.Build(tinyPrior) }, tinyPrior.Optimizer, in, func(t *testing.T, x *modeltest.Machine) {
		out := call(t, x, "logits", in)
		compare(t, "text logits", out["text_logits"].Data, g["extra.text_logits"], tolerance)
		compare(t, "image logits", out["image_logits"].Data, g["extra.image_logits"], tolerance)
	})
}

func TestCLIPMatchesPyTorch(t *testing.T) {
	g := read(t, "clip")
	in := map[string][]float64{"images": g["input.images"], "text": g["input.text"], "end": g["input.end"]}
	run(t, g, func() (*ir.Module, error) { return clip.Build(tinyCLIP) }, tinyCLIP.Optimizer, in, func(t *testing.T, x *modeltest.Machine) {
		compare(t, "image features", call(t, x, "embed_image", in)["features"].Data, g["extra.image_features"], tolerance)
		compare(t, "text features", call(t, x, "embed_text", in)["features"].Data, g["extra.text_features"], tolerance)
	})
}
