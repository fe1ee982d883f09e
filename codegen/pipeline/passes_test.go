package pipeline_test

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/interp"
	"github.com/gouache-ml/gouache/ir/text"
	"github.com/gouache-ml/gouache/ir/verify"
	"github.com/gouache-ml/gouache/models/clip"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/dvae"
	"github.com/gouache-ml/gouache/models/modeltest"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/ops"
)

// subject is a function with values to run it on.
type subject struct {
	f       *ir.Func
	inputs  map[string]*ir.Tensor
	globals map[string]*ir.Tensor
}

// tolerance is for sums in another order, relative to the largest magnitude.
const tolerance = 1e-11

// check runs the passes one by one. After each the function is well formed,
// computes what it computed before, and is left as it is by the same pass.
func (s *subject) check(t *testing.T) {
	t.Helper()
	var last map[string]*ir.Tensor
	after := func(stage string) {
		t.Helper()
		if err := verify.Func(s.f); err != nil {
			t.Fatalf("%s: after %s: %v", s.f.Name, stage, err)
		}
		if hasGradient(s.f) {
			if stage != "build" && stage != "precision" {
				t.Fatalf("%s: after %s: a gradient is left", s.f.Name, stage)
			}
			return
		}
		results, updates, err := interp.Run(s.f, s.inputs, s.globals)
		if err != nil {
			t.Fatalf("%s: after %s: %v", s.f.Name, stage, err)
		}
		now := map[string]*ir.Tensor{}
		for n, x := range results {
			now[n] = x
		}
		for n, x := range updates {
			now["@"+n] = x
		}
		if last != nil {
			if d := differ(last, now); d != "" {
				t.Errorf("%s: %s changes what is computed: %s", s.f.Name, stage, d)
			}
		}
		last = now
	}
	after("build")
	for _, p := range pipeline.Passes {
		if err := p.Run(s.f); err != nil {
			t.Fatal(err)
		}
		after(p.Name)
		once := text.Func(s.f)
		if err := p.Run(s.f); err != nil {
			t.Fatalf("%s again: %v", p.Name, err)
		}
		if again := text.Func(s.f); again != once {
			t.Errorf("%s: %s changes its own result:\n%s\n%s", s.f.Name, p.Name, once, again)
		}
	}
	if last == nil {
		t.Errorf("%s was never executed", s.f.Name)
	}
}

func hasGradient(f *ir.Func) bool {
	for _, in := range f.Body {
		if in.Op.Name() == ops.GradientName {
			return true
		}
	}
	return false
}

func differ(a, b map[string]*ir.Tensor) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%d results, then %d", len(a), len(b))
	}
	for name, x := range a {
		y := b[name]
		if y == nil {
			return name + " is gone"
		}
		top := 0.0
		for _, v := range x.Data {
			if !math.IsInf(v, 0) && !math.IsNaN(v) {
				top = math.Max(top, math.Abs(v))
			}
		}
		for i := range x.Data {
			same := x.Data[i] == y.Data[i] || math.IsNaN(x.Data[i]) && math.IsNaN(y.Data[i]) || math.Abs(x.Data[i]-y.Data[i]) <= tolerance*top
			if !same {
				return fmt.Sprintf("%s[%d] is %v, then %v", name, i, x.Data[i], y.Data[i])
			}
		}
	}
	return ""
}

func TestPassesKeepEveryOpsMeaning(t *testing.T) {
	n := 0
	for _, name := range ir.OpNames() {
		proto, _ := ir.LookupOp(name)
		if _, ok := proto.(ops.Expanded); ok {
			continue
		}
		for i, s := range proto.(ops.Op).Samples() {
			sampleSubject(t, s, i).check(t)
			n++
		}
	}
	if n < 100 {
		t.Errorf("%d samples, expected hundreds", n)
	}
}

// sampleSubject applies the sample's op three times to the same inputs, once
// for nothing, and asks for the gradient where there is one.
func sampleSubject(t *testing.T, s ops.Sample, i int) *subject {
	t.Helper()
	m := ir.NewModule("m")
	f := m.NewFunc(fmt.Sprintf("%s.%d", s.Op.Name(), i))
	h := fnv.New64a()
	fmt.Fprint(h, f.Name)
	r := rand.New(rand.NewPCG(h.Sum64(), 1))
	sub := &subject{f: f, inputs: map[string]*ir.Tensor{}}
	var args, floats []*ir.Value
	for j, a := range s.Args {
		var fill ops.Fill
		if j < len(s.Fill) {
			fill = s.Fill[j]
		}
		v := f.Input(fmt.Sprintf("x%d", j), a)
		args = append(args, v)
		if a.DType.IsFloat() {
			floats = append(floats, v)
		}
		sub.inputs[v.Name] = filled(r, a, fill)
	}
	var loss *ir.Value
	for pass, out := range [][]*ir.Value{f.Append(s.Op, args...), f.Append(s.Op, args...), f.Append(s.Op, args...)} {
		for j, y := range out {
			if pass < 2 {
				f.Result(fmt.Sprintf("y%d.%d", pass, j), y)
			}
			if y.Type.DType.IsFloat() && pass == 0 {
				x := ops.Sum(ops.Square(ops.Cast(y, ir.F32)))
				if loss == nil {
					loss = x
				} else {
					loss = ops.Add(loss, x)
				}
			}
		}
	}
	if !s.NoGrad && loss != nil && len(floats) > 0 {
		for j, g := range ops.Gradient(loss, floats...) {
			f.Result(fmt.Sprintf("grad%d", j), g)
		}
	}
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	return sub
}

