package text_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/interp"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/ir/text"
	"github.com/gouache-ml/gouache/ir/verify"
	"github.com/gouache-ml/gouache/models/systems"
	"github.com/gouache-ml/gouache/ops"
)

// fixpoint parses src, which must print as it is.
func fixpoint(t *testing.T, what, src string) *text.File {
	t.Helper()
	f, err := text.Parse(what, src)
	if err != nil {
		t.Fatalf("%v\n%s", err, head(src))
	}
	if got := f.String(); got != src {
		t.Fatalf("%s changes when parsed and printed:\n%s", what, difference(src, got))
	}
	return f
}

func head(s string) string {
	if len(s) > 2000 {
		return s[:2000] + "..."
	}
	return s
}

func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range w {
		if i >= len(g) || w[i] != g[i] {
			now := "nothing"
			if i < len(g) {
				now = g[i]
			}
			return fmt.Sprintf("line %d was %s\nis now %s", i+1, w[i], now)
		}
	}
	return fmt.Sprintf("%d lines more", len(g)-len(w))
}

// sampleModule applies one op to inputs.
func sampleModule(s ops.Sample) (*ir.Module, *ir.Func) {
	m := ir.NewModule("sample")
	f := m.NewFunc("f")
	args := make([]*ir.Value, len(s.Args))
	for i, a := range s.Args {
		args[i] = f.Input(fmt.Sprintf("x%d", i), a)
	}
	for i, r := range f.Append(s.Op, args...) {
		f.Result(fmt.Sprintf("y%d", i), r)
	}
	return m, f
}

func TestEveryOpSurvivesPrintingAndParsing(t *testing.T) {
	n := 0
	for _, name := range ir.OpNames() {
		proto, _ := ir.LookupOp(name)
		for i, s := range proto.(ops.Op).Samples() {
			m, f := sampleModule(s)
			if err := f.Err(); err != nil {
				t.Fatal(err)
			}
			out := fixpoint(t, fmt.Sprintf("%s sample %d", name, i), text.Module(m))
			g := out.Modules[0].Func("f")
			if err := verify.Func(g); err != nil {
				t.Errorf("%s sample %d: %v", name, i, err)
			}
			if !ir.Same(g.Body[0].Op, s.Op) {
				t.Errorf("%s sample %d: parsed as %s%s", name, i, g.Body[0].Op.Name(), ir.AttrString(g.Body[0].Op))
			}
			n++
		}
	}
	if n < 100 {
		t.Errorf("%d samples, expected hundreds: is the op table registered?", n)
	}
}

// compiled is the demo system at every stage, computed once.
var compiled struct {
	stages []string
	graphs map[string]map[string]string // stage, model.func
	plan   *plan.System
}

func compile(t *testing.T) {
	t.Helper()
	if compiled.plan != nil {
		return
	}
	s, err := systems.Lookup("demo")
	if err != nil {
		t.Fatal(err)
	}
	ms, err := s.Build()
	if err != nil {
		t.Fatal(err)
	}
	compiled.graphs = map[string]map[string]string{}
	see := func(stage string, f *ir.Func) {
		if compiled.graphs[stage] == nil {
			compiled.graphs[stage] = map[string]string{}
			compiled.stages = append(compiled.stages, stage)
		}
		alone := *f.Module
		alone.Funcs = []*ir.Func{f}
		compiled.graphs[stage][f.Module.Name+"."+f.Name] = text.Module(&alone)
	}
	p, err := pipeline.Compile("demo", ms, pipeline.Options{Backend: cpu.Backend{}, Observe: func(stage string, _ *ir.Module, f *ir.Func) { see(stage, f) }})
	if err != nil {
		t.Fatal(err)
	}
	compiled.plan = p
}

func TestDemoGraphsSurviveAtEveryStage(t *testing.T) {
	compile(t)
	if want := 1 + len(pipeline.Passes); len(compiled.stages) != want {
		t.Fatalf("stages %v, want %d", compiled.stages, want)
	}
	for stage, funcs := range compiled.graphs {
		for name, src := range funcs {
			f := fixpoint(t, stage+" "+name, src)
			if err := verify.Func(f.Modules[0].Funcs[0]); err != nil {
				t.Errorf("%s %s: %v", stage, name, err)
			}
		}
	}
}

