package parity

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/codegen/graph"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/clip"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/dvae"
)

// Sizes with full and partial tiles, several blocks of attention, and matrix
// products tall enough that their right operand is packed.
var (
	filledDVAE = dvae.Config{
		ImageSize: 12, Width: 36, Groups: 2, BlocksPerGroup: 1, Stem: 5, Codebook: 37, CodeDim: 20, Batch: 3,
		Optimizer: tinyDVAE.Optimizer,
	}
	filledPrior = dalle.Config{
		TextLen: 21, TextVocab: 50, GridW: 8, GridH: 7, ImageVocab: 45, Dim: 72, Heads: 3, Layers: 3, Kernel: 5, Batch: 3, SampleBatch: 3,
		Optimizer: tinyPrior.Optimizer,
	}
	filledCLIP = clip.Config{
		ImageSize: 24, Patch: 4, ImageDim: 40, ImageHeads: 2, TextLen: 35, TextVocab: 33, TextDim: 48, TextHeads: 3, Layers: 1, Embed: 24, Batch: 7,
		Optimizer: tinyCLIP.Optimizer,
	}
)

// agree runs two steps of train compiled and interpreted, and every other
// function once, from the same random parameters and inputs.
func agree(t *testing.T, make func() (*ir.Module, error), integers map[string]int) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	var models [2]model
	var module *ir.Module
	for i := range models {
		m, err := make()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			models[i] = interpreted(t, m, graph.Autodiff)
			module = m
		} else {
			models[i] = compile(t, m)
		}
	}
	for _, g := range module.Globals {
		if g.Role != ir.Param {
			continue
		}
		// Matrices at unit scale, the rest near their start.
		std, mean := 0.1, g.Init.Std
		if g.Init.Kind != "const" {
			mean = 0
		}
		if n := g.Type.Rank(); n >= 2 {
			std = 1 / float64(max(g.Type.Len()/g.Type.Shape[n-1], 1))
			std = 0.02 + min(0.3, std*4)
		}
		data := random(r, g.Type.Len(), func() float64 { return mean + std*r.NormFloat64() })
		for _, x := range models {
			x.set(g.Name, data)
		}
	}
	for _, f := range module.Funcs {
		steps := 1
		if f.Name == "train" {
			steps = 2
		}
		for step := 1; step <= steps; step++ {
			in := map[string][]float64{}
			for _, v := range f.Inputs {
				n := v.Type.Len()
				switch {
				case v.Name == "update":
					in[v.Name] = []float64{float64(step)}
				case v.Type.DType == ir.I32:
					in[v.Name] = random(r, n, func() float64 { return float64(r.IntN(integers[v.Name])) })
				case v.Name == "images":
					in[v.Name] = random(r, n, r.Float64)
				case v.Name == "clip":
					in[v.Name] = []float64{float64(step - 1)} // off, then on
				default:
					in[v.Name] = []float64{0.5}
				}
			}
			if in["lr"] != nil {
				in["lr"] = []float64{1e-4}
			}
			want, got := call(t, models[0], f.Name, in), call(t, models[1], f.Name, in)
			for _, res := range f.Results {
				if res.Value.Type.DType == ir.I32 {
					continue // an argmax may tie within rounding
				}
				compare(t, fmt.Sprintf("%s, step %d: %s", f.Name, step, res.Name), got[res.Name], want[res.Name], 5e-5)
			}
		}
		if f.Name != "train" {
			continue
		}
		for _, g := range module.Globals {
			if g.Role == ir.Moment1 {
				compare(t, "@"+g.Name, models[1].get(g.Name), models[0].get(g.Name), 1e-4)
			}
		}
	}
}

func random(r *rand.Rand, n int, next func() float64) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = float64(float32(next()))
	}
	return x
}

func TestCompiledModelsMatchTheirGraphsAtTileSizes(t *testing.T) {
	t.Run("dvae", func(t *testing.T) {
		c := filledDVAE
		agree(t, func() (*ir.Module, error) { return dvae.Build(c) }, map[string]int{"tokens": c.Codebook, "seed": 1000, "step": 1000})
	})
	t.Run("prior", func(t *testing.T) {
		c := filledPrior
		agree(t, func() (*ir.Module, error) { return dalle.Build(c) }, map[string]int{
			"text": c.TextClasses(), "image": c.ImageVocab, "token": min(c.TextVocab, c.ImageVocab), "pos": c.Stream(), "slot": c.SampleBatch,
		})
	})
	t.Run("clip", func(t *testing.T) {
		c := filledCLIP
		agree(t, func() (*ir.Module, error) { return clip.Build(c) }, map[string]int{"text": c.TextVocab, "end": c.TextLen})
	})
}
