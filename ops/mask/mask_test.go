package mask

import (
	"fmt"
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

// expand reads a block table into a matrix of the pairs it allows, of whole
// blocks, and their number.
func expand(t *testing.T, table []int32, n int) (pairs [][]bool, count int) {
	t.Helper()
	nb := (n + Block - 1) / Block
	if int(table[0]) != nb+1 {
		t.Fatalf("first entry at word %d, want %d", table[0], nb+1)
	}
	pairs = make([][]bool, nb*Block)
	for i := range pairs {
		pairs[i] = make([]bool, nb*Block)
	}
	for i := 0; i < nb; i++ {
		last := int32(-1)
		for e := table[i]; e < table[i+1]; e += 2 {
			j, bits := table[e], table[e+1]
			if j <= last {
				t.Fatalf("block %d lists block %d after %d", i, j, last)
			}
			last = j
			any := false
			for r := 0; r < Block; r++ {
				for c := 0; c < Block; c++ {
					if bits == 0 || uint32(table[int(bits)+r])>>c&1 == 1 {
						pairs[i*Block+r][int(j)*Block+c] = true
						count++
						any = true
					}
				}
			}
			if !any {
				t.Fatalf("block %d lists block %d, which has no allowed pair", i, j)
			}
		}
	}
	return pairs, count
}

func TestTablesAllowWhatThePredicateAllows(t *testing.T) {
	for _, c := range checked {
		t.Run(fmt.Sprintf("%s/%d", c.m, c.t), func(t *testing.T) {
			byQuery, queryPairs := expand(t, Blocks(c.m, c.t, Block), c.t)
			byKey, keyPairs := expand(t, BlocksTransposed(c.m, c.t, Block), c.t)
			list := Keys(c.m, c.t)
			n := 0
			for q := 0; q < c.t; q++ {
				next := list[q]
				for k := 0; k < c.t; k++ {
					want := c.m.Allowed(q, k)
					if byQuery[q][k] != want || byKey[k][q] != want {
						t.Fatalf("query %d key %d: predicate %v, blocks %v, transposed %v", q, k, want, byQuery[q][k], byKey[k][q])
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
			if queryPairs != n || keyPairs != n || Pairs(c.m, c.t) != n {
				t.Errorf("%d pairs allowed; blocks have %d, transposed %d, Pairs %d", n, queryPairs, keyPairs, Pairs(c.m, c.t))
			}
		})
	}
}

func TestBlocksFullyInsideAreMarkedFull(t *testing.T) {
	table := Blocks(Causal(), 96, Block)
	for i := 0; i < 3; i++ {
		for e := table[i]; e < table[i+1]; e += 2 {
			if full := table[e+1] == 0; full != (int(table[e]) < i) {
				t.Errorf("causal block %d,%d: full is %v", i, table[e], full)
			}
		}
	}
	if n := len(table); n != 4+2*6+Block {
		t.Errorf("causal table over 3 blocks has %d words; the diagonal's bits should be stored once", n)
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
