package ptx

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/codegen/cuda/ptx/ptxas"
)

// These are kernels as models need them, with everything that makes ptxas give
// up on wgmma when it goes wrong.

func advance(f *build.Func, stage, phase build.Value, stages int) []build.Value {
	n := f.AddI(stage, 1)
	wrap := f.Eq(n, build.Int(stages))
	return []build.Value{f.Select(wrap, build.Int(0), n), f.Xor(phase, f.Zext(wrap, build.I32))}
}

// descriptor of a tile at a shared address, swizzled by 128 bytes.
func descriptor(f *build.Func, address build.Value, leading int64) build.Value {
	return f.Or(f.Long(f.AndI(f.Shr(address, 4), 0x3fff)), build.Long(1<<62|1024>>4<<32|leading>>4<<16))
}

func wgmma(f *build.Func, name string, acc []build.Value, args ...build.Value) []build.Value {
	return parts(f, f.Call(name, build.Struct(len(acc), build.F32), append(append([]build.Value(nil), acc...), args...)...), len(acc))
}

func await(f *build.Func, pending int, acc []build.Value) []build.Value {
	return parts(f, f.Call(fmt.Sprintf("gpu.wgmma.wait.%d.%d", pending, len(acc)), build.Struct(len(acc), build.F32), acc...), len(acc))
}

func parts(f *build.Func, s build.Value, n int) []build.Value {
	out := make([]build.Value, n)
	for i := range out {
		out[i] = f.Part(s, i)
	}
	return out
}

func zeros(n int) []build.Value {
	out := make([]build.Value, n)
	for i := range out {
		out[i] = build.Float(0)
	}
	return out
}

// hopperProduct is C = A * B on sm_90a: one warpgroup fetches tiles by TMA, two
// multiply them.
func hopperProduct(m *build.Module, name string, cols, k, stages, cluster int) {
	const rows, depth = 128, 64
	f := m.Kernel(name, build.Limits{Threads: 384, Blocks: 1, Cluster: cluster}, 2, 1)
	aBytes, bBytes := rows*depth*2, cols*depth*2
	stage := aBytes + bBytes
	f.Shared(stage*stages + 16*stages)
	base := f.SharedAddress()
	full := func(s build.Value) build.Value { return f.Add(f.AddI(base, stage*stages), f.MulI(s, 8)) }
	empty := func(s build.Value) build.Value {
		return f.Add(f.AddI(base, stage*stages+8*stages), f.MulI(s, 8))
	}
	t := f.Thread()
	group := f.Shr(t, 7)
	row0, col0 := f.MulI(f.BlockY(), rows), f.MulI(f.BlockX(), cols)
	f.If(f.Eq(t, build.Int(0)), func() {
		for s := range stages {
			f.Call("gpu.mbarrier.init", build.Void, full(build.Int(s)), build.Int(1))
			f.Call("gpu.mbarrier.init", build.Void, empty(build.Int(s)), build.Int(2))
		}
		f.Call("gpu.mbarrier.fence", build.Void)
	})
	f.Barrier()
	f.IfElse(f.Eq(group, build.Int(0)), func() []build.Value {
		f.Call("gpu.setmaxnreg.dec", build.Void, build.Int(40))
		f.If(f.Eq(t, build.Int(0)), func() {
			f.For(build.Int(0), build.Int(k/depth), build.Int(1), []build.Value{build.Int(0), build.Int(0)}, func(i build.Value, c []build.Value) []build.Value {
				f.Call("gpu.mbarrier.wait", build.Void, empty(c[0]), f.Xor(c[1], build.Int(1)))
				f.Call("gpu.mbarrier.expect", build.Void, full(c[0]), build.Int(stage))
				at := f.Add(base, f.MulI(c[0], stage))
				f.Call("gpu.tma.load.2d", build.Void, at, f.Map(0), f.MulI(i, depth), row0, full(c[0]))
				f.Call("gpu.tma.load.2d", build.Void, f.AddI(at, aBytes), f.Map(1), f.MulI(i, depth), col0, full(c[0]))
				return advance(f, c[0], c[1], stages)
			})
		})
		return nil
	}, func() []build.Value {
		f.Call("gpu.setmaxnreg.inc", build.Void, build.Int(232))
		mine := f.AddI(group, -1)
		leader := f.Eq(f.AndI(t, 127), build.Int(0))
		out := f.For(build.Int(0), build.Int(k/depth), build.Int(1), append([]build.Value{build.Int(0), build.Int(0), build.Int(0)}, zeros(cols/2)...), func(i build.Value, c []build.Value) []build.Value {
			s, phase, previous, acc := c[0], c[1], c[2], c[3:]
			f.Call("gpu.mbarrier.wait", build.Void, full(s), phase)
			at := f.Add(base, f.MulI(s, stage))
			a := descriptor(f, f.Add(at, f.MulI(mine, 64*128)), 16)
			b := descriptor(f, f.AddI(at, aBytes), 16)
			f.Call("gpu.wgmma.fence", build.Void)
			for q := range depth / 16 {
				acc = wgmma(f, fmt.Sprintf("gpu.wgmma.m64n%dk16.f16.ss.t00", cols), acc, f.Add(a, build.Long(int64(2*q))), f.Add(b, build.Long(int64(2*q))), build.Int(1))
			}
			f.Call("gpu.wgmma.commit", build.Void)
			acc = await(f, 1, acc)
			f.If(f.And(leader, f.Lt(build.Int(0), i)), func() { f.Call("gpu.mbarrier.arrive", build.Void, empty(previous)) })
			return append(append(advance(f, s, phase, stages), s), acc...)
		})
		acc := await(f, 0, out[3:])
		lane, warp := f.AndI(t, 31), f.AndI(f.Shr(t, 5), 3)
		row := f.Add(f.Add(row0, f.MulI(mine, 64)), f.Add(f.MulI(warp, 16), f.Shr(lane, 2)))
		col := f.Add(col0, f.MulI(f.AndI(lane, 3), 2))
		for j := range cols / 8 {
			for h := range 2 {
				e := f.Add(f.MulI(f.Long(f.AddI(row, 8*h)), 4096), f.Long(f.AddI(col, 8*j)))
				p := f.Cast(f.At(f.Pointer(0, build.F32), e), build.Vec(2, build.F32))
				f.Store(f.Vector(acc[4*j+2*h], acc[4*j+2*h+1]), p)
			}
		}
		return nil
	})
	f.Return()
}

