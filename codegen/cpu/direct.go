package cpu

import (
	"fmt"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
)

// Packing a left operand costs as much as multiplying it with about 30
// columns, so that products with few columns had better read it in place. The
// patches of a picture can be read in place too, once a border of zeros
// surrounds it: the copy with the border is smaller than the patches by the
// number of filter taps.

// form is how the operands of a product can be read in place.
type form int

const (
	packedForm form = iota // they cannot, or it doesn't pay
	rowsForm               // the left operand, by rows; the right one is packed
	sumForm                // both, one of them pictures; the sum runs over many blocks
)

// direct is a product read in place, as far as it is the same on all targets.
type direct struct {
	form form
	a, b *picture // what is padded; nil for operands that are matrices
	// The left operand's distances between rows and summed elements, and the
	// right one's between summed elements, in the matrix or padded picture.
	aRow, aStep, bStep int
	// Chunks have whole lines of rows; in a sumForm, units of rows and columns
	// are what lies next to each other in a padded picture.
	line, rowUnit, colUnit int
}

// Limits of products read in place. Beyond them packing is a small share of
// the work, or the rows are so far apart that they share cache sets.
const (
	directCols    = 128 // columns of a rowsForm
	directPitch   = 512 // elements between rows
	directSum     = 1024
	directResults = 1 << 16
	directDepth   = 512     // K of a matrix in a rowsForm; one block on every target
	plainLine     = 16      // rows that tiles of matrices come in
	sumPixels     = 512     // summed elements in one block of a sumForm
	sumFloats     = 1 << 15 // of results that one goes through together: a quarter of a L2 cache of 512 KiB
)

// direct decides how g is read in place, given that its right operand is
// packed beforehand or not. Chunks may still not allow it.
func (g *Gemm) direct(packed bool) *direct {
	m, n, k := product(g.M), product(g.N), product(g.K)
	ao, as := g.A.dims(g.M, outerOf), g.A.dims(g.K, sumOfK)
	d := &direct{rowUnit: m, colUnit: n}
	if packed {
		d.form, d.bStep = rowsForm, 0
		if d.a = pictureOf(&g.A, ao, as); d.a != nil {
			p := d.a
			d.aRow, d.aStep, d.line = p.sx*p.c, 1, p.x
		} else if plain(&g.A, ao, as) && stepOf(as) == 1 && stepOf(ao) <= directPitch && m%plainLine == 0 && k <= directDepth {
			d.aRow, d.aStep, d.line = stepOf(ao), 1, plainLine
		} else {
			return &direct{}
		}
		if n > directCols {
			return &direct{}
		}
		return d
	}
	bo, bs := g.B.dims(g.N, outerOf), g.B.dims(g.K, sumOfK)
	d.form = sumForm
	switch {
	case k < directSum || k%4 != 0 || m*n > directResults:
		return &direct{}
	case plain(&g.A, ao, as):
		d.aRow, d.aStep = stepOf(ao), stepOf(as)
		if d.aRow > 1 && d.aStep > 1 || max(d.aRow, d.aStep) > directPitch {
			return &direct{}
		}
	default:
		if d.a = pictureOf(&g.A, as, ao); d.a == nil {
			return &direct{}
		}
		d.aRow, d.aStep, d.rowUnit = 1, d.a.sx*d.a.c, d.a.kw*d.a.c
	}
	switch {
	case plain(&g.B, bo, bs) && stepOf(bo) == 1 && n%16 == 0:
		// Two matrices are packed: it costs little where both are read by rows.
		if d.bStep = stepOf(bs); d.bStep > directPitch || d.a == nil {
			return &direct{}
		}
	default:
		if d.b = pictureOf(&g.B, bs, bo); d.b == nil || d.a != nil {
			return &direct{}
		}
		d.bStep, d.colUnit = d.b.sx*d.b.c, d.b.kw*d.b.c
	}
	return d
}

func outerOf(a *Affine) []int { return a.Outer }
func sumOfK(a *Affine) []int  { return a.Sum }

// plain reports whether an operand is a float32 matrix.
func plain(op *Operand, outer, sum []dim) bool {
	return len(op.Guards) == 0 && op.Elem == nil && op.Formula == nil && len(outer) <= 1 && len(sum) <= 1
}

