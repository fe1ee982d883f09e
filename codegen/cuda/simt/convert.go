package simt

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/gouache-ml/gouache/runtime/format16"
)

// cvt compiles conversions.
func cvt(c *compiler, s *stmt, in *inst) error {
	sat, ftz, relu := s.take("sat"), s.take("ftz"), s.take("relu")
	round := s.one("rn", "rz", "rna", "rm", "rp", "rni", "rzi", "rmi", "rpi")
	ts := s.types()
	if len(ts) != 2 {
		return fmt.Errorf("%d types for cvt", len(ts))
	}
	d, a := ts[0], ts[1]
	if d.name == "f16x2" || d.name == "bf16x2" {
		return cvtPair(c, s, in, d, a, round, relu)
	}
	if err := s.want(2); err != nil {
		return err
	}
	if d.kind == 'b' && d.name != "b16" || a.kind == 'b' || d.kind == 'p' || a.kind == 'p' {
		return fmt.Errorf("cvt.%s.%s isn't known", d.name, a.name)
	}
	if relu && !(d.half() && a.name == "f32") {
		return fmt.Errorf("cvt.relu.%s.%s isn't known", d.name, a.name)
	}
	src, err := c.srcWide(s.args[1], a)
	if err != nil {
		return err
	}
	dst, err := c.dstRef(s.args[0], d, true)
	if err != nil {
		return err
	}
	// Results narrower than the register fill it: with the sign if they have one.
	fill := d.bits
	if r := s.args[0].reg; r != nil {
		fill = r.typ.bits
	}
	whole := round == "rni" || round == "rzi" || round == "rmi" || round == "rpi"
	df, af := d.kind == 'f', a.kind == 'f'
	switch {
	case df && af && !whole && d.bits < a.bits && round == "", df && !af && round == "":
		return fmt.Errorf("cvt.%s.%s must say how it rounds", d.name, a.name)
	case !df && af && !whole:
		return fmt.Errorf("cvt.%s.%s must say how it rounds to an integer", d.name, a.name)
	case whole && !af, !df && !af && round != "", round == "rna" && d.name != "tf32":
		return fmt.Errorf("cvt.%s.%s.%s isn't known", round, d.name, a.name)
	case df && (round == "rm" || round == "rp"), round == "rz" && !(d.half() && a.name == "f32"):
		return fmt.Errorf("cvt.%s.%s.%s isn't known", round, d.name, a.name)
	}
	// The frequent ones have loops of their own.
	full := fill == d.bits && a.bits == srcBits(s.args[1], a)
	if full && !sat && !ftz && !relu {
		in.d, in.a = dst.slot, src.slot
		switch d.name + "." + a.name {
		case "u64.u32", "s64.u32":
			in.kind, in.b, in.c = kWide, in.a, c.literal(class64, 0)
			in.fwide = func(d *v64, a, _ *v32, _ *v64) {
				for l := range d {
					d[l] = uint64(a[l])
				}
			}
			return nil
		case "s64.s32", "u64.s32":
			in.kind, in.b, in.c = kWide, in.a, c.literal(class64, 0)
			in.fwide = func(d *v64, a, _ *v32, _ *v64) {
				for l := range d {
					d[l] = uint64(int64(int32(a[l])))
				}
			}
			return nil
		case "u32.u64", "s32.s64", "u32.s64", "s32.u64":
			in.kind = kNarrow
			in.fnarrow = func(d *v32, a *v64) {
				for l := range d {
					d[l] = uint32(a[l])
				}
			}
			return nil
		case "f32.s32":
			in.kind = k32
			in.f32 = func(d, a, _, _ *v32) {
				for l := range d {
					d[l] = math.Float32bits(float32(int32(a[l])))
				}
			}
			return nil
		case "f32.f16":
			in.kind = k32
			in.f32 = func(d, a, _, _ *v32) {
				for l := range d {
					d[l] = to32(halfTable[uint16(a[l])])
				}
			}
			return nil
		case "f32.bf16":
			in.kind = k32
			in.f32 = func(d, a, _, _ *v32) {
				for l := range d {
					d[l] = to32(from32(a[l] << 16))
				}
			}
			return nil
		case "f16.f32":
			if round == "rn" {
				in.kind = k32
				in.f32 = func(d, a, _, _ *v32) {
					for l := range d {
						d[l] = encodeHalf(from32(a[l]))
					}
				}
				return nil
			}
		case "bf16.f32":
			if round == "rn" {
				in.kind = k32
				in.f32 = func(d, a, _, _ *v32) {
					for l := range d {
						d[l] = encodeBrain(from32(a[l]))
					}
				}
				return nil
			}
		}
	}
	one := conversion(d, a, round, sat, ftz, relu)
	signed := d.kind == 's'
	in.fn = func(w *warp, _ *inst, mask uint32) {
		var x v64
		w.get(src, &x)
		for l := range x {
			v := one(x[l])
			if signed && fill > d.bits {
				v = uint64(int64(v<<(64-d.bits)) >> (64 - d.bits))
			}
			if fill < 64 {
				v &= 1<<fill - 1
			}
			x[l] = v
		}
		w.set(dst, &x, mask)
	}
	return nil
}

