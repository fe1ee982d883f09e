package cuda_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/cuda/emu"
	"github.com/gouache-ml/gouache/codegen/cuda/ptx/ptxas"
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
	{mask.Causal(), 2, 50, 2, 64, ir.F16, "dense"},
	{mask.Causal(), 2, 70, 2, 64, ir.F16, "dense"},
	{mask.Causal(), 1, 200, 1, 64, ir.BF16, "fused"},
	{mask.Row(70, 8, 16), 1, mask.Len(70, 8, 16), 2, 64, ir.F16, "fused"},
	{mask.Column(70, 8, 16), 2, mask.Len(70, 8, 16), 1, 64, ir.F16, "dense"},
	{mask.Conv(70, 16, 12, 5), 1, mask.Len(70, 16, 12), 1, 64, ir.F16, "fused"},
	{mask.Row(33, 8, 8), 1, mask.Len(33, 8, 8), 2, 32, ir.BF16, "dense"},
	{mask.Conv(33, 8, 8, 3), 1, mask.Len(33, 8, 8), 1, 48, ir.F16, "dense"},
	{mask.All(), 1, 130, 1, 128, ir.F16, "fused"},
	{mask.Column(20, 8, 16), 1, mask.Len(20, 8, 16), 1, 96, ir.BF16, "dense"},
	{mask.Row(70, 8, 8), 1, mask.Len(70, 8, 8), 2, 128, ir.F16, "dense"},
	{mask.Conv(20, 8, 8, 3), 1, mask.Len(20, 8, 8), 1, 112, ir.F16, "fused"},
	{mask.Prefix(3), 1, 90, 1, 32, ir.F16, "dense"}, // most keys have no query
	{mask.Causal(), 1, 75, 2, 64, ir.F16, "spread"},
	{mask.Row(20, 8, 8), 2, mask.Len(20, 8, 8), 2, 32, ir.F32, "fused"},
	{mask.Conv(40, 8, 8, 3), 1, mask.Len(40, 8, 8), 3, 33, ir.BF16, "dense"},
	{mask.Column(40, 8, 8), 1, mask.Len(40, 8, 8), 1, 64, ir.F32, "dense"},
	{mask.Causal(), 1, 200, 1, 3, ir.F32, "spread"},
	{mask.Prefix(3), 1, 90, 1, 20, ir.F32, "dense"},
	{mask.All(), 1, 67, 1, 130, ir.F32, "dense"},
	{mask.Causal(), 1, 40, 1, 256, ir.F16, "dense"},
	{mask.Row(9, 4, 4), 12, 25, 22, 4, ir.F32, "dense"}, // enough heads for the largest blocks
}

// worst is how far what is written may be from the evaluator, relative to the
// largest magnitude of its buffer: 1.5 times what was measured over all cases
// and targets, which stands beside it.
var worst = map[string]map[ir.DType]float64{
	"attention_fwd": {
		ir.F32:  8.6e-7, // 5.7e-7
		ir.F16:  6.8e-4, // 4.5e-4: half a unit in the last place is 4.9e-4
		ir.BF16: 4.1e-3, // 2.7e-3
	},
	"attention_bwd": {
		ir.F32:  1.5e-6, // 9.6e-7
		ir.F16:  9.2e-4, // 6.1e-4
		ir.BF16: 4.8e-3, // 3.2e-3
	},
	"attention_bwd given delta": {
		ir.F32:  1.5e-6, // 9.6e-7
		ir.F16:  9.2e-4, // 6.1e-4
		ir.BF16: 4.8e-3, // 3.2e-3
	},
	"attention_decode": {
		ir.F32:  2.7e-7, // 1.8e-7
		ir.F16:  5.3e-4, // 3.5e-4
		ir.BF16: 4.4e-3, // 2.9e-3
	},
}

// attentionForms are the templates, attention_bwd in both of its forms.
var attentionForms = []string{"attention_fwd", "attention_bwd", "attention_bwd given delta", "attention_decode"}

// targets are those that c's kernels differ on: matrix units differ, and
// kernels without them but in the assembler.
func (c attentionCase) targets(i int) []*cuda.Target {
	all := cuda.Targets()
	switch {
	case c.dtype == ir.F32 || c.d%16 != 0 || c.layout == "spread":
		return all[i%3 : i%3+1]
	case c.dtype == ir.BF16 && c.t > 100:
		return all[:2]
	}
	return all
}

func (c attentionCase) types() (x, one, row ir.Type) {
	return ir.T(c.dtype, c.b, c.t, c.h, c.d), ir.T(c.dtype, c.b, 1, c.h, c.d), ir.T(ir.F32, c.b, c.h, c.t)
}

