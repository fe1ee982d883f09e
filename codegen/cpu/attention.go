package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/vmath"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// The attention templates. Vector lanes are the queries of a block of the mask
// table (package ops/mask), so scores and probabilities are kept transposed:
// one row of lanes for each key, maxima and sums need no steps between lanes,
// and every product is of scalars and vectors. The keys of an entry, which may
// lie anywhere in the stream, are read where they are; only their addresses
// are gathered.
//
// A chunk of the forward pass is a block of queries of one head. A chunk of
// the gradient is a whole head: it takes the blocks in turn and adds up dk and
// dv in scratch memory, which saves computing scores and probabilities twice
// (five products for each pair instead of seven).

const (
	laneCount  = 32  // queries of a block (mask.Lanes)
	span       = 128 // most keys of an entry (mask.Span)
	entryWords = 5   // of an entry in the table (mask.EntryWords)
)

// masked is the score of a pair that is not allowed: far below any score, and
// finite, so that differences of two are not NaN.
const masked = -1e30

// attention emits one chunk of an attention template.
type attention struct {
	*build.Func
	k                  *kern.Kernel
	t, h, d, blocks    int
	vl                 int
	dp                 int // d rounded up to whole vectors: the stride of copied rows
	args, scratch      V
	used               int // floats of scratch
	batch, head, table V   // of this chunk
}

func newAttention(f *build.Func, k *kern.Kernel, args, scratch V) *attention {
	p := k.Template
	a := &attention{Func: f, k: k, t: p.Int("T"), h: p.Int("H"), d: p.Int("D"), blocks: p.Int("blocks"), args: args}
	a.vl = f.Target.Lanes
	a.dp = roundUp(a.d, a.vl)
	a.scratch = f.Cast(scratch, build.F32)
	return a
}

// attentionScratch is enough for copies of a block and of an entry, two blocks
// of scores and some rows, and for the gradient the sums of dk and dv.
func attentionScratch(k *kern.Kernel, t *build.Target) int {
	dp := roundUp(k.Template.Int("D"), t.Lanes)
	n := 5*laneCount*dp + 2*span*dp + 2*span*laneCount + 4*span + 8*laneCount + 256
	if k.Template.Name == "attention_bwd" {
		n += 2 * k.Template.Int("T") * dp
	}
	return 4 * n
}

func (a *attention) take(n int) V {
	p := a.Offset(a.scratch, a.used)
	a.used += roundUp(n, 16)
	return p
}

// of sets batch and head from the head's number in the batch.
func (a *attention) of(head V) {
	a.head = a.URem(head, c64(a.h))
	a.batch = a.UDiv(head, c64(a.h))
	a.used = 0
}

// dtype is the element type of operand op.
func (a *attention) dtype(op int) ir.DType { return a.k.Bufs[a.k.Template.Views[op].Buf].DType }

// stride is how far apart operand op has the elements along an axis.
func (a *attention) stride(op, axis int) int { return a.k.Template.Views[op].Strides[axis] }

// element is the address of an element of operand op.
func (a *attention) element(op int, idx ...V) V {
	v := a.k.Template.Views[op]
	at := c64(v.Offset)
	for d, i := range idx {
		at = a.Add(at, a.Mul(i, c64(v.Strides[d])))
	}
	return a.At(a.SlotPtr(a.args, v.Buf, storage(a.dtype(op))), at)
}

// index is the integer at i of a list of positions.
func (a *attention) index(list, i V) V { return a.SExt(a.Load(build.I32, a.At(list, i)), build.I64) }

// row is the address of a head's elements at a position, in operand op
// [B,T,H,D].
func (a *attention) row(op int, position V) V { return a.element(op, a.batch, position, a.head) }

// perHead is the address of the element at a position, in operand op [B,H,T].
func (a *attention) perHead(op int, position V) V { return a.element(op, a.batch, a.head, position) }

// queries are those of a block: how many, and the list of their positions.
type queries struct{ n, list V }

// open finds a block in the table: its queries, and the words with its entries.
func (a *attention) open(table int, block V) (b queries, from, to V) {
	a.table = a.element(table)
	from = a.index(a.table, a.Add(block, c64(1)))
	b.n = a.index(a.table, from)
	b.list = a.At(a.table, a.index(a.table, a.Add(from, c64(1))))
	return b, a.Add(from, c64(2)), a.index(a.table, a.Add(block, c64(2)))
}

