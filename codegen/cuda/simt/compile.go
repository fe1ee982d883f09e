package simt

import (
	"fmt"
	"strings"
)

// compiler turns the body of an entry into instructions.
type compiler struct {
	*parser
	e        *entry
	scopes   []*scope
	specials map[int]*register
	literals map[litKey]int32
	globals  map[symKey]int32
	statics  map[string]int // shared arrays with a size: where they start
	labels   map[*scope]map[string]int
	jumps    []jump
	placed   bool // the start of the extern array is in use
	writes   map[ref]bool
	reads    map[ref]readAt // the first of each
	// used collects the registers that the instruction at hand touches.
	used []use
}

// readAt is where a register is read.
type readAt struct {
	tok  token
	text string
}

// scope is what a pair of braces declares.
type scope struct {
	regs     map[string]*register
	families []family
	parent   *scope
	from     int // first instruction
}

// family is a declaration of many registers, %r<10>.
type family struct {
	prefix string
	n      int
	typ    typ
}

// jump is a branch whose label isn't resolved yet.
type jump struct {
	at    int
	label string
	scope *scope
	tok   token
}

// sharedBase is where shared memory starts: the first KiB is the system's, as on
// sm_90.
const sharedBase = 1024

func newCompiler(p *parser, e *entry) *compiler {
	c := &compiler{parser: p, e: e, specials: map[int]*register{}, literals: map[litKey]int32{}, globals: map[symKey]int32{},
		statics: map[string]int{}, labels: map[*scope]map[string]int{}, writes: map[ref]bool{}, reads: map[ref]readAt{}}
	for _, a := range p.dynAlign {
		e.shAlign = max(e.shAlign, a)
	}
	return c
}

// shared is the address of a shared array.
func (c *compiler) shared(name string) (int, bool) {
	if at, ok := c.statics[name]; ok {
		return at, true
	}
	if _, ok := c.dynAlign[name]; ok {
		c.placed = true
		return c.dynamic(), true
	}
	return 0, false
}

// dynamic is where the extern array starts: at an address that is a multiple of
// what was declared and of no more, so that a kernel that needs more shows.
func (c *compiler) dynamic() int {
	a := c.e.shAlign
	at := alignUp(sharedBase+c.e.static, a)
	if at%(2*a) == 0 && a < 1024 {
		at += a
	}
	return at
}

// lookup finds a register by name, from the innermost scope outwards.
func (c *compiler) lookup(name string) *register {
	for s := c.scope(); s != nil; s = s.parent {
		if r := s.regs[name]; r != nil {
			return r
		}
		for _, f := range s.families {
			d, ok := strings.CutPrefix(name, f.prefix)
			if !ok || d == "" || len(d) > 7 || d[0] == '0' && len(d) > 1 {
				continue
			}
			n := 0
			for _, ch := range d {
				if ch < '0' || ch > '9' {
					n = f.n
					break
				}
				n = n*10 + int(ch-'0')
			}
			if n < f.n {
				return c.declare(s, name, f.typ)
			}
		}
	}
	return nil
}

func (c *compiler) declare(s *scope, name string, t typ) *register {
	r := &register{ref: c.slot(t.class()), name: name, typ: t}
	s.regs[name] = r
	return r
}

func (c *compiler) scope() *scope { return c.scopes[len(c.scopes)-1] }

func (c *compiler) open() {
	s := &scope{regs: map[string]*register{}, from: len(c.e.code)}
	if len(c.scopes) > 0 {
		s.parent = c.scope()
	}
	c.labels[s] = map[string]int{}
	c.scopes = append(c.scopes, s)
}

// body reads statements up to the brace that closes the entry.
func (c *compiler) body(open token) error {
	c.open()
	for len(c.scopes) > 0 {
		t := c.next()
		switch {
		case t.kind == 0:
			return c.errorf(open, "entry %s has no closing brace", c.e.name)
		case t.kind == ';':
		case t.kind == '{':
			c.open()
		case t.kind == '}':
			// A comment behind the brace is about all instructions inside.
			if src := c.comments[t.line]; src != "" && len(c.scopes) > 1 {
				for i := c.scope().from; i < len(c.e.meta); i++ {
					if c.e.meta[i].source == "" {
						c.e.meta[i].source = src
					}
				}
			}
			c.scopes = c.scopes[:len(c.scopes)-1]
		case t.kind == 'w' && c.peek().kind == ':':
			c.next()
			l := c.labels[c.scope()]
			if _, ok := l[t.text]; ok {
				return c.errorf(t, "label %s is declared twice", t.text)
			}
			l[t.text] = len(c.e.code)
		case t.kind == 'w' && t.text[0] == '.':
			if err := c.directive(t); err != nil {
				return err
			}
		case t.kind == 'w' || t.kind == '@':
			if err := c.statement(t); err != nil {
				return err
			}
		default:
			return c.errorf(t, "unexpected %v", t)
		}
	}
	// Control that reaches the end returns.
	c.e.code = append(c.e.code, inst{kind: kRet, guard: -1, join: -1})
	c.e.meta = append(c.e.meta, meta{line: c.ts[c.i-1].line, text: "}"})
	for _, j := range c.jumps {
		at, ok := -1, false
		for s := j.scope; s != nil && !ok; s = s.parent {
			at, ok = c.labels[s][j.label]
		}
		if !ok {
			return c.errorf(j.tok, "label %s is not declared", j.label)
		}
		c.e.code[j.at].target = int32(at)
	}
	if err := c.unset(); err != nil {
		return err
	}
	c.e.dynamic = c.dynamic()
	reconverge(c.e.code)
	markWgmma(c.e)
	return nil
}

