package kernel

import "github.com/gouache-ml/gouache/ir/kern"

// collapse joins neighbouring loop variables that every index uses as one
// (i*n + j with j < n), so that a pointwise kernel over [4,128,1024] becomes
// one long loop and equal kernels of different rank become the same.
func collapse(k *kern.Kernel) {
	var all []*kern.Index
	eachIndex(k.Body, func(ix *kern.Index) { all = append(all, ix) })
	joins := func(a, b *kern.Var) bool {
		for _, ix := range all {
			if ix.Coef(a) != ix.Coef(b)*b.Extent {
				return false
			}
		}
		return true
	}
	merge := func(a, b *kern.Var) {
		for _, ix := range all {
			ts := ix.Terms[:0:0]
			for _, t := range ix.Terms {
				if t.Var != a {
					ts = append(ts, t)
				}
			}
			ix.Terms = ts
		}
		b.Extent *= a.Extent
	}
	list := func(vs []*kern.Var) []*kern.Var {
		var out []*kern.Var
		for _, v := range vs {
			if v.Extent == 1 {
				continue
			}
			if n := len(out); n > 0 && joins(out[n-1], v) {
				merge(out[n-1], v)
				out[n-1] = v
				continue
			}
			out = append(out, v)
		}
		if len(out) == 0 && len(vs) > 0 {
			out = vs[:1]
		}
		return out
	}
	k.Dims = list(k.Dims)
	if len(k.Dims) == 0 {
		k.Dims = []*kern.Var{{ID: k.NumVars, Extent: 1}}
		k.NumVars++
	}
	var loops func(body []*kern.Node) []*kern.Node
	loops = func(body []*kern.Node) []*kern.Node {
		for _, n := range body {
			if n.Prim == kern.Contract {
				n.Vars = list(n.Vars)
			}
			if n.Prim != kern.Loop {
				continue
			}
			n.Body = loops(n.Body)
			if inner := perfect(n); inner != nil && joins(n.Vars[0], inner.Vars[0]) {
				merge(n.Vars[0], inner.Vars[0])
				n.Vars, n.Body, n.Accs = inner.Vars, inner.Body, inner.Accs
			}
		}
		return body
	}
	k.Body = loops(k.Body)
	renumber(k)
}

// perfect returns the loop that is all of n's body, when n's accumulators
// merely pass its on.
func perfect(n *kern.Node) *kern.Node {
	var inner *kern.Node
	for _, m := range n.Body {
		switch {
		case m.Prim == kern.Loop && inner == nil:
			inner = m
		case m.Prim == kern.Acc && inner != nil && m.Args[0] == inner:
		default:
			return nil
		}
	}
	if inner == nil || len(inner.Accs) != len(n.Accs) {
		return nil
	}
	for i, a := range n.Accs {
		if a.Val.Prim != kern.Acc || a.Val.Args[0] != inner || int(a.Val.I) != i || inner.Accs[i].Combine != a.Combine {
			return nil
		}
	}
	return inner
}

// eachNode visits every node, operands of contractions included.
func eachNode(body []*kern.Node, f func(*kern.Node)) {
	for _, n := range body {
		f(n)
		if n.Prim == kern.Contract {
			for _, a := range n.Args {
				for _, m := range kern.Expression(a) {
					f(m)
				}
			}
		}
		eachNode(n.Body, f)
	}
}

func eachIndex(body []*kern.Node, f func(*kern.Index)) {
	eachNode(body, func(n *kern.Node) {
		switch n.Prim {
		case kern.Load, kern.Store, kern.Pos, kern.Random:
			f(&n.At)
		}
		for i := range n.Guards {
			f(&n.Guards[i].At)
		}
	})
}

// renumber gives nodes and variables consecutive numbers in program order, so
// that equal kernels have equal texts.
func renumber(k *kern.Kernel) {
	vars := map[*kern.Var]bool{}
	k.NumVars, k.NumNodes = 0, 0
	number := func(v *kern.Var) {
		if !vars[v] {
			vars[v] = true
			v.ID = k.NumVars
			k.NumVars++
		}
	}
	for _, v := range k.Dims {
		number(v)
	}
	eachNode(k.Body, func(n *kern.Node) {
		for _, v := range n.Vars {
			number(v)
		}
		n.ID = k.NumNodes
		k.NumNodes++
	})
	// Terms are sorted by variable number.
	eachIndex(k.Body, func(ix *kern.Index) {
		for i := 1; i < len(ix.Terms); i++ {
			for j := i; j > 0 && ix.Terms[j].Var.ID < ix.Terms[j-1].Var.ID; j-- {
				ix.Terms[j], ix.Terms[j-1] = ix.Terms[j-1], ix.Terms[j]
			}
		}
	})
}
