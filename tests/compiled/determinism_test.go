package compiled

import (
	"bytes"
	"context"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	"github.com/gouache-ml/gouache/codegen/glue"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/text"
	"github.com/gouache-ml/gouache/models/clip"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/dvae"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/runtime/exec"
)

var adam = nn.AdamW{Beta1: 0.9, Beta2: 0.98, Eps: 1e-8, Decay: 0.01, Moment1: ir.E6M9, Moment2: ir.UE6M10}

// models are the three networks with their function train alone, at sizes that
// give several chunks to many kernels.
func models(t *testing.T) []*ir.Module {
	t.Helper()
	return trained(t,
		dvae.Config{ImageSize: 16, Width: 48, Groups: 2, BlocksPerGroup: 1, Stem: 3, Codebook: 40, CodeDim: 16, Batch: 4, Optimizer: adam},
		dalle.Config{TextLen: 12, TextVocab: 30, GridW: 6, GridH: 6, ImageVocab: 40, Dim: 96, Heads: 3, Layers: 3, Kernel: 3, Batch: 4, SampleBatch: 2, Optimizer: adam},
		clip.Config{ImageSize: 16, Patch: 4, ImageDim: 48, ImageHeads: 3, TextLen: 12, TextVocab: 30, TextDim: 48, TextHeads: 3, Layers: 2, Embed: 24, Batch: 6, Optimizer: adam})
}

// trained builds the three networks with their function train alone.
func trained(t *testing.T, d dvae.Config, p dalle.Config, c clip.Config) []*ir.Module {
	t.Helper()
	var out []*ir.Module
	add := func(m *ir.Module, err error) {
		if err != nil {
			t.Fatal(err)
		}
		m.Funcs = slices.DeleteFunc(m.Funcs, func(f *ir.Func) bool { return f.Name != "train" })
		out = append(out, m)
	}
	add(dvae.Build(d))
	add(dalle.Build(p))
	add(clip.Build(c))
	return out
}

// train runs steps of program train on inputs that depend on seed alone and
// returns every stored tensor and every result, as bytes.
func train(t *testing.T, m *exec.Model, seed uint64, steps int) []byte {
	t.Helper()
	if err := m.Init(seed); err != nil {
		t.Fatal(err)
	}
	p, err := m.Program("train")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed, 5))
	var out []byte
	for step := 1; step <= steps; step++ {
		for i := range p.Inputs() {
			x := &p.Inputs()[i]
			data := make([]float64, x.Len())
			for e := range data {
				switch {
				case x.Name == "update":
					data[e] = float64(step)
				case x.DType == exec.I32:
					data[e] = float64(r.IntN(12))
				case x.Name == "lr":
					data[e] = 1e-3
				default:
					data[e] = r.Float64()
				}
			}
			if err := Put(x, data); err != nil {
				t.Fatal(err)
			}
		}
		p.Run()
		if err := p.CheckFinite(); err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		for _, y := range p.Outputs() {
			out = append(out, y.Data...)
		}
	}
	for _, g := range m.Globals() {
		out = append(out, g.Data...)
	}
	return out
}

func TestTrainingHasTheSameBitsOnAnyNumberOfThreads(t *testing.T) {
	modules := models(t)
	spec, err := Compile("tiny", modules...)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range Targets() {
		for _, m := range modules {
			var first, other []byte
			for _, threads := range threadCounts() {
				x, err := open(t, spec, target, threads).Model(m.Name)
				if err != nil {
					t.Fatal(err)
				}
				got := train(t, x, 1, 4)
				if first == nil {
					first = got
					if again := train(t, x, 1, 4); !bytes.Equal(again, first) {
						t.Errorf("%s on %s: the same seed gives other bits", m.Name, target)
					}
					other = train(t, x, 2, 4)
				}
				if !bytes.Equal(got, first) {
					t.Errorf("%s on %s: %d threads give other bits than 1", m.Name, target, threads)
				}
			}
			if bytes.Equal(other, first) {
				t.Errorf("%s on %s: two seeds give the same bits", m.Name, target)
			}
		}
	}
}

func TestCompilingTwiceGivesTheSameBytes(t *testing.T) {
	if Device() != "" {
		var first *exec.Spec
		for range 2 {
			spec, err := Compile("tiny", models(t)...)
			if err != nil {
				t.Fatal(err)
			}
			if first != nil && !reflect.DeepEqual(spec.Objects, first.Objects) {
				t.Error("two objects of the same kernels differ")
			}
			first = spec
		}
		return
	}
	tools, err := toolchain.Find()
	if err != nil {
		t.Fatal(err)
	}
	targets := cpuTargets()[:1]
	var plans []string
	var objects [][]byte
	var files [][]glue.File
	for range 2 {
		tools.CacheDir = t.TempDir() // compile, don't remember
		b := NewBatch("tiny")
		if err := b.Add(false, models(t)[2:]...); err != nil {
			t.Fatal(err)
		}
		sys := b.Plan()
		plans = append(plans, text.System(sys))
		o, err := cpu.Compile(context.Background(), tools, sys.Kernels, targets)
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o[targets[0].Name])
		g, err := glue.Generate(sys, glue.Options{ImportPath: "example.com/tiny", Runner: "example.com/runner",
			Objects: []glue.Object{{Target: targets[0].Name, Code: o[targets[0].Name]}}})
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, g)
	}
	if plans[0] != plans[1] {
		t.Error("two plans of the same models differ")
	}
	if !bytes.Equal(objects[0], objects[1]) {
		t.Error("two objects of the same kernels differ")
	}
	if len(files[0]) != len(files[1]) {
		t.Fatalf("%d files, then %d", len(files[0]), len(files[1]))
	}
	for i, f := range files[0] {
		if g := files[1][i]; f.Path != g.Path || !bytes.Equal(f.Data, g.Data) {
			t.Errorf("%s differs from %s of the second time", f.Path, g.Path)
		}
	}
}
