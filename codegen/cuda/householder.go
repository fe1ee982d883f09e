package cuda

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/llir/llvm/ir/enum"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir/kern"
)

// The template householder (package ops): columns of matrices made orthonormal by
// reflections. A block of threads has a matrix and works in the place of the result,
// which for the most part stays in the second-level cache.
//
// Columns are reduced eight at a time. In such a panel a thread has whole rows of
// it: one sweep does a reflection and takes the sums that the next one needs. The
// eight together are I - V*T*V', with T upper triangular and V in the place of the
// panel, and are applied to the columns to the right of it by two products: there
// neighbouring threads have neighbouring columns, and groups of them their rows,
// whose sums meet in shared memory. Q is formed in the same way from the last
// panel to the first, each of which becomes columns of Q when it has been applied.

const (
	panelColumns = 8
	// negligible is the square of the norm up to which what is left of a column
	// counts as 0; the column's largest element was 0.5 to 1.
	negligible = 1e-30
	// stripThreads is how many threads at most have neighbouring columns.
	stripThreads = warp
)

// reflector is the template under construction.
type reflector struct {
	*build.Func
	n, r    int
	threads int
	width   int // columns that a thread reads at once
	p, q    Value
	id      Value
	// Bytes of shared memory: what threads have of sums, w = V' times the columns of a
	// strip, for each panel the columns of T, and what column j of Q is
	// multiplied by, at first of p.
	parts, w, t, sign int
}

func emitHouseholder(m *build.Module, target *Target, k *kern.Kernel) ([]Entry, error) {
	h := &reflector{n: k.Template.Int("N"), r: k.Template.Int("R"), threads: 128, width: 1}
	for h.threads < 512 && h.threads*4 < h.n {
		h.threads *= 2
	}
	if h.r%4 == 0 {
		h.width = 4
	}
	h.w = 4 * panelColumns * h.width * h.threads
	h.t = h.w + 4*max(panelColumns*h.width*stripThreads, panelColumns*panelColumns)
	h.sign = h.t + 4*ceil(h.r, panelColumns)*panelColumns*panelColumns
	shared, most := h.sign+4*h.r, 160<<10 // sm_80 has 163 KiB
	if !target.from80() {
		most = sharedOf70
	}
	if shared > most {
		return nil, fmt.Errorf("kernel %s: orthogonalize on %s takes up to %d columns, not %d", k.Name, target.Name, (most-h.t)/36, h.r)
	}
	h.Func = m.Kernel(k.Name, build.Limits{Threads: h.threads, Blocks: 1}, 0, len(k.Bufs))
	h.Shared(shared)
	h.id = h.Thread()
	matrix := h.MulI(h.BlockX(), h.n*h.r)
	h.p, h.q = h.At(h.Pointer(0, build.F32), matrix), h.At(h.Pointer(1, build.F32), matrix)
	broken := h.together(1, []Value{h.scale(k.Template.F)})[0]
	full, rest := h.r/panelColumns*panelColumns, h.r%panelColumns
	panels := func(f func(j0 Value)) {
		if full > 0 {
			h.For(build.Int(0), build.Int(full), build.Int(panelColumns), nil, func(j0 Value, _ []Value) []Value { f(j0); return nil })
		}
	}
	panels(func(j0 Value) {
		h.reduce(j0, panelColumns, broken)
		h.apply(j0, panelColumns, true)
	})
	if rest > 0 {
		h.reduce(build.Int(full), rest, broken)
		h.form(build.Int(full), rest)
	}
	panels(func(j Value) {
		h.Barrier() // the panel to the right has become columns of Q
		j0 := h.Sub(build.Int(full-panelColumns), j)
		h.apply(j0, panelColumns, false)
		h.form(j0, panelColumns)
	})
	h.Return()
	return []Entry{{Name: k.Name, Grid: [3]int{k.Template.Int("B"), 1, 1}, Block: h.threads, Shared: h.SharedBytes, Args: allBuffers(k)}}, nil
}

// float is the address of a number in one of the parts of shared memory.
func (h *reflector) float(part int, i Value) Value {
	return h.SharedAt(h.AddI(h.MulI(i, 4), part), build.F32)
}

