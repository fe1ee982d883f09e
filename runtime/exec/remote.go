package exec

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
)

// remoteModel is a model's memory on a device. The host keeps a copy of the stored tensors, in
// Model.state, and a tensor is copied when one side asks for what the other has changed: down when
// the host is given a view of it, up when a program that uses it runs. The memory is taken when
// the first program runs, so that a model can be looked at where it wouldn't fit.
//
// System.turn guards all of it.
type remoteModel struct {
	state, work uint64 // addresses, 0 where there is none yet
	workBytes   int64
	moved       int     // counts changes of the addresses
	order       []int   // the stored tensors by their places
	newer       []newer // by stored tensor
	failed      error   // what went wrong; the model is of no use any more
}

// newer says which copy of a stored tensor is the current one.
type newer uint8

const (
	neither newer = iota
	host          // or may be: its owner has a view to write through
	device
)

// home ties a tensor to a model on a device.
type home struct {
	model  *Model
	stored int // number of the stored tensor, -1 for inputs and outputs
}

func newRemoteModel(m *Model) *remoteModel {
	r := &remoteModel{newer: make([]newer, len(m.spec.Globals))}
	for i := range m.spec.Globals {
		r.order = append(r.order, i)
	}
	slices.SortStableFunc(r.order, func(a, b int) int { return cmp.Compare(m.spec.Globals[a].Offset, m.spec.Globals[b].Offset) })
	return r
}

// storedAt is the number of the stored tensor that holds a byte of the state, or -1.
func (m *Model) storedAt(off int64) int {
	r := m.remote
	i, found := slices.BinarySearchFunc(r.order, off, func(g int, off int64) int { return cmp.Compare(m.spec.Globals[g].Offset, off) })
	if !found {
		i--
	}
	if i < 0 {
		return -1
	}
	if g := r.order[i]; off == m.spec.Globals[g].Offset || off < m.spec.Globals[g].Offset+int64(len(m.globals[g].Data)) {
		return g
	}
	return -1
}

// copyStored copies the stored tensors that pick accepts; neighbours are one copy.
func (m *Model) copyStored(pick func(g int) bool, move func(addr uint64, host []byte) error) error {
	r := m.remote
	from, to := int64(0), int64(0)
	flush := func() error {
		if from == to {
			return nil
		}
		return move(r.state+uint64(from), m.state.Bytes(from, int(to-from)))
	}
	for _, g := range r.order {
		off, n := m.spec.Globals[g].Offset, int64(len(m.globals[g].Data))
		if !pick(g) || n == 0 {
			continue
		}
		// Nothing lies between a tensor's end and the next multiple of 64.
		if from == to || off > (to+63)&^63 {
			if err := flush(); err != nil {
				return err
			}
			from = off
		}
		to = off + n
	}
	return flush()
}

// hand makes the host's copies of stored tensors current, for somebody who reads them, and may
// write them too if write is set. Without a device there is nothing to do.
func (m *Model) hand(write bool, stored ...int) error {
	r := m.remote
	if r == nil {
		return nil
	}
	m.sys.turn.Lock()
	defer m.sys.turn.Unlock()
	if r.failed != nil {
		return r.failed
	}
	want := map[int]bool{}
	for _, g := range stored {
		if r.newer[g] == device {
			want[g] = true
		}
	}
	if len(want) > 0 {
		err := m.copyStored(func(g int) bool { return want[g] }, func(addr uint64, host []byte) error { return m.sys.device.Download(host, addr) })
		if err == nil {
			err = m.sys.device.Wait()
		}
		if err != nil {
			r.failed = fmt.Errorf("%s: reading stored tensors: %w", m.Name(), err)
			return r.failed
		}
	}
	for _, g := range stored {
		switch {
		case write:
			r.newer[g] = host
		case want[g]:
			r.newer[g] = neither
		}
	}
	return nil
}

// written notes that the host is about to write the whole of a stored tensor. A tensor that both
// sides have as zeros, and that becomes zeros, need not be copied.
func (m *Model) written(stored int, zeros bool) {
	r := m.remote
	if r == nil {
		return
	}
	m.sys.turn.Lock()
	defer m.sys.turn.Unlock()
	if zeros && r.state == 0 && r.newer[stored] == neither {
		return
	}
	r.newer[stored] = host
}

// Err is why the model is of no use any more, nil while it is.
func (m *Model) Err() error {
	if m.remote == nil {
		return nil
	}
	m.sys.turn.Lock()
	defer m.sys.turn.Unlock()
	return m.remote.failed
}