// picture is an operand that consists of the patches of pictures: element
// (n, y, x | i, j, c) is that of channel c at row y*sy+i and column x*sx+j of
// picture n, or 0 outside. Padded, a picture has rows of width pixels, and
// every patch is in it.
type picture struct {
	op            *Operand
	n, y, x       int // pictures and positions of patches
	kh, kw, c     int // a patch
	sy, sx        int
	each          int // distance of pictures in memory
	row           int // of rows
	height, width int // padded
	y0, y1        int // rows of the padded picture that there are
	x0, x1        int // and columns
}

// pictureOf recognises patches by the guards of their rows and columns, or
// returns nil.
func pictureOf(op *Operand, at, patch []dim) *picture {
	if len(op.More) > 0 || len(op.Guards) != 2 || len(at) < 2 || len(at) > 3 || len(patch) < 2 || len(patch) > 3 {
		return nil
	}
	for _, g := range op.Guards {
		if anyNonZero(g.At.Batch) {
			return nil
		}
	}
	p := &picture{op: op, n: 1, c: 1}
	if len(at) == 3 {
		p.n, p.each = at[0].extent, at[0].coef
		if anyNonZero(at[0].guard) {
			return nil
		}
		at = at[1:]
	}
	if len(patch) == 3 {
		if c := patch[2]; c.coef != 1 || anyNonZero(c.guard) {
			return nil
		}
		p.c = patch[2].extent
	}
	y, x, i, j := at[0], at[1], patch[0], patch[1]
	gy := 0
	if i.guard[0] == 0 {
		gy = 1
	}
	gx := 1 - gy
	if i.guard[gy] != 1 || i.guard[gx] != 0 || j.guard[gx] != 1 || j.guard[gy] != 0 || y.guard[gx] != 0 || x.guard[gy] != 0 {
		return nil
	}
	p.y, p.x, p.kh, p.kw = y.extent, x.extent, i.extent, j.extent
	p.sy, p.sx, p.row = y.guard[gy], x.guard[gx], i.coef
	if p.sy < 1 || p.sx < 1 || j.coef != p.c || y.coef != p.sy*p.row || x.coef != p.sx*p.c || p.row < 0 || p.each < 0 {
		return nil
	}
	p.height, p.width = p.sy*(p.y-1)+p.kh, p.sx*(p.x-1)+p.kw
	inside := func(g Guard, size int) (lo, hi int) {
		lo, hi = max(0, g.Lo-g.At.Const), min(size, g.Hi-g.At.Const)
		return lo, max(lo, hi)
	}
	p.y0, p.y1 = inside(op.Guards[gy], p.height)
	p.x0, p.x1 = inside(op.Guards[gx], p.width)
	if p.x0 >= p.x1 || p.y0 >= p.y1 {
		return nil
	}
	return p
}

// pitch is the distance of rows of the padded picture, in elements.
func (p *picture) pitch() int { return p.width * p.c }

// band is how many rows of patches a block has, at most limit, and the
// elements of its part of the padded picture.
func (p *picture) band(limit int) (rows, floats int) {
	need := func(rows int) int { return ((rows-1)*p.sy + p.kh) * p.pitch() }
	rows = max(1, min(limit, p.y))
	for rows > 1 && need(rows) > 40<<10 {
		rows--
	}
	rows = ceilDiv(p.y, ceilDiv(p.y, rows))
	return rows, need(rows)
}

