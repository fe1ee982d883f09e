package simt

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/runtime/format16"
)

// nan32 is the NaN that arithmetic yields.
const nan32 = 0x7fffffff

// nan16 is the same for both 16-bit formats.
const nan16 = 0x7fff

func from32(b uint32) float32 { return math.Float32frombits(b) }

// to32 makes the bits of a result.
func to32(x float32) uint32 {
	if x != x {
		return nan32
	}
	return math.Float32bits(x)
}

// flush makes a subnormal number zero.
func flush(b uint32) uint32 {
	if b&0x7f800000 == 0 {
		return b & 0x80000000
	}
	return b
}

// The loops of the frequent operations look for NaN once for all lanes: adding this
// to the bits of a number without its sign sets the highest bit for NaN alone.
const nanProbe = 1<<31 - 1 - 0x7f800000

func canonical(d *v32) {
	for l := range d {
		d[l] = to32(from32(d[l]))
	}
}

func addF32(d, a, b, _ *v32) {
	nan := uint32(0)
	for l := range d {
		r := math.Float32bits(from32(a[l]) + from32(b[l]))
		d[l] = r
		nan |= r&(1<<31-1) + nanProbe
	}
	if nan>>31 != 0 {
		canonical(d)
	}
}

func subF32(d, a, b, _ *v32) {
	nan := uint32(0)
	for l := range d {
		r := math.Float32bits(from32(a[l]) - from32(b[l]))
		d[l] = r
		nan |= r&(1<<31-1) + nanProbe
	}
	if nan>>31 != 0 {
		canonical(d)
	}
}

func mulF32(d, a, b, _ *v32) {
	nan := uint32(0)
	for l := range d {
		r := math.Float32bits(from32(a[l]) * from32(b[l]))
		d[l] = r
		nan |= r&(1<<31-1) + nanProbe
	}
	if nan>>31 != 0 {
		canonical(d)
	}
}

func fmaF32(d, a, b, c *v32) {
	nan := uint32(0)
	for l := range d {
		// The product is exact in float64. So is rounding twice, unless the sum
		// falls between two float32 or is subnormal there.
		p := float64(from32(a[l])) * float64(from32(b[l]))
		z := float64(from32(c[l]))
		s := p + z
		r := math.Float32bits(float32(s))
		if u := math.Float64bits(s); u&0x1fffffff == 0x10000000 || u>>52&0x7ff < 1023-126 {
			r = math.Float32bits(sumTo32(p, z))
		}
		d[l] = r
		nan |= r&(1<<31-1) + nanProbe
	}
	if nan>>31 != 0 {
		canonical(d)
	}
}

// sumTo32 is p + z rounded once.
func sumTo32(p, z float64) float32 {
	s := p + z
	if s == 0 || math.IsInf(s, 0) || s != s {
		return float32(s)
	}
	return float32(toOdd(s, residue(p, z, s)))
}

// residue is what p + z is more than s, their rounded sum.
func residue(p, z, s float64) float64 {
	b := s - p
	return (p - (s - b)) + (z - b)
}

// toOdd is s + e rounded to odd: cut off, and the last bit set if something was
// lost. Rounding that again to fewer bits is as good as rounding once.
func toOdd(s, e float64) float64 {
	if e == 0 {
		return s
	}
	u := math.Float64bits(s)
	if u&1 == 0 {
		if (e > 0) == (s > 0) {
			u++
		} else {
			u--
		}
	}
	return math.Float64frombits(u)
}

// odd32 cuts x to float32, with the last bit set if something was lost.
func odd32(x float64) float32 {
	a := math.Abs(x)
	if a >= math.MaxFloat32 || a == 0 || x != x {
		return float32(x)
	}
	var u uint32
	if a < 0x1p-126 {
		n := a * 0x1p149
		u = uint32(n)
		if float64(u) != n {
			u |= 1
		}
	} else {
		b := math.Float64bits(a)
		u = uint32(b>>29 - (1023-127)<<23)
		if b&(1<<29-1) != 0 {
			u |= 1
		}
	}
	if x < 0 {
		u |= 1 << 31
	}
	return math.Float32frombits(u)
}

