package simt

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/gouache-ml/gouache/runtime/format16"
)

type opKind uint8

const (
	opReg   opKind = iota
	opInt          // integer literal
	opFloat        // floating-point literal, its bits in value, its size in typ
	opSym          // label, variable, parameter
	opVec          // {a, b}
	opMem          // [base + off], [base, {coordinates}]
	opSink         // _
)

// operand of an instruction.
type operand struct {
	kind  opKind
	text  string
	not   bool // !p
	reg   *register
	value uint64
	typ   typ
	list  []operand // of opVec; of opMem the base and the coordinates
	off   int64
	pair  *operand // q of p|q
}

// register is a declared register; its slot is taken when it's first used.
type register struct {
	ref
	name  string
	typ   typ
	fixed bool // a special register
}

// number reads a literal.
func number(t token, neg bool) (operand, error) {
	s := t.text
	if len(s) > 2 && s[0] == '0' {
		switch s[1] {
		case 'f', 'F', 'd', 'D':
			size, name := 8, "f32"
			if s[1]|0x20 == 'd' {
				size, name = 16, "f64"
			}
			v, err := strconv.ParseUint(s[2:], 16, 64)
			if err != nil || len(s) != 2+size || neg {
				return operand{}, fmt.Errorf("%q is no number", s)
			}
			return operand{kind: opFloat, text: s, value: v, typ: types[name]}, nil
		}
	}
	if strings.ContainsAny(s, ".") {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return operand{}, fmt.Errorf("%q is no number", s)
		}
		if neg {
			v = -v
		}
		return operand{kind: opFloat, text: s, value: math.Float64bits(v), typ: types["f64"]}, nil
	}
	v, err := parseInt(s)
	if err != nil {
		return operand{}, err
	}
	if neg {
		v, s = -v, "-"+s
	}
	return operand{kind: opInt, text: s, value: uint64(v)}, nil
}

// bits is a literal as a value of type t.
func (o operand) bits(t typ) uint64 {
	v := o.value
	if o.kind == opFloat && t.kind == 'f' {
		f := math.Float64frombits(v)
		if o.typ.name == "f32" {
			if t.bits == 32 {
				return v
			}
			f = float64(math.Float32frombits(uint32(v)))
		}
		switch t.name {
		case "f32":
			return uint64(math.Float32bits(float32(f)))
		case "f16":
			return uint64(format16.Half.Encode(float32(f)))
		case "bf16":
			return uint64(format16.Brain.Encode(float32(f)))
		}
		return math.Float64bits(f)
	}
	if t.bits < 64 {
		v &= 1<<t.bits - 1
	}
	return v
}

// operand reads one operand.
func (c *compiler) operand() (operand, error) {
	t := c.next()
	switch t.kind {
	case '!':
		o, err := c.operand()
		o.not = !o.not
		return o, err
	case '-', 'n':
		neg := t.kind == '-'
		if neg {
			var err error
			if t, err = c.expect('n'); err != nil {
				return operand{}, err
			}
		}
		o, err := number(t, neg)
		if err != nil {
			return o, c.errorf(t, "%v", err)
		}
		return o, nil
	case '{':
		o := operand{kind: opVec}
		for !c.accept('}') {
			if len(o.list) > 0 {
				if _, err := c.expect(','); err != nil {
					return o, err
				}
			}
			e, err := c.operand()
			if err != nil {
				return o, err
			}
			o.list = append(o.list, e)
		}
		return o, nil
	case '[':
		return c.address()
	case 'w':
		o, err := c.name(t)
		if err != nil {
			return o, err
		}
		if c.accept('|') {
			q, err := c.operand()
			if err != nil {
				return o, err
			}
			o.pair = &q
		}
		if o.kind == opSym && c.peek().kind == '+' {
			c.next()
			n, err := c.integer()
			if err != nil {
				return o, err
			}
			o.off = int64(n)
		}
		return o, nil
	}
	return operand{}, c.errorf(t, "expected an operand, found %v", t)
}

