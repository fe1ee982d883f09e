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
	lines                  bool // sums are cut by lines of the picture
	packs                  bool // the right operand is packed where it is wider than a register tile
}

// Limits of products read in place. Beyond them packing is a small share of
// the work, or the rows are so far apart that they share cache sets.
const (
	directCols    = 128 // columns of a rowsForm
	directPitch   = 512 // elements between rows
	directSum     = 1024
	directResults = 1 << 16
	directDepth   = 512       // K of a matrix in a rowsForm; one block on every target
	plainLine     = 16        // rows that tiles of matrices come in
	rowsFloats    = 1 << 12   // of a left operand that go through all columns together: half of a L1 cache
	groupRows     = 64        // rows that go through a part of a right operand's panel together
	pieceCols     = 64        // columns of a rowsForm with sums of several blocks
	sumPixels     = 512       // summed elements in one block of a sumForm
	packedRows    = 256       // rows of a sumForm that make up for packing the right operand
	plainCols     = 128       // columns of a product of two matrices by columns
	plainPitch    = 256       // elements between its left operand's rows
	shareFloats   = 112 << 10 // of results that pictures are padded for together
	subPixels     = 128       // and in a part of it that stays in the L1 cache
	sumFloats     = 1 << 15   // of results that one goes through together: a quarter of a L2 cache of 512 KiB
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
	plainA, plainB := plain(&g.A, ao, as), plain(&g.B, bo, bs)
	d.lines = k >= directSum && k%4 == 0 && m*n <= directResults
	switch {
	case plainA:
		d.aRow, d.aStep = stepOf(ao), stepOf(as)
		if d.aRow > 1 && d.aStep > 1 || max(d.aRow, d.aStep) > directPitch {
			return &direct{}
		}
	default:
		if d.a = pictureOf(&g.A, as, ao); d.a == nil {
			return &direct{}
		}
		d.a.spread()
		d.aRow, d.aStep, d.rowUnit = 1, d.a.sx*d.a.pixel, d.a.unit()
	}
	matrixB := plainB && stepOf(bo) == 1 && n%16 == 0
	switch {
	case d.a != nil && d.lines && matrixB && stepOf(bs) <= directPitch:
		d.packs = m >= packedRows
	case d.a != nil && m*(min(n, columnGrain)+16) <= shareFloats && m >= packedRows && n%16 == 0 && g.byColumns() && g.rightByRows():
		d.lines, d.packs = false, true
	case d.a == nil && matrixB && g.byColumns() && n <= plainCols && d.aStep <= plainPitch && k >= directSum:
		d.lines, d.packs = false, true
	case d.a == nil && d.lines:
		if d.b = pictureOf(&g.B, bs, bo); d.b == nil {
			return &direct{}
		}
		d.bStep, d.colUnit = d.b.sx*d.b.c, d.b.kw*d.b.c
		return d
	default:
		return &direct{}
	}
	d.bStep = stepOf(bs)
	return d
}

// rightByRows reports whether the right operand is computed from rows of matrices, one for each summed element.
func (g *Gemm) rightByRows() bool {
	v, sum := oriented(&g.B, g.N, g.K)
	return sum && v.linear() && len(v.outer) == 0 && len(g.B.Guards) == 0
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
	pixel         int // distance of pixels in it
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
	p.pixel = p.c
	return p
}

// spread moves the pixels of the padded picture apart, so that elements of equal channels lie in all sets of a
// cache: an odd number of lines apart.
func (p *picture) spread() {
	if p.c%32 == 0 {
		p.pixel = p.c + 16
	}
}

// pitch is the distance of rows of the padded picture, in elements.
func (p *picture) pitch() int { return p.width * p.pixel }

// unit is how many elements of a patch lie next to each other in the padded picture.
func (p *picture) unit() int {
	if p.pixel > p.c {
		return p.c
	}
	return p.kw * p.c
}

// inPatch is the place in the padded picture of element i of a patch.
func (p *picture) inPatch(f *build.Func, i V) V {
	q := f.UDiv(i, build.Int(int64(p.c)))
	row := f.UDiv(q, build.Int(int64(p.kw)))
	pixel := f.Sub(q, f.Mul(row, build.Int(int64(p.kw))))
	in := f.Sub(i, f.Mul(q, build.Int(int64(p.c))))
	return f.Add(f.Add(f.Mul(row, build.Int(int64(p.pitch()))), f.Mul(pixel, build.Int(int64(p.pixel)))), in)
}

