package cpu

import (
	"math"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir/kern"
)

// The template householder (package ops): columns of matrices made orthonormal by
// reflections. A chunk is a matrix, copied to scratch memory where its rows are
// whole vectors.
//
// Columns are reduced eight at a time: such a panel is copied to n rows of eight,
// so that a row is a vector, and one sweep over them does a reflection and takes
// the sums that the next one needs. The eight together are I - V*T*V', with T upper
// triangular, and are applied to all other columns by two products, so that
// these are read twice and written once for eight reflections. Q is formed in the
// same way from the last panel to the first, beginning with columns of the
// identity.

const (
	panelColumns = 8
	// sumRows is how many rows are summed before that is added to the rest: sums of
	// thousands of rows one by one would lose two more bits, and reflections are
	// orthogonal only as far as the norms in them are right.
	sumRows = 64
	// negligible is the square of the norm up to which what is left of a column
	// counts as 0; the column's largest element was 0.5 to 1.
	negligible = 1e-30
)

// reflector emits the template for one matrix.
type reflector struct {
	*build.Func
	n, r   int
	pitch  int // elements from one row of the copy to the next
	strip  int // columns that stay in registers: two vectors where these are short
	a      V   // the copy
	v      V   // panels of n+8 rows each: what eight reflections are made of
	t      V   // for each panel the columns of T
	sign   V   // what column j of Q is multiplied by
	w      V   // eight rows as long as a's
	broken V   // NaN if a number of the matrix is none, else 0
}

func newReflector(f *build.Func, k *kern.Kernel) *reflector {
	h := &reflector{Func: f, n: k.Template.Int("N"), r: k.Template.Int("R"), strip: max(f.Target.Lanes, panelColumns)}
	h.pitch = roundUp(h.r, h.strip)
	return h
}

// rows is how many rows a and panels of v have: a panel's last columns may be none of
// the matrix, and have a diagonal all the same.
func (h *reflector) rows() int { return h.n + panelColumns }

func (h *reflector) panels() int { return ceilDiv(h.r, panelColumns) }

// scratch gives the parts of scratch memory their places, and its size in floats.
func (h *reflector) scratch(p V) int {
	used := 0
	for _, x := range []struct {
		at *V
		n  int
	}{
		{&h.a, h.rows() * h.pitch},
		{&h.v, h.panels() * h.rows() * panelColumns},
		{&h.t, h.panels() * panelColumns * panelColumns},
		{&h.sign, h.panels() * panelColumns},
		{&h.w, panelColumns * h.pitch},
	} {
		if p != nil {
			*x.at = h.Offset(p, used)
		}
		used += roundUp(x.n, 16)
	}
	return used
}

// element is the address of an element of a.
func (h *reflector) element(i, j V) V { return h.At(h.a, h.Add(h.Mul(i, c64(h.pitch)), j)) }

// panelRow is the address of a row of the panel whose first column is j0.
func (h *reflector) panelRow(j0, i V) V {
	return h.At(h.v, h.Add(h.Mul(j0, c64(h.rows())), h.Mul(i, c64(panelColumns))))
}

// vectors calls f for each vector of a strip.
func (h *reflector) vectors(f func(at int)) {
	for at := 0; at < h.strip; at += h.Target.Lanes {
		f(at)
	}
}

// strips emits f for the strips of columns from c on, or from the multiple of a
// strip before it.
func (h *reflector) strips(c V, f func(c V)) {
	h.Range(h.And(c, c64(-h.strip)), c64(h.pitch), c64(h.strip), f)
}

// blocks emits f for runs of the rows from i on.
func (h *reflector) blocks(i V, f func(from, to V)) {
	h.Range(i, c64(h.n), c64(sumRows), func(from V) { f(from, h.Min(h.Add(from, c64(sumRows)), c64(h.n))) })
}

