package simt

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// wgState is what a warp's wgmma instructions have under way. Groups are numbered
// from 1. Registers of f32 accumulators and of A's fragments are told by slot.
type wgState struct {
	group uint32 // the one that is open
	used  bool   // the open group has a product
	done  uint32 // all groups up to this one have been waited for
	seq   int    // products so far

	writes, reads []uint32 // the last group that writes or reads each register
	// Accesses by other instructions since the last wgmma.fence, which the products
	// must come behind.
	written, touched []bool
}

func newWgState(e *entry) *wgState {
	s := &wgState{group: 1, writes: make([]uint32, e.n32), reads: make([]uint32, e.n32), written: make([]bool, e.n32), touched: make([]bool, e.n32)}
	for i := range s.written {
		s.written[i], s.touched[i] = true, true
	}
	return s
}

// wgShared is what the four warps of a warpgroup share.
type wgShared struct {
	agent     uint32
	committed [4]uint32
	// log has the products, for all warps must execute the same.
	log []wgOp
}

type wgOp struct {
	pc   int32
	a, b uint64
	keep bool
}

// markWgmma leaves the registers that an instruction uses only where a wgmma uses
// them too.
func markWgmma(e *entry) {
	shared := map[ref]bool{}
	for i := range e.code {
		if _, ok := e.code[i].x.(*wgProduct); ok {
			e.wgmma = true
			for _, u := range e.code[i].uses {
				if u.class == class32 {
					shared[u.ref] = true
				}
			}
			e.code[i].uses = nil
		}
	}
	for i := range e.code {
		kept := []use(nil)
		for _, u := range e.code[i].uses {
			if shared[u.ref] {
				kept = append(kept, u)
			}
		}
		e.code[i].uses = kept
	}
}

// checkPending checks an instruction that uses registers of products.
func (w *warp) checkPending(in *inst) {
	s := w.wg
	for _, u := range in.uses {
		if s.writes[u.slot] > s.done {
			throw(MissingWait, -1, "%s a register that a wgmma still writes: no wgmma.wait_group between", verb(u.write))
		}
		s.touched[u.slot] = true
		if u.write {
			if s.reads[u.slot] > s.done {
				throw(MissingWait, -1, "writes a register that a wgmma still reads: no wgmma.wait_group between")
			}
			s.written[u.slot] = true
		}
	}
}

func verb(write bool) string {
	if write {
		return "writes"
	}
	return "reads"
}

// wgProduct is one wgmma.mma_async.
type wgProduct struct {
	n            int
	acc          []int32
	a            []int32 // fragments, nil for a descriptor
	descA, descB int32
	keep         predicate
	negate       bool
	transA       bool
	transB       bool
	brain        bool
}

// wgmma compiles the products of warpgroups.
func wgmma(c *compiler, s *stmt, in *inst) error {
	in.count = countSync
	c.e.async = true
	op := s.one("fence", "commit_group", "wait_group", "mma_async")
	if op == "" || !s.take("sync") || !s.take("aligned") {
		return fmt.Errorf("wgmma isn't wgmma.fence|commit_group|wait_group|mma_async.sync.aligned")
	}
	switch op {
	case "fence":
		in.fn = func(w *warp, _ *inst, mask uint32) {
			w.whole(mask, "wgmma.fence")
			w.warpgroup()
			if w.wg != nil {
				clear(w.wg.written)
				clear(w.wg.touched)
			}
		}
		return s.want(0)
	case "commit_group":
		in.fn = func(w *warp, _ *inst, mask uint32) {
			w.whole(mask, "wgmma.commit_group")
			g := w.warpgroup()
			if w.wg == nil {
				return
			}
			g.committed[w.id%4] = w.wg.group
			w.wg.group++
			w.wg.used = false
			w.m.changes++
		}
		return s.want(0)
	case "wait_group":
		if err := s.want(1); err != nil {
			return err
		}
		if s.args[0].kind != opInt || s.args[0].value > 1<<20 {
			return fmt.Errorf("the number of groups is no constant")
		}
		n := uint32(s.args[0].value)
		in.fn = func(w *warp, _ *inst, mask uint32) {
			w.whole(mask, "wgmma.wait_group")
			w.wgWait(n)
		}
		return nil
	}
	in.count = countWGMMA
	return wgmmaProduct(c, s, in)
}

