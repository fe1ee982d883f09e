package format16

import "math"

// Format is one way to store a real number in 16 bits.
type Format uint8

// The formats, written as bits of sign, exponent and fraction.
//
// Half is 1-5-10 with subnormal numbers, infinities and NaN, Brain 1-8-7
// likewise. E6M9 is 1-6-9 and UE6M10 0-6-10: 2^(e-60) * (1 + f/2^bits), all-zero
// magnitude bits stand for 0, and there are neither infinities nor NaN.
const (
	Half Format = iota
	Brain
	E6M9
	UE6M10
)

// fractionBits is the length of the fraction.
var fractionBits = [...]uint{10, 7, 9, 10}

// rebias is what the exponent of a float32 is above that of the paper's
// formats, 127 - 60.
const rebias = 67

// ByName finds the format of an element type by the type's name.
func ByName(dtype string) (f Format, ok bool) {
	switch dtype {
	case "f16":
		return Half, true
	case "bf16":
		return Brain, true
	case "e6m9":
		return E6M9, true
	case "ue6m10":
		return UE6M10, true
	}
	return 0, false
}

// dropped is how many bits of a float32's fraction f has no room for.
func (f Format) dropped() uint { return 23 - fractionBits[f] }

// Decode is the number that code stands for; every code's is a float32.
func (f Format) Decode(code uint16) float32 {
	sign, m := uint32(code&0x8000)<<16, uint32(code&0x7fff)
	switch f {
	case Half:
		switch {
		case m >= 0x7c00:
			return math.Float32frombits(sign | 0x7f800000 | (m&0x3ff)<<13)
		case m < 0x400:
			x := float32(m) * 0x1p-24
			return math.Float32frombits(sign | math.Float32bits(x))
		}
		return math.Float32frombits(sign | (m<<13 + (127-15)<<23))
	case Brain:
		return math.Float32frombits(uint32(code) << 16)
	case UE6M10:
		sign, m = 0, uint32(code)
	}
	if m == 0 {
		return math.Float32frombits(sign)
	}
	return math.Float32frombits(sign | (m<<f.dropped() + rebias<<23))
}

// Encode is the code of the number nearest to x.
//
// Half and Brain break ties towards the even code, and what is too large
// becomes infinite. The paper's formats break ties away from zero, what lies
// below the least number becomes 0, and what is too large, or NaN, the largest
// number; UE6M10 has 0 for everything negative.
func (f Format) Encode(x float32) uint16 {
	b := math.Float32bits(x)
	sign, m := b>>31<<15, b&0x7fffffff
	switch f {
	case Half:
		switch {
		case m > 0x7f800000:
			return uint16(sign | 0x7e00 | m>>13&0x3ff)
		case m < 0x38800000: // below 2^-14: adding 1/2 leaves multiples of 2^-24
			return uint16(sign | math.Float32bits(math.Float32frombits(m)+0.5) - math.Float32bits(0.5))
		}
		return uint16(sign | min(0x7c00, (m+0xfff+m>>13&1)>>13-(127-15)<<10))
	case Brain:
		if m > 0x7f800000 {
			return uint16((b | 0x400000) >> 16)
		}
		return uint16((b + 0x7fff + b>>16&1) >> 16)
	}
	return f.small(x, (m+1<<(f.dropped()-1))>>f.dropped())
}

// EncodeRandomly rounds x to one of the two codes next to it, to the one
// farther from zero where u, a number in [0, 1), is large: uniform u makes the
// expected result x. A number that has a code gets that one. Infinities and NaN
// are treated as by Encode. Of u the first 13 to 16 bits count, as many as the
// fraction of x has beyond the format's.
func (f Format) EncodeRandomly(x, u float32) uint16 {
	b := math.Float32bits(x)
	m := b & 0x7fffffff
	drop := f.dropped()
	t := uint32(u * float32(int(1)<<drop))
	switch f {
	case Half, Brain:
		switch {
		case m >= 0x7f800000:
		case f == Half && m < 0x38800000: // multiples of 2^-24
			k := uint32(math.Float32frombits(m)*0x1p37) + t
			m = math.Float32bits(float32(k>>drop) * 0x1p-24)
		default:
			m = (m + t) >> drop << drop
		}
		return f.Encode(math.Float32frombits(b&0x80000000 | m))
	}
	return f.small(x, (m+t)>>drop)
}

// small is the code of x in one of the paper's formats, whose magnitude was
// rounded to m with the exponent of a float32.
func (f Format) small(x float32, m uint32) uint16 {
	bits := fractionBits[f]
	code := max(int32(m)-rebias<<bits, 0)
	if f == UE6M10 {
		if x < 0 {
			return 0
		}
		return uint16(min(code, 0xffff))
	}
	code = min(code, 0x7fff)
	if x < 0 && code != 0 {
		code |= 0x8000
	}
	return uint16(code)
}

// Round is the number nearest to x that the format has.
func (f Format) Round(x float32) float32 { return f.Decode(f.Encode(x)) }

// RoundRandomly is x rounded as by EncodeRandomly.
func (f Format) RoundRandomly(x, u float32) float32 { return f.Decode(f.EncodeRandomly(x, u)) }