// unset reports the first read of a register that nothing writes.
func (c *compiler) unset() error {
	for r := range c.writes {
		c.e.written = append(c.e.written, r)
	}
	constant := map[ref]bool{}
	for _, k := range c.e.consts {
		constant[k.ref] = true
	}
	first := readAt{}
	for r, at := range c.reads {
		if !c.writes[r] && !constant[r] && (first.text == "" || at.tok.from < first.tok.from) {
			first = at
		}
	}
	if first.text != "" {
		return c.errorf(first.tok, "reads a register that nothing writes: %s", first.text)
	}
	return nil
}

// directive reads a declaration inside an entry.
func (c *compiler) directive(t token) error {
	switch t.text {
	case ".reg":
		w, err := c.expect('w')
		if err != nil {
			return err
		}
		ty, ok := types[strings.TrimPrefix(w.text, ".")]
		if !ok || w.text[0] != '.' {
			return c.errorf(w, "unknown type %s", w.text)
		}
		for {
			n, err := c.expect('w')
			if err != nil {
				return err
			}
			if c.accept('<') {
				k, err := c.integer()
				if err != nil {
					return err
				}
				if _, err := c.expect('>'); err != nil {
					return err
				}
				c.scope().families = append(c.scope().families, family{n.text, k, ty})
			} else {
				if c.scope().regs[n.text] != nil {
					return c.errorf(n, "register %s is declared twice", n.text)
				}
				c.declare(c.scope(), n.text, ty)
			}
			if !c.accept(',') {
				break
			}
		}
		_, err = c.expect(';')
		return err
	case ".shared":
		v, err := c.variable()
		if err != nil {
			return err
		}
		if c.placed {
			return c.errorf(t, "%s is declared behind a use of the extern array, which starts behind it", v.name)
		}
		at := alignUp(sharedBase+c.e.static, v.align)
		c.statics[v.name] = at
		c.e.static = at + v.size - sharedBase
		_, err = c.expect(';')
		return err
	case ".loc", ".pragma", ".branchtargets":
		for c.peek().line == t.line && c.peek().kind != 0 && c.peek().kind != ';' {
			c.next()
		}
		return nil
	}
	return c.errorf(t, "unknown directive %s", t.text)
}

// stmt is an instruction as written.
type stmt struct {
	op   string
	mods []string // the modifiers that no one has asked for yet
	args []operand
}

// take says whether the instruction has the modifier m.
func (s *stmt) take(m string) bool {
	for i, x := range s.mods {
		if x == m {
			s.mods = append(s.mods[:i:i], s.mods[i+1:]...)
			return true
		}
	}
	return false
}

// one is the first of ms that the instruction has, or "".
func (s *stmt) one(ms ...string) string {
	for _, m := range ms {
		if s.take(m) {
			return m
		}
	}
	return ""
}

// types takes all modifiers that are types, in order.
func (s *stmt) types() []typ {
	var ts []typ
	var rest []string
	for _, m := range s.mods {
		if t, ok := types[m]; ok {
			ts = append(ts, t)
		} else {
			rest = append(rest, m)
		}
	}
	s.mods = rest
	return ts
}

// typ is the type of an instruction that has one.
func (s *stmt) typ() (typ, error) {
	ts := s.types()
	if len(ts) != 1 {
		return typ{}, fmt.Errorf("%d types for %s", len(ts), s.op)
	}
	return ts[0], nil
}

func (s *stmt) want(n int) error {
	if len(s.args) != n {
		return fmt.Errorf("%d operands, not %d", len(s.args), n)
	}
	return nil
}

// statement reads an instruction that starts with t.
func (c *compiler) statement(t token) error {
	in := inst{guard: -1, join: -1, count: countALU}
	c.used = nil
	op := t
	if t.kind == '@' {
		o, err := c.operand()
		if err != nil {
			return err
		}
		g, not, err := c.pred(o)
		if err != nil {
			return c.errorf(t, "%v", err)
		}
		in.guard, in.not = g, not
		if op, err = c.expect('w'); err != nil {
			return err
		}
	}
	parts := strings.Split(op.text, ".")
	s := &stmt{op: parts[0], mods: parts[1:]}
	for c.peek().kind != ';' {
		if len(s.args) > 0 {
			if _, err := c.expect(','); err != nil {
				return err
			}
		}
		o, err := c.operand()
		if err != nil {
			return err
		}
		s.args = append(s.args, o)
	}
	end := c.next()
	text := strings.Join(strings.Fields(c.ptx[t.from:end.from]), " ")
	h := families[s.op]
	if h == nil {
		return c.errorf(op, "unknown instruction: %s", text)
	}
	if s.op == "bra" {
		c.jumps = append(c.jumps, jump{len(c.e.code), "", c.scope(), op})
	}
	err := h(c, s, &in)
	if err == nil && len(s.mods) > 0 {
		err = fmt.Errorf("unknown modifier .%s", s.mods[0])
	}
	if err != nil {
		return c.errorf(op, "%v: %s", err, text)
	}
	in.uses = c.used
	for _, u := range c.used {
		if u.write {
			c.writes[u.ref] = true
		} else if _, ok := c.reads[u.ref]; !ok {
			c.reads[u.ref] = readAt{op, text}
		}
	}
	c.e.code = append(c.e.code, in)
	c.e.meta = append(c.e.meta, meta{op.line, text, c.comments[end.line]})
	return nil
}

// uses notes that the instruction at hand touches r.
func (c *compiler) uses(r ref, write bool) { c.used = append(c.used, use{r, write}) }

// family of instructions: handler completes in from s.
type handler func(c *compiler, s *stmt, in *inst) error

var families map[string]handler