// at is the address of an element of q.
func (h *reflector) at(i, j Value) Value { return h.At(h.q, h.Add(h.MulI(i, h.r), j)) }

// read loads n neighbours, by 16 bytes where rows are aligned to that.
func (h *reflector) read(p Value, n int) []Value {
	var out []Value
	for i := 0; i < n; i += h.width {
		at := h.At(p, build.Int(i))
		if h.width == 1 {
			out = append(out, h.Load(at))
			continue
		}
		x := h.Load(h.Cast(at, build.Vec(4, build.F32)))
		for e := range h.width {
			out = append(out, h.Elem(x, e))
		}
	}
	return out
}

// write is the inverse of read.
func (h *reflector) write(xs []Value, p Value) {
	for i := 0; i < len(xs); i += h.width {
		at := h.At(p, build.Int(i))
		if h.width == 1 {
			h.Store(xs[i], at)
			continue
		}
		h.Store(h.Vector(xs[i:i+h.width]...), h.Cast(at, build.Vec(4, build.F32)))
	}
}

// rows runs body for i from..n-1 in steps, after loading what load gives of several
// iterations, so that more is under way at once.
func (h *reflector) rows(from, to, step Value, carried []Value, load func(i Value) []Value, body func(i Value, x, c []Value) []Value) []Value {
	const ahead = 4
	c := h.For(from, h.Sub(to, h.MulI(step, ahead-1)), h.MulI(step, ahead), append([]Value{from}, carried...), func(i Value, c []Value) []Value {
		var at []Value
		var xs [][]Value
		for u := range ahead {
			at = append(at, h.Add(i, h.MulI(step, u)))
			xs = append(xs, load(at[u]))
		}
		c = c[1:]
		for u := range ahead {
			c = body(at[u], xs[u], c)
		}
		return append([]Value{h.Add(i, h.MulI(step, ahead))}, c...)
	})
	return h.For(c[0], to, step, c[1:], func(i Value, c []Value) []Value { return body(i, load(i), c) })
}

// together adds up xs, at most eight, of all threads in one order; every thread gets
// the sums. Calls without another barrier between them have different slots, 0 and 1: so
// none overwrites what is still read.
func (h *reflector) together(slot int, xs []Value) []Value {
	warps := h.threads / warp
	place := func(w Value, i int) Value {
		return h.float(h.parts, h.AddI(h.MulI(w, panelColumns), slot*warps*panelColumns+i))
	}
	sum := func(x Value, n int) Value {
		for d := n / 2; d > 0; d /= 2 {
			x = h.FAdd(x, h.ShuffleXor(x, d))
		}
		return x
	}
	lane := h.AndI(h.id, warp-1)
	for i := range xs {
		xs[i] = sum(xs[i], warp)
	}
	h.If(h.Eq(lane, build.Int(0)), func() {
		for i, x := range xs {
			h.Store(x, place(h.Shr(h.id, 5), i))
		}
	})
	h.Barrier()
	out := make([]Value, len(xs))
	for i := range xs {
		out[i] = sum(h.Load(place(h.AndI(lane, warps-1), i)), warps)
	}
	return out
}

// columns emits f for all columns from c on: in each turn some threads, 8, 16 or 32,
// have neighbouring ones, and groups of so many threads have the same.
func (h *reflector) columns(c Value, f func(x strip)) {
	units := h.Div(h.AddI(h.Sub(build.Int(h.r), c), h.width-1), h.width)
	more := func(n int) Value { return h.Select(h.Lt(build.Int(n), units), build.Int(1), build.Int(0)) }
	x := strip{shift: h.AddI(h.Add(more(stripThreads/4), more(stripThreads/2)), bits.Len(stripThreads/4)-1)}
	x.lanes = h.ShlV(build.Int(1), x.shift)
	x.lane, x.group, x.groups = h.And(h.id, h.AddI(x.lanes, -1)), h.ShrV(h.id, x.shift), h.ShrV(build.Int(h.threads), x.shift)
	h.For(build.Int(0), units, x.lanes, nil, func(u Value, _ []Value) []Value {
		x.first = h.Add(c, h.MulI(u, h.width))
		col := h.Add(x.first, h.MulI(x.lane, h.width))
		in := h.Lt(col, build.Int(h.r))
		x.col, x.rows = h.Select(in, col, build.Int(0)), h.Select(in, build.Int(h.n), build.Int(0))
		f(x)
		return nil
	})
}

