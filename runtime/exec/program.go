package exec

import (
	"fmt"

	"github.com/gouache-ml/gouache/runtime/device/cpu"
)

// Program is one compiled function of a model.
//
// Its inputs and outputs are views into the model's work memory. Inputs keep their contents from
// one run to the next, as long as no other program of the model runs in between; outputs are
// valid until the next run of any program of the model. On a device they are host memory, from
// which every run takes its inputs and to which it brings its outputs.
type Program struct {
	model           *Model
	spec            *ProgramSpec
	inputs, outputs []Tensor
	args            *cpu.Arena // the argument blocks of all launches, one after the other
	run             Run
	times           []launchTime // by launch, when profiled
	total           programTime
	remote          *remoteProgram // nil on a processor, where args and run are
}

// Run is one execution in progress, as generated code sees it.
type Run struct {
	pool    *cpu.Pool
	kernels []entry
	args    uintptr // address of the argument blocks
	block   []int64 // their contents
	first   []int   // the slot where each launch's block starts, and the end
	// around, when set, is called for each launch instead of running it.
	around func(kernel, launch int)
}

func newProgram(m *Model, spec *ProgramSpec) (*Program, error) {
	p := &Program{model: m, spec: spec}
	if m.sys.profile != nil {
		p.times = make([]launchTime, len(spec.Launches))
	}
	if m.remote != nil {
		var err error
		p.remote, err = newRemoteProgram(p)
		return p, err
	}
	for _, l := range []struct {
		specs []TensorSpec
		into  *[]Tensor
	}{{spec.Inputs, &p.inputs}, {spec.Outputs, &p.outputs}} {
		for _, s := range l.specs {
			t, err := m.tensor(s)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", spec.Name, err)
			}
			*l.into = append(*l.into, t)
		}
	}
	slots := 0
	for i := range spec.Launches {
		slots += len(spec.Launches[i].Args)
	}
	args, err := cpu.NewArena(int64(8 * slots))
	if err != nil {
		return nil, fmt.Errorf("%s: arguments of %s: %w", m.Name(), spec.Name, err)
	}
	p.args = args
	p.run = Run{pool: m.sys.pool, kernels: m.sys.kernels}
	if m.sys.profile != nil {
		p.run.around = p.timed
	}
	p.run.args, p.run.block = args.Addr(0), args.I64(0, slots)
	slot := 0
	for i := range spec.Launches {
		p.run.first = append(p.run.first, slot)
		for _, a := range spec.Launches[i].Args {
			arena, off := m.place(a)
			if off > arena.Size() {
				args.Close()
				return nil, fmt.Errorf("%s: internal: launch %d of %s: byte %d lies outside its arena of %d; regenerate the package", m.Name(), i, spec.Name, off, arena.Size())
			}
			p.run.block[slot] = int64(arena.Addr(off))
			slot++
		}
	}
	p.run.first = append(p.run.first, slot)
	return p, nil
}

// Run executes the program once. On a processor it allocates nothing.
//
// On a device it can fail. Then neither this nor a later run of the model does anything, and
// methods of its programs and tensors that return an error return what has gone wrong.
func (p *Program) Run() {
	p.model.sys.turn.Lock()
	switch profile := p.model.sys.profile; {
	case profile != nil:
		profile.enclose(p)
	case p.remote != nil:
		p.away(p.start)
	default:
		p.spec.Run(&p.run)
	}
	p.model.sys.turn.Unlock()
}

// ask notes that somebody has the program.
func (p *Program) ask() {
	m := p.model
	if p.remote != nil {
		m.sys.turn.Lock()
		p.remote.asked = true
		m.sys.turn.Unlock()
		return
	}
	named := p.named()
	for i := range m.globals {
		if named[m.spec.Globals[i].Offset] {
			m.bring(i)
		}
	}
}

