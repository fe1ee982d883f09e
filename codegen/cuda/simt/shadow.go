package simt

import (
	"fmt"
	"math/bits"
)

// shadow watches a piece of memory: which bytes were ever written, and for every
// cell who accessed it last. A cell is as large as the accesses to its page are, 16
// bytes at first: pages are split when somebody accesses less. So that tiles, which
// are copied and read 16 bytes at a time, cost one check where they would cost 8.
type shadow struct {
	m     *Machine
	buf   *Buffer // nil for shared memory
	cta   *cta
	size  int
	pages []page
	sets  []accesses // readers of cells that have more than one
	free  []int32
	epoch uint32 // pages of other epochs are blank
	init  []uint64
	whole bool // everything is initialised
}

const (
	pageShift = 9
	pageSize  = 1 << pageShift
	maxShift  = 4 // of a cell: 16 bytes
)

type page struct {
	epoch uint32
	shift uint8
	cells []cell
	many  *crowd
}

// crowd is the accesses to those cells of a page that more clusters access than a
// set holds: of every agent the last, by kind. So it's exact about who, and within
// the page imprecise about where.
type crowd struct {
	warps [3][]uint32 // clocks, of all warps of the grid
	units [3]map[uint32]uint32
	// The agent and clock that were last found to come after all of them.
	okAgent, okClock uint32
}

// cell is who wrote it last, and who has read it since. Agents are numbered as in
// order.go.
type cell struct {
	wAgent, wClock uint32
	rAgent, rClock uint32
	wLane, rLane   uint8
	flags          uint8
}

const (
	cellGeneric  = 1 << iota // written by an ordinary store
	cellInFlight             // an asynchronous copy into it is under way
	cellAtomic               // rAgent's set has atomic updates
	cellCopy                 // written by a copy for which somebody has to wait
	cellBarrier              // part of an mbarrier
)

const (
	manyLanes = 255
	// As rAgent: rClock is the index of a set of readers.
	readerSet = 1<<32 - 1
)

// accesses is a set of accesses to one cell. Of more than a few clusters, they are in
// the page's crowd.
type accesses struct {
	list  []access
	many  bool
	kinds uint8 // bits of how
}

// fewClusters is how many clusters' accesses a set holds.
const fewClusters = 3

type access struct {
	agent, clock uint32
	lane         uint8
	how          how
}

// how a cell is accessed. Updates are atomic operations, and stores that are meant
// to meet loads of other threads, as loads of the second kind are; neither race
// with one another.
type how uint8

const (
	plainRead how = iota
	strongRead
	update
)

func (s *shadow) reset(size int) {
	s.size = size
	if n := (size + pageSize - 1) >> pageShift; n > len(s.pages) {
		s.pages = append(s.pages, make([]page, n-len(s.pages))...)
	}
	s.epoch = s.m.newEpoch()
	s.sets, s.free = s.sets[:0], s.free[:0]
}

// wipe marks everything as never written.
func (s *shadow) wipe(size int) {
	n := (size + 63) / 64
	if n > len(s.init) {
		s.init = make([]uint64, n)
	} else {
		clear(s.init)
	}
	s.whole = false
}

// page gives the page of an offset, with cells of at most n bytes.
func (s *shadow) page(off, n int) *page {
	p := &s.pages[off>>pageShift]
	if p.epoch != s.epoch {
		p.epoch, p.many = s.epoch, nil
		if p.cells == nil {
			p.shift = maxShift
			p.cells = make([]cell, pageSize>>maxShift)
		} else {
			clear(p.cells)
		}
	}
	if 1<<p.shift > n {
		s.split(p, uint8(bits.Len(uint(n)))-1)
	}
	return p
}

func (s *shadow) split(p *page, shift uint8) {
	k := 1 << (p.shift - shift)
	cells := make([]cell, pageSize>>shift)
	for i, c := range p.cells {
		for j := range k {
			d := c
			if j > 0 && c.rAgent == readerSet {
				src := s.sets[c.rClock]
				d.rClock = s.newSet()
				t := &s.sets[d.rClock]
				t.list = append(t.list, src.list...)
				t.many, t.kinds = src.many, src.kinds
			}
			cells[i*k+j] = d
		}
	}
	p.shift, p.cells = shift, cells
}

