package cpu

import (
	"fmt"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
)

// Gemm is a kernel that multiplies matrices: for each batch, row m and column n,
//
//	acc = sum over k of A[m,k] * B[k,n]
//
// in float32 and in order of k within blocks of at most Target.KC, and hands acc to Epilogue.
// Each of Batch, M, N and K may be several dimensions, outermost first.
type Gemm struct {
	Name           string
	Batch, M, N, K []int
	A, B           Operand
	// Packed says that B is what PackB wrote with the same target, Batch, N and K; of B only
	// Slot is used. Otherwise B is packed again for each chunk, which pays when a batch is one
	// chunk high.
	Packed bool
	// Winograd says that B is what PackB wrote with Winograd: transformed filters.
	Winograd bool
	// Multiply is the type that operands, which are numbers of it, are multiplied in, if the target can: F16, in which
	// short sums are made too, or BF16. Otherwise, and for the zero value, it is F32. Few rows and
	// convolutions are always multiplied in F32.
	Multiply ir.DType
	// Rows and Cols fix the chunks: chunk (b, i, j), numbered in this order, does rows
	// [i*Rows, (i+1)*Rows) of batch b and the register tiles that start in columns
	// [j*Cols, (j+1)*Cols). About 1e8 operations a chunk are at most 1 ms.
	Rows, Cols int
	// Epilogue emits what happens to a finished row segment of a tile.
	Epilogue func(f *build.Func, s *Segment)
	// Fetch, if there is one, emits prefetches of what Epilogue will read and write for a segment
	// without Acc and Mask. They are issued before the tile is multiplied.
	Fetch func(f *build.Func, s *Segment)
}

// Segment is one row of a finished register tile.
type Segment struct {
	Args            V
	Batch, Row, Col V   // i64; Col is that of the first lane of Acc[0]
	Acc             []V // NV vectors of adjacent columns
	Mask            []V // lanes inside the matrix, one for each of Acc; nil if all are
}

// Store writes the segment to p, the place of its first element.
func (s *Segment) Store(f *build.Func, p V) {
	lanes := f.Target.Lanes
	for i, v := range s.Acc {
		f.MaskStore(v, f.Offset(p, i*lanes), s.mask(i))
	}
}

func (s *Segment) mask(i int) V {
	if s.Mask == nil {
		return nil
	}
	return s.Mask[i]
}

// StoreTo returns an epilogue that writes the result to the float32 matrix at slot: row m of
// batch b starts at element b*batch + m*ld.
func StoreTo(slot, batch, ld int) func(f *build.Func, s *Segment) {
	return func(f *build.Func, s *Segment) {
		off := f.Add(f.Mul(s.Batch, build.Int(int64(batch))), f.Add(f.Mul(s.Row, build.Int(int64(ld))), s.Col))
		s.Store(f, f.At(f.SlotPtr(s.Args, slot, build.F32), off))
	}
}

func product(xs []int) int {
	n := 1
	for _, x := range xs {
		n *= x
	}
	return n
}

func ceilDiv(a, b int) int { return (a + b - 1) / b }

func roundUp(a, b int) int { return ceilDiv(a, b) * b }

// Chunks is the number of chunks of the kernel.
func (g *Gemm) Chunks() int {
	return product(g.Batch) * ceilDiv(product(g.M), g.Rows) * ceilDiv(product(g.N), g.Cols)
}

// kBlock is how many summed elements one block takes: k in equal parts of at most most.
func kBlock(k, most int) int {
	return min(roundUp(ceilDiv(k, ceilDiv(k, most)), unroll), most)
}

// byColumns reports whether columns of both operands, stored as rows of k, lie next to each other:
// a weight gradient.
func (g *Gemm) byColumns() bool {
	_, a := oriented(&g.A, g.M, g.K)
	_, b := oriented(&g.B, g.N, g.K)
	return a && b
}

