package simt

import (
	"fmt"
	"math/bits"
)

// set3 completes an instruction d = f(a, b, c) on operands of one type, of which
// there are n sources. The functions are for 32 and 64 bits; one may be nil.
func (c *compiler) set3(s *stmt, in *inst, t typ, n int, f32 func(d, a, b, c *v32), f64 func(d, a, b, c *v64)) error {
	if err := s.want(n + 1); err != nil {
		return err
	}
	var err error
	src := [3]*int32{&in.a, &in.b, &in.c}
	for i := range n {
		if *src[i], err = c.src(s.args[1+i], t); err != nil {
			return err
		}
	}
	if in.d, err = c.dst(s.args[0], t); err != nil {
		return err
	}
	if t.class() == class64 {
		in.kind, in.f64 = k64, f64
		if f64 == nil {
			return fmt.Errorf("%s of %s isn't known", s.op, t.name)
		}
		return nil
	}
	in.kind, in.f32 = k32, f32
	if f32 == nil {
		return fmt.Errorf("%s of %s isn't known", s.op, t.name)
	}
	return nil
}

// each32 makes an operation on 32 lanes of one on a single value. Where speed
// matters, operations have loops of their own.
func each32(f func(a, b, c uint32) uint32) func(d, a, b, c *v32) {
	return func(d, a, b, c *v32) {
		for l := range d {
			d[l] = f(a[l], b[l], c[l])
		}
	}
}

func each64(f func(a, b, c uint64) uint64) func(d, a, b, c *v64) {
	return func(d, a, b, c *v64) {
		for l := range d {
			d[l] = f(a[l], b[l], c[l])
		}
	}
}

// in16 is a 32-bit operation whose result is cut to 16 bits.
func in16(f func(d, a, b, c *v32)) func(d, a, b, c *v32) {
	return func(d, a, b, c *v32) {
		f(d, a, b, c)
		for l := range d {
			d[l] &= 0xffff
		}
	}
}

func add32(d, a, b, _ *v32) {
	for l := range d {
		d[l] = a[l] + b[l]
	}
}

func sub32(d, a, b, _ *v32) {
	for l := range d {
		d[l] = a[l] - b[l]
	}
}

func mul32(d, a, b, _ *v32) {
	for l := range d {
		d[l] = a[l] * b[l]
	}
}

func mad32(d, a, b, c *v32) {
	for l := range d {
		d[l] = a[l]*b[l] + c[l]
	}
}

func and32(d, a, b, _ *v32) {
	for l := range d {
		d[l] = a[l] & b[l]
	}
}

func or32(d, a, b, _ *v32) {
	for l := range d {
		d[l] = a[l] | b[l]
	}
}

func xor32(d, a, b, _ *v32) {
	for l := range d {
		d[l] = a[l] ^ b[l]
	}
}

func not32(d, a, _, _ *v32) {
	for l := range d {
		d[l] = ^a[l]
	}
}

func neg32(d, a, _, _ *v32) {
	for l := range d {
		d[l] = -a[l]
	}
}

func shl32(d, a, b, _ *v32) {
	for l := range d {
		d[l] = a[l] << b[l]
	}
}

func shrU32(d, a, b, _ *v32) {
	for l := range d {
		d[l] = a[l] >> b[l]
	}
}

func shrS32(d, a, b, _ *v32) {
	for l := range d {
		d[l] = uint32(int32(a[l]) >> b[l])
	}
}

func minU32(d, a, b, _ *v32) {
	for l := range d {
		d[l] = min(a[l], b[l])
	}
}

func maxU32(d, a, b, _ *v32) {
	for l := range d {
		d[l] = max(a[l], b[l])
	}
}

func minS32(d, a, b, _ *v32) {
	for l := range d {
		d[l] = uint32(min(int32(a[l]), int32(b[l])))
	}
}

func maxS32(d, a, b, _ *v32) {
	for l := range d {
		d[l] = uint32(max(int32(a[l]), int32(b[l])))
	}
}