// allot takes the memory on the device that the programs asked for need.
func (m *Model) allot() error {
	r, d := m.remote, m.sys.device
	if r.state == 0 && m.state.Size() > 0 {
		addr, err := d.Alloc(m.state.Size(), true)
		if err != nil {
			return fmt.Errorf("%s of stored tensors: %w", gib(m.state.Size()), err)
		}
		r.state = addr
		r.moved++
	}
	need := int64(0)
	for _, p := range m.programs {
		if p.remote.asked {
			need = max(need, p.spec.WorkBytes)
		}
	}
	if need <= r.workBytes {
		return nil
	}
	if r.work != 0 {
		old := r.work
		r.work, r.workBytes = 0, 0
		if err := d.Free(old); err != nil {
			return err
		}
	}
	addr, err := d.Alloc(need, false)
	if err != nil {
		return fmt.Errorf("%s of work memory: %w", gib(need), err)
	}
	r.work, r.workBytes = addr, need
	r.moved++
	return nil
}

// address is a place in the model's memory on the device.
func (m *Model) address(a Addr) uint64 {
	which, off := a.split()
	if which == State {
		return m.remote.state + uint64(off)
	}
	return m.remote.work + uint64(off)
}

// free gives the memory back.
func (r *remoteModel) free(d Device) error {
	var errs []error
	for _, addr := range []uint64{r.state, r.work} {
		if addr != 0 {
			errs = append(errs, d.Free(addr))
		}
	}
	r.state, r.work, r.workBytes = 0, 0, 0
	return errors.Join(errs...)
}

// remoteProgram is a program on a device. Its inputs and outputs are host memory, copied before
// and after every run.
type remoteProgram struct {
	asked           bool // somebody has it, so it may run
	staging         []byte
	inputs, outputs []Addr
	steps           []step
	uses, changes   []bool // by stored tensor
	moved           int    // remoteModel.moved when the calls were made, -1 if never
	calls           []Call
	ends            []int // number of calls up to the end of each step
	moments         []time.Duration
	recording       Recording
}

// step is a launch of a kernel.
type step struct{ kernel, launch int }

// newRemoteProgram lays out inputs and outputs and finds out which stored tensors the program
// reads and writes.
func newRemoteProgram(p *Program) (*remoteProgram, error) {
	m, n := p.model, len(p.model.globals)
	d := &remoteProgram{uses: make([]bool, n), changes: make([]bool, n), moved: -1}
	size := int64(0)
	for _, l := range []struct {
		specs []TensorSpec
		into  *[]Addr
	}{{p.spec.Inputs, &d.inputs}, {p.spec.Outputs, &d.outputs}} {
		for _, s := range l.specs {
			t := Tensor{Name: s.Name, DType: s.DType, Shape: s.Shape}
			n := int64(t.Len() * s.DType.Size())
			if err := p.inside(s.Addr, n); err != nil || s.DType.Size() == 0 {
				return nil, fmt.Errorf("%s: internal: %s of %s does not fit its memory; regenerate the package", m.Name(), &t, p.spec.Name)
			}
			*l.into = append(*l.into, s.Addr)
			size += (n + 63) &^ 63
		}
	}
	m.sys.turn.Lock()
	defer m.sys.turn.Unlock()
	if size > 0 {
		var err error
		if d.staging, err = m.sys.device.Pin(size); err != nil {
			return nil, fmt.Errorf("%s: inputs and outputs of %s: %w", m.Name(), p.spec.Name, err)
		}
	}
	free := d.staging
	for _, l := range []struct {
		specs []TensorSpec
		into  *[]Tensor
	}{{p.spec.Inputs, &p.inputs}, {p.spec.Outputs, &p.outputs}} {
		for _, s := range l.specs {
			t := Tensor{Name: s.Name, DType: s.DType, Shape: s.Shape, Range: s.Range, home: &home{m, -1}}
			n := t.Len() * s.DType.Size()
			t.Data, free = free[:n:n], free[(n+63)&^63:]
			*l.into = append(*l.into, t)
		}
	}
	p.spec.Run(&Run{around: func(kernel, launch int) { d.steps = append(d.steps, step{kernel, launch}) }})
	touch := func(a Addr, changes bool) {
		which, off := a.split()
		if which != State {
			return
		}
		if g := m.storedAt(off); g >= 0 {
			d.uses[g] = true
			d.changes[g] = d.changes[g] || changes
		}
	}
	for _, s := range d.steps {
		k := &m.sys.spec.Kernels[s.kernel]
		for i, a := range p.spec.Launches[s.launch].Args {
			if err := p.inside(a, 0); err != nil {
				return d, fmt.Errorf("%s: internal: launch %d of %s: %w; regenerate the package", m.Name(), s.launch, p.spec.Name, err)
			}
			touch(a, k.changes(i))
		}
	}
	for _, a := range d.inputs {
		touch(a, true)
	}
	for _, a := range d.outputs {
		touch(a, false)
	}
	return d, nil
}

// inside checks that n bytes lie in their arena.
func (p *Program) inside(a Addr, n int64) error {
	which, off := a.split()
	size := p.spec.WorkBytes
	if which == State {
		size = p.model.state.Size()
	}
	if off < 0 || n > size-off {
		return fmt.Errorf("byte %d lies outside its arena of %d", off+n, size)
	}
	return nil
}