// together reports whether chunks share the packing of their operands, where packing them for
// each would take a fifth of the time: an element costs as much as 10 multiply-adds. Four chunks, two for each of
// two workers, share too little to make up for waiting for the slower worker.
func (g *Gemm) together() bool {
	if g.Packed || !g.byColumns() || product(g.N) > sharedColumns {
		return false
	}
	rows, cols := min(g.Rows, product(g.M)), min(g.Cols, product(g.N))
	b, _ := oriented(&g.B, g.N, g.K)
	return b.matrix() && 5*10*(rows+cols) >= rows*cols && ceilDiv(product(g.M), rows)*ceilDiv(product(g.N), cols) >= 8
}

// sharedColumns is how many columns of B at most stay packed for several chunks: with a block of 128 of the sum, 128 KiB.
const sharedColumns = 256

// layout is how a kernel uses a worker's scratch memory, in bytes.
type layout struct{ size int }

func (l *layout) take(bytes int) int {
	at := l.size
	l.size = roundUp(at+bytes, 64)
	return at
}

func (l *layout) bytes() int { return l.size }

// gemmLayout is packedWay for one target and chunk size.
type gemmLayout struct {
	layout
	g                        *Gemm
	t                        *build.Target // with the product's register tile
	in                       ir.DType      // that it multiplies in
	m, n, k                  int           // totals
	kc, blocks               int           // of the summed dimension
	mc                       int           // rows of a packed left block
	panels                   int           // of B
	a, tile, b, temp, tables int           // offsets in scratch
	pairs                    int           // of A's panels in pairs of bf16
	ldc                      int           // of the tile: NR, or that of a whole chunk if there are several blocks
	av, bv                   *view
	aSum, bSum               bool // the view's rows are the summed dimensions
	direct                   bool // B is read where it lies
	group                    int  // panels of B that are packed at once, or 0: each by itself
	together                 int  // most chunks that are done in one go
}

func (g *Gemm) layout(t *build.Target) *gemmLayout {
	l := &gemmLayout{g: g, m: product(g.M), n: product(g.N), k: product(g.K), in: multiplies(t, g.Multiply)}
	l.t = tileOf(t, l.in)
	t = l.t
	l.av, l.aSum = oriented(&g.A, g.M, g.K)
	l.kc = kBlock(l.k, t.KC)
	if !g.Packed {
		l.bv, l.bSum = oriented(&g.B, g.N, g.K)
	}
	byColumns := l.aSum && l.bSum
	if byColumns {
		// A panel of B fits in the L1 cache; a chunk's sums, its block of A and a group of B's panels,
		// with what is fetched ahead of both, in the L2.
		l.kc = kBlock(l.k, t.KC/4)
	}
	l.blocks = ceilDiv(l.k, l.kc)
	l.mc = min(g.Rows, t.MC, l.m)
	if byColumns {
		l.mc = min(g.Rows, 2*t.MC, l.m)
	}
	l.panels = ceilDiv(l.n, t.NR())
	if l.aSum {
		size := 4 * (l.mc*l.kc + (ceilDiv(l.mc, mostRows(t, true, l.in))+1)*panelWidth(t))
		l.a = l.take(size)
		if l.in == ir.BF16 {
			l.pairs = l.take(size)
		}
	} else {
		l.a = l.take(4 * (l.mc + t.Lanes) * aStride(t))
	}
	l.ldc = t.NR()
	rows := t.MR
	if l.blocks > 1 {
		l.ldc = roundUp(min(g.Cols, l.n), t.NR()) + t.NR() + 16
		rows = l.mc
	}
	l.together = 1
	if l.blocks > 1 && l.mc == min(g.Rows, l.m) && g.together() {
		l.together = max(1, min(g.Chunks()/product(g.Batch), sumFloats/(g.Rows*l.ldc)))
		rows = l.together * g.Rows
	}
	l.tile = l.take(4 * rows * l.ldc)
	tables, temp := l.av.tableBytes(), 0
	if l.aSum {
		temp = 4 * panelTurn * tempStride(t, l.mc)
	}
	if !g.Packed {
		// Reading B in place saves a copy that one panel of rows would not repay.
		l.direct = l.bSum && l.m <= t.MR && l.bv.matrix() && g.B.Formula == nil && l.in == ir.F32
		width := t.NR()
		if byColumns && l.bv.matrix() {
			l.group = ceilDiv(groupColumns, t.NR())
			if l.together > 1 {
				l.group = l.panels
			}
			width *= l.group
		}
		l.b = l.take(4 * (l.kc*width + 16))
		tables = max(tables, l.bv.tableBytes())
		temp = max(temp, packTemp(t))
	}
	l.temp = l.take(temp)
	l.tables = l.take(tables)
	return l
}

