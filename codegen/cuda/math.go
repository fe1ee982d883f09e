package cuda

import (
	"math"

	"github.com/llir/llvm/ir/enum"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// The elementary functions. Processors compute them by the polynomials of
// codegen/cpu/vmath; here the exponential is an instruction.

// exp is e^a, within 3 ulp, of which 2 are the instruction's. 2^t for t = a log2(e) with the rounding error of t
// put back as a factor: without it the error grows with a, to 88 half ulps.
func (e *emitter) exp(a Value) Value {
	t := e.FMul(a, build.Float(math.Log2E))
	low := e.FMA(a, build.Float(math.Log2E), e.FNeg(t))
	low = e.FMA(a, build.Float(math.Log2E-float64(float32(math.Log2E))), low)
	y := e.Ex2(t)
	r := e.FMA(e.FMul(low, build.Float(math.Ln2)), y, y)
	// Where y is infinite or 0 there is nothing to correct (Inf*0 is NaN).
	inside := e.And(e.FCompare(enum.FPredOLT, y, build.Float(math.Inf(1))), e.FCompare(enum.FPredOGT, a, build.Float(-103.97)))
	return e.Select(inside, r, y)
}

// absorbed finds, by Node.ID, exponentials and roots that only sums with a larger constant read, and
// these sums: the logistic function and what is made of it, and AdamW's divisor. An error of e^a
// relative to itself is less of one relative to 1+e^a, however far it grows with a (to 64 half ulps
// at 88), so one multiplication and one instruction do; a root of a denormal number, below 2^-63,
// is nothing beside 2^-40 and more. Such sums, never 0 nor denormal, are divided by as multiplied by their
// reciprocals. Each instruction for an element counts: logistic functions follow the largest
// products of a transformer, and AdamW is bound by its arithmetic in 16 bits.
func absorbed(k *kern.Kernel) []bool {
	least := map[kern.Prim]float64{kern.Exp: 1, kern.Sqrt: 0x1p-40}
	term := func(n *kern.Node) *kern.Node {
		for i, a := range n.Args {
			if n.Prim != kern.Add || n.Type != ir.F32 || a.Prim != kern.Const {
				continue
			}
			x := n.Args[1-i]
			if c, ok := least[x.Prim]; ok && a.F >= c {
				return x
			}
		}
		return nil
	}
	soft := make([]bool, k.NumNodes)
	kern.Walk(k.Body, func(n *kern.Node) {
		if x := term(n); x != nil {
			soft[x.ID] = true
		}
	})
	kern.Walk(k.Body, func(n *kern.Node) {
		n.EachRead(func(a *kern.Node) {
			if term(n) != a {
				soft[a.ID] = false
			}
		})
	})
	kern.Walk(k.Body, func(n *kern.Node) {
		if x := term(n); x != nil && soft[x.ID] {
			soft[n.ID] = true
		}
	})
	return soft
}

// log is the natural logarithm, within 1 ulp: as vmath.Log.
func (e *emitter) log(x Value) Value {
	small := e.FCompare(enum.FPredOLT, x, build.Float(0x1p-126))
	b := e.Bits(e.Select(small, e.FMul(x, build.Float(0x1p23)), x), build.I32)
	ei := e.Sar(e.AddI(b, -0x3f3504f3), 23)
	m := e.Bits(e.Sub(b, e.Shl(ei, 23)), build.F32)
	ex := e.FSub(e.ToFloat(ei), e.Select(small, build.Float(23), build.Float(0)))
	z := e.FSub(m, build.Float(1))
	p := e.poly(z, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
		-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)
	z2 := e.FMul(z, z)
	y := e.FMul(e.FMul(p, z), z2)
	y = e.FMA(ex, build.Float(-2.12194440e-4), y)
	y = e.FMA(z2, build.Float(-0.5), y)
	r := e.FMA(ex, build.Float(0.693359375), e.FAdd(z, y))
	r = e.Select(e.FCompare(enum.FPredOEQ, x, build.Float(math.Inf(1))), x, r)
	bad := e.Select(e.FCompare(enum.FPredOEQ, x, build.Float(0)), build.Float(math.Inf(-1)), build.Float(math.NaN()))
	return e.Select(e.FCompare(enum.FPredOGT, x, build.Float(0)), r, bad)
}

// tanh is the hyperbolic tangent, within 4 ulp: as vmath.Tanh, but that the
// exponential and the reciprocal are approximate instructions, whose errors count
// less the nearer to 1 the result is. GELU follows the largest products of a
// transformer, where each instruction for an element costs 256 clocks of a tile
// that takes 30,000.
func (e *emitter) tanh(x Value) Value {
	ax := e.FAbs(x)
	z := e.FMul(x, x)
	p := e.poly(z, -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
	small := e.FMA(e.FMul(p, z), x, x)
	y := e.Call("llvm.nvvm.ex2.approx.ftz.f", build.F32, e.FMul(ax, build.Float(2*math.Log2E)))
	big := e.FMA(e.Rcp(e.FAdd(y, build.Float(1))), build.Float(-2), build.Float(1))
	sign := e.AndI(e.Bits(x, build.I32), -1<<31)
	big = e.Bits(e.Or(e.Bits(big, build.I32), sign), build.F32)
	return e.Select(e.FCompare(enum.FPredOLT, ax, build.Float(0.625)), small, big)
}

func (e *emitter) poly(x Value, cs ...float64) Value {
	var p Value = build.Float(cs[0])
	for _, c := range cs[1:] {
		p = e.FMA(p, x, build.Float(c))
	}
	return p
}

// words finds, by Node.ID, random numbers that only roundings read: they need some of the 32 bits that a number in
// (0,1) would be made of, and these then made again of it.
func words(k *kern.Kernel) []bool {
	out := make([]bool, k.NumNodes)
	kern.Walk(k.Body, func(n *kern.Node) { out[n.ID] = n.Prim == kern.Random })
	kern.Walk(k.Body, func(n *kern.Node) {
		n.EachRead(func(a *kern.Node) {
			if n.Prim != kern.Round || a == n.Args[0] {
				out[a.ID] = false
			}
		})
	})
	return out
}

// final finds, by Node.ID, what is rounded at random to a type of 16 bits and read by nothing but stores of that type,
// which round once more.
func final(k *kern.Kernel) []bool {
	out := make([]bool, k.NumNodes)
	kern.Walk(k.Body, func(n *kern.Node) { out[n.ID] = n.Prim == kern.Round && len(n.Args) == 2 })
	kern.Walk(k.Body, func(n *kern.Node) {
		n.EachRead(func(a *kern.Node) {
			if n.Prim != kern.Store || k.Bufs[n.Buf].DType != ir.DType(a.I) {
				out[a.ID] = false
			}
		})
	})
	return out
}

// bitsOf is the first count bits of a random number in [0,1), whose value is u.
func (e *emitter) bitsOf(n *kern.Node, count int, u Value) Value {
	if e.words[n.ID] {
		return e.Shr(u, 32-count)
	}
	return e.ToInt(e.FMul(u, build.Float(float64(int(1)<<count))))
}

// rounded is the value of n, which roundRandomly made x of.
func (e *emitter) rounded(n *kern.Node, d ir.DType, x Value) Value {
	switch {
	case d == ir.E6M9 || d == ir.UE6M10:
		return e.widen(d, x)
	case d == ir.F16 && !e.final[n.ID]:
		return e.widen(d, e.narrow(d, x)) // 2^16 and more are infinite
	}
	return x
}

// random is a random number, as kern.Uniform defines it.
func (e *emitter) random(n *kern.Node, seed, step Value, at Value) Value {
	w := e.philox(seed, step, uint32(n.I), e.Shr(at, 2))
	odd := e.Eq(e.AndI(at, 1), build.Int(1))
	upper := e.Eq(e.AndI(at, 2), build.Int(2))
	return e.uniform(n, e.Select(upper, e.Select(odd, w[3], w[2]), e.Select(odd, w[1], w[0])))
}

// randoms is random at the width's neighbours, the first of which is a multiple
// of 4: four of them have one evaluation of Philox.
func (e *emitter) randoms(n *kern.Node, seed, step Value, first Value) []Value {
	var out []Value
	for p := 0; p < e.width; p += 4 {
		for _, w := range e.philox(seed, step, uint32(n.I), e.AddI(e.Shr(first, 2), p/4)) {
			out = append(out, e.uniform(n, w))
		}
	}
	return out
}

// philox is Philox4x32-10 with counter (i, stream, 0, 0) and key (seed, step).
func (e *emitter) philox(seed, step Value, stream uint32, i Value) [4]Value {
	c := [4]Value{i, build.Word(stream), build.Int(0), build.Int(0)}
	k0, k1 := seed, step
	m0, m1 := build.Word(0xd2511f53), build.Word(0xcd9e8d57)
	for round := range 10 {
		if round > 0 {
			k0, k1 = e.Add(k0, build.Word(0x9e3779b9)), e.Add(k1, build.Word(0xbb67ae85))
		}
		lo0, hi0 := e.MulWide(c[0], m0)
		var lo1, hi1 Value = build.Int(0), build.Int(0) // of c[2] = 0
		if round > 0 {
			lo1, hi1 = e.MulWide(c[2], m1)
		}
		c = [4]Value{e.Xor(e.Xor(hi1, c[1]), k0), lo1, e.Xor(e.Xor(hi0, c[3]), k1), lo0}
	}
	return c
}

// uniform turns 32 random bits into a number inside (0,1), where n isn't kept as they are.
func (e *emitter) uniform(n *kern.Node, bits Value) Value {
	if e.words[n.ID] {
		return bits
	}
	b := e.FAdd(e.ToFloat(e.Shr(bits, 9)), build.Float(0.5))
	return e.FMul(b, build.Float(0x1p-23))
}

func (e *emitter) at32(a, b Value) Value { return e.Mul(a, b) }
