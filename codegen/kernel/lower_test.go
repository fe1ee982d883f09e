package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/graph"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/interp"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

// whole is a backend that cuts nothing: one chunk, nothing packed.
type whole struct{}

func (whole) Tile(k *kern.Kernel) (kern.Tile, int)    { return kern.Tile{}, 1 }
func (whole) Pack(k *kern.Kernel) (*kern.Kernel, int) { return nil, 0 }
func (whole) Copied(k *kern.Kernel, i int) int        { return 0 }
func (whole) Spared(*kern.Kernel) int64               { return 0 }
func (whole) Repeats() bool                           { return false }

// copying is a backend that copies each element of an operand once.
type copying struct{ whole }

func (copying) Copied(k *kern.Kernel, i int) int { return k.Bufs[k.FindContract().Args[i].Buf].Len }

func tensor(r *rand.Rand, t ir.Type, idx int) *ir.Tensor {
	x := ir.NewTensor(t)
	for i := range x.Data {
		if t.DType == ir.I32 {
			x.Data[i] = float64(r.IntN(idx))
		} else {
			x.Data[i] = r.NormFloat64()
		}
	}
	return x
}

// execute runs a plan by the kernel evaluator.
func execute(p *plan.Program, inputs map[string]*ir.Tensor, globals map[string]*ir.Tensor) (map[string][]float64, map[string][]float64, error) {
	mem := map[*plan.Buffer][]float64{}
	for _, b := range p.Buffers {
		mem[b] = make([]float64, b.Type.Len())
		for i := range mem[b] {
			mem[b][i] = math.NaN()
		}
		if b.Arena == plan.State {
			if g := globals[b.Name[1:]]; g != nil {
				copy(mem[b], g.Data)
			}
		}
	}
	for _, b := range p.Inputs {
		copy(mem[b], inputs[b.Name].Data)
	}
	for _, l := range p.Launches {
		var bufs [][]float64
		for _, b := range l.Args {
			bufs = append(bufs, mem[b])
		}
		if err := kern.Eval(l.Kernel, bufs); err != nil {
			return nil, nil, fmt.Errorf("%s\n%w", l.Kernel, err)
		}
	}
	out, state := map[string][]float64{}, map[string][]float64{}
	for _, o := range p.Outputs {
		out[o.Name] = mem[o.Buffer]
	}
	for _, b := range p.Buffers {
		if b.Arena == plan.State {
			state[b.Name[1:]] = mem[b]
		}
	}
	return out, state, nil
}

