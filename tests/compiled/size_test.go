package compiled

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/graph"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/interp"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

// graphCase is a graph to build under a name.
type graphCase struct {
	name  string
	build func(f *ir.Func)
}

// large are graphs big enough to be cut into chunks, split and packed as real
// models are, most with a gradient.
var large = []graphCase{
	{"map", func(f *ir.Func) {
		x, y := f.Input("x", ir.T(ir.F32, 301, 1027)), f.Input("y", ir.T(ir.F32, 1027))
		f.Result("out", ops.Tanh(ops.Add(ops.Mul(x, y), ops.Exp(ops.MulConst(x, 0.1)))))
	}},
	{"sum_rows", func(f *ir.Func) { f.Result("out", ops.SumKeep(f.Input("x", ir.T(ir.F32, 517, 2051)), 1)) }},
	{"sum_columns", func(f *ir.Func) { f.Result("out", ops.SumKeep(f.Input("x", ir.T(ir.F32, 5003, 67)), 0)) }},
	{"sum_all", func(f *ir.Func) { f.Result("out", ops.Sum(ops.Square(f.Input("x", ir.T(ir.F32, 3, 211, 509))))) }},
	{"max_rows", func(f *ir.Func) { f.Result("out", ops.ReduceMaxKeep(f.Input("x", ir.T(ir.F32, 129, 1030)), 1)) }},
	{"transpose", func(f *ir.Func) {
		f.Result("out", ops.AddConst(ops.Transpose(f.Input("x", ir.T(ir.F32, 5, 131, 257)), 2, 0, 1), 1))
	}},
	{"concat", func(f *ir.Func) {
		a, b := f.Input("a", ir.T(ir.F32, 70, 3, 513)), f.Input("b", ir.T(ir.F32, 70, 4, 513))
		f.Result("out", ops.Concat(1, a, ops.Square(b)))
	}},
	{"softmax", func(f *ir.Func) { gradient(f, nn.Softmax(f.Input("x", ir.T(ir.F32, 203, 777)))) }},
	{"layer_norm", func(f *ir.Func) {
		gradient(f, nn.LayerNorm(nn.In(f), "n", f.Input("x", ir.T(ir.F32, 300, 193)), 1e-5))
	}},
	{"cross_entropy", func(f *ir.Func) {
		f.Result("out", nn.CrossEntropy(f.Input("x", ir.T(ir.F32, 257, 301)), f.Input("classes", ir.T(ir.I32, 257))))
	}},
	{"cross_entropy_in_chunks", func(f *ir.Func) { // as nn.CrossEntropyOf does it with more
		x, y := f.Input("x", ir.T(ir.F32, 514, 130)), f.Input("classes", ir.T(ir.I32, 514))
		w, loss := nn.In(f).Param("w", nn.Normal(1), 130, 301), ops.Scalar(f, 0)
		for i := range 2 {
			rows := func(v *ir.Value) *ir.Value { return ops.SliceAxis(v, 0, 257*i, 257*i+257) }
			var part *ir.Value
			f.Region(fmt.Sprint("loss", i), false, func() { part = nn.CrossEntropy(ops.MulConst(ops.MatMul(rows(x), w), 0.1), rows(y)) })
			loss = ops.Add(loss, ops.MulConst(part, 0.5))
		}
		f.Result("out", loss)
		for i, g := range ops.Gradient(loss, x, w) {
			f.Result([]string{"gradient of x", "gradient of w"}[i], g)
		}
	}},
	{"linear", func(f *ir.Func) {
		gradient(f, ops.QuickGELU(nn.Linear(nn.In(f), "l", f.Input("x", ir.T(ir.F32, 333, 130)), 197, 0.1)))
	}},
	{"batched", func(f *ir.Func) {
		gradient(f, ops.MatMul(f.Input("x", ir.T(ir.F32, 7, 65, 70)), f.Input("y", ir.T(ir.F32, 7, 70, 99))))
	}},
	{"conv", func(f *ir.Func) {
		gradient(f, ops.ReLU(nn.Conv(nn.In(f), "c", f.Input("x", ir.T(ir.F32, 3, 17, 19, 21)), 3, 35)))
	}},
	{"conv7", func(f *ir.Func) { gradient(f, nn.Conv(nn.In(f), "c", f.Input("x", ir.T(ir.F32, 2, 20, 20, 3)), 7, 34)) }},
	{"conv_block", func(f *ir.Func) { // by minimal filtering, with prologues
		x := f.Input("x", ir.T(ir.F32, 2, 16, 16, 32))
		h := nn.Conv(nn.In(f), "a", ops.ReLU(x), 3, 48)
		gradient(f, ops.Add(x, nn.Conv(nn.In(f), "b", ops.ReLU(h), 3, 32)))
	}},
	{"embedding", func(f *ir.Func) {
		gradient(f, nn.Embedding(nn.In(f), "e", f.Input("classes", ir.T(ir.I32, 700)), 301, 67, 1))
	}},
	{"attention", func(f *ir.Func) {
		t := ir.T(ir.F32, 2, mask.Len(24, 9, 8), 3, 24)
		gradient(f, ops.Attention(f.Input("q", t), f.Input("k", t), f.Input("v", t), mask.Row(24, 9, 8)))
	}},
}

