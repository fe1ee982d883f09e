package mask

import "sync"

// Block is the edge of the blocks in block tables.
const Block = 32

// Blocks is the block table of m over t positions; see the package
// documentation for its layout. block must be Block: words have 32 bits.
func Blocks(m Mask, t, block int) []int32 { return memo("blocks", m, t, block, false) }

// BlocksTransposed is Blocks with queries and keys exchanged.
func BlocksTransposed(m Mask, t, block int) []int32 { return memo("transposed", m, t, block, true) }

// tables remembers what was built: a model of 64 layers has three masks.
var tables = struct {
	sync.Mutex
	m map[tableKey][]int32
}{m: map[tableKey][]int32{}}

type tableKey struct {
	kind, mask string
	t, block   int
}

func memo(kind string, m Mask, t, block int, transposed bool) []int32 {
	key := tableKey{kind, m.String(), t, block}
	tables.Lock()
	defer tables.Unlock()
	if b := tables.m[key]; b != nil {
		return b
	}
	var b []int32
	if kind == "keys" {
		b = keys(m, t)
	} else {
		b = blocks(m, t, block, transposed)
	}
	tables.m[key] = b
	return b
}

func blocks(m Mask, t, block int, transposed bool) []int32 {
	nb := (t + block - 1) / block
	table := make([]int32, nb+1)
	type fixup struct{ at, group int }
	var (
		fixups []fixup
		groups [][Block]uint32
		number = map[[Block]uint32]int{}
	)
	for i := 0; i < nb; i++ {
		table[i] = int32(len(table))
		for j := 0; j < nb; j++ {
			var bits [Block]uint32
			count := 0
			for r := 0; r < block; r++ {
				for c := 0; c < block; c++ {
					q, k := i*block+r, j*block+c
					if q >= t || k >= t {
						continue
					}
					if transposed {
						q, k = k, q
					}
					if m.Allowed(q, k) {
						bits[r] |= 1 << c
						count++
					}
				}
			}
			if count == 0 {
				continue
			}
			if count < block*block {
				g, ok := number[bits]
				if !ok {
					g = len(groups)
					number[bits] = g
					groups = append(groups, bits)
				}
				fixups = append(fixups, fixup{len(table) + 1, g})
			}
			table = append(table, int32(j), 0)
		}
	}
	table[nb] = int32(len(table))
	base := len(table)
	for _, g := range groups {
		for _, w := range g[:block] {
			table = append(table, int32(w))
		}
	}
	for _, f := range fixups {
		table[f.at] = int32(base + f.group*block)
	}
	return table
}

// Keys is the key list table of m over t positions; see the package
// documentation for its layout.
func Keys(m Mask, t int) []int32 { return memo("keys", m, t, 0, false) }

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
