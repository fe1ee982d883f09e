package text

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gouache-ml/gouache/ir"
)

// scanner reads a file from left to right. A fault ends parsing by a panic
// with a fault value, which Parse turns into its error.
type scanner struct {
	file string
	src  string
	at   int
}

type fault struct{ err error }

// fail reports what is wrong at byte offset at.
func (s *scanner) fail(at int, format string, args ...any) {
	line := 1 + strings.Count(s.src[:at], "\n")
	col := 1 + utf8.RuneCountInString(s.src[strings.LastIndexByte(s.src[:at], '\n')+1:at])
	panic(fault{fmt.Errorf("%s:%d:%d: %s", s.file, line, col, fmt.Sprintf(format, args...))})
}

// expected reports that something else stands at the current place.
func (s *scanner) expected(what string) {
	s.skip()
	found := "the end of the file"
	if s.at < len(s.src) {
		end := s.at
		for end < len(s.src) && end-s.at < 20 && nameByte(s.src[end]) {
			end++
		}
		if end == s.at {
			_, n := utf8.DecodeRuneInString(s.src[s.at:])
			end += n
		}
		found = strconv.Quote(s.src[s.at:end])
	}
	s.fail(s.at, "found %s, expected %s", found, what)
}

// skip passes over blanks, line ends and comments.
func (s *scanner) skip() {
	for s.at < len(s.src) {
		switch c := s.src[s.at]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			s.at++
		case strings.HasPrefix(s.src[s.at:], "//"):
			for s.at < len(s.src) && s.src[s.at] != '\n' {
				s.at++
			}
		default:
			return
		}
	}
}

func (s *scanner) end() bool { s.skip(); return s.at == len(s.src) }

// take passes over lit if it comes next. A word must end where lit ends.
func (s *scanner) take(lit string) bool {
	s.skip()
	if !strings.HasPrefix(s.src[s.at:], lit) {
		return false
	}
	end := s.at + len(lit)
	if nameByte(lit[len(lit)-1]) && end < len(s.src) && nameByte(s.src[end]) {
		return false
	}
	s.at = end
	return true
}

func (s *scanner) want(lit string) {
	if !s.take(lit) {
		s.expected(strconv.Quote(lit))
	}
}

// run returns the longest run of bytes that ok accepts.
func (s *scanner) run(ok func(byte) bool) string {
	s.skip()
	start := s.at
	for s.at < len(s.src) && ok(s.src[s.at]) {
		s.at++
	}
	return s.src[start:s.at]
}

// name reads a plain or quoted name.
func (s *scanner) name(what string) string {
	s.skip()
	if s.at < len(s.src) && s.src[s.at] == '"' {
		return s.quoted()
	}
	n := s.run(nameByte)
	if n == "" {
		s.expected(what)
	}
	return n
}

func (s *scanner) quoted() string {
	s.skip()
	q, err := strconv.QuotedPrefix(s.src[s.at:])
	if err != nil || q[0] != '"' {
		s.expected("a quoted string")
	}
	x, err := strconv.Unquote(q)
	if err != nil {
		s.expected("a quoted string")
	}
	s.at += len(q)
	return x
}

// after reads the name behind a sigil, which stand together.
func (s *scanner) after(sigil, what string) string {
	if !s.take(sigil) {
		s.expected(what)
	}
	if s.at < len(s.src) && (s.src[s.at] == ' ' || s.src[s.at] == '\n') {
		s.expected("a name after " + sigil)
	}
	return s.name("a name after " + sigil)
}

func digitByte(c byte) bool { return c >= '0' && c <= '9' }

// integer reads a decimal integer between lo and hi.
func (s *scanner) integer(what string, lo, hi int) int {
	s.skip()
	start := s.at
	if s.at < len(s.src) && s.src[s.at] == '-' {
		s.at++
	}
	for s.at < len(s.src) && digitByte(s.src[s.at]) {
		s.at++
	}
	n, err := strconv.Atoi(s.src[start:s.at])
	if err != nil {
		s.at = start
		s.expected(what)
	}
	if n < lo || n > hi {
		s.fail(start, "%s is %d, expected %d to %d", what, n, lo, hi)
	}
	return n
}

func (s *scanner) anyInt(what string) int { return s.integer(what, math.MinInt, math.MaxInt) }

func (s *scanner) count(what string) int { return s.integer(what, 0, math.MaxInt) }

func (s *scanner) float(what string) float64 {
	s.skip()
	start := s.at
	x, err := strconv.ParseFloat(s.run(func(c byte) bool { return nameByte(c) || c == '+' || c == '-' }), 64)
	if err != nil {
		s.at = start
		s.expected(what)
	}
	return x
}

// maxElements bounds the elements of a type, so that sizes in bytes and
// products of a few sizes stay far from overflowing.
const maxElements = 1 << 44

func (s *scanner) typ() ir.Type {
	d := s.dtype()
	s.want("[")
	t := ir.Type{DType: d}
	total := 1
	for !s.take("]") {
		if len(t.Shape) > 0 {
			s.want(",")
		}
		s.skip()
		at := s.at
		n := s.integer("an extent", 0, maxElements)
		if total *= max(n, 1); total > maxElements {
			s.fail(at, "the type has more than %d elements", maxElements)
		}
		t.Shape = append(t.Shape, n)
	}
	return t
}

func (s *scanner) dtype() ir.DType {
	s.skip()
	start := s.at
	w := s.run(nameByte)
	d, err := ir.ParseDType(w)
	if err != nil {
		s.at = start
		if w == "" {
			s.expected("an element type such as f32")
		}
		s.fail(start, "%v", err)
	}
	return d
}

// pos reads !file:line.
func (s *scanner) pos() ir.Pos {
	s.want("!")
	start := s.at
	for s.at < len(s.src) && !strings.ContainsRune(" \t\r\n", rune(s.src[s.at])) {
		s.at++
	}
	w := s.src[start:s.at]
	if w == "-" {
		return ir.Pos{}
	}
	i := strings.LastIndexByte(w, ':')
	if i < 1 {
		s.fail(start, "found %q, expected file:line or -", w)
	}
	n, err := strconv.Atoi(w[i+1:])
	if err != nil || n < 0 {
		s.fail(start, "found %q, expected a line number after %q", w[i+1:], w[:i+1])
	}
	return ir.Pos{File: w[:i], Line: n}
}