// gradient makes y and the gradients of its squares' mean the results.
func gradient(f *ir.Func, y *ir.Value) {
	f.Result("out", y)
	var by []*ir.Value
	for _, v := range append(slices.Clone(f.Inputs), f.Reads()...) {
		if v.Type.DType == ir.F32 && (v.Global == nil || v.Global.Role == ir.Param) {
			by = append(by, v)
		}
	}
	for i, g := range ops.Gradient(ops.MulConst(ops.Sum(ops.Square(y)), 1/float64(y.Type.Len())), by...) {
		f.Result("gradient of "+by[i].Name, g)
	}
}

// largeTolerance is relative to the largest magnitude, for sums of up to a
// million terms in f32; the largest error measured is 1.6e-6.
const largeTolerance = 2e-6

func TestLargeGraphsAgreeWithFloat64OnAnyNumberOfThreads(t *testing.T) {
	agree(t, "large", large, func(string) float64 { return largeTolerance })
}

// halved has as many weights as graph.Halve wants, and what follows a product.
var halved = []graphCase{{"linear", func(f *ir.Func) {
	x := ops.Tanh(f.Input("x", ir.T(ir.F32, 3, 4096)))
	f.Result("out", ops.Tanh(ops.MulConst(nn.Linear(nn.In(f), "l", x, 2048, 0.1), 1.0/64)))
}}}

func TestHalvedProductsAgreeWithFloat64OnAnyNumberOfThreads(t *testing.T) {
	f := ir.NewModule("m").NewFunc("f")
	halved[0].build(f)
	if err := pipeline.Graph(f, pipeline.Options{Backend: cpu.Backend{}}); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(f.Body, func(in *ir.Instr) bool { return in.Op.Name() == "matmul" && in.Results[0].Type.Shape[0] == 2 }) {
		t.Fatal("the product is not halved")
	}
	agree(t, "halved", halved, func(string) float64 { return largeTolerance })
}

// large16 are graphs whose products and attention are in 16 bits and big enough for
// the matrix units of GPUs: in every form of operands, and the heads of 64 and 128
// that the paper's models have.
var large16 = func() []graphCase {
	var out []graphCase
	for _, d := range []ir.DType{ir.F16, ir.BF16} {
		narrow := func(x *ir.Value) *ir.Value { return ops.Cast(x, d) }
		add := func(name string, build func(f *ir.Func)) {
			out = append(out, graphCase{name + "_" + d.String(), build})
		}
		add("linear", func(f *ir.Func) {
			x, w := f.Input("x", ir.T(ir.F32, 520, 328)), f.Input("y", ir.T(ir.F32, 328, 712))
			gradient(f, ops.MulConst(ops.Cast(ops.MatMul(narrow(x), narrow(w)), ir.F32), 0.1))
		})
		if d == ir.F16 {
			add("multiplied", func(f *ir.Func) {
				x, w := f.Input("x", ir.T(ir.F32, 260, 392)), f.Input("y", ir.T(ir.F32, 392, 203))
				y := f.Append(ops.MatMulOp{Multiply: d}, narrow(x), narrow(w))[0]
				gradient(f, ops.MulConst(ops.Cast(y, ir.F32), 0.1))
			})
		}
		add("heads", func(f *ir.Func) {
			x, y := f.Input("x", ir.T(ir.F32, 5, 200, 96)), f.Input("y", ir.T(ir.F32, 5, 96, 136))
			gradient(f, ops.Cast(ops.MatMul(narrow(x), narrow(y)), ir.F32))
		})
		for _, a := range []struct {
			name string
			mask mask.Mask
			d    int
		}{{"row", mask.Row(64, 16, 16), 64}, {"column", mask.Column(64, 16, 16), 64}, {"conv", mask.Conv(64, 16, 16, 11), 64}, {"causal", mask.Causal(), 128}} {
			add("attention_"+a.name, func(f *ir.Func) {
				t := ir.T(ir.F32, 2, 320, 3, a.d)
				q, k, v := f.Input("q", t), f.Input("k", t), f.Input("v", t)
				gradient(f, ops.Cast(ops.Attention(narrow(q), narrow(k), narrow(v), a.mask), ir.F32))
			})
		}
	}
	return out
}()