// address reads a memory operand from behind [.
func (c *compiler) address() (operand, error) {
	o := operand{kind: opMem}
	base, err := c.operand()
	if err != nil {
		return o, err
	}
	if base.kind == opSym {
		o.off, base.off = base.off, 0
	}
	o.list = []operand{base}
	for {
		switch t := c.next(); t.kind {
		case '+':
			n, err := c.integer()
			if err != nil {
				return o, err
			}
			o.off += int64(n)
		case '-':
			n, err := c.integer()
			if err != nil {
				return o, err
			}
			o.off -= int64(n)
		case ',':
			e, err := c.operand()
			if err != nil {
				return o, err
			}
			o.list = append(o.list, e)
		case ']':
			return o, nil
		default:
			return o, c.errorf(t, "expected ], found %v", t)
		}
	}
}

// name resolves a word: a register, a special register or a symbol.
func (c *compiler) name(t token) (operand, error) {
	if t.text == "_" {
		return operand{kind: opSink, text: "_"}, nil
	}
	if r := c.lookup(t.text); r != nil {
		return operand{kind: opReg, text: t.text, reg: r, typ: r.typ}, nil
	}
	if i, ok := specials[t.text]; ok {
		return operand{kind: opReg, text: t.text, reg: c.special(t.text, i), typ: types["u32"]}, nil
	}
	switch t.text {
	case "WARP_SZ":
		return operand{kind: opInt, text: t.text, value: 32}, nil
	case "%clock64", "%globaltimer":
		return operand{}, c.errorf(t, "%s isn't known", t.text)
	}
	if t.text[0] == '%' {
		return operand{}, c.errorf(t, "undeclared register %s", t.text)
	}
	return operand{kind: opSym, text: t.text}, nil
}

func (c *compiler) special(name string, i int) *register {
	if r := c.specials[i]; r != nil {
		return r
	}
	r := &register{ref: c.slot(class32), name: name, typ: types["u32"], fixed: true}
	c.specials[i] = r
	c.e.consts = append(c.e.consts, constant{ref: r.ref, what: special, index: i})
	if i >= srClusteridX && i <= srClusterNctarank {
		c.e.clusters = true
	}
	return r
}

// slot takes a new place in a register file.
func (c *compiler) slot(k class) ref {
	n := &c.e.n32
	switch k {
	case classP:
		n = &c.e.np
	case class64:
		n = &c.e.n64
	}
	*n++
	return ref{k, int32(*n - 1)}
}

// literal is a register that holds an immediate.
func (c *compiler) literal(k class, v uint64) int32 {
	key := litKey{k, v}
	if s, ok := c.literals[key]; ok {
		return s
	}
	r := c.slot(k)
	c.literals[key] = r.slot
	c.e.consts = append(c.e.consts, constant{ref: r, what: immediate, value: v})
	return r.slot
}

type litKey struct {
	class class
	value uint64
}

// src is the slot of a source operand of type t, a register or a literal.
func (c *compiler) src(o operand, t typ) (int32, error) {
	switch o.kind {
	case opReg:
		if o.not {
			return 0, fmt.Errorf("%s can't be negated here", o.text)
		}
		if err := fits(o.reg, t); err != nil {
			return 0, err
		}
		c.uses(o.reg.ref, false)
		return o.reg.slot, nil
	case opInt:
		if t.kind == 'f' && !t.half() && t.name != "tf32" {
			return 0, fmt.Errorf("integer %s for type %s", o.text, t.name)
		}
		if t.kind == 'p' {
			return 0, fmt.Errorf("%s is no predicate", o.text)
		}
		if !inRange(int64(o.value), t) {
			return 0, fmt.Errorf("%s is out of the range of %s", o.text, t.name)
		}
		return c.literal(t.class(), o.bits(t)), nil
	case opFloat:
		if t.kind != 'f' && (t.kind != 'b' || t.bits != o.typ.bits) {
			return 0, fmt.Errorf("floating-point %s for type %s", o.text, t.name)
		}
		return c.literal(t.class(), o.bits(t)), nil
	case opSym:
		return c.symbol(o, t)
	}
	return 0, fmt.Errorf("expected a register or number")
}

