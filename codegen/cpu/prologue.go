package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// Formula computes the elements of an operand from what its sources hold: the
// prologue of a product.
type Formula struct {
	k     *kern.Kernel
	nodes []*kern.Node // loads left out, root last
	loads []*kern.Node // first the operand's own source, then More
	root  *kern.Node
	fused map[*kern.Node]bool // products that become part of a multiply-add
}

func newFormula(k *kern.Kernel, root, main *kern.Node) *Formula {
	x := &Formula{k: k, root: root, loads: []*kern.Node{main}}
	uses := make([]int, k.NumNodes)
	uses[root.ID] = 1
	for _, n := range kern.Expression(root) {
		for _, a := range n.Args {
			uses[a.ID]++
		}
		switch {
		case n == main:
		case n.Prim == kern.Load:
			x.loads = append(x.loads, n)
		default:
			x.nodes = append(x.nodes, n)
		}
	}
	x.fused = fusable(x.nodes, uses, make([]*val, k.NumNodes))
	return x
}

// elements is a Formula in a run of elements, where some sources are the same
// throughout.
type elements struct {
	e       *emitter
	x       *Formula
	vals    []*val              // of what is the same throughout
	inverse map[*kern.Node]*val // reciprocals of divisors that are
}

// begin computes what is the same throughout a run: scalars[i] is the value of
// load i there, or nil where it has one for each element.
func (x *Formula) begin(f *build.Func, scalars []V) *elements {
	e := &emitter{Func: f, target: f.Target, k: x.k, vl: f.Target.Lanes, unit: 1, vals: make([]*val, x.k.NumNodes),
		scopes: []*scope{{splats: map[*val]V{}}}}
	y := &elements{e: e, x: x, inverse: map[*kern.Node]*val{}}
	for i, l := range x.loads {
		if scalars[i] != nil {
			e.vals[l.ID] = uniform(scalars[i])
		}
	}
	for _, n := range x.nodes {
		same, divisor := true, false
		for i, a := range n.Args {
			same = same && e.vals[a.ID] != nil
			divisor = n.Prim == kern.Div && n.Type == ir.F32 && i == 1 && e.vals[a.ID] != nil
		}
		switch {
		case same:
			e.vals[n.ID], _ = e.eval(n, nil)
		case divisor:
			one := build.FloatOf(build.F32, 1)
			y.inverse[n] = uniform(f.FDiv(one, e.vals[n.Args[1].ID].s))
		}
	}
	// Copies to all lanes are made here, outside the run's loop.
	for _, n := range x.nodes {
		if e.vals[n.ID] != nil {
			continue
		}
		if v := y.inverse[n]; v != nil {
			e.lanes(v, 0)
		}
		for _, a := range n.Args {
			if v := e.vals[a.ID]; v != nil && y.inverse[n] == nil && a.Type == ir.F32 {
				e.lanes(v, 0)
			}
		}
	}
	y.vals = append([]*val(nil), e.vals...)
	return y
}

// vector computes elements of the run from one vector of every load that has
// no scalar.
func (y *elements) vector(f *build.Func, vectors []V) V {
	e, x := y.e, y.x
	copy(e.vals, y.vals)
	for i, l := range x.loads {
		if y.vals[l.ID] == nil {
			e.vals[l.ID] = &val{v: []V{vectors[i]}}
		}
	}
	e.scopes = append(e.scopes[:1:1], &scope{splats: map[*val]V{}})
	for _, n := range x.nodes {
		switch {
		case e.vals[n.ID] != nil || x.fused[n]:
		case y.inverse[n] != nil:
			e.vals[n.ID] = e.lift2(e.vals[n.Args[0].ID], y.inverse[n], f.FMul)
		default:
			e.vals[n.ID], _ = e.eval(n, x.fused)
		}
	}
	return e.lanes(e.vals[x.root.ID], 0)
}
