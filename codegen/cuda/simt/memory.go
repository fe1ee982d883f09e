package simt

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// space is where an access goes.
type space uint8

const (
	generic space = iota
	globalSpace
	sharedSpace
	clusterSpace // shared memory of any block of the cluster
	paramSpace
	constSpace
)

// memOp is what a memory instruction says besides registers.
type memOp struct {
	space  space
	base   ref
	off    uint64
	size   int // bytes of an element
	regs   []ref
	sign   uint // shift that extends the sign of a loaded element, 0 for none
	fill   uint64
	strong bool // .relaxed, .acquire, .release, .volatile
	sync   bool // .acquire or .release
	wide   bool // visible beyond the cluster
	nc     bool
	atom   func(old, b, c uint64) uint64
	b, c   []ref
}

// bytes of the access of one lane.
func (o *memOp) bytes() int { return o.size * max(1, len(o.regs)) }

// addressing reads a memory operand that has no coordinates.
func (c *compiler) addressing(o operand, sp space) (base ref, off uint64, err error) {
	if o.kind != opMem || len(o.list) != 1 {
		return base, 0, fmt.Errorf("expected an address in brackets")
	}
	a := o.list[0]
	t := types["b64"]
	if a.kind == opReg {
		t = a.reg.typ
		if t.bits != 64 && !(t.bits == 32 && (sp == sharedSpace || sp == clusterSpace)) || t.kind == 'f' {
			return base, 0, fmt.Errorf("register %s of type %s as an address", a.text, t.name)
		}
	}
	slot, err := c.src(a, t)
	return ref{t.class(), slot}, uint64(o.off), err
}

// spaceOf takes the state space from the modifiers.
func spaceOf(s *stmt) (space, error) {
	switch m := s.one("global", "shared", "shared::cta", "shared::cluster", "param", "param::entry", "const", "local"); m {
	case "":
		return generic, nil
	case "global":
		return globalSpace, nil
	case "shared", "shared::cta":
		return sharedSpace, nil
	case "shared::cluster":
		return clusterSpace, nil
	case "param", "param::entry":
		return paramSpace, nil
	case "const":
		return constSpace, nil
	default:
		return 0, fmt.Errorf("state space .%s isn't known", m)
	}
}

func (sp space) count() counter {
	switch sp {
	case sharedSpace, clusterSpace:
		return countShared
	case paramSpace, constSpace:
		return countOtherMem
	}
	return countGlobal
}

// loadStore compiles ld and st.
func loadStore(c *compiler, s *stmt, in *inst) error {
	if s.op == "st" && s.take("async") {
		return stAsync(c, s, in)
	}
	o := &memOp{}
	in.mem = o
	load := s.op == "ld" || s.op == "ldu"
	switch s.one("weak", "relaxed", "acquire", "release", "volatile") {
	case "relaxed", "volatile":
		o.strong = true
	case "acquire":
		o.strong, o.sync = true, true
		if !load {
			return fmt.Errorf("st.acquire")
		}
	case "release":
		o.strong, o.sync = true, true
		if load {
			return fmt.Errorf("ld.release")
		}
	}
	switch s.one("cta", "cluster", "gpu", "sys") {
	case "gpu", "sys":
		o.wide = true
	}
	var err error
	if o.space, err = spaceOf(s); err != nil {
		return err
	}
	o.nc = s.take("nc")
	if o.nc && (!load || o.space != globalSpace || o.strong) {
		return fmt.Errorf(".nc is for weak loads of .global")
	}
	s.one("ca", "cg", "cs", "lu", "cv", "wb", "wt")
	s.one("L1::evict_normal", "L1::evict_unchanged", "L1::evict_first", "L1::evict_last", "L1::no_allocate")
	s.one("L2::64B", "L2::128B", "L2::256B")
	n := 1
	switch s.one("v2", "v4") {
	case "v2":
		n = 2
	case "v4":
		n = 4
	}
	t, err := s.typ()
	if err != nil {
		return err
	}
	if t.kind == 'p' || t.half() || t.name == "tf32" {
		return fmt.Errorf("%s.%s isn't known", s.op, t.name)
	}
	if n*t.bytes() > 16 {
		return fmt.Errorf("%d bytes at once", n*t.bytes())
	}
	o.size = t.bytes()
	if err := s.want(2); err != nil {
		return err
	}
	addr, val := s.args[1], s.args[0]
	if !load {
		addr, val = val, addr
	}
	if o.base, o.off, err = c.addressing(addr, o.space); err != nil {
		return err
	}
	vals := []operand{val}
	if val.kind == opVec {
		vals = val.list
	}
	if len(vals) != n || n > 1 && val.kind != opVec {
		return fmt.Errorf("%d registers for %d elements", len(vals), n)
	}
	for _, v := range vals {
		var r ref
		if load {
			r, err = c.dstRef(v, t, true)
			if v.reg != nil && t.kind == 's' && v.reg.typ.bits > t.bits {
				o.sign = uint(64 - t.bits)
				o.fill = 1<<v.reg.typ.bits - 1
			}
		} else {
			r, err = c.srcWide(v, t)
		}
		if err != nil {
			return err
		}
		o.regs = append(o.regs, r)
	}
	in.count = o.space.count()
	switch {
	case !load && (o.space == paramSpace || o.space == constSpace):
		return fmt.Errorf("store to a read-only space")
	case load && o.space == paramSpace:
		in.fn = loadParam
	case load:
		in.fn = loadMem
	default:
		in.fn = storeMem
	}
	return nil
}