// pad writes the rows of the padded picture that count rows of patches from
// row y of picture n on need to dst, and up to a vector more.
func (p *picture) pad(f *build.Func, base, n, y, count, dst V) {
	lanes := f.Target.Lanes
	first := f.Mul(y, build.Int(int64(p.sy)))
	rows := f.Add(f.Mul(f.Sub(count, build.Int(1)), build.Int(int64(p.sy))), build.Int(int64(p.kh)))
	src := f.At(base, f.Mul(n, build.Int(int64(p.each))))
	zero := func(to V, n int) {
		if n > 0 {
			f.Range(build.Int(0), build.Int(int64(n)), build.Int(int64(lanes)), func(i V) { f.Store(build.Zero(f.Module.Vec()), f.At(to, i)) })
		}
	}
	x := &run{s: &source{f: f, v: &view{op: p.op}}}
	x.begin()
	load := func(from, mask V) V {
		x.src = from
		return x.vector(build.Int(0), 0, mask)
	}
	f.Range(build.Int(0), rows, build.Int(1), func(r V) {
		u := f.Add(first, r)
		to := f.At(dst, f.Mul(r, build.Int(int64(p.pitch()))))
		f.If(f.ULt(f.Sub(u, build.Int(int64(p.y0))), build.Int(int64(p.y1-p.y0))), func() []V {
			// Left to right: each part may write past its end.
			zero(to, p.x0*p.c)
			n := (p.x1 - p.x0) * p.c
			whole := n / lanes * lanes
			from, mid := f.Offset(f.At(src, f.Mul(u, build.Int(int64(p.row)))), p.x0*p.c), f.Offset(to, p.x0*p.c)
			const unroll = 4
			many := whole / (unroll * lanes) * (unroll * lanes)
			if many > 0 {
				f.Range(build.Int(0), build.Int(int64(many)), build.Int(int64(unroll*lanes)), func(i V) {
					for v := 0; v < unroll; v++ {
						f.Store(load(f.Offset(f.At(from, i), v*lanes), nil), f.Offset(f.At(mid, i), v*lanes))
					}
				})
			}
			for i := many; i < n; i += lanes {
				var mask V
				if i+lanes > n {
					mask = f.LaneMask(lanes, build.Int(int64(n-i)))
				}
				f.Store(load(f.Offset(from, i), mask), f.Offset(mid, i))
			}
			zero(f.Offset(to, p.x1*p.c), (p.width-p.x1)*p.c)
			return nil
		}, func() []V { zero(to, p.pitch()); return nil })
	})
}

// tile is a register tile that reads its left operand in place: elements of a
// row are step apart and rows are row apart.
type tile struct {
	rows, nv, row, step, unroll int
}

func (x tile) name() string {
	return fmt.Sprintf("gemm_tile%dx%d_%d_%d_%d", x.rows, x.nv, x.row, x.step, x.unroll)
}

// maxRows is how many rows a tile of nv vectors has at most.
func maxRows(t *build.Target, nv int) int { return t.MR * t.NV / nv }

// unrollOf is how many of run elements one turn of a tile's loop takes.
func unrollOf(run int) int {
	for u := 4; u > 1; u-- {
		if run%u == 0 {
			return u
		}
	}
	return 1
}

// EmitTiles defines the register tiles of products read in place; one module
// of a shared object must hold each that Tiles of its kernels lists.
//
// Tile (a, b, c, run, segs, aSkip, bSkip, ldb, ldc, add) sums segs runs of run
// elements; after each, a and b skip so many more. If add is 0, c is written
// without being read.
func EmitTiles(m *build.Module, tiles []tile) {
	for _, x := range tiles {
		x.emit(m)
	}
}

func (x tile) emit(m *build.Module) {
	t, vt := m.Target, m.Vec()
	f32p := build.PtrTo(build.F32)
	a, b, c := build.NoAlias("a", f32p), build.NoAlias("b", f32p), build.NoAlias("c", f32p)
	run, segs, aSkip, bSkip := build.Param("run", build.I64), build.Param("segs", build.I64), build.Param("aSkip", build.I64), build.Param("bSkip", build.I64)
	ldb, ldc, add := build.Param("ldb", build.I64), build.Param("ldc", build.I64), build.Param("add", build.I64)
	f := m.Func(x.name(), build.Hidden, a, b, c, run, segs, aSkip, bSkip, ldb, ldc, add)
	n := x.rows * x.nv
	state := make([]V, n+2)
	for i := range n {
		state[i] = build.Zero(vt)
	}
	state[n], state[n+1] = a, b
	state = f.For(build.Int(0), segs, build.Int(1), state, func(_ V, s []V) []V {
		s = f.For(build.Int(0), run, build.Int(int64(x.unroll)), s, func(_ V, s []V) []V {
			s = append([]V(nil), s...)
			for u := range x.unroll {
				bv := make([]V, x.nv)
				for v := range bv {
					bv[v] = f.Load(vt, f.Offset(s[n+1], v*t.Lanes))
				}
				for r := range x.rows {
					av := f.Splat(t.Lanes, f.Load(build.F32, f.Offset(s[n], r*x.row+u*x.step)))
					for v := range bv {
						s[r*x.nv+v] = f.FMA(av, bv[v], s[r*x.nv+v])
					}
				}
				s[n+1] = f.At(s[n+1], ldb)
			}
			s[n] = f.Offset(s[n], x.unroll*x.step)
			return s
		})
		s = append([]V(nil), s...)
		s[n], s[n+1] = f.At(s[n], aSkip), f.At(s[n+1], bSkip)
		return s
	})
	store := func(add bool) {
		for r := range x.rows {
			row := f.At(c, f.Mul(ldc, build.Int(int64(r))))
			for v := range x.nv {
				y, p := state[r*x.nv+v], f.Offset(row, v*t.Lanes)
				if add {
					y = f.FAdd(f.Load(vt, p), y)
				}
				f.Store(y, p)
			}
		}
	}
	f.If(f.Eq(add, build.Int(0)), func() []V { store(false); return nil }, func() []V { store(true); return nil })
	f.Return()
}