func (s *shadow) newSet() uint32 {
	if n := len(s.free); n > 0 {
		i := s.free[n-1]
		s.free = s.free[:n-1]
		return uint32(i)
	}
	if n := len(s.sets); n < cap(s.sets) {
		s.sets = s.sets[:n+1]
		t := &s.sets[n]
		t.list, t.many, t.kinds = t.list[:0], false, 0
	} else {
		s.sets = append(s.sets, accesses{})
	}
	return uint32(len(s.sets) - 1)
}

func (s *shadow) dropSet(i uint32) {
	t := &s.sets[i]
	t.list, t.many, t.kinds = t.list[:0], false, 0
	s.free = append(s.free, int32(i))
}

// written says whether all of n bytes were ever written.
func (s *shadow) written(off, n int) bool {
	if s.whole {
		return true
	}
	for n > 0 {
		o := off & 63
		k := min(64-o, n)
		m := (1<<k - 1) << o
		if k == 64 {
			m = -1
		}
		if s.init[off>>6]&uint64(m) != uint64(m) {
			return false
		}
		off, n = off+k, n-k
	}
	return true
}

func (s *shadow) setWritten(off, n int) {
	if s.whole {
		return
	}
	for n > 0 {
		o := off & 63
		k := min(64-o, n)
		m := (1<<k - 1) << o
		if k == 64 {
			m = -1
		}
		s.init[off>>6] |= uint64(m)
		off, n = off+k, n-k
	}
}

func (s *shadow) fault(k Kind, lane, off int, format string, args ...any) {
	f := &Fault{Kind: k, Thread: lane, Detail: fmt.Sprintf(format, args...)}
	s.locate(f, off)
	panic(thrown{f})
}

func (s *shadow) locate(f *Fault, off int) {
	f.Offset = off
	if s.buf != nil {
		f.Buffer, f.Address = s.buf.name, s.buf.base+uint64(off)
		return
	}
	f.Buffer, f.Address = "shared", uint64(sharedBase+off)
}

// who describes an agent and a lane of it.
func (s *shadow) who(agent uint32, lane uint8) string {
	return s.m.agentName(agent, lane)
}

// The checks. w is who accesses, lane which of its threads; manyLanes stands for
// several, the first of which is in the bits above, plus 1. Addresses are checked
// before: accesses are inside of the memory and aligned to n, a power of two.

// read notes a read by an ordinary load.
func (s *shadow) read(w *warp, lane, off, n int) {
	if !s.written(off, n) {
		s.unwritten(lane, off, n)
	}
	p := s.page(off, n)
	me, clock := w.agent, w.clock()
	i := off & (pageSize - 1) >> p.shift
	for end := i + max(1, n>>p.shift); i < end; i++ {
		s.readCell(w, &p.cells[i], me, clock, lane, off, p, i)
	}
}

func (s *shadow) readCell(w *warp, k *cell, me, clock uint32, lane, off int, p *page, i int) {
	if k.flags&(cellInFlight|cellAtomic|cellBarrier) != 0 {
		s.readSpecial(w, k, p, lane, s.cellOffset(off, p, i))
	}
	if k.wAgent != 0 && (k.wAgent != me || k.wClock == clock) {
		s.afterWrite(w, k, lane, off, p, i, "read here")
	}
	switch a := k.rAgent; {
	case a == me:
		if k.rClock == clock {
			if k.rLane != uint8(lane) {
				k.rLane = manyLanes
			}
		} else {
			k.rClock, k.rLane = clock, uint8(lane)
		}
	case a == 0 || a != readerSet && w.knows(a, k.rClock):
		k.rAgent, k.rClock, k.rLane = me, clock, uint8(lane)
	default:
		s.add(k, p, me, clock, uint8(lane), plainRead)
	}
}

