package mask

import (
	"fmt"
	"math/bits"
	"testing"
)

// The sizes the tables are checked at: below, at and above one block, and a
// stream whose last block is partial.
var checked = []struct {
	m Mask
	t int
}{
	{All(), 1},
	{All(), 45},
	{Prefix(3), 90}, // most keys have no query
	{Causal(), 31},
	{Causal(), 32},
	{Causal(), 33},
	{Causal(), 96},
	{Row(20, 8, 8), Len(20, 8, 8)},
	{Column(20, 8, 8), Len(20, 8, 8)},
	{Conv(20, 8, 8, 5), Len(20, 8, 8)},
	{Row(256, 32, 32), Len(256, 32, 32)},
	{Column(256, 32, 32), Len(256, 32, 32)},
	{Conv(256, 32, 32, ConvSize), Len(256, 32, 32)},
}

// expand reads a block table into a matrix of the pairs it allows and checks
// its layout.
func expand(t *testing.T, table []int32, n int) [][]bool {
	t.Helper()
	pairs := make([][]bool, n)
	seen := make([]bool, n)
	for q := range pairs {
		pairs[q] = make([]bool, n)
	}
	blocks := int(table[0])
	for i := 0; i < blocks; i++ {
		at, end := table[1+i], table[2+i]
		lanes, list := int(table[at]), table[table[at+1]:][:Lanes]
		for l, q := range list {
			switch {
			case l >= lanes && q != list[lanes-1]:
				t.Fatalf("block %d: lane %d is query %d, not the last one repeated", i, l, q)
			case l < lanes && seen[q]:
				t.Fatalf("query %d is in two blocks", q)
			}
			seen[q] = true
		}
		if (end-at-2)%EntryWords != 0 || end == at+2 {
			t.Fatalf("block %d has %d words", i, end-at)
		}
		for e := at + 2; e < end; e += EntryWords {
			count, keys, bits, first, last := int(table[e]), table[table[e+1]:], table[e+2], int(table[e+3]), int(table[e+4])
			if count < 1 || count > Span {
				t.Fatalf("block %d has an entry of %d keys", i, count)
			}
			if bits == 0 && (count%8 != 0 || lanes < Lanes) {
				t.Fatalf("block %d: %d lanes and %d keys without a mask", i, lanes, count)
			}
			if first%half != 0 || last%half != 0 || first >= last || last > Lanes || bits == 0 && last-first < Lanes {
				t.Fatalf("block %d has an entry for lanes %d to %d", i, first, last)
			}
			if lanes <= half && last > half && count >= fewKeys {
				t.Fatalf("block %d has %d queries, and an entry for lanes %d to %d", i, lanes, first, last)
			}
			for c := 0; c < (count+7)&^7; c++ {
				used := false
				for l := range Lanes {
					if bits != 0 && uint32(table[int(bits)+c/32*Lanes+l])>>(c%32)&1 == 0 {
						continue
					}
					if l >= lanes || c >= count || l < first || l >= last {
						t.Fatalf("block %d allows lane %d of %d key %d of %d", i, l, lanes, c, count)
					}
					if pairs[list[l]][keys[c]] {
						t.Fatalf("query %d has key %d twice", list[l], keys[c])
					}
					pairs[list[l]][keys[c]] = true
					used = true
				}
				if c < count && !used {
					t.Fatalf("block %d lists key %d, which no query is allowed", i, keys[c])
				}
				if keys[c] != keys[min(c, count-1)] {
					t.Fatalf("block %d: key %d of %d is not the last one repeated", i, c, count)
				}
			}
		}
	}
	for q, ok := range seen {
		if !ok {
			t.Fatalf("query %d is in no block", q)
		}
	}
	return pairs
}

