package build

import (
	"math"
	"math/bits"

	"github.com/llir/llvm/ir"
	"github.com/llir/llvm/ir/constant"
	"github.com/llir/llvm/ir/enum"
	"github.com/llir/llvm/ir/metadata"
	"github.com/llir/llvm/ir/types"
)

// Int is a constant i32.
func Int(n int) *constant.Int { return constant.NewInt(I32, int64(int32(n))) }

// Long is a constant i64.
func Long(n int64) *constant.Int { return constant.NewInt(I64, n) }

// Word is a constant i32 given by its bits.
func Word(n uint32) *constant.Int { return constant.NewInt(I32, int64(int32(n))) }

// Float is a constant f32.
func Float(x float64) *constant.Float {
	if math.IsNaN(x) {
		return &constant.Float{Typ: F32, NaN: true}
	}
	return constant.NewFloat(F32, float64(float32(x)))
}

// Bool is a constant i1.
func Bool(b bool) *constant.Int { return constant.NewBool(b) }

// known is the value of a constant integer.
func known(v Value) (int64, bool) {
	c, ok := v.(*constant.Int)
	if !ok || !c.X.IsInt64() {
		return 0, false
	}
	return c.X.Int64(), true
}

func like(v Value, n int64) Value {
	t := v.Type().(*types.IntType)
	if t.BitSize == 32 {
		n = int64(int32(n))
	}
	return constant.NewInt(t, n)
}

// Add is a+b of integers of one type.
func (f *Func) Add(a, b Value) Value {
	x, ca := known(a)
	y, cb := known(b)
	switch {
	case ca && cb:
		return like(a, x+y)
	case ca && x == 0:
		return b
	case cb && y == 0:
		return a
	}
	return f.at().NewAdd(a, b)
}

// AddI is a+n.
func (f *Func) AddI(a Value, n int) Value { return f.Add(a, like(a, int64(n))) }

// Sub is a-b.
func (f *Func) Sub(a, b Value) Value {
	if y, ok := known(b); ok {
		return f.Add(a, like(b, -y))
	}
	return f.at().NewSub(a, b)
}

// Mul is the low half of a*b.
func (f *Func) Mul(a, b Value) Value {
	if _, ok := known(a); ok {
		a, b = b, a
	}
	y, cb := known(b)
	x, ca := known(a)
	switch {
	case ca && cb:
		return like(a, x*y)
	case cb && y == 0:
		return like(a, 0)
	case cb && y == 1:
		return a
	case cb && y > 0 && y&(y-1) == 0:
		return f.at().NewShl(a, like(b, int64(bits.TrailingZeros64(uint64(y)))))
	}
	return f.at().NewMul(a, b)
}

// MulI is a*n.
func (f *Func) MulI(a Value, n int) Value { return f.Mul(a, like(a, int64(n))) }

// MulWide is the 64 bits of a product of two unsigned i32, in halves.
func (f *Func) MulWide(a, b Value) (low, high Value) {
	r := f.Call("gpu.mul.wide", Struct(2, I32), a, b)
	return f.Part(r, 0), f.Part(r, 1)
}

// MulHi is the high half of the unsigned 64-bit product of two i32.
func (f *Func) MulHi(a, b Value) Value { return f.Call("llvm.nvvm.mulhi.ui", I32, a, b) }

// Div and Rem are quotient and remainder of non-negative a and n > 0. The
// assembler divides by a reciprocal even where n is constant, 15 instructions
// and more; a product and a shift are exact below 2^31.
func (f *Func) Div(a Value, n int) Value {
	x, ok := known(a)
	switch {
	case n == 1:
		return a
	case ok:
		return like(a, x/int64(n))
	case n&(n-1) == 0:
		return f.Shr(a, bits.TrailingZeros(uint(n)))
	}
	if !a.Type().Equal(I32) || n >= 1<<31 {
		return f.at().NewUDiv(a, like(a, int64(n)))
	}
	// 2^s < n < 2^(s+1): m = 2^(32+s)/n rounded up is below 2^32 and too large by
	// less than one, which times a/2^(32+s) is less than 1/n.
	s := bits.Len(uint(n)) - 1
	m := (uint64(1)<<(32+s) + uint64(n) - 1) / uint64(n)
	return f.Shr(f.MulHi(a, Word(uint32(m))), s)
}