// readRow is read for all lanes of a warp, whose accesses of n bytes lie one behind
// the other.
func (s *shadow) readRow(w *warp, off, n int) {
	if !s.written(off, 32*n) {
		for l := range 32 {
			s.read(w, l, off+l*n, n)
		}
	}
	me, clock := w.agent, w.clock()
	for l := 0; l < 32; {
		p := s.page(off+l*n, n)
		i := (off + l*n) & (pageSize - 1) >> p.shift
		per := n >> p.shift
		for ; l < 32 && i < len(p.cells); l++ {
			for range per {
				k := &p.cells[i]
				if k.wAgent == 0 && k.flags == 0 && (k.rAgent == 0 || k.rAgent == me && k.rClock != clock) {
					k.rAgent, k.rClock, k.rLane = me, clock, uint8(l)
				} else {
					s.readCell(w, k, me, clock, l, off+l*n, p, i)
				}
				i++
			}
		}
	}
}

func raceKind(k *cell) Kind {
	if k.flags&cellCopy != 0 {
		return MissingWait
	}
	return Race
}

// writer describes who wrote a cell last.
func (s *shadow) writer(k *cell) string {
	if k.flags&cellCopy != 0 && !s.m.unit(k.wAgent) {
		return "cp.async of " + s.who(k.wAgent, k.wLane)
	}
	return s.who(k.wAgent, k.wLane)
}

func noSync(k *cell) string {
	if k.flags&cellCopy != 0 {
		return " without a wait for it"
	}
	return " without synchronisation"
}

func (s *shadow) cellOffset(off int, p *page, i int) int {
	return off&^(pageSize-1) + i<<p.shift
}

// raceIn reports a race between lanes of one warp.
func (s *shadow) raceIn(k *cell, lane, off int, here string) {
	s.fault(Race, lane, off, "written by %s, %s by another lane of the warp without bar.warp.sync", s.who(k.wAgent, k.wLane), here)
}

// unwritten reports a read of memory that was never written.
func (s *shadow) unwritten(lane, off, n int) {
	for i := off; i < off+n; i++ {
		if !s.written(i, 1) {
			off = i
			break
		}
	}
	p := s.page(off, 1)
	if k := &p.cells[off&(pageSize-1)>>p.shift]; k.flags&cellInFlight != 0 {
		s.fault(MissingWait, lane, off, "read while a copy into it is under way, by %s", s.writer(k))
	}
	s.fault(Uninitialised, lane, off, "read of memory that was never written")
}

// readSpecial handles the rare states of a cell that is read.
func (s *shadow) readSpecial(w *warp, k *cell, p *page, lane, off int) {
	if k.flags&cellInFlight != 0 {
		s.fault(MissingWait, lane, off, "read while a copy into it is under way, by %s", s.writer(k))
	}
	if k.flags&cellBarrier != 0 {
		s.fault(BadOperand, lane, off, "load from an mbarrier")
	}
	s.ordered(w, k, p, lane, off, plainRead, "read here")
}

// writeSpecial is readSpecial for writes.
func (s *shadow) writeSpecial(k *cell, lane, off int) {
	if k.flags&cellInFlight != 0 {
		s.fault(MissingWait, lane, off, "written while a copy into it is under way, by %s", s.writer(k))
	}
	s.fault(BadOperand, lane, off, "store over an mbarrier")
}

// clearFlag takes a flag off cells.
func (s *shadow) clearFlag(off, n int, flag uint8) {
	p := s.page(off, n)
	i := off & (pageSize - 1) >> p.shift
	for end := i + max(1, n>>p.shift); i < end; i++ {
		p.cells[i].flags &^= flag
	}
}

// ordered checks that the accesses since the last write lie in the past, as far as
// they conflict with an access of the given kind. A write, which conflicts with
// all, is none of the kinds.
func (s *shadow) ordered(w *warp, k *cell, p *page, lane, off int, h how, here string) {
	if k.rAgent == 0 {
		return
	}
	me, clock := w.agent, w.clock()
	if k.rAgent != readerSet {
		if h == update || h == anyWrite {
			s.orderedOne(w, access{k.rAgent, k.rClock, k.rLane, plainRead}, me, clock, lane, off, here)
		}
		return
	}
	t := &s.sets[k.rClock]
	for _, a := range t.list {
		if h.conflicts(a.how) {
			s.orderedOne(w, a, me, clock, lane, off, here)
		}
	}
	if !t.many {
		return
	}
	c := p.many
	if c.okAgent == me && c.okClock == clock && h == anyWrite {
		return
	}
	per := uint32(s.m.warps * s.m.ctas)
	for kind := plainRead; kind <= update; kind++ {
		if !h.conflicts(kind) || t.kinds>>kind&1 == 0 {
			continue
		}
		for i, t := range c.warps[kind] {
			if t == 0 {
				continue
			}
			i := uint32(i)
			s.orderedOne(w, access{i/per*agentsPerCluster + i%per + 1, t, manyLanes, kind}, me, clock+1, lane, off, here)
		}
		for a, t := range c.units[kind] {
			s.orderedOne(w, access{a, t, manyLanes, kind}, me, clock+1, lane, off, here)
		}
	}
	if h == anyWrite {
		c.okAgent, c.okClock = me, clock
	}
}

