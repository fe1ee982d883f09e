package exec

import (
	"fmt"
	"slices"
)

// Culprit is the launch that first wrote a number that isn't finite.
type Culprit struct {
	Block  string // region of the model, such as "mlp3 backward"; the first of those whose work the kernel does
	Kernel string // named after the ops it does
	Values string // IR values computed
	Pos    string // line of the model's source
	DType  DType
	Elem   int // the first such element
	Value  float64
}

// String says it in one line.
func (c *Culprit) String() string {
	return fmt.Sprintf("%s: %s in %s (%s) wrote %v as element %d of its %s result", c.Pos, c.Kernel, c.Block, c.Values, c.Value, c.Elem, c.DType)
}

// Trace runs the program once more and looks at what every launch wrote. It
// returns nil if all of it is finite, or if the system was compiled without the
// tables that tell. The run is the last one again if the stored tensors are as
// they were before it.
func (p *Program) Trace() *Culprit {
	p.model.sys.turn.Lock()
	defer p.model.sys.turn.Unlock()
	var found *Culprit
	kernels := p.model.sys.spec.Kernels
	if !slices.ContainsFunc(kernels, func(k Kernel) bool { return len(k.Writes) > 0 }) {
		return nil
	}
	run := p.run
	run.around = func(kernel, launch int) {
		p.run.launch(kernel, launch)
		if found != nil {
			return
		}
		l := &p.spec.Launches[launch]
		for _, w := range kernels[kernel].Writes {
			t, err := p.model.tensor(TensorSpec{Name: l.Values, DType: w.DType, Shape: []int{w.Len}, Addr: l.Args[w.Arg]})
			if err != nil {
				continue
			}
			if e := t.NonFinite(); e >= 0 {
				found = &Culprit{Block: l.Block, Kernel: kernels[kernel].Name, Values: l.Values, Pos: l.Pos, DType: w.DType, Elem: e, Value: t.at(e)}
				return
			}
		}
	}
	p.spec.Run(&run)
	return found
}
