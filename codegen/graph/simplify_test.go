package graph

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/interp"
	"github.com/gouache-ml/gouache/ops"
)

func TestSimplifyLeavesTheBitsAndDropsWhatDoesNothing(t *testing.T) {
	f := ir.NewModule("t").NewFunc("f")
	x := f.Input("x", ir.T(ir.F32, 2, 3, 4))
	y := ops.Exp(x)
	// Each is y again, or one view of it.
	f.Result("neg", ops.Neg(ops.Neg(y)))
	f.Result("mul", ops.MulConst(y, 1))
	f.Result("turned", ops.Transpose(ops.Transpose(y, 2, 0, 1), 1, 2, 0))
	f.Result("turned twice", ops.Transpose(ops.Transpose(y, 2, 0, 1), 2, 0, 1))
	f.Result("shaped", ops.Reshape(ops.Reshape(ops.Reshape(y, 24), 4, 6), 2, 3, 4))
	f.Result("shaped else", ops.Reshape(ops.Reshape(y, 24), 4, 6))
	f.Result("wide", ops.BroadcastTo(ops.BroadcastTo(ops.Reshape(y, 1, 24), 2, 24), 3, 2, 24))
	f.Result("copied", ops.Neg(ops.Neg(x))) // a result has memory of its own
	f.Result("of x", ops.Exp(ops.Neg(ops.Neg(x))))
	f.Result("ones", ops.Mul(ops.Cast(ops.Cast(ops.Full(f, ir.T(ir.F32), 1), ir.F16), ir.F32), y))
	data := make([]float64, 24)
	for i := range data {
		data[i] = float64(i)/7 - 1
	}
	run := func() map[string]*ir.Tensor {
		out, _, err := interp.Run(f, map[string]*ir.Tensor{"x": {Type: x.Type, Data: data}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	before := run()
	for _, pass := range []func(*ir.Func) error{Simplify, DCE} {
		if err := pass(f); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range before {
		if got := run()[name]; !got.Type.Equal(want.Type) || !slices.Equal(got.Data, want.Data) {
			t.Errorf("%s is %v, was %v", name, got, want)
		}
	}
	var left []string
	for _, in := range f.Body {
		left = append(left, in.Op.Name())
	}
	slices.Sort(left)
	if got, want := strings.Join(left, " "), "broadcast_to exp exp neg neg reshape reshape transpose"; got != want {
		t.Errorf("left are %s; want %s", got, want)
	}
	for _, r := range f.Results {
		if r.Name == "turned twice" && fmt.Sprint(r.Value.Def.Op.(ops.TransposeOp).Perm) != "[1 2 0]" {
			t.Errorf("two turns are joined to %v, want [1 2 0]", r.Value.Def.Op)
		}
	}
}
