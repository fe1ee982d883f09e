package cpu

import (
	"fmt"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
)

// aStride is the distance in elements of the rows of a packed left block: a constant, so that
// the micro-kernels address all rows from one register, and an odd number of cache lines, so
// that equal columns of different rows do not share a cache set.
func aStride(t *build.Target) int { return t.KC + 16 }

// unroll is how many summed elements one turn of the micro-kernels' loop takes.
const unroll = 4

// microName names the micro-kernel for rows, of which a packed left block's lie apart or, after
// packPanels, one element apart.
func microName(rows int, panels bool) string {
	if panels {
		return fmt.Sprintf("gemm_panel%d", rows)
	}
	return fmt.Sprintf("gemm_micro%d", rows)
}

// mostRows is how many rows the micro-kernels' tiles have at most. Of 14 adjacent rows LLVM would
// load two at once, and have no register left for one of the 28 sums.
func mostRows(t *build.Target, panels bool) int {
	if panels {
		return min(t.MR, 13)
	}
	return t.MR
}

// panelWidth is how many elements packPanels copies of each row of a panel: whole vectors.
func panelWidth(t *build.Target) int { return roundUp(t.MR, t.Lanes) }

// EmitMicroKernels defines the code that all matrix products of a target share. One
// module of a shared object must hold them; those of EmitGemm only declare them.
//
// gemm_microR(a, b, c, kc, ldb, ldc, add, next, step) computes R rows by NR columns of c (+)= a*b:
// a is a packed left block with rows aStride apart, and b has kc rows of NR elements ldb apart.
// If add is 0, c is written without being read. Sums run over k in order. Meanwhile it fetches
// what the product will read later: a line at next for each turn of the loop, the lines step
// elements apart. gemm_panelR is the same for an a that holds R elements for each k, and fetches
// two adjacent lines.
func EmitMicroKernels(m *build.Module) {
	emitTranspose(m)
	for _, panels := range []bool{false, true} {
		for r := 1; r <= mostRows(m.Target, panels); r++ {
			emitMicroKernel(m, r, panels)
		}
	}
}

func emitMicroKernel(m *build.Module, rows int, panels bool) {
	t := m.Target
	vt := m.Vec()
	rowStep, kStep := aStride(t), 1
	if panels {
		rowStep, kStep = 1, rows
	}
	f32p := build.PtrTo(build.F32)
	a, b, c := build.NoAlias("a", f32p), build.NoAlias("b", f32p), build.NoAlias("c", f32p)
	kc, ldb, ldc, add := build.Param("kc", build.I64), build.Param("ldb", build.I64), build.Param("ldc", build.I64), build.Param("add", build.I64)
	next, ahead := build.Param("next", f32p), build.Param("step", build.I64)
	f := m.Func(microName(rows, panels), build.Hidden, a, b, c, kc, ldb, ldc, add, next, ahead)
	step := func(k V, n int, acc []V) []V {
		acc = append([]V(nil), acc...)
		ak, bk := f.At(a, f.Mul(k, build.Int(int64(kStep)))), f.At(b, f.Mul(k, ldb))
		if n > 1 {
			f.Prefetch(acc[rows*t.NV], false, 2)
			if panels {
				f.Prefetch(f.Offset(acc[rows*t.NV], 16), false, 2)
			}
			acc[rows*t.NV] = f.At(acc[rows*t.NV], ahead)
		}
		for u := 0; u < n; u++ {
			bv := make([]V, t.NV)
			for v := range bv {
				bv[v] = f.Load(vt, f.Offset(bk, v*t.Lanes))
			}
			for r := 0; r < rows; r++ {
				av := f.Splat(t.Lanes, f.Load(build.F32, f.Offset(ak, r*rowStep+u*kStep)))
				for v := range bv {
					acc[r*t.NV+v] = f.FMA(av, bv[v], acc[r*t.NV+v])
				}
			}
			bk = f.At(bk, ldb)
		}
		return acc
	}
	acc := make([]V, rows*t.NV+1)
	for i := range acc[:rows*t.NV] {
		acc[i] = build.Zero(vt)
	}
	acc[rows*t.NV] = next
	most := f.And(kc, build.Int(-unroll))
	acc = f.For(build.Int(0), most, build.Int(unroll), acc, func(k V, acc []V) []V { return step(k, unroll, acc) })
	acc = f.For(most, kc, build.Int(1), acc, func(k V, acc []V) []V { return step(k, 1, acc) })
	store := func(add bool) {
		for r := 0; r < rows; r++ {
			row := f.At(c, f.Mul(ldc, build.Int(int64(r))))
			for v := 0; v < t.NV; v++ {
				x, p := acc[r*t.NV+v], f.Offset(row, v*t.Lanes)
				if add {
					x = f.FAdd(f.Load(vt, p), x)
				}
				f.Store(x, p)
			}
		}
	}
	f.If(f.Eq(add, build.Int(0)), func() []V { store(false); return nil }, func() []V { store(true); return nil })
	f.Return()
}

// emitTranspose defines gemm_transpose(from, fromRow, to, toRow): it writes the transpose of a
// block of as many rows as a vector has lanes. LLVM takes longer over its shuffles than over all
// the rest of a packing kernel.
func emitTranspose(m *build.Module) {
	f32p := build.PtrTo(build.F32)
	from, to := build.NoAlias("from", f32p), build.NoAlias("to", f32p)
	fromRow, toRow := build.Param("fromRow", build.I64), build.Param("toRow", build.I64)
	f := m.Func(transposeName, build.Hidden, from, fromRow, to, toRow)
	in := make([]V, m.Target.Lanes)
	for r := range in {
		in[r] = f.Load(m.Vec(), f.At(from, f.Mul(fromRow, build.Int(int64(r)))))
	}
	for r, x := range f.Transpose(in) {
		f.Store(x, f.At(to, f.Mul(toRow, build.Int(int64(r)))))
	}
	f.Return()
}

const transposeName = "gemm_transpose"

func callTranspose(f *build.Func, from V, fromRow int, to V, toRow int) {
	f32p := build.PtrTo(build.F32)
	f.Call(f.Module.Extern(transposeName, f32p, build.I64, f32p, build.I64), from, build.Int(int64(fromRow)), to, build.Int(int64(toRow)))
}

// callMicro calls the micro-kernel for rows, an i64 from 1 to MR.
func callMicro(f *build.Func, rows V, panels bool, args ...V) {
	i64, f32p := build.I64, build.PtrTo(build.F32)
	cases := make([]int64, mostRows(f.Module.Target, panels))
	for i := range cases {
		cases[i] = int64(i + 1)
	}
	f.Switch(rows, cases, func(j int) {
		f.Call(f.Module.Extern(microName(j+1, panels), f32p, f32p, f32p, i64, i64, i64, i64, f32p, i64), args...)
	})
}
