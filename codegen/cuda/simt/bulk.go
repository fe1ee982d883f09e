package simt

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// bulkGroups are the bulk stores of one thread: the clocks of their groups.
type bulkGroups struct {
	lane   int
	groups []uint32
	last   uint32 // clock of the last store, in a group or not
	read   uint32 // clock up to which the thread has waited for the reads
}

// bulkUnits are the agents that read shared memory and write global memory for the
// bulk stores of a warp.
type bulkUnits struct {
	reader, writer uint32
	clock          uint32
}

// region is a run of bytes that a bulk copy moves as one: at most 16. global is
// where its bytes lie; only n of them exist, from skip on, the rest is zero.
type region struct {
	shared  int // address
	global  uint64
	size    int
	skip, n int
}

// bulk compiles cp.async.bulk and cp.reduce.async.bulk.
func bulk(c *compiler, s *stmt, in *inst, reduce bool) error {
	if reduce && (!s.take("async") || !s.take("bulk")) {
		return fmt.Errorf("cp.reduce isn't cp.reduce.async.bulk")
	}
	c.e.async = true
	switch {
	case s.take("commit_group"):
		in.fn = func(w *warp, _ *inst, mask uint32) {
			for q := mask; q != 0; q &= q - 1 {
				g := w.bulkOf(lowest(q))
				g.groups = append(g.groups, g.last)
			}
		}
		return s.want(0)
	case s.take("wait_group"):
		in.count = countSync
		read := s.take("read")
		if err := s.want(1); err != nil {
			return err
		}
		if s.args[0].kind != opInt {
			return fmt.Errorf("the number of groups is no constant")
		}
		n := int(s.args[0].value)
		in.fn = func(w *warp, _ *inst, mask uint32) {
			for q := mask; q != 0; q &= q - 1 {
				g := w.bulkOf(lowest(q))
				if k := len(g.groups) - n; k > 0 {
					g.read = max(g.read, g.groups[k-1])
					w.learn(w.base, w.units.reader, g.read)
					if !read {
						w.learn(w.base, w.units.writer, g.read)
					}
				}
			}
		}
		return nil
	case s.take("prefetch"):
		return fmt.Errorf("cp.async.bulk.prefetch isn't known")
	}
	rank := 0
	if s.take("tensor") {
		m := s.one("1d", "2d", "3d", "4d", "5d")
		if m == "" {
			return fmt.Errorf("a tensor copy must say how many dimensions")
		}
		rank = int(m[0] - '0')
		s.take("tile")
	}
	if len(s.mods) == 0 {
		return fmt.Errorf("%s isn't known", s.op)
	}
	switch to := s.mods[0]; {
	case to == "global":
		s.take("global")
		return c.bulkStore(s, in, rank, reduce)
	case strings.HasPrefix(to, "shared::") && !reduce:
		s.take(to)
		return c.bulkLoad(s, in, rank)
	default:
		return fmt.Errorf("%s.%s isn't known", s.op, to)
	}
}

// tensorOperand reads [map, {coordinates}].
func (c *compiler) tensorOperand(o operand, rank int) (m int32, at []int32, err error) {
	if o.kind != opMem || len(o.list) != 2 || o.off != 0 || o.list[1].kind != opVec || len(o.list[1].list) != rank {
		return 0, nil, fmt.Errorf("expected [map, {%d coordinates}]", rank)
	}
	if m, err = c.src(o.list[0], types["b64"]); err != nil {
		return 0, nil, err
	}
	for _, x := range o.list[1].list {
		r, err := c.src(x, types["s32"])
		if err != nil {
			return 0, nil, err
		}
		at = append(at, r)
	}
	return m, at, nil
}