// digits splits linear position i into positions in dims, outermost first.
func digits(f *build.Func, i V, extents []int) []V {
	out := make([]V, len(extents))
	for d := len(extents) - 1; d >= 0; d-- {
		if d == 0 {
			out[d] = i
			break
		}
		q := f.UDiv(i, build.Int(int64(extents[d])))
		out[d] = f.Sub(i, f.Mul(q, build.Int(int64(extents[d]))))
		i = q
	}
	return out
}

// EmitGemm adds the kernel to m. The shared object also needs EmitMicroKernels, and EmitTiles of
// the kernel's Tiles.
func EmitGemm(m *build.Module, g *Gemm) error {
	if err := g.check(); err != nil {
		return err
	}
	g.code(m.Target).emit(m)
	return nil
}

func (l *gemmLayout) registers() []tile { return nil }

func (l *gemmLayout) emit(m *build.Module) {
	g := l.g
	f, args, c0, c1, scratch := m.Kernel(g.Name)
	f.Target = l.t
	floats := func(offset int) V { return f.Cast(f.Offset(scratch, offset), build.F32) }
	e := &gemmKernel{Func: f, g: g, l: l, t: l.t, args: args,
		aBlock: floats(l.a), pairs: floats(l.pairs), tile: floats(l.tile), bPanel: floats(l.b), temp: floats(l.temp), table: f.Cast(f.Offset(scratch, l.tables), build.I64)}
	if l.together > 1 {
		e.together(c0, c1)
	} else {
		f.Range(c0, c1, c64(1), e.chunk)
	}
	f.Return()
}

// gemmKernel emits one product with packed operands.
type gemmKernel struct {
	*build.Func
	g                                        *Gemm
	l                                        *gemmLayout
	t                                        *build.Target
	args                                     V
	aBlock, pairs, tile, bPanel, temp, table V // scratch
	batch                                    V
	as, bs                                   *source // operands in the batch, and
	packed                                   V       // B's panels if they come packed
}

// piece is a part of a chunk: rows and panels of columns, and what is summed of them.
type piece struct {
	m0, mc          V
	first, last     V // panels of B
	c               V
	count, q, extra V // panels of A; see packPanels
}

// chunks is the number of chunks of a batch.
func (e *gemmKernel) chunks() int { return e.g.Chunks() / product(e.g.Batch) }

// open turns to a batch.
func (e *gemmKernel) open(batch V) {
	e.batch = batch
	position := digits(e.Func, batch, e.g.Batch)
	e.as = bind(e.Func, e.l.av, e.args, position, e.table)
	if e.g.Packed {
		e.packed = e.At(e.SlotPtr(e.args, e.g.B.Slot, build.F32), e.Mul(batch, c64(packedFloats(e.t, e.l.in, e.l.n, e.l.k))))
	} else {
		e.bs = bind(e.Func, e.l.bv, e.args, position, e.table)
	}
}

// panelsFrom is the first panel that starts in column run col or later.
func (e *gemmKernel) panelsFrom(col V) V {
	return e.Min(e.CeilDiv(e.Mul(col, c64(e.g.Cols)), int64(e.t.NR())), c64(e.l.panels))
}

// piece is rows [m0, m1) of column run col.
func (e *gemmKernel) piece(m0, m1, col, c V) *piece {
	x := &piece{m0: m0, mc: e.Sub(m1, m0), first: e.panelsFrom(col), last: e.panelsFrom(e.Add(col, c64(1))), c: c}
	// Rows in equal panels: a tile of 13 rows is as fast as one of 14.
	x.count = e.CeilDiv(x.mc, int64(mostRows(e.t, e.l.aSum, e.l.in)))
	x.q, x.extra = e.UDiv(x.mc, x.count), e.URem(x.mc, x.count)
	return x
}