func TestDemoPlanSurvives(t *testing.T) {
	compile(t)
	src := text.System(compiled.plan)
	f := fixpoint(t, "plan", src)
	if len(f.System.Kernels) != len(compiled.plan.Kernels) || len(f.System.Models) != 3 {
		t.Errorf("%d kernels and %d models, want %d and 3", len(f.System.Kernels), len(f.System.Models), len(compiled.plan.Kernels))
	}
	for i, k := range f.Kernels {
		if old := compiled.plan.Kernels[i]; k.Canonical() != old.Canonical() {
			t.Errorf("kernel %s differs", old.Name)
		}
	}
}

// What the code generator makes of a parsed kernel is what it makes of the
// original: the text leaves out nothing that matters.
func TestParsedKernelsCompileToTheSameCode(t *testing.T) {
	compile(t)
	target, err := build.TargetByName("x86-64-v3")
	if err != nil {
		t.Fatal(err)
	}
	packed, templates := 0, 0
	for _, k := range compiled.plan.Kernels {
		want, err := cpu.Text(k, target)
		if err != nil {
			t.Fatal(err)
		}
		f, err := text.Parse(k.Name, k.String())
		if err != nil {
			t.Fatal(err)
		}
		got, err := cpu.Text(f.Kernels[0], target)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("kernel %s: %s", k.Name, difference(want, got))
		}
		if k.Packed {
			packed++
		}
		if k.Template != nil {
			templates++
		}
	}
	if packed == 0 || templates == 0 {
		t.Errorf("%d packed kernels and %d templates among %d, want some of each", packed, templates, len(compiled.plan.Kernels))
	}
}

// Passes run on a parsed function make the same function, names included.
func TestPassesContinueFromText(t *testing.T) {
	compile(t)
	m, err := text.Parse("build", compiled.graphs["build"]["prior.train"])
	if err != nil {
		t.Fatal(err)
	}
	f := m.Modules[0].Funcs[0]
	if err := pipeline.Graph(f, pipeline.Options{}); err != nil {
		t.Fatal(err)
	}
	last := compiled.stages[len(compiled.stages)-1]
	want := compiled.graphs[last]["prior.train"]
	if got := text.Func(f); !strings.HasSuffix(want, got) {
		t.Errorf("after %s: %s", last, difference(want[strings.Index(want, "func @"):], got))
	}
}