// Division by zero has no defined result; the GPU's is all ones.
func divU32(d, a, b, _ *v32) {
	for l := range d {
		if b[l] == 0 {
			d[l] = 1<<32 - 1
		} else {
			d[l] = a[l] / b[l]
		}
	}
}

func remU32(d, a, b, _ *v32) {
	for l := range d {
		if b[l] == 0 {
			d[l] = a[l]
		} else {
			d[l] = a[l] % b[l]
		}
	}
}

func divS32(d, a, b, _ *v32) {
	for l := range d {
		if b[l] == 0 {
			d[l] = 1<<32 - 1
		} else {
			d[l] = uint32(int32(a[l]) / int32(b[l]))
		}
	}
}

func remS32(d, a, b, _ *v32) {
	for l := range d {
		if b[l] == 0 {
			d[l] = a[l]
		} else {
			d[l] = uint32(int32(a[l]) % int32(b[l]))
		}
	}
}

func add64(d, a, b, _ *v64) {
	for l := range d {
		d[l] = a[l] + b[l]
	}
}

func sub64(d, a, b, _ *v64) {
	for l := range d {
		d[l] = a[l] - b[l]
	}
}

func mul64(d, a, b, _ *v64) {
	for l := range d {
		d[l] = a[l] * b[l]
	}
}

func mad64(d, a, b, c *v64) {
	for l := range d {
		d[l] = a[l]*b[l] + c[l]
	}
}

func mulWideU32(d *v64, a, b *v32, _ *v64) {
	for l := range d {
		d[l] = uint64(a[l]) * uint64(b[l])
	}
}

func mulWideS32(d *v64, a, b *v32, _ *v64) {
	for l := range d {
		d[l] = uint64(int64(int32(a[l])) * int64(int32(b[l])))
	}
}

func madWideU32(d *v64, a, b *v32, c *v64) {
	for l := range d {
		d[l] = uint64(a[l])*uint64(b[l]) + c[l]
	}
}

func madWideS32(d *v64, a, b *v32, c *v64) {
	for l := range d {
		d[l] = uint64(int64(int32(a[l]))*int64(int32(b[l]))) + c[l]
	}
}

// s16 is the sign extension of 16 bits.
func s16(v uint32) int32 { return int32(int16(v)) }

// addSub compiles add and sub, of integers and floating-point numbers.
func addSub(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	if t.kind == 'f' {
		return c.floatOp(s, in, t, 2)
	}
	f32, f64 := add32, add64
	if s.op == "sub" {
		f32, f64 = sub32, sub64
	}
	if s.take("sat") {
		if t.name != "s32" {
			return fmt.Errorf("saturated %s", t.name)
		}
		sign := int64(1)
		if s.op == "sub" {
			sign = -1
		}
		f32 = each32(func(a, b, _ uint32) uint32 {
			v := int64(int32(a)) + sign*int64(int32(b))
			return uint32(min(max(v, -1<<31), 1<<31-1))
		})
	}
	if t.bits == 16 {
		f32 = in16(f32)
	}
	if t.kind == 'b' {
		return fmt.Errorf("%s of %s", s.op, t.name)
	}
	return c.set3(s, in, t, 2, f32, f64)
}