// chunkRows are the rows of row run row.
func (e *gemmKernel) chunkRows(row V) (m0, m1 V) {
	m0 = e.Mul(row, c64(e.g.Rows))
	return m0, e.Min(e.Add(m0, c64(e.g.Rows)), c64(e.l.m))
}

// blocks calls body for each block of the sum, of kc elements from k0 on.
func (e *gemmKernel) blocks(body func(k0, kc V)) {
	k := c64(e.l.k)
	e.Range(c64(0), k, c64(e.l.kc), func(k0 V) { body(k0, e.Min(c64(e.l.kc), e.Sub(k, k0))) })
}

// chunk does one chunk.
func (e *gemmKernel) chunk(chunk V) {
	colRuns := c64(ceilDiv(e.l.n, e.g.Cols))
	inBatch := e.URem(chunk, c64(e.chunks()))
	e.open(e.UDiv(chunk, c64(e.chunks())))
	row, col := e.UDiv(inBatch, colRuns), e.URem(inBatch, colRuns)
	do := func(m0, m1 V) {
		x := e.piece(m0, m1, col, e.tile)
		e.blocks(func(k0, kc V) {
			e.packLeft(x, k0, kc)
			e.multiply(x, k0, kc)
		})
	}
	m0, m1 := e.chunkRows(row)
	if e.g.Rows <= e.l.mc || e.l.m <= e.l.mc {
		do(m0, m1)
		return
	}
	total := e.Sub(m1, m0)
	parts := e.CeilDiv(total, int64(e.l.mc))
	e.Range(c64(0), parts, c64(1), func(i V) {
		do(e.Add(m0, e.UDiv(e.Mul(i, total), parts)), e.Add(m0, e.UDiv(e.Mul(e.Add(i, c64(1)), total), parts)))
	})
}

// together does the chunks from c0 to c1 as many at a time as there is room for their sums: it packs each
// operand once for all of them.
func (e *gemmKernel) together(c0, c1 V) {
	colRuns := c64(ceilDiv(e.l.n, e.g.Cols))
	inBatches(e.Func, c0, c1, e.chunks(), e.l.together, func(batch, first, count V) {
		e.open(batch)
		last := e.Sub(e.Add(first, count), c64(1))
		// All of B, unless they are of the same rows.
		same := e.Eq(e.UDiv(first, colRuns), e.UDiv(last, colRuns))
		from := e.Select(same, e.panelsFrom(e.URem(first, colRuns)), c64(0))
		to := e.Select(same, e.panelsFrom(e.Add(e.URem(last, colRuns), c64(1))), c64(e.l.panels))
		e.blocks(func(k0, kc V) {
			e.packRight(k0, kc, from, to)
			e.Range(c64(0), count, c64(1), func(i V) {
				chunk := e.Add(first, i)
				col := e.URem(chunk, colRuns)
				m0, m1 := e.chunkRows(e.UDiv(chunk, colRuns))
				x := e.piece(m0, m1, col, e.At(e.tile, e.Mul(i, c64(e.g.Rows*e.l.ldc))))
				e.When(e.Or(e.Eq(i, c64(0)), e.Eq(col, c64(0))), func() { e.packLeft(x, k0, kc) })
				e.Range(x.first, x.last, c64(1), func(j V) { e.panel(x, k0, kc, j, from) })
			})
		})
	})
}

// packLeft packs a block of A.
func (e *gemmKernel) packLeft(x *piece, k0, kc V) {
	to16 := narrower{e.Func, e.l.in}
	if !e.l.aSum {
		e.as.load(x.m0, x.mc, k0, kc, e.aBlock, aStride(e.t))
		if e.l.in != ir.F32 {
			to16.rows(e.aBlock, x.mc, aStride(e.t), kc)
		}
		return
	}
	e.as.packPanels(k0, kc, x.m0, x.mc, c64(e.l.m), x.count, x.q, x.extra, e.temp, e.aBlock, e.l.mc)
	if e.l.in == ir.F32 {
		return
	}
	e.Range(c64(0), x.count, c64(1), func(p V) {
		r0, rows := panelRows(e.Func, p, x.q, x.extra)
		at := panelAt(e.Func, p, r0, kc)
		to16.panel(e.At(e.aBlock, at), e.At(e.left(), at), kc, rows)
	})
}