// hopperAttention has what is hard about attention: two products a turn, of
// which one starts from nothing and the other goes on with scaled accumulators,
// its left operand in registers.
func hopperAttention(m *build.Module, name string) {
	const keys = 128
	f := m.Kernel(name, build.Limits{Threads: 128, Blocks: 1}, 0, 1)
	f.Shared(4 * 16384)
	base := f.SharedAddress()
	t := f.Thread()
	scale := build.Float(0.18)
	init := append([]build.Value{build.Float(-1e30), build.Float(-1e30), build.Float(0), build.Float(0)}, zeros(32)...)
	out := f.For(build.Int(0), build.Int(10), build.Int(1), init, func(i build.Value, c []build.Value) []build.Value {
		q, k, v := descriptor(f, base, 16), descriptor(f, f.AddI(base, 16384), 16), descriptor(f, f.AddI(base, 32768), 8192)
		f.Call("gpu.wgmma.fence", build.Void)
		acc := zeros(keys / 2)
		for j := range 4 {
			keep := build.Int(1)
			if j == 0 {
				keep = build.Int(0)
			}
			acc = wgmma(f, "gpu.wgmma.m64n128k16.f16.ss.t00", acc, f.Add(q, build.Long(int64(2*j))), f.Add(k, build.Long(int64(2*j))), keep)
		}
		f.Call("gpu.wgmma.commit", build.Void)
		acc = await(f, 0, acc)
		most := [2]build.Value{c[0], c[1]}
		for j := range acc {
			acc[j] = f.FMul(acc[j], scale)
			most[j/2%2] = f.FMax(most[j/2%2], acc[j])
		}
		var next []build.Value
		var fix [2]build.Value
		for h := range most {
			for _, mask := range []int{1, 2} {
				most[h] = f.FMax(most[h], f.ShuffleXor(most[h], mask))
			}
			fix[h] = f.Ex2(f.FSub(c[h], most[h]))
		}
		sum := [2]build.Value{f.FMul(c[2], fix[0]), f.FMul(c[3], fix[1])}
		for j := range acc {
			acc[j] = f.Ex2(f.FSub(acc[j], most[j/2%2]))
			sum[j/2%2] = f.FAdd(sum[j/2%2], acc[j])
		}
		o := make([]build.Value, 32)
		for j := range o {
			o[j] = f.FMul(c[4+j], fix[j/2%2])
		}
		var p []build.Value
		for j := range keys / 4 {
			p = append(p, f.Pack("f16", acc[2*j], acc[2*j+1]))
		}
		f.Call("gpu.wgmma.fence", build.Void)
		for j := range keys / 16 {
			o = wgmma(f, "gpu.wgmma.m64n64k16.f16.rs.t01", o, p[4*j], p[4*j+1], p[4*j+2], p[4*j+3], f.Add(v, build.Long(int64(128*j))), build.Int(1))
		}
		f.Call("gpu.wgmma.commit", build.Void)
		o = await(f, 0, o)
		next = append(next, most[0], most[1], sum[0], sum[1])
		return append(next, o...)
	})
	for j, x := range out {
		f.Store(x, f.At(f.Pointer(0, build.F32), f.Add(f.MulI(t, 64), build.Int(j))))
	}
	f.Return()
}

