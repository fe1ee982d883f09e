package simt

import (
	"fmt"
	"math"
	"math/bits"
)

// atomic compiles atom and red.
func atomic(c *compiler, s *stmt, in *inst) error {
	o := &memOp{strong: true, wide: true}
	in.mem = o
	acquire, release := false, false
	switch s.one("relaxed", "acquire", "release", "acq_rel") {
	case "acquire":
		acquire = true
	case "release":
		release = true
	case "acq_rel":
		acquire, release = true, true
	}
	switch s.one("cta", "cluster", "gpu", "sys") {
	case "cta", "cluster":
		o.wide = false
	}
	var err error
	if o.space, err = spaceOf(s); err != nil {
		return err
	}
	if o.space == paramSpace || o.space == constSpace {
		return fmt.Errorf("atomic operation on a read-only space")
	}
	op := s.one("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")
	noftz := s.take("noftz")
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
	if t.half() && !noftz {
		return fmt.Errorf("%s.%s.%s without .noftz", s.op, op, t.name)
	}
	if n > 1 && (o.space != globalSpace && o.space != generic || t.kind != 'f') {
		return fmt.Errorf("vectors are for floating-point numbers in global memory")
	}
	if o.atom = atomicOp(op, t); o.atom == nil {
		return fmt.Errorf("%s.%s.%s isn't known", s.op, op, t.name)
	}
	o.size = t.bytes()
	result := s.op == "atom"
	if op == "exch" || op == "cas" {
		if !result {
			return fmt.Errorf("red.%s", op)
		}
	}
	want := 2
	if result {
		want++
	}
	if op == "cas" {
		want++
	}
	if err := s.want(want); err != nil {
		return err
	}
	args := s.args
	list := func(a operand) ([]operand, error) {
		if n == 1 {
			return []operand{a}, nil
		}
		if a.kind != opVec || len(a.list) != n {
			return nil, fmt.Errorf("expected %d registers in braces", n)
		}
		return a.list, nil
	}
	if result {
		ds, err := list(args[0])
		if err != nil {
			return err
		}
		for _, d := range ds {
			r, err := c.dstRef(d, t, false)
			if err != nil {
				return err
			}
			o.regs = append(o.regs, r)
		}
		args = args[1:]
	}
	if o.base, o.off, err = c.addressing(args[0], o.space); err != nil {
		return err
	}
	for i, dst := range []*[]ref{&o.b, &o.c} {
		if i+1 >= len(args) {
			break
		}
		vs, err := list(args[i+1])
		if err != nil {
			return err
		}
		for _, v := range vs {
			slot, err := c.src(v, t)
			if err != nil {
				return err
			}
			*dst = append(*dst, ref{t.class(), slot})
		}
	}
	in.count = o.space.count()
	in.fn = func(w *warp, in *inst, mask uint32) { w.atomic(in.mem, mask, acquire, release) }
	return nil
}

