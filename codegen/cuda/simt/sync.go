package simt

import (
	"fmt"
	"math/bits"
)

// barrier is one of a block's 16. Counts are in warps.
type barrier struct {
	need, got int
	past      past
	waiting   []*warp
	// of bar.red
	votes, of uint32
	all, any  bool
}

// barOp is what a barrier instruction does.
type barOp struct {
	id, threads int32 // slots; threads is -1 for the whole block
	block       bool  // .sync and .red wait, .arrive doesn't
	// of bar.red
	red  string
	pred predicate
	dst  ref
}

// bar compiles bar and barrier.
func bar(c *compiler, s *stmt, in *inst) error {
	in.count = countSync
	s.take("cta")
	if s.take("warp") {
		if !s.take("sync") {
			return fmt.Errorf("bar.warp without .sync")
		}
		return syncwarp(c, s, in)
	}
	if s.take("cluster") {
		return clusterBar(c, s, in)
	}
	s.take("aligned")
	how := s.one("sync", "arrive", "red")
	o := &barOp{threads: -1, block: how != "arrive"}
	args := s.args
	switch how {
	case "":
		return fmt.Errorf("%s without .sync, .arrive or .red", s.op)
	case "red":
		o.red = s.one("popc", "and", "or")
		t, err := s.typ()
		if err != nil {
			return err
		}
		if o.red == "" || (o.red == "popc") != (t.name == "u32") || (o.red != "popc") != (t.kind == 'p') || len(args) < 3 {
			return fmt.Errorf("bar.red.%s.%s isn't known", o.red, t.name)
		}
		d, err := c.dst(args[0], t)
		if err != nil {
			return err
		}
		o.dst = ref{t.class(), d}
		if o.pred, err = c.predicate(args[len(args)-1]); err != nil {
			return err
		}
		args = args[1 : len(args)-1]
	}
	if len(args) < 1 || len(args) > 2 || how == "arrive" && len(args) != 2 {
		return fmt.Errorf("%d operands", len(s.args))
	}
	var err error
	if o.id, err = c.src(args[0], types["u32"]); err != nil {
		return err
	}
	if len(args) == 2 {
		if o.threads, err = c.src(args[1], types["u32"]); err != nil {
			return err
		}
	}
	in.x = o
	in.fn = barrierArrive
	return nil
}

func barrierArrive(w *warp, in *inst, mask uint32) {
	o := in.x.(*barOp)
	w.converge(mask, "the barrier")
	id := int(w.uniform(o.id, mask, "the barrier's number"))
	if id > 15 {
		throw(BadOperand, -1, "barrier %d of 16", id)
	}
	need := w.m.warps
	if o.threads >= 0 {
		n := int(w.uniform(o.threads, mask, "the number of threads"))
		if n%32 != 0 || n == 0 || n > w.m.warps*32 {
			throw(BadOperand, -1, "barrier of %d threads in a block of %d warps", n, w.m.warps)
		}
		need = n / 32
	}
	b := &w.cta.bars[id]
	if b.got == 0 {
		b.need = need
		b.past.reset()
		b.votes, b.of, b.all, b.any = 0, 0, true, false
	} else if b.need != need {
		throw(BadOperand, -1, "barrier %d of %d threads, others said %d", id, need*32, b.need*32)
	}
	b.got++
	b.past.join(&w.past)
	if o.red != "" {
		v := o.pred.get(w) & mask
		b.votes += uint32(bits.OnesCount32(v))
		b.all = b.all && v == mask
		b.any = b.any || v != 0
	}
	w.tick()
	w.m.changes++
	w.stop = true
	if b.got < b.need {
		if o.block {
			b.waiting = append(b.waiting, w)
			w.wait = func() bool { return false }
			w.waiting = func() string { return fmt.Sprintf("barrier %d (%d of %d warps)", id, b.got, b.need) }
		}
		return
	}
	if o.block {
		b.waiting = append(b.waiting, w)
	}
	for _, x := range b.waiting {
		x.past.join(&b.past)
		x.wait = nil
		if o.red != "" {
			x.voted(b)
		}
	}
	b.got, b.waiting = 0, b.waiting[:0]
}