// strip is the columns of one turn, as a thread sees them.
type strip struct {
	lanes, shift  Value // threads that have neighbouring columns, and the logarithm
	lane          Value // which of them this is
	groups, group Value // of such threads
	first, col    Value // the first column, of all and of this thread
	rows          Value // n, or 0 where it has none
}

// meet combines what the groups have of xs, and hands the results to f: number k of
// xs for a lane. Threads share them out.
func (h *reflector) meet(s strip, xs []Value, combine func(a, b Value) Value, f func(k, lane, x Value)) {
	for k, x := range xs {
		h.Store(x, h.float(h.parts, h.AddI(h.id, k*h.threads)))
	}
	h.Barrier()
	h.For(h.id, h.ShlV(build.Int(len(xs)), s.shift), build.Int(h.threads), nil, func(o Value, _ []Value) []Value {
		k, lane := h.ShrV(o, s.shift), h.And(o, h.AddI(s.lanes, -1))
		first := h.Add(h.MulI(k, h.threads), lane)
		x := h.For(s.lanes, build.Int(h.threads), s.lanes, []Value{h.Load(h.float(h.parts, first))}, func(g Value, x []Value) []Value {
			return []Value{combine(x[0], h.Load(h.float(h.parts, h.Add(first, g))))}
		})
		f(k, lane, x[0])
		return nil
	})
	h.Barrier()
}

// scale copies p to q, with eps on the diagonal, and each column multiplied by the power
// of two that makes its largest element 0.5 to 1, so that no square overflows or
// vanishes. It gives NaN if a number of the matrix is none, else 0.
func (h *reflector) scale(eps float64) Value {
	const infinite = 0x7f800000
	bits := func(x Value) Value { return h.Bits(x, build.I32) }
	// As integers, magnitudes are ordered as they are as numbers, NaN last.
	larger := func(a, b Value) Value { return h.Select(h.Lt(bits(a), bits(b)), b, a) }
	h.columns(build.Int(0), func(s strip) {
		load := func(i Value) []Value { return h.read(h.At(h.p, h.Add(h.MulI(i, h.r), s.col)), h.width) }
		shifted := func(i Value, x []Value) []Value {
			out := make([]Value, len(x))
			for e := range x {
				out[e] = h.FAdd(x[e], h.Select(h.Eq(i, h.AddI(s.col, e)), build.Float(eps), build.Float(0)))
			}
			return out
		}
		top := h.rows(s.group, s.rows, s.groups, zeros(h.width), load, func(i Value, x, top []Value) []Value {
			out := make([]Value, len(x))
			for e, y := range shifted(i, x) {
				out[e] = larger(top[e], h.FAbs(y))
			}
			return out
		})
		h.meet(s, top, larger, func(e, lane, x Value) {
			col := h.Add(h.Add(s.first, h.MulI(lane, h.width)), e)
			h.If(h.Lt(col, build.Int(h.r)), func() {
				// The exponent of the scale: of numbers from 2^126 on, the least there is.
				exponent := h.Sub(build.Int(253), h.Shr(bits(x), 23))
				exponent = h.Select(h.Lt(exponent, build.Int(1)), build.Int(1), exponent)
				y := h.Bits(h.Shl(exponent, 23), build.F32)
				h.Store(h.Select(h.Lt(bits(x), build.Int(infinite)), y, build.Float(math.NaN())), h.float(h.sign, col))
			})
		})
		var by []Value
		for e := range h.width {
			by = append(by, h.Load(h.float(h.sign, h.AddI(s.col, e))))
		}
		h.rows(s.group, s.rows, s.groups, nil, load, func(i Value, x, _ []Value) []Value {
			y := shifted(i, x)
			for e := range y {
				y[e] = h.FMul(y[e], by[e])
			}
			h.write(y, h.at(i, s.col))
			return nil
		})
	})
	return h.For(h.id, build.Int(h.r), build.Int(h.threads), []Value{build.Float(0)}, func(j Value, bad []Value) []Value {
		return []Value{h.FMA(h.Load(h.float(h.sign, j)), build.Float(0), bad[0])}
	})[0]
}

