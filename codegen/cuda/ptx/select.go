package ptx

import (
	"fmt"
	"math"
	"math/big"
	"strconv"

	"github.com/llir/llvm/ir"
	"github.com/llir/llvm/ir/constant"
	"github.com/llir/llvm/ir/enum"
	"github.com/llir/llvm/ir/types"
	"github.com/llir/llvm/ir/value"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/runtime/format16"
)

// val is what a value of the kernel became.
type val struct {
	parts []operand
	// A pointer is parts[0] plus so many bytes, which loads and stores add.
	offset int64
	// elems are the elements of a vector of 16-bit values that was put together
	// from them; its parts are made when something wants them.
	elems []operand
}

// selection turns a kernel's LLVM IR into PTX instructions, one by one.
type selection struct {
	k         *build.Func
	arch      arch
	templates templates
	f         *fn
	cur       *block
	prologue  []*inst // before everything: parameters and addresses of variables
	vals      map[value.Value]val
	globals   map[*ir.Global]reg
	blocks    map[*ir.Block]*block
	phis      map[*ir.InstPhi][]*phi
	inFlight  map[reg]bool // results of wgmma and of its wait
	needs     version
	line      string
	err       error
}

func (s *selection) fail(format string, a ...any) {
	if s.err != nil {
		return
	}
	at := ""
	if s.line != "" {
		at = s.line + ": "
	}
	s.err = fmt.Errorf("internal: kernel %s: %s%s", s.k.IR.Name(), at, fmt.Sprintf(format, a...))
}

// shape lists the registers that a value of type t takes.
func shape(t types.Type) ([]class, bool) {
	one := func(c class) ([]class, bool) { return []class{c}, true }
	switch t := t.(type) {
	case *types.VoidType:
		return nil, true
	case *types.IntType:
		switch t.BitSize {
		case 1:
			return one(pred)
		case 8, 16:
			return one(short)
		case 32:
			return one(word)
		case 64:
			return one(long)
		}
	case *types.FloatType:
		switch t.Kind {
		case types.FloatKindHalf:
			return one(short)
		case types.FloatKindFloat:
			return one(float)
		}
	case *types.PointerType:
		if t.AddrSpace == 3 {
			return one(word)
		}
		return one(long)
	case *types.VectorType:
		n := int(t.Len)
		c, ok := shape(t.ElemType)
		if !ok || len(c) != 1 || c[0] == pred {
			return nil, false
		}
		if packed(t) {
			if n%2 != 0 {
				return nil, false
			}
			c[0] = word
			n /= 2
		}
		out := make([]class, n)
		for i := range out {
			out[i] = c[0]
		}
		return out, true
	case *types.StructType:
		var out []class
		for _, f := range t.Fields {
			c, ok := shape(f)
			if !ok {
				return nil, false
			}
			out = append(out, c...)
		}
		return out, true
	}
	return nil, false
}

// packed says whether t holds two elements in each of its registers.
func packed(t types.Type) bool {
	v, ok := t.(*types.VectorType)
	return ok && (v.ElemType.Equal(types.I16) || v.ElemType.Equal(types.Half))
}

func (s *selection) shape(t types.Type) []class {
	c, ok := shape(t)
	if !ok {
		s.fail("no registers hold a value of type %s", t)
		return []class{word, word, word, word, word, word, word, word}
	}
	return c
}

// class is the register of a scalar.
func (s *selection) class(t types.Type) class {
	c := s.shape(t)
	if len(c) != 1 {
		s.fail("%s is no scalar", t)
		return word
	}
	return c[0]
}

func (s *selection) regs(cs []class) []reg {
	out := make([]reg, len(cs))
	for i, c := range cs {
		out[i] = s.f.reg(c)
	}
	return out
}

func operands(rs []reg) []operand {
	out := make([]operand, len(rs))
	for i, r := range rs {
		out[i] = operand{r: r}
	}
	return out
}