// exp2 is 2^x to about 1e-10.
func exp2(x float64) float64 {
	if x < -1100 {
		return 0
	}
	if !(x < 1100) {
		return math.Exp2(x)
	}
	k := math.Floor(x + 0.5)
	r := (x - k) * math.Ln2
	p := 1 + r*(1+r*(1./2+r*(1./6+r*(1./24+r*(1./120+r*(1./720+r*(1./5040+r*(1./40320))))))))
	if k < -1000 || k > 1000 {
		return math.Ldexp(p, int(k))
	}
	return p * math.Float64frombits(uint64(int64(k)+1023)<<52)
}

func ex2F32(d, a, _, _ *v32) {
	for l := range d {
		d[l] = to32(float32(exp2(float64(from32(a[l])))))
	}
}

func tanh(x float64) float64 {
	if x > 20 {
		return 1
	}
	if x < -20 {
		return -1
	}
	if math.Abs(x) < 1e-3 {
		return x - x*x*x/3
	}
	e := exp2(x * (2 * math.Log2E))
	return (e - 1) / (e + 1)
}

// minF and maxF are of two numbers, not NaN, with -0 below 0.
func minMaxF(op string, nan bool) func(a, b float32) float32 {
	pick := func(a, b float32) float32 { return min(a, b) }
	if op == "max" {
		pick = func(a, b float32) float32 { return max(a, b) }
	}
	return func(a, b float32) float32 {
		switch {
		case a != a && (nan || b != b):
			return a
		case a != a:
			return b
		case b != b && nan:
			return b
		case b != b:
			return a
		}
		return pick(a, b)
	}
}

func minF32(d, a, b, _ *v32) {
	for l := range d {
		x, y := from32(a[l]), from32(b[l])
		switch {
		case x < y:
			d[l] = a[l]
		case y < x:
			d[l] = b[l]
		case x == y:
			d[l] = a[l] | b[l] // -0 where one is
		case x == x:
			d[l] = a[l]
		case y == y:
			d[l] = b[l]
		default:
			d[l] = nan32
		}
	}
}

func maxF32(d, a, b, _ *v32) {
	for l := range d {
		x, y := from32(a[l]), from32(b[l])
		switch {
		case x > y:
			d[l] = a[l]
		case y > x:
			d[l] = b[l]
		case x == y:
			d[l] = a[l] & b[l]
		case x == x:
			d[l] = a[l]
		case y == y:
			d[l] = b[l]
		default:
			d[l] = nan32
		}
	}
}

// func32 makes an operation on 32 lanes of a function of up to three numbers.
func func32(f func(a, b, c float32) float32) func(d, a, b, c *v32) {
	return func(d, a, b, c *v32) {
		for l := range d {
			d[l] = to32(f(from32(a[l]), from32(b[l]), from32(c[l])))
		}
	}
}

// flushed is f with subnormal operands and results made zero.
func flushed(f func(d, a, b, c *v32), n int) func(d, a, b, c *v32) {
	return func(d, a, b, c *v32) {
		var x [3]v32
		for i, s := range [3]*v32{a, b, c} {
			if i < n {
				for l := range s {
					x[i][l] = flush(s[l])
				}
			}
		}
		f(d, &x[0], &x[1], &x[2])
		for l := range d {
			d[l] = flush(d[l])
		}
	}
}

func saturated(f func(d, a, b, c *v32)) func(d, a, b, c *v32) {
	return func(d, a, b, c *v32) {
		f(d, a, b, c)
		for l := range d {
			x := from32(d[l])
			switch {
			case !(x > 0):
				d[l] = 0
			case x > 1:
				d[l] = math.Float32bits(1)
			}
		}
	}
}

// addDown is a+b, rounded towards 0.
func addDown(a, b, _ float32) float32 {
	x, y := float64(a), float64(b)
	s := x + y
	if s == 0 || math.IsInf(s, 0) || s != s {
		return float32(s)
	}
	s = toOdd(s, residue(x, y, s))
	r := float32(s)
	if math.Abs(float64(r)) > math.Abs(s) {
		r = math.Nextafter32(r, 0)
	}
	return r
}

