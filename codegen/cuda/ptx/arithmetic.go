package ptx

import (
	"github.com/llir/llvm/ir"
	"github.com/llir/llvm/ir/enum"
	"github.com/llir/llvm/ir/types"
	"github.com/llir/llvm/ir/value"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
)

// binary is an operation on integers; name ends with the type's letter.
func (s *selection) binary(v, x, y value.Value, name string) {
	if !s.alike(x, y) {
		return
	}
	t := x.Type()
	if _, ok := t.(*types.IntType); !ok {
		s.fail("%s of %s: operations take scalars", name, t)
		return
	}
	c := s.class(t)
	if c == pred {
		s.logic(v, x, y, name)
		return
	}
	a, b := s.operand(x), s.operand(y)
	signed := name == "div.s" || name == "rem.s"
	if isByte(t) && signed {
		a, b = s.signed8(a), s.signed8(b)
	}
	if !b.isReg() {
		a = s.inReg(c, a)
	}
	r := s.pure(c, name+width(c)+" $0, $1, $2;", a, b)
	if isByte(t) {
		r = s.low8(r)
	}
	s.set(v, r)
}

// logic is an operation on truth values.
func (s *selection) logic(v, x, y value.Value, name string) {
	if _, ok := known(x); ok {
		x, y = y, x
	}
	n, constant := known(y)
	n &= 1
	switch name {
	case "and.b", "mul.lo.s":
		name = "and"
		if constant {
			if n == 0 {
				s.set(v, num(0))
			} else {
				s.set(v, s.operand(x))
			}
			return
		}
	case "or.b":
		name = "or"
		if constant {
			if n != 0 {
				s.set(v, num(1))
			} else {
				s.set(v, s.operand(x))
			}
			return
		}
	case "xor.b", "add.s", "sub.s":
		name = "xor"
		if constant {
			if n == 0 {
				s.set(v, s.operand(x))
			} else {
				s.set(v, s.pure(pred, "not.pred $0, $1;", s.reg(x)))
			}
			return
		}
	default:
		s.fail("%s of i1 has no use", name)
		return
	}
	s.set(v, s.pure(pred, name+".pred $0, $1, $2;", s.reg(x), s.reg(y)))
}

// shift is x << y or x >> y. The distance is a word; as much as the width or
// more leaves nothing, or the sign.
func (s *selection) shift(v, x, y value.Value, name string) {
	if !s.alike(x, y) {
		return
	}
	t := x.Type()
	c := s.class(t)
	if c == pred || c == float {
		s.fail("shift of %s", t)
		return
	}
	a, n := s.reg(x), s.operand(y)
	if n.isReg() {
		switch s.class(y.Type()) {
		case short:
			n = s.pure(word, "cvt.u32.u16 $0, $1;", n)
		case long:
			n = s.pure(word, "cvt.u32.u64 $0, $1;", n)
		}
	}
	if isByte(t) && name == "shr.s" {
		a = s.signed8(a)
	}
	r := s.pure(c, name+width(c)+" $0, $1, $2;", a, n)
	if isByte(t) && name != "shr.u" {
		r = s.low8(r)
	}
	s.set(v, r)
}

// arithmetic is x+y, x-y or x*y of floating-point numbers, each rounded:
// without .rn, ptxas would fuse them.
func (s *selection) arithmetic(v, x, y value.Value, name string) {
	if !s.alike(x, y) {
		return
	}
	switch t := x.Type(); {
	case t.Equal(types.Float):
		s.set(v, s.pure(float, name+".rn.f32 $0, $1, $2;", s.operand(x), s.operand(y)))
	case isHalf(t):
		s.set(v, s.pure(short, name+".rn.f16 $0, $1, $2;", s.reg(x), s.reg(y)))
	default:
		s.fail("%s of %s: operations take scalars", name, t)
	}
}