// largeTolerance16 is relative to the largest magnitude: the rounding of operands,
// results and what the gradient keeps. Beside each the largest error measured.
func largeTolerance16(name string) float64 {
	if strings.HasPrefix(name, "multiplied") {
		return 3e-3
	}
	if strings.HasSuffix(name, "_bf16") {
		return 4e-3 // 2.5e-3
	}
	return 4e-4 // 2.8e-4
}

func TestLargeGraphsIn16BitsAgreeWithFloat64(t *testing.T) {
	agree(t, "large16", large16, largeTolerance16)
}

// agree runs cases on every target and number of threads and compares them with
// the graph's meaning in float64.
func agree(t *testing.T, name string, cases []graphCase, tolerance func(string) float64) {
	t.Helper()
	b := NewBatch(name)
	for _, c := range cases {
		m := ir.NewModule(c.name)
		c.build(m.NewFunc("f"))
		if err := b.Add(false, m); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
	}
	spec, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	chunks := 0
	for _, k := range spec.Kernels {
		if k.Chunks > 1 {
			chunks++
		}
	}
	if chunks < len(cases) && Device() == "" {
		t.Errorf("only %d kernels of %d have several chunks; threads are not tested", chunks, len(spec.Kernels))
	}
	worst := 0.0
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := ir.NewModule(c.name)
			f := m.NewFunc("f")
			c.build(f)
			if err := graph.Autodiff(f); err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(11, 12))
			fillFloat := func(ty ir.Type) *ir.Tensor {
				x := ir.NewTensor(ty)
				for i := range x.Data {
					x.Data[i] = float64(float32(r.NormFloat64()))
					if ty.DType == ir.I32 {
						x.Data[i] = float64(r.IntN(301))
					}
				}
				return x
			}
			in, flat, globals := map[string]*ir.Tensor{}, map[string][]float64{}, map[string]*ir.Tensor{}
			for _, v := range f.Inputs {
				in[v.Name] = fillFloat(v.Type)
				flat[v.Name] = in[v.Name].Data
			}
			for _, v := range f.Reads() {
				if v.Global.Role == ir.Param {
					globals[v.Global.Name] = fillFloat(v.Type)
				}
			}
			want, _, err := interp.Run(f, in, globals)
			if err != nil {
				t.Fatal(err)
			}
			most := 0.0
			defer func() { t.Logf("largest error %.3g", most) }()
			for _, target := range Targets() {
				var first map[string][]float64
				for _, threads := range threadCounts() {
					x, err := open(t, spec, target, threads).Model(c.name)
					if err != nil {
						t.Fatal(err)
					}
					for n, g := range globals {
						to, err := x.Tensor(n)
						if err == nil {
							err = Put(to, g.Data)
						}
						if err != nil {
							t.Fatal(err)
						}
					}
					got, err := Call(x, "f", flat)
					if err != nil {
						t.Fatal(err)
					}
					if first == nil {
						first = got
					}
					for n, w := range want {
						if !slices.Equal(got[n], first[n]) {
							t.Errorf("%s, %s: %d threads give other bits than 1", target, n, threads)
						}
						if e := errorOf(got[n], w.Data); e > tolerance(c.name) {
							i := worstElement(got[n], w.Data)
							t.Errorf("%s, %d threads, %s: error %.3g; element %d is %.9g, want %.9g", target, threads, n, e, i, got[n][i], w.Data[i])
						} else {
							worst, most = max(worst, e), max(most, e)
						}
					}
				}
			}
		})
	}
	t.Logf("largest error %.3g", worst)
}