// functions of one number that the GPU approximates. The emulator has them
// rounded to nearest, nearly always.
var approximations = map[string]func(x float64) float64{
	"ex2":   exp2,
	"lg2":   math.Log2,
	"rcp":   func(x float64) float64 { return 1 / x },
	"rsqrt": func(x float64) float64 { return 1 / math.Sqrt(x) },
	"sqrt":  math.Sqrt,
	"tanh":  tanh,
	"sin":   math.Sin,
	"cos":   math.Cos,
}

// unary compiles the functions of one number.
func unary(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	in.count = countSpecial
	return c.floatOp(s, in, t, 1)
}

// floatOp compiles an operation of n floating-point operands.
func (c *compiler) floatOp(s *stmt, in *inst, t typ, n int) error {
	switch t.name {
	case "f32":
		return c.op32(s, in, t, n)
	case "f64":
		return c.op64(s, in, t, n)
	case "f16", "bf16", "f16x2", "bf16x2":
		return c.opHalf(s, in, t, n)
	}
	return fmt.Errorf("%s of %s isn't known", s.op, t.name)
}

func (c *compiler) op32(s *stmt, in *inst, t typ, n int) error {
	ftz, sat := s.take("ftz"), s.take("sat")
	round := s.one("rn", "approx", "full", "rz", "rm", "rp")
	var f func(d, a, b, c *v32)
	rounds := "rn" // what the operation may say of rounding
	must := false
	switch s.op {
	case "add":
		f, rounds = addF32, "rn rz"
		if round == "rz" {
			f = func32(addDown)
		}
	case "sub":
		f = subF32
	case "mul":
		f = mulF32
	case "fma", "mad":
		f, must = fmaF32, true
	case "div":
		rounds, must = "rn approx full", true
		in.count = countSpecial
		f = func32(func(a, b, _ float32) float32 { return a / b })
	case "min", "max":
		rounds = ""
		f = minF32
		if s.op == "max" {
			f = maxF32
		}
		if s.take("NaN") {
			g := minMaxF(s.op, true)
			f = func32(func(a, b, _ float32) float32 { return g(a, b) })
		}
	case "neg":
		rounds = ""
		f = each32(func(a, _, _ uint32) uint32 { return a ^ 1<<31 })
	case "abs":
		rounds = ""
		f = each32(func(a, _, _ uint32) uint32 { return a &^ (1 << 31) })
	case "copysign":
		rounds = ""
		f = each32(func(a, b, _ uint32) uint32 { return b&^(1<<31) | a&(1<<31) })
	default:
		g := approximations[s.op]
		rounds, must = "approx", true
		if s.op == "sqrt" || s.op == "rcp" {
			rounds = "rn approx"
		}
		f = func32(func(a, _, _ float32) float32 { return float32(g(float64(a))) })
		if s.op == "ex2" {
			f = ex2F32
		}
	}
	if round == "" && must {
		return fmt.Errorf("%s.f32 must say how it rounds", s.op)
	}
	if round != "" && !hasWord(rounds, round) {
		return fmt.Errorf("%s.%s.f32 isn't known", s.op, round)
	}
	if ftz {
		f = flushed(f, n)
	}
	if sat {
		f = saturated(f)
	}
	return c.set3(s, in, t, n, f, nil)
}

func hasWord(list, w string) bool {
	for len(list) > 0 {
		i := 0
		for i < len(list) && list[i] != ' ' {
			i++
		}
		if list[:i] == w {
			return true
		}
		list = list[min(i+1, len(list)):]
	}
	return false
}

