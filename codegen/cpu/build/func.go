package build

import (
	"fmt"

	"github.com/llir/llvm/ir"
	"github.com/llir/llvm/ir/enum"
	"github.com/llir/llvm/ir/types"
)

// Func is a function under construction.
type Func struct {
	Module *Module
	Target *Target // the module's, or that with another register tile
	fn     *ir.Func
	b      *ir.Block
	blocks int
}

// Value returns the function itself, to be called by others.
func (f *Func) Value() V { return f.fn }

// Return ends the function.
func (f *Func) Return() { f.b.NewRet(nil) }

func (f *Func) block(name string) *ir.Block {
	f.blocks++
	return f.fn.NewBlock(fmt.Sprintf("%s%d", name, f.blocks))
}

// Call calls a function of this module or one declared by Extern.
func (f *Func) Call(fn V, args ...V) V { return f.b.NewCall(fn, args...) }

// --- integers: scalars or vectors; i64 constants are folded ---

// Add is a + b.
func (f *Func) Add(a, b V) V {
	x, ok := ConstInt(a)
	y, ok2 := ConstInt(b)
	switch {
	case ok && ok2:
		return Int(x + y)
	case ok && x == 0:
		return b
	case ok2 && y == 0:
		return a
	}
	return f.b.NewAdd(a, b)
}

// Sub is a - b.
func (f *Func) Sub(a, b V) V {
	x, ok := ConstInt(a)
	y, ok2 := ConstInt(b)
	switch {
	case ok && ok2:
		return Int(x - y)
	case ok2 && y == 0:
		return a
	}
	return f.b.NewSub(a, b)
}

// Mul is the low half of a * b.
func (f *Func) Mul(a, b V) V {
	x, ok := ConstInt(a)
	y, ok2 := ConstInt(b)
	switch {
	case ok && ok2:
		return Int(x * y)
	case ok && x == 1:
		return b
	case ok2 && y == 1:
		return a
	case ok && x == 0 || ok2 && y == 0:
		return Int(0)
	}
	return f.b.NewMul(a, b)
}

// UDiv is a / b of unsigned integers; b must not be 0.
func (f *Func) UDiv(a, b V) V {
	if y, ok := ConstInt(b); ok && y == 1 {
		return a
	}
	return f.b.NewUDiv(a, b)
}

// URem is a mod b of unsigned integers; b must not be 0.
func (f *Func) URem(a, b V) V {
	if y, ok := ConstInt(b); ok && y == 1 {
		return Int(0)
	}
	return f.b.NewURem(a, b)
}

// SDiv is a / b of signed integers, rounded towards 0.
func (f *Func) SDiv(a, b V) V { return f.b.NewSDiv(a, b) }

// SRem is the remainder of SDiv.
func (f *Func) SRem(a, b V) V { return f.b.NewSRem(a, b) }

// CeilDiv is a / d rounded up, for a >= 0.
func (f *Func) CeilDiv(a V, d int64) V {
	if x, ok := ConstInt(a); ok {
		return Int((x + d - 1) / d)
	}
	return f.UDiv(f.Add(a, Int(d-1)), Int(d))
}

// And, Or and Xor work bit by bit, on masks too.
func (f *Func) And(a, b V) V { return f.b.NewAnd(a, b) }

// Or is the bitwise or.
func (f *Func) Or(a, b V) V { return f.b.NewOr(a, b) }

// Xor is the bitwise exclusive or.
func (f *Func) Xor(a, b V) V { return f.b.NewXor(a, b) }

// Not inverts a mask.
func (f *Func) Not(a V) V { return f.b.NewXor(a, IntOf(a.Type(), -1)) }

// Shl, LShr and AShr shift by b bits; b must be less than the width.
func (f *Func) Shl(a, b V) V { return f.b.NewShl(a, b) }

// LShr shifts right and fills with zeros.
func (f *Func) LShr(a, b V) V { return f.b.NewLShr(a, b) }

// AShr shifts right and fills with the sign.
func (f *Func) AShr(a, b V) V { return f.b.NewAShr(a, b) }

// Min and Max compare signed integers.
func (f *Func) Min(a, b V) V {
	x, ok := ConstInt(a)
	if y, ok2 := ConstInt(b); ok && ok2 {
		return Int(min(x, y))
	}
	return f.Select(f.Lt(a, b), a, b)
}

// Max is the larger of two signed integers.
func (f *Func) Max(a, b V) V {
	x, ok := ConstInt(a)
	if y, ok2 := ConstInt(b); ok && ok2 {
		return Int(max(x, y))
	}
	return f.Select(f.Lt(a, b), b, a)
}

// Lt is a < b for signed integers; the result is i1 or a vector of i1.
func (f *Func) Lt(a, b V) V { return f.b.NewICmp(enum.IPredSLT, a, b) }

// Le is a <= b for signed integers.
func (f *Func) Le(a, b V) V { return f.b.NewICmp(enum.IPredSLE, a, b) }

// ULt is a < b for unsigned integers.
func (f *Func) ULt(a, b V) V { return f.b.NewICmp(enum.IPredULT, a, b) }

// Eq is a == b for integers.
func (f *Func) Eq(a, b V) V { return f.b.NewICmp(enum.IPredEQ, a, b) }

// Ne is a != b for integers.
func (f *Func) Ne(a, b V) V { return f.b.NewICmp(enum.IPredNE, a, b) }

// --- floats; never reassociated or contracted unless asked for with FMA ---

// FAdd is a + b.
func (f *Func) FAdd(a, b V) V { return f.b.NewFAdd(a, b) }

