package cpu

import (
	"fmt"

	"math"

	"github.com/llir/llvm/ir/types"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// val is an emitted kern value: one scalar where it is the same for all vector
// lanes (uniform), otherwise one vector for each of the region's vectors.
type val struct {
	s     build.V
	v     []build.V
	depth int // scope it was defined in
}

func (x *val) uniform() bool { return x.s != nil }

// scope is a level of loops: the grid, a row, a loop body. Pointers advance
// once a level, so that an access in the innermost loop adds a constant.
type scope struct {
	vars []*kern.Var
	ptrs map[string]build.V
	// splats holds uniform values copied to all lanes.
	splats map[*val]build.V
	set    []int // nodes defined here
}

// emitter writes the body of one kernel as LLVM IR.
//
// Code is scalar, or it is in a vector region: there the variable lane has a
// different value in every lane, unit*vl of them from vars[lane] on.
type emitter struct {
	*build.Func
	target *build.Target
	k      *kern.Kernel
	vl     int

	bases  []build.V // first element of every buffer
	vars   []build.V // i64, by Var.ID
	vals   []*val    // by Node.ID
	uses   []int     // by Node.ID
	spread []bool    // by Node.ID: wanted in lanes of an inner region
	scopes []*scope

	lane    *kern.Var
	unit    int       // vectors in the region
	mask    []build.V // lanes in force, by vector; nil for all
	aligned bool      // vars[lane] is a multiple of 4

	// override gives the value of a node computed elsewhere: a Contract.
	override map[*kern.Node]func() *val
}

// storage is the LLVM type of a stored element.
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

// scalar is the LLVM type of a value.
func scalar(d ir.DType) types.Type {
	switch d {
	case ir.F32:
		return build.F32
	case ir.I32:
		return build.I32
	}
	return build.I1
}

func newEmitter(f *build.Func, k *kern.Kernel, args build.V) *emitter {
	t := f.Target
	e := &emitter{Func: f, target: t, k: k, vl: t.Lanes, unit: 1,
		vars: make([]build.V, k.NumVars), vals: make([]*val, k.NumNodes), uses: make([]int, k.NumNodes)}
	for i, b := range k.Bufs {
		e.bases = append(e.bases, f.SlotPtr(args, i, storage(b.DType)))
	}
	e.countUses(k.Body)
	e.spread = e.spreads()
	return e
}

func c64(n int) build.V { return build.Int(int64(n)) }

// countUses counts what stores need, directly or not; nodes with no use are
// not emitted.
func (e *emitter) countUses(body []*kern.Node) {
	var visit func(n *kern.Node)
	seen := make([]bool, e.k.NumNodes)
	visit = func(n *kern.Node) {
		if seen[n.ID] {
			return
		}
		seen[n.ID] = true
		n.EachRead(func(a *kern.Node) { e.uses[a.ID]++; visit(a) })
		for _, b := range n.Body {
			if b.Prim == kern.Store || b.Prim == kern.Loop && hasStore(b) {
				visit(b)
			}
		}
	}
	for _, n := range body {
		if n.Prim == kern.Store || n.Prim == kern.Loop && hasStore(n) {
			e.uses[n.ID]++
			visit(n)
		}
	}
}

// spreads finds the values that are uniform where they are computed and wanted
// in vector lanes further in: they are copied to lanes outside the inner loop.
func (e *emitter) spreads() []bool {
	depth := make([]int, e.k.NumNodes)
	want := make([]bool, e.k.NumNodes)
	vary := make([]bool, e.k.NumNodes)
	if e.k.Vector != nil {
		vary = e.varying(e.k.Body, e.k.Vector)
	}
	var visit func(body []*kern.Node, d int)
	visit = func(body []*kern.Node, d int) {
		for _, n := range body {
			depth[n.ID] = d
			visit(n.Body, d+1)
			n.EachRead(func(a *kern.Node) {
				if !vary[a.ID] && (vary[n.ID] || depth[a.ID] < d) {
					want[a.ID] = true
				}
			})
		}
	}
	visit(e.k.Body, 0)
	return want
}

func hasStore(n *kern.Node) bool {
	found := false
	kern.Walk(n.Body, func(m *kern.Node) { found = found || m.Prim == kern.Store })
	return found
}

// dependents marks, by Node.ID, what depends on one of vars, or has a place in
// program order: stores, and loads of memory the kernel writes.
func (e *emitter) dependents(body []*kern.Node, vars []*kern.Var) []bool {
	dep := make([]bool, e.k.NumNodes)
	index := func(ix kern.Index) bool {
		for _, v := range vars {
			if ix.Coef(v) != 0 {
				return true
			}
		}
		return false
	}
	var visit func(n *kern.Node) bool
	visit = func(n *kern.Node) bool {
		d := index(n.At) || n.Prim == kern.Store || n.Prim == kern.Load && e.k.Bufs[n.Buf].Mode != kern.In
		for _, g := range n.Guards {
			d = d || index(g.At)
		}
		if n.Prim == kern.Contract {
			d = true
		}
		for _, b := range n.Body {
			d = visit(b) || d
		}
		n.EachRead(func(a *kern.Node) { d = d || dep[a.ID] })
		dep[n.ID] = d
		return d
	}
	for _, n := range body {
		visit(n)
	}
	return dep
}

// varying marks what differs between the lanes of lane.
func (e *emitter) varying(body []*kern.Node, lane *kern.Var) []bool {
	vary := make([]bool, e.k.NumNodes)
	index := func(ix kern.Index) bool {
		v := ix.Coef(lane) != 0
		for _, d := range ix.Ind {
			v = v || vary[d.Node.ID]
		}
		return v
	}
	for id, v := range e.vals {
		vary[id] = v != nil && !v.uniform()
	}
	kern.Walk(body, func(n *kern.Node) {
		v := index(n.At) || n.Prim == kern.Contract
		for _, g := range n.Guards {
			v = v || index(g.At)
		}
		if n.Prim == kern.Acc {
			v = vary[n.Args[0].Accs[n.I].Val.ID]
		} else {
			for _, a := range n.Args {
				v = v || vary[a.ID]
			}
		}
		vary[n.ID] = v
	})
	return vary
}

// weight estimates the instructions an iteration of body takes.
func weight(body []*kern.Node) int {
	w := 0
	kern.Walk(body, func(n *kern.Node) {
		switch n.Prim {
		case kern.Const, kern.Acc:
		case kern.Exp, kern.Log:
			w += 12
		case kern.Tanh:
			w += 20
		case kern.Random:
			w += 60
		case kern.Div, kern.Sqrt, kern.Round:
			w += 3
		default:
			w++
		}
	})
	return w
}

// units chooses how many vectors a region takes at once: enough independent
// chains to hide latency, few enough to stay in registers.
func (e *emitter) units(body []*kern.Node) int {
	w := weight(body)
	if e.target.Lanes == 8 {
		w = w * 3 / 2
	}
	switch {
	case w <= 10:
		return 4
	case w <= 30:
		return 2
	}
	return 1
}

// --- scopes and pointers ---

// enter binds vars, whose values are set, and advances the pointers of every
// access in body.
func (e *emitter) enter(body []*kern.Node, vars ...*kern.Var) {
	e.scopes = append(e.scopes, &scope{vars: vars, ptrs: map[string]build.V{}, splats: map[*val]build.V{}})
	kern.Walk(body, func(n *kern.Node) {
		if (n.Prim == kern.Load || n.Prim == kern.Store) && e.override[n] == nil {
			e.pointer(len(e.scopes)-1, n.Buf, n.At)
		}
	})
}

func (e *emitter) leave() {
	s := e.scopes[len(e.scopes)-1]
	for _, id := range s.set {
		e.vals[id] = nil
	}
	e.scopes = e.scopes[:len(e.scopes)-1]
}

func (e *emitter) set(n *kern.Node, x *val) {
	x.depth = len(e.scopes) - 1
	e.vals[n.ID] = x
	s := e.scopes[x.depth]
	s.set = append(s.set, n.ID)
	if e.spread[n.ID] && x.uniform() && n.Type != ir.Bool {
		s.splats[x] = e.Splat(e.vl, x.s)
	}
}

// pointer is the address of buf[at] as far as depth knows the variables and
// uniform gathers of at; the constant part is left out.
func (e *emitter) pointer(depth, buf int, at kern.Index) build.V {
	if depth < 0 {
		return e.bases[buf]
	}
	key := fmt.Sprint(buf)
	var off build.V
	add := func(x build.V, coef int) {
		if x == nil {
			return
		}
		if coef != 1 {
			x = e.Mul(x, c64(coef))
		}
		if off == nil {
			off = x
		} else {
			off = e.Add(off, x)
		}
	}
	s := e.scopes[depth]
	for d, sc := range e.scopes[:depth+1] {
		for _, v := range sc.vars {
			if c := at.Coef(v); c != 0 {
				key += fmt.Sprintf(" %d*%d", v.ID, c)
			}
		}
		for _, i := range at.Ind {
			if x := e.vals[i.Node.ID]; x != nil && x.uniform() && x.depth == d-1 {
				key += fmt.Sprintf(" %%%d*%d", i.Node.ID, i.Coef)
			}
		}
	}
	if p := s.ptrs[key]; p != nil {
		return p
	}
	p := e.pointer(depth-1, buf, at)
	for _, v := range s.vars {
		if c := at.Coef(v); c != 0 {
			add(e.vars[v.ID], c)
		}
	}
	for _, i := range at.Ind {
		if x := e.vals[i.Node.ID]; x != nil && x.uniform() && x.depth == depth-1 {
			add(e.SExt(x.s, build.I64), i.Coef)
		}
	}
	if off != nil {
		p = e.At(p, off)
	}
	s.ptrs[key] = p
	return p
}

// address is the address of buf[at] in lane 0, varying gathers left out.
func (e *emitter) address(buf int, at kern.Index) build.V {
	depth := len(e.scopes) - 1
	p := e.pointer(depth, buf, at)
	for _, i := range at.Ind {
		if x := e.vals[i.Node.ID]; x.uniform() && x.depth == depth {
			o := e.SExt(x.s, build.I64)
			if i.Coef != 1 {
				o = e.Mul(o, c64(i.Coef))
			}
			p = e.At(p, o)
		}
	}
	return e.Offset(p, at.Const)
}

// --- values ---

func (e *emitter) vec(t types.Type) *types.VectorType { return build.VecOf(e.vl, t) }

// lanes gives vector u of x.
func (e *emitter) lanes(x *val, u int) build.V {
	if !x.uniform() {
		return x.v[u]
	}
	for _, s := range e.scopes {
		if v := s.splats[x]; v != nil {
			return v
		}
	}
	v := e.Splat(e.vl, x.s)
	e.scopes[len(e.scopes)-1].splats[x] = v
	return v
}

// lift applies f to scalars when all args are uniform, else vector by vector.
func (e *emitter) lift(f func(a []build.V) build.V, args ...*val) *val {
	uniform := true
	for _, a := range args {
		uniform = uniform && a.uniform()
	}
	in := make([]build.V, len(args))
	if uniform {
		for i, a := range args {
			in[i] = a.s
		}
		return &val{s: f(in)}
	}
	out := &val{}
	for u := 0; u < e.unit; u++ {
		for i, a := range args {
			in[i] = e.lanes(a, u)
		}
		out.v = append(out.v, f(in))
	}
	return out
}

func (e *emitter) lift1(x *val, f func(a build.V) build.V) *val {
	return e.lift(func(a []build.V) build.V { return f(a[0]) }, x)
}

func (e *emitter) lift2(x, y *val, f func(a, b build.V) build.V) *val {
	return e.lift(func(a []build.V) build.V { return f(a[0], a[1]) }, x, y)
}

func uniform(s build.V) *val { return &val{s: s} }

func likeF(x build.V, f float64) build.V { return build.FloatOf(build.LikeType(x, build.F32), f) }
func likeI(x build.V, i int) build.V     { return build.IntOf(x.Type(), int64(i)) }

func isFloat(x build.V) bool {
	return build.LikeType(x, build.F32).Equal(x.Type())
}

// index is an affine index as i32, uniform or lane by lane.
func (e *emitter) index(ix kern.Index) *val {
	out := e.first(ix)
	if e.lane != nil {
		if c := ix.Coef(e.lane); c != 0 {
			steps := &val{}
			for u := 0; u < e.unit; u++ {
				steps.v = append(steps.v, e.steps(u, c))
			}
			out = e.lift2(out, steps, func(a, b build.V) build.V { return e.Add(a, b) })
		}
	}
	return out
}

// first is index without the steps of lane from the first lane on.
func (e *emitter) first(ix kern.Index) *val {
	base := build.V(nil)
	for _, t := range ix.Terms {
		x := e.vars[t.Var.ID]
		if t.Coef != 1 {
			x = e.Mul(x, c64(t.Coef))
		}
		if base == nil {
			base = x
		} else {
			base = e.Add(base, x)
		}
	}
	var out *val
	switch {
	case base == nil:
		out = uniform(build.IntOf(build.I32, int64(ix.Const)))
	case ix.Const != 0:
		out = uniform(e.Trunc(e.Add(base, c64(ix.Const)), build.I32))
	default:
		out = uniform(e.Trunc(base, build.I32))
	}
	for _, d := range ix.Ind {
		x := e.vals[d.Node.ID]
		if d.Coef != 1 {
			x = e.lift1(x, func(a build.V) build.V { return e.Mul(a, likeI(a, d.Coef)) })
		}
		out = e.lift2(out, x, func(a, b build.V) build.V { return e.Add(a, b) })
	}
	return out
}

// steps is the constant vector of i32 u*vl*c, u*vl*c+c, ...
func (e *emitter) steps(u, c int) build.V {
	el := make([]int64, e.vl)
	for i := range el {
		el[i] = int64((u*e.vl + i) * c)
	}
	return build.IntVec(build.I32, el...)
}

// holds is the conjunction of guards, nil when there are none.
func (e *emitter) holds(gs []kern.Guard) *val {
	var all *val
	for _, g := range gs {
		ix := e.index(g.At)
		ok := e.lift1(ix, func(a build.V) build.V {
			return e.ULt(e.Sub(a, likeI(a, g.Lo)), likeI(a, g.Hi-g.Lo))
		})
		if g.Hi <= g.Lo {
			ok = uniform(build.IntOf(build.I1, 0))
		}
		if all == nil {
			all = ok
		} else {
			all = e.lift2(all, ok, func(a, b build.V) build.V { return e.And(a, b) })
		}
	}
	return all
}

// --- statements ---

// list emits nodes in order. A product whose only use is a sum in the same
// list becomes part of a fused multiply-add.
func (e *emitter) list(nodes []*kern.Node) error {
	fused := fusable(nodes, e.uses, e.vals)
	for _, n := range nodes {
		if e.uses[n.ID] == 0 && n.Prim != kern.Store || fused[n] || e.vals[n.ID] != nil {
			continue
		}
		var x *val
		var err error
		switch {
		case e.override[n] != nil:
			x = e.override[n]()
		case n.Prim == kern.Store:
			err = e.store(n)
		case n.Prim == kern.Loop:
			err = e.loop(n)
		case n.Prim == kern.Acc:
			err = fmt.Errorf("internal: kernel %s: accumulator %%%d precedes its loop", e.k.Name, n.ID)
		case n.Prim == kern.Load:
			x, err = e.load(n)
		default:
			x, err = e.eval(n, fused)
		}
		if err != nil {
			return err
		}
		if x != nil {
			e.set(n, x)
		}
	}
	return nil
}

// fusable finds the products that become part of a multiply-add: of f32, used
// once, by a sum or difference that takes no other. uses counts by Node.ID;
// vals are what is computed already.
func fusable(nodes []*kern.Node, uses []int, vals []*val) map[*kern.Node]bool {
	here := map[*kern.Node]bool{}
	for _, n := range nodes {
		if n.Prim == kern.Mul && n.Type == ir.F32 && uses[n.ID] == 1 && vals[n.ID] == nil {
			here[n] = true
		}
	}
	fused := map[*kern.Node]bool{}
	for _, n := range nodes {
		if (n.Prim != kern.Add && n.Prim != kern.Sub) || n.Type != ir.F32 || uses[n.ID] == 0 {
			continue
		}
		for _, a := range n.Args {
			if here[a] {
				fused[a] = true
				break
			}
		}
	}
	return fused
}

// loop emits a sequential loop and sets its accumulators.
func (e *emitter) loop(n *kern.Node) error {
	if e.lane == nil && e.vectorizable(n) {
		return e.vectorLoop(n)
	}
	vary := make([]bool, e.k.NumNodes)
	if e.lane != nil {
		vary = e.varying(n.Body, e.lane)
	}
	// Carried values: unit vectors for a varying accumulator, one scalar otherwise.
	var init []build.V
	for _, a := range n.Accs {
		if vary[a.Val.ID] {
			for u := 0; u < e.unit; u++ {
				init = append(init, neutral(a, e.vec(scalar(a.Val.Type))))
			}
		} else {
			init = append(init, neutral(a, scalar(a.Val.Type)))
		}
	}
	v := n.Vars[0]
	var err error
	res := e.count(0, v.Extent, 1, init, func(i build.V, carried []build.V) []build.V {
		e.vars[v.ID] = i
		e.enter(n.Body, v)
		defer e.leave()
		if e2 := e.list(e.bodyOf(n)); e2 != nil {
			err = e2
			return carried
		}
		var out []build.V
		for _, a := range n.Accs {
			m := 1
			if vary[a.Val.ID] {
				m = e.unit
			}
			for u := 0; u < m; u++ {
				out = append(out, e.accumulate(a, carried[len(out)], u, vary[a.Val.ID]))
			}
		}
		return out
	})
	if err != nil {
		return err
	}
	for i, acc := range e.accs(n) {
		if acc == nil {
			continue
		}
		at := 0
		for _, a := range n.Accs[:i] {
			if vary[a.Val.ID] {
				at += e.unit
			} else {
				at++
			}
		}
		if vary[n.Accs[i].Val.ID] {
			e.set(acc, &val{v: append([]build.V(nil), res[at:at+e.unit]...)})
		} else {
			e.set(acc, uniform(res[at]))
		}
	}
	return nil
}

// bodyOf is the body of a loop without the products that accumulate fuses.
func (e *emitter) bodyOf(n *kern.Node) []*kern.Node {
	skip := map[*kern.Node]bool{}
	for _, a := range n.Accs {
		if e.fusedAcc(n, a) {
			skip[a.Val] = true
		}
	}
	var out []*kern.Node
	for _, m := range n.Body {
		if !skip[m] {
			out = append(out, m)
		}
	}
	return out
}

func (e *emitter) fusedAcc(loop *kern.Node, a kern.Reduction) bool {
	if a.Combine != kern.Sum || a.Val.Prim != kern.Mul || a.Val.Type != ir.F32 || e.uses[a.Val.ID] != 1 {
		return false
	}
	for _, m := range loop.Body {
		if m == a.Val {
			return true
		}
	}
	return false
}

// neutral is what an accumulator of type t starts from.
func neutral(a kern.Reduction, t types.Type) build.V {
	switch {
	case a.Val.Type == ir.F32 && a.Combine == kern.MaxOf:
		return build.FloatOf(t, math.Inf(-1))
	case a.Val.Type == ir.F32:
		return build.FloatOf(t, 0)
	case a.Combine == kern.MaxOf:
		return build.IntOf(t, math.MinInt32)
	}
	return build.IntOf(t, 0)
}

// accumulate combines carried with vector u of a's value.
func (e *emitter) accumulate(a kern.Reduction, carried build.V, u int, vector bool) build.V {
	get := func(n *kern.Node) build.V {
		if x := e.vals[n.ID]; vector {
			return e.lanes(x, u)
		} else {
			return x.s
		}
	}
	if a.Val.Prim == kern.Mul && e.vals[a.Val.ID] == nil {
		return e.FMA(get(a.Val.Args[0]), get(a.Val.Args[1]), carried)
	}
	return e.combine(a.Combine, carried, get(a.Val))
}

func (e *emitter) combine(c kern.Combine, x, y build.V) build.V {
	switch {
	case c == kern.Sum && isFloat(x):
		return e.FAdd(x, y)
	case c == kern.Sum:
		return e.Add(x, y)
	case isFloat(x):
		return e.fmax(x, y, true)
	}
	return e.Max(x, y)
}

// accs gives the Acc nodes of a loop by number; unused ones are nil.
func (e *emitter) accs(loop *kern.Node) []*kern.Node {
	out := make([]*kern.Node, len(loop.Accs))
	kern.Walk(e.k.Body, func(n *kern.Node) {
		if n.Prim == kern.Acc && n.Args[0] == loop && e.uses[n.ID] > 0 {
			out[n.I] = n
		}
	})
	return out
}

// vectorizable reports whether lanes may run over the loop's variable: it is
// innermost and its iterations don't meet in memory.
func (e *emitter) vectorizable(n *kern.Node) bool {
	v := n.Vars[0]
	if v.Extent < 2 {
		return false
	}
	stores := map[int]*kern.Node{}
	ok := true
	kern.Walk(n.Body, func(m *kern.Node) {
		switch m.Prim {
		case kern.Loop:
			ok = false
		case kern.Store:
			if stores[m.Buf] != nil || m.At.Coef(v) == 0 || len(m.At.Ind) > 0 {
				ok = false
			}
			stores[m.Buf] = m
		}
	})
	kern.Walk(n.Body, func(m *kern.Node) {
		if m.Prim == kern.Load && stores[m.Buf] != nil && m.At.String() != stores[m.Buf].At.String() {
			ok = false
		}
	})
	return ok
}

// vectorLoop emits an innermost loop with lanes over its own variable. Each
// accumulator is unit vectors, added up in a fixed order at the end.
func (e *emitter) vectorLoop(n *kern.Node) error {
	v := n.Vars[0]
	e.lane, e.aligned = v, true
	defer func() { e.lane, e.unit, e.mask = nil, 1, nil }()
	unit := e.units(n.Body)
	for unit > 1 && v.Extent < unit*e.vl {
		unit /= 2
	}
	var err error
	// region emits one iteration of unit vectors from i on, into the first
	// accumulators of carried (unitMax for each Reduction).
	region := func(i build.V, carried []build.V, u int, mask build.V) []build.V {
		e.unit, e.mask = u, masks(mask)
		e.vars[v.ID] = i
		e.enter(n.Body, v)
		defer e.leave()
		if e2 := e.list(e.bodyOf(n)); e2 != nil {
			err = e2
			return carried
		}
		out := append([]build.V(nil), carried...)
		for j, a := range n.Accs {
			for w := 0; w < u; w++ {
				at := j*unit + w
				out[at] = e.accumulate(a, carried[at], w, true)
				if mask != nil {
					out[at] = e.Select(mask, out[at], carried[at])
				}
			}
		}
		return out
	}
	var acc []build.V
	for _, a := range n.Accs {
		for u := 0; u < unit; u++ {
			acc = append(acc, neutral(a, e.vec(scalar(a.Val.Type))))
		}
	}
	wide := v.Extent / (unit * e.vl) * (unit * e.vl)
	full := v.Extent / e.vl * e.vl
	acc = e.count(0, wide, unit*e.vl, acc, func(i build.V, c []build.V) []build.V { return region(i, c, unit, nil) })
	acc = e.count(wide, full, e.vl, acc, func(i build.V, c []build.V) []build.V { return region(i, c, 1, nil) })
	if full < v.Extent {
		acc = region(c64(full), acc, 1, laneMask(e.vl, v.Extent-full))
	}
	if err != nil {
		return err
	}
	e.lane, e.unit, e.mask = nil, 1, nil
	for j, node := range e.accs(n) {
		if node == nil {
			continue
		}
		c := n.Accs[j].Combine
		vs := acc[j*unit : (j+1)*unit]
		for len(vs) > 1 {
			var half []build.V
			for w := 0; w < len(vs); w += 2 {
				half = append(half, e.combine(c, vs[w], vs[w+1]))
			}
			vs = half
		}
		e.set(node, uniform(e.Reduce(vs[0], func(a, b build.V) build.V { return e.combine(c, a, b) })))
	}
	return nil
}

// laneMask is the constant mask of the first n lanes.
func laneMask(vl, n int) build.V {
	el := make([]int64, vl)
	for i := range el {
		if i < n {
			el[i] = 1
		}
	}
	return build.IntVec(build.I1, el...)
}

// count is a loop with constant bounds; a single iteration is emitted inline.
func (e *emitter) count(lo, hi, step int, init []build.V, body func(i build.V, carried []build.V) []build.V) []build.V {
	switch {
	case lo >= hi:
		return init
	case lo+step >= hi:
		return body(c64(lo), init)
	}
	return e.For(c64(lo), c64(hi), c64(step), init, body)
}

// --- memory ---

func (e *emitter) load(n *kern.Node) (*val, error) {
	buf := e.k.Bufs[n.Buf]
	t := storage(buf.DType)
	guard := e.holds(n.Guards)
	varies := e.lane != nil && n.At.Coef(e.lane) != 0
	for _, d := range n.At.Ind {
		varies = varies || !e.vals[d.Node.ID].uniform()
	}
	read := func() *val {
		if !varies {
			return uniform(widen(e.Func, buf.DType, e.Load(t, e.address(n.Buf, n.At))))
		}
		out := &val{}
		for u := 0; u < e.unit; u++ {
			mask := e.maskOf(u)
			if guard != nil && !guard.uniform() {
				mask = e.both(mask, guard.v[u])
			}
			out.v = append(out.v, widen(e.Func, buf.DType, e.loadLanes(n, u, mask)))
		}
		return out
	}
	switch {
	case guard == nil:
		return read(), nil
	case guard.uniform():
		// Touch memory only where the guard holds.
		var shape *val
		res := e.If(guard.s, func() []build.V {
			shape = read()
			if shape.uniform() {
				return []build.V{shape.s}
			}
			return shape.v
		}, func() []build.V {
			if !varies {
				return []build.V{zero(scalar(n.Type))}
			}
			out := make([]build.V, e.unit)
			for u := range out {
				out[u] = zero(e.vec(scalar(n.Type)))
			}
			return out
		})
		if !varies {
			return uniform(res[0]), nil
		}
		return &val{v: res}, nil
	case !varies:
		// One element, wanted in some lanes: read it if any lane wants it.
		x := e.anyGuarded(n, guard, read)
		return e.lift2(guard, x, func(g, a build.V) build.V { return e.Select(g, a, zero(a.Type())) }), nil
	}
	return read(), nil
}

func zero(t types.Type) build.V {
	if isFloat(build.Zero(t)) {
		return build.FloatOf(t, 0)
	}
	return build.IntOf(t, 0)
}

// anyGuarded reads a uniform element if the guard holds in a live lane.
func (e *emitter) anyGuarded(n *kern.Node, guard *val, read func() *val) *val {
	any := build.V(nil)
	for u, g := range guard.v {
		g = e.both(e.maskOf(u), g)
		if any == nil {
			any = g
		} else {
			any = e.Or(any, g)
		}
	}
	bits := e.Bitcast(any, types.NewInt(uint64(e.vl)))
	some := e.Ne(bits, build.IntOf(bits.Type(), 0))
	res := e.If(some, func() []build.V { return []build.V{read().s} },
		func() []build.V { return []build.V{zero(scalar(n.Type))} })
	return uniform(res[0])
}

// masks is the mask of a region of one vector.
func masks(m build.V) []build.V {
	if m == nil {
		return nil
	}
	return []build.V{m}
}

func (e *emitter) maskOf(u int) build.V {
	if e.mask == nil {
		return nil
	}
	return e.mask[u]
}

func (e *emitter) both(a, b build.V) build.V {
	if a == nil {
		return b
	}
	return e.And(a, b)
}

// place says how vector u of an access lies in memory: at p, one element after
// another (lanes nil), or at p plus an index for every lane.
func (e *emitter) place(n *kern.Node, u int) (p, lanes build.V) {
	c := n.At.Coef(e.lane)
	p = e.address(n.Buf, n.At)
	for _, d := range n.At.Ind {
		if x := e.vals[d.Node.ID]; !x.uniform() {
			o := x.v[u]
			if d.Coef != 1 {
				o = e.Mul(o, likeI(o, d.Coef))
			}
			if lanes == nil {
				lanes = o
			} else {
				lanes = e.Add(lanes, o)
			}
		}
	}
	if lanes == nil && c == 1 {
		return e.Offset(p, u*e.vl), nil
	}
	switch {
	case lanes == nil:
		lanes = e.steps(u, c)
	case c != 0:
		lanes = e.Add(lanes, e.steps(u, c))
	}
	return p, lanes
}

func (e *emitter) loadLanes(n *kern.Node, u int, mask build.V) build.V {
	p, lanes := e.place(n, u)
	if lanes != nil {
		return e.Gather(p, lanes, mask)
	}
	return e.MaskLoad(e.vec(storage(e.k.Bufs[n.Buf].DType)), p, mask)
}

func (e *emitter) store(n *kern.Node) error {
	buf := e.k.Bufs[n.Buf]
	x := e.vals[n.Args[0].ID]
	varies := e.lane != nil && n.At.Coef(e.lane) != 0
	for _, d := range n.At.Ind {
		varies = varies || !e.vals[d.Node.ID].uniform()
	}
	if !varies {
		s := x.s
		if s == nil {
			s = e.Extract(x.v[0], 0)
		}
		e.Store(narrow(e.Func, buf.DType, s), e.address(n.Buf, n.At))
		return nil
	}
	for u := 0; u < e.unit; u++ {
		y := narrow(e.Func, buf.DType, e.lanes(x, u))
		p, lanes := e.place(n, u)
		mask := e.maskOf(u)
		if lanes == nil {
			e.MaskStore(y, p, mask)
			continue
		}
		for i := 0; i < e.vl; i++ {
			write := func() { e.Store(e.Extract(y, i), e.At(p, e.SExt(e.Extract(lanes, i), build.I64))) }
			if mask == nil {
				write()
			} else {
				e.When(e.Extract(mask, i), write)
			}
		}
	}
	return nil
}
