package mask

import (
	"fmt"
	"slices"
	"sync"
)

// Lanes is the most queries of a block, and Span the most keys of an entry;
// mask words have one bit for each of 32 keys. An entry has EntryWords words.
const (
	Lanes      = 32
	Span       = 128
	EntryWords = 5
	half       = Lanes / 2
	word       = 32
)

// Blocks is the block table of m over t positions; see the package
// documentation for its layout.
func Blocks(m Mask, t int) []int32 { return memo("blocks", m, t, blocks) }

// Keys is the key list table of m over t positions; see the package
// documentation for its layout.
func Keys(m Mask, t int) []int32 { return memo("keys", m, t, keys) }

// tables remembers what was built: a model of 64 layers has three masks.
var tables = struct {
	sync.Mutex
	m map[tableKey][]int32
}{m: map[tableKey][]int32{}}

type tableKey struct {
	kind, mask string
	t          int
}

func memo(kind string, m Mask, t int, build func(m Mask, t int) []int32) []int32 {
	key := tableKey{kind, m.String(), t}
	tables.Lock()
	b := tables.m[key]
	tables.Unlock()
	if b == nil {
		b = build(m, t)
		tables.Lock()
		tables.m[key] = b
		tables.Unlock()
	}
	return b
}

// block is a set of queries that share their keys.
type block struct {
	lanes []int
	full  int   // how many keys are allowed to all: the first of both
	both  []int // keys allowed to queries of both halves, and of one alone
	one   [2][]int
}

// blocks puts queries into blocks in the way that leaves the least work.
func blocks(m Mask, t int) []int32 {
	var best []block
	least := -1
	for _, order := range orders(m, t) {
		bs := make([]block, len(order))
		work := 0
		for i, lanes := range order {
			bs[i] = gather(m, t, lanes)
			work += bs[i].work()
		}
		if least < 0 || work < least {
			best, least = bs, work
		}
	}
	return write(m, best)
}

// fewKeys is how many keys aren't worth an entry of their own for half of the lanes.
const fewKeys = 8

// work is what a block costs in pairs of half a block's queries and a key.
func (b *block) work() int {
	// 16 keys are what a block costs without any.
	return 2*(roundUp(len(b.both))+16) + roundUp(len(b.one[0])) + roundUp(len(b.one[1]))
}

// orders lists ways to put positions into blocks: in turn, and, where m looks
// at a picture of some width, the picture in tiles of several shapes. A tile
// of one column makes the column mask dense.
func orders(m Mask, t int) [][][]int {
	out := [][][]int{inTurn(t, Lanes)}
	prefixes, widths := pictures(m, t)
	for _, p := range prefixes {
		for _, w := range widths {
			for rows := 1; rows <= Lanes; rows *= 2 {
				out = append(out, append(inTurn(p, Lanes), tiles(p, t, w, rows, Lanes/rows)...))
			}
		}
	}
	return out
}

// pictures says where pictures that m looks at may begin, and their widths.
func pictures(m Mask, t int) (prefixes, widths []int) {
	add := func(to *[]int, n int) {
		if n < t && !slices.Contains(*to, n) {
			*to = append(*to, n)
		}
	}
	add(&prefixes, 0)
	each(m.e, func(a atom) {
		switch a.name {
		case "prefix":
			add(&prefixes, a.n)
		case "row", "column":
			add(&widths, a.n)
		case "conv":
			add(&widths, a.w)
		}
	})
	return prefixes, widths
}

// each calls f for all patterns of an expression.
func each(e expr, f func(atom)) {
	switch e := e.(type) {
	case atom:
		f(e)
	case both:
		for _, x := range e {
			each(x, f)
		}
	case either:
		for _, x := range e {
			each(x, f)
		}
	}
}

// inTurn cuts positions 0 to n-1 into blocks of so many. The first takes the
// remainder: where a mask is causal it has the fewest keys.
func inTurn(n, lanes int) [][]int {
	var out [][]int
	for at := 0; at < n; {
		size := lanes
		if r := n % lanes; at == 0 && r > 0 {
			size = r
		}
		var b []int
		for range size {
			b = append(b, at)
			at++
		}
		out = append(out, b)
	}
	return out
}