// entry is some keys of a block.
type entry struct {
	n     V // how many, and
	whole V // that rounded up to a multiple of 8
	list  V // positions, as many as whole
	mask  V // offset of the mask's words, 0 for an entry of which everything is allowed
	lanes   // that have to do with it
	words V // their address, or nil where there is no mask; see masking
}

// lanes are some of a block: from first to end, two vectors at a time.
type lanes struct{ first, end V }

func allLanes() lanes { return lanes{c64(0), c64(laneCount)} }

// entries emits f for the entries of a block.
func (a *attention) entries(from, to V, f func(e entry)) {
	a.Range(from, to, c64(entryWords), func(at V) {
		e := entry{n: a.index(a.table, at)}
		e.whole = a.And(a.Add(e.n, c64(7)), c64(-8))
		e.list = a.At(a.table, a.index(a.table, a.Add(at, c64(1))))
		e.mask = a.index(a.table, a.Add(at, c64(2)))
		e.lanes = allLanes()
		if laneVectors*a.vl < laneCount {
			e.lanes = lanes{a.index(a.table, a.Add(at, c64(3))), a.index(a.table, a.Add(at, c64(4)))}
		}
		f(e)
	})
}

// masking emits f twice, for entries with and without a mask.
func (a *attention) masking(e entry, f func(e entry)) {
	a.If(a.Eq(e.mask, c64(0)), func() []V { f(e); return nil }, func() []V {
		e.words = a.At(a.table, e.mask)
		f(e)
		return nil
	})
}

// columns calls f for every vector of a row of d elements; mask is nil but for
// a last partial one.
func (a *attention) columns(f func(at int, mask V)) {
	for at := 0; at < a.d; at += a.vl {
		var mask V
		if at+a.vl > a.d {
			mask = laneMask(a.vl, a.d-at)
		}
		f(at, mask)
	}
}

func (a *attention) splat(x float64) V { return build.FloatOf(a.Module.Vec(), x) }

// copyIn copies the rows of operand op at n positions to dst as f32, times
// scale, dp apart. Columns that don't exist become 0.
func (a *attention) copyIn(op int, list, n, dst V, scale float64) {
	d := a.dtype(op)
	st := build.VecOf(a.vl, storage(d))
	a.Range(c64(0), n, c64(1), func(r V) {
		from, to := a.row(op, a.index(list, r)), a.At(dst, a.Mul(r, c64(a.dp)))
		a.columns(func(at int, mask V) {
			x := widen(a.Func, d, a.MaskLoad(st, a.Offset(from, at), mask))
			if scale != 1 {
				x = a.FMul(x, a.splat(scale))
			}
			a.Store(x, a.Offset(to, at))
		})
	})
}

// zero clears n floats, a multiple of the vector length.
func (a *attention) zero(p, n V) {
	a.Range(c64(0), n, c64(a.vl), func(i V) { a.Store(a.splat(0), a.At(p, i)) })
}

// transpose writes the transpose of rows x cols floats.
func (a *attention) transpose(src, dst V, rows, cols int) {
	a.Range(c64(0), c64(rows), c64(a.vl), func(r V) {
		a.Range(c64(0), c64(cols), c64(a.vl), func(c V) {
			in := make([]V, a.vl)
			from := a.At(src, a.Add(a.Mul(r, c64(cols)), c))
			for i := range in {
				in[i] = a.Load(a.Module.Vec(), a.Offset(from, i*cols))
			}
			to := a.At(dst, a.Add(a.Mul(c, c64(rows)), r))
			for i, x := range a.Transpose(in) {
				a.Store(x, a.Offset(to, i*rows))
			}
		})
	})
}

// copyOut writes src, dp rows of lanes, times the vectors that scale gives for
// each lane, to the rows of operand op that belong to the queries; rows is
// space for its transpose.
func (a *attention) copyOut(src, rows V, op int, b queries, scale func(lane V) V) {
	a.eachLane(allLanes(), 1, func(q V) {
		s := scale(q)
		a.Range(c64(0), c64(a.d), c64(1), func(r V) {
			p := a.At(src, a.Add(a.Mul(r, c64(laneCount)), q))
			a.Store(a.FMul(a.Load(a.Module.Vec(), p), s), p)
		})
	})
	a.transpose(src, rows, a.dp, laneCount)
	a.Range(c64(0), b.n, c64(1), func(r V) {
		a.writeRow(a.At(rows, a.Mul(r, c64(a.dp))), op, a.index(b.list, r))
	})
}

