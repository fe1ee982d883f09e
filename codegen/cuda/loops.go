package cuda

import (
	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir/kern"
)

// split is how the points and loops of a kernel are shared by the threads of a
// block.
type split struct {
	points int // of a block
	lanes  int // threads that share the loops of a point; 1: a thread does all
	// across says that neighbouring threads have neighbouring points, and the
	// lanes of a point lie a row apart; else lanes are neighbours.
	across bool
	// width is the points of a thread; they are neighbours if adjacent is set, else
	// as far apart as there are threads.
	width    int
	adjacent bool
}

func (s split) threads() int { return s.points * s.lanes / s.width }

const (
	warp = 32
	// fewPoints is what leaves most of a GPU idle at a thread a point: 132
	// multiprocessors with room for 2,048 threads each, and some need more than
	// a thread a loop for their bandwidth.
	fewPoints = 132 * 1024
)

// splitOf decides how k is shared out. Threads that share loops pay off where
// the memory that a loop walks lies side by side, or points are few.
func splitOf(k *kern.Kernel) split {
	n := k.Points()
	alone := split{points: 256, lanes: 1, width: 1}
	if !k.HasLoop() {
		last := k.Dims[len(k.Dims)-1]
		if w := neighbours(k, k.Body, last); w > 1 && cheap(k, last, w) && n >= w*fewPoints/2 {
			return split{points: 256 * w, lanes: 1, width: w, adjacent: true}
		}
		for _, w := range []int{4, 2} {
			if n >= w*fewPoints*2 && cheap(k, nil, w) {
				alone.width = w
				break
			}
		}
		alone.points *= alone.width
		return alone
	}
	if ordered(k) {
		alone.points = 64
		return alone
	}
	extent, byLoop, byPoint := walks(k)
	switch {
	case extent < 8:
		return alone
	case byPoint >= byLoop && n >= fewPoints:
		return alone
	case byPoint > byLoop || byPoint == byLoop && n >= warp:
		// A thread has as many neighbours as it can load at once, so that enough
		// bytes are under way. Threads side by side share memory sectors of 32
		// bytes, so a block may be cut that narrow to have one for nearly every
		// multiprocessor.
		w := 1
		if last := k.Dims[len(k.Dims)-1]; n >= warp {
			w = neighbours(k, k.Body, last)
		}
		x := warp
		for x > 1 && x*w*smallest(k) > 32 && (ceil(n, x*w) < 120 || x*w*smallest(k) > 128) {
			x /= 2
		}
		lanes := 256 / x
		for lanes*x < 512 && n*lanes < 2*fewPoints && extent >= 8*lanes {
			lanes *= 2
		}
		for lanes > warp/x && lanes > extent {
			lanes /= 2
		}
		return split{points: x * w, lanes: lanes, across: true, width: w, adjacent: w > 1}
	case extent >= 1024 && n < fewPoints/warp:
		return split{points: 1, lanes: 256, width: 1}
	case extent <= 16:
		return split{points: 16, lanes: 8, width: 1}
	}
	// Rows that several loops read should still be in the first-level cache for
	// the second: those of 2,048 threads in 128 KiB.
	lanes := warp
	for bytes := reread(k); lanes < 256 && lanes*64 < bytes; {
		lanes *= 2
	}
	if lanes > warp {
		return split{points: 1, lanes: lanes, width: 1}
	}
	return split{points: 4, lanes: warp, width: 1}
}

// neighbours is how many values of v a thread had better take at once: 16 bytes
// of the smallest elements, if all that moves with v in body moves from element to
// element and never across such a boundary; else 1.
func neighbours(k *kern.Kernel, body []*kern.Node, v *kern.Var) int {
	w := 4
	kern.Walk(body, func(n *kern.Node) {
		if (n.Prim == kern.Load || n.Prim == kern.Store) && n.At.Coef(v) == 1 && k.Bufs[n.Buf].DType.Size() == 2 {
			w = 8
		}
	})
	for ; w > 1; w /= 2 {
		ok := v.Extent%w == 0
		kern.Walk(body, func(n *kern.Node) {
			switch n.Prim {
			case kern.Load, kern.Store:
				ok = ok && (n.At.Coef(v) == 0 || n.At.Runs(v, w) && len(n.Guards) == 0 && k.Bufs[n.Buf].DType.Size() > 1)
			case kern.Loop:
				ok = ok && (!nested(n) || nestOf(n).inner != n)
			}
		})
		if ok {
			return w
		}
	}
	return 1
}

// nested reports whether a loop has loops in it.
func nested(loop *kern.Node) bool {
	for _, n := range loop.Body {
		if n.Prim == kern.Loop {
			return true
		}
	}
	return false
}

// cheap reports whether w points at once fit into registers; they are
// neighbours along run if it is given.
func cheap(k *kern.Kernel, run *kern.Var, w int) bool {
	n := 0
	for _, x := range k.Body {
		switch x.Prim {
		case kern.Random:
			if run != nil && w%4 == 0 && x.At.Runs(run, 4) {
				n += 5
			} else {
				n += 20
			}
		case kern.Load, kern.Store:
			n += 2
		default:
			n++
		}
	}
	return n <= 80
}

