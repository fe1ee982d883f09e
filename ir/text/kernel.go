package text

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// loops is a kernel being read.
type loops struct {
	*parser
	k     *kern.Kernel
	vars  map[int]*kern.Var
	nodes map[int]*kern.Node
	// stores have IDs that the text doesn't give.
	stores []*kern.Node
}

func (p *parser) kernel() *kern.Kernel {
	l := &loops{parser: p, k: &kern.Kernel{Name: p.after("@", "a kernel name such as @map_1")}, vars: map[int]*kern.Var{}, nodes: map[int]*kern.Node{}}
	k := l.k
	l.want("(")
	for !l.take(")") {
		if len(k.Bufs) > 0 {
			l.want(",")
		}
		l.buffer()
	}
	if l.take("grid") {
		l.want("(")
		for !l.take(")") {
			if len(k.Dims) > 0 {
				l.want(",")
			}
			k.Dims = append(k.Dims, l.bind())
		}
	}
	l.want("tile")
	l.want("(")
	k.Tile.Rows = l.anyInt("a number of rows")
	l.want(",")
	k.Tile.Cols = l.anyInt("a number of columns")
	l.want(")")
	l.want("chunks")
	l.want("(")
	k.Chunks = l.anyInt("a number of chunks")
	l.want(")")
	k.Tile.Together = l.take("together")
	vector, vectorAt := -1, 0
	if l.take("vector") {
		l.want("(")
		l.skip()
		vectorAt = l.at
		vector = l.varID()
		l.want(")")
	}
	k.Packed = l.take("packed")
	if l.take("template") {
		l.template()
	}
	l.want("{")
	k.Body = l.body()
	for _, n := range l.stores {
		n.ID = k.NumNodes
		k.NumNodes++
	}
	if vector >= 0 {
		if k.Vector = l.vars[vector]; k.Vector == nil {
			l.fail(vectorAt, "i%d is no loop variable of the kernel", vector)
		}
	}
	return k
}

func (l *loops) buffer() {
	l.skip()
	at := l.at
	l.want("#")
	if n := l.count("a buffer number"); n != len(l.k.Bufs) {
		l.fail(at, "buffer #%d stands in place %d, expected #%d", n, len(l.k.Bufs), len(l.k.Bufs))
	}
	b := kern.Buf{DType: l.dtype()}
	l.want("[")
	b.Len = l.count("a length")
	l.want("]")
	for _, m := range []kern.Mode{kern.In, kern.Out, kern.InOut} {
		if l.take(m.String()) {
			b.Mode = m
			l.k.Bufs = append(l.k.Bufs, b)
			return
		}
	}
	l.expected("in, out or inout")
}

func (l *loops) template() {
	t := &kern.Template{Name: l.name("the name of a template")}
	l.want("{")
	for !l.take("}") {
		if len(t.Ints) > 0 {
			l.want(",")
		}
		key := l.name("a parameter")
		l.want("=")
		t.Ints = append(t.Ints, kern.Int{Key: key, Val: l.anyInt("an integer")})
	}
	l.want("scale")
	l.want("=")
	t.F = l.float("a number")
	if l.take("mask") {
		l.want("=")
		t.Mask = l.run(func(c byte) bool { return c > ' ' })
	}
	if l.take("views") {
		l.want("(")
		for !l.take(")") {
			if len(t.Views) > 0 {
				l.want(",")
			}
			t.Views = append(t.Views, l.view())
		}
	}
	l.k.Template = t
}

// view reads #0[128] 384 1: a buffer, an offset and strides.
func (l *loops) view() kern.View {
	l.skip()
	at := l.at
	l.want("#")
	v := kern.View{Buf: l.count("a buffer number")}
	if v.Buf >= len(l.k.Bufs) {
		l.fail(at, "there is no buffer #%d, the kernel has %d", v.Buf, len(l.k.Bufs))
	}
	l.want("[")
	v.Offset = l.anyInt("an offset")
	l.want("]")
	for l.skip(); l.peek() != ',' && l.peek() != ')'; l.skip() {
		v.Strides = append(v.Strides, l.anyInt("a stride"))
	}
	return v
}

// varID reads i0 as 0.
func (l *loops) varID() int {
	l.skip()
	if l.at+1 >= len(l.src) || l.src[l.at] != 'i' || !digitByte(l.src[l.at+1]) {
		l.expected("a loop variable such as i0")
	}
	l.at++
	return l.integer("the number of a loop variable", 0, maxID)
}

// bind reads i0<64, which introduces a variable.
func (l *loops) bind() *kern.Var {
	l.skip()
	at := l.at
	id := l.varID()
	if l.vars[id] != nil {
		l.fail(at, "i%d is bound twice", id)
	}
	l.want("<")
	v := &kern.Var{ID: id, Extent: l.count("an extent")}
	l.vars[id] = v
	l.k.NumVars = max(l.k.NumVars, id+1)
	return v
}

