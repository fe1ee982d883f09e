package simt

import (
	"fmt"
	"math/rand/v2"
)

// Options of a Machine.
type Options struct {
	// Seed decides the order in which blocks and warps run and asynchronous
	// operations complete. Runs with the same seed are the same.
	Seed int64
	// Check finds races, reads of memory that was never written and missing waits.
	// Without it, kernels run several times as fast; addresses are checked anyway.
	Check bool
	// Count fills in Stats.
	Count bool
	// Steps is how many warp instructions a launch may take, 1<<33 if 0.
	Steps int64
}

// Machine is a GPU: global memory, and an order in which things happen.
type Machine struct {
	opts    Options
	rng     *rand.Rand
	buffers []*Buffer
	globals map[*Module][]*Buffer
	pattern byte

	counts counts
	stats  Stats

	// Of the launch at hand.
	module   *Module
	launch   Launch
	entry    *entry
	warps    int // of a block
	ctas     int // of a cluster
	clusters int // of the grid
	params   []byte
	elected  int // lane that elect.sync takes
	syncs    map[uint64]*release
	steps    int64
	diverged int64
	changes  int64 // counts what may let waiting warps go on
	epoch    uint32
	running  *warp
	spare    []*cluster
	resident []*cluster
	tile     []float32 // scratch of wgmma
}

// NewMachine makes a machine without any memory.
func NewMachine(o Options) *Machine {
	if o.Steps == 0 {
		o.Steps = 1 << 33
	}
	return &Machine{opts: o, rng: rand.New(rand.NewPCG(uint64(o.Seed), 0x51c7)), pattern: 0xff, globals: map[*Module][]*Buffer{}}
}

// FillUninit sets what memory that was never written has in every byte, also
// shared memory of the launches to come. It's 0xff, NaN in all formats, at first.
func (m *Machine) FillUninit(pattern byte) {
	m.pattern = pattern
	for _, b := range m.buffers {
		for i := range b.data {
			if !b.shadow.written(i, 1) {
				b.data[i] = pattern
			}
		}
	}
}

func (m *Machine) newEpoch() uint32 {
	m.epoch++
	return m.epoch
}

// Buffer is an allocation in global memory.
type Buffer struct {
	name     string
	base     uint64
	data     []byte
	shadow   shadow
	constant bool
}

// Buffers are bufferSpacing apart, so that no address of one that is off by less
// than half of it hits another.
const (
	bufferShift   = 36
	bufferSpacing = 1 << bufferShift
)

// Windows of generic addresses other than global memory.
const (
	paramWindow  = uint64(0x7d) << 56
	sharedWindow = uint64(0x7f) << 56
)

// Alloc makes a buffer whose bytes count as never written.
func (m *Machine) Alloc(name string, bytes int) *Buffer {
	b := &Buffer{name: name, base: uint64(len(m.buffers)+1) << bufferShift, data: make([]byte, bytes)}
	b.shadow = shadow{m: m, buf: b}
	b.shadow.wipe(bytes)
	if m.pattern != 0 {
		for i := range b.data {
			b.data[i] = m.pattern
		}
	}
	m.buffers = append(m.buffers, b)
	return b
}

// Bytes is the memory itself.
func (b *Buffer) Bytes() []byte { return b.data }

// Addr is where the buffer starts in the address space of kernels.
func (b *Buffer) Addr() uint64 { return b.base }

// Init marks all of the buffer as written, as after the host has filled it.
func (b *Buffer) Init() { b.shadow.whole = true }

// InitRange marks n bytes from offset off on as written.
func (b *Buffer) InitRange(off, n int) { b.shadow.setWritten(off, n) }

// Name is the name given to Alloc.
func (b *Buffer) Name() string { return b.name }

// find gives the buffer that an address belongs to, and the offset in it.
func (m *Machine) find(addr uint64) (*Buffer, int) {
	id := (addr + bufferSpacing/2) >> bufferShift
	if id == 0 || id > uint64(len(m.buffers)) {
		return nil, 0
	}
	b := m.buffers[id-1]
	return b, int(int64(addr - b.base))
}

// reach gives the buffer and offset of an access to global memory, which must lie
// inside.
func (m *Machine) reach(addr uint64, n, lane int) (*Buffer, int) {
	b, off := m.find(addr)
	if b == nil {
		f := &Fault{Kind: OutOfBounds, Thread: lane, Detail: fmt.Sprintf("%d bytes at %#x, which is in no buffer", n, addr), Address: addr}
		panic(thrown{f})
	}
	if off < 0 || off+n > len(b.data) {
		b.shadow.fault(OutOfBounds, lane, off, "%d bytes at offset %d of %d", n, off, len(b.data))
	}
	return b, off
}

// unit says whether an agent is no warp.
func (m *Machine) unit(agent uint32) bool {
	return int((agent-1)%agentsPerCluster) >= m.warps*m.ctas
}

// agentName describes an agent and its lane.
func (m *Machine) agentName(agent uint32, lane uint8) string {
	cl, i := int((agent-1)/agentsPerCluster), int((agent-1)%agentsPerCluster)
	if n := m.warps * m.ctas; i >= n {
		for _, c := range m.resident {
			if c.index == cl && i-n < len(c.agents) {
				return c.agents[i-n]
			}
		}
		return "an asynchronous unit"
	}
	at := m.ctaAt(cl, i/m.warps)
	w := i % m.warps
	if lane == manyLanes {
		return fmt.Sprintf("threads of warp %d of block %d,%d,%d", w, at[0], at[1], at[2])
	}
	return fmt.Sprintf("thread %d of block %d,%d,%d", w*32+int(lane), at[0], at[1], at[2])
}
