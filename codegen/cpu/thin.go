package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
)

// A thin product has a few rows, such as one position of every stream of a
// batch, and a right operand that is a matrix stored by rows: the weights. It
// takes as long as reading them once. Chunks are strips of columns, so that a
// row of a strip is one run of memory, and what comes next is fetched ahead.
//
// The rows of most matrices are multiples of 4 KiB apart, where they share the
// sets of the L1 cache. So a product of more rows than one register tile takes,
// which reads the weights more than once, first copies a block of both operands
// to where it stays in that cache. The block after it is fetched to the L2 cache
// meanwhile; where rows are multiples of 16 KiB apart, that has room for fewer.

const (
	thinRows    = 16
	thinColumns = 128 // of a strip: 512 bytes of each row
	thinDepth   = 32  // most rows of weights in a block: 16 KiB, in the L1 cache
	thinAhead   = 24  // rows to fetch ahead where each is read once
	thinHigh    = 4   // rows of a register tile
)

// thin reports whether g is a thin product.
func (g *Gemm) thin() bool {
	m, n, k := product(g.M), product(g.N), product(g.K)
	if g.Packed || m > thinRows || n < 64 || n*k < 1<<14 {
		return false
	}
	ao, as := g.A.dims(g.M, outerOf), g.A.dims(g.K, sumOfK)
	bo, bs := g.B.dims(g.N, outerOf), g.B.dims(g.K, sumOfK)
	return plain(&g.A, ao, as) && plain(&g.B, bo, bs) && stepOf(bo) == 1
}

// thinTile is the tile of a thin product: all rows, one strip. Where long sums
// make few strips, these are narrower.
func (g *Gemm) thinTile() (rows, cols int) {
	m, n, k := product(g.M), product(g.N), product(g.K)
	cols = thinColumns
	for cols > 32 && product(g.Batch)*ceilDiv(n, cols) < 8 && m*min(n, cols)*k > chunkWork/6 {
		cols /= 2
	}
	return m, cols
}

// thinCut reports whether g is thin and cut as thinTile says.
func (g *Gemm) thinCut() bool {
	if !g.thin() {
		return false
	}
	rows, cols := g.thinTile()
	return g.Rows >= rows && g.Cols == cols
}

// thinScratch is the bytes of a strip of the result and of a block of both
// operands.
func (g *Gemm) thinScratch() int {
	m := product(g.M)
	return 4 * (m*thinColumns + thinDepth*thinColumns + m*thinDepth)
}

// thinKernel emits one thin product.
type thinKernel struct {
	*build.Func
	g                  *Gemm
	t                  *build.Target
	m, n, k            int
	aRow, aStep, bStep int
	args, batch        V
	a, b, c            V // operands and the strip's result, rows thinColumns apart
}

// block is some rows of weights, and what they are multiplied with.
type block struct {
	a, b               V
	aRow, aStep, bStep int
	next               V // what will be read of b later, bStep of the kernel apart
	locality           int
}

// emitThin adds a thin product to m.
func emitThin(m *build.Module, g *Gemm) {
	f, args, c0, c1, scratch := m.Kernel(g.Name)
	l := &thinKernel{Func: f, g: g, t: m.Target, m: product(g.M), n: product(g.N), k: product(g.K), args: args, c: f.Cast(scratch, build.F32)}
	l.aRow, l.aStep = stepOf(g.A.dims(g.M, outerOf)), stepOf(g.A.dims(g.K, sumOfK))
	l.bStep = stepOf(g.B.dims(g.K, sumOfK))
	_, width := g.thinTile()
	strips := ceilDiv(l.n, width)
	f.Range(c0, c1, c64(1), func(chunk V) {
		l.batch = f.UDiv(chunk, c64(strips))
		col := f.Mul(f.URem(chunk, c64(strips)), c64(width))
		position := digits(f, l.batch, g.Batch)
		l.a = g.A.base(f, args, position)
		l.b = f.At(g.B.base(f, args, position), col)
		rest := l.n % width
		switch {
		case rest == 0:
			l.strip(col, width)
		case l.n < width:
			l.strip(col, rest)
		default:
			f.If(f.Le(f.Add(col, c64(width)), c64(l.n)), func() []V { l.strip(col, width); return nil }, func() []V { l.strip(col, rest); return nil })
		}
	})
	f.Return()
}

