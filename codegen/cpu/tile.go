package cpu

import (
	"fmt"

	"github.com/llir/llvm/ir"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
)

// tile is a register tile that reads its left operand in place: elements of a
// row are step apart and rows are row apart.
type tile struct {
	rows, nv, row, step, unroll int
	many                        bool // tiles follow each other down the rows, all in one call
}

func (x tile) name() string {
	name := "gemm_tile"
	if x.many {
		name = "gemm_tiles"
	}
	return fmt.Sprintf("%s%dx%d_%d_%d_%d", name, x.rows, x.nv, x.row, x.step, x.unroll)
}

// maxRows is how many rows a tile of nv vectors has at most.
func maxRows(t *build.Target, nv int) int { return t.MR * t.NV / nv }

// unrollOf is how many of run elements one turn of a tile's loop takes.
func unrollOf(run int) int {
	for u := 4; u > 1; u-- {
		if run%u == 0 {
			return u
		}
	}
	return 1
}

// EmitTiles defines the register tiles of products read in place; one module
// of a shared object must hold each that Tiles of its kernels lists.
//
// A tile takes tileArgs, in their order.
func EmitTiles(m *build.Module, tiles []tile) {
	for _, x := range tiles {
		x.emit(m)
	}
}

func (x tile) emit(m *build.Module) {
	f32p := build.PtrTo(build.F32)
	a, b, part, c := build.NoAlias("a", f32p), build.NoAlias("b", f32p), build.Param("part", f32p), build.Param("c", f32p)
	run, segs, times := build.Param("run", build.I64), build.Param("segs", build.I64), build.Param("times", build.I64)
	aSkip, bSkip, aJump := build.Param("aSkip", build.I64), build.Param("bSkip", build.I64), build.Param("aJump", build.I64)
	ldb, ldc, on, add := build.Param("ldb", build.I64), build.Param("ldc", build.I64), build.Param("on", build.I64), build.Param("add", build.I64)
	params := []*ir.Param{a, b, part, c, run, segs, times, aSkip, bSkip, aJump, ldb, ldc, on, add}
	args := tileArgs{a, b, part, c, run, segs, times, aSkip, bSkip, aJump, ldb, ldc, on, add, nil}
	if !x.many {
		f := m.Func(x.name(), build.Hidden, params...)
		x.body(f, args)
		f.Return()
		return
	}
	tiles := build.Param("tiles", build.I64)
	f := m.Func(x.name(), build.Hidden, append(params, tiles)...)
	f.For(build.Int(0), tiles, build.Int(1), []V{a, c}, func(_ V, s []V) []V {
		args.a, args.c = s[0], s[1]
		x.body(f, args)
		return []V{f.Offset(s[0], x.rows*x.row), f.At(s[1], f.Mul(ldc, build.Int(int64(x.rows))))}
	})
	f.Return()
}

// body emits one tile.
func (x tile) body(f *build.Func, args tileArgs) {
	t, vt := f.Target, f.Module.Vec()
	n := x.rows * x.nv
	first := func(at func(r, v int) V) func() []V {
		return func() []V {
			out := make([]V, n)
			for i := range out {
				out[i] = at(i/x.nv, i%x.nv)
			}
			return out
		}
	}
	state := f.If(f.Eq(args.on, build.Int(0)),
		first(func(int, int) V { return build.Zero(vt) }),
		first(func(r, v int) V { return f.Load(vt, f.Offset(args.part, r*t.NR()+v*t.Lanes)) }))
	state = append(state, args.a, args.b)
	state = f.For(build.Int(0), args.times, build.Int(1), state, func(_ V, s []V) []V {
		s = f.For(build.Int(0), args.segs, build.Int(1), s, func(_ V, s []V) []V {
			s = f.For(build.Int(0), args.run, build.Int(int64(x.unroll)), s, func(_ V, s []V) []V {
				s = append([]V(nil), s...)
				for u := range x.unroll {
					bv := make([]V, x.nv)
					for v := range bv {
						bv[v] = f.Load(vt, f.Offset(s[n+1], v*t.Lanes))
					}
					for r := range x.rows {
						av := f.Splat(t.Lanes, f.Load(build.F32, f.Offset(s[n], r*x.row+u*x.step)))
						for v := range bv {
							s[r*x.nv+v] = f.FMA(av, bv[v], s[r*x.nv+v])
						}
					}
					s[n+1] = f.At(s[n+1], args.ldb)
				}
				s[n] = f.Offset(s[n], x.unroll*x.step)
				return s
			})
			s = append([]V(nil), s...)
			s[n], s[n+1] = f.At(s[n], args.aSkip), f.At(s[n+1], args.bSkip)
			return s
		})
		s = append([]V(nil), s...)
		s[n] = f.At(s[n], args.aJump)
		return s
	})
	store := func(add bool) {
		for r := range x.rows {
			row := f.At(args.c, f.Mul(args.ldc, build.Int(int64(r))))
			for v := range x.nv {
				y, p := state[r*x.nv+v], f.Offset(row, v*t.Lanes)
				if add {
					y = f.FAdd(f.Load(vt, p), y)
				}
				f.Store(y, p)
			}
		}
	}
	f.If(f.Eq(args.add, build.Int(0)), func() []V { store(false); return nil }, func() []V { store(true); return nil })
}

