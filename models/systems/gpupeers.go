package systems

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/models/system"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

// The system gpupeers holds what tests/gpu times beside PyTorch on a GPU, at the
// paper's sizes and in its precision. Operands and results are stored tensors, so
// that nothing but kernels is timed.

// GPURows is a batch of 8 streams of the paper's 1,280 positions.
const GPURows = 8 * 1280

// GPUStep is the transformer of the whole training step: 16 layers, 1,920 wide.
var GPUStep = dalle.Config{
	TextLen: 256, TextVocab: 16384, GridW: 32, GridH: 32, ImageVocab: 8192,
	Dim: 1920, Heads: 30, Layers: 16, Kernel: 11,
	Batch: 8, SampleBatch: 8, Optimizer: priorOptimizer,
}

// buildGPUPeers makes the modules gemm, attention, rows, block and step.
func buildGPUPeers() ([]*ir.Module, error) {
	step, err := dalle.Build(GPUStep)
	if err != nil {
		return nil, err
	}
	step.Name = "step"
	for i, f := range step.Funcs {
		if f.Name == "train" {
			step.Funcs = step.Funcs[i : i+1]
			break
		}
	}
	block := gpuBlock()
	// PyTorch's autocast computes logits in 16 bits too.
	if err := system.SetPrecision([]*ir.Module{step, block}, "paper,outside=bf16"); err != nil {
		return nil, err
	}
	all := []*ir.Module{gpuGEMM(), gpuAttention(), gpuRows(), block, step}
	for _, m := range all {
		for _, f := range m.Funcs {
			if err := f.Err(); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", m.Name, f.Name, err)
			}
		}
	}
	return all, nil
}

// stored reads a stored tensor of m, declaring it at its first use.
func stored(f *ir.Func, name string, t ir.Type) *ir.Value {
	g := f.Module.Global(name)
	if g == nil {
		g = &ir.Global{Name: name, Type: t, Role: ir.Param, Init: nn.Normal(1)}
		if err := f.Module.AddGlobal(g); err != nil {
			f.Errorf("%v", err)
		}
	}
	return f.Read(g)
}

// keep makes the function store v in the tensor of that name.
func keep(f *ir.Func, name string, v *ir.Value) {
	if !v.Invalid() {
		stored(f, name, v.Type)
		f.Update(f.Module.Global(name), v)
	}
}

// gpuGEMM has products in f16: nn_MxNxK is x[M,K] w[K,N], nt_ has w as [N,K], tn_
// has x as [K,M].
func gpuGEMM() *ir.Module {
	m := ir.NewModule("gemm")
	product := func(form string, rows, cols, k int) {
		f := m.NewFunc(fmt.Sprintf("%s_%dx%dx%d", form, rows, cols, k))
		tensor := func(name string, r, c int) *ir.Value {
			return stored(f, fmt.Sprintf("%s.%dx%d", name, r, c), ir.T(ir.F16, r, c))
		}
		var y *ir.Value
		switch form {
		case "nn":
			y = ops.MatMul(tensor("x", rows, k), tensor("w", k, cols))
		case "nt":
			y = ops.MatMulT(tensor("x", rows, k), tensor("w", cols, k))
		case "tn":
			y = ops.MatMul(ops.Transpose(tensor("x", k, rows), 1, 0), tensor("w", k, cols))
		}
		keep(f, fmt.Sprintf("y.%dx%d", rows, cols), y)
	}
	for _, d := range []int{1920, 2688, 3968} {
		product("nn", GPURows, 4*d, d)
		product("nn", GPURows, d, 4*d)
		product("nn", GPURows, d, d)
		product("nn", GPURows, 3*d, d)
		product("nt", GPURows, d, 4*d)
		product("tn", d, 4*d, GPURows)
	}
	product("nn", 8192, 8192, 8192)
	return m
}