// FSub is a - b.
func (f *Func) FSub(a, b V) V { return f.b.NewFSub(a, b) }

// FMul is a * b.
func (f *Func) FMul(a, b V) V { return f.b.NewFMul(a, b) }

// FDiv is a / b.
func (f *Func) FDiv(a, b V) V { return f.b.NewFDiv(a, b) }

// FNeg is -a.
func (f *Func) FNeg(a V) V { return f.b.NewFNeg(a) }

// FMA is a*b + c, rounded once on every target we have.
func (f *Func) FMA(a, b, c V) V { return f.intrinsic("fmuladd", a.Type(), a, b, c) }

// Sqrt is the correctly rounded square root.
func (f *Func) Sqrt(a V) V { return f.intrinsic("sqrt", a.Type(), a) }

// FAbs is |a|.
func (f *Func) FAbs(a V) V { return f.intrinsic("fabs", a.Type(), a) }

// Floor rounds down.
func (f *Func) Floor(a V) V { return f.intrinsic("floor", a.Type(), a) }

// RoundEven rounds to the nearest integer, ties to even.
func (f *Func) RoundEven(a V) V { return f.intrinsic("roundeven", a.Type(), a) }

// FMax is a if a > b, else b: a NaN in either operand gives b. One instruction on x86.
func (f *Func) FMax(a, b V) V { return f.Select(f.FGt(a, b), a, b) }

// FMin is a if a < b, else b: a NaN in either operand gives b.
func (f *Func) FMin(a, b V) V { return f.Select(f.FLt(a, b), a, b) }

// FLt is a < b, false for NaN.
func (f *Func) FLt(a, b V) V { return f.b.NewFCmp(enum.FPredOLT, a, b) }

// FLe is a <= b, false for NaN.
func (f *Func) FLe(a, b V) V { return f.b.NewFCmp(enum.FPredOLE, a, b) }

// FGt is a > b, false for NaN.
func (f *Func) FGt(a, b V) V { return f.b.NewFCmp(enum.FPredOGT, a, b) }

// FGe is a >= b, false for NaN.
func (f *Func) FGe(a, b V) V { return f.b.NewFCmp(enum.FPredOGE, a, b) }

// FEq is a == b, false for NaN.
func (f *Func) FEq(a, b V) V { return f.b.NewFCmp(enum.FPredOEQ, a, b) }

// FNe is a != b, true for NaN.
func (f *Func) FNe(a, b V) V { return f.b.NewFCmp(enum.FPredUNE, a, b) }

// IsNaN is true where a is not a number.
func (f *Func) IsNaN(a V) V { return f.b.NewFCmp(enum.FPredUNO, a, a) }

// Select is a where c, else b. c is i1 or a vector of i1.
func (f *Func) Select(c, a, b V) V { return f.b.NewSelect(c, a, b) }

// --- conversions; elem is the element type, lanes are kept ---

// Bitcast reinterprets v as type t of the same size.
func (f *Func) Bitcast(v V, t types.Type) V {
	if v.Type().Equal(t) {
		return v
	}
	return f.b.NewBitCast(v, t)
}

// Trunc drops high bits.
func (f *Func) Trunc(v V, elem types.Type) V { return f.b.NewTrunc(v, LikeType(v, elem)) }

// ZExt widens with zeros; it makes 0 and 1 of masks.
func (f *Func) ZExt(v V, elem types.Type) V { return f.b.NewZExt(v, LikeType(v, elem)) }

// SExt widens with the sign.
func (f *Func) SExt(v V, elem types.Type) V { return f.b.NewSExt(v, LikeType(v, elem)) }

// FPExt widens floats exactly.
func (f *Func) FPExt(v V, elem types.Type) V { return f.b.NewFPExt(v, LikeType(v, elem)) }

// FPTrunc narrows floats, rounding to nearest even.
func (f *Func) FPTrunc(v V, elem types.Type) V { return f.b.NewFPTrunc(v, LikeType(v, elem)) }

// SIToFP converts signed integers.
func (f *Func) SIToFP(v V, elem types.Type) V { return f.b.NewSIToFP(v, LikeType(v, elem)) }

// UIToFP converts unsigned integers.
func (f *Func) UIToFP(v V, elem types.Type) V { return f.b.NewUIToFP(v, LikeType(v, elem)) }

// FPToSI converts to signed integers, rounding towards 0; out of range is undefined.
func (f *Func) FPToSI(v V, elem types.Type) V { return f.b.NewFPToSI(v, LikeType(v, elem)) }

// intrinsic calls llvm.name on operands of type t.
func (f *Func) intrinsic(name string, t types.Type, args ...V) V {
	ts := make([]types.Type, len(args))
	for i := range ts {
		ts[i] = t
	}
	return f.b.NewCall(f.Module.declare("llvm."+name+"."+mangle(t), t, ts...), args...)
}

// mangle is the suffix of an overloaded intrinsic's name.
func mangle(t types.Type) string {
	switch t := t.(type) {
	case *types.VectorType:
		return fmt.Sprintf("v%d%s", t.Len, mangle(t.ElemType))
	case *types.FloatType:
		switch t.Kind {
		case types.FloatKindHalf:
			return "f16"
		case types.FloatKindFloat:
			return "f32"
		}
		return "f64"
	case *types.IntType:
		return fmt.Sprintf("i%d", t.BitSize)
	case *types.PointerType:
		return "p0" + mangle(t.ElemType)
	}
	panic(fmt.Sprintf("build: no intrinsic on type %v", t))
}