// tensorMap reads the map at an address, of a parameter or in global memory.
func (w *warp) tensorMap(addr uint64, rank, lane int) TensorMap {
	var b []byte
	if addr>>56 == paramWindow>>56 {
		if off := addr - paramWindow; off+128 <= uint64(len(w.m.params)) {
			b = w.m.params[off : off+128]
		}
	} else {
		buf, off := w.m.reach(addr, 128, lane)
		b = buf.data[off : off+128]
	}
	if addr%64 != 0 {
		throw(Misaligned, lane, "tensor map at %#x", addr)
	}
	t, ok := decodeMap(b)
	if !ok {
		throw(BadOperand, lane, "there is no tensor map at %#x", addr)
	}
	if len(t.Dims) != rank {
		throw(BadOperand, lane, "tensor map of %d dimensions, the copy has %d", len(t.Dims), rank)
	}
	return t
}

// box lists the regions of a box of t that starts at coordinates at and lies at a
// shared address.
func (t *TensorMap) box(at []int32, shared int) []region {
	size := t.DType.size()
	row := int(t.Box[0]) * size
	rows := 1
	for _, b := range t.Box[1:] {
		rows *= int(b)
	}
	out := make([]region, 0, rows*row/16)
	for r := range rows {
		g, q, inside := int64(0), r, true
		for d := 1; d < len(t.Dims); d++ {
			x := int64(at[d]) + int64(q%int(t.Box[d]))
			q /= int(t.Box[d])
			if x < 0 || x >= int64(t.Dims[d]) {
				inside = false
			}
			g += x * int64(t.Strides[d-1])
		}
		for o := 0; o < row; o += 16 {
			x := int64(at[0])*int64(size) + int64(o) // bytes from the start of the row
			e := region{shared: swizzle(shared+r*row+o, t.Swizzle), global: t.Addr + uint64(g+x), size: 16}
			if end := int64(t.Dims[0]) * int64(size); inside && x < end && x+16 > 0 {
				e.skip = int(max(0, -x))
				e.n = int(min(16, end-x)) - e.skip
			}
			out = append(out, e)
		}
	}
	return out
}

// bulkLoad compiles copies to shared memory, which complete at an mbarrier.
func (c *compiler) bulkLoad(s *stmt, in *inst, rank int) error {
	if !s.take("global") || !s.take("mbarrier::complete_tx::bytes") {
		return fmt.Errorf("only copies from .global that complete at an mbarrier are known")
	}
	multicast := s.take("multicast::cluster")
	hint := s.take("L2::cache_hint")
	want := 3
	if rank == 0 {
		want++
	}
	if multicast {
		want++
	}
	if hint {
		want++
	}
	if err := s.want(want); err != nil {
		return err
	}
	dst, dstOff, err := c.addressing(s.args[0], clusterSpace)
	if err != nil {
		return err
	}
	args := s.args[1:]
	var tmap, size int32
	var coords []int32
	var src ref
	var srcOff uint64
	if rank > 0 {
		if tmap, coords, err = c.tensorOperand(args[0], rank); err != nil {
			return err
		}
	} else {
		if src, srcOff, err = c.addressing(args[0], globalSpace); err != nil {
			return err
		}
		if size, err = c.src(args[1], types["u32"]); err != nil {
			return err
		}
		args = args[1:]
	}
	bar, barOff, err := c.addressing(args[1], clusterSpace)
	if err != nil {
		return err
	}
	args = args[2:]
	var ctas int32
	if multicast {
		c.e.clusters = true
		if ctas, err = c.src(args[0], types["b16"]); err != nil {
			return err
		}
		args = args[1:]
	}
	if hint {
		if _, err = c.src(args[0], types["b64"]); err != nil {
			return err
		}
	}
	in.fn = func(w *warp, _ *inst, mask uint32) {
		var to, from, bars [32]uint64
		w.addresses(dst, dstOff, &to)
		w.addresses(bar, barOff, &bars)
		if rank == 0 {
			w.addresses(src, srcOff, &from)
		}
		for q := mask; q != 0; q &= q - 1 {
			l := lowest(q)
			align := 16
			var regions []region
			at := int(to[l] & (1<<sharedRank - 1))
			if rank > 0 {
				t := w.tensorMap(w.r64[tmap][l], rank, l)
				xy := make([]int32, rank)
				for i, r := range coords {
					xy[i] = int32(w.r32[r][l])
				}
				regions = t.box(xy, at)
				align = 128
			} else {
				n := int(w.r32[size][l])
				if n%16 != 0 || from[l]%16 != 0 {
					throw(Misaligned, l, "bulk copy of %d bytes from %#x", n, from[l])
				}
				for o := 0; o < n; o += 16 {
					regions = append(regions, region{at + o, from[l] + uint64(o), 16, 0, 16})
				}
			}
			if to[l]%uint64(align) != 0 {
				w.misaligned(clusterSpace, to[l], align, l)
			}
			if !multicast {
				p, b := w.peer(to[l], l), w.barAt(clusterSpace, bars[l], l)
				if b.c != p {
					throw(BadOperand, l, "copy to block %d of the cluster that completes at an mbarrier of block %d", p.rank, b.c.rank)
				}
				w.bulkInto(p, b, regions, l)
				continue
			}
			// The same place and mbarrier in each of the blocks.
			for r := range 16 {
				if w.r32[ctas][l]>>r&1 == 0 {
					continue
				}
				if r >= w.m.ctas {
					throw(BadOperand, l, "copy to block %d of a cluster of %d", r, w.m.ctas)
				}
				there := uint64(r+1) << sharedRank
				w.bulkInto(w.peer(there, l), w.barAt(clusterSpace, there|bars[l]&(1<<sharedRank-1), l), regions, l)
			}
		}
		w.m.changes++
	}
	return nil
}

