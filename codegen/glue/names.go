package glue

import (
	"fmt"
	"go/build"
	"go/token"
	"io"
	"strings"
	"unicode"
)

// names hands out identifiers of the package, each once.
type names struct{ used map[string]bool }

func newNames() *names {
	n := &names{used: map[string]bool{}}
	// What the files' fixed parts use, imports and locals included.
	for _, s := range []string{"w", "s", "r", "l", "o", "spec", "exec", "embed", "init", "main"} {
		n.used[s] = true
	}
	return n
}

// take returns s, or s with the first number that makes it new.
func (n *names) take(s string) string {
	c := s
	for i := 2; n.used[c] || token.IsKeyword(c) || predeclared(c); i++ {
		c = fmt.Sprintf("%s%d", s, i)
		if last := s[len(s)-1]; last >= '0' && last <= '9' {
			c = fmt.Sprintf("%s_%d", s, i)
		}
	}
	n.used[c] = true
	return c
}

// predeclared holds the identifiers that the generated code relies on.
func predeclared(s string) bool {
	switch s {
	case "iota", "byte", "error", "int", "nil", "true", "false":
		return true
	}
	return false
}

// words are the lower-case runs of letters and digits in s.
func words(s string) []string {
	return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
}

// camel joins the words of s: layer_norm.3 becomes LayerNorm3. Numbers that
// would run together are kept apart.
func camel(s string) string {
	var b strings.Builder
	digit := false
	for _, w := range words(s) {
		if digit && w[0] >= '0' && w[0] <= '9' {
			b.WriteByte('_')
		}
		b.WriteString(strings.ToUpper(w[:1]) + w[1:])
		digit = w[len(w)-1] >= '0' && w[len(w)-1] <= '9'
	}
	return b.String()
}

// region is the name of a region without its numbers: layer3.attention becomes
// LayerAttention.
func region(block string) string {
	s := strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return '.'
		}
		return r
	}, block)
	if s = camel(s); s == "" {
		return "Region"
	}
	return s
}

func lowerFirst(s string) string {
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		return "model" + s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// packageName is the package clause for a system.
func packageName(system string) string {
	p := strings.Join(words(system), "")
	if p == "" || p[0] >= '0' && p[0] <= '9' || token.IsKeyword(p) || p == "main" {
		p = "system" + p
	}
	return p
}

// buildable reports whether the go command compiles a file of this name on
// every machine: names that end in an operating system or processor it doesn't.
func buildable(name string) bool {
	ctx := build.Context{GOOS: "none", GOARCH: "none", Compiler: "gc",
		OpenFile: func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("package p\n")), nil }}
	ok, err := ctx.MatchFile("", name)
	return err == nil && ok && !strings.HasSuffix(name, "_test.go")
}