// tiles cuts the picture of width w in positions from to t-1 into tiles of so
// many rows and columns.
func tiles(from, t, w, rows, cols int) [][]int {
	var out [][]int
	h := (t - from + w - 1) / w
	for r := 0; r < h; r += rows {
		for c := 0; c < w; c += cols {
			var b []int
			for y := r; y < min(r+rows, h); y++ {
				for x := c; x < min(c+cols, w); x++ {
					if i := from + y*w + x; i < t {
						b = append(b, i)
					}
				}
			}
			if len(b) > 0 {
				out = append(out, b)
			}
		}
	}
	return out
}

// gather finds the keys of a block.
func gather(m Mask, t int, lanes []int) block {
	list := Keys(m, t)
	count := make([][2]int, t)
	for i, q := range lanes {
		for _, k := range list[list[q]:list[q+1]] {
			count[k][i/half]++
		}
	}
	b := block{lanes: lanes}
	full := func(n [2]int) bool { return n[1] > 0 && n[0]+n[1] == len(lanes) }
	for k, n := range count {
		if full(n) {
			b.both = append(b.both, k)
		}
	}
	b.full = len(b.both)
	for k, n := range count {
		switch {
		case full(n):
		case n[0] > 0 && n[1] > 0:
			b.both = append(b.both, k)
		case n[0] > 0:
			b.one[0] = append(b.one[0], k)
		case n[1] > 0:
			b.one[1] = append(b.one[1], k)
		}
	}
	for i, keys := range b.one {
		if len(keys) < fewKeys {
			b.both, b.one[i] = append(b.both, keys...), nil
		}
	}
	return b
}

// roundUp is n rounded up to a multiple of 8.
func roundUp(n int) int { return (n + 7) &^ 7 }

// write lays blocks out as a table.
func write(m Mask, bs []block) []int32 {
	table := make([]int32, 2+len(bs))
	table[0] = int32(len(bs))
	var lists []int32 // lists and mask words, put behind the records
	known := map[string]int32{}
	keep := func(list []int32) int32 {
		key := fmt.Sprint(list)
		if at, ok := known[key]; ok {
			return at
		}
		at := int32(len(lists))
		known[key] = at
		lists = append(lists, list...)
		return at
	}
	var offsets []int // of the words to which the lists' place is added
	for i, b := range bs {
		table[1+i] = int32(len(table))
		offsets = append(offsets, len(table)+1)
		table = append(table, int32(len(b.lanes)), keep(padded(b.lanes, Lanes)))
		entries := func(keys []int, first, end int32, full int) {
			for at := 0; at < len(keys); at += Span {
				keys, e := keys[at:min(at+Span, len(keys))], len(table)
				offsets = append(offsets, e+1)
				table = append(table, int32(len(keys)), keep(padded(keys, roundUp(len(keys)))), 0, first, end)
				if at+len(keys) > full || len(keys)%8 != 0 || len(b.lanes) < Lanes {
					offsets = append(offsets, e+2)
					table[e+2] = keep(allowed(m, b.lanes, keys))
				}
			}
		}
		entries(b.both, 0, Lanes, b.full)
		entries(b.one[0], 0, half, 0)
		entries(b.one[1], half, Lanes, 0)
	}
	table[1+len(bs)] = int32(len(table))
	for _, at := range offsets {
		table[at] += int32(len(table))
	}
	return append(table, lists...)
}

// padded is list with its last element repeated up to n.
func padded(list []int, n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(list[min(i, len(list)-1)])
	}
	return out
}

// allowed says for groups of 32 keys, and in them for every lane, which are
// allowed.
func allowed(m Mask, lanes, keys []int) []int32 {
	var out []int32
	for at := 0; at < len(keys); at += word {
		words := make([]int32, Lanes)
		for i, q := range lanes {
			for c, k := range keys[at:min(at+word, len(keys))] {
				if m.Allowed(q, k) {
					words[i] |= 1 << c
				}
			}
		}
		out = append(out, words...)
	}
	return out
}

func keys(m Mask, t int) []int32 {
	table := make([]int32, t+1)
	for q := 0; q < t; q++ {
		table[q] = int32(len(table))
		for k := 0; k < t; k++ {
			if m.Allowed(q, k) {
				table = append(table, int32(k))
			}
		}
	}
	table[t] = int32(len(table))
	return table
}

// Pairs is the number of allowed pairs of t positions.
func Pairs(m Mask, t int) int { return len(Keys(m, t)) - t - 1 }

// FirstEmpty is the first query of t that may attend to no key at all, for
// which attention is undefined, or -1.
func FirstEmpty(m Mask, t int) int {
	table := Keys(m, t)
	for q := 0; q < t; q++ {
		if table[q] == table[q+1] {
			return q
		}
	}
	return -1
}