func TestParsedFunctionComputes(t *testing.T) {
	f, err := text.Parse("f.ir", `// y = 2x + c
module @m
global @c : f32[2] const init=data data=0x0000803f00000040 !m.go:1 // 1, 2
func @f(%x : f32[2]) {
  block @body {
    %two.7 = constant {dtype=f32, shape=[2], value=0x1p+01} : f32[2] !m.go:2
    %2 = mul %x, %two.7 : f32[2] !m.go:3
  }
  %"odd name" = add %2, @c : f32[2] !-
  result y = %"odd name"
}
`)
	if err != nil {
		t.Fatal(err)
	}
	fn := f.Modules[0].Func("f")
	if err := verify.Func(fn); err != nil {
		t.Fatal(err)
	}
	res, _, err := interp.Run(fn, map[string]*ir.Tensor{"x": {Type: ir.T(ir.F32, 2), Data: []float64{3, 4}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if y := res["y"].Data; y[0] != 7 || y[1] != 10 {
		t.Errorf("y = %v, want [7 10]", y)
	}
	if id := fn.Body[0].Results[0].ID; id != 7 {
		t.Errorf("%%two.7 has ID %d, want 7", id)
	}
	if fn.NumValues() < 8 {
		t.Errorf("%d values, new ones would be named like old ones", fn.NumValues())
	}
}

func TestParsedKernelComputes(t *testing.T) {
	const src = `kernel @rows(#0 f32[6] in, #1 f32[2] out) grid(i0<2) tile(1,1) chunks(2) {
  %3 = loop i1<3 {
    %0 = load #0[i0*3 + i1] if 1 <= i1 < 3 : f32
    %1 = const -0x1p+01 : f32
    %2 = mul %0 %1 : f32
  } sum %2 max %0
  %4 = acc %3 0 : f32
  %5 = acc %3 1 : f32
  %6 = add %4 %5 : f32
  store #1[i0], %6
}
`
	k := fixpoint(t, "k.ir", src).Kernels[0]
	y := make([]float64, 2)
	if err := kern.Eval(k, [][]float64{{1, 2, 3, 4, 5, 6}, y}); err != nil {
		t.Fatal(err)
	}
	if y[0] != -10+3 || y[1] != -22+6 {
		t.Errorf("y = %v, want [-7 -16]", y)
	}
}

// The type that a product multiplies in is part of its text.
func TestParsedProductKeepsItsType(t *testing.T) {
	for _, d := range []ir.DType{ir.Invalid, ir.F16, ir.BF16} {
		in := ""
		if d != ir.Invalid {
			in = d.String() + " "
		}
		src := "kernel @k(#0 f32[4] in, #1 f32[2] out) grid(i0<2) tile(1,1) chunks(1) {\n" +
			"  %0 = contract " + in + "i1<2 (%1 = load #0[i0]) (%2 = load #0[i1]) : f32\n  store #1[i0], %0\n}\n"
		if c := fixpoint(t, "k.ir", src).Kernels[0].FindContract(); ir.DType(c.I) != d {
			t.Errorf("parsed %q: multiplies in %s", in, ir.DType(c.I))
		}
	}
}

// An operand of a product is an expression whose guards hold for the whole: it
// is 0 at -1, not relu(0-1)+3.
func TestParsedPrologueComputes(t *testing.T) {
	const src = `kernel @relu(#0 f32[4] in, #1 f32[2] in, #2 f32[1] in, #3 f32[3] out) grid(i0<3) tile(1,1) chunks(1) {
  %0 = contract i1<2 (%1 = load #0[i0 + i1 + -1] : f32; %2 = load #2[0] : f32; %3 = sub %1 %2 : f32; %4 = const 0x0p+00 : f32; %5 = max %3 %4 : f32; %6 = const 0x1.8p+01 : f32; %7 = add %5 %6 : f32 if 0 <= i0 + i1 + -1 < 4) (%8 = load #1[i1]) : f32
  store #3[i0], %0
}
`
	k := fixpoint(t, "k.ir", src).Kernels[0]
	y := make([]float64, 3)
	if err := kern.Eval(k, [][]float64{{5, 1, -7, 2}, {10, 1}, {2}, y}); err != nil {
		t.Fatal(err)
	}
	if y[0] != 0*10+6 || y[1] != 60+3 || y[2] != 30+3 {
		t.Errorf("y = %v, want [6 63 33]", y)
	}
}

func TestErrorsSayWhereAndWhatIsExpected(t *testing.T) {
	const module = "module @m\nglobal @w : f32[2] param !-\nfunc @f(%x : f32[2]) {\n"
	const kernel = "kernel @k(#0 f32[4] in, #1 f32[4] out) grid(i0<4) tile(1,4) chunks(1) {\n"
	for _, c := range []struct{ src, want string }{
		{"", ""},
		{"modul @m", `f.ir:1:1: found "modul", expected module, kernel or system`},
		{"module m", `f.ir:1:8: found "m", expected a module name such as @prior`},
		{"module @m\nfoo", `f.ir:2:1: found "foo", expected global, func, module, kernel or system`},
		{"module @m\nglobal @w : f33[2]", `f.ir:2:13: unknown element type "f33"; one of f32 f16`},
		{"module @m\nglobal @w : f32[2] weight", `f.ir:2:20: found "weight", expected a role: param, moment1`},
		{"module @m\nglobal @w : f32[2] const data=0x00 !-", `f.ir:2:31: the data has 1 bytes, f32[2] has 8`},
		{"module @m\nglobal @w : f32[2] moment1 of=@v !-", `f.ir:2:31: @v is not declared above`},
		{"module @m\nglobal @w : f32[2] param !-\nglobal @w : f32[2] param !-", `f.ir:3:1: @w is declared twice`},
		{"module @m\nglobal @w : f32[2] param !clip.go", `f.ir:2:27: found "clip.go", expected file:line or -`},
		{"module @m\nglobal @w : f32[99999999,99999999] param !-", `more than 17592186044416 elements`},
		{module + "  %y = exq %x : f32[2] !-\n}", `f.ir:4:8: unknown op "exq", expected one of abs add`},
		{module + "  %y = exp %z : f32[2] !-\n}", `f.ir:4:12: %z is not defined above`},
		{module + "  %y = exp @v : f32[2] !-\n}", `f.ir:4:12: @v is not declared`},
		{module + "  %y = exp %x : f32[3] !-\n}", `f.ir:4:17: exp: its type rule gives f32[2], the text says f32[3]`},
		{module + "  %y = exp %x, %x : f32[2] !-\n}", `f.ir:4:3: exp: takes 1 arguments, has 2`},
		{module + "  %y, %z = exp %x : f32[2] !-\n}", `f.ir:4:3: exp has 1 results, here are 2 names and 1 types`},
		{module + "  %x = exp %x : f32[2] !-\n}", `f.ir:4:3: %x is defined twice`},
		{module + "  %y = exp %x {base=2} : f32[2] !-\n}", `f.ir:4:16: exp has no attribute "base"`},
		{module + "  %y = reshape %x {shape=2} : f32[2] !-\n}", `f.ir:4:26: attribute shape of reshape: found "2", expected a list such as [1,2]`},
		{module + "  %y = reshape %x {shape=[2", `expected the end of an attribute: , or }`},
		{module + "  update @w = %y\n}", `f.ir:4:15: %y is not defined above`},
		{module + "  result y = %x", `f.ir:4:16: found the end of the file, expected an instruction such as`},
		{kernel + "  %0 = lod #0[i0] : f32\n}", `f.ir:2:8: unknown primitive "lod"`},
		{kernel + "  %0 = load #2[i0] : f32\n}", `f.ir:2:13: there is no buffer #2, the kernel has 2`},
		{kernel + "  %0 = load #0[i1] : f32\n}", `f.ir:2:16: i1 is not bound here`},
		{kernel + "  %0 = load #0[i0] : f16\n}", `f.ir:2:3: %0 is f16, scalars are f32, i32 or bool`},
		{kernel + "  store #1[i0], %9\n}", `f.ir:2:17: %9 is not defined above`},
		{kernel + "  %0 = load #0[i0] : f32\n  %1 = add %0 : f32\n}", `f.ir:3:12: add has 1 operands, expected 2`},
		{kernel + " %0 = contract i1<2 (%1 = load #0[i0] : f32; %2 = load #0[i1] : f32) (%3 = load #0[i1]) : f32\n", `f.ir:2:22: the operand is not arithmetic on loads and constants, all of it used, that gives f32`},
		{kernel + " %4 = load #0[i0] : f32\n %0 = contract i1<2 (%1 = load #0[i0] : f32; %2 = add %1 %4 : f32) (%3 = load #0[i1]) : f32\n", `f.ir:3:46: %4 is not defined in this operand`},
		{kernel + " %0 = contract i1<2 (%1 = pos [i0] : i32; %2 = cast %1 : f32) (%3 = load #0[i1]) : f32\n", `f.ir:2:22: the operand is not arithmetic`},
		{kernel + " %0 = contract i1<2 (%1 = load #0[i0] if 0 <= i0 < 2 : f32; %2 = neg %1 : f32) (%3 = load #0[i1]) : f32\n", `f.ir:2:22: the operand is not arithmetic`},
		{kernel + " %0 = contract e6m9 i1<2 (%1 = load #0[i0]) (%3 = load #0[i1]) : f32\n", `f.ir:2:16: no product is multiplied in e6m9; expected f16, bf16 or nothing`},
		{kernel + "}\n" + kernel + "}", `f.ir:3:1: kernel @k is defined twice`},
		{"system @s\nmodel @m fingerprint=\"\" state=0 {\n program @p work=0 flops=0 {\n launch @k() !-", `f.ir:4:9: kernel @k is not defined above`},
		{"system @s\n" + kernel + "}\nmodel @m fingerprint=\"\" state=0 {\n program @p work=0 flops=0 {\n launch @k() !-", `f.ir:6:9: @k has 0 arguments, expected 2 as (f32[4] in, f32[4] out)`},
	} {
		_, err := text.Parse("f.ir", c.src)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%q: %v", c.src, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q:\n error %v\n  want %s", c.src, err, c.want)
		case err != nil && strings.Contains(err.Error(), "\n"):
			t.Errorf("%q: the error has several lines: %v", c.src, err)
		}
	}
}

// mutate cuts, drops, doubles or changes a piece of s.
func mutate(r *rand.Rand, s string) string {
	at := r.IntN(len(s))
	end := min(len(s), at+1+r.IntN(8))
	switch r.IntN(5) {
	case 0:
		return s[:at]
	case 1:
		return s[:at] + s[end:]
	case 2:
		return s[:end] + s[at:]
	case 3:
		const odd = "%@#{}[](),:!=\"0123456789-+abfi*x.\n \x80"
		return s[:at] + string(odd[r.IntN(len(odd))]) + s[at+1:]
	}
	from := r.IntN(len(s))
	return s[:at] + s[from:min(len(s), from+r.IntN(12))] + s[at:]
}

func TestDamagedTextGivesAnErrorOrAFixpoint(t *testing.T) {
	compile(t)
	var seeds []string
	for _, name := range ir.OpNames() {
		proto, _ := ir.LookupOp(name)
		ss := proto.(ops.Op).Samples()
		m, _ := sampleModule(ss[len(ss)-1])
		seeds = append(seeds, text.Module(m))
	}
	for i := 0; i < len(compiled.plan.Kernels); i += 5 {
		seeds = append(seeds, compiled.plan.Kernels[i].String())
	}
	small := *compiled.plan
	small.Models = small.Models[:1]
	one := *small.Models[0]
	one.Programs, one.Globals = one.Programs[len(one.Programs)-1:], one.Globals[:3]
	small.Models = []*plan.Model{&one}
	small.Kernels = nil
	for _, l := range one.Programs[0].Launches {
		small.Kernels = append(small.Kernels, l.Kernel)
	}
	if s := text.System(&small); len(s) < 60000 {
		seeds = append(seeds, s)
	}
	r := rand.New(rand.NewPCG(1, 2))
	parsed := 0
	for _, seed := range seeds {
		for range 60 {
			s := seed
			for range 1 + r.IntN(3) {
				if s != "" {
					s = mutate(r, s)
				}
			}
			f, err := text.Parse("x", s)
			if err != nil {
				continue
			}
			parsed++
			fixpoint(t, "damaged but accepted text", f.String())
		}
	}
	t.Logf("%d of %d damaged texts still parse", parsed, 60*len(seeds))
}

func FuzzParse(f *testing.F) {
	f.Add("module @m\nglobal @w : f32[2] param init=normal(0x1p-3) decay !m.go:1\nfunc @f(%x : f32[2]) {\n block @b resblock backward {\n %1 = add %x, @w : f32[2] !m.go:2\n }\n result y = %1\n update @w = %1\n}\n")
	f.Add("module @m\nfunc @f(%x : f32[2,3]) {\n %1 = transpose %x {perm=[1,0]} : f32[3,2] !-\n %2 = reduce_sum %1 {axes=[0]} : f32[1,2] !-\n}\n")
	f.Add("kernel @k(#0 f32[6] in, #1 i32[2] in, #2 f32[6] out) grid(i0<2) tile(1,1) chunks(2) vector(i0) packed template t {A=1} scale=0x1p+00 {\n %1 = load #1[0] : i32\n %3 = loop i1<3 {\n %0 = load #0[i0*3 + %1*2 + -1] if 1 <= i1 < 3 : f32\n } sum %0\n %4 = acc %3 0 : f32\n store #2[i0], %4\n}\n")
	f.Add("kernel @k(#0 f16[6] in, #1 f32[6] out) grid(i0<2) tile(1,1) chunks(2) {\n %0 = contract f16 i1<3 (%1 = load #0[i1]) (%3 = load #0[i0]) : f32\n store #1[i0], %0\n}\n")
	f.Add("kernel @k(#0 f32[6] in, #1 f32[6] out) grid(i0<2) tile(1,1) chunks(2) {\n %0 = contract i1<3 (%1 = load #0[i1] : f32; %2 = abs %1 : f32 if 1 <= i1 < 3) (%3 = load #0[i0]) : f32\n store #1[i0], %0\n}\n")
	f.Add("system @s\nkernel @k(#0 f32[6] inout) tile(0,0) chunks(1) {\n}\nmodel @m fingerprint=ab state=64 {\n global @w : f32[6] state offset=0 !-\n program @p work=0 flops=1 {\n buffer #0 \"@w\" : f32[6] bytes=24 state offset=0 live=-1:1\n input #0\n launch @k(#0) block=@b backward values=\"%1\" !-\n output y #0\n}\n}\n")
	f.Fuzz(func(t *testing.T, src string) {
		file, err := text.Parse("x", src)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "x:") {
				t.Errorf("error without a place: %v", err)
			}
			return
		}
		fixpoint(t, "accepted text", file.String())
	})
}
