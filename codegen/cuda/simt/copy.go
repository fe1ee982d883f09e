package simt

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// copies are a warp's cp.async operations under way. The data are those of the
// time of issue, and arrive when somebody waits for them.
type copies struct {
	list  []copyOp
	group [32]uint32 // number of the group that each lane adds to
}

type copyOp struct {
	group uint32
	off   int32 // in shared memory
	lane  uint8
	n     uint8
	data  [16]byte
}

// exit checks that lanes which return have waited for their copies.
func (c *copies) exit(w *warp, mask uint32) {
	for i := range c.list {
		if k := &c.list[i]; mask>>k.lane&1 != 0 {
			w.cta.shadow.fault(MissingWait, int(k.lane), int(k.off), "the thread returns while its cp.async is under way")
		}
	}
}

// cp compiles cp.async and what starts with it.
func cp(c *compiler, s *stmt, in *inst) error {
	in.count = countAsync
	if s.take("reduce") {
		return bulk(c, s, in, true)
	}
	if !s.take("async") {
		return fmt.Errorf("cp without .async")
	}
	if s.take("bulk") {
		return bulk(c, s, in, false)
	}
	switch {
	case s.take("commit_group"):
		in.fn = func(w *warp, _ *inst, mask uint32) {
			for q := mask; q != 0; q &= q - 1 {
				w.copies.group[lowest(q)]++
			}
		}
		return s.want(0)
	case s.take("wait_all"):
		in.count = countSync
		in.fn = func(w *warp, _ *inst, mask uint32) {
			for q := mask; q != 0; q &= q - 1 {
				w.copies.group[lowest(q)]++
			}
			w.arrived(mask, 0)
		}
		return s.want(0)
	case s.take("wait_group"):
		in.count = countSync
		if err := s.want(1); err != nil {
			return err
		}
		if s.args[0].kind != opInt {
			return fmt.Errorf("the number of groups is no constant")
		}
		n := uint32(s.args[0].value)
		in.fn = func(w *warp, _ *inst, mask uint32) { w.arrived(mask, n) }
		return nil
	case s.take("mbarrier"):
		return copyArrive(c, s, in)
	}
	cache := s.one("ca", "cg")
	dst := s.one("shared", "shared::cta")
	if cache == "" || dst == "" || !s.take("global") {
		return fmt.Errorf("cp.async isn't cp.async.ca|cg.shared.global")
	}
	s.one("L2::64B", "L2::128B", "L2::256B")
	if len(s.args) != 3 && len(s.args) != 4 {
		return fmt.Errorf("%d operands", len(s.args))
	}
	to, toOff, err := c.addressing(s.args[0], sharedSpace)
	if err != nil {
		return err
	}
	from, fromOff, err := c.addressing(s.args[1], globalSpace)
	if err != nil {
		return err
	}
	if s.args[2].kind != opInt {
		return fmt.Errorf("the size is no constant")
	}
	n := int(s.args[2].value)
	if n != 16 && (cache == "cg" || n != 4 && n != 8) {
		return fmt.Errorf("cp.async.%s of %d bytes", cache, n)
	}
	size := int32(-1)
	if len(s.args) == 4 {
		if size, err = c.src(s.args[3], types["u32"]); err != nil {
			return err
		}
	}
	in.fn = func(w *warp, _ *inst, mask uint32) {
		var a, b [32]uint64
		w.addresses(to, toOff, &a)
		w.addresses(from, fromOff, &b)
		check := w.m.opts.Check
		read := uint32(0) // lanes that read something
		for q := mask; q != 0; q &= q - 1 {
			l := bits.TrailingZeros32(q)
			k := n
			if size >= 0 {
				if k = int(w.r32[size][l]); k > n {
					throw(BadOperand, l, "cp.async of %d bytes to a place for %d", k, n)
				}
			}
			op := copyOp{group: w.copies.group[l], lane: uint8(l), n: uint8(n)}
			if b[l]&uint64(n-1) != 0 {
				w.misaligned(globalSpace, b[l], n, l)
			}
			if k > 0 {
				read |= 1 << l
				buf, off := w.m.reach(b[l], k, l)
				if check {
					if k == n {
						buf.shadow.read(w, l, off, n)
					} else {
						for i := range k {
							buf.shadow.read(w, l, off+i, 1)
						}
					}
				}
				copy(op.data[:k], buf.data[off:])
			}
			mem, sh, off := w.locate(sharedSpace, a[l], n, l)
			op.off = int32(off)
			if !check {
				copy(mem[off:off+n], op.data[:])
				continue
			}
			sh.write(w, l, off, n, cellInFlight|cellCopy)
			w.copies.list = append(w.copies.list, op)
		}
		if w.m.opts.Count {
			w.m.countBanks(&a, mask, n)
			if read != 0 {
				w.m.countSectors(&b, read, n)
			}
		}
	}
	return nil
}

// arrived completes the copies of some lanes but for their n latest groups.
func (w *warp) arrived(mask, n uint32) {
	c := &w.copies
	kept := c.list[:0]
	for i := range c.list {
		k := &c.list[i]
		if mask>>k.lane&1 != 0 && c.group[k.lane]-k.group > n {
			w.finishCopy(k)
		} else {
			kept = append(kept, *k)
		}
	}
	c.list = kept
}

func (w *warp) finishCopy(k *copyOp) {
	off, n := int(k.off), int(k.n)
	copy(w.cta.mem[off:off+n], k.data[:n])
	w.cta.shadow.landed(off, n, w.agent, w.clock(), cellGeneric)
}

