package simt

import (
	"fmt"
	"math"
)

// Results of a comparison, as bits: a condition is the set of those it holds for.
const (
	isEqual = 1 << iota
	isGreater
	isLess
	isUnordered
)

var conditions = map[string]int{
	"eq": isEqual, "ne": isGreater | isLess, "lt": isLess, "le": isLess | isEqual, "gt": isGreater, "ge": isGreater | isEqual,
	"lo": isLess, "ls": isLess | isEqual, "hi": isGreater, "hs": isGreater | isEqual,
	"equ": isEqual | isUnordered, "neu": isGreater | isLess | isUnordered, "ltu": isLess | isUnordered, "leu": isLess | isEqual | isUnordered,
	"gtu": isGreater | isUnordered, "geu": isGreater | isEqual | isUnordered,
	"num": isEqual | isGreater | isLess, "nan": isUnordered,
}

// setp compiles comparisons.
func setp(c *compiler, s *stmt, in *inst) error {
	name := ""
	for k := range conditions {
		if s.take(k) {
			name = k
		}
	}
	if name == "" {
		return fmt.Errorf("setp without a comparison")
	}
	cond := conditions[name]
	combine := s.one("and", "or", "xor")
	ftz := s.take("ftz")
	t, err := s.typ()
	if err != nil {
		return err
	}
	float := t.kind == 'f'
	switch {
	case !float && (cond&isUnordered != 0 || name == "num"),
		float && (name == "lo" || name == "ls" || name == "hi" || name == "hs"),
		t.kind == 'b' && name != "eq" && name != "ne",
		t.kind == 's' && (name == "lo" || name == "ls" || name == "hi" || name == "hs"),
		t.kind == 'p', t.bits == 8, t.name == "f16x2", t.name == "bf16x2", t.name == "tf32":
		return fmt.Errorf("setp.%s.%s isn't known", name, t.name)
	}
	n := 3
	if combine != "" {
		n = 4
	}
	if err := s.want(n); err != nil {
		return err
	}
	if in.a, err = c.src(s.args[1], t); err != nil {
		return err
	}
	if in.b, err = c.src(s.args[2], t); err != nil {
		return err
	}
	if in.d, err = c.dst(s.args[0], types["pred"]); err != nil {
		return err
	}
	if t.class() == class64 {
		in.kind, in.fset64 = kSet64, compare64(t, cond)
	} else {
		in.kind, in.fset32 = kSet32, compare32(t, cond, ftz)
	}
	if combine == "" && s.args[0].pair == nil {
		return nil
	}
	// p = (a cmp b) op c, q = !(a cmp b) op c
	var with predicate
	if combine != "" {
		if with, err = c.predicate(s.args[3]); err != nil {
			return err
		}
	}
	q := int32(-1)
	if s.args[0].pair != nil {
		if q, err = c.dst(*s.args[0].pair, types["pred"]); err != nil {
			return err
		}
	}
	op := func(r, c uint32) uint32 { return r }
	switch combine {
	case "and":
		op = func(r, c uint32) uint32 { return r & c }
	case "or":
		op = func(r, c uint32) uint32 { return r | c }
	case "xor":
		op = func(r, c uint32) uint32 { return r ^ c }
	}
	wide := in.kind == kSet64
	in.kind = kFn
	in.fn = func(w *warp, in *inst, mask uint32) {
		var r uint32
		if wide {
			r = in.fset64(&w.r64[in.a], &w.r64[in.b])
		} else {
			r = in.fset32(&w.r32[in.a], &w.r32[in.b])
		}
		other := uint32(0)
		if combine != "" {
			other = with.get(w)
		}
		w.setPred(in.d, op(r, other), mask)
		if q >= 0 {
			w.setPred(q, op(^r, other), mask)
		}
	}
	return nil
}

func eq32(a, b *v32) (r uint32) {
	for l := range a {
		if a[l] == b[l] {
			r |= 1 << l
		}
	}
	return
}

func ltU32(a, b *v32) (r uint32) {
	for l := range a {
		if a[l] < b[l] {
			r |= 1 << l
		}
	}
	return
}

func ltS32(a, b *v32) (r uint32) {
	for l := range a {
		if int32(a[l]) < int32(b[l]) {
			r |= 1 << l
		}
	}
	return
}

func ltF32(a, b *v32) (r uint32) {
	for l := range a {
		if from32(a[l]) < from32(b[l]) {
			r |= 1 << l
		}
	}
	return
}

func leF32(a, b *v32) (r uint32) {
	for l := range a {
		if from32(a[l]) <= from32(b[l]) {
			r |= 1 << l
		}
	}
	return
}

