package cuda

import (
	"math"

	"github.com/llir/llvm/ir/enum"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ops/mask"
)

// Attention in f32, for every element type, head size and target.
//
// 128 threads have rows and columns in 16 x 8: a thread has up to four
// neighbouring rows and every eighth column of a step, so the eight threads of
// a row lie in one warp, and a warp's rows are its own. Operands lie in shared
// memory as f32, so that a thread reads four elements of a row at once.

const (
	rowThreads, columnThreads = 16, 8
	plainThreads              = rowThreads * columnThreads
)

// plain is such a kernel under construction.
type plain struct {
	*attender
	tiles          *rowBlock
	each           int // rows of a thread
	step           int // columns that are in shared memory at once
	depth          int // elements of a row, rounded up
	pitch          int // floats from row to row
	id, row, col   Value
	own            []int // operands whose rows the block has,
	other          []int // and those whose rows are columns: where they lie, in floats
	ownAt, otherAt []int
	parts          []int // where probabilities and the like lie
}

// plainShape keeps sums in 32 registers a thread, and shared memory below the
// 96 KB of sm_70. Fewer rows than that make more blocks where there are few.
func (a *attention) plainShape() mask.Shape {
	rows := 64
	switch {
	case a.d > 128:
		rows = 16
	case a.d > 64:
		rows = 32
	}
	for rows > 16 && a.heads()*ceil(a.t, rows) < 2*multiprocessors {
		rows /= 2
	}
	return mask.Shape{Lanes: rows, Warp: rows / 4}
}

func (a *attention) plain(name string, blocks int, transposed bool, own, other []int, parts int) *plain {
	t := a.tiling(a.plainShape(), transposed)
	x := &plain{attender: a.kernel(name, build.Limits{Threads: plainThreads, Blocks: blocks}), each: t.shape.Lanes / rowThreads, step: 32, own: own, other: other}
	if a.d > 128 {
		x.step = 16
	}
	x.depth = ceil(a.d, 32) * 32
	x.pitch = x.depth + 4 // rows that are read together begin in different banks
	at := 0
	take := func(n int) int {
		at += n
		return at - n
	}
	for range own {
		x.ownAt = append(x.ownAt, take(t.shape.Lanes*x.pitch))
	}
	for range other {
		x.otherAt = append(x.otherAt, take(x.step*x.pitch))
	}
	for range parts {
		x.parts = append(x.parts, take(t.shape.Lanes*(x.step+4)))
	}
	x.Shared(4 * at)
	x.tiles = x.begin(t)
	x.id = x.Thread()
	x.row, x.col = x.MulI(x.Div(x.id, columnThreads), x.each), x.Rem(x.id, columnThreads)
	return x
}

func (x *plain) entry(name string) Entry {
	e := x.grid(name, x.tiles.tiling, plainThreads)
	e.Shared = x.SharedBytes
	return e
}

// float is a pointer to n floats of shared memory, a multiple of n from its
// beginning.
func (x *plain) float(at Value, n int) Value {
	t := build.Vec(n, build.F32)
	if n == 1 {
		return x.SharedAt(x.MulI(at, 4), build.F32)
	}
	return x.SharedAt(x.MulI(at, 4), t)
}

// four reads four floats.
func (x *plain) four(at Value) []Value {
	v := x.Load(x.float(at, 4))
	return []Value{x.Elem(v, 0), x.Elem(v, 1), x.Elem(v, 2), x.Elem(v, 3)}
}

// copy copies n rows of operand op at the positions of a list to shared memory,
// as f32; those from count on, if not nil, become 0, as do elements that don't
// exist.
func (x *plain) copy(op int, list Value, n int, count Value, to int) {
	base := x.rows(op)
	quads := x.depth / 4
	for i := 0; i < n*quads; i += plainThreads {
		at := x.AddI(x.id, i)
		row, part := x.Div(at, quads), x.MulI(x.Rem(at, quads), 4)
		from := x.Add(x.MulI(x.LoadOnly(x.At(list, row)), x.stride(op)), part)
		var exists Value
		if count != nil {
			exists = x.Lt(row, count)
		}
		v := x.elements(op, base, from, part, exists)
		store := func() { x.Store(x.Vector(v...), x.float(x.Add(x.MulI(row, x.pitch), x.AddI(part, to)), 4)) }
		if i+plainThreads > n*quads {
			x.If(x.Lt(at, build.Int(n*quads)), store)
		} else {
			store()
		}
	}
}