func wgmmaProduct(c *compiler, s *stmt, in *inst) error {
	p := &wgProduct{}
	for _, m := range s.mods {
		if r, ok := strings.CutPrefix(m, "m64n"); ok {
			if r, ok = strings.CutSuffix(r, "k16"); ok {
				p.n, _ = strconv.Atoi(r)
				s.take(m)
				break
			}
		}
	}
	if p.n < 8 || p.n > 256 || p.n%8 != 0 {
		return fmt.Errorf("wgmma isn't of m64nNk16")
	}
	ts := s.types()
	if len(ts) != 3 || ts[0].name != "f32" || ts[1].name != ts[2].name || ts[1].name != "f16" && ts[1].name != "bf16" {
		return fmt.Errorf("wgmma of these types isn't known")
	}
	p.brain = ts[1].name == "bf16"
	if len(s.args) < 6 {
		return fmt.Errorf("%d operands", len(s.args))
	}
	var err error
	if p.acc, err = c.vector(s.args[0], p.n/2, types["f32"], true); err != nil {
		return err
	}
	want := 8
	if s.args[1].kind == opVec {
		want = 7
		if p.a, err = c.vector(s.args[1], 4, types["b32"], false); err != nil {
			return err
		}
	} else if p.descA, err = c.src(s.args[1], types["b64"]); err != nil {
		return err
	}
	if err := s.want(want); err != nil {
		return err
	}
	if p.descB, err = c.src(s.args[2], types["b64"]); err != nil {
		return err
	}
	if p.keep, err = c.predicate(s.args[3]); err != nil {
		return err
	}
	imm := func(o operand, a, b int64) (bool, error) {
		if o.kind != opInt || int64(o.value) != a && int64(o.value) != b {
			return false, fmt.Errorf("%s is neither %d nor %d", o.text, a, b)
		}
		return int64(o.value) == b, nil
	}
	for _, o := range s.args[4:6] {
		minus, err := imm(o, 1, -1)
		if err != nil {
			return err
		}
		p.negate = p.negate != minus
	}
	trans := []*bool{&p.transA, &p.transB}
	if p.a != nil {
		trans = trans[1:]
	}
	for i, t := range trans {
		if *t, err = imm(s.args[6+i], 0, 1); err != nil {
			return err
		}
	}
	in.x = p
	in.fn = func(w *warp, in *inst, mask uint32) { w.wgProduct(in.x.(*wgProduct), mask) }
	return nil
}

// warpgroup is the state shared by the warp's warpgroup.
func (w *warp) warpgroup() *wgShared {
	c := w.cta
	if c.groups == nil {
		c.groups = make([]*wgShared, (w.m.warps+3)/4)
	}
	i := w.id / 4
	if c.groups[i] == nil {
		if (i+1)*4 > w.m.warps {
			throw(Divergent, -1, "wgmma in a block of %d warps: the last warpgroup has less than four", w.m.warps)
		}
		c.groups[i] = &wgShared{agent: c.cluster.agent("the products of warpgroup %d of block %d,%d,%d", i, c.at[0], c.at[1], c.at[2])}
	}
	return c.groups[i]
}

// wgWait waits for all but the last n groups: all four warps must have committed
// them.
func (w *warp) wgWait(n uint32) {
	g, s := w.warpgroup(), w.wg
	if s == nil || s.group-1 <= n {
		return
	}
	to := s.group - 1 - n
	ready := func() bool {
		for _, k := range g.committed {
			if k < to {
				return false
			}
		}
		s.done = max(s.done, to)
		w.learn(w.base, g.agent, s.done)
		return true
	}
	if !ready() {
		w.stop, w.wait = true, ready
		w.waiting = func() string { return "wgmma.wait_group, other warps of the warpgroup haven't committed" }
	}
}