// emit does matrix m of p, and writes it to q.
func (h *reflector) emit(p, q V, m V, eps float64) {
	vec, vl := h.Module.Vec(), h.Target.Lanes
	copied := func(row func(i V) (from, to V), load func(p, mask V) V, store func(x, p, mask V)) {
		h.Range(c64(0), c64(h.n), c64(1), func(i V) {
			from, to := row(i)
			whole := h.r / vl * vl
			h.Range(c64(0), c64(whole), c64(vl), func(c V) { store(load(h.At(from, c), nil), h.At(to, c), nil) })
			if whole < h.r {
				mask := laneMask(vl, h.r-whole)
				store(load(h.Offset(from, whole), mask), h.Offset(to, whole), mask)
			}
		})
	}
	load := func(p, mask V) V { return h.MaskLoad(vec, p, mask) }
	outside := func(matrix V) func(i V) V {
		return func(i V) V { return h.At(matrix, h.Mul(h.Add(h.Mul(m, c64(h.n)), i), c64(h.r))) }
	}
	in, out := outside(p), outside(q)

	// Columns past the last are 0, and those of the last vector are made so by it.
	if last := roundUp(h.r, vl); last < h.pitch {
		h.Range(c64(0), c64(h.n), c64(1), func(i V) {
			for c := last; c < h.pitch; c += vl {
				h.Store(build.Zero(vec), h.Offset(h.element(i, c64(0)), c))
			}
		})
	}
	copied(func(i V) (V, V) { return in(i), h.element(i, c64(0)) }, load, func(x, p, _ V) { h.Store(x, p) })
	h.Range(c64(0), c64(h.r), c64(1), func(j V) {
		d := h.element(j, j)
		h.Store(h.FAdd(h.Load(build.F32, d), build.FloatOf(build.F32, eps)), d)
	})
	h.scale()

	h.Range(c64(0), c64(h.panels()), c64(1), func(panel V) {
		j0 := h.Mul(panel, c64(panelColumns))
		h.reduce(j0)
		h.apply(j0, h.Add(j0, c64(panelColumns)), true)
	})
	h.Range(c64(0), c64(h.panels()), c64(1), func(i V) {
		j0 := h.Mul(h.Sub(c64(h.panels()-1), i), c64(panelColumns))
		h.Range(c64(0), c64(h.n), c64(1), func(i V) {
			h.Store(build.Zero(build.VecOf(panelColumns, build.F32)), h.element(i, j0))
		})
		for j := range panelColumns {
			d := h.Add(j0, c64(j))
			h.Store(h.FAdd(h.Load(build.F32, h.At(h.sign, d)), h.broken), h.element(d, d))
		}
		h.apply(j0, j0, false)
	})
	copied(func(i V) (V, V) { return h.element(i, c64(0)), out(i) }, load, func(x, p, mask V) { h.MaskStore(x, p, mask) })
}

// scale multiplies each column by the power of two that makes its largest element
// 0.5 to 1, so that no square overflows or vanishes.
func (h *reflector) scale() {
	vl := h.Target.Lanes
	ints := build.VecOf(vl, build.I32)
	splat := func(x int64) V { return build.IntOf(ints, x) }
	// As integers, magnitudes are ordered as they are as numbers, NaN last.
	const infinite = 0x7f800000
	largest := h.Cast(h.w, build.I32)
	h.strips(c64(0), func(c V) { h.vectors(func(at int) { h.Store(splat(0), h.Offset(h.At(largest, c), at)) }) })
	h.blocks(c64(0), func(from, to V) {
		h.strips(c64(0), func(c V) {
			h.vectors(func(at int) {
				p := h.Offset(h.At(largest, c), at)
				top := h.For(from, to, c64(1), []V{h.Load(ints, p)}, func(i V, top []V) []V {
					x := h.Bitcast(h.Load(h.Module.Vec(), h.Offset(h.element(i, c), at)), ints)
					return []V{h.Max(h.And(x, splat(math.MaxInt32)), top[0])}
				})
				h.Store(top[0], p)
			})
		})
	})
	top := h.For(c64(0), c64(h.pitch), c64(vl), []V{splat(0)}, func(c V, top []V) []V {
		p := h.At(largest, c)
		x := h.Load(ints, p)
		// The exponent of the scale: of numbers from 2^126 on, the least there is.
		e := h.Max(h.Sub(splat(253), h.LShr(x, splat(23))), splat(1))
		h.Store(h.Shl(e, splat(23)), p)
		return []V{h.Max(top[0], x)}
	})[0]
	nan := build.FloatOf(build.F32, math.NaN())
	h.broken = h.Select(h.Lt(h.Reduce(top, h.Max), build.IntOf(build.I32, infinite)), build.FloatOf(build.F32, 0), nan)
	h.Range(c64(0), c64(h.n), c64(1), func(i V) {
		h.Range(c64(0), c64(h.pitch), c64(vl), func(c V) {
			p := h.element(i, c)
			h.Store(h.FMul(h.Load(h.Module.Vec(), p), h.Load(h.Module.Vec(), h.At(h.w, c))), p)
		})
	})
}

