// Package language declares a small GPT: it learns to continue text, one
// character after the other.
package language

import (
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/models/system"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

//go:generate go run ../gouachec -system language -o ../gen/language

// Sizes of the model.
const Vocab, Length, Dim, Heads, Layers, Batch = 32, 32, 48, 4, 2, 8

var optimizer = nn.AdamW{Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Decay: 0.01}

func init() { system.Register(system.System{Name: "language", Doc: "a small GPT", Build: build}) }

func build() ([]*ir.Module, error) {
	m := ir.NewModule("gpt")

	train := m.NewFunc("train")
	text := train.Input("text", ir.T(ir.I32, Batch, Length+1))
	seen, next := ops.SliceAxis(text, 1, 0, Length), ops.SliceAxis(text, 1, 1, Length+1)
	loss := nn.CrossEntropy(logits(train, seen, Batch), ops.Reshape(next, Batch*Length))
	train.Result("loss", loss)
	optimizer.Update(train, loss)

	predict := m.NewFunc("predict")
	text = predict.Input("text", ir.T(ir.I32, 1, Length))
	predict.Result("next", ops.Argmax(logits(predict, text, 1)))
	return []*ir.Module{m}, nil
}

func logits(f *ir.Func, text *ir.Value, batch int) *ir.Value {
	s := nn.In(f)
	x := ops.Add(nn.Embedding(s, "token", text, Vocab, Dim, 0.02), s.Position("position", nn.Normal(0.02), Length, Dim))
	x = ops.Reshape(x, batch*Length, Dim)
	for i := range Layers {
		x = block(s.Sub("layer%d", i), x, batch)
	}
	return nn.Linear(s, "head", nn.LayerNorm(s, "norm", x, 1e-5), Vocab, 0.02)
}

func block(s nn.Scope, x *ir.Value, batch int) *ir.Value {
	n := nn.LayerNorm(s, "attn.norm", x, 1e-5)
	heads := func(name string) *ir.Value {
		return ops.Reshape(nn.Linear(s, name, n, Dim, 0.1), batch, Length, Heads, Dim/Heads)
	}
	a := ops.Attention(heads("attn.q"), heads("attn.k"), heads("attn.v"), mask.Causal())
	x = ops.Add(x, nn.Linear(s, "attn.out", ops.Reshape(a, batch*Length, Dim), Dim, 0.1))
	h := nn.Linear(s, "mlp.in", nn.LayerNorm(s, "mlp.norm", x, 1e-5), 4*Dim, 0.1)
	return ops.Add(x, nn.Linear(s, "mlp.out", ops.QuickGELU(h), Dim, 0.1))
}
