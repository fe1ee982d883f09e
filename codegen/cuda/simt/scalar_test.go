package simt_test

import (
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda/simt"
	"github.com/gouache-ml/gouache/runtime/format16"
)

type fn3 func(a, b, c uint32) uint32

func f32(b uint32) float32 { return math.Float32frombits(b) }

func bits32(x float32) uint32 {
	if x != x {
		return 0x7fffffff
	}
	return math.Float32bits(x)
}

// fmaExact is a*b+c rounded once, by arithmetic without rounding.
func fmaExact(a, b, c float32) float32 {
	x, y, z := float64(a), float64(b), float64(c)
	if math.IsInf(x, 0) || math.IsInf(y, 0) || math.IsInf(z, 0) || x != x || y != y || z != z || x*y == 0 || z == 0 {
		return float32(x*y + z)
	}
	p := new(big.Float).SetPrec(2000).SetFloat64(x)
	p.Mul(p, new(big.Float).SetFloat64(y))
	p.Add(p, new(big.Float).SetFloat64(z))
	if p.Sign() == 0 {
		return float32(x*y + z)
	}
	r, _ := p.Float32()
	return r
}

func half(x float32) uint32 {
	if x != x {
		return 0x7fff
	}
	return uint32(format16.Half.Encode(x))
}

func brain(x float32) uint32 {
	if x != x {
		return 0x7fff
	}
	return uint32(format16.Brain.Encode(x))
}

func fromHalf(b uint32) float32  { return format16.Half.Decode(uint16(b)) }
func fromBrain(b uint32) float32 { return format16.Brain.Decode(uint16(b)) }