// elements are four elements, from number part of a row on, of operand op, that
// lie from element from of base on, as f32. Those past the row's end are 0, and
// all are where exists, if not nil, is false.
func (x *plain) elements(op int, base, from, part, exists Value) []Value {
	d := x.dtype(op)
	v := make([]Value, 4)
	if x.inPieces(op, 4) {
		ok := exists
		if x.attention.d < x.depth {
			ok = both(x, ok, x.Lt(part, build.Int(x.attention.d)))
		}
		if ok != nil {
			from = x.Select(ok, from, build.Int(0))
		}
		four := x.Load(x.Cast(x.At(base, from), build.Vec(4, storage(d))))
		for j := range v {
			v[j] = x.zeroUnless(ok, x.widen(d, x.Elem(four, j)))
		}
		return v
	}
	for j := range v {
		ok := exists
		if x.attention.d < x.depth {
			ok = both(x, ok, x.Lt(part, build.Int(x.attention.d-j)))
		}
		at := x.AddI(from, j)
		if ok != nil {
			at = x.Select(ok, at, build.Int(0))
		}
		v[j] = x.zeroUnless(ok, x.widen(d, x.Load(x.At(base, at))))
	}
	return v
}

// both is a and b, of which a may be nil.
func both(x *plain, a, b Value) Value {
	if a == nil {
		return b
	}
	return x.And(a, b)
}

func (x *plain) zeroUnless(ok, v Value) Value {
	if ok == nil {
		return v
	}
	return x.Select(ok, v, build.Float(0))
}

// scores adds to sums the products of the thread's rows of own operands with
// its columns of the others: sums[n] belongs to own[n] and other[n] and is by
// row, then column.
func (x *plain) scores(sums [][]Value) [][]Value {
	columns := x.step / columnThreads
	const unrolled = 16
	var flat []Value
	for _, s := range sums {
		flat = append(flat, s...)
	}
	flat = x.For(build.Int(0), build.Int(ceil(x.attention.d, unrolled)*unrolled), build.Int(unrolled), flat, func(d0 Value, acc []Value) []Value {
		acc = append([]Value(nil), acc...)
		for d := 0; d < unrolled; d += 4 {
			for n := range sums {
				part := acc[n*x.each*columns:]
				var rows, cols [][]Value
				for i := range x.each {
					rows = append(rows, x.four(x.Add(x.Add(x.MulI(x.row, x.pitch), d0), build.Int(x.ownAt[n]+i*x.pitch+d))))
				}
				for j := range columns {
					cols = append(cols, x.four(x.Add(x.Add(x.MulI(x.col, x.pitch), d0), build.Int(x.otherAt[n]+j*columnThreads*x.pitch+d))))
				}
				for e := range 4 {
					for i := range x.each {
						for j := range columns {
							part[i*columns+j] = x.FMA(rows[i][e], cols[j][e], part[i*columns+j])
						}
					}
				}
			}
		}
		return acc
	})
	out := make([][]Value, len(sums))
	for n := range sums {
		out[n] = flat[n*x.each*columns : (n+1)*x.each*columns]
	}
	return out
}

// share puts the thread's values, by row, then column, where its warp can read
// them all.
func (x *plain) share(part int, v []Value) {
	columns := x.step / columnThreads
	for i := range x.each {
		for j := range columns {
			at := x.Add(x.Add(x.MulI(x.row, x.step+4), x.col), build.Int(x.parts[part]+i*(x.step+4)+j*columnThreads))
			x.Store(v[i*columns+j], x.float(at, 1))
		}
	}
}

// collect adds to sums, by row, then element, the products of shared values with
// the rows of other operand n.
func (x *plain) collect(sums []Value, part, n int) []Value {
	per := x.depth / columnThreads // elements of a thread: four of every 32
	return x.For(build.Int(0), build.Int(x.step), build.Int(4), sums, func(k Value, acc []Value) []Value {
		acc = append([]Value(nil), acc...)
		var p [][]Value
		for i := range x.each {
			p = append(p, x.four(x.Add(x.Add(x.MulI(x.row, x.step+4), k), build.Int(x.parts[part]+i*(x.step+4)))))
		}
		for e := range 4 {
			at := x.Add(x.MulI(x.AddI(k, e), x.pitch), x.AddI(x.MulI(x.col, 4), x.otherAt[n]))
			for q := range per / 4 {
				v := x.four(x.AddI(at, q*4*columnThreads))
				for i := range x.each {
					for c := range 4 {
						acc[i*per+q*4+c] = x.FMA(p[i][e], v[c], acc[i*per+q*4+c])
					}
				}
			}
		}
		return acc
	})
}