// size is a tile's extent that occurs count times in a row.
type size struct{ extent, count int }

// split cuts n rows into as few tiles of at most most rows as there can be, of
// equal sizes or two.
func split(n, most int) []size {
	count := ceilDiv(n, most)
	q, extra := n/count, n%count
	if extra == 0 {
		return []size{{q, count}}
	}
	return []size{{q + 1, extra}, {q, count - extra}}
}

// panels cuts n columns into register tiles.
func panels(t *build.Target, n int) []size {
	var out []size
	if q := n / t.NR(); q > 0 {
		out = append(out, size{t.NR(), q})
	}
	if r := n % t.NR(); r > 0 {
		out = append(out, size{r, 1})
	}
	return out
}

// each calls body for the sizes of every one of units units, with the place
// of the tile.
func each(f *build.Func, sizes []size, units, unit int, body func(at V, extent int)) {
	f.Range(build.Int(0), build.Int(int64(units)), build.Int(1), func(u V) {
		at := 0
		for _, s := range sizes {
			base := f.Add(f.Mul(u, build.Int(int64(unit))), build.Int(int64(at)))
			if s.count == 1 {
				body(base, s.extent)
			} else {
				f.Range(build.Int(0), build.Int(int64(s.count)), build.Int(1), func(i V) {
					body(f.Add(base, f.Mul(i, build.Int(int64(s.extent)))), s.extent)
				})
			}
			at += s.extent * s.count
		}
	})
}

// directLayout is direct for one target and chunk size.
type directLayout struct {
	*direct
	g          *Gemm
	t          *build.Target
	m, n, k    int
	pic        *picture
	band       int // rows of patches in a block
	rows, cols int // of a chunk
	rowUnits   int // in it
	colUnits   int
	rowUnit    int // as far as in one chunk
	colUnit    int
	slot       int // columns that a unit takes in scratch memory
	ldc        int
	together   int // most chunks that are done in one go: one of a rowsForm
	run        int // of the tiles
	padded, c  int // offsets in scratch
	size       int
	tiles      []tile
	known      map[tile]bool
}

// directLayout returns nil if g is not read in place on t.
func (g *Gemm) directLayout(t *build.Target) *directLayout {
	d := g.direct(g.Packed)
	if d.form == packedForm || multiplies(t, g.Multiply) != ir.F32 {
		return nil
	}
	l := &directLayout{direct: d, g: g, t: t, m: product(g.M), n: product(g.N), k: product(g.K), pic: d.a, known: map[tile]bool{}}
	if d.b != nil {
		l.pic = d.b
	}
	l.rows, l.cols, l.together = min(g.Rows, l.m), min(g.Cols, l.n), 1
	var s layout
	floats := 0
	if d.form == rowsForm {
		if l.k > t.KC || l.cols < l.n || l.rows%l.line != 0 {
			return nil
		}
		l.ldc = t.NR()
		l.run = l.k
		if l.pic != nil {
			l.run = l.pic.kw * l.pic.c
			l.band, floats = l.pic.band(l.pic.y)
		}
		most := 0
		for _, p := range panels(t, l.n) {
			for _, r := range split(l.line, maxRows(t, ceilDiv(p.extent, t.Lanes))) {
				l.want(r.extent, p.extent)
				most = max(most, r.extent)
			}
		}
		l.c = s.take(4 * most * l.ldc)
	} else {
		if !parts(l.rows, d.rowUnit, l.m, 1) || !parts(l.cols, d.colUnit, l.n, columnGrain) {
			return nil
		}
		l.rowUnit, l.colUnit = min(d.rowUnit, l.rows), min(d.colUnit, l.cols)
		l.rowUnits, l.colUnits = l.rows/l.rowUnit, l.cols/l.colUnit
		l.run = l.pic.x
		l.band, floats = l.pic.band(sumPixels / l.pic.x)
		if d.b == nil && l.colUnit%t.Lanes != 0 {
			return nil
		}
		l.slot = roundUp(l.colUnit, t.Lanes)
		l.ldc = l.colUnits*l.slot + 16
		for _, p := range panels(t, l.colUnit) {
			for _, r := range split(l.rowUnit, maxRows(t, ceilDiv(p.extent, t.Lanes))) {
				l.want(r.extent, p.extent)
			}
		}
		// A worker that takes several chunks at once pads the picture once for all of them.
		each := l.rows * l.ldc
		l.together = max(1, min(l.m/l.rows*(l.n/l.cols), sumFloats/each))
		l.c = s.take(4 * l.together * each)
	}
	// A register tile may read to the end of its last vector.
	l.padded = s.take(4 * (floats + 2*t.NR()))
	l.size = s.size
	return l
}