func atomicOp(op string, t typ) func(old, b, c uint64) uint64 {
	s32 := func(v uint64) int32 { return int32(uint32(v)) }
	switch op {
	case "exch":
		if t.kind == 'b' {
			return func(_, b, _ uint64) uint64 { return b }
		}
	case "cas":
		if t.kind == 'b' {
			return func(old, b, c uint64) uint64 {
				if old == b {
					return c
				}
				return old
			}
		}
	case "and":
		if t.kind == 'b' {
			return func(old, b, _ uint64) uint64 { return old & b }
		}
	case "or":
		if t.kind == 'b' {
			return func(old, b, _ uint64) uint64 { return old | b }
		}
	case "xor":
		if t.kind == 'b' {
			return func(old, b, _ uint64) uint64 { return old ^ b }
		}
	case "inc":
		if t.name == "u32" {
			return func(old, b, _ uint64) uint64 {
				if old >= b {
					return 0
				}
				return old + 1
			}
		}
	case "dec":
		if t.name == "u32" {
			return func(old, b, _ uint64) uint64 {
				if old == 0 || old > b {
					return b
				}
				return old - 1
			}
		}
	case "min", "max":
		small := op == "min"
		switch t.name {
		case "u32", "u64":
			return func(old, b, _ uint64) uint64 {
				if small {
					return min(old, b)
				}
				return max(old, b)
			}
		case "s32":
			return func(old, b, _ uint64) uint64 {
				if small == (s32(old) < s32(b)) {
					return old
				}
				return b
			}
		case "s64":
			return func(old, b, _ uint64) uint64 {
				if small == (int64(old) < int64(b)) {
					return old
				}
				return b
			}
		case "f16", "bf16", "f16x2", "bf16x2":
			g := minMaxF(op, false)
			return halves(t, g)
		}
	case "add":
		switch t.name {
		case "u32", "s32":
			return func(old, b, _ uint64) uint64 { return uint64(uint32(old + b)) }
		case "u64":
			return func(old, b, _ uint64) uint64 { return old + b }
		case "f32":
			return func(old, b, _ uint64) uint64 { return uint64(to32(from32(uint32(old)) + from32(uint32(b)))) }
		case "f64":
			return func(old, b, _ uint64) uint64 {
				return math.Float64bits(math.Float64frombits(old) + math.Float64frombits(b))
			}
		case "f16", "bf16", "f16x2", "bf16x2":
			return halves(t, func(a, b float32) float32 { return a + b })
		}
	}
	return nil
}

// halves applies f to one or two 16-bit numbers.
func halves(t typ, f func(a, b float32) float32) func(old, b, c uint64) uint64 {
	dec, enc := decodeHalf, encodeHalf
	if t.name[0] == 'b' {
		dec, enc = decodeBrain, encodeBrain
	}
	one := func(a, b uint64) uint64 { return uint64(enc(f(dec(uint32(a&0xffff)), dec(uint32(b&0xffff))))) }
	if t.bits == 16 {
		return func(old, b, _ uint64) uint64 { return one(old, b) }
	}
	return func(old, b, _ uint64) uint64 { return one(old, b) | one(old>>16, b>>16)<<16 }
}

// atomic executes atom and red: lanes go one after another, starting with any.
func (w *warp) atomic(o *memOp, mask uint32, acquire, release bool) {
	m := w.m
	n := o.size * len(o.b)
	var at [32]uint64
	w.addresses(o.base, o.off, &at)
	if m.opts.Count {
		w.countAccess(o.space, &at, mask, n)
	}
	first := m.rng.IntN(32)
	changed := false
	for i := range 32 {
		l := (i + first) & 31
		if mask>>l&1 == 0 {
			continue
		}
		mem, sh, off := w.locate(o.space, at[l], n, l)
		if sh.buf != nil && sh.buf.constant {
			sh.fault(BadOperand, l, off, "update of a constant")
		}
		if m.opts.Check {
			sh.strong(w, l, off, n, update, "updated here", true)
		}
		for j, b := range o.b {
			p := mem[off+j*o.size:]
			old := get(p, o.size)
			var c uint64
			if o.c != nil {
				c = w.getLane(o.c[j], l)
			}
			v := o.atom(old, w.getLane(b, l), c)
			if v != old {
				changed = true
				put(p, o.size, v)
			}
			if o.regs != nil {
				w.setLane(o.regs[j], l, old)
			}
		}
		w.sees(sh, off, acquire)
		w.passes(sh, off, release, o.wide, false)
	}
	if release {
		w.tick()
	}
	if changed {
		m.changes++
	}
	if o.regs != nil {
		w.poll()
	}
}

// release is what an atomic operation or store passes on to those who see it: to
// all, or only to the blocks of the own cluster.
type release struct {
	all, near *others
}

// moment is what the warp knows of its own cluster now.
func (w *warp) moment() *others {
	return &others{map[uint32]*moment{w.cluster: {append([]uint32(nil), w.vc...), append([]uint32(nil), w.fenced...)}}}
}