// emit appends an instruction.
func (s *selection) emit(text string, dst []reg, src ...operand) *inst {
	in := &inst{t: s.templates.get(text), dst: dst, src: src, line: s.line}
	s.cur.insts = append(s.cur.insts, in)
	return in
}

// pure appends an instruction with one result and no effect, and gives it.
func (s *selection) pure(c class, text string, src ...operand) operand {
	r := s.f.reg(c)
	s.emit(text, []reg{r}, src...).pure = true
	return operand{r: r}
}

// head gives the result of an instruction that comes before all others.
func (s *selection) head(c class, text string, src ...operand) reg {
	r := s.f.reg(c)
	s.prologue = append(s.prologue, &inst{t: s.templates.get(text), dst: []reg{r}, src: src, pure: true})
	return r
}

// inReg is o in a register.
func (s *selection) inReg(c class, o operand) operand {
	if o.isReg() {
		return o
	}
	if c == pred {
		return s.pure(pred, "setp.ne.s32 $0, $1, 0;", o)
	}
	return s.pure(c, "mov."+classes[c].move+" $0, $1;", o)
}

// get is what v became.
func (s *selection) get(v value.Value) val {
	if x, ok := s.vals[v]; ok {
		return x
	}
	scalar := func(t string) val { return val{parts: []operand{{s: t}}} }
	switch k := v.(type) {
	case *constant.Int:
		return scalar(integer(k))
	case *constant.Float:
		switch k.Typ.Kind {
		case types.FloatKindFloat:
			return scalar(fmt.Sprintf("0f%08X", math.Float32bits(single(k))))
		case types.FloatKindHalf:
			return scalar(fmt.Sprintf("0x%04X", format16.Half.Encode(single(k))))
		}
	case *constant.Undef, *constant.ZeroInitializer, *constant.Null:
		var x val
		for _, c := range s.shape(v.Type()) {
			x.parts = append(x.parts, operand{s: zero(c)})
		}
		if packed(v.Type()) {
			x.elems = make([]operand, 2*len(x.parts))
			for i := range x.elems {
				x.elems[i] = num(0)
			}
		}
		return x
	case *constant.Vector:
		var x val
		for _, e := range k.Elems {
			x.parts = append(x.parts, s.get(e).parts...)
		}
		if packed(k.Typ) {
			x.elems, x.parts = x.parts, nil
		}
		return x
	case *ir.Global:
		r, ok := s.globals[k]
		if !ok {
			if k.AddrSpace == 3 {
				r = s.head(word, "mov.u32 $0, "+k.Name()+";")
			} else {
				r = s.head(long, "mov.u64 $0, "+k.Name()+";")
			}
			s.globals[k] = r
		}
		return val{parts: []operand{{r: r}}}
	case *ir.Arg:
		return s.get(k.Value)
	}
	s.fail("operand %v has no value here", v)
	x := val{}
	for range s.shape(v.Type()) {
		x.parts = append(x.parts, num(0))
	}
	return x
}

func integer(k *constant.Int) string {
	if k.Typ.BitSize == 1 {
		return strconv.Itoa(int(k.X.Bit(0)))
	}
	if k.Typ.BitSize == 8 {
		return strconv.Itoa(int(new(big.Int).And(k.X, big.NewInt(255)).Int64()))
	}
	return k.X.String()
}

func single(k *constant.Float) float32 {
	if k.NaN {
		return float32(math.NaN())
	}
	x, _ := k.X.Float32()
	return x
}

func zero(c class) string {
	if c == float {
		return "0f00000000"
	}
	return "0"
}

// operands are the registers and numbers of v.
func (s *selection) operands(v value.Value) []operand {
	x := s.get(v)
	switch {
	case x.elems != nil:
		parts := make([]operand, len(x.elems)/2)
		for i := range parts {
			parts[i] = s.pack(x.elems[2*i], x.elems[2*i+1])
		}
		return parts
	case x.offset != 0:
		text := "add.s64 $0, $1, $2;"
		c := s.class(v.Type())
		if c == word {
			text = "add.s32 $0, $1, $2;"
		}
		return []operand{s.pure(c, text, x.parts[0], num(x.offset))}
	}
	return x.parts
}