// reduce makes reflections of the panel of n columns from j0 on: V, T and signs.
func (h *reflector) reduce(j0 Value, n int, broken Value) {
	row := func(i Value) []Value { return h.read(h.at(i, j0), n) }
	products := func(x Value, xs, sums []Value) []Value {
		out := make([]Value, n)
		for k := range out {
			out[k] = h.FMA(x, xs[k], sums[k])
		}
		return out
	}
	g := h.rows(h.Add(j0, h.id), build.Int(h.n), build.Int(h.threads), zeros(n), row, func(_ Value, x, g []Value) []Value {
		return products(x[0], x, g)
	})
	t := make([][]Value, n) // columns of T
	var signs []Value
	for j := range n {
		// Of all threads: the products of column j with all columns, from row d on.
		g = h.together(j%2, g)
		d := h.AddI(j0, j)
		x := row(d)
		none := h.FCompare(enum.FPredOLE, g[j], build.Float(negligible))
		norm := h.Sqrt(g[j])
		beta := h.Select(none, x[j], h.Select(h.FCompare(enum.FPredOLT, x[j], build.Float(0)), norm, h.FNeg(norm)))
		// The column's tail becomes v where it is divided by this.
		head := h.FSub(x[j], beta)
		inverse := h.Select(none, build.Float(0), h.FDiv(build.Float(1), head))
		tau := h.Select(none, build.Float(0), h.FDiv(h.FNeg(head), beta))
		sign := h.Select(h.FCompare(enum.FPredOLT, beta, build.Float(0)), build.Float(-1), build.Float(1))
		signs = append(signs, h.FAdd(sign, broken))
		// v' times each column: of those before it, T is made.
		w := make([]Value, n)
		for k := range w {
			w[k] = h.FMul(h.FSub(g[k], h.FMul(beta, x[k])), inverse)
		}
		t[j] = append(zeros(j), tau)
		for k := range j {
			for i := range k + 1 {
				t[j][i] = h.FSub(t[j][i], h.FMul(t[k][i], w[k]))
			}
		}
		for i := range j {
			t[j][i] = h.FMul(t[j][i], tau)
		}
		for k := j + 1; k < n; k++ {
			w[k] = h.FMul(w[k], h.FNeg(tau))
		}
		from := j / h.width * h.width // what is before it stays
		first := 0
		if j+1 == n {
			first = from // and nothing is summed
		}
		g = h.rows(h.Add(h.AddI(d, 1), h.id), build.Int(h.n), build.Int(h.threads), zeros(n), func(i Value) []Value {
			return h.read(h.at(i, h.AddI(j0, first)), n-first)
		}, func(i Value, x, g []Value) []Value {
			y := append(make([]Value, first), x...)
			y[j] = h.FMul(y[j], inverse)
			for k := j + 1; k < n; k++ {
				y[k] = h.FMA(y[j], w[k], y[k])
			}
			h.write(y[from:], h.at(i, h.AddI(j0, from)))
			if j+1 == n {
				return g
			}
			return products(y[j+1], y, g)
		})
	}
	h.Barrier()
	// V has ones on its diagonal, and zeros above.
	h.If(h.Lt(h.id, build.Int(n)), func() {
		d := h.Add(j0, h.id)
		x := row(d)
		for k := range x {
			x[k] = h.Select(h.Lt(build.Int(k), h.id), x[k], h.Select(h.Eq(h.id, build.Int(k)), build.Float(1), build.Float(0)))
		}
		h.write(x, h.at(d, j0))
	})
	h.If(h.Eq(h.id, build.Int(0)), func() {
		for j := range n {
			h.Store(signs[j], h.float(h.sign, h.AddI(j0, j)))
			for i := range panelColumns {
				x := Value(build.Float(0))
				if i <= j {
					x = t[j][i]
				}
				h.Store(x, h.float(h.t, h.AddI(h.MulI(h.AddI(j0, j), panelColumns), i)))
			}
		}
	})
	h.Barrier()
}