// walks counts the accesses inside loops that go from element to element with
// the loop's variable or with the last dimension of the grid, and the iterations of
// the longest loop.
func walks(k *kern.Kernel) (extent, byLoop, byPoint int) {
	var last *kern.Var
	if len(k.Dims) > 0 {
		last = k.Dims[len(k.Dims)-1]
	}
	for _, l := range k.Body {
		if l.Prim != kern.Loop {
			continue
		}
		in := nestOf(l)
		extent = max(extent, in.extent())
		kern.Walk(in.inner.Body, func(n *kern.Node) {
			if n.Prim != kern.Load && n.Prim != kern.Store {
				return
			}
			if n.At.Coef(in.last()) == 1 {
				byLoop++
			}
			if last != nil && n.At.Coef(last) == 1 {
				byPoint++
			}
		})
	}
	return extent, byLoop, byPoint
}

// reread is how many bytes of a point's memory several of k's loops read.
func reread(k *kern.Kernel) int {
	loops := make([]map[int]bool, 0)
	bytes := map[int]int{}
	for _, l := range k.Body {
		if l.Prim != kern.Loop {
			continue
		}
		seen := map[int]bool{}
		kern.Walk(l.Body, func(n *kern.Node) {
			if n.Prim == kern.Load && n.At.Coef(l.Vars[0]) != 0 && len(n.At.Terms) > 1 {
				seen[n.Buf] = true
				bytes[n.Buf] = l.Vars[0].Extent * k.Bufs[n.Buf].DType.Size()
			}
		})
		loops = append(loops, seen)
	}
	total := 0
	for b, n := range bytes {
		count := 0
		for _, seen := range loops {
			if seen[b] {
				count++
			}
		}
		if count > 1 {
			total += n
		}
	}
	return total
}

// smallest is the size of the smallest elements that k reads in its loops.
func smallest(k *kern.Kernel) int {
	size := 4
	for _, l := range k.Body {
		kern.Walk(l.Body, func(n *kern.Node) {
			if n.Prim == kern.Load && len(n.At.Terms) > 1 {
				size = min(size, k.Bufs[n.Buf].DType.Size())
			}
		})
	}
	return size
}

// ordered reports whether iterations of k's outermost loops must run one after
// the other: one reads, or writes again, what another wrote. Within a point each
// of the threads that share it sees what it stored itself and nothing else.
func ordered(k *kern.Kernel) bool {
	type access struct {
		n    *kern.Node
		loop *kern.Node // outermost loop around it, or nil
	}
	stores, loads := map[int][]access{}, map[int][]access{}
	note := func(n, loop *kern.Node) {
		switch n.Prim {
		case kern.Store:
			stores[n.Buf] = append(stores[n.Buf], access{n, loop})
		case kern.Load:
			loads[n.Buf] = append(loads[n.Buf], access{n, loop})
		}
	}
	for _, n := range k.Body {
		if n.Prim == kern.Loop {
			kern.Walk(n.Body, func(m *kern.Node) { note(m, n) })
		} else {
			note(n, nil)
		}
	}
	for buf, ss := range stores {
		for _, s := range ss {
			if s.loop != nil && (len(s.n.At.Ind) > 0 || s.n.At.Coef(s.loop.Vars[0]) == 0) {
				return true // several iterations may write one element
			}
			for _, l := range loads[buf] {
				if s.loop != nil && l.loop != s.loop || s.loop != nil && l.n.At.String() != s.n.At.String() {
					return true
				}
				if s.loop == nil && l.loop != nil {
					return true
				}
			}
		}
	}
	return false
}

