package kernel

import (
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops"
)

// prologueWork is how many scalar operations storing and reloading a byte is
// worth.
const prologueWork = 10

// prologue reports whether operand x of a product is computed where products
// copy it, rather than stored. It is, when all that read x copy it, computing it
// so often costs less than storing it once, and what it is made of is in
// memory anyway.
func (a *analysis) prologue(x *ir.Value) bool {
	yes, known := a.fresh[x]
	if !known {
		yes = a.decidePrologue(x)
		a.fresh[x] = yes
	}
	return yes
}

func (a *analysis) decidePrologue(x *ir.Value) bool {
	if a.must[x.ID] {
		return false
	}
	base := a.base(x)
	if base == nil {
		return false
	}
	was := a.stored[base.ID]
	a.stored[base.ID] = true
	yes := a.cheap(x)
	a.stored[base.ID] = was || yes
	return yes
}

// cheap reports whether computing x wherever products copy it costs less than
// storing and reloading it.
func (a *analysis) cheap(x *ir.Value) bool {
	root := a.operand(x)
	if root == nil {
		return false
	}
	// What does not depend on the bulk of x is computed once for many elements.
	work := 0
	main := kern.Widest(root)
	depends := map[*kern.Node]bool{main: true}
	for _, n := range kern.Expression(root) {
		for _, y := range n.Args {
			depends[n] = depends[n] || depends[y]
		}
		switch n.Prim {
		case kern.Exp, kern.Log, kern.Tanh:
			return false
		case kern.Round:
			work += 3
		case kern.Load:
			if n != main {
				work++
			}
		default:
			if depends[n] {
				work++
			}
		}
	}
	copied := 0
	for _, in := range a.readers[x.ID] {
		op, ok := in.Op.(ops.Contracter)
		if !ok {
			continue
		}
		for i, v := range in.Args[:2] {
			if v != x {
				continue
			}
			n := a.be.Copied(product(in, op, -1), i)
			if n > 0 && len(kern.Loads(root)) > 1 {
				n = a.be.Copied(product(in, op, i), i)
			}
			if n == 0 {
				return false
			}
			copied += n
		}
	}
	return work*copied <= prologueWork*x.Type.Bytes()
}

// operand is the expression of x as an operand of a product, or nil if it has
// none, or reads several values of x's size.
func (a *analysis) operand(x *ir.Value) *kern.Node {
	var n *kern.Node
	var bufs []*ir.Value
	err := overSpace(a, x.Type.Shape, func(e *emission) (err error) {
		n, err = e.value(x, e.full)
		bufs = e.bufs
		return err
	})
	if err != nil || !kern.IsOperand(n) {
		return nil
	}
	full := 0
	for _, b := range kern.Buffers(n) {
		v := bufs[b]
		if !v.Type.DType.IsFloat() {
			return nil
		}
		if 2*v.Type.Len() > x.Type.Len() {
			full++
		}
	}
	if full != 1 {
		return nil
	}
	return n
}

// product is the contraction of in alone, for the backend to judge: of plain
// loads, but for operand several, which is a sum of two.
func product(in *ir.Instr, op ops.Contracter, several int) *kern.Kernel {
	b := kern.NewBuilder("")
	out := in.Results[0].Type
	types := []ir.Type{in.Args[0].Type, in.Args[1].Type}
	var at []kern.Index
	for _, n := range out.Shape {
		at = append(at, kern.V(b.Dim(n)))
	}
	for _, t := range types {
		b.Buf("", t.DType, t.Len(), kern.In)
	}
	c := op.Contraction(types, at, b.NewVar)
	load := func(i int, at []kern.Index) *kern.Node {
		n := &kern.Node{Prim: kern.Load, Type: ir.F32, Buf: i, At: kern.Flat(types[i].Shape, at)}
		if i == several {
			n = &kern.Node{Prim: kern.Add, Type: ir.F32, Args: []*kern.Node{n, {Prim: kern.Load, Type: ir.F32, Buf: i, At: n.At}}}
		}
		return n
	}
	p := b.ContractOf(c.Vars, load(0, c.A), c.GA, load(1, c.B), c.GB)
	b.Store(b.Buf("", out.DType, out.Len(), kern.Out), kern.Flat(out.Shape, at), p)
	k := b.Done()
	collapse(k)
	return k
}

// base is the value of x's size that x had better be computed from: one that
// others read, so that it costs no memory. It is stored already, or
// takes the place of the stored value that it alone reads. Without one
// nothing is saved, and base is nil.
func (a *analysis) base(x *ir.Value) *ir.Value {
	v := x
	var shared *ir.Value // the last on the way that others read
	for {
		next := a.bulk(v, x)
		if next == nil {
			return nil
		}
		others := a.shared(next)
		if a.find(next) != nil {
			s := a.find(next)
			if others || s.Def == nil || a.must[s.ID] || a.shared(s) {
				return s
			}
			return shared
		}
		if others && next.Type.Len() == x.Type.Len() {
			shared = next
		}
		v = next
	}
}

// bulk is the argument of v, a step in computing x, that is made of a stored
// value of x's size.
func (a *analysis) bulk(v, x *ir.Value) *ir.Value {
	large := func(l *ir.Value) bool { return 2*l.Type.Len() > x.Type.Len() }
	for _, y := range v.Def.Args {
		if s := a.find(y); s != nil {
			if large(s) {
				return y
			}
			continue
		}
		for l := range a.info[y.ID].leaves {
			if large(l) {
				return y
			}
		}
	}
	return nil
}

// shared reports whether several instructions read v.
func (a *analysis) shared(v *ir.Value) bool {
	for _, in := range a.readers[v.ID] {
		if in != a.readers[v.ID][0] {
			return true
		}
	}
	return false
}