func (l *directLayout) tile(rows, cols int) tile {
	return tile{rows, ceilDiv(cols, l.t.Lanes), l.aRow, l.aStep, unrollOf(l.run)}
}

func (l *directLayout) want(rows, cols int) {
	if x := l.tile(rows, cols); !l.known[x] {
		l.known[x] = true
		l.tiles = append(l.tiles, x)
	}
}

// Tiles lists the register tiles that the kernel calls, beside those of
// EmitMicroKernels.
func (g *Gemm) Tiles(t *build.Target) []tile {
	if l := g.directLayout(t); l != nil {
		return l.tiles
	}
	return nil
}

func (l *directLayout) call(f *build.Func, rows, cols int, a, b, c, run, segs, aSkip, bSkip, ldb, ldc, add V) {
	f32p := build.PtrTo(build.F32)
	ps := []V{a, b, c, run, segs, aSkip, bSkip, ldb, ldc, add}
	fn := f.Module.Extern(l.tile(rows, cols).name(), f32p, f32p, f32p, build.I64, build.I64, build.I64, build.I64, build.I64, build.I64, build.I64)
	f.Call(fn, ps...)
}

// finish runs the epilogue over rows of a tile at c, of cols columns from col.
func (l *directLayout) finish(f *build.Func, args, batch, row V, rows int, col V, cols int, c V) {
	lanes := l.t.Lanes
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
		p := f.At(c, f.Mul(r, build.Int(int64(l.ldc))))
		for v := range nv {
			s.Acc = append(s.Acc, f.Load(f.Module.Vec(), f.Offset(p, v*lanes)))
		}
		l.g.Epilogue(f, s)
	})
}

// base is the address of the operand's first element in a batch.
func (op *Operand) base(f *build.Func, args V, batch []V) V {
	at := V(build.Int(int64(op.At.Const)))
	for i, b := range batch {
		if c := op.At.Batch[i]; c != 0 {
			at = f.Add(at, f.Mul(b, build.Int(int64(c))))
		}
	}
	return f.At(f.SlotPtr(args, op.Slot, op.elem()), at)
}

// emit adds the kernel to m.
func (l *directLayout) emit(m *build.Module) {
	g := l.g
	f, args, c0, c1, scratch := m.Kernel(g.Name)
	floats := func(offset int) V { return f.Cast(f.Offset(scratch, offset), build.F32) }
	padded, c := floats(l.padded), floats(l.c)
	rowRuns, colRuns := ceilDiv(l.m, l.rows), ceilDiv(l.n, l.cols)
	inBatches(f, c0, c1, rowRuns*colRuns, l.together, func(batch, first, count V) {
		position := digits(f, batch, g.Batch)
		if l.form == rowsForm {
			l.emitRows(f, args, batch, position, f.Mul(first, build.Int(int64(l.rows))), padded, c)
		} else {
			l.emitSum(f, args, batch, position, first, count, padded, c)
		}
	})
	f.Return()
}

// inBatches cuts chunks [c0, c1), of which a batch has each, into runs of at most most chunks of one batch, and
// calls body with the batch, the first chunk in it, and how many they are.
func inBatches(f *build.Func, c0, c1 V, each, most int, body func(batch, first, count V)) {
	f.While([]V{c0}, func(s []V) V { return f.Lt(s[0], c1) }, func(s []V) []V {
		first := f.URem(s[0], c64(each))
		count := f.Min(f.Min(f.Sub(c1, s[0]), c64(most)), f.Sub(c64(each), first))
		body(f.UDiv(s[0], c64(each)), first, count)
		return []V{f.Add(s[0], count)}
	})
}

