package bpe

import "fmt"

// In files every byte is a printable rune (GPT-2's table): printable Latin-1 bytes
// stand for themselves, the other 68 for the runes from U+0100 on.
var (
	byteOrder [256]byte // the order in which bytes get the first ids
	byteRune  [256]rune
	runeByte  = make(map[rune]byte, 256)
)

func init() {
	n := 0
	add := func(b int, r rune) {
		byteOrder[n], byteRune[b], runeByte[r] = byte(b), r, byte(b)
		n++
	}
	printable := func(b int) bool { return '!' <= b && b <= '~' || 0xa1 <= b && b <= 0xac || 0xae <= b }
	for b := range 256 {
		if printable(b) {
			add(b, rune(b))
		}
	}
	for b, r := 0, rune(256); b < 256; b++ {
		if !printable(b) {
			add(b, r)
			r++
		}
	}
}

// escape writes raw bytes in the files' alphabet.
func escape(bytes string) string {
	runes := make([]rune, len(bytes))
	for i := range len(bytes) {
		runes[i] = byteRune[bytes[i]]
	}
	return string(runes)
}

// unescape is escape's inverse.
func unescape(text string) (string, error) {
	out := make([]byte, 0, len(text))
	for _, r := range text {
		b, ok := runeByte[r]
		if !ok {
			return "", fmt.Errorf("%q: %q is not in the byte-level alphabet", text, r)
		}
		out = append(out, b)
	}
	return string(out), nil
}