// element is the element of T of the panel from j0 on in a column and, counted from
// there too, a row.
func (h *reflector) element(j0, row, col Value) Value {
	return h.Load(h.float(h.t, h.Add(h.MulI(h.Add(j0, col), panelColumns), row)))
}

// apply multiplies the columns behind the panel of n from j0 on by its reflections:
// with inverse set in the order in which they were made, else in the other.
func (h *reflector) apply(j0 Value, n int, inverse bool) {
	h.columns(h.AddI(j0, n), func(s strip) {
		v := func(i Value) []Value { return h.read(h.at(i, j0), n) }
		sums := h.rows(h.Add(j0, s.group), s.rows, s.groups, zeros(n*h.width), func(i Value) []Value {
			return append(v(i), h.read(h.at(i, s.col), h.width)...)
		}, func(_ Value, x, sums []Value) []Value {
			out := make([]Value, len(sums))
			for k := range out {
				out[k] = h.FMA(x[k/h.width], x[n+k%h.width], sums[k])
			}
			return out
		})
		h.meet(s, sums, h.FAdd, func(k, lane, x Value) {
			h.Store(x, h.float(h.w, h.Add(h.MulI(k, stripThreads), lane)))
		})
		// -T*w, or -T'*w.
		w := zeros(n * h.width)
		for k := range w {
			x := h.FNeg(h.Load(h.float(h.w, h.AddI(s.lane, k*stripThreads))))
			for j := range n {
				row, col := j, k/h.width
				if inverse {
					row, col = col, row
				}
				if row <= col {
					at := j*h.width + k%h.width
					w[at] = h.FMA(x, h.element(j0, build.Int(row), build.Int(col)), w[at])
				}
			}
		}
		h.rows(h.Add(j0, s.group), s.rows, s.groups, nil, func(i Value) []Value {
			return append(v(i), h.read(h.at(i, s.col), h.width)...)
		}, func(i Value, x, _ []Value) []Value {
			y := append([]Value(nil), x[n:]...)
			for k := range w {
				y[k%h.width] = h.FMA(x[k/h.width], w[k], y[k%h.width])
			}
			h.write(y, h.at(i, s.col))
			return nil
		})
	})
	h.Barrier()
}

// form makes columns of Q of the panel of n columns from j0 on: the reflections times
// columns of the identity with their signs, S, which is S - V*M with M = T*V'*S.
func (h *reflector) form(j0 Value, n int) {
	sign := func(j Value) Value { return h.Load(h.float(h.sign, h.Add(j0, j))) }
	h.If(h.Lt(h.id, build.Int(n*n)), func() {
		k, col := h.Div(h.id, n), h.Rem(h.id, n)
		m := Value(build.Float(0))
		for l, v := range h.read(h.at(h.Add(j0, col), j0), n) {
			m = h.FMA(h.element(j0, k, build.Int(l)), v, m)
		}
		h.Store(h.FMul(m, h.FNeg(sign(col))), h.float(h.w, h.id))
	})
	h.Barrier()
	var m, signs []Value
	for i := range n * n {
		m = append(m, h.Load(h.float(h.w, build.Int(i))))
	}
	for j := range n {
		signs = append(signs, sign(build.Int(j)))
	}
	h.For(h.id, j0, build.Int(h.threads), nil, func(i Value, _ []Value) []Value {
		h.write(zeros(n), h.at(i, j0))
		return nil
	})
	h.For(h.Add(j0, h.id), build.Int(h.n), build.Int(h.threads), nil, func(i Value, _ []Value) []Value {
		y := make([]Value, n)
		for j := range y {
			y[j] = h.Select(h.Eq(i, h.AddI(j0, j)), signs[j], build.Float(0))
		}
		for k, v := range h.read(h.at(i, j0), n) {
			for j := range y {
				y[j] = h.FMA(v, m[k*n+j], y[j])
			}
		}
		h.write(y, h.at(i, j0))
		return nil
	})
}

func init() { templates["householder"] = emitHouseholder }