// pack puts two 16-bit values into a register.
func (s *selection) pack(low, high operand) operand {
	if !low.isReg() && !high.isReg() {
		l, _ := strconv.ParseInt(low.s, 0, 64)
		h, _ := strconv.ParseInt(high.s, 0, 64)
		return num(int64(int32(uint32(h)<<16 | uint32(l)&0xffff)))
	}
	return s.pure(word, "mov.b32 $0, {$1, $2};", s.inReg(short, low), s.inReg(short, high))
}

// operand is the register or number of scalar v.
func (s *selection) operand(v value.Value) operand {
	o := s.operands(v)
	if len(o) != 1 {
		s.fail("%s is no scalar", v.Type())
		return num(0)
	}
	return o[0]
}

// reg is scalar v in a register.
func (s *selection) reg(v value.Value) operand {
	return s.inReg(s.class(v.Type()), s.operand(v))
}

func (s *selection) set(v value.Value, parts ...operand) { s.vals[v] = val{parts: parts} }

// known is the value of a constant integer.
func known(v value.Value) (int64, bool) {
	c, ok := v.(*constant.Int)
	if !ok || !c.X.IsInt64() {
		return 0, false
	}
	return c.X.Int64(), true
}

// width is the suffix of types of instructions on a class.
func width(c class) string {
	switch c {
	case short:
		return "16"
	case long:
		return "64"
	}
	return "32"
}

// alike checks that two operands have one type, which llir does not.
func (s *selection) alike(x, y value.Value) bool {
	if x.Type().Equal(y.Type()) {
		return true
	}
	s.fail("operands are %s and %s", x.Type(), y.Type())
	return false
}

func isByte(t types.Type) bool { return t.Equal(types.I8) }

func isHalf(t types.Type) bool { return t.Equal(types.Half) }

// low8 keeps the low byte: an i8 has nothing above it in its register.
func (s *selection) low8(o operand) operand {
	return s.pure(short, "and.b16 $0, $1, 255;", o)
}

// signed8 is an i8 with its sign in all 16 bits.
func (s *selection) signed8(o operand) operand {
	o = s.pure(short, "shl.b16 $0, $1, 8;", s.inReg(short, o))
	return s.pure(short, "shr.s16 $0, $1, 8;", o)
}

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
	case isHalf(t) && name != "div":
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

// halves are the two results of an instruction that splits a register.
func (s *selection) halves(c class, text string, o operand) []operand {
	rs := s.regs([]class{c, c})
	s.emit(text, rs, o).pure = true
	return operands(rs)
}

func (s *selection) index(v value.Value, t *types.VectorType) int {
	n, ok := known(v)
	if !ok || n < 0 || n >= int64(t.Len) {
		s.fail("element of a vector: the index is no constant below %d", t.Len)
		return 0
	}
	return int(n)
}

func (s *selection) extract(i *ir.InstExtractElement) {
	t := i.X.Type().(*types.VectorType)
	n, x := s.index(i.Index, t), s.get(i.X)
	switch {
	case x.elems != nil:
		s.set(i, x.elems[n])
	case packed(t):
		s.set(i, s.halves(short, "mov.b32 {$0, $1}, $2;", s.inReg(word, x.parts[n/2]))[n%2])
	default:
		s.set(i, x.parts[n])
	}
}

func (s *selection) insert(i *ir.InstInsertElement) {
	t := i.X.Type().(*types.VectorType)
	n, x, e := s.index(i.Index, t), s.get(i.X), s.operand(i.Elem)
	if !packed(t) {
		parts := append([]operand(nil), x.parts...)
		parts[n] = e
		s.set(i, parts...)
		return
	}
	elems := append([]operand(nil), x.elems...)
	if x.elems == nil {
		for _, p := range x.parts {
			elems = append(elems, s.halves(short, "mov.b32 {$0, $1}, $2;", s.inReg(word, p))...)
		}
	}
	elems[n] = e
	s.vals[i] = val{elems: elems}
}