func get(p []byte, n int) uint64 {
	switch n {
	case 1:
		return uint64(p[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(p))
	case 4:
		return uint64(binary.LittleEndian.Uint32(p))
	}
	return binary.LittleEndian.Uint64(p)
}

func put(p []byte, n int, v uint64) {
	switch n {
	case 1:
		p[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(p, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(p, uint32(v))
	default:
		binary.LittleEndian.PutUint64(p, v)
	}
}

// addresses computes base + off for all lanes.
func (w *warp) addresses(base ref, off uint64, at *[32]uint64) {
	if base.class == class64 {
		r := &w.r64[base.slot]
		for l := range at {
			at[l] = r[l] + off
		}
		return
	}
	r := &w.r32[base.slot]
	for l := range at {
		at[l] = uint64(r[l] + uint32(off))
	}
}

// sharedRank is how addresses of shared::cluster name another block: from this bit
// on, its rank + 1. 0 is the block itself.
const sharedRank = 24

// locate finds the memory of an access. Accesses must lie inside of an allocation
// and be aligned to their size.
func (w *warp) locate(sp space, addr uint64, n, lane int) (mem []byte, sh *shadow, off int) {
	if addr&uint64(n-1) != 0 {
		w.misaligned(sp, addr, n, lane)
	}
	if sp == globalSpace || sp == constSpace {
		b, off := w.m.reach(addr, n, lane)
		return b.data, &b.shadow, off
	}
	if sp == generic {
		switch addr >> 56 {
		case sharedWindow >> 56:
			sp, addr = clusterSpace, addr-sharedWindow
		case paramWindow >> 56:
			throw(BadOperand, lane, "generic access to parameter memory")
		default:
			b, off := w.m.reach(addr, n, lane)
			return b.data, &b.shadow, off
		}
	}
	c := w.cta
	if addr >= 1<<sharedRank && sp == clusterSpace {
		c = w.peer(addr, lane)
		addr &= 1<<sharedRank - 1
	}
	off = int(int64(addr)) - sharedBase
	if off < 0 || off+n > len(c.mem) || addr > 1<<32 {
		c.shadow.fault(OutOfBounds, lane, off, "%d bytes at offset %d of %d", n, off, len(c.mem))
	}
	return c.mem, &c.shadow, off
}

// peer is the block that an address of shared::cluster belongs to.
func (w *warp) peer(addr uint64, lane int) *cta {
	r := int(addr>>sharedRank) - 1
	if r < 0 {
		return w.cta
	}
	if r >= len(w.cta.cluster.ctas) {
		throw(OutOfBounds, lane, "address %#x is in no block's shared memory", addr)
	}
	c := w.cta.cluster.ctas[r]
	if c.left == 0 {
		throw(OutOfBounds, lane, "shared memory of block %d of the cluster, which has returned", r)
	}
	return c
}

func (w *warp) misaligned(sp space, addr uint64, n, lane int) {
	f := &Fault{Kind: Misaligned, Thread: lane, Detail: fmt.Sprintf("%d bytes at address %#x", n, addr), Address: addr}
	if b, off := w.m.find(addr); b != nil && sp != sharedSpace && sp != clusterSpace {
		b.shadow.locate(f, off)
	} else if sp != globalSpace {
		w.cta.shadow.locate(f, int(int64(addr&(1<<sharedRank-1)))-sharedBase)
	}
	panic(thrown{f})
}

// row says whether the lanes' accesses of n bytes to global or shared memory lie one
// behind the other, and finds their memory. That is the most frequent case, and
// cheap to check.
func (w *warp) row(sp space, at *[32]uint64, mask uint32, n int) (mem []byte, sh *shadow, off int, ok bool) {
	if mask != allLanes || at[0]&uint64(n-1) != 0 {
		return nil, nil, 0, false
	}
	next := at[0]
	for _, a := range at {
		if a != next {
			return nil, nil, 0, false
		}
		next += uint64(n)
	}
	switch sp {
	case globalSpace:
		b, off := w.m.find(at[0])
		if b == nil || off < 0 || off+32*n > len(b.data) || b.constant {
			return nil, nil, 0, false
		}
		return b.data, &b.shadow, off, true
	case sharedSpace:
		off := int(at[0]) - sharedBase
		if off < 0 || off+32*n > len(w.cta.mem) {
			return nil, nil, 0, false
		}
		return w.cta.mem, &w.cta.shadow, off, true
	}
	return nil, nil, 0, false
}

// same says whether all lanes of a mask access the same address.
func same(at *[32]uint64, mask uint32) bool {
	first := at[lowest(mask)]
	for q := mask; q != 0; q &= q - 1 {
		if at[bits.TrailingZeros32(q)] != first {
			return false
		}
	}
	return true
}

// loadMem executes ld.
func loadMem(w *warp, in *inst, mask uint32) {
	o := in.mem
	n := o.bytes()
	var at [32]uint64
	w.addresses(o.base, o.off, &at)
	m := w.m
	if m.opts.Count {
		w.countAccess(o.space, &at, mask, n)
	}
	check := m.opts.Check
	if !o.strong && !o.nc {
		if mem, sh, off, ok := w.row(o.space, &at, mask, n); ok {
			if check {
				sh.readRow(w, off, n)
			}
			if r := o.regs[0]; n == 4 && len(o.regs) == 1 && r.class == class32 {
				d, p := &w.r32[r.slot], mem[off:off+128]
				for l := range d {
					d[l] = binary.LittleEndian.Uint32(p[4*l:])
				}
				return
			}
			for l := range 32 {
				w.loaded(o, l, mem[off+l*n:])
			}
			return
		}
		if same(&at, mask) {
			l := lowest(mask)
			mem, sh, off := w.locate(o.space, at[l], n, l)
			if check {
				if mask&(mask-1) != 0 {
					l = (l+1)<<8 | manyLanes
				}
				sh.read(w, l, off, n)
			}
			for q := mask; q != 0; q &= q - 1 {
				w.loaded(o, bits.TrailingZeros32(q), mem[off:])
			}
			return
		}
	}
	for q := mask; q != 0; q &= q - 1 {
		l := bits.TrailingZeros32(q)
		mem, sh, off := w.locate(o.space, at[l], n, l)
		if check {
			if o.strong {
				sh.strong(w, l, off, n, strongRead, "read here", true)
			} else {
				sh.read(w, l, off, n)
			}
			if o.nc {
				sh.untouched(l, off, n)
			}
		}
		if o.strong {
			w.sees(sh, off, o.sync)
		}
		w.loaded(o, l, mem[off:])
	}
	if o.strong {
		w.poll()
	}
}

// loaded puts what a lane loaded into its registers.
func (w *warp) loaded(o *memOp, l int, p []byte) {
	for i, r := range o.regs {
		if o.size == 4 && r.class == class32 {
			w.r32[r.slot][l] = binary.LittleEndian.Uint32(p[4*i:])
			continue
		}
		v := get(p[i*o.size:], o.size)
		if o.sign != 0 {
			v = uint64(int64(v<<o.sign)>>o.sign) & o.fill
		}
		w.setLane(r, l, v)
	}
}

// poll ends the slice after something that may be waited for in a loop.
func (w *warp) poll() { w.stop, w.polled = true, true }

// storeMem executes st. Lanes store in order, the last wins.
func storeMem(w *warp, in *inst, mask uint32) {
	o := in.mem
	n := o.bytes()
	var at [32]uint64
	w.addresses(o.base, o.off, &at)
	m := w.m
	m.changes++
	if m.opts.Count {
		w.countAccess(o.space, &at, mask, n)
	}
	if !o.strong {
		if mem, sh, off, ok := w.row(o.space, &at, mask, n); ok {
			if m.opts.Check {
				sh.writeRow(w, off, n)
			} else {
				sh.setWritten(off, 32*n)
			}
			if r := o.regs[0]; n == 4 && len(o.regs) == 1 && r.class == class32 {
				d, p := &w.r32[r.slot], mem[off:off+128]
				for l, v := range d {
					binary.LittleEndian.PutUint32(p[4*l:], v)
				}
				return
			}
			for l := range 32 {
				w.stored(o, l, mem[off+l*n:])
			}
			return
		}
	}
	for q := mask; q != 0; q &= q - 1 {
		l := bits.TrailingZeros32(q)
		mem, sh, off := w.locate(o.space, at[l], n, l)
		switch {
		case sh.buf != nil && sh.buf.constant:
			sh.fault(BadOperand, l, off, "store to a constant")
		case !m.opts.Check:
			sh.setWritten(off, n)
		case o.strong:
			sh.strong(w, l, off, n, update, "stored here", false)
		default:
			sh.write(w, l, off, n, cellGeneric)
		}
		if o.strong {
			w.passes(sh, off, o.sync, o.wide, true)
		}
		w.stored(o, l, mem[off:])
	}
	if o.sync {
		w.tick()
	}
}

func (w *warp) stored(o *memOp, l int, p []byte) {
	for i, r := range o.regs {
		if o.size == 4 && r.class == class32 {
			binary.LittleEndian.PutUint32(p[4*i:], w.r32[r.slot][l])
			continue
		}
		put(p[i*o.size:], o.size, w.getLane(r, l))
	}
}

// loadParam executes ld.param: all lanes read the same, except with an address in a
// register.
func loadParam(w *warp, in *inst, mask uint32) {
	o := in.mem
	n := o.bytes()
	var at [32]uint64
	w.addresses(o.base, o.off, &at)
	for q := mask; q != 0; q &= q - 1 {
		l := bits.TrailingZeros32(q)
		off := at[l] &^ paramWindow
		if off+uint64(n) > uint64(len(w.m.params)) {
			throw(OutOfBounds, l, "%d bytes at offset %d of %d bytes of parameters", n, off, len(w.m.params))
		}
		if off%uint64(n) != 0 {
			throw(Misaligned, l, "%d bytes at offset %d of the parameters", n, off)
		}
		for i, r := range o.regs {
			v := get(w.m.params[off+uint64(i*o.size):], o.size)
			if o.sign != 0 {
				v = uint64(int64(v<<o.sign)>>o.sign) & o.fill
			}
			w.setLane(r, l, v)
		}
	}
}

func (w *warp) countAccess(sp space, at *[32]uint64, mask uint32, n int) {
	switch sp {
	case globalSpace:
		w.m.countSectors(at, mask, n)
	case sharedSpace, clusterSpace:
		w.m.countBanks(at, mask, n)
	case generic:
		if at[bits.TrailingZeros32(mask)]>>56 == 0 {
			w.m.countSectors(at, mask, n)
		} else {
			w.m.countBanks(at, mask, n)
		}
	}
}
