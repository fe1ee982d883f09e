package cpu

import (
	"github.com/llir/llvm/ir/types"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
)

// V is a value of package build.
type V = build.V

// Affine is an index in elements: Const plus a coefficient times the position in each batch,
// outer and summed dimension. Outer are the rows of a left operand, the columns of a right one.
type Affine struct {
	Const             int
	Batch, Outer, Sum []int
}

// Guard holds where Lo <= At < Hi. Elements for which a guard fails are 0 and are not touched:
// the padding of a convolution.
type Guard struct {
	At     Affine
	Lo, Hi int
}

// Operand says where the elements of a matrix are. It need not be stored as one: the patches of
// an image (im2col) are an Affine with several summed dimensions, and Guards.
type Operand struct {
	Slot   int // argument slot that holds the address
	At     Affine
	Guards []Guard
	// Elem is the stored type, nil for float32; Widen makes float32 of a scalar or vector of it.
	Elem  types.Type
	Widen func(f *build.Func, v V) V
	// Formula, if there is one, makes an element of what is there and what More hold for it. More
	// have no guards, and depend on no dimension that At does not depend on.
	Formula *Formula
	More    []Operand
}

// dim is a dimension with its coefficient in the address and in each guard, and then in the
// address of each further source.
type dim struct {
	extent int
	coef   int
	guard  []int
}

// view is an operand as rows of elements to be copied: either its outer dimensions are the rows
// and its summed ones the columns, or the reverse.
type view struct {
	op   *Operand
	rows []dim
	// A column is a position in outer, and then one in a run: runLen elements that lie next to
	// each other. If clip is set, guards with clipped also depend on the position in the run,
	// which then is runLen/unit steps of unit elements each.
	outer   []dim
	runLen  int
	unit    int
	clipped []bool
	clip    bool
	lane    []int // steps of each further source from one element of a run to the next: 0 or 1
}

