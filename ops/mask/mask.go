package mask

import (
	"fmt"
	"strconv"
	"strings"
)

// Mask says which keys a query may attend to. The zero Mask allows all.
type Mask struct{ e expr }

type expr interface {
	allowed(q, k int) bool
	text(*strings.Builder)
}

// Allowed reports whether the query at position q may attend to key k.
func (m Mask) Allowed(q, k int) bool { return m.e == nil || m.e.allowed(q, k) }

// String is the text form, such as causal&(prefix(257)|row(32)), without
// spaces; UnmarshalText is its inverse.
func (m Mask) String() string {
	if m.e == nil {
		return "all"
	}
	var b strings.Builder
	m.e.text(&b)
	return b.String()
}

// All allows every pair.
func All() Mask { return Mask{} }

// Causal allows keys up to the query's own position.
func Causal() Mask { return Mask{atom{name: "causal"}} }

// Prefix allows the first n keys.
func Prefix(n int) Mask { return Mask{atom{name: "prefix", n: n}} }

// RowWindow allows the query's own key and the w before it: on a picture of
// width w, raster positions back to the one right above.
func RowWindow(w int) Mask { return Mask{atom{name: "row", n: w}} }

// ColumnStride allows keys a multiple of w at or before the query: on a
// picture of width w, the pixels above in the same column.
func ColumnStride(w int) Mask { return Mask{atom{name: "column", n: w}} }

// ConvWindow allows keys at or before the query inside the k by k window
// around it on a picture of width w, wrapping around in the raster: offsets
// dr*w+dc >= 0 with 0 <= dr <= k/2 and |dc| <= k/2.
func ConvWindow(k, w int) Mask { return Mask{atom{name: "conv", n: k, w: w}} }

// atoms lists the patterns and how many numbers each takes.
var atoms = map[string]int{"causal": 0, "prefix": 1, "row": 1, "column": 1, "conv": 2}

type atom struct {
	name string
	n, w int
}

func (a atom) allowed(q, k int) bool {
	d := q - k
	switch a.name {
	case "causal":
		return d >= 0
	case "prefix":
		return k < a.n
	case "row":
		return d >= 0 && d <= a.n
	case "column":
		return d >= 0 && d%a.n == 0
	default: // conv
		if d < 0 {
			return false
		}
		for dr := 0; dr <= a.n/2; dr++ {
			if dc := d - dr*a.w; dc >= -(a.n/2) && dc <= a.n/2 {
				return true
			}
		}
		return false
	}
}

func (a atom) text(b *strings.Builder) {
	b.WriteString(a.name)
	switch atoms[a.name] {
	case 1:
		fmt.Fprintf(b, "(%d)", a.n)
	case 2:
		fmt.Fprintf(b, "(%dx%d)", a.n, a.w)
	}
}

// both is an intersection, either a union; they keep their operands flat.
type (
	both   []expr
	either []expr
)

func (l both) allowed(q, k int) bool {
	for _, e := range l {
		if !e.allowed(q, k) {
			return false
		}
	}
	return true
}

func (l either) allowed(q, k int) bool {
	for _, e := range l {
		if e.allowed(q, k) {
			return true
		}
	}
	return false
}

func (l both) text(b *strings.Builder) {
	for i, e := range l {
		if i > 0 {
			b.WriteByte('&')
		}
		if _, ok := e.(either); ok {
			b.WriteByte('(')
			e.text(b)
			b.WriteByte(')')
			continue
		}
		e.text(b)
	}
}

func (l either) text(b *strings.Builder) {
	for i, e := range l {
		if i > 0 {
			b.WriteByte('|')
		}
		e.text(b)
	}
}

// Or allows what m or n allows.
func (m Mask) Or(n Mask) Mask {
	if m.e == nil || n.e == nil {
		return All()
	}
	var l either
	for _, e := range []expr{m.e, n.e} {
		if in, ok := e.(either); ok {
			l = append(l, in...)
		} else {
			l = append(l, e)
		}
	}
	return Mask{l}
}

// And allows what both m and n allow.
func (m Mask) And(n Mask) Mask {
	if m.e == nil {
		return n
	}
	if n.e == nil {
		return m
	}
	var l both
	for _, e := range []expr{m.e, n.e} {
		if in, ok := e.(both); ok {
			l = append(l, in...)
		} else {
			l = append(l, e)
		}
	}
	return Mask{l}
}

// Parse reads the text form; & binds tighter than |.
func Parse(s string) (Mask, error) {
	p := parser{s: s}
	m, err := p.union()
	if err == nil && p.at < len(s) {
		err = fmt.Errorf("unexpected %q", s[p.at:])
	}
	if err != nil {
		return Mask{}, fmt.Errorf("mask %q: %w", s, err)
	}
	return m, nil
}

// UnmarshalText parses the text form.
func (m *Mask) UnmarshalText(text []byte) error {
	n, err := Parse(string(text))
	if err == nil {
		*m = n
	}
	return err
}

type parser struct {
	s  string
	at int
}

func (p *parser) take(c byte) bool {
	if p.at < len(p.s) && p.s[p.at] == c {
		p.at++
		return true
	}
	return false
}

func (p *parser) union() (Mask, error) {
	m, err := p.intersection()
	for err == nil && p.take('|') {
		var n Mask
		if n, err = p.intersection(); err == nil {
			m = m.Or(n)
		}
	}
	return m, err
}

func (p *parser) intersection() (Mask, error) {
	m, err := p.factor()
	for err == nil && p.take('&') {
		var n Mask
		if n, err = p.factor(); err == nil {
			m = m.And(n)
		}
	}
	return m, err
}

func (p *parser) factor() (Mask, error) {
	if p.take('(') {
		m, err := p.union()
		if err == nil && !p.take(')') {
			err = fmt.Errorf("missing ) at %q", p.s[p.at:])
		}
		return m, err
	}
	start := p.at
	for p.at < len(p.s) && p.s[p.at] >= 'a' && p.s[p.at] <= 'z' {
		p.at++
	}
	name := p.s[start:p.at]
	if name == "all" {
		return All(), nil
	}
	want, ok := atoms[name]
	if !ok {
		return Mask{}, fmt.Errorf("unknown pattern %q; one of all causal column conv prefix row", name)
	}
	a := atom{name: name}
	if want > 0 {
		end := strings.IndexByte(p.s[p.at:], ')')
		if !p.take('(') || end < 0 {
			return Mask{}, fmt.Errorf("%s needs numbers in parentheses", name)
		}
		inside := p.s[p.at : p.at+end-1]
		p.at += end
		nums := strings.Split(inside, "x")
		if len(nums) != want {
			return Mask{}, fmt.Errorf("%s takes %d numbers, has %q", name, want, inside)
		}
		for i, to := range []*int{&a.n, &a.w}[:want] {
			v, err := strconv.Atoi(nums[i])
			if err != nil || v < 1 {
				return Mask{}, fmt.Errorf("%s needs positive numbers, has %q", name, inside)
			}
			*to = v
		}
	}
	return Mask{a}, nil
}
