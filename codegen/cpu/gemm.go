package cpu

import (
	"fmt"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
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
	lanes := f.Module.Target.Lanes
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

// layout is how a kernel uses a worker's scratch memory, in bytes.
type layout struct{ size int }

func (l *layout) take(bytes int) int {
	at := l.size
	l.size = roundUp(at+bytes, 64)
	return at
}

// gemmLayout holds what EmitGemm and Scratch both need.
type gemmLayout struct {
	layout
	m, n, k                  int // totals
	kc, blocks               int // of the summed dimension
	mc                       int // rows of a packed left block
	panels                   int // of B
	a, tile, b, temp, tables int // offsets in scratch
	ldc                      int // of the tile: NR, or that of a whole chunk if there are several blocks
	av, bv                   *view
	aSum, bSum               bool // the view's rows are the summed dimensions
	direct                   bool // B is read where it lies
	group                    int  // panels of B that are packed at once, or 0: each by itself
}

func (g *Gemm) layout(t *build.Target) *gemmLayout {
	l := &gemmLayout{m: product(g.M), n: product(g.N), k: product(g.K)}
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
		l.a = l.take(4 * (l.mc*l.kc + (ceilDiv(l.mc, mostRows(t, true))+1)*panelWidth(t)))
	} else {
		l.a = l.take(4 * (l.mc + t.Lanes) * aStride(t))
	}
	l.ldc = t.NR()
	rows := t.MR
	if l.blocks > 1 {
		l.ldc = roundUp(min(g.Cols, l.n), t.NR()) + t.NR() + 16
		rows = l.mc
	}
	l.tile = l.take(4 * rows * l.ldc)
	tables, temp := l.av.tableBytes(), 0
	if l.aSum {
		temp = 4 * panelTurn * tempStride(t, l.mc)
	}
	if !g.Packed {
		// Reading B in place saves a copy that one panel of rows would not repay.
		l.direct = l.bSum && l.m <= t.MR && l.bv.matrix() && g.B.Formula == nil
		width := t.NR()
		if byColumns && l.bv.matrix() {
			l.group = ceilDiv(groupColumns, t.NR())
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

// Scratch is how many bytes of scratch memory each worker needs.
func (g *Gemm) Scratch(t *build.Target) int {
	if g.thinCut() {
		return g.thinScratch()
	}
	if l := g.directLayout(t); l != nil {
		return l.size
	}
	return g.layout(t).size
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
	if g.thinCut() {
		emitThin(m, g)
		return nil
	}
	if l := g.directLayout(m.Target); l != nil {
		l.emit(m)
		return nil
	}
	t, l := m.Target, g.layout(m.Target)
	f, args, c0, c1, scratch := m.Kernel(g.Name)
	nr := int64(t.NR())
	rowRuns, colRuns := ceilDiv(l.m, g.Rows), ceilDiv(l.n, g.Cols)
	floats := func(offset int) V { return f.Cast(f.Offset(scratch, offset), build.F32) }
	aBlock, tile, bPanel, temp := floats(l.a), floats(l.tile), floats(l.b), floats(l.temp)
	table := f.Cast(f.Offset(scratch, l.tables), build.I64)

	f.Range(c0, c1, build.Int(1), func(chunk V) {
		col := f.URem(chunk, build.Int(int64(colRuns)))
		rest := f.UDiv(chunk, build.Int(int64(colRuns)))
		row := f.URem(rest, build.Int(int64(rowRuns)))
		batch := f.UDiv(rest, build.Int(int64(rowRuns)))
		position := digits(f, batch, g.Batch)
		as := bind(f, l.av, args, position, table)
		var bs *source
		var packed V
		if g.Packed {
			packed = f.At(f.SlotPtr(args, g.B.Slot, build.F32), f.Mul(batch, build.Int(int64(packedFloats(t, l.n, l.k)))))
		} else {
			bs = bind(f, l.bv, args, position, table)
		}
		// The panels that start in this chunk's columns.
		first := f.CeilDiv(f.Mul(col, build.Int(int64(g.Cols))), nr)
		last := f.Min(f.CeilDiv(f.Mul(f.Add(col, build.Int(1)), build.Int(int64(g.Cols))), nr), build.Int(int64(l.panels)))
		row0 := f.Mul(row, build.Int(int64(g.Rows)))
		row1 := f.Min(f.Add(row0, build.Int(int64(g.Rows))), build.Int(int64(l.m)))

		block := func(ms, mc V) {
			// Rows in equal panels: a tile of 13 rows is as fast as one of 14.
			count := f.CeilDiv(mc, int64(mostRows(t, l.aSum)))
			q, extra := f.UDiv(mc, count), f.URem(mc, count)
			f.Range(build.Int(0), build.Int(int64(l.k)), build.Int(int64(l.kc)), func(k0 V) {
				kc := f.Min(build.Int(int64(l.kc)), f.Sub(build.Int(int64(l.k)), k0))
				finished := f.Eq(f.Add(k0, kc), build.Int(int64(l.k)))
				if l.aSum {
					as.packPanels(k0, kc, ms, mc, build.Int(int64(l.m)), count, q, extra, temp, aBlock, l.mc)
				} else {
					as.load(ms, mc, k0, kc, aBlock, aStride(t))
				}
				panel := func(j, group0 V) {
					n0 := f.Mul(j, build.Int(nr))
					rem := f.Sub(build.Int(int64(l.n)), n0)
					b, ldb, next := bPanel, V(build.Int(nr)), bPanel
					size := f.Mul(kc, build.Int(nr))
					switch {
					case g.Packed:
						b = f.At(packed, f.Add(f.Mul(k0, build.Int(int64(l.panels)*nr)), f.Mul(j, size)))
						next = f.At(b, size)
					case l.direct:
						r := f.If(f.Le(build.Int(nr), rem), func() []V {
							off, _ := bs.place(k0, l.bv.rows)
							return []V{f.At(f.At(bs.base, off), n0), build.Int(int64(stepOf(l.bv.rows)))}
						}, func() []V {
							bs.packPanel(l.bSum, k0, kc, n0, rem, temp, bPanel)
							return []V{bPanel, build.Int(nr)}
						})
						b, ldb = r[0], r[1]
						next = b
					case l.group > 0:
						b = f.At(bPanel, f.Mul(f.Sub(j, group0), size))
						next = b
					default:
						bs.packPanel(l.bSum, k0, kc, n0, rem, temp, bPanel)
					}
					f.Range(build.Int(0), count, build.Int(1), func(p V) {
						r0, rows := panelRows(f, p, q, extra)
						c := tile
						if l.blocks > 1 {
							c = f.At(tile, f.Add(f.Mul(r0, build.Int(int64(l.ldc))), f.Mul(f.Sub(j, first), build.Int(nr))))
						}
						ahead := next
						if g.Packed {
							ahead = f.At(next, f.UDiv(f.Mul(p, size), count))
						}
						a := f.Mul(r0, build.Int(int64(aStride(t))))
						if l.aSum {
							a = panelAt(f, p, r0, kc)
						}
						step := V(build.Int(16))
						if l.group > 0 && l.av.byRows() {
							ahead, step = l.ahead(f, as, bs, f.Add(f.Mul(f.Sub(j, group0), count), p), count, group0, first, last, k0, kc, ms, mc, bPanel)
						}
						fetch := func() { g.fetch(f, args, batch, f.Add(ms, r0), rows, n0) }
						if l.blocks == 1 {
							fetch()
						} else if g.Fetch != nil {
							f.When(finished, fetch)
						}
						callMicro(f, rows, l.aSum, f.At(aBlock, a), b, c, kc, ldb, build.Int(int64(l.ldc)), k0, ahead, step)
						done := func() { g.finish(f, l, args, batch, f.Add(ms, r0), rows, n0, rem, c) }
						if l.blocks == 1 {
							done()
						} else {
							f.When(finished, done)
						}
					})
				}
				if l.group == 0 {
					f.Range(first, last, build.Int(1), func(j V) { panel(j, nil) })
					return
				}
				f.Range(first, last, build.Int(int64(l.group)), func(group0 V) {
					group1 := f.Min(f.Add(group0, build.Int(int64(l.group))), last)
					bs.packRows(k0, kc, group0, group1, build.Int(int64(l.n)), temp, bPanel)
					f.Range(group0, group1, build.Int(1), func(j V) { panel(j, group0) })
				})
			})
		}
		if g.Rows <= l.mc || l.m <= l.mc {
			block(row0, f.Sub(row1, row0))
			return
		}
		total := f.Sub(row1, row0)
		parts := f.CeilDiv(total, int64(l.mc))
		f.Range(build.Int(0), parts, build.Int(1), func(i V) {
			lo := f.UDiv(f.Mul(i, total), parts)
			hi := f.UDiv(f.Mul(f.Add(i, build.Int(1)), total), parts)
			block(f.Add(row0, lo), f.Sub(hi, lo))
		})
	})
	f.Return()
	return nil
}

// groupColumns is about how many columns of B a weight gradient packs at once: half a KiB of a row, which the
// processor reads without going back to its page for every line.
const groupColumns = 128

// ahead is what the micro-kernels' call number i of a group should fetch of two matrices whose rows are k. A
// call fetches 32 columns of a quarter of a block's rows. Meanwhile come those of the next group's
// columns of B and its share of A's next block, spread over the calls; others ask for a line they have.
func (l *gemmLayout) ahead(f *build.Func, as, bs *source, i, count, group0, first, last, k0, kc, m0, mc, near V) (next, step V) {
	const quarters = 4
	nr, size := int64(f.Module.Target.NR()), build.Int(int64(l.group))
	groups := f.CeilDiv(f.Sub(last, first), int64(l.group))
	group := f.UDiv(f.Sub(group0, first), size)
	group1 := f.Add(group0, size)
	ending := f.Le(last, group1)
	strips := f.Mul(f.CeilDiv(mc, 32), build.Int(quarters))
	a0, a1 := f.UDiv(f.Mul(strips, group), groups), f.UDiv(f.Mul(strips, f.Add(group, build.Int(1))), groups)
	ofB := build.Int(int64(quarters * ceilDiv(l.group*int(nr), 32)))
	wanted := f.Add(ofB, f.Sub(a1, a0))
	calls := f.Mul(f.Sub(f.Min(group1, last), group0), count)
	every := f.Max(f.UDiv(calls, wanted), build.Int(1))
	n := f.UDiv(i, every)
	use := f.And(f.Lt(n, wanted), f.Eq(f.Mul(n, every), i))
	at := func(s *source, k, col, n V) V {
		strip := f.UDiv(n, build.Int(quarters))
		k = f.Add(k, f.UDiv(f.Mul(f.URem(n, build.Int(quarters)), kc), build.Int(quarters)))
		return f.At(s.base, f.Add(f.Mul(k, build.Int(int64(stepOf(s.v.rows)))), f.Add(col, f.Mul(strip, build.Int(32)))))
	}
	left := f.Le(ofB, n)
	nextA := at(as, f.Add(k0, kc), m0, f.Add(a0, f.Sub(n, ofB)))
	nextB := at(bs, f.Select(ending, f.Add(k0, kc), k0), f.Mul(f.Select(ending, first, group1), build.Int(nr)), n)
	next = f.Select(left, nextA, nextB)
	step = f.Select(left, build.Int(int64(stepOf(l.av.rows))), build.Int(int64(stepOf(l.bv.rows))))
	return f.Select(use, next, near), f.Select(use, step, build.Int(0))
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
	t := f.Module.Target
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
