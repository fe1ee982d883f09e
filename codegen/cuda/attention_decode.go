package cuda

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// decoder is attention_decode under construction: a block of threads has one
// head. Some neighbouring lanes share a key: each has parts of its row, 16 bytes
// if rows are aligned. All that a group of lanes reads of several keys is under
// way at once, as little else takes time.
type decoder struct {
	*attender
	threads int
	width   int // elements of a part
	lanes   int // of a key, a power of two
	parts   int // of a lane
	id      Value
	// Bytes of shared memory: scores, sums of warps.
	scores, sums int
}

// underWay is how many keys a group of lanes reads at once.
const underWay = 8

// emitAttentionDecode writes attention_decode: q[B,1,H,D] k v pos keys from ->
// out.
func emitAttentionDecode(m *build.Module, _ *Target, k *kern.Kernel) ([]Entry, error) {
	const q, key, v, pos, keys, from, out = 0, 1, 2, 3, 4, 5, 6
	a, err := newAttention(m, k)
	if err != nil {
		return nil, err
	}
	x := &decoder{threads: 256, width: 1}
	if a.t < 256 {
		x.threads = 128
	}
	one := *a
	one.t = 1 // of the query
	if one.aligned(q) && a.aligned(key, v) {
		x.width = 16 / a.dtype(q).Size()
	}
	chunks := ceil(a.d, x.width)
	for x.lanes = 1; x.lanes < chunks && x.lanes < warp; {
		x.lanes *= 2
	}
	x.parts = ceil(chunks, x.lanes)
	x.sums = 4 * ceil(a.t, 4) * 4
	shared := x.sums + 4*max(x.threads/warp*a.d, x.threads/warp)
	if shared > 200<<10 {
		return nil, fmt.Errorf("kernel %s: attention_decode over %d positions needs %d bytes of shared memory", k.Name, a.t, shared)
	}
	x.attender = a.kernel(k.Name, build.Limits{Threads: x.threads, Blocks: 512 / x.threads})
	x.Shared(shared)
	x.id = x.Thread()
	x.of(x.BlockX())

	word := func(i Value) Value { return x.Load(x.At(x.bases[x.view(keys).Buf], x.AddI(i, x.view(keys).Offset))) }
	at := x.Load(x.At(x.bases[x.view(pos).Buf], build.Int(x.view(pos).Offset)))
	first := word(at)
	n := x.Sub(word(x.AddI(at, 1)), first)
	prefix := build.Int(k.Template.Int("prefix"))
	other := x.Load(x.At(x.bases[x.view(from).Buf], x.AddI(x.MulI(x.batch, x.view(from).Strides[0]), x.view(from).Offset)))
	positions := x.At(x.bases[x.view(keys).Buf], x.AddI(first, x.view(keys).Offset))

	group, groups := x.Div(x.id, x.lanes), x.threads/x.lanes
	lane := x.Rem(x.id, x.lanes)
	query := x.read(q, x.rows(q), lane)
	for i := range query {
		query[i] = x.FMul(query[i], build.Float(a.scale*log2e))
	}
	score := func(i Value) Value { return x.SharedAt(x.MulI(i, 4), build.F32) }
	// keysOf calls f for several keys of the group at a time: their numbers,
	// whether they exist, and the lane's elements of their rows.
	keysOf := func(op int, carried []Value, f func(j, exists Value, row, carried []Value) []Value) []Value {
		w := x.view(op)
		base := x.At(x.bases[w.Buf], x.AddI(x.MulI(x.head, w.Strides[2]), w.Offset))
		own, theirs := x.MulI(x.batch, w.Strides[0]), x.MulI(other, w.Strides[0])
		return x.For(build.Int(0), n, build.Int(underWay*groups), carried, func(j Value, c []Value) []Value {
			var numbers, exists []Value
			var rows [][]Value
			for i := range underWay {
				jj := x.Add(j, x.AddI(group, i*groups))
				ok := x.Lt(jj, n)
				numbers, exists = append(numbers, jj), append(exists, ok)
				p := x.Load(x.At(positions, x.Select(ok, jj, build.Int(0))))
				stream := x.Select(x.Lt(p, prefix), theirs, own)
				rows = append(rows, x.read(op, x.At(base, x.Add(x.MulI(p, w.Strides[1]), stream)), lane))
			}
			for i := range rows {
				c = f(numbers[i], exists[i], rows[i], c)
			}
			return c
		})
	}
	keysOf(key, nil, func(j, exists Value, row, _ []Value) []Value {
		var s Value = build.Float(0)
		for i := range row {
			s = x.FMA(query[i], row[i], s)
		}
		for d := 1; d < x.lanes; d *= 2 {
			s = x.FAdd(s, x.ShuffleXor(s, d))
		}
		x.If(x.And(exists, x.Eq(lane, build.Int(0))), func() { x.Store(s, score(j)) })
		return nil
	})
	x.Barrier()
	each := func(start Value, f func(j, c Value) Value) Value {
		return x.For(x.id, n, build.Int(x.threads), []Value{start}, func(j Value, c []Value) []Value { return []Value{f(j, c[0])} })[0]
	}
	top := x.together(each(build.Float(math.Inf(-1)), func(j, c Value) Value { return x.FMax(c, x.Load(score(j))) }), x.FMax)
	sum := x.together(each(build.Float(0), func(j, c Value) Value {
		p := x.Ex2(x.FSub(x.Load(score(j)), top))
		x.Store(p, score(j))
		return x.FAdd(c, p)
	}), x.FAdd)

	acc := keysOf(v, zeros(x.parts*x.width), func(j, exists Value, row, c []Value) []Value {
		p := x.Load(score(x.Select(exists, j, build.Int(0))))
		p = x.Select(exists, p, build.Float(0))
		next := make([]Value, len(c))
		for i := range c {
			next[i] = x.FMA(p, row[i], c[i])
		}
		return next
	})
	for i := range acc {
		for d := x.lanes; d < warp; d *= 2 {
			acc[i] = x.FAdd(acc[i], x.ShuffleXor(acc[i], d))
		}
	}
	part := func(w, d Value) Value {
		return x.SharedAt(x.AddI(x.MulI(x.Add(x.MulI(w, a.d), d), 4), x.sums), build.F32)
	}
	x.Barrier() // the sums of warps lie where together had its own
	x.If(x.Below(x.AndI(x.id, warp-1), build.Int(x.lanes)), func() {
		x.elements(lane, func(i int, d, exists Value) {
			store := func() { x.Store(acc[i], part(x.Shr(x.id, 5), d)) }
			if exists == nil {
				store()
			} else {
				x.If(exists, store)
			}
		})
	})
	x.Barrier()
	to := x.rows(out)
	inverse := x.FDiv(build.Float(1), sum)
	x.For(x.id, build.Int(a.d), build.Int(x.threads), nil, func(d Value, _ []Value) []Value {
		y := x.Load(part(build.Int(0), d))
		for w := 1; w < x.threads/warp; w++ {
			y = x.FAdd(y, x.Load(part(build.Int(w), d)))
		}
		x.Store(x.narrow(x.dtype(out), x.FMul(y, inverse)), x.At(to, d))
		return nil
	})
	x.Return()
	return []Entry{{Name: k.Name, Grid: [3]int{a.heads(), 1, 1}, Block: x.threads, Shared: x.SharedBytes, Args: allBuffers(k)}}, nil
}