func TestTablesAllowWhatThePredicateAllows(t *testing.T) {
	for _, c := range checked {
		t.Run(fmt.Sprintf("%s/%d", c.m, c.t), func(t *testing.T) {
			pairs := expand(t, Blocks(c.m, c.t), c.t)
			list := Keys(c.m, c.t)
			n := 0
			for q := 0; q < c.t; q++ {
				next := list[q]
				for k := 0; k < c.t; k++ {
					want := c.m.Allowed(q, k)
					if pairs[q][k] != want {
						t.Fatalf("query %d key %d: predicate %v, blocks %v", q, k, want, pairs[q][k])
					}
					if want {
						n++
						if next >= list[q+1] || int(list[next]) != k {
							t.Fatalf("query %d: key %d is not next in the key list", q, k)
						}
						next++
					}
				}
				if next != list[q+1] {
					t.Fatalf("query %d: the key list goes on after its keys", q)
				}
			}
			if Pairs(c.m, c.t) != n {
				t.Errorf("%d pairs allowed, Pairs says %d", n, Pairs(c.m, c.t))
			}
		})
	}
}

// expandTiles reads a tile table into a matrix of the pairs it allows, by row,
// and checks its layout.
func expandTiles(t *testing.T, table []int32, n int, s Shape) [][]bool {
	t.Helper()
	allowed := make([][]bool, n)
	seen := make([]bool, n)
	for q := range allowed {
		allowed[q] = make([]bool, n)
	}
	warps := s.Lanes / s.Warp
	for i := range int(table[0]) {
		r := table[8*(1+i):][:8]
		rows, columns, whole := int(r[0]), int(r[2]), int(r[3])
		tiles := (columns + TileSize - 1) / TileSize
		if rows < 1 || rows > s.Lanes || columns < 1 || whole > columns/TileSize {
			t.Fatalf("block %d: %d rows, %d columns, %d whole tiles", i, rows, columns, whole)
		}
		list, at := table[r[1]:][:s.Lanes], table[r[4]:][:tiles*TileSize]
		for l, q := range list {
			switch {
			case l >= rows && q != list[rows-1]:
				t.Fatalf("block %d: lane %d is %d, not the last one repeated", i, l, q)
			case l < rows && seen[q]:
				t.Fatalf("row %d is in two blocks", q)
			}
			seen[q] = true
		}
		words, busy := table[r[5]:][:(tiles-whole)*TileSize/32*s.Lanes], table[r[6]:][:tiles-whole]
		some := make([]uint32, len(busy))
		for c, k := range at {
			if k != at[min(c, columns-1)] {
				t.Fatalf("block %d: column %d of %d is not the last one repeated", i, c, columns)
			}
			used := false
			for l := range s.Lanes {
				m := c - whole*TileSize
				if m >= 0 && uint32(words[m/32*s.Lanes+l])>>(m%32)&1 == 0 || m < 0 && l >= rows {
					continue
				}
				if l >= rows || c >= columns {
					t.Fatalf("block %d allows lane %d of %d column %d of %d", i, l, rows, c, columns)
				}
				if allowed[list[l]][k] {
					t.Fatalf("row %d has column %d twice", list[l], k)
				}
				allowed[list[l]][k] = true
				used = true
				if m >= 0 {
					some[m/TileSize] |= 1 << (m%TileSize/GroupSize*warps + l/s.Warp)
				}
			}
			if c < columns && !used && columns > 1 {
				t.Fatalf("block %d lists column %d, which no row is allowed", i, k)
			}
		}
		for j := range busy {
			if uint32(busy[j]) != some[j] {
				t.Fatalf("block %d: tile %d keeps warps %08x busy, table says %08x", i, whole+j, some[j], uint32(busy[j]))
			}
		}
	}
	for q, ok := range seen {
		if !ok {
			t.Fatalf("row %d is in no block", q)
		}
	}
	return allowed
}

