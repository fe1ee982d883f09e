package simt

import "fmt"

// clusterBarrier is the barrier of all warps of a cluster.
type clusterBarrier struct {
	got        int
	generation uint32
	next, done past
}

// clusterBar compiles barrier.cluster.
func clusterBar(c *compiler, s *stmt, in *inst) error {
	c.e.clusters = true
	how := s.one("arrive", "wait")
	sem := s.one("release", "acquire", "relaxed")
	s.take("aligned")
	if err := s.want(0); err != nil {
		return err
	}
	switch {
	case how == "arrive" && sem != "acquire":
		in.fn = func(w *warp, _ *inst, mask uint32) {
			w.converge(mask, "barrier.cluster")
			b := &w.cta.cluster.bar
			if w.arrivedAt != 0 {
				throw(BadOperand, -1, "barrier.cluster.arrive twice without a wait")
			}
			w.arrivedAt = b.generation + 1
			if sem != "relaxed" {
				b.next.join(&w.past)
				w.tick()
			}
			b.got++
			w.m.changes++
			w.cta.cluster.checkBar()
		}
	case how == "wait" && sem != "release" && sem != "relaxed":
		in.fn = func(w *warp, _ *inst, mask uint32) {
			w.converge(mask, "barrier.cluster")
			b := &w.cta.cluster.bar
			g := w.arrivedAt
			if g == 0 {
				throw(BadOperand, -1, "barrier.cluster.wait without an arrive")
			}
			ready := func() bool {
				if b.generation < g {
					return false
				}
				w.arrivedAt = 0
				w.past.join(&b.done)
				return true
			}
			if !ready() {
				w.stop, w.wait = true, ready
				w.waiting = func() string { return fmt.Sprintf("barrier.cluster (%d warps have arrived)", b.got) }
			}
		}
	default:
		return fmt.Errorf("barrier.cluster.%s.%s isn't known", how, sem)
	}
	return nil
}

// checkBar completes the barrier when all warps have arrived that haven't returned.
func (cl *cluster) checkBar() {
	b := &cl.bar
	if b.got == 0 || b.got < cl.left {
		return
	}
	b.got = 0
	b.generation++
	b.done.join(&b.next)
	cl.m.changes++
}

// mapa compiles the address of another block's shared memory.
func mapa(c *compiler, s *stmt, in *inst) error {
	c.e.clusters = true
	sp := s.one("shared::cluster")
	t, err := s.typ()
	if err != nil {
		return err
	}
	if err := s.want(3); err != nil {
		return err
	}
	if t.kind == 's' || t.bits < 32 || sp == "" && t.bits != 64 {
		return fmt.Errorf("mapa.%s isn't known", t.name)
	}
	if in.a, err = c.src(s.args[1], t); err != nil {
		return err
	}
	if in.b, err = c.src(s.args[2], types["u32"]); err != nil {
		return err
	}
	if in.d, err = c.dst(s.args[0], t); err != nil {
		return err
	}
	src, dst := ref{t.class(), in.a}, ref{t.class(), in.d}
	in.fn = func(w *warp, in *inst, mask uint32) {
		for q := mask; q != 0; q &= q - 1 {
			l := lowest(q)
			a, r := w.getLane(src, l), w.r32[in.b][l]
			if int(r) >= w.m.ctas {
				throw(BadOperand, l, "block %d of a cluster of %d", r, w.m.ctas)
			}
			w.setLane(dst, l, a&^(255<<sharedRank)|uint64(r+1)<<sharedRank)
		}
	}
	return nil
}
