package simt

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Parse reads PTX text. It refuses what it can't execute; errors start with the
// line of the text.
func Parse(ptx string) (*Module, error) {
	ts, comments, err := lex(ptx)
	if err != nil {
		return nil, err
	}
	p := &parser{ptx: ptx, ts: ts, comments: comments, m: &Module{}, dynAlign: map[string]int{}}
	for p.peek().kind != 0 {
		if err := p.top(); err != nil {
			return nil, err
		}
	}
	return p.m, nil
}

type parser struct {
	ptx      string
	ts       []token
	i        int
	comments map[int]string
	m        *Module
	dynAlign map[string]int // extern shared arrays
}

func (p *parser) peek() token { return p.ts[p.i] }

func (p *parser) next() token {
	t := p.ts[p.i]
	if t.kind != 0 {
		p.i++
	}
	return t
}

func (p *parser) errorf(t token, format string, args ...any) error {
	return fmt.Errorf("%d: %s", t.line, fmt.Sprintf(format, args...))
}

func (t token) String() string {
	if t.kind == 0 {
		return "the end of the text"
	}
	return strconv.Quote(t.text)
}

func (p *parser) expect(kind byte) (token, error) {
	t := p.next()
	if t.kind != kind {
		what := strconv.QuoteRune(rune(kind))
		switch kind {
		case 'w':
			what = "a name"
		case 'n':
			what = "a number"
		}
		return t, p.errorf(t, "expected %s, found %v", what, t)
	}
	return t, nil
}

func (p *parser) accept(kind byte) bool {
	if p.peek().kind == kind {
		p.i++
		return true
	}
	return false
}

// integer reads an integer with its sign.
func (p *parser) integer() (int, error) {
	neg := p.accept('-')
	t, err := p.expect('n')
	if err != nil {
		return 0, err
	}
	v, err := parseInt(t.text)
	if err != nil {
		return 0, p.errorf(t, "%v", err)
	}
	if neg {
		v = -v
	}
	return int(v), nil
}

func parseInt(s string) (int64, error) {
	s = strings.TrimSuffix(s, "U")
	v, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no integer", s)
	}
	return int64(v), nil
}

// top reads one thing at the top level of the module.
func (p *parser) top() error {
	t := p.next()
	switch t.text {
	case ".version":
		_, err := p.expect('n')
		return err
	case ".target":
		for {
			w, err := p.expect('w')
			if err != nil {
				return err
			}
			if n, ok := strings.CutPrefix(w.text, "sm_"); ok {
				p.m.target, err = strconv.Atoi(strings.TrimRight(n, "abcdef"))
				if err != nil {
					return p.errorf(w, "unknown target %s", w.text)
				}
			}
			if !p.accept(',') {
				return nil
			}
		}
	case ".address_size":
		n, err := p.expect('n')
		if err == nil && n.text != "64" {
			return p.errorf(n, "only 64-bit addresses are known")
		}
		return err
	case ".file":
		for p.peek().line == t.line && p.peek().kind != 0 {
			p.next()
		}
		return nil
	case ".extern", ".visible", ".weak":
		return p.top2(p.next(), t.text == ".extern")
	}
	return p.top2(t, false)
}

func (p *parser) top2(t token, extern bool) error {
	switch t.text {
	case ".entry":
		return p.entry()
	case ".shared":
		if !extern {
			return p.errorf(t, "only extern shared arrays are known outside of entries")
		}
		v, err := p.variable()
		if err != nil {
			return err
		}
		p.dynAlign[v.name] = v.align
		_, err = p.expect(';')
		return err
	case ".global", ".const":
		if extern {
			return p.errorf(t, "extern %s variables aren't known", t.text)
		}
		v, err := p.variable()
		if err != nil {
			return err
		}
		if p.accept('=') {
			if err := p.initialise(&v); err != nil {
				return err
			}
		} else if t.text == ".const" {
			v.bytes = make([]byte, v.size)
		}
		v.constant = t.text == ".const"
		p.m.globals = append(p.m.globals, &v.global)
		_, err = p.expect(';')
		return err
	}
	return p.errorf(t, "unknown directive %v", t)
}

// variable is a declared array or scalar.
type variable struct {
	global
	typ  typ
	open bool // its size is left out
}