// space is the state space of a pointer, as a suffix of loads and stores.
func (s *selection) space(p value.Value) string {
	switch t := p.Type().(*types.PointerType); t.AddrSpace {
	case 1:
		return ".global"
	case 3:
		return ".shared"
	default:
		s.fail("pointer into address space %d", t.AddrSpace)
		return ""
	}
}

// access is the type of a load or store, and how many registers it moves.
func (s *selection) access(t types.Type) (string, []class) {
	cs := s.shape(t)
	name := classes[cs[0]].move
	e := t
	if v, ok := t.(*types.VectorType); ok {
		e = v.ElemType
	}
	if isByte(e) || e.Equal(types.I1) {
		name = "u8"
	}
	switch len(cs) {
	case 1:
		return name, cs
	case 2, 4:
		if build.SizeOf(t) <= 16 {
			return fmt.Sprintf("v%d.%s", len(cs), name), cs
		}
	}
	s.fail("%s cannot be loaded or stored at once", t)
	return name, cs
}

// holes is a list of n holes from number k on.
func holes(k, n int) string {
	if n == 1 {
		return "$" + strconv.Itoa(k)
	}
	text := "{"
	for i := range n {
		if i > 0 {
			text += ", "
		}
		text += "$" + strconv.Itoa(k+i)
	}
	return text + "}"
}

// address is a pointer as register and what to add to it.
func (s *selection) address(p value.Value) (base, offset operand) {
	x := s.get(p)
	if int64(int32(x.offset)) != x.offset {
		return s.operands(p)[0], operand{}
	}
	base = s.inReg(s.class(p.Type()), x.parts[0])
	if x.offset != 0 {
		offset.s = fmt.Sprintf("%+d", x.offset)
	}
	return base, offset
}

func (s *selection) load(i *ir.InstLoad) {
	kind, cs := s.access(i.ElemType)
	base, offset := s.address(i.Src)
	bit := i.ElemType.Equal(types.I1)
	if bit {
		cs = []class{short}
	}
	d, n := s.regs(cs), len(cs)
	s.emit("ld"+s.space(i.Src)+"."+kind+" "+holes(0, n)+", [$"+strconv.Itoa(n)+"$"+strconv.Itoa(n+1)+"];", d, base, offset)
	if bit {
		s.set(i, s.pure(pred, "setp.ne.s16 $0, $1, 0;", operand{r: d[0]}))
		return
	}
	s.set(i, operands(d)...)
}

func (s *selection) store(i *ir.InstStore) {
	t := i.Src.Type()
	kind, cs := s.access(t)
	o := append([]operand(nil), s.operands(i.Src)...)
	for n, c := range cs {
		if o[n] = s.inReg(c, o[n]); c == pred {
			o[n] = s.pure(short, "selp.b16 $0, 1, 0, $1;", o[n])
		}
	}
	base, offset := s.address(i.Dst)
	s.emit("st"+s.space(i.Dst)+"."+kind+" [$0$1], "+holes(2, len(o))+";", nil, append([]operand{base, offset}, o...)...)
}

