package bpe

import (
	"html"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Convention says how a token shows where a word begins or ends.
type Convention int

const (
	SpacePrefix Convention = iota // a word includes the space before it (GPT-2)
	WordSuffix                    // the last symbol of a word carries "</w>" (CLIP)
)

// String names the convention.
func (c Convention) String() string {
	if c == WordSuffix {
		return "word suffix"
	}
	return "space prefix"
}

// Clean returns the caption as the tokenizer sees it: valid UTF-8, lowercase, runs
// of white space made one space, none at the ends. Under WordSuffix HTML entities
// are resolved first, twice, as CLIP does.
func (c Convention) Clean(caption string) string {
	if c == WordSuffix && strings.IndexByte(caption, '&') >= 0 {
		caption = html.UnescapeString(html.UnescapeString(caption))
	}
	clean := make([]byte, 0, len(caption)+1)
	gap := false
	for i := 0; i < len(caption); {
		r, n := rune(caption[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(caption[i:])
		}
		i += n
		if unicode.IsSpace(r) {
			gap = len(clean) > 0
			continue
		}
		if gap {
			clean, gap = append(clean, ' '), false
		}
		if r < utf8.RuneSelf {
			if 'A' <= r && r <= 'Z' {
				r += 'a' - 'A'
			}
			clean = append(clean, byte(r))
		} else {
			clean = utf8.AppendRune(clean, unicode.ToLower(r))
		}
	}
	return string(clean)
}

type class uint8

const (
	other class = iota
	space
	letter
	digit
)

func classOf(s string) (class, int) {
	if c := s[0]; c < utf8.RuneSelf {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
			return letter, 1
		case '0' <= c && c <= '9':
			return digit, 1
		case c == ' ':
			return space, 1
		}
		return other, 1
	}
	r, n := utf8.DecodeRuneInString(s)
	switch {
	case unicode.IsLetter(r):
		return letter, n
	case unicode.IsNumber(r):
		return digit, n
	}
	return other, n
}

// nextWord returns the length of the first word of cleaned, non-empty text. It
// is a hand-written form of two regular expressions, about 20 times as fast as
// package regexp on them:
//
//	GPT-2  's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+
//	CLIP   's|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+
//
// A space at the front counts as part of the word; WordSuffix callers cut it off
// before.
func (c Convention) nextWord(s string) int {
	i := 0
	if s[0] == ' ' {
		i = 1
	} else if n := contraction(s); n > 0 {
		return n
	}
	kind, n := classOf(s[i:])
	i += n
	if kind == digit && c == WordSuffix {
		return i
	}
	for i < len(s) {
		k, n := classOf(s[i:])
		if k != kind {
			break
		}
		i += n
	}
	return i
}

func contraction(s string) int {
	if s[0] != '\'' || len(s) < 2 {
		return 0
	}
	switch s[1] {
	case 's', 't', 'm', 'd':
		return 2
	}
	if len(s) >= 3 {
		switch s[1:3] {
		case "re", "ve", "ll":
			return 3
		}
	}
	return 0
}

// eachWord calls f with every word of a caption, in order.
func (c Convention) eachWord(caption string, f func(word string)) {
	text := c.Clean(caption)
	if text == "" {
		return
	}
	if c == SpacePrefix {
		text = " " + text
	}
	for len(text) > 0 {
		if c == WordSuffix && text[0] == ' ' {
			text = text[1:]
		}
		n := c.nextWord(text)
		f(text[:n])
		text = text[n:]
	}
}
