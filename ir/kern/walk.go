package kern

// EachRead calls f for every node that n reads: its arguments, what its indices
// and guards gather, and what its accumulators take in.
func (n *Node) EachRead(f func(*Node)) {
	for _, a := range n.Args {
		f(a)
	}
	for _, d := range n.At.Ind {
		f(d.Node)
	}
	for _, g := range n.Guards {
		for _, d := range g.At.Ind {
			f(d.Node)
		}
	}
	for _, a := range n.Accs {
		f(a.Val)
	}
}

// Walk calls f for every node of body and of its loops, in program order.
func Walk(body []*Node, f func(*Node)) {
	for _, n := range body {
		f(n)
		Walk(n.Body, f)
	}
}

// Uses reports whether operand n of a Contract depends on v.
func Uses(n *Node, v *Var) bool {
	for _, l := range Loads(n) {
		if l.At.Coef(v) != 0 {
			return true
		}
	}
	for _, g := range n.Guards {
		if g.At.Coef(v) != 0 {
			return true
		}
	}
	return false
}
