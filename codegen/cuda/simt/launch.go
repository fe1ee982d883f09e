package simt

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// Launch is a kernel and what it runs on.
type Launch struct {
	Entry   string
	Grid    [3]int
	Block   [3]int
	Shared  int    // bytes of the extern shared array
	Cluster [3]int // blocks of a cluster; zero: as the kernel says, or 1,1,1
	// Params are uint64 (addresses), int64, uint32, int32, float32 or [128]byte
	// (tensor maps).
	Params []any
}

// maxShared is what sm_90 has for one block.
const maxShared = 227 << 10

// Launch runs a kernel to its end. What goes wrong in it is reported as a *Fault.
func (m *Machine) Launch(mod *Module, l Launch) (err error) {
	e := mod.entry(l.Entry)
	if e == nil {
		return fmt.Errorf("simt: no kernel %q", l.Entry)
	}
	if err := m.prepare(mod, e, &l); err != nil {
		return fmt.Errorf("simt: %s: %w", l.Entry, err)
	}
	defer func() {
		m.collect()
		if r := recover(); r != nil {
			t, ok := r.(thrown)
			if !ok {
				panic(r)
			}
			err = m.report(t.Fault)
		}
		m.running, m.resident = nil, nil
	}()
	m.run()
	return nil
}

// report adds to a fault where it happened.
func (m *Machine) report(f *Fault) *Fault {
	f.Entry = m.entry.name
	if w := m.running; w != nil {
		at := m.entry.meta[w.pc]
		f.Line, f.Text, f.Source = at.line, at.text, at.source
		f.CTA = w.cta.at
		if f.Thread > manyLanes {
			f.Thread = f.Thread>>8 - 1
		}
		if f.Thread >= 0 {
			f.Thread += w.id * 32
		}
	}
	return f
}

// prepare checks a launch and sets the machine up for it.
func (m *Machine) prepare(mod *Module, e *entry, l *Launch) error {
	none := [3]int{}
	if l.Cluster == none {
		l.Cluster = [3]int{1, 1, 1}
		if e.cluster != none {
			l.Cluster = e.cluster
		}
	}
	if e.cluster != none && l.Cluster != e.cluster {
		return fmt.Errorf("clusters of %v blocks, the kernel is compiled for %v", l.Cluster, e.cluster)
	}
	threads, ctas, clusters := 1, 1, 1
	for i := range 3 {
		if l.Grid[i] < 1 || l.Block[i] < 1 || l.Cluster[i] < 1 {
			return fmt.Errorf("grid %v, block %v, cluster %v: not all positive", l.Grid, l.Block, l.Cluster)
		}
		if l.Grid[i]%l.Cluster[i] != 0 {
			return fmt.Errorf("grid %v is no multiple of cluster %v", l.Grid, l.Cluster)
		}
		if i > 0 && l.Grid[i] > 65535 || l.Grid[i] > math.MaxInt32 {
			return fmt.Errorf("grid %v is too large", l.Grid)
		}
		threads *= l.Block[i]
		ctas *= l.Cluster[i]
		clusters *= l.Grid[i] / l.Cluster[i]
	}
	if threads > 1024 || l.Block[2] > 64 {
		return fmt.Errorf("block %v is too large", l.Block)
	}
	if ctas > 16 {
		return fmt.Errorf("cluster %v is too large", l.Cluster)
	}
	if t := e.maxThreads; t != none && threads > t[0]*t[1]*t[2] {
		return fmt.Errorf("%d threads, .maxntid allows %d", threads, t[0]*t[1]*t[2])
	}
	if t := e.reqThreads; t != none && l.Block != t {
		return fmt.Errorf("block %v, .reqntid is %v", l.Block, t)
	}
	if n := e.dynamic - sharedBase + l.Shared; l.Shared < 0 || n > maxShared {
		return fmt.Errorf("%d bytes of shared memory, there are %d", n, maxShared)
	}
	if len(l.Params) != len(e.params) {
		return fmt.Errorf("%d parameters, the kernel has %d", len(l.Params), len(e.params))
	}
	m.params = make([]byte, e.pbytes)
	for i, p := range e.params {
		b := m.params[p.at : p.at+p.bytes]
		want := 0
		switch x := l.Params[i].(type) {
		case uint64:
			want = 8
			if p.bytes == 8 {
				binary.LittleEndian.PutUint64(b, x)
			}
		case int64:
			want = 8
			if p.bytes == 8 {
				binary.LittleEndian.PutUint64(b, uint64(x))
			}
		case uint32:
			want = 4
			if p.bytes == 4 {
				binary.LittleEndian.PutUint32(b, x)
			}
		case int32:
			want = 4
			if p.bytes == 4 {
				binary.LittleEndian.PutUint32(b, uint32(x))
			}
		case float32:
			want = 4
			if p.bytes == 4 {
				binary.LittleEndian.PutUint32(b, math.Float32bits(x))
			}
		case [128]byte:
			want = 128
			copy(b, x[:])
		default:
			return fmt.Errorf("parameter %s: %T isn't known", p.name, x)
		}
		if want != p.bytes {
			return fmt.Errorf("parameter %s: %T for %d bytes", p.name, l.Params[i], p.bytes)
		}
	}
	m.module, m.entry, m.launch = mod, e, *l
	m.warps, m.ctas, m.clusters = (threads+31)/32, ctas, clusters
	if m.globals[mod] == nil {
		gs := []*Buffer{}
		for _, g := range mod.globals {
			b := m.Alloc(g.name, g.size)
			b.constant = g.constant
			if g.bytes != nil {
				copy(b.data, g.bytes)
				b.Init()
			}
			gs = append(gs, b)
		}
		m.globals[mod] = gs
	}
	for _, b := range m.buffers {
		b.shadow.reset(len(b.data))
	}
	m.syncs = map[uint64]*release{}
	m.elected = m.rng.IntN(32)
	m.steps = 0
	m.spare = nil
	return nil
}