var comparisons = map[enum.IPred]struct {
	name   string
	signed bool
}{
	enum.IPredEQ: {"eq.s", false}, enum.IPredNE: {"ne.s", false},
	enum.IPredSGT: {"gt.s", true}, enum.IPredSGE: {"ge.s", true}, enum.IPredSLT: {"lt.s", true}, enum.IPredSLE: {"le.s", true},
	enum.IPredUGT: {"gt.u", false}, enum.IPredUGE: {"ge.u", false}, enum.IPredULT: {"lt.u", false}, enum.IPredULE: {"le.u", false},
}

var orders = map[enum.FPred]string{
	enum.FPredOEQ: "eq", enum.FPredONE: "ne", enum.FPredOGT: "gt", enum.FPredOGE: "ge", enum.FPredOLT: "lt", enum.FPredOLE: "le",
	enum.FPredUEQ: "equ", enum.FPredUNE: "neu", enum.FPredUGT: "gtu", enum.FPredUGE: "geu", enum.FPredULT: "ltu", enum.FPredULE: "leu",
	enum.FPredORD: "num", enum.FPredUNO: "nan",
}

func (s *selection) compare(i *ir.InstICmp) {
	if !s.alike(i.X, i.Y) {
		return
	}
	p, ok := comparisons[i.Pred]
	t := i.X.Type()
	if _, integer := t.(*types.IntType); !ok || !integer {
		s.fail("comparison %v of %s", i.Pred, t)
		return
	}
	a, b := s.operand(i.X), s.operand(i.Y)
	c := s.class(t)
	switch {
	case c == pred:
		// i1 is 0 or 1, and 0 or -1 with a sign.
		one := operand{s: "1"}
		if p.signed {
			one = num(-1)
		}
		a = s.pure(word, "selp.b32 $0, $1, 0, $2;", one, s.inReg(pred, a))
		b = s.pure(word, "selp.b32 $0, $1, 0, $2;", one, s.inReg(pred, b))
		c = word
	case isByte(t) && p.signed:
		a, b = s.signed8(a), s.signed8(b)
	}
	s.set(i, s.pure(pred, "setp."+p.name+width(c)+" $0, $1, $2;", s.inReg(c, a), b))
}

func (s *selection) fcompare(i *ir.InstFCmp) {
	if !s.alike(i.X, i.Y) {
		return
	}
	switch i.Pred {
	case enum.FPredFalse:
		s.set(i, num(0))
		return
	case enum.FPredTrue:
		s.set(i, num(1))
		return
	}
	p, ok := orders[i.Pred]
	switch t := i.X.Type(); {
	case !ok:
		s.fail("comparison %v", i.Pred)
	case t.Equal(types.Float):
		s.set(i, s.pure(pred, "setp."+p+".f32 $0, $1, $2;", s.reg(i.X), s.operand(i.Y)))
	case isHalf(t):
		s.set(i, s.pure(pred, "setp."+p+".f16 $0, $1, $2;", s.reg(i.X), s.reg(i.Y)))
	default:
		s.fail("comparison %v of %s", i.Pred, t)
	}
}

func (s *selection) choose(i *ir.InstSelect) {
	if !s.alike(i.ValueTrue, i.ValueFalse) {
		return
	}
	if !i.Cond.Type().Equal(types.I1) {
		s.fail("condition is %s", i.Cond.Type())
		return
	}
	c := s.operand(i.Cond)
	a, b := s.operands(i.ValueTrue), s.operands(i.ValueFalse)
	if !c.isReg() {
		if c.s == "0" {
			a = b
		}
		s.set(i, a...)
		return
	}
	cs := s.shape(i.Type())
	out := make([]operand, len(cs))
	for n, k := range cs {
		if k != pred {
			out[n] = s.pure(k, "selp."+classes[k].move+" $0, $1, $2, $3;", a[n], b[n], c)
			continue
		}
		x, y := a[n], b[n]
		switch {
		case x.s == "1":
			out[n] = s.pure(pred, "or.pred $0, $1, $2;", c, s.inReg(pred, y))
		case y.s == "0":
			out[n] = s.pure(pred, "and.pred $0, $1, $2;", c, s.inReg(pred, x))
		default:
			not := s.pure(pred, "not.pred $0, $1;", c)
			x = s.pure(pred, "and.pred $0, $1, $2;", c, s.inReg(pred, x))
			y = s.pure(pred, "and.pred $0, $1, $2;", not, s.inReg(pred, y))
			out[n] = s.pure(pred, "or.pred $0, $1, $2;", x, y)
		}
	}
	s.set(i, out...)
}