func filled(r *rand.Rand, t ir.Type, f ops.Fill) *ir.Tensor {
	x := ir.NewTensor(t)
	perm := r.Perm(len(x.Data))
	for i := range x.Data {
		switch f.Kind {
		case "positive":
			x.Data[i] = 0.1 + 2*r.Float64()
		case "index":
			x.Data[i] = float64(r.IntN(f.N))
		case "bool":
			x.Data[i] = float64(r.IntN(2))
		case "distinct":
			x.Data[i] = 0.04 * (float64(perm[i]-len(perm)/2) + 0.5)
		case "const":
			x.Data[i] = f.X
		case "data":
			x.Data[i] = f.Data[i]
		default:
			x.Data[i] = r.NormFloat64()
		}
	}
	return x
}

// Sums long enough to be split, over the first, a middle, the last and all
// axes, and a maximum.
func TestSplitKeepsLongReductions(t *testing.T) {
	for _, c := range []struct {
		shape []int
		axes  []int
		whole bool
	}{
		{[]int{8192}, []int{0}, false},
		{[]int{4096, 3}, []int{0}, false},
		{[]int{3, 4096}, []int{1}, false},
		{[]int{2, 5000, 2}, []int{1}, false},
		{[]int{2, 64, 128, 3}, []int{1, 2}, false},
		{[]int{64, 3, 100}, []int{0, 2}, false},
		{[]int{61 * 71, 2}, []int{0}, false},
		{[]int{4099}, []int{0}, true}, // prime: stays whole
		{[]int{16, 16, 16}, []int{0, 1, 2}, false},
	} {
		m := ir.NewModule("m")
		f := m.NewFunc(fmt.Sprintf("sum%v%v", c.shape, c.axes))
		x := f.Input("x", ir.T(ir.F32, c.shape...))
		f.Result("sum", ops.Sum(x, c.axes...))
		f.Result("max", ops.ReduceMaxKeep(x, c.axes...))
		if err := f.Err(); err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(3, 4))
		s := &subject{f: f, inputs: map[string]*ir.Tensor{"x": filled(r, x.Type, ops.Fill{})}}
		s.check(t)
		if whole := len(f.Body) == 3; whole != c.whole {
			t.Errorf("%s: left whole: %v, want %v:\n%s", f.Name, whole, c.whole, text.Func(f))
		}
	}
}

func tinyModels(t *testing.T) []*ir.Module {
	t.Helper()
	adam := nn.AdamW{Beta1: 0.9, Beta2: 0.96, Eps: 1e-8, Decay: 0.1, VarianceMax: 5}
	var ms []*ir.Module
	for _, b := range []func() (*ir.Module, error){
		func() (*ir.Module, error) {
			return dvae.Build(dvae.Config{ImageSize: 4, Width: 4, Groups: 2, BlocksPerGroup: 1, Stem: 3, Codebook: 5, CodeDim: 3, Batch: 2, Optimizer: adam})
		},
		func() (*ir.Module, error) {
			return dalle.Build(dalle.Config{TextLen: 3, TextVocab: 7, GridW: 3, GridH: 2, ImageVocab: 5, Dim: 8, Heads: 2, Layers: 3, Kernel: 3, Batch: 2, SampleBatch: 2, Optimizer: adam})
		},
		func() (*ir.Module, error) {
			return clip.Build(clip.Config{ImageSize: 4, Patch: 2, ImageDim: 8, ImageHeads: 2, TextLen: 4, TextVocab: 7, TextDim: 8, TextHeads: 2, Layers: 1, Embed: 6, Batch: 3, Optimizer: adam})
		},
	} {
		m, err := b()
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, m)
	}
	return ms
}

func TestPassesKeepTheModelsMeaning(t *testing.T) {
	for _, m := range tinyModels(t) {
		x, err := modeltest.New(m, 1)
		if err != nil {
			t.Fatal(err)
		}
		x.Scramble(2, 0.3)
		for _, f := range m.Funcs {
			r := rand.New(rand.NewPCG(5, 6))
			s := &subject{f: f, inputs: map[string]*ir.Tensor{}, globals: x.Globals}
			for _, v := range f.Inputs {
				fill := ops.Fill{Kind: "positive"} // pictures, step sizes, temperatures
				if v.Type.DType == ir.I32 {
					fill = ops.Fill{Kind: "index", N: 3} // tokens, positions, seeds
				}
				in := filled(r, v.Type, fill)
				for i := range in.Data {
					if fill.Kind == "positive" {
						in.Data[i] = (in.Data[i] - 0.1) / 2
					}
				}
				s.inputs[v.Name] = in
			}
			s.check(t)
		}
	}
}

