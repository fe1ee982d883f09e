package format16

import (
	"math"
	"math/big"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/x448/float16"
)

var all = map[string]Format{"half": Half, "brain": Brain, "e6m9": E6M9, "ue6m10": UE6M10}

// value is what a code means, written from the formats' descriptions in exact
// arithmetic; ok is false for infinities and NaN.
func value(f Format, code uint16) (x *big.Rat, ok bool) {
	sign, exponent, fraction, bias, bits := int64(1), int64(0), int64(0), int64(0), uint(0)
	field := func(signed bool, e, m uint) {
		if signed && code>>15 == 1 {
			sign = -1
		}
		exponent, fraction, bits = int64(code>>m)&(1<<e-1), int64(code)&(1<<m-1), m
	}
	switch f {
	case Half:
		field(true, 5, 10)
		bias = 15
	case Brain:
		field(true, 8, 7)
		bias = 127
	case E6M9:
		field(true, 6, 9)
		bias = 60
	case UE6M10:
		field(false, 6, 10)
		bias = 60
	}
	one := int64(1) << bits
	m := big.NewRat(one+fraction, one)
	if f == Half || f == Brain {
		if exponent == 2*bias+1 {
			return nil, false
		}
		if exponent == 0 {
			m, exponent = big.NewRat(fraction, one), 1
		}
	} else if exponent == 0 && fraction == 0 {
		m = new(big.Rat)
	}
	scale := new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(max(exponent-bias, bias-exponent))))
	if exponent < bias {
		scale.Inv(scale)
	}
	m.Mul(m, scale)
	return m.Mul(m, big.NewRat(sign, 1)), true
}

func TestEveryCodeDecodesToItsValue(t *testing.T) {
	for name, f := range all {
		for c := 0; c < 1<<16; c++ {
			want, ok := value(f, uint16(c))
			got := float64(f.Decode(uint16(c)))
			if !ok {
				if !math.IsInf(got, 0) && !math.IsNaN(got) {
					t.Fatalf("%s %#04x: %v, want infinity or NaN", name, c, got)
				}
				continue
			}
			if w, exact := want.Float64(); !exact || got != w {
				t.Fatalf("%s %#04x: %v, want %v", name, c, got, w)
			}
		}
	}
}

func TestEveryCodeEncodesToItself(t *testing.T) {
	for name, f := range all {
		for c := 0; c < 1<<16; c++ {
			x, want := f.Decode(uint16(c)), uint16(c)
			switch {
			case f == E6M9 && c == 0x8000:
				want = 0 // there is one zero
			case x != x && f == Half:
				want |= 0x200 // NaNs become quiet
			case x != x && f == Brain:
				want |= 0x40
			}
			if got := f.Encode(x); got != want {
				t.Fatalf("%s: %v is encoded as %#04x, want %#04x", name, x, got, want)
			}
			if got := f.EncodeRandomly(x, 0.9999999); got != want {
				t.Fatalf("%s: %v is encoded randomly as %#04x, want %#04x", name, x, got, want)
			}
		}
	}
}

// ladder is the numbers of a format in order with their codes, without -0,
// infinities and NaN.
func ladder(f Format) (xs []float64, codes []uint16) {
	for c := 0; c < 1<<16; c++ {
		if c == 0x8000 && f != UE6M10 {
			continue
		}
		if x, ok := value(f, uint16(c)); ok {
			v, _ := x.Float64()
			xs, codes = append(xs, v), append(codes, uint16(c))
		}
	}
	sort.Sort(byValue{xs, codes})
	return xs, codes
}

type byValue struct {
	xs    []float64
	codes []uint16
}

func (b byValue) Len() int           { return len(b.xs) }
func (b byValue) Less(i, j int) bool { return b.xs[i] < b.xs[j] }
func (b byValue) Swap(i, j int) {
	b.xs[i], b.xs[j] = b.xs[j], b.xs[i]
	b.codes[i], b.codes[j] = b.codes[j], b.codes[i]
}

// nearest searches the ladder. i is the rung below x.
func nearest(f Format, xs []float64, codes []uint16, x float64) uint16 {
	ieee := f == Half || f == Brain
	i := sort.SearchFloat64s(xs, x)
	switch {
	case i == 0 && ieee && x < xs[0]-(xs[1]-xs[0])/2, i == 0 && ieee && x == xs[0]-(xs[1]-xs[0])/2:
		return f.infinity() | 0x8000
	case i == 0:
		return codes[0]
	case i == len(xs) && ieee && x >= xs[i-1]+(xs[i-1]-xs[i-2])/2:
		return f.infinity()
	case i == len(xs):
		return codes[i-1]
	}
	lo, hi := xs[i-1], xs[i]
	c := codes[i]
	switch below := x-lo < hi-x; {
	case below:
		c = codes[i-1]
	case x-lo > hi-x:
	case ieee && codes[i]&1 == 1:
		c = codes[i-1]
	case !ieee && x < 0:
		c = codes[i-1]
	}
	if ieee && c == 0 && math.Signbit(x) {
		return 0x8000
	}
	return c
}

