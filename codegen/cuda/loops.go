package cuda

import (
	"slices"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// split is how the points and loops of a kernel are shared by the threads of a
// block, and loops by the blocks of a cluster.
type split struct {
	points int // of a block
	lanes  int // threads of a block that share the loops of a point; 1: a thread does all
	blocks int // of a cluster that share them too, each with lanes of its own
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
	fewPoints = multiprocessors * 1024
	// rowValues is how many elements of a row a thread should have: all that one
	// batch of its loads brings.
	rowValues = 16
	// rereadThreads is how many threads a multiprocessor should have where rows are
	// longer than that: they are read again from the first-level cache, and while
	// a block waits for the sum of one loop, others work.
	rereadThreads = 1024
)

// long reports whether loops of k that read the same have too much of it to keep in registers.
func (s split) long(k *kern.Kernel) bool {
	extent, _, _ := walks(k)
	if s.points > 1 || extent <= s.lanes*s.blocks*rowValues {
		return false
	}
	for _, loops := range shareLoads(k) {
		if loops > 1 {
			return true
		}
	}
	return false
}

// splitOf decides how k is shared out. Threads that share loops pay off where
// the memory that a loop walks lies side by side, or points are few. Up to most
// blocks form a cluster.
func splitOf(k *kern.Kernel, most int) split {
	n := k.Points()
	alone := split{points: 256, lanes: 1, blocks: 1, width: 1}
	if !k.HasLoop() {
		last := k.Dims[len(k.Dims)-1]
		if w := neighbours(k, k.Body, last); w > 1 && cheap(k, last, w) && n >= w*fewPoints/2 {
			alone.points, alone.width, alone.adjacent = 256*w, w, true
			return alone
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
		return columns(k, extent, most)
	case extent >= 1024 && n < fewPoints/warp:
		s := split{points: 1, lanes: 256, blocks: 1, width: 1}
		for s.blocks < most && n*s.blocks < 4*multiprocessors && extent >= 2*rowValues*s.lanes*s.blocks {
			s.blocks *= 2
		}
		return s
	case extent <= 16:
		return split{points: 16, lanes: 8, blocks: 1, width: 1}
	}
	lanes := warp
	for lanes < 256 && lanes*rowValues < extent {
		lanes *= 2
	}
	if lanes > warp {
		return split{points: 1, lanes: lanes, blocks: 1, width: 1}
	}
	return split{points: 4, lanes: warp, blocks: 1, width: 1}
}

// columns is the split of a kernel whose neighbouring points walk neighbouring
// memory. A thread has as many points as it can load at once; threads side by side
// read a line of 128 bytes, or as little as a sector of 32 where there would be
// too few blocks; and lanes, of several blocks if need be, have a row each.
func columns(k *kern.Kernel, extent, most int) split {
	n, w := k.Points(), 1
	if n >= warp {
		w = neighbours(k, k.Body, k.Dims[len(k.Dims)-1])
	}
	of := func(x int) (split, int) {
		s := split{points: x * w, lanes: 256 / x, blocks: 1, across: true, width: w, adjacent: w > 1}
		groups := ceil(n, s.points)
		for s.blocks < most && groups*s.blocks < 2*multiprocessors && extent >= 8*s.lanes*s.blocks {
			s.blocks *= 2
		}
		return s, groups * s.blocks
	}
	x := warp
	for x > 1 && (x*w*smallest(k) > line || x*w >= 2*n) {
		x /= 2
	}
	s, count := of(x)
	for x > 1 && count < multiprocessors*9/10 && x*w*smallest(k) > 32 {
		x /= 2
		if narrow, c := of(x); c > count {
			s, count = narrow, c
		}
	}
	x = s.points / w
	for s.threads() < 512 && n*s.lanes*s.blocks < 2*fewPoints && extent >= 8*s.lanes*s.blocks {
		s.lanes *= 2
	}
	for s.lanes > warp/x && s.lanes > extent {
		s.lanes /= 2
	}
	return s
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
		steady := func(gs []kern.Guard) bool {
			return !slices.ContainsFunc(gs, func(g kern.Guard) bool { return g.At.Coef(v) != 0 || len(g.At.Ind) > 0 })
		}
		kern.Walk(body, func(n *kern.Node) {
			switch n.Prim {
			case kern.Load, kern.Store:
				ok = ok && (n.At.Coef(v) == 0 || n.At.Runs(v, w) && steady(n.Guards) && k.Bufs[n.Buf].DType.Size() > 1)
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

// largest is the size of the largest elements that loops of k walk side by side: runs
// longer than 16 bytes of those fill no sector of memory in one access.
func largest(k *kern.Kernel) int {
	size := 1
	for _, l := range k.Body {
		if l.Prim != kern.Loop {
			continue
		}
		in := nestOf(l)
		kern.Walk(in.inner.Body, func(n *kern.Node) {
			if (n.Prim == kern.Load || n.Prim == kern.Store) && n.At.Coef(in.last()) == 1 {
				size = max(size, k.Bufs[n.Buf].DType.Size())
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
func emitLoops(m *build.Module, target *Target, k *kern.Kernel) ([]Entry, error) {
	s := splitOf(k, target.together())
	n := k.Points()
	blocks := ceil(n, s.points) * s.blocks
	limits := build.Limits{Threads: s.threads(), Cluster: s.blocks}
	long := s.long(k)
	if k.HasLoop() {
		// Unasked, ptxas prefers more threads of a multiprocessor to loads under way,
		// and puts what uses the first of a batch before the last. All blocks should
		// run at once where that leaves 64 registers a thread.
		limits.Blocks = ceil(blocks, multiprocessors)
		switch {
		case long:
			limits.Blocks = min(limits.Blocks, rereadThreads/limits.Threads)
		case limits.Blocks*limits.Threads > 2*batchThreads:
			limits.Blocks = max(1, batchThreads/limits.Threads)
		}
	}
	f := m.Kernel(k.Name, limits, 0, len(k.Bufs))
	e := newEmitter(f, k)
	e.width = s.width
	e.pairs = target.from80()
	e.long = long
	entry := Entry{Name: k.Name, Grid: [3]int{blocks, 1, 1}, Block: s.threads(), Args: allBuffers(k)}
	rank, number := e.part(&entry, s.blocks)
	first := e.MulI(number, s.points)
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
	lane = e.Add(e.MulI(rank, s.lanes), lane)
	e.once = e.Eq(lane, build.Int(0))
	g := &gathering{e: e, s: s, thread: t}
	wide := 16 / largest(k)
	e.loop = func(l *kern.Node) error {
		from, by := lane, s.lanes*s.blocks
		in := nestOf(l)
		if w := min(wide, neighbours(k, in.inner.Body, in.last())); !s.across && w > 1 {
			e.width, e.run = w, in.last()
			from, by = e.MulI(lane, w), by*w
		}
		err := e.sequential(in, from, by)
		if !s.across {
			e.width, e.run = 1, nil
		}
		if err != nil {
			return err
		}
		accs := e.accs(l)
		var as []kern.Reduction
		var xs [][]Value
		for _, acc := range accs {
			a, x := l.Accs[acc.I], e.vals[acc.ID]
			if !s.across {
				sum := x[0]
				for _, y := range x[1:] {
					sum = e.combine(a, sum, y)
				}
				x = []Value{sum}
			}
			as, xs = append(as, a), append(xs, x)
		}
		for i, sums := range g.gather(as, xs) {
			e.vals[accs[i].ID] = sums
		}
		return nil
	}
	body()
	if s.blocks > 1 {
		e.leave(s.blocks)
	} else {
		e.Return()
	}
	entry.Shared = e.SharedBytes
	return []Entry{entry}, err
}

// gathering puts together what the threads that share a point have added up.
type gathering struct {
	e      *emitter
	s      split
	thread Value
}

// gather combines accumulators, each of which has a value for every point of the
// thread: those of a warp by shuffles, then those of the block's warps, then
// those of the cluster's blocks, in their order. Every thread gets the sums of its
// points.
func (g *gathering) gather(as []kern.Reduction, xs [][]Value) [][]Value {
	e, s := g.e, g.s
	// Within a warp, each threads have points of their own; sums of so many warps
	// belong together.
	each, warps := 1, max(1, s.lanes/warp)
	from, to := 1, min(s.lanes, warp)
	if s.across {
		each, warps = s.points/s.width, s.threads()/warp
		from, to = each, warp
	}
	out := make([][]Value, len(as))
	for i, a := range as {
		out[i] = append([]Value(nil), xs[i]...)
		for p := range out[i] {
			for d := from; d < to; d *= 2 {
				out[i][p] = e.combine(a, out[i][p], e.ShuffleXor(out[i][p], d))
			}
		}
	}
	if len(as) == 0 || warps*s.blocks == 1 {
		return out
	}
	// Rows of shared memory: the sums of each warp, of the block and of the cluster.
	// No two loops use the same, so nobody waits for what was read before.
	count := len(out[0]) * each // sums of an accumulator
	row := 4 * count * len(as)
	block, cluster, rows := 0, 0, warps
	if warps > 1 && (count > 1 || s.blocks > 1) {
		block, rows = rows, rows+1
	}
	if s.blocks > 1 {
		cluster, rows = rows, rows+1
	}
	base := e.SharedBytes
	e.Shared(base + rows*row)
	place := func(r, i int, j Value) Value {
		ty := build.Shared(scalar(as[i].Val.Type)).ElemType
		return e.SharedAt(e.AddI(e.MulI(j, 4), base+r*row+4*count*i), ty)
	}
	lane, w := e.AndI(g.thread, warp-1), e.Shr(g.thread, 5)
	e.If(e.Lt(lane, build.Int(each)), func() {
		for i := range as {
			for p, x := range out[i] {
				at := e.Add(e.MulI(w, row/4), e.AddI(lane, p*each))
				e.Store(x, place(0, i, at))
			}
		}
	})
	// Each sum is one thread's, so that few loads follow one another.
	total := func(to int, terms int, term func(i, t int, j Value) Value) {
		slots := max(1, s.threads()/count)
		for i, a := range as {
			j := e.AddI(g.thread, -(i%slots)*count)
			e.If(e.Below(j, build.Int(count)), func() {
				sum := term(i, 0, j)
				for t := 1; t < terms; t++ {
					sum = e.combine(a, sum, term(i, t, j))
				}
				e.Store(sum, place(to, i, j))
			})
		}
	}
	last := 0
	if warps > 1 {
		e.Barrier()
		if count == 1 && s.blocks == 1 {
			for i, a := range as {
				for w := range warps {
					x := e.Load(place(w, i, build.Int(0)))
					if w > 0 {
						x = e.combine(a, out[i][0], x)
					}
					out[i][0] = x
				}
			}
			return out
		}
		total(block, warps, func(i, t int, j Value) Value { return e.Load(place(t, i, j)) })
		last = block
	}
	e.meet(s.blocks)
	if s.blocks > 1 {
		total(cluster, s.blocks, func(i, t int, j Value) Value {
			x := e.Call("gpu.cluster.load", build.F32, e.Address(place(last, i, j)), build.Int(t))
			if as[i].Val.Type == ir.I32 {
				x = e.Bits(x, build.I32)
			}
			return x
		})
		e.Barrier()
		last = cluster
	}
	mine := e.AndI(g.thread, each-1)
	for i := range as {
		for p := range out[i] {
			out[i][p] = e.Load(place(last, i, e.AddI(mine, p*each)))
		}
	}
	return out
}
