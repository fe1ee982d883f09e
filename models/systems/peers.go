package systems

import (
	"fmt"
	"slices"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/dvae"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

// The system peers holds what tests/peers times beside other people's programs,
// each model with the programs that are timed and no others.

// PeerS and PeerT are the transformers of the comparison.
var (
	PeerS = dalle.Config{
		TextLen: 256, TextVocab: 16384, GridW: 32, GridH: 32, ImageVocab: 8192,
		Dim: 512, Heads: 8, Layers: 8, Kernel: 11,
		Batch: 1, SampleBatch: 1, Optimizer: priorOptimizer,
	}
	PeerT = dalle.Config{
		TextLen: 64, TextVocab: 2048, GridW: 16, GridH: 16, ImageVocab: 1024,
		Dim: 256, Heads: 4, Layers: 4, Kernel: 11,
		Batch: 8, SampleBatch: 1, Optimizer: priorOptimizer,
	}
)

// leanBudget is the memory of the model lean, which is s in less: it computes again as
// much as that takes.
const leanBudget = 814 << 20

// PeerDVAE is the discrete VAE of the comparison.
var PeerDVAE = dvae.Config{
	ImageSize: 64, Width: 64, Groups: 4, BlocksPerGroup: 2, Stem: 7,
	Codebook: 1024, CodeDim: 64, Batch: 8, Optimizer: dvaeOptimizer,
}

// PeerGEMM lists matrix products, rows by columns by length of the sums.
var PeerGEMM = [][3]int{{1280, 512, 512}, {1280, 2048, 512}, {1280, 512, 2048}, {2560, 3072, 1024}, {1024, 1024, 1024}}

// buildPeers makes the modules s, t, s8 and t8 (sampling eight at a time), half and half8
// (s and s8 in the precision paper), lean, dvae, gpt2, attention and gemm.
func buildPeers() ([]*ir.Module, error) {
	var all []*ir.Module
	add := func(m *ir.Module, err error, name string, programs ...string) error {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for _, f := range m.Funcs {
			if err := f.Err(); err != nil {
				return fmt.Errorf("%s: %s: %w", name, f.Name, err)
			}
		}
		m.Name = name
		if len(programs) > 0 {
			m.Funcs = slices.DeleteFunc(m.Funcs, func(f *ir.Func) bool { return !slices.Contains(programs, f.Name) })
			// The peers don't average weights, and training needs no keys and values of earlier tokens.
			m.Globals = slices.DeleteFunc(m.Globals, func(g *ir.Global) bool {
				return g.Role == ir.Average || g.Role == ir.State && len(m.Funcs) == 1
			})
		}
		all = append(all, m)
		return nil
	}
	for _, p := range []struct {
		name  string
		sizes dalle.Config
	}{{"s", PeerS}, {"t", PeerT}} {
		m, err := dalle.Build(p.sizes)
		if err := add(m, err, p.name, "train", "prefill", "decode"); err != nil {
			return nil, err
		}
		p.sizes.SampleBatch = 8
		m, err = dalle.Build(p.sizes)
		if err := add(m, err, p.name+"8", "prefill", "decode"); err != nil {
			return nil, err
		}
	}
	paper, err := ir.ParsePrecision("paper")
	if err != nil {
		return nil, err
	}
	sizes := PeerS
	for _, half := range []struct {
		name  string
		batch int
	}{{"half", 1}, {"half8", 8}} {
		sizes.SampleBatch = half.batch
		m, err := dalle.Build(sizes)
		if err := add(m, err, half.name, "prefill", "decode"); err != nil {
			return nil, err
		}
		m.Precision = paper
	}
	m, err := dalle.Build(PeerS)
	if err := add(m, err, "lean", "train"); err != nil {
		return nil, err
	}
	m.Budget = leanBudget
	m, err = dvae.Build(PeerDVAE)
	if err := add(m, err, "dvae", "train"); err != nil {
		return nil, err
	}
	for _, m := range []*ir.Module{gpt2(), attention(), gemm()} {
		if err := add(m, nil, m.Name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// gpt2 is a plain causal language model with the unembedding tied to the embedding,
// of the sizes of S's layers.
func gpt2() *ir.Module {
	const length, vocab, dim, heads, layers = 1280, 8192, 512, 8, 8
	m := ir.NewModule("gpt2")
	f := m.NewFunc("train")
	tokens, targets := f.Input("tokens", ir.T(ir.I32, length)), f.Input("targets", ir.T(ir.I32, length))
	s := nn.In(f)
	table := s.Param("embed.token", nn.Normal(0.02), vocab, dim)
	x := ops.Add(ops.Take(table, tokens), s.Position("embed.position", nn.Normal(0.01), length, dim))
	block := nn.SparseTransformer(dim, heads, layers, nn.MLPWidth)
	for i := range layers {
		x = block.Apply(s, i, 1, x, nn.Masked(mask.Causal()))
	}
	f.Region("unembed", false, func() { x = nn.LayerNorm(s, "norm", x, 1e-5) })
	loss := nn.CrossEntropyOf("loss", x, vocab, targets, func(x *ir.Value) *ir.Value { return ops.MatMulT(x, table) })
	f.Result("loss", loss)
	nn.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01}.Update(f, loss)
	return m
}

// attention is one layer's attention under each of S's masks: the program of the
// mask's name forward, NAME_train with the gradients.
func attention() *ir.Module {
	m := ir.NewModule("attention")
	c := PeerS
	shape := ir.T(ir.F32, 1, c.Stream(), c.Heads, c.Dim/c.Heads)
	for _, p := range []struct {
		name string
		mask mask.Mask
	}{
		{"row", mask.Row(c.TextLen, c.GridW, c.GridH)},
		{"column", mask.Column(c.TextLen, c.GridW, c.GridH)},
		{"conv", mask.Conv(c.TextLen, c.GridW, c.GridH, c.Kernel)},
	} {
		f := m.NewFunc(p.name)
		q, k, v := f.Input("q", shape), f.Input("k", shape), f.Input("v", shape)
		f.Result("out", ops.Attention(q, k, v, p.mask))

		f = m.NewFunc(p.name + "_train")
		q, k, v = f.Input("q", shape), f.Input("k", shape), f.Input("v", shape)
		out := ops.Attention(q, k, v, p.mask)
		loss := ops.Sum(ops.Mul(out, f.Input("d_out", shape)))
		f.Result("out", out)
		for i, g := range ops.Gradient(loss, q, k, v) {
			f.Result([]string{"d_q", "d_k", "d_v"}[i], g)
		}
	}
	return m
}

// gemm has the products of a linear layer for each size MxNxK of PeerGEMM: forward_
// is x[M,K] w[K,N], input_ the gradient of x, weight_ that of w.
func gemm() *ir.Module {
	m := ir.NewModule("gemm")
	for _, s := range PeerGEMM {
		rows, n, k := s[0], s[1], s[2]
		x, w, y := ir.T(ir.F32, rows, k), ir.T(ir.F32, k, n), ir.T(ir.F32, rows, n)
		for _, p := range []struct {
			name           string
			a, b           ir.Type
			transA, transB bool
		}{{"forward", x, w, false, false}, {"input", y, w, false, true}, {"weight", x, y, true, false}} {
			f := m.NewFunc(fmt.Sprintf("%s_%dx%dx%d", p.name, rows, n, k))
			a, b := f.Input("a", p.a), f.Input("b", p.b)
			switch {
			case p.transA:
				a = ops.Transpose(a, 1, 0)
			case p.transB:
				f.Result("c", ops.MatMulT(a, b))
				continue
			}
			f.Result("c", ops.MatMul(a, b))
		}
	}
	return m
}
