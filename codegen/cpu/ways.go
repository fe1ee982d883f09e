package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
)

// way is how a product is made, as far as it is the same on all targets.
type way interface {
	// tile cuts the product into chunks.
	tile() (rows, cols int)
	// shares reports whether chunks, of g.Rows and g.Cols, have work in common that a worker does once for all it takes in one go.
	shares() bool
	// cost is the multiply-adds, those of lanes without a column included, and copies as multiply-adds.
	cost() int
	// copied counts elements of the left or right operand that chunks of g.Rows and g.Cols copy.
	copied(left bool) int
	// spared counts operations that aren't done.
	spared() int64
	// code is nil where the target or the chunks don't allow it.
	code(t *build.Target) code
}

// code is a way for one target and chunk size.
type code interface {
	bytes() int        // of a worker's scratch memory
	registers() []tile // register tiles that are called, beside those of EmitMicroKernels
	emit(m *build.Module)
}

// ways lists those in which g can be made, the best first.
func (g *Gemm) ways() []way {
	p := packedWay{g}
	if g.Winograd {
		return []way{winogradWay{g.winograd(), p}}
	}
	var out []way
	if w := g.winogradSum(); w != nil {
		out = append(out, winogradSumWay{winogradWay{w, p}})
	}
	d := g.direct(g.Packed)
	if g.thin() {
		out = append(out, thinWay{p, d})
	}
	if d.form != packedForm {
		out = append(out, directWay{d, p})
	}
	return append(out, p)
}

func (g *Gemm) way() way { return g.ways()[0] }

// cut sets the chunks of g, and reports whether they share work.
func (g *Gemm) cut() bool {
	w := g.way()
	g.Rows, g.Cols = w.tile()
	return w.shares()
}

// code is the best way that t and the chunks allow.
func (g *Gemm) code(t *build.Target) code {
	for _, w := range g.ways() {
		if c := w.code(t); c != nil {
			return c
		}
	}
	return nil
}

// Scratch is how many bytes of scratch memory each worker needs.
func (g *Gemm) Scratch(t *build.Target) int { return g.code(t).bytes() }

// Tiles lists the register tiles that the kernel calls, beside those of
// EmitMicroKernels.
func (g *Gemm) Tiles(t *build.Target) []tile { return g.code(t).registers() }

// runs is how many runs of rows and columns there are.
func (g *Gemm) runs() (rows, cols int) {
	return ceilDiv(product(g.M), g.Rows), ceilDiv(product(g.N), g.Cols)
}

// packedWay copies the left operand, and the right one where it doesn't come packed: gemm.go.
type packedWay struct{ g *Gemm }

// sizes are those of the product.
func (w packedWay) sizes() (batches, m, n, k int) {
	return product(w.g.Batch), product(w.g.M), product(w.g.N), product(w.g.K)
}

func (w packedWay) tile() (rows, cols int) {
	batches, m, n, k := w.sizes()
	if !w.g.Packed && w.g.byColumns() {
		return columnsTile(batches, m, n, k)
	}
	return rowsTile(batches, m, n, k, w.g.Packed)
}

func (w packedWay) shares() bool { return w.g.together() }

func (w packedWay) plainCost() int {
	batches, m, n, k := w.sizes()
	return batches * m * roundUp(n, 16) * k
}

func (w packedWay) cost() int {
	batches, m, n, k := w.sizes()
	c := w.plainCost()
	if !w.g.Packed && w.g.byColumns() {
		high, wide := columnsTile(batches, m, n, k)
		return c + 10*batches*k*(m*ceilDiv(n, wide)+n*ceilDiv(m, high))
	}
	// Packing an element costs as much as about 30 multiply-adds.
	c += 30 * batches * m * k
	if !w.g.Packed {
		c += 30 * batches * n * k * ceilDiv(m, 112)
	}
	return c
}

func (w packedWay) copied(left bool) int {
	batches, m, n, k := w.sizes()
	rows, cols := w.g.runs()
	switch {
	case left:
		return batches * m * k * cols
	case w.g.Packed:
		return batches * n * k
	}
	return batches * n * k * rows
}

func (w packedWay) spared() int64 { return 0 }

func (w packedWay) code(t *build.Target) code { return w.g.layout(t) }

// thinWay reads both operands of few rows in place: thin.go.
type thinWay struct {
	packedWay
	d *direct // how it would be read in place otherwise
}

func (w thinWay) tile() (rows, cols int) { return w.g.thinTile() }

// shares is true where each of two threads reads half of the weights, row by row.
func (w thinWay) shares() bool { return product(w.g.Batch) == 2 }

func (w thinWay) cost() int {
	if w.d.form != packedForm {
		return w.plainCost()
	}
	return w.packedWay.cost()
}

func (w thinWay) copied(bool) int { return 0 }

func (w thinWay) code(*build.Target) code {
	if rows, cols := w.g.thinTile(); w.g.Rows < rows || w.g.Cols != cols {
		return nil
	}
	return thinCode{w.g}
}

// directWay reads operands in place: direct.go.
type directWay struct {
	*direct
	packedWay
}

func (w directWay) tile() (rows, cols int) { return w.tileFor(w.sizes()) }

func (w directWay) shares() bool {
	_, m, n, k := w.sizes()
	rows, cols := w.g.runs()
	return w.together(m*n*k, n, rows*cols)
}

func (w directWay) cost() int { return w.plainCost() }

