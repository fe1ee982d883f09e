package exec

import (
	"slices"
	"time"

	"github.com/gouache-ml/gouache/runtime/device/cpu"
)

// Profile says where the time of a system's steps goes: in kernels, in threads that wait for other
// threads, between launches, and in work of the host that its caller names. All time from Reset on
// is accounted for; what nobody named shows as "unnamed".
//
// It serves one goroutine, the one that runs the programs. Methods of a nil Profile do nothing.
type Profile struct {
	sys      *System
	from     time.Duration // all times count from the pool's epoch
	last     time.Duration // up to here time is accounted for
	steps    int
	host     []hostTime
	programs []*Program // that ran
	now      []event    // the step in progress
	trace    []event    // the fastest step, which others disturbed least
	traced   time.Duration
}

// hostTime is work outside programs.
type hostTime struct {
	name  string
	total time.Duration
	count int
}

// programTime sums up the runs of a program.
type programTime struct {
	runs  int
	total time.Duration
}

// launchTime sums up the runs of one launch.
type launchTime struct {
	kernel      int
	count       int
	total, busy time.Duration // busy adds up all threads
}

// event is a stretch of a step: host work, a program (launch -1) or a launch.
type event struct {
	name     string // of host work
	program  *Program
	launch   int
	from, to time.Duration
	workers  []cpu.WorkerTime // none on a device
}

const (
	// unnamed is the name of host work that has none.
	unnamed = "unnamed"
	// mostEvents bounds the memory for runs that never end a step.
	mostEvents = 100_000
)

func newProfile(s *System) *Profile {
	p := &Profile{sys: s}
	p.Reset()
	return p
}

// Profile is the system's; nil unless Options.Profile was set.
func (s *System) Profile() *Profile { return s.profile }

func (p *Profile) clock() time.Duration { return time.Since(p.sys.pool.Epoch()) }

// Reset forgets everything; the first step begins now.
func (p *Profile) Reset() {
	if p == nil {
		return
	}
	for _, program := range p.programs {
		program.ResetProfile()
	}
	p.from = p.clock()
	p.last, p.steps, p.host, p.programs, p.trace, p.now = p.from, 0, nil, nil, nil, nil
}

// Mark counts the time since the last program or mark as host work of that name.
func (p *Profile) Mark(name string) {
	if p != nil {
		p.mark(name)
	}
}

func (p *Profile) mark(name string) {
	i := slices.IndexFunc(p.host, func(h hostTime) bool { return h.name == name })
	if i < 0 {
		i = len(p.host)
		p.host = append(p.host, hostTime{name: name})
	}
	e := p.event()
	e.name, e.from, e.to = name, p.last, p.clock()
	h := &p.host[i]
	h.total += e.to - e.from
	h.count++
	p.last = e.to
}

// event appends one to the trace. It takes over the slice of an old one.
func (p *Profile) event() *event {
	if n := len(p.now); n < cap(p.now) {
		p.now = p.now[:n+1]
	} else {
		p.now = append(p.now, event{})
	}
	e := &p.now[len(p.now)-1]
	*e = event{launch: -1, workers: e.workers[:0]}
	return e
}

// Step ends a step.
func (p *Profile) Step() {
	if p == nil {
		return
	}
	p.mark(unnamed)
	p.steps++
	if t := p.last - p.now[0].from; len(p.trace) == 0 || t < p.traced {
		p.trace, p.now, p.traced = p.now, p.trace, t
	}
	p.now = p.now[:0]
}

// enclose runs a program.
func (p *Profile) enclose(program *Program) {
	if p.mark(unnamed); len(p.now) > mostEvents {
		p.now = p.now[:0]
	}
	if program.total.runs == 0 && !slices.Contains(p.programs, program) {
		p.programs = append(p.programs, program)
	}
	at, from := len(p.now), p.last
	p.event()
	if program.remote != nil {
		program.away(program.time)
	} else {
		program.spec.Run(&program.run)
	}
	p.last = p.clock()
	e := &p.now[at]
	e.program, e.from, e.to = program, from, p.last
	program.total.total += p.last - from
	program.total.runs++
}

// timed runs a launch.
func (p *Program) timed(kernel, launch int) {
	profile := p.model.sys.profile
	from := profile.clock()
	p.run.launch(kernel, launch)
	e := profile.event()
	e.program, e.launch, e.from, e.to = p, launch, from, profile.clock()
	e.workers = append(e.workers, p.run.pool.Times()...)
	t := &p.times[launch]
	t.kernel = kernel
	t.total += e.to - from
	t.count++
	for i := range e.workers {
		t.busy += e.workers[i].Busy
	}
}

// LaunchTime is the time of one launch of a program, summed over its runs.
type LaunchTime struct {
	Launch int // number in the program
	Kernel string
	Block  string // region of the model
	Values string // IR values computed
	Pos    string // line of the model's source
	Count  int
	Total  time.Duration
	Busy   time.Duration // of all threads together; on a device it is Total
	FLOPs  int64         // of one launch
	Bytes  int64         // that one launch must move
}

// Profile returns the time of each launch since the program was loaded or ResetProfile, in order
// of execution; nil unless Options.Profile was set.
func (p *Program) Profile() []LaunchTime {
	var out []LaunchTime
	for i, t := range p.times {
		if t.count == 0 {
			continue
		}
		k, l := p.model.sys.spec.Kernels[t.kernel], p.spec.Launches[i]
		out = append(out, LaunchTime{i, k.Name, l.Block, l.Values, l.Pos, t.count, t.total, t.busy, k.FLOPs, k.Bytes})
	}
	return out
}

// ResetProfile forgets the times measured so far.
func (p *Program) ResetProfile() {
	clear(p.times)
	p.total = programTime{}
}
