package cuda

import "github.com/gouache-ml/gouache/codegen/cuda/build"

// mmaCore is a matrix instruction as emitMma uses it: a warp multiplies 16 rows by
// 16 columns, so many terms at a time. Of each operand a lane has four registers,
// of the sums eight, pairs of neighbouring columns.
type mmaCore struct {
	terms int
	tiles []mmaTile // of a block, from the largest
	in    func(e *emitter, kind string, panels [2]*panel) multiplier
	// first is the row and column of a lane's first pair, pairs how far each lies
	// from it, bits those of a lane's number by which the four lanes of a row differ.
	first func(e *emitter, lane Value) (row, col Value)
	pairs [4][2]int
	bits  [2]int
}

// fragment loads what the lane has of 16 lines and the terms of a multiplication,
// from those numbers on, out of the stage that starts at so many bytes of shared
// memory.
type fragment func(stage Value, line, term int) [4]Value

// multiplier is a core in a kernel.
type multiplier interface {
	// operand prepares to load a panel's lines of a warp, which begin with first.
	operand(l *panel, first, lane Value, left bool) fragment
	// multiply adds a product to the lane's sums.
	multiply(a, b [4]Value, sums []Value)
}

// cores are those of the targets' matrix instructions.
var cores = map[string]*mmaCore{
	// A warp of the largest tile has 64 sums a thread. Two blocks of it fit on a
	// multiprocessor of sm_80 (164 KB), whose warps then hide each other's waits.
	"mma": {
		terms: 16,
		tiles: []mmaTile{{128, 128, 32, 64, 32, 4, 2}, {64, 64, 32, 32, 32, 4, 2}, {32, 64, 32, 16, 32, 4, 2}},
		in:    func(e *emitter, kind string, _ [2]*panel) multiplier { return &ampere{e, kind, e.SharedAddress()} },
		first: func(e *emitter, lane Value) (row, col Value) { return e.Shr(lane, 2), e.MulI(e.AndI(lane, 3), 2) },
		pairs: [4][2]int{{0, 0}, {8, 0}, {0, 8}, {8, 8}},
		bits:  [2]int{1, 2},
	},
	// The sums of the largest tile leave room for one block in sm_70's 96 KB.
	"m8n8k4": {
		terms: 8,
		tiles: []mmaTile{{128, 128, 32, 64, 32, 2, 1}, {64, 64, 32, 32, 32, 2, 2}, {32, 64, 32, 16, 32, 2, 2}},
		in: func(e *emitter, _ string, panels [2]*panel) multiplier {
			return &volta{e, panels[0].s.byK, !panels[1].s.byK}
		},
		first: func(e *emitter, lane Value) (row, col Value) {
			return e.Add(operandOf(e, lane, 2), e.AndI(lane, 1)), e.Add(pairOf(e, lane, 3), e.AndI(lane, 2))
		},
		pairs: [4][2]int{{0, 0}, {2, 0}, {0, 8}, {2, 8}},
		bits:  [2]int{2, 8},
	},
}

// ampere is mma.m16n8k16, its operands read by ldmatrix.
type ampere struct {
	e      *emitter
	kind   string
	shared Value // address
}

// operand: as left operands the four matrices of 8x8 that a load takes are lines
// 0-7 and 8-15 of the first 8 terms, then of the next; as right ones both halves
// of the terms for lines 0-7, then for 8-15.
func (u *ampere) operand(l *panel, first, lane Value, left bool) fragment {
	e := u.e
	low, mid, high := e.AndI(lane, 7), e.AndI(e.Shr(lane, 3), 1), e.Shr(lane, 4)
	line, k := mid, high
	if !left {
		line, k = high, mid
	}
	return func(stage Value, i, kk int) [4]Value {
		var at Value
		if l.s.byK {
			at = e.AddI(e.place(e.Add(first, e.Add(e.MulI(line, 8), low)), e.AddI(k, kk/8), l.width), i*l.width)
		} else {
			at = e.AddI(e.place(e.Add(e.MulI(k, 8), low), e.Add(e.Shr(e.AddI(first, i), 3), line), l.width), kk*l.width)
		}
		return e.LoadMatrix(e.Add(e.Add(u.shared, stage), e.AddI(at, l.start)), !l.s.byK)
	}
}

func (u *ampere) multiply(a, b [4]Value, sums []Value) {
	for h := range 2 {
		r := u.e.Mma(u.kind, a, [2]Value(b[2*h:]), [4]Value(sums[4*h:]))
		copy(sums[4*h:], r[:])
	}
}

// volta is mma.m8n8k4: each quad pair of a warp, lanes 4q to 4q+3 and 16 more,
// multiplies 8x4 by 4x8. Quad pairs 0 and 2 have the rows 0-3 and 8-11 of 16, 1 and
// 3 the others; 0 and 1 have the columns 0-3 and 8-11. So eight lanes in a row read
// eight neighbouring rows, which lie in different banks.
type volta struct {
	e                     *emitter
	leftByRow, rightByRow bool // how the operands' fragments lie
}

// pairOf is the first of 16 lines that a lane's quad pair has, by a bit of the
// lane's number: 2 for rows, 3 for columns.
func pairOf(e *emitter, lane Value, bit int) Value {
	return e.MulI(e.AndI(e.Shr(lane, bit), 1), 4)
}

// operandOf is the first of the four whose operands the lane's quad has.
func operandOf(e *emitter, lane Value, bit int) Value {
	return e.Add(pairOf(e, lane, bit), e.MulI(e.Shr(lane, 4), 8))
}

// operand: the instruction takes four terms of a lane's line, or one term of four
// lines. Two of them follow each other.
func (u *volta) operand(l *panel, first, lane Value, left bool) fragment {
	e := u.e
	line, own := operandOf(e, lane, 3), e.AndI(lane, 3)
	if left {
		line = operandOf(e, lane, 2)
	}
	load := func(stage, at Value, by, n int) []Value {
		p := e.At(e.At(e.SharedAt(stage, build.I8), at), build.Int(l.start+by))
		v := e.Load(e.Cast(p, build.Vec(n, build.I32)))
		var out []Value
		for i := range n {
			out = append(out, e.Elem(v, i))
		}
		return out
	}
	return func(stage Value, i, kk int) [4]Value {
		if l.s.byK {
			at := e.place(e.Add(first, e.Add(line, own)), build.Int(kk/granule), l.width)
			return [4]Value(load(stage, at, i*l.width, 4))
		}
		var out []Value
		for h := range 2 {
			n := e.Add(e.AddI(first, i), line)
			at := e.Add(e.place(e.AddI(own, 4*h), e.Div(n, granule), l.width), e.MulI(e.Rem(n, granule), 2))
			out = append(out, load(stage, at, kk*l.width, 2)...)
		}
		return [4]Value(out)
	}
}

func (u *volta) multiply(a, b [4]Value, sums []Value) {
	for h := range 2 {
		r := u.e.Mma884(u.leftByRow, u.rightByRow, [2]Value(a[2*h:]), [2]Value(b[2*h:]), [8]Value(sums))
		copy(sums, r[:])
	}
}
