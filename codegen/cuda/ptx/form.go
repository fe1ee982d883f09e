package ptx

import (
	"regexp"
	"strconv"
	"strings"
)

// class is a kind of register.
type class uint8

const (
	pred  class = iota // a truth value
	short              // 16 bits: i8 (the upper half zero), i16, f16
	word               // 32 bits: i32, shared addresses, two 16-bit values
	long               // 64 bits: i64, addresses in device memory
	float              // f32
)

// classes are the registers' prefixes and declared types, and the types of the
// instructions that move and choose them.
var classes = [...]struct{ prefix, decl, move string }{
	pred:  {"%p", "pred", "pred"},
	short: {"%h", "b16", "b16"},
	word:  {"%r", "b32", "b32"},
	long:  {"%rd", "b64", "b64"},
	float: {"%f", "f32", "f32"},
}

// reg is a virtual register, assigned once; 0 is none.
type reg int32

// operand is a register, or else text such as a number.
type operand struct {
	r reg
	s string
}

func (o operand) isReg() bool { return o.r != 0 }

func num(n int64) operand { return operand{s: strconv.FormatInt(n, 10)} }

// inst is a PTX instruction: a template and what it is filled with.
type inst struct {
	t   *template
	dst []reg
	src []operand
	// Of a pure instruction nothing but its operands decides what it gives, and
	// nothing happens beyond that: it may move, merge and go.
	pure bool
	// tied results must stay in the registers of as many leading operands.
	tied int
	// A copy is of one register; it goes where both can be one.
	copy bool
	// A fence makes registers visible to wgmma.
	fence bool
	line  string
}

// phi joins values where control flow does.
type phi struct {
	dst reg
	src []operand // as many as the block has predecessors
}

type block struct {
	n     int // place in fn.blocks
	phis  []*phi
	insts []*inst
	preds []*block
	succs []*block // of two, the first is taken where cond holds
	cond  reg
}

// fn is a kernel as PTX in static single assignment.
type fn struct {
	name   string
	blocks []*block // in reverse postorder: dominators come first
	class  []class  // of registers
}

func (f *fn) reg(c class) reg {
	f.class = append(f.class, c)
	return reg(len(f.class) - 1)
}

// template is the text of an instruction with holes, numbered from 0: results,
// then operands.
type template struct {
	text  string
	parts []part
	// commutes says that the first two operands may change places.
	commutes bool
}

var commuting = regexp.MustCompile(`^(add|mul|and|or|xor|max|min|fma|setp\.(eq|ne|equ|neu|num|nan))\.`)

// part is text, then what fills a hole.
type part struct {
	text string
	hole int // or unique, or none
	reg  bool
}

const (
	none   = -1
	unique = -2 // a number that no other instruction has
)

// templates are parsed once.
type templates map[string]*template

func (ts templates) get(text string) *template {
	if t := ts[text]; t != nil {
		return t
	}
	t := &template{text: text, commutes: commuting.MatchString(text) && strings.Contains(text, "$1, $2")}
	rest, depth, bracket := text, 0, 0
	for {
		i := strings.IndexByte(rest, '$')
		lit := rest
		if i >= 0 {
			lit = rest[:i]
		}
		for _, c := range lit {
			switch c {
			case '{':
				depth++
			case '}':
				depth--
			case '[':
				bracket++
			case ']':
				bracket--
			}
		}
		if i < 0 {
			t.parts = append(t.parts, part{text: lit, hole: none})
			break
		}
		rest = rest[i+1:]
		if after, ok := strings.CutPrefix(rest, "{:uid}"); ok {
			t.parts = append(t.parts, part{text: lit, hole: unique})
			rest = after
			continue
		}
		n := 0
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			n++
		}
		k, _ := strconv.Atoi(rest[:n])
		// Braces around the whole text are a scope, others hold registers.
		inner := depth
		if text[0] == '{' {
			inner--
		}
		t.parts = append(t.parts, part{text: lit, hole: k, reg: bracket > 0 || inner > 0})
		rest = rest[n:]
	}
	ts[text] = t
	return t
}

// needsRegister says whether hole k takes no number: it is an address or part
// of a list.
func (t *template) needsRegister(k int) bool {
	for _, p := range t.parts {
		if p.hole == k && p.reg {
			return true
		}
	}
	return false
}