func (w directWay) copied(left bool) int {
	batches, _, n, k := w.sizes()
	rows, cols := w.g.runs()
	p := w.b
	if left {
		p = w.a
	}
	switch {
	case !left && (w.g.Packed || p == nil && w.packs && !w.lines):
		return batches * n * k
	case p == nil:
		return 0
	case w.form == sumForm:
		cols *= rows
	}
	return batches * p.floatsOfAll() * cols
}

func (w directWay) code(t *build.Target) code {
	if l := w.g.directLayout(t); l != nil {
		return l
	}
	return nil
}

// winogradWay makes a convolution by minimal filtering: winograd.go.
type winogradWay struct {
	*winograd
	packedWay
}

func (w winogradWay) tile() (rows, cols int) { return w.tileFor() }

func (w winogradWay) shares() bool { return w.g.Cols < product(w.g.N) }

func (w winogradWay) cost() int { return w.plainCost() / 2 }

func (w winogradWay) copied(left bool) int {
	if !left {
		return w.packedWay.copied(false)
	}
	_, cols := w.g.runs()
	return w.floatsOfAll() * cols
}

func (w winogradWay) spared() int64 {
	_, m, n, k := w.sizes()
	all := 2 * int64(m) * int64(n) * int64(k)
	return all - all/(9*tilePixels)*tileParts
}

func (w winogradWay) code(t *build.Target) code { return w.g.winogradLayout(t) }

// winogradSumWay does the same for the gradient of filters: winograd_grad.go.
type winogradSumWay struct{ winogradWay }

func (w winogradSumWay) tile() (rows, cols int) { return w.sumTileFor() }

func (w winogradSumWay) shares() bool { return false }

func (w winogradSumWay) code(t *build.Target) code {
	if l := w.g.winogradSumLayout(t); l != nil {
		return l
	}
	return nil
}

// chunkWork is how many multiply-adds a chunk should take: about 0.3 ms.
const chunkWork = 24 << 20

// fewChunks is how many chunks a product should have at least where more cost little: threads
// are seldom equally fast, and all wait for the last chunk. With 8 they waited a sixth longer.
const fewChunks = 16

// rowsTile cuts a product whose left operand is packed by rows.
func rowsTile(batches, m, n, depth int, packed bool) (rows, cols int) {
	// 112 rows of a packed block fill half of the L2 cache, in equal runs.
	rows, cols = ceilDiv(m, ceilDiv(m, 112)), n
	if w := rows * n * depth; w > chunkWork {
		cols = cut(n, ceilDiv(w, chunkWork))
	} else if packed {
		rows = ceilDiv(m, ceilDiv(m, min(m, rows*(chunkWork/w))))
	}
	// Few chunks leave processors idle, but cutting rows makes a right operand
	// in place, and cutting columns the left one, be packed once more.
	for batches*ceilDiv(m, rows)*ceilDiv(n, cols) < fewChunks && rows*cols*depth > 1<<20 {
		switch {
		case cols > 32 && (!packed || rows <= 56):
			cols = cut(n, 2*ceilDiv(n, cols))
		case rows > 28:
			rows = ceilDiv(m, 2*ceilDiv(m, rows))
		default:
			return rows, cols
		}
	}
	if wide := cut(n, max(1, n/wideColumns)); (packed || m > 112) && wide > cols && batches*ceilDiv(m, rows)*ceilDiv(n, wide) >= 12 {
		cols = wide
	}
	return rows, cols
}

// wideColumns is how many columns make up for packing their rows in every chunk: with a sum of 8,192, two threads
// do 130 to 158 GFLOP/s by chunks of 32 columns, 155 to 181 by 128.
const wideColumns = 128

// columnsRows is how many rows a chunk of a weight gradient has at most: 16 whole panels on AVX-512. Its sums,
// with 256 columns, take less than half of a L2 cache of 512 KiB.
const columnsRows = 208

// columnsTile cuts a product that packs both operands as rows of columns: a
// weight gradient. An element of either costs as much as 10 multiply-adds in
// every chunk, so chunks are as large as the sum allows, high and wide alike.
func columnsTile(batches, m, n, depth int) (rows, cols int) {
	rows, cols = ceilDiv(m, ceilDiv(m, columnsRows)), cut(n, ceilDiv(n, 256))
	count := func() int { return batches * ceilDiv(m, rows) * ceilDiv(n, cols) }
	if count() < 8 {
		rows = ceilDiv(m, ceilDiv(m, columnsRows/2))
	}
	// Longer than about 5 ms should no chunk take.
	for cols > 64 && rows*cols*depth > 1<<30 {
		cols = cut(n, 2*ceilDiv(n, cols))
	}
	for {
		// Short chunks are worth it only where there would be one: of 128x128 with sums of 1,408 two
		// chunks took 1.8 ms, eight, which pack twice as much, 2.5.
		chunks, least := count(), chunkWork*2/3
		if chunks == 1 {
			least = chunkWork / 8
		}
		if chunks >= 8 || rows*cols*depth <= least {
			return rows, cols
		}
		r, c := ceilDiv(m, 2*ceilDiv(m, rows)), cut(n, 2*ceilDiv(n, cols))
		switch {
		case c < cols && cols >= 2*rows:
			cols = c
		case r >= 16:
			rows = r
		default:
			return rows, cols
		}
	}
}

// cut is the size of parts of n columns. They start at multiples of 32, which
// are whole register tiles on x86.
func cut(n, parts int) int { return min(n, roundUp(ceilDiv(n, parts), 32)) }