// mulMad compiles mul and mad, of integers and floating-point numbers.
func mulMad(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	n := 2
	if s.op == "mad" {
		n = 3
	}
	if t.kind == 'f' {
		return c.floatOp(s, in, t, n)
	}
	if t.kind == 'b' {
		return fmt.Errorf("%s of %s", s.op, t.name)
	}
	signed := t.kind == 's'
	switch s.one("lo", "hi", "wide") {
	case "lo":
		f32, f64 := mul32, mul64
		if n == 3 {
			f32, f64 = mad32, mad64
		}
		if t.bits == 16 {
			f32 = in16(f32)
		}
		return c.set3(s, in, t, n, f32, f64)
	case "hi":
		f32 := each32(func(a, b, c uint32) uint32 { return uint32(uint64(a)*uint64(b)>>32) + c })
		f64 := each64(func(a, b, c uint64) uint64 { h, _ := bits.Mul64(a, b); return h + c })
		if signed {
			f32 = each32(func(a, b, c uint32) uint32 { return uint32(int64(int32(a))*int64(int32(b))>>32) + c })
			f64 = each64(func(a, b, c uint64) uint64 {
				h, _ := bits.Mul64(a, b)
				return h - b*(a>>63) - a*(b>>63) + c
			})
		}
		if t.bits == 16 {
			f32 = each32(func(a, b, c uint32) uint32 { return (a*b>>16 + c) & 0xffff })
			if signed {
				f32 = each32(func(a, b, c uint32) uint32 { return (uint32(s16(a)*s16(b)>>16) + c) & 0xffff })
			}
		}
		if n == 2 {
			// The third operand doesn't exist: read a register that is zero.
			in.c = c.literal(t.class(), 0)
		}
		return c.set3(s, in, t, n, f32, f64)
	case "wide":
		if err := s.want(n + 1); err != nil {
			return err
		}
		wt := types[string(t.kind)+fmt.Sprint(t.bits*2)]
		if in.a, err = c.src(s.args[1], t); err != nil {
			return err
		}
		if in.b, err = c.src(s.args[2], t); err != nil {
			return err
		}
		in.c = c.literal(wt.class(), 0)
		if n == 3 {
			if in.c, err = c.src(s.args[3], wt); err != nil {
				return err
			}
		}
		if in.d, err = c.dst(s.args[0], wt); err != nil {
			return err
		}
		switch {
		case t.bits == 16 && signed:
			in.kind, in.f32 = k32, each32(func(a, b, c uint32) uint32 { return uint32(s16(a)*s16(b)) + c })
		case t.bits == 16:
			in.kind, in.f32 = k32, each32(func(a, b, c uint32) uint32 { return a*b + c })
		case t.bits != 32:
			return fmt.Errorf("wide product of %s", t.name)
		case n == 2 && signed:
			in.kind, in.fwide = kWide, mulWideS32
		case n == 2:
			in.kind, in.fwide = kWide, mulWideU32
		case signed:
			in.kind, in.fwide = kWide, madWideS32
		default:
			in.kind, in.fwide = kWide, madWideU32
		}
		return nil
	}
	return fmt.Errorf("%s without .lo, .hi or .wide", s.op)
}

// divRem compiles div and rem.
func divRem(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	if t.kind == 'f' {
		return c.floatOp(s, in, t, 2)
	}
	in.count = countSpecial
	signed, rem := t.kind == 's', s.op == "rem"
	var f32 func(d, a, b, c *v32)
	var f64 func(a, b, c uint64) uint64
	switch {
	case signed && rem:
		f32, f64 = remS32, func(a, b, _ uint64) uint64 {
			if b == 0 {
				return a
			}
			return uint64(int64(a) % int64(b))
		}
	case signed:
		f32, f64 = divS32, func(a, b, _ uint64) uint64 {
			if b == 0 {
				return 1<<64 - 1
			}
			return uint64(int64(a) / int64(b))
		}
	case rem:
		f32, f64 = remU32, func(a, b, _ uint64) uint64 {
			if b == 0 {
				return a
			}
			return a % b
		}
	default:
		f32, f64 = divU32, func(a, b, _ uint64) uint64 {
			if b == 0 {
				return 1<<64 - 1
			}
			return a / b
		}
	}
	if t.bits == 16 {
		f := f32
		if signed {
			f32 = func(d, a, b, c *v32) {
				var x, y v32
				for l := range x {
					x[l], y[l] = uint32(s16(a[l])), uint32(s16(b[l]))
				}
				f(d, &x, &y, c)
			}
		}
		f32 = in16(f32)
	}
	if t.kind == 'b' {
		return fmt.Errorf("%s of %s", s.op, t.name)
	}
	return c.set3(s, in, t, 2, f32, each64(f64))
}

