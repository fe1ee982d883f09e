package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
)

// Products multiply in 16 bits where the program says so (kern.Contract) and the target can. Their operands are packed as
// those of others are, in f32, and then narrowed, which is exact: they are numbers of that type.
//
// f16: multiply-adds of vectors of f16, whose sums over f16Terms products are rounded to f16 after each, and then
// added in f32. bf16: dot products of pairs, two adjacent elements of the sum, in f32.

// f16Terms is how many products are summed in f16. Half as many take a quarter more time for two thirds of the error, twice as many
// a tenth less for 1.3 times the error (docs/precision.md).
const f16Terms = 128

// arithmetic lists the types that t multiplies in.
func arithmetic(t *build.Target) []ir.DType {
	out := []ir.DType{ir.F32}
	if t.F16 {
		out = append(out, ir.F16)
	}
	if t.BF16 {
		out = append(out, ir.BF16)
	}
	return out
}

// multiplies is the type that t multiplies in where want is asked for.
func multiplies(t *build.Target, want ir.DType) ir.DType {
	if want == ir.F16 && t.F16 || want == ir.BF16 && t.BF16 {
		return want
	}
	return ir.F32
}

// tileOf is t with the register tile of products in that type: as many vectors wide, and in f16 they have twice the
// lanes.
func tileOf(t *build.Target, in ir.DType) *build.Target {
	if in != ir.F16 {
		return t
	}
	wide := *t
	wide.NV *= 2
	return &wide
}

// halved is how many pairs n elements are, the last with a 0 where n is odd.
func halved(f *build.Func, n V) V { return f.LShr(f.Add(n, build.Int(1)), build.Int(1)) }

// narrower turns packed operands of f32 into those of a product in 16 bits. Its places are pointers to
// float32, whose low half holds the first of two elements.
type narrower struct {
	*build.Func
	in ir.DType
}

// vector is 16-bit codes of one of f32. Those of bf16 are cut off: they have no more digits.
func (n narrower) vector(x V) V {
	if n.in == ir.F16 {
		return narrow(n.Func, ir.F16, x)
	}
	b := n.Bitcast(x, build.LikeType(x, build.I32))
	return n.Trunc(n.LShr(b, likeI(b, 16)), build.I16)
}

// pairs is a vector of pairs of the lanes of x and y.
func (n narrower) pairs(x, y V) V {
	a, b := n.Bitcast(x, build.LikeType(x, build.I32)), n.Bitcast(y, build.LikeType(y, build.I32))
	return n.Or(n.LShr(a, likeI(a, 16)), n.And(b, likeI(b, -1<<16)))
}

// run narrows count elements at p in place, and more up to a whole vector. To pairs it adds a 0.
func (n narrower) run(p, count V) {
	lanes := n.Target.Lanes
	to := n.Cast(p, build.I16)
	n.Range(build.Int(0), count, build.Int(int64(lanes)), func(i V) {
		n.Store(n.vector(n.Load(n.Module.Vec(), n.At(p, i))), n.At(to, i))
	})
	if n.in == ir.BF16 {
		n.Store(build.IntOf(build.I16, 0), n.At(to, count))
	}
}

// rows narrows count rows of kc elements, pitch elements apart, in place.
func (n narrower) rows(p, count V, pitch int, kc V) {
	n.Range(build.Int(0), count, build.Int(1), func(r V) { n.run(n.At(p, n.Mul(r, build.Int(int64(pitch)))), kc) })
}

// panel narrows kc rows of width elements, one row after the other, to the place to: those of bf16 in pairs of the
// same column. It writes whole vectors, so that to may be the rows' own place only where width is a number of
// vectors.
func (n narrower) panel(from, to, kc, width V) {
	if n.in == ir.F16 {
		count := n.Mul(kc, width)
		codes := n.Cast(to, build.I16)
		n.Range(build.Int(0), count, build.Int(int64(n.Target.Lanes)), func(i V) {
			n.Store(n.vector(n.Load(n.Module.Vec(), n.At(from, i))), n.At(codes, i))
		})
		return
	}
	codes := n.Cast(to, build.I32)
	n.Range(build.Int(0), halved(n.Func, kc), build.Int(1), func(k V) {
		first := n.At(from, n.Mul(n.Shl(k, build.Int(1)), width))
		whole := n.Lt(n.Add(n.Shl(k, build.Int(1)), build.Int(1)), kc)
		n.Range(build.Int(0), width, build.Int(int64(n.Target.Lanes)), func(i V) {
			x := n.Load(n.Module.Vec(), n.At(first, i))
			p := n.At(codes, n.Add(n.Mul(k, width), i))
			n.If(whole,
				func() []V { n.Store(n.pairs(x, n.Load(n.Module.Vec(), n.At(n.At(first, width), i))), p); return nil },
				func() []V { n.Store(n.pairs(x, build.Zero(n.Module.Vec())), p); return nil })
		})
	})
}
