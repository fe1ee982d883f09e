package cpu

import (
	"fmt"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
)

// aStride is the distance in elements of the rows of a packed left block: a constant, so that
// the micro-kernels address all rows from one register, and an odd number of cache lines, so
// that equal columns of different rows do not share a cache set.
func aStride(t *build.Target) int { return t.KC + 16 }

// unroll is how many summed elements one turn of the micro-kernels' loop takes.
const unroll = 4

// microName names the micro-kernel for rows, of which a packed left block's lie apart or, after
// packPanels, one element apart, and for the type of its operands.
func microName(rows int, panels bool, in ir.DType) string {
	name := "gemm_micro"
	if panels {
		name = "gemm_panel"
	}
	if in != ir.F32 {
		name += "_" + in.String() + "_"
	}
	return fmt.Sprint(name, rows)
}

// mostRows is how many rows the micro-kernels' tiles have at most. Of 14 adjacent rows LLVM would
// load two at once, and have no register left for one of the 28 sums. On arm64 it copies a pair of bf16 to all lanes
// of a register, where it multiplies by one lane of others, and 24 sums leave too few.
func mostRows(t *build.Target, panels bool, in ir.DType) int {
	switch {
	case in == ir.BF16 && t.Lanes == 4:
		return min(t.MR, 6)
	case panels:
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
//
// Those for f16 and bf16 read what narrower writes. With f16, NR is that of tileOf, and sums of f16Terms
// products are made in f16.
func EmitMicroKernels(m *build.Module) {
	emitTranspose(m)
	for _, in := range arithmetic(m.Target) {
		for _, panels := range []bool{false, true} {
			for r := 1; r <= mostRows(m.Target, panels, in); r++ {
				emitMicroKernel(m, r, panels, in)
			}
		}
	}
}

func emitMicroKernel(m *build.Module, rows int, panels bool, in ir.DType) {
	t := m.Target
	// vt is what one instruction multiplies: floats, halves, or pairs of bf16.
	elem, vt := build.Type(build.F32), m.Vec()
	rowStep, kStep := aStride(t), 1
	switch in {
	case ir.F16:
		elem, vt = build.F16, build.VecOf(2*t.Lanes, build.F16)
		rowStep *= 2
	case ir.BF16:
		elem, vt = build.I32, build.VecOf(t.Lanes, build.I32)
	}
	if panels {
		rowStep, kStep = 1, rows
	}
	lanes := int(vt.Len)
	f32p := build.PtrTo(build.F32)
	a, b, c := build.NoAlias("a", f32p), build.NoAlias("b", f32p), build.NoAlias("c", f32p)
	kc, ldb, ldc, add := build.Param("kc", build.I64), build.Param("ldb", build.I64), build.Param("ldc", build.I64), build.Param("add", build.I64)
	next, ahead := build.Param("next", f32p), build.Param("step", build.I64)
	f := m.Func(microName(rows, panels, in), build.Hidden, a, b, c, kc, ldb, ldc, add, next, ahead)
	left, right := f.Cast(a, elem), f.Cast(b, elem)
	step := func(k V, n int, acc []V) []V {
		acc = append([]V(nil), acc...)
		ak, bk := f.At(left, f.Mul(k, build.Int(int64(kStep)))), f.At(right, f.Mul(k, ldb))
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
				bv[v] = f.Load(vt, f.Offset(bk, v*lanes))
			}
			for r := 0; r < rows; r++ {
				av := f.Splat(lanes, f.Load(elem, f.Offset(ak, r*rowStep+u*kStep)))
				for v := range bv {
					x := &acc[r*t.NV+v]
					if in == ir.BF16 {
						*x = f.DotBF16(av, bv[v], *x)
					} else {
						*x = f.FMA(av, bv[v], *x)
					}
				}
			}
			bk = f.At(bk, ldb)
		}
		return acc
	}
	// sum multiplies elements k0 to k1 of the sum and returns the sums and the next line to fetch.
	sum := func(k0, k1, next V) []V {
		acc := make([]V, rows*t.NV+1)
		for i := range acc[:rows*t.NV] {
			acc[i] = build.Zero(vt)
			if in == ir.BF16 {
				acc[i] = build.Zero(m.Vec())
			}
		}
		acc[rows*t.NV] = next
		most := f.Add(k0, f.And(f.Sub(k1, k0), build.Int(-unroll)))
		acc = f.For(k0, most, build.Int(unroll), acc, func(k V, acc []V) []V { return step(k, unroll, acc) })
		return f.For(most, k1, build.Int(1), acc, func(k V, acc []V) []V { return step(k, 1, acc) })
	}
	store := func(acc []V, add V) {
		write := func(add bool) {
			put := func(x, p V) {
				if add {
					x = f.FAdd(f.Load(m.Vec(), p), x)
				}
				f.Store(x, p)
			}
			for r := 0; r < rows; r++ {
				row := f.At(c, f.Mul(ldc, build.Int(int64(r))))
				for v := 0; v < t.NV; v++ {
					x, p := acc[r*t.NV+v], f.Offset(row, v*lanes)
					if in != ir.F16 {
						put(x, p)
						continue
					}
					put(f.FPExt(f.Slice(x, 0, t.Lanes), build.F32), p)
					put(f.FPExt(f.Slice(x, t.Lanes, t.Lanes), build.F32), f.Offset(p, t.Lanes))
				}
			}
		}
		f.If(f.Eq(add, build.Int(0)), func() []V { write(false); return nil }, func() []V { write(true); return nil })
	}
	switch in {
	case ir.F16:
		f.For(build.Int(0), kc, build.Int(f16Terms), []V{next}, func(k V, carried []V) []V {
			acc := sum(k, f.Min(f.Add(k, build.Int(f16Terms)), kc), carried[0])
			store(acc, f.Or(add, k))
			return acc[rows*t.NV:]
		})
	case ir.BF16:
		store(sum(build.Int(0), halved(f, kc), next), add)
	default:
		store(sum(build.Int(0), kc, next), add)
	}
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

// callMicro calls the micro-kernel for rows, an i64 from 1 to MR, and operands of type in.
func callMicro(f *build.Func, rows V, panels bool, in ir.DType, args ...V) {
	i64, f32p := build.I64, build.PtrTo(build.F32)
	cases := make([]int64, mostRows(f.Target, panels, in))
	for i := range cases {
		cases[i] = int64(i + 1)
	}
	f.Switch(rows, cases, func(j int) {
		f.Call(f.Module.Extern(microName(j+1, panels, in), f32p, f32p, f32p, i64, i64, i64, i64, f32p, i64), args...)
	})
}