// voted writes the result of bar.red.
func (w *warp) voted(b *barrier) {
	o := w.e.code[w.pc].x.(*barOp)
	mask := w.stack[len(w.stack)-1].mask
	switch o.red {
	case "popc":
		for q := mask; q != 0; q &= q - 1 {
			w.r32[o.dst.slot][lowest(q)] = b.votes
		}
	case "and", "or":
		v := uint32(0)
		if o.red == "and" && b.all || o.red == "or" && b.any {
			v = allLanes
		}
		w.setPred(o.dst.slot, v, mask)
	}
}

// members checks the mask of a .sync instruction: the lanes that execute it are
// those in the mask that haven't returned.
func (w *warp) members(slot int32, mask uint32, what string) uint32 {
	m := w.uniform(slot, mask, "the mask")
	if m&w.live == mask {
		return m
	}
	if out := mask &^ m; out != 0 {
		throw(BadOperand, lowest(out), "%s is executed by lanes %08x, the mask is %08x", what, mask, m)
	}
	w.converge(mask|^m&w.live, what)
	if m&w.live != mask {
		throw(Divergent, lowest(mask), "%s is executed by lanes %08x, the mask is %08x", what, mask, m)
	}
	return m
}

func syncwarp(c *compiler, s *stmt, in *inst) error {
	if err := s.want(1); err != nil {
		return err
	}
	var err error
	if in.a, err = c.src(s.args[0], types["b32"]); err != nil {
		return err
	}
	in.fn = func(w *warp, in *inst, mask uint32) {
		w.members(in.a, mask, "bar.warp.sync")
		w.tick()
	}
	return nil
}

// shfl compiles shuffles.
func shfl(c *compiler, s *stmt, in *inst) error {
	in.count = countShuffle
	if !s.take("sync") {
		return fmt.Errorf("shfl without .sync")
	}
	mode := s.one("bfly", "up", "down", "idx")
	t, err := s.typ()
	if err != nil {
		return err
	}
	if t.name != "b32" || mode == "" {
		return fmt.Errorf("shfl.%s.%s isn't known", mode, t.name)
	}
	if err := s.want(5); err != nil {
		return err
	}
	members := int32(0)
	for i, p := range []*int32{&in.a, &in.b, &in.c, &members} {
		if *p, err = c.src(s.args[1+i], t); err != nil {
			return err
		}
	}
	if in.d, err = c.dst(s.args[0], t); err != nil {
		return err
	}
	in.target = -1
	if p := s.args[0].pair; p != nil {
		if in.target, err = c.dst(*p, types["pred"]); err != nil {
			return err
		}
	}
	in.fn = func(w *warp, in *inst, mask uint32) {
		if mask != allLanes || w.r32[members][0] != allLanes {
			w.members(members, mask, "the shuffle")
		}
		a, b, c := &w.r32[in.a], &w.r32[in.b], &w.r32[in.c]
		d := &w.tmp32
		var inside uint32
		for l := range d {
			seg := int(c[l]>>8) & 31
			lim := int(c[l] & 31)
			hi := l&seg | lim&^seg
			lo := l & seg
			n := int(b[l] & 31)
			j, ok := l, false
			switch mode {
			case "bfly":
				j = l ^ n
				ok = j <= hi
			case "idx":
				j = lo | n&^seg
				ok = j <= hi
			case "down":
				j = l + n
				ok = j <= hi
			default:
				j = l - n
				ok = j >= hi
			}
			if !ok {
				j = l
			} else {
				inside |= 1 << l
			}
			if mask>>j&1 == 0 && mask>>l&1 != 0 {
				throw(BadOperand, l, "shuffle from lane %d, which doesn't take part", j)
			}
			d[l] = a[j]
		}
		blend32(&w.r32[in.d], d, mask)
		if in.target >= 0 {
			w.setPred(in.target, inside, mask)
		}
	}
	return nil
}

