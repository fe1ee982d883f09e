package ptx

import (
	"fmt"
	"math"
	"math/big"
	"strconv"

	"github.com/llir/llvm/ir"
	"github.com/llir/llvm/ir/constant"
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

// inst is one instruction of the kernel.
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