// Rem is the remainder of non-negative a by n > 0.
func (f *Func) Rem(a Value, n int) Value {
	x, ok := known(a)
	switch {
	case n == 1:
		return like(a, 0)
	case ok:
		return like(a, x%int64(n))
	case n&(n-1) == 0:
		return f.AndI(a, n-1)
	}
	if !a.Type().Equal(I32) || n >= 1<<31 {
		return f.at().NewURem(a, like(a, int64(n)))
	}
	return f.Sub(a, f.MulI(f.Div(a, n), n))
}

// SDiv is the quotient of signed integers, rounded towards zero.
func (f *Func) SDiv(a, b Value) Value { return f.at().NewSDiv(a, b) }

// And, Or, Xor are bitwise, or logical of i1.
func (f *Func) And(a, b Value) Value {
	if x, ok := known(a); ok && a.Type().Equal(I1) {
		if x == 0 {
			return a
		}
		return b
	}
	if y, ok := known(b); ok && b.Type().Equal(I1) {
		if y == 0 {
			return b
		}
		return a
	}
	return f.at().NewAnd(a, b)
}

// Or is bitwise, or logical of i1.
func (f *Func) Or(a, b Value) Value { return f.at().NewOr(a, b) }

// Xor is bitwise.
func (f *Func) Xor(a, b Value) Value { return f.at().NewXor(a, b) }

// Not is the other i1.
func (f *Func) Not(a Value) Value { return f.at().NewXor(a, Bool(true)) }

// AndI is the bits of a that n has.
func (f *Func) AndI(a Value, n int) Value { return f.at().NewAnd(a, like(a, int64(n))) }

// Shl and Shr shift by a constant, Shr without sign.
func (f *Func) Shl(a Value, n int) Value { return f.at().NewShl(a, like(a, int64(n))) }

// Shr shifts right without sign.
func (f *Func) Shr(a Value, n int) Value { return f.at().NewLShr(a, like(a, int64(n))) }

// Sar shifts right with sign.
func (f *Func) Sar(a Value, n int) Value { return f.at().NewAShr(a, like(a, int64(n))) }

// ShlV and ShrV shift an i32 by another; 32 or more leaves nothing.
func (f *Func) ShlV(a, n Value) Value { return f.at().NewShl(a, n) }

// ShrV shifts right without sign.
func (f *Func) ShrV(a, n Value) Value { return f.at().NewLShr(a, n) }

// Compare is a signed comparison of integers: eq, ne, slt, sle, ult, ...
func (f *Func) Compare(p enum.IPred, a, b Value) Value { return f.at().NewICmp(p, a, b) }

// Lt is a < b, signed.
func (f *Func) Lt(a, b Value) Value { return f.at().NewICmp(enum.IPredSLT, a, b) }

// Le is a <= b, signed.
func (f *Func) Le(a, b Value) Value { return f.at().NewICmp(enum.IPredSLE, a, b) }

// Below is a < b, unsigned.
func (f *Func) Below(a, b Value) Value { return f.at().NewICmp(enum.IPredULT, a, b) }

// Eq is a == b.
func (f *Func) Eq(a, b Value) Value { return f.at().NewICmp(enum.IPredEQ, a, b) }

// MinU is the smaller of two unsigned i32.
func (f *Func) MinU(a, b Value) Value { return f.Call("llvm.umin.i32", I32, a, b) }

// Select is a where c holds, else b.
func (f *Func) Select(c, a, b Value) Value {
	if x, ok := known(c); ok {
		if x != 0 {
			return a
		}
		return b
	}
	return f.at().NewSelect(c, a, b)
}

// Long is a, an i32 from 0 on, as i64.
func (f *Func) Long(a Value) Value {
	if x, ok := known(a); ok {
		return Long(x)
	}
	return f.at().NewZExt(a, I64)
}

