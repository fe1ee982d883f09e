package simt

import (
	"math"
	"math/bits"
)

const allLanes = math.MaxUint32

// frame of a warp's divergence stack: lanes of mask go on at pc until they reach
// join, where the frame below takes over.
type frame struct {
	pc, join int32
	mask     uint32
}

// warp is 32 threads that execute together.
type warp struct {
	m   *Machine
	e   *entry
	cta *cta
	id  int // in its block

	r32 []v32
	r64 []v64
	p   []uint32

	stack []frame
	pc    int32  // instruction at hand
	live  uint32 // lanes that haven't returned
	done  bool

	// stop ends the current slice: the warp waits, or lets others go first.
	stop    bool
	wait    func() bool   // nil, or ready to go on
	waiting func() string // for what
	polled  bool          // the slice ended because nothing had happened yet
	retry   bool          // the instruction at hand is to be executed again

	order // what happened before, see order.go

	copies    copies
	bulk      []bulkGroups
	units     *bulkUnits
	wg        *wgState
	arrivedAt uint32 // generation of the cluster's barrier, plus 1

	acc   [4]v32 // results of a product
	tmp32 v32
	tmp64 v64
}

func blend32(d, s *v32, mask uint32) {
	for ; mask != 0; mask &= mask - 1 {
		l := bits.TrailingZeros32(mask)
		d[l] = s[l]
	}
}

func blend64(d, s *v64, mask uint32) {
	for ; mask != 0; mask &= mask - 1 {
		l := bits.TrailingZeros32(mask)
		d[l] = s[l]
	}
}

// slice runs up to about quota instructions.
func (w *warp) slice(quota int) {
	w.stop = false
	code := w.e.code
	top := &w.stack[len(w.stack)-1]
	pc, join, active := top.pc, top.join, top.mask
	r32, r64, p := w.r32, w.r64, w.p
	counts := &w.m.counts
	steps := 0
	for {
		if pc == join || active == 0 {
			w.stack = w.stack[:len(w.stack)-1]
			if len(w.stack) == 0 {
				w.finish()
				break
			}
			top = &w.stack[len(w.stack)-1]
			pc, join, active = top.pc, top.join, top.mask
			continue
		}
		if steps >= quota {
			top.pc = pc
			break
		}
		in := &code[pc]
		w.pc = pc
		pc++
		steps++
		counts[in.count]++
		mask := active
		if in.guard >= 0 {
			g := p[in.guard]
			if in.not {
				g = ^g
			}
			mask &= g
			if mask == 0 && in.kind != kBra {
				continue
			}
		}
		if in.uses != nil && w.wg != nil {
			w.checkPending(in)
		}
		switch in.kind {
		case k32:
			if mask == allLanes {
				in.f32(&r32[in.d], &r32[in.a], &r32[in.b], &r32[in.c])
			} else {
				in.f32(&w.tmp32, &r32[in.a], &r32[in.b], &r32[in.c])
				blend32(&r32[in.d], &w.tmp32, mask)
			}
		case k64:
			if mask == allLanes {
				in.f64(&r64[in.d], &r64[in.a], &r64[in.b], &r64[in.c])
			} else {
				in.f64(&w.tmp64, &r64[in.a], &r64[in.b], &r64[in.c])
				blend64(&r64[in.d], &w.tmp64, mask)
			}
		case kWide:
			if mask == allLanes {
				in.fwide(&r64[in.d], &r32[in.a], &r32[in.b], &r64[in.c])
			} else {
				in.fwide(&w.tmp64, &r32[in.a], &r32[in.b], &r64[in.c])
				blend64(&r64[in.d], &w.tmp64, mask)
			}
		case kNarrow:
			if mask == allLanes {
				in.fnarrow(&r32[in.d], &r64[in.a])
			} else {
				in.fnarrow(&w.tmp32, &r64[in.a])
				blend32(&r32[in.d], &w.tmp32, mask)
			}
		case kSet32:
			p[in.d] = p[in.d]&^mask | in.fset32(&r32[in.a], &r32[in.b])&mask
		case kSet64:
			p[in.d] = p[in.d]&^mask | in.fset64(&r64[in.a], &r64[in.b])&mask
		case kSel32:
			c := p[in.c]
			if in.notC {
				c = ^c
			}
			d, a, b := &r32[in.d], &r32[in.a], &r32[in.b]
			if mask == allLanes {
				for l := range d {
					v := b[l]
					if c>>l&1 != 0 {
						v = a[l]
					}
					d[l] = v
				}
			} else {
				w.tmp32 = *b
				blend32(&w.tmp32, a, c)
				blend32(d, &w.tmp32, mask)
			}
		case kSel64:
			c := p[in.c]
			if in.notC {
				c = ^c
			}
			w.tmp64 = r64[in.b]
			blend64(&w.tmp64, &r64[in.a], c)
			if mask == allLanes {
				r64[in.d] = w.tmp64
			} else {
				blend64(&r64[in.d], &w.tmp64, mask)
			}
		case kMov32:
			if mask == allLanes {
				r32[in.d] = r32[in.a]
			} else {
				blend32(&r32[in.d], &r32[in.a], mask)
			}
		case kMov64:
			if mask == allLanes {
				r64[in.d] = r64[in.a]
			} else {
				blend64(&r64[in.d], &r64[in.a], mask)
			}
		case kBra:
			rest := active &^ mask
			switch {
			case rest == 0:
				pc = in.target
			case mask == 0:
			default:
				top.pc = pc
				w.diverge(in, mask, rest)
				top = &w.stack[len(w.stack)-1]
				pc, join, active = top.pc, top.join, top.mask
			}
		case kRet:
			w.exit(mask)
			active = top.mask
		case kTrap:
			throw(BadOperand, bits.TrailingZeros32(mask), "trap was executed")
		default:
			in.fn(w, in, mask)
			if w.stop {
				if w.retry {
					pc--
					w.retry = false
				}
				if active = top.mask; active != 0 {
					top.pc = pc
				}
				quota = 0
			}
		}
	}
	w.m.steps += int64(steps)
}

