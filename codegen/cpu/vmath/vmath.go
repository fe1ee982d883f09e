package vmath

import (
	"math"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
)

// V is a value of package build.
type V = build.V

// kit shortens the constants of one function body.
type kit struct {
	*build.Func
	x V
}

func (k kit) f(c float64) V  { return build.FloatOf(k.x.Type(), c) }
func (k kit) i(c int64) V    { return build.IntOf(build.LikeType(k.x, build.I32), c) }
func (k kit) bits(v V) V     { return k.Bitcast(v, build.LikeType(k.x, build.I32)) }
func (k kit) float(bits V) V { return k.Bitcast(bits, k.x.Type()) }

// poly evaluates a polynomial by Horner's rule, highest degree first.
func (k kit) poly(x V, cs ...float64) V {
	p := k.f(cs[0])
	for _, c := range cs[1:] {
		p = k.FMA(p, x, k.f(c))
	}
	return p
}

// Exp is e^x, within 1 ulp. Results below the smallest normal number (x < -87.336) are 0, those
// above the largest (x > 88.7228) infinite; NaN gives NaN.
func Exp(fn *build.Func, x V) V {
	k := kit{fn, x}
	// x = n ln 2 + r. Adding 1.5*2^23 rounds to an integer, which is then in the low bits.
	const magic = 3 << 22
	t := k.FMA(x, k.f(math.Log2E), k.f(magic))
	n := k.FSub(t, k.f(magic))
	r := k.FMA(n, k.f(-0.693145751953125), x)
	r = k.FMA(n, k.f(-1.428606765330187045e-06), r)
	// Minimax in relative error on [-ln2/2, ln2/2] with the last two coefficients fixed.
	p := k.poly(r, 0.00138146132938, 0.00836870991093, 0.0416683873673, 0.166665206891, 0.499999934517, 1, 1)
	e := k.float(k.Add(k.bits(p), k.Shl(k.bits(t), k.i(23))))
	e = k.Select(k.FGt(x, k.f(88.72283)), k.f(math.Inf(1)), e)
	// FMax(0, x) is 0 below and NaN for NaN.
	return k.Select(k.FGe(x, k.f(-87.33654)), e, k.FMax(k.f(0), x))
}

// Log is the natural logarithm, within 1 ulp, subnormal arguments included. 0 gives -Inf, +Inf
// gives +Inf, negative numbers and NaN give NaN.
func Log(fn *build.Func, x V) V {
	k := kit{fn, x}
	small := k.FLt(x, k.f(0x1p-126))
	b := k.bits(k.Select(small, k.FMul(x, k.f(0x1p23)), x))
	// x = m 2^e with m in [sqrt(1/2), sqrt(2)).
	ei := k.AShr(k.Sub(b, k.i(0x3f3504f3)), k.i(23))
	m := k.float(k.Sub(b, k.Shl(ei, k.i(23))))
	e := k.FSub(k.SIToFP(ei, build.F32), k.Select(small, k.f(23), k.f(0)))
	z := k.FSub(m, k.f(1))
	// Cephes logf.
	p := k.poly(z, 7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
		-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)
	z2 := k.FMul(z, z)
	y := k.FMul(k.FMul(p, z), z2)
	y = k.FMA(e, k.f(-2.12194440e-4), y)
	y = k.FMA(z2, k.f(-0.5), y)
	r := k.FMA(e, k.f(0.693359375), k.FAdd(z, y))
	r = k.Select(k.FEq(x, k.f(math.Inf(1))), x, r)
	return k.Select(k.FGt(x, k.f(0)), r, k.Select(k.FEq(x, k.f(0)), k.f(math.Inf(-1)), k.f(math.NaN())))
}

// Tanh is the hyperbolic tangent, within 2 ulp; NaN gives NaN, -0 gives -0.
func Tanh(fn *build.Func, x V) V {
	k := kit{fn, x}
	ax := k.FAbs(x)
	z := k.FMul(x, x)
	// Cephes tanhf below 0.625, else 1 - 2/(e^2x + 1).
	p := k.poly(z, -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
	small := k.FMA(k.FMul(p, z), x, x)
	e := Exp(fn, k.FAdd(ax, ax))
	big := k.FSub(k.f(1), k.FDiv(k.f(2), k.FAdd(e, k.f(1))))
	return k.Select(k.FLt(ax, k.f(0.625)), small, k.copySign(big, x))
}

// copySign is |v|, v not negative, with the sign of x.
func (k kit) copySign(v, x V) V {
	return k.float(k.Or(k.bits(v), k.And(k.bits(x), k.i(-1<<31))))
}

// Sigmoid is 1/(1 + e^-x), within 2.5 ulp where the result is normal: 0.84 of Exp, 0.5 each of the
// sum and the quotient, and up to twice that where the quotient is just above a power of two (2.08
// measured). NaN gives NaN.
func Sigmoid(fn *build.Func, x V) V {
	k := kit{fn, x}
	return k.FDiv(k.f(1), k.FAdd(k.f(1), Exp(fn, k.FNeg(x))))
}

// Erf is the error function, within 2 ulp; NaN gives NaN.
func Erf(fn *build.Func, x V) V {
	k := kit{fn, x}
	ax := k.FAbs(x)
	// 1 - e^(a polynomial) above 475/512, an odd polynomial below.
	q := k.poly(ax, -1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.28717512e-1)
	big := k.FSub(k.f(1), Exp(fn, k.FMA(q, ax, k.FNeg(ax))))
	// Beyond 4 the result is 1 and the polynomial could overflow.
	big = k.Select(k.FGt(ax, k.f(4)), k.f(1), big)
	p := k.poly(k.FMul(x, x), -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)
	return k.Select(k.FGt(ax, k.f(0.927734375)), k.copySign(big, x), k.FMA(p, x, x))
}
