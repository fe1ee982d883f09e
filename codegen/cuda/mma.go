package cuda

import (
	"fmt"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir/kern"
)

// mmaTile is what a block of threads computes by mma, a warp wm x wn of it.
// Blocks is how many should fit on a multiprocessor.
type mmaTile struct{ m, n, k, wm, wn, stages, blocks int }

func (t mmaTile) threads() int { return t.m / t.wm * (t.n / t.wn) * warp }

// mmaTile picks the largest tile that leaves few multiprocessors idle.
func (p *product) mmaTile(target *Target, tiles []mmaTile) mmaTile {
	m, n, b := points(p.m), points(p.n), points(p.batch)
	for _, t := range tiles {
		if s := target.Shape; s != nil {
			if s.M == t.m && s.N == t.n {
				return t
			}
			continue
		}
		if b*ceil(m, t.m)*ceil(n, t.n) >= multiprocessors && m*2 > t.m && n*2 > t.n {
			return t
		}
	}
	return tiles[len(tiles)-1]
}

// multiprocessors is how many an H100 or H200 has; an A100 has 108.
const multiprocessors = 132

// granule is the elements of 16 bits that are copied together, 16 bytes.
const granule = 8

// panel is an operand's tiles in shared memory, in 16 bits. A row of shared
// memory is the terms of one line (byK) or one term of all lines, cut into
// granules that are exchanged (swizzled) so that eight rows of one place lie in
// different banks. Each thread copies the same granules of every tile, all at
// one place of their rows.
type panel struct {
	e     *emitter
	p     *product
	s     side
	kind  string
	start int   // where it begins in a stage, in bytes
	depth int   // of a tile
	width int   // bytes of a row
	each  int   // granules of a thread
	step  int   // rows from one to the next
	whole bool  // granules are copied as they lie in memory,
	async bool  // asynchronously
	row   Value // of the thread's first granule
	chunk Value // place of its granules in a row
	to    Value // where the first goes, in bytes

	// By granule: the variables of its line or lines and whether they exist.
	lines  [][][]Value
	exists [][]Value
	// Of whole granules, one by one: the pointer and the guards' indices without
	// the variables of the sum.
	from   []Value
	guards [][]Value
}

// sideBySide says whether an operand is copied as it lies in memory: granules
// are side by side, aligned, and inside the guards or outside as a whole.
func (p *product) sideBySide(s side) bool {
	along := lastOf(s.lines)
	if s.byK {
		along = lastOf(p.k)
	}
	n := s.root
	if n.Prim != kern.Load || along == nil || along.Extent%granule != 0 || n.At.Coef(along) != 1 || n.At.Const%granule != 0 {
		return false
	}
	for _, t := range n.At.Terms {
		if t.Var != along && t.Var.Extent > 1 && t.Coef%granule != 0 {
			return false
		}
	}
	for _, g := range n.Guards {
		if g.At.Coef(along) != 0 {
			return false
		}
	}
	return true
}

// panel prepares to copy tiles of s whose first line is number first,
// asynchronously if it may and can.
func (e *emitter) panel(p *product, s side, kind string, async bool, start int, first, tid Value, depth, threads int) *panel {
	l := &panel{e: e, p: p, s: s, kind: kind, start: start, depth: depth, width: 2 * depth, whole: p.sideBySide(s)}
	l.async = async && l.whole
	if !s.byK {
		l.width = 2 * s.size
	}
	perRow := l.width / (2 * granule)
	l.each = s.size * depth / granule / threads
	l.step = threads / perRow
	l.row, l.chunk = e.Div(tid, perRow), e.Rem(tid, perRow)
	l.to = e.place(l.row, l.chunk, l.width)

	outer := append([][]Value(nil), e.vars...)
	for i := range l.each {
		var at, exists []Value
		if s.byK {
			at = []Value{e.Add(first, e.AddI(l.row, i*l.step))}
		} else {
			at = e.neighbours(e.Add(first, e.MulI(l.chunk, granule)), s.lines, s.count)
		}
		for j, n := range at {
			ok := e.inside(n, s.count, s.size)
			exists = append(exists, ok)
			if ok != nil {
				at[j] = e.Select(ok, n, build.Int(0))
			}
		}
		e.unflatten(s.lines, at...)
		if !s.byK {
			e.spread(s.lines, at)
		}
		var vars [][]Value
		for _, v := range s.lines {
			vars = append(vars, e.vars[v.ID])
		}
		l.lines, l.exists = append(l.lines, vars), append(l.exists, exists)
		if l.whole {
			others := append(append([]*kern.Var(nil), p.batch...), s.lines...)
			n := s.root
			l.from = append(l.from, e.At(e.bases[n.Buf], e.AddI(e.share(n.At, others), n.At.Const)))
			var gs []Value
			for _, g := range n.Guards {
				gs = append(gs, e.AddI(e.share(g.At, others), g.At.Const-g.Lo))
			}
			l.guards = append(l.guards, gs)
		}
		if !s.byK {
			// Granules differ in the term alone.
			for len(l.lines) < l.each {
				l.lines, l.exists = append(l.lines, vars), append(l.exists, exists)
				if l.whole {
					l.from, l.guards = append(l.from, l.from[0]), append(l.guards, l.guards[0])
				}
			}
			break
		}
	}
	e.vars = outer
	return l
}