// writeRow writes d floats to the row of operand op at a position.
func (a *attention) writeRow(from V, op int, position V) {
	to := a.row(op, position)
	a.columns(func(at int, mask V) {
		x := narrow(a.Func, a.dtype(op), a.Load(a.Module.Vec(), a.Offset(from, at)))
		a.MaskStore(x, a.Offset(to, at), mask)
	})
}

// eachLane calls f for the first lane of every group of vectors of l.
func (a *attention) eachLane(l lanes, vectors int, f func(q V)) {
	a.Range(l.first, l.end, c64(vectors*a.vl), f)
}

// gatherer finds the rows of operand op for the keys of one entry after the
// other.
type gatherer struct {
	op   int
	base V // rows are at base + at[i]
	at   V
	copy V // f32 copies of rows of another type, or nil
}

func (a *attention) gatherer(op int) *gatherer {
	g := &gatherer{op: op, at: a.Cast(a.take(2*span), build.I64)}
	if a.dtype(op) != ir.F32 {
		g.copy = a.take(span * a.dp)
		g.base = g.copy
		a.Range(c64(0), c64(span), c64(1), func(i V) { a.Store(a.Mul(i, c64(a.dp)), a.At(g.at, i)) })
		return g
	}
	g.base = a.row(op, c64(0))
	return g
}

// load makes g hold the keys of e. like, if not nil, holds them already.
func (a *attention) load(g *gatherer, e entry, like *gatherer) {
	switch {
	case g.copy != nil:
		a.copyIn(g.op, e.list, e.whole, g.copy, 1)
	case like != nil && a.stride(g.op, 1) == a.stride(like.op, 1):
		g.at = like.at
	default:
		a.Range(c64(0), e.whole, c64(1), func(i V) {
			a.Store(a.Mul(a.index(e.list, i), c64(a.stride(g.op, 1))), a.At(g.at, i))
		})
	}
}

// get is the address of row i.
func (a *attention) get(g *gatherer, i V) V { return a.At(g.base, a.Load(build.I64, a.At(g.at, i))) }

// deep is how many steps of a product's sum are written out.
const deep = 4

// tile adds to acc, n rows of nv vectors, the sum over depth of the scalars
// and vectors at the addresses that at gives for deep steps from k on.
func (a *attention) tile(n, nv int, depth V, acc []V, at func(k V) (x func(i, j int) V, y func(j, v int) V)) []V {
	steps := func(k V, u int, acc []V) []V {
		acc = append([]V(nil), acc...)
		x, y := at(k)
		for j := 0; j < u; j++ {
			ys := make([]V, nv)
			for v := range ys {
				ys[v] = a.Load(a.Module.Vec(), y(j, v))
			}
			for i := 0; i < n; i++ {
				s := a.Splat(a.vl, a.Load(build.F32, x(i, j)))
				for v := range ys {
					acc[i*nv+v] = a.FMA(s, ys[v], acc[i*nv+v])
				}
			}
		}
		return acc
	}
	rest := 0
	if d, ok := build.ConstInt(depth); ok {
		rest = int(d % deep)
		depth = build.Int(d - int64(rest))
	}
	acc = a.For(c64(0), depth, c64(deep), acc, func(k V, acc []V) []V { return steps(k, deep, acc) })
	if rest > 0 {
		acc = steps(depth, rest, acc)
	}
	return acc
}

// zeros are n*nv vectors of 0.
func (a *attention) zeros(n int) []V {
	acc := make([]V, n)
	for i := range acc {
		acc[i] = a.splat(0)
	}
	return acc
}

// tileRows is how many rows, an even number, a tile of nv vectors has at most: it
// leaves registers for a row of y and a scalar.
func (a *attention) tileRows(nv int) int {
	registers := 16
	if a.vl == 8 {
		registers = 12 // of 16
	}
	return min(8, registers/nv&^1)
}