// landed ends an asynchronous copy: from now on the cells count as written by the
// agent at that clock.
func (s *shadow) landed(off, n int, agent, clock uint32, flags uint8) {
	p := s.page(off, n)
	i := off & (pageSize - 1) >> p.shift
	for end := i + max(1, n>>p.shift); i < end; i++ {
		k := &p.cells[i]
		k.flags = flags
		k.wAgent, k.wClock = agent, clock
	}
	s.setWritten(off, n)
}

// matrix compiles ldmatrix and stmatrix.
func matrix(c *compiler, s *stmt, in *inst) error {
	in.count = countMatrix
	if !s.take("sync") || !s.take("aligned") || !s.take("m8n8") {
		return fmt.Errorf("%s isn't %s.sync.aligned.m8n8", s.op, s.op)
	}
	n := map[string]int{"x1": 1, "x2": 2, "x4": 4}[s.one("x1", "x2", "x4")]
	trans := s.take("trans")
	sp, err := spaceOf(s)
	if err != nil {
		return err
	}
	if n == 0 || sp != sharedSpace && sp != generic {
		return fmt.Errorf("%s isn't known", s.op)
	}
	t, err := s.typ()
	if err != nil {
		return err
	}
	if t.name != "b16" {
		return fmt.Errorf("%s.%s isn't known", s.op, t.name)
	}
	if err := s.want(2); err != nil {
		return err
	}
	load := s.op == "ldmatrix"
	addr, regs := s.args[1], s.args[0]
	if !load {
		addr, regs = regs, addr
	}
	list := []operand{regs}
	if regs.kind == opVec {
		list = regs.list
	}
	if len(list) != n {
		return fmt.Errorf("%d registers for %d matrices", len(list), n)
	}
	base, off, err := c.addressing(addr, sp)
	if err != nil {
		return err
	}
	slots := make([]int32, n)
	for i, r := range list {
		if load {
			slots[i], err = c.dst(r, types["b32"])
		} else {
			slots[i], err = c.src(r, types["b32"])
		}
		if err != nil {
			return err
		}
	}
	name := s.op
	in.fn = func(w *warp, _ *inst, mask uint32) {
		w.whole(mask, name)
		var at [32]uint64
		w.addresses(base, off, &at)
		if w.m.opts.Count {
			w.countAccess(sp, &at, uint32(1<<(8*n)-1), 16)
		}
		if load {
			w.loadMatrix(sp, &at, slots, trans)
		} else {
			w.storeMatrix(sp, &at, slots, trans)
		}
	}
	return nil
}

// loadMatrix gives every thread two neighbours of each 8x8 matrix, whose rows lie
// at the addresses of eight lanes.
func (w *warp) loadMatrix(sp space, at *[32]uint64, slots []int32, trans bool) {
	var out [4]v32
	for k := range slots {
		var rows [8][]byte
		for r := range rows {
			l := k*8 + r
			mem, sh, off := w.locate(sp, at[l], 16, l)
			if w.m.opts.Check {
				sh.read(w, l, off, 16)
			}
			rows[r] = mem[off : off+16]
		}
		d := &out[k]
		for l := range d {
			g, t := l>>2, l&3
			if trans {
				d[l] = uint32(binary.LittleEndian.Uint16(rows[2*t][2*g:])) | uint32(binary.LittleEndian.Uint16(rows[2*t+1][2*g:]))<<16
			} else {
				d[l] = binary.LittleEndian.Uint32(rows[g][4*t:])
			}
		}
	}
	for k, s := range slots {
		w.r32[s] = out[k]
	}
}

func (w *warp) storeMatrix(sp space, at *[32]uint64, slots []int32, trans bool) {
	w.m.changes++
	for k, s := range slots {
		r := &w.r32[s]
		for row := range 8 {
			l := k*8 + row
			mem, sh, off := w.locate(sp, at[l], 16, l)
			if w.m.opts.Check {
				sh.write(w, l, off, 16, cellGeneric)
			} else {
				sh.setWritten(off, 16)
			}
			for j := range 8 {
				v := uint16(r[row*4+j/2] >> (j & 1 * 16))
				if trans {
					v = uint16(r[j*4+row/2] >> (row & 1 * 16))
				}
				binary.LittleEndian.PutUint16(mem[off+2*j:], v)
			}
		}
	}
}

// movmatrix compiles the transposition of an 8x8 matrix in registers.
func movmatrix(c *compiler, s *stmt, in *inst) error {
	in.count = countShuffle
	for _, m := range []string{"sync", "aligned", "m8n8", "trans", "b16"} {
		if !s.take(m) {
			return fmt.Errorf("movmatrix isn't movmatrix.sync.aligned.m8n8.trans.b16")
		}
	}
	if err := s.want(2); err != nil {
		return err
	}
	var err error
	if in.a, err = c.src(s.args[1], types["b32"]); err != nil {
		return err
	}
	if in.d, err = c.dst(s.args[0], types["b32"]); err != nil {
		return err
	}
	in.fn = func(w *warp, in *inst, mask uint32) {
		w.whole(mask, "movmatrix")
		a := w.r32[in.a]
		at := func(r, c int) uint32 { return a[r*4+c/2] >> (c & 1 * 16) & 0xffff }
		for l := range a {
			g, t := l>>2, l&3
			w.r32[in.d][l] = at(2*t, g) | at(2*t+1, g)<<16
		}
	}
	return nil
}