// minMax compiles min and max.
func minMax(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	if t.kind == 'f' {
		return c.floatOp(s, in, t, 2)
	}
	var f32 func(d, a, b, c *v32)
	var f64 func(a, b, c uint64) uint64
	switch {
	case t.kind == 's' && s.op == "min":
		f32, f64 = minS32, func(a, b, _ uint64) uint64 { return uint64(min(int64(a), int64(b))) }
		if t.bits == 16 {
			f32 = each32(func(a, b, _ uint32) uint32 { return uint32(min(s16(a), s16(b))) & 0xffff })
		}
	case t.kind == 's':
		f32, f64 = maxS32, func(a, b, _ uint64) uint64 { return uint64(max(int64(a), int64(b))) }
		if t.bits == 16 {
			f32 = each32(func(a, b, _ uint32) uint32 { return uint32(max(s16(a), s16(b))) & 0xffff })
		}
	case t.kind == 'b':
		return fmt.Errorf("%s of %s", s.op, t.name)
	case s.op == "min":
		f32, f64 = minU32, func(a, b, _ uint64) uint64 { return min(a, b) }
	default:
		f32, f64 = maxU32, func(a, b, _ uint64) uint64 { return max(a, b) }
	}
	return c.set3(s, in, t, 2, f32, each64(f64))
}

// negAbs compiles neg and abs.
func negAbs(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	if t.kind == 'f' {
		return c.floatOp(s, in, t, 1)
	}
	if t.kind != 's' {
		return fmt.Errorf("%s of %s", s.op, t.name)
	}
	f32, f64 := neg32, each64(func(a, _, _ uint64) uint64 { return -a })
	if s.op == "abs" {
		f32 = each32(func(a, _, _ uint32) uint32 {
			if int32(a) < 0 {
				return -a
			}
			return a
		})
		f64 = each64(func(a, _, _ uint64) uint64 {
			if int64(a) < 0 {
				return -a
			}
			return a
		})
	}
	if t.bits == 16 {
		f := f32
		f32 = in16(func(d, a, b, c *v32) {
			var x v32
			for l := range x {
				x[l] = uint32(s16(a[l]))
			}
			f(d, &x, b, c)
		})
	}
	return c.set3(s, in, t, 1, f32, f64)
}

// logic compiles and, or, xor, not, also of predicates.
func logic(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	n := 2
	if s.op == "not" {
		n = 1
	}
	if t.kind == 'p' {
		return predLogic(c, s, in, n)
	}
	if t.kind != 'b' {
		return fmt.Errorf("%s of %s", s.op, t.name)
	}
	f32 := map[string]func(d, a, b, c *v32){"and": and32, "or": or32, "xor": xor32, "not": not32}[s.op]
	if t.bits == 16 && s.op == "not" {
		f32 = in16(f32)
	}
	f64 := map[string]func(a, b, c uint64) uint64{
		"and": func(a, b, _ uint64) uint64 { return a & b },
		"or":  func(a, b, _ uint64) uint64 { return a | b },
		"xor": func(a, b, _ uint64) uint64 { return a ^ b },
		"not": func(a, _, _ uint64) uint64 { return ^a },
	}[s.op]
	return c.set3(s, in, t, n, f32, each64(f64))
}

// predicate is a source predicate, or a constant one.
type predicate struct {
	slot int32
	not  bool
}

func (p predicate) get(w *warp) uint32 {
	if p.not {
		return ^w.p[p.slot]
	}
	return w.p[p.slot]
}

func (w *warp) setPred(slot int32, v, mask uint32) { w.p[slot] = w.p[slot]&^mask | v&mask }

func (c *compiler) predicate(o operand) (predicate, error) {
	if o.kind == opInt && o.value <= 1 && !o.not {
		return predicate{slot: c.literal(classP, o.value)}, nil
	}
	slot, not, err := c.pred(o)
	return predicate{slot, not}, err
}