// columnsOf are the thread's columns of a step.
func (x *plain) columnsOf(f func(j int, col Value)) {
	for j := range x.step / columnThreads {
		f(j, x.AddI(x.col, j*columnThreads))
	}
}

// rowsOf are its rows.
func (x *plain) rowsOf(f func(i int, row Value)) {
	for i := range x.each {
		f(i, x.AddI(x.row, i))
	}
}

// plainStep works on the columns in shared memory; list has their positions and
// words the mask words of the thread's rows, bit 0 being column 0.
type plainStep func(list Value, words, state []Value) []Value

// walk goes through the columns of the block.
func (x *plain) walk(state []Value, f plainStep) []Value {
	for i, op := range x.own {
		x.copy(op, x.tiles.row, x.tiles.shape.Lanes, nil, x.ownAt[i])
	}
	warps := x.tiles.shape.Lanes / x.tiles.shape.Warp
	steps := x.Div(x.AddI(x.tiles.columns, x.step-1), x.step)
	return x.For(build.Int(0), steps, build.Int(1), state, func(s Value, state []Value) []Value {
		from := x.MulI(s, x.step)
		list := x.At(x.tiles.column, from)
		x.Barrier() // what was here before is no longer needed
		for i, op := range x.other {
			x.copy(op, list, x.step, x.Sub(x.tiles.columns, from), x.otherAt[i])
		}
		x.Barrier()
		tile := x.Sub(x.Shr(from, 6), x.tiles.whole)
		masked := x.Compare(enum.IPredSGE, tile, build.Int(0))
		within := x.AndI(from, tileSize-1)
		got := x.IfElse(masked, func() []Value {
			busy := x.ShrV(x.LoadOnly(x.At(x.tiles.busy, tile)), x.Shr(x.id, 5))
			busy = x.ShrV(busy, x.MulI(x.Div(within, groupSize), warps))
			groups := 0
			for g := range x.step / groupSize {
				groups |= 1 << (g * warps)
			}
			out := []Value{x.AndI(busy, groups)}
			at := x.MulI(x.Add(x.MulI(tile, tileSize/maskBits), x.Div(within, maskBits)), x.tiles.shape.Lanes)
			x.rowsOf(func(_ int, row Value) {
				w := x.LoadOnly(x.At(x.tiles.words, x.Add(at, row)))
				if x.step < maskBits {
					w = x.ShrV(w, x.AndI(within, maskBits-1))
				}
				out = append(out, w)
			})
			return out
		}, func() []Value {
			out := []Value{build.Int(1)}
			for range x.each {
				out = append(out, build.Int(-1))
			}
			return out
		})
		return x.IfElse(x.Compare(enum.IPredNE, got[0], build.Int(0)), func() []Value {
			return f(list, got[1:], state)
		}, func() []Value { return state })
	})
}

// where replaces the thread's values that words don't allow.
func (x *plain) where(words, v []Value, other Value) {
	columns := x.step / columnThreads
	for i := range x.each {
		mine := x.ShrV(words[i], x.col)
		for j := range columns {
			bit := x.AndI(mine, 1<<(j*columnThreads))
			v[i*columns+j] = x.Select(x.Compare(enum.IPredNE, bit, build.Int(0)), v[i*columns+j], other)
		}
	}
}

// acrossRow combines v of the threads that have a row.
func (x *plain) acrossRow(v Value, combine func(a, b Value) Value) Value {
	for d := 1; d < columnThreads; d *= 2 {
		v = combine(v, x.ShuffleXor(v, d))
	}
	return v
}

func (x *plain) syncWarp() { x.Call("gpu.syncwarp", build.Void, build.Int(-1)) }