// named are the offsets of the stored tensors among the buffers of p's launches.
func (p *Program) named() map[int64]bool {
	offsets := map[int64]bool{}
	for i := range p.spec.Launches {
		for _, a := range p.spec.Launches[i].Args {
			if arena, offset := a.split(); arena == State {
				offsets[offset] = true
			}
		}
	}
	return offsets
}

// FLOPs is the number of floating-point operations of one run, as the compiler counted them.
func (p *Program) FLOPs() int64 {
	n := int64(0)
	p.spec.Run(&Run{around: func(kernel, _ int) { n += p.model.sys.spec.Kernels[kernel].FLOPs }})
	return n
}

// Launch runs a kernel on the buffers of one row of the program's table. Only generated code
// calls it.
func (r *Run) Launch(kernel, launch int) {
	if r.around != nil {
		r.around(kernel, launch)
		return
	}
	r.launch(kernel, launch)
}

func (r *Run) launch(kernel, launch int) {
	k := &r.kernels[kernel]
	if k.fn == nil {
		r.pool.RunDealt(k.addr, r.args+uintptr(8*r.first[launch]), k.chunks, k.deal)
		return
	}
	args := r.block[r.first[launch]:r.first[launch+1]]
	r.pool.RunFunc(k.chunks, func(chunk, _ int) { k.fn(args, chunk) })
}

// Name is the program's name, with the model's and the system's.
func (p *Program) Name() string { return p.model.Name() + "." + p.spec.Name }

// Launches is the number of kernels one run launches.
func (p *Program) Launches() int { return len(p.spec.Launches) }

// Parallel calls f for each 0 <= i < n, on the model's workers in any order, and returns when all calls have. Where the model is on
// a device, calls come one after the other.
func (p *Program) Parallel(n int, f func(i int)) {
	if p.remote != nil {
		for i := range n {
			f(i)
		}
		return
	}
	p.run.pool.RunFunc(n, func(chunk, _ int) { f(chunk) })
}

// Inputs lists the inputs. The slice must not be changed, the tensors' contents may.
func (p *Program) Inputs() []Tensor { return p.inputs }

// Outputs lists the outputs.
func (p *Program) Outputs() []Tensor { return p.outputs }

// Input returns the input of that name.
func (p *Program) Input(name string) (*Tensor, error) { return p.find("input", p.inputs, name) }

// Output returns the output of that name.
func (p *Program) Output(name string) (*Tensor, error) { return p.find("output", p.outputs, name) }

// InputF32 returns the elements of an f32 input, to be filled before Run.
func (p *Program) InputF32(name string) ([]float32, error) {
	return elements(p.Input, name, (*Tensor).F32)
}

// InputI32 returns the elements of an i32 input, to be filled before Run.
func (p *Program) InputI32(name string) ([]int32, error) {
	return elements(p.Input, name, (*Tensor).I32)
}

// OutputF32 returns the elements of an f32 output.
func (p *Program) OutputF32(name string) ([]float32, error) {
	return elements(p.Output, name, (*Tensor).F32)
}

// OutputI32 returns the elements of an i32 output.
func (p *Program) OutputI32(name string) ([]int32, error) {
	return elements(p.Output, name, (*Tensor).I32)
}

func (p *Program) find(what string, ts []Tensor, name string) (*Tensor, error) {
	var names []string
	for i := range ts {
		if ts[i].Name == name {
			return &ts[i], nil
		}
		names = append(names, ts[i].Name)
	}
	return nil, unknown(p.Name(), what, name, names)
}

// CheckFinite reports the first output that holds an infinity or NaN.
func (p *Program) CheckFinite() error {
	if err := p.model.Err(); err != nil {
		return err
	}
	for i := range p.outputs {
		t := &p.outputs[i]
		if e := t.nonFinite(); e >= 0 {
			return fmt.Errorf("%s: output %s: element %d is %v", p.Name(), t, e, t.at(e))
		}
	}
	return nil
}
