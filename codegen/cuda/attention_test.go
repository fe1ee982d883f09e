package cuda_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/cuda/emu"
	"github.com/gouache-ml/gouache/codegen/cuda/simt"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

// attentionCase is a size and where operands lie.
type attentionCase struct {
	m          mask.Mask
	b, t, h, d int
	dtype      ir.DType
	layout     string // dense; fused: parts of one projection; spread: rows apart, not at multiples of 16 bytes
}

func (c attentionCase) String() string {
	return fmt.Sprintf("%s_%dx%dx%dx%d_%s_%s", c.m, c.b, c.t, c.h, c.d, c.dtype, c.layout)
}

var attentionCases = []attentionCase{
	{mask.All(), 1, 1, 1, 16, ir.F16, "dense"},
	{mask.Causal(), 2, 70, 2, 64, ir.F16, "dense"},
	{mask.Causal(), 1, 200, 1, 64, ir.BF16, "fused"},
	{mask.Row(70, 8, 16), 1, mask.Len(70, 8, 16), 2, 64, ir.F16, "fused"},
	{mask.Column(70, 8, 16), 2, mask.Len(70, 8, 16), 1, 64, ir.F16, "dense"},
	{mask.Conv(70, 16, 12, 5), 1, mask.Len(70, 16, 12), 1, 64, ir.F16, "fused"},
	{mask.Row(33, 8, 8), 1, mask.Len(33, 8, 8), 2, 32, ir.BF16, "dense"},
	{mask.Conv(33, 8, 8, 3), 1, mask.Len(33, 8, 8), 1, 48, ir.F16, "dense"},
	{mask.All(), 1, 130, 1, 128, ir.F16, "fused"},
	{mask.Column(20, 8, 16), 1, mask.Len(20, 8, 16), 1, 96, ir.BF16, "dense"},
	{mask.Prefix(3), 1, 90, 1, 32, ir.F16, "dense"}, // most keys have no query
	{mask.Causal(), 1, 75, 2, 64, ir.F16, "spread"},
	{mask.Row(20, 8, 8), 2, mask.Len(20, 8, 8), 2, 32, ir.F32, "fused"},
	{mask.Conv(40, 8, 8, 3), 1, mask.Len(40, 8, 8), 3, 33, ir.BF16, "dense"},
	{mask.Column(40, 8, 8), 1, mask.Len(40, 8, 8), 1, 64, ir.F32, "dense"},
	{mask.Causal(), 1, 200, 1, 3, ir.F32, "spread"},
	{mask.Prefix(3), 1, 90, 1, 20, ir.F32, "dense"},
	{mask.All(), 1, 67, 1, 130, ir.F32, "dense"},
	{mask.Causal(), 1, 40, 1, 256, ir.F16, "dense"},
	{mask.Row(33, 8, 8), 100, 41, 3, 8, ir.F32, "dense"}, // enough heads for the largest blocks
}

// worst is how far an operand may be from the evaluator, relative to its largest
// magnitude: 1.5 times what was measured over all cases and targets.
var worst = map[string]map[ir.DType]float64{
	"attention_fwd":    {ir.F32: 1, ir.F16: 1, ir.BF16: 1},
	"attention_bwd":    {ir.F32: 1, ir.F16: 1, ir.BF16: 1},
	"attention_decode": {ir.F32: 1, ir.F16: 1, ir.BF16: 1},
}

// dense is a template's kernel with contents for its operands, one slice each.
func (c attentionCase) dense(name string) (*kern.Kernel, [][]float64) {
	r := rand.New(rand.NewPCG(3, 4))
	x, row := ir.T(c.dtype, c.b, c.t, c.h, c.d), ir.T(ir.F32, c.b, c.h, c.t)
	one := x.With(c.b, 1, c.h, c.d)
	scale := 1 / math.Sqrt(float64(c.d))
	blocks, keys := mask.Blocks(c.m, c.t), mask.Keys(c.m, c.t)
	table := func(data []int32) ir.Type { return ir.T(ir.I32, len(data)) }
	random := func(t ir.Type) []float64 {
		out := make([]float64, t.Len())
		f, small := t.DType.Format()
		for i := range out {
			out[i] = float64(float32(r.NormFloat64()))
			if small {
				out[i] = float64(f.Round(float32(out[i])))
			}
		}
		return out
	}
	words := func(data []int32) []float64 {
		out := make([]float64, len(data))
		for i, w := range data {
			out[i] = float64(w)
		}
		return out
	}
	zeros := func(t ir.Type) []float64 { return make([]float64, t.Len()) }
	switch name {
	case "attention_fwd":
		k := ops.AttentionOp{Mask: c.m, Scale: scale}.Kernel([]ir.Type{x, x, x, table(blocks)}, []ir.Type{x, row})
		return k, [][]float64{random(x), random(x), random(x), words(blocks), zeros(x), zeros(row)}
	case "attention_bwd":
		k := ops.AttentionGradOp{Mask: c.m, Scale: scale}.Kernel([]ir.Type{x, x, x, x, row, row, table(blocks)}, []ir.Type{x, x, x})
		// lse and delta as the forward pass gives them.
		f, data := c.dense("attention_fwd")
		if err := kern.Eval(f, data); err != nil {
			panic(err)
		}
		do, lse, delta := random(x), data[5], make([]float64, row.Len())
		for b := range c.b {
			for t := range c.t {
				for h := range c.h {
					for d := range c.d {
						at := ((b*c.t+t)*c.h+h)*c.d + d
						delta[(b*c.h+h)*c.t+t] += do[at] * data[4][at]
					}
				}
			}
		}
		for i := range lse {
			lse[i], delta[i] = float64(float32(lse[i])), float64(float32(delta[i]))
		}
		return k, [][]float64{data[0], data[1], data[2], do, lse, delta, data[3], zeros(x), zeros(x), zeros(x)}
	}
	k := ops.AttentionDecodeOp{Mask: c.m, Scale: scale}.Kernel([]ir.Type{one, x, x, ir.T(ir.I32), table(keys)}, []ir.Type{one})
	return k, [][]float64{random(one), random(x), random(x), {float64(2 * (c.t - 1) / 3)}, words(keys), zeros(one)}
}

