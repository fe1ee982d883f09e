package ir

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Remat says which values of the forward pass a module's gradients compute
// again instead of keeping them.
type Remat string

// The ways: what costs little for the memory that it saves, which is the default;
// what costs little, whatever it saves; nothing; everything inside resblocks, from
// what enters them (section 2.4 of the paper). A function without a resblock has
// its other regions for them.
const (
	RematAuto   Remat = ""
	RematCheap  Remat = "cheap"
	RematOff    Remat = "off"
	RematBlocks Remat = "blocks"
)

// ParseRemat reads auto, cheap, off or blocks.
func ParseRemat(s string) (Remat, error) {
	switch r := Remat(s); r {
	case "auto":
		return RematAuto, nil
	case RematCheap, RematOff, RematBlocks:
		return r, nil
	}
	return RematAuto, fmt.Errorf("unknown recomputation %q; one of auto, cheap, off, blocks", s)
}

// Bytes is an amount of memory. Its text is never less than the amount, so that a
// budget of what is printed is enough.
type Bytes int

var units = []struct {
	name     string
	size     float64
	decimals int
}{{"GiB", 1 << 30, 2}, {"MiB", 1 << 20, 1}, {"KiB", 1 << 10, 1}}

// String is such as 1.50GiB or 700.1MiB.
func (b Bytes) String() string {
	for _, u := range units {
		if n := float64(b) / u.size; n >= 1 {
			fine := math.Pow10(u.decimals)
			return strconv.FormatFloat(math.Ceil(n*fine)/fine, 'f', u.decimals, 64) + u.name
		}
	}
	return strconv.Itoa(int(b))
}

// ParseBudget reads an amount of memory such as 6GiB, 1.5 GiB or 800000.
func ParseBudget(s string) (int, error) {
	number, size := s, 1.0
	for _, u := range units {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			number, size = strings.TrimSpace(n), u.size
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || !(n*size >= 1 && n*size < 1<<62) {
		return 0, fmt.Errorf("unknown budget %q; give an amount of memory such as 6GiB, 512MiB or 800000", s)
	}
	return int(n * size), nil
}