// vote compiles vote, activemask and elect.
func vote(c *compiler, s *stmt, in *inst) error {
	in.count = countShuffle
	if s.op == "activemask" {
		if t, err := s.typ(); err != nil || t.name != "b32" {
			return fmt.Errorf("activemask must be .b32")
		}
		if err := s.want(1); err != nil {
			return err
		}
		var err error
		if in.d, err = c.dst(s.args[0], types["b32"]); err != nil {
			return err
		}
		in.fn = func(w *warp, in *inst, mask uint32) {
			for q := mask; q != 0; q &= q - 1 {
				w.r32[in.d][lowest(q)] = mask
			}
		}
		return nil
	}
	if !s.take("sync") {
		return fmt.Errorf("%s without .sync", s.op)
	}
	if s.op == "elect" {
		return elect(c, s, in)
	}
	mode := s.one("all", "any", "uni", "ballot")
	t, err := s.typ()
	if err != nil {
		return err
	}
	if mode == "" || (mode == "ballot") != (t.name == "b32") || (mode != "ballot") != (t.kind == 'p') {
		return fmt.Errorf("vote.%s.%s isn't known", mode, t.name)
	}
	if err := s.want(3); err != nil {
		return err
	}
	p, err := c.predicate(s.args[1])
	if err != nil {
		return err
	}
	if in.a, err = c.src(s.args[2], types["b32"]); err != nil {
		return err
	}
	if in.d, err = c.dst(s.args[0], t); err != nil {
		return err
	}
	in.fn = func(w *warp, in *inst, mask uint32) {
		w.members(in.a, mask, "the vote")
		v := p.get(w) & mask
		yes := false
		switch mode {
		case "ballot":
			for q := mask; q != 0; q &= q - 1 {
				w.r32[in.d][lowest(q)] = v
			}
			return
		case "all":
			yes = v == mask
		case "any":
			yes = v != 0
		default:
			yes = v == 0 || v == mask
		}
		r := uint32(0)
		if yes {
			r = allLanes
		}
		w.setPred(in.d, r, mask)
	}
	return nil
}

// elect compiles elect.sync d|p, mask. The lane is the same throughout a launch.
func elect(c *compiler, s *stmt, in *inst) error {
	if err := s.want(2); err != nil {
		return err
	}
	if s.args[0].pair == nil {
		return fmt.Errorf("elect needs d|p")
	}
	var err error
	if in.d, err = c.dst(s.args[0], types["b32"]); err != nil {
		return err
	}
	if in.b, err = c.dst(*s.args[0].pair, types["pred"]); err != nil {
		return err
	}
	if in.a, err = c.src(s.args[1], types["b32"]); err != nil {
		return err
	}
	in.fn = func(w *warp, in *inst, mask uint32) {
		w.members(in.a, mask, "elect")
		l := w.m.elected
		for mask>>l&1 == 0 {
			l = (l + 1) & 31
		}
		for q := mask; q != 0; q &= q - 1 {
			w.r32[in.d][lowest(q)] = uint32(l)
		}
		w.setPred(in.b, 1<<l, mask)
	}
	return nil
}

// redux compiles reductions over the lanes of a warp.
func redux(c *compiler, s *stmt, in *inst) error {
	in.count = countShuffle
	if !s.take("sync") {
		return fmt.Errorf("redux without .sync")
	}
	op := s.one("add", "min", "max", "and", "or", "xor")
	t, err := s.typ()
	if err != nil {
		return err
	}
	bitwise := op == "and" || op == "or" || op == "xor"
	if t.bits != 32 || t.kind == 'f' || bitwise != (t.kind == 'b') || op == "" {
		return fmt.Errorf("redux.%s.%s isn't known", op, t.name)
	}
	if err := s.want(3); err != nil {
		return err
	}
	if in.a, err = c.src(s.args[1], t); err != nil {
		return err
	}
	if in.b, err = c.src(s.args[2], types["b32"]); err != nil {
		return err
	}
	if in.d, err = c.dst(s.args[0], t); err != nil {
		return err
	}
	f := map[string]func(a, b uint32) uint32{
		"add": func(a, b uint32) uint32 { return a + b },
		"and": func(a, b uint32) uint32 { return a & b },
		"or":  func(a, b uint32) uint32 { return a | b },
		"xor": func(a, b uint32) uint32 { return a ^ b },
		"min": func(a, b uint32) uint32 { return min(a, b) },
		"max": func(a, b uint32) uint32 { return max(a, b) },
	}[op]
	if t.kind == 's' && op == "min" {
		f = func(a, b uint32) uint32 { return uint32(min(int32(a), int32(b))) }
	} else if t.kind == 's' && op == "max" {
		f = func(a, b uint32) uint32 { return uint32(max(int32(a), int32(b))) }
	}
	in.fn = func(w *warp, in *inst, mask uint32) {
		w.members(in.b, mask, "redux")
		a := &w.r32[in.a]
		v := a[lowest(mask)]
		for q := mask & (mask - 1); q != 0; q &= q - 1 {
			v = f(v, a[lowest(q)])
		}
		for q := mask; q != 0; q &= q - 1 {
			w.r32[in.d][lowest(q)] = v
		}
	}
	return nil
}