// Signed is a, an i32 of any sign, as i64.
func (f *Func) Signed(a Value) Value {
	if x, ok := known(a); ok {
		return Long(x)
	}
	return f.at().NewSExt(a, I64)
}

// Zext, Sext and Trunc change the width of an integer.
func (f *Func) Zext(a Value, t types.Type) Value { return f.at().NewZExt(a, t) }

// Sext widens with sign.
func (f *Func) Sext(a Value, t types.Type) Value { return f.at().NewSExt(a, t) }

// Trunc keeps the low bits.
func (f *Func) Trunc(a Value, t types.Type) Value { return f.at().NewTrunc(a, t) }

// Bits reads the bits of a as type t of the same size.
func (f *Func) Bits(a Value, t types.Type) Value { return f.at().NewBitCast(a, t) }

// FAdd is a+b, rounded to nearest.
func (f *Func) FAdd(a, b Value) Value { return f.at().NewFAdd(a, b) }

// FAddDown is a+b, rounded towards 0.
func (f *Func) FAddDown(a, b Value) Value { return f.Call("llvm.nvvm.add.rz.f", F32, a, b) }

// FSub is a-b.
func (f *Func) FSub(a, b Value) Value { return f.at().NewFSub(a, b) }

// FMul is a*b.
func (f *Func) FMul(a, b Value) Value { return f.at().NewFMul(a, b) }

// FDiv is a / b within 2 units in the last place, for all numbers. Rounding
// correctly would take four times the instructions, and a branch.
func (f *Func) FDiv(a, b Value) Value { return f.Call("gpu.div.full", F32, a, b) }

// FNeg is -a.
func (f *Func) FNeg(a Value) Value { return f.at().NewFNeg(a) }

// FMA is a*b+c, rounded once.
func (f *Func) FMA(a, b, c Value) Value { return f.Call("llvm.fma.f32", F32, a, b, c) }

// FAbs is the magnitude.
func (f *Func) FAbs(a Value) Value { return f.Call("llvm.fabs.f32", F32, a) }

// Sqrt is the square root within a unit in the last place.
func (f *Func) Sqrt(a Value) Value { return f.Call("llvm.nvvm.sqrt.approx.f", F32, a) }

// FastSqrt is Sqrt, but 0 where a is denormal: one instruction where Sqrt takes four.
func (f *Func) FastSqrt(a Value) Value { return f.Call("llvm.nvvm.sqrt.approx.ftz.f", F32, a) }

// Floor rounds down.
func (f *Func) Floor(a Value) Value { return f.Call("llvm.floor.f32", F32, a) }

// Round rounds to the nearest whole number, ties to even.
func (f *Func) Round(a Value) Value { return f.Call("llvm.rint.f32", F32, a) }

// FMax is the larger, the number where one is NaN.
func (f *Func) FMax(a, b Value) Value { return f.Call("llvm.maxnum.f32", F32, a, b) }

// FMin is the smaller, the number where one is NaN.
func (f *Func) FMin(a, b Value) Value { return f.Call("llvm.minnum.f32", F32, a, b) }

// Maximum is the larger, NaN where one is NaN.
func (f *Func) Maximum(a, b Value) Value { return f.Call("llvm.maximum.f32", F32, a, b) }

// Minimum is the smaller, NaN where one is NaN.
func (f *Func) Minimum(a, b Value) Value { return f.Call("llvm.minimum.f32", F32, a, b) }

// Ex2 is 2^a within 2 units in the last place.
func (f *Func) Ex2(a Value) Value { return f.Call("llvm.nvvm.ex2.approx.f", F32, a) }

// FastEx2 is 2^a within 2 units in the last place, and 0 where that is
// denormal: one instruction where Ex2 takes four.
func (f *Func) FastEx2(a Value) Value { return f.Call("llvm.nvvm.ex2.approx.ftz.f", F32, a) }

// Lg2 is the binary logarithm, within 2^-22 absolutely near 1.
func (f *Func) Lg2(a Value) Value { return f.Call("llvm.nvvm.lg2.approx.f", F32, a) }