// bulkInto starts a copy into the shared memory of block p. Its writes are those of
// the mbarrier's agent: who has waited for the phase comes after them.
func (w *warp) bulkInto(p *cta, b *mbar, regions []region, lane int) {
	m := w.m
	b.touch(w, lane)
	if !b.fenced && m.opts.Check {
		b.c.shadow.fault(MissingFence, lane, b.off, "the mbarrier was initialised without fence.mbarrier_init or fence.proxy.async behind it")
	}
	clock := b.phase + 1
	n := 0
	for _, r := range regions {
		off := r.shared - sharedBase
		if off < 0 || off+r.size > len(p.mem) {
			p.shadow.fault(OutOfBounds, lane, off, "bulk copy of %d bytes at offset %d of %d", r.size, off, len(p.mem))
		}
		n += r.size
		if r.n > 0 {
			buf, at := m.reach(r.global+uint64(r.skip), r.n, lane)
			if m.opts.Check {
				buf.shadow.readBytes(w, lane, at, r.n, b.agent, clock)
			}
		}
		if m.opts.Check {
			p.shadow.writeAs(w, lane, off, r.size, b.agent, clock, cellInFlight|cellCopy)
		}
	}
	if m.opts.Count {
		bytes, last := 0, uint64(0)
		for _, r := range regions {
			if r.n > 0 {
				bytes += r.n
				if at := (r.global + uint64(r.skip)) / 32; at != last {
					m.stats.Sectors++
					last = at
				}
			}
		}
		m.stats.SectorsIdeal += int64((bytes + 31) / 32)
	}
	base := w.base
	b.loaded = clock
	p.cluster.async = append(p.cluster.async, func() {
		for _, r := range regions {
			off := r.shared - sharedBase
			clear(p.mem[off : off+r.size])
			if r.n > 0 {
				buf, at := m.reach(r.global+uint64(r.skip), r.n, lane)
				copy(p.mem[off+r.skip:], buf.data[at:at+r.n])
			}
			if m.opts.Check {
				p.shadow.landed(off, r.size, b.agent, clock, cellCopy)
			} else {
				p.shadow.setWritten(off, r.size)
			}
		}
		b.next.learn(base, b.agent, clock)
		b.tx -= n
		b.check(w, lane)
	})
}