func TestTileTablesAllowWhatThePredicateAllows(t *testing.T) {
	for _, c := range checked {
		shapes := []Shape{{128, 32}, {64, 16}}
		if c.t < 200 {
			shapes = append(shapes, Shape{128, 16}, Shape{64, 32}, Shape{16, 4}, Shape{32, 8})
		}
		for _, s := range shapes {
			for _, transposed := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/%v/%v", c.m, c.t, s, transposed), func(t *testing.T) {
					allowed := expandTiles(t, Tiles(c.m, c.t, s, transposed), c.t, s)
					for row := range allowed {
						for column, got := range allowed[row] {
							q, k := row, column
							if transposed {
								q, k = column, row
							}
							if want := c.m.Allowed(q, k); got != want {
								t.Fatalf("query %d key %d: predicate %v, table %v", q, k, want, got)
							}
						}
					}
				})
			}
		}
	}
}

// What warps of 64 rows cannot leave out at the paper's size, in pairs that
// are worked on for one that is allowed.
func TestTileTablesLeaveOutMost(t *testing.T) {
	const text, w, h = 256, 32, 32
	n := Len(text, w, h)
	s := Shape{Lanes: 128, Warp: 64}
	for _, c := range []struct {
		m          Mask
		transposed bool
		most       float64
	}{
		{Row(text, w, h), false, 1.27}, {Column(text, w, h), false, 1.25}, {Conv(text, w, h, ConvSize), false, 1.52},
		{Row(text, w, h), true, 1.4}, {Column(text, w, h), true, 1.45}, {Conv(text, w, h, ConvSize), true, 1.65},
	} {
		table := Tiles(c.m, n, s, c.transposed)
		groups := 0
		for i := range table[0] {
			r := table[8*(1+i):][:8]
			groups += int(r[3]) * TileSize / GroupSize * s.Lanes / s.Warp
			for _, busy := range table[r[6]:][:(r[2]+TileSize-1)/TileSize-r[3]] {
				groups += bits.OnesCount32(uint32(busy))
			}
		}
		if got := float64(groups*GroupSize*s.Warp) / float64(Pairs(c.m, n)); got > c.most {
			t.Errorf("%s, transposed %v: %.2f pairs for each allowed one, want at most %.2f", c.m, c.transposed, got, c.most)
		}
	}
}

// At the paper's size a block of image queries looks at few keys that its
// queries don't: 290 are allowed to each under the row and column masks, 318
// under the convolutional one.
func TestBlocksHaveFewKeysToSpare(t *testing.T) {
	const text, w, h = 256, 32, 32
	for _, c := range []struct {
		m    Mask
		most int
	}{{Row(text, w, h), 305}, {Column(text, w, h), 281}, {Conv(text, w, h, ConvSize), 378}} {
		table := Blocks(c.m, Len(text, w, h))
		for i := int32(0); i < table[0]; i++ {
			n := 0 // of half a block's queries
			for e := table[1+i] + 2; e < table[2+i]; e += EntryWords {
				n += int(table[e] * (table[e+4] - table[e+3]) / half)
			}
			if n > 2*c.most {
				t.Errorf("%s: a query of block %d has %d keys, want at most %d", c.m, i, (n+1)/2, c.most)
			}
		}
		if n := int(table[0]); n > 42 {
			t.Errorf("%s: %d blocks", c.m, n)
		}
	}
}

func TestNoQueryIsLeftWithoutKeys(t *testing.T) {
	for _, c := range checked {
		if q := FirstEmpty(c.m, c.t); q >= 0 {
			t.Errorf("%s over %d: query %d has no key", c.m, c.t, q)
		}
	}
	if q := FirstEmpty(Causal().And(ConvWindow(3, 4)).And(Prefix(2)), 9); q != 7 {
		t.Errorf("first empty query is %d, want 7", q)
	}
}

