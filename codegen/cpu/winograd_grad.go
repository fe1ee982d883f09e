package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
)

// The gradient of filters is made in the same parts, by the transposed maps:
//
//	filter' = U' (sum over tiles of (T pixels T')' (S gradients S')) U
//
// A chunk is some channels and columns, for all tiles.

// Sizes that gradients of filters work to.
const (
	winogradSide  = 32        // channels, and columns, of a chunk: as many of both save transforms
	winogradDepth = 64        // most tiles in a block
	winogradRoom  = 110 << 10 // floats of a chunk's sums and a block: most of a L2 cache of 512 KiB
	winogradParts = 4         // least chunks, where 16 channels and columns are left
)

// winogradSum recognises a product of pictures and gradients, and is nil for others. g.Rows and g.Cols are not looked at.
func (g *Gemm) winogradSum() *winograd {
	if g.Packed || product(g.Batch) != 1 || g.Multiply != ir.Invalid && g.Multiply != ir.F32 || !g.rightByRows() {
		return nil
	}
	return winogradOf(pictureOf(&g.A, g.A.dims(g.K, sumOfK), g.A.dims(g.M, outerOf)), product(g.N))
}

// sumTileFor cuts the gradient of filters into chunks. rows counts the results of all nine places in a filter.
func (w *winograd) sumTileFor() (rows, cols int) {
	side := func(n int) int {
		if n%winogradSide == 0 {
			return winogradSide
		}
		return winogradChannels
	}
	channels, cols := side(w.c), side(w.n)
	count := func() int { return w.c / channels * (w.n / cols) }
	for count() < winogradParts {
		switch {
		case channels > winogradChannels && channels >= cols:
			channels /= 2
		case cols > winogradChannels:
			cols /= 2
		case count() == 1:
			channels /= 2
		default:
			return 9 * channels, cols
		}
	}
	return 9 * channels, cols
}

// winogradSumLayout is the gradient of filters for one target and chunk size.
type winogradSumLayout struct {
	layout
	block
	g        *Gemm
	t        *build.Target
	channels int
	parts    int   // distance of the 36 parts of gradients
	sums     int   // and of sums
	bv       *view // the gradients, if they are computed
	// Offsets in scratch: padded pixels, transformed ones, gradients of a row of tiles, transformed ones, sums, a square
	// of vectors, filters and the tables of computed gradients.
	padded, pixels, lines, grads, total, temp, out, tables int
}

// winogradSumLayout is nil if g is not such a gradient.
func (g *Gemm) winogradSumLayout(t *build.Target) *winogradSumLayout {
	w := g.winogradSum()
	if w == nil {
		return nil
	}
	channels := g.Rows / 9
	if g.Rows%9 != 0 || channels%8 != 0 || w.c%channels != 0 || g.Cols%winogradChannels != 0 || w.n%g.Cols != 0 {
		return nil
	}
	w.only(channels)
	depth := (winogradRoom - tileParts*channels*g.Cols) / (tileParts * (channels + g.Cols))
	l := &winogradSumLayout{block: w.block(w.atMost(min(depth, winogradDepth) / w.across)), g: g, t: t, channels: channels}
	l.parts, l.sums = apart(l.tiles*g.Cols), apart(channels*g.Cols)
	if !plain(&g.B, g.B.dims(g.N, outerOf), g.B.dims(g.K, sumOfK)) {
		l.bv, _ = oriented(&g.B, g.N, g.K)
		l.lines = l.take(4 * (l.line()*g.Cols + t.Lanes))
		l.tables = l.take(l.bv.tableBytes())
	}
	l.padded = l.take(4 * (l.floats() + 2*t.NR()))
	l.pixels = l.take(4 * tileParts * l.plane)
	l.grads = l.take(4 * tileParts * l.parts)
	l.total = l.take(4 * tileParts * l.sums)
	l.temp = l.take(4 * tileParts * t.Lanes)
	l.out = l.take(4 * 9 * t.NR())
	return l
}

// tile is the register tile for so many channels and columns.
func (l *winogradSumLayout) tile(rows, cols int) tile {
	return tile{rows, ceilDiv(cols, l.t.Lanes), 1, l.channels, unrollOf(l.tiles), true}
}

func (l *winogradSumLayout) registers() []tile { return heights(l.t, l.channels, l.g.Cols, l.tile) }