// bulkOf gives the bulk groups of a thread.
func (w *warp) bulkOf(lane int) *bulkGroups {
	if w.units == nil {
		at := w.cta.at
		name := fmt.Sprintf("the bulk stores of warp %d of block %d,%d,%d", w.id, at[0], at[1], at[2])
		w.units = &bulkUnits{reader: w.cta.cluster.agent("%s", name), writer: w.cta.cluster.agent("%s", name)}
	}
	for i := range w.bulk {
		if w.bulk[i].lane == lane {
			return &w.bulk[i]
		}
	}
	w.bulk = append(w.bulk, bulkGroups{lane: lane})
	return &w.bulk[len(w.bulk)-1]
}

// bulkExit checks that the memory of the block is no longer read.
func (w *warp) bulkExit(mask uint32) {
	for i := range w.bulk {
		if g := &w.bulk[i]; mask>>g.lane&1 != 0 && g.read < g.last {
			throw(MissingWait, g.lane, "the thread returns while its bulk stores read shared memory")
		}
	}
}

// bulkStore compiles copies and reductions to global memory.
func (c *compiler) bulkStore(s *stmt, in *inst, rank int, reduce bool) error {
	if !s.take("shared::cta") || !s.take("bulk_group") {
		return fmt.Errorf("only bulk stores from .shared::cta in groups are known")
	}
	op := ""
	t := types["b32"]
	if reduce {
		if op = s.one("add", "min", "max", "and", "or", "xor", "inc", "dec"); op == "" {
			return fmt.Errorf("a reduction must say which")
		}
	}
	hint := s.take("L2::cache_hint")
	want := 2
	if rank == 0 {
		want++
		if reduce {
			s.take("noftz")
			var err error
			if t, err = s.typ(); err != nil {
				return err
			}
			if atomicOp(op, t) == nil {
				return fmt.Errorf("reduction %s of %s isn't known", op, t.name)
			}
		}
	}
	if hint {
		want++
	}
	if err := s.want(want); err != nil {
		return err
	}
	var tmap, size int32
	var coords []int32
	var dst ref
	var dstOff uint64
	var err error
	if rank > 0 {
		tmap, coords, err = c.tensorOperand(s.args[0], rank)
	} else if dst, dstOff, err = c.addressing(s.args[0], globalSpace); err == nil {
		size, err = c.src(s.args[2], types["u32"])
	}
	if err != nil {
		return err
	}
	src, srcOff, err := c.addressing(s.args[1], sharedSpace)
	if err != nil {
		return err
	}
	in.fn = func(w *warp, _ *inst, mask uint32) {
		var from, to [32]uint64
		w.addresses(src, srcOff, &from)
		if rank == 0 {
			w.addresses(dst, dstOff, &to)
		}
		for q := mask; q != 0; q &= q - 1 {
			l := lowest(q)
			var regions []region
			elem := t
			align := 16
			if rank > 0 {
				tm := w.tensorMap(w.r64[tmap][l], rank, l)
				xy := make([]int32, rank)
				for i, r := range coords {
					xy[i] = int32(w.r32[r][l])
				}
				regions = tm.box(xy, int(from[l]))
				align = 128
				elem = types[[...]string{"f16", "bf16", "f32", "b8", "s32"}[tm.DType]]
				if reduce && atomicOp(op, elem) == nil {
					throw(BadOperand, l, "reduction %s of %s isn't known", op, elem.name)
				}
			} else {
				n := int(w.r32[size][l])
				if n%16 != 0 || to[l]%16 != 0 {
					throw(Misaligned, l, "bulk store of %d bytes to %#x", n, to[l])
				}
				for o := 0; o < n; o += 16 {
					regions = append(regions, region{int(from[l]) + o, to[l] + uint64(o), 16, 0, 16})
				}
			}
			if from[l]%uint64(align) != 0 {
				w.misaligned(sharedSpace, from[l], align, l)
			}
			w.bulkOut(regions, op, elem, l)
		}
	}
	return nil
}