// elements calls f for the elements of a row that a lane has: their number in
// the lane and in the row, and whether they exist; nil: yes.
func (x *decoder) elements(lane Value, f func(i int, d, exists Value)) {
	for p := range x.parts {
		for e := range x.width {
			d := x.AddI(x.MulI(lane, x.width), p*x.lanes*x.width+e)
			var exists Value
			if (p+1)*x.lanes*x.width > x.attention.d {
				exists = x.Lt(d, build.Int(x.attention.d))
			}
			f(p*x.width+e, d, exists)
		}
	}
}

// read loads the lane's elements of the row at address p; those that don't exist
// are 0.
func (x *decoder) read(op int, p, lane Value) []Value {
	d := x.dtype(op)
	out := make([]Value, x.parts*x.width)
	if x.width == 1 {
		x.elements(lane, func(i int, at, exists Value) {
			if exists == nil {
				out[i] = x.widen(d, x.Load(x.At(p, at)))
				return
			}
			out[i] = x.Select(exists, x.widen(d, x.Load(x.At(p, x.Select(exists, at, build.Int(0))))), build.Float(0))
		})
		return out
	}
	x.elements(lane, func(i int, at, exists Value) {
		if i%x.width != 0 {
			return // a part exists or not as a whole
		}
		if exists != nil {
			at = x.Select(exists, at, build.Int(0))
		}
		for e, y := range x.sixteen(d, x.At(p, at)) {
			if exists != nil {
				y = x.Select(exists, y, build.Float(0))
			}
			out[i+e] = y
		}
	})
	return out
}

// sixteen loads 16 aligned bytes of elements of type d.
func (x *attender) sixteen(d ir.DType, p Value) []Value {
	if d == ir.F32 {
		v := x.Load(x.Cast(p, build.Vec(4, build.F32)))
		return []Value{x.Elem(v, 0), x.Elem(v, 1), x.Elem(v, 2), x.Elem(v, 3)}
	}
	v := x.Load(x.Cast(p, build.Vec(4, build.I32)))
	var out []Value
	for i := range 4 {
		w := x.Elem(v, i)
		if d == ir.BF16 { // as widen, without the way over 16 bits
			out = append(out, x.Bits(x.Shl(w, 16), build.F32), x.Bits(x.AndI(w, -1<<16), build.F32))
			continue
		}
		out = append(out, x.widen(d, x.Trunc(w, build.I16)), x.widen(d, x.Trunc(x.Shr(w, 16), build.I16)))
	}
	return out
}

// together combines v of all threads, in one order; every thread gets the
// result.
func (x *decoder) together(v Value, combine func(a, b Value) Value) Value {
	for d := warp / 2; d > 0; d /= 2 {
		v = combine(v, x.ShuffleXor(v, d))
	}
	place := func(w Value) Value { return x.SharedAt(x.AddI(x.MulI(w, 4), x.sums), build.F32) }
	x.Barrier() // what was combined before has been read
	x.If(x.Eq(x.AndI(x.id, warp-1), build.Int(0)), func() { x.Store(v, place(x.Shr(x.id, 5))) })
	x.Barrier()
	v = x.Load(place(build.Int(0)))
	for w := 1; w < x.threads/warp; w++ {
		v = combine(v, x.Load(place(build.Int(w))))
	}
	return v
}
