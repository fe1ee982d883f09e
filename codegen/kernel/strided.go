package kernel

import (
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/ops"
)

// Operands of kernels that are written by hand (ops.Strided) need not be
// tensors of their own: a slice of a projection is read where the projection
// lies, and a gradient is written to its place in the concatenation it is a
// part of.

// source is the value that v shows under views alone: reshapes, slices,
// transpositions.
func (a *analysis) source(v *ir.Value) *ir.Value {
	for v.Def != nil && len(v.Def.Args) == 1 && isView(v.Def) {
		v = v.Def.Args[0]
	}
	return v
}

// isView reports whether each element of in's result is an element of its
// argument.
func isView(in *ir.Instr) bool {
	op, ok := in.Op.(ops.Inline)
	if !ok {
		return false
	}
	x, r := in.Args[0].Type, in.Results[0].Type
	if x.DType != r.DType { // a load widens, so a cast may be the load alone
		return false
	}
	var n, arg *kern.Node
	err := overSpace(nil, r.Shape, func(e *emission) (err error) {
		buf := e.b.Buf("", x.DType, x.Len(), kern.In)
		n, err = op.Element(&ops.Emitter{B: e.b, Args: []ir.Type{x}, Out: r, Arg: func(_ int, idx []kern.Index) (*kern.Node, error) {
			arg = e.b.Load(buf, kern.Flat(x.Shape, idx))
			return arg, nil
		}}, e.full)
		return err
	})
	return err == nil && n == arg && n != nil
}

// view finds where v lies in a stored value's buffer. It fails where v is
// computed, or its elements are not evenly spaced along an axis.
func (a *analysis) view(v *ir.Value) (base *ir.Value, w kern.View, ok bool) {
	if s := a.find(v); s != nil {
		return s, denseView(v.Type.Shape), true
	}
	err := overSpace(a, v.Type.Shape, func(e *emission) error {
		n, err := e.inline(v, e.full)
		if err != nil || n.Prim != kern.Load || len(n.Guards) > 0 {
			return err
		}
		base = e.bufs[n.Buf]
		w, ok = stridesOf(e.sp, n.At)
		ok = ok && base.Type.DType == v.Type.DType
		return nil
	})
	return base, w, ok && err == nil
}

// denseView is that of a tensor of its own; axes of extent 1 have stride 1.
func denseView(shape []int) kern.View {
	w := kern.Dense(0, shape)
	for d, n := range shape {
		if n == 1 {
			w.Strides[d] = 1
		}
	}
	return w
}

// stridesOf reads an index over the whole space as offset and strides.
func stridesOf(sp *space, at kern.Index) (w kern.View, ok bool) {
	if len(at.Ind) > 0 {
		return w, false
	}
	w = kern.View{Offset: at.Const, Strides: make([]int, len(sp.shape))}
	known := make([]bool, len(sp.shape))
	for d := range w.Strides {
		w.Strides[d] = 1
	}
	seen := map[*kern.Var]int{}
	for _, t := range at.Terms {
		seen[t.Var] = t.Coef
	}
	for v, o := range sp.owner {
		if v.Extent == 1 {
			continue
		}
		d, inner := o[1], 1
		for _, n := range sp.parts[d][o[2]+1:] {
			inner *= n
		}
		// All parts of an axis must agree on its stride.
		if seen[v]%inner != 0 || known[d] && w.Strides[d] != seen[v]/inner {
			return w, false
		}
		w.Strides[d], known[d] = seen[v]/inner, true
	}
	return w, true
}

// place is where an operand of a launch lies.
type place struct {
	buf  *plan.Buffer
	len  int // elements of buf
	view kern.View
}

