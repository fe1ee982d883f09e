package cpu

import (
	"fmt"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/vmath"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// eval emits a pure node.
func (e *emitter) eval(n *kern.Node, fused map[*kern.Node]bool) (*val, error) {
	arg := func(i int) *val { return e.vals[n.Args[i].ID] }
	un := func(f func(a build.V) build.V) (*val, error) { return e.lift1(arg(0), f), nil }
	bin := func(f func(a, b build.V) build.V) (*val, error) { return e.lift2(arg(0), arg(1), f), nil }
	float := len(n.Args) > 0 && n.Args[len(n.Args)-1].Type == ir.F32
	switch n.Prim {
	case kern.Const:
		switch n.Type {
		case ir.F32:
			return uniform(build.FloatOf(build.F32, n.F)), nil
		case ir.I32:
			return uniform(build.IntOf(build.I32, n.I)), nil
		}
		return uniform(build.IntOf(build.I1, n.I&1)), nil
	case kern.Pos:
		return e.index(n.At), nil
	case kern.Test:
		if x := e.holds(n.Guards); x != nil {
			return x, nil
		}
		return uniform(build.IntOf(build.I1, 1)), nil
	case kern.Random:
		return e.random(n), nil
	case kern.Cast:
		return un(func(a build.V) build.V { return e.cast(n.Args[0].Type, n.Type, a) })
	case kern.Round:
		d := ir.DType(n.I)
		if len(n.Args) == 2 {
			return bin(func(a, u build.V) build.V { return widen(e.Func, d, narrowRandomly(e.Func, d, a, u)) })
		}
		return un(func(a build.V) build.V { return widen(e.Func, d, narrow(e.Func, d, a)) })
	case kern.Neg:
		if float {
			return un(e.FNeg)
		}
		return un(func(a build.V) build.V { return e.Sub(likeI(a, 0), a) })
	case kern.Abs:
		if float {
			return un(e.FAbs)
		}
		return un(func(a build.V) build.V { return e.Max(a, e.Sub(likeI(a, 0), a)) })
	case kern.Exp:
		return un(func(a build.V) build.V { return vmath.Exp(e.Func, a) })
	case kern.Log:
		return un(func(a build.V) build.V { return vmath.Log(e.Func, a) })
	case kern.Tanh:
		return un(func(a build.V) build.V { return vmath.Tanh(e.Func, a) })
	case kern.Sqrt:
		return un(e.Sqrt)
	case kern.Floor:
		return un(e.Floor)
	case kern.Add, kern.Sub:
		if float {
			return e.sum(n, fused), nil
		}
		if n.Prim == kern.Add {
			return bin(e.Add)
		}
		return bin(e.Sub)
	case kern.Mul:
		if float {
			return bin(e.FMul)
		}
		return bin(e.Mul)
	case kern.Div:
		if float {
			return bin(e.FDiv)
		}
		return bin(e.divide)
	case kern.Min, kern.Max:
		switch {
		case float:
			c := n.Args[1].Prim == kern.Const
			if n.Prim == kern.Max {
				return bin(func(a, b build.V) build.V { return e.fmax(a, b, !c) })
			}
			return bin(func(a, b build.V) build.V { return e.fmin(a, b, !c) })
		case n.Prim == kern.Max:
			return bin(e.Max)
		}
		return bin(e.Min)
	case kern.Lt:
		if float {
			return bin(e.FLt)
		}
		return bin(e.Lt)
	case kern.Le:
		if float {
			return bin(e.FLe)
		}
		return bin(e.Le)
	case kern.Eq:
		if float {
			return bin(e.FEq)
		}
		return bin(e.Eq)
	case kern.And:
		return bin(e.And)
	case kern.Or:
		return bin(e.Or)
	case kern.Not:
		return un(func(a build.V) build.V { return e.Xor(a, likeI(a, 1)) })
	case kern.Select:
		return e.lift(func(a []build.V) build.V { return e.Select(a[0], a[1], a[2]) }, arg(0), arg(1), arg(2)), nil
	}
	return nil, fmt.Errorf("internal: kernel %s: %%%d: %s is not supported here", e.k.Name, n.ID, n.Prim)
}

// sum emits an f32 addition or subtraction, with a fused product if it has one.
func (e *emitter) sum(n *kern.Node, fused map[*kern.Node]bool) *val {
	a, b := n.Args[0], n.Args[1]
	sub := n.Prim == kern.Sub
	switch {
	case fused[a] && e.vals[a.ID] == nil:
		return e.lift(func(x []build.V) build.V {
			if sub {
				return e.FMA(x[0], x[1], e.FNeg(x[2]))
			}
			return e.FMA(x[0], x[1], x[2])
		}, e.vals[a.Args[0].ID], e.vals[a.Args[1].ID], e.vals[b.ID])
	case fused[b] && e.vals[b.ID] == nil:
		return e.lift(func(x []build.V) build.V {
			if sub {
				return e.FMA(e.FNeg(x[0]), x[1], x[2])
			}
			return e.FMA(x[0], x[1], x[2])
		}, e.vals[b.Args[0].ID], e.vals[b.Args[1].ID], e.vals[a.ID])
	case sub:
		return e.lift2(e.vals[a.ID], e.vals[b.ID], e.FSub)
	}
	return e.lift2(e.vals[a.ID], e.vals[b.ID], e.FAdd)
}

// fmax is the larger of a and b, NaN if a is, or b where bMayBeNaN.
func (e *emitter) fmax(a, b build.V, bMayBeNaN bool) build.V {
	r := e.Select(e.FLe(a, b), b, a)
	if bMayBeNaN {
		r = e.Select(e.IsNaN(b), b, r)
	}
	return r
}

func (e *emitter) fmin(a, b build.V, bMayBeNaN bool) build.V {
	r := e.Select(e.FLe(b, a), b, a)
	if bMayBeNaN {
		r = e.Select(e.IsNaN(b), b, r)
	}
	return r
}

func (e *emitter) cast(from, to ir.DType, a build.V) build.V {
	switch {
	case from == to:
		return a
	case to == ir.F32 && from == ir.I32:
		return e.SIToFP(a, build.F32)
	case to == ir.F32:
		return e.UIToFP(a, build.F32)
	case to == ir.I32 && from == ir.F32:
		return e.FPToSI(a, build.I32)
	case to == ir.I32:
		return e.ZExt(a, build.I32)
	case from == ir.F32:
		return e.FNe(a, likeF(a, 0))
	}
	return e.Ne(a, likeI(a, 0))
}

// divide is the i32 quotient. Lanes out of force may divide anything, and the
// hardware traps on 0 and on overflow, so both are kept from it.
func (e *emitter) divide(a, b build.V) build.V {
	minus := e.Eq(b, likeI(b, -1))
	safe := e.Select(e.Or(minus, e.Eq(b, likeI(b, 0))), likeI(b, 1), b)
	return e.Select(minus, e.Sub(likeI(a, 0), a), e.SDiv(a, safe))
}

// random emits a random number, as kern.Uniform defines it. Elements side by
// side share evaluations of Philox; other lanes take one of four words each.
func (e *emitter) random(n *kern.Node) *val {
	seed, step := e.vals[n.Args[0].ID], e.vals[n.Args[1].ID]
	if e.fours(n.At) && seed.uniform() && step.uniform() {
		first := e.first(n.At).s
		first = e.LShr(first, likeI(first, 2))
		out := &val{}
		for u := range e.unit {
			from := e.Add(first, likeI(first, u*e.vl/4))
			w := vmath.PhiloxRun(e.Func, from, uint32(n.I), [2]build.V{seed.s, step.s}, e.vl)
			out.v = append(out.v, vmath.Uniform(e.Func, w))
		}
		return out
	}
	return e.lift(func(a []build.V) build.V {
		z := likeI(a[0], 0)
		w := vmath.Philox(e.Func, [4]build.V{e.LShr(a[0], likeI(z, 2)), likeI(z, int(int32(n.I))), z, z}, [2]build.V{a[1], a[2]})
		odd := e.Ne(e.And(a[0], likeI(z, 1)), z)
		upper := e.Ne(e.And(a[0], likeI(z, 2)), z)
		word := e.Select(upper, e.Select(odd, w[3], w[2]), e.Select(odd, w[1], w[0]))
		return vmath.Uniform(e.Func, word)
	}, e.index(n.At), seed, step)
}

// fours reports whether the lanes of at are elements side by side, the first a
// multiple of 4.
func (e *emitter) fours(at kern.Index) bool {
	if e.lane == nil || !e.aligned || !at.Runs(e.lane, 4) {
		return false
	}
	for _, d := range at.Ind {
		if !e.vals[d.Node.ID].uniform() {
			return false
		}
	}
	return true
}