// diverge splits the lanes of the top frame: taken go to the branch's target, rest
// to the next instruction. Which side runs first is up to chance.
func (w *warp) diverge(in *inst, taken, rest uint32) {
	w.m.diverged++
	if in.uniform {
		throw(Divergent, lowest(taken), "bra.uni is taken by lanes %08x of %08x", taken, taken|rest)
	}
	top := &w.stack[len(w.stack)-1]
	a, b := frame{in.target, in.join, taken}, frame{top.pc, in.join, rest}
	if in.join < 0 || in.join == top.join {
		// Nothing is left for this frame to do where they meet.
		a.join, b.join = top.join, top.join
		w.stack = w.stack[:len(w.stack)-1]
	} else {
		top.pc = in.join
	}
	if w.m.rng.Uint32()&1 == 0 {
		a, b = b, a
	}
	for _, f := range [2]frame{a, b} {
		if f.pc != f.join {
			w.stack = append(w.stack, f)
		}
	}
}

// exit takes the lanes of mask out of the warp.
func (w *warp) exit(mask uint32) {
	w.copies.exit(w, mask)
	w.bulkExit(mask)
	w.live &^= mask
	for i := range w.stack {
		w.stack[i].mask &^= mask
	}
}

// finish is called when no lane is left.
func (w *warp) finish() {
	w.done = true
	w.cta.left--
	if w.cta.left == 0 && w.m.opts.Check {
		w.cta.awaited()
	}
	cl := w.cta.cluster
	cl.left--
	if w.arrivedAt == cl.bar.generation+1 {
		cl.bar.got-- // it counts no longer, on either side
	}
	cl.checkBar()
	w.m.changes++
}

// converge faults unless all lanes of the warp that haven't returned execute the
// instruction.
func (w *warp) converge(mask uint32, what string) {
	if mask == w.live {
		return
	}
	// Lanes don't count that wait only to return, where these never come.
	for _, f := range w.stack[:len(w.stack)-1] {
		if in := &w.e.code[f.pc]; in.kind == kRet && in.guard < 0 && !reaches(w.e.code, w.pc, f.pc) {
			if out := f.mask & w.live &^ w.stack[len(w.stack)-1].mask; out != 0 {
				w.exit(out)
			}
		}
	}
	if mask != w.live {
		throw(Divergent, bits.TrailingZeros32(mask), "%s is executed by lanes %08x of %08x", what, mask, w.live)
	}
}

// whole is converge for what all 32 lanes of a warp must execute.
func (w *warp) whole(mask uint32, what string) {
	w.converge(mask, what)
	if mask != allLanes {
		throw(Divergent, bits.TrailingZeros32(mask), "%s is executed by lanes %08x of the warp", what, mask)
	}
}

// uniform is the value of a 32-bit register that must be the same in all lanes.
func (w *warp) uniform(slot int32, mask uint32, what string) uint32 {
	r := &w.r32[slot]
	v := r[bits.TrailingZeros32(mask)]
	for m := mask; m != 0; m &= m - 1 {
		if l := bits.TrailingZeros32(m); r[l] != v {
			throw(BadOperand, l, "%s is %#x in this lane and %#x in others", what, r[l], v)
		}
	}
	return v
}

func (w *warp) uniform64(slot int32, mask uint32, what string) uint64 {
	r := &w.r64[slot]
	v := r[bits.TrailingZeros32(mask)]
	for m := mask; m != 0; m &= m - 1 {
		if l := bits.TrailingZeros32(m); r[l] != v {
			throw(BadOperand, l, "%s is %#x in this lane and %#x in others", what, r[l], v)
		}
	}
	return v
}

// awaited checks, at a block's end, that its threads know of all bulk copies into
// its shared memory.
func (c *cta) awaited() {
	for _, b := range c.mbars {
		known := b.loaded == 0
		for _, w := range c.warps {
			known = known || w.knows(b.agent, b.loaded)
		}
		if !known {
			c.shadow.fault(MissingWait, -1, b.off, "the block ends, and no thread has waited for the copies that complete at this mbarrier")
		}
	}
}