// band is how many rows of patches a block has, at most limit, and the
// elements of its part of the padded picture.
func (p *picture) band(limit int) (rows, floats int) {
	rows = max(1, min(limit, p.y))
	for rows > 1 && p.floats(rows)/p.pitch()*p.width*p.c > 40<<10 {
		rows--
	}
	rows = ceilDiv(p.y, ceilDiv(p.y, rows))
	return rows, p.floats(rows)
}

// floats is how many elements the padded picture has that so many rows of patches need.
func (p *picture) floats(rows int) int { return ((rows-1)*p.sy + p.kh) * p.pitch() }

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
			zero(to, p.x0*p.pixel)
			from, mid := f.Offset(f.At(src, f.Mul(u, build.Int(int64(p.row)))), p.x0*p.c), f.Offset(to, p.x0*p.pixel)
			copied := func(from, mid V, n int) {
				whole := n / lanes * lanes
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
			}
			if p.pixel == p.c {
				copied(from, mid, (p.x1-p.x0)*p.c)
			} else {
				f.Range(build.Int(0), build.Int(int64(p.x1-p.x0)), build.Int(1), func(i V) {
					copied(f.At(from, f.Mul(i, build.Int(int64(p.c)))), f.At(mid, f.Mul(i, build.Int(int64(p.pixel)))), p.c)
				})
			}
			zero(f.Offset(to, p.x1*p.pixel), (p.width-p.x1)*p.pixel)
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
// Tile (a, b, part, c, run, segs, times, aSkip, bSkip, aJump, ldb, ldc, on, add) sums times times segs runs of run
// elements; after each run a and b skip so many more, and after segs runs a jumps. If on is not 0, the sums go on from those at part, whose rows are NR
// apart. If add is 0, c is written without being read.
func EmitTiles(m *build.Module, tiles []tile) {
	for _, x := range tiles {
		x.emit(m)
	}
}

