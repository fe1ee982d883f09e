package nn

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

// Block is a pre-norm transformer layer: two resblocks, x + attention(LN(x))
// and x + MLP(LN(x)), the MLP four times as wide with quick GELU.
type Block struct {
	Dim, Heads int
	// Standard deviations of the weights: of query, key and value; of the
	// attention's output; of the first and second MLP matrix.
	QKV, Out, In, Back float64
	Eps                float64 // of the layer norms; 0 is 1e-5
}

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
		h := ops.QuickGELU(Linear(l, "mlp.in", n, 4*c.Dim, c.In))
		x = ops.Add(x, Linear(l, "mlp.out", h, c.Dim, c.Back))
	})
	return x
}

// SparseTransformer gives the block the initialisation of the DALL-E line of
// code: std sqrt(0.125/fan_in), the two matrices that end a resblock smaller
// by 1/sqrt(2*layers).
func SparseTransformer(dim, heads, layers int) Block {
	d, shrink := float64(dim), 1/math.Sqrt(float64(2*layers))
	in := math.Sqrt(0.125 / d)
	return Block{Dim: dim, Heads: heads, QKV: in, Out: in * shrink, In: in, Back: math.Sqrt(0.125/(4*d)) * shrink}
}

// CLIPTransformer gives the block CLIP's initialisation: d^-1/2 for queries,
// keys and values, (2d)^-1/2 for the first MLP matrix, d^-1/2 (2L)^-1/2 for
// the two matrices that end a resblock.
func CLIPTransformer(dim, heads, layers int) Block {
	d := float64(dim)
	end := 1 / math.Sqrt(d*2*float64(layers))
	return Block{Dim: dim, Heads: heads, QKV: 1 / math.Sqrt(d), Out: end, In: 1 / math.Sqrt(2*d), Back: end}
}
