package simt

import (
	"fmt"
	"math/bits"
)

// mbar is an mbarrier: arrivals and bytes that its current phase still expects.
type mbar struct {
	c              *cta
	off            int
	count, pending int
	tx             int
	phase          uint32
	next, done     past // of the current phase; of those completed
	agent          uint32
	loaded         uint32 // clock of the last bulk copy
	initBy         *warp
	fenced         bool // its initialisation is visible to the async proxy
}

// agent gives a new number to a unit of the cluster that works on its own.
func (cl *cluster) agent(format string, args ...any) uint32 {
	n := cl.m.ctas * cl.m.warps
	if n+len(cl.agents) >= agentsPerCluster {
		throw(BadOperand, -1, "more than %d mbarriers", agentsPerCluster-n)
	}
	cl.agents = append(cl.agents, fmt.Sprintf(format, args...))
	return uint32(cl.index)*agentsPerCluster + 1 + uint32(n+len(cl.agents)-1)
}

// learn adds to p that agent a has come to clock t.
func (p *past) learn(base, a, t uint32) {
	i := int(a - base)
	if i >= len(p.vc) {
		p.vc = append(p.vc, make([]uint32, i+1-len(p.vc))...)
	}
	p.vc[i] = max(p.vc[i], t)
}

// barAt finds the mbarrier at an address of shared memory, own or of the cluster.
func (w *warp) barAt(sp space, addr uint64, lane int) *mbar {
	_, sh, off := w.locate(sp, addr, 8, lane)
	if sh.cta == nil {
		sh.fault(BadOperand, lane, off, "mbarrier in global memory")
	}
	b := sh.cta.mbars[off]
	if b == nil {
		sh.fault(Uninitialised, lane, off, "there is no mbarrier: it was never initialised")
	}
	return b
}

// touch notes an operation on an mbarrier: it must come after the initialisation.
func (b *mbar) touch(w *warp, lane int) {
	if w.m.opts.Check {
		b.c.shadow.strong(w, lane, b.off, 8, update, "used here", true)
	}
}

// check completes the phase if nothing is missing.
func (b *mbar) check(w *warp, lane int) {
	if b.pending < 0 {
		b.c.shadow.fault(BadOperand, lane, b.off, "more arrivals at the mbarrier than its count, %d", b.count)
	}
	if b.pending == 0 && b.tx == 0 {
		b.phase++
		b.pending = b.count
		b.done.join(&b.next)
		b.c.m.changes++
	}
}