// tiles calls f for tiles of n rows, a multiple of 8: as many of the most rows as leave
// a multiple of 4, and the rest of 4.
func (a *attention) tiles(n V, nv int, f func(r V, rows int)) {
	most := a.tileRows(nv)
	if most != 6 {
		a.Range(c64(0), n, c64(most), func(r V) { f(r, most) })
		return
	}
	// What n leaves when divided by 6 is 0, 4 or 2, of which the last takes a tile more.
	left := a.URem(n, c64(6))
	left = a.Add(left, a.Mul(a.And(left, c64(2)), c64(3)))
	full := a.Sub(n, left)
	a.Range(c64(0), full, c64(6), func(r V) { f(r, 6) })
	a.Range(full, n, c64(4), func(r V) { f(r, 4) })
}

const laneVectors = 2 // of a tile whose vectors are lanes

// scores writes to s the products of the rows of g with y, dp rows of lanes: s
// has a row of lanes for each key of e.
func (a *attention) scores(g *gatherer, y, s V, e entry) {
	a.eachLane(e.lanes, laneVectors, func(q V) {
		from := a.At(y, q)
		a.tiles(e.whole, laneVectors, func(r V, rows int) {
			xs := make([]V, rows)
			for i := range xs {
				xs[i] = a.get(g, a.Add(r, c64(i)))
			}
			acc := a.tile(rows, laneVectors, c64(a.d), a.zeros(rows*laneVectors), func(k V) (func(i, j int) V, func(j, v int) V) {
				yk := a.At(from, a.Mul(k, c64(laneCount)))
				xk := make([]V, rows)
				for i := range xk {
					xk[i] = a.At(xs[i], k)
				}
				return func(i, j int) V { return a.Offset(xk[i], j) }, func(j, v int) V { return a.Offset(yk, j*laneCount+v*a.vl) }
			})
			to := a.At(s, a.Add(a.Mul(r, c64(laneCount)), q))
			for i, x := range acc {
				a.Store(x, a.Offset(to, i/laneVectors*laneCount+i%laneVectors*a.vl))
			}
		})
	})
}

// collect adds to out, d rows of lanes, the sum over the rows of g for the keys of e of
// their elements times the lanes of p. keep, if not nil, gives the factor of out's
// old value for the vector of lanes at q.
func (a *attention) collect(g *gatherer, p, out V, e entry, keep func(q V) V) {
	most := a.tileRows(laneVectors)
	a.eachLane(e.lanes, laneVectors, func(q V) {
		from := a.At(p, q)
		tile := func(r V, rows int) {
			to := a.At(out, a.Add(a.Mul(r, c64(laneCount)), q))
			acc := make([]V, rows*laneVectors)
			for i := range acc {
				acc[i] = a.Load(a.Module.Vec(), a.Offset(to, i/laneVectors*laneCount+i%laneVectors*a.vl))
			}
			for v := 0; keep != nil && v < laneVectors; v++ {
				factor := keep(a.Add(q, c64(v*a.vl)))
				for i := v; i < len(acc); i += laneVectors {
					acc[i] = a.FMul(acc[i], factor)
				}
			}
			acc = a.tile(rows, laneVectors, e.whole, acc, func(k V) (func(i, j int) V, func(j, v int) V) {
				var xs [deep]V
				for j := range xs {
					xs[j] = a.At(a.get(g, a.Add(k, c64(j))), r)
				}
				yk := a.At(from, a.Mul(k, c64(laneCount)))
				return func(i, j int) V { return a.Offset(xs[j], i) }, func(j, v int) V { return a.Offset(yk, j*laneCount+v*a.vl) }
			})
			for i, x := range acc {
				a.Store(x, a.Offset(to, i/laneVectors*laneCount+i%laneVectors*a.vl))
			}
		}
		eights := a.d &^ 7
		a.tiles(c64(eights), laneVectors, tile)
		for at := eights; at < a.d; at += most {
			tile(c64(at), min(a.d-at, most))
		}
	})
}

