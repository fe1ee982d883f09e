package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
)

// Convolutions with filters of 3x3 in steps of 1 are made by minimal filtering: Winograd (1980), as Lavin and Gray (2016) do it
// for networks. Results come in tiles of 4x4, each from 6x6 pixels. Three linear maps T (pixels), U (filters) and
// S (sums), the same along rows and columns, make
//
//	result = S' (sum over channels of (U filter U') * (T pixels T')) S
//
// where * multiplies element by element: 36 products a tile for each pair of channels instead of 144. The 36 sums
// over channels are as many matrix products, of tiles by channels and channels by results.
//
// The maps evaluate polynomials at 0, two pairs of points and infinity. The usual pairs are 1 and 2; of pairs
// that are sums of few powers of two, near and far give the smallest errors: in float32, of the largest result 1.1e-6
// instead of 6.0e-6, where plain sums are 1.4e-7 off (64 channels). A pixel that is no number makes all results of its
// tiles none.
const (
	near = 0.75
	far  = 1.5

	near2 = near * near
	far2  = far * far
)

const (
	tileOut    = 4                 // results of a tile along each axis
	tileIn     = tileOut + 2       // pixels
	tileParts  = tileIn * tileIn   // products
	tilePixels = tileOut * tileOut // results
)

// Sizes that products by minimal filtering work to.
const (
	winogradTiles    = 32       // fewer tiles don't repay transforming the filters
	winogradChannels = 16       // channels come in multiples of these, of which every vector is a part
	winogradFloats   = 80 << 10 // of transformed pixels in a block: most of a L2 cache of 512 KiB
	winogradLeast    = 16       // tiles of a block, if there is a choice: fewer make register tiles low
	winogradSums     = 64 << 10 // of sums that wait for their transform
)

// winograd is the pictures of a convolution by minimal filtering, in tiles.
type winograd struct {
	*picture
	across int // tiles in a row of them
	down   int // rows of tiles in a picture
	n      int // columns of the product
}

// winogradOf is nil where pictures don't consist of whole tiles, or of too few.
func winogradOf(p *picture, n int) *winograd {
	if p == nil || p.kh != 3 || p.kw != 3 || p.sy != 1 || p.sx != 1 || p.y%tileOut != 0 || p.x%tileOut != 0 ||
		p.c%winogradChannels != 0 || n%winogradChannels != 0 {
		return nil
	}
	w := &winograd{picture: p, across: p.x / tileOut, down: p.y / tileOut, n: n}
	if w.rows()*w.across < winogradTiles {
		return nil
	}
	return w
}

// winograd recognises a product of patches and filters by its left operand, and is nil for others.
func (g *Gemm) winograd() *winograd {
	if product(g.Batch) != 1 || g.Multiply != ir.Invalid && g.Multiply != ir.F32 {
		return nil
	}
	return winogradOf(pictureOf(&g.A, g.A.dims(g.M, outerOf), g.A.dims(g.K, sumOfK)), product(g.N))
}

// rows is how many rows of tiles there are.
func (w *winograd) rows() int { return w.picture.n * w.down }

// line is how many results a row of tiles has, for each of n.
func (w *winograd) line() int { return tileOut * w.x }

// whole reports whether so many rows of tiles can be a block: equal parts of pictures, or several.
func (w *winograd) whole(rows int) bool {
	return w.down%rows == 0 || rows%w.down == 0 && w.picture.n%(rows/w.down) == 0
}

// atMost is the largest block of at most so many rows of tiles.
func (w *winograd) atMost(rows int) int {
	rows = min(rows, w.rows())
	for rows > 1 && !w.whole(rows) {
		rows--
	}
	return max(1, rows)
}

// tileFor cuts the product into blocks of rows of tiles, and those into runs of columns. Chunks of one block that a worker
// does in one go share the transformed pixels.
func (w *winograd) tileFor() (rows, cols int) {
	high := w.atMost(max(winogradLeast, winogradFloats/(tileParts*w.c)) / w.across)
	blocks := func() int { return w.rows() / high }
	for blocks() < fewChunks {
		less := w.atMost(high / 2)
		if less == high || less*w.across < winogradLeast {
			break
		}
		high = less
	}
	cols = w.n
	for blocks()*ceilDiv(w.n, cols) < fewChunks && cols > 32 {
		cols = cut(w.n, 2*ceilDiv(w.n, cols))
	}
	return high * w.line(), cols
}