// ampereProduct is C = A * B on sm_80: asynchronous copies into a ring, mma.sync.
func ampereProduct(m *build.Module, name string, n, k int) {
	const rows, cols, depth, stages, warpRows, warpCols = 128, 128, 32, 3, 64, 32
	f := m.Kernel(name, build.Limits{Threads: 256, Blocks: 1}, 0, 3)
	aBytes, bBytes := rows*depth*2, depth*cols*2
	f.Shared((aBytes + bBytes) * stages)
	base := f.SharedAddress()
	t := f.Thread()
	lane, warp := f.AndI(t, 31), f.Shr(t, 5)
	wm, wn := f.MulI(f.Div(warp, cols/warpCols), warpRows), f.MulI(f.Rem(warp, cols/warpCols), warpCols)
	row0, col0 := f.MulI(f.BlockY(), rows), f.MulI(f.BlockX(), cols)
	swizzle := func(row, chunk build.Value, cols int) build.Value {
		if cols >= 64 {
			chunk = f.Xor(chunk, f.AndI(row, 7))
		} else {
			chunk = f.Xor(chunk, f.AndI(f.Shr(row, 1), 3))
		}
		return f.Add(f.MulI(row, cols*2), f.MulI(chunk, 16))
	}
	load := func(at, src, r0, c0 build.Value, ld, rows, cols int) {
		per := cols / 8
		for i := 0; i < rows*per; i += 256 {
			id := f.AddI(t, i)
			row, chunk := f.Div(id, per), f.Rem(id, per)
			g := f.Add(f.MulI(f.Long(f.Add(r0, row)), ld), f.Long(f.Add(c0, f.MulI(chunk, 8))))
			f.Call("gpu.cp.async.16", build.Void, f.Add(at, swizzle(row, chunk, cols)), f.GlobalAddress(f.At(src, g)), build.Int(16))
		}
	}
	fetch := func(i build.Value) {
		at := f.Add(base, f.MulI(f.Rem(i, stages), aBytes+bBytes))
		k0 := f.MulI(i, depth)
		load(at, f.Pointer(0, build.F16), row0, k0, k, rows, depth)
		load(f.AddI(at, aBytes), f.Pointer(1, build.F16), k0, col0, n, depth, cols)
	}
	for s := range stages - 1 {
		fetch(build.Int(s))
		f.Call("gpu.cp.async.commit", build.Void)
	}
	mi, ni := warpRows/16, warpCols/8
	low, high := f.AndI(lane, 15), f.Shr(lane, 4)
	acc := f.For(build.Int(0), build.Int(k/depth), build.Int(1), zeros(mi*ni*4), func(i build.Value, c []build.Value) []build.Value {
		f.Call("gpu.cp.async.wait.1", build.Void)
		f.Barrier()
		next := f.AddI(i, stages-1)
		f.If(f.Lt(next, build.Int(k/depth)), func() { fetch(next) })
		f.Call("gpu.cp.async.commit", build.Void)
		at := f.Add(base, f.MulI(f.Rem(i, stages), aBytes+bBytes))
		o := append([]build.Value(nil), c...)
		for kk := 0; kk < depth; kk += 16 {
			var a [][4]build.Value
			for i := range mi {
				row := f.Add(f.AddI(wm, i*16), low)
				a = append(a, f.LoadMatrix(f.Add(at, swizzle(row, f.AddI(high, kk/8), depth)), false))
			}
			for j := 0; j < ni; j += 2 {
				row := f.AddI(low, kk)
				chunk := f.Add(f.Shr(f.AddI(wn, j*8), 3), high)
				b := f.LoadMatrix(f.Add(f.AddI(at, aBytes), swizzle(row, chunk, cols)), true)
				for i := range mi {
					for h := range 2 {
						p := (i*ni + j + h) * 4
						r := f.Mma("f16", a[i], [2]build.Value{b[2*h], b[2*h+1]}, [4]build.Value(o[p:p+4]))
						copy(o[p:], r[:])
					}
				}
			}
		}
		return o
	})
	f.Call("gpu.cp.async.wait.0", build.Void)
	g, q := f.Shr(lane, 2), f.MulI(f.AndI(lane, 3), 2)
	for i := range mi {
		for j := range ni {
			for h := range 2 {
				p := (i*ni+j)*4 + 2*h
				row := f.Add(f.Add(row0, wm), f.AddI(g, i*16+h*8))
				col := f.Add(f.Add(col0, wn), f.AddI(q, j*8))
				at := f.Cast(f.At(f.Pointer(2, build.F32), f.Add(f.MulI(f.Long(row), n), f.Long(col))), build.Vec(2, build.F32))
				f.Store(f.Vector(acc[p], acc[p+1]), at)
			}
		}
	}
	f.Return()
}