// strip emits cols columns from col.
func (l *thinKernel) strip(col V, cols int) {
	vectors := ceilDiv(cols, l.t.Lanes)
	if l.m > thinHigh {
		l.blocks(cols, vectors)
		l.finish(col, cols, vectors)
		return
	}
	registers := 16
	if l.t.Lanes == 8 {
		registers = 8
	}
	// A tile as wide as the strip passes over the weights once.
	wide := max(1, min(registers/l.m, vectors))
	depth, ahead := l.k, thinAhead
	if wide < vectors {
		depth, ahead = thinDepth, thinDepth
	}
	l.Range(c64(0), c64(l.k), c64(depth), func(k0 V) {
		x := block{aRow: l.aRow, aStep: l.aStep, bStep: l.bStep, locality: 3}
		x.a, x.b = l.At(l.a, l.Mul(k0, c64(l.aStep))), l.At(l.b, l.Mul(k0, c64(l.bStep)))
		x.next = l.Offset(x.b, ahead*l.bStep)
		n := l.Min(c64(depth), l.Sub(c64(l.k), k0))
		for at := 0; at < vectors; at += wide {
			l.tile(x, k0, n, 0, l.m, at, min(wide, vectors-at), cols)
		}
	})
	l.finish(col, cols, vectors)
}

// blocks emits a strip whose operands are copied block by block.
func (l *thinKernel) blocks(cols, vectors int) {
	registers := 16
	if l.t.Lanes == 8 {
		registers = 12
	}
	parts := ceilDiv(vectors, registers/thinHigh)
	tall := ceilDiv(l.m, thinHigh)
	depth := thinDepth
	if l.bStep%(16<<10/4) == 0 {
		depth /= 2
	}
	x := block{aRow: thinDepth, aStep: 1, bStep: thinColumns, locality: 2}
	x.b = l.Offset(l.c, l.m*thinColumns)
	x.a = l.Offset(x.b, thinDepth*thinColumns)
	l.Range(c64(0), c64(l.k), c64(depth), func(k0 V) {
		n := l.Min(c64(depth), l.Sub(c64(l.k), k0))
		from := l.At(l.b, l.Mul(k0, c64(l.bStep)))
		l.copyA(l.At(l.a, l.Mul(k0, c64(l.aStep))), x.a, n)
		l.Range(c64(0), n, c64(1), func(k V) {
			row, to := l.At(from, l.Mul(k, c64(l.bStep))), l.At(x.b, l.Mul(k, c64(thinColumns)))
			for v := range vectors {
				l.Store(l.MaskLoad(l.Module.Vec(), l.Offset(row, v*l.t.Lanes), l.inside(v, cols)), l.Offset(to, v*l.t.Lanes))
			}
		})
		x.next = l.Offset(from, depth*l.bStep)
		for p := range parts {
			at, end := p*vectors/parts, (p+1)*vectors/parts
			for r := range tall {
				first, last := r*l.m/tall, (r+1)*l.m/tall
				l.tile(x, k0, n, first, last-first, at, end-at, thinColumns)
			}
		}
	})
}

// copyA copies n elements of each row of the left operand, to rows thinDepth
// apart.
func (l *thinKernel) copyA(from, to, n V) {
	l.Range(c64(0), c64(l.m), c64(1), func(r V) {
		row, out := l.At(from, l.Mul(r, c64(l.aRow))), l.At(to, l.Mul(r, c64(thinDepth)))
		whole := V(c64(0))
		if l.aStep == 1 {
			whole = l.And(n, c64(-l.t.Lanes))
			l.Range(c64(0), whole, c64(l.t.Lanes), func(k V) { l.Store(l.Load(l.Module.Vec(), l.At(row, k)), l.At(out, k)) })
		}
		l.Range(whole, n, c64(1), func(k V) { l.Store(l.Load(build.F32, l.At(row, l.Mul(k, c64(l.aStep)))), l.At(out, k)) })
	})
}

