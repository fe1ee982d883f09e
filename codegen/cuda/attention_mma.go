package cuda

// mmaUnit multiplies by mma.m16n8k16, a warp alone, from sm_80 on.
//
// Rows in shared memory are 16 bytes longer than they need be, so that the eight
// rows of a matrix that ldmatrix reads lie in different banks, and every address
// is a register plus a number (an XOR swizzle takes a register for every 16
// columns).
type mmaUnit struct {
	x     *flash
	pitch int // bytes from row to row
	// Where a lane's rows of the matrices that ldmatrix reads are: by rows, for
	// operands whose rows are the result's columns; by columns, for those whose
	// rows are summed over, and for left operands.
	byRow, byColumn Value
}

func (x *flash) mmaUnit() *mmaUnit {
	u := &mmaUnit{x: x, pitch: 2*x.d + 16}
	row := x.Add(x.AndI(x.lane, 7), x.MulI(x.Shr(x.lane, 4), 8))
	u.byRow = x.Add(x.MulI(row, u.pitch), x.MulI(x.AndI(x.Shr(x.lane, 3), 1), 16))
	u.byColumn = x.Add(x.MulI(x.AndI(x.lane, 15), u.pitch), x.MulI(x.Shr(x.lane, 4), 16))
	return u
}

func (u *mmaUnit) tileBytes(rows int) int { return rows * u.pitch }

func (u *mmaUnit) place(row, part Value, _ int) Value {
	return u.x.Add(u.x.MulI(row, u.pitch), u.x.MulI(part, 16))
}

func (u *mmaUnit) own(at Value, _ int, hold bool) left {
	x := u.x
	first := x.Add(at, x.Add(x.MulI(x.warp, 16*x.pieces*u.pitch), u.byColumn))
	l := left{fragment: func(piece, columns int) [4]Value {
		return x.LoadMatrix(x.AddI(first, piece*16*u.pitch+32*columns), false)
	}}
	if hold {
		l = x.held(l, x.d)
	}
	return l
}

func (u *mmaUnit) multiply(a [4]Value, b [2]Value, acc []Value) {
	r := u.x.Mma(u.x.kind, a, b, [4]Value(acc))
	copy(acc, r[:])
}

func (u *mmaUnit) scores(acc []Value, l left, tile, from Value, n int) []Value {
	x := u.x
	if acc == nil {
		acc = zeros(x.pieces * n / 2)
	}
	acc = append([]Value(nil), acc...)
	at := x.Add(x.Add(tile, x.MulI(from, u.pitch)), u.byRow)
	for d := 0; d < x.d; d += 16 {
		var a [][4]Value
		for p := range x.pieces {
			a = append(a, l.fragment(p, d/16))
		}
		for j := 0; j < n; j += 16 {
			b := x.LoadMatrix(x.AddI(at, j*u.pitch+2*d), false)
			for p := range x.pieces {
				for i := range 2 {
					u.multiply(a[p], [2]Value{b[2*i], b[2*i+1]}, sumsOf(acc, n, p, j/8+i))
				}
			}
		}
	}
	return acc
}

func (u *mmaUnit) collect(acc []Value, l left, tile, from Value, n int) []Value {
	x := u.x
	acc = append([]Value(nil), acc...)
	at := x.Add(x.Add(tile, x.MulI(from, u.pitch)), u.byColumn)
	for k := 0; k < n; k += 16 {
		for j := 0; j < x.d; j += 16 {
			b := x.LoadMatrix(x.AddI(at, k*u.pitch+2*j), true)
			for p := range x.pieces {
				for i := range 2 {
					u.multiply(l.fragment(p, k/16), [2]Value{b[2*i], b[2*i+1]}, sumsOf(acc, x.d, p, j/8+i))
				}
			}
		}
	}
	return acc
}

func (u *mmaUnit) settle(acc []Value, _ int) []Value { return acc }

func (u *mmaUnit) arrived() {}
