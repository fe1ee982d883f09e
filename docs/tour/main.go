// Command tour is irdump with the system that docs/architecture.md follows from
// its line of Go to machine code: the transformer of package models/dalle at
// sizes that nothing else uses, so that the page doesn't change with a recipe.
// Its test holds the page against what the commands in it print.
//
// Start at docs/architecture.md.
package main

import (
	"github.com/gouache-ml/gouache/codegen/dump"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/models/system"
)

func build() ([]*ir.Module, error) {
	m, err := dalle.Build(dalle.Config{
		TextLen: 32, TextVocab: 512, GridW: 8, GridH: 8, ImageVocab: 256,
		Dim: 128, Heads: 4, Layers: 3, Kernel: 5, Batch: 32, SampleBatch: 32,
		Optimizer: nn.AdamW{Beta1: 0.9, Beta2: 0.96, Eps: 1e-8, Decay: 4.5e-2},
	})
	return []*ir.Module{m}, err
}

func init() {
	if err := system.Register(system.System{Name: "tour", Doc: "the example of docs/architecture.md", Build: build}); err != nil {
		panic(err)
	}
}

func main() { dump.Main() }
