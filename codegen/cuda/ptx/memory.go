package ptx

import (
	"fmt"
	"strconv"

	"github.com/llir/llvm/ir"
	"github.com/llir/llvm/ir/types"
	"github.com/llir/llvm/ir/value"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
)

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
	space := s.space(i.Src)
	for _, a := range i.Metadata {
		if a.Name == "invariant.load" && space == ".global" {
			space += ".nc"
		}
	}
	s.emit("ld"+space+"."+kind+" "+holes(0, n)+", [$"+strconv.Itoa(n)+"$"+strconv.Itoa(n+1)+"];", d, base, offset)
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