// block is some rows of tiles whose pixels are transformed together.
type block struct {
	*winograd
	high, tiles int // rows of tiles, and tiles
	portion     int // rows of tiles of one picture
	plane       int // distance of the 36 parts
}

// block is one of so many rows of tiles.
func (w *winograd) block(high int) block {
	return block{w, high, high * w.across, min(high, w.down), apart(high * w.across * w.part)}
}

// floats is how many elements the padded pixels of one picture take.
func (b *block) floats() int { return b.picture.floats(b.portion * tileOut) }

// apart is a distance of at least n floats that is an odd number of cache lines, so that the parts of a tile lie in all
// sets of a cache.
func apart(n int) int { return ceilDiv(n, 16)/2*32 + 16 }

// winogradLayout is winograd for one target and chunk size.
type winogradLayout struct {
	layout
	block
	g    *Gemm
	t    *build.Target
	sums int // distance of the 36 parts of sums
	wait int // panels of columns whose sums wait together
	// Offsets in scratch: padded pixels, transformed ones, sums, a square of vectors and a tile of results.
	padded, pixels, waiting, temp, out int
}

// winogradFits reports whether chunks of g are blocks of tiles.
func (g *Gemm) winogradFits() bool {
	w := g.winograd()
	return w != nil && g.Rows%w.line() == 0 && w.whole(g.Rows/w.line())
}

func (g *Gemm) winogradLayout(t *build.Target) *winogradLayout {
	w := g.winograd()
	l := &winogradLayout{block: w.block(g.Rows / w.line()), g: g, t: t}
	l.sums = apart(l.tiles * t.NR())
	l.wait = max(1, min(ceilDiv(min(g.Cols, w.n), t.NR()), winogradSums/(tileParts*l.sums)))
	l.padded = l.take(4 * (l.floats() + 2*t.NR()))
	l.pixels = l.take(4 * tileParts * l.plane)
	l.waiting = l.take(4 * l.wait * tileParts * l.sums)
	l.temp = l.take(4 * tileParts * t.Lanes)
	l.out = l.take(4 * tilePixels * t.NR())
	return l
}

// tile is the register tile for so many tiles and columns.
func (l *winogradLayout) tile(rows, cols int) tile {
	return tile{rows, ceilDiv(cols, l.t.Lanes), l.c, 1, unrollOf(l.c), true}
}

func (l *winogradLayout) registers() []tile {
	return heights(l.t, l.tiles, l.winograd.n, l.tile)
}

// packedFloats is how many float32 elements transformed filters take on t: those of a panel of columns after
// the other; in it the 36 parts; in those, rows of NR columns, one for each channel.
func (w *winograd) packedFloats(t *build.Target) int {
	return tileParts * w.c * roundUp(w.n, t.NR())
}

// maps are the linear maps along one axis, of vectors.
type maps struct {
	*build.Func
	lanes int // of the vectors
}

func (m maps) con(x float64) V { return build.FloatOf(build.VecOf(m.lanes, build.F32), x) }

func (m maps) load(p V, at int) V { return m.Load(build.VecOf(m.lanes, build.F32), m.Offset(p, at)) }

// addTo is a*x + y.
func (m maps) addTo(y V, a float64, x V) V {
	switch a {
	case 1:
		return m.FAdd(y, x)
	case -1:
		return m.FSub(y, x)
	}
	return m.FMA(m.con(a), x, y)
}

// pair is y + a*x and y - a*x.
func (m maps) pair(y V, a float64, x V) (plus, minus V) { return m.addTo(y, a, x), m.addTo(y, -a, x) }

// pixels is T. For each point it has the coefficients of the polynomial whose zeros are the others.
func (m maps) pixels(d []V) []V {
	out := make([]V, tileIn)
	out[0] = m.addTo(m.addTo(d[4], -(near2+far2), d[2]), near2*far2, d[0])
	out[1], out[2] = m.pair(m.addTo(d[4], -far2, d[2]), near, m.addTo(d[3], -far2, d[1]))
	out[3], out[4] = m.pair(m.addTo(d[4], -near2, d[2]), far, m.addTo(d[3], -near2, d[1]))
	out[5] = m.addTo(m.addTo(d[5], -(near2+far2), d[3]), near2*far2, d[1])
	return out
}

// Divisors of the points' parts.
const (
	ofZero = near2 * far2
	ofNear = 2 * near2 * (near2 - far2)
	ofFar  = 2 * far2 * (far2 - near2)
)