// shell is a template's kernel on tensors of their own.
func (c attentionCase) shell(name string) *kern.Kernel {
	x, one, row := c.types()
	scale := 1 / math.Sqrt(float64(c.d))
	table := func(data []int32) ir.Type { return ir.T(ir.I32, len(data)) }
	switch name {
	case "attention_fwd":
		return ops.AttentionOp{Mask: c.m, Scale: scale}.Kernel([]ir.Type{x, x, x, table(mask.Blocks(c.m, c.t))}, []ir.Type{x, row})
	case "attention_bwd":
		return ops.AttentionGradOp{Mask: c.m, Scale: scale}.Kernel([]ir.Type{x, x, x, x, x, row, table(mask.Blocks(c.m, c.t))}, []ir.Type{x, x, x, row})
	case "attention_bwd given delta":
		return ops.AttentionGradOp{Mask: c.m, Scale: scale, Given: true}.Kernel([]ir.Type{x, x, x, x, row, row, table(mask.Blocks(c.m, c.t))}, []ir.Type{x, x, x})
	}
	return ops.AttentionDecodeOp{Mask: c.m, Scale: scale, Prefix: c.t / 3}.Kernel([]ir.Type{one, x, x, ir.T(ir.I32), table(mask.Keys(c.m, c.t)), ir.T(ir.I32, c.b)}, []ir.Type{one})
}

// contents are for the operands of shell.
func (c attentionCase) contents(name string) [][]float64 {
	r := rand.New(rand.NewPCG(3, 4))
	x, one, row := c.types()
	blocks, keys := mask.Blocks(c.m, c.t), mask.Keys(c.m, c.t)
	stored := func(t ir.Type, x []float64) []float64 {
		out := make([]float64, len(x))
		f, small := t.DType.Format()
		for i := range out {
			out[i] = float64(float32(x[i]))
			if small {
				out[i] = float64(f.Round(float32(out[i])))
			}
		}
		return out
	}
	random := func(t ir.Type) []float64 {
		out := make([]float64, t.Len())
		for i := range out {
			out[i] = r.NormFloat64()
		}
		return stored(t, out)
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
		return [][]float64{random(x), random(x), random(x), words(blocks), zeros(x), zeros(row)}
	case "attention_bwd", "attention_bwd given delta":
		// out, lse and delta as the forward pass gives them.
		data := c.contents("attention_fwd")
		if err := kern.Eval(c.shell("attention_fwd"), data); err != nil {
			panic(err)
		}
		do, out, lse, delta := random(x), stored(x, data[4]), data[5], make([]float64, row.Len())
		for b := range c.b {
			for t := range c.t {
				for h := range c.h {
					for d := range c.d {
						at := ((b*c.t+t)*c.h+h)*c.d + d
						delta[(b*c.h+h)*c.t+t] += do[at] * out[at]
					}
				}
			}
		}
		for i := range lse {
			lse[i], delta[i] = float64(float32(lse[i])), float64(float32(delta[i]))
		}
		if name == "attention_bwd" {
			return [][]float64{data[0], data[1], data[2], do, out, lse, data[3], zeros(x), zeros(x), zeros(x), zeros(row)}
		}
		return [][]float64{data[0], data[1], data[2], do, delta, lse, data[3], zeros(x), zeros(x), zeros(x)}
	}
	from := make([]float64, c.b)
	for b := range from {
		from[b] = float64((b + 1) % c.b)
	}
	return [][]float64{random(one), random(x), random(x), {float64(2 * (c.t - 1) / 3)}, words(keys), from, zeros(one)}
}