func predLogic(c *compiler, s *stmt, in *inst, n int) error {
	if err := s.want(n + 1); err != nil {
		return err
	}
	var a, b predicate
	var err error
	if a, err = c.predicate(s.args[1]); err != nil {
		return err
	}
	if n == 2 {
		if b, err = c.predicate(s.args[2]); err != nil {
			return err
		}
	}
	if in.d, err = c.dst(s.args[0], types["pred"]); err != nil {
		return err
	}
	f := map[string]func(a, b uint32) uint32{
		"and": func(a, b uint32) uint32 { return a & b },
		"or":  func(a, b uint32) uint32 { return a | b },
		"xor": func(a, b uint32) uint32 { return a ^ b },
		"not": func(a, _ uint32) uint32 { return ^a },
		"mov": func(a, _ uint32) uint32 { return a },
	}[s.op]
	in.fn = func(w *warp, in *inst, mask uint32) { w.setPred(in.d, f(a.get(w), b.get(w)), mask) }
	return nil
}

// shift compiles shl and shr, whose second operand is always 32 bits; shifts by
// the width or more leave nothing but the sign.
func shift(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	if err := s.want(3); err != nil {
		return err
	}
	if t.kind == 'f' || s.op == "shl" && t.kind != 'b' {
		return fmt.Errorf("%s of %s", s.op, t.name)
	}
	if in.a, err = c.src(s.args[1], t); err != nil {
		return err
	}
	if in.b, err = c.src(s.args[2], types["u32"]); err != nil {
		return err
	}
	if in.d, err = c.dst(s.args[0], t); err != nil {
		return err
	}
	signed := t.kind == 's'
	if t.class() == class32 {
		in.kind = k32
		switch {
		case s.op == "shl":
			in.f32 = shl32
		case signed && t.bits == 16:
			in.f32 = each32(func(a, b, _ uint32) uint32 { return uint32(s16(a)>>b) & 0xffff })
		case signed:
			in.f32 = shrS32
		default:
			in.f32 = shrU32
		}
		if t.bits == 16 && s.op == "shl" {
			in.f32 = in16(in.f32)
		}
		return nil
	}
	op := s.op
	in.fn = func(w *warp, in *inst, mask uint32) {
		d, a, b := &w.tmp64, &w.r64[in.a], &w.r32[in.b]
		switch {
		case op == "shl":
			for l := range d {
				d[l] = a[l] << b[l]
			}
		case signed:
			for l := range d {
				d[l] = uint64(int64(a[l]) >> b[l])
			}
		default:
			for l := range d {
				d[l] = a[l] >> b[l]
			}
		}
		blend64(&w.r64[in.d], d, mask)
	}
	return nil
}

// mov compiles moves, with packing and unpacking.
func mov(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	if err := s.want(2); err != nil {
		return err
	}
	if t.kind == 'p' {
		return predLogic(c, s, in, 1)
	}
	d, a := s.args[0], s.args[1]
	switch {
	case d.kind == opVec || a.kind == opVec:
		return c.pack(in, t, d, a)
	}
	if in.a, err = c.src(a, t); err != nil {
		return err
	}
	if in.d, err = c.dst(d, t); err != nil {
		return err
	}
	in.kind = kMov32
	if t.class() == class64 {
		in.kind = kMov64
	}
	return nil
}