// element is a pointer's index.
func (s *selection) element(i *ir.InstGetElementPtr) {
	if len(i.Indices) != 1 {
		s.fail("a pointer takes one index")
		return
	}
	pt, ok := i.Src.Type().(*types.PointerType)
	if !ok {
		s.fail("index of %s", i.Src.Type())
		return
	}
	size := int64(build.SizeOf(i.ElemType))
	p, index := s.get(i.Src), i.Indices[0]
	global := pt.AddrSpace != 3
	// What is added to an index last goes to the offset. An index does not
	// overflow, so an i32 need not be added up as such. In shared memory ptxas
	// does this, and an address that is valid with its offset alone stays one.
	for global {
		a, ok := index.(*ir.InstAdd)
		if !ok {
			break
		}
		if n, ok := known(a.Y); ok {
			index, p.offset = a.X, p.offset+n*size
		} else if n, ok := known(a.X); ok {
			index, p.offset = a.Y, p.offset+n*size
		} else {
			break
		}
	}
	if n, ok := known(index); ok {
		p.offset += n * size
		if !global {
			p.offset = int64(int32(p.offset))
		}
		s.vals[i] = p
		return
	}
	base, x := p.parts[0], s.operand(index)
	wide := s.class(index.Type()) == long
	if !wide && s.class(index.Type()) != word {
		s.fail("index is %s, not i32 or i64", index.Type())
		return
	}
	switch {
	case !global:
		base = s.inReg(word, base)
		if wide {
			x = s.pure(word, "cvt.u32.u64 $0, $1;", x)
		}
		if size > 1 && size&(size-1) == 0 {
			x = s.pure(word, "shl.b32 $0, $1, $2;", x, num(log2(size)))
		} else if size > 1 {
			x = s.pure(word, "mul.lo.s32 $0, $1, $2;", x, num(size))
		}
		base = s.pure(word, "add.s32 $0, $1, $2;", base, x)
	case wide:
		from, kind := value.Value(nil), ""
		switch e := index.(type) {
		case *ir.InstZExt:
			from, kind = e.From, "u"
		case *ir.InstSExt:
			from, kind = e.From, "s"
		}
		if from != nil && from.Type().Equal(types.I32) && size > 1 {
			base = s.pure(long, "mad.wide."+kind+"32 $0, $1, $2, $3;", s.reg(from), num(size), s.inReg(long, base))
			break
		}
		if size > 1 && size&(size-1) == 0 {
			x = s.pure(long, "shl.b64 $0, $1, $2;", x, num(log2(size)))
		} else if size > 1 {
			x = s.pure(long, "mul.lo.s64 $0, $1, $2;", x, num(size))
		}
		base = s.pure(long, "add.s64 $0, $1, $2;", s.inReg(long, base), x)
	case size == 1:
		x = s.pure(long, "cvt.s64.s32 $0, $1;", x)
		base = s.pure(long, "add.s64 $0, $1, $2;", s.inReg(long, base), x)
	default:
		base = s.pure(long, "mad.wide.s32 $0, $1, $2, $3;", x, num(size), s.inReg(long, base))
	}
	s.vals[i] = val{parts: []operand{base}, offset: p.offset}
}

func log2(n int64) int64 {
	k := int64(0)
	for n > 1 {
		n, k = n>>1, k+1
	}
	return k
}

func (s *selection) toInteger(i *ir.InstPtrToInt) {
	o := s.operand(i.From)
	f, t := s.class(i.From.Type()), s.class(i.To)
	switch {
	case f == t:
		s.set(i, o)
	case f == word && t == long:
		s.set(i, s.pure(long, "cvt.u64.u32 $0, $1;", o))
	case f == long && t == word:
		s.set(i, s.pure(word, "cvt.u32.u64 $0, $1;", o))
	default:
		s.fail("pointer as %s", i.To)
	}
}

func (s *selection) part(i *ir.InstExtractValue) {
	t, ok := i.X.Type().(*types.StructType)
	if !ok || len(i.Indices) != 1 || i.Indices[0] >= uint64(len(t.Fields)) {
		s.fail("part of %s", i.X.Type())
		return
	}
	at := 0
	for _, f := range t.Fields[:i.Indices[0]] {
		at += len(s.shape(f))
	}
	o := s.operands(i.X)
	s.set(i, o[at:at+len(s.shape(i.Type()))]...)
}