// sums adds up, for rows from i on, the products of what f gives for each, in one order.
func (h *reflector) sums(i V, f func(i V) (x, y V)) V {
	// So many rows are under way at once.
	const chains = 4
	zero := build.Zero(build.VecOf(panelColumns, build.F32))
	add := func(i, sum V) V {
		x, y := f(i)
		return h.FMA(x, y, sum)
	}
	total := h.For(i, c64(h.n), c64(sumRows), []V{zero}, func(from V, total []V) []V {
		to := h.Min(h.Add(from, c64(sumRows)), c64(h.n))
		most := h.Add(from, h.And(h.Sub(to, from), c64(-chains)))
		parts := h.For(from, most, c64(chains), []V{zero, zero, zero, zero}, func(i V, parts []V) []V {
			var next []V
			for u := range chains {
				next = append(next, add(h.Add(i, c64(u)), parts[u]))
			}
			return next
		})
		sum := h.FAdd(h.FAdd(parts[0], parts[1]), h.FAdd(parts[2], parts[3]))
		sum = h.For(most, to, c64(1), []V{sum}, func(i V, sum []V) []V { return []V{add(i, sum[0])} })[0]
		return []V{h.FAdd(total[0], sum)}
	})
	return total[0]
}

// reduce makes reflections of the panel from column j0 on: v, T and signs.
func (h *reflector) reduce(j0 V) {
	vec := build.VecOf(panelColumns, build.F32)
	splat := func(x V) V { return h.Splat(panelColumns, x) }
	lane := func(x V, j int) V {
		all := make([]int, panelColumns)
		for i := range all {
			all[i] = j
		}
		return h.Shuffle(x, x, all...)
	}
	number := func(x float64) V { return build.FloatOf(build.F32, x) }
	one := func(j int) V { // is the lane j?
		el := make([]int64, panelColumns)
		el[j] = 1
		return build.IntVec(build.I1, el...)
	}
	zero := build.Zero(vec)

	g := h.sums(j0, func(i V) (V, V) {
		x := h.Load(vec, h.element(i, j0))
		h.Store(x, h.panelRow(j0, i))
		return lane(x, 0), x
	})
	for i := range panelColumns {
		h.Store(zero, h.panelRow(j0, c64(h.n+i)))
	}
	table := h.At(h.t, h.Mul(j0, c64(panelColumns)))
	var ts []V // columns of T
	for j := range panelColumns {
		// g has the products of column j with all columns, from row d on; x is row d.
		d := h.Add(j0, c64(j))
		x := h.Load(vec, h.panelRow(j0, d))
		alpha, square := h.Extract(x, j), h.Extract(g, j)
		none := h.FLe(square, number(negligible))
		norm := h.Sqrt(square)
		beta := h.Select(none, alpha, h.Select(h.FLt(alpha, number(0)), norm, h.FNeg(norm)))
		// The column's tail becomes v where it is divided by this.
		head := h.FSub(alpha, beta)
		inverse := h.Select(none, number(0), h.FDiv(number(1), head))
		tau := h.Select(none, number(0), h.FDiv(h.FNeg(head), beta))
		h.Store(h.Select(h.FLt(beta, number(0)), number(-1), number(1)), h.At(h.sign, d))
		// v' times each column: of those before it, T is made.
		products := h.FMul(h.FSub(g, h.FMul(splat(beta), x)), splat(inverse))
		t := h.Select(one(j), splat(number(1)), zero)
		for k, before := range ts {
			t = h.FSub(t, h.FMul(before, lane(products, k)))
		}
		t = h.FMul(t, splat(tau))
		ts = append(ts, t)
		h.Store(t, h.Offset(table, panelColumns*j))
		h.Store(h.Select(laneMask(panelColumns, j), x, h.Select(one(j), splat(number(1)), zero)), h.panelRow(j0, d))

		change := h.Select(laneMask(panelColumns, j+1), zero, h.FMul(products, splat(h.FNeg(tau))))
		row := func(i V) V {
			p := h.panelRow(j0, i)
			x := h.Load(vec, p)
			v := h.FMul(lane(x, j), splat(inverse))
			x = h.Select(one(j), v, h.FMA(v, change, x))
			h.Store(x, p)
			return x
		}
		if j+1 == panelColumns {
			h.Range(h.Add(d, c64(1)), c64(h.n), c64(1), func(i V) { row(i) })
			break
		}
		g = h.sums(h.Add(d, c64(1)), func(i V) (V, V) {
			x := row(i)
			return lane(x, j+1), x
		})
	}
}