// out writes sums, by row, then element, times a factor for each row, to the
// rows of operand op.
func (x *plain) out(op int, sums []Value, factor func(i int) Value) {
	d, base := x.dtype(op), x.rows(op)
	per := x.depth / columnThreads
	x.rowsOf(func(i int, row Value) {
		by := factor(i)
		x.If(x.Lt(row, x.tiles.rows), func() {
			first := x.MulI(x.LoadOnly(x.At(x.tiles.row, row)), x.stride(op))
			for q := range per / 4 {
				part := x.AddI(x.MulI(x.col, 4), q*4*columnThreads)
				v := make([]Value, 4)
				for c := range v {
					v[c] = x.narrow(d, x.FMul(sums[i*per+q*4+c], by))
				}
				n := x.attention.d - q*4*columnThreads // elements from here on
				if x.inPieces(op, 4) {
					store := func() {
						x.Store(x.Vector(v...), x.Cast(x.At(base, x.Add(first, part)), build.Vec(4, storage(d))))
					}
					x.ifBelow(x.MulI(x.col, 4), n, 4*columnThreads, store)
					continue
				}
				for c := range v {
					x.ifBelow(x.AddI(x.MulI(x.col, 4), c), n, 4*columnThreads, func() {
						x.Store(v[c], x.At(base, x.AddI(x.Add(first, part), c)))
					})
				}
			}
		})
	})
}

// ifBelow emits f where i, which is below most, is below n.
func (x *plain) ifBelow(i Value, n, most int, f func()) {
	if n >= most {
		f()
		return
	}
	x.If(x.Lt(i, build.Int(n)), f)
}

func (x *plain) sums() []Value { return zeros(x.each * x.depth / columnThreads) }

func (x *plain) pairs() []Value { return zeros(x.each * x.step / columnThreads) }

// forward is attention_fwd in f32.
func (a *attention) forward() Entry {
	const q, key, v, out, lse = 0, 1, 2, 4, 5
	name := a.k.Name
	x := a.plain(name, 3, false, []int{q}, []int{key, v}, 1)
	scale := build.Float(a.scale * log2e)
	columns := x.step / columnThreads
	state := zeros(2 * x.each)
	for i := range x.each {
		state[i] = build.Float(-1e30)
	}
	state = x.walk(append(state, x.sums()...), func(_ Value, words, state []Value) []Value {
		state = append([]Value(nil), state...)
		s := x.scores([][]Value{x.pairs()})[0]
		for i := range s {
			s[i] = x.FMul(s[i], scale)
		}
		x.where(words, s, build.Float(math.Inf(-1)))
		per := x.depth / columnThreads
		for i := range x.each {
			top := s[i*columns]
			for _, y := range s[i*columns+1 : (i+1)*columns] {
				top = x.FMax(top, y)
			}
			top = x.FMax(state[i], x.acrossRow(top, x.FMax))
			factor := x.Ex2(x.FSub(state[i], top))
			state[i] = top
			sum := x.FMul(state[x.each+i], factor)
			for j := range columns {
				p := x.Ex2(x.FSub(s[i*columns+j], top))
				s[i*columns+j], sum = p, x.FAdd(sum, p)
			}
			state[x.each+i] = sum
			for c := range per {
				state[2*x.each+i*per+c] = x.FMul(state[2*x.each+i*per+c], factor)
			}
		}
		x.share(0, s)
		x.syncWarp()
		return append(state[:2*x.each], x.collect(state[2*x.each:], 0, 1)...)
	})
	var inverse []Value
	to, stride := x.perHead(lse)
	x.rowsOf(func(i int, row Value) {
		sum := x.acrossRow(state[x.each+i], x.FAdd)
		inverse = append(inverse, x.FDiv(build.Float(1), sum))
		l := x.FMA(state[i], build.Float(math.Ln2), x.log(sum))
		x.If(x.And(x.Eq(x.col, build.Int(0)), x.Lt(row, x.tiles.rows)), func() {
			x.Store(l, x.At(to, x.MulI(x.LoadOnly(x.At(x.tiles.row, row)), stride)))
		})
	})
	x.out(out, state[2*x.each:], func(i int) Value { return inverse[i] })
	x.Return()
	return x.entry(name)
}

// backward is attention_bwd in f32.
func (a *attention) backward() []Entry { return []Entry{a.queryGradient(), a.keyGradients()} }

