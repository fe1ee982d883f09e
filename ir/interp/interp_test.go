package interp_test

import (
	"math"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/interp"
	"github.com/gouache-ml/gouache/ops"
)

func tensor(t ir.Type, data ...float64) *ir.Tensor { return &ir.Tensor{Type: t, Data: data} }

func TestRunComputesResultsAndUpdates(t *testing.T) {
	m := ir.NewModule("m")
	w := &ir.Global{Name: "w", Type: ir.T(ir.F32, 2), Role: ir.Param}
	half := &ir.Global{Name: "half", Type: ir.T(ir.F32), Role: ir.Const, Data: []byte{0, 0, 0, 0x3f}}
	if err := m.AddGlobal(w); err != nil {
		t.Fatal(err)
	}
	if err := m.AddGlobal(half); err != nil {
		t.Fatal(err)
	}
	f := m.NewFunc("f")
	x := f.Input("x", ir.T(ir.F32, 2))
	y := ops.Mul(ops.Add(x, f.Read(w)), f.Read(half))
	f.Result("y", y)
	f.Update(w, ops.Exp(y))
	in := tensor(x.Type, 1, 2)
	old := tensor(w.Type, 3, -2)
	res, up, err := interp.Run(f, map[string]*ir.Tensor{"x": in}, map[string]*ir.Tensor{"w": old})
	if err != nil {
		t.Fatal(err)
	}
	if got := res["y"].Data; got[0] != 2 || got[1] != 0 {
		t.Errorf("y = %v, want [2 0]", got)
	}
	if got := up["w"].Data; got[0] != math.Exp(2) || got[1] != 1 || old.Data[0] != 3 {
		t.Errorf("w = %v from %v, want [e^2 1] from [3 -2]", got, old.Data)
	}
}

func TestRunNamesWhatIsWrong(t *testing.T) {
	m := ir.NewModule("m")
	f := m.NewFunc("f")
	x := f.Input("x", ir.T(ir.F32, 2))
	f.Result("g", ops.Gradient(ops.Sum(x), x)[0])
	for _, c := range []struct {
		in   *ir.Tensor
		want string
	}{
		{nil, "input %x is missing"},
		{tensor(ir.T(ir.F32, 3), 1, 2, 3), "input %x is f32[2], the tensor given is f32[3]"},
		{tensor(x.Type, 1, 2), "gradient cannot be executed; expand it first"},
	} {
		_, _, err := interp.Run(f, map[string]*ir.Tensor{"x": c.in}, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}
