package script

import (
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/ops"
)

// line fits y = w*x + b.
func line() ([]*ir.Module, error) {
	m := ir.NewModule("line")
	f := m.NewFunc("train")
	x, y := f.Input("x", ir.T(ir.F32, 16, 1)), f.Input("y", ir.T(ir.F32, 16, 1))
	loss := ops.Mean(ops.Square(ops.Sub(nn.Linear(nn.In(f), "fit", x, 1, 0.5), y)))
	f.Result("loss", loss)
	nn.AdamW{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8}.Update(f, loss)
	g := m.NewFunc("predict")
	g.Result("y", nn.Linear(nn.In(g), "fit", g.Input("x", ir.T(ir.F32, 3, 1)), 1, 0.5))
	for _, f := range m.Funcs {
		if err := f.Err(); err != nil {
			return nil, err
		}
	}
	return []*ir.Module{m}, nil
}

// bent multiplies matrices whose inner dimensions differ.
func bent() ([]*ir.Module, error) {
	m := ir.NewModule("bent")
	f := m.NewFunc("train")
	f.Result("y", ops.MatMul(f.Input("a", ir.T(ir.F32, 4, 8)), f.Input("b", ir.T(ir.F32, 9, 2))))
	return []*ir.Module{m}, f.Err()
}