// pack compiles mov.b32 d, {a, b} and its reverse.
func (c *compiler) pack(in *inst, t typ, d, a operand) error {
	if t.kind != 'b' {
		return fmt.Errorf("packing of %s", t.name)
	}
	v, one := a, d
	if d.kind == opVec {
		v, one = d, a
	}
	n := len(v.list)
	if one.kind == opVec || n != 2 && n != 4 || t.bits/n < 8 {
		return fmt.Errorf("packing of %d registers into %d bits", n, t.bits)
	}
	part := types["b"+fmt.Sprint(t.bits/n)]
	parts := make([]ref, n)
	for i, e := range v.list {
		var err error
		if d.kind == opVec {
			parts[i], err = c.dstRef(e, part, false)
		} else {
			parts[i].class = part.class()
			parts[i].slot, err = c.src(e, part)
		}
		if err != nil {
			return err
		}
	}
	sh, m := part.bits, uint64(1)<<part.bits-1
	if d.kind == opVec {
		whole, err := c.src(a, t)
		if err != nil {
			return err
		}
		src := ref{t.class(), whole}
		in.fn = func(w *warp, _ *inst, mask uint32) {
			var x v64
			w.get(src, &x)
			for i, p := range parts {
				for q := mask; q != 0; q &= q - 1 {
					l := bits.TrailingZeros32(q)
					w.setLane(p, l, x[l]>>(i*sh)&m)
				}
			}
		}
		return nil
	}
	whole, err := c.dst(d, t)
	if err != nil {
		return err
	}
	dst := ref{t.class(), whole}
	in.fn = func(w *warp, _ *inst, mask uint32) {
		var x, y v64
		for i, p := range parts {
			w.get(p, &y)
			for l := range x {
				x[l] |= (y[l] & m) << (i * sh)
			}
		}
		w.set(dst, &x, mask)
	}
	return nil
}

// get reads a register of up to 64 bits.
func (w *warp) get(r ref, v *v64) {
	switch r.class {
	case class32:
		for l, x := range &w.r32[r.slot] {
			v[l] = uint64(x)
		}
	case class64:
		*v = w.r64[r.slot]
	default:
		for l := range v {
			v[l] = uint64(w.p[r.slot] >> l & 1)
		}
	}
}

// set writes lanes of a register.
func (w *warp) set(r ref, v *v64, mask uint32) {
	if r.class == class64 {
		blend64(&w.r64[r.slot], v, mask)
		return
	}
	d := &w.r32[r.slot]
	for ; mask != 0; mask &= mask - 1 {
		l := bits.TrailingZeros32(mask)
		d[l] = uint32(v[l])
	}
}

func (w *warp) setLane(r ref, l int, v uint64) {
	if r.class == class64 {
		w.r64[r.slot][l] = v
	} else {
		w.r32[r.slot][l] = uint32(v)
	}
}

func (w *warp) getLane(r ref, l int) uint64 {
	if r.class == class64 {
		return w.r64[r.slot][l]
	}
	return uint64(w.r32[r.slot][l])
}

