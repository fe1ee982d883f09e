package cuda

import (
	"github.com/llir/llvm/ir/constant"
	"github.com/llir/llvm/ir/enum"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir"
)

// The storage types, as runtime/format16 defines them.

// widen turns a stored element into a value.
func (e *emitter) widen(d ir.DType, x Value) Value {
	switch d {
	case ir.F16:
		return e.Widen(e.Bits(x, build.F16))
	case ir.BF16:
		return e.Bits(e.Shl(e.Zext(x, build.I32), 16), build.F32)
	case ir.E6M9:
		w := e.Zext(x, build.I32)
		return e.Bits(e.Or(e.Shl(e.AndI(w, 0x8000), 16), e.widenSmall(e.AndI(w, 0x7fff), 9)), build.F32)
	case ir.UE6M10:
		return e.Bits(e.widenSmall(e.Zext(x, build.I32), 10), build.F32)
	case ir.I8:
		return e.Sext(x, build.I32)
	case ir.Bool:
		return e.Compare(enum.IPredNE, e.Zext(x, build.I32), build.Int(0))
	}
	return x
}

// smallBias is what the exponent of an f32 is above that of the paper's 16-bit
// formats, 127-60 (appendix D).
const smallBias = 67

// widenSmall is the bits of the f32 with magnitude code m of a format with
// frac fraction bits; m = 0 alone is zero.
func (e *emitter) widenSmall(m Value, frac int) Value {
	b := e.AddI(e.Shl(m, 23-frac), smallBias<<23)
	return e.Select(e.Eq(m, build.Int(0)), build.Int(0), b)
}

// narrow rounds a value to its storage type: f16 and bf16 to nearest, ties to
// even; the paper's formats with ties away from zero, below the least value to
// zero, above the largest and NaN to the largest.
func (e *emitter) narrow(d ir.DType, x Value) Value {
	switch d {
	case ir.F16:
		return e.Bits(e.Narrow(x), build.I16)
	case ir.BF16:
		b := e.Bits(x, build.I32)
		odd := e.AndI(e.Shr(b, 16), 1)
		r := e.Add(e.AddI(b, 0x7fff), odd)
		// A NaN must not round to infinity: keep its top bits and set one.
		r = e.Select(e.FCompare(enum.FPredUNO, x, x), e.Or(b, build.Int(0x400000)), r)
		return e.Trunc(e.Shr(r, 16), build.I16)
	case ir.E6M9, ir.UE6M10:
		frac, most := small(d)
		m := e.AndI(e.Bits(x, build.I32), 0x7fffffff)
		return e.signSmall(d, x, e.clampSmall(e.Shr(e.AddI(m, 1<<(22-frac)), 23-frac), frac, most))
	case ir.I8:
		return e.Trunc(x, build.I8)
	case ir.Bool:
		return e.Select(x, constant.NewInt(build.I8, 1), constant.NewInt(build.I8, 0))
	}
	return x
}

// small is the number of fraction bits and the largest code of a format of the
// paper.
func small(d ir.DType) (frac, most int) {
	if d == ir.E6M9 {
		return 9, 0x7fff
	}
	return 10, 0xffff
}

// signSmall gives the magnitude code m of x its sign.
func (e *emitter) signSmall(d ir.DType, x, m Value) Value {
	negative := e.FCompare(enum.FPredOLT, x, build.Float(0))
	if d == ir.UE6M10 {
		return e.Trunc(e.Select(negative, build.Int(0), m), build.I16)
	}
	negative = e.And(negative, e.Compare(enum.IPredNE, m, build.Int(0)))
	return e.Trunc(e.Select(negative, e.Or(m, build.Int(0x8000)), m), build.I16)
}

// clampSmall is the magnitude code of m, which has the exponent of an f32.
func (e *emitter) clampSmall(m Value, frac, most int) Value {
	m = e.AddI(m, -(smallBias << frac))
	m = e.Select(e.Lt(m, build.Int(0)), build.Int(0), m)
	return e.Select(e.Lt(build.Int(most), m), build.Int(most), m)
}

// narrowRandomly rounds to one of the two codes next to x, u in [0,1) deciding
// which, as format16.Format.EncodeRandomly defines it.
func (e *emitter) narrowRandomly(d ir.DType, x, u Value) Value {
	drop := map[ir.DType]int{ir.F16: 13, ir.BF16: 16, ir.E6M9: 14, ir.UE6M10: 13}[d]
	b := e.Bits(x, build.I32)
	m := e.AndI(b, 0x7fffffff)
	t := e.ToInt(e.FMul(u, build.Float(float64(int(1)<<drop))))
	up := e.Shr(e.Add(m, t), drop)
	if d == ir.E6M9 || d == ir.UE6M10 {
		frac, most := small(d)
		return e.signSmall(d, x, e.clampSmall(up, frac, most))
	}
	r := e.Shl(up, drop)
	if d == ir.F16 {
		// Below 2^-14 the numbers are multiples of 2^-24.
		tiny := e.Lt(m, build.Int(0x38800000))
		ax := e.Bits(e.Select(tiny, m, build.Int(0)), build.F32)
		k := e.Add(e.ToInt(e.FMul(ax, build.Float(0x1p37))), t)
		y := e.FMul(e.ToFloat(e.Shr(k, drop)), build.Float(0x1p-24))
		r = e.Select(tiny, e.Bits(y, build.I32), r)
	}
	r = e.Select(e.Lt(m, build.Int(0x7f800000)), r, m)
	return e.narrow(d, e.Bits(e.Or(r, e.AndI(b, -1<<31)), build.F32))
}
