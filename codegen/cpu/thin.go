package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
)

// A thin product has a few rows, such as one position of every stream of a
// batch, and a right operand that is a matrix stored by rows: the weights. It
// takes as long as reading them once, so it reads them as memory gives them
// fastest: a few rows of weights side by side, as far along as the chunks go that a
// worker has taken together. What is summed of the result meanwhile stays in the L1
// cache, or in the L2 where weights come from memory: there only the length of the
// run counts. Package graph halves the sums of such products (Halve), for two
// workers that then read whole rows.

const (
	thinRows    = 16
	thinColumns = 128     // of a chunk, a strip of columns
	thinSums    = 4096    // of the result that are summed at a time: 16 KiB,
	thinFarSums = 16384   // or 64 where memory is slower than that
	thinPad     = 16      // between rows of them, a cache line, so that they don't share cache sets with each other
	thinHigh    = 4       // rows of a register tile
	thinWide    = 2       // and its vectors
	thinDepth   = 8       // rows of weights side by side,
	thinDeep    = 16      // or of more than one register tile where they come from memory
	thinAhead   = 16      // rows to fetch ahead, where more than one register tile takes so long that the processor doesn't,
	thinShort   = 512     // or where rows are so short, in elements, that its streams end before they have begun,
	thinFar     = 1 << 17 // in matrices that no cache near a core holds
)

