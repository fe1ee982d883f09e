package cpu

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

type attentionCase struct {
	m          mask.Mask
	b, t, h, d int
	dtype      ir.DType
}

var attentionCases = []attentionCase{
	{mask.All(), 1, 1, 1, 1, ir.F32},
	{mask.Causal(), 2, 7, 2, 3, ir.F32},
	{mask.All(), 1, 64, 1, 64, ir.F32},
	{mask.Causal(), 2, 100, 2, 16, ir.F32},
	{mask.Row(20, 8, 8), 1, mask.Len(20, 8, 8), 2, 40, ir.F32},
	{mask.Column(32, 8, 8), 1, mask.Len(32, 8, 8), 1, 8, ir.F16},
	{mask.Conv(16, 8, 8, 3), 1, mask.Len(16, 8, 8), 3, 33, ir.BF16},
	{mask.Conv(3, 4, 4, 3), 2, mask.Len(3, 4, 4), 1, 96, ir.F32},
	{mask.Column(3, 8, 8), 1, mask.Len(3, 8, 8), 2, 13, ir.F32},
	{mask.Row(1, 4, 4), 2, 7, 1, 128, ir.F32},
	{mask.Column(4, 4, 3), 1, 16, 2, 64, ir.BF16},
	{mask.Causal(), 1, 33, 2, 130, ir.F32},
	{mask.All(), 1, 33, 1, 31, ir.F16},
	{mask.Causal().And(mask.Prefix(2).Or(mask.RowWindow(3))).Or(mask.Prefix(1)), 1, 67, 1, 48, ir.F32},
}

// attentionForms are the templates, attention_bwd in both of its forms.
var attentionForms = []string{"attention_fwd", "attention_bwd", "attention_bwd given delta", "attention_decode"}

// attentionKernel builds template name for c; its table argument holds data.
func (c attentionCase) kernel(name string) (*kern.Kernel, func(b, i int, r *rand.Rand) float64) {
	x, row := ir.T(c.dtype, c.b, c.t, c.h, c.d), ir.T(ir.F32, c.b, c.h, c.t)
	scale := 1 / math.Sqrt(float64(c.d))
	data := mask.Blocks(c.m, c.t)
	tableAt, rows := 6, true
	var k *kern.Kernel
	table := func() ir.Type { return ir.T(ir.I32, len(data)) }
	switch name {
	case "attention_fwd":
		tableAt, rows = 3, false
		k = ops.AttentionOp{Mask: c.m, Scale: scale}.Kernel([]ir.Type{x, x, x, table()}, []ir.Type{x, row})
	case "attention_bwd":
		k = ops.AttentionGradOp{Mask: c.m, Scale: scale}.Kernel([]ir.Type{x, x, x, x, x, row, table()}, []ir.Type{x, x, x, row})
	case "attention_bwd given delta":
		k = ops.AttentionGradOp{Mask: c.m, Scale: scale, Given: true}.Kernel([]ir.Type{x, x, x, x, row, row, table()}, []ir.Type{x, x, x})
		k.Name += "_given"
	case "attention_decode":
		data = mask.Keys(c.m, c.t)
		tableAt, rows = 4, false
		one := x.With(c.b, 1, c.h, c.d)
		k = ops.AttentionDecodeOp{Mask: c.m, Scale: scale, Prefix: c.t / 3}.Kernel([]ir.Type{one, x, x, ir.T(ir.I32), table(), ir.T(ir.I32, c.b)}, []ir.Type{one})
	}
	return chunked(k), func(b, i int, r *rand.Rand) float64 {
		switch {
		case b == tableAt:
			return float64(data[i])
		case k.Bufs[b].Name == "from":
			return float64((i + 1) % c.b)
		case k.Bufs[b].DType == ir.I32:
			return float64(2 * (c.t - 1) / 3)
		case rows && b == 5: // lse
			return 2 + r.Float64()
		}
		return r.NormFloat64()
	}
}

func TestAttentionAgreesWithTheEvaluator(t *testing.T) {
	var ss []sample
	for _, name := range attentionForms {
		for _, c := range attentionCases {
			k, fill := c.kernel(name)
			ss = append(ss, sample{k: k, fill: fill})
			k, fill = c.kernel(name)
			ss = append(ss, spread(k, fill))
		}
	}
	check(t, ss)
}

// spread moves the rows of k's operands apart in larger buffers, those of a cache of
// values less far than those of keys, and the elements of delta; what lies between
// them must stay as it is.
func spread(k *kern.Kernel, fill func(b, i int, r *rand.Rand) float64) sample {
	k.Name += "_spread"
	for i := range k.Bufs {
		if k.Bufs[i].DType == ir.I32 {
			continue
		}
		v, by := &k.Template.Views[i], 3
		if k.Template.Name == "attention_decode" && i == 2 {
			by = 2
		}
		for d := range v.Strides {
			if d+1 < len(v.Strides) || k.Bufs[i].Name == "delta" {
				v.Strides[d] *= by
			}
		}
		v.Offset = 5
		k.Bufs[i].Len = 3*k.Bufs[i].Len + 5
		if k.Bufs[i].Mode == kern.Out {
			k.Bufs[i].Mode = kern.InOut
		}
	}
	return sample{k: k, fill: fill}
}

// The generator has its own names for what tables are made of.
func TestAttentionKnowsTheTables(t *testing.T) {
	if mask.Lanes != laneCount || mask.Span != span || mask.EntryWords != entryWords {
		t.Errorf("tables have blocks of %d and entries of %d keys in %d words, the generator %d, %d and %d", mask.Lanes, mask.Span, mask.EntryWords, laneCount, span, entryWords)
	}
}