// variable reads [.align N] .type name [dims].
func (p *parser) variable() (v variable, err error) {
	for {
		t, err := p.expect('w')
		if err != nil {
			return v, err
		}
		switch t.text {
		case ".align":
			if v.align, err = p.integer(); err != nil {
				return v, err
			}
			if v.align <= 0 || v.align&(v.align-1) != 0 {
				return v, p.errorf(t, "alignment %d is no power of two", v.align)
			}
			continue
		case ".ptr", ".global", ".shared", ".const": // attributes of parameters
			continue
		case ".v2", ".v4":
			return v, p.errorf(t, "vector variables aren't known")
		}
		ty, ok := types[strings.TrimPrefix(t.text, ".")]
		if !ok || t.text[0] != '.' || ty.kind == 'p' {
			return v, p.errorf(t, "expected a type, found %v", t)
		}
		v.typ = ty
		break
	}
	// attributes may also follow the type
	for p.peek().text == ".ptr" || p.peek().text == ".global" || p.peek().text == ".align" {
		if p.next().text == ".align" {
			if _, err = p.integer(); err != nil {
				return v, err
			}
		}
	}
	t, err := p.expect('w')
	if err != nil {
		return v, err
	}
	v.name = t.text
	v.size = v.typ.bytes()
	for p.accept('[') {
		if p.accept(']') {
			v.open = true
			continue
		}
		n, err := p.integer()
		if err != nil {
			return v, err
		}
		if n < 0 || n > math.MaxInt32/max(v.size, 1) {
			return v, p.errorf(t, "size of %s out of range", v.name)
		}
		v.size *= n
		if _, err := p.expect(']'); err != nil {
			return v, err
		}
	}
	v.align = max(v.align, v.typ.bytes())
	return v, nil
}

// initialise reads the values behind = of a global.
func (p *parser) initialise(v *variable) error {
	n := v.typ.bytes()
	var vals []uint64
	one := func() error {
		neg := p.accept('-')
		t, err := p.expect('n')
		if err != nil {
			return err
		}
		o, err := number(t, neg)
		if err != nil {
			return p.errorf(t, "%v", err)
		}
		if (v.typ.kind == 'f') != (o.kind == opFloat) {
			return p.errorf(t, "%s can't start as %s", v.typ.name, t.text)
		}
		vals = append(vals, o.bits(v.typ))
		return nil
	}
	t := p.peek()
	if p.accept('{') {
		for !p.accept('}') {
			if err := one(); err != nil {
				return err
			}
			if !p.accept(',') {
				if _, err := p.expect('}'); err != nil {
					return err
				}
				break
			}
		}
	} else if err := one(); err != nil {
		return err
	}
	if v.open {
		v.size = n * len(vals)
	}
	if n*len(vals) > v.size {
		return p.errorf(t, "%d values for %s of %d bytes", len(vals), v.name, v.size)
	}
	v.bytes = make([]byte, v.size)
	for i, x := range vals {
		put(v.bytes[i*n:], n, x)
	}
	return nil
}

// entry reads a kernel from behind .entry.
func (p *parser) entry() error {
	t, err := p.expect('w')
	if err != nil {
		return err
	}
	e := &entry{name: t.text, dynamic: -1, shAlign: 16}
	if p.m.entry(e.name) != nil {
		return p.errorf(t, "entry %s is declared twice", e.name)
	}
	if p.accept('(') {
		for !p.accept(')') {
			if len(e.params) > 0 {
				if _, err := p.expect(','); err != nil {
					return err
				}
			}
			d := p.next()
			if d.text != ".param" {
				return p.errorf(d, "expected .param, found %v", d)
			}
			v, err := p.variable()
			if err != nil {
				return err
			}
			at := alignUp(e.pbytes, v.align)
			e.params = append(e.params, param{v.name, at, v.size, v.typ})
			e.pbytes = at + v.size
		}
	}
	dims := func(d *[3]int) error {
		*d = [3]int{1, 1, 1}
		for i := range d {
			n, err := p.integer()
			if err != nil {
				return err
			}
			d[i] = n
			if !p.accept(',') {
				break
			}
		}
		return nil
	}
	for p.peek().kind == 'w' {
		d := p.next()
		var err error
		switch d.text {
		case ".maxntid":
			err = dims(&e.maxThreads)
		case ".reqntid":
			err = dims(&e.reqThreads)
		case ".reqnctapercluster":
			err = dims(&e.cluster)
		case ".minnctapersm", ".maxnctapersm", ".maxnreg", ".maxclusterrank":
			_, err = p.integer()
		case ".explicitcluster":
		case ".pragma":
			_, err = p.expect('s')
		default:
			err = p.errorf(d, "unknown directive %v", d)
		}
		if err != nil {
			return err
		}
		p.accept(';')
	}
	open, err := p.expect('{')
	if err != nil {
		return err
	}
	c := newCompiler(p, e)
	if err := c.body(open); err != nil {
		return err
	}
	p.m.entries = append(p.m.entries, e)
	return nil
}

func alignUp(n, a int) int {
	if a <= 1 {
		return n
	}
	return (n + a - 1) / a * a
}
