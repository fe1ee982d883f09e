package cpu

import (
	"fmt"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/vmath"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// The attention templates. A chunk is one block of 32 positions of one head:
// queries, or keys in attention_bwd_dkv. Vector lanes run over these
// positions, so scores and probabilities are kept transposed, maxima and sums
// need no steps between lanes, and every product is of one scalar and a vector.
// The block table then gives the blocks of the other side one after the other.

// edge is the number of positions in a block.
const edge = 32

// masked is the score of a pair that is not allowed: far below any score, and
// finite, so that differences of two are not NaN.
const masked = -1e30

// attention emits one chunk of an attention template.
type attention struct {
	*build.Func
	k          *kern.Kernel
	b, t, h, d int
	vl         int
	dp         int // d rounded up to whole vectors: the stride of copied rows
	mr         int // rows of a register tile; it is two vectors wide
	args       V
	scratch    V
	used       int // floats of scratch

	batch, head, block V // of this chunk
}

func newAttention(f *build.Func, k *kern.Kernel, args, scratch V) *attention {
	p := k.Template
	a := &attention{Func: f, k: k, b: p.Int("B"), t: p.Int("T"), h: p.Int("H"), d: p.Int("D"), args: args}
	a.vl = f.Module.Target.Lanes
	a.dp = roundUp(a.d, a.vl)
	a.mr = 8
	if a.vl == 8 { // 16 registers
		a.mr = 4
	}
	a.scratch = f.Cast(scratch, build.F32)
	return a
}

// attentionScratch is enough for six copies of a block, two blocks of scores
// and some rows.
func attentionScratch(k *kern.Kernel, t *build.Target) int {
	dp := roundUp(k.Template.Int("D"), t.Lanes)
	return 4 * (6*edge*dp + 2*edge*edge + 6*edge + 64)
}

func (a *attention) take(n int) V {
	p := a.Offset(a.scratch, a.used)
	a.used += roundUp(n, 16)
	return p
}

// chunk sets batch, head and block from the chunk's number.
func (a *attention) chunk(c V) {
	nb := c64(ceilDiv(a.t, edge))
	a.block = a.URem(c, nb)
	bh := a.UDiv(c, nb)
	a.head = a.URem(bh, c64(a.h))
	a.batch = a.UDiv(bh, c64(a.h))
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

// position is the first row of a block in operand op, [B,T,H,D].
func (a *attention) position(op int, block V) V {
	return a.element(op, a.batch, a.Mul(block, c64(edge)), a.head)
}

// perHead is the first element of a block in operand op, f32 [B,H,T].
func (a *attention) perHead(op int, block V) V {
	return a.element(op, a.batch, a.head, a.Mul(block, c64(edge)))
}

// rowsOf is how many rows of a block exist.
func (a *attention) rowsOf(block V) V {
	if a.t%edge == 0 {
		return c64(edge)
	}
	return a.Min(c64(edge), a.Sub(c64(a.t), a.Mul(block, c64(edge))))
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

// copyIn copies a block of buffer buf to dst as f32, times scale, rows dp
// apart. Rows and columns that don't exist become 0.
func (a *attention) copyIn(buf int, block, dst V, scale float64) {
	d := a.dtype(buf)
	src := a.position(buf, block)
	rows := a.rowsOf(block)
	st := build.VecOf(a.vl, storage(d))
	a.Range(c64(0), rows, c64(1), func(r V) {
		from, to := a.At(src, a.Mul(r, c64(a.stride(buf, 1)))), a.At(dst, a.Mul(r, c64(a.dp)))
		a.columns(func(at int, mask V) {
			x := widen(a.Func, d, a.MaskLoad(st, a.Offset(from, at), mask))
			if scale != 1 {
				x = a.FMul(x, a.splat(scale))
			}
			a.Store(x, a.Offset(to, at))
		})
	})
	if a.t%edge != 0 {
		a.zero(a.At(dst, a.Mul(rows, c64(a.dp))), a.Mul(a.Sub(c64(edge), rows), c64(a.dp)))
	}
}

// zero clears n floats, a multiple of the vector length.
func (a *attention) zero(p, n V) {
	a.Range(c64(0), n, c64(a.vl), func(i V) { a.Store(a.splat(0), a.At(p, i)) })
}

// turn writes the transpose of src, edge rows of dp, to dst, dp rows of edge.
func (a *attention) turn(src, dst V) { a.transpose(src, dst, edge, a.dp) }

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

// copyOut writes src, dp rows of edge lanes, to the chunk's block of buf, times
// the vectors that scale gives for each lane; rows is space for its transpose.
func (a *attention) copyOut(src, rows V, buf int, scale func(lane V) V) {
	a.eachLane(func(q V) {
		s := scale(q)
		a.Range(c64(0), c64(a.d), c64(1), func(r V) {
			p := a.At(src, a.Add(a.Mul(r, c64(edge)), q))
			a.Store(a.FMul(a.Load(a.Module.Vec(), p), s), p)
		})
	}, 1)
	a.transpose(src, rows, a.dp, edge)
	d := a.dtype(buf)
	dst := a.position(buf, a.block)
	a.Range(c64(0), a.rowsOf(a.block), c64(1), func(r V) {
		from, to := a.At(rows, a.Mul(r, c64(a.dp))), a.At(dst, a.Mul(r, c64(a.stride(buf, 1))))
		a.columns(func(at int, mask V) {
			x := narrow(a.Func, d, a.Load(a.Module.Vec(), a.Offset(from, at)))
			a.MaskStore(x, a.Offset(to, at), mask)
		})
	})
}

// eachLane calls f for the first lane of every group of vectors of a block.
func (a *attention) eachLane(f func(q V), vectors int) {
	a.Range(c64(0), c64(edge), c64(vectors*a.vl), f)
}

// product computes out[r][lane] (+)= sum over k of x[r*xr+k*xk] * y[k][lane]
// for rows of edge lanes; rows and depth are constants or multiples of 8. keep
// is nil to overwrite out, or gives the factor of its old value for the vector
// of lanes at q.
func (a *attention) product(rows, depth V, x V, xr, xk int, y, out V, keep func(q V) V) {
	const nv = 2
	tile := func(n int, r, q V) {
		to := a.At(out, a.Add(a.Mul(r, c64(edge)), q))
		acc := make([]V, n*nv)
		for v := 0; v < nv; v++ {
			var factor V
			if keep != nil {
				factor = keep(a.Add(q, c64(v*a.vl)))
			}
			for i := 0; i < n; i++ {
				switch {
				case keep == nil:
					acc[i*nv+v] = a.splat(0)
				case factor == nil:
					acc[i*nv+v] = a.Load(a.Module.Vec(), a.Offset(to, i*edge+v*a.vl))
				default:
					acc[i*nv+v] = a.FMul(a.Load(a.Module.Vec(), a.Offset(to, i*edge+v*a.vl)), factor)
				}
			}
		}
		x0, y0 := a.At(x, a.Mul(r, c64(xr))), a.At(y, q)
		step := func(k V, u int, acc []V) []V {
			acc = append([]V(nil), acc...)
			xp, yp := a.At(x0, a.Mul(k, c64(xk))), a.At(y0, a.Mul(k, c64(edge)))
			for j := 0; j < u; j++ {
				var ys [nv]V
				for v := range ys {
					ys[v] = a.Load(a.Module.Vec(), a.Offset(yp, j*edge+v*a.vl))
				}
				for i := 0; i < n; i++ {
					s := a.Splat(a.vl, a.Load(build.F32, a.Offset(xp, i*xr+j*xk)))
					for v := range ys {
						acc[i*nv+v] = a.FMA(s, ys[v], acc[i*nv+v])
					}
				}
			}
			return acc
		}
		const u = 4
		whole, single := depth, false
		if n, ok := build.ConstInt(depth); ok {
			whole, single = build.Int(n/u*u), n%u != 0
		}
		acc = a.For(c64(0), whole, c64(u), acc, func(k V, acc []V) []V { return step(k, u, acc) })
		if single {
			acc = a.For(whole, depth, c64(1), acc, func(k V, acc []V) []V { return step(k, 1, acc) })
		}
		for i := 0; i < n; i++ {
			for v := 0; v < nv; v++ {
				a.Store(acc[i*nv+v], a.Offset(to, i*edge+v*a.vl))
			}
		}
	}
	full, rest := rows, 0
	if n, ok := build.ConstInt(rows); ok {
		rest = int(n) % a.mr
		full = build.Int(n - int64(rest))
	}
	a.eachLane(func(q V) {
		a.Range(c64(0), full, c64(a.mr), func(r V) { tile(a.mr, r, q) })
		if rest > 0 {
			tile(rest, full, q)
		}
	}, nv)
}

// partners calls f for every entry of the chunk's block in the table in buffer
// buf, with the partner block, how many of its positions need be looked at,
// and the address of its mask words, wanted only where partial is true.
func (a *attention) partners(buf int, f func(block, count, partial, words V)) {
	table := a.element(buf)
	word := func(i V) V { return a.SExt(a.Load(build.I32, a.At(table, i)), build.I64) }
	a.Range(word(a.block), word(a.Add(a.block, c64(1))), c64(2), func(at V) {
		w := word(a.Add(at, c64(1)))
		block, count := word(at), c64(edge)
		if a.t%edge != 0 {
			count = a.And(a.Add(a.rowsOf(block), c64(7)), c64(-8))
		}
		f(block, count, a.Ne(w, c64(0)), a.At(table, w))
	})
}

// allowed is the mask of lanes at q for partner position c.
func (a *attention) allowed(words, q, c V) V {
	w := a.Load(build.VecOf(a.vl, build.I32), a.At(words, q))
	bit := a.Splat(a.vl, a.Shl(build.IntOf(build.I32, 1), a.Trunc(c, build.I32)))
	return a.Ne(a.And(w, bit), build.IntOf(w.Type(), 0))
}

// whenPartial emits f with and without the mask.
func (a *attention) whenPartial(partial, words V, f func(words V)) {
	a.If(partial, func() []V { f(words); return nil }, func() []V { f(nil); return nil })
}

func (a *attention) load(p, i V) V { return a.Load(a.Module.Vec(), a.At(p, i)) }

// perLane copies the chunk's block of f32 buffer buf, [B,H,T], to dst.
func (a *attention) perLane(buf int, dst V) {
	src := a.perHead(buf, a.block)
	last := a.Sub(a.rowsOf(a.block), c64(1))
	a.Range(c64(0), c64(edge), c64(1), func(i V) {
		a.Store(a.Load(build.F32, a.At(src, a.Mul(a.Min(i, last), c64(a.stride(buf, 2))))), a.At(dst, i))
	})
}

// lanesBelow is the mask of lanes from q on that are below rows, nil for all.
func (a *attention) lanesBelow(rows, q V) V {
	if a.t%edge == 0 {
		return nil
	}
	return a.LaneMask(a.vl, a.Sub(rows, q))
}

// forward is the template attention_fwd: q k v table -> out lse.
func (a *attention) forward() {
	const q, k, v, table, out, lse = 0, 1, 2, 3, 4, 5
	size := edge * a.dp
	rows, qt, kb, vb, ot := a.take(size), a.take(size), a.take(size), a.take(size), a.take(size)
	s := a.take(edge * edge)
	top, sum, corr := a.take(edge), a.take(edge), a.take(edge)
	a.copyIn(q, a.block, rows, a.k.Template.F)
	a.turn(rows, qt)
	a.zero(ot, c64(size))
	a.eachLane(func(i V) {
		a.Store(a.splat(masked), a.At(top, i))
		a.Store(a.splat(0), a.At(sum, i))
	}, 1)
	a.partners(table, func(block, count, partial, words V) {
		a.copyIn(k, block, kb, 1)
		a.copyIn(v, block, vb, 1)
		a.product(count, c64(a.d), kb, a.dp, 1, qt, s, nil)
		a.whenPartial(partial, words, func(words V) { a.softmax(s, top, sum, corr, count, words) })
		a.product(c64(a.d), count, vb, 1, a.dp, s, ot, func(i V) V { return a.load(corr, i) })
	})
	a.copyOut(ot, rows, out, func(i V) V { return a.FDiv(a.splat(1), a.load(sum, i)) })
	to, n := a.perHead(lse, a.block), a.rowsOf(a.block)
	a.eachLane(func(i V) {
		x := a.FAdd(a.load(top, i), vmath.Log(a.Func, a.load(sum, i)))
		a.MaskStore(x, a.At(to, i), a.lanesBelow(n, i))
	}, 1)
}

// softmax replaces the scores s of one block by exp(s - top), top being the
// largest so far, and updates top, the sums, and corr, the factor for what was
// summed with the old top.
func (a *attention) softmax(s, top, sum, corr, count, words V) {
	a.eachLane(func(q V) {
		old := a.load(top, q)
		col := a.At(s, q)
		const u = 4
		ms := a.For(c64(0), count, c64(u), []V{old, old, old, old}, func(c V, m []V) []V {
			m = append([]V(nil), m...)
			for i := range m {
				c := a.Add(c, c64(i))
				p := a.At(col, a.Mul(c, c64(edge)))
				x := a.Load(a.Module.Vec(), p)
				if words != nil {
					x = a.Select(a.allowed(words, q, c), x, a.splat(masked))
					a.Store(x, p)
				}
				m[i] = a.FMax(x, m[i])
			}
			return m
		})
		m := a.FMax(a.FMax(ms[0], ms[1]), a.FMax(ms[2], ms[3]))
		part := a.For(c64(0), count, c64(u), []V{a.splat(0), a.splat(0)}, func(c V, part []V) []V {
			part = append([]V(nil), part...)
			for i := 0; i < u; i++ {
				p := a.Offset(a.At(col, a.Mul(c, c64(edge))), i*edge)
				x := vmath.Exp(a.Func, a.FSub(a.Load(a.Module.Vec(), p), m))
				a.Store(x, p)
				part[i%2] = a.FAdd(part[i%2], x)
			}
			return part
		})
		factor := vmath.Exp(a.Func, a.FSub(old, m))
		a.Store(m, a.At(top, q))
		a.Store(factor, a.At(corr, q))
		a.Store(a.FMA(a.load(sum, q), factor, a.FAdd(part[0], part[1])), a.At(sum, q))
	}, 1)
}

// gradQ is the template attention_bwd_dq: q k v do lse delta table -> dq.
func (a *attention) gradQ() {
	const q, k, v, do, lse, delta, table, dq = 0, 1, 2, 3, 4, 5, 6, 7
	size := edge * a.dp
	qt, gt, kb, vb, sum := a.take(size), a.take(size), a.take(size), a.take(size), a.take(size)
	s, ds := a.take(edge*edge), a.take(edge*edge)
	l, e := a.take(edge), a.take(edge)
	a.copyIn(q, a.block, kb, a.k.Template.F)
	a.turn(kb, qt)
	a.copyIn(do, a.block, kb, 1)
	a.turn(kb, gt)
	a.perLane(lse, l)
	a.perLane(delta, e)
	a.zero(sum, c64(size))
	a.partners(table, func(block, count, partial, words V) {
		a.copyIn(k, block, kb, 1)
		a.copyIn(v, block, vb, 1)
		a.product(count, c64(a.d), kb, a.dp, 1, qt, s, nil)
		a.product(count, c64(a.d), vb, a.dp, 1, gt, ds, nil)
		a.whenPartial(partial, words, func(words V) {
			a.eachLane(func(i V) {
				lv, ev := a.load(l, i), a.load(e, i)
				a.Range(c64(0), count, c64(1), func(c V) { a.pair(s, ds, words, i, c, lv, ev, false) })
			}, 1)
		})
		a.product(c64(a.d), count, kb, 1, a.dp, ds, sum, func(V) V { return nil })
	})
	a.copyOut(sum, kb, dq, func(V) V { return a.splat(a.k.Template.F) })
}

// pair turns score and probability gradient of partner c and the lanes at i
// into the score's gradient, in ds, and if keep is set the probability, in s.
func (a *attention) pair(s, ds, words, i, c, lse, delta V, keep bool) {
	at := a.Add(a.Mul(c, c64(edge)), i)
	p := vmath.Exp(a.Func, a.FSub(a.load(s, at), lse))
	if words != nil {
		p = a.Select(a.allowed(words, i, c), p, a.splat(0))
	}
	if keep {
		a.Store(p, a.At(s, at))
	}
	a.Store(a.FMul(p, a.FSub(a.load(ds, at), delta)), a.At(ds, at))
}

// gradKV is the template attention_bwd_dkv: q k v do lse delta
// table(transposed) -> dk dv. Lanes are keys.
func (a *attention) gradKV() {
	const q, k, v, do, lse, delta, table, dk, dv = 0, 1, 2, 3, 4, 5, 6, 7, 8
	size := edge * a.dp
	kt, vt, qb, gb, sumK, sumV := a.take(size), a.take(size), a.take(size), a.take(size), a.take(size), a.take(size)
	s, ds := a.take(edge*edge), a.take(edge*edge)
	a.copyIn(k, a.block, qb, a.k.Template.F)
	a.turn(qb, kt)
	a.copyIn(v, a.block, qb, 1)
	a.turn(qb, vt)
	a.zero(sumK, c64(size))
	a.zero(sumV, c64(size))
	a.partners(table, func(block, count, partial, words V) {
		a.copyIn(q, block, qb, 1)
		a.copyIn(do, block, gb, 1)
		a.product(count, c64(a.d), qb, a.dp, 1, kt, s, nil)
		a.product(count, c64(a.d), gb, a.dp, 1, vt, ds, nil)
		ls, es := a.perHead(lse, block), a.perHead(delta, block)
		last := a.Sub(a.rowsOf(block), c64(1))
		a.whenPartial(partial, words, func(words V) {
			a.Range(c64(0), count, c64(1), func(c V) {
				row := a.Min(c, last)
				lv, ev := a.Splat(a.vl, a.Load(build.F32, a.At(ls, a.Mul(row, c64(a.stride(lse, 2)))))), a.Splat(a.vl, a.Load(build.F32, a.At(es, a.Mul(row, c64(a.stride(delta, 2))))))
				a.eachLane(func(i V) { a.pair(s, ds, words, i, c, lv, ev, true) }, 1)
			})
		})
		add := func(V) V { return nil }
		a.product(c64(a.d), count, gb, 1, a.dp, s, sumV, add)
		a.product(c64(a.d), count, qb, 1, a.dp, ds, sumK, add)
	})
	a.copyOut(sumK, qb, dk, func(V) V { return a.splat(a.k.Template.F) })
	a.copyOut(sumV, qb, dv, func(V) V { return a.splat(1) })
}

// decode is the template attention_decode: q[B,1,H,D] k v pos keys -> out. A
// chunk is one head; lanes run over the head's elements.
func (a *attention) decode(c V) {
	const q, k, v, pos, list, out = 0, 1, 2, 3, 4, 5
	a.head, a.batch = a.URem(c, c64(a.h)), a.UDiv(c, c64(a.h))
	a.used = 0
	score := a.take(roundUp(a.t, a.vl) + a.vl)
	table := a.element(list)
	word := func(i V) V { return a.SExt(a.Load(build.I32, a.At(table, i)), build.I64) }
	at := a.SExt(a.Load(build.I32, a.element(pos)), build.I64)
	first := word(at)
	n := a.Sub(word(a.Add(at, c64(1))), first)
	row := func(op int, t V) V { return a.element(op, a.batch, t, a.head) }
	own := func(op int) V { return a.element(op, a.batch, c64(0), a.head) }
	vector := func(buf int, p V, at int, mask V) V {
		d := a.dtype(buf)
		return widen(a.Func, d, a.MaskLoad(build.VecOf(a.vl, storage(d)), a.Offset(p, at), mask))
	}
	// The query stays in registers, up to 8 vectors; longer heads reread it.
	var qs []V
	mine := own(q)
	a.columns(func(at int, mask V) { qs = append(qs, a.FMul(vector(q, mine, at, mask), a.splat(a.k.Template.F))) })
	top := a.For(c64(0), n, c64(1), []V{build.FloatOf(build.F32, masked)}, func(j V, m []V) []V {
		key := row(k, word(a.Add(first, j)))
		acc := []V{a.splat(0), a.splat(0)}
		i := 0
		a.columns(func(at int, mask V) {
			acc[i%2] = a.FMA(qs[i], vector(k, key, at, mask), acc[i%2])
			i++
		})
		x := a.Reduce(a.FAdd(acc[0], acc[1]), a.FAdd)
		a.Store(x, a.At(score, j))
		return []V{a.FMax(x, m[0])}
	})[0]
	// The last vector's lanes past n must add nothing.
	a.Store(a.splat(2*masked), a.At(score, n))
	tops := a.Splat(a.vl, top)
	sums := a.For(c64(0), n, c64(a.vl), []V{a.splat(0)}, func(j V, s []V) []V {
		x := vmath.Exp(a.Func, a.FSub(a.load(score, j), tops))
		a.Store(x, a.At(score, j))
		return []V{a.FAdd(s[0], x)}
	})[0]
	inverse := a.Splat(a.vl, a.FDiv(build.FloatOf(build.F32, 1), a.Reduce(sums, a.FAdd)))
	to := own(out)
	const group = 8
	for lo := 0; lo < a.d; lo += group * a.vl {
		var ats []int
		var ms []V
		a.columns(func(at int, mask V) {
			if at >= lo && at < lo+group*a.vl {
				ats, ms = append(ats, at), append(ms, mask)
			}
		})
		acc := make([]V, len(ats))
		for i := range acc {
			acc[i] = a.splat(0)
		}
		acc = a.For(c64(0), n, c64(1), acc, func(j V, acc []V) []V {
			acc = append([]V(nil), acc...)
			value := row(v, word(a.Add(first, j)))
			p := a.Splat(a.vl, a.Load(build.F32, a.At(score, j)))
			for i, at := range ats {
				acc[i] = a.FMA(p, vector(v, value, at, ms[i]), acc[i])
			}
			return acc
		})
		for i, at := range ats {
			x := narrow(a.Func, a.dtype(out), a.FMul(acc[i], inverse))
			a.MaskStore(x, a.Offset(to, at), ms[i])
		}
	}
}

// checkAttention reports what the generators cannot do.
func checkAttention(k *kern.Kernel) error {
	if b := k.Template.Int("block"); b != edge {
		return fmt.Errorf("internal: kernel %s: attention blocks of %d; the processor's have %d", k.Name, b, edge)
	}
	return nil
}

func attentionTemplate(body func(a *attention)) *template {
	return &template{
		emit: func(m *build.Module, k *kern.Kernel) error {
			f, args, c0, c1, scratch := m.Kernel(k.Name)
			a := newAttention(f, k, args, scratch)
			f.Range(c0, c1, c64(1), func(c V) {
				a.chunk(c)
				body(a)
			})
			f.Return()
			return checkAttention(k)
		},
		tile: func(k *kern.Kernel) (kern.Tile, int) {
			p := k.Template
			return kern.Tile{Rows: 1}, p.Int("B") * p.Int("H") * ceilDiv(p.Int("T"), edge)
		},
		scratch: attentionScratch,
	}
}

func init() {
	templates["attention_fwd"] = attentionTemplate((*attention).forward)
	templates["attention_bwd_dq"] = attentionTemplate((*attention).gradQ)
	templates["attention_bwd_dkv"] = attentionTemplate((*attention).gradKV)
	templates["attention_decode"] = &template{
		emit: func(m *build.Module, k *kern.Kernel) error {
			f, args, c0, c1, scratch := m.Kernel(k.Name)
			a := newAttention(f, k, args, scratch)
			f.Range(c0, c1, c64(1), a.decode)
			f.Return()
			return checkAttention(k)
		},
		tile: func(k *kern.Kernel) (kern.Tile, int) {
			return kern.Tile{Rows: 1}, k.Template.Int("B") * k.Template.Int("H")
		},
		scratch: func(k *kern.Kernel, t *build.Target) int {
			return 4 * (roundUp(k.Template.Int("T"), t.Lanes) + 2*t.Lanes + 16)
		},
	}
}