func srcBits(o operand, t typ) int {
	if o.kind == opReg {
		return o.reg.typ.bits
	}
	return t.bits
}

// conversion is one value's conversion; operands and results are bits.
func conversion(d, a typ, round string, sat, ftz, relu bool) func(uint64) uint64 {
	whole := func(x float64) float64 {
		switch round {
		case "rni":
			return math.RoundToEven(x)
		case "rzi":
			return math.Trunc(x)
		case "rmi":
			return math.Floor(x)
		case "rpi":
			return math.Ceil(x)
		}
		return x
	}
	if a.kind != 'f' {
		// from an integer
		value := func(b uint64) (int64, bool) { // the second: too large for int64
			b <<= 64 - a.bits
			if a.kind == 's' {
				return int64(b) >> (64 - a.bits), false
			}
			b >>= 64 - a.bits
			return int64(b), int64(b) < 0
		}
		if d.kind != 'f' {
			return func(b uint64) uint64 {
				v, big := value(b)
				if sat {
					lo, hi := int64(0), int64(-1)
					if d.kind == 's' {
						lo, hi = -1<<(d.bits-1), 1<<(d.bits-1)-1
					} else if d.bits < 64 {
						hi = 1<<d.bits - 1
					}
					switch {
					case big && hi != -1:
						v = hi
					case big:
					case v < lo:
						v = lo
					case hi != -1 && v > hi:
						v = hi
					}
				}
				return cut(uint64(v), d.bits)
			}
		}
		return func(b uint64) uint64 {
			v, big := value(b)
			switch d.name {
			case "f64":
				if big {
					return math.Float64bits(float64(uint64(v)))
				}
				return math.Float64bits(float64(v))
			case "f32":
				if big {
					return uint64(math.Float32bits(float32(uint64(v))))
				}
				return uint64(math.Float32bits(float32(v)))
			}
			// The 16-bit formats: to odd first, so that it rounds once.
			u, neg := uint64(v), v < 0 && !big
			if neg {
				u = -u
			}
			if n := bits.Len64(u); n > 24 {
				sticky := u&(1<<(n-24)-1) != 0
				u = u >> (n - 24)
				if sticky {
					u |= 1
				}
				return encode16(d, signedFloat(math.Ldexp(float64(u), n-24), neg))
			}
			return encode16(d, signedFloat(float64(u), neg))
		}
	}
	decode := func(b uint64) float64 {
		switch a.name {
		case "f16":
			return float64(decodeHalf(uint32(b)))
		case "bf16":
			return float64(decodeBrain(uint32(b)))
		case "f32":
			u := uint32(b)
			if ftz {
				u = flush(u)
			}
			return float64(from32(u))
		}
		return math.Float64frombits(b)
	}
	if d.kind != 'f' && d.kind != 'b' {
		// to an integer: what is too large becomes the largest, NaN becomes 0
		lo, hi := float64(0), math.Ldexp(1, d.bits)
		if d.kind == 's' {
			lo, hi = -math.Ldexp(1, d.bits-1), math.Ldexp(1, d.bits-1)
		}
		return func(b uint64) uint64 {
			x := whole(decode(b))
			switch {
			case x != x:
				return 0
			case x >= hi:
				if d.kind == 's' {
					return 1<<(d.bits-1) - 1
				}
				return cut(math.MaxUint64, d.bits)
			case x <= lo:
				if d.kind == 's' {
					return cut(uint64(1)<<(d.bits-1), d.bits)
				}
				return 0
			case x < 0:
				return cut(uint64(int64(x)), d.bits)
			}
			return cut(uint64(x), d.bits)
		}
	}
	return func(b uint64) uint64 {
		x := whole(decode(b))
		if sat {
			if !(x > 0) {
				x = 0
			}
			x = min(x, 1)
		}
		if relu && x <= 0 {
			x = 0
		}
		switch d.name {
		case "f64":
			if x != x {
				return 0x7fffffffffffffff
			}
			return math.Float64bits(x)
		case "f32":
			u := to32(float32(x))
			if ftz {
				u = flush(u)
			}
			return uint64(u)
		case "tf32":
			return uint64(roundTF32(to32(float32(x)), round))
		}
		if round == "rz" {
			return truncate16(d, float32(x))
		}
		return encode16(d, odd32(x))
	}
}