// left is where the micro-kernels find a block of A.
func (e *gemmKernel) left() V {
	if e.l.aSum && e.l.in == ir.BF16 {
		return e.pairs
	}
	return e.aBlock
}

// packRight packs panels [first, last) of B, one after the other.
func (e *gemmKernel) packRight(k0, kc, first, last V) {
	e.bs.packRows(k0, kc, first, last, c64(e.l.n), e.temp, e.bPanel)
	if e.l.in == ir.F32 {
		return
	}
	nr := c64(e.t.NR())
	e.Range(c64(0), e.Sub(last, first), c64(1), func(j V) {
		p := e.At(e.bPanel, e.Mul(j, e.Mul(kc, nr)))
		narrower{e.Func, e.l.in}.panel(p, p, kc, nr)
	})
}

// multiply does a block of the sum for a piece whose A is packed.
func (e *gemmKernel) multiply(x *piece, k0, kc V) {
	if e.l.group == 0 {
		e.Range(x.first, x.last, c64(1), func(j V) { e.panel(x, k0, kc, j, nil) })
		return
	}
	e.Range(x.first, x.last, c64(e.l.group), func(group0 V) {
		group1 := e.Min(e.Add(group0, c64(e.l.group)), x.last)
		e.packRight(k0, kc, group0, group1)
		e.Range(group0, group1, c64(1), func(j V) { e.panel(x, k0, kc, j, group0) })
	})
}

// panel does panel j of B, of those packed from panel group0 on if there are groups.
func (e *gemmKernel) panel(x *piece, k0, kc, j, group0 V) {
	f, g, l := e.Func, e.g, e.l
	nr := c64(e.t.NR())
	n0 := f.Mul(j, nr)
	rem := f.Sub(c64(l.n), n0)
	b, ldb, next := e.bPanel, V(nr), e.bPanel
	size := f.Mul(kc, nr)
	switch {
	case g.Packed:
		b = f.At(e.packed, panelOf(f, l.in, k0, kc, j, l.panels))
		size = f.Mul(packedDepth(f, l.in, kc), nr)
		next = f.At(b, size)
	case l.direct:
		r := f.If(f.Le(nr, rem), func() []V {
			off, _ := e.bs.place(k0, l.bv.rows)
			return []V{f.At(f.At(e.bs.base, off), n0), c64(stepOf(l.bv.rows))}
		}, func() []V {
			e.bs.packPanel(l.bSum, k0, kc, n0, rem, e.temp, e.bPanel)
			return []V{e.bPanel, nr}
		})
		b, ldb = r[0], r[1]
		next = b
	case l.group > 0:
		b = f.At(e.bPanel, f.Mul(f.Sub(j, group0), size))
		next = b
	default:
		e.bs.packPanel(l.bSum, k0, kc, n0, rem, e.temp, e.bPanel)
		if l.in != ir.F32 {
			narrower{f, l.in}.panel(e.bPanel, e.bPanel, kc, nr)
		}
	}
	// Where the sum has several blocks, tiles wait in scratch memory for the last one.
	ends := func(body func()) {
		if l.blocks == 1 {
			body()
		} else {
			f.When(f.Eq(f.Add(k0, kc), c64(l.k)), body)
		}
	}
	f.Range(c64(0), x.count, c64(1), func(p V) {
		r0, rows := panelRows(f, p, x.q, x.extra)
		c := x.c
		if l.blocks > 1 {
			c = f.At(c, f.Add(f.Mul(r0, c64(l.ldc)), f.Mul(f.Sub(j, x.first), nr)))
		}
		ahead, step := next, V(c64(16))
		if g.Packed {
			ahead = f.At(next, f.UDiv(f.Mul(p, size), x.count))
		}
		a := f.Mul(r0, c64(aStride(e.t)))
		if l.aSum {
			a = panelAt(f, p, r0, kc)
		}
		if l.group > 0 && l.together == 1 && l.av.byRows() {
			ahead, step = e.ahead(x, f.Add(f.Mul(f.Sub(j, group0), x.count), p), group0, k0, kc)
		}
		if g.Fetch != nil {
			ends(func() { g.fetch(f, e.args, e.batch, f.Add(x.m0, r0), rows, n0) })
		}
		callMicro(f, rows, l.aSum, l.in, f.At(e.left(), a), b, c, kc, ldb, c64(l.ldc), k0, ahead, step)
		ends(func() { g.finish(f, l, e.args, e.batch, f.Add(x.m0, r0), rows, n0, rem, c) })
	})
}