func (c *compiler) op64(s *stmt, in *inst, t typ, n int) error {
	s.one("rn")
	var f func(a, b, c float64) float64
	switch s.op {
	case "add":
		f = func(a, b, _ float64) float64 { return a + b }
	case "sub":
		f = func(a, b, _ float64) float64 { return a - b }
	case "mul":
		f = func(a, b, _ float64) float64 { return a * b }
	case "fma", "mad":
		f = math.FMA
	case "div":
		f = func(a, b, _ float64) float64 { return a / b }
	case "sqrt":
		f = func(a, _, _ float64) float64 { return math.Sqrt(a) }
	case "rcp":
		f = func(a, _, _ float64) float64 { return 1 / a }
	case "neg":
		f = func(a, _, _ float64) float64 { return -a }
	case "abs":
		f = func(a, _, _ float64) float64 { return math.Abs(a) }
	case "min":
		f = func(a, b, _ float64) float64 {
			if a != a {
				return b
			}
			if b != b {
				return a
			}
			return min(a, b)
		}
	case "max":
		f = func(a, b, _ float64) float64 {
			if a != a {
				return b
			}
			if b != b {
				return a
			}
			return max(a, b)
		}
	default:
		return fmt.Errorf("%s.f64 isn't known", s.op)
	}
	return c.set3(s, in, t, n, nil, each64(func(a, b, c uint64) uint64 {
		x := f(math.Float64frombits(a), math.Float64frombits(b), math.Float64frombits(c))
		if x != x {
			return 0x7fffffffffffffff
		}
		return math.Float64bits(x)
	}))
}

// halfTable has the numbers of all f16.
var halfTable = func() *[1 << 16]float32 {
	var t [1 << 16]float32
	for i := range t {
		t[i] = format16.Half.Decode(uint16(i))
	}
	return &t
}()

// Decoding and encoding of the two 16-bit formats.
func decodeHalf(b uint32) float32  { return halfTable[uint16(b)] }
func decodeBrain(b uint32) float32 { return math.Float32frombits(b << 16) }

func encodeHalf(x float32) uint32 {
	if x != x {
		return nan16
	}
	return uint32(format16.Half.Encode(x))
}

func encodeBrain(x float32) uint32 {
	if x != x {
		return nan16
	}
	b := math.Float32bits(x)
	return (b + 0x7fff + b>>16&1) >> 16
}

// opHalf compiles operations on 16-bit numbers and pairs of them.
func (c *compiler) opHalf(s *stmt, in *inst, t typ, n int) error {
	ftz, sat, relu := s.take("ftz"), s.take("sat"), s.take("relu")
	s.one("rn")
	dec, enc := decodeHalf, encodeHalf
	if t.name[0] == 'b' {
		dec, enc = decodeBrain, encodeBrain
	}
	var f func(a, b, c float32) float32
	switch s.op {
	case "add":
		f = func(a, b, _ float32) float32 { return a + b }
	case "sub":
		f = func(a, b, _ float32) float32 { return a - b }
	case "mul":
		f = func(a, b, _ float32) float32 { return odd32(float64(a) * float64(b)) }
	case "fma":
		f = func(a, b, c float32) float32 {
			p, z := float64(a)*float64(b), float64(c)
			s := p + z
			if s == 0 || math.IsInf(s, 0) || s != s {
				return float32(s)
			}
			return odd32(toOdd(s, residue(p, z, s)))
		}
	case "min", "max":
		g := minMaxF(s.op, s.take("NaN"))
		f = func(a, b, _ float32) float32 { return g(a, b) }
	case "ex2", "tanh":
		if !s.take("approx") {
			return fmt.Errorf("%s.%s without .approx", s.op, t.name)
		}
		g := approximations[s.op]
		f = func(a, _, _ float32) float32 { return float32(g(float64(a))) }
	}
	one := func(a, b, c uint32) uint32 {
		x := f(dec(a), dec(b), dec(c))
		if sat {
			x = max(0, min(x, 1))
			if x != x {
				x = 0
			}
		}
		if relu && x <= 0 {
			x = 0
		}
		r := enc(x)
		if ftz && t.name[0] == 'f' && r&0x7c00 == 0 {
			r &= 0x8000
		}
		return r
	}
	switch s.op {
	case "neg":
		one = func(a, _, _ uint32) uint32 { return a&0xffff ^ 0x8000 }
	case "abs":
		one = func(a, _, _ uint32) uint32 { return a & 0x7fff }
	default:
		if f == nil {
			return fmt.Errorf("%s.%s isn't known", s.op, t.name)
		}
	}
	if t.bits == 16 {
		return c.set3(s, in, t, n, each32(one), nil)
	}
	return c.set3(s, in, t, n, each32(func(a, b, c uint32) uint32 {
		return one(a&0xffff, b&0xffff, c&0xffff) | one(a>>16, b>>16, c>>16)<<16
	}), nil)
}
