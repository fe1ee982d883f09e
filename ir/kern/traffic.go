package kern

import "fmt"

// Traffic is how many bytes k must move if every element it may touch moves
// once, twice where it is read and written.
func (k *Kernel) Traffic() int {
	touched := make([]int, len(k.Bufs))
	if k.Template != nil {
		for i, b := range k.Bufs {
			touched[i] = b.Len
		}
	} else {
		countTouched(k, touched)
	}
	bytes := 0
	for i, b := range k.Bufs {
		n := min(touched[i], b.Len) * b.DType.Size()
		if b.Mode == InOut {
			n *= 2
		}
		bytes += n
	}
	return bytes
}

// countTouched adds up, per buffer, the different elements its loads and
// stores can reach: at most one for each value of the variables they depend on.
func countTouched(k *Kernel, touched []int) {
	depends := map[*Node]map[*Var]bool{}
	seen := map[string]bool{}
	access := func(n *Node, vars map[*Var]bool) {
		key := fmt.Sprint(n.Buf, n.At)
		if seen[key] {
			return
		}
		seen[key] = true
		reach := 1
		for v := range vars {
			reach *= v.Extent
		}
		touched[n.Buf] += reach
	}
	index := func(vars map[*Var]bool, ix Index) {
		for _, t := range ix.Terms {
			vars[t.Var] = true
		}
		for _, d := range ix.Ind {
			for v := range depends[d.Node] {
				vars[v] = true
			}
		}
	}
	var walk func(body []*Node)
	walk = func(body []*Node) {
		for _, n := range body {
			at := map[*Var]bool{}
			index(at, n.At)
			if n.Prim == Load || n.Prim == Store {
				access(n, at)
			}
			if n.Prim == Contract {
				for _, a := range n.Args {
					for _, l := range Loads(a) {
						vars := map[*Var]bool{}
						index(vars, l.At)
						access(l, vars)
					}
				}
			}
			walk(n.Body)
			for _, a := range n.Args {
				for v := range depends[a] {
					at[v] = true
				}
			}
			for _, g := range n.Guards {
				index(at, g.At)
			}
			depends[n] = at
		}
	}
	walk(k.Body)
}