// inside is the mask of vector v of cols columns, nil for a whole one.
func (l *thinKernel) inside(v, cols int) V {
	if left := cols - v*l.t.Lanes; left < l.t.Lanes {
		return laneMask(l.t.Lanes, left)
	}
	return nil
}

// tile adds the products of x's n rows of weights, which begin with row k0, to a
// tile of the strip, of so many rows from r and nv vectors from at.
func (l *thinKernel) tile(x block, k0, n V, r, rows, at, nv, cols int) {
	lanes := l.t.Lanes
	vec := l.Module.Vec()
	place := func(i, v int) V { return l.Offset(l.c, (r+i)*thinColumns+(at+v)*lanes) }
	acc := l.If(l.Eq(k0, c64(0)), func() []V {
		out := make([]V, rows*nv)
		for i := range out {
			out[i] = build.FloatOf(vec, 0)
		}
		return out
	}, func() []V {
		out := make([]V, rows*nv)
		for i := range out {
			out[i] = l.Load(vec, place(i/nv, i%nv))
		}
		return out
	})
	line := max(1, 16/lanes) // vectors of a cache line
	step := func(k V, u int, acc []V) []V {
		b := l.Offset(l.At(x.b, l.Mul(k, c64(x.bStep))), at*lanes+u*x.bStep)
		next := l.Offset(l.At(x.next, l.Mul(k, c64(l.bStep))), at*lanes+u*l.bStep)
		for v := 0; v < nv && r == 0; v += line {
			l.Prefetch(l.Offset(next, v*lanes), false, x.locality)
		}
		a := l.Offset(l.At(x.a, l.Mul(k, c64(x.aStep))), r*x.aRow+u*x.aStep)
		ys := make([]V, nv)
		for v := range ys {
			ys[v] = l.MaskLoad(vec, l.Offset(b, v*lanes), l.inside(at+v, cols))
		}
		acc = append([]V(nil), acc...)
		for i := 0; i < rows; i++ {
			s := l.Splat(lanes, l.Load(build.F32, l.Offset(a, i*x.aRow)))
			for v := range ys {
				acc[i*nv+v] = l.FMA(s, ys[v], acc[i*nv+v])
			}
		}
		return acc
	}
	const u = 4
	whole := l.And(n, c64(-u))
	acc = l.For(c64(0), whole, c64(u), acc, func(k V, acc []V) []V {
		for i := 0; i < u; i++ {
			acc = step(k, i, acc)
		}
		return acc
	})
	if l.k%u > 0 {
		acc = l.For(whole, n, c64(1), acc, func(k V, acc []V) []V { return step(k, 0, acc) })
	}
	for i, y := range acc {
		l.Store(y, place(i/nv, i%nv))
	}
}

// finish runs the epilogue over the strip.
func (l *thinKernel) finish(col V, cols, vectors int) {
	lanes, nv := l.t.Lanes, l.t.NV
	segment := func(row, at V, n int, masks []V) {
		s := &Segment{Args: l.args, Batch: l.batch, Row: row, Col: l.Add(col, at), Mask: masks}
		p := l.At(l.c, l.Add(l.Mul(row, c64(thinColumns)), at))
		for v := 0; v < n; v++ {
			s.Acc = append(s.Acc, l.Load(l.Module.Vec(), l.Offset(p, v*lanes)))
		}
		l.g.Epilogue(l.Func, s)
	}
	whole := cols / (nv * lanes)
	l.Range(c64(0), c64(l.m), c64(1), func(row V) {
		l.Range(c64(0), c64(whole*nv*lanes), c64(nv*lanes), func(at V) { segment(row, at, nv, nil) })
		if n := vectors - whole*nv; n > 0 {
			at := whole * nv * lanes
			var masks []V
			if cols%lanes != 0 {
				masks = make([]V, n)
				masks[n-1] = laneMask(lanes, cols%lanes)
			}
			segment(row, c64(at), n, masks)
		}
	})
}