func (s *selection) inst(in ir.Instruction) {
	switch i := in.(type) {
	case *ir.InstAdd:
		s.binary(i, i.X, i.Y, "add.s")
	case *ir.InstSub:
		s.binary(i, i.X, i.Y, "sub.s")
	case *ir.InstMul:
		s.binary(i, i.X, i.Y, "mul.lo.s")
	case *ir.InstUDiv:
		s.binary(i, i.X, i.Y, "div.u")
	case *ir.InstSDiv:
		s.binary(i, i.X, i.Y, "div.s")
	case *ir.InstURem:
		s.binary(i, i.X, i.Y, "rem.u")
	case *ir.InstSRem:
		s.binary(i, i.X, i.Y, "rem.s")
	case *ir.InstAnd:
		s.binary(i, i.X, i.Y, "and.b")
	case *ir.InstOr:
		s.binary(i, i.X, i.Y, "or.b")
	case *ir.InstXor:
		s.binary(i, i.X, i.Y, "xor.b")
	case *ir.InstShl:
		s.shift(i, i.X, i.Y, "shl.b")
	case *ir.InstLShr:
		s.shift(i, i.X, i.Y, "shr.u")
	case *ir.InstAShr:
		s.shift(i, i.X, i.Y, "shr.s")
	case *ir.InstFAdd:
		s.arithmetic(i, i.X, i.Y, "add")
	case *ir.InstFSub:
		s.arithmetic(i, i.X, i.Y, "sub")
	case *ir.InstFMul:
		s.arithmetic(i, i.X, i.Y, "mul")
	case *ir.InstFDiv:
		s.arithmetic(i, i.X, i.Y, "div")
	case *ir.InstFNeg:
		switch t := i.X.Type(); {
		case t.Equal(types.Float):
			s.set(i, s.pure(float, "neg.f32 $0, $1;", s.operand(i.X)))
		case isHalf(t):
			s.set(i, s.pure(short, "xor.b16 $0, $1, 0x8000;", s.reg(i.X)))
		default:
			s.fail("negative of %s", t)
		}
	case *ir.InstICmp:
		s.compare(i)
	case *ir.InstFCmp:
		s.fcompare(i)
	case *ir.InstSelect:
		s.choose(i)
	case *ir.InstZExt:
		s.resize(i, i.From, i.To, false)
	case *ir.InstSExt:
		s.resize(i, i.From, i.To, true)
	case *ir.InstTrunc:
		s.resize(i, i.From, i.To, false)
	case *ir.InstFPExt:
		if !isHalf(i.From.Type()) || !i.To.Equal(types.Float) {
			s.fail("%s as %s", i.From.Type(), i.To)
			return
		}
		s.set(i, s.pure(float, "cvt.f32.f16 $0, $1;", s.reg(i.From)))
	case *ir.InstFPTrunc:
		if !isHalf(i.To) || !i.From.Type().Equal(types.Float) {
			s.fail("%s as %s", i.From.Type(), i.To)
			return
		}
		s.set(i, s.pure(short, "cvt.rn.f16.f32 $0, $1;", s.reg(i.From)))
	case *ir.InstFPToSI:
		s.round(i, i.From, i.To, "s")
	case *ir.InstFPToUI:
		s.round(i, i.From, i.To, "u")
	case *ir.InstSIToFP:
		s.number(i, i.From, i.To, "s")
	case *ir.InstUIToFP:
		s.number(i, i.From, i.To, "u")
	case *ir.InstBitCast:
		s.bitcast(i, i.From, i.To)
	case *ir.InstPtrToInt:
		s.toInteger(i)
	case *ir.InstGetElementPtr:
		s.element(i)
	case *ir.InstLoad:
		s.load(i)
	case *ir.InstStore:
		s.store(i)
	case *ir.InstExtractValue:
		s.part(i)
	case *ir.InstExtractElement:
		s.extract(i)
	case *ir.InstInsertElement:
		s.insert(i)
	case *ir.InstCall:
		s.call(i)
	default:
		s.fail("%T has no PTX here", in)
	}
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