// ctaAt is the place in the grid of block i of cluster cl.
func (m *Machine) ctaAt(cl, i int) [3]int {
	var at [3]int
	for d := range 3 {
		n := m.launch.Grid[d] / m.launch.Cluster[d]
		at[d] = cl%n*m.launch.Cluster[d] + i%m.launch.Cluster[d]
		cl, i = cl/n, i/m.launch.Cluster[d]
	}
	return at
}

// cta is a block.
type cta struct {
	m       *Machine
	cluster *cluster
	rank    int // in the cluster
	left    int // warps that aren't done
	at      [3]int
	warps   []*warp
	mem     []byte // shared memory, from sharedBase on
	shadow  shadow
	bars    [16]barrier
	mbars   map[int]*mbar
	groups  []*wgShared
}

// cluster is what shares a numbering of agents: the blocks of a cluster.
type cluster struct {
	m      *Machine
	index  int
	ctas   []*cta
	left   int // warps that aren't done
	agents []string
	async  []func() // operations under way
	bar    clusterBarrier
	syncs  map[uint64]*release
}

// start makes a cluster, from one that has finished if there is one.
func (m *Machine) start(index int) *cluster {
	var cl *cluster
	e := m.entry
	shared := e.dynamic - sharedBase + m.launch.Shared
	if n := len(m.spare); n > 0 {
		cl, m.spare = m.spare[n-1], m.spare[:n-1]
	} else {
		cl = &cluster{m: m}
		for i := range m.ctas {
			c := &cta{m: m, cluster: cl, rank: i, mem: make([]byte, shared)}
			c.shadow = shadow{m: m, cta: c}
			for j := range m.warps {
				w := &warp{m: m, e: e, cta: c, id: j}
				w.r32, w.r64, w.p = make([]v32, e.n32), make([]v64, e.n64), make([]uint32, e.np)
				for _, k := range e.consts {
					w.setConstant(k)
				}
				c.warps = append(c.warps, w)
			}
			cl.ctas = append(cl.ctas, c)
		}
	}
	cl.index, cl.left = index, m.ctas*m.warps
	cl.agents, cl.async, cl.bar = nil, nil, clusterBarrier{}
	cl.syncs = map[uint64]*release{}
	base := uint32(index)*agentsPerCluster + 1
	n := m.ctas * m.warps
	for i, c := range cl.ctas {
		c.at, c.left = m.ctaAt(index, i), m.warps
		c.mbars, c.groups = nil, nil
		c.shadow.wipe(shared)
		c.shadow.reset(shared)
		for j := range c.mem {
			c.mem[j] = m.pattern
		}
		c.bars = [16]barrier{}
		for j, w := range c.warps {
			w.start(base, uint32(i*m.warps+j), n)
		}
	}
	return cl
}