// bitOps compiles popc, clz, brev, bfe, bfi, prmt, lop3 and their kin.
func bitOps(c *compiler, s *stmt, in *inst) error {
	if s.op == "lop3" || s.op == "shf" {
		return lop3shf(c, s, in)
	}
	t, err := s.typ()
	if err != nil {
		return err
	}
	switch s.op {
	case "popc", "clz", "bfind":
		if err := s.want(2); err != nil {
			return err
		}
		if in.a, err = c.src(s.args[1], t); err != nil {
			return err
		}
		if in.d, err = c.dst(s.args[0], types["u32"]); err != nil {
			return err
		}
		if t.class() == class64 {
			in.kind = kNarrow
			switch s.op {
			case "popc":
				in.fnarrow = func(d *v32, a *v64) {
					for l := range d {
						d[l] = uint32(bits.OnesCount64(a[l]))
					}
				}
			case "clz":
				in.fnarrow = func(d *v32, a *v64) {
					for l := range d {
						d[l] = uint32(bits.LeadingZeros64(a[l]))
					}
				}
			default:
				return fmt.Errorf("bfind of %s isn't known", t.name)
			}
			return nil
		}
		in.kind = k32
		switch {
		case s.op == "popc":
			in.f32 = each32(func(a, _, _ uint32) uint32 { return uint32(bits.OnesCount32(a)) })
		case s.op == "clz":
			in.f32 = each32(func(a, _, _ uint32) uint32 { return uint32(bits.LeadingZeros32(a)) })
		case t.name == "u32":
			in.f32 = each32(func(a, _, _ uint32) uint32 { return uint32(31 - bits.LeadingZeros32(a)) })
		default:
			return fmt.Errorf("bfind of %s isn't known", t.name)
		}
		return nil
	case "brev":
		return c.set3(s, in, t, 1, each32(func(a, _, _ uint32) uint32 { return bits.Reverse32(a) }),
			each64(func(a, _, _ uint64) uint64 { return bits.Reverse64(a) }))
	case "bfe":
		if err := s.want(4); err != nil {
			return err
		}
		if t.bits != 32 {
			return fmt.Errorf("bfe of %s isn't known", t.name)
		}
		signed := t.kind == 's'
		return c.set3(s, in, types["b32"], 3, each32(func(a, b, n uint32) uint32 {
			b, n = b&255, n&255
			if n == 0 {
				return 0
			}
			if b > 31 {
				if signed {
					return uint32(int32(a) >> 31)
				}
				return 0
			}
			if b+n > 32 {
				n = 32 - b
			}
			v := a >> b << (32 - n)
			if signed {
				return uint32(int32(v) >> (32 - n))
			}
			return v >> (32 - n)
		}), nil)
	case "bfi":
		if err := s.want(5); err != nil {
			return err
		}
		if t.name != "b32" {
			return fmt.Errorf("bfi of %s isn't known", t.name)
		}
		var src [4]int32
		for i, ty := range []typ{t, t, types["u32"], types["u32"]} {
			if src[i], err = c.src(s.args[1+i], ty); err != nil {
				return err
			}
		}
		if in.d, err = c.dst(s.args[0], t); err != nil {
			return err
		}
		in.fn = func(w *warp, in *inst, mask uint32) {
			a, b, at, n := &w.r32[src[0]], &w.r32[src[1]], &w.r32[src[2]], &w.r32[src[3]]
			for l := range w.tmp32 {
				p, k := at[l]&255, n[l]&255
				m := uint32(1)<<k - 1
				if k > 31 {
					m = 1<<32 - 1
				}
				m <<= p
				w.tmp32[l] = b[l]&^m | a[l]<<p&m
			}
			blend32(&w.r32[in.d], &w.tmp32, mask)
		}
		return nil
	case "prmt":
		if t.name != "b32" {
			return fmt.Errorf("prmt of %s isn't known", t.name)
		}
		return c.set3(s, in, t, 3, each32(func(a, b, sel uint32) uint32 {
			v, d := uint64(b)<<32|uint64(a), uint32(0)
			for i := range 4 {
				n := sel >> (4 * i) & 15
				x := uint32(v>>(8*(n&7))) & 255
				if n&8 != 0 {
					x = uint32(int32(int8(x))>>7) & 255
				}
				d |= x << (8 * i)
			}
			return d
		}), nil)
	}
	return fmt.Errorf("%s isn't known", s.op)
}

func lop3shf(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	if t.name != "b32" {
		return fmt.Errorf("%s of %s isn't known", s.op, t.name)
	}
	if s.op == "shf" {
		left := s.one("l", "r") == "l"
		clamp := s.one("wrap", "clamp") == "clamp"
		return c.set3(s, in, t, 3, each32(func(a, b, n uint32) uint32 {
			if clamp {
				n = min(n, 32)
			} else {
				n &= 31
			}
			v := uint64(b)<<32 | uint64(a)
			if left {
				return uint32(v << n >> 32)
			}
			return uint32(v >> n)
		}), nil)
	}
	if err := s.want(5); err != nil {
		return err
	}
	if s.args[4].kind != opInt || s.args[4].value > 255 {
		return fmt.Errorf("the table of lop3 is no byte")
	}
	lut := uint32(s.args[4].value)
	s.args = s.args[:4]
	return c.set3(s, in, t, 3, each32(func(a, b, c uint32) uint32 {
		var d uint32
		for i := range uint32(8) {
			if lut>>i&1 == 0 {
				continue
			}
			x, y, z := a, b, c
			if i&4 == 0 {
				x = ^x
			}
			if i&2 == 0 {
				y = ^y
			}
			if i&1 == 0 {
				z = ^z
			}
			d |= x & y & z
		}
		return d
	}), nil)
}