// place is the byte of a granule in rows of so many bytes.
func (e *emitter) place(row, chunk Value, width int) Value {
	mask := e.AndI(row, 7)
	if width < 128 {
		mask = e.AndI(e.Shr(row, 1), 3)
	}
	return e.Add(e.MulI(row, width), e.MulI(e.Xor(chunk, mask), 2*granule))
}

// neighbours is the numbers of a granule's points from first on, of count: one
// where they differ in the innermost variable alone.
func (e *emitter) neighbours(first Value, vars []*kern.Var, count int) []Value {
	if v := lastOf(vars); v != nil && v.Extent%granule == 0 {
		return []Value{first}
	}
	out := []Value{first}
	for j := 1; j < granule; j++ {
		out = append(out, e.AddI(first, j))
	}
	return out
}

// spread gives the innermost of vars its values at all points of a granule, if
// they were set for its first.
func (e *emitter) spread(vars []*kern.Var, at []Value) {
	if v := lastOf(vars); v != nil && len(at) == 1 && v.Extent%granule == 0 {
		first := e.vars[v.ID][0]
		x := []Value{first}
		for j := 1; j < granule; j++ {
			x = append(x, e.AddI(first, j))
		}
		e.set(v, x...)
	}
}

// share is what vars add to an index.
func (e *emitter) share(ix kern.Index, vars []*kern.Var) Value {
	var sum Value = build.Int(0)
	for _, v := range vars {
		if c := ix.Coef(v); c != 0 && v.Extent > 1 {
			sum = e.Add(e.MulI(e.vars[v.ID][0], c), sum)
		}
	}
	return sum
}

// sources gives f the thread's whole granules of the tile whose first term is k0:
// a pointer, which may be read, and whether its elements are the operand's, or 0.
func (l *panel) sources(k0 Value, f func(i int, from, live Value)) {
	e, n := l.e, l.s.root
	depth := points(l.p.k)
	var ok, offset Value
	var gs []Value
	for i := range l.each {
		if i == 0 || !l.s.byK {
			k := e.Add(k0, e.MulI(l.chunk, granule))
			if !l.s.byK {
				k = e.Add(k0, e.AddI(l.row, i*l.step))
			}
			ok = e.Lt(k, build.Int(depth))
			e.unflatten(l.p.k, k)
			offset = e.share(n.At, l.p.k)
			gs = nil
			for _, g := range n.Guards {
				gs = append(gs, e.share(g.At, l.p.k))
			}
		}
		live := e.both(ok, l.exists[i][0])
		for j, g := range n.Guards {
			live = e.both(live, e.Below(e.Add(l.guards[i][j], gs[j]), build.Int(g.Hi-g.Lo)))
		}
		from := e.Cast(e.At(l.from[i], e.Select(live, offset, build.Int(0))), build.I8)
		if len(n.Guards) > 0 {
			// Without the guard, even the line's own share may be outside.
			from = e.Select(live, from, e.Cast(e.bases[n.Buf], build.I8))
		}
		f(i, from, live)
	}
}

// copy starts the asynchronous copies of the tile whose first term is k0 to the
// stage at a shared address. Terms past the last are 0.
func (l *panel) copy(k0, at Value) {
	e := l.e
	l.sources(k0, func(i int, from, live Value) {
		size := e.Select(live, build.Int(2*granule), build.Int(0))
		e.Call("gpu.cp.async.16", build.Void, e.Add(at, e.AddI(l.to, l.start+i*l.step*l.width)), from, size)
	})
}