// start makes a warp ready to run.
func (w *warp) start(base, agent uint32, n int) {
	m := w.m
	threads := m.launch.Block[0] * m.launch.Block[1] * m.launch.Block[2]
	w.live = allLanes
	if k := threads - w.id*32; k < 32 {
		w.live = 1<<k - 1
	}
	w.stack = append(w.stack[:0], frame{0, -1, w.live})
	w.pc, w.done, w.stop, w.wait, w.waiting, w.polled = 0, false, false, nil, nil, false
	w.order = order{base: base, agent: base + agent, cluster: (base - 1) / agentsPerCluster}
	w.vc = make([]uint32, n)
	if w.e.async {
		w.fenced = make([]uint32, n)
	}
	w.tick()
	if m.opts.Check {
		w.poison()
	}
	w.copies, w.bulk, w.units, w.wg, w.arrivedAt, w.retry = copies{}, nil, nil, nil, 0, false
	if w.e.wgmma {
		w.wg = newWgState(w.e)
	}
	for _, k := range w.e.consts {
		if k.what == special && k.index >= srCtaidX {
			w.setConstant(k)
		}
	}
}

// poison gives registers the value of memory that was never written, so that what
// earlier blocks have left doesn't hide that a register isn't set.
func (w *warp) poison() {
	v := uint32(w.m.pattern) * 0x01010101
	for _, r := range w.e.written {
		switch r.class {
		case class32:
			for l := range w.r32[r.slot] {
				w.r32[r.slot][l] = v
			}
		case class64:
			for l := range w.r64[r.slot] {
				w.r64[r.slot][l] = uint64(v)<<32 | uint64(v)
			}
		default:
			w.p[r.slot] = v
		}
	}
}

// setConstant fills a register that never changes.
func (w *warp) setConstant(k constant) {
	v := k.value
	switch k.what {
	case globalAddress:
		v += w.m.globals[w.m.module][k.index].base
	case special:
		r := &w.r32[k.slot]
		for l := range r {
			r[l] = w.special(k.index, l)
		}
		return
	}
	switch k.class {
	case class32:
		r := &w.r32[k.slot]
		for l := range r {
			r[l] = uint32(v)
		}
	case class64:
		r := &w.r64[k.slot]
		for l := range r {
			r[l] = v
		}
	case classP:
		w.p[k.slot] = uint32(-int32(v & 1))
	}
}

func (w *warp) special(i, lane int) uint32 {
	l := &w.m.launch
	b := l.Block
	t := w.id*32 + lane
	dim := func(v [3]int, from int) uint32 { return uint32(v[i-from]) }
	switch {
	case i == srTidX:
		return uint32(t % b[0])
	case i == srTidY:
		return uint32(t / b[0] % b[1])
	case i == srTidZ:
		return uint32(t / b[0] / b[1])
	case i <= srNtidZ:
		return dim(b, srNtidX)
	case i <= srCtaidZ:
		return dim(w.cta.at, srCtaidX)
	case i <= srNctaidZ:
		return dim(l.Grid, srNctaidX)
	}
	var cl, ncl, in [3]int
	for d := range 3 {
		cl[d], ncl[d], in[d] = w.cta.at[d]/l.Cluster[d], l.Grid[d]/l.Cluster[d], w.cta.at[d]%l.Cluster[d]
	}
	switch {
	case i == srLaneid:
		return uint32(lane)
	case i == srWarpid:
		return uint32(w.id)
	case i == srNwarpid:
		return uint32(w.m.warps)
	case i <= srClusteridZ:
		return dim(cl, srClusteridX)
	case i <= srNclusteridZ:
		return dim(ncl, srNclusteridX)
	case i <= srClusterCtaidZ:
		return dim(in, srClusterCtaidX)
	case i <= srClusterNctaidZ:
		return dim(l.Cluster, srClusterNctaidX)
	case i == srClusterCtarank:
		return uint32(w.cta.rank)
	case i == srClusterNctarank:
		return uint32(w.m.ctas)
	case i == srDynamicSmem:
		return uint32(l.Shared)
	case i == srLaneEq:
		return 1 << lane
	case i == srLaneLt:
		return 1<<lane - 1
	case i == srLaneLe:
		return 2<<lane - 1
	case i == srLaneGt:
		return ^uint32(2<<lane - 1)
	case i == srLaneGe:
		return ^uint32(1<<lane - 1)
	case i == srSmid:
		return uint32(w.m.rng.IntN(132))
	case i == srNsmid:
		return 132
	}
	return 0
}