// Interior counts of paper figure 11 at 32 x 32, row r = 16, column c = 16.
func TestImageTokensSeeThePapersPatterns(t *testing.T) {
	const text, w, h = 256, 32, 32
	r, c := 16, 16
	q := 1 + text + r*w + c
	for _, x := range []struct {
		m    Mask
		want int
	}{{Row(text, w, h), 33}, {Column(text, w, h), r + 1}, {Conv(text, w, h, ConvSize), 61}} {
		image := 0
		for k := 0; k < Len(text, w, h); k++ {
			if k <= text {
				if !x.m.Allowed(q, k) {
					t.Errorf("%s: text key %d is hidden from image query", x.m, k)
				}
			} else if x.m.Allowed(q, k) {
				image++
			}
			if k > q && x.m.Allowed(q, k) {
				t.Errorf("%s: key %d is after query %d", x.m, k, q)
			}
		}
		if image != x.want {
			t.Errorf("%s: %d image keys, want %d", x.m, image, x.want)
		}
	}
	if !Column(text, w, h).Allowed(q, q-3*w) || Column(text, w, h).Allowed(q, q-3*w+1) {
		t.Error("column mask leaves its column")
	}
}

func TestTextTokensAreCausalInEveryLayer(t *testing.T) {
	for _, m := range Layers(4, 10, 4, 4) {
		for q := 0; q <= 10; q++ {
			for k := 0; k < Len(10, 4, 4); k++ {
				if m.Allowed(q, k) != (k <= q) {
					t.Errorf("%s: query %d key %d", m, q, k)
				}
			}
		}
	}
}

func TestOrderHasThePapersCounts(t *testing.T) {
	count := map[Kind]int{}
	order := Order(64)
	for _, k := range order {
		count[k]++
	}
	if count[RowKind] != 47 || count[ColumnKind] != 16 || count[ConvKind] != 1 || order[63] != ConvKind {
		t.Errorf("%v, want 47 rows, 16 columns, 1 conv at the end", count)
	}
	if got := fmt.Sprint(order[:6]); got != "[row column row row row column]" {
		t.Errorf("order starts %s", got)
	}
}

func TestTextParsesBack(t *testing.T) {
	for _, m := range []Mask{
		All(), Causal(), Row(256, 32, 32), Column(3, 5, 7), Conv(256, 32, 32, 11),
		Causal().Or(Prefix(3)), Causal().And(Prefix(3)).Or(RowWindow(2).And(ColumnStride(4))),
		Causal().Or(Prefix(3)).And(RowWindow(2).Or(ColumnStride(4))).And(ConvWindow(3, 4)),
	} {
		var back Mask
		if err := back.UnmarshalText([]byte(m.String())); err != nil {
			t.Fatal(err)
		}
		if back.String() != m.String() {
			t.Errorf("%s parses as %s", m, back)
		}
		for q := 0; q < 40; q++ {
			for k := 0; k < 40; k++ {
				if m.Allowed(q, k) != back.Allowed(q, k) {
					t.Fatalf("%s: query %d key %d differs after parsing", m, q, k)
				}
			}
		}
	}
	if got := Row(256, 32, 32).String(); got != "causal&(prefix(257)|row(32))" {
		t.Errorf("row mask prints as %s", got)
	}
}

func TestParseErrorsSayWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":               `mask "": unknown pattern ""; one of all causal column conv prefix row`,
		"causal&":        `mask "causal&": unknown pattern ""; one of all causal column conv prefix row`,
		"diag":           `mask "diag": unknown pattern "diag"; one of all causal column conv prefix row`,
		"prefix":         `mask "prefix": prefix needs numbers in parentheses`,
		"prefix(0)":      `mask "prefix(0)": prefix needs positive numbers, has "0"`,
		"conv(3)":        `mask "conv(3)": conv takes 2 numbers, has "3"`,
		"(causal":        `mask "(causal": missing ) at ""`,
		"causal|row(2))": `mask "causal|row(2))": unexpected ")"`,
	} {
		_, err := Parse(text)
		if err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", text, err, want)
		}
	}
}