// emitRows does rows of the product, a line of rows after the other.
func (l *directLayout) emitRows(f *build.Func, args, batch V, position []V, row, padded, c V) {
	g, t := l.g, l.t
	line := build.Int(int64(l.line))
	nr := build.Int(int64(t.NR()))
	a := g.A.base(f, args, position)
	b := f.At(f.SlotPtr(args, g.B.Slot, build.F32), f.Mul(batch, build.Int(int64(packedFloats(t, ir.F32, l.n, l.k)))))
	first := f.UDiv(row, line)
	last := f.Min(f.Add(first, build.Int(int64(ceilDiv(l.rows, l.line)))), build.Int(int64(l.m/l.line)))
	lines := func(l0, count V, a V, pitch int, segs, skip int) {
		at := 0
		for _, p := range panels(t, l.n) {
			f.Range(build.Int(0), build.Int(int64(p.count)), build.Int(1), func(j V) {
				j = f.Add(j, build.Int(int64(at)))
				panel := f.At(b, f.Mul(j, build.Int(int64(t.NR()*l.k))))
				f.Range(build.Int(0), count, build.Int(1), func(i V) {
					from := f.At(a, f.Mul(i, build.Int(int64(pitch))))
					start := f.Mul(f.Add(l0, i), line)
					sizes := split(l.line, maxRows(t, ceilDiv(p.extent, t.Lanes)))
					each(f, sizes, 1, l.line, func(r V, rows int) {
						g.fetch(f, args, batch, f.Add(start, r), build.Int(int64(rows)), f.Mul(j, nr))
						l.call(f, rows, p.extent, f.At(from, f.Mul(r, build.Int(int64(l.aRow)))), panel, c,
							build.Int(int64(l.run)), build.Int(int64(segs)), build.Int(int64(skip)), build.Int(0), nr, build.Int(int64(l.ldc)), build.Int(0))
						l.finish(f, args, batch, f.Add(start, r), rows, f.Mul(j, nr), p.extent, c)
					})
				})
			})
			at += p.count
		}
	}
	p := l.pic
	if p == nil {
		lines(first, f.Sub(last, first), f.At(a, f.Mul(row, build.Int(int64(l.aRow)))), l.line*l.aRow, 1, 0)
		return
	}
	f.While([]V{first}, func(s []V) V { return f.Lt(s[0], last) }, func(s []V) []V {
		n := f.UDiv(s[0], build.Int(int64(p.y)))
		y := f.Sub(s[0], f.Mul(n, build.Int(int64(p.y))))
		count := f.Min(f.Min(build.Int(int64(l.band)), f.Sub(build.Int(int64(p.y)), y)), f.Sub(last, s[0]))
		p.pad(f, a, n, y, count, padded)
		lines(s[0], count, padded, p.sy*p.pitch(), p.kh, p.pitch()-l.run)
		return []V{f.Add(s[0], count)}
	})
}