// inRange says whether t has the value v, signed or not.
func inRange(v int64, t typ) bool {
	if t.bits >= 64 {
		return true
	}
	return v >= -1<<(t.bits-1) && v < 1<<t.bits
}

func fits(r *register, t typ) error {
	if r.typ.bits != t.bits || (r.typ.kind == 'p') != (t.kind == 'p') {
		return fmt.Errorf("register %s has type %s, the instruction %s", r.name, r.typ.name, t.name)
	}
	if !t.takes(r.typ) {
		return fmt.Errorf("register %s has type %s, the instruction %s", r.name, r.typ.name, t.name)
	}
	return nil
}

// srcWide is src for the operands whose register may be larger than t.
func (c *compiler) srcWide(o operand, t typ) (ref, error) {
	if o.kind == opReg && o.reg.typ.bits > t.bits && o.reg.typ.kind != 'p' && t.kind != 'f' && o.reg.typ.kind != 'f' {
		c.uses(o.reg.ref, false)
		return o.reg.ref, nil
	}
	s, err := c.src(o, t)
	return ref{t.class(), s}, err
}

// dst is the slot of a destination register of type t.
func (c *compiler) dst(o operand, t typ) (int32, error) {
	r, err := c.dstRef(o, t, false)
	return r.slot, err
}

// dstRef is dst; with wide, the register may be larger than t.
func (c *compiler) dstRef(o operand, t typ, wide bool) (ref, error) {
	switch o.kind {
	case opSink: // a register that nobody reads
		return c.slot(t.class()), nil
	case opReg:
		if o.reg.fixed {
			return ref{}, fmt.Errorf("%s can't be written", o.text)
		}
		if wide && o.reg.typ.bits > t.bits && t.kind != 'p' && t.kind != 'f' && o.reg.typ.kind != 'f' {
			c.uses(o.reg.ref, true)
			return o.reg.ref, nil
		}
		if err := fits(o.reg, t); err != nil {
			return ref{}, err
		}
		c.uses(o.reg.ref, true)
		return o.reg.ref, nil
	}
	return ref{}, fmt.Errorf("%s is no register", o.text)
}

// pred is a source predicate and whether it's negated.
func (c *compiler) pred(o operand) (int32, bool, error) {
	if o.kind != opReg || o.reg.typ.kind != 'p' {
		return 0, false, fmt.Errorf("expected a predicate, found %s", o.text)
	}
	c.uses(o.reg.ref, false)
	return o.reg.slot, o.not, nil
}

// symbol is the address of a variable as a constant register.
func (c *compiler) symbol(o operand, t typ) (int32, error) {
	if t.bits < 32 {
		return 0, fmt.Errorf("address of %s in %d bits", o.text, t.bits)
	}
	if at, ok := c.shared(o.text); ok {
		return c.literal(t.class(), uint64(at+int(o.off))), nil
	}
	for i, g := range c.m.globals {
		if g.name == o.text {
			if t.bits != 64 {
				return 0, fmt.Errorf("address of %s in %d bits", o.text, t.bits)
			}
			key := symKey{i, o.off}
			if s, ok := c.globals[key]; ok {
				return s, nil
			}
			r := c.slot(class64)
			c.globals[key] = r.slot
			c.e.consts = append(c.e.consts, constant{ref: r, what: globalAddress, index: i, value: uint64(o.off)})
			return r.slot, nil
		}
	}
	for _, p := range c.e.params {
		if p.name == o.text {
			if t.bits != 64 {
				return 0, fmt.Errorf("address of %s in %d bits", o.text, t.bits)
			}
			return c.literal(class64, paramWindow+uint64(p.at)+uint64(o.off)), nil
		}
	}
	return 0, fmt.Errorf("%s is not declared", o.text)
}

type symKey struct {
	global int
	off    int64
}
