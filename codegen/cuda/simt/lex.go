package simt

import (
	"fmt"
	"regexp"
	"strings"
)

// token is a word (opcodes with all their modifiers are one), a number, a string
// or a punctuation mark, whose kind is the mark itself.
type token struct {
	kind     byte // 'w', 'n', 's', 0 at the end, else the mark
	text     string
	line     int
	from, to int // place in the text
}

// sourceComment is how the kernel builder marks the line of Go that an instruction
// comes from.
var sourceComment = regexp.MustCompile(`[^\s:]+\.go:\d+`)

func wordStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '$' || c == '%' || c == '.'
}

func wordPart(c byte) bool { return wordStart(c) || c >= '0' && c <= '9' }

// lex splits PTX into tokens. The second result has the source comment of each
// line that has one.
func lex(s string) ([]token, map[int]string, error) {
	var ts []token
	comments := map[int]string{}
	line := 1
	for i := 0; i < len(s); {
		c := s[i]
		j := i + 1
		switch {
		case c == '\n':
			line++
		case c == ' ' || c == '\t' || c == '\r':
		case c == '/' && j < len(s) && s[j] == '/':
			for j < len(s) && s[j] != '\n' {
				j++
			}
			if m := sourceComment.FindString(s[i:j]); m != "" {
				comments[line] = m
			}
		case c == '/' && j < len(s) && s[j] == '*':
			e := strings.Index(s[j+1:], "*/")
			if e < 0 {
				return nil, nil, fmt.Errorf("%d: comment without an end", line)
			}
			j += e + 3
			line += strings.Count(s[i:j], "\n")
		case c == '"':
			for j < len(s) && s[j] != '"' && s[j] != '\n' {
				j++
			}
			if j == len(s) || s[j] == '\n' {
				return nil, nil, fmt.Errorf("%d: string without an end", line)
			}
			j++
			ts = append(ts, token{'s', s[i+1 : j-1], line, i, j})
		case c >= '0' && c <= '9' || c == '.' && j < len(s) && s[j] >= '0' && s[j] <= '9':
			for j < len(s) && (wordPart(s[j]) || (s[j] == '-' || s[j] == '+') && decimalExponent(s[i:j])) {
				j++
			}
			ts = append(ts, token{'n', s[i:j], line, i, j})
		case wordStart(c):
			for j < len(s) {
				if wordPart(s[j]) {
					j++
				} else if s[j] == ':' && j+2 < len(s) && s[j+1] == ':' && wordPart(s[j+2]) {
					j += 3
				} else {
					break
				}
			}
			ts = append(ts, token{'w', s[i:j], line, i, j})
		case strings.IndexByte("{}[]()<>,;:|!@+-=", c) >= 0:
			ts = append(ts, token{c, s[i:j], line, i, j})
		default:
			return nil, nil, fmt.Errorf("%d: unexpected %q", line, c)
		}
		i = j
	}
	return append(ts, token{line: line, from: len(s), to: len(s)}), comments, nil
}

// decimalExponent says whether s is a decimal number up to its e, so that a sign
// may follow.
func decimalExponent(s string) bool {
	return (s[len(s)-1] == 'e' || s[len(s)-1] == 'E') && !strings.HasPrefix(s, "0x") && !strings.HasPrefix(s, "0X") &&
		strings.Contains(s, ".")
}