// mbarrier compiles the operations on mbarriers.
func mbarrier(c *compiler, s *stmt, in *inst) error {
	in.count = countSync
	op := s.one("init", "inval", "arrive", "arrive_drop", "expect_tx", "complete_tx", "test_wait", "try_wait")
	expect := op == "arrive" && s.take("expect_tx")
	parity := s.take("parity")
	sem := s.one("release", "acquire", "relaxed")
	scope := s.one("cta", "cluster")
	sp, err := spaceOf(s)
	if err != nil {
		return err
	}
	t, err := s.typ()
	if err != nil {
		return err
	}
	if op == "" || op == "arrive_drop" || t.name != "b64" || sp == globalSpace || sp == paramSpace || sp == constSpace {
		return fmt.Errorf("%s isn't known", s.op)
	}
	args := s.args
	var dst *operand
	switch op {
	case "arrive":
		// The state is left out where the barrier is another block's.
		if len(args) > 0 && args[0].kind != opMem {
			dst, args = &args[0], args[1:]
		}
	case "test_wait", "try_wait":
		if len(args) < 1 {
			return fmt.Errorf("%d operands", len(args))
		}
		dst, args = &args[0], args[1:]
	}
	if len(args) < 1 {
		return fmt.Errorf("%d operands", len(s.args))
	}
	base, off, err := c.addressing(args[0], sp)
	if err != nil {
		return err
	}
	args = args[1:]
	// The operand behind the address: a count, bytes, a state or a parity.
	extra := int32(-1)
	if len(args) > 0 {
		t := types["u32"]
		if (op == "test_wait" || op == "try_wait") && !parity {
			t = types["b64"]
		}
		if extra, err = c.src(args[0], t); err != nil {
			return err
		}
		args = args[1:]
	}
	if op == "try_wait" && len(args) == 1 { // how long it may take at most
		args = args[1:]
	}
	need := map[string]bool{"init": true, "expect_tx": true, "complete_tx": true, "test_wait": true, "try_wait": true}[op] || expect
	if len(args) > 0 || need != (extra >= 0) && !(op == "arrive" && !expect) {
		return fmt.Errorf("%d operands", len(s.args))
	}
	val := func(w *warp, l int) int {
		if extra < 0 {
			return 1
		}
		return int(w.r32[extra][l])
	}
	var at [32]uint64
	switch op {
	case "init":
		in.fn = func(w *warp, _ *inst, mask uint32) {
			w.addresses(base, off, &at)
			for q := mask; q != 0; q &= q - 1 {
				l := lowest(q)
				w.initBar(sp, at[l], val(w, l), l)
			}
		}
	case "inval":
		in.fn = func(w *warp, _ *inst, mask uint32) {
			w.addresses(base, off, &at)
			for q := mask; q != 0; q &= q - 1 {
				l := lowest(q)
				b := w.barAt(sp, at[l], l)
				b.touch(w, l)
				delete(b.c.mbars, b.off)
				if w.m.opts.Check {
					b.c.shadow.clearFlag(b.off, 8, cellBarrier)
				}
			}
		}
	case "arrive", "expect_tx", "complete_tx":
		var d ref
		if dst != nil {
			if d, err = c.dstRef(*dst, types["b64"], false); err != nil {
				return err
			}
		}
		relaxed := sem == "relaxed" || op != "arrive"
		arrive := op == "arrive"
		in.fn = func(w *warp, _ *inst, mask uint32) {
			w.addresses(base, off, &at)
			for q := mask; q != 0; q &= q - 1 {
				l := lowest(q)
				b := w.barAt(sp, at[l], l)
				b.touch(w, l)
				if dst != nil && dst.kind != opSink {
					if b.c != w.cta {
						throw(BadOperand, l, "the state of another block's mbarrier")
					}
					w.setLane(d, l, uint64(b.phase))
				}
				n := val(w, l)
				switch {
				case expect:
					b.tx += n
					n = 1
				case op == "expect_tx":
					b.tx += n
				case op == "complete_tx":
					b.tx -= n
				}
				if arrive {
					if n < 1 {
						throw(BadOperand, l, "%d arrivals", n)
					}
					b.pending -= n
				}
				// Without a scope it is .cta by the book. To another block's
				// mbarrier CUTLASS arrives so, to hand over stages that the async
				// proxy alone has touched: the assembler adds no MEMBAR then.
				if !relaxed && (b.c == w.cta || scope != "cta") {
					b.next.join(&w.past)
				}
				b.check(w, l)
			}
			w.tick()
			w.m.changes++
		}
	default:
		if sem == "release" {
			return fmt.Errorf("%s.release", op)
		}
		d, err := c.dst(*dst, types["pred"])
		if err != nil {
			return err
		}
		try := op == "try_wait"
		in.fn = func(w *warp, _ *inst, mask uint32) {
			w.addresses(base, off, &at)
			w.waitBar(sp, at, mask, try, sem != "relaxed", d, func(b *mbar, l int) bool {
				if parity {
					p := w.r32[extra][l]
					if p > 1 {
						throw(BadOperand, l, "parity %d", p)
					}
					return b.phase&1 != p
				}
				return uint64(b.phase) != w.r64[extra][l]
			})
		}
	}
	return nil
}