// product is the thread's share, four of every 32 elements, of the product of two
// operands' rows at a position; the threads of a row have all of it.
func (x *plain) product(op, other int, position Value) Value {
	// A loop: written out, it finds no registers beside what the walk keeps.
	return x.For(build.Int(0), build.Int(x.depth), build.Int(4*columnThreads), zeros(1), func(q Value, sum []Value) []Value {
		part := x.Add(x.MulI(x.col, 4), q)
		four := func(op int) []Value {
			return x.elements(op, x.rows(op), x.Add(x.MulI(position, x.stride(op)), part), part, nil)
		}
		u, v, s := four(op), four(other), sum[0]
		for j := range u {
			s = x.FMA(u[j], v[j], s)
		}
		return []Value{s}
	})[0]
}

// queryGradient computes dq: rows are queries.
func (a *attention) queryGradient() Entry {
	const q, key, v, do, out, lse, dq = 0, 1, 2, 3, 4, 5, 7
	name := a.k.Name + "_q"
	x := a.plain(name, 3, false, []int{q, do}, []int{key, v}, 1)
	scale := build.Float(a.scale * log2e)
	low, minus := make([]Value, x.each), make([]Value, x.each)
	terms := x.rowTerms(x.tiles, lse)
	sum := func(position Value) Value { return x.acrossRow(x.product(do, out, position), x.FAdd) }
	writes := func() Value { return x.Eq(x.col, build.Int(0)) }
	x.rowsOf(func(i int, row Value) { low[i], minus[i] = terms.of(row, sum, writes) })
	columns := x.step / columnThreads
	acc := x.walk(x.sums(), func(_ Value, words, acc []Value) []Value {
		ds := x.pairs()
		for i := range ds {
			ds[i] = minus[i/columns]
		}
		both := x.scores([][]Value{x.pairs(), ds})
		s, ds := both[0], both[1]
		for i := range s {
			s[i] = x.FMA(s[i], scale, low[i/columns])
		}
		x.where(words, s, build.Float(math.Inf(-1)))
		for i := range s {
			ds[i] = x.FMul(x.Ex2(s[i]), ds[i])
		}
		x.share(0, ds)
		x.syncWarp()
		return x.collect(acc, 0, 0)
	})
	x.out(dq, acc, func(int) Value { return build.Float(a.scale) })
	x.Return()
	return x.entry(name)
}

// keyGradients computes dk and dv: rows are keys.
func (a *attention) keyGradients() Entry {
	const q, key, v, do, lse, dk, dv = 0, 1, 2, 3, 5, 8, 9
	name := a.k.Name + "_kv"
	delta, _ := a.delta()
	x := a.plain(name, 2, true, []int{key, v}, []int{q, do}, 2)
	scale := build.Float(a.scale * log2e)
	l, lStride := x.perHead(lse)
	e, eStride := x.perHead(delta)
	columns := x.step / columnThreads
	n := len(x.sums())
	acc := x.walk(append(x.sums(), x.sums()...), func(list Value, words, acc []Value) []Value {
		var low, minus []Value
		x.columnsOf(func(_ int, col Value) {
			at := x.LoadOnly(x.At(list, col)) // lists are as long as tiles
			low = append(low, x.FMul(x.Load(x.At(l, x.MulI(at, lStride))), build.Float(-log2e)))
			minus = append(minus, x.FNeg(x.Load(x.At(e, x.MulI(at, eStride)))))
		})
		ds := x.pairs()
		for i := range ds {
			ds[i] = minus[i%columns]
		}
		both := x.scores([][]Value{x.pairs(), ds})
		p, ds := both[0], both[1]
		for i := range p {
			p[i] = x.FMA(p[i], scale, low[i%columns])
		}
		x.where(words, p, build.Float(math.Inf(-1)))
		for i := range p {
			p[i] = x.Ex2(p[i])
			ds[i] = x.FMul(p[i], ds[i])
		}
		x.share(0, p)
		x.share(1, ds)
		x.syncWarp()
		return append(x.collect(acc[:n], 1, 0), x.collect(acc[n:], 0, 1)...)
	})
	x.out(dk, acc[:n], func(int) Value { return build.Float(a.scale) })
	x.out(dv, acc[n:], func(int) Value { return build.Float(1) })
	x.Return()
	return x.entry(name)
}
