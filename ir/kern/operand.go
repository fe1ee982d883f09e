package kern

import "github.com/gouache-ml/gouache/ir"

// An operand of a Contract is an expression: a load, or arithmetic on loads
// and constants, which the generator evaluates where it copies the operand
// (a prologue). Its nodes belong to the operand alone and stand in no body.
// The guards of its root say where the whole operand is 0, whatever the
// expression gives there: so a convolution pads what its prologue computed.

// Expression lists the nodes that root needs, each after its arguments, root
// last.
func Expression(root *Node) []*Node {
	if root.Prim == Load {
		return []*Node{root}
	}
	var out []*Node
	seen := map[*Node]bool{}
	var visit func(n *Node)
	visit = func(n *Node) {
		if seen[n] {
			return
		}
		seen[n] = true
		for _, a := range n.Args {
			visit(a)
		}
		out = append(out, n)
	}
	visit(root)
	return out
}

// Loads lists the loads of an operand, in the order of Expression.
func Loads(root *Node) []*Node {
	var out []*Node
	for _, n := range Expression(root) {
		if n.Prim == Load {
			out = append(out, n)
		}
	}
	return out
}

// Widest is the load of an operand that walks most elements, the first such.
func Widest(root *Node) *Node {
	var best *Node
	most := 0
	for _, l := range Loads(root) {
		n := 1
		for _, t := range l.At.Terms {
			n *= t.Var.Extent
		}
		if n > most {
			best, most = l, n
		}
	}
	return best
}

// Buffers lists the buffers an operand reads, each once, in the order of its
// loads.
func Buffers(root *Node) []int {
	var out []int
	seen := map[int]bool{}
	for _, l := range Loads(root) {
		if !seen[l.Buf] {
			seen[l.Buf] = true
			out = append(out, l.Buf)
		}
	}
	return out
}

// IsOperand reports whether root may be an operand of a Contract: f32 made of
// loads and constants by arithmetic, no load but a lone one guarded, and none
// of them gathered.
func IsOperand(root *Node) bool {
	if root.Type != ir.F32 {
		return false
	}
	loads := 0
	for _, n := range Expression(root) {
		if !inOperand(n) || n != root && len(n.Guards) > 0 {
			return false
		}
		if n.Prim == Load {
			loads++
		}
	}
	return loads > 0
}

// inOperand reports whether an operand may have a node such as n.
func inOperand(n *Node) bool {
	switch n.Prim {
	case Load:
		return len(n.At.Ind) == 0
	case Const, Cast:
		return true
	case Round:
		return len(n.Args) == 1
	}
	return n.Prim >= Neg
}

// ContractOf is Contract for operands that are expressions, for which
// IsOperand holds; the Contract gets copies of their nodes. The guards are
// those of the operands as a whole.
func (b *Builder) ContractOf(vars []*Var, x *Node, gx []Guard, y *Node, gy []Guard) *Node {
	own := func(root *Node, gs []Guard) *Node {
		r := CopyOperand(root, func(n *Node) {
			n.ID = b.K.NumNodes
			b.K.NumNodes++
		})
		r.Guards = b.live(gs)
		return r
	}
	args := []*Node{own(x, gx), own(y, gy)}
	return b.put(&Node{Prim: Contract, Type: ir.F32, Vars: vars, Args: args}, len(b.scopes)-1)
}

// CopyOperand copies an operand; change is called for every copy, in the order
// of Expression.
func CopyOperand(root *Node, change func(n *Node)) *Node {
	copies := map[*Node]*Node{}
	for _, n := range Expression(root) {
		c := *n
		c.Args = nil
		for _, a := range n.Args {
			c.Args = append(c.Args, copies[a])
		}
		change(&c)
		copies[n] = &c
	}
	return copies[root]
}