func compare32(t typ, cond int, ftz bool) func(a, b *v32) uint32 {
	if t.name == "f32" && !ftz {
		switch cond {
		case isLess:
			return ltF32
		case isLess | isEqual:
			return leF32
		case isGreater:
			return func(a, b *v32) uint32 { return ltF32(b, a) }
		case isGreater | isEqual:
			return func(a, b *v32) uint32 { return leF32(b, a) }
		}
	}
	if t.kind != 'f' && !(t.kind == 's' && t.bits < 32) {
		lt := ltU32
		if t.kind == 's' {
			lt = ltS32
		}
		switch cond {
		case isEqual:
			return eq32
		case isGreater | isLess:
			return func(a, b *v32) uint32 { return ^eq32(a, b) }
		case isLess:
			return lt
		case isGreater:
			return func(a, b *v32) uint32 { return lt(b, a) }
		case isLess | isEqual:
			return func(a, b *v32) uint32 { return ^lt(b, a) }
		default:
			return func(a, b *v32) uint32 { return ^lt(a, b) }
		}
	}
	var one func(a, b uint32) int
	switch t.name {
	case "s16":
		one = func(a, b uint32) int { return relation(int64(s16(a)), int64(s16(b))) }
	case "s8":
		one = func(a, b uint32) int { return relation(int64(int8(a)), int64(int8(b))) }
	case "f16":
		one = func(a, b uint32) int { return orderF(float64(decodeHalf(a)), float64(decodeHalf(b))) }
	case "bf16":
		one = func(a, b uint32) int { return orderF(float64(decodeBrain(a)), float64(decodeBrain(b))) }
	default:
		one = func(a, b uint32) int {
			if ftz {
				a, b = flush(a), flush(b)
			}
			return orderF(float64(from32(a)), float64(from32(b)))
		}
	}
	return func(a, b *v32) (r uint32) {
		for l := range a {
			if one(a[l], b[l])&cond != 0 {
				r |= 1 << l
			}
		}
		return
	}
}

func compare64(t typ, cond int) func(a, b *v64) uint32 {
	one := func(a, b uint64) int { return relation(a, b) }
	switch t.kind {
	case 's':
		one = func(a, b uint64) int { return relation(int64(a), int64(b)) }
	case 'f':
		one = func(a, b uint64) int { return orderF(math.Float64frombits(a), math.Float64frombits(b)) }
	}
	return func(a, b *v64) (r uint32) {
		for l := range a {
			if one(a[l], b[l])&cond != 0 {
				r |= 1 << l
			}
		}
		return
	}
}

func relation[T int64 | uint64](a, b T) int {
	switch {
	case a < b:
		return isLess
	case a > b:
		return isGreater
	}
	return isEqual
}

func orderF(a, b float64) int {
	switch {
	case a < b:
		return isLess
	case a > b:
		return isGreater
	case a == b:
		return isEqual
	}
	return isUnordered
}

// selp compiles choices.
func selp(c *compiler, s *stmt, in *inst) error {
	t, err := s.typ()
	if err != nil {
		return err
	}
	if err := s.want(4); err != nil {
		return err
	}
	if in.a, err = c.src(s.args[1], t); err != nil {
		return err
	}
	if in.b, err = c.src(s.args[2], t); err != nil {
		return err
	}
	if in.c, in.notC, err = c.pred(s.args[3]); err != nil {
		return err
	}
	if in.d, err = c.dst(s.args[0], t); err != nil {
		return err
	}
	in.kind = kSel32
	if t.class() == class64 {
		in.kind = kSel64
	}
	return nil
}

// testp compiles tests of one number.
func testp(c *compiler, s *stmt, in *inst) error {
	what := s.one("finite", "infinite", "number", "notanumber", "normal", "subnormal")
	t, err := s.typ()
	if err != nil {
		return err
	}
	if t.name != "f32" || what == "" {
		return fmt.Errorf("testp.%s.%s isn't known", what, t.name)
	}
	if err := s.want(2); err != nil {
		return err
	}
	if in.a, err = c.src(s.args[1], t); err != nil {
		return err
	}
	in.b = in.a
	if in.d, err = c.dst(s.args[0], types["pred"]); err != nil {
		return err
	}
	test := map[string]func(e, f uint32) bool{
		"finite":     func(e, f uint32) bool { return e != 255 },
		"infinite":   func(e, f uint32) bool { return e == 255 && f == 0 },
		"number":     func(e, f uint32) bool { return e != 255 || f == 0 },
		"notanumber": func(e, f uint32) bool { return e == 255 && f != 0 },
		"normal":     func(e, f uint32) bool { return e != 255 && e != 0 },
		"subnormal":  func(e, f uint32) bool { return e == 0 && f != 0 },
	}[what]
	in.kind = kSet32
	in.fset32 = func(a, _ *v32) (r uint32) {
		for l := range a {
			if test(a[l]>>23&255, a[l]&(1<<23-1)) {
				r |= 1 << l
			}
		}
		return
	}
	return nil
}