// fetch computes the thread's granules of the tile whose first term is k0, four
// words each.
func (l *panel) fetch(k0 Value) ([]Value, error) {
	e := l.e
	depth := points(l.p.k)
	var out []Value
	if l.whole {
		l.sources(k0, func(_ int, from, live Value) {
			v := e.read(l.s.root.Buf, e.Cast(from, build.Vec(4, build.I32)))
			for j := range 4 {
				out = append(out, e.Select(live, e.Elem(v, j), build.Int(0)))
			}
		})
		return out, nil
	}
	for i := range l.each {
		for j, v := range l.s.lines {
			e.set(v, l.lines[i][j]...)
		}
		var ks []Value
		if l.s.byK {
			ks = e.neighbours(e.Add(k0, e.MulI(l.chunk, granule)), l.p.k, depth)
		} else {
			ks = []Value{e.Add(k0, e.AddI(l.row, i*l.step))}
		}
		in := make([]Value, len(ks))
		for j, k := range ks {
			in[j] = e.Lt(k, build.Int(depth))
			ks[j] = e.Select(in[j], k, build.Int(0))
		}
		e.unflatten(l.p.k, ks...)
		along := lastOf(l.s.lines)
		if l.s.byK {
			e.spread(l.p.k, ks)
			along = lastOf(l.p.k)
		}
		x, err := e.granule(l.s.root, along, func(p int) Value { return e.both(of(in, p), of(l.exists[i], p)) }, len(in) == 1 && len(l.exists[i]) == 1)
		if err != nil {
			return nil, err
		}
		for j := 0; j < granule; j += 2 {
			out = append(out, e.Pack(l.kind, x[j], x[j+1]))
		}
	}
	return out, nil
}

// granule evaluates an operand at the points of a granule, which differ along a
// variable; it is 0 where ok or its guards fail. alike: ok is the same for all.
func (e *emitter) granule(root *kern.Node, along *kern.Var, ok func(p int) Value, alike bool) ([]Value, error) {
	width, run, live := e.width, e.run, e.live
	e.width, e.run, e.live = granule, along, nil
	defer func() { e.width, e.run, e.live = width, run, live }()
	guards := root.Guards
	for _, g := range guards {
		alike = alike && e.alikeIndex(g.At)
	}
	holds := []Value{}
	for p := range granule {
		if p > 0 && alike {
			holds = append(holds, holds[0])
		} else {
			holds = append(holds, e.both(ok(p), e.holds(guards, p)))
		}
	}
	nodes := kern.Expression(root)
	defer func() {
		for _, n := range nodes {
			e.vals[n.ID] = nil
		}
	}()
	for _, n := range nodes {
		var vals []Value
		switch {
		case n.Prim == kern.Load && alike && e.together(n.At, e.width) && e.k.Bufs[n.Buf].DType.Size() > 1:
			vals = e.loadTogether(n, holds[0])
		case n.Prim == kern.Load:
			bare := *n
			bare.Guards = nil // they are in holds
			one := e.alikeIndex(n.At) && alike
			for p := range granule {
				if p > 0 && one {
					break
				}
				vals = append(vals, e.load(&bare, p, holds[p]))
			}
		case n == root && n.Prim == kern.Round:
			vals = e.vals[n.Args[0].ID] // Pack rounds
		default:
			count := granule
			if e.alike(n) {
				count = 1
			}
			for p := range count {
				x, err := e.eval(n, p)
				if err != nil {
					return nil, err
				}
				vals = append(vals, x)
			}
		}
		e.vals[n.ID] = vals
	}
	return e.each(func(p int) Value {
		x := of(e.vals[root.ID], p)
		if holds[p] != nil && root.Prim != kern.Load {
			x = e.Select(holds[p], x, build.Float(0))
		}
		return x
	}), nil
}

// put writes granules to the stage that starts at so many bytes of shared memory.
func (l *panel) put(at Value, words []Value) {
	e := l.e
	for i := range l.each {
		e.Store(e.Vector(words[4*i:4*i+4]...), e.SharedAt(e.Add(at, e.AddI(l.to, l.start+i*l.step*l.width)), build.Vec(4, build.I32)))
	}
}