// resize changes the width of an integer.
func (s *selection) resize(v, from value.Value, to types.Type, signed bool) {
	ft := from.Type()
	f, t := s.class(ft), s.class(to)
	o := s.inReg(f, s.operand(from))
	switch {
	case ft.Equal(to):
		s.set(v, o)
		return
	case f == pred:
		one := operand{s: "1"}
		if signed {
			one = num(-1)
			if isByte(to) {
				one = num(255)
			}
		}
		s.set(v, s.pure(t, "selp."+classes[t].move+" $0, $1, 0, $2;", one, o))
		return
	case t == pred:
		w := width(f)
		o = s.pure(f, "and.b"+w+" $0, $1, 1;", o)
		s.set(v, s.pure(pred, "setp.ne.s"+w+" $0, $1, 0;", o))
		return
	}
	kind := "u"
	if signed {
		kind = "s"
		if isByte(ft) {
			o = s.signed8(o)
		}
	}
	if f != t {
		o = s.pure(t, "cvt."+kind+width(t)+"."+kind+width(f)+" $0, $1;", o)
	}
	if isByte(to) {
		o = s.low8(o)
	}
	s.set(v, o)
}

// bitcast reads bits as another type.
func (s *selection) bitcast(v, from value.Value, to types.Type) {
	if _, ok := to.(*types.PointerType); ok {
		s.vals[v] = s.get(from)
		return
	}
	fc, tc := s.shape(from.Type()), s.shape(to)
	o := s.operands(from)
	switch {
	case build.SizeOf(from.Type()) != build.SizeOf(to), (fc[0] == pred) != (tc[0] == pred):
		s.fail("bits of %s are not as many as those of %s", from.Type(), to)
		return
	case len(fc) == len(tc):
		out := make([]operand, len(o))
		for i := range o {
			if out[i] = o[i]; fc[i] != tc[i] {
				c := word
				if fc[i] == long || tc[i] == long {
					c = long
				}
				out[i] = s.pure(tc[i], "mov."+classes[c].move+" $0, $1;", s.inReg(fc[i], o[i]))
			}
		}
		s.set(v, out...)
		return
	case len(fc) == 2*len(tc) && tc[0] == long && (fc[0] == word || fc[0] == float):
		out := make([]operand, len(tc))
		for i := range out {
			out[i] = s.pure(long, "mov.b64 $0, {$1, $2};", s.inReg(fc[0], o[2*i]), s.inReg(fc[0], o[2*i+1]))
		}
		s.set(v, out...)
		return
	case len(tc) == 2*len(fc) && fc[0] == long && (tc[0] == word || tc[0] == float):
		var out []operand
		for i := range o {
			out = append(out, s.halves(tc[0], "mov.b64 {$0, $1}, $2;", s.inReg(long, o[i]))...)
		}
		s.set(v, out...)
		return
	}
	s.fail("bits of %s as %s: not supported", from.Type(), to)
}

// round is an f32 as integer, rounded towards zero.
func (s *selection) round(v, from value.Value, to types.Type, kind string) {
	c := s.class(to)
	if !from.Type().Equal(types.Float) || c != word && c != long {
		s.fail("%s as %s", from.Type(), to)
		return
	}
	s.set(v, s.pure(c, "cvt.rzi."+kind+width(c)+".f32 $0, $1;", s.reg(from)))
}

// number is an integer as f32.
func (s *selection) number(v, from value.Value, to types.Type, kind string) {
	c := s.class(from.Type())
	if !to.Equal(types.Float) || c != word && c != long {
		s.fail("%s as %s", from.Type(), to)
		return
	}
	s.set(v, s.pure(float, "cvt.rn.f32."+kind+width(c)+" $0, $1;", s.reg(from)))
}
