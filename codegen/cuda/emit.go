package cuda

import (
	"fmt"
	"math"
	"slices"

	"github.com/llir/llvm/ir/enum"
	"github.com/llir/llvm/ir/types"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// Value is a scalar of one thread.
type Value = build.Value

// emitter writes the nodes of a kernel as what one thread does.
//
// A thread works on several points at once (width), the same node for all of
// them before the next: so their loads are under way together. What is the same
// for all points has one value instead of width. Where the points differ in one
// variable, by 1 from each to the next (run), neighbours in memory are loaded and
// stored together.
type emitter struct {
	*build.Func
	k     *kern.Kernel
	width int
	bases []Value // first element of every buffer
	run   *kern.Var
	vars  [][]Value // i32, by Var.ID, then point; one for all points alike
	vals  [][]Value // by Node.ID, likewise
	uses  []int     // by Node.ID
	soft  []bool    // by Node.ID: what a sum absorbs, and such sums (absorbed)
	words []bool    // by Node.ID: random numbers that are kept as 32 bits (words)
	final []bool    // by Node.ID: what only stores read that round as it does (final)

	// live says which points exist: stores of others are left out. Their
	// variables must be those of a point that exists. Nil: all.
	live []Value
	// once says that only this thread stores at the current place. Nil: every.
	once Value
	// shared counts the loops that load the same, by nest.read; kept is what was
	// loaded for them, by that and the iteration.
	shared map[string]int
	kept   map[string][]Value
	// loop, when set, emits a loop in place of the sequential one.
	loop func(n *kern.Node) error
	// pairs says that the target rounds two values to 16 bits in one instruction
	// (from sm_80 on): bf16 otherwise takes six for one.
	pairs bool
	// long says that what loops read is too much to keep, and that many threads
	// share the registers.
	long bool
}

// storage is the type of a stored element.
func storage(d ir.DType) types.Type {
	switch d.Size() {
	case 1:
		return build.I8
	case 2:
		return build.I16
	}
	if d == ir.F32 {
		return build.F32
	}
	return build.I32
}

// scalar is the type of a value.
func scalar(d ir.DType) types.Type {
	switch d {
	case ir.F32:
		return build.F32
	case ir.I32:
		return build.I32
	}
	return build.I1
}

// newEmitter starts the body of k; the function's pointers are k's buffers.
func newEmitter(f *build.Func, k *kern.Kernel) *emitter {
	e := &emitter{Func: f, k: k, width: 1, vars: make([][]Value, k.NumVars), vals: make([][]Value, k.NumNodes), uses: make([]int, k.NumNodes),
		soft: absorbed(k), words: words(k), final: final(k), shared: shareLoads(k), kept: map[string][]Value{}}
	for i, b := range k.Bufs {
		e.bases = append(e.bases, f.Pointer(i, storage(b.DType)))
	}
	e.countUses(k.Body)
	return e
}

func (e *emitter) countUses(body []*kern.Node) {
	for _, n := range body {
		n.EachRead(func(a *kern.Node) { e.uses[a.ID]++ })
		e.countUses(n.Body)
	}
}

// each makes a value for every point.
func (e *emitter) each(at func(p int) Value) []Value {
	out := make([]Value, e.width)
	for p := range out {
		out[p] = at(p)
	}
	return out
}

// of is what x is at point p.
func of(x []Value, p int) Value {
	if len(x) == 1 {
		return x[0]
	}
	return x[p]
}

// alike reports whether n, a pure node, is the same at all points.
func (e *emitter) alike(n *kern.Node) bool {
	same := e.alikeIndex(n.At) && e.alikeGuards(n)
	for _, a := range n.Args {
		if n.Prim == kern.Add || n.Prim == kern.Sub {
			for _, b := range a.Args { // of a product that is fused into the sum
				same = same && (e.vals[a.ID] != nil || len(e.vals[b.ID]) == 1)
			}
		}
		same = same && (e.vals[a.ID] == nil || len(e.vals[a.ID]) == 1)
	}
	return same
}

// alikeGuards reports whether n's guards are the same at all points.
func (e *emitter) alikeGuards(n *kern.Node) bool {
	return !slices.ContainsFunc(n.Guards, func(g kern.Guard) bool { return !e.alikeIndex(g.At) })
}

func (e *emitter) alikeIndex(ix kern.Index) bool {
	for _, t := range ix.Terms {
		if t.Var.Extent > 1 && len(e.vars[t.Var.ID]) != 1 {
			return false
		}
	}
	for _, d := range ix.Ind {
		if len(e.vals[d.Node.ID]) != 1 {
			return false
		}
	}
	return true
}

// together reports whether the elements at of all points lie side by side, the
// first at a multiple of n, which divides the width.
func (e *emitter) together(at kern.Index, n int) bool {
	if e.run == nil || e.width == 1 || e.width%n != 0 || !at.Runs(e.run, n) {
		return false
	}
	for _, t := range at.Terms {
		if t.Var != e.run && t.Var.Extent > 1 && len(e.vars[t.Var.ID]) != 1 {
			return false
		}
	}
	for _, d := range at.Ind {
		if len(e.vals[d.Node.ID]) != 1 {
			return false
		}
	}
	return true
}

// pieces cuts the width into vectors of at most 16 bytes.
func (e *emitter) pieces(d ir.DType) (n, count int) {
	n = min(e.width, 16/d.Size())
	return n, e.width / n
}

// loadTogether loads neighbours, which are 0 where ok, if given, fails.
func (e *emitter) loadTogether(n *kern.Node, ok Value) []Value {
	d := e.k.Bufs[n.Buf].DType
	per, count := e.pieces(d)
	at := e.index(n.At, 0)
	if ok != nil {
		at = e.Select(ok, at, build.Int(0))
	}
	base := e.At(e.bases[n.Buf], at)
	var out []Value
	words := d == ir.E6M9 && per >= 4 // of two codes
	for i := range count {
		at := e.At(base, build.Int(i*per))
		var v Value
		if words {
			v = e.read(n.Buf, e.Cast(at, build.Vec(per/2, build.I32)))
		} else {
			v = e.read(n.Buf, e.Cast(at, build.Vec(per, storage(d))))
		}
		for j := range per {
			var x Value
			switch {
			case words && j%2 == 0:
				x = e.widenUpper(e.Shl(e.Elem(v, j/2), 16))
			case words:
				x = e.widenUpper(e.Elem(v, j/2))
			default:
				x = e.widen(d, e.Elem(v, j))
			}
			if ok != nil {
				x = e.Select(ok, x, zero(n.Type))
			}
			out = append(out, x)
		}
	}
	return out
}

// storeTogether stores neighbours.
func (e *emitter) storeTogether(n *kern.Node) {
	d := e.k.Bufs[n.Buf].DType
	per, count := e.pieces(d)
	base := e.At(e.bases[n.Buf], e.index(n.At, 0))
	x := func(i int) Value { return of(e.vals[n.Args[0].ID], i) }
	for i := range count {
		var vs []Value
		for j := range per {
			if kind := packed[d]; kind != "" && e.pairs {
				if j%2 == 0 {
					vs = append(vs, e.Pack(kind, x(i*per+j), x(i*per+j+1)))
				}
			} else {
				vs = append(vs, e.narrow(d, x(i*per+j)))
			}
		}
		to := e.At(base, build.Int(i*per))
		if len(vs) == 1 {
			e.Store(vs[0], e.Cast(to, vs[0].Type()))
		} else {
			e.Store(e.Vector(vs...), e.Cast(to, build.Vec(len(vs), vs[0].Type())))
		}
	}
}

// packed are the types that build.Func.Pack makes.
var packed = map[ir.DType]string{ir.F16: "f16", ir.BF16: "bf16"}

// set gives a loop variable its value at every point.
func (e *emitter) set(v *kern.Var, x ...Value) { e.vars[v.ID] = x }

// unflatten sets vars, of which the last runs fastest, from the number of a
// point, one number for every point.
func (e *emitter) unflatten(vars []*kern.Var, at ...Value) {
	for i := len(vars) - 1; i >= 0; i-- {
		v := vars[i]
		if i == 0 {
			e.set(v, at...)
			return
		}
		x, rest := make([]Value, len(at)), make([]Value, len(at))
		for p := range at {
			x[p], rest[p] = e.Rem(at[p], v.Extent), e.Div(at[p], v.Extent)
		}
		e.set(v, x...)
		at = rest
	}
}

// index is an index at point p, an i32: kernels address elements by 31 bits.
func (e *emitter) index(ix kern.Index, p int) Value {
	var sum Value = build.Int(ix.Const)
	for _, t := range ix.Terms {
		if t.Var.Extent > 1 {
			sum = e.Add(e.MulI(of(e.vars[t.Var.ID], p), t.Coef), sum)
		}
	}
	for _, d := range ix.Ind {
		sum = e.Add(e.MulI(of(e.vals[d.Node.ID], p), d.Coef), sum)
	}
	return sum
}

// holds is whether all guards hold, nil for always.
func (e *emitter) holds(gs []kern.Guard, p int) Value {
	var all Value
	for _, g := range gs {
		// lo <= x < hi is x-lo < hi-lo without sign.
		c := e.Below(e.AddI(e.index(g.At, p), -g.Lo), build.Int(g.Hi-g.Lo))
		if all == nil {
			all = c
		} else {
			all = e.And(all, c)
		}
	}
	return all
}

// load is an element, 0 where a guard or ok fails.
func (e *emitter) load(n *kern.Node, p int, ok Value) Value {
	if g := e.holds(n.Guards, p); g != nil {
		if ok == nil {
			ok = g
		} else {
			ok = e.And(ok, g)
		}
	}
	d := e.k.Bufs[n.Buf].DType
	at := e.index(n.At, p)
	if ok != nil {
		at = e.Select(ok, at, build.Int(0))
	}
	x := e.widen(d, e.read(n.Buf, e.At(e.bases[n.Buf], at)))
	if ok != nil {
		x = e.Select(ok, x, zero(n.Type))
	}
	return x
}

// read loads from buffer buf at p.
func (e *emitter) read(buf int, p Value) Value {
	if e.k.Bufs[buf].Mode == kern.In {
		return e.LoadOnly(p)
	}
	return e.Load(p)
}

// zero is 0 as a value of type d.
func zero(d ir.DType) Value {
	switch d {
	case ir.F32:
		return build.Float(0)
	case ir.I32:
		return build.Int(0)
	}
	return build.Bool(false)
}

// body emits nodes in program order.
func (e *emitter) body(nodes []*kern.Node) error {
	fused := e.fusible(nodes)
	for _, n := range nodes {
		if n.Prim != kern.Store && n.Prim != kern.Loop && e.uses[n.ID] == 0 || e.vals[n.ID] != nil || fused[n] {
			continue
		}
		if err := e.node(n); err != nil {
			return err
		}
	}
	return nil
}

// fusible finds the products that feed one sum and nothing else: the sum rounds
// once.
func (e *emitter) fusible(nodes []*kern.Node) map[*kern.Node]bool {
	fused := map[*kern.Node]bool{}
	for _, n := range nodes {
		if (n.Prim == kern.Add || n.Prim == kern.Sub) && n.Type == ir.F32 {
			for i := len(n.Args) - 1; i >= 0; i-- {
				if a := n.Args[i]; a.Prim == kern.Mul && e.uses[a.ID] == 1 && e.vals[a.ID] == nil && in(nodes, a) {
					fused[a] = true
					break
				}
			}
		}
		if n.Prim == kern.Acc || n.Prim == kern.Loop {
			continue
		}
	}
	return fused
}

func in(nodes []*kern.Node, x *kern.Node) bool { return slices.Contains(nodes, x) }

func (e *emitter) node(n *kern.Node) error {
	switch n.Prim {
	case kern.Store:
		d := e.k.Bufs[n.Buf].DType
		if e.together(n.At, e.width) && (e.live == nil || len(e.live) == 1) && d.Size() > 1 {
			e.where(e.once, e.liveAt(0), func() { e.storeTogether(n) })
			return nil
		}
		points := e.width
		if e.alikeIndex(n.At) {
			points = 1 // all store the same
		}
		for p := range points {
			e.where(e.once, e.liveAt(p), func() {
				e.Store(e.narrow(d, of(e.vals[n.Args[0].ID], p)), e.At(e.bases[n.Buf], e.index(n.At, p)))
			})
		}
		return nil
	case kern.Loop:
		if e.loop != nil {
			return e.loop(n)
		}
		return e.sequential(nestOf(n), build.Int(0), 1)
	case kern.Acc:
		return fmt.Errorf("internal: kernel %s: %%%d: accumulator of no loop", e.k.Name, n.ID)
	}
	switch {
	case n.Prim == kern.Load && e.k.Bufs[n.Buf].DType.Size() > 1 && e.together(n.At, e.width) && e.alikeGuards(n):
		e.vals[n.ID] = e.loadTogether(n, e.holds(n.Guards, 0))
		return nil
	case n.Prim == kern.Div && n.Type == ir.F32 && e.width > 1 && len(e.vals[n.Args[1].ID]) == 1 && !e.alike(n):
		// One division for all points, and products.
		r := e.FDiv(build.Float(1), e.arg(n, 1, 0))
		e.vals[n.ID] = e.each(func(p int) Value { return e.FMul(e.arg(n, 0, p), r) })
		return nil
	case n.Prim == kern.Random && len(e.vals[n.Args[0].ID]) == 1 && len(e.vals[n.Args[1].ID]) == 1 && e.together(n.At, 4):
		e.vals[n.ID] = e.randoms(n, e.arg(n, 0, 0), e.arg(n, 1, 0), e.index(n.At, 0))
		return nil
	}
	var err error
	eval := func(p int) Value {
		x, er := e.eval(n, p)
		if er != nil {
			err = er
		}
		return x
	}
	if e.width == 1 || e.alike(n) {
		e.vals[n.ID] = []Value{eval(0)}
	} else {
		e.vals[n.ID] = e.each(eval)
	}
	return err
}

// liveAt is whether point p exists, nil for always.
func (e *emitter) liveAt(p int) Value {
	if e.live == nil {
		return nil
	}
	return of(e.live, p)
}

// where runs then where both conditions hold; nil ones do.
func (e *emitter) where(a, b Value, then func()) {
	switch {
	case a == nil && b == nil:
		then()
	case a == nil:
		e.If(b, then)
	case b == nil:
		e.If(a, then)
	default:
		e.If(e.And(a, b), then)
	}
}

// identity is what an accumulator starts with.
func identity(a kern.Reduction) Value {
	switch {
	case a.Val.Type == ir.I32:
		if a.Combine == kern.MaxOf {
			return build.Int(math.MinInt32)
		}
		return build.Int(0)
	case a.Combine == kern.MaxOf:
		return build.Float(math.Inf(-1))
	}
	return build.Float(0)
}

// combine takes y into accumulator x.
func (e *emitter) combine(a kern.Reduction, x, y Value) Value {
	switch {
	case a.Val.Type == ir.I32 && a.Combine == kern.Sum:
		return e.Add(x, y)
	case a.Val.Type == ir.I32:
		return e.Select(e.Lt(x, y), y, x)
	case a.Combine == kern.Sum:
		return e.FAdd(x, y)
	}
	return e.Maximum(x, y)
}

// nest is a loop, or several of which each does little but run the next and take in
// what that added up: one loop over all their iterations, the innermost running
// fastest. What the outer ones do before is done in each iteration.
type nest struct {
	outer, inner *kern.Node
	vars         []*kern.Var
	before       []*kern.Node
}

func nestOf(l *kern.Node) nest {
	n := nest{outer: l, inner: l, vars: []*kern.Var{l.Vars[0]}}
	for {
		var next *kern.Node
		var before []*kern.Node
		for _, x := range n.inner.Body {
			switch {
			case x.Prim == kern.Loop && next == nil:
				next = x
			case x.Prim == kern.Acc && x.Args[0] == next:
			case next == nil && little(x) && len(n.before)+len(before) < 8:
				before = append(before, x)
			default:
				return n
			}
		}
		if next == nil || len(next.Accs) != len(n.inner.Accs) || stores(next.Body) {
			return n
		}
		for i, a := range n.inner.Accs {
			if a.Val.Prim != kern.Acc || a.Val.Args[0] != next || int(a.Val.I) != i || next.Accs[i].Combine != a.Combine {
				return n
			}
		}
		n.inner = next
		n.vars = append(n.vars, next.Vars[0])
		n.before = append(n.before, before...)
	}
}

// little reports whether n is an instruction or two, such as of an index.
func little(n *kern.Node) bool {
	switch n.Prim {
	case kern.Const, kern.Pos, kern.Load, kern.Cast, kern.Neg, kern.Abs, kern.Add, kern.Sub, kern.Mul, kern.Min, kern.Max:
		return true
	}
	return false
}

func stores(body []*kern.Node) bool {
	found := false
	kern.Walk(body, func(n *kern.Node) { found = found || n.Prim == kern.Store })
	return found
}

// extent is the number of iterations.
func (n nest) extent() int { return points(n.vars) }

// last is the variable that runs fastest.
func (n nest) last() *kern.Var { return n.vars[len(n.vars)-1] }

// sequential emits a loop whose iterations start at from, below by, and go on by
// by, and gives its accumulators their values.
//
// Several iterations are written out at a time and done in order, but all that they
// load comes first: so it is under way together. ptxas neither unrolls a loop that
// starts at a thread's number nor moves loads across a division.
func (e *emitter) sequential(l nest, from Value, by int) error {
	n := l.inner
	var c []Value
	for _, a := range n.Accs {
		for range e.width {
			c = append(c, identity(a))
		}
	}
	loop, once := e.loop, e.once
	e.loop, e.once = nil, nil
	var err error
	// batch does the iterations from i on; of the last one only those threads whose
	// number is below the extent, if some is.
	batch := func(i Value, turns int, last bool, at string, c []Value) []Value {
		early := make([]map[*kern.Node][]Value, turns)
		vars := make([][][]Value, turns)
		var in Value
		for u := range turns {
			x := e.AddI(i, u*by)
			if last && u == turns-1 {
				in = e.Lt(x, build.Int(l.extent()))
				x = e.Select(in, x, build.Int(0))
			}
			e.iterate(l, x)
			if er := e.body(l.before); er != nil {
				err = er
			}
			early[u] = e.ahead(l, key(at, u))
			for _, x := range l.before {
				early[u][x] = e.vals[x.ID]
			}
			e.forget(l.before)
			for _, v := range l.vars {
				vars[u] = append(vars[u], e.vars[v.ID])
			}
		}
		for u := range turns {
			for j, v := range l.vars {
				e.set(v, vars[u][j]...)
			}
			for x, v := range early[u] {
				e.vals[x.ID] = v
			}
			turn := func() []Value {
				if err != nil {
					return c
				}
				var next []Value
				next, err = e.turn(n, c)
				return next
			}
			if last && u == turns-1 {
				c = e.IfElse(in, turn, func() []Value { return c })
			} else {
				c = turn()
			}
			e.forget(n.Body)
			e.forget(l.before)
		}
		return c
	}
	sure, rest := l.extent()/by, l.extent()%by > 0
	total := sure
	if rest {
		total++
	}
	turns, at := total, fmt.Sprintf("by %d, %d: ", by, e.width)
	switch most := e.turns(l, at, 2*batchBytes); {
	case e.long:
		turns, at = min(total, most, 2), ""
	case total > most:
		turns, at = ceil(total, ceil(total, e.turns(l, at, batchBytes))), ""
	}
	if full := sure / turns; full > 1 {
		c = e.For(from, build.Int(full*turns*by), build.Int(turns*by), c, func(i Value, c []Value) []Value {
			return batch(i, turns, false, "", c)
		})
		from = e.AddI(from, full*turns*by)
		total -= full * turns
	}
	for total > 0 {
		now := min(total, turns)
		c = batch(from, now, rest && now == total, at, c)
		from = e.AddI(from, now*by)
		total -= now
	}
	e.loop, e.once = loop, once
	if err != nil {
		return err
	}
	for _, acc := range e.accs(l.outer) {
		e.vals[acc.ID] = c[int(acc.I)*e.width : int(acc.I+1)*e.width]
	}
	return nil
}

// iterate sets the variables of a loop for iteration i.
func (e *emitter) iterate(l nest, i Value) {
	e.unflatten(l.vars, i)
	if v := l.last(); e.run == v {
		first := e.vars[v.ID][0]
		e.set(v, e.each(func(p int) Value { return e.AddI(first, p) })...)
	}
}

// turn does one iteration of a loop, with accumulators before it and after it.
func (e *emitter) turn(n *kern.Node, c []Value) ([]Value, error) {
	// A product that is only summed is fused into the sum.
	skip := map[*kern.Node]bool{}
	for _, a := range n.Accs {
		if a.Combine == kern.Sum && a.Val.Prim == kern.Mul && a.Val.Type == ir.F32 && e.uses[a.Val.ID] == 1 && in(n.Body, a.Val) {
			skip[a.Val] = true
			e.uses[a.Val.ID] = 0
		}
	}
	err := e.body(n.Body)
	for s := range skip {
		e.uses[s.ID] = 1
	}
	if err != nil {
		return c, err
	}
	next := []Value{}
	for i, a := range n.Accs {
		for p := range e.width {
			old := c[i*e.width+p]
			if skip[a.Val] {
				next = append(next, e.FMA(of(e.vals[a.Val.Args[0].ID], p), of(e.vals[a.Val.Args[1].ID], p), old))
			} else {
				next = append(next, e.combine(a, old, of(e.vals[a.Val.ID], p)))
			}
		}
	}
	return next, nil
}

// key names iteration u of a thread, of a loop that is written out whole; "" of
// others.
func key(at string, u int) string {
	if at == "" {
		return ""
	}
	return fmt.Sprint(at, u, " ")
}

// ahead loads what an iteration reads of buffers that the kernel doesn't write. With
// at, the number of an iteration that is the same for all loops of the kernel,
// what another of them loads too is kept for it.
func (e *emitter) ahead(l nest, at string) map[*kern.Node][]Value {
	out := map[*kern.Node][]Value{}
	known := func(ix kern.Index) bool {
		for _, d := range ix.Ind {
			if e.vals[d.Node.ID] == nil {
				return false
			}
		}
		return true
	}
	for _, n := range l.inner.Body {
		if n.Prim != kern.Load || e.uses[n.ID] == 0 || e.k.Bufs[n.Buf].Mode != kern.In || !known(n.At) {
			continue
		}
		if slices.ContainsFunc(n.Guards, func(g kern.Guard) bool { return !known(g.At) }) {
			continue
		}
		keep := at != "" && e.shared[l.read(n)] > 1 && in(e.k.Body, l.outer)
		v := e.kept[at+l.read(n)]
		if v == nil || !keep {
			e.node(n)
			v = e.vals[n.ID]
		}
		if keep {
			e.kept[at+l.read(n)] = v
		}
		e.vals[n.ID] = v
		out[n] = v
	}
	e.forget(l.inner.Body)
	return out
}

// read says what n, of the loop's body, loads, in terms of the loop's variables; ""
// for what doesn't depend on them, or on more.
func (l nest) read(n *kern.Node) string {
	if len(n.Guards) > 0 || len(n.At.Ind) > 0 {
		return ""
	}
	s := fmt.Sprint(n.Buf, " ", n.At.Const)
	moves := false
	for _, t := range n.At.Terms {
		v := t.Var.String()
		if i := slices.Index(l.vars, t.Var); i >= 0 {
			v = fmt.Sprintf("loop%d<%d", i, t.Var.Extent)
			moves = true
		}
		s += fmt.Sprintf(" %s*%d", v, t.Coef)
	}
	if !moves {
		return ""
	}
	return s
}

// shareLoads counts the loops of k that load the same.
func shareLoads(k *kern.Kernel) map[string]int {
	count := map[string]int{}
	for _, x := range k.Body {
		if x.Prim != kern.Loop {
			continue
		}
		l := nestOf(x)
		seen := map[string]bool{}
		for _, n := range l.inner.Body {
			if n.Prim == kern.Load {
				if r := l.read(n); r != "" && !seen[r] {
					seen[r] = true
					count[r]++
				}
			}
		}
	}
	return count
}

const (
	// batchBytes is what a thread should have under way. With batchThreads of a
	// multiprocessor at least, that is more than the 40 KB that the latency of memory
	// takes.
	batchBytes   = 160
	batchThreads = 512
	// batchNodes is how long a batch may be, in nodes.
	batchNodes = 160
)

// turns is how many iterations of a loop are written out at most, to load so many
// bytes at once; what is kept of other loops, by at, is not loaded.
func (e *emitter) turns(l nest, at string, budget int) int {
	weight, bytes := 0, 0
	for _, n := range l.inner.Body {
		switch n.Prim {
		case kern.Loop, kern.Random:
			return 1
		case kern.Exp, kern.Log, kern.Tanh, kern.Div, kern.Sqrt:
			weight += 4
		case kern.Load:
			weight++
			if !slices.ContainsFunc(l.vars, func(v *kern.Var) bool { return n.At.Coef(v) != 0 }) {
				continue
			}
			size := e.k.Bufs[n.Buf].DType.Size()
			switch read := l.read(n); {
			case e.kept[key(at, 0)+read] != nil:
				size = 0
			case e.shared[read] > 1:
				size = 4 // kept as it is used
			}
			if e.run != nil && n.At.Coef(e.run) != 0 {
				size *= e.width
			}
			bytes += size
		default:
			weight++
		}
	}
	turns := min(8, batchNodes/max(1, weight))
	if bytes > 0 {
		turns = min(turns, budget/bytes)
	}
	return max(1, turns)
}

// forget drops the values of nodes, which are those of an iteration.
func (e *emitter) forget(body []*kern.Node) {
	for _, n := range body {
		e.vals[n.ID] = nil
		e.forget(n.Body)
	}
}

// accs finds the accumulators of a loop.
func (e *emitter) accs(loop *kern.Node) []*kern.Node {
	var out []*kern.Node
	var find func(body []*kern.Node)
	find = func(body []*kern.Node) {
		for _, n := range body {
			if n.Prim == kern.Acc && n.Args[0] == loop {
				out = append(out, n)
			}
			find(n.Body)
		}
	}
	find(e.k.Body)
	return out
}

// arg is argument i of n at point p.
func (e *emitter) arg(n *kern.Node, i, p int) Value { return of(e.vals[n.Args[i].ID], p) }

// eval emits a pure node for one point.
func (e *emitter) eval(n *kern.Node, p int) (Value, error) {
	arg := func(i int) Value { return e.arg(n, i, p) }
	float := len(n.Args) > 0 && n.Args[len(n.Args)-1].Type == ir.F32
	switch n.Prim {
	case kern.Const:
		switch n.Type {
		case ir.F32:
			return build.Float(n.F), nil
		case ir.I32:
			return build.Int(int(n.I)), nil
		}
		return build.Bool(n.I&1 != 0), nil
	case kern.Pos:
		return e.index(n.At, p), nil
	case kern.Test:
		if x := e.holds(n.Guards, p); x != nil {
			return x, nil
		}
		return build.Bool(true), nil
	case kern.Load:
		return e.load(n, p, nil), nil
	case kern.Random:
		return e.random(n, arg(0), arg(1), e.index(n.At, p)), nil
	case kern.Cast:
		return e.cast(n.Args[0].Type, n.Type, arg(0)), nil
	case kern.Round:
		d := ir.DType(n.I)
		if len(n.Args) == 2 {
			return e.rounded(n, d, e.roundRandomly(d, arg(0), e.bitsOf(n.Args[1], dropped(d), arg(1)))), nil
		}
		if d == ir.BF16 && e.pairs {
			// The upper of a pair is the upper half of an f32; the lower is 0.
			return e.Bits(e.Pack("bf16", build.Float(0), arg(0)), build.F32), nil
		}
		return e.widen(d, e.narrow(d, arg(0))), nil
	case kern.Neg:
		if float {
			return e.FNeg(arg(0)), nil
		}
		return e.Sub(build.Int(0), arg(0)), nil
	case kern.Abs:
		if float {
			return e.FAbs(arg(0)), nil
		}
		return e.Select(e.Lt(arg(0), build.Int(0)), e.Sub(build.Int(0), arg(0)), arg(0)), nil
	case kern.Exp:
		if e.soft[n.ID] {
			return e.FastEx2(e.FMul(arg(0), build.Float(math.Log2E))), nil
		}
		return e.exp(arg(0)), nil
	case kern.Log:
		return e.log(arg(0)), nil
	case kern.Tanh:
		return e.tanh(arg(0)), nil
	case kern.Sqrt:
		if e.soft[n.ID] {
			return e.FastSqrt(arg(0)), nil
		}
		return e.Sqrt(arg(0)), nil
	case kern.Floor:
		return e.Floor(arg(0)), nil
	case kern.Add, kern.Sub:
		if float {
			return e.sum(n, p), nil
		}
		if n.Prim == kern.Add {
			return e.Add(arg(0), arg(1)), nil
		}
		return e.Sub(arg(0), arg(1)), nil
	case kern.Mul:
		if float {
			return e.FMul(arg(0), arg(1)), nil
		}
		return e.Mul(arg(0), arg(1)), nil
	case kern.Div:
		switch {
		case float && e.soft[n.Args[1].ID]:
			return e.FMul(arg(0), e.Rcp(arg(1))), nil
		case float:
			return e.FDiv(arg(0), arg(1)), nil
		}
		return e.SDiv(arg(0), arg(1)), nil
	case kern.Min:
		if float {
			return e.Minimum(arg(0), arg(1)), nil
		}
		return e.Select(e.Lt(arg(1), arg(0)), arg(1), arg(0)), nil
	case kern.Max:
		if float {
			return e.Maximum(arg(0), arg(1)), nil
		}
		return e.Select(e.Lt(arg(0), arg(1)), arg(1), arg(0)), nil
	case kern.Lt:
		return e.compare(enum.FPredOLT, enum.IPredSLT, float, arg(0), arg(1)), nil
	case kern.Le:
		return e.compare(enum.FPredOLE, enum.IPredSLE, float, arg(0), arg(1)), nil
	case kern.Eq:
		return e.compare(enum.FPredOEQ, enum.IPredEQ, float, arg(0), arg(1)), nil
	case kern.And:
		return e.And(arg(0), arg(1)), nil
	case kern.Or:
		return e.Or(arg(0), arg(1)), nil
	case kern.Not:
		return e.Not(arg(0)), nil
	case kern.Select:
		return e.Select(arg(0), arg(1), arg(2)), nil
	}
	return nil, fmt.Errorf("internal: kernel %s: %%%d: %s is not supported here", e.k.Name, n.ID, n.Prim)
}

func (e *emitter) compare(fp enum.FPred, ip enum.IPred, float bool, a, b Value) Value {
	if float {
		return e.FCompare(fp, a, b)
	}
	return e.Compare(ip, a, b)
}

// sum is an f32 addition or subtraction, with a fused product if it has one.
func (e *emitter) sum(n *kern.Node, p int) Value {
	a, b := n.Args[0], n.Args[1]
	sub := n.Prim == kern.Sub
	fused := func(m *kern.Node) bool { return m.Prim == kern.Mul && e.vals[m.ID] == nil }
	switch {
	case fused(b):
		x := e.arg(b, 0, p)
		if sub {
			x = e.FNeg(x)
		}
		return e.FMA(x, e.arg(b, 1, p), of(e.vals[a.ID], p))
	case fused(a):
		c := of(e.vals[b.ID], p)
		if sub {
			c = e.FNeg(c)
		}
		return e.FMA(e.arg(a, 0, p), e.arg(a, 1, p), c)
	case sub:
		return e.FSub(of(e.vals[a.ID], p), of(e.vals[b.ID], p))
	}
	return e.FAdd(of(e.vals[a.ID], p), of(e.vals[b.ID], p))
}

func (e *emitter) cast(from, to ir.DType, a Value) Value {
	switch {
	case from == to:
		return a
	case to == ir.F32 && from == ir.I32:
		return e.ToFloat(a)
	case to == ir.F32:
		return e.Select(a, build.Float(1), build.Float(0))
	case to == ir.I32 && from == ir.F32:
		return e.ToInt(a)
	case to == ir.I32:
		return e.Select(a, build.Int(1), build.Int(0))
	case from == ir.F32:
		return e.FCompare(enum.FPredUNE, a, build.Float(0))
	}
	return e.Compare(enum.IPredNE, a, build.Int(0))
}