// export is what a release of the warp passes on.
func (w *warp) export(wide bool) *release {
	if wide {
		return &release{all: w.others.join(w.moment())}
	}
	return &release{near: w.moment()}
}

func (r *release) join(s *release) *release {
	switch {
	case r == nil:
		return s
	case s == nil:
		return r
	}
	return &release{r.all.join(s.all), r.near.join(s.near)}
}

// syncAt gives the table of what was released at places of a memory, and the place.
func (w *warp) syncAt(sh *shadow, off int) (map[uint64]*release, uint64) {
	if sh.buf != nil {
		return w.m.syncs, sh.buf.base + uint64(off)
	}
	return w.cta.cluster.syncs, uint64(sh.cta.rank+1)<<sharedRank + uint64(off)
}

// sees makes the warp learn what was released at the place that it reads; without
// acquire, it counts only after the next fence.
func (w *warp) sees(sh *shadow, off int, acquire bool) {
	t, at := w.syncAt(sh, off)
	r := t[at]
	if r == nil {
		return
	}
	if acquire {
		w.acquire(r)
	} else {
		w.acquired = r.join(w.acquired)
	}
}

func (w *warp) acquire(r *release) {
	w.others = w.others.join(r.all)
	for _, o := range [2]*others{r.all, r.near} {
		if o == nil {
			continue
		}
		if m := o.by[w.cluster]; m != nil {
			w.vc = joinClocks(w.vc, m.vc)
			if w.fenced != nil {
				w.fenced = joinClocks(w.fenced, m.fenced)
			}
		}
	}
}

// passes releases at the place that the warp writes, or passes on what an earlier
// fence has released. A store ends what others released there.
func (w *warp) passes(sh *shadow, off int, release, wide, store bool) {
	t, at := w.syncAt(sh, off)
	r := w.released
	if release {
		r = w.export(wide)
	}
	switch {
	case store && r == nil:
		delete(t, at)
	case store:
		t[at] = r
	case r != nil:
		t[at] = r.join(t[at])
	}
}

// fence compiles fence and membar.
func fence(c *compiler, s *stmt, in *inst) error {
	in.count = countSync
	if err := s.want(0); err != nil {
		return err
	}
	if s.op == "membar" {
		level := s.one("cta", "gl", "sys")
		if level == "" {
			return fmt.Errorf("membar without a level")
		}
		wide := level != "cta"
		in.fn = func(w *warp, _ *inst, _ uint32) { w.fence(wide) }
		return nil
	}
	switch {
	case s.take("proxy"):
		if !s.take("async") {
			return fmt.Errorf("only fence.proxy.async is known")
		}
		s.one("global", "shared::cta", "shared::cluster", "shared")
		c.e.async = true
		in.fn = func(w *warp, _ *inst, _ uint32) { w.proxyFence() }
		return nil
	case s.take("mbarrier_init"):
		if !s.take("release") || !s.take("cluster") {
			return fmt.Errorf("fence.mbarrier_init must be .release.cluster")
		}
		in.fn = func(w *warp, _ *inst, _ uint32) { w.initFence() }
		return nil
	}
	s.one("sc", "acq_rel", "acquire", "release")
	scope := s.one("cta", "cluster", "gpu", "sys")
	if scope == "" {
		return fmt.Errorf("fence without a scope")
	}
	wide := scope == "gpu" || scope == "sys"
	in.fn = func(w *warp, _ *inst, _ uint32) { w.fence(wide) }
	return nil
}

func (w *warp) fence(wide bool) {
	if w.acquired != nil {
		w.acquire(w.acquired)
	}
	w.released = w.export(wide)
	w.tick()
}

// proxyFence makes what ordinary accesses before it did visible to the async proxy.
func (w *warp) proxyFence() {
	w.fenced = joinClocks(w.fenced, w.vc)
	w.tick()
	w.initFence()
}

// lowest is the lowest lane of a mask.
func lowest(mask uint32) int { return bits.TrailingZeros32(mask) }
