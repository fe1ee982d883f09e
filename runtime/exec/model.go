package exec

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gouache-ml/gouache/runtime/device/cpu"
)

// Model is one network: its stored tensors, and the memory its programs share.
type Model struct {
	sys         *System
	spec        *ModelSpec
	state, work *cpu.Arena // on a device the host's copy of the stored tensors, and nothing
	workBytes   int64
	remote      *remoteModel // nil on a processor
	globals     []Global
	index       map[string]int
	programs    []*Program
}

// Global is a stored tensor.
type Global struct {
	Tensor
	Role  Role
	Of    string // the parameter a moment or average belongs to
	Decay bool   // weight decay applies

	init  string
	std   float64
	fixed int  // offset of a constant's contents, or -1
	there bool // a constant's contents are in its memory
}

func newModel(s *System, spec *ModelSpec) (*Model, error) {
	m := &Model{sys: s, spec: spec, index: map[string]int{}}
	if s.device != nil {
		m.remote = newRemoteModel(m)
	}
	if err := m.layOut(); err != nil {
		s.turn.Lock()
		defer s.turn.Unlock()
		return nil, errors.Join(err, m.free())
	}
	return m, nil
}

// layOut takes the memory, makes the views and fills what no snapshot needs to bring.
func (m *Model) layOut() error {
	spec := m.spec
	var err error
	if m.state, err = cpu.NewArena(spec.StateBytes); err != nil {
		return fmt.Errorf("%s: stored tensors: %w", m.Name(), err)
	}
	for i := range spec.Programs {
		m.workBytes = max(m.workBytes, spec.Programs[i].WorkBytes)
	}
	if m.remote == nil {
		if m.work, err = cpu.NewArena(m.workBytes); err != nil {
			return fmt.Errorf("%s: work memory: %w", m.Name(), err)
		}
	}
	for i, g := range spec.Globals {
		t, err := m.tensor(TensorSpec{Name: g.Name, DType: g.DType, Shape: g.Shape, Addr: State + Addr(g.Offset)})
		if err != nil {
			return err
		}
		if m.remote != nil {
			t.home = &home{m, i}
		}
		m.globals = append(m.globals, Global{Tensor: t, Role: g.Role, Of: g.Of, Decay: g.Decay, init: g.Init, std: g.Std, fixed: g.Const})
		m.index[g.Name] = i
	}
	for i := range spec.Programs {
		p, err := newProgram(m, &spec.Programs[i])
		if p != nil {
			m.programs = append(m.programs, p)
		}
		if err != nil {
			return err
		}
	}
	for i := range m.globals {
		if g := &m.globals[i]; g.Role == RoleState || g.Role == RoleConst && !m.waits(g) {
			if err := m.fill(i, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// waits reports whether a stored tensor is a constant that gets its contents when somebody looks at it or
// asks for a program that does: the tables that only sampling reads are no burden to training.
func (m *Model) waits(g *Global) bool { return m.remote == nil && g.fixed >= 0 }

// bring fills those of some stored tensors that have waited.
func (m *Model) bring(stored ...int) {
	for _, i := range stored {
		if g := &m.globals[i]; m.waits(g) {
			m.sys.turn.Lock()
			if !g.there {
				copy(g.Data, m.contents(g))
				g.there = true
			}
			m.sys.turn.Unlock()
		}
	}
}

// contents are those of a constant.
func (m *Model) contents(g *Global) []byte { return m.spec.Consts[g.fixed : g.fixed+len(g.Data)] }

// tensor makes a view, checking that it lies in its arena.
func (m *Model) tensor(s TensorSpec) (Tensor, error) {
	t := Tensor{Name: s.Name, DType: s.DType, Shape: s.Shape, Range: s.Range}
	arena, off := m.place(s.Addr)
	n := t.Len() * s.DType.Size()
	if s.DType.Size() == 0 || off < 0 || int64(n) > arena.Size()-off {
		return t, fmt.Errorf("%s: internal: %s does not fit at byte %d of %d; regenerate the package", m.Name(), &t, off, arena.Size())
	}
	t.Data = arena.Bytes(off, n)
	return t, nil
}

func (m *Model) place(a Addr) (*cpu.Arena, int64) {
	which, off := a.split()
	if which == State {
		return m.state, off
	}
	return m.work, off
}

func (m *Model) free() error {
	var errs []error
	for _, p := range m.programs {
		if p.args != nil {
			errs = append(errs, p.args.Close())
		}
		if p.remote != nil {
			errs = append(errs, p.remote.free(m.sys.device))
		}
	}
	if r := m.remote; r != nil {
		errs = append(errs, r.free(m.sys.device))
		if r.failed == nil {
			r.failed = fmt.Errorf("%s: it is closed; ask the system for it again", m.Name())
		}
	}
	for _, a := range []*cpu.Arena{m.state, m.work} {
		if a != nil {
			errs = append(errs, a.Close())
		}
	}
	return errors.Join(errs...)
}

// Close gives the model's memory back; System.Model makes it anew.
func (m *Model) Close() error {
	m.sys.mu.Lock()
	defer m.sys.mu.Unlock()
	m.sys.turn.Lock()
	defer m.sys.turn.Unlock()
	if m.sys.models[m.spec.Name] != m {
		return nil
	}
	delete(m.sys.models, m.spec.Name)
	return m.free()
}

// Name is the model's name, with the system's.
func (m *Model) Name() string { return m.sys.Name() + "." + m.spec.Name }

// Fingerprint is a hash of the names, types and roles of the stored tensors: a snapshot fits a
// model if they are equal.
func (m *Model) Fingerprint() string { return m.spec.Fingerprint }

// Globals lists the stored tensors in order of declaration. The slice must not be changed.
//
// On a device it first copies all that programs have changed to the host, and what it returns is
// copied back before the next run: where a loop looks at a few tensors, Select or Tensor cost less.
// After the device has failed the tensors have no Data.
func (m *Model) Globals() []Global {
	if m.remote == nil {
		for i := range m.globals {
			m.bring(i)
		}
		return m.globals
	}
	if m.hand(true, m.remote.order...) == nil {
		return m.globals
	}
	out := slices.Clone(m.globals)
	for i := range out {
		out[i].Data = nil
	}
	return out
}

// Select is the stored tensors that want accepts, in order of declaration; on a device only these
// are copied to the host and back. want must look at no Data.
func (m *Model) Select(want func(*Global) bool) []*Global {
	var out []*Global
	var picked []int
	for i := range m.globals {
		if g := &m.globals[i]; want(g) {
			out, picked = append(out, g), append(picked, i)
		}
	}
	m.bring(picked...)
	if m.hand(true, picked...) != nil {
		for i, g := range out {
			failed := *g
			failed.Data = nil
			out[i] = &failed
		}
	}
	return out
}

// Params is the number of learned parameters.
func (m *Model) Params() int {
	n := 0
	for i := range m.globals {
		if m.globals[i].Role == RoleParam {
			n += m.globals[i].Len()
		}
	}
	return n
}

// Bytes are the sizes of the memory for stored tensors and for work.
func (m *Model) Bytes() (state, work int64) { return m.state.Size(), m.workBytes }

// Tensor returns the stored tensor of that name. On a device its Data are good until the next run,
// and may be written until then.
func (m *Model) Tensor(name string) (*Tensor, error) {
	i, ok := m.index[name]
	if !ok {
		var names []string
		for i := range m.globals {
			names = append(names, m.globals[i].Name)
		}
		return nil, unknown(m.Name(), "stored tensor", name, names)
	}
	m.bring(i)
	if err := m.hand(true, i); err != nil {
		return nil, err
	}
	return &m.globals[i].Tensor, nil
}

// F32 returns the elements of a stored f32 tensor, sharing memory with it; on a device until the
// next run, as of Tensor.
func (m *Model) F32(name string) ([]float32, error) { return elements(m.Tensor, name, (*Tensor).F32) }

// I32 returns the elements of a stored i32 tensor, as F32 does.
func (m *Model) I32(name string) ([]int32, error) { return elements(m.Tensor, name, (*Tensor).I32) }

func elements[T any](find func(string) (*Tensor, error), name string, as func(*Tensor) ([]T, error)) ([]T, error) {
	t, err := find(name)
	if err != nil {
		return nil, err
	}
	return as(t)
}

// Init fills every stored tensor with its initial value. Equal seeds give equal bits on any
// number of threads. An average starts as its parameter.
func (m *Model) Init(seed uint64) error {
	if err := m.Err(); err != nil {
		return err
	}
	if m.remote == nil {
		m.state.Clear()
	}
	for i := range m.globals {
		if g := &m.globals[i]; g.Role != RoleAverage && (!m.waits(g) || g.there) {
			if err := m.fill(i, seed); err != nil {
				return err
			}
		}
	}
	for i := range m.globals {
		g := &m.globals[i]
		if g.Role != RoleAverage {
			continue
		}
		of, err := m.Tensor(g.Of)
		if err != nil {
			return err
		}
		m.written(i, false)
		if of.DType == g.DType {
			copy(g.Data, of.Data)
			continue
		}
		m.each(g.Len(), func(lo, hi int) {
			for i := lo; i < hi; i++ {
				g.set(i, of.at(i))
			}
		})
	}
	return nil
}

// fillElems is the number of elements that one thread fills at a time, a fraction of a
// millisecond of work.
const fillElems = 1 << 15

// each calls f for parts of 0..n-1 on all threads.
func (m *Model) each(n int, f func(lo, hi int)) {
	m.sys.turn.Lock()
	defer m.sys.turn.Unlock()
	m.sys.pool.RunFunc((n+fillElems-1)/fillElems, func(chunk, _ int) {
		f(chunk*fillElems, min(n, (chunk+1)*fillElems))
	})
}

// fill gives stored tensor i its initial value. On a processor its memory is clear.
func (m *Model) fill(i int, seed uint64) error {
	g := &m.globals[i]
	m.written(i, g.fixed < 0 && (g.init == "" || g.init == "zeros"))
	switch {
	case g.fixed >= 0:
		copy(g.Data, m.contents(g))
	case g.init == "" || g.init == "zeros":
		if m.remote != nil {
			m.each(len(g.Data), func(lo, hi int) { zero(g.Data[lo:hi]) })
		}
	case g.init == "const":
		m.each(g.Len(), func(lo, hi int) {
			for i := lo; i < hi; i++ {
				g.set(i, g.std)
			}
		})
	case g.init == "normal":
		name := hashName(g.Name)
		m.each(g.Len(), func(lo, hi int) {
			r := normals(seed, name, lo/fillElems)
			if g.DType == F32 {
				f := raw[float32](&g.Tensor)
				for i := lo; i < hi; i++ {
					f[i] = float32(g.std * r.NormFloat64())
				}
				return
			}
			for i := lo; i < hi; i++ {
				g.set(i, g.std*r.NormFloat64())
			}
		})
	default:
		return fmt.Errorf("%s: internal: @%s starts as %q, which is unknown; regenerate the package", m.Name(), g.Name, g.init)
	}
	return nil
}

// zero clears b, unless it is clear: memory that was never written takes no pages until then, and
// caches that only sampling uses can be larger than everything training writes.
func zero(b []byte) {
	for len(b) >= zeroBytes {
		if *(*[zeroBytes]byte)(b) != [zeroBytes]byte{} {
			clear(b[:zeroBytes])
		}
		b = b[zeroBytes:]
	}
	clear(b)
}

// zeroBytes is what zero looks at before it writes: a page.
const zeroBytes = 4096

// CheckFinite reports the first stored tensor that holds an infinity or NaN.
func (m *Model) CheckFinite() error {
	if m.remote != nil {
		if err := m.hand(false, m.remote.order...); err != nil {
			return err
		}
	}
	for i := range m.globals {
		if e := m.globals[i].nonFinite(); e >= 0 {
			return fmt.Errorf("%s: stored tensor %s: element %d is %v", m.Name(), &m.globals[i].Tensor, e, m.globals[i].at(e))
		}
	}
	return nil
}

// Programs lists the names of the programs.
func (m *Model) Programs() []string {
	var names []string
	for _, p := range m.programs {
		names = append(names, p.spec.Name)
	}
	return names
}

// Program returns the program of that name. A program that needs more memory than this machine
// has is an error.
func (m *Model) Program(name string) (*Program, error) {
	for _, p := range m.programs {
		if p.spec.Name == name {
			if err := p.fits(); err != nil {
				return nil, err
			}
			p.ask()
			return p, nil
		}
	}
	return nil, unknown(m.Name(), "program", name, m.Programs())
}