// bulkOut performs a bulk store. The data go out at once; that the shared memory is
// still read until the thread waits is a matter of clocks.
func (w *warp) bulkOut(regions []region, op string, elem typ, lane int) {
	m, c := w.m, w.cta
	g := w.bulkOf(lane)
	w.units.clock++
	clock := w.units.clock
	g.last = clock
	m.changes++
	for _, r := range regions {
		off := r.shared - sharedBase
		if off < 0 || off+r.size > len(c.mem) {
			c.shadow.fault(OutOfBounds, lane, off, "bulk store of %d bytes at offset %d of %d", r.size, off, len(c.mem))
		}
		if m.opts.Check {
			c.shadow.readAs(w, lane, off, r.size, w.units.reader, clock)
		}
		if r.n == 0 {
			continue
		}
		buf, at := m.reach(r.global+uint64(r.skip), r.n, lane)
		if buf.constant {
			buf.shadow.fault(BadOperand, lane, at, "store to a constant")
		}
		data := c.mem[off+r.skip : off+r.skip+r.n]
		n := elem.bytes()
		if op == "" {
			for i := 0; i < r.n; i += n {
				if m.opts.Check && (i == 0 || r.n < 16) {
					k := n
					if r.n == 16 {
						k = 16
					}
					buf.shadow.writeAs(w, lane, at+i, k, w.units.writer, clock, 0)
				}
			}
			buf.shadow.setWritten(at, r.n)
			copy(buf.data[at:], data)
			continue
		}
		f := atomicOp(op, elem)
		for i := 0; i < r.n; i += n {
			if m.opts.Check {
				buf.shadow.strong(w, lane, at+i, n, update, "updated here", true)
			}
			put(buf.data[at+i:], n, f(get(buf.data[at+i:], n), get(data[i:], n), 0))
		}
	}
}

// readBytes is readAs for any number of bytes.
func (s *shadow) readBytes(w *warp, lane, off, n int, agent, clock uint32) {
	if n == 16 && off%16 == 0 {
		s.readAs(w, lane, off, 16, agent, clock)
		return
	}
	for i := range n {
		s.readAs(w, lane, off+i, 1, agent, clock)
	}
}

// readAs notes a read through the async proxy on behalf of w, by an agent at its
// clock: it comes after what w knows of.
func (s *shadow) readAs(w *warp, lane, off, n int, agent, clock uint32) {
	if !s.written(off, n) {
		s.unwritten(lane, off, n)
	}
	p := s.page(off, n)
	i := off & (pageSize - 1) >> p.shift
	for end := i + max(1, n>>p.shift); i < end; i++ {
		k := &p.cells[i]
		if k.flags&(cellInFlight|cellAtomic|cellBarrier) != 0 {
			s.readSpecial(w, k, p, lane, s.cellOffset(off, p, i))
		}
		if k.wAgent != 0 {
			s.proxied(w, k, lane, off, p, i, "read here by the async proxy")
		}
		switch a := k.rAgent; {
		case a == agent:
			k.rClock = max(k.rClock, clock)
		case a == 0 || a != readerSet && w.knows(a, k.rClock):
			k.rAgent, k.rClock, k.rLane = agent, clock, manyLanes
		default:
			s.add(k, p, agent, clock, manyLanes, plainRead)
		}
	}
}

// proxied checks that the last write of a cell is visible to the async proxy.
func (s *shadow) proxied(w *warp, k *cell, lane, off int, p *page, i int, here string) {
	s.afterWrite(w, k, lane, off, p, i, here)
	if k.flags&cellGeneric != 0 && !w.proxied(k.wAgent, k.wClock) {
		s.fault(MissingFence, lane, s.cellOffset(off, p, i), "written by %s, %s without fence.proxy.async between", s.who(k.wAgent, k.wLane), here)
	}
}

