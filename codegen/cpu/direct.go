package cpu

import (
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
	// Patches times a matrix, by lines of the picture,
	case d.a != nil && d.lines && matrixB && stepOf(bs) <= directPitch:
		d.packs = m >= packedRows
	// or, where sums are shorter or the right operand is computed, in the blocks of packed products;
	case d.a != nil && m*(min(n, columnGrain)+16) <= shareFloats && m >= packedRows && n%16 == 0 && g.byColumns() && g.rightByRows():
		d.lines, d.packs = false, true
	// two matrices by columns;
	case d.a == nil && matrixB && g.byColumns() && n <= plainCols && d.aStep <= plainPitch && k >= directSum:
		d.lines, d.packs = false, true
	// a matrix times patches.
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
	way := l.takeSum
	if d.form == rowsForm {
		way = l.takeRows
	}
	floats, ok := way(&s)
	if !ok {
		return nil
	}
	// A register tile may read to the end of its last vector.
	l.padded = s.take(4 * (floats + 2*t.NR()))
	l.size = s.size
	return l
}

// takeRows lays a rowsForm out; floats are those of a padded picture. It is not ok if g is not read in place.
func (l *directLayout) takeRows(s *layout) (floats int, ok bool) {
	t := l.t
	if l.cols < l.n || l.rows%l.line != 0 {
		return 0, false
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
			return 0, false
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
	return floats, true
}

// takeSum lays a sumForm out.
func (l *directLayout) takeSum(s *layout) (floats int, ok bool) {
	d, g, t := l.direct, l.g, l.t
	if !parts(l.rows, d.rowUnit, l.m, 1) || !parts(l.cols, d.colUnit, l.n, columnGrain) {
		return 0, false
	}
	l.rowUnit, l.colUnit = min(d.rowUnit, l.rows), min(d.colUnit, l.cols)
	l.rowUnits, l.colUnits = l.rows/l.rowUnit, l.cols/l.colUnit
	l.pics = 1
	switch kc := kBlock(l.k, t.KC/4); {
	case l.pic == nil:
		// Lines of kc elements.
		if l.k%kc != 0 {
			return 0, false
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
			return 0, false
		case p.y*p.x%kc == 0:
			l.band = kc / p.x
			l.sub = max(1, min(l.band, subPixels/p.x))
		case kc%(p.y*p.x) == 0:
			l.band, l.pics = p.y, kc/(p.y*p.x)
			l.sub = p.y * max(1, min(l.pics, subPixels/(p.y*p.x)))
		default:
			return 0, false
		}
		floats = l.pics * p.floats(l.band)
	}
	l.run = l.pic.x
	if d.b == nil && l.colUnit%t.Lanes != 0 {
		return 0, false
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
			return 0, false
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
	return floats, true
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
	return tile{rows, ceilDiv(cols, l.t.Lanes), l.aRow, l.aStep, unroll, false}
}

func (l *directLayout) want(rows, cols int) {
	if x := l.tile(rows, cols); !l.known[x] {
		l.known[x] = true
		l.tiles = append(l.tiles, x)
	}
}

func (l *directLayout) bytes() int { return l.size }

func (l *directLayout) registers() []tile { return l.tiles }

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