// emitLoops writes a kernel without a product.
func emitLoops(m *build.Module, k *kern.Kernel) ([]Entry, error) {
	s := splitOf(k)
	f := m.Kernel(k.Name, build.Limits{Threads: s.threads()}, 0, len(k.Bufs))
	e := newEmitter(f, k)
	e.width = s.width
	n := k.Points()
	entry := Entry{Name: k.Name, Grid: [3]int{ceil(n, s.points), 1, 1}, Block: s.threads(), Args: allBuffers(k)}
	first := e.MulI(e.BlockX(), s.points)
	t := e.Thread()
	var err error
	body := func() {
		if err == nil {
			err = e.body(k.Body)
		}
	}
	if s.lanes == 1 {
		at := e.each(func(p int) Value { return e.Add(first, e.AddI(t, p*s.threads())) })
		if s.adjacent {
			// The neighbours are in one run of the last dimension.
			last := k.Dims[len(k.Dims)-1]
			at = []Value{e.Add(first, e.MulI(t, s.width))}
			e.run = last
			defer func() { e.run = nil }()
			spread := func(at Value) {
				e.unflatten(k.Dims, at)
				x := e.vars[last.ID][0]
				e.set(last, e.each(func(p int) Value { return e.AddI(x, p) })...)
			}
			spread(at[0])
			if n%s.points == 0 {
				body()
			} else {
				e.If(e.Lt(at[0], build.Int(n)), body)
			}
			e.Return()
			return []Entry{entry}, err
		}
		e.unflatten(k.Dims, at...)
		switch {
		case n%s.points == 0:
			body()
		case s.width == 1:
			e.If(e.Lt(at[0], build.Int(n)), body)
		default:
			e.live = e.each(func(p int) Value { return e.Lt(at[p], build.Int(n)) })
			clamped := e.each(func(p int) Value { return e.Select(e.live[p], at[p], build.Int(0)) })
			e.unflatten(k.Dims, clamped...)
			body()
		}
		e.Return()
		return []Entry{entry}, err
	}

	x := s.points / s.width // threads that have a lane's points
	point, lane := e.Div(t, s.lanes), e.Rem(t, s.lanes)
	if s.across {
		point, lane = e.Rem(t, x), e.Div(t, x)
	}
	at := e.Add(first, e.MulI(point, s.width))
	if n%s.points != 0 {
		// All threads stay for the barriers: those of no point work on the last.
		live := e.Lt(at, build.Int(n))
		e.live = []Value{live}
		at = e.Select(live, at, build.Int(n-s.width))
	}
	e.unflatten(k.Dims, at)
	if s.adjacent {
		last := k.Dims[len(k.Dims)-1]
		e.run = last
		from := e.vars[last.ID][0]
		e.set(last, e.each(func(p int) Value { return e.AddI(from, p) })...)
	}
	leader := e.Eq(lane, build.Int(0))
	e.once = leader
	shared := 0
	e.loop = func(l *kern.Node) error {
		from, step := lane, s.lanes
		in := nestOf(l)
		if w := neighbours(k, in.inner.Body, in.last()); !s.across && w > 1 {
			e.width, e.run = w, in.last()
			from, step = e.MulI(lane, w), s.lanes*w
		}
		err := e.sequential(in, from, build.Int(step))
		if !s.across {
			e.width, e.run = 1, nil
		}
		if err != nil {
			return err
		}
		for _, acc := range e.accs(l) {
			a, xs := l.Accs[acc.I], e.vals[acc.ID]
			if s.across {
				shared = max(shared, 4*s.width*x*s.threads()/warp)
				e.vals[acc.ID] = e.gatherAcross(s, a, xs, t)
				continue
			}
			sum := xs[0]
			for _, y := range xs[1:] {
				sum = e.combine(a, sum, y)
			}
			for d := min(s.lanes, warp) / 2; d > 0; d /= 2 {
				sum = e.combine(a, sum, e.ShuffleXor(sum, d))
			}
			if s.lanes > warp {
				shared = max(shared, 4*s.threads()/warp)
				sum = e.gather(s.threads()/warp, a, []Value{sum}, t, 1)[0]
			}
			e.vals[acc.ID] = []Value{sum}
		}
		return nil
	}
	body()
	e.Return()
	entry.Shared = shared
	return []Entry{entry}, err
}

// gatherAcross combines the accumulators of a block whose threads are across:
// within a warp by shuffles, then over the warps. Every thread gets the sums of
// its points.
func (e *emitter) gatherAcross(s split, a kern.Reduction, xs []Value, t Value) []Value {
	x := s.points / s.width
	out := append([]Value(nil), xs...)
	for p := range out {
		for d := x; d < warp; d *= 2 {
			out[p] = e.combine(a, out[p], e.ShuffleXor(out[p], d))
		}
	}
	return e.gather(s.threads()/warp, a, out, t, x)
}

// gather combines values of a block's warps through shared memory, one after the
// other; the first each threads of a warp have what differs between its threads.
func (e *emitter) gather(warps int, a kern.Reduction, xs []Value, t Value, each int) []Value {
	if warps == 1 {
		return xs
	}
	ty := build.Shared(scalar(a.Val.Type)).ElemType
	e.Shared(4 * len(xs) * each * warps)
	lane, w := e.AndI(t, warp-1), e.Shr(t, 5)
	place := func(p int, w, lane Value) Value {
		return e.SharedAt(e.MulI(e.Add(e.MulI(e.AddI(w, p*warps), each), lane), 4), ty)
	}
	e.Barrier() // what was read before may be overwritten
	e.If(e.Lt(lane, build.Int(each)), func() {
		for p, x := range xs {
			e.Store(x, place(p, w, lane))
		}
	})
	e.Barrier()
	mine := e.AndI(t, each-1)
	out := make([]Value, len(xs))
	for p := range xs {
		for i := range warps {
			y := e.Load(place(p, build.Int(i), mine))
			if i == 0 {
				out[p] = y
			} else {
				out[p] = e.combine(a, out[p], y)
			}
		}
	}
	return out
}