// kernel is dense with the operands at their places.
func (c attentionCase) kernel(name string) (*kern.Kernel, [][]float64) {
	k, data := c.dense(name)
	switch c.layout {
	case "fused":
		fuse(k, data, 0, 1, 2)
		if name == "attention_bwd" {
			fuse(k, data, 7, 8, 9)
			// delta is the transpose of [B,T,H].
			turned := make([]float64, len(data[5]))
			for b := range c.b {
				for t := range c.t {
					for h := range c.h {
						turned[(b*c.t+t)*c.h+h] = data[5][(b*c.h+h)*c.t+t]
					}
				}
			}
			data[5], k.Template.Views[5].Strides = turned, []int{c.t * c.h, 1, c.h}
		}
	case "spread":
		for i := range k.Bufs {
			b, v := &k.Bufs[i], &k.Template.Views[i]
			if b.DType == ir.I32 {
				continue
			}
			for d := range v.Strides {
				if d+1 < len(v.Strides) || b.Name == "delta" {
					v.Strides[d] *= 3
				}
			}
			v.Offset = 5
			wide := make([]float64, 3*b.Len+5)
			for j, x := range data[i] {
				at := 5 + 3*j
				if n := v.Strides[len(v.Strides)-1]; n == 1 {
					inner := c.d
					if len(v.Strides) == 3 {
						inner = c.t
					}
					at = 5 + j/inner*inner*3 + j%inner
				}
				wide[at] = x
			}
			data[i], b.Len = wide, len(wide)
			if b.Mode == kern.Out {
				b.Mode = kern.InOut
			}
		}
	}
	// Drop the buffers that nothing lies in any more.
	var bufs []kern.Buf
	var left [][]float64
	number := map[int]int{}
	for i := range k.Template.Views {
		v := &k.Template.Views[i]
		n, ok := number[v.Buf]
		if !ok {
			n = len(bufs)
			number[v.Buf] = n
			bufs, left = append(bufs, k.Bufs[v.Buf]), append(left, data[v.Buf])
		}
		v.Buf = n
	}
	k.Bufs = bufs
	return k, left
}

// fuse makes operands [B,T,H,D], of which the first may have another T, one
// buffer in the place of the first if all are alike, else of the second.
func fuse(k *kern.Kernel, data [][]float64, operands ...int) {
	if k.Bufs[operands[0]].Len != k.Bufs[operands[1]].Len {
		operands = operands[1:] // the query of a decoder
	}
	first := operands[0]
	v := k.Template.Views[first]
	b, t, row := k.Bufs[first].Len/v.Strides[0], v.Strides[0]/v.Strides[1], v.Strides[1]
	n := len(operands)
	out := make([]float64, n*b*t*row)
	for i, op := range operands {
		for j, x := range data[op] {
			out[j/row*n*row+i*row+j%row] = x
		}
		k.Template.Views[op] = kern.View{Buf: first, Offset: i * row, Strides: []int{n * t * row, n * row, v.Strides[2], 1}}
	}
	data[first], k.Bufs[first].Len = out, len(out)
}

func TestAttentionAgreesWithTheEvaluator(t *testing.T) {
	measured := map[string]float64{}
	for _, c := range attentionCases {
		for _, name := range []string{"attention_fwd", "attention_bwd", "attention_decode"} {
			t.Run(fmt.Sprintf("%s/%s", name, c), func(t *testing.T) {
				k, want := c.kernel(name)
				if err := kern.Eval(k, want); err != nil {
					t.Fatal(err)
				}
				for _, target := range cuda.Targets() {
					x, err := emu.Compile(k, target)
					if err != nil {
						t.Fatal(err)
					}
					var first [][]float64
					for seed := range int64(2) {
						_, got := c.kernel(name)
						if _, err := x.Run(simt.Options{Seed: seed + 1, Check: true}, got); err != nil {
							t.Fatalf("%s: %v", target.Name, err)
						}
						key := fmt.Sprintf("%s %s", name, c.dtype)
						for i, b := range k.Bufs {
							if b.Mode == kern.In {
								continue
							}
							size, diff, at := 1e-3, 0.0, 0 // gradients of the one key's scores are 0
							for j, w := range want[i] {
								size = max(size, math.Abs(w))
								if e := math.Abs(got[i][j] - w); !(e <= diff) {
									diff, at = e, j
								}
								if first != nil && got[i][j] != first[i][j] {
									t.Fatalf("%s: %s has other bits under another schedule", target.Name, b.Name)
								}
							}
							if !(diff <= worst[name][c.dtype]*size) {
								t.Errorf("%s: %s: element %d is %v, want %v", target.Name, b.Name, at, got[i][at], want[i][at])
							}
							measured[key] = max(measured[key], diff/size)
						}
						first = got
					}
				}
			})
		}
	}
	for key, e := range measured {
		t.Logf("%s: %.2g", key, e)
	}
}