// prepare makes the program's calls, again if its memory has moved.
func (p *Program) prepare() error {
	m, d := p.model, p.remote
	if err := m.allot(); err != nil {
		return err
	}
	if d.moved == m.remote.moved {
		return nil
	}
	if err := d.forget(); err != nil {
		return err
	}
	for _, s := range d.steps {
		var buffers []uint64
		for _, a := range p.spec.Launches[s.launch].Args {
			buffers = append(buffers, m.address(a))
		}
		for i := range m.sys.entries[s.kernel] {
			c, err := m.sys.code.Prepare(&m.sys.entries[s.kernel][i], buffers)
			if err != nil {
				return p.blame(s, err)
			}
			d.calls = append(d.calls, c)
		}
		d.ends = append(d.ends, len(d.calls))
	}
	d.moments = make([]time.Duration, len(d.calls))
	d.moved = m.remote.moved
	return nil
}

// forget drops the calls.
func (d *remoteProgram) forget() error {
	d.calls, d.ends = nil, nil
	r := d.recording
	d.recording = nil
	if r == nil {
		return nil
	}
	return r.Close()
}

func (d *remoteProgram) free(dev Device) error {
	err := d.forget()
	if d.staging != nil {
		err = errors.Join(err, dev.Unpin(d.staging))
		d.staging = nil
	}
	return err
}

// blame says which launch an error is of.
func (p *Program) blame(s step, err error) error {
	l := &p.spec.Launches[s.launch]
	return fmt.Errorf("launch %d, %s: %s (%s) %s: %w", s.launch, p.model.sys.spec.Kernels[s.kernel].Name, l.Values, orDash(l.Block), l.Pos, err)
}

// first is the number of the first call of step i.
func (d *remoteProgram) first(i int) int {
	if i == 0 {
		return 0
	}
	return d.ends[i-1]
}

// callsOf are the calls of step i.
func (d *remoteProgram) callsOf(i int) []Call { return d.calls[d.first(i):d.ends[i]] }

// away runs the program on the device; start starts its kernels. An error stays with the model:
// whoever looks at its results gets it.
func (p *Program) away(start func() error) {
	if r := p.model.remote; r.failed == nil {
		if err := p.tryAway(start); err != nil {
			r.failed = fmt.Errorf("%s: %w", p.Name(), err)
		}
	}
}

func (p *Program) tryAway(start func() error) error {
	if err := p.prepare(); err != nil {
		return err
	}
	m, d, r, dev := p.model, p.remote, p.model.remote, p.model.sys.device
	if err := m.copyStored(func(g int) bool { return d.uses[g] && r.newer[g] == host }, dev.Upload); err != nil {
		return err
	}
	for i, a := range d.inputs {
		if err := dev.Upload(m.address(a), p.inputs[i].Data); err != nil {
			return err
		}
	}
	if err := start(); err != nil {
		return err
	}
	for i, a := range d.outputs {
		if err := dev.Download(p.outputs[i].Data, m.address(a)); err != nil {
			return err
		}
	}
	if err := dev.Wait(); err != nil {
		return fmt.Errorf("%w; GOUACHE_LAUNCH=wait says in which launch", err)
	}
	for g := range d.uses {
		switch {
		case d.changes[g]:
			r.newer[g] = device
		case d.uses[g] && r.newer[g] == host:
			r.newer[g] = neither
		}
	}
	return nil
}

// start starts the kernels as GOUACHE_LAUNCH says.
func (p *Program) start() error {
	d, dev := p.remote, p.model.sys.device
	switch p.model.sys.launching {
	case launchSingle:
		return dev.Run(d.calls)
	case launchWait:
		return p.each(func(int) error { return nil })
	}
	if len(d.calls) == 0 {
		return nil
	}
	if d.recording == nil {
		var after [][]int
		if p.model.sys.launching == launchGraph {
			after = p.dependencies()
		}
		var err error
		if d.recording, err = dev.Record(d.calls, after); err != nil {
			return err
		}
	}
	return d.recording.Replay()
}

// each runs the launches one after the other, waits for each, and calls then.
func (p *Program) each(then func(i int) error) error {
	d, dev := p.remote, p.model.sys.device
	for i, s := range d.steps {
		err := dev.Run(d.callsOf(i))
		if err == nil {
			err = dev.Wait()
		}
		if err == nil {
			err = then(i)
		}
		if err != nil {
			return p.blame(s, err)
		}
	}
	return nil
}

// time starts the kernels and adds their times to the profile.
func (p *Program) time() error {
	d, profile := p.remote, p.model.sys.profile
	from := profile.clock()
	if err := p.model.sys.device.Time(d.calls, d.moments); err != nil {
		return err
	}
	at := from
	for i, s := range d.steps {
		to := at
		if n := d.ends[i]; n > 0 {
			to = max(at, from+d.moments[n-1])
		}
		e := profile.event()
		e.program, e.launch, e.from, e.to = p, s.launch, at, to
		t := &p.times[s.launch]
		t.kernel = s.kernel
		t.total += to - at
		t.busy += to - at
		t.count++
		at = to
	}
	return nil
}
