package kernel

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// Remake returns the kernel that makes buffer out of k again, and which of k's
// buffers it takes. What k stores besides it loads, in place of the product or
// the sums that gave it: so it has neither, and costs little more than to write
// its result. It is nil where there is no such kernel, and where it could give
// other bits than k.
//
// Code generators compute some things together: a product of two numbers in the
// sum that alone reads it, a quotient by what is the same for many elements. So
// what the new kernel computes must be read, and vary, there as it does in k.
func Remake(k *kern.Kernel, out int, be Backend) (*kern.Kernel, []int) {
	if k.Template != nil {
		return nil, nil
	}
	r := newRemake(k, out)
	if r.store == nil || !r.visit(r.store) || !r.same() {
		return nil, nil
	}
	again, args := r.kernel()
	collapse(again)
	tile(again, be)
	return again, args
}

// Adopt takes in the kernels that Remake made for launches of p.
func (l *Library) Adopt(p *plan.Program) {
	for i, x := range p.Launches {
		if x.Kernel.Name == "" {
			p.Launches[i].Kernel = l.intern(x.Kernel, "remake")
		}
	}
}

type remake struct {
	k      *kern.Kernel
	out    int
	store  *kern.Node                        // of out, or nil
	leaf   map[*kern.Node]*kern.Node         // what is stored besides, and its store
	shift  map[*kern.Node]*kern.Var          // where another loop stores it: the variable of its own
	loop   map[*kern.Node]*kern.Node         // that a node stands in, nil outside any
	vary   map[*kern.Node]map[*kern.Var]bool // the variables a node depends on
	reads  map[*kern.Node]int                // how often it is read
	needed map[*kern.Node]bool
}

func newRemake(k *kern.Kernel, out int) *remake {
	r := &remake{k: k, out: out, leaf: map[*kern.Node]*kern.Node{}, shift: map[*kern.Node]*kern.Var{}, loop: map[*kern.Node]*kern.Node{},
		vary: map[*kern.Node]map[*kern.Var]bool{}, reads: map[*kern.Node]int{}, needed: map[*kern.Node]bool{}}
	stores := 0
	rounds := map[*kern.Node][]*kern.Node{} // of a node, to 16 bits
	var others []*kern.Node                 // stores
	var walk func(body []*kern.Node, in *kern.Node, around []*kern.Var)
	walk = func(body []*kern.Node, in *kern.Node, around []*kern.Var) {
		for _, n := range body {
			r.loop[n] = in
			walk(n.Body, n, append(slices.Clone(around), n.Vars...))
			n.EachRead(func(a *kern.Node) { r.reads[a]++ })
			v := map[*kern.Var]bool{}
			index := func(ix kern.Index) {
				for _, t := range ix.Terms {
					v[t.Var] = true
				}
			}
			index(n.At)
			for _, g := range n.Guards {
				index(g.At)
			}
			n.EachRead(func(a *kern.Node) { maps.Copy(v, r.vary[a]) })
			if n.Prim == kern.Contract { // at every point another
				for _, d := range k.Dims {
					v[d] = true
				}
			}
			if n.Prim == kern.Acc { // of a sum over the loop's own variable
				for _, x := range n.Args[0].Vars {
					delete(v, x)
				}
			}
			r.vary[n] = v
			if n.Prim == kern.Round && len(n.Args) == 1 {
				rounds[n.Args[0]] = append(rounds[n.Args[0]], n)
			}
			if n.Prim != kern.Store {
				continue
			}
			switch {
			case n.Buf == out:
				r.store = n
				stores++
			case k.Bufs[n.Buf].Mode == kern.Out && n.Args[0].Type == ir.F32 && len(n.At.Ind) == 0:
				others = append(others, n)
			}
		}
	}
	walk(k.Body, nil, k.Dims)
	for _, s := range others {
		x, d := s.Args[0], k.Bufs[s.Buf].DType
		if d == ir.F32 && r.holds(s, x) {
			r.leaf[x] = s
		}
		for _, y := range rounds[x] {
			if ir.DType(y.I) == d && r.holds(s, y) {
				r.leaf[y] = s
			}
		}
	}
	r.repeats()
	if stores != 1 || k.Bufs[out].Mode != kern.Out || !k.Bufs[out].DType.IsFloat() {
		r.store = nil
	}
	return r
}

// holds reports whether at every point where x is computed store puts it.
func (r *remake) holds(store, x *kern.Node) bool {
	return x.Prim != kern.Load && x.Prim != kern.Const && r.loop[x] == r.loop[store] && maps.Equal(r.vary[store], r.vary[x])
}

// repeats finds what a loop computes that another stores: of one sum of what is loaded,
// which rounds by itself, the same number.
func (r *remake) repeats() {
	stored := map[string]*kern.Node{}
	for x, s := range r.leaf {
		if key := r.key(x); key != "" && (stored[key] == nil || s.Buf < stored[key].Buf) {
			stored[key] = s
		}
	}
	if len(stored) == 0 {
		return
	}
	for n, in := range r.loop {
		if s := stored[r.key(n)]; s != nil && r.leaf[n] == nil && in.Vars[0].Extent == r.loop[s].Vars[0].Extent {
			r.leaf[n], r.shift[n] = s, in.Vars[0]
		}
	}
}