// size is a tile's extent that occurs count times in a row.
type size struct{ extent, count int }

// split cuts n rows into as few tiles of at most most rows as there can be, of
// equal sizes or two.
func split(n, most int) []size {
	count := ceilDiv(n, most)
	q, extra := n/count, n%count
	if extra == 0 {
		return []size{{q, count}}
	}
	return []size{{q + 1, extra}, {q, count - extra}}
}

// panels cuts n columns into register tiles.
func panels(t *build.Target, n int) []size {
	var out []size
	if q := n / t.NR(); q > 0 {
		out = append(out, size{t.NR(), q})
	}
	if r := n % t.NR(); r > 0 {
		out = append(out, size{r, 1})
	}
	return out
}

// each calls body for the sizes of every one of units units, with the place
// of the tile.
func each(f *build.Func, sizes []size, units, unit int, body func(at V, extent int)) {
	f.Range(build.Int(0), build.Int(int64(units)), build.Int(1), func(u V) {
		at := 0
		for _, s := range sizes {
			base := f.Add(f.Mul(u, build.Int(int64(unit))), build.Int(int64(at)))
			if s.count == 1 {
				body(base, s.extent)
			} else {
				f.Range(build.Int(0), build.Int(int64(s.count)), build.Int(1), func(i V) {
					body(f.Add(base, f.Mul(i, build.Int(int64(s.extent)))), s.extent)
				})
			}
			at += s.extent * s.count
		}
	})
}

// tileArgs are what a tile is called with; numbers that are nil are 0. It sums times times segs runs of run elements; after each
// run a and b skip so many more, and after segs runs a jumps. If on is not 0, the sums go on from those at part, whose
// rows are NR apart. If add is 0, c is written without being read.
type tileArgs struct {
	a, b, part, c       V // addresses
	run, segs, times    V
	aSkip, bSkip, aJump V
	ldb, ldc            V // distances of rows
	on, add             V
	tiles               V // of a tile that is many: how many
}

// call calls the tile.
func (x tile) call(f *build.Func, args tileArgs) {
	f32p, i64 := build.PtrTo(build.F32), build.I64
	var ps []V
	var types []build.Type
	for _, p := range []V{args.a, args.b, args.part, args.c} {
		ps, types = append(ps, p), append(types, f32p)
	}
	for _, v := range []V{args.run, args.segs, args.times, args.aSkip, args.bSkip, args.aJump, args.ldb, args.ldc, args.on, args.add} {
		if v == nil {
			v = c64(0)
		}
		ps, types = append(ps, v), append(types, i64)
	}
	if x.many {
		ps, types = append(ps, args.tiles), append(types, i64)
	}
	f.Call(f.Module.Extern(x.name(), types...), ps...)
}

// down calls tiles for count rows of a panel of cols columns, one after the other.
func down(f *build.Func, t *build.Target, count, cols int, args tileArgs, of func(rows, cols int) tile) {
	at := 0
	for _, s := range split(count, maxRows(t, ceilDiv(cols, t.Lanes))) {
		x, y := of(s.extent, cols), args
		y.a, y.c, y.tiles = f.Offset(args.a, at*x.row), f.At(args.c, f.Mul(args.ldc, build.Int(int64(at)))), build.Int(int64(s.count))
		x.call(f, y)
		at += s.extent * s.count
	}
}

// heights lists the register tiles that down calls for count rows and panels of cols columns.
func heights(t *build.Target, count, cols int, of func(rows, cols int) tile) []tile {
	var out []tile
	for _, p := range panels(t, cols) {
		for _, r := range split(count, maxRows(t, ceilDiv(p.extent, t.Lanes))) {
			out = append(out, of(r.extent, p.extent))
		}
	}
	return out
}