// wgProduct multiplies. Shared memory is read at once; that it's still in use is a
// matter of clocks, and so is that the registers change only later.
func (w *warp) wgProduct(p *wgProduct, mask uint32) {
	w.whole(mask, "wgmma")
	g, s := w.warpgroup(), w.wg
	keep := p.keep.get(w)
	if keep != 0 && keep != allLanes {
		throw(BadOperand, -1, "scale-d differs between lanes: %08x", keep)
	}
	op := wgOp{pc: w.pc, keep: keep != 0, b: w.uniform64(p.descB, mask, "the descriptor of B")}
	if p.a == nil {
		op.a = w.uniform64(p.descA, mask, "the descriptor of A")
	}
	if s.seq == len(g.log) {
		g.log = append(g.log, op)
	} else if g.log[s.seq] != op {
		throw(Divergent, -1, "the warps of the warpgroup execute different products: another one line %d with descriptors %#x, %#x, this one has %#x, %#x",
			w.e.meta[g.log[s.seq].pc].line, g.log[s.seq].a, g.log[s.seq].b, op.a, op.b)
	}
	s.seq++
	s.used = true

	var a [256]float32
	if p.a != nil {
		for _, r := range p.a {
			if s.writes[r] > s.done {
				throw(MissingWait, -1, "A is in a register that a wgmma still writes: no wgmma.wait_group between")
			}
			if s.written[r] {
				throw(MissingFence, -1, "A is in a register that was written without wgmma.fence behind")
			}
			s.reads[r] = s.group
		}
		for q, r := range p.a {
			v := &w.r32[r]
			for l, x := range v {
				i := (l>>2+q&1*8)*16 + l&3*2 + q>>1*8
				a[i], a[i+1] = p.decode(x)
			}
		}
	} else {
		w.tile(g, op.a, p.transA, p.brain, w.id%4*16, 16, a[:])
	}
	if p.negate {
		for i := range a {
			a[i] = -a[i]
		}
	}
	if n := p.n * 16; cap(w.m.tile) < n {
		w.m.tile = make([]float32, n)
	}
	b := w.m.tile[:p.n*16]
	w.tile(g, op.b, p.transB, p.brain, 0, p.n, b)
	var out [128]float32
	for j := 0; j < p.n; j += 8 {
		product(&a, (*[128]float32)(b[j*16:]), &out, 16)
		for q := range 4 {
			r := p.acc[j/2+q]
			if s.touched[r] {
				throw(MissingFence, -1, "an accumulator was used without wgmma.fence behind")
			}
			s.writes[r] = s.group
			d := &w.r32[r]
			for l := range d {
				v := out[(l>>2+q>>1*8)*8+l&3*2+q&1]
				if op.keep {
					v += from32(d[l])
				}
				d[l] = to32(v)
			}
		}
	}
}

func (p *wgProduct) decode(x uint32) (float32, float32) {
	if p.brain {
		return from32(x << 16), from32(x &^ 0xffff)
	}
	return halfTable[uint16(x)], halfTable[x>>16]
}

// tile reads rows from..from+n of an operand of 16 columns (k) from shared memory,
// where a descriptor says it lies, into rows of 16.
//
// Without transposition k runs within the pieces of 16 bytes, with it the rows do.
// Swizzled, 8 lines of 32, 64 or 128 bytes make an atom; else 8 of 16 bytes.
func (w *warp) tile(g *wgShared, desc uint64, trans, brain bool, from, n int, out []float32) {
	start := int(desc&0x3fff) << 4
	lead := int(desc>>16&0x3fff) << 4
	stride := int(desc>>32&0x3fff) << 4
	mode := [...]int{0, 128, 64, 32}[desc>>62]
	if mode > 0 && start&(mode*8-1)&^(mode-1) != 0 {
		throw(BadOperand, -1, "matrix at shared address %#x with a swizzle of %d bytes: its pattern starts at multiples of %d", start, mode, mode*8)
	}
	if desc>>49&7 != 0 {
		throw(BadOperand, -1, "descriptor %#x with a base offset isn't known", desc)
	}
	if trans {
		for r := 0; r < n; r += 8 {
			mn := from + r
			for k := range 16 {
				at := start + mn/8*stride + k/8*lead + k%8*16
				if mode > 0 {
					per := mode / 2
					at = swizzle(start+mn/per*lead+mn%per*2+k/8*stride+k%8*mode, mode)
				}
				for i, x := range w.piece(g, at, brain) {
					out[(r+i)*16+k] = x
				}
			}
		}
		return
	}
	for r := range n {
		mn := from + r
		for k := 0; k < 16; k += 8 {
			at := start + mn/8*stride + k/8*lead + mn%8*16
			if mode > 0 {
				at = swizzle(start+mn/8*stride+mn%8*mode+k*2, mode)
			}
			x := w.piece(g, at, brain)
			copy(out[r*16+k:], x[:])
		}
	}
}

// piece reads 8 numbers for a product.
func (w *warp) piece(g *wgShared, at int, brain bool) (x [8]float32) {
	off := at - sharedBase
	c := w.cta
	if off < 0 || off+16 > len(c.mem) {
		c.shadow.fault(OutOfBounds, -1, off, "wgmma reads 16 bytes at offset %d of %d", off, len(c.mem))
	}
	if w.m.opts.Check {
		c.shadow.readAs(w, -1, off, 16, g.agent, w.wg.group)
	}
	p := c.mem[off : off+16 : off+16]
	for i := range x {
		h := binary.LittleEndian.Uint16(p[2*i:])
		if brain {
			x[i] = from32(uint32(h) << 16)
		} else {
			x[i] = halfTable[h]
		}
	}
	return x
}