// conflicts says whether an access of kind h must be ordered with one of kind g.
func (h how) conflicts(g how) bool {
	return h == anyWrite || h == plainRead && g == update || h == update && g == plainRead
}

// anyWrite is a plain write, which is no kind of access since the last write.
const anyWrite = update + 1

func (s *shadow) orderedOne(w *warp, a access, me, clock uint32, lane, off int, here string) {
	did := "read"
	if a.how == update {
		did = "updated"
	}
	if a.agent == me {
		if a.clock == clock && a.lane != uint8(lane) {
			s.fault(Race, lane, off, "%s by %s, %s by another lane of the warp without bar.warp.sync", did, s.who(a.agent, a.lane), here)
		}
	} else if a.agent != 0 && !w.knows(a.agent, a.clock) {
		s.fault(Race, lane, off, "%s by %s, %s without synchronisation", did, s.who(a.agent, a.lane), here)
	}
}

// add adds an access to those since the last write, where it isn't the only one or
// no plain read.
func (s *shadow) add(k *cell, p *page, agent, clock uint32, lane uint8, h how) {
	if k.rAgent != readerSet {
		i := s.newSet()
		t := &s.sets[i]
		if k.rAgent != 0 {
			t.list = append(t.list, access{k.rAgent, k.rClock, k.rLane, plainRead})
			t.kinds = 1 << plainRead
		}
		k.rAgent, k.rClock = readerSet, i
	}
	if h != plainRead {
		k.flags |= cellAtomic
	}
	t := &s.sets[k.rClock]
	t.kinds |= 1 << h
	if t.many {
		s.crowd(p, access{agent, clock, lane, h})
		return
	}
	clusters, last := 0, uint32(0)
	for i := range t.list {
		a := &t.list[i]
		if a.agent == agent && a.how == h {
			if a.clock != clock {
				a.clock, a.lane = clock, lane
			} else if a.lane != lane {
				a.lane = manyLanes
			}
			return
		}
		if c := (a.agent-1)/agentsPerCluster + 1; c != last {
			clusters, last = clusters+1, c
		}
	}
	t.list = append(t.list, access{agent, clock, lane, h})
	if clusters >= fewClusters && last != (agent-1)/agentsPerCluster+1 {
		for _, a := range t.list {
			s.crowd(p, a)
		}
		t.many, t.list = true, t.list[:0]
	}
}

// crowd adds an access to the page's crowd.
func (s *shadow) crowd(p *page, a access) {
	if p.many == nil {
		p.many = &crowd{}
	}
	c := p.many
	c.okAgent = 0
	per := s.m.warps * s.m.ctas
	i := int((a.agent - 1) % agentsPerCluster)
	if i >= per {
		if c.units[a.how] == nil {
			c.units[a.how] = map[uint32]uint32{}
		}
		c.units[a.how][a.agent] = max(c.units[a.how][a.agent], a.clock)
		return
	}
	if c.warps[a.how] == nil {
		c.warps[a.how] = make([]uint32, per*s.m.clusters)
	}
	j := int((a.agent-1)/agentsPerCluster)*per + i
	c.warps[a.how][j] = max(c.warps[a.how][j], a.clock)
}