// The same models give the same text at every stage, byte for byte.
func TestPassesAreDeterministic(t *testing.T) {
	dump := func() string {
		var b strings.Builder
		for _, m := range tinyModels(t) {
			for _, f := range m.Funcs {
				err := pipeline.Graph(f, pipeline.Options{Observe: func(stage string, _ *ir.Module, f *ir.Func) {
					fmt.Fprintf(&b, "// %s\n%s", stage, text.Func(f))
				}})
				if err != nil {
					t.Fatal(err)
				}
			}
			b.WriteString(text.Module(m))
		}
		return b.String()
	}
	a, b := dump(), dump()
	if a == b {
		return
	}
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range x {
		if i >= len(y) || x[i] != y[i] {
			t.Fatalf("line %d: first %q, then %q", i+1, x[i], y[min(i, len(y)-1)])
		}
	}
}

// With 16-bit types every function is still well formed after every pass, and
// its text reads back as itself.
func TestPassesKeepPrecisionsWellFormed(t *testing.T) {
	for _, name := range []string{"bf16", "paper", "paper,scaling=loss", "paper,weights=f32"} {
		p, err := ir.ParsePrecision(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range tinyModels(t) {
			m.Precision = p
			for _, pass := range pipeline.Passes {
				for _, f := range m.Funcs {
					if err := pass.Run(f); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				}
				for _, f := range m.Funcs {
					if err := verify.Func(f); err != nil {
						t.Fatalf("%s: %s.%s: after %s: %v", name, m.Name, f.Name, pass.Name, err)
					}
				}
				out := text.Module(m)
				file, err := text.Parse(name, out)
				if err != nil {
					t.Fatalf("%s: after %s: %v", name, pass.Name, err)
				}
				if again := text.Module(file.Modules[0]); again != out {
					t.Errorf("%s: %s after %s reads back as another text", name, m.Name, pass.Name)
				}
			}
		}
	}
}

// What a model keeps stays in the types it has.
func TestPrecisionLeavesWhatIsKept(t *testing.T) {
	m := ir.NewModule("m")
	m.Precision = ir.Precision{Blocks: ir.F16, Weights: ir.F16}
	f := m.NewFunc("f")
	x := f.Input("x", ir.T(ir.F32, 4, 8))
	s := nn.In(f)
	a, b, c := s.Param("a", nn.Normal(1), 8, 8), s.Param("b", nn.Normal(1), 8, 8), s.Param("c", nn.Normal(1), 8, 8)
	c.Global.Keep = true
	f.Region("block", true, func() {
		f.Result("a", ops.MatMul(x, a))
		f.Result("b", ops.MatMul(ops.Keep(x), b))
		f.Result("c", ops.MatMul(x, c))
	})
	f.Result("outside", ops.MatMul(x, s.Param("d", nn.Normal(1), 8, 8)))
	if err := pipeline.Graph(f, pipeline.Options{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]ir.DType{"a": ir.F16, "b": ir.F32, "c": ir.F32, "d": ir.F32} {
		if got := m.Global(name).Type.DType; got != want {
			t.Errorf("@%s is stored as %s, want %s", name, got, want)
		}
	}
	for i, want := range []ir.DType{ir.F16, ir.F32, ir.F16, ir.F32} {
		product := f.Results[i].Value.Def
		for product.Op.Name() == "cast" {
			product = product.Args[0].Def
		}
		if got := product.Results[0].Type.DType; product.Op.Name() != "matmul" || got != want {
			t.Errorf("%s is a %s of %s, want %s", f.Results[i].Name, product.Op.Name(), got, want)
		}
		if d := f.Results[i].Value.Type.DType; d != ir.F32 {
			t.Errorf("result %s is %s", f.Results[i].Name, d)
		}
	}
}

func TestScalingRefusesWhatIsNoResblock(t *testing.T) {
	m := ir.NewModule("m")
	m.Precision = ir.Precision{Blocks: ir.F16, Scaling: ir.ResblockScaling}
	f := m.NewFunc("f")
	x, w := f.Input("x", ir.T(ir.F32, 4, 8)), nn.In(f).Param("w", nn.Normal(1), 8, 8)
	var y *ir.Value
	f.Region("block", true, func() { y = ops.MatMul(x, w) })
	f.Result("g", ops.Gradient(ops.Mean(y), w)[0])
	err := pipeline.Graph(f, pipeline.Options{})
	if err == nil || !strings.Contains(err.Error(), "leaves resblock block") {
		t.Errorf("error %v", err)
	}
}