// emitMma writes a product of numbers of 16 bits. Tiles of the operands stand in
// a ring of stages: while one is multiplied those after it are on their way,
// copied asynchronously where they lie side by side in memory and the target can,
// else through registers.
func emitMma(m *build.Module, target *Target, p *product, kind string) ([]Entry, error) {
	k, core := p.kernel, cores[target.Tensor]
	if core == nil {
		core = cores["mma"] // of operands that wgmma doesn't take
	}
	t := p.mmaTile(target, core.tiles)
	threads := t.threads()
	nM, nN, nK := points(p.m), points(p.n), points(p.k)
	tilesN, tilesM := ceil(nN, t.n), ceil(nM, t.m)
	blocks := tilesN * tilesM * points(p.batch)
	parts := target.parts(blocks, ceil(nK, t.k))
	steps := ceil(ceil(nK, t.k), parts)
	// Without a wish the assembler prefers many blocks to registers and spills (for
	// sm_90, 36 bytes at 72 registers, where 216 are free).
	f := m.Kernel(k.Name, build.Limits{Threads: threads, Blocks: t.blocks, Cluster: parts}, 0, len(k.Bufs))
	e := newEmitter(f, k)
	e.pairs = target.from80()
	entry := Entry{Name: k.Name, Grid: [3]int{blocks * parts, 1, 1}, Block: threads, Args: allBuffers(k)}
	d, m0, n0 := e.deal(p, &entry, t.m, t.n, parts)
	tid := e.Thread()

	panels := [2]*panel{
		e.panel(p, p.sideOf(p.left, p.m, t.m), kind, target.from80(), 0, m0, tid, t.k, threads),
		e.panel(p, p.sideOf(p.right, p.n, t.n), kind, target.from80(), 2*t.m*t.k, n0, tid, t.k, threads),
	}
	stage := 2 * (t.m + t.n) * t.k
	base := e.SharedAddress()
	copyTo := func(k0, slot Value) {
		for _, l := range panels {
			if l.async {
				l.copy(k0, e.Add(base, slot))
			}
		}
	}
	// Copies of a tile make a group.
	async := panels[0].async || panels[1].async
	group := func(name string) {
		if async {
			e.Call("gpu.cp.async."+name, build.Void)
		}
	}
	var err error
	fetch := func(k0 Value) (out [2][]Value) {
		for i, l := range panels {
			if !l.async && err == nil {
				out[i], err = l.fetch(k0)
			}
		}
		return out
	}
	put := func(slot Value, x [2][]Value) {
		for i, l := range panels {
			if !l.async {
				l.put(slot, x[i])
			}
		}
	}

	start := e.MulI(d.part, steps*t.k)
	for s := range t.stages - 1 {
		if s < steps {
			k0 := e.AddI(start, s*t.k)
			copyTo(k0, build.Int(s*stage))
			x := fetch(k0)
			if err != nil {
				return nil, err
			}
			put(build.Int(s*stage), x)
		}
		group("commit")
	}

	lane, w := e.AndI(tid, warp-1), e.Shr(tid, 5)
	acrossN := t.n / t.wn
	wm, wn := e.MulI(e.Div(w, acrossN), t.wm), e.MulI(e.Rem(w, acrossN), t.wn)
	unit := core.in(e, kind, panels)
	left, right := unit.operand(panels[0], wm, lane, true), unit.operand(panels[1], wn, lane, false)
	acc := []Value{build.Int(0), build.Int((t.stages - 1) * stage)} // where to read and to copy
	for range t.wm * t.wn / warp {
		acc = append(acc, build.Float(0))
	}
	groups := t.wn / 16
	wait := fmt.Sprintf("wait.%d", t.stages-2)
	out := e.For(build.Int(0), build.Int(steps), build.Int(1), acc, func(s Value, c []Value) []Value {
		group(wait)
		e.Barrier()
		read, write := c[0], c[1]
		ahead := e.AddI(s, t.stages-1)
		k0 := e.Add(start, e.MulI(ahead, t.k))
		if async {
			e.If(e.Lt(ahead, build.Int(steps)), func() { copyTo(k0, write) })
		}
		group("commit")
		next := fetch(k0)
		if err != nil {
			return c
		}
		acc := append([]Value(nil), c[2:]...)
		for kk := 0; kk < t.k; kk += core.terms {
			var a [][4]Value
			for i := 0; i < t.wm; i += 16 {
				a = append(a, left(read, i, kk))
			}
			for j := range groups {
				b := right(read, 16*j, kk)
				for i := range a {
					at := 8 * (i*groups + j)
					unit.multiply(a[i], b, acc[at:at+8])
				}
			}
		}
		put(write, next)
		following := func(x Value) Value {
			y := e.AddI(x, stage)
			return e.Select(e.Eq(y, build.Int(t.stages*stage)), build.Int(0), y)
		}
		return append([]Value{following(read), following(write)}, acc...)
	})
	if err != nil {
		return nil, err
	}
	group("wait.0")
	e.Barrier()

	// With 8 more floats to a row, what 16 lanes write lies in different banks, or
	// in half of them.
	c := results{rows: t.m, cols: t.n, ld: t.n + 8}
	row, col := core.first(e, lane)
	row, col = e.Add(wm, row), e.Add(wn, col)
	for i := range t.wm / 16 {
		for j := range groups {
			for h, by := range core.pairs {
				x := 2 + 8*(i*groups+j) + 2*h
				at := e.Add(e.MulI(e.AddI(row, 16*i+by[0]), c.ld), e.AddI(col, 16*j+by[1]))
				e.Store(e.Vector(out[x:x+2]...), e.SharedAt(e.MulI(at, 4), build.Vec(2, build.F32)))
			}
		}
	}
	entry.Shared = max(t.stages*stage, c.bytes())
	e.Shared(entry.Shared)
	e.meet(parts)
	err = d.epilogue(c, m0, n0, tid, threads)
	e.leave(parts)
	return []Entry{entry}, err
}
