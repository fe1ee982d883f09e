package pipeline_test

import (
	"testing"

	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/ops"
)

// Of the logits and their gradient no more than one chunk is alive, and the
// gradient of the weights grows in the products that make it.
func TestLogitsLiveInChunks(t *testing.T) {
	const rows, width, classes = 2048, 64, 8192
	m := ir.NewModule("m")
	head := func(f *ir.Func) *ir.Value {
		s := nn.In(f)
		x := nn.Linear(s, "in", f.Input("x", ir.T(ir.F32, rows, width)), width, 1)
		return nn.CrossEntropyOf("loss", x, classes, f.Input("y", ir.T(ir.I32, rows)), func(x *ir.Value) *ir.Value {
			return ops.MatMulT(x, s.Param("head", nn.Normal(1), classes, width))
		})
	}
	train, eval := m.NewFunc("train"), m.NewFunc("eval")
	nn.AdamW{Beta1: 0.9, Beta2: 0.99, Eps: 1e-8}.Update(train, head(train))
	eval.Result("loss", head(eval))
	sys, err := pipeline.Compile("m", []*ir.Module{m}, pipeline.Options{Backend: uncut{}})
	if err != nil {
		t.Fatal(err)
	}
	chunk, weights := 512*classes, width*classes
	for _, p := range sys.Models[0].Programs {
		want := map[string]int{"train": 2, "eval": 1}[p.Name]
		made := 0
		for i, l := range p.Launches {
			logits, grads := 0, 0
			for _, b := range p.Buffers {
				if b.First > i || b.Last < i || b.First < 0 {
					continue
				}
				switch n := b.Type.Len(); {
				case n > chunk:
					t.Errorf("%s: %s %s is larger than a chunk's logits", p.Name, b.Name, b.Type)
				case n == chunk:
					logits++
				case n == weights:
					grads++
				}
			}
			if logits > want || grads > 2 {
				t.Errorf("%s: launch %d, %s: %d buffers of a chunk's size and %d of the weights' are alive, want at most %d and 2", p.Name, i, l.Kernel.Name, logits, grads, want)
			}
			for a, b := range l.Args {
				if l.Kernel.Bufs[a].Mode != kern.In && b.First >= 0 && b.Type.Len() == weights {
					made++
					if l.Kernel.FindContract() == nil {
						t.Errorf("%s: launch %d, %s, is no product and writes a gradient of the weights", p.Name, i, l.Kernel.Name)
					}
				}
			}
		}
		if n := rows * classes / chunk; p.Name == "train" && (made != n || n < 2) {
			t.Errorf("%d launches write gradients of the weights, want %d", made, n)
		}
	}
}
