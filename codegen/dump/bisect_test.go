package dump

import (
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/interp"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

// net trains a small network with a bit of everything.
func net() ([]*ir.Module, error) {
	m := ir.NewModule("net")
	f := m.NewFunc("train")
	s := nn.In(f)
	x := nn.Embedding(s, "token", f.Input("text", ir.T(ir.I32, 2, 5)), 7, 6, 1)
	x = ops.Reshape(nn.LayerNorm(s, "norm", ops.Reshape(x, 10, 6), 1e-5), 2, 5, 2, 3)
	x = ops.Reshape(ops.Attention(x, x, x, mask.Causal()), 10, 6)
	x = nn.Linear(s, "head", ops.QuickGELU(x), 7, 0.3)
	loss := nn.CrossEntropy(x, ops.Reshape(f.Input("next", ir.T(ir.I32, 10)), 10))
	f.Result("loss", loss)
	nn.AdamW{Beta1: 0.9, Beta2: 0.99, Eps: 1e-8, Decay: 0.1}.Update(f, loss)
	return []*ir.Module{m}, f.Err()
}

func TestBisectFindsNothingInASoundCompiler(t *testing.T) {
	var said strings.Builder
	if err := (&input{name: "net", build: net}).bisect(pipeline.Passes, &said); err != nil {
		t.Error(err)
	}
	if said.String() != "net.train: the same after every pass, and launch by launch\n" {
		t.Errorf("said %q", said.String())
	}
}

// A pass that takes a square root for an exponential is found by its name, and
// the instruction by its place.
func TestBisectNamesThePassAndTheOp(t *testing.T) {
	passes := slices.Clone(pipeline.Passes)
	at := slices.IndexFunc(passes, func(p pipeline.Pass) bool { return p.Name == "cse" })
	cse := passes[at].Run
	passes[at].Run = func(f *ir.Func) error {
		for _, in := range f.Body {
			if in.Op.Name() == "sqrt" {
				in.Op = ops.ExpOp{}
				break
			}
		}
		return cse(f)
	}
	err := (&input{name: "net", build: net}).bisect(passes, io.Discard)
	if want := regexp.MustCompile(`^net\.train: after cse result loss \[0\] is .*; it begins at \w+\.go:\d+: exp of %\d+, whose %\d+ \[0\] is .*, before `); err == nil || !want.MatchString(err.Error()) {
		t.Errorf("found %v", err)
	}
}

func TestBisectNamesTheLaunch(t *testing.T) {
	ms, err := net()
	if err != nil {
		t.Fatal(err)
	}
	f := ms[0].Funcs[0]
	for _, p := range pipeline.Passes {
		if err := p.Run(f); err != nil {
			t.Fatal(err)
		}
	}
	x := newTrial(ms[0], f)
	vals, err := interp.Values(f, x.inputs, x.globals)
	if err != nil {
		t.Fatal(err)
	}
	if found, err := x.launches(ms[0], vals); found != "" || err != nil {
		t.Fatalf("%s, %v", found, err)
	}
	// What the first product should be is changed instead of its kernel.
	for _, in := range f.Body {
		if in.Op.Name() == "matmul" {
			vals[in.Results[0].ID].Data[3] += 1
			break
		}
	}
	found, err := x.launches(ms[0], vals)
	if want := regexp.MustCompile(`^lowering, or placement: launch \d+ of matmul_\w+ \(.*%\d+.*\) at \w+\.go:\d+ writes %\d+, which \[3\] is `); err != nil || !want.MatchString(found) {
		t.Errorf("found %q, %v", found, err)
	}
}