func signedFloat(x float64, neg bool) float32 {
	if neg {
		x = -x
	}
	return float32(x)
}

func cut(v uint64, n int) uint64 {
	if n >= 64 {
		return v
	}
	return v & (1<<n - 1)
}

func encode16(d typ, x float32) uint64 {
	if d.name[0] == 'b' {
		return uint64(encodeBrain(x))
	}
	return uint64(encodeHalf(x))
}

// truncate16 rounds towards zero.
func truncate16(d typ, x float32) uint64 {
	if x != x {
		return nan16
	}
	if d.name[0] == 'b' {
		return uint64(math.Float32bits(x) >> 16)
	}
	h := format16.Half.Encode(x)
	if y := format16.Half.Decode(h); math.Abs(float64(y)) > math.Abs(float64(x)) && h&0x7fff != 0 {
		h--
	}
	return uint64(h)
}

// roundTF32 rounds to the 10 bits of fraction that tf32 has.
func roundTF32(u uint32, round string) uint32 {
	if u&0x7f800000 == 0x7f800000 {
		return u
	}
	switch round {
	case "rna":
		u += 1 << 12
	case "rn":
		u += 1<<12 - 1 + u>>13&1
	}
	return u &^ (1<<13 - 1)
}

// cvtPair compiles the conversion of two f32, the first to the high half.
func cvtPair(c *compiler, s *stmt, in *inst, d, a typ, round string, relu bool) error {
	if err := s.want(3); err != nil {
		return err
	}
	if a.name != "f32" || round != "rn" && round != "rz" {
		return fmt.Errorf("cvt.%s.%s.%s isn't known", round, d.name, a.name)
	}
	var err error
	if in.a, err = c.src(s.args[1], a); err != nil {
		return err
	}
	if in.b, err = c.src(s.args[2], a); err != nil {
		return err
	}
	if in.d, err = c.dst(s.args[0], d); err != nil {
		return err
	}
	in.kind = k32
	enc := encodeHalf
	if d.name[0] == 'b' {
		enc = encodeBrain
	}
	if round == "rz" {
		enc = func(x float32) uint32 { return uint32(truncate16(d, x)) }
	}
	if relu {
		inner := enc
		enc = func(x float32) uint32 {
			if x <= 0 { // -0 as well
				x = 0
			}
			return inner(x)
		}
	}
	in.f32 = func(d, a, b, _ *v32) {
		for l := range d {
			d[l] = enc(from32(a[l]))<<16 | enc(from32(b[l]))
		}
	}
	return nil
}

// cvta compiles conversions between generic addresses and those of a space.
func cvta(c *compiler, s *stmt, in *inst) error {
	to := s.take("to")
	space := s.one("global", "shared", "shared::cta", "shared::cluster", "param", "param::entry", "const", "local")
	t, err := s.typ()
	if err != nil {
		return err
	}
	if err := s.want(2); err != nil {
		return err
	}
	if t.bits != 64 || space == "local" || space == "" {
		return fmt.Errorf("cvta.%s.%s isn't known", space, t.name)
	}
	if in.a, err = c.src(s.args[1], t); err != nil {
		return err
	}
	if in.d, err = c.dst(s.args[0], t); err != nil {
		return err
	}
	in.kind = kMov64
	if len(space) > 5 && space[:6] == "shared" {
		// Shared addresses are offsets; generic ones have the window's tag.
		tag := sharedWindow
		if to {
			tag = -tag
		}
		in.kind = k64
		in.f64 = func(d, a, _, _ *v64) {
			for l := range d {
				d[l] = a[l] + tag
			}
		}
	}
	return nil
}
