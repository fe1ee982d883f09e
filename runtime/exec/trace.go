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
	var found *Culprit
	p.Observe(func(kernel *Kernel, l *Launch, t *Tensor) {
		if found != nil {
			return
		}
		if e := t.nonFinite(); e >= 0 {
			found = &Culprit{Block: l.Block, Kernel: kernel.Name, Values: l.Values, Pos: l.Pos, DType: t.DType, Elem: e, Value: t.at(e)}
		}
	})
	return found
}

// Observe runs the program as Run does and shows every floating-point result of
// every launch right after it is written; the tensor is valid during the call.
// It tells whether there was anything to show: not so if the system was compiled
// without the tables that tell, and then nothing has run.
func (p *Program) Observe(see func(*Kernel, *Launch, *Tensor)) bool {
	p.model.sys.turn.Lock()
	defer p.model.sys.turn.Unlock()
	kernels := p.model.sys.spec.Kernels
	if !slices.ContainsFunc(kernels, func(k Kernel) bool { return len(k.Writes) > 0 }) {
		return false
	}
	show := func(kernel, launch int, view func(TensorSpec) (Tensor, error)) error {
		k, l := &kernels[kernel], &p.spec.Launches[launch]
		for _, w := range k.Writes {
			t, err := view(TensorSpec{Name: l.Values, DType: w.DType, Shape: []int{w.Len}, Addr: l.Args[w.Arg]})
			if err != nil {
				return err
			}
			see(k, l, &t)
		}
		return nil
	}
	if p.remote != nil {
		p.away(func() error {
			return p.each(func(i int) error {
				s := p.remote.steps[i]
				return show(s.kernel, s.launch, p.fetch)
			})
		})
		return true
	}
	run := p.run
	run.around = func(kernel, launch int) {
		p.run.launch(kernel, launch)
		_ = show(kernel, launch, p.model.tensor) // newProgram has checked that every buffer lies in its arena
	}
	p.spec.Run(&run)
	return true
}

// fetch copies a tensor from the device.
func (p *Program) fetch(s TensorSpec) (Tensor, error) {
	t := Tensor{Name: s.Name, DType: s.DType, Shape: s.Shape}
	n := int64(t.Len() * s.DType.Size())
	if err := p.inside(s.Addr, n); err != nil {
		return t, fmt.Errorf("internal: %s: %w; regenerate the package", &t, err)
	}
	d := p.model.sys.device
	t.Data = make([]byte, n)
	err := d.Download(t.Data, p.model.address(s.Addr))
	if err == nil {
		err = d.Wait()
	}
	return t, err
}