// groupColumns is about how many columns of B a weight gradient packs at once: half a KiB of a row, which the
// processor reads without going back to its page for every line.
const groupColumns = 128

// ahead is what the micro-kernels' call number i of a group should fetch of two matrices whose rows are k. A
// call fetches 32 columns of a quarter of a block's rows. Meanwhile come those of the next group's
// columns of B and its share of A's next block, spread over the calls; others ask for a line they have.
func (e *gemmKernel) ahead(x *piece, i, group0, k0, kc V) (next, step V) {
	const quarters = 4
	f, l := e.Func, e.l
	nr := c64(e.t.NR())
	groups := f.CeilDiv(f.Sub(x.last, x.first), int64(l.group))
	group := f.UDiv(f.Sub(group0, x.first), c64(l.group))
	group1 := f.Add(group0, c64(l.group))
	ending := f.Le(x.last, group1)
	strips := f.Mul(f.CeilDiv(x.mc, 32), c64(quarters))
	a0, a1 := f.UDiv(f.Mul(strips, group), groups), f.UDiv(f.Mul(strips, f.Add(group, c64(1))), groups)
	ofB := c64(quarters * ceilDiv(l.group*e.t.NR(), 32))
	wanted := f.Add(ofB, f.Sub(a1, a0))
	calls := f.Mul(f.Sub(f.Min(group1, x.last), group0), x.count)
	every := f.Max(f.UDiv(calls, wanted), c64(1))
	n := f.UDiv(i, every)
	use := f.And(f.Lt(n, wanted), f.Eq(f.Mul(n, every), i))
	at := func(s *source, k, col, n V) V {
		strip := f.UDiv(n, c64(quarters))
		k = f.Add(k, f.UDiv(f.Mul(f.URem(n, c64(quarters)), kc), c64(quarters)))
		return f.At(s.base, f.Add(f.Mul(k, c64(stepOf(s.v.rows))), f.Add(col, f.Mul(strip, c64(32)))))
	}
	left := f.Le(ofB, n)
	nextA := at(e.as, f.Add(k0, kc), x.m0, f.Add(a0, f.Sub(n, ofB)))
	nextB := at(e.bs, f.Select(ending, f.Add(k0, kc), k0), f.Mul(f.Select(ending, x.first, group1), nr), n)
	next = f.Select(left, nextA, nextB)
	step = f.Select(left, c64(stepOf(l.av.rows)), c64(stepOf(l.bv.rows)))
	return f.Select(use, next, e.bPanel), f.Select(use, step, c64(0))
}

// stepOf is the distance of two rows of a linear view.
func stepOf(rows []dim) int {
	if len(rows) == 0 {
		return 0
	}
	return rows[0].coef
}

// fetch prefetches for the epilogue of a tile.
func (g *Gemm) fetch(f *build.Func, args, batch, m0, rows, n0 V) {
	if g.Fetch != nil {
		f.Range(build.Int(0), rows, build.Int(1), func(r V) {
			g.Fetch(f, &Segment{Args: args, Batch: batch, Row: f.Add(m0, r), Col: n0})
		})
	}
}

