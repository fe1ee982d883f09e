package cuda

import (
	"github.com/llir/llvm/ir/enum"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
)

// mmaUnit multiplies by mma.m16n8k16, from sm_80 on, or mma.m8n8k4, on sm_70: a warp
// alone.
//
// Rows in shared memory are 16 bytes longer than they need be, so that the eight
// rows that are read at once lie in different banks, and every address is a register
// plus a number (an XOR swizzle takes a register for every 16 columns).
type mmaUnit struct {
	x     *flash
	pitch int // bytes from row to row
	rowCore
}

// rowCore is a core whose operands are rows in shared memory, so many bytes apart.
type rowCore interface {
	// own and other prepare to load fragments of a left operand and of one whose rows
	// are the result's columns, 16 rows and as many columns as the core has terms,
	// that begin so many bytes after an address.
	own(at Value) func(bytes int) [4]Value
	other(at Value) func(bytes int) [4]Value
	// summed prepares to load fragments of an operand whose rows, from an address on,
	// are summed over: those that belong to fragment number k of sums as a left
	// operand, and 16 columns that begin after so many bytes.
	summed(at Value) func(k, bytes int) [4]Value
	// fragments are the unit's.
	fragments(words [4]Value) [][4]Value
	// multiplier multiplies own by other, or fragments of sums by summed.
	multiplier(summed bool) multiplier
}

func (x *flash) mmaUnit() *mmaUnit {
	u := &mmaUnit{x: x, pitch: 2*x.d + 16}
	if x.core == cores["m8n8k4"] {
		u.rowCore = x.voltaRows(u.pitch)
	} else {
		u.rowCore = x.ampereRows(u.pitch)
	}
	return u
}

func (u *mmaUnit) tileBytes(rows int) int { return rows * u.pitch }

func (u *mmaUnit) place(row, part Value, _ int) Value {
	return u.x.Add(u.x.MulI(row, u.pitch), u.x.MulI(part, 16))
}

func (u *mmaUnit) own(at Value, _ int, hold bool) left {
	x := u.x
	load := u.rowCore.own(x.Add(at, x.MulI(x.warp, 16*x.pieces*u.pitch)))
	l := left{fragment: func(piece, number int) [4]Value {
		return load(piece*16*u.pitch + 2*x.core.terms*number)
	}}
	if hold {
		l = x.held(l, x.d)
	}
	return l
}

func (u *mmaUnit) scores(acc []Value, l left, tile, from Value, n int) []Value {
	x := u.x
	if acc == nil {
		acc = zeros(x.pieces * n / 2)
	}
	acc = append([]Value(nil), acc...)
	load, by := u.other(x.Add(tile, x.MulI(from, u.pitch))), u.multiplier(false)
	for k := range x.d / x.core.terms {
		var a [][4]Value
		for p := range x.pieces {
			a = append(a, l.fragment(p, k))
		}
		for j := 0; j < n; j += 16 {
			b := load(j*u.pitch + 2*x.core.terms*k)
			for p := range x.pieces {
				by.multiply(a[p], b, sixteenOf(acc, n, p, j))
			}
		}
	}
	return acc
}

func (u *mmaUnit) collect(acc []Value, l left, tile, from Value, n int) []Value {
	x := u.x
	acc = append([]Value(nil), acc...)
	load, by := u.summed(x.Add(tile, x.MulI(from, u.pitch))), u.multiplier(true)
	for k := range n / x.core.terms {
		for j := 0; j < x.d; j += 16 {
			b := load(k, 2*j)
			for p := range x.pieces {
				by.multiply(l.fragment(p, k), b, sixteenOf(acc, x.d, p, j))
			}
		}
	}
	return acc
}

// sixteenOf are the sums of a piece and 16 columns from a column on, of n.
func sixteenOf(acc []Value, n, piece, column int) []Value {
	at := (piece*n + column) / 2
	return acc[at : at+8]
}

func (u *mmaUnit) settle(acc []Value, _ int) []Value { return acc }

func (u *mmaUnit) arrived() {}

// ampereRows loads by ldmatrix.
type ampereRows struct {
	x     *flash
	pitch int
	// Where a lane's rows of the matrices that ldmatrix reads are: by rows, for
	// operands whose rows are the result's columns; by columns, for those whose
	// rows are summed over, and for left operands.
	byRow, byColumn Value
}

func (x *flash) ampereRows(pitch int) *ampereRows {
	row := x.Add(x.AndI(x.lane, 7), x.MulI(x.Shr(x.lane, 4), 8))
	return &ampereRows{x: x, pitch: pitch,
		byRow:    x.Add(x.MulI(row, pitch), x.MulI(x.AndI(x.Shr(x.lane, 3), 1), 16)),
		byColumn: x.Add(x.MulI(x.AndI(x.lane, 15), pitch), x.MulI(x.Shr(x.lane, 4), 16)),
	}
}