// scatter adds to the rows of sum, dp apart, at the positions of e, the sum
// over lanes of p's rows times the rows of y, one for each lane.
func (a *attention) scatter(p, y, sum V, e entry) {
	vectors := a.dp / a.vl
	for at := 0; at < vectors; {
		nv := min(4, vectors-at)
		if a.vl == 8 {
			nv = min(2, vectors-at)
		}
		col := at * a.vl
		at += nv
		add := func(rows int, r V) {
			to := make([]V, rows)
			acc := make([]V, rows*nv)
			for i := range to {
				to[i] = a.Offset(a.At(sum, a.Mul(a.index(e.list, a.Add(r, c64(i))), c64(a.dp))), col)
				for v := 0; v < nv; v++ {
					acc[i*nv+v] = a.Load(a.Module.Vec(), a.Offset(to[i], v*a.vl))
				}
			}
			x0, y0 := a.lanesOf(p, r, e.first), a.Offset(a.At(y, a.Mul(e.first, c64(a.dp))), col)
			acc = a.tile(rows, nv, a.Sub(e.end, e.first), acc, func(k V) (func(i, j int) V, func(j, v int) V) {
				xk, yk := a.At(x0, k), a.At(y0, a.Mul(k, c64(a.dp)))
				return func(i, j int) V { return a.Offset(xk, i*laneCount+j) }, func(j, v int) V { return a.Offset(yk, j*a.dp+v*a.vl) }
			})
			for i, x := range acc {
				a.Store(x, a.Offset(to[i/nv], i%nv*a.vl))
			}
		}
		// Repeated positions at the list's end would lose sums, so the rows
		// that don't fill a tile go in pairs, and the last one alone.
		rows := a.tileRows(nv)
		full := a.Sub(e.n, a.URem(e.n, c64(rows)))
		a.Range(c64(0), full, c64(rows), func(r V) { add(rows, r) })
		pairs := a.Sub(e.n, a.And(e.n, c64(1)))
		a.Range(full, pairs, c64(2), func(r V) { add(2, r) })
		a.Range(pairs, e.n, c64(1), func(r V) { add(1, r) })
	}
}

// pairs calls f for every key of e and the vector of lanes at q, u keys at a
// time; allowed is nil where e has no mask. carried goes from one to the next.
func (a *attention) pairs(e entry, q V, u int, carried []V, f func(i int, c, allowed V, carried []V) []V) []V {
	run := func(from, n V, carried []V, words V) []V {
		return a.For(c64(0), n, c64(u), carried, func(c V, carried []V) []V {
			carried = append([]V(nil), carried...)
			for i := 0; i < u; i++ {
				var allowed V
				at := a.Add(c, c64(i))
				if words != nil {
					bit := a.Splat(a.vl, a.Shl(build.IntOf(build.I32, 1), a.Trunc(at, build.I32)))
					allowed = a.Ne(a.And(words, bit), build.IntOf(words.Type(), 0))
				}
				carried = f(i, a.Add(from, at), allowed, carried)
			}
			return carried
		})
	}
	if e.words == nil {
		return run(c64(0), e.whole, carried, nil)
	}
	const group = 32 // keys of a mask word
	return a.For(c64(0), e.whole, c64(group), carried, func(g V, carried []V) []V {
		words := a.Load(build.VecOf(a.vl, build.I32), a.At(e.words, a.Add(a.Mul(g, c64(laneCount/group)), q)))
		return run(g, a.Min(c64(group), a.Sub(e.whole, g)), carried, words)
	})
}

// lanesOf is the vector of lanes at q of row c of s.
func (a *attention) lanesOf(s, c, q V) V { return a.At(s, a.Add(a.Mul(c, c64(laneCount)), q)) }

func (a *attention) vector(p, i V) V { return a.Load(a.Module.Vec(), a.At(p, i)) }

// perLane copies the elements of f32 operand op, [B,H,T], for all lanes.
func (a *attention) perLane(op int, b queries, dst V) {
	a.Range(c64(0), c64(laneCount), c64(1), func(i V) {
		a.Store(a.Load(build.F32, a.perHead(op, a.index(b.list, i))), a.At(dst, i))
	})
}