// finish runs the epilogue over a finished tile.
func (g *Gemm) finish(f *build.Func, l *gemmLayout, args, batch, m0, rows, n0, rem, c V) {
	t := f.Target
	run := func(masks []V) {
		f.Range(build.Int(0), rows, build.Int(1), func(r V) {
			s := &Segment{Args: args, Batch: batch, Row: f.Add(m0, r), Col: n0, Mask: masks}
			p := f.At(c, f.Mul(r, build.Int(int64(l.ldc))))
			for v := 0; v < t.NV; v++ {
				s.Acc = append(s.Acc, f.Load(f.Module.Vec(), f.Offset(p, v*t.Lanes)))
			}
			g.Epilogue(f, s)
		})
	}
	masked := func() {
		masks := make([]V, t.NV)
		for v := range masks {
			masks[v] = f.LaneMask(t.Lanes, f.Sub(rem, build.Int(int64(v*t.Lanes))))
		}
		run(masks)
	}
	switch {
	case l.n%t.NR() == 0:
		run(nil)
	case l.n < t.NR():
		masked()
	default:
		f.If(f.Lt(rem, build.Int(int64(t.NR()))), func() []V { masked(); return nil }, func() []V { run(nil); return nil })
	}
}

// segments runs the epilogue over rows of a tile at c, which are ldc apart, of cols columns from col.
func (g *Gemm) segments(f *build.Func, args, batch, row V, rows int, col V, cols int, c V, ldc int) {
	lanes := f.Target.Lanes
	nv := ceilDiv(cols, lanes)
	var masks []V
	if cols%lanes != 0 {
		masks = make([]V, nv)
		for v := range masks {
			if n := cols - v*lanes; n < lanes {
				masks[v] = f.LaneMask(lanes, build.Int(int64(n)))
			}
		}
	}
	f.Range(build.Int(0), build.Int(int64(rows)), build.Int(1), func(r V) {
		s := &Segment{Args: args, Batch: batch, Row: f.Add(row, r), Col: col, Mask: masks}
		p := f.At(c, f.Mul(r, build.Int(int64(ldc))))
		for v := range nv {
			s.Acc = append(s.Acc, f.Load(f.Module.Vec(), f.Offset(p, v*lanes)))
		}
		g.Epilogue(f, s)
	})
}

func (g *Gemm) check() error {
	for _, d := range []struct {
		name    string
		extents []int
	}{{"batch", g.Batch}, {"M", g.M}, {"N", g.N}, {"K", g.K}} {
		for _, x := range d.extents {
			if x < 1 {
				return fmt.Errorf("internal: %s: gemm: extent %d in %s", g.Name, x, d.name)
			}
		}
	}
	if g.Rows < 1 || g.Cols < 1 {
		return fmt.Errorf("internal: %s: gemm: chunks of %d rows and %d columns", g.Name, g.Rows, g.Cols)
	}
	if g.Winograd && !g.winogradFits() {
		return fmt.Errorf("internal: %s: gemm: chunks of %d rows are no blocks of tiles", g.Name, g.Rows)
	}
	if err := g.A.check(len(g.Batch), len(g.M), len(g.K)); err != nil {
		return fmt.Errorf("internal: %s: gemm: left operand: %v", g.Name, err)
	}
	if g.Packed {
		return nil
	}
	if err := g.B.check(len(g.Batch), len(g.N), len(g.K)); err != nil {
		return fmt.Errorf("internal: %s: gemm: right operand: %v", g.Name, err)
	}
	return nil
}

// check compares the numbers of coefficients with those of the dimensions.
func (op *Operand) check(batch, outer, sum int) error {
	ok := func(a *Affine) bool { return len(a.Batch) == batch && len(a.Outer) == outer && len(a.Sum) == sum }
	if !ok(&op.At) {
		return fmt.Errorf("address has %d+%d+%d coefficients for %d+%d+%d dimensions",
			len(op.At.Batch), len(op.At.Outer), len(op.At.Sum), batch, outer, sum)
	}
	for j := range op.Guards {
		if !ok(&op.Guards[j].At) {
			return fmt.Errorf("guard %d has not one coefficient for each of %d+%d+%d dimensions", j, batch, outer, sum)
		}
	}
	return nil
}