// idleRounds is how often all warps may have looked for something to happen in
// vain before it's called a deadlock.
const idleRounds = 64

// run executes the grid: some clusters at a time, in an order that depends on the
// seed.
func (m *Machine) run() {
	window := 1 + m.rng.IntN(3)
	next, left := 0, m.clusters
	stride, first := 1, 0
	if m.opts.Seed != 0 && m.clusters > 1 {
		// Any number without a factor in common with the count visits all.
		first = m.rng.IntN(m.clusters)
		for stride = 1 + m.rng.IntN(m.clusters-1); gcd(stride, m.clusters) > 1; {
			stride = stride%(m.clusters-1) + 1
		}
	}
	var warps []*warp
	idle, changes := 0, int64(-1)
	for left > 0 {
		if len(m.resident) < window && next < m.clusters {
			m.resident = append(m.resident, m.start((first+next*stride)%m.clusters))
			next++
			warps = m.residents(warps[:0])
			continue
		}
		ran, polled := false, true
		off := m.rng.IntN(len(warps))
		for i := range warps {
			w := warps[(i+off)%len(warps)]
			if w.done {
				continue
			}
			if w.wait != nil {
				m.running = w
				if !w.wait() {
					continue
				}
				w.wait = nil
			}
			ran = true
			m.running = w
			w.polled = false
			w.slice(m.quantum())
			polled = polled && w.polled
		}
		if m.steps > m.opts.Steps {
			throw(StepLimit, -1, "more than %d warp instructions", m.opts.Steps)
		}
		for i, cl := range m.resident {
			if n := len(cl.async); n > 0 && (!ran || idle > 0 || cl.left == 0 || m.rng.IntN(8) == 0) {
				m.complete(cl, m.rng.IntN(n))
				ran = true
			}
			if cl.left == 0 && len(cl.async) == 0 {
				left--
				m.spare = append(m.spare, cl)
				m.resident = append(m.resident[:i:i], m.resident[i+1:]...)
				warps = m.residents(warps[:0])
				ran = true
				break
			}
		}
		if len(m.resident) == 0 {
			continue
		}
		switch {
		case ran && (!polled || m.changes != changes):
			idle, changes = 0, m.changes
		case !ran && next < m.clusters:
			// Blocks that wait for others, which have room on a GPU.
			window++
		default:
			if idle++; !ran || idle > idleRounds {
				if next < m.clusters {
					window, idle = window+1, 0
					continue
				}
				m.deadlock(warps)
			}
		}
	}
}

// residents lists the warps of the blocks that run.
func (m *Machine) residents(ws []*warp) []*warp {
	for _, cl := range m.resident {
		for _, c := range cl.ctas {
			ws = append(ws, c.warps...)
		}
	}
	return ws
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// quantum is how many instructions a warp runs before another has its turn.
func (m *Machine) quantum() int {
	r := m.rng.Uint32()
	if r&15 == 0 {
		return 1 + int(r>>8&15)
	}
	return 64 + int(r>>8&2047)
}

// complete performs an asynchronous operation.
func (m *Machine) complete(cl *cluster, i int) {
	op := cl.async[i]
	cl.async = append(cl.async[:i], cl.async[i+1:]...)
	m.changes++
	op()
}

// deadlock reports that nothing can go on.
func (m *Machine) deadlock(warps []*warp) {
	var at []string
	var first *warp
	for _, w := range warps {
		if w.done {
			continue
		}
		if first == nil {
			first = w
		}
		what := "polling"
		if w.wait != nil {
			what = w.waiting()
		}
		if len(at) < 8 {
			at = append(at, fmt.Sprintf("warp %d of block %d,%d,%d at line %d: %s", w.id, w.cta.at[0], w.cta.at[1], w.cta.at[2], w.e.meta[w.pc].line, what))
		}
	}
	m.running = first
	done := 0
	for _, w := range first.cta.warps {
		if w.done {
			done++
		}
	}
	gone := ""
	if done > 0 {
		gone = fmt.Sprintf("; %d of %d warps of the block have returned", done, len(first.cta.warps))
	}
	throw(Deadlock, -1, "nothing can go on: %s%s", strings.Join(at, ", "), gone)
}
