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

func microName(rows int) string { return fmt.Sprintf("gemm_micro%d", rows) }

// EmitMicroKernels defines the code that all matrix products of a target share. One
// module of a shared object must hold them; those of EmitGemm only declare them.
//
// gemm_microR(a, b, c, kc, ldb, ldc, add, next) computes R rows by NR columns of c (+)= a*b:
// a is a packed left block with rows aStride apart, b has kc rows of NR elements ldb apart, and
// next is where the product will read b after that. If add is 0, c is written without being
// read. Sums run over k in order.
func EmitMicroKernels(m *build.Module) {
	emitTranspose(m)
	for r := 1; r <= m.Target.MR; r++ {
		emitMicroKernel(m, r)
	}
}

func emitMicroKernel(m *build.Module, rows int) {
	t := m.Target
	vt, stride := m.Vec(), aStride(t)
	f32p := build.PtrTo(build.F32)
	a, b, c := build.NoAlias("a", f32p), build.NoAlias("b", f32p), build.NoAlias("c", f32p)
	kc, ldb, ldc, add := build.Param("kc", build.I64), build.Param("ldb", build.I64), build.Param("ldc", build.I64), build.Param("add", build.I64)
	next := build.Param("next", f32p)
	f := m.Func(microName(rows), build.Hidden, a, b, c, kc, ldb, ldc, add, next)
	step := func(k V, n int, acc []V) []V {
		acc = append([]V(nil), acc...)
		ak, bk := f.At(a, k), f.At(b, f.Mul(k, ldb))
		if n > 1 {
			// One line of what comes after this panel for each turn: the panels of one block of
			// rows together fetch all of it.
			f.Prefetch(f.At(next, f.Mul(k, build.Int(16/unroll))), false, 2)
		}
		for u := 0; u < n; u++ {
			bv := make([]V, t.NV)
			for v := range bv {
				bv[v] = f.Load(vt, f.Offset(bk, v*t.Lanes))
			}
			for r := 0; r < rows; r++ {
				av := f.Splat(t.Lanes, f.Load(build.F32, f.Offset(ak, r*stride+u)))
				for v := range bv {
					acc[r*t.NV+v] = f.FMA(av, bv[v], acc[r*t.NV+v])
				}
			}
			bk = f.At(bk, ldb)
		}
		return acc
	}
	acc := make([]V, rows*t.NV)
	for i := range acc {
		acc[i] = build.Zero(vt)
	}
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
func callMicro(f *build.Func, rows V, args ...V) {
	i64, f32p := build.I64, build.PtrTo(build.F32)
	cases := make([]int64, f.Module.Target.MR)
	for i := range cases {
		cases[i] = int64(i + 1)
	}
	f.Switch(rows, cases, func(j int) {
		f.Call(f.Module.Extern(microName(j+1), f32p, f32p, f32p, i64, i64, i64, i64, f32p), args...)
	})
}