func (w *warp) initBar(sp space, addr uint64, count, lane int) {
	_, sh, off := w.locate(sp, addr, 8, lane)
	if sh.cta != w.cta {
		throw(BadOperand, lane, "initialisation of another block's mbarrier")
	}
	if count < 1 || count >= 1<<20 {
		throw(BadOperand, lane, "mbarrier for %d arrivals", count)
	}
	c := w.cta
	if c.mbars[off] != nil {
		sh.fault(BadOperand, lane, off, "the mbarrier is initialised already")
	}
	if w.m.opts.Check {
		sh.write(w, lane, off, 8, cellGeneric|cellBarrier)
	} else {
		sh.setWritten(off, 8)
	}
	if c.mbars == nil {
		c.mbars = map[int]*mbar{}
	}
	c.mbars[off] = &mbar{c: c, off: off, count: count, pending: count, initBy: w,
		agent: c.cluster.agent("the copies that complete at the mbarrier shared+%d", off)}
}

// initFence makes the mbarriers that the warp initialised visible to the async
// proxy.
func (w *warp) initFence() {
	for _, b := range w.cta.mbars {
		if b.initBy == w {
			b.fenced = true
		}
	}
}

// waitBar executes test_wait and try_wait. The latter waits, but sometimes only for
// so long.
func (w *warp) waitBar(sp space, at [32]uint64, mask uint32, try, acquire bool, d int32, complete func(b *mbar, l int) bool) {
	var ready uint32
	var open *mbar
	var bars [32]*mbar
	for q := mask; q != 0; q &= q - 1 {
		l := lowest(q)
		b := w.barAt(sp, at[l], l)
		bars[l] = b
		if complete(b, l) {
			ready |= 1 << l
		} else {
			open = b
		}
	}
	if ready != mask && try && w.m.rng.Uint32()&1 != 0 {
		// Again when something has changed.
		w.stop, w.retry = true, true
		seen := *open
		w.wait = func() bool { return open.phase != seen.phase || open.c.mbars[open.off] != open }
		w.waiting = func() string {
			return fmt.Sprintf("mbarrier shared+%d, phase %d, which lacks %d arrivals and %d bytes", open.off, open.phase, open.pending, open.tx)
		}
		return
	}
	for q := mask; q != 0; q &= q - 1 {
		l := bits.TrailingZeros32(q)
		b := bars[l]
		b.touch(w, l)
		if ready>>l&1 != 0 && acquire && (l == 0 || bars[l-1] != b) {
			w.past.join(&b.done)
		}
	}
	w.setPred(d, ready, mask)
	if ready != mask {
		w.poll()
	}
}

// copyArrive compiles cp.async.mbarrier.arrive: an arrival when the copies of the
// thread so far are complete.
func copyArrive(c *compiler, s *stmt, in *inst) error {
	if !s.take("arrive") {
		return fmt.Errorf("cp.async.mbarrier without .arrive")
	}
	noinc := s.take("noinc")
	sp, err := spaceOf(s)
	if err != nil {
		return err
	}
	if t, err := s.typ(); err != nil || t.name != "b64" {
		return fmt.Errorf("cp.async.mbarrier.arrive must be .b64")
	}
	if err := s.want(1); err != nil {
		return err
	}
	base, off, err := c.addressing(s.args[0], sp)
	if err != nil {
		return err
	}
	in.fn = func(w *warp, _ *inst, mask uint32) {
		var at [32]uint64
		w.addresses(base, off, &at)
		for q := mask; q != 0; q &= q - 1 {
			l := lowest(q)
			b := w.barAt(sp, at[l], l)
			b.touch(w, l)
			if !noinc {
				b.pending++
			}
			var mine []copyOp
			kept := w.copies.list[:0]
			for _, k := range w.copies.list {
				if int(k.lane) == l {
					mine = append(mine, k)
				} else {
					kept = append(kept, k)
				}
			}
			w.copies.list = kept
			before := w.past.copy()
			clock := w.clock()
			w.cta.cluster.async = append(w.cta.cluster.async, func() {
				for i := range mine {
					k := &mine[i]
					copy(w.cta.mem[k.off:], k.data[:k.n])
					w.cta.shadow.landed(int(k.off), int(k.n), w.agent, clock, cellGeneric)
				}
				b.next.join(&before)
				b.pending--
				b.check(w, -1)
			})
		}
		w.tick()
	}
	return nil
}
