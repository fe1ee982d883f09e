package cuda

import (
	"fmt"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir/kern"
)

// mmaTile is what a block of threads computes by mma.m16n8k16, a warp wm x wn
// of it.
type mmaTile struct{ m, n, k, wm, wn, stages int }

func (t mmaTile) threads() int { return t.m / t.wm * (t.n / t.wn) * warp }

// A warp of the largest has 64 sums a thread. Two blocks of it fit on a
// multiprocessor of sm_80 (164 KB), whose warps then hide each other's waits.
var mmaTiles = []mmaTile{{128, 128, 32, 64, 32, 4}, {64, 64, 32, 32, 32, 4}, {32, 64, 32, 16, 32, 4}}

// mmaTile picks the largest tile that leaves few multiprocessors idle.
func (p *product) mmaTile(target *Target) mmaTile {
	m, n, b := points(p.m), points(p.n), points(p.batch)
	for _, t := range mmaTiles {
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
	return mmaTiles[len(mmaTiles)-1]
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
	depth int // of a tile
	width int // bytes of a row
	each  int // granules of a thread
	step  int // rows from one to the next
	async bool
	row   Value // of the thread's first granule
	chunk Value // place of its granules in a row
	to    Value // where the first goes, in bytes

	// By granule: the variables of its line or lines and whether they exist.
	lines  [][][]Value
	exists [][]Value
	// Of asynchronous copies, by granule: the pointer and the guards' indices
	// without the variables of the sum.
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

// panel prepares to copy tiles of s whose first line is number first.
func (e *emitter) panel(p *product, s side, kind string, first, tid Value, depth, threads int) *panel {
	l := &panel{e: e, p: p, s: s, kind: kind, depth: depth, width: 2 * depth, async: p.sideBySide(s)}
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
		if l.async {
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
				if l.async {
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

// copy starts the asynchronous copies of the tile whose first term is k0 to
// shared address at. Terms past the last are 0.
func (l *panel) copy(k0, at Value) {
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
		size := e.Select(live, build.Int(2*granule), build.Int(0))
		from := e.Cast(e.At(l.from[i], e.Select(live, offset, build.Int(0))), build.I8)
		if len(n.Guards) > 0 {
			// Without the guard, even the line's own share may be outside.
			from = e.Select(live, from, e.Cast(e.bases[n.Buf], build.I8))
		}
		e.Call("gpu.cp.async.16", build.Void, e.Add(at, e.AddI(l.to, i*l.step*l.width)), from, size)
	}
}

// fetch computes the thread's granules of the tile whose first term is k0, four
// words each.
func (l *panel) fetch(k0 Value) ([]Value, error) {
	e := l.e
	depth := points(l.p.k)
	var out []Value
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

// put writes granules to the tile that starts at so many bytes of shared memory.
func (l *panel) put(at Value, words []Value) {
	e := l.e
	for i := range l.each {
		e.Store(e.Vector(words[4*i:4*i+4]...), e.SharedAt(e.Add(at, e.AddI(l.to, i*l.step*l.width)), build.Vec(4, build.I32)))
	}
}

// fragments is where the lanes of a warp find the operands of mma, from the
// panel's beginning: by 16 lines, then by 16 terms. As left operands the four
// matrices of 8x8 that a load takes are lines 0-7 and 8-15 of the first 8 terms,
// then of the next; as right ones both halves of the terms for lines 0-7, then
// for 8-15.
func (l *panel) fragments(first, lane Value, lines int, left bool) [][]Value {
	e := l.e
	low, mid, high := e.AndI(lane, 7), e.AndI(e.Shr(lane, 3), 1), e.Shr(lane, 4)
	line, k := mid, high
	if !left {
		line, k = high, mid
	}
	var out [][]Value
	for i := 0; i < lines; i += 16 {
		var at []Value
		for kk := 0; kk < l.depth; kk += 16 {
			switch {
			case !l.s.byK && kk > 0:
				at = append(at, e.AddI(at[0], kk*l.width))
			case !l.s.byK:
				at = append(at, e.place(e.Add(e.MulI(k, 8), low), e.Add(e.Shr(e.AddI(first, i), 3), line), l.width))
			case i > 0:
				at = append(at, e.AddI(out[0][kk/16], i*l.width))
			default:
				at = append(at, e.place(e.Add(first, e.Add(e.MulI(line, 8), low)), e.AddI(k, kk/8), l.width))
			}
		}
		out = append(out, at)
	}
	return out
}

// emitMma writes a product of numbers of 16 bits. Tiles of the operands stand in
// a ring of stages: while one is multiplied those after it are on their way,
// copied asynchronously where they lie side by side in memory, else through
// registers.
func emitMma(m *build.Module, target *Target, p *product, kind string) ([]Entry, error) {
	k, t := p.kernel, p.mmaTile(target)
	threads := t.threads()
	nM, nN, nK := points(p.m), points(p.n), points(p.k)
	tilesN, tilesM := ceil(nN, t.n), ceil(nM, t.m)
	blocks := tilesN * tilesM * points(p.batch)
	parts := target.parts(blocks, ceil(nK, t.k))
	steps := ceil(ceil(nK, t.k), parts)
	// Without a wish for sm_90 the assembler prefers many blocks to registers and
	// spills (36 bytes at 72 registers, where 216 are free).
	f := m.Kernel(k.Name, build.Limits{Threads: threads, Blocks: 2, Cluster: parts}, 0, len(k.Bufs))
	e := newEmitter(f, k)
	e.pairs = true
	entry := Entry{Name: k.Name, Grid: [3]int{blocks * parts, 1, 1}, Block: threads, Args: allBuffers(k)}
	d, m0, n0 := e.deal(p, &entry, t.m, t.n, parts)
	tid := e.Thread()

	panels := [2]*panel{
		e.panel(p, p.sideOf(p.left, p.m, t.m), kind, m0, tid, t.k, threads),
		e.panel(p, p.sideOf(p.right, p.n, t.n), kind, n0, tid, t.k, threads),
	}
	leftBytes := 2 * t.m * t.k
	stage := leftBytes + 2*t.n*t.k
	base := e.SharedAddress()
	starts := [2]int{0, leftBytes}
	copyTo := func(k0, slot Value) {
		for i, l := range panels {
			if l.async {
				l.copy(k0, e.Add(base, e.AddI(slot, starts[i])))
			}
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
				l.put(e.AddI(slot, starts[i]), x[i])
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
		e.Call("gpu.cp.async.commit", build.Void)
	}

	lane, w := e.AndI(tid, warp-1), e.Shr(tid, 5)
	acrossN := t.n / t.wn
	wm, wn := e.MulI(e.Div(w, acrossN), t.wm), e.MulI(e.Rem(w, acrossN), t.wn)
	lefts, rights := panels[0].fragments(wm, lane, t.wm, true), panels[1].fragments(wn, lane, t.wn, false)
	acc := []Value{build.Int(0), build.Int((t.stages - 1) * stage)} // where to read and to copy
	for range t.wm * t.wn / warp {
		acc = append(acc, build.Float(0))
	}
	groups := t.wn / 8
	wait := fmt.Sprintf("gpu.cp.async.wait.%d", t.stages-2)
	out := e.For(build.Int(0), build.Int(steps), build.Int(1), acc, func(s Value, c []Value) []Value {
		e.Call(wait, build.Void)
		e.Barrier()
		read, write := c[0], c[1]
		ahead := e.AddI(s, t.stages-1)
		k0 := e.Add(start, e.MulI(ahead, t.k))
		e.If(e.Lt(ahead, build.Int(steps)), func() { copyTo(k0, write) })
		e.Call("gpu.cp.async.commit", build.Void)
		next := fetch(k0)
		if err != nil {
			return c
		}
		at := e.Add(base, read)
		acc := append([]Value(nil), c[2:]...)
		for kk := range t.k / 16 {
			var a [][4]Value
			for i := range t.wm / 16 {
				a = append(a, e.LoadMatrix(e.Add(at, lefts[i][kk]), !panels[0].s.byK))
			}
			for j := 0; j < groups; j += 2 {
				b := e.LoadMatrix(e.Add(at, e.AddI(rights[j/2][kk], leftBytes)), !panels[1].s.byK)
				for i := range a {
					for h := range 2 {
						x := (i*groups + j + h) * 4
						r := e.Mma(kind, a[i], [2]Value{b[2*h], b[2*h+1]}, [4]Value(acc[x:x+4]))
						copy(acc[x:], r[:])
					}
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
	e.Call("gpu.cp.async.wait.0", build.Void)
	e.Barrier()

	// A lane has two neighbouring columns of rows 8 apart, a quad of lanes eight:
	// with 8 more floats to a row, 16 lanes write to different banks.
	c := results{rows: t.m, cols: t.n, ld: t.n + 8}
	row, col := e.Add(wm, e.Shr(lane, 2)), e.Add(wn, e.MulI(e.AndI(lane, 3), 2))
	for i := range t.wm / 16 {
		for j := range groups {
			for h := range 2 {
				x := 2 + (i*groups+j)*4 + 2*h
				at := e.Add(e.MulI(e.AddI(row, 16*i+8*h), c.ld), e.AddI(col, 8*j))
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