func b2u(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

func ftz(b uint32) uint32 {
	if b&0x7f800000 == 0 {
		return b & 0x80000000
	}
	return b
}

// scalars are instructions from %r2, %r3, %r4 to %r5; the same operands are in %f2
// to %f4, as b16 in %h2 to %h4, as pairs {%r2, %r3} in %rd10 and {%r4, %r2} in %rd11.
var scalars = []struct {
	text string
	f    fn3
}{
	{"add.s32 %r5, %r2, %r3;", func(a, b, c uint32) uint32 { return a + b }},
	{"add.u32 %r5, %r2, -7;", func(a, b, c uint32) uint32 { return a - 7 }},
	{"add.sat.s32 %r5, %r2, %r3;", func(a, b, c uint32) uint32 {
		return uint32(min(max(int64(int32(a))+int64(int32(b)), math.MinInt32), math.MaxInt32))
	}},
	{"sub.s32 %r5, %r2, %r3;", func(a, b, c uint32) uint32 { return a - b }},
	{"mul.lo.s32 %r5, %r2, %r3;", func(a, b, c uint32) uint32 { return a * b }},
	{"mul.hi.u32 %r5, %r2, %r3;", func(a, b, c uint32) uint32 { return uint32(uint64(a) * uint64(b) >> 32) }},
	{"mul.hi.s32 %r5, %r2, %r3;", func(a, b, c uint32) uint32 { return uint32(int64(int32(a)) * int64(int32(b)) >> 32) }},
	{"mad.lo.s32 %r5, %r2, %r3, %r4;", func(a, b, c uint32) uint32 { return a*b + c }},
	{"mad.hi.u32 %r5, %r2, %r3, %r4;", func(a, b, c uint32) uint32 { return uint32(uint64(a)*uint64(b)>>32) + c }},
	{"mul.wide.u16 %r5, %h2, %h3;", func(a, b, c uint32) uint32 { return (a & 0xffff) * (b & 0xffff) }},
	{"mul.wide.s16 %r5, %h2, %h3;", func(a, b, c uint32) uint32 { return uint32(int32(int16(a)) * int32(int16(b))) }},
	{"mul.wide.u32 %rd5, %r2, %r3; shr.u64 %rd5, %rd5, 13; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 { return uint32(uint64(a) * uint64(b) >> 13) }},
	{"mul.wide.s32 %rd5, %r2, %r3; shr.s64 %rd5, %rd5, 40; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 { return uint32(int64(int32(a)) * int64(int32(b)) >> 40) }},
	{"mad.wide.s32 %rd5, %r2, %r3, %rd11; shr.u64 %rd5, %rd5, 31; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 {
		return uint32((uint64(int64(int32(a))*int64(int32(b))) + (uint64(a)<<32 | uint64(c))) >> 31)
	}},
	{"mad.lo.s64 %rd5, %rd10, %rd11, %rd10; shr.u64 %rd5, %rd5, 32; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 {
		x, y := uint64(b)<<32|uint64(a), uint64(a)<<32|uint64(c)
		return uint32((x*y + x) >> 32)
	}},
	{"mul.hi.u64 %rd5, %rd10, %rd11; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 {
		h, _ := bits.Mul64(uint64(b)<<32|uint64(a), uint64(a)<<32|uint64(c))
		return uint32(h)
	}},
	{"mul.hi.s64 %rd5, %rd10, %rd11; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 {
		x := new(big.Int).Mul(big.NewInt(int64(uint64(b)<<32|uint64(a))), big.NewInt(int64(uint64(a)<<32|uint64(c))))
		x.Rsh(x, 64)
		return uint32(x.Int64())
	}},
	{"add.s64 %rd5, %rd10, %rd11; shr.u64 %rd5, %rd5, 32; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 {
		return uint32(((uint64(b)<<32 | uint64(a)) + (uint64(a)<<32 | uint64(c))) >> 32)
	}},
	{"sub.u64 %rd5, %rd10, %rd11; shr.u64 %rd5, %rd5, 32; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 {
		return uint32(((uint64(b)<<32 | uint64(a)) - (uint64(a)<<32 | uint64(c))) >> 32)
	}},
	{"div.u32 %r5, %r2, %r3;", func(a, b, c uint32) uint32 {
		if b == 0 {
			return 1<<32 - 1
		}
		return a / b
	}},
	{"or.b32 %r5, %r3, 1; div.s32 %r5, %r2, %r5;", func(a, b, c uint32) uint32 { return uint32(int32(a) / int32(b|1)) }},
	{"or.b32 %r5, %r3, 1; rem.s32 %r5, %r2, %r5;", func(a, b, c uint32) uint32 { return uint32(int32(a) % int32(b|1)) }},
	{"or.b32 %r5, %r3, 1; rem.u32 %r5, %r2, %r5;", func(a, b, c uint32) uint32 { return a % (b | 1) }},
	{"div.u64 %rd5, %rd10, 77; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 { return uint32((uint64(b)<<32 | uint64(a)) / 77) }},
	{"rem.s64 %rd5, %rd10, 77; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 { return uint32(int64(uint64(b)<<32|uint64(a)) % 77) }},
	{"div.s16 %h5, %h2, 7; cvt.s32.s16 %r5, %h5;", func(a, b, c uint32) uint32 { return uint32(int32(int16(a) / 7)) }},
	{"neg.s32 %r5, %r2;", func(a, b, c uint32) uint32 { return -a }},
	{"abs.s32 %r5, %r2;", func(a, b, c uint32) uint32 {
		if int32(a) < 0 {
			return -a
		}
		return a
	}},
	{"min.u32 %r5, %r2, %r3;", func(a, b, c uint32) uint32 { return min(a, b) }},
	{"max.u32 %r5, %r2, %r3;", func(a, b, c uint32) uint32 { return max(a, b) }},
	{"min.s32 %r5, %r2, %r3;", func(a, b, c uint32) uint32 { return uint32(min(int32(a), int32(b))) }},
	{"max.s32 %r5, %r2, %r3;", func(a, b, c uint32) uint32 { return uint32(max(int32(a), int32(b))) }},
	{"max.s16 %h5, %h2, %h3; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 { return uint32(uint16(max(int16(a), int16(b)))) }},
	{"min.s64 %rd5, %rd10, %rd11; shr.u64 %rd5, %rd5, 32; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 {
		return uint32(min(int64(uint64(b)<<32|uint64(a)), int64(uint64(a)<<32|uint64(c))) >> 32)
	}},
	{"and.b32 %r5, %r2, %r3;", func(a, b, c uint32) uint32 { return a & b }},
	{"or.b32 %r5, %r2, 0xff00ff00;", func(a, b, c uint32) uint32 { return a | 0xff00ff00 }},
	{"xor.b32 %r5, %r2, %r3;", func(a, b, c uint32) uint32 { return a ^ b }},
	{"not.b32 %r5, %r2;", func(a, b, c uint32) uint32 { return ^a }},
	{"not.b16 %h5, %h2; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 { return ^a & 0xffff }},
	{"and.b32 %r5, %r3, 63; shl.b32 %r5, %r2, %r5;", func(a, b, c uint32) uint32 { return a << (b & 63) }},
	{"and.b32 %r5, %r3, 63; shr.u32 %r5, %r2, %r5;", func(a, b, c uint32) uint32 { return a >> (b & 63) }},
	{"and.b32 %r5, %r3, 63; shr.s32 %r5, %r2, %r5;", func(a, b, c uint32) uint32 { return uint32(int32(a) >> (b & 63)) }},
	{"and.b32 %r5, %r3, 127; shl.b64 %rd5, %rd10, %r5; shr.u64 %rd5, %rd5, 32; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 {
		return uint32((uint64(b)<<32 | uint64(a)) << (b & 127) >> 32)
	}},
	{"and.b32 %r5, %r3, 127; shr.s64 %rd5, %rd10, %r5; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 {
		return uint32(int64(uint64(b)<<32|uint64(a)) >> (b & 127))
	}},
	{"add.s16 %h5, %h2, %h3; cvt.s32.s16 %r5, %h5;", func(a, b, c uint32) uint32 { return uint32(int32(int16(a + b))) }},
	{"mul.lo.u16 %h5, %h2, %h3; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 { return a * b & 0xffff }},
	{"popc.b32 %r5, %r2;", func(a, b, c uint32) uint32 { return uint32(bits.OnesCount32(a)) }},
	{"popc.b64 %r5, %rd10;", func(a, b, c uint32) uint32 { return uint32(bits.OnesCount32(a) + bits.OnesCount32(b)) }},
	{"clz.b32 %r5, %r2;", func(a, b, c uint32) uint32 { return uint32(bits.LeadingZeros32(a)) }},
	{"brev.b32 %r5, %r2;", func(a, b, c uint32) uint32 { return bits.Reverse32(a) }},
	{"bfe.u32 %r5, %r2, 5, 9;", func(a, b, c uint32) uint32 { return a >> 5 & 511 }},
	{"bfe.s32 %r5, %r2, 5, 9;", func(a, b, c uint32) uint32 { return uint32(int32(a<<18) >> 23) }},
	{"bfi.b32 %r5, %r2, %r3, 8, 12;", func(a, b, c uint32) uint32 { return b&^0xfff00 | a&0xfff<<8 }},
	{"prmt.b32 %r5, %r2, %r3, 0x5410;", func(a, b, c uint32) uint32 { return a&0xffff | b<<16 }},
	{"prmt.b32 %r5, %r2, %r3, 0x7632;", func(a, b, c uint32) uint32 { return a>>16 | b&0xffff0000 }},
	{"prmt.b32 %r5, %r2, %r3, 0xb012;", func(a, b, c uint32) uint32 {
		return a>>16&255 | a&0xff00 | a&255<<16 | uint32(int32(a)>>31)&255<<24
	}},
	{"lop3.b32 %r5, %r2, %r3, %r4, 0x96;", func(a, b, c uint32) uint32 { return a ^ b ^ c }},
	{"lop3.b32 %r5, %r2, %r3, %r4, 0xca;", func(a, b, c uint32) uint32 { return a&b | ^a&c }},
	{"shf.l.wrap.b32 %r5, %r2, %r3, 9;", func(a, b, c uint32) uint32 { return b<<9 | a>>23 }},
	{"shf.r.wrap.b32 %r5, %r2, %r2, 9;", func(a, b, c uint32) uint32 { return bits.RotateLeft32(a, -9) }},
	{"mov.b64 %rd5, {%r3, %r4}; mov.b64 {%r6, %r5}, %rd5; xor.b32 %r5, %r5, %r6;", func(a, b, c uint32) uint32 { return b ^ c }},
	{"mov.b32 {%h5, %h6}, %r2; mov.b32 %r5, {%h6, %h5};", func(a, b, c uint32) uint32 { return a>>16 | a<<16 }},
	{"selp.b32 %r5, %r2, %r3, %p2;", func(a, b, c uint32) uint32 {
		if int32(a) < int32(b) {
			return a
		}
		return b
	}},
	{"selp.f32 %f5, %f2, 0f3F800000, !%p2; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 {
		if int32(a) < int32(b) {
			return 0x3f800000
		}
		return a
	}},
	{"selp.b64 %rd5, %rd10, %rd11, %p2; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 {
		if int32(a) < int32(b) {
			return a
		}
		return c
	}},
	{"and.pred %p3, %p2, !%p2; or.pred %p3, %p3, %p2; xor.pred %p3, %p3, %p2; not.pred %p3, %p3; selp.b32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return 1 }},
	{"setp.lt.and.s32 %p3|%p4, %r2, %r3, %p2; selp.b32 %r5, 1, 0, %p3; @%p4 add.s32 %r5, %r5, 2;", func(a, b, c uint32) uint32 { return b2u(int32(a) < int32(b)) }},
	{"@%p2 mov.b32 %r5, %r2; @!%p2 mov.b32 %r5, %r3;", func(a, b, c uint32) uint32 { return uint32(min(int32(a), int32(b))) }},

	{"add.rn.f32 %f5, %f2, %f3; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(f32(a) + f32(b)) }},
	{"sub.rn.f32 %f5, %f2, %f3; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(f32(a) - f32(b)) }},
	{"mul.rn.f32 %f5, %f2, %f3; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(f32(a) * f32(b)) }},
	{"mul.rn.ftz.f32 %f5, %f2, %f3; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return ftz(bits32(f32(ftz(a)) * f32(ftz(b)))) }},
	{"add.ftz.f32 %f5, %f2, %f3; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return ftz(bits32(f32(ftz(a)) + f32(ftz(b)))) }},
	{"fma.rn.f32 %f5, %f2, %f3, %f4; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(fmaExact(f32(a), f32(b), f32(c))) }},
	{"mul.rn.f32 %f5, %f2, %f3; neg.f32 %f5, %f5; fma.rn.f32 %f5, %f2, %f3, %f5; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 {
		return bits32(fmaExact(f32(a), f32(b), -(f32(a) * f32(b))))
	}},
	{"div.rn.f32 %f5, %f2, %f3; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(f32(a) / f32(b)) }},
	{"abs.f32 %f5, %f2; sqrt.rn.f32 %f5, %f5; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 {
		return bits32(float32(math.Sqrt(math.Abs(float64(f32(a))))))
	}},
	{"rcp.rn.f32 %f5, %f2; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(1 / f32(a)) }},
	{"min.f32 %f5, %f2, %f3; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 {
		x, y := f32(a), f32(b)
		switch {
		case x != x && y != y:
			return 0x7fffffff
		case x != x:
			return b
		case y != y:
			return a
		}
		return bits32(min(x, y))
	}},
	{"max.NaN.f32 %f5, %f2, %f3; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(max(f32(a), f32(b))) }},
	{"neg.f32 %f5, %f2; abs.f32 %f5, %f5; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return a &^ (1 << 31) }},
	{"copysign.f32 %f5, %f2, %f3; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return b&^(1<<31) | a&(1<<31) }},
	{"setp.lt.f32 %p3, %f2, %f3; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(f32(a) < f32(b)) }},
	{"setp.geu.f32 %p3, %f2, %f3; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(!(f32(a) < f32(b))) }},
	{"setp.ne.f32 %p3, %f2, %f3; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(f32(a) < f32(b) || f32(a) > f32(b)) }},
	{"setp.neu.f32 %p3, %f2, %f3; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(f32(a) != f32(b)) }},
	{"setp.nan.f32 %p3, %f2, %f3; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(f32(a) != f32(a) || f32(b) != f32(b)) }},
	{"setp.num.f32 %p3, %f2, %f2; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(f32(a) == f32(a)) }},
	{"setp.hi.u32 %p3, %r2, %r3; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(a > b) }},
	{"setp.ge.s32 %p3, %r2, %r3; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(int32(a) >= int32(b)) }},
	{"setp.le.u32 %p3, %r2, %r3; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(a <= b) }},
	{"setp.lt.s64 %p3, %rd10, %rd11; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 {
		return b2u(int64(uint64(b)<<32|uint64(a)) < int64(uint64(a)<<32|uint64(c)))
	}},
	{"setp.lt.s16 %p3, %h2, %h3; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(int16(a) < int16(b)) }},
	{"setp.gt.f16 %p3, %h2, %h3; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(fromHalf(a) > fromHalf(b)) }},
	{"testp.finite.f32 %p3, %f2; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(a>>23&255 != 255) }},

	{"cvt.rn.f32.s32 %f5, %r2; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(float32(int32(a))) }},
	{"cvt.rn.f32.u32 %f5, %r2; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(float32(a)) }},
	{"cvt.rn.f32.u64 %f5, %rd10; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 {
		x, _ := new(big.Float).SetUint64(uint64(b)<<32 | uint64(a)).Float32()
		return bits32(x)
	}},
	{"cvt.rzi.s32.f32 %r5, %f2;", func(a, b, c uint32) uint32 { return toInt(math.Trunc(float64(f32(a)))) }},
	{"cvt.rni.s32.f32 %r5, %f2;", func(a, b, c uint32) uint32 { return toInt(math.RoundToEven(float64(f32(a)))) }},
	{"cvt.rmi.s32.f32 %r5, %f2;", func(a, b, c uint32) uint32 { return toInt(math.Floor(float64(f32(a)))) }},
	{"cvt.rzi.u32.f32 %r5, %f2;", func(a, b, c uint32) uint32 {
		x := math.Trunc(float64(f32(a)))
		switch {
		case !(x > 0):
			return 0
		case x >= 1<<32:
			return 1<<32 - 1
		}
		return uint32(x)
	}},
	{"cvt.rmi.f32.f32 %f5, %f2; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(float32(math.Floor(float64(f32(a))))) }},
	{"cvt.rn.f16.f32 %h5, %f2; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 { return half(f32(a)) }},
	{"cvt.rn.bf16.f32 %h5, %f2; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 { return brain(f32(a)) }},
	{"cvt.f32.f16 %f5, %h2; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(fromHalf(a)) }},
	{"cvt.f32.bf16 %f5, %h2; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(fromBrain(a)) }},
	{"cvt.rn.f16x2.f32 %r5, %f2, %f3;", func(a, b, c uint32) uint32 { return half(f32(a))<<16 | half(f32(b)) }},
	{"cvt.rn.bf16x2.f32 %r5, %f2, %f3;", func(a, b, c uint32) uint32 { return brain(f32(a))<<16 | brain(f32(b)) }},
	{"cvt.rn.f16.s32 %h5, %r2; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 {
		x := float64(int32(a))
		if math.Abs(x) >= 65520 {
			return half(float32(math.Copysign(math.Inf(1), x)))
		}
		return half(float32(x))
	}},
	{"cvt.s64.s32 %rd5, %r2; shr.u64 %rd5, %rd5, 32; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 { return uint32(int32(a) >> 31) }},
	{"cvt.u64.u32 %rd5, %r2; shr.u64 %rd5, %rd5, 32; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 { return 0 }},
	{"cvt.s32.s8 %r5, %r2;", func(a, b, c uint32) uint32 { return uint32(int32(int8(a))) }},
	{"cvt.u16.u32 %h5, %r2; cvt.s32.s16 %r5, %h5;", func(a, b, c uint32) uint32 { return uint32(int32(int16(a))) }},
	{"cvt.sat.u8.s32 %r5, %r2;", func(a, b, c uint32) uint32 { return uint32(min(max(int32(a), 0), 255)) }},
	{"cvt.rna.tf32.f32 %r5, %f2;", func(a, b, c uint32) uint32 {
		if a>>23&255 == 255 {
			return bits32(f32(a))
		}
		return (a + 0x1000) &^ 0x1fff
	}},
	{"cvt.f64.f32 %fd1, %f2; cvt.rn.f64.s32 %fd2, %r3; fma.rn.f64 %fd3, %fd1, %fd2, %fd1; cvt.rn.f32.f64 %f5, %fd3; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 {
		x := float64(f32(a))
		return bits32(float32(math.FMA(x, float64(int32(b)), x)))
	}},

	{"add.f16x2 %r5, %r2, %r3;", func(a, b, c uint32) uint32 {
		return half(fromHalf(a)+fromHalf(b)) | half(fromHalf(a>>16)+fromHalf(b>>16))<<16
	}},
	{"mul.f16x2 %r5, %r2, %r3;", func(a, b, c uint32) uint32 {
		return half(fromHalf(a)*fromHalf(b)) | half(fromHalf(a>>16)*fromHalf(b>>16))<<16
	}},
	{"fma.rn.f16 %h5, %h2, %h3, %h4; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 { return fma16(a, b, c, fromHalf, half, 11, -24) }},
	{"fma.rn.bf16 %h5, %h2, %h3, %h4; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 { return fma16(a, b, c, fromBrain, brain, 8, -133) }},
	{"neg.f16x2 %r5, %r2;", func(a, b, c uint32) uint32 { return a ^ 0x80008000 }},
	{"sub.bf16 %h5, %h2, %h3; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 { return brain(fromBrain(a) - fromBrain(b)) }},

	{"add.sat.f32 %f5, %f2, %f3; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 {
		x := f32(a) + f32(b)
		if !(x > 0) {
			x = 0
		}
		return bits32(min(x, 1))
	}},
	{"setp.ge.f32 %p3, %f2, %f3; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(f32(a) >= f32(b)) }},
	{"setp.le.f32 %p3, %f2, %f3; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(f32(a) <= f32(b)) }},
	{"setp.gt.ftz.f32 %p3, %f2, 0f00000000; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(f32(ftz(a)) > 0) }},
	{"setp.eq.u64 %p3, %rd10, %rd10; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return 1 }},
	{"testp.infinite.f32 %p3, %f2; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(a&0x7fffffff == 0x7f800000) }},
	{"testp.notanumber.f32 %p3, %f2; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(f32(a) != f32(a)) }},
	{"testp.subnormal.f32 %p3, %f2; selp.u32 %r5, 1, 0, %p3;", func(a, b, c uint32) uint32 { return b2u(ftz(a) != a) }},
	{"cvt.rz.bf16x2.f32 %r5, %f2, %f3;", func(a, b, c uint32) uint32 {
		z := func(a uint32) uint32 {
			if f32(a) != f32(a) {
				return 0x7fff
			}
			return a >> 16
		}
		return z(a)<<16 | z(b)
	}},
	{"cvt.rn.relu.bf16x2.f32 %r5, %f2, %f3;", func(a, b, c uint32) uint32 { return brain(max(f32(a), 0))<<16 | brain(max(f32(b), 0)) }},
	{"cvt.rz.f16.f32 %h5, %f2; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 {
		x := float64(f32(a))
		if x != x {
			return 0x7fff
		}
		if math.IsInf(x, 0) {
			return half(f32(a))
		}
		y := math.Abs(x)
		if y >= 65504 {
			y = 65504
		} else if y < 0x1p-14 {
			y = math.Floor(y*0x1p24) * 0x1p-24
		} else {
			_, e := math.Frexp(y)
			y = math.Ldexp(math.Floor(math.Ldexp(y, 11-e)), e-11)
		}
		return half(float32(math.Copysign(y, x)))
	}},
	{"cvt.sat.f32.f32 %f5, %f2; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 {
		if !(f32(a) > 0) {
			return 0
		}
		return bits32(min(f32(a), 1))
	}},
	{"cvt.sat.s16.s32 %h5, %r2; cvt.s32.s16 %r5, %h5;", func(a, b, c uint32) uint32 { return uint32(min(max(int32(a), -32768), 32767)) }},
	{"cvt.rn.tf32.f32 %r5, %f2;", func(a, b, c uint32) uint32 {
		if a>>23&255 == 255 {
			return bits32(f32(a))
		}
		return (a + 0xfff + a>>13&1) &^ 0x1fff
	}},
	{"cvt.rpi.f32.f32 %f5, %f2; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(float32(math.Ceil(float64(f32(a))))) }},
	{"cvt.rzi.s64.f32 %rd5, %f2; shr.s64 %rd5, %rd5, 20; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 {
		x := math.Trunc(float64(f32(a)))
		switch {
		case x != x:
			return 0
		case x >= 1<<63:
			return uint32(int64(math.MaxInt64) >> 20 & (1<<32 - 1))
		case x <= -1<<63:
			return uint32(int64(math.MinInt64) >> 20 & (1<<32 - 1))
		}
		return uint32(int64(x) >> 20)
	}},
	{"cvt.f64.f32 %fd1, %f2; cvt.f64.f32 %fd2, %f3; add.f64 %fd3, %fd1, %fd2; sub.f64 %fd3, %fd3, %fd2; mul.f64 %fd3, %fd3, %fd2; div.rn.f64 %fd3, %fd3, 0d4008000000000000; cvt.rn.f32.f64 %f5, %fd3; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 {
		x, y := float64(f32(a)), float64(f32(b))
		z := x + y
		z -= y
		z *= y
		return bits32(float32(z / 3))
	}},
	{"cvt.f64.f32 %fd1, %f2; abs.f64 %fd1, %fd1; sqrt.rn.f64 %fd1, %fd1; neg.f64 %fd1, %fd1; min.f64 %fd1, %fd1, 0dC000000000000000; cvt.rn.f32.f64 %f5, %fd1; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 {
		x := -math.Sqrt(math.Abs(float64(f32(a))))
		if x != x {
			x = -2
		}
		return bits32(float32(min(x, -2)))
	}},
	{"abs.s64 %rd5, %rd10; shr.u64 %rd5, %rd5, 32; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 {
		x := int64(uint64(b)<<32 | uint64(a))
		if x < 0 {
			x = -x
		}
		return uint32(uint64(x) >> 32)
	}},
	{"neg.s16 %h5, %h2; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 { return -a & 0xffff }},
	{"abs.f16x2 %r5, %r2;", func(a, b, c uint32) uint32 { return a & 0x7fff7fff }},
	{"max.f16x2 %r5, %r2, %r3;", func(a, b, c uint32) uint32 {
		m := func(a, b uint32) uint32 {
			x, y := fromHalf(a), fromHalf(b)
			switch {
			case x != x && y != y:
				return 0x7fff
			case x != x:
				return half(y)
			case y != y:
				return half(x)
			}
			return half(max(x, y))
		}
		return m(a&0xffff, b&0xffff) | m(a>>16, b>>16)<<16
	}},
	{"mul.bf16x2 %r5, %r2, %r3;", func(a, b, c uint32) uint32 {
		return fma16(a&0xffff, b&0xffff, 0x8000, fromBrain, brain, 8, -133) | fma16(a>>16, b>>16, 0x8000, fromBrain, brain, 8, -133)<<16
	}},
	{"fma.rn.relu.f16 %h5, %h2, 0x3C00, %h3; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 {
		x := fromHalf(a) + fromHalf(b)
		if x <= 0 {
			x = 0
		}
		return half(x)
	}},
	{"mul.rn.f32 %f5, %f2, 1.5; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(f32(a) * 1.5) }},
	{"mul.rn.f32 %f5, %f2, 2.5e-1; mov.b32 %r5, %f5;", func(a, b, c uint32) uint32 { return bits32(f32(a) * 0.25) }},
	{"bfind.u32 %r5, %r2;", func(a, b, c uint32) uint32 { return uint32(31 - bits.LeadingZeros32(a)) }},
	{"clz.b64 %r5, %rd10;", func(a, b, c uint32) uint32 { return uint32(bits.LeadingZeros64(uint64(b)<<32 | uint64(a))) }},
	{"not.b64 %rd5, %rd10; and.b64 %rd5, %rd5, %rd11; xor.b64 %rd5, %rd5, %rd10; or.b64 %rd5, %rd5, 1; cvt.u32.u64 %r5, %rd5;", func(a, b, c uint32) uint32 { return ^a&c ^ a | 1 }},
	{"mad.wide.u16 %r5, %h2, %h3, %r4;", func(a, b, c uint32) uint32 { return (a&0xffff)*(b&0xffff) + c }},
	{"mul.hi.s16 %h5, %h2, %h3; cvt.s32.s16 %r5, %h5;", func(a, b, c uint32) uint32 { return uint32(int32(int16(a)) * int32(int16(b)) >> 16) }},
	{"rem.u16 %h5, %h2, 100; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 { return a & 0xffff % 100 }},
	{"shf.l.clamp.b32 %r5, %r2, %r3, 40;", func(a, b, c uint32) uint32 { return a }},

	{"shfl.sync.bfly.b32 %r5, %r2, 0, 31, -1;", func(a, b, c uint32) uint32 { return a }},
	{"mov.b32 %r5, 0x12345678; cvt.u16.u32 %h5, %r5; cvt.u32.u16 %r5, %h5;", func(a, b, c uint32) uint32 { return 0x5678 }},
	{"mov.u32 %r5, %laneid; mov.u32 %r6, %warpid; mad.lo.u32 %r5, %r6, 32, %r5; sub.u32 %r5, %r5, %r1;", func(a, b, c uint32) uint32 { return 0 }},
	{"{ .reg .b32 x; .reg .pred y; add.s32 x, %r2, 1; setp.eq.s32 y, x, 1; selp.b32 %r5, 7, x, y; }", func(a, b, c uint32) uint32 {
		if a == 0 {
			return 7
		}
		return a + 1
	}},
}

func toInt(x float64) uint32 {
	switch {
	case x != x:
		return 0
	case x >= math.MaxInt32:
		return math.MaxInt32
	case x <= math.MinInt32:
		return 1 << 31
	}
	return uint32(int32(x))
}

// fma16 is a*b+c rounded once to a format of prec bits whose least number is 2^low.
func fma16(a, b, c uint32, dec func(uint32) float32, enc func(float32) uint32, prec uint, low int) uint32 {
	x, y, z := float64(dec(a)), float64(dec(b)), float64(dec(c))
	if math.IsInf(x, 0) || math.IsInf(y, 0) || math.IsInf(z, 0) || x != x || y != y || z != z {
		return enc(float32(x*y + z))
	}
	p := new(big.Float).SetPrec(4000).SetFloat64(x)
	p.Mul(p, new(big.Float).SetFloat64(y))
	p.Add(p, new(big.Float).SetFloat64(z))
	if p.Sign() == 0 {
		return enc(float32(x*y + z))
	}
	if e := p.MantExp(nil) - int(prec); e < low {
		// subnormal: adding a large number leaves multiples of 2^low
		big1 := new(big.Float).SetMantExp(big.NewFloat(1.5), low+int(prec)+20)
		if p.Sign() < 0 {
			big1.Neg(big1)
		}
		q := new(big.Float).SetPrec(uint(prec) + 21).SetMode(big.ToNearestEven)
		q.Add(p, big1)
		q.Sub(q, big1)
		f, _ := q.Float32()
		if f == 0 && p.Sign() < 0 {
			f = float32(math.Copysign(0, -1))
		}
		return enc(f)
	}
	q := new(big.Float).SetPrec(prec).SetMode(big.ToNearestEven).Set(p)
	f, _ := q.Float32()
	return enc(f)
}

// operands are numbers at which arithmetic goes wrong, and any others.
func operands(r *rand.Rand, n int) []uint32 {
	special := []uint32{0, 1, 1 << 31, 1<<31 - 1, 1<<32 - 1, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0x00000001,
		0x807fffff, 0x00800000, 0x7f7fffff, 0x33800000, 0x477fe000, 0x38800000, 0x4b000000, 0x4f000000, 31, 32, 33, 255, 256, 0x3c003c00, 0x80007c00}
	v := make([]uint32, n)
	for i := range v {
		switch r.IntN(4) {
		case 0:
			v[i] = special[r.IntN(len(special))]
		case 1: // moderate floats
			v[i] = math.Float32bits(float32(r.NormFloat64() * math.Pow(2, float64(r.IntN(40)-20))))
		case 2: // short fractions: sums and products lie halfway often
			v[i] = r.Uint32() &^ (1<<12 - 1)
		default:
			v[i] = r.Uint32()
		}
	}
	return v
}

// loadOperands is what comes before the instructions of scalars.
const loadOperands = `
	mul.wide.u32 %rd6, %r1, 12; add.s64 %rd6, %rd6, %rd1;
	ld.global.u32 %r2, [%rd6]; ld.global.u32 %r3, [%rd6+4]; ld.global.u32 %r4, [%rd6+8];
	mov.b32 %f2, %r2; mov.b32 %f3, %r3; mov.b32 %f4, %r4;
	cvt.u16.u32 %h2, %r2; cvt.u16.u32 %h3, %r3; cvt.u16.u32 %h4, %r4;
	mov.b64 %rd10, {%r2, %r3}; mov.b64 %rd11, {%r4, %r2};
	setp.lt.s32 %p2, %r2, %r3;
`

func TestScalars(t *testing.T) {
	body := ""
	var all []int
	for i, s := range scalars {
		if s.f != nil {
			body += "\t" + s.text + fmt.Sprintf("\n\tst.global.u32 [%%rd6], %%r5; add.s64 %%rd6, %%rd6, %%rd7;\n")
			all = append(all, i)
		}
	}
	const n = 256
	body = loadOperands + `
	mov.u64 %rd6, %rd4;
	mov.u64 %rd7, ` + fmt.Sprint(4*n) + `;
` + body
	m := parse(t, kernel(body))
	for seed := range 12 {
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		mach := simt.NewMachine(simt.Options{Seed: int64(seed), Check: true})
		in, out := mach.Alloc("in", 12*n), mach.Alloc("out", 4*n*len(all))
		v := operands(r, 3*n)
		words(in, v)
		if err := mach.Launch(m, simt.Launch{Entry: "k", Grid: [3]int{1, 1, 1}, Block: [3]int{n, 1, 1}, Params: []any{in.Addr(), out.Addr()}}); err != nil {
			t.Fatal(err)
		}
		for j, i := range all {
			s := scalars[i]
			bad := 0
			for k := range n {
				a, b, c := v[3*k], v[3*k+1], v[3*k+2]
				got, want := word(out, j*n+k), s.f(a, b, c)
				if got != want && bad < 3 {
					bad++
					t.Errorf("%s of %#x, %#x, %#x is %#x, want %#x", s.text, a, b, c, got, want)
				}
			}
		}
	}
}

// Approximate functions are within the error that PTX documents.
func TestApproximations(t *testing.T) {
	for _, x := range []struct {
		op       string
		f        func(float64) float64
		lo, hi   float64
		abs, rel float64
	}{
		{"ex2.approx.f32", math.Exp2, -140, 127, 1e-45, 0x1p-22},
		{"ex2.approx.ftz.f32", math.Exp2, -120, 127, 0, 0x1p-22},
		{"lg2.approx.f32", math.Log2, 1e-30, 1e30, 0x1p-22, 0x1p-22},
		{"rcp.approx.ftz.f32", func(x float64) float64 { return 1 / x }, 1e-20, 1e20, 0, 0x1p-23},
		{"rsqrt.approx.f32", func(x float64) float64 { return 1 / math.Sqrt(x) }, 1e-20, 1e20, 0, 0x1p-22},
		{"sqrt.approx.f32", math.Sqrt, 0, 1e20, 0, 0x1p-23},
		{"tanh.approx.f32", math.Tanh, -12, 12, 0, 0x1p-11},
		{"sin.approx.f32", math.Sin, -3, 3, 0x1p-20, 0},
		{"cos.approx.f32", math.Cos, -3, 3, 0x1p-20, 0},
	} {
		r := rand.New(rand.NewPCG(1, 2))
		in := make([]uint32, 256)
		for i := range in {
			in[i] = math.Float32bits(float32(x.lo + (x.hi-x.lo)*r.Float64()))
		}
		out, err := launch(t, 1, "ld.global.f32 %f2, [%rd3];\n"+x.op+" %f3, %f2;\nst.global.f32 [%rd4], %f3;", 1, 256, in)
		if err != nil {
			t.Fatal(err)
		}
		for i := range in {
			got, want := float64(f32(out[i])), x.f(float64(f32(in[i])))
			if math.Abs(got-want) > x.abs+x.rel*math.Abs(want) {
				t.Errorf("%s of %g is %g, want %g", x.op, f32(in[i]), got, want)
			}
		}
	}
}

// Sums that fall halfway between two float32 but for a little, and subnormal ones.
func TestFMARounding(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const n = 256
	for range 40 {
		in := make([]uint32, 3*n)
		for i := range n {
			// a*b has bits far below those of c, which is large or tiny
			a := math.Float32frombits(r.Uint32()&0x7fffff | 127<<23)
			b := math.Float32frombits(r.Uint32()&0x7fffff | 127<<23)
			e := r.IntN(60) - 30
			scale := -1 + r.IntN(3) - 1
			if r.IntN(2) == 0 {
				scale -= 126 + r.IntN(26)
			}
			x := a * float32(math.Ldexp(1, scale/2))
			y := b * float32(math.Ldexp(1, scale-scale/2))
			// c completes the rounded product to a tie
			p := float64(x) * float64(y)
			c := float32(math.Ldexp(math.Round(math.Ldexp(p, -scale+e)), scale-e))
			if r.IntN(2) == 0 {
				c = -c
			}
			in[3*i], in[3*i+1], in[3*i+2] = math.Float32bits(x), math.Float32bits(y), math.Float32bits(c)
			if r.IntN(2) == 0 { // half an ulp of c
				c = float32(r.IntN(1<<23)|1<<23) * float32(math.Ldexp(1, -10))
				in[3*i] = math.Float32bits(float32(math.Ldexp(1, -11)) * (1 + float32(r.IntN(3)-1)*0x1p-23))
				in[3*i+1] = math.Float32bits(1 + float32(r.IntN(3)-1)*0x1p-23)
				in[3*i+2] = math.Float32bits(c)
			}
			if r.IntN(3) == 0 { // half of the least number
				in[3*i] = math.Float32bits(float32(math.Ldexp(1, -75)) * (1 + float32(r.IntN(3)-1)*0x1p-23))
				in[3*i+1] = math.Float32bits(float32(math.Ldexp(1, -75)) * (1 + float32(r.IntN(3)-1)*0x1p-23))
				in[3*i+2] = r.Uint32() & 0x80ffffff
			}
		}
		out, err := launch(t, 1, `
	mul.wide.u32 %rd6, %r1, 12; add.s64 %rd6, %rd6, %rd1;
	ld.global.f32 %f2, [%rd6]; ld.global.f32 %f3, [%rd6+4]; ld.global.f32 %f4, [%rd6+8];
	fma.rn.f32 %f5, %f2, %f3, %f4;
	st.global.f32 [%rd4], %f5;
`, 1, n, in)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if want := bits32(fmaExact(f32(in[3*i]), f32(in[3*i+1]), f32(in[3*i+2]))); out[i] != want {
				t.Fatalf("fma(%x, %x, %x) = %x, want %x", in[3*i], in[3*i+1], in[3*i+2], out[i], want)
			}
		}
	}
}
