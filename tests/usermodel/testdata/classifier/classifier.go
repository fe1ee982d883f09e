// Package classifier declares a convolutional network that tells stripes,
// diagonals and checkerboards apart.
package classifier

import (
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/models/system"
	"github.com/gouache-ml/gouache/ops"
)

//go:generate go run ../gouachec -system classifier -o ../gen/classifier

// Sizes of the model.
const Side, Classes, Width, Batch = 12, 4, 12, 16

var optimizer = nn.AdamW{Beta1: 0.9, Beta2: 0.99, Eps: 1e-8}

func init() {
	system.Register(system.System{Name: "classifier", Doc: "a small convolutional network", Build: build})
}

func build() ([]*ir.Module, error) {
	m := ir.NewModule("classifier")

	train := m.NewFunc("train")
	scores := forward(train)
	loss := nn.CrossEntropy(scores, train.Input("classes", ir.T(ir.I32, Batch)))
	train.Result("loss", loss)
	optimizer.Update(train, loss)

	classify := m.NewFunc("classify")
	classify.Result("classes", ops.Argmax(forward(classify)))
	return []*ir.Module{m}, nil
}

// forward scores every class for each picture.
func forward(f *ir.Func) *ir.Value {
	s := nn.In(f)
	x := f.Input("pictures", ir.T(ir.F32, Batch, Side, Side, 1))
	x = ops.MaxPool2D(ops.ReLU(nn.Conv(s, "conv1", x, 3, Width)), 2)
	x = ops.MaxPool2D(ops.ReLU(nn.Conv(s, "conv2", x, 3, 2*Width)), 2)
	return nn.Linear(s, "head", ops.Reshape(x, Batch, Side/4*Side/4*2*Width), Classes, 0.05)
}
