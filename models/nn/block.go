package nn

import (
	"cmp"
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

// Block is a pre-norm transformer layer: two resblocks, x + attention(LN(x))
// and x + MLP(LN(x)) with quick GELU.
type Block struct {
	Dim, Heads int
	MLP        int // width of the MLP in multiples of Dim; 0 is MLPWidth
	// Standard deviations of the weights: of query, key and value; of the
	// attention's output; of the first and second MLP matrix.
	QKV, Out, In, Back float64
	Eps                float64 // of the layer norms; 0 is 1e-5
}

func (c Block) hidden() int { return cmp.Or(c.MLP, MLPWidth) * c.Dim }

// Attend is what a block does with queries, keys and values [B,T,H,D].
type Attend func(q, k, v *ir.Value) *ir.Value

// Masked attends within the sequence under m.
func Masked(m mask.Mask) Attend {
	return func(q, k, v *ir.Value) *ir.Value { return ops.Attention(q, k, v, m) }
}

// Apply runs layer i over x[batch*T, Dim]. Parameters are LAYER.attn.* and
// LAYER.mlp.* with LAYER = layer<i>; the regions are attn<i> and mlp<i>, with
// the scope's name before them.
func (c Block) Apply(s Scope, i, batch int, x *ir.Value, attend Attend) *ir.Value {
	eps := c.Eps
	if eps == 0 {
		eps = 1e-5
	}
	f, l := s.Func, s.Sub("layer%d", i)
	f.Region(fmt.Sprintf("%sattn%d", s.prefix, i), true, func() {
		n := LayerNorm(l, "attn.norm", x, eps)
		qkv := Linear(l, "attn.qkv", n, 3*c.Dim, c.QKV)
		if qkv.Invalid() {
			x = qkv
			return
		}
		rows := qkv.Type.Shape[0]
		var part [3]*ir.Value
		for j := range part {
			p := ops.SliceAxis(qkv, 1, j*c.Dim, (j+1)*c.Dim)
			part[j] = ops.Reshape(p, batch, rows/batch, c.Heads, c.Dim/c.Heads)
		}
		a := ops.Reshape(attend(part[0], part[1], part[2]), rows, c.Dim)
		x = ops.Add(x, Linear(l, "attn.out", a, c.Dim, c.Out))
	})
	f.Region(fmt.Sprintf("%smlp%d", s.prefix, i), true, func() {
		n := LayerNorm(l, "mlp.norm", x, eps)
		h := ops.QuickGELU(Linear(l, "mlp.in", n, c.hidden(), c.In))
		x = ops.Add(x, Linear(l, "mlp.out", h, c.Dim, c.Back))
	})
	return x
}

// MLPWidth is how many times as wide as its input an MLP is where nothing else is
// said: the paper's 4 (appendix E.1), which is CLIP's too.
const MLPWidth = 4

// SparseTransformer gives the block the initialisation of the DALL-E line of
// code: std sqrt(0.125/fan_in), the two matrices that end a resblock smaller
// by 1/sqrt(2*layers). mlp is the width of the MLP in multiples of dim, 0 for
// MLPWidth.
func SparseTransformer(dim, heads, layers, mlp int) Block {
	std := func(fanIn int) float64 { return math.Sqrt(0.125 / float64(fanIn)) }
	shrink := 1 / math.Sqrt(float64(2*layers))
	c := Block{Dim: dim, Heads: heads, MLP: mlp, QKV: std(dim), Out: std(dim) * shrink, In: std(dim)}
	c.Back = std(c.hidden()) * shrink
	return c
}

// CLIPTransformer gives the block CLIP's initialisation: d^-1/2 for queries,
// keys and values, (2d)^-1/2 for the first MLP matrix, d^-1/2 (2L)^-1/2 for
// the two matrices that end a resblock. mlp is as for SparseTransformer.
func CLIPTransformer(dim, heads, layers, mlp int) Block {
	d := float64(dim)
	end := 1 / math.Sqrt(d*2*float64(layers))
	return Block{Dim: dim, Heads: heads, MLP: mlp, QKV: 1 / math.Sqrt(d), Out: end, In: 1 / math.Sqrt(2*d), Back: end}
}