func (u *ampereRows) load(at Value, transposed bool) func(bytes int) [4]Value {
	return func(bytes int) [4]Value { return u.x.LoadMatrix(u.x.AddI(at, bytes), transposed) }
}

func (u *ampereRows) own(at Value) func(bytes int) [4]Value {
	return u.load(u.x.Add(at, u.byColumn), false)
}

func (u *ampereRows) other(at Value) func(bytes int) [4]Value {
	return u.load(u.x.Add(at, u.byRow), false)
}

func (u *ampereRows) summed(at Value) func(k, bytes int) [4]Value {
	load := u.load(u.x.Add(at, u.byColumn), true)
	return func(k, bytes int) [4]Value { return load(16*k*u.pitch + bytes) }
}

func (u *ampereRows) fragments(words [4]Value) [][4]Value { return [][4]Value{words} }

func (u *ampereRows) multiplier(bool) multiplier { return &ampere{u.x.emitter, u.x.kind, nil} }

// voltaRows: of an operand whose rows aren't summed over, a lane has 8 columns of one
// row; of another, four columns of one row and of the row 8 further on.
//
// Sums become left operands by shuffles. A lane has sums of two rows, one of which is
// its row of a left operand; of that it gets what the lane has that differs in bit 1,
// in exchange for the other row. Then it has 8 of 16 columns, those of its quad pair;
// the other 8 it gets from the lane that differs in bit 3. Which of both come first
// differs between quad pairs, and so does the order in which they sum.
type voltaRows struct {
	x     *flash
	pitch int
	// Where a lane's rows are: of left operands, of those whose rows are the result's
	// columns, of those whose rows are summed over for even and odd fragments.
	left, right Value
	halves      [2]Value
	second      Value // the lane's row of a left operand is the second of its sums'
}

func (x *flash) voltaRows(pitch int) *voltaRows {
	e, among := x.emitter, x.AndI(x.lane, 3)
	row := func(first Value) Value { return x.MulI(x.Add(first, among), pitch) }
	half, columns := pairOf(e, x.lane, 3), x.MulI(operandOf(e, x.lane, 3), 2)
	return &voltaRows{x: x, pitch: pitch,
		left:   row(operandOf(e, x.lane, 2)),
		right:  row(operandOf(e, x.lane, 3)),
		halves: [2]Value{x.Add(row(half), columns), x.Add(row(x.Xor(half, build.Int(4))), columns)},
		second: x.Compare(enum.IPredNE, x.AndI(x.lane, 2), build.Int(0)),
	}
}

// load is n words that begin so many bytes after an address.
func (u *voltaRows) load(at Value, bytes, n int) []Value {
	x := u.x
	v := x.Load(x.Cast(x.At(x.SharedAt(at, build.I8), build.Int(bytes)), build.Vec(n, build.I32)))
	out := make([]Value, n)
	for i := range out {
		out[i] = x.Elem(v, i)
	}
	return out
}

func (u *voltaRows) line(at Value) func(bytes int) [4]Value {
	return func(bytes int) [4]Value { return [4]Value(u.load(at, bytes, 4)) }
}

func (u *voltaRows) own(at Value) func(bytes int) [4]Value { return u.line(u.x.Add(at, u.left)) }

func (u *voltaRows) other(at Value) func(bytes int) [4]Value { return u.line(u.x.Add(at, u.right)) }

func (u *voltaRows) summed(at Value) func(k, bytes int) [4]Value {
	from := [2]Value{u.x.Add(at, u.halves[0]), u.x.Add(at, u.halves[1])}
	return func(k, bytes int) [4]Value {
		bytes += k / 2 * 16 * u.pitch
		return [4]Value(append(u.load(from[k%2], bytes, 2), u.load(from[k%2], bytes+8*u.pitch, 2)...))
	}
}

func (u *voltaRows) fragments(words [4]Value) [][4]Value {
	x := u.x
	var own, others [4]Value
	for i := 0; i < 4; i += 2 {
		a, b := words[i], words[i+1]
		keep, got := x.Select(u.second, b, a), x.ShuffleXor(x.Select(u.second, a, b), 2)
		own[i], own[i+1] = x.Select(u.second, got, keep), x.Select(u.second, keep, got)
	}
	for i := range own {
		others[i] = x.ShuffleXor(own[i], 8)
	}
	return [][4]Value{own, others}
}

func (u *voltaRows) multiplier(summed bool) multiplier { return &volta{u.x.emitter, true, summed} }
