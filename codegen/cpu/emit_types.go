package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
)

// widen turns a stored element, or a vector of them, into a value.
func widen(f *build.Func, d ir.DType, x V) V {
	switch d {
	case ir.F16:
		return f.FPExt(f.Bitcast(x, build.LikeType(x, build.F16)), build.F32)
	case ir.BF16:
		w := f.ZExt(x, build.I32)
		return f.Bitcast(f.Shl(w, likeI(w, 16)), build.LikeType(x, build.F32))
	case ir.E6M9:
		w := f.ZExt(x, build.I32)
		sign := f.Shl(f.And(w, likeI(w, 0x8000)), likeI(w, 16))
		return f.Bitcast(f.Or(sign, widenSmall(f, f.And(w, likeI(w, 0x7fff)), 9)), build.LikeType(x, build.F32))
	case ir.UE6M10:
		return f.Bitcast(widenSmall(f, f.ZExt(x, build.I32), 10), build.LikeType(x, build.F32))
	case ir.I8:
		return f.SExt(x, build.I32)
	case ir.Bool:
		return f.Ne(x, likeI(x, 0))
	}
	return x
}

// smallBias is what the exponent of an f32 is above that of the paper's 16-bit
// formats, 127-60 (appendix D).
const smallBias = 67

// widenSmall is the bits of the f32 with magnitude code m of a format with
// frac fraction bits. They are m's with another bias; m = 0 alone is zero.
func widenSmall(f *build.Func, m V, frac int) V {
	b := f.Add(f.Shl(m, likeI(m, 23-frac)), likeI(m, smallBias<<23))
	return f.Select(f.Eq(m, likeI(m, 0)), likeI(m, 0), b)
}

// narrow rounds a value to its storage type: f16 and bf16 to nearest, ties to
// even; the paper's formats with ties away from zero, below the least value to
// zero, above the largest and NaN to the largest.
func narrow(f *build.Func, d ir.DType, x V) V {
	bits := func() V { return f.Bitcast(x, build.LikeType(x, build.I32)) }
	switch d {
	case ir.F16:
		return f.Bitcast(f.FPTrunc(x, build.F16), build.LikeType(x, build.I16))
	case ir.BF16:
		b := bits()
		odd := f.And(f.LShr(b, likeI(b, 16)), likeI(b, 1))
		r := f.Add(f.Add(b, likeI(b, 0x7fff)), odd)
		// A NaN must not round to infinity: keep its top bits and set one.
		r = f.Select(f.IsNaN(x), f.Or(b, likeI(b, 0x400000)), r)
		return f.Trunc(f.LShr(r, likeI(b, 16)), build.I16)
	case ir.E6M9:
		b := bits()
		return signSmall(f, d, x, narrowSmall(f, f.And(b, likeI(b, 0x7fffffff)), 9, 0x7fff))
	case ir.UE6M10:
		b := bits()
		return signSmall(f, d, x, narrowSmall(f, f.And(b, likeI(b, 0x7fffffff)), 10, 0xffff))
	case ir.I8:
		return f.Trunc(x, build.I8)
	case ir.Bool:
		return f.ZExt(x, build.I8)
	}
	return x
}

// signSmall gives the magnitude code m of x its sign.
func signSmall(f *build.Func, d ir.DType, x, m V) V {
	if d == ir.UE6M10 {
		return f.Trunc(f.Select(f.FLt(x, likeF(x, 0)), likeI(m, 0), m), build.I16)
	}
	negative := f.And(f.FLt(x, likeF(x, 0)), f.Ne(m, likeI(m, 0)))
	return f.Trunc(f.Select(negative, f.Or(m, likeI(m, 0x8000)), m), build.I16)
}

// narrowSmall is the magnitude code of the f32 with bits b, sign cleared.
func narrowSmall(f *build.Func, b V, frac, most int) V {
	return clampSmall(f, f.LShr(f.Add(b, likeI(b, 1<<(22-frac))), likeI(b, 23-frac)), frac, most)
}

// clampSmall is the magnitude code of m, which has the exponent of an f32.
func clampSmall(f *build.Func, m V, frac, most int) V {
	m = f.Sub(m, likeI(m, smallBias<<frac))
	return f.Min(f.Max(m, likeI(m, 0)), likeI(m, most))
}

// narrowRandomly rounds to one of the two codes next to x, u in [0,1) deciding
// which, as format16.Format.EncodeRandomly defines it.
func narrowRandomly(f *build.Func, d ir.DType, x, u V) V {
	drop := map[ir.DType]int{ir.F16: 13, ir.BF16: 16, ir.E6M9: 14, ir.UE6M10: 13}[d]
	b := f.Bitcast(x, build.LikeType(x, build.I32))
	m := f.And(b, likeI(b, 0x7fffffff))
	t := f.FPToSI(f.FMul(u, likeF(u, float64(int(1)<<drop))), build.I32)
	up := f.LShr(f.Add(m, t), likeI(m, drop))
	switch d {
	case ir.E6M9:
		return signSmall(f, d, x, clampSmall(f, up, 9, 0x7fff))
	case ir.UE6M10:
		return signSmall(f, d, x, clampSmall(f, up, 10, 0xffff))
	}
	r := f.Shl(up, likeI(m, drop))
	if d == ir.F16 {
		// Below 2^-14 the numbers are multiples of 2^-24. Elsewhere the
		// product is larger than an integer, and not used.
		small := f.Lt(m, likeI(m, 0x38800000))
		ax := f.Bitcast(f.Select(small, m, likeI(m, 0)), x.Type())
		k := f.Add(f.FPToSI(f.FMul(ax, likeF(x, 0x1p37)), build.I32), t)
		y := f.FMul(f.SIToFP(f.LShr(k, likeI(k, drop)), build.F32), likeF(x, 0x1p-24))
		r = f.Select(small, f.Bitcast(y, m.Type()), r)
	}
	r = f.Select(f.Lt(m, likeI(m, 0x7f800000)), r, m)
	return narrow(f, d, f.Bitcast(f.Or(r, f.And(b, likeI(b, -1<<31))), x.Type()))
}
