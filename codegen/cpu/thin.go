package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
)

// A thin product has a few rows, such as one position of every stream of a
// batch, and a right operand that is a matrix stored by rows: the weights. It
// takes as long as reading them once. Chunks are strips of columns, so that a
// row of a strip is one run of memory, and what comes next is fetched ahead.

const (
	thinRows    = 16
	thinColumns = 128 // of a strip: 512 bytes of each row
	thinDepth   = 32  // rows of weights in the L1 cache (16 KiB) that all rows of the result pass over
	thinAhead   = 24  // rows to fetch ahead where each is read once
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

// thinTile is the tile of a thin product: all rows, one strip.
func (g *Gemm) thinTile() (rows, cols int) { return product(g.M), thinColumns }

// thinCut reports whether g is thin and cut as thinTile says.
func (g *Gemm) thinCut() bool {
	return g.thin() && g.Rows >= product(g.M) && g.Cols == thinColumns
}

// thinScratch is the bytes of a strip of the result.
func (g *Gemm) thinScratch() int { return 4 * product(g.M) * thinColumns }

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

// emitThin adds a thin product to m.
func emitThin(m *build.Module, g *Gemm) {
	f, args, c0, c1, scratch := m.Kernel(g.Name)
	l := &thinKernel{Func: f, g: g, t: m.Target, m: product(g.M), n: product(g.N), k: product(g.K), args: args, c: f.Cast(scratch, build.F32)}
	l.aRow, l.aStep = stepOf(g.A.dims(g.M, outerOf)), stepOf(g.A.dims(g.K, sumOfK))
	l.bStep = stepOf(g.B.dims(g.K, sumOfK))
	strips := ceilDiv(l.n, thinColumns)
	f.Range(c0, c1, c64(1), func(chunk V) {
		l.batch = f.UDiv(chunk, c64(strips))
		col := f.Mul(f.URem(chunk, c64(strips)), c64(thinColumns))
		position := digits(f, l.batch, g.Batch)
		l.a = g.A.base(f, args, position)
		l.b = f.At(g.B.base(f, args, position), col)
		rest := l.n % thinColumns
		switch {
		case rest == 0:
			l.strip(col, thinColumns)
		case l.n < thinColumns:
			l.strip(col, rest)
		default:
			f.If(f.Le(f.Add(col, c64(thinColumns)), c64(l.n)), func() []V { l.strip(col, thinColumns); return nil }, func() []V { l.strip(col, rest); return nil })
		}
	})
	f.Return()
}

// strip emits cols columns from col.
func (l *thinKernel) strip(col V, cols int) {
	vectors := ceilDiv(cols, l.t.Lanes)
	registers := 16
	if l.t.Lanes == 8 {
		registers = 8
	}
	// A tile as wide as the strip passes over the weights once, whatever its
	// height; others go over a few rows at a time.
	high := min(l.m, 8)
	wide := max(1, min(registers/high, vectors))
	depth, ahead := l.k, thinAhead
	if wide < vectors || high < l.m {
		depth, ahead = thinDepth, thinDepth
	}
	l.Range(c64(0), c64(l.k), c64(depth), func(k0 V) {
		k1 := l.Min(l.Add(k0, c64(depth)), c64(l.k))
		for at := 0; at < vectors; at += wide {
			nv := min(wide, vectors-at)
			for r := 0; r < l.m; r += high {
				l.tile(k0, k1, r, min(high, l.m-r), at, nv, cols, ahead)
			}
		}
	})
	l.finish(col, cols, vectors)
}

// tile adds the products of rows k0 to k1-1 of the weights to a tile of the
// strip, of so many rows from r and nv vectors from at.
func (l *thinKernel) tile(k0, k1 V, r, rows, at, nv, cols, ahead int) {
	lanes := l.t.Lanes
	vec := l.Module.Vec()
	place := func(i, v int) V { return l.Offset(l.c, (r+i)*thinColumns+(at+v)*lanes) }
	mask := func(v int) V {
		if left := cols - (at+v)*lanes; left < lanes {
			return laneMask(lanes, left)
		}
		return nil
	}
	first := l.Eq(k0, c64(0))
	acc := l.If(first, func() []V {
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
		b := l.Offset(l.At(l.b, l.Mul(k, c64(l.bStep))), at*lanes+u*l.bStep)
		for v := 0; v < nv && r == 0; v += line {
			l.Prefetch(l.Offset(b, ahead*l.bStep+v*lanes), false, 3)
		}
		a := l.Offset(l.At(l.a, l.Mul(k, c64(l.aStep))), r*l.aRow+u*l.aStep)
		ys := make([]V, nv)
		for v := range ys {
			ys[v] = l.MaskLoad(vec, l.Offset(b, v*lanes), mask(v))
		}
		acc = append([]V(nil), acc...)
		for i := 0; i < rows; i++ {
			x := l.Splat(lanes, l.Load(build.F32, l.Offset(a, i*l.aRow)))
			for v := range ys {
				acc[i*nv+v] = l.FMA(x, ys[v], acc[i*nv+v])
			}
		}
		return acc
	}
	const u = 4
	whole := l.Add(k0, l.And(l.Sub(k1, k0), c64(-u)))
	acc = l.For(k0, whole, c64(u), acc, func(k V, acc []V) []V {
		for i := 0; i < u; i++ {
			acc = step(k, i, acc)
		}
		return acc
	})
	if l.k%u > 0 {
		acc = l.For(whole, k1, c64(1), acc, func(k V, acc []V) []V { return step(k, 0, acc) })
	}
	for i, x := range acc {
		l.Store(x, place(i/nv, i%nv))
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