// Rcp is 1/a within a unit in the last place.
func (f *Func) Rcp(a Value) Value { return f.Call("llvm.nvvm.rcp.approx.ftz.f", F32, a) }

// FCompare is a comparison of f32: oeq, olt, ole, uno (one is NaN), ...
func (f *Func) FCompare(p enum.FPred, a, b Value) Value { return f.at().NewFCmp(p, a, b) }

// ToInt rounds an f32 towards zero.
func (f *Func) ToInt(a Value) Value { return f.at().NewFPToSI(a, I32) }

// ToFloat is an i32 as f32.
func (f *Func) ToFloat(a Value) Value { return f.at().NewSIToFP(a, F32) }

// Widen is an f16 as f32.
func (f *Func) Widen(a Value) Value { return f.at().NewFPExt(a, F32) }

// Narrow is an f32 rounded to f16.
func (f *Func) Narrow(a Value) Value { return f.at().NewFPTrunc(a, F16) }

// Cast is pointer p to elements of type t.
func (f *Func) Cast(p Value, t types.Type) Value {
	pt := p.Type().(*types.PointerType)
	if pt.ElemType.Equal(t) {
		return p
	}
	return f.at().NewBitCast(p, pointer(t, int(pt.AddrSpace)))
}

// At is &p[i], i in elements, an i32 (with sign) or i64.
func (f *Func) At(p, i Value) Value {
	if x, ok := known(i); ok && x == 0 {
		return p
	}
	g := f.at().NewGetElementPtr(p.Type().(*types.PointerType).ElemType, p, i)
	g.InBounds = true
	return g
}

// Load reads *p, aligned to its size.
func (f *Func) Load(p Value) Value {
	t := p.Type().(*types.PointerType).ElemType
	l := f.at().NewLoad(t, p)
	l.Align = ir.Align(SizeOf(t))
	return l
}

// LoadOnly reads *p in device memory that nothing writes while the kernel runs: so
// it may be read before what is stored earlier.
func (f *Func) LoadOnly(p Value) Value {
	l := f.Load(p).(*ir.InstLoad)
	l.Metadata = append(l.Metadata, &metadata.Attachment{Name: "invariant.load", Node: f.M.empty()})
	return l
}

// Store writes v to *p, aligned to its size.
func (f *Func) Store(v, p Value) {
	s := f.at().NewStore(v, p)
	s.Align = ir.Align(SizeOf(v.Type()))
}

// SizeOf is the size of a type in bytes.
func SizeOf(t types.Type) int {
	switch t := t.(type) {
	case *types.VectorType:
		return int(t.Len) * SizeOf(t.ElemType)
	case *types.ArrayType:
		return int(t.Len) * SizeOf(t.ElemType)
	case *types.IntType:
		return max(1, int(t.BitSize)/8)
	case *types.FloatType:
		if t.Kind == types.FloatKindHalf {
			return 2
		}
		return 4
	}
	return 8
}

// Part is number i of a Struct.
func (f *Func) Part(s Value, i int) Value { return f.at().NewExtractValue(s, uint64(i)) }

// Elem is number i of a vector.
func (f *Func) Elem(v Value, i int) Value { return f.at().NewExtractElement(v, Int(i)) }

// Vector puts values of one type side by side.
func (f *Func) Vector(vs ...Value) Value {
	var u Value = constant.NewUndef(Vec(len(vs), vs[0].Type()))
	for i, v := range vs {
		u = f.at().NewInsertElement(u, v, Int(i))
	}
	return u
}

// SharedAt is a pointer to elements of type t, so many bytes into the block's
// shared memory.
func (f *Func) SharedAt(bytes Value, t types.Type) Value {
	return f.Cast(f.At(f.Cast(f.Shared(0), I8), bytes), t)
}

// SharedAddress is the address of the block's shared memory, as asynchronous
// operations take it: an i32.
func (f *Func) SharedAddress() Value { return f.at().NewPtrToInt(f.Cast(f.Shared(0), I8), I32) }

// Address is a shared pointer as i32.
func (f *Func) Address(p Value) Value { return f.at().NewPtrToInt(p, I32) }