// forward is the template attention_fwd: q k v table -> out lse.
func (a *attention) forward(chunk V) {
	const q, k, v, table, out, lse = 0, 1, 2, 3, 4, 5
	a.of(a.UDiv(chunk, c64(a.blocks)))
	size := laneCount * a.dp
	rows, qt, ot, s := a.take(size), a.take(size), a.take(size), a.take(span*laneCount)
	top, sum, corr := a.take(laneCount), a.take(laneCount), a.take(laneCount)
	keys, values := a.gatherer(k), a.gatherer(v)
	b, from, to := a.open(table, a.URem(chunk, c64(a.blocks)))
	a.copyIn(q, b.list, c64(laneCount), rows, a.k.Template.F)
	a.transpose(rows, qt, laneCount, a.dp)
	a.zero(ot, c64(size))
	a.eachLane(allLanes(), 1, func(i V) {
		a.Store(a.splat(masked), a.At(top, i))
		a.Store(a.splat(0), a.At(sum, i))
	})
	a.entries(from, to, func(e entry) {
		a.load(keys, e, nil)
		a.scores(keys, qt, s, e)
		a.masking(e, func(e entry) { a.softmax(s, top, sum, corr, e) })
		a.load(values, e, keys)
		a.collect(values, s, ot, e, func(i V) V { return a.vector(corr, i) })
	})
	a.copyOut(ot, rows, out, b, func(i V) V { return a.FDiv(a.splat(1), a.vector(sum, i)) })
	a.eachLane(allLanes(), 1, func(i V) {
		a.Store(a.FAdd(a.vector(top, i), vmath.Log(a.Func, a.vector(sum, i))), a.At(sum, i))
	})
	a.Range(c64(0), b.n, c64(1), func(i V) {
		a.Store(a.Load(build.F32, a.At(sum, i)), a.perHead(lse, a.index(b.list, i)))
	})
}

// softmax replaces the scores s of one entry by exp(s - top), top being the
// largest so far, and updates top, the sums, and corr, the factor for what was
// summed with the old top.
func (a *attention) softmax(s, top, sum, corr V, e entry) {
	const u = 4
	a.eachLane(e.lanes, 1, func(q V) {
		old := a.vector(top, q)
		ms := a.pairs(e, q, u, []V{old, old, old, old}, func(i int, c, allowed V, m []V) []V {
			p := a.lanesOf(s, c, q)
			x := a.Load(a.Module.Vec(), p)
			if allowed != nil {
				x = a.Select(allowed, x, a.splat(masked))
				a.Store(x, p)
			}
			m[i] = a.FMax(x, m[i])
			return m
		})
		m := a.FMax(a.FMax(ms[0], ms[1]), a.FMax(ms[2], ms[3]))
		e.words = nil
		part := a.pairs(e, q, u, []V{a.splat(0), a.splat(0)}, func(i int, c, _ V, part []V) []V {
			p := a.lanesOf(s, c, q)
			x := vmath.Exp(a.Func, a.FSub(a.Load(a.Module.Vec(), p), m))
			a.Store(x, p)
			part[i%2] = a.FAdd(part[i%2], x)
			return part
		})
		factor := vmath.Exp(a.Func, a.FSub(old, m))
		a.Store(m, a.At(top, q))
		a.Store(factor, a.At(corr, q))
		a.Store(a.FMA(a.vector(sum, q), factor, a.FAdd(part[0], part[1])), a.At(sum, q))
	})
}

// scoreGradients replaces the scores s of one entry by probabilities, and the
// products ds of gradients and values by the gradients of the scores, given
// the rows of lse and delta.
func (a *attention) scoreGradients(s, ds, lse, delta V, e entry) {
	a.eachLane(e.lanes, 1, func(i V) {
		lv, dv := a.vector(lse, i), a.vector(delta, i)
		a.pairs(e, i, 2, nil, func(_ int, c, allowed V, _ []V) []V {
			at := a.lanesOf(s, c, i)
			p := vmath.Exp(a.Func, a.FSub(a.Load(a.Module.Vec(), at), lv))
			if allowed != nil {
				p = a.Select(allowed, p, a.splat(0))
			}
			a.Store(p, at)
			at = a.lanesOf(ds, c, i)
			a.Store(a.FMul(p, a.FSub(a.Load(a.Module.Vec(), at), dv)), at)
			return nil
		})
	})
}