// dims pairs extents with the coefficients that pick selects, drops extents of 1 and merges
// neighbours that walk memory and guards like one dimension.
func (op *Operand) dims(extents []int, pick func(a *Affine) []int) []dim {
	var out []dim
	for i := len(extents) - 1; i >= 0; i-- { // innermost first
		if extents[i] == 1 {
			continue
		}
		d := dim{extent: extents[i], coef: pick(&op.At)[i]}
		for j := range op.Guards {
			d.guard = append(d.guard, pick(&op.Guards[j].At)[i])
		}
		for j := range op.More {
			d.guard = append(d.guard, pick(&op.More[j].At)[i])
		}
		if n := len(out); n > 0 && merges(d, out[n-1]) {
			out[n-1].extent *= d.extent
			continue
		}
		out = append(out, d)
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

func merges(outer, inner dim) bool {
	if outer.coef != inner.coef*inner.extent {
		return false
	}
	for j := range outer.guard {
		if outer.guard[j] != inner.guard[j]*inner.extent {
			return false
		}
	}
	return true
}

// newView builds the view with the given row and column dimensions, outermost first.
func newView(op *Operand, rows, cols []dim) *view {
	guards := len(op.Guards)
	v := &view{op: op, rows: rows, outer: cols, runLen: 1, unit: 1, clipped: make([]bool, guards), lane: make([]int, len(op.More))}
	take := func(d dim) {
		if v.runLen == 1 {
			copy(v.lane, d.guard[guards:])
		}
		v.runLen *= d.extent
		v.outer = v.outer[:len(v.outer)-1]
	}
	// last is the next dimension that a run could take in: one that goes on where the run ends.
	last := func() (dim, bool) {
		if len(v.outer) == 0 {
			return dim{}, false
		}
		d := v.outer[len(v.outer)-1]
		ok := d.coef == v.runLen
		for j, c := range d.guard[guards:] {
			if v.runLen == 1 {
				ok = ok && (c == 0 || c == 1)
			} else {
				ok = ok && c == v.lane[j]*v.runLen
			}
		}
		return d, ok
	}
	if d, ok := last(); ok && !anyNonZero(d.guard[:guards]) {
		take(d)
		v.unit = v.runLen
	}
	if d, ok := last(); ok && anyNonZero(d.guard[:guards]) && oneEach(d.guard[:guards]) {
		take(d)
		v.clip = true
		for j, g := range d.guard[:guards] {
			v.clipped[j] = g == 1
		}
	}
	return v
}

func anyNonZero(xs []int) bool {
	for _, x := range xs {
		if x != 0 {
			return true
		}
	}
	return false
}

func oneEach(xs []int) bool {
	for _, x := range xs {
		if x != 0 && x != 1 {
			return false
		}
	}
	return true
}

// contiguity is how many elements of dims, the innermost first, lie next to each other.
func contiguity(dims []dim) int {
	if len(dims) == 0 || dims[len(dims)-1].coef != 1 {
		return 1
	}
	return dims[len(dims)-1].extent
}

// oriented returns the view of op whose columns are stored next to each other, and whether its
// rows are the summed dimensions.
func oriented(op *Operand, outerExt, sumExt []int) (v *view, rowsAreSum bool) {
	outer := op.dims(outerExt, func(a *Affine) []int { return a.Outer })
	sum := op.dims(sumExt, func(a *Affine) []int { return a.Sum })
	if contiguity(outer) > contiguity(sum) {
		return newView(op, sum, outer), true
	}
	return newView(op, outer, sum), false
}

// linear reports whether the rows are one dimension.
func (v *view) linear() bool { return len(v.rows) <= 1 }

// byRows reports whether the rows are those of a float32 matrix, or computed from one and others.
func (v *view) byRows() bool {
	return v.linear() && len(v.outer) == 0 && len(v.op.Guards) == 0 && v.op.Elem == nil
}

// matrix reports whether the rows are those of a float32 matrix, or computed from one alone.
func (v *view) matrix() bool { return v.byRows() && len(v.op.More) == 0 }

// source is a view bound to a place in a kernel: the address of its batch, and what the batch
// adds to each guard.
type source struct {
	f     *build.Func
	v     *view
	base  V
	more  []V // the same of each further source
	guard []V
	table V    // i64, tableRows entries for the address, each guard and each further source
	exact bool // never write past a row in dst
}

// tableRows is how many rows load does at once when it keeps a table of them.
const tableRows = 128

// tableBytes is the scratch memory that load needs for v.
func (v *view) tableBytes() int { return 8 * tableRows * (1 + len(v.op.Guards) + len(v.op.More)) }

func (op *Operand) elem() types.Type {
	if op.Elem == nil {
		return build.F32
	}
	return op.Elem
}

// float32 is a loaded scalar or vector as float32.
func (op *Operand) float32(f *build.Func, v V) V {
	if op.Widen != nil {
		return op.Widen(f, v)
	}
	return v
}

// bind computes the parts of the addresses and guards that depend on the batch alone.
func bind(f *build.Func, v *view, args V, batch []V, table V) *source {
	s := &source{f: f, v: v, table: table}
	at := func(a *Affine) V {
		x := V(build.Int(int64(a.Const)))
		for i, b := range batch {
			if c := a.Batch[i]; c != 0 {
				x = f.Add(x, f.Mul(b, build.Int(int64(c))))
			}
		}
		return x
	}
	start := func(x *Operand) V { return f.At(f.SlotPtr(args, x.Slot, x.elem()), at(&x.At)) }
	s.base = start(v.op)
	for j := range v.op.More {
		s.more = append(s.more, start(&v.op.More[j]))
	}
	for j := range v.op.Guards {
		s.guard = append(s.guard, at(&v.op.Guards[j].At))
	}
	return s
}

// place computes offset and guard parts of linear position i in dims, and behind those the
// offsets of further sources.
func (s *source) place(i V, dims []dim) (off V, guards []V) {
	f := s.f
	off = build.Int(0)
	guards = make([]V, len(s.guard)+len(s.more))
	for j := range guards {
		guards[j] = build.Int(0)
	}
	for d := len(dims) - 1; d >= 0; d-- {
		digit := i
		if d > 0 {
			q := f.UDiv(i, build.Int(int64(dims[d].extent)))
			digit = f.Sub(i, f.Mul(q, build.Int(int64(dims[d].extent))))
			i = q
		}
		off = f.Add(off, f.Mul(digit, build.Int(int64(dims[d].coef))))
		for j := range guards {
			guards[j] = f.Add(guards[j], f.Mul(digit, build.Int(int64(dims[d].guard[j]))))
		}
	}
	return off, guards
}

// load copies columns [col, col+n) of rows [row, row+count) to dst as float32, one row every
// stride elements. Unless s is
// exact, it may write up to one vector less one element past a row's end in dst.
func (s *source) load(row, count, col, n, dst V, stride int) {
	f, v := s.f, s.v
	if len(v.outer) == 0 {
		s.rowsOfRun(row, count, col, build.Int(0), nil, n, dst, stride, nil)
		return
	}
	runLen := build.Int(int64(v.runLen))
	segments := func(row, count, dst V, lookup func(i V) (V, []V)) {
		f.While([]V{col, dst}, func(c []V) V { return f.Lt(c[0], f.Add(col, n)) }, func(c []V) []V {
			run := f.UDiv(c[0], runLen)
			e := f.Sub(c[0], f.Mul(run, runLen))
			left := f.Min(f.Sub(runLen, e), f.Sub(f.Add(col, n), c[0]))
			off, guards := s.place(run, v.outer)
			s.rowsOfRun(row, count, e, off, guards, left, c[1], stride, lookup)
			return []V{f.Add(c[0], left), f.At(c[1], left)}
		})
	}
	if v.linear() {
		segments(row, count, dst, nil)
		return
	}
	// Dividing a row number into positions costs more than copying a short run: do it once.
	f.Range(build.Int(0), count, build.Int(tableRows), func(first V) {
		some := f.Min(f.Sub(count, first), build.Int(tableRows))
		f.Range(build.Int(0), some, build.Int(1), func(i V) {
			off, guards := s.place(f.Add(f.Add(row, first), i), v.rows)
			f.Store(off, f.At(s.table, i))
			for j, g := range guards {
				f.Store(g, f.At(f.Offset(s.table, (1+j)*tableRows), i))
			}
		})
		segments(f.Add(row, first), some, f.At(dst, f.Mul(first, build.Int(int64(stride)))), func(i V) (V, []V) {
			off := f.Load(build.I64, f.At(s.table, i))
			guards := make([]V, len(s.guard)+len(s.more))
			for j := range guards {
				guards[j] = f.Load(build.I64, f.At(f.Offset(s.table, (1+j)*tableRows), i))
			}
			return off, guards
		})
	})
}

// rowsOfRun copies elements [e, e+n) of one run, at offset off and with parts guards, of count
// rows. lookup gives a row's own parts; nil computes them.
func (s *source) rowsOfRun(row, count, e, off V, guards []V, n, dst V, stride int, lookup func(i V) (V, []V)) {
	f, v := s.f, s.v
	if lookup == nil {
		lookup = func(i V) (V, []V) { return s.place(f.Add(row, i), v.rows) }
	}
	start := f.At(f.At(s.base, off), e)
	f.Range(build.Int(0), count, build.Int(1), func(i V) {
		rowOff, rowGuards := lookup(i)
		src, to := f.At(start, rowOff), f.At(dst, f.Mul(i, build.Int(int64(stride))))
		x := &run{s: s, src: src}
		for j, p := range s.more {
			p = f.At(p, rowGuards[len(s.guard)+j])
			if guards != nil {
				p = f.At(p, guards[len(s.guard)+j])
			}
			if v.lane[j] == 1 {
				p = f.At(p, e)
			}
			x.more = append(x.more, p)
		}
		if len(s.guard) == 0 {
			x.copy(to, n)
			return
		}
		// Guards that depend on the position in the run leave a window of it.
		var inside V
		lo, hi := V(build.Int(0)), V(build.Int(int64(v.runLen/v.unit)))
		for j, g := range v.op.Guards {
			x := f.Add(s.guard[j], rowGuards[j])
			if guards != nil {
				x = f.Add(x, guards[j])
			}
			if v.clipped[j] {
				lo = f.Max(lo, f.Sub(build.Int(int64(g.Lo)), x))
				hi = f.Min(hi, f.Sub(build.Int(int64(g.Hi)), x))
				continue
			}
			holds := f.ULt(f.Sub(x, build.Int(int64(g.Lo))), build.Int(int64(g.Hi-g.Lo)))
			if inside == nil {
				inside = holds
			} else {
				inside = f.And(inside, holds)
			}
		}
		full := func() { x.copy(to, n) }
		if v.clip {
			unit := build.Int(int64(v.unit))
			lo, hi := f.Sub(f.Mul(lo, unit), e), f.Sub(f.Mul(hi, unit), e)
			whole := full
			full = func() {
				f.If(f.And(f.Le(lo, build.Int(0)), f.Le(n, hi)),
					func() []V { whole(); return nil },
					func() []V { x.window(to, n, lo, hi); return nil })
			}
		}
		if inside == nil {
			full()
			return
		}
		f.If(inside, func() []V { full(); return nil }, func() []V { s.zero(to, n); return nil })
	})
}

// run is a run of elements that are to be copied, with the places of its first.
type run struct {
	s    *source
	src  V
	more []V
	y    *elements
}

// begin computes what is the same for all elements.
func (x *run) begin() {
	f, op := x.s.f, x.s.v.op
	if op.Formula == nil {
		return
	}
	scalars := make([]V, 1+len(x.more))
	for j, p := range x.more {
		if x.s.v.lane[j] == 0 {
			scalars[1+j] = op.More[j].float32(f, f.Load(op.More[j].elem(), p))
		}
	}
	x.y = op.Formula.begin(f, scalars)
}

// vector is a vector of elements from number at+u on, 0 in lanes out of mask; nil is all.
func (x *run) vector(at V, u int, mask V) V {
	f, op := x.s.f, x.s.v.op
	lanes := f.Target.Lanes
	load := func(op *Operand, p V) V {
		return op.float32(f, f.MaskLoad(build.VecOf(lanes, op.elem()), f.Offset(f.At(p, at), u), mask))
	}
	v := load(op, x.src)
	if op.Formula == nil {
		return v
	}
	vs := []V{v}
	for j, p := range x.more {
		var m V
		if x.s.v.lane[j] == 1 {
			m = load(&op.More[j], p)
		}
		vs = append(vs, m)
	}
	v = x.y.vector(f, vs)
	if mask != nil {
		v = f.Select(mask, v, build.Zero(f.Module.Vec()))
	}
	return v
}

// copy writes n elements; the last vector's store is whole.
func (x *run) copy(dst, n V) {
	s, f := x.s, x.s.f
	lanes := f.Target.Lanes
	x.begin()
	if c, ok := build.ConstInt(n); ok && c%int64(lanes) == 0 && c <= int64(8*lanes) {
		for i := 0; i < int(c); i += lanes {
			f.Store(x.vector(build.Int(0), i, nil), f.Offset(dst, i))
		}
		return
	}
	const unroll = 4
	step := int64(unroll * lanes)
	many := f.And(n, build.Int(-step))
	f.Range(build.Int(0), many, build.Int(step), func(i V) {
		to := f.At(dst, i)
		// Rows are too short for the hardware to run ahead into the next: 2 to 3% of a product.
		if d := stepOf(s.v.rows); d > 0 && s.v.linear() {
			for b := 0; b < unroll*lanes*4; b += 64 {
				f.Prefetch(f.Offset(f.At(x.src, i), 2*d+b/4), false, 3)
			}
		}
		for u := 0; u < unroll; u++ {
			f.Store(x.vector(i, u*lanes, nil), f.Offset(to, u*lanes))
		}
	})
	f.Range(many, n, build.Int(int64(lanes)), func(i V) {
		mask := f.LaneMask(lanes, f.Sub(n, i))
		s.store(x.vector(i, 0, mask), f.At(dst, i), mask)
	})
}

// window writes the elements lo <= i < hi of n and makes the others 0.
func (x *run) window(dst, n, lo, hi V) {
	s, f := x.s, x.s.f
	lanes := f.Target.Lanes
	x.begin()
	hi = f.Min(hi, n)
	f.Range(build.Int(0), n, build.Int(int64(lanes)), func(i V) {
		below := f.LaneMask(lanes, f.Sub(lo, i))
		mask := f.And(f.LaneMask(lanes, f.Sub(hi, i)), f.Not(below))
		s.store(x.vector(i, 0, mask), f.At(dst, i), f.LaneMask(lanes, f.Sub(n, i)))
	})
}

// zero writes n zeros.
func (s *source) zero(dst, n V) {
	f := s.f
	lanes := f.Target.Lanes
	f.Range(build.Int(0), n, build.Int(int64(lanes)), func(i V) {
		s.store(build.Zero(f.Module.Vec()), f.At(dst, i), f.LaneMask(lanes, f.Sub(n, i)))
	})
}

// store writes the lanes of mask, or all of them where that does no harm.
func (s *source) store(v, p, mask V) {
	if !s.exact {
		mask = nil
	}
	s.f.MaskStore(v, p, mask)
}