// gpuAttention is attention of 8 x 62 heads of 64 in f16 under each of the
// paper's masks: NAME forward, NAME_train with the gradients.
func gpuAttention() *ir.Module {
	m := ir.NewModule("attention")
	t := ir.T(ir.F16, 8, 1280, 62, 64)
	for _, p := range []struct {
		name string
		mask mask.Mask
	}{{"row", mask.Row(256, 32, 32)}, {"column", mask.Column(256, 32, 32)}, {"conv", mask.Conv(256, 32, 32, 11)}} {
		f := m.NewFunc(p.name)
		qkv := func(f *ir.Func) (q, k, v *ir.Value) { return stored(f, "q", t), stored(f, "k", t), stored(f, "v", t) }
		q, k, v := qkv(f)
		keep(f, "out", ops.Attention(q, k, v, p.mask))

		f = m.NewFunc(p.name + "_train")
		q, k, v = qkv(f)
		out := ops.Attention(q, k, v, p.mask)
		keep(f, "out", out)
		loss := ops.Sum(ops.Cast(ops.Mul(out, stored(f, "d_out", t)), ir.F32))
		for i, g := range ops.Gradient(loss, q, k, v) {
			keep(f, []string{"d_q", "d_k", "d_v"}[i], g)
		}
	}
	return m
}

// gpuRows has what is limited by memory: layer norm with its gradients, the loss
// with its gradients, and AdamW of half a billion parameters.
func gpuRows() *ir.Module {
	m := ir.NewModule("rows")
	for _, d := range []int{1920, 3968} {
		f := m.NewFunc(fmt.Sprintf("layer_norm_%d", d))
		x := stored(f, fmt.Sprintf("x.%d", d), ir.T(ir.F16, GPURows, d))
		s := nn.In(f).Sub("norm%d", d)
		y := ops.Cast(nn.LayerNorm(s, "n", ops.Cast(x, ir.F32), 1e-5), ir.F16)
		keep(f, fmt.Sprintf("y.%d", d), y)
		loss := ops.Sum(ops.Cast(ops.Mul(y, stored(f, fmt.Sprintf("dy.%d", d), y.Type)), ir.F32))
		by := []*ir.Value{x}
		for _, v := range f.Reads() {
			if v.Type.Rank() == 1 {
				by = append(by, v)
			}
		}
		for i, g := range ops.Gradient(loss, by...) {
			keep(f, fmt.Sprintf("d.%d.%d", d, i), g)
		}
	}
	for _, c := range [][2]int{{GPURows, 8192}, {2560, 16384}} {
		f := m.NewFunc(fmt.Sprintf("cross_entropy_%dx%d", c[0], c[1]))
		x := stored(f, fmt.Sprintf("logits.%dx%d", c[0], c[1]), ir.T(ir.F16, c[0], c[1]))
		loss := nn.CrossEntropy(ops.Cast(x, ir.F32), f.Input("classes", ir.T(ir.I32, c[0])))
		f.Result("loss", loss)
		keep(f, fmt.Sprintf("d_logits.%dx%d", c[0], c[1]), ops.Gradient(loss, x)[0])
	}
	f := m.NewFunc("adamw")
	p := stored(f, "adam.p", ir.T(ir.F32, 128, 1920, 2048))
	g := stored(f, "adam.g", p.Type)
	mean, variance := stored(f, "adam.m", p.Type), stored(f, "adam.v", p.Type)
	m1 := ops.Add(ops.MulConst(mean, 0.9), ops.MulConst(g, 0.1))
	v1 := ops.Add(ops.MulConst(ops.Abs(variance), 0.96), ops.MulConst(ops.Square(g), 0.04))
	move := ops.Add(ops.Div(m1, ops.AddConst(ops.Sqrt(v1), 1e-8)), ops.MulConst(p, 4.5e-2))
	keep(f, "adam.m", m1)
	keep(f, "adam.v", v1)
	keep(f, "adam.p", ops.Sub(p, ops.MulConst(move, 1e-4)))
	return m
}

// gpuBlock is one layer of GPUStep with its gradients.
func gpuBlock() *ir.Module {
	m := ir.NewModule("block")
	f := m.NewFunc("train")
	c := GPUStep
	x := stored(f, "x", ir.T(ir.F32, GPURows, c.Dim))
	y := nn.SparseTransformer(c.Dim, c.Heads, c.Layers, c.MLP).Apply(nn.In(f), 0, 8, x, nn.Masked(mask.Row(c.TextLen, c.GridW, c.GridH)))
	loss := ops.Sum(ops.Mul(y, stored(f, "dy", y.Type)))
	var by []*ir.Value
	for _, v := range f.Reads() {
		if v.Global.Name != "dy" && v.Global.Role == ir.Param {
			by = append(by, v)
		}
	}
	for i, g := range ops.Gradient(loss, by...) {
		keep(f, fmt.Sprintf("d.%d", i), g)
	}
	return m
}