// thin reports whether g is a thin product.
func (g *Gemm) thin() bool {
	m, n, k := product(g.M), product(g.N), product(g.K)
	if g.Packed || m > thinRows || n < 64 || n*k < 1<<14 {
		return false
	}
	ao, as := g.A.dims(g.M, outerOf), g.A.dims(g.K, sumOfK)
	bo, bs := g.B.dims(g.N, outerOf), g.B.dims(g.K, sumOfK)
	matrix := func(op *Operand, outer, sum []dim) bool {
		return len(op.Guards) == 0 && len(op.More) == 0 && len(outer) <= 1 && len(sum) <= 1
	}
	return matrix(&g.A, ao, as) && g.A.Formula == nil && matrix(&g.B, bo, bs) && stepOf(bo) == 1
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

// thinCode is thinWay for one target and chunk size.
type thinCode struct{ g *Gemm }

// bytes are those of the sums, and of a block of the left operand.
func (c thinCode) bytes() int { return 4 * (c.g.thinSums() + thinRows*(thinPad+thinDeep)) }

func (c thinCode) registers() []tile { return nil }

// thinFar reports whether g's weights come from memory.
func (g *Gemm) thinFar() bool { return product(g.N)*product(g.K) >= thinFar }

// thinSums is how many floats of the result are summed at a time.
func (g *Gemm) thinSums() int {
	if g.thinFar() {
		return thinFarSums
	}
	return thinSums
}

// thinKernel emits one thin product.
type thinKernel struct {
	*build.Func
	g                  *Gemm
	t                  *build.Target
	m, n, k            int
	pitch              int // between rows of the sums
	aRow, aStep, bStep int
	args, batch        V
	a, b, c            V   // operands, from the first column on the right one, and sums
	row                run // of the right operand
}

func (c thinCode) emit(m *build.Module) {
	g := c.g
	f, args, c0, c1, scratch := m.Kernel(g.Name)
	l := &thinKernel{Func: f, g: g, t: m.Target, m: product(g.M), n: product(g.N), k: product(g.K), args: args, c: f.Cast(scratch, build.F32)}
	l.aRow, l.aStep = stepOf(g.A.dims(g.M, outerOf)), stepOf(g.A.dims(g.K, sumOfK))
	l.bStep = stepOf(g.B.dims(g.K, sumOfK))
	l.row = run{s: &source{f: f, v: &view{op: &g.B}}}
	l.row.begin()
	_, width := g.thinTile()
	strips := ceilDiv(l.n, width)
	together := min(strips, g.thinSums()/l.m/width)
	l.pitch = together*width + thinPad
	f.While([]V{c0}, func(chunk []V) V { return f.Lt(chunk[0], c1) }, func(next []V) []V {
		chunk := next[0]
		l.batch = f.UDiv(chunk, c64(strips))
		strip := f.URem(chunk, c64(strips))
		end := f.Min(f.Min(f.Add(strip, c64(together)), c64(strips)), f.Add(strip, f.Sub(c1, chunk)))
		from, to := f.Mul(strip, c64(width)), f.Min(f.Mul(end, c64(width)), c64(l.n))
		position := digits(f, l.batch, g.Batch)
		l.a = g.A.base(f, args, position)
		l.b = f.At(g.B.base(f, args, position), from)
		l.strips(from, f.Sub(to, from))
		return []V{f.Add(chunk, f.Sub(end, strip))}
	})
	f.Return()
}

// thinDepth is how many rows of weights are read side by side.
func (g *Gemm) thinDepth() int {
	if g.thinFar() && product(g.M) > thinHigh {
		return thinDeep
	}
	return thinDepth
}

// thinFetch reports whether a kernel asks for rows of weights ahead.
func (g *Gemm) thinFetch() bool {
	if g.thinFar() {
		return product(g.N) <= thinShort
	}
	return product(g.M) > thinHigh
}

// strips emits cols columns from one on.
func (l *thinKernel) strips(from, cols V) {
	depth := l.g.thinDepth()
	whole := l.k - l.k%depth
	l.rows(c64(0), min(depth, l.k), cols, true)
	l.Range(c64(depth), c64(whole), c64(depth), func(k V) { l.rows(k, depth, cols, false) })
	if l.k > depth {
		l.Range(c64(max(whole, depth)), c64(l.k), c64(1), func(k V) { l.rows(k, 1, cols, false) })
	}
	for r := range l.m {
		l.vectors(cols, l.t.NV, func(at V, n int, mask V) {
			s := &Segment{Args: l.args, Batch: l.batch, Row: c64(r), Col: l.Add(from, at)}
			for v := range n {
				s.Acc = append(s.Acc, l.Load(l.Module.Vec(), l.sum(r, at, v)))
			}
			if mask != nil {
				s.Mask = []V{mask}
			}
			l.g.Epilogue(l.Func, s)
		})
	}
}

// vectors covers cols columns by wide vectors, then single ones, then by a part of one.
func (l *thinKernel) vectors(cols V, wide int, body func(at V, n int, mask V)) {
	lanes := l.t.Lanes
	many, whole := l.Sub(cols, l.URem(cols, c64(wide*lanes))), l.And(cols, c64(-lanes))
	l.Range(c64(0), many, c64(wide*lanes), func(at V) { body(at, wide, nil) })
	l.Range(many, whole, c64(lanes), func(at V) { body(at, 1, nil) })
	if rest := l.n % lanes; rest > 0 {
		l.Range(whole, cols, c64(lanes), func(at V) { body(at, 1, laneMask(lanes, rest)) })
	}
}

// sum is vector v from a column on of row r of the sums.
func (l *thinKernel) sum(r int, at V, v int) V {
	return l.Offset(l.At(l.c, at), r*l.pitch+v*l.t.Lanes)
}

// rows adds the products of depth rows of weights from k on to the sums, or makes
// them the sums.
func (l *thinKernel) rows(k V, depth int, cols V, first bool) {
	lanes, vec := l.t.Lanes, l.Module.Vec()
	a, b := l.At(l.a, l.Mul(k, c64(l.aStep))), l.At(l.b, l.Mul(k, c64(l.bStep)))
	aRow, aStep := l.aRow, l.aStep
	if op := &l.g.A; op.Elem != nil {
		wide := l.Offset(l.c, l.g.thinSums()+thinRows*thinPad)
		for r := range l.m {
			for u := range depth {
				l.Store(op.float32(l.Func, l.Load(op.Elem, l.Offset(a, r*aRow+u*aStep))), l.Offset(wide, r*thinDeep+u))
			}
		}
		a, aRow, aStep = wide, thinDeep, 1
	}
	l.vectors(cols, thinWide, func(at V, nv int, mask V) {
		for r := 0; r < l.m; r += thinHigh {
			high := min(thinHigh, l.m-r)
			acc := make([]V, high*nv)
			for i := range acc {
				acc[i] = build.FloatOf(vec, 0)
				if !first {
					acc[i] = l.Load(vec, l.sum(r+i/nv, at, i%nv))
				}
			}
			for u := range depth {
				l.row.src = l.Offset(l.At(b, at), u*l.bStep)
				if r == 0 && l.g.thinFetch() {
					l.fetch(l.Offset(l.row.src, thinAhead*l.bStep), nv*lanes)
				}
				ys := make([]V, nv)
				for v := range ys {
					ys[v] = l.row.vector(c64(0), v*lanes, mask)
				}
				for i := range high {
					x := l.Splat(lanes, l.Load(build.F32, l.Offset(a, (r+i)*aRow+u*aStep)))
					for v, y := range ys {
						acc[i*nv+v] = l.FMA(x, y, acc[i*nv+v])
					}
				}
			}
			for i, x := range acc {
				l.Store(x, l.sum(r+i/nv, at, i%nv))
			}
		}
	})
}

// fetch asks for n elements of the right operand.
func (l *thinKernel) fetch(p V, n int) {
	line := 16
	if l.g.B.Elem != nil {
		line = 32
	}
	for i := 0; i < n; i += line {
		l.Prefetch(l.Offset(p, i), false, 3)
	}
}
