package plan

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// Evaluator runs a model's programs by the kernel evaluator in float64, every
// buffer at its planned place: element i of a buffer is number i after its
// offset, which is inside the buffer and overlaps with whatever the buffer
// overlaps with. It is the meaning of a plan, for tests and for finding where a
// compilation goes wrong.
type Evaluator struct {
	Model       *Model
	state, work []float64
}

// NewEvaluator starts with constants and constant initial values in place, and
// zeros elsewhere.
func NewEvaluator(m *Model) *Evaluator {
	x := &Evaluator{Model: m, state: make([]float64, m.StateBytes)}
	for _, g := range m.Globals {
		data := x.Global(g.Name)
		for i := range data {
			if g.Role == ir.Const {
				data[i] = float64(int32(binary.LittleEndian.Uint32(g.Data[4*i:])))
			} else if g.Init.Kind == "const" {
				data[i] = g.Init.Std
			}
		}
	}
	return x
}

// At is the contents of a buffer, valid until the next Run.
func (x *Evaluator) At(b *Buffer) []float64 {
	mem := x.work
	if b.Arena == State {
		mem = x.state
	}
	return mem[b.Offset:][:b.Type.Len()]
}

// Global is the contents of a stored tensor, nil if the model has none of that
// name. Writing to it sets the tensor.
func (x *Evaluator) Global(name string) []float64 {
	for _, g := range x.Model.Globals {
		if g.Name == name {
			return x.state[g.Offset:][:g.Type.Len()]
		}
	}
	return nil
}

// Run runs the program of that name and returns copies of its outputs. After,
// which may be nil, is called after each launch; its error ends the run.
func (x *Evaluator) Run(name string, in map[string][]float64, after func(p *Program, launch int) error) (map[string][]float64, error) {
	for _, p := range x.Model.Programs {
		if p.Name == name {
			return x.run(p, in, after)
		}
	}
	return nil, fmt.Errorf("no program %q", name)
}

func (x *Evaluator) run(p *Program, in map[string][]float64, after func(p *Program, launch int) error) (map[string][]float64, error) {
	x.work = make([]float64, p.WorkBytes)
	for i := range x.work {
		x.work[i] = math.NaN() // what is read before it is written shows
	}
	for _, b := range p.Inputs {
		if len(in[b.Name]) != b.Type.Len() {
			return nil, fmt.Errorf("%s: input %s is %s, got %d elements", p.Name, b.Name, b.Type, len(in[b.Name]))
		}
		copy(x.At(b), in[b.Name])
	}
	for i, l := range p.Launches {
		var bufs [][]float64
		for _, b := range l.Args {
			bufs = append(bufs, x.At(b))
		}
		if err := kern.Eval(l.Kernel, bufs); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", p.Name, l.Values, err)
		}
		if after != nil {
			if err := after(p, i); err != nil {
				return nil, err
			}
		}
	}
	out := map[string][]float64{}
	for _, o := range p.Outputs {
		out[o.Name] = append([]float64(nil), x.At(o.Buffer)...)
	}
	return out, nil
}