// kernel is shell with the operands at their places, and their contents.
func (c attentionCase) kernel(name string) (*kern.Kernel, [][]float64) {
	k, data := c.shell(name), c.contents(name)
	switch c.layout {
	case "fused":
		fuse(k, data, 0, 1, 2)
		switch name {
		case "attention_bwd":
			fuse(k, data, 7, 8, 9)
			fuse(k, data, 3, 4) // out and its gradient, which may lie anywhere too
		case "attention_bwd given delta":
			fuse(k, data, 7, 8, 9)
			// delta is the transpose of [B,T,H].
			turned := make([]float64, len(data[4]))
			for b := range c.b {
				for t := range c.t {
					for h := range c.h {
						turned[(b*c.t+t)*c.h+h] = data[4][(b*c.h+h)*c.t+t]
					}
				}
			}
			data[4], k.Template.Views[4].Strides = turned, []int{c.t * c.h, 1, c.h}
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
	// In programs, axes of extent 1 have stride 1.
	for i := range k.Template.Views {
		v := &k.Template.Views[i]
		extents := []int{c.b, c.t, c.h, c.d}
		switch {
		case len(v.Strides) == 3:
			extents = []int{c.b, c.h, c.t}
		case name == "attention_decode" && (i == 0 || i == 6):
			extents[1] = 1
		}
		for d := range v.Strides {
			if len(v.Strides) > 1 && extents[d] == 1 {
				v.Strides[d] = 1
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
	for i, c := range attentionCases {
		for _, name := range attentionForms {
			t.Run(fmt.Sprintf("%s/%s", name, c), func(t *testing.T) {
				k, want := c.kernel(name)
				if err := kern.Eval(k, want); err != nil {
					t.Fatal(err)
				}
				for _, target := range c.targets(i) {
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
						e := c.compare(t, target, k, got, want, worst[name][c.dtype])
						key := fmt.Sprintf("%s %s", name, c.dtype)
						measured[key] = max(measured[key], e)
						if seed > 0 && !reflect.DeepEqual(got, first) {
							t.Errorf("%s: other bits under another schedule", target.Name)
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

// compare wants what k writes to be at most so far from what it should be.
func (c attentionCase) compare(t *testing.T, target *cuda.Target, k *kern.Kernel, got, want [][]float64, most float64) float64 {
	t.Helper()
	all := 0.0
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
		}
		if !(diff <= most*size) {
			t.Errorf("%s: %s: element %d is %v, want %v", target.Name, b.Name, at, got[i][at], want[i][at])
		}
		all = max(all, diff/size)
	}
	return all
}

// Operands of 16 bits whose rows are aligned are multiplied by matrix instructions, if
// the target has any for them, and read 16 bytes at a time. sm_70 has room for what a
// block needs.
func TestAttentionUsesMatrixUnits(t *testing.T) {
	for _, c := range attentionCases {
		for _, name := range attentionForms {
			for _, target := range cuda.Targets() {
				k, _ := c.kernel(name)
				text, entries, err := cuda.Text(k, target, false)
				if err != nil {
					t.Fatal(err)
				}
				units := c.dtype != ir.F32 && c.d%16 == 0 && c.d <= 128 && c.layout != "spread" &&
					!(c.dtype == ir.BF16 && target.Name == "sm_70")
				want := "ld.global.v4.b32"
				if name != "attention_decode" {
					want = map[string]string{"wgmma": "wgmma.mma_async", "mma": "mma.sync.aligned.m16n8k16", "m8n8k4": "mma.sync.aligned.m8n8k4"}[target.Tensor]
					if target.Tensor == "wgmma" && c.d%64 != 0 {
						want = "mma.sync.aligned.m16n8k16"
					}
				}
				for i, body := range strings.Split(text, ".entry ")[1:] {
					if n := entries[i].Shared; target.Name == "sm_70" && n > 96<<10 {
						t.Errorf("%s: %s: %s: %d bytes of shared memory", target.Name, c, entries[i].Name, n)
					}
					if units && !strings.Contains(body, want) {
						t.Errorf("%s: %s: %s: no %s", target.Name, c, entries[i].Name, want)
					}
					if !units && strings.Contains(body, "mma") {
						t.Errorf("%s: %s: %s multiplies by matrix instructions", target.Name, c, entries[i].Name)
					}
				}
			}
		}
	}
}

// Keys that are masked have no weight, however large their scores.
func TestAttentionIgnoresWhatIsMasked(t *testing.T) {
	for _, dtype := range []ir.DType{ir.F16, ir.F32} {
		c := attentionCase{mask.Causal(), 1, 70, 1, 64, dtype, "dense"}
		k, want := c.kernel("attention_fwd")
		_, got := c.kernel("attention_fwd")
		if err := kern.Eval(k, want); err != nil {
			t.Fatal(err)
		}
		// Scores of the last key are huge, for which no query but the last has a
		// use.
		last := (c.t - 1) * c.d
		for d := range c.d {
			want[1][last+d] = 60000
			got[1][last+d] = 60000
		}
		for _, target := range cuda.Targets() {
			x, err := emu.Compile(k, target)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := x.Run(simt.Options{Seed: 1, Check: true}, got); err != nil {
				t.Fatal(err)
			}
			for i := range last {
				if !(math.Abs(got[4][i]-want[4][i]) < 0.01) {
					t.Fatalf("%s: %s: element %d is %v, want %v", target.Name, dtype, i, got[4][i], want[4][i])
				}
			}
		}
	}
}

// Registers of the assembler's choice must suffice: for the paper's streams of
// 256 text and 32x32 image tokens in 62 heads of 64 elements, a batch of 8, and
// for half of the cases.
func TestAttentionFitsRegisters(t *testing.T) {
	tool := ptxas.Need(t)
	var ks []*kern.Kernel
	for _, name := range attentionForms {
		for _, dtype := range []ir.DType{ir.F16, ir.F32} {
			c := attentionCase{mask.Row(256, 32, 32), 8, mask.Len(256, 32, 32), 62, 64, dtype, "dense"}
			ks = append(ks, c.shell(name))
		}
		for i, c := range attentionCases {
			if c.d == 64 || i%2 == 1 {
				k, _ := c.kernel(name)
				ks = append(ks, k)
			}
		}
	}
	for _, target := range cuda.Targets() {
		for _, k := range ks {
			text, _, err := cuda.Text(k, target, false)
			if err != nil {
				t.Fatal(err)
			}
			reports, err := tool.Assemble(text, target.Name)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range reports {
				if err := r.Check(); err != nil {
					t.Errorf("%s: %v\n%s", target.Name, err, k)
				}
			}
		}
	}
}
