package mask

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
)

// Tiles of tile tables have TileSize columns, in steps of word; GroupSize
// columns are what can be left out.
const (
	TileSize  = 64
	GroupSize = 16
)

// Shape is what a block of a tile table may be: up to Lanes rows, of which each
// Warp, Warp, ... are treated together. Lanes/Warp is at most 8.
type Shape struct{ Lanes, Warp int }

func (s Shape) warps() int { return s.Lanes / s.Warp }

// Tiles is the tile table of m over t positions; see the package documentation
// for its layout. Rows are queries and columns keys, or, transposed, rows are
// keys and columns queries.
func Tiles(m Mask, t int, s Shape, transposed bool) []int32 {
	kind := fmt.Sprintf("tiles %d %d %v", s.Lanes, s.Warp, transposed)
	return memo(kind, m, t, func(m Mask, t int) []int32 { return tileTable(m, t, s, transposed) })
}

// tileTable puts rows into blocks in the way that costs least.
func tileTable(m Mask, t int, s Shape, transposed bool) []int32 {
	p := pairs{t: t, lists: lists(m, t, transposed)}
	var best []tiled
	least := -1
	for _, order := range shapes(m, t, s) {
		bs := make([]tiled, len(order))
		cost := 0
		for i, rows := range order {
			bs[i] = p.tile(rows, s)
			cost += bs[i].cost
		}
		if least < 0 || cost < least {
			best, least = bs, cost
		}
	}
	// What takes long is begun first.
	slices.SortStableFunc(best, func(a, b tiled) int { return b.cost - a.cost })
	return lay(best, s)
}

// pairs lists the columns of every row, ascending.
type pairs struct {
	t     int
	lists [][]int32
}

func lists(m Mask, t int, transposed bool) [][]int32 {
	table := Keys(m, t)
	out := make([][]int32, t)
	for q := range out {
		keys := table[table[q]:table[q+1]]
		if !transposed {
			out[q] = keys
			continue
		}
		for _, k := range keys {
			out[k] = append(out[k], int32(q))
		}
	}
	return out
}

// shapes lists ways to put positions into blocks, as orders does; and for those
// that are tiles of a picture, ways to put the rows of a block into warps.
func shapes(m Mask, t int, s Shape) [][][]int {
	out := [][][]int{inTurn(t, s.Lanes)}
	prefixes, widths := pictures(m, t)
	for _, p := range prefixes {
		for _, w := range widths {
			for rows := 1; rows <= s.Lanes; rows *= 2 {
				blocks := tiles(p, t, w, rows, s.Lanes/rows)
				for r := 1; r <= min(rows, s.Warp); r *= 2 {
					if s.Warp/r > s.Lanes/rows {
						continue
					}
					order := inTurn(p, s.Lanes)
					for _, b := range blocks {
						order = append(order, nest(b, p, w, r, s.Warp/r))
					}
					out = append(out, order)
				}
			}
		}
	}
	return out
}

// nest orders the positions of a tile of a picture of width w that begins at
// position from so that those of smaller tiles follow each other.
func nest(tile []int, from, w, rows, cols int) []int {
	r0, c0 := (tile[0]-from)/w, (tile[0]-from)%w
	place := func(i int) [4]int {
		r, c := (i-from)/w-r0, (i-from)%w-c0
		return [4]int{r / rows, c / cols, r, c}
	}
	out := slices.Clone(tile)
	slices.SortFunc(out, func(i, j int) int {
		a, b := place(i), place(j)
		return slices.Compare(a[:], b[:])
	})
	return out
}

// tiled is a block of a tile table.
type tiled struct {
	rows    []int
	columns []int32
	whole   int     // leading tiles of which all is allowed
	words   []int32 // of the other tiles
	busy    []uint32
	cost    int
}

