package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/vmath"
	"github.com/gouache-ml/gouache/ir/kern"
)

// decoding emits the template attention_decode: q[B,1,H,D] k v pos keys from -> out.
//
// A chunk is one head of one stream, and heads of a stream follow each other. What a
// worker takes of them it goes through together, some positions at a time: those lie
// in the caches with all their heads side by side, and it takes as long as reading
// them. Lanes run over a head's elements; scores are then turned, so that lanes are positions.
type decoding struct {
	*attention
	heads          V // of this stream that are done together, from a.head on
	n, whole       V // positions, and that rounded up to whole groups
	pitch          int
	keys, values   V // where positions are, from the beginning of each cache on
	queries, score V // of every head, dp and pitch floats
	out            V // sums of every head, dp floats
}

const decodeQ, decodeK, decodeV, decodePos, decodeList, decodeFrom, decodeOut = 0, 1, 2, 3, 4, 5, 6

// decodePitch is how many floats the scores of a head take.
func decodePitch(t int, lanes int) int { return roundUp(t, lanes) + 16 }

func decodeScratch(k *kern.Kernel, t *build.Target) int {
	p := k.Template
	pitch := decodePitch(p.Int("T"), t.Lanes)
	return 4 * (4*pitch + p.Int("H")*(pitch+2*roundUp(p.Int("D"), t.Lanes)) + 128)
}

func emitDecoding(m *build.Module, k *kern.Kernel) error {
	f, args, c0, c1, scratch := m.Kernel(k.Name)
	a := &decoding{attention: newAttention(f, k, args, scratch)}
	a.pitch = decodePitch(a.t, a.vl)
	a.keys, a.values = a.Cast(a.take(2*a.pitch), build.I64), a.Cast(a.take(2*a.pitch), build.I64)
	if a.stride(decodeK, 0) == a.stride(decodeV, 0) && a.stride(decodeK, 1) == a.stride(decodeV, 1) {
		a.values = a.keys
	}
	a.queries, a.out, a.score = a.take(a.h*a.dp), a.take(a.h*a.dp), a.take(a.h*a.pitch)
	f.While([]V{c0}, func(c []V) V { return f.Lt(c[0], c1) }, func(c []V) []V {
		a.batch, a.head = a.UDiv(c[0], c64(a.h)), a.URem(c[0], c64(a.h))
		a.heads = a.Min(a.Sub(c64(a.h), a.head), a.Sub(c1, c[0]))
		a.stream()
		return []V{a.Add(c[0], a.heads)}
	})
	f.Return()
	return nil
}

// stream emits some heads of one stream.
func (a *decoding) stream() {
	a.positions()
	a.eachHead(func(h V) {
		from, to := a.element(decodeQ, a.batch, c64(0), a.Add(a.head, h)), a.At(a.queries, a.Mul(h, c64(a.dp)))
		a.columns(func(at int, mask V) {
			a.Store(a.FMul(a.read(decodeQ, from, at, mask), a.splat(a.k.Template.F)), a.Offset(to, at))
		})
	})
	a.groups(decodeK, a.keys, a.scores)
	a.eachHead(a.softmax)
	a.eachHead(func(h V) { a.zero(a.At(a.out, a.Mul(h, c64(a.dp))), c64(a.dp)) })
	a.groups(decodeV, a.values, a.collect)
	a.eachHead(func(h V) {
		from, to := a.At(a.out, a.Mul(h, c64(a.dp))), a.element(decodeOut, a.batch, c64(0), a.Add(a.head, h))
		inverse := a.Splat(a.vl, a.Load(build.F32, a.sum(h)))
		a.columns(func(at int, mask V) {
			x := a.FMul(a.Load(a.Module.Vec(), a.Offset(from, at)), inverse)
			a.MaskStore(narrow(a.Func, a.dtype(decodeOut), x), a.Offset(to, at), mask)
		})
	})
}

func (a *decoding) eachHead(f func(h V)) { a.Range(c64(0), a.heads, c64(1), f) }

func (a *decoding) read(op int, p V, at int, mask V) V {
	d := a.dtype(op)
	return widen(a.Func, d, a.MaskLoad(build.VecOf(a.vl, storage(d)), a.Offset(p, at), mask))
}

// positions lists where the query's positions are, and the last one again up to a
// whole group.
func (a *decoding) positions() {
	table := a.element(decodeList)
	at := a.index(a.element(decodePos), c64(0))
	first := a.index(table, at)
	a.n = a.Sub(a.index(table, a.Add(at, c64(1))), first)
	a.whole = a.And(a.Add(a.n, c64(a.vl-1)), c64(-a.vl))
	other := a.index(a.element(decodeFrom, a.batch), c64(0))
	prefix, last := c64(a.k.Template.Int("prefix")), a.Sub(a.n, c64(1))
	a.Range(c64(0), a.whole, c64(1), func(j V) {
		p := a.index(table, a.Add(first, a.Min(j, last)))
		stream := a.Select(a.Lt(p, prefix), other, a.batch)
		list := func(op int, to V) {
			a.Store(a.Add(a.Mul(stream, c64(a.stride(op, 0))), a.Mul(p, c64(a.stride(op, 1)))), a.At(to, j))
		}
		list(decodeK, a.keys)
		if a.values != a.keys {
			list(decodeV, a.values)
		}
	})
}