func (f Format) infinity() uint16 {
	if f == Half {
		return 0x7c00
	}
	return 0x7f80
}

// Between zero and the least number of the paper's formats there is no half
// way: the rounding rule adds half a unit of the float32's own exponent, so
// that everything below 2^-60 is 0.
func flushed(f Format, x float64) bool { return f >= E6M9 && math.Abs(x) < 0x1p-60*(1+0x1p-9) }

func TestNumbersRoundToTheNearestCode(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, f := range all {
		xs, codes := ladder(f)
		check := func(x float32) {
			t.Helper()
			if x != x || flushed(f, float64(x)) {
				return
			}
			want := nearest(f, xs, codes, float64(x))
			if got := f.Encode(x); got != want {
				t.Fatalf("%s: %v (%x) is encoded as %#04x, want %#04x", name, x, x, got, want)
			}
		}
		for i := 1; i < len(xs); i++ {
			mid := float32((xs[i-1] + xs[i]) / 2)
			for _, x := range []float32{mid, math.Nextafter32(mid, float32(math.Inf(1))), math.Nextafter32(mid, float32(math.Inf(-1)))} {
				check(x)
			}
		}
		for range 200000 {
			check(math.Float32frombits(r.Uint32()))
		}
		for _, x := range []float32{0, math.MaxFloat32, -math.MaxFloat32, 65504, 65519.996, 65520, 16, 15.99, 1e-30, 1e-40} {
			check(x)
		}
	}
}

func TestHalfAgreesWithAnotherImplementation(t *testing.T) {
	for i := uint64(0); i < 1<<32; i += 4093 {
		x := math.Float32frombits(uint32(i))
		if want := float16.Fromfloat32(x).Bits(); Half.Encode(x) != want {
			t.Fatalf("%v is encoded as %#04x, want %#04x", x, Half.Encode(x), want)
		}
	}
}

// The codes that the paper's formats are known by.
func TestGoldenCodes(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct {
		f    Format
		x    float32
		code uint16
	}{
		{E6M9, 1, 0x7800}, {E6M9, -1, 0xf800}, {E6M9, 0.1, 0x7133}, {E6M9, math.Pi, 0x7b24}, {E6M9, 1e-10, 0x3570}, {E6M9, 100, 0x7fff},
		{E6M9, 0, 0}, {E6M9, inf, 0x7fff}, {E6M9, -inf, 0xffff}, {E6M9, nan, 0x7fff}, {E6M9, 0x1p-60 * (1 + 1.0/512), 1}, {E6M9, 0x1p-60, 0}, {E6M9, -0x1p-61, 0}, {E6M9, 15.984375, 0x7fff},
		{UE6M10, 1, 0xf000}, {UE6M10, -1, 0}, {UE6M10, 15.9921875, 0xffff}, {UE6M10, 1e9, 0xffff}, {UE6M10, nan, 0xffff}, {UE6M10, -inf, 0}, {UE6M10, 0x1p-60 * (1 + 1.0/1024), 1}, {UE6M10, 1e-30, 0},
		{Half, 1, 0x3c00}, {Half, 65504, 0x7bff}, {Half, 65520, 0x7c00}, {Half, 0x1p-24, 1}, {Half, 0x1p-25, 0}, {Half, inf, 0x7c00},
		{Brain, 1, 0x3f80}, {Brain, 1 + 1.0/256, 0x3f80}, {Brain, 1 + 3.0/256, 0x3f82}, {Brain, -inf, 0xff80},
	} {
		if got := c.f.Encode(c.x); got != c.code {
			t.Errorf("format %d: %v is encoded as %#04x, want %#04x", c.f, c.x, got, c.code)
		}
	}
}

// With u running through all values that count, the mean of the results is x
// exactly.
func TestRandomRoundingHasTheRightMean(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for name, f := range all {
		n := 1 << f.dropped()
		for _, x := range []float32{1.0001, 3e-5, 1e-6, 0.1, 7.77, float32(r.Float64()), float32(r.Float64()) * 0x1p-14, 15.9} {
			if f == Half && x < 0x1p-14 {
				x = float32(math.Trunc(float64(x)*0x1p37) * 0x1p-37) // what lies beyond the bits that count is cut off
			}
			for _, sign := range []float32{1, -1} {
				if f == UE6M10 && sign < 0 {
					continue
				}
				sum, lo, hi := 0.0, math.Inf(1), math.Inf(-1)
				for i := range n {
					y := float64(f.RoundRandomly(sign*x, (float32(i)+0.5)/float32(n)))
					sum, lo, hi = sum+y, min(lo, y), max(hi, y)
				}
				if got := sum / float64(n); got != float64(sign*x) {
					t.Errorf("%s: the mean of %v rounded is %v", name, sign*x, got)
				}
				if near := float64(f.Round(sign * x)); lo != near && hi != near || lo > float64(sign*x) || hi < float64(sign*x) {
					t.Errorf("%s: %v is rounded to %v and %v, the nearest is %v", name, sign*x, lo, hi, near)
				}
			}
		}
	}
}
