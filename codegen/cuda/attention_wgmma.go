package cuda

import (
	"fmt"

	"github.com/llir/llvm/ir/constant"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
)

// wgmmaUnit multiplies by wgmma.m64nNk16 of sm_90a, four warps together: the
// right operand is read from shared memory once for 64 rows, and products run
// while warps do something else.
//
// Rows are cut into panels of 128 bytes, 64 columns, whose granules of 16 bytes
// are exchanged by the number of the row (the swizzle of 128 bytes); tiles begin
// at multiples of 1024 bytes.
type wgmmaUnit struct {
	x     *flash
	group Value // four warps' number
}

func (x *flash) wgmmaUnit() *wgmmaUnit {
	return &wgmmaUnit{x, x.ShuffleFrom(x.Shr(x.warp, 2), build.Int(0))}
}

func (u *wgmmaUnit) tileBytes(rows int) int { return rows * 2 * u.x.d }

func (u *wgmmaUnit) place(row, part Value, rows int) Value {
	x := u.x
	panel := x.MulI(x.Shr(part, 3), rows*line)
	granule := x.Xor(x.AndI(part, 7), x.AndI(row, 7))
	return x.Add(panel, x.Add(x.MulI(row, line), x.MulI(granule, 16)))
}

func (u *wgmmaUnit) own(at Value, rows int, hold bool) left {
	x := u.x
	if !hold {
		return left{shared: u.describe(x.Add(at, x.MulI(u.group, 64*line)), 0), rows: rows}
	}
	row := x.Add(x.MulI(x.warp, 16), x.AndI(x.lane, 15))
	return x.held(left{fragment: func(_, columns int) [4]Value {
		part := x.AddI(x.Shr(x.lane, 4), 2*columns)
		return x.LoadMatrix(x.Add(at, u.place(row, part, rows)), false)
	}}, x.d)
}

// describe is a matrix descriptor: the address, the distance of panels and that
// of 8 rows, the swizzle.
func (u *wgmmaUnit) describe(at Value, panel int) Value {
	x := u.x
	return x.Or(x.Long(x.AndI(x.Shr(at, 4), 0x3fff)), build.Long(1<<62|8*line>>4<<32|int64(max(1, panel>>4))<<16))
}

// products issues the steps of a product, of 16 terms each; keep says whether
// the sums are added to.
func (u *wgmmaUnit) products(acc []Value, columns, steps int, keep bool, trans int, l left, a func(step int) []Value, b func(step int) Value) []Value {
	x := u.x
	if acc == nil {
		acc = make([]Value, columns/2)
		for i := range acc {
			acc[i] = constant.NewUndef(build.F32)
		}
	}
	mode := fmt.Sprintf("ss.t0%d", trans)
	if l.shared == nil {
		mode = fmt.Sprintf("rs.t0%d", trans)
	}
	name := fmt.Sprintf("gpu.wgmma.m64n%dk16.%s.%s", columns, x.kind, mode)
	x.Call("gpu.wgmma.fence", build.Void)
	for i := range steps {
		args := append(append(append([]Value(nil), acc...), a(i)...), b(i), build.Int(1))
		if i == 0 && !keep {
			args[len(args)-1] = build.Int(0)
		}
		acc = x.parts(x.Call(name, build.Struct(len(acc), build.F32), args...), len(acc))
	}
	x.Call("gpu.wgmma.commit", build.Void)
	return acc
}

func (u *wgmmaUnit) scores(acc []Value, l left, tile, from Value, n int) []Value {
	x := u.x
	b := u.describe(x.Add(tile, x.MulI(from, line)), 0)
	// 16 columns are 32 bytes of a panel of 64.
	place := func(step, rows int) int { return step/4*rows*line>>4 + step%4*2 }
	return u.products(acc, n, x.d/16, acc != nil, 0, l, func(i int) []Value {
		if l.shared != nil {
			return []Value{x.AddI(l.shared, place(i, l.rows))}
		}
		f := l.fragment(0, i)
		return f[:]
	}, func(i int) Value { return x.AddI(b, place(i, tileSize)) })
}

func (u *wgmmaUnit) collect(acc []Value, l left, tile, from Value, n int) []Value {
	x := u.x
	b := u.describe(x.Add(tile, x.MulI(from, line)), tileSize*line)
	return u.products(acc, x.d, n/16, true, 1, l, func(i int) []Value {
		f := l.fragment(0, i)
		return f[:]
	}, func(i int) Value { return x.AddI(b, i*16*line>>4) })
}

func (u *wgmmaUnit) settle(acc []Value, later int) []Value {
	r := u.x.Call(fmt.Sprintf("gpu.wgmma.wait.%d.%d", later, len(acc)), build.Struct(len(acc), build.F32), acc...)
	return u.x.parts(r, len(acc))
}

func (u *wgmmaUnit) fragments(words [4]Value) [][4]Value { return [][4]Value{words} }

// Copies write by way of the ordinary proxy, products read by the asynchronous
// one.
func (u *wgmmaUnit) arrived() { u.x.Call("gpu.fence.async", build.Void) }