func check(t *testing.T, f *ir.Func) *plan.Program {
	t.Helper()
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	inputs, globals := map[string]*ir.Tensor{}, map[string]*ir.Tensor{}
	for _, v := range f.Inputs {
		inputs[v.Name] = tensor(r, v.Type, 5)
	}
	for _, pass := range []func(*ir.Func) error{graph.Autodiff, graph.Join, graph.Split, graph.CSE, graph.DCE} {
		if err := pass(f); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range f.Module.Globals {
		globals[g.Name] = tensor(r, g.Type, 5)
		for i := range len(g.Data) / 4 {
			globals[g.Name].Data[i] = float64(int32(binary.LittleEndian.Uint32(g.Data[4*i:])))
		}
	}
	want, updates, err := interp.Run(f, inputs, globals)
	if err != nil {
		t.Fatal(err)
	}
	var p *plan.Program
	compare := func(name string, got, want []float64) {
		for i := range want {
			if math.Abs(got[i]-want[i]) > 1e-9*(1+math.Abs(want[i])) || math.IsNaN(got[i]) != math.IsNaN(want[i]) {
				t.Fatalf("%s[%d] = %g, want %g\n%s", name, i, got[i], want[i], dump(p))
			}
		}
	}
	for _, be := range []Backend{copying{}, whole{}} {
		if p, err = Lower(f, NewLibrary(), be); err != nil {
			t.Fatal(err)
		}
		got, state, err := execute(p, inputs, globals)
		if err != nil {
			t.Fatal(err)
		}
		for n, w := range want {
			compare(n, got[n], w.Data)
		}
		for n, w := range updates {
			compare("@"+n, state[n], w.Data)
		}
	}
	return p
}

func dump(p *plan.Program) string {
	var b strings.Builder
	for _, l := range p.Launches {
		fmt.Fprintf(&b, "%s %s ->\n%s", l.Pos, l.Values, l.Kernel)
	}
	return b.String()
}

func param(f *ir.Func, name string, shape ...int) *ir.Value {
	g := &ir.Global{Name: name, Type: ir.T(ir.F32, shape...), Role: ir.Param}
	if err := f.Module.AddGlobal(g); err != nil {
		panic(err)
	}
	return f.Read(g)
}

func layerNorm(x, gain *ir.Value) *ir.Value {
	d := ops.Sub(x, ops.MeanKeep(x, -1))
	v := ops.MeanKeep(ops.Mul(d, d), -1)
	return ops.Mul(ops.Div(d, ops.Sqrt(ops.AddConst(v, 1e-5))), gain)
}

// A residual block, its gradient and an update: the forward pass must take
// one kernel for the layer norm and one for each product with its epilogue.
func TestResidualBlockLowersToFewKernels(t *testing.T) {
	m := ir.NewModule("t")
	f := m.NewFunc("train")
	x := f.Input("x", ir.T(ir.F32, 4, 8, 16))
	gain, w1, b1, w2 := param(f, "gain", 16), param(f, "w1", 16, 32), param(f, "b1", 32), param(f, "w2", 32, 16)
	h := ops.QuickGELU(ops.Add(ops.MatMul(layerNorm(x, gain), w1), b1))
	y := ops.Add(x, ops.MatMul(h, w2))
	f.Result("y", y)
	p := check(t, f)
	if len(p.Launches) != 3 {
		t.Errorf("%d launches, want 3\n%s", len(p.Launches), dump(p))
	}
}

func TestGradientOfResidualBlock(t *testing.T) {
	m := ir.NewModule("t")
	f := m.NewFunc("train")
	x := f.Input("x", ir.T(ir.F32, 4, 32, 16))
	gain, w1, b1, w2 := param(f, "gain", 16), param(f, "w1", 16, 32), param(f, "b1", 32), param(f, "w2", 32, 16)
	ps := []*ir.Value{gain, w1, b1, w2}
	y := x
	for i := 0; i < 2; i++ {
		h := ops.QuickGELU(ops.Add(ops.MatMul(layerNorm(y, gain), w1), b1))
		y = ops.Add(y, ops.MatMul(h, w2))
	}
	loss := ops.Mean(ops.Mul(y, y))
	f.Result("loss", loss)
	for i, g := range ops.Gradient(loss, ps...) {
		f.Update(ps[i].Global, ops.Sub(ps[i], ops.MulConst(g, 0.1)))
	}
	p := check(t, f)
	t.Logf("%d launches", len(p.Launches))
	if len(p.Launches) > 40 {
		t.Errorf("%d launches\n%s", len(p.Launches), dump(p))
	}
}

func TestCrossEntropyAndSoftmax(t *testing.T) {
	m := ir.NewModule("t")
	f := m.NewFunc("train")
	x := f.Input("x", ir.T(ir.F32, 2, 32, 16))
	targets := f.Input("targets", ir.T(ir.I32, 2, 32))
	w := param(f, "w", 16, 5)
	logits := ops.MatMul(x, w)
	mx := ops.StopGradient(ops.ReduceMaxKeep(logits, -1))
	z := ops.Sub(logits, mx)
	lse := ops.Log(ops.Sum(ops.Exp(z), -1))
	hit := ops.Eq(ops.Iota(f, 2, 2, 32, 5), ops.BroadcastTo(ops.Reshape(targets, 2, 32, 1), 2, 32, 5))
	picked := ops.Sum(ops.Select(hit, z, ops.Scalar(f, 0)), -1)
	loss := ops.Mean(ops.Sub(lse, picked))
	f.Result("loss", loss)
	g := ops.Gradient(loss, w)
	f.Update(w.Global, ops.Sub(w, g[0]))
	p := check(t, f)
	t.Logf("%d launches\n%s", len(p.Launches), dump(p))
}

// Three products of which the sum is wanted are never there together.
func TestSumOfProductsIsAddedUpByThem(t *testing.T) {
	m := ir.NewModule("t")
	f := m.NewFunc("f")
	var sum *ir.Value
	for i := range 3 {
		y := ops.MatMul(f.Input(fmt.Sprint("x", i), ir.T(ir.F32, 8, 16)), param(f, fmt.Sprint("w", i), 16, 12))
		if sum == nil {
			sum = y
		} else {
			sum = ops.Add(sum, y)
		}
	}
	f.Result("relu", ops.Max(sum, ops.Scalar(f, 0)))
	p := check(t, f)
	if len(p.Launches) != 3 {
		t.Errorf("%d launches, want 3\n%s", len(p.Launches), dump(p))
	}
	for i, l := range p.Launches {
		n := 0
		for _, b := range l.Args {
			if b.Type.Len() == 8*12 {
				n++
			}
		}
		if want := min(i+1, 2); n != want {
			t.Errorf("launch %d has %d results among its arguments, want %d\n%s", i, n, want, l.Kernel)
		}
	}
}

func TestConvPoolUpsample(t *testing.T) {
	m := ir.NewModule("t")
	f := m.NewFunc("train")
	x := f.Input("x", ir.T(ir.F32, 2, 8, 8, 3))
	w := param(f, "w", 3, 3, 3, 4)
	b := param(f, "b", 4)
	h := ops.ReLU(ops.Add(ops.Conv2D(x, w, 1, 1), b))
	h = ops.MaxPool2D(h, 2)
	h = ops.Upsample(h, 2)
	w2 := param(f, "w2", 1, 1, 4, 3)
	y := ops.Add(x, ops.Conv2D(h, w2, 1, 0))
	loss := ops.Mean(ops.Mul(y, y))
	f.Result("loss", loss)
	ps := []*ir.Value{w, b, w2}
	for i, g := range ops.Gradient(loss, ps...) {
		f.Update(ps[i].Global, ops.Sub(ps[i], g))
	}
	p := check(t, f)
	t.Logf("%d launches", len(p.Launches))
}

func TestViewsBecomeAddressing(t *testing.T) {
	m := ir.NewModule("t")
	f := m.NewFunc("f")
	x := f.Input("x", ir.T(ir.F32, 2, 6, 24))
	h := ops.Transpose(ops.Reshape(ops.Exp(x), 2, 6, 3, 8), 0, 2, 1, 3) // [2,3,6,8]
	f.Result("a", ops.MulConst(h, 2))
	f.Result("b", ops.Concat(1, ops.SliceAxis(h, 1, 2, 3), ops.SliceAxis(h, 1, 0, 1)))
	f.Result("c", ops.Reshape(ops.Transpose(h, 3, 2, 1, 0), 48, 6))
	check(t, f)
}

func TestUpdatesInPlaceAndByCopy(t *testing.T) {
	m := ir.NewModule("t")
	f := m.NewFunc("f")
	a, b := param(f, "a", 40), param(f, "b", 40)
	f.Update(a.Global, ops.Add(a, b))
	f.Update(b.Global, ops.Add(b, ops.Scalar(f, 1)))
	rev := param(f, "c", 4, 5)
	f.Update(rev.Global, ops.Reshape(ops.Transpose(rev, 1, 0), 4, 5))
	p := check(t, f)
	for _, l := range p.Launches {
		if strings.HasPrefix(l.Kernel.Name, "copy") && l.Values != "@c" {
			t.Errorf("%s is copied, but could be updated in place", l.Values)
		}
	}
}

func TestReductionOfOneElementIsNoLoop(t *testing.T) {
	m := ir.NewModule("t")
	f := m.NewFunc("f")
	x := f.Input("x", ir.T(ir.F32, 3, 3))
	y := ops.Sum(x)
	f.Result("a", ops.Add(y, ops.Sum(ops.Mul(y, y))))
	f.Result("b", ops.SumKeep(ops.Reshape(x, 9, 1), 1))
	check(t, f)
}

// Heads are read where a projection of all three wrote them, and their
// gradients are written to the places of one for the projection.
func TestAttentionNeedsNoCopies(t *testing.T) {
	const b, n, h, d = 2, 5, 2, 4
	f := ir.NewModule("t").NewFunc("train")
	x := f.Input("x", ir.T(ir.F32, b*n, 8))
	w, bias, out := param(f, "w", 8, 3*h*d), param(f, "bias", 3*h*d), param(f, "out", h*d, 8)
	qkv := ops.Add(ops.MatMul(x, w), bias)
	var part [3]*ir.Value
	for i := range part {
		part[i] = ops.Reshape(ops.SliceAxis(qkv, 1, i*h*d, (i+1)*h*d), b, n, h, d)
	}
	y := ops.MatMul(ops.Reshape(ops.Attention(part[0], part[1], part[2], mask.Causal()), b*n, h*d), out)
	f.Result("y", y)
	for i, g := range ops.Gradient(ops.Mean(ops.Mul(y, y)), w, bias, out) {
		f.Result(fmt.Sprint("gradient ", i), g)
	}
	for _, l := range check(t, f).Launches {
		k := l.Kernel
		if k.Template == nil && k.FindContract() == nil && !k.HasLoop() && len(k.Bufs) > 1 && k.Points() > b*n*h {
			t.Errorf("a kernel moves data:\n%s", k)
		}
		if k.Template == nil && k.FindContract() == nil && k.Points() == b*n*h {
			t.Errorf("a kernel sums over heads, which attention's gradient does itself:\n%s", k)
		}
	}
}

// New rows of a cache are written from where they lie, and copied first only
// if that is the cache itself.
func TestCacheRowsAreWrittenInPlace(t *testing.T) {
	f := ir.NewModule("t").NewFunc("step")
	x := f.Input("x", ir.T(ir.F32, 2, 3*8))
	pos := ops.Full(f, ir.T(ir.I32), 1)
	for i, name := range []string{"k", "v"} {
		c := param(f, name, 2, 5, 2, 4)
		f.Update(c.Global, ops.CacheWrite(c, ops.Reshape(ops.SliceAxis(x, 1, 8+8*i, 16+8*i), 2, 1, 2, 4), pos))
	}
	if p := check(t, f); len(p.Launches) != 3 {
		t.Errorf("%d launches, want the position and 2 writes\n%s", len(p.Launches), dump(p))
	}
	f = ir.NewModule("t").NewFunc("shift")
	c := param(f, "c", 2, 5, 2, 4)
	f.Update(c.Global, ops.CacheWrite(c, ops.SliceAxis(c, 1, 0, 3), ops.Full(f, ir.T(ir.I32), 1)))
	check(t, f)
}