// write notes a write by an ordinary store, or (flags) by a copy on its behalf.
func (s *shadow) write(w *warp, lane, off, n int, flags uint8) {
	p := s.page(off, n)
	me, clock := w.agent, w.clock()
	i := off & (pageSize - 1) >> p.shift
	for end := i + max(1, n>>p.shift); i < end; i++ {
		s.writeCell(w, &p.cells[i], me, clock, lane, off, p, i, flags)
	}
	if flags&cellInFlight == 0 {
		s.setWritten(off, n)
	}
}

func (s *shadow) writeCell(w *warp, k *cell, me, clock uint32, lane, off int, p *page, i int, flags uint8) {
	if k.flags&(cellInFlight|cellBarrier) != 0 {
		s.writeSpecial(k, lane, s.cellOffset(off, p, i))
	}
	if k.wAgent != 0 && (k.wAgent != me || k.wClock == clock) {
		s.afterWrite(w, k, lane, off, p, i, "written here")
	}
	if a := k.rAgent; a != 0 && (a != me || k.rClock == clock && k.rLane != uint8(lane)) {
		s.ordered(w, k, p, lane, s.cellOffset(off, p, i), anyWrite, "written here")
		if a == readerSet {
			s.dropSet(k.rClock)
		}
	}
	k.rAgent = 0
	k.wAgent, k.wClock, k.wLane, k.flags = me, clock, uint8(lane), flags
}

// writeRow is write as readRow is read.
func (s *shadow) writeRow(w *warp, off, n int) {
	me, clock := w.agent, w.clock()
	for l := 0; l < 32; {
		p := s.page(off+l*n, n)
		i := (off + l*n) & (pageSize - 1) >> p.shift
		per := n >> p.shift
		for ; l < 32 && i < len(p.cells); l++ {
			for range per {
				k := &p.cells[i]
				if (k.wAgent == 0 || k.wAgent == me && k.wClock != clock) && k.flags&^cellGeneric == 0 && k.rAgent == 0 {
					k.wAgent, k.wClock, k.wLane, k.flags = me, clock, uint8(l), cellGeneric
				} else {
					s.writeCell(w, k, me, clock, l, off+l*n, p, i, cellGeneric)
				}
				i++
			}
		}
	}
	s.setWritten(off, 32*n)
}

// afterWrite checks that the last write of a cell lies in the past.
func (s *shadow) afterWrite(w *warp, k *cell, lane, off int, p *page, i int, here string) {
	a := k.wAgent
	if a == w.agent {
		if k.wClock == w.clock() && k.wLane != uint8(lane) {
			s.raceIn(k, lane, s.cellOffset(off, p, i), here)
		}
		return
	}
	if !w.knows(a, k.wClock) {
		s.fault(raceKind(k), lane, s.cellOffset(off, p, i), "written by %s, %s%s", s.writer(k), here, noSync(k))
	}
}

// strong notes an atomic operation, or a load or store that is meant to meet those
// of other threads.
func (s *shadow) strong(w *warp, lane, off, n int, h how, here string, reads bool) {
	if reads && !s.written(off, n) {
		s.unwritten(lane, off, n)
	}
	p := s.page(off, n)
	i := off & (pageSize - 1) >> p.shift
	for end := i + max(1, n>>p.shift); i < end; i++ {
		k := &p.cells[i]
		if k.flags&cellInFlight != 0 {
			s.fault(MissingWait, lane, s.cellOffset(off, p, i), "%s while a copy into it is under way, by %s", here, s.writer(k))
		}
		if k.wAgent != 0 {
			s.afterWrite(w, k, lane, off, p, i, here)
		}
		s.ordered(w, k, p, lane, s.cellOffset(off, p, i), h, here)
		s.add(k, p, w.agent, w.clock(), uint8(lane), h)
	}
	if !reads {
		s.setWritten(off, n)
	}
}

// untouched checks that memory read through the cache that isn't coherent isn't
// written by the kernel.
func (s *shadow) untouched(lane, off, n int) {
	p := s.page(off, n)
	i := off & (pageSize - 1) >> p.shift
	for end := i + max(1, n>>p.shift); i < end; i++ {
		if k := &p.cells[i]; k.wAgent != 0 || k.flags&cellAtomic != 0 {
			s.fault(BadOperand, lane, s.cellOffset(off, p, i), "read with .nc, but written by the same kernel (%s)", s.who(k.wAgent, k.wLane))
		}
	}
}
