package cuda

import (
	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// product is a kernel with a Contract as a matrix product: dimensions of the
// grid that both operands use are batches, the others rows or columns.
type product struct {
	kernel      *kern.Kernel
	contract    *kern.Node
	left, right *kern.Node // left has the rows
	batch, m, n []*kern.Var
	k           []*kern.Var
}

// productOf finds the roles. The grid's last dimension, along which results lie
// side by side, belongs to the columns if it can.
func productOf(k *kern.Kernel) *product {
	c := k.FindContract()
	p := &product{kernel: k, contract: c, left: c.Args[0], right: c.Args[1], k: c.Vars}
	last := -1
	for i, d := range k.Dims {
		if d.Extent > 1 {
			last = i
		}
	}
	if last >= 0 && kern.Uses(p.left, k.Dims[last]) && !kern.Uses(p.right, k.Dims[last]) {
		p.left, p.right = p.right, p.left
	}
	for _, d := range k.Dims {
		switch l, r := kern.Uses(p.left, d), kern.Uses(p.right, d); {
		case d.Extent == 1:
			p.batch = append(p.batch, d)
		case l && !r:
			p.m = append(p.m, d)
		case r && !l:
			p.n = append(p.n, d)
		default:
			p.batch = append(p.batch, d)
		}
	}
	return p
}

// tile is what a block of threads computes: m rows, n columns, k terms of the
// sum at a time; a thread has rm x rn results.
type tile struct{ m, n, k, rm, rn int }

func (t tile) threads() int { return t.m / t.rm * (t.n / t.rn) }

var tiles = []tile{{128, 128, 16, 8, 8}, {64, 64, 16, 4, 4}, {32, 32, 16, 2, 2}}

// tile picks the largest that leaves few multiprocessors idle.
func (p *product) tile() tile {
	m, n, b := points(p.m), points(p.n), points(p.batch)
	best := tiles[len(tiles)-1]
	for _, t := range tiles {
		if b*ceil(m, t.m)*ceil(n, t.n) >= 132 && m*2 > t.m && n*2 > t.n {
			return t
		}
	}
	return best
}

// side is an operand as tiles of shared memory: lines are rows or columns.
type side struct {
	root  *kern.Node
	lines []*kern.Var
	count int // lines
	size  int // of a tile
	byK   bool
}

// sideOf says whether neighbouring elements of an operand differ in the summed
// variable or in the line.
func (p *product) sideOf(root *kern.Node, lines []*kern.Var, size int) side {
	s := side{root: root, lines: lines, count: points(lines), size: size, byK: true}
	w := kern.Widest(root)
	if len(lines) > 0 && len(p.k) > 0 {
		l, k := w.At.Coef(lines[len(lines)-1]), w.At.Coef(p.k[len(p.k)-1])
		s.byK = k != 0 && (l == 0 || abs(k) <= abs(l))
	}
	return s
}

func abs(x int) int { return max(x, -x) }

// deal gives a block its tile of m rows and n columns, or its part of one, and the
// batch that is of: the tile's first row and column, and what comes after its sums.
func (e *emitter) deal(p *product, entry *Entry, m, n, parts int) (d *ending, m0, n0 Value) {
	part, b := e.part(entry, parts)
	across, down := ceil(points(p.n), n), ceil(points(p.m), m)
	n0, b = e.MulI(e.Rem(b, across), n), e.Div(b, across)
	m0, b = e.MulI(e.Rem(b, down), m), e.Div(b, down)
	e.unflatten(p.batch, b)
	d = e.ending(p)
	d.part, d.parts = part, parts
	return d, m0, n0
}

// emitContract writes a product by the core that fits it: wgmma.go for plain
// matrices of 16-bit elements on processors that have it, mma.go for other
// operands of 16 bits that the target's matrix instruction takes, and f32 for the
// rest.
func emitContract(m *build.Module, t *Target, k *kern.Kernel) ([]Entry, error) {
	p := productOf(k)
	if kind := p.kind(); t.multiplies(kind) {
		if t.Tensor == "wgmma" {
			if w := p.wgmma(t, kind); w != nil {
				return w.emit(m)
			}
		}
		return emitMma(m, t, p, kind)
	}
	return emitF32(m, t, p)
}

// kind is the type of 16 bits that represents all numbers of both operands, or
// "".
func (p *product) kind() string {
	var kinds [2]string
	for i, root := range p.contract.Args {
		d := ir.Invalid
		switch {
		case root.Prim == kern.Load && len(root.At.Ind) == 0:
			d = p.kernel.Bufs[root.Buf].DType
		case root.Prim == kern.Round && len(root.Args) == 1:
			d = ir.DType(root.I)
		}
		kinds[i] = packed[d]
	}
	if kinds[0] != kinds[1] {
		return ""
	}
	return kinds[0]
}

// sharedOf70 is the shared memory of a multiprocessor of sm_70.
const sharedOf70 = 96 << 10

// emitF32 writes a product in f32 with a block's tiles of operands in shared
// memory, two of each: while one is multiplied the next is loaded.
func emitF32(m *build.Module, target *Target, p *product) ([]Entry, error) {
	k := p.kernel
	t := p.tile()
	threads := t.threads()
	nM, nN, nK := points(p.m), points(p.n), points(p.k)
	tilesN, tilesM := ceil(nN, t.n), ceil(nM, t.m)
	blocks := tilesN * tilesM * points(p.batch)
	parts := target.parts(blocks, ceil(nK, t.k))
	steps := ceil(ceil(nK, t.k), parts)
	// Lines of a tile lie side by side for each k, 4 more than there are: so
	// threads that write along k meet other banks.
	ld := [2]int{t.m + 4, t.n + 4}
	bytes := [2]int{4 * t.k * ld[0], 4 * t.k * ld[1]}
	stage := bytes[0] + bytes[1]
	c := results{rows: t.m, cols: t.n, ld: t.n + 4}
	shared := max(2*stage, c.bytes())

	// Without a wish the assembler fits eight blocks on sm_70, or six, and spills.
	fit := 0
	if !target.from80() {
		fit = min(4, sharedOf70/shared)
	}
	f := m.Kernel(k.Name, build.Limits{Threads: threads, Blocks: fit, Cluster: parts}, 0, len(k.Bufs))
	e := newEmitter(f, k)
	e.pairs = target.from80()
	entry := Entry{Name: k.Name, Grid: [3]int{blocks * parts, 1, 1}, Block: threads, Args: allBuffers(k)}
	d, m0, n0 := e.deal(p, &entry, t.m, t.n, parts)
	tid := e.Thread()

	left, right := p.sideOf(p.left, p.m, t.m), p.sideOf(p.right, p.n, t.n)
	loaders := [2]*loader{e.loader(p, left, m0, tid, t.k, threads), e.loader(p, right, n0, tid, t.k, threads)}
	partial := nK%t.k != 0 || parts*steps*t.k > nK // not all tiles are whole
	start := e.MulI(d.part, steps*t.k)
	fetch := func(k0 Value) (out []Value) {
		for _, l := range loaders {
			out = append(out, l.fetch(e.Add(start, k0), partial)...)
		}
		return out
	}
	put := func(at Value, x []Value) {
		for i, l := range loaders {
			l.put(e.Add(at, build.Int(i*bytes[0])), ld[i], x[:l.each])
			x = x[l.each:]
		}
	}

	put(build.Int(0), fetch(build.Int(0)))
	e.Barrier()
	cols := t.n / t.rn
	ty, tx := e.Div(tid, cols), e.Rem(tid, cols)
	// A thread's rows and columns come in runs of up to 4, a run apart for each
	// thread, so that a warp reads shared memory in wide loads without conflicts.
	run := func(r int) int { return min(r, 4) }
	rowAt := func(i int) int { return i/run(t.rm)*(t.m/t.rm*run(t.rm)) + i%run(t.rm) }
	colAt := func(j int) int { return j/run(t.rn)*(cols*run(t.rn)) + j%run(t.rn) }
	row0, col0 := e.MulI(ty, run(t.rm)), e.MulI(tx, run(t.rn))

	acc := []Value{}
	for range t.rm * t.rn {
		acc = append(acc, build.Float(0))
	}
	multiply := func(at Value, acc []Value) []Value {
		acc = append([]Value(nil), acc...)
		rows := e.SharedAt(e.Add(at, e.MulI(row0, 4)), build.F32)
		colsAt := e.SharedAt(e.Add(at, e.AddI(e.MulI(col0, 4), bytes[0])), build.F32)
		for kk := range t.k {
			a := e.wide(rows, kk*ld[0], t.rm, rowAt)
			b := e.wide(colsAt, kk*ld[1], t.rn, colAt)
			for i := range t.rm {
				for j := range t.rn {
					acc[i*t.rn+j] = e.FMA(a[i], b[j], acc[i*t.rn+j])
				}
			}
		}
		return acc
	}
	out := e.For(build.Int(0), build.Int(steps-1), build.Int(1), acc, func(s Value, c []Value) []Value {
		at := e.MulI(e.AndI(s, 1), stage)
		next := fetch(e.MulI(e.AddI(s, 1), t.k))
		r := multiply(at, c)
		put(e.Sub(build.Int(stage), at), next)
		e.Barrier()
		return r
	})
	out = multiply(build.Int((steps-1)%2*stage), out)
	e.Barrier()

	for i := range t.rm {
		for j := 0; j < t.rn; j += run(t.rn) {
			at := e.Add(e.MulI(e.AddI(row0, rowAt(i)), c.ld), e.AddI(col0, colAt(j)))
			e.Store(e.Vector(out[i*t.rn+j:i*t.rn+j+run(t.rn)]...), e.SharedAt(e.MulI(at, 4), build.Vec(run(t.rn), build.F32)))
		}
	}
	entry.Shared = shared
	e.Shared(shared)
	e.meet(parts)
	err := d.epilogue(c, m0, n0, tid, threads)
	e.leave(parts)
	return []Entry{entry}, err
}

// wide loads n values of shared memory, those of a run together.
func (e *emitter) wide(base Value, offset, n int, at func(int) int) []Value {
	var out []Value
	run := min(n, 4)
	for i := 0; i < n; i += run {
		v := e.Load(e.Cast(e.At(base, build.Int(offset+at(i))), build.Vec(run, build.F32)))
		for j := range run {
			out = append(out, e.Elem(v, j))
		}
	}
	return out
}

// loader copies an operand's tiles to shared memory. Each thread has the same
// elements of every tile.
type loader struct {
	e       *emitter
	p       *product
	s       side
	each    int     // elements of a thread
	line, k []Value // of each element: its line in the tile, and its k
	lines   [][]Value
	exists  []Value // whether the line does
}

func (e *emitter) loader(p *product, s side, first, tid Value, depth, threads int) *loader {
	l := &loader{e: e, p: p, s: s, each: max(1, s.size*depth/threads)}
	outer := e.vars
	for i := range l.each {
		var line, k Value
		at := e.AddI(tid, i*threads)
		if s.byK {
			line, k = e.Div(at, depth), e.Rem(at, depth)
		} else {
			line, k = e.Rem(at, s.size), e.Div(at, s.size)
		}
		l.line, l.k = append(l.line, line), append(l.k, k)
		n := e.Add(first, line)
		var ok Value
		if s.count%s.size != 0 {
			ok = e.Lt(n, build.Int(s.count))
			n = e.Select(ok, n, build.Int(0))
		}
		l.exists = append(l.exists, ok)
		e.unflatten(s.lines, n)
		var vars []Value
		for _, v := range s.lines {
			vars = append(vars, e.vars[v.ID][0])
		}
		l.lines = append(l.lines, vars)
	}
	e.vars = outer
	return l
}

// fetch computes the thread's elements of the tile that starts at k0, of which
// some lie past the last if it is partial.
func (l *loader) fetch(k0 Value, partial bool) []Value {
	e := l.e
	depth := points(l.p.k)
	width := e.width
	e.width = l.each
	defer func() { e.width = width }()
	// What differs from element to element, and batches, which don't.
	ok := make([]Value, l.each)
	ks := make([]Value, l.each)
	for i := range l.each {
		ks[i] = e.Add(k0, l.k[i])
		ok[i] = l.exists[i]
		if partial {
			in := e.Lt(ks[i], build.Int(depth))
			ks[i] = e.Select(in, ks[i], build.Int(0))
			if ok[i] == nil {
				ok[i] = in
			} else {
				ok[i] = e.And(ok[i], in)
			}
		}
	}
	saved := map[*kern.Var][]Value{}
	for _, v := range l.p.batch {
		saved[v] = e.vars[v.ID]
		e.set(v, e.repeat(e.vars[v.ID][0])...)
	}
	for j, v := range l.s.lines {
		x := make([]Value, l.each)
		for i := range x {
			x[i] = l.lines[i][j]
		}
		e.set(v, x...)
	}
	e.unflatten(l.p.k, ks...)
	out := e.operand(l.s.root, ok)
	for v, x := range saved {
		e.vars[v.ID] = x
	}
	return out
}

func (e *emitter) repeat(x Value) []Value { return e.each(func(int) Value { return x }) }

// operand evaluates an operand's expression; it is 0 where ok or its guards
// fail.
func (e *emitter) operand(root *kern.Node, ok []Value) []Value {
	if root.Prim == kern.Load {
		return e.each(func(p int) Value { return e.load(root, p, ok[p]) })
	}
	live := e.live
	e.live = nil
	var holds []Value
	for p := range e.width {
		h := e.holds(root.Guards, p)
		switch {
		case h == nil:
			h = ok[p]
		case ok[p] != nil:
			h = e.And(h, ok[p])
		}
		holds = append(holds, h)
	}
	nodes := kern.Expression(root)
	for _, n := range nodes {
		if n.Prim == kern.Load {
			// Its place may exist only where the operand does.
			e.vals[n.ID] = e.each(func(p int) Value { return e.load(n, p, holds[p]) })
			continue
		}
		e.vals[n.ID] = e.each(func(p int) Value {
			x, err := e.eval(n, p)
			if err != nil {
				panic("internal: " + err.Error()) // kern.IsOperand allows arithmetic alone
			}
			return x
		})
	}
	out := e.each(func(p int) Value {
		if holds[p] == nil {
			return e.vals[root.ID][p]
		}
		return e.Select(holds[p], e.vals[root.ID][p], build.Float(0))
	})
	for _, n := range nodes {
		e.vals[n.ID] = nil
	}
	e.live = live
	return out
}

// put writes a thread's elements to the tile at byte at of shared memory.
func (l *loader) put(at Value, ld int, x []Value) {
	e := l.e
	for i := range l.each {
		e.Store(x[i], e.SharedAt(e.Add(at, e.MulI(e.Add(e.MulI(l.k[i], ld), l.line[i]), 4)), build.F32))
	}
}

// results is a tile of sums in shared memory, in f32: ld is from row to row.
type results struct{ rows, cols, ld int }

func (r results) bytes() int { return 4 * r.rows * r.ld }

// ending runs the rest of a kernel's body on the sums of its product. A thread
// takes run neighbouring columns at once, and several such places one after the
// other, all loads of which come before their stores.
type ending struct {
	e      *emitter
	p      *product
	run    int
	along  *kern.Var
	places int
	batch  map[*kern.Var]Value

	// The blocks of a cluster have so many parts of the sums (0 or 1: whole ones).
	part  Value
	parts int
	at0   int // where the tile of sums begins in shared memory
}

// place is a run of columns: where it begins in the matrix of sums, whether it
// exists (nil: yes), and its sums.
type place struct {
	row, col, ok Value
	sums         []Value
}

// ending prepares for the block's batch, which is in e.vars.
func (e *emitter) ending(p *product) *ending {
	d := &ending{e: e, p: p, run: 1, along: lastOf(p.n), batch: map[*kern.Var]Value{}}
	for d.along != nil && d.run < 4 && d.along.Extent%(2*d.run) == 0 {
		d.run *= 2
	}
	for _, v := range p.batch {
		d.batch[v] = e.vars[v.ID][0]
	}
	// So many loads of 8 bytes under way keep a multiprocessor's memory busy; more
	// cost registers.
	loads := 0
	for _, n := range p.kernel.Body {
		if n.Prim == kern.Load {
			loads++
		}
	}
	d.places = 4
	for d.places > 1 && d.places*loads > 8 {
		d.places /= 2
	}
	return d
}

// lastOf is the innermost of vars that runs, or nil.
func lastOf(vars []*kern.Var) *kern.Var {
	for i := len(vars) - 1; i >= 0; i-- {
		if vars[i].Extent > 1 {
			return vars[i]
		}
	}
	return nil
}

// at makes x the current place.
func (d *ending) at(x place) {
	e, p := d.e, d.p
	for v, b := range d.batch {
		e.set(v, b)
	}
	row, col := x.row, x.col
	e.live = nil
	if x.ok != nil {
		row, col = e.Select(x.ok, row, build.Int(0)), e.Select(x.ok, col, build.Int(0))
		e.live = []Value{x.ok}
	}
	e.width, e.run = d.run, d.along
	e.unflatten(p.m, row)
	e.unflatten(p.n, col)
	if d.run > 1 {
		first := e.vars[d.along.ID][0]
		e.set(d.along, e.each(func(i int) Value { return e.AddI(first, i) })...)
	}
	e.vals[p.contract.ID] = x.sums
}

// finish emits the rest of the body for places.
func (d *ending) finish(places []place) error {
	e, body := d.e, d.p.kernel.Body
	type state struct {
		vars [][]Value
		vals map[int][]Value
		live []Value
	}
	var states []state
	for _, x := range places {
		d.at(x)
		s := state{append([][]Value(nil), e.vars...), map[int][]Value{d.p.contract.ID: x.sums}, e.live}
		for _, n := range body {
			if n.Prim != kern.Load || e.uses[n.ID] == 0 || e.k.Bufs[n.Buf].Mode != kern.In || !d.known(n) {
				continue
			}
			if err := e.node(n); err != nil {
				return err
			}
			s.vals[n.ID] = e.vals[n.ID]
		}
		e.forget(body)
		states = append(states, s)
	}
	outer := e.vars
	for _, s := range states {
		e.vars, e.live = s.vars, s.live
		for id, x := range s.vals {
			e.vals[id] = x
		}
		if err := e.body(body); err != nil {
			return err
		}
		e.forget(body)
	}
	e.vars, e.live, e.width, e.run = outer, nil, 1, nil
	return nil
}

// known reports whether all that decides where n lies has been computed.
func (d *ending) known(n *kern.Node) bool {
	ok := true
	see := func(ix kern.Index) {
		for _, i := range ix.Ind {
			ok = ok && d.e.vals[i.Node.ID] != nil
		}
	}
	see(n.At)
	for _, g := range n.Guards {
		see(g.At)
	}
	return ok
}

// inside is whether x is below n, nil if it always is where tiles are of that
// size.
func (e *emitter) inside(x Value, n, size int) Value {
	if n%size == 0 {
		return nil
	}
	return e.Lt(x, build.Int(n))
}

// both is a and b, of which nil is true.
func (e *emitter) both(a, b Value) Value {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return e.And(a, b)
}

// epilogue finishes a block's tile, or its part of that of its cluster,
// neighbouring threads on neighbouring columns.
func (d *ending) epilogue(r results, m0, n0, tid Value, threads int) error {
	e := d.e
	nM, nN := points(d.p.m), points(d.p.n)
	each := threads * d.run
	size := r.rows * r.cols
	var from, to Value = build.Int(0), build.Int(size)
	if d.parts > 1 {
		size /= d.parts
		from = e.MulI(d.part, size)
		to = e.AddI(from, size)
	}
	many := max(1, min(d.places, size/each))
	var err error
	e.For(from, to, build.Int(each*many), nil, func(at Value, _ []Value) []Value {
		var places []place
		for i := range many {
			x := e.Add(at, e.AddI(e.MulI(tid, d.run), i*each))
			var mine Value
			if size < each { // fewer runs than threads
				mine = e.Lt(x, to)
				x = e.Select(mine, x, from)
			}
			row, col := e.Div(x, r.cols), e.Rem(x, r.cols)
			sums := d.sums(e.AddI(e.MulI(e.Add(e.MulI(row, r.ld), col), 4), d.at0))
			row, col = e.Add(m0, row), e.Add(n0, col)
			in := e.both(mine, e.both(e.inside(row, nM, r.rows), e.inside(col, nN, r.cols)))
			places = append(places, place{row, col, in, sums})
		}
		err = d.finish(places)
		return nil
	})
	return err
}

// sums loads a run's sums from byte at of shared memory: those of all parts, in
// their order.
func (d *ending) sums(at Value) []Value {
	e := d.e
	if d.parts <= 1 {
		return e.sums(at, d.run)
	}
	var out []Value
	for i := range d.parts {
		address := e.Add(e.SharedAddress(), at)
		var x []Value
		if d.run == 4 {
			x = e.parts(e.Call("gpu.cluster.load.v4", build.Struct(4, build.F32), address, build.Int(i)), 4)
		} else {
			for j := range d.run {
				x = append(x, e.Call("gpu.cluster.load", build.F32, e.AddI(address, 4*j), build.Int(i)))
			}
		}
		if out == nil {
			out = x
			continue
		}
		for j := range x {
			out[j] = e.FAdd(out[j], x[j])
		}
	}
	return out
}

// parts is how many blocks share each sum: as many as a cluster may have if there
// are few tiles and long sums, such as the gradients of small weights. So 16
// tiles of 64x64 that sum 10,240 terms take 128 multiprocessors in place of 16.
func (t *Target) parts(tiles, steps int) int {
	parts := 1
	for parts < t.together() && tiles*parts*2 <= multiprocessors && steps >= 16*parts {
		parts *= 2
	}
	return parts
}

// together is how many blocks a cluster may have.
func (t *Target) together() int {
	if t.Name == "sm_90a" {
		return 8
	}
	return 1
}

// meet waits for all threads of the block, or of the cluster.
func (e *emitter) meet(cluster int) {
	if cluster <= 1 {
		e.Barrier()
		return
	}
	e.Call("gpu.cluster.arrive", build.Void)
	e.Call("gpu.cluster.wait", build.Void)
}

// leave ends the block; a cluster's end together, because they use each other's
// shared memory.
func (e *emitter) leave(cluster int) {
	if cluster > 1 {
		e.meet(cluster)
	}
	e.Return()
}

// part is the block's place in its cluster, of so many, and the number of the
// cluster.
func (e *emitter) part(entry *Entry, parts int) (part, number Value) {
	if parts == 1 {
		return build.Int(0), e.BlockX()
	}
	entry.Cluster = parts
	return e.Call("gpu.cluster.rank", build.I32), e.Div(e.BlockX(), parts)
}