// tile finds the columns of a block and puts them into an order: first as many
// tiles of those that all rows are allowed as there are. Columns that few warps
// are allowed lie together, so that the others can leave out groups of them.
func (p pairs) tile(rows []int, s Shape) tiled {
	type column struct {
		at          int32
		n           int
		first, last int // warps
	}
	found := make([]column, p.t)
	for i, q := range rows {
		for _, k := range p.lists[q] {
			c := &found[k]
			if c.n == 0 {
				c.first = i / s.Warp
			}
			c.n++
			c.last = i / s.Warp
		}
	}
	var all, some []column
	for k, c := range found {
		c.at = int32(k)
		switch {
		case c.n == len(rows):
			all = append(all, c)
		case c.n > 0:
			some = append(some, c)
		}
	}
	if len(all)+len(some) == 0 {
		some = []column{{}} // so that blocks are never empty
	}
	slices.SortStableFunc(some, func(a, b column) int {
		return cmp.Or(a.first-b.first, a.last-b.last)
	})
	whole := len(all) / TileSize
	if len(rows) <= s.Lanes-s.Warp {
		whole = 0 // a warp has no rows and can leave out everything
	}
	rest := all[whole*TileSize:]
	var best tiled
	for i, order := range [][]column{append(slices.Clone(rest), some...), append(some, rest...)} {
		b := tiled{rows: rows, whole: whole}
		for _, c := range all[:whole*TileSize] {
			b.columns = append(b.columns, c.at)
		}
		for _, c := range order {
			b.columns = append(b.columns, c.at)
		}
		p.words(&b, s)
		if i == 0 || b.cost < best.cost {
			best = b
		}
	}
	return best
}

// words fills in the mask words of the tiles that need them, which warps are
// busy in which group, and what the block costs.
func (p pairs) words(b *tiled, s Shape) {
	place := make([]int, p.t) // of columns, from 1
	for i, c := range b.columns {
		place[c] = i + 1
	}
	masked := (len(b.columns)+TileSize-1)/TileSize - b.whole
	b.words = make([]int32, masked*TileSize/word*s.Lanes)
	b.busy = make([]uint32, masked)
	for i, q := range b.rows {
		for _, k := range p.lists[q] {
			at := place[k] - 1 - b.whole*TileSize
			if at < 0 {
				continue
			}
			b.words[at/word*s.Lanes+i] |= 1 << (at % word)
			b.busy[at/TileSize] |= 1 << (at%TileSize/GroupSize*s.warps() + i/s.Warp)
		}
	}
	// A group of a warp takes four times as long as fetching a group takes a
	// warp, and a block as long to begin and end as four groups.
	busy := b.whole * TileSize / GroupSize * s.warps()
	for _, w := range b.busy {
		busy += bits.OnesCount32(w)
	}
	b.cost = (4*busy + (len(b.columns)/GroupSize+16)*s.warps()) * s.Warp
}

// record is the number of words about a block.
const record = 8

// lay writes blocks as a table.
func lay(bs []tiled, s Shape) []int32 {
	table := make([]int32, record*(1+len(bs)))
	table[0] = int32(len(bs))
	for i, b := range bs {
		r := table[record*(1+i):][:record]
		r[0], r[2], r[3] = int32(len(b.rows)), int32(len(b.columns)), int32(b.whole)
		r[1] = int32(len(table))
		table = append(table, padded(b.rows, s.Lanes)...)
		n := (len(b.columns) + TileSize - 1) / TileSize * TileSize
		table[record*(1+i)+4] = int32(len(table))
		for j := range n {
			table = append(table, b.columns[min(j, len(b.columns)-1)])
		}
		table[record*(1+i)+5] = int32(len(table))
		table = append(table, b.words...)
		table[record*(1+i)+6] = int32(len(table))
		for _, w := range b.busy {
			table = append(table, int32(w))
		}
		table = append(table, 0) // read ahead
		for len(table)%4 != 0 {
			table = append(table, 0)
		}
	}
	return table
}