// groups calls f for every group of as many positions as a vector has lanes and every
// head, with the number of the first position and where the head's rows are in operand op.
func (a *decoding) groups(op int, list V, f func(j, h V, rows []V)) {
	base := a.element(op, c64(0), c64(0), a.head)
	a.Range(c64(0), a.whole, c64(a.vl), func(j V) {
		rows := make([]V, a.vl)
		for i := range rows {
			rows[i] = a.At(base, a.Load(build.I64, a.At(list, a.Add(j, c64(i)))))
		}
		a.eachHead(func(h V) {
			step := a.Mul(h, c64(a.stride(op, 2)))
			mine := make([]V, a.vl)
			for i := range mine {
				mine[i] = a.At(rows[i], step)
			}
			f(j, h, mine)
		})
	})
}

// scores emits the scores of one group.
func (a *decoding) scores(j, h V, rows []V) {
	q := a.At(a.queries, a.Mul(h, c64(a.dp)))
	side := max(1, 8/a.vl) // sums of a position side by side
	acc := a.zeros(side * a.vl)
	n := 0
	a.columns(func(at int, mask V) {
		x := a.Load(a.Module.Vec(), a.Offset(q, at))
		for i, row := range rows {
			s := &acc[i*side+n%side]
			*s = a.FMA(x, a.read(decodeK, row, at, mask), *s)
		}
		n++
	})
	in := make([]V, a.vl)
	for i := range in {
		in[i] = acc[i*side]
		if side == 2 {
			in[i] = a.FAdd(in[i], acc[i*side+1])
		}
	}
	in = a.Transpose(in)
	for ; len(in) > 1; in = in[:len(in)/2] {
		for i := range len(in) / 2 {
			in[i] = a.FAdd(in[i], in[i+len(in)/2])
		}
	}
	a.Store(in[0], a.At(a.score, a.Add(a.Mul(h, c64(a.pitch)), j)))
}

// sum is where the inverse of a head's sum is kept, beyond its scores.
func (a *decoding) sum(h V) V {
	return a.Offset(a.At(a.score, a.Mul(h, c64(a.pitch))), a.pitch-16)
}

// softmax makes the scores of a head probabilities, but for the inverse of their sum.
func (a *decoding) softmax(h V) {
	score := a.At(a.score, a.Mul(h, c64(a.pitch)))
	// The last group's positions past n must add nothing.
	a.Range(a.n, a.whole, c64(1), func(j V) { a.Store(build.FloatOf(build.F32, 2*masked), a.At(score, j)) })
	tops := a.For(c64(0), a.whole, c64(a.vl), []V{a.splat(masked)}, func(j V, m []V) []V { return []V{a.FMax(a.vector(score, j), m[0])} })
	top := a.Splat(a.vl, a.Reduce(tops[0], a.FMax))
	sums := a.For(c64(0), a.whole, c64(a.vl), []V{a.splat(0)}, func(j V, s []V) []V {
		x := vmath.Exp(a.Func, a.FSub(a.vector(score, j), top))
		a.Store(x, a.At(score, j))
		return []V{a.FAdd(s[0], x)}
	})
	a.Store(a.FDiv(build.FloatOf(build.F32, 1), a.Reduce(sums[0], a.FAdd)), a.sum(h))
}

// collect adds one group's values to the sums.
func (a *decoding) collect(j, h V, rows []V) {
	p, to := a.At(a.score, a.Add(a.Mul(h, c64(a.pitch)), j)), a.At(a.out, a.Mul(h, c64(a.dp)))
	const most = 8 // vectors that are summed at a time
	var ats []int
	var masks []V
	flush := func() {
		acc := make([]V, len(ats))
		for v, at := range ats {
			acc[v] = a.Load(a.Module.Vec(), a.Offset(to, at))
		}
		for i, row := range rows {
			x := a.Splat(a.vl, a.Load(build.F32, a.Offset(p, i)))
			for v, at := range ats {
				acc[v] = a.FMA(x, a.read(decodeV, row, at, masks[v]), acc[v])
			}
		}
		for v, at := range ats {
			a.Store(acc[v], a.Offset(to, at))
		}
		ats, masks = nil, nil
	}
	a.columns(func(at int, mask V) {
		ats, masks = append(ats, at), append(masks, mask)
		if len(ats) == most || at+a.vl >= a.d {
			flush()
		}
	})
}

func init() {
	templates["attention_decode"] = &template{
		emit: emitDecoding,
		// Heads have their positions in common.
		tile: func(k *kern.Kernel) (kern.Tile, int) {
			return kern.Tile{Rows: 1, Together: true}, k.Template.Int("B") * k.Template.Int("H")
		},
		scratch: decodeScratch,
	}
}