// emitSum does count chunks of a batch of a product with a long sum, block after block.
func (l *directLayout) emitSum(f *build.Func, args, batch V, position []V, first, count, padded, c V) {
	g, t, p := l.g, l.t, l.pic
	cint := func(n int) V { return build.Int(int64(n)) }
	a, b := g.A.base(f, args, position), g.B.base(f, args, position)
	walkChunk := func(row, col, c V, body func(r, n V, rows, cols int, c V)) {
		at := 0
		for _, s := range panels(t, l.colUnit) {
			each(f, []size{s}, 1, 0, func(inUnit V, cols int) {
				inUnit = f.Add(inUnit, cint(at))
				f.Range(cint(0), cint(l.colUnits), cint(1), func(u V) {
					n := f.Add(f.Mul(u, cint(l.colUnit)), inUnit)
					slot := f.Add(f.Mul(u, cint(l.slot)), inUnit)
					each(f, split(l.rowUnit, maxRows(t, ceilDiv(cols, t.Lanes))), l.rowUnits, l.rowUnit, func(r V, rows int) {
						body(f.Add(row, r), f.Add(col, n), rows, cols, f.At(c, f.Add(f.Mul(r, cint(l.ldc)), slot)))
					})
				})
			})
			at += s.extent * s.count
		}
	}
	colRuns := ceilDiv(l.n, l.cols)
	// walk calls body for all tiles of all chunks, with their places in the product and in scratch.
	walk := func(body func(r, n V, rows, cols int, c V)) {
		f.Range(cint(0), count, cint(1), func(i V) {
			chunk := f.Add(first, i)
			row, col := f.Mul(f.UDiv(chunk, cint(colRuns)), cint(l.rows)), f.Mul(f.URem(chunk, cint(colRuns)), cint(l.cols))
			walkChunk(row, col, f.At(c, f.Mul(i, cint(l.rows*l.ldc))), body)
		})
	}
	// inPatch is the place in the padded picture of element i of a patch.
	inPatch := func(i V) V {
		run := cint(p.kw * p.c)
		q := f.UDiv(i, run)
		return f.Add(f.Mul(q, cint(p.pitch())), f.Sub(i, f.Mul(q, run)))
	}
	block := func(k, run, segs V, aAt, bAt V, aSkip, bSkip int) {
		walk(func(r, n V, rows, cols int, c V) {
			from, with := f.At(aAt, f.Mul(r, cint(l.aRow))), f.At(bAt, n)
			if l.a != nil {
				from = f.At(aAt, inPatch(r))
			}
			if l.b != nil {
				with = f.At(bAt, inPatch(n))
			}
			l.call(f, rows, cols, from, with, c, run, segs, cint(aSkip), cint(bSkip), cint(l.bStep), cint(l.ldc), k)
		})
	}
	f.Range(cint(0), cint(p.n), cint(1), func(n V) {
		f.Range(cint(0), cint(p.y), cint(l.band), func(y V) {
			count := f.Min(cint(l.band), f.Sub(cint(p.y), y))
			k := f.Mul(f.Add(f.Mul(n, cint(p.y)), y), cint(p.x))
			skip := p.sy*p.pitch() - p.x*p.sx*p.c
			if l.a != nil {
				p.pad(f, a, n, y, count, padded)
				block(k, cint(p.x), count, padded, f.At(b, f.Mul(k, cint(l.bStep))), skip, 0)
			} else {
				p.pad(f, b, n, y, count, padded)
				block(k, cint(p.x), count, f.At(a, f.Mul(k, cint(l.aStep))), padded, 0, skip)
			}
		})
	})
	walk(func(r, n V, rows, cols int, c V) {
		l.finish(f, args, batch, r, rows, n, cols, c)
	})
}

// columnGrain is what parts of a unit of columns are multiples of: whole
// register tiles on x86.
const columnGrain = 32

// parts reports whether size cuts total into equal chunks of whole units, or
// of equal parts of units.
func parts(size, unit, total, grain int) bool {
	return total%size == 0 && (size%unit == 0 || unit%size == 0 && size%grain == 0)
}

// together reports whether chunks of a product of so many multiply-adds share the padding of a picture,
// where each padding it would take a fifth of its time: an element costs about 20 multiply-adds.
func (d *direct) together(work, chunks int) bool {
	p := d.a
	if d.b != nil {
		p = d.b
	}
	return d.form == sumForm && chunks > 1 && 5*20*chunks*p.n*p.height*p.width*p.c >= work
}

// tileFor cuts a product read in place into chunks.
func (d *direct) tileFor(batches, m, n, k int) (rows, cols int) {
	work := m * n * k
	if d.form == rowsForm {
		chunks := max(ceilDiv(work, chunkWork), min(ceilDiv(fewChunks, batches), ceilDiv(work, 1<<20)))
		unit := d.line
		if p := d.a; p != nil && m/(p.x*p.y) >= chunks {
			unit = p.x * p.y
		}
		return min(m, unit*max(1, m/unit/chunks)), n
	}
	// Every chunk reads whole rows of both operands from afar, for all of the
	// sum: no more chunks than threads want, with tiles of full width.
	chunks := min(ceilDiv(8, batches), ceilDiv(work, 1<<20))
	smaller := func(size, unit, total, grain int) int {
		for s := size / 2; s >= 12; s-- {
			if size%s == 0 && parts(s, unit, total, grain) {
				return s
			}
		}
		return size
	}
	rows, cols = m, n
	for m/rows*(n/cols) < chunks {
		r, c := smaller(rows, d.rowUnit, m, 1), smaller(cols, d.colUnit, n, columnGrain)
		if d.b != nil && c < d.colUnit {
			c = cols // few rows would not repay padding the picture once more
		}
		switch {
		case c < cols && (cols >= 2*rows || r == rows):
			cols = c
		case r < rows:
			rows = r
		default:
			return rows, cols
		}
	}
	return rows, cols
}
