package cpu

import (
	"fmt"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// roles sorts the grid of a kernel with a Contract into the dimensions of a
// matrix product.
type roles struct {
	contract    *kern.Node
	left, right *kern.Node // the operands; right has the columns
	batch, m, n []*kern.Var
	k           []*kern.Var
	turned      []bool // of k: summed from the last element to the first
}

// affine reports whether operand n is of real numbers, has no gathers, and has
// a load that walks all that it depends on.
func affine(k *kern.Kernel, n *kern.Node) bool {
	ok := true
	for _, g := range n.Guards {
		ok = ok && len(g.At.Ind) == 0
	}
	widest := kern.Widest(n)
	for _, l := range kern.Loads(n) {
		ok = ok && k.Bufs[l.Buf].DType.IsFloat() && len(l.At.Ind) == 0
		for _, t := range l.At.Terms {
			ok = ok && widest.At.Coef(t.Var) != 0
		}
	}
	return ok
}

// classify finds the roles, or returns nil where the product doesn't fit the
// matrix-multiply generator.
func classify(k *kern.Kernel) *roles {
	r := classifyAs(k, false, -1)
	if r == nil || k.Packed {
		return r
	}
	// Exchanged, the right operand is packed in every chunk and has the worse
	// layout as a rule: that must save something.
	if t := classifyAs(k, true, -1); 4*t.cost(k) < 3*r.cost(k) {
		return t
	}
	return r
}

// cost estimates the multiply-adds of k in these roles, and other work as multiply-adds.
func (r *roles) cost(k *kern.Kernel) int {
	c := r.wanted(k).way().cost()
	for i := len(k.Dims) - 1; i >= 0; i-- {
		if d := k.Dims[i]; d.Extent > 1 {
			if !contains(r.n, d) {
				c += points(r.batch) * points(r.m) * points(r.n) * 64 // results are stored one by one
			}
			break
		}
	}
	return c
}

// wanted is the product of k with its right operand packed if that pays.
func (r *roles) wanted(k *kern.Kernel) *Gemm {
	cut := *k
	cut.Packed = r.wantsPack(r.gemm(k))
	return r.gemm(&cut)
}

// classifyAs is classify with the operands as they are or exchanged, and with
// a known number of column dimensions, or -1.
func classifyAs(k *kern.Kernel, exchange bool, columns int) *roles {
	c := k.FindContract()
	r := &roles{contract: c, left: c.Args[0], right: c.Args[1], k: c.Vars}
	if !k.Packed && !affine(k, r.right) || !affine(k, r.left) {
		return nil
	}
	if exchange {
		r.left, r.right = r.right, r.left
	}
	var n []*kern.Var
	for _, d := range k.Dims {
		switch a, b := kern.Uses(r.left, d), kern.Uses(r.right, d); {
		case d.Extent == 1:
		case a && !b:
			r.m = append(r.m, d)
		case b && !a:
			n = append(n, d)
		}
	}
	// The patches of an input gradient run backwards over the picture: summed
	// the other way round they lie as those of a convolution.
	r.turned = make([]bool, len(r.k))
	for i, v := range r.k {
		for _, n := range c.Args {
			r.turned[i] = r.turned[i] || len(n.Guards) > 0 && kern.Widest(n).At.Coef(v) < 0
		}
	}
	// Lanes number the columns through, so every index in the rest of the body
	// must walk them evenly; outer dimensions where one doesn't are batches.
	even := len(n)
	for even > 0 && (even == len(n) || even1(k.Body, n[even-1], n[even])) {
		even--
	}
	if columns >= 0 {
		even = len(n) - columns
	}
	r.n = n[even:]
	for _, d := range k.Dims {
		if d.Extent > 1 && !contains(r.m, d) && !contains(r.n, d) {
			r.batch = append(r.batch, d)
		}
	}
	return r
}

// even1 reports whether all indices of body step from inner to outer as within
// one dimension.
func even1(body []*kern.Node, outer, inner *kern.Var) bool {
	ok := true
	index := func(ix kern.Index) { ok = ok && ix.Coef(outer) == ix.Coef(inner)*inner.Extent }
	kern.Walk(body, func(n *kern.Node) {
		index(n.At)
		for _, g := range n.Guards {
			index(g.At)
		}
	})
	return ok
}

func contains(vs []*kern.Var, v *kern.Var) bool {
	for _, x := range vs {
		if x == v {
			return true
		}
	}
	return false
}

func extents(vs []*kern.Var) []int {
	out := make([]int, len(vs))
	for i, v := range vs {
		out[i] = v.Extent
	}
	return out
}

func (r *roles) operand(k *kern.Kernel, n *kern.Node, outer []*kern.Var) Operand {
	walkOf := func(ix kern.Index) Affine {
		a := Affine{Const: ix.Const}
		for _, v := range r.batch {
			a.Batch = append(a.Batch, ix.Coef(v))
		}
		for _, v := range outer {
			a.Outer = append(a.Outer, ix.Coef(v))
		}
		for i, v := range r.k {
			c := ix.Coef(v)
			if r.turned[i] {
				a.Const += c * (v.Extent - 1)
				c = -c
			}
			a.Sum = append(a.Sum, c)
		}
		return a
	}
	source := func(l *kern.Node) Operand {
		s := Operand{Slot: l.Buf, At: walkOf(l.At)}
		if d := k.Bufs[l.Buf].DType; d != ir.F32 {
			s.Elem = storage(d)
			s.Widen = func(f *build.Func, v V) V { return widen(f, d, v) }
		}
		return s
	}
	main := kern.Widest(n)
	op := source(main)
	for _, g := range n.Guards {
		op.Guards = append(op.Guards, Guard{At: walkOf(g.At), Lo: g.Lo, Hi: g.Hi})
	}
	if n.Prim == kern.Load {
		return op
	}
	op.Formula = newFormula(k, n, main)
	for _, l := range op.Formula.loads[1:] {
		op.More = append(op.More, source(l))
	}
	return op
}

func (r *roles) gemm(k *kern.Kernel) *Gemm {
	g := &Gemm{Name: k.Name, Batch: extents(r.batch), M: extents(r.m), N: extents(r.n), K: extents(r.k),
		A: r.operand(k, r.left, r.m), B: r.operand(k, r.right, r.n), Packed: k.Packed, Multiply: ir.DType(r.contract.I),
		Rows: max(k.Tile.Rows, 1), Cols: max(k.Tile.Cols, 1)}
	g.Winograd = k.Packed && g.winograd() != nil
	return g
}

// emitContract adds a kernel with a Contract: the matrix-multiply generator
// with the rest of the body as its epilogue, or plain loops.
func emitContract(m *build.Module, k *kern.Kernel) error {
	r := classify(k)
	if r == nil {
		f, args, c0, c1, _ := m.Kernel(k.Name)
		err := newEmitter(f, unrolled(k), args).grid(c0, c1)
		f.Return()
		return err
	}
	g := r.gemm(k)
	var err error
	if far := r.far(k); len(far) > 1 {
		g.Fetch = func(f *build.Func, s *Segment) { r.fetch(f, k, far, s) }
	}
	g.Epilogue = func(f *build.Func, s *Segment) {
		if e := r.epilogue(f, k, g, s); e != nil {
			err = e
		}
	}
	if e := EmitGemm(m, g); e != nil {
		return e
	}
	return err
}

// far lists the loads and stores of the epilogue that walk whole matrices, one
// for each place. A tile reads so little of each row that the processor does
// not see a pattern to fetch ahead of, and waits for them: from two on, asking
// early pays (a GELU's gradient took 5.3 ms instead of 3.9).
func (r *roles) far(k *kern.Kernel) []*kern.Node {
	if len(r.n) == 0 {
		return nil
	}
	lane := r.n[len(r.n)-1]
	var out []*kern.Node
	known := map[string]bool{}
	for _, n := range k.Body {
		if n.Prim != kern.Load && n.Prim != kern.Store || len(n.At.Ind) > 0 || n.At.Coef(lane) != 1 {
			continue
		}
		rows := false
		for _, v := range r.m {
			rows = rows || n.At.Coef(v) != 0
		}
		if key := fmt.Sprint(n.Buf, n.At); rows && !known[key] {
			known[key] = true
			out = append(out, n)
		}
	}
	return out
}

// fetch emits prefetches of the nodes far for one segment of the product.
func (r *roles) fetch(f *build.Func, k *kern.Kernel, far []*kern.Node, s *Segment) {
	at := make([]V, k.NumVars)
	bind := func(vs []*kern.Var, x V) {
		for i, d := range digits(f, x, extents(vs)) {
			at[vs[i].ID] = d
		}
	}
	bind(r.batch, s.Batch)
	bind(r.m, s.Row)
	at[r.n[len(r.n)-1].ID] = s.Col
	for _, n := range far {
		off := V(c64(n.At.Const))
		for _, t := range n.At.Terms {
			if x := at[t.Var.ID]; x != nil {
				off = f.Add(off, f.Mul(x, c64(t.Coef)))
			}
		}
		d := k.Bufs[n.Buf].DType
		p := f.At(f.SlotPtr(s.Args, n.Buf, storage(d)), off)
		for i := 0; i < f.Target.NR(); i += 64 / d.Size() {
			f.Prefetch(f.Offset(p, i), n.Prim == kern.Store, 3)
		}
	}
}

// epilogue emits the body of k for one segment of the product.
func (r *roles) epilogue(f *build.Func, k *kern.Kernel, g *Gemm, s *Segment) error {
	e := newEmitter(f, k, s.Args)
	for _, d := range k.Dims {
		e.vars[d.ID] = c64(0)
	}
	bind := func(vs []*kern.Var, at V) {
		for i, x := range digits(f, at, extents(vs)) {
			e.vars[vs[i].ID] = x
		}
	}
	bind(r.batch, s.Batch)
	bind(r.m, s.Row)
	product := &val{s: f.Extract(s.Acc[0], 0)}
	if n := len(r.n); n > 0 {
		e.lane, e.unit, e.mask = r.n[n-1], len(s.Acc), s.Mask
		e.vars[e.lane.ID] = s.Col
		product = &val{v: s.Acc}
	}
	e.override = map[*kern.Node]func() *val{r.contract: func() *val { return product }}
	e.enter(k.Body, k.Dims...)
	defer e.leave()
	return e.list(k.Body)
}

// unrolled is k with its Contract written as loops.
func unrolled(k *kern.Kernel) *kern.Kernel {
	out := *k
	out.Body = nil
	if n := len(k.Dims); n == 0 || k.Vector != k.Dims[n-1] {
		out.Vector = nil
	}
	node := func(n kern.Node) *kern.Node {
		n.ID = out.NumNodes
		out.NumNodes++
		return &n
	}
	c := k.FindContract()
	var replaced *kern.Node
	for _, n := range k.Body {
		if n != c {
			out.Body = append(out.Body, n)
			continue
		}
		var body []*kern.Node
		operand := func(root *kern.Node) *kern.Node {
			gs := root.Guards
			y := kern.CopyOperand(root, func(m *kern.Node) {
				m.ID = out.NumNodes
				out.NumNodes++
				m.Guards = nil
				if m.Prim == kern.Load {
					m.Guards = gs
				}
				body = append(body, m)
			})
			if root.Prim == kern.Load || len(gs) == 0 {
				return y
			}
			inside, zero := node(kern.Node{Prim: kern.Test, Type: ir.Bool, Guards: gs}), node(kern.Node{Prim: kern.Const, Type: ir.F32})
			y = node(kern.Node{Prim: kern.Select, Type: ir.F32, Args: []*kern.Node{inside, y, zero}})
			body = append(body, inside, zero, y)
			return y
		}
		a, b := operand(c.Args[0]), operand(c.Args[1])
		x := node(kern.Node{Prim: kern.Mul, Type: ir.F32, Args: []*kern.Node{a, b}})
		body = append(body, x)
		for i := len(c.Vars) - 1; i >= 0; i-- {
			l := node(kern.Node{Prim: kern.Loop, Vars: []*kern.Var{c.Vars[i]}, Body: body, Accs: []kern.Reduction{{Combine: kern.Sum, Val: x}}})
			x = node(kern.Node{Prim: kern.Acc, Type: ir.F32, Args: []*kern.Node{l}})
			body = []*kern.Node{l, x}
		}
		out.Body = append(out.Body, body...)
		replaced = x
	}
	if replaced == nil {
		return &out
	}
	// The rest of the body reads the product by its node: point it at the sum.
	copies := map[*kern.Node]*kern.Node{c: replaced}
	swap := func(n *kern.Node) *kern.Node {
		if m := copies[n]; m != nil {
			return m
		}
		return n
	}
	var rewrite func(body []*kern.Node) []*kern.Node
	rewrite = func(body []*kern.Node) []*kern.Node {
		var done []*kern.Node
		for _, n := range body {
			m := *n
			m.Body = rewrite(n.Body)
			m.Args = nil
			for _, a := range n.Args {
				m.Args = append(m.Args, swap(a))
			}
			index := func(ix kern.Index) kern.Index {
				ix.Ind = append([]kern.Indirect(nil), ix.Ind...)
				for i := range ix.Ind {
					ix.Ind[i].Node = swap(ix.Ind[i].Node)
				}
				return ix
			}
			m.At = index(n.At)
			m.Guards = append([]kern.Guard(nil), n.Guards...)
			for i := range m.Guards {
				m.Guards[i].At = index(m.Guards[i].At)
			}
			m.Accs = append([]kern.Reduction(nil), n.Accs...)
			for i := range m.Accs {
				m.Accs[i].Val = swap(m.Accs[i].Val)
			}
			copies[n] = &m
			done = append(done, &m)
			if n == replaced {
				copies[c] = &m
			}
		}
		return done
	}
	out.Body = rewrite(out.Body)
	return &out
}

// TileFor is the tile and the number of chunks of a kernel with a Contract or
// a Template. It depends on sizes alone, not on the target.
func TileFor(k *kern.Kernel) (kern.Tile, int) {
	if k.Template != nil {
		if t := templates[k.Template.Name]; t != nil {
			return t.tile(k)
		}
		return kern.Tile{Rows: 1}, 1
	}
	r := classify(k)
	if r == nil {
		return loopTile(k)
	}
	g := r.gemm(k)
	together := g.cut()
	return kern.Tile{Rows: g.Rows, Cols: g.Cols, Together: together}, g.Chunks()
}

// loopTile cuts a product written as loops, which does about 1 multiply-add
// a nanosecond.
func loopTile(k *kern.Kernel) (kern.Tile, int) {
	n := len(k.Dims)
	cols, depth := 1, points(k.FindContract().Vars)
	rowDims := k.Dims
	if n > 0 {
		cols, rowDims = k.Dims[n-1].Extent, k.Dims[:n-1]
	}
	run := min(cols, max(1<<18/depth/64*64, 64))
	rows := min(points(rowDims), max(1<<18/(depth*run), 1))
	return kern.Tile{Rows: rows, Cols: run}, (points(rowDims) + rows - 1) / rows * ((cols + run - 1) / run)
}

// Backend answers the tile pass of codegen/kernel for processors.
type Backend struct{}

// Tile is TileFor.
func (Backend) Tile(k *kern.Kernel) (kern.Tile, int) { return TileFor(k) }

// Rates are one core's: those that fit the least times of the 1,262 launches of demo's
// three training steps best (trainer bench -kernels, one thread of an AMD EPYC, AVX2).
// Estimates are then off by 14% of the time, summed over launches. Choices hang on the
// ratios alone, and those differ less between machines.
func (Backend) Rates() kern.Rates {
	return kern.Rates{Product: 77, Narrow: 77, Template: 28, Loop: 20, Bytes: 23, Launch: 600}
}

// Pack is PackKernel and PackBytes where WantsPack holds, else nil and 0.
func (Backend) Pack(k *kern.Kernel) (*kern.Kernel, int) {
	if !WantsPack(k) {
		return nil, 0
	}
	return PackKernel(k, "pack"), PackBytes(k)
}

// Halves is true: threads read rows of weights faster than parts of rows.
func (Backend) Halves() bool { return true }

// Repeats is false: loops leave out what doesn't change.
func (Backend) Repeats() bool { return false }

// Spared counts the operations that minimal filtering does without.
func (Backend) Spared(k *kern.Kernel) int64 {
	r := classify(k)
	if r == nil {
		return 0
	}
	return r.gemm(k).way().spared()
}

// Copied counts the elements of operand i of k that are copied.
func (Backend) Copied(k *kern.Kernel, i int) int {
	r := classify(k)
	if r == nil {
		return 0
	}
	g := r.wanted(k)
	g.cut()
	return g.way().copied(k.FindContract().Args[i] == r.left)
}

// WantsPack reports whether it pays to pack the right operand of k once, by a
// kernel of its own. Products of up to 256 rows, at most three chunks high, pack it as they go, which costs them 5 to 8% (256 rows) and
// saves the memory of a packed copy; so do products for which that is a mere copy.
func WantsPack(k *kern.Kernel) bool {
	if k.Template != nil || k.Packed || k.FindContract() == nil {
		return false
	}
	r := classify(k)
	return r != nil && r.wantsPack(r.gemm(k))
}

func (r *roles) wantsPack(g *Gemm) bool {
	return r.right == r.contract.Args[1] && (g.winograd() != nil || points(r.m) > 256 && g.direct(false).form == packedForm && !g.byColumns())
}

// PackKernel is the pack_b kernel for k, for which WantsPack holds: it writes
// k's right operand, made of its first buffers, which are kern.Buffers of the
// operand, to a workspace of PackBytes, its last buffer. The caller then sets
// Packed in k and makes the right operand a load of the workspace.
func PackKernel(k *kern.Kernel, name string) *kern.Kernel {
	r := classify(k)
	var bufs []kern.Buf
	at := map[int]int{}
	for i, n := range kern.Buffers(r.right) {
		at[n] = i
		b := k.Bufs[n]
		b.Mode = kern.In
		bufs = append(bufs, b)
	}
	// The left load only tells rows from batches; it has no buffer here.
	a, c := *kern.Widest(r.left), *r.contract
	a.Buf, a.Guards = 0, r.left.Guards
	right := kern.CopyOperand(r.right, func(n *kern.Node) {
		if n.Prim == kern.Load {
			n.Buf = at[n.Buf]
		}
	})
	c.Args = []*kern.Node{&a, right}
	p := &kern.Kernel{Name: name, Dims: k.Dims, Body: []*kern.Node{&c},
		Bufs:     append(bufs, kern.Buf{Name: "packed", DType: ir.F32, Len: PackBytes(k) / 4, Mode: kern.Out}),
		Template: &kern.Template{Name: "pack_b", Ints: []kern.Int{{Key: "columns", Val: len(r.n)}}},
		NumNodes: k.NumNodes, NumVars: k.NumVars}
	if r.gemm(k).winograd() != nil {
		p.Template.Ints = append(p.Template.Ints, kern.Int{Key: "winograd", Val: 1})
	}
	p.Tile, p.Chunks = TileFor(p)
	return p
}

// PackBytes is the size of the workspace for the packed right operand of k, a
// kernel with a Contract, large enough for every target.
func PackBytes(k *kern.Kernel) int {
	r := classify(k)
	if r == nil {
		return 0
	}
	n, w := 0, r.gemm(k).winograd()
	for _, t := range build.Targets() {
		if w != nil {
			n = max(n, 4*w.packedFloats(t))
			continue
		}
		n = max(n, 4*PackedFloats(t, ir.DType(r.contract.I), points(r.batch), points(r.n), points(r.k)))
	}
	return n
}

// packRoles classifies a pack_b kernel.
func packRoles(k *kern.Kernel) *roles {
	q := *k
	q.Template, q.Packed = nil, true
	return classifyAs(&q, false, k.Template.Int("columns"))
}

func packOf(k *kern.Kernel) *PackB {
	r := packRoles(k)
	return &PackB{Name: k.Name, Batch: extents(r.batch), N: extents(r.n), K: extents(r.k),
		B: r.operand(k, r.right, r.n), Multiply: ir.DType(r.contract.I), Winograd: k.Template.Int("winograd") == 1,
		Slot: len(k.Bufs) - 1, Chunks: max(k.Chunks, 1)}
}

func init() {
	templates["pack_b"] = &template{
		emit: func(m *build.Module, k *kern.Kernel) error {
			if k.FindContract() == nil {
				return fmt.Errorf("internal: kernel %s: pack_b without the product it packs for", k.Name)
			}
			return EmitPackB(m, packOf(k))
		},
		// A copy runs at about 1 element a nanosecond, and a chunk is at
		// least a panel of 16 columns.
		tile: func(k *kern.Kernel) (kern.Tile, int) {
			r := packRoles(k)
			elements := points(r.batch) * points(r.n) * points(r.k)
			return kern.Tile{Rows: 1}, max(1, min(elements>>14, points(r.batch)*((points(r.n)+15)/16)))
		},
		scratch: func(k *kern.Kernel, t *build.Target) int { return packOf(k).Scratch(t) },
	}
}