// filter is U: the values of g, as a polynomial, at the points.
func (m maps) filter(g []V) []V {
	out := make([]V, tileIn)
	out[0] = m.FMul(m.con(1/ofZero), g[0])
	out[1], out[2] = m.pair(m.addTo(m.FMul(m.con(1/ofNear), g[0]), near2/ofNear, g[2]), near/ofNear, g[1])
	out[3], out[4] = m.pair(m.addTo(m.FMul(m.con(1/ofFar), g[0]), far2/ofFar, g[2]), far/ofFar, g[1])
	out[5] = g[2]
	return out
}

// folded are sums and differences of the parts of both pairs of points.
func (m maps) folded(s []V) (e1, o1, e2, o2 V) {
	e1, o1 = m.pair(s[1], 1, s[2])
	e2, o2 = m.pair(s[3], 1, s[4])
	return e1, o1, e2, o2
}

// results is S': results from sums.
func (m maps) results(s []V) []V {
	e1, o1, e2, o2 := m.folded(s)
	return []V{
		m.FAdd(s[0], m.FAdd(e1, e2)),
		m.addTo(m.FMul(m.con(near), o1), far, o2),
		m.addTo(m.FMul(m.con(near2), e1), far2, e2),
		m.addTo(m.addTo(s[5], near*near2, o1), far*far2, o2),
	}
}

// gradients is S: results' gradients at the points.
func (m maps) gradients(y []V) []V {
	out := make([]V, tileIn)
	out[0] = y[0]
	out[1], out[2] = m.pair(m.addTo(y[0], near2, y[2]), near, m.addTo(y[1], near2, y[3]))
	out[3], out[4] = m.pair(m.addTo(y[0], far2, y[2]), far, m.addTo(y[1], far2, y[3]))
	out[5] = y[3]
	return out
}

// filterGradient is U': gradients of filters from sums.
func (m maps) filterGradient(s []V) []V {
	e1, o1, e2, o2 := m.folded(s)
	return []V{
		m.addTo(m.addTo(m.FMul(m.con(1/ofZero), s[0]), 1/ofNear, e1), 1/ofFar, e2),
		m.addTo(m.FMul(m.con(near/ofNear), o1), far/ofFar, o2),
		m.addTo(m.addTo(s[5], near2/ofNear, e1), far2/ofFar, e2),
	}
}

// transform pads the pixels of a block from row of tiles row on and transforms them, of a picture that begins at from.
func (b *block) transform(m maps, from, row, padded, pixels, temp V) {
	p := b.picture
	m.Range(c64(0), c64(b.high/b.portion), c64(1), func(i V) {
		at := m.Add(row, m.Mul(i, c64(b.portion)))
		n := m.UDiv(at, c64(b.down))
		y := m.Mul(m.Sub(at, m.Mul(n, c64(b.down))), c64(tileOut))
		p.pad(m.Func, from, n, y, c64(b.portion*tileOut), padded)
		m.Range(c64(0), c64(b.portion), c64(1), func(r V) {
			m.Range(c64(0), c64(b.across), c64(1), func(x V) {
				from := m.At(padded, m.Add(m.Mul(r, c64(tileOut*p.pitch())), m.Mul(x, c64(tileOut*p.pixel))))
				tile := m.Add(m.Mul(m.Add(m.Mul(i, c64(b.portion)), r), c64(b.across)), x)
				to := m.At(pixels, m.Mul(tile, c64(p.part)))
				m.Range(c64(0), c64(p.part), c64(m.lanes), func(c V) {
					from, to := m.At(from, c), m.At(to, c)
					m.square(tileIn, m.pixels,
						func(row, col int) V { return m.load(from, row*p.pitch()+col*p.pixel) }, temp,
						func(row, col int, v V) { m.Store(v, m.Offset(to, (row*tileIn+col)*b.plane)) })
				})
			})
		})
	})
}

// square applies a map along both axes of in by in vectors. Between the two they are at temp.
func (m maps) square(in int, along func([]V) []V, load func(row, col int) V, temp V, store func(row, col int, v V)) {
	line := make([]V, in)
	out := 0
	for c := range in {
		for r := range line {
			line[r] = load(r, c)
		}
		ys := along(line)
		out = len(ys)
		for r, y := range ys {
			m.Store(y, m.Offset(temp, (r*in+c)*m.lanes))
		}
	}
	for r := range out {
		for c := range line {
			line[c] = m.load(temp, (r*in+c)*m.lanes)
		}
		for c, y := range along(line) {
			store(r, c, y)
		}
	}
}