func (x tile) emit(m *build.Module) {
	t, vt := m.Target, m.Vec()
	f32p := build.PtrTo(build.F32)
	a, b, part, c := build.NoAlias("a", f32p), build.NoAlias("b", f32p), build.Param("part", f32p), build.Param("c", f32p)
	run, segs, times := build.Param("run", build.I64), build.Param("segs", build.I64), build.Param("times", build.I64)
	aSkip, bSkip, aJump := build.Param("aSkip", build.I64), build.Param("bSkip", build.I64), build.Param("aJump", build.I64)
	ldb, ldc, on, add := build.Param("ldb", build.I64), build.Param("ldc", build.I64), build.Param("on", build.I64), build.Param("add", build.I64)
	f := m.Func(x.name(), build.Hidden, a, b, part, c, run, segs, times, aSkip, bSkip, aJump, ldb, ldc, on, add)
	n := x.rows * x.nv
	first := func(at func(r, v int) V) func() []V {
		return func() []V {
			out := make([]V, n)
			for i := range out {
				out[i] = at(i/x.nv, i%x.nv)
			}
			return out
		}
	}
	state := f.If(f.Eq(on, build.Int(0)),
		first(func(int, int) V { return build.Zero(vt) }),
		first(func(r, v int) V { return f.Load(vt, f.Offset(part, r*t.NR()+v*t.Lanes)) }))
	state = append(state, a, b)
	state = f.For(build.Int(0), times, build.Int(1), state, func(_ V, s []V) []V {
		s = f.For(build.Int(0), segs, build.Int(1), s, func(_ V, s []V) []V {
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
		s = append([]V(nil), s...)
		s[n] = f.At(s[n], aJump)
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
	together   int        // most chunks that are done in one go: one of a rowsForm
	run        int        // of the tiles
	pieces     []sumPiece // in a rowsForm with sums of several blocks
	group      int        // lines that go through a piece together
	sub        int        // rows of patches that tiles take at once
	pics       int        // pictures of a block
	bv         *view
	packs      bool // the right operand's columns, for every block
	padded, c  int  // offsets in scratch
	part       int  // sums of a part of a block
	packed     int
	temp       int
	tables     int
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
		if l.cols < l.n || l.rows%l.line != 0 {
			return nil
		}
		l.ldc = t.NR()
		l.run = l.k
		if l.pic != nil {
			l.run = l.pic.kw * l.pic.c
			l.band, floats = l.pic.band(l.pic.y)
		}
		waiting := 0
		if l.k > t.KC {
			// Sums of several blocks, for which a tile takes a row of a patch at a time, or a part of one.
			if l.pic == nil || l.run%unroll != 0 || l.n > pieceCols {
				return nil
			}
			l.pieces = pieces(l.k, kBlock(l.k, t.KC), l.run)
			l.group = max(1, min(l.band, ceilDiv(groupRows, l.line)))
			waiting = l.group * l.line
		}
		most := 0
		for _, p := range panels(t, l.n) {
			for _, r := range split(l.line, maxRows(t, ceilDiv(p.extent, t.Lanes))) {
				l.want(r.extent, p.extent)
				most = max(most, r.extent)
			}
		}
		l.c = s.take(4 * max(most, waiting) * l.ldc)
		l.part = s.take(4 * waiting * l.ldc)
	} else {
		if !parts(l.rows, d.rowUnit, l.m, 1) || !parts(l.cols, d.colUnit, l.n, columnGrain) {
			return nil
		}
		l.rowUnit, l.colUnit = min(d.rowUnit, l.rows), min(d.colUnit, l.cols)
		l.rowUnits, l.colUnits = l.rows/l.rowUnit, l.cols/l.colUnit
		l.pics = 1
		switch kc := kBlock(l.k, t.KC/4); {
		case l.pic == nil:
			// Lines of kc elements.
			if l.k%kc != 0 {
				return nil
			}
			l.pic, l.band, l.sub = &picture{n: l.k / kc, y: 1, x: kc}, 1, 1
		case d.lines:
			l.band, floats = l.pic.band(sumPixels / l.pic.x)
			l.sub = l.band
			if d.packs {
				l.sub = max(1, min(l.band, subPixels/l.pic.x))
			}
		default:
			p := l.pic
			switch {
			case kc%p.x != 0:
				return nil
			case p.y*p.x%kc == 0:
				l.band = kc / p.x
				l.sub = max(1, min(l.band, subPixels/p.x))
			case kc%(p.y*p.x) == 0:
				l.band, l.pics = p.y, kc/(p.y*p.x)
				l.sub = p.y * max(1, min(l.pics, subPixels/(p.y*p.x)))
			default:
				return nil
			}
			floats = l.pics * p.floats(l.band)
		}
		l.run = l.pic.x
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
		// A worker that takes several chunks at once copies the operands once for all of them.
		each := l.rows * l.ldc
		all := l.m / l.rows * (l.n / l.cols)
		l.together = max(1, min(all, shareFloats/each))
		if d.b == nil {
			l.bv, _ = oriented(&g.B, g.N, g.K)
			l.packs = d.packs && l.cols%t.NR() == 0 && (l.n > t.NR() || g.B.Formula != nil)
			if d.packs && !l.packs && !plain(&g.B, g.B.dims(g.N, outerOf), g.B.dims(g.K, sumOfK)) {
				return nil
			}
		}
		l.c = s.take(4 * l.together * each)
		l.part = s.take(4 * l.rows * t.NR())
		if l.packs {
			wide := roundUp(min(l.n, (ceilDiv(l.together, l.m/l.rows)+1)*l.cols), t.NR())
			l.packed = s.take(4 * (l.pics*l.band*l.pic.x*wide + 16))
			l.temp = s.take(packTemp(t))
			l.tables = s.take(l.bv.tableBytes())
		}
	}
	// A register tile may read to the end of its last vector.
	l.padded = s.take(4 * (floats + 2*t.NR()))
	l.size = s.size
	return l
}

// sumPiece is elements [k, k+n) of a sum, all of one row of a patch, in a block that begins at block and has size.
type sumPiece struct {
	k, n, block, size int
	first, last       bool // in the block
}

// pieces cuts sums of k elements, in blocks of kc, where rows of a patch of run elements end.
func pieces(k, kc, run int) []sumPiece {
	var out []sumPiece
	for block := 0; block < k; block += kc {
		end := min(k, block+kc)
		for at := block; at < end; {
			n := min(end, at/run*run+run) - at
			out = append(out, sumPiece{at, n, block, end - block, at == block, at+n == end})
			at += n
		}
	}
	return out
}

func (l *directLayout) tile(rows, cols int) tile {
	unroll := unrollOf(l.run)
	if l.aRow == 1 && l.aStep < rows {
		unroll = 1 // turns share elements, for which LLVM would keep more registers than there are
	}
	return tile{rows, ceilDiv(cols, l.t.Lanes), l.aRow, l.aStep, unroll}
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

func (l *directLayout) call(f *build.Func, rows, cols int, a, b, part, c, run, segs, times, aSkip, bSkip, aJump, ldb, ldc, on, add V) {
	f32p := build.PtrTo(build.F32)
	ps := []V{a, b, part, c, run, segs, times, aSkip, bSkip, aJump, ldb, ldc, on, add}
	i64 := build.I64
	fn := f.Module.Extern(l.tile(rows, cols).name(), f32p, f32p, f32p, f32p, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64)
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
	rowRuns, colRuns := ceilDiv(l.m, l.rows), ceilDiv(l.n, l.cols)
	inBatches(f, c0, c1, rowRuns*colRuns, l.together, func(batch, first, count V) {
		position := digits(f, batch, g.Batch)
		if l.form == rowsForm {
			l.emitRows(f, args, batch, position, f.Mul(first, build.Int(int64(l.rows))), floats(l.padded), floats(l.c), floats(l.part))
		} else {
			l.emitSum(f, args, batch, position, first, count, floats)
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
func (l *directLayout) emitRows(f *build.Func, args, batch V, position []V, row, padded, c, part V) {
	g, t := l.g, l.t
	line := build.Int(int64(l.line))
	nr := build.Int(int64(t.NR()))
	a := g.A.base(f, args, position)
	b := f.At(f.SlotPtr(args, g.B.Slot, build.F32), f.Mul(batch, build.Int(int64(packedFloats(t, ir.F32, l.n, l.k)))))
	first := f.UDiv(row, line)
	last := f.Min(f.Add(first, build.Int(int64(ceilDiv(l.rows, l.line)))), build.Int(int64(l.m/l.line)))
	cint := func(n int) V { return build.Int(int64(n)) }
	// Lines that fit in the L1 cache together go through all panels before the next ones do.
	lines := func(l0, count V, a V, pitch int, segs, skip int) {
		some := max(1, rowsFloats/pitch)
		if l.pieces != nil {
			some = l.group
		}
		f.Range(cint(0), count, cint(some), func(i0 V) {
			i1 := f.Min(f.Add(i0, cint(some)), count)
			at := 0
			for _, p := range panels(t, l.n) {
				sizes := split(l.line, maxRows(t, ceilDiv(p.extent, t.Lanes)))
				// tiles calls body with the first row of every tile, and its place in the left operand.
				tiles := func(body func(row V, rows int, from V)) {
					f.Range(i0, i1, cint(1), func(i V) {
						from := f.At(a, f.Mul(i, cint(pitch)))
						start := f.Mul(f.Add(l0, i), line)
						each(f, sizes, 1, l.line, func(r V, rows int) {
							body(f.Add(start, r), rows, f.At(from, f.Mul(r, cint(l.aRow))))
						})
					})
				}
				f.Range(cint(0), cint(p.count), cint(1), func(j V) {
					j = f.Add(j, cint(at))
					col := f.Mul(j, nr)
					if l.pieces == nil {
						panel := f.At(b, f.Mul(j, cint(t.NR()*l.k)))
						tiles(func(row V, rows int, from V) {
							g.fetch(f, args, batch, row, cint(rows), col)
							l.call(f, rows, p.extent, from, panel, c, c, cint(l.run), cint(segs), cint(1), cint(skip), cint(0), cint(0), nr, cint(l.ldc), cint(0), cint(0))
							l.finish(f, args, batch, row, rows, col, p.extent, c)
						})
						return
					}
					zero := f.Mul(f.Add(l0, i0), line)
					for _, x := range l.pieces {
						panel := f.Add(panelOf(f, ir.F32, cint(x.block), cint(x.size), j, ceilDiv(l.n, t.NR())), cint((x.k-x.block)*t.NR()))
						on := 1
						if x.first {
							on = 0
						}
						ends := x.k+x.n == l.k
						tiles(func(row V, rows int, from V) {
							waiting := f.Mul(f.Sub(row, zero), cint(l.ldc))
							sums := f.At(c, waiting)
							to, add := sums, min(x.block, 1)
							if !x.last {
								to, add = f.At(part, waiting), 0
							}
							if ends {
								g.fetch(f, args, batch, row, cint(rows), col)
							}
							l.call(f, rows, p.extent, f.Offset(from, x.k/l.run*(l.run+skip)+x.k%l.run), f.At(b, panel),
								f.At(part, waiting), to, cint(x.n), cint(1), cint(1), cint(0), cint(0), cint(0), nr, cint(l.ldc), cint(on), cint(add))
							if ends {
								l.finish(f, args, batch, row, rows, col, p.extent, sums)
							}
						})
					}
				})
				at += p.count
			}
		})
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

// emitSum does count chunks of a batch of a product with a long sum, block after block. Chunks are numbered along
// the rows here: those that are done together are of few columns.
func (l *directLayout) emitSum(f *build.Func, args, batch V, position []V, first, count V, floats func(offset int) V) {
	g, t, p := l.g, l.t, l.pic
	cint := func(n int) V { return build.Int(int64(n)) }
	padded, c, packed := floats(l.padded), floats(l.c), floats(l.packed)
	a, b := g.A.base(f, args, position), g.B.base(f, args, position)
	rowRuns := ceilDiv(l.m, l.rows)
	// chunks calls body for every chunk, with its place in the product and that of its sums.
	chunks := func(body func(row, col, c V)) {
		f.Range(cint(0), count, cint(1), func(i V) {
			chunk := f.Add(first, i)
			col := f.UDiv(chunk, cint(rowRuns))
			body(f.Mul(f.Sub(chunk, f.Mul(col, cint(rowRuns))), cint(l.rows)), f.Mul(col, cint(l.cols)), f.At(c, f.Mul(i, cint(l.rows*l.ldc))))
		})
	}
	// columns calls body for the register tiles' columns in a chunk, with the place of their sums.
	columns := func(body func(n, slot V, cols int)) {
		at := 0
		for _, s := range panels(t, l.colUnit) {
			each(f, []size{s}, 1, 0, func(inUnit V, cols int) {
				inUnit = f.Add(inUnit, cint(at))
				f.Range(cint(0), cint(l.colUnits), cint(1), func(u V) {
					body(f.Add(f.Mul(u, cint(l.colUnit)), inUnit), f.Add(f.Mul(u, cint(l.slot)), inUnit), cols)
				})
			})
			at += s.extent * s.count
		}
	}
	rows := func(cols int, body func(r V, rows int)) {
		each(f, split(l.rowUnit, maxRows(t, ceilDiv(cols, t.Lanes))), l.rowUnits, l.rowUnit, body)
	}
	// Columns from col0 on are packed, one panel after the other.
	col0 := f.Mul(f.UDiv(first, cint(rowRuns)), cint(l.cols))
	col1 := f.Min(f.Mul(f.Add(f.UDiv(f.Sub(f.Add(first, count), cint(1)), cint(rowRuns)), cint(1)), cint(l.cols)), cint(l.n))
	panel0, panel1 := f.UDiv(col0, cint(t.NR())), f.CeilDiv(col1, int64(t.NR()))
	var bs *source
	if l.packs {
		bs = bind(f, l.bv, args, position, f.Cast(floats(l.tables), build.I64))
	}
	pad := func(n, y, lines, to V) {
		switch {
		case l.a != nil:
			p.pad(f, a, n, y, lines, to)
		case l.b != nil:
			p.pad(f, b, n, y, lines, to)
		}
	}
	// copyRight copies size elements of the sum from k on of the columns.
	copyRight := func(k, size, to V) {
		switch {
		case !l.packs:
		case l.bv.matrix():
			bs.packRows(k, size, panel0, panel1, cint(l.n), floats(l.temp), to)
		default:
			f.Range(panel0, panel1, cint(1), func(j V) {
				n0 := f.Mul(j, cint(t.NR()))
				bs.packPanel(true, k, size, n0, f.Sub(cint(l.n), n0), floats(l.temp), f.At(to, f.Mul(f.Sub(n0, col0), size)))
			})
		}
	}
	skip := p.sy*p.pitch() - p.x*p.sx*p.pixel
	picFloats := 0
	if l.a != nil || l.b != nil {
		picFloats = p.floats(p.y)
	}
	jump := picFloats - p.y*p.sy*p.pitch()
	// multiply does lines rows of patches of a chunk, from element k of the sum on, whose copies are at padded and packed.
	multiply := func(row, col, c, k, lines, padded, packed V) {
		size := f.Mul(lines, cint(p.x))
		columns(func(n, slot V, cols int) {
			// A part at a time goes through all rows: it stays in the L1 cache.
			f.Range(cint(0), lines, cint(l.sub), func(y V) {
				some := f.Min(cint(l.sub), f.Sub(lines, y))
				segs, times, down := some, V(cint(1)), f.Mul(y, cint(p.sy*p.pitch()))
				if l.pics > 1 {
					segs, times, down = cint(p.y), f.UDiv(some, cint(p.y)), f.Mul(f.UDiv(y, cint(p.y)), cint(picFloats))
				}
				k1 := f.Mul(y, cint(p.x))
				var with V
				from, ldb, aSkip, bSkip := f.At(padded, down), V(cint(l.bStep)), skip, 0
				switch {
				case l.packs:
					ldb = cint(t.NR())
					with = f.At(f.At(packed, f.Mul(f.Sub(f.Add(col, n), col0), size)), f.Mul(k1, ldb))
				case l.b == nil:
					with = f.At(f.At(b, f.Mul(f.Add(k, k1), ldb)), f.Add(col, n))
				default:
					with = f.At(from, p.inPatch(f, f.Add(col, n)))
					bSkip = skip
				}
				if l.a == nil {
					from, aSkip = f.At(a, f.Mul(f.Add(k, k1), cint(l.aStep))), 0
				}
				end := f.Le(lines, f.Add(y, some))
				rows(cols, func(r V, rows int) {
					at := f.Mul(f.Add(row, r), cint(l.aRow))
					if l.a != nil {
						at = p.inPatch(f, f.Add(row, r))
					}
					sums, waiting := f.At(c, f.Add(f.Mul(r, cint(l.ldc)), slot)), f.At(floats(l.part), f.Mul(r, cint(t.NR())))
					l.call(f, rows, cols, f.At(from, at), with, waiting, f.Select(end, sums, waiting), cint(p.x), segs, times, cint(aSkip), cint(bSkip), cint(jump),
						ldb, f.Select(end, cint(l.ldc), cint(t.NR())), y, f.Select(end, k, cint(0)))
				})
			})
		})
	}
	finish := func(row, col, c V) {
		columns(func(n, slot V, cols int) {
			rows(cols, func(r V, rows int) {
				l.finish(f, args, batch, f.Add(row, r), rows, f.Add(col, n), cols, f.At(c, f.Add(f.Mul(r, cint(l.ldc)), slot)))
			})
		})
	}
	// blocks calls body for the blocks of the sum: lines rows of patches from row y of picture n on.
	blocks := func(body func(n, y, k, lines V)) {
		f.Range(cint(0), cint(p.n), cint(l.pics), func(n V) {
			if l.pics > 1 {
				body(n, cint(0), f.Mul(n, cint(p.y*p.x)), f.Mul(f.Min(cint(l.pics), f.Sub(cint(p.n), n)), cint(p.y)))
				return
			}
			f.Range(cint(0), cint(p.y), cint(l.band), func(y V) {
				body(n, y, f.Mul(f.Add(f.Mul(n, cint(p.y)), y), cint(p.x)), f.Min(cint(l.band), f.Sub(cint(p.y), y)))
			})
		})
	}
	blocks(func(n, y, k, lines V) {
		if l.pics > 1 {
			f.Range(cint(0), f.UDiv(lines, cint(p.y)), cint(1), func(i V) {
				pad(f.Add(n, i), cint(0), cint(p.y), f.At(padded, f.Mul(i, cint(picFloats))))
			})
		} else {
			pad(n, y, lines, padded)
		}
		copyRight(k, f.Mul(lines, cint(p.x)), packed)
		chunks(func(row, col, c V) { multiply(row, col, c, k, lines, padded, packed) })
	})
	chunks(finish)
}

// columnGrain is what parts of a unit of columns are multiples of: whole
// register tiles on x86.
const columnGrain = 32

// parts reports whether size cuts total into equal chunks of whole units, or
// of equal parts of units.
func parts(size, unit, total, grain int) bool {
	return total%size == 0 && (size%unit == 0 || unit%size == 0 && size%grain == 0)
}

// together reports whether chunks of a product of so many multiply-adds share the copies of operands: the
// right one's, or a picture's where padding it for each would take a twentieth of the time. An element costs about 20 multiply-adds.
func (d *direct) together(work, n, chunks int) bool {
	if d.form != sumForm || chunks == 1 {
		return false
	}
	p := d.a
	if d.b != nil {
		p = d.b
	}
	return d.packs && (n > 16 || p == nil) || 20*20*chunks*p.n*p.height*p.width*p.c >= work
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
	// Sums of all rows and so few columns have room that a worker copies the picture once for all of them.
	for d.packs && d.a != nil && m*(n+16) > 2*shareFloats && m*(cols+16) > shareFloats && cols%(2*columnGrain) == 0 {
		cols /= 2
	}
	for m/rows*(n/cols) < chunks || m/rows*(n/cols)%2 == 1 && chunks > 1 {
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
