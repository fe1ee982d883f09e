package cuda

import (
	"math"

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
		return e.widenUpper(e.Shl(e.Zext(x, build.I32), 16))
	case ir.UE6M10:
		w := e.Zext(x, build.I32)
		return e.Bits(e.Select(e.Eq(w, build.Int(0)), build.Int(0), e.AddI(e.Shl(w, 13), smallBias<<23)), build.F32)
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

// widenUpper is the value of the e6m9 in the upper half of w, whatever the lower half.
func (e *emitter) widenUpper(w Value) Value {
	m := e.AndI(e.Sar(w, 2), 1<<31|0x7fff<<14) // the sign and the magnitude, where an f32 has them
	zero := e.FCompare(enum.FPredOEQ, e.Bits(m, build.F32), build.Float(0))
	return e.Select(zero, build.Float(0), e.Bits(e.AddI(m, smallBias<<23), build.F32))
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
		return e.narrowSmall(d, x)
	case ir.I8:
		return e.Trunc(x, build.I8)
	case ir.Bool:
		return e.Select(x, constant.NewInt(build.I8, 1), constant.NewInt(build.I8, 0))
	}
	return x
}

// frac is the number of fraction bits of a format of the paper.
func frac(d ir.DType) int {
	if d == ir.E6M9 {
		return 9
	}
	return 10
}

// clampSmall is the magnitude of x, of which format d keeps the sign or which is 0 where x is negative,
// d's largest number where it is above (or NaN), 2^-60 where it is below. The bits of what comes
// out, less those of 2^-60, are the magnitude's code with more fraction bits; 2^-60 itself has the code 0, which is zero.
func (e *emitter) clampSmall(d ir.DType, x Value) Value {
	if d == ir.E6M9 {
		x = e.FAbs(x)
	}
	most := smallBias<<23 + 0x7fff<<14
	if d == ir.UE6M10 {
		most = smallBias<<23 + 0xffff<<13
	}
	return e.Bits(e.FMax(e.FMin(x, e.number(most)), build.Float(0x1p-60)), build.I32)
}

// number is the f32 with these bits.
func (e *emitter) number(bits int) Value {
	return build.Float(float64(math.Float32frombits(uint32(bits))))
}

// narrowSmall rounds to the nearest number of a format of the paper.
func (e *emitter) narrowSmall(d ir.DType, x Value) Value {
	drop := 23 - frac(d)
	half := 1 << (drop - 1)
	b := e.clampSmall(d, x)
	var down Value = build.Int(half - smallBias<<23)
	if d == ir.E6M9 {
		negative := e.FCompare(enum.FPredOLE, x, e.number(1<<31|(smallBias<<23+half)))
		down = e.Select(negative, build.Int(half-smallBias<<23+1<<(15+drop)), down)
	}
	return e.Trunc(e.Shr(e.Add(b, down), drop), build.I16)
}

// dropped is how many fraction bits of an f32 a type of 16 bits lacks.
func dropped(d ir.DType) int {
	return map[ir.DType]int{ir.F16: 13, ir.BF16: 16, ir.E6M9: 14, ir.UE6M10: 13}[d]
}

// roundRandomly rounds to one of the two numbers of d next to x, t, as many random bits as are dropped,
// deciding which, as format16.Format.EncodeRandomly defines it. Of f16 and bf16 the result is that number, but f16's infinity
// may be any number from 2^16 on; of the paper's formats the code.
func (e *emitter) roundRandomly(d ir.DType, x, t Value) Value {
	drop := dropped(d)
	if d == ir.E6M9 || d == ir.UE6M10 {
		m := e.AddI(e.Add(e.clampSmall(d, x), t), -smallBias<<23) // t is less than a step
		code := e.Shr(m, drop)
		if d == ir.E6M9 {
			negative := e.And(e.FCompare(enum.FPredOLT, x, build.Float(0)), e.Lt(build.Int(1<<drop-1), m))
			code = e.Select(negative, e.Or(code, build.Int(0x8000)), code)
		}
		return e.Trunc(code, build.I16)
	}
	ax := e.FAbs(x)
	var base Value
	if d == ir.F16 {
		// Below 2^-14 the numbers are multiples of 2^-24. With 2^-14 added, without rounding up, the bits are
		// those of a number whose last kept bit is 2^-24.
		base = e.Select(e.FCompare(enum.FPredOLT, ax, build.Float(0x1p-14)), build.Float(0x1p-14), build.Float(0))
		ax = e.FAddDown(ax, base)
	}
	// Infinity stays what it is, and so does a NaN that t cannot carry over.
	m := e.MinU(e.Bits(ax, build.I32), build.Int(0x7fc00000))
	r := e.Bits(e.AndI(e.Add(m, t), -1<<drop), build.F32)
	if d == ir.F16 {
		r = e.FSub(r, base)
	}
	return e.Bits(e.Or(e.Bits(r, build.I32), e.AndI(e.Bits(x, build.I32), -1<<31)), build.F32)
}