func (l *winogradSumLayout) emit(m *build.Module) {
	g, t, p := l.g, l.t, l.picture
	f, args, c0, c1, scratch := m.Kernel(g.Name)
	floats := func(offset int) V { return f.Cast(f.Offset(scratch, offset), build.F32) }
	wide, narrow := maps{f, t.Lanes}, maps{f, min(t.Lanes, l.channels)}
	padded, pixels, lines, grads, total, temp, out := floats(l.padded), floats(l.pixels), floats(l.lines), floats(l.grads), floats(l.total), floats(l.temp), floats(l.out)
	position := digits(f, c64(0), g.Batch)
	a, b := g.A.base(f, args, position), g.B.base(f, args, position)
	var bs *source
	if l.bv != nil {
		bs = bind(f, l.bv, args, position, f.Cast(floats(l.tables), build.I64))
	}
	nr := t.NR()
	// gradients transforms those of rows of tiles from row on, in columns from col.
	gradients := func(row, col V) {
		f.Range(c64(0), c64(l.high), c64(1), func(r V) {
			k := f.Mul(f.Add(row, r), c64(l.line()))
			from, pitch := lines, g.Cols
			if bs != nil {
				bs.load(k, c64(l.line()), col, c64(g.Cols), lines, g.Cols)
			} else {
				pitch = stepOf(g.B.dims(g.K, sumOfK))
				from = f.At(b, f.Add(f.Mul(k, c64(pitch)), col))
			}
			f.Range(c64(0), c64(l.across), c64(1), func(x V) {
				from := f.At(from, f.Mul(x, c64(tileOut*pitch)))
				to := f.At(grads, f.Mul(f.Add(f.Mul(r, c64(l.across)), x), c64(g.Cols)))
				f.Range(c64(0), c64(g.Cols), c64(t.Lanes), func(c V) {
					from, to := f.At(from, c), f.At(to, c)
					wide.square(tileOut, wide.gradients,
						func(row, col int) V { return wide.load(from, (row*p.x+col)*pitch) }, temp,
						func(row, col int, v V) { f.Store(v, f.Offset(to, (row*tileIn+col)*l.parts)) })
				})
			})
		})
	}
	// columns calls body for the panels of a chunk's columns.
	columns := func(body func(col V, cols int)) {
		at := 0
		for _, s := range panels(t, g.Cols) {
			f.Range(c64(0), c64(s.count), c64(1), func(j V) { body(f.Add(c64(at), f.Mul(j, c64(nr))), s.extent) })
			at += s.extent * s.count
		}
	}
	multiply := func(row V) {
		f.Range(c64(0), c64(tileParts), c64(1), func(part V) {
			left, right := f.At(pixels, f.Mul(part, c64(l.plane))), f.At(grads, f.Mul(part, c64(l.parts)))
			sums := f.At(total, f.Mul(part, c64(l.sums)))
			columns(func(col V, cols int) {
				down(f, t, l.channels, cols, tileArgs{a: left, b: f.At(right, col), part: sums, c: f.At(sums, col),
					run: c64(l.tiles), segs: c64(1), times: c64(1), ldb: c64(g.Cols), ldc: c64(g.Cols), add: row}, l.tile)
			})
		})
	}
	finish := func(channel, col V) {
		f.Range(c64(0), c64(l.channels), c64(1), func(c V) {
			columns(func(inChunk V, cols int) {
				from := f.At(total, f.Add(f.Mul(c, c64(g.Cols)), inChunk))
				for v := range ceilDiv(cols, t.Lanes) {
					wide.square(tileIn, wide.filterGradient,
						func(row, col int) V { return wide.load(from, (row*tileIn+col)*l.sums+v*t.Lanes) }, temp,
						func(row, col int, x V) { f.Store(x, f.Offset(out, (row*3+col)*nr+v*t.Lanes)) })
				}
				f.Range(c64(0), c64(9), c64(1), func(tap V) {
					row := f.Add(f.Mul(tap, c64(l.c)), f.Add(channel, c))
					g.segments(f, args, c64(0), row, 1, f.Add(col, inChunk), cols, f.At(out, f.Mul(tap, c64(nr))), nr)
				})
			})
		})
	}
	runs := l.c / l.channels
	f.Range(c0, c1, c64(1), func(chunk V) {
		run := f.UDiv(chunk, c64(runs))
		channel, col := f.Mul(f.Sub(chunk, f.Mul(run, c64(runs))), c64(l.channels)), f.Mul(run, c64(g.Cols))
		f.Range(c64(0), c64(l.rows()), c64(l.high), func(row V) {
			l.transform(narrow, f.At(a, channel), row, padded, pixels, temp)
			gradients(row, col)
			multiply(row)
		})
		finish(channel, col)
	})
	f.Return()
}