func (l *loops) nodeID() int {
	l.want("%")
	return l.integer("the number of a node", 0, maxID)
}

// node reads %3, a node that is defined above.
func (l *loops) node() *kern.Node {
	l.skip()
	at := l.at
	id := l.nodeID()
	n := l.nodes[id]
	if n == nil {
		l.fail(at, "%%%d is not defined above", id)
	}
	return n
}

// scalar is node for those that have a value.
func (l *loops) scalar() *kern.Node {
	l.skip()
	at := l.at
	n := l.node()
	if n.Prim == kern.Loop {
		l.fail(at, "%%%d is a loop, expected a scalar", n.ID)
	}
	return n
}

func (l *loops) define(at int, n *kern.Node) {
	if l.nodes[n.ID] != nil {
		l.fail(at, "%%%d is defined twice", n.ID)
	}
	l.nodes[n.ID] = n
	l.k.NumNodes = max(l.k.NumNodes, n.ID+1)
}

// index reads an affine expression such as i0*64 + %5*2 + 3, in brackets or
// up to what follows it.
func (l *loops) index() kern.Index {
	var out kern.Index
	for {
		l.skip()
		coef := func() int {
			if l.take("*") {
				return l.integer("a factor", math.MinInt32, maxElements)
			}
			return 1
		}
		switch c := l.peek(); {
		case c == 'i':
			at := l.at
			id := l.varID()
			v := l.vars[id]
			if v == nil {
				l.fail(at, "i%d is not bound here", id)
			}
			out.Terms = append(out.Terms, kern.Term{Var: v, Coef: coef()})
		case c == '%':
			n := l.scalar()
			out.Ind = append(out.Ind, kern.Indirect{Node: n, Coef: coef()})
		default:
			out.Const += l.integer("an index such as i0*4 + 1", -maxElements, maxElements)
		}
		if !l.take("+") {
			return out
		}
	}
}

func (l *loops) peek() byte {
	if l.at < len(l.src) {
		return l.src[l.at]
	}
	return 0
}

func (l *loops) brackets() kern.Index {
	l.want("[")
	ix := l.index()
	l.want("]")
	return ix
}

// access reads #0[i0].
func (l *loops) access(n *kern.Node) {
	l.skip()
	at := l.at
	l.want("#")
	n.Buf = l.count("a buffer number")
	if n.Buf >= len(l.k.Bufs) {
		l.fail(at, "there is no buffer #%d, the kernel has %d", n.Buf, len(l.k.Bufs))
	}
	n.At = l.brackets()
}

func (l *loops) guards() []kern.Guard {
	var gs []kern.Guard
	for l.take("if") {
		g := kern.Guard{Lo: l.anyInt("a lower bound")}
		l.want("<=")
		g.At = l.index()
		l.want("<")
		g.Hi = l.anyInt("an upper bound")
		gs = append(gs, g)
	}
	return gs
}

// body reads statements up to and with the closing brace.
func (l *loops) body() []*kern.Node {
	var out []*kern.Node
	for !l.take("}") {
		out = append(out, l.statement())
	}
	return out
}

func (l *loops) statement() *kern.Node {
	l.skip()
	at := l.at
	if l.take("store") {
		n := &kern.Node{Prim: kern.Store}
		l.access(n)
		l.want(",")
		n.Args = []*kern.Node{l.scalar()}
		l.stores = append(l.stores, n)
		return n
	}
	if l.peek() != '%' {
		l.expected("a statement such as %1 = add %0 %0 : f32 or store #1[i0], %1")
	}
	n := &kern.Node{ID: l.nodeID()}
	l.want("=")
	n.Prim = l.prim()
	if n.Prim == kern.Loop {
		n.Vars = []*kern.Var{l.bind()}
		l.want("{")
		n.Body = l.body()
		for l.peekWord(kern.Sum) || l.peekWord(kern.MaxOf) {
			a := kern.Reduction{Combine: kern.MaxOf}
			if l.take(kern.Sum.String()) {
				a.Combine = kern.Sum
			} else {
				l.want(kern.MaxOf.String())
			}
			a.Val = l.scalar()
			n.Accs = append(n.Accs, a)
		}
		l.define(at, n)
		return n
	}
	constAt := l.operands(n)
	l.typed(at, constAt, n)
	l.define(at, n)
	return n
}

// typed reads the type of n, which began at at, and the number of a constant.
func (l *loops) typed(at, constAt int, n *kern.Node) {
	l.want(":")
	n.Type = l.dtype()
	if n.Type != ir.F32 && n.Type != ir.I32 && n.Type != ir.Bool {
		l.fail(at, "%%%d is %s, scalars are f32, i32 or bool", n.ID, n.Type)
	}
	if n.Prim == kern.Const {
		after := l.at
		l.at = constAt
		if n.Type == ir.F32 {
			n.F = l.float("a number")
		} else {
			n.I = int64(l.anyInt("an integer"))
		}
		l.at = after
	}
}