// apply multiplies the columns of a from c on by the reflections of the panel from
// j0 on: with inverse set in the order in which they were made, else in the
// other. Columns before c in the same strip are changed too: nobody reads them.
func (h *reflector) apply(j0, c V, inverse bool) {
	vec, vl := h.Module.Vec(), h.Target.Lanes
	nv := h.strip / vl
	at := func(j int, c V) V { return h.Offset(h.At(h.w, c), j*h.pitch) }
	vectors := func(p V) []V {
		var xs []V
		h.vectors(func(at int) { xs = append(xs, h.Load(vec, h.Offset(p, at))) })
		return xs
	}
	write := func(xs []V, p V) {
		for i, x := range xs {
			h.Store(x, h.Offset(p, i*vl))
		}
	}
	scalar := func(p V, i int) V { return h.Splat(vl, h.Load(build.F32, h.Offset(p, i))) }
	zeros := make([]V, panelColumns*nv)
	for i := range zeros {
		zeros[i] = build.Zero(vec)
	}

	h.strips(c, func(c V) {
		for j := range panelColumns {
			write(zeros[:nv], at(j, c))
		}
	})
	h.blocks(j0, func(from, to V) {
		h.strips(c, func(c V) {
			sum := h.For(from, to, c64(1), zeros, func(i V, sum []V) []V {
				v, x := h.panelRow(j0, i), vectors(h.element(i, c))
				var next []V
				for j := range panelColumns {
					s := scalar(v, j)
					for e := range x {
						next = append(next, h.FMA(s, x[e], sum[j*nv+e]))
					}
				}
				return next
			})
			for j := range panelColumns {
				w := vectors(at(j, c))
				for e := range w {
					w[e] = h.FAdd(w[e], sum[j*nv+e])
				}
				write(w, at(j, c))
			}
		})
	})
	// w becomes -T*w, or -T'*w.
	table := h.At(h.t, h.Mul(j0, c64(panelColumns)))
	h.strips(c, func(c V) {
		var w [][]V
		for j := range panelColumns {
			w = append(w, vectors(at(j, c)))
		}
		for j := range panelColumns {
			y := append([]V(nil), zeros[:nv]...)
			for k := range panelColumns {
				row, col := j, k
				if inverse {
					row, col = k, j
				}
				if row > col {
					continue
				}
				s := h.FNeg(scalar(table, col*panelColumns+row))
				for e := range y {
					y[e] = h.FMA(s, w[k][e], y[e])
				}
			}
			write(y, at(j, c))
		}
	})
	h.blocks(j0, func(from, to V) {
		h.strips(c, func(c V) {
			var w [][]V
			for j := range panelColumns {
				w = append(w, vectors(at(j, c)))
			}
			h.Range(from, to, c64(1), func(i V) {
				v, x := h.panelRow(j0, i), vectors(h.element(i, c))
				for j := range panelColumns {
					s := scalar(v, j)
					for e := range x {
						x[e] = h.FMA(s, w[j][e], x[e])
					}
				}
				write(x, h.element(i, c))
			})
		})
	})
}

func init() {
	templates["householder"] = &template{
		emit: func(m *build.Module, k *kern.Kernel) error {
			f, args, c0, c1, scratch := m.Kernel(k.Name)
			h := newReflector(f, k)
			h.scratch(f.Cast(scratch, build.F32))
			p, q := f.SlotPtr(args, 0, build.F32), f.SlotPtr(args, 1, build.F32)
			f.Range(c0, c1, c64(1), func(c V) { h.emit(p, q, c, k.Template.F) })
			f.Return()
			return nil
		},
		tile: func(k *kern.Kernel) (kern.Tile, int) { return kern.Tile{Rows: 1}, k.Template.Int("B") },
		scratch: func(k *kern.Kernel, t *build.Target) int {
			return 4 * newReflector(&build.Func{Target: t}, k).scratch(nil)
		},
	}
}