// products writes to dst, for each query of a block, the sum of the products of
// its row of rows, dp apart, with that of operand op; and to operand to, [B,H,T].
func (a *attention) products(rows V, op, to int, b queries, dst V) {
	d := a.dtype(op)
	st := build.VecOf(a.vl, storage(d))
	// All lanes, so that what comes of those without a query is a number: they
	// have the position of one.
	a.Range(c64(0), c64(laneCount), c64(1), func(r V) {
		position := a.index(b.list, r)
		from, row := a.row(op, position), a.At(rows, a.Mul(r, c64(a.dp)))
		acc := []V{a.splat(0), a.splat(0)}
		i := 0
		a.columns(func(at int, mask V) {
			x := widen(a.Func, d, a.MaskLoad(st, a.Offset(from, at), mask))
			acc[i%2] = a.FMA(a.Load(a.Module.Vec(), a.Offset(row, at)), x, acc[i%2])
			i++
		})
		sum := a.Reduce(a.FAdd(acc[0], acc[1]), a.FAdd)
		a.Store(sum, a.At(dst, r))
		a.Store(sum, a.perHead(to, position))
	})
}

// gradient is the template attention_bwd: q k v do out lse table -> dq dk dv
// delta, or q k v do delta lse table -> dq dk dv. In the first form delta is
// computed block by block, from rows of do that are in the cache anyway.
func (a *attention) gradient(chunk V) {
	const q, k, v, do, out, lse, table, dq, dk, dv, delta = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
	given := len(a.k.Template.Views) == delta // in the place of out
	a.of(chunk)
	size := laneCount * a.dp
	sumK, sumV := a.take(a.t*a.dp), a.take(a.t*a.dp)
	qs, gs, qt, gt, sum := a.take(size), a.take(size), a.take(size), a.take(size), a.take(size)
	s, ds := a.take(span*laneCount), a.take(span*laneCount)
	l, e := a.take(laneCount), a.take(laneCount)
	keys, values := a.gatherer(k), a.gatherer(v)
	a.zero(sumK, c64(a.t*a.dp))
	a.zero(sumV, c64(a.t*a.dp))
	a.Range(c64(0), c64(a.blocks), c64(1), func(block V) {
		b, from, to := a.open(table, block)
		a.copyIn(q, b.list, c64(laneCount), qs, a.k.Template.F)
		a.transpose(qs, qt, laneCount, a.dp)
		a.copyIn(do, b.list, c64(laneCount), gs, 1)
		a.transpose(gs, gt, laneCount, a.dp)
		a.perLane(lse, b, l)
		if given {
			a.perLane(out, b, e)
		} else {
			a.products(gs, out, delta, b, e)
		}
		a.zero(sum, c64(size))
		a.entries(from, to, func(x entry) {
			a.load(keys, x, nil)
			a.load(values, x, keys)
			a.scores(keys, qt, s, x)
			a.scores(values, gt, ds, x)
			a.masking(x, func(x entry) { a.scoreGradients(s, ds, l, e, x) })
			a.collect(keys, ds, sum, x, nil)
			a.scatter(s, gs, sumV, x)
			a.scatter(ds, qs, sumK, x)
		})
		a.copyOut(sum, qs, dq, b, func(V) V { return a.splat(a.k.Template.F) })
	})
	a.Range(c64(0), c64(a.t), c64(1), func(i V) {
		a.writeRow(a.At(sumK, a.Mul(i, c64(a.dp))), dk, i)
		a.writeRow(a.At(sumV, a.Mul(i, c64(a.dp))), dv, i)
	})
}

func attentionTemplate(body func(a *attention, chunk V), chunks func(p *kern.Template) int) *template {
	return &template{
		emit: func(m *build.Module, k *kern.Kernel) error {
			f, args, c0, c1, scratch := m.Kernel(k.Name)
			a := newAttention(f, k, args, scratch)
			f.Range(c0, c1, c64(1), func(c V) { body(a, c) })
			f.Return()
			return nil
		},
		tile:    func(k *kern.Kernel) (kern.Tile, int) { return kern.Tile{Rows: 1}, chunks(k.Template) },
		scratch: attentionScratch,
	}
}

func init() {
	heads := func(p *kern.Template) int { return p.Int("B") * p.Int("H") }
	templates["attention_fwd"] = attentionTemplate((*attention).forward, func(p *kern.Template) int { return heads(p) * p.Int("blocks") })
	templates["attention_bwd"] = attentionTemplate((*attention).gradient, heads)
}