// peekIs reports whether w follows.
func (l *loops) peekIs(w string) bool {
	at := l.at
	ok := l.take(w)
	l.at = at
	return ok
}

func (l *loops) peekWord(c kern.Combine) bool { return l.peekIs(c.String()) }

func (l *loops) prim() kern.Prim {
	l.skip()
	at := l.at
	w := l.run(nameByte)
	for p := kern.Prim(0); p < kern.NumPrims; p++ {
		if p.String() == w && p != kern.Store {
			return p
		}
	}
	l.fail(at, "unknown primitive %q", w)
	return 0
}

// operands reads what stands between the primitive and its type. For a
// constant it returns where the number stands: its type says what it is.
func (l *loops) operands(n *kern.Node) (constAt int) {
	l.skip()
	at := l.at
	switch n.Prim {
	case kern.Const:
		l.run(func(c byte) bool { return nameByte(c) || c == '+' || c == '-' })
		return at
	case kern.Pos:
		n.At = l.brackets()
	case kern.Test:
		n.Guards = l.guards()
	case kern.Load:
		l.access(n)
		n.Guards = l.guards()
	case kern.Acc:
		n.Args = []*kern.Node{l.node()}
		n.I = int64(l.count("the number of an accumulator"))
		if loop := n.Args[0]; loop.Prim != kern.Loop || int(n.I) >= len(loop.Accs) {
			l.fail(at, "%%%d has no accumulator %d", loop.ID, n.I)
		}
	case kern.Contract:
		if c := l.peek(); c != 'i' && c != '(' {
			n.I = int64(l.dtype())
			if d := ir.DType(n.I); d != ir.F16 && d != ir.BF16 {
				l.fail(at, "no product is multiplied in %s; expected f16, bf16 or nothing", d)
			}
			l.skip()
		}
		for l.peek() == 'i' {
			n.Vars = append(n.Vars, l.bind())
			l.skip()
		}
		for i := 0; i < 2; i++ {
			n.Args = append(n.Args, l.operand())
		}
	case kern.Random:
		n.Args = []*kern.Node{l.scalar(), l.scalar()}
		n.I = int64(l.anyInt("the number of a stream"))
		n.At = l.brackets()
	case kern.Round:
		n.I = int64(l.dtype())
		if _, ok := ir.DType(n.I).Format(); !ok {
			l.fail(at, "nothing is rounded to %s; expected f16, bf16, e6m9 or ue6m10", ir.DType(n.I))
		}
		n.Args = []*kern.Node{l.scalar()}
		if l.skip(); l.peek() == '%' {
			n.Args = append(n.Args, l.scalar())
		}
	default:
		for l.skip(); l.peek() == '%'; l.skip() {
			n.Args = append(n.Args, l.scalar())
		}
		if want := arity(n.Prim); len(n.Args) != want {
			l.fail(at, "%s has %d operands, expected %s", n.Prim, len(n.Args), fmt.Sprint(want))
		}
	}
	return 0
}

// operand reads an operand of a contract: (%1 = load #0[i0]), or an expression
// such as (%1 = load #0[i0] : f32; %2 = neg %1 : f32), each with guards after.
func (l *loops) operand() *kern.Node {
	l.want("(")
	l.skip()
	at := l.at
	own := map[*kern.Node]bool{}
	for {
		l.skip()
		here := l.at
		n := &kern.Node{ID: l.nodeID()}
		l.want("=")
		n.Prim = l.prim()
		constAt := l.operands(n)
		if n.Prim == kern.Load && len(own) == 0 && !l.peekIs(":") {
			n.Type = ir.F32
			l.want(")")
			l.define(here, n)
			return n
		}
		l.typed(here, constAt, n)
		for _, a := range n.Args {
			if !own[a] {
				l.fail(here, "%%%d is not defined in this operand", a.ID)
			}
		}
		own[n] = true
		l.define(here, n)
		if l.take(";") {
			continue
		}
		inner := n.Guards
		n.Guards = nil
		if len(inner) > 0 || !kern.IsOperand(n) || len(kern.Expression(n)) != len(own) {
			l.fail(at, "the operand is not arithmetic on loads and constants, all of it used, that gives f32")
		}
		n.Guards = l.guards()
		l.want(")")
		return n
	}
}

// arity is the number of scalar operands of an arithmetic primitive.
func arity(p kern.Prim) int {
	switch p {
	case kern.Cast, kern.Neg, kern.Abs, kern.Exp, kern.Log, kern.Tanh, kern.Sqrt, kern.Floor, kern.Not:
		return 1
	case kern.Select:
		return 3
	}
	return 2
}