// Kernels with wgmma keep their accumulators in place: ptxas neither spills nor
// serialises, within the registers that their authors plan with.
func TestKernelsAssemble(t *testing.T) {
	p := ptxas.Need(t)
	for _, c := range []struct {
		name  string
		arch  string
		build func(m *build.Module)
		most  int // registers
	}{
		{"product128", "sm_90a", func(m *build.Module) { hopperProduct(m, "k", 128, 4096, 4, 1) }, 168},
		{"product256", "sm_90a", func(m *build.Module) { hopperProduct(m, "k", 256, 4096, 4, 2) }, 168},
		{"attention", "sm_90a", func(m *build.Module) { hopperAttention(m, "k") }, 200},
		{"product", "sm_80", func(m *build.Module) { ampereProduct(m, "k", 4096, 4096) }, 160},
	} {
		m := build.NewModule()
		c.build(m)
		var r *ptxas.Report = assemble(t, p, m, Arch{Name: c.arch})["k"]
		t.Logf("%s: %d registers", c.name, r.Registers)
		if r.Registers > c.most {
			t.Errorf("%s: %d registers, more than %d", c.name, r.Registers, c.most)
		}
	}
}

// The check would find it: one addition to an accumulator serialises.
func TestSerialisationIsFound(t *testing.T) {
	p := ptxas.Need(t)
	m := build.NewModule()
	tile(m)
	text, err := Print(m, Arch{Name: "sm_90a"})
	if err != nil {
		t.Fatal(err)
	}
	text = strings.Replace(text, "\twgmma.commit_group", "\tadd.rn.f32 %f1, %f1, 0f3F800000;\n\twgmma.commit_group", 1)
	reports, err := p.Assemble(text, "sm_90a")
	if err != nil {
		t.Fatal(err)
	}
	if err := reports["tile"].Check(); err == nil || !strings.Contains(err.Error(), "serialized") {
		t.Errorf("%v", err)
	}
}

// No instruction stands between the products of a chain, and none moves an
// accumulator in a loop.
func TestAccumulatorsStay(t *testing.T) {
	m := build.NewModule()
	hopperProduct(m, "product", 128, 4096, 4, 1)
	hopperAttention(m, "attention")
	text, err := Print(m, Arch{Name: "sm_90a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, kernel := range strings.Split(text, ".visible .entry ")[1:] {
		name, _, _ := strings.Cut(kernel, "(")
		lists := map[string]int{}
		fenced := false
		for _, line := range strings.Split(kernel, "\n") {
			line = strings.TrimSpace(line)
			switch {
			case strings.HasPrefix(line, "wgmma.fence"):
				fenced = true
			case strings.HasPrefix(line, "wgmma.commit"):
				fenced = false
			case fenced && strings.HasPrefix(line, "mov.f32"):
				t.Errorf("%s: %s between a fence and the product", name, line)
			case strings.Contains(line, "wgmma.mma_async"):
				_, list, _ := strings.Cut(line, "f16 {")
				list, _, _ = strings.Cut(list, "}")
				lists[list]++
			}
		}
		want := map[string]int{"product": 1, "attention": 2}[name]
		if len(lists) != want {
			t.Errorf("%s: %d sets of accumulators, want %d", name, len(lists), want)
		}
	}
}

// Printing takes a few milliseconds for a kernel of a thousand instructions.
func BenchmarkPrint(b *testing.B) {
	m := build.NewModule()
	ampereProduct(m, "k", 4096, 4096)
	insts := 0
	for _, x := range m.Funcs[0].IR.Blocks {
		insts += len(x.Insts)
	}
	for b.Loop() {
		if _, err := Print(m, Arch{Name: "sm_80"}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*insts), "ns/instruction")
}
