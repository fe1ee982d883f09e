package build

import (
	"math"

	"github.com/llir/llvm/ir/constant"
	"github.com/llir/llvm/ir/types"
	"github.com/llir/llvm/ir/value"
)

// V is a value: an instruction's result, a parameter or a constant.
type V = value.Value

// Type is a scalar or vector type.
type Type = types.Type

// The scalar types.
var (
	Void = types.Void
	I1   = types.I1
	I8   = types.I8
	I16  = types.I16
	I32  = types.I32
	I64  = types.I64
	F16  = types.Half
	F32  = types.Float
	F64  = types.Double
)

// bfloat is LLVM's type of that name, which llir lacks. Values of it exist in registers only: memory holds I16.
type bfloat struct{ types.FloatType }

// String is the type's name, and LLString how it is written in LLVM assembly.
func (*bfloat) String() string   { return "bfloat" }
func (*bfloat) LLString() string { return "bfloat" }

// Equal reports whether u is bfloat too.
func (*bfloat) Equal(u types.Type) bool { _, ok := u.(*bfloat); return ok }

// PtrTo is the type of a pointer to t.
func PtrTo(t types.Type) *types.PointerType { return types.NewPointer(t) }

// VecOf is the type of a vector of n elements of type t.
func VecOf(n int, t types.Type) *types.VectorType { return types.NewVector(uint64(n), t) }

// Lanes returns the number of lanes of v, or 0 if v is a scalar.
func Lanes(v V) int {
	if t, ok := v.Type().(*types.VectorType); ok {
		return int(t.Len)
	}
	return 0
}

// LikeType returns elem as a scalar, or as a vector with as many lanes as v has.
func LikeType(v V, elem types.Type) types.Type {
	if n := Lanes(v); n > 0 {
		return VecOf(n, elem)
	}
	return elem
}

// Int is a constant of type i64, the type of sizes and indices.
func Int(x int64) V { return constant.NewInt(types.I64, x) }

// IntOf is the constant x of type t, an integer or a vector of integers. Of i1 any odd x is true.
func IntOf(t types.Type, x int64) V {
	if vt, ok := t.(*types.VectorType); ok {
		return fill(vt, intConst(vt.ElemType.(*types.IntType), x))
	}
	return intConst(t.(*types.IntType), x)
}

func intConst(t *types.IntType, x int64) constant.Constant {
	if t.BitSize == 1 {
		x &= 1
	}
	return constant.NewInt(t, x)
}

// FloatOf is the constant x rounded to type t, a float type or a vector of one.
func FloatOf(t types.Type, x float64) V {
	if vt, ok := t.(*types.VectorType); ok {
		return fill(vt, floatConst(vt.ElemType.(*types.FloatType), x))
	}
	return floatConst(t.(*types.FloatType), x)
}

func floatConst(t *types.FloatType, x float64) constant.Constant {
	if t.Equal(F32) {
		x = float64(float32(x))
	}
	if math.IsNaN(x) {
		// llir prints NaN payloads of its own choosing; an expression gives LLVM's canonical one.
		return constant.NewBitCast(constant.NewInt(types.I32, 0x7fc00000), t)
	}
	return constant.NewFloat(t, x)
}

func fill(t *types.VectorType, c constant.Constant) V {
	e := make([]constant.Constant, t.Len)
	for i := range e {
		e[i] = c
	}
	return constant.NewVector(t, e...)
}

// IntVec is a constant vector of the given integers.
func IntVec(elem *types.IntType, xs ...int64) V {
	e := make([]constant.Constant, len(xs))
	for i, x := range xs {
		e[i] = constant.NewInt(elem, x)
	}
	return constant.NewVector(nil, e...)
}

// Iota is the constant vector 0, 1, ..., n-1 of the given element type.
func Iota(n int, elem *types.IntType) V {
	xs := make([]int64, n)
	for i := range xs {
		xs[i] = int64(i)
	}
	return IntVec(elem, xs...)
}

// Zero is the zero of type t.
func Zero(t types.Type) V { return constant.NewZeroInitializer(t) }

// Undef is an arbitrary value of type t.
func Undef(t types.Type) V { return constant.NewUndef(t) }

// ConstInt returns the value of an i64 constant.
func ConstInt(v V) (int64, bool) {
	if c, ok := v.(*constant.Int); ok && c.Typ.BitSize == 64 {
		return c.X.Int64(), true
	}
	return 0, false
}

// sizeOf returns the size in bytes of a scalar or vector type.
func sizeOf(t types.Type) int {
	switch t := t.(type) {
	case *types.VectorType:
		return int(t.Len) * sizeOf(t.ElemType)
	case *types.IntType:
		return int(t.BitSize+7) / 8
	case *types.FloatType:
		switch t.Kind {
		case types.FloatKindHalf:
			return 2
		case types.FloatKindFloat:
			return 4
		}
	}
	return 8
}