// key is equal for sums of two loads in different outermost loops that add the same
// at the same iteration, and "" of all else.
func (r *remake) key(n *kern.Node) string {
	in := r.loop[n]
	if n.Prim != kern.Add || n.Type != ir.F32 || in == nil || r.loop[in] != nil {
		return ""
	}
	key := ""
	for _, a := range n.Args {
		if a.Prim != kern.Load || r.k.Bufs[a.Buf].Mode != kern.In || len(a.Guards) > 0 {
			return ""
		}
		key += fmt.Sprint(a.Buf, " ", a.At.Coef(in.Vars[0]), " ", without(a.At, in.Vars[0]), " ")
	}
	return key
}

func without(ix kern.Index, v *kern.Var) kern.Index {
	ix.Terms = slices.DeleteFunc(slices.Clone(ix.Terms), func(t kern.Term) bool { return t.Var == v })
	return ix
}

// visit marks what n needs. It fails where that is more than arithmetic on what
// is loaded.
func (r *remake) visit(n *kern.Node) bool {
	if r.needed[n] {
		return true
	}
	r.needed[n] = true
	for in := r.loop[n]; in != nil; in = r.loop[in] {
		r.needed[in] = true
	}
	if r.leaf[n] != nil {
		return true
	}
	switch n.Prim {
	case kern.Contract, kern.Acc, kern.Loop, kern.Random:
		return false
	case kern.Load:
		if r.k.Bufs[n.Buf].Mode != kern.In {
			return false
		}
	}
	ok := true
	n.EachRead(func(a *kern.Node) { ok = ok && r.visit(a) })
	return ok
}

// same reports whether the new kernel's numbers are k's.
func (r *remake) same() bool {
	reads := map[*kern.Node]int{}
	for n := range r.needed {
		if n.Prim != kern.Loop && r.leaf[n] == nil {
			n.EachRead(func(a *kern.Node) { reads[a]++ })
		}
	}
	alone := func(n *kern.Node) bool { return reads[n] == r.reads[n] }
	for n := range r.needed {
		if r.leaf[n] != nil || n.Type != ir.F32 {
			continue
		}
		switch n.Prim {
		case kern.Add, kern.Sub:
			for _, a := range n.Args {
				together := a.Prim == kern.Mul && r.loop[a] == r.loop[n] || a.Prim == kern.Exp || a.Prim == kern.Sqrt
				if r.leaf[a] == nil && together && !(alone(a) && maps.Equal(r.vary[a], r.vary[n])) {
					return false
				}
			}
		case kern.Div:
			x, y := n.Args[0], n.Args[1]
			for v := range r.vary[x] {
				if !r.vary[y][v] {
					return false
				}
			}
			if r.leaf[y] != nil && y.Prim == kern.Add {
				return false
			}
		}
	}
	return true
}

// kernel writes the needed nodes as a kernel of their own.
func (r *remake) kernel() (*kern.Kernel, []int) {
	k := &kern.Kernel{}
	vars, nodes, bufs := map[*kern.Var]*kern.Var{}, map[*kern.Node]*kern.Node{}, map[int]int{}
	var args []int
	variable := func(v *kern.Var) *kern.Var {
		if vars[v] == nil {
			c := *v
			vars[v] = &c
		}
		return vars[v]
	}
	index := func(ix kern.Index) kern.Index {
		out := kern.Index{Const: ix.Const}
		for _, t := range ix.Terms {
			out.Terms = append(out.Terms, kern.Term{Var: variable(t.Var), Coef: t.Coef})
		}
		out.Ind = slices.Clone(ix.Ind)
		for i := range out.Ind {
			out.Ind[i].Node = nodes[out.Ind[i].Node]
		}
		return out
	}
	buffer := func(b int, m kern.Mode) int {
		if _, ok := bufs[b]; !ok {
			bufs[b] = len(args)
			args = append(args, b)
			k.Bufs = append(k.Bufs, kern.Buf{DType: r.k.Bufs[b].DType, Len: r.k.Bufs[b].Len, Mode: m})
		}
		return bufs[b]
	}
	for _, d := range r.k.Dims {
		k.Dims = append(k.Dims, variable(d))
	}
	points := r.k.Points()
	var list func(body []*kern.Node, times int) []*kern.Node
	list = func(body []*kern.Node, times int) []*kern.Node {
		var out []*kern.Node
		for _, n := range body {
			if !r.needed[n] {
				continue
			}
			c := *n
			c.Accs, c.Vars, c.Args = nil, nil, nil
			switch s := r.leaf[n]; {
			case s != nil:
				at := s.At
				if v := r.shift[n]; v != nil {
					other := r.loop[s].Vars[0]
					at = without(at, other).Add(kern.V(v).Scale(s.At.Coef(other)))
				}
				c = kern.Node{Prim: kern.Load, Type: n.Type, Buf: buffer(s.Buf, kern.In), At: index(at)}
			case n.Prim == kern.Loop:
				c.Vars = []*kern.Var{variable(n.Vars[0])}
				c.Body = list(n.Body, times*n.Vars[0].Extent)
			default:
				c.At = index(n.At)
				c.Guards = slices.Clone(n.Guards)
				for i, g := range c.Guards {
					c.Guards[i].At = index(g.At)
				}
				for _, a := range n.Args {
					c.Args = append(c.Args, nodes[a])
				}
				if n.Prim == kern.Load {
					c.Buf = buffer(n.Buf, kern.In)
				}
				if n.Prim == kern.Store {
					c.Buf = buffer(n.Buf, kern.Out)
				} else if len(n.Args) > 0 {
					k.FLOPs += int64(times)
				}
			}
			nodes[n] = &c
			out = append(out, &c)
		}
		return out
	}
	k.Body = list(r.k.Body, points)
	return k, args
}