// writeAs notes a write through the async proxy, as readAs does a read.
func (s *shadow) writeAs(w *warp, lane, off, n int, agent, clock uint32, flags uint8) {
	p := s.page(off, n)
	i := off & (pageSize - 1) >> p.shift
	for end := i + max(1, n>>p.shift); i < end; i++ {
		k := &p.cells[i]
		if k.flags&(cellInFlight|cellBarrier) != 0 {
			s.writeSpecial(k, lane, s.cellOffset(off, p, i))
		}
		if k.wAgent != 0 {
			s.proxied(w, k, lane, off, p, i, "written here by the async proxy")
		}
		if k.rAgent != 0 {
			s.ordered(w, k, p, lane, s.cellOffset(off, p, i), anyWrite, "written here by the async proxy")
			if k.rAgent == readerSet {
				s.dropSet(k.rClock)
			}
			k.rAgent = 0
		}
		k.wAgent, k.wClock, k.wLane, k.flags = agent, clock, manyLanes, flags
	}
	if flags&cellInFlight == 0 {
		s.setWritten(off, n)
	}
}

// stAsync compiles st.async: a store to another block's shared memory that
// completes at an mbarrier there.
func stAsync(c *compiler, s *stmt, in *inst) error {
	in.count = countAsync
	s.take("weak")
	if !s.take("shared::cluster") || !s.take("mbarrier::complete_tx::bytes") {
		return fmt.Errorf("st.async isn't st.async.shared::cluster.mbarrier::complete_tx::bytes")
	}
	n := map[string]int{"v2": 2, "v4": 4, "": 1}[s.one("v2", "v4")]
	t, err := s.typ()
	if err != nil {
		return err
	}
	if err := s.want(3); err != nil {
		return err
	}
	if t.bits < 32 {
		return fmt.Errorf("st.async.%s isn't known", t.name)
	}
	dst, dstOff, err := c.addressing(s.args[0], clusterSpace)
	if err != nil {
		return err
	}
	list := []operand{s.args[1]}
	if n > 1 {
		list = s.args[1].list
	}
	if len(list) != n {
		return fmt.Errorf("%d registers for %d elements", len(list), n)
	}
	var vals []ref
	for _, v := range list {
		slot, err := c.src(v, t)
		if err != nil {
			return err
		}
		vals = append(vals, ref{t.class(), slot})
	}
	bar, barOff, err := c.addressing(s.args[2], clusterSpace)
	if err != nil {
		return err
	}
	c.e.async, c.e.clusters = true, true
	size := t.bytes()
	in.fn = func(w *warp, _ *inst, mask uint32) {
		var to, bars [32]uint64
		w.addresses(dst, dstOff, &to)
		w.addresses(bar, barOff, &bars)
		for q := mask; q != 0; q &= q - 1 {
			l := lowest(q)
			mem, sh, off := w.locate(clusterSpace, to[l], size*n, l)
			b := w.barAt(clusterSpace, bars[l], l)
			if b.c.mem != nil && &b.c.mem[0] != &mem[0] {
				throw(BadOperand, l, "st.async to one block that completes at an mbarrier of another")
			}
			b.touch(w, l)
			clock := b.phase + 1
			if w.m.opts.Check {
				sh.writeAs(w, l, off, size*n, b.agent, clock, cellInFlight|cellCopy)
			}
			data := make([]byte, size*n)
			for i, v := range vals {
				binary.LittleEndian.PutUint32(data[i*size:], uint32(w.getLane(v, l)))
				if size == 8 {
					binary.LittleEndian.PutUint64(data[i*size:], w.getLane(v, l))
				}
			}
			base := w.base
			w.cta.cluster.async = append(w.cta.cluster.async, func() {
				copy(mem[off:], data)
				if w.m.opts.Check {
					sh.landed(off, len(data), b.agent, clock, cellCopy)
				} else {
					sh.setWritten(off, len(data))
				}
				b.next.learn(base, b.agent, clock)
				b.tx -= len(data)
				b.check(w, l)
			})
		}
	}
	return nil
}