// operands finds the places of a strided op's arguments and results.
func (pr *program) operands(in *ir.Instr, op ops.Strided) []place {
	var out []place
	for _, x := range in.Args {
		base, w, ok := pr.a.view(x)
		if !ok { // analyse stored it
			base, w = pr.a.find(x), denseView(x.Type.Shape)
		}
		out = append(out, place{pr.buf[base], base.Type.Len(), w})
	}
	for j, r := range in.Results {
		p, ok := pr.inside(r)
		if ok && op.Strides(len(in.Args)+j, p.view.Strides) {
			pr.written[r] = true
		} else {
			if pr.buf[r] == nil {
				pr.work(r, r.Type)
			}
			p = place{pr.buf[r], r.Type.Len(), denseView(r.Type.Shape)}
		}
		out = append(out, p)
	}
	return out
}

// inside finds the place of r in the concatenation that is its only reader.
func (pr *program) inside(r *ir.Value) (place, bool) {
	readers := func(v *ir.Value) *ir.Instr {
		if pr.a.uses[v.ID] != 1 || pr.kept[v] {
			return nil
		}
		return pr.reader[v]
	}
	v := r
	in := readers(v)
	for in != nil {
		if rs, ok := in.Op.(ops.Reshaper); !ok || !rs.Reshapes() {
			break
		}
		v = in.Results[0]
		in = readers(v)
	}
	if in == nil {
		return place{}, false
	}
	op, ok := in.Op.(ops.Concatenator)
	c := in.Results[0]
	if b := pr.buf[c]; !ok || b != nil && b.Arena != plan.Work {
		return place{}, false
	}
	axis, from := op.ConcatAxis(), 0
	for _, x := range in.Args {
		if x == v {
			break
		}
		from += x.Type.Shape[axis]
	}
	var w kern.View
	even := false
	err := overSpace(pr.a, r.Type.Shape, func(e *emission) error {
		idx, err := kern.Unflatten(v.Type.Shape, kern.Flat(r.Type.Shape, e.full))
		if err != nil {
			return err
		}
		idx[axis] = idx[axis].Plus(from)
		w, even = stridesOf(e.sp, kern.Flat(c.Type.Shape, idx))
		return nil
	})
	if err != nil || !even {
		return place{}, false
	}
	if pr.buf[c] == nil {
		pr.work(c, c.Type)
	}
	return place{pr.buf[c], c.Type.Len(), w}, true
}

// strided makes k, the kernel of an op on tensors of their own, one that finds
// its operands at their places, and returns its arguments.
func strided(k *kern.Kernel, ps []place, types []ir.Type) ([]*plan.Buffer, error) {
	if k.Template == nil {
		var failed error
		args := make([]*plan.Buffer, len(ps))
		for i, p := range ps {
			args[i] = p.buf
			k.Bufs[i].Len = p.len
		}
		eachNode(k.Body, func(n *kern.Node) {
			if n.Prim != kern.Load && n.Prim != kern.Store {
				return
			}
			w, dense := ps[n.Buf].view, denseView(types[n.Buf].Shape)
			same := w.Offset == 0
			for d := range w.Strides {
				same = same && w.Strides[d] == dense.Strides[d]
			}
			if same {
				return
			}
			// The kernel has a loop variable for every axis, so this divides.
			idx, err := kern.Unflatten(types[n.Buf].Shape, n.At)
			if err != nil {
				failed = err
				return
			}
			n.At = kern.C(w.Offset)
			for d, ix := range idx {
				n.At = n.At.Add(ix.Scale(w.Strides[d]))
			}
		})
		return args, failed
	}
	var args []*plan.Buffer
	var bufs []kern.Buf
	number := map[*plan.Buffer]int{}
	for i, p := range ps {
		b := k.Bufs[i]
		j, ok := number[p.buf]
		if !ok {
			j = len(args)
			number[p.buf] = j
			args = append(args, p.buf)
			b.Len = p.len
			bufs = append(bufs, b)
		} else if bufs[j].Mode != b.Mode {
			bufs[j].Mode = kern.InOut
		}
		k.Template.Views[i] = p.view
		k.Template.Views[i].Buf = j
	}
	k.Bufs = bufs
	return args, nil
}
