package ptx

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/llir/llvm/ir/enum"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func saxpy(m *build.Module) {
	f := m.Kernel("saxpy", build.Limits{Threads: 128}, 0, 2)
	i := index(f)
	f.If(f.Lt(i, build.Int(1000)), func() {
		v := build.Vec(2, build.F32)
		x, y := f.Load(f.At(f.Pointer(0, v), i)), f.At(f.Pointer(1, v), i)
		z := f.Load(y)
		var out []build.Value
		for k := range 2 {
			out = append(out, f.FAdd(f.FMul(f.Elem(x, k), build.Float(0.1)), f.Elem(z, k)))
		}
		f.Store(f.Vector(out...), y)
	})
	f.Return()
}

// rowMax is the largest of each row of 1000 f16, one warp a row.
func rowMax(m *build.Module) {
	f := m.Kernel("row_max", build.Limits{Threads: 32, Blocks: 16}, 0, 2)
	row := f.MulI(f.BlockX(), 1000)
	r := f.For(f.Thread(), build.Int(1000), build.Int(32), []build.Value{build.Float(-65504)}, func(i build.Value, c []build.Value) []build.Value {
		x := f.Widen(f.Load(f.At(f.Pointer(0, build.F16), f.Add(row, i))))
		return []build.Value{f.FMax(c[0], x)}
	})[0]
	for mask := 16; mask > 0; mask /= 2 {
		r = f.FMax(r, f.ShuffleXor(r, mask))
	}
	f.If(f.Eq(f.Thread(), build.Int(0)), func() { f.Store(f.Narrow(r), f.At(f.Pointer(1, build.F16), f.BlockX())) })
	f.Return()
}

// tile multiplies one tile that a tensor map brings, on sm_90a.
func tile(m *build.Module) {
	f := m.Kernel("tile", build.Limits{Threads: 128, Blocks: 1, Cluster: 2}, 1, 1)
	f.Shared(8192 + 1024 + 8)
	base := f.SharedAddress()
	bar := f.AddI(base, 9216)
	first := f.Eq(f.Thread(), build.Int(0))
	f.If(first, func() {
		f.Call("gpu.mbarrier.init", build.Void, bar, build.Int(1))
		f.Call("gpu.mbarrier.fence", build.Void)
		f.Call("gpu.mbarrier.expect", build.Void, bar, build.Int(8192))
		f.Call("gpu.tma.load.2d", build.Void, base, f.Map(0), build.Int(0), f.MulI(f.BlockX(), 64), bar)
	})
	f.Barrier()
	f.Call("gpu.mbarrier.wait", build.Void, bar, build.Int(0))
	acc := f.For(build.Int(0), build.Int(8), build.Int(1), zeros(4), func(i build.Value, c []build.Value) []build.Value {
		a, b := descriptor(f, base, 16), descriptor(f, f.AddI(base, 8192), 16)
		f.Call("gpu.wgmma.fence", build.Void)
		c = wgmma(f, "gpu.wgmma.m64n8k16.bf16.ss.t00", c, f.Add(a, f.Long(f.MulI(i, 2))), b, build.Int(1))
		f.Call("gpu.wgmma.commit", build.Void)
		return await(f, 0, c)
	})
	f.Store(f.Vector(acc...), f.At(f.Pointer(0, build.Vec(4, build.F32)), index(f)))
	f.Return()
}

// gather reads by an index table, through shared memory.
func gather(m *build.Module) {
	f := m.Kernel("gather", build.Limits{Threads: 64}, 0, 2)
	f.Shared(256)
	t := m.Table("order", []int32{3, 1, 2, -1})
	s := f.At(f.SharedAt(build.Int(0), build.I32), f.Thread())
	at := f.Load(f.At(f.Cast(t, build.I32), f.AndI(f.Thread(), 3)))
	f.Store(build.Int(0), s)
	f.If(f.Compare(enum.IPredSGE, at, build.Int(0)), func() { f.Store(f.Load(f.At(f.Pointer(0, build.I32), at)), s) })
	f.Barrier()
	f.Store(f.Load(f.SharedAt(f.MulI(f.Sub(build.Int(63), f.Thread()), 4), build.I32)), f.At(f.Pointer(1, build.I32), f.Thread()))
	f.Return()
}

func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name  string
		arch  Arch
		lines bool
		build func(m *build.Module)
	}{
		{"saxpy", Arch{"sm_70", "6.4"}, false, saxpy},
		{"row_max", Arch{"sm_80", "7.0"}, false, rowMax},
		{"tile", Arch{"sm_90a", "8.0"}, false, tile},
		{"gather", Arch{"sm_80", "7.0"}, false, gather},
	} {
		m := build.NewModule()
		c.build(m)
		text, err := Print(m, c.arch)
		if err != nil {
			t.Error(err)
			continue
		}
		golden := filepath.Join("testdata", c.name+".ptx")
		if *update {
			if err := os.WriteFile(golden, []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if text != string(want) {
			t.Errorf("%s differs; run go test -update and read the difference:\n%s", golden, text)
		}
	}
}

// All kernels of a module share the text, which is the same each time.
func TestModule(t *testing.T) {
	m := build.NewModule()
	saxpy(m)
	gather(m)
	rowMax(m)
	randomProgram(5, 8).build(m)
	first, err := Print(m, Arch{Name: "sm_80"})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if again, _ := Print(m, Arch{Name: "sm_80"}); again != first {
			t.Fatal("the text changed")
		}
	}
	for part, n := range map[string]int{".version 7.0": 1, ".target sm_80": 1, ".extern .shared .align 1024 .b8 smem[];": 1, ".global ": 1, ".visible .entry ": 4, ".maxntid 32, 1, 1\n.minnctapersm 16\n": 1} {
		if got := strings.Count(first, part); got != n {
			t.Errorf("%q: %d times, want %d", part, got, n)
		}
	}
}

// With Lines, instructions say where the builder was called.
func TestLines(t *testing.T) {
	m := build.NewModule()
	m.Lines = true
	rowMax(m)
	text, err := Print(m, Arch{Name: "sm_80"})
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`cvt\.f32\.f16 %f\d+, %h\d+; // print_test\.go:\d+\n`).MatchString(text) {
		t.Errorf("no line at a conversion:\n%s", text)
	}
}

// The version is the oldest that has the target and the operations used.
func TestVersion(t *testing.T) {
	for _, c := range []struct {
		arch Arch
		want string
		use  func(f *build.Func)
	}{
		{Arch{"sm_70", ""}, "6.0", nil},
		{Arch{"sm_70", "6.4"}, "6.4", nil},
		{Arch{"sm_75", ""}, "6.3", nil},
		{Arch{"sm_75", ""}, "7.0", func(f *build.Func) { f.Call("gpu.tanh", build.F32, f.ToFloat(f.Thread())) }},
		{Arch{"sm_80", ""}, "7.0", nil},
		{Arch{"sm_80", "6.0"}, "7.0", nil},
		{Arch{"sm_90", ""}, "7.8", nil},
		{Arch{"sm_90", ""}, "8.0", func(f *build.Func) { f.Call("gpu.cluster.arrive", build.Void) }},
		{Arch{"sm_90a", ""}, "8.0", nil},
	} {
		m := build.NewModule()
		f := m.Kernel("k", build.Limits{Threads: 32}, 0, 0)
		if c.use != nil {
			c.use(f)
		}
		f.Return()
		text, err := Print(m, c.arch)
		if err != nil {
			t.Error(err)
		}
		if want := ".version " + c.want + "\n.target " + c.arch.Name + "\n"; !strings.HasPrefix(text, want) {
			t.Errorf("%v: %q, want %q", c.arch, text[:30], want)
		}
	}
}

// What a kernel's author can get wrong is an error that names the kernel.
func TestErrors(t *testing.T) {
	kernel := func(body func(f *build.Func)) func(m *build.Module) {
		return func(m *build.Module) {
			f := m.Kernel("k", build.Limits{Threads: 128}, 0, 1)
			body(f)
			f.Return()
		}
	}
	vec := func(f *build.Func) build.Value { return f.Load(f.Pointer(0, build.Vec(2, build.F32))) }
	four := func(f *build.Func) []build.Value {
		var out []build.Value
		for i := range 4 {
			out = append(out, f.FAdd(f.ToFloat(f.Thread()), build.Float(float64(i))))
		}
		return out
	}
	product := "gpu.wgmma.m64n8k16.f16.ss.t00"
	for _, c := range []struct {
		name  string
		arch  string
		want  string
		build func(m *build.Module)
	}{
		{"arch", "sm_60", "internal: target sm_60 is older", kernel(func(f *build.Func) {})},
		{"arch", "gfx9", "internal: target \"gfx9\" is none", kernel(func(f *build.Func) {})},
		{"no return", "sm_80", "internal: kernel k: block entry does not end: Return is missing", func(m *build.Module) { m.Kernel("k", build.Limits{Threads: 1}, 0, 0) }},
		{"names", "sm_80", "internal: two kernels or tables are called k", func(m *build.Module) { kernel(func(*build.Func) {})(m); kernel(func(*build.Func) {})(m) }},
		{"name", "sm_80", `internal: "a-b" is no name`, func(m *build.Module) { m.Kernel("a-b", build.Limits{Threads: 1}, 0, 0).Return() }},
		{"threads", "sm_80", "internal: kernel k: a block of 2000 threads", func(m *build.Module) { m.Kernel("k", build.Limits{Threads: 2000}, 0, 0).Return() }},
		{"cluster", "sm_80", "internal: kernel k: clusters need sm_90", func(m *build.Module) { m.Kernel("k", build.Limits{Threads: 1, Cluster: 2}, 0, 0).Return() }},
		{"vector sum", "sm_80", "internal: kernel k: add of <2 x float>", kernel(func(f *build.Func) { f.FAdd(vec(f), vec(f)) })},
		{"large vector", "sm_80", "internal: kernel k: <8 x float> cannot be loaded", kernel(func(f *build.Func) { f.Load(f.Pointer(0, build.Vec(8, build.F32))) })},
		{"odd vector", "sm_80", "internal: kernel k: <3 x float> cannot be loaded", kernel(func(f *build.Func) { f.Load(f.Pointer(0, build.Vec(3, build.F32))) })},
		{"no operation", "sm_80", "internal: kernel k: call of gpu.nothing: no such operation", kernel(func(f *build.Func) { f.Call("gpu.nothing", build.Void) })},
		{"no operation", "sm_80", "internal: kernel k: call of llvm.sin.f32: no such operation", kernel(func(f *build.Func) { f.Call("llvm.sin.f32", build.F32, build.Float(1)) })},
		{"operation of a later chip", "sm_80", "internal: kernel k: gpu.wgmma.fence needs sm_90a", kernel(func(f *build.Func) { f.Call("gpu.wgmma.fence", build.Void) })},
		{"operation of that chip alone", "sm_90", "internal: kernel k: gpu.setmaxnreg.dec needs sm_90a", kernel(func(f *build.Func) { f.Call("gpu.setmaxnreg.dec", build.Void, build.Int(40)) })},
		{"operands", "sm_80", "internal: kernel k: gpu.bar.sync: takes 2 operands and gives 0 results, not 1 and 0", kernel(func(f *build.Func) { f.Call("gpu.bar.sync", build.Void, build.Int(1)) })},
		{"operand's type", "sm_80", "internal: kernel k: gpu.bar.sync: operand 1 is i64", kernel(func(f *build.Func) { f.Call("gpu.bar.sync", build.Void, build.Int(1), build.Long(32)) })},
		{"barrier", "sm_80", "internal: kernel k: gpu.bar.sync: operand 1 is 100, not from 32 to 1024 in steps of 32", kernel(func(f *build.Func) { f.Call("gpu.bar.sync", build.Void, build.Int(1), build.Int(100)) })},
		{"registers", "sm_90a", "internal: kernel k: gpu.setmaxnreg.inc: operand 0 is 250", kernel(func(f *build.Func) { f.Call("gpu.setmaxnreg.inc", build.Void, build.Int(250)) })},
		{"variable registers", "sm_90a", "internal: kernel k: gpu.setmaxnreg.inc: operand 0 is no constant", kernel(func(f *build.Func) { f.Call("gpu.setmaxnreg.inc", build.Void, f.Thread()) })},
		{"accumulators used before the wait too", "sm_90a", "internal: kernel k: accumulator 0 is used after wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 overwrites it", kernel(func(f *build.Func) {
			d := build.Long(0)
			f.Call("gpu.wgmma.fence", build.Void)
			a := wgmma(f, product, four(f), d, d, build.Int(1))
			b := wgmma(f, product, a, d, d, build.Int(1))
			f.Call("gpu.wgmma.commit", build.Void)
			b = await(f, 0, b)
			f.Store(f.FAdd(a[0], b[0]), f.Pointer(0, build.F32))
		})},
		{"accumulators of two chains", "sm_90a", "internal: kernel k: accumulator 0 is used after wgmma", kernel(func(f *build.Func) {
			d := build.Long(0)
			c := f.For(build.Int(0), build.Int(3), build.Int(1), zeros(4), func(i build.Value, c []build.Value) []build.Value {
				f.Call("gpu.wgmma.fence", build.Void)
				a := wgmma(f, product, c, d, d, build.Int(1))
				b := wgmma(f, product, c, d, d, build.Int(1))
				f.Call("gpu.wgmma.commit", build.Void)
				a = await(f, 0, a)
				f.Store(a[0], f.Pointer(0, build.F32))
				return await(f, 0, b)
			})
			f.Store(c[0], f.Pointer(0, build.F32))
		})},
		{"mixed sum", "sm_80", "internal: kernel k: operands are i32 and i64", kernel(func(f *build.Func) { f.Add(f.Thread(), f.Long(f.Thread())) })},
		{"mixed choice", "sm_80", "internal: kernel k: operands are i32 and float", kernel(func(f *build.Func) {
			f.Select(f.Lt(f.Thread(), build.Int(1)), f.Thread(), f.ToFloat(f.Thread()))
		})},
		{"condition", "sm_80", "internal: kernel k: condition is i32", kernel(func(f *build.Func) { f.If(f.Thread(), func() {}) })},
		{"carried", "sm_80", "internal: kernel k: a loop or branch gives float where it had i32", kernel(func(f *build.Func) {
			f.For(build.Int(0), build.Int(2), build.Int(1), []build.Value{f.Thread()}, func(i build.Value, c []build.Value) []build.Value { return []build.Value{build.Float(0)} })
		})},
		{"function of an integer", "sm_80", "internal: kernel k: llvm.nvvm.sqrt.approx.f: gives f and takes f, not f and r", kernel(func(f *build.Func) { f.Sqrt(f.Thread()) })},
		{"index", "sm_80", "internal: kernel k: index is i16, not i32 or i64", kernel(func(f *build.Func) { f.Load(f.At(f.Pointer(0, build.I32), f.Trunc(f.Thread(), build.I16))) })},
		{"element", "sm_80", "internal: kernel k: element of a vector: the index is no constant below 2", kernel(func(f *build.Func) { f.Elem(vec(f), 2) })},
		{"bits", "sm_80", "internal: kernel k: bits of float are not as many as those of i16", kernel(func(f *build.Func) { f.Bits(f.ToFloat(f.Thread()), build.I16) })},
	} {
		m := build.NewModule()
		c.build(m)
		_, err := Print(m, Arch{Name: c.arch})
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

// An accumulator's start may be used elsewhere: it is copied before the fence.
func TestAccumulatorsStart(t *testing.T) {
	m := build.NewModule()
	f := m.Kernel("k", build.Limits{Threads: 128}, 0, 1)
	bias := f.Load(f.At(f.Pointer(0, build.F32), f.Thread()))
	d := build.Long(0)
	f.Call("gpu.wgmma.fence", build.Void)
	c := wgmma(f, "gpu.wgmma.m64n8k16.f16.ss.t00", []build.Value{bias, bias, build.Float(0), build.Float(0)}, d, d, build.Int(1))
	f.Call("gpu.wgmma.commit", build.Void)
	c = await(f, 0, c)
	f.Store(f.FAdd(f.FAdd(c[0], c[1]), f.FAdd(bias, f.FMul(c[2], c[3]))), f.At(f.Pointer(0, build.F32), f.Thread()))
	f.Return()
	text, err := Print(m, Arch{Name: "sm_90a"})
	if err != nil {
		t.Fatal(err)
	}
	before, after, _ := strings.Cut(text, "wgmma.fence")
	if strings.Count(before, "mov.f32") != 4 || strings.Contains(after, "mov.f32") {
		t.Errorf("want four copies, all before the fence:\n%s", text)
	}
}

// Equal computations merge where one dominates the other, what a loop does not
// change leaves it, and what is not used goes; loads, stores and what lanes do
// together stay.
func TestOptimize(t *testing.T) {
	m := build.NewModule()
	f := m.Kernel("k", build.Limits{Threads: 128}, 0, 2)
	in, out := f.Pointer(0, build.I32), f.Pointer(1, build.I32)
	f.For(build.Int(0), build.Int(9), build.Int(1), nil, func(i build.Value, _ []build.Value) []build.Value {
		f.For(build.Int(0), build.Int(9), build.Int(1), nil, func(j build.Value, _ []build.Value) []build.Value {
			f.If(f.Lt(f.Thread(), build.Int(5)), func() {
				x := f.MulI(f.Add(f.Thread(), build.Int(3)), 11) // leaves both loops
				y := f.MulI(f.Add(i, build.Int(3)), 13)          // leaves the inner loop
				a, b := f.Load(in), f.Load(in)                   // both stay
				f.MulI(a, 17)                                    // goes
				f.Store(f.Add(f.Add(x, y), f.Add(a, b)), out)
				f.Store(f.MulI(f.Add(f.Thread(), build.Int(3)), 11), out) // merges
				f.ShuffleXor(a, 1)
				f.ShuffleXor(a, 1) // both stay
			})
			return nil
		})
		return nil
	})
	f.Return()
	text, err := Print(m, Arch{Name: "sm_80"})
	if err != nil {
		t.Fatal(err)
	}
	depth, found := 0, map[string][]int{}
	labels := regexp.MustCompile(`(?m)^(\$\w+):`)
	for _, line := range strings.Split(text, "\n") {
		// A label that is jumped to from below starts a loop.
		if l := labels.FindStringSubmatch(line); l != nil {
			_, below, _ := strings.Cut(text, line+"\n")
			if strings.Contains(below, "bra "+l[1]+";") {
				depth++
			}
		}
		for _, what := range []string{", 11;", ", 13;", ", 17;", "ld.global", "st.global", "shfl"} {
			if strings.Contains(line, what) {
				found[what] = append(found[what], depth)
			}
		}
	}
	want := map[string][]int{", 11;": {0}, ", 13;": {1}, "ld.global": {2, 2}, "st.global": {2, 2}, "shfl": {2, 2}}
	if fmt.Sprint(found) != fmt.Sprint(want) {
		t.Errorf("instructions at depths %v, want %v\n%s", found, want, text)
	}
}

// A kernel of many thousand instructions, with loops side by side and nested,
// takes time in proportion.
func TestLargeKernel(t *testing.T) {
	m := build.NewModule()
	f := m.Kernel("k", build.Limits{Threads: 128}, 0, 2)
	in, out := f.Pointer(0, build.I32), f.Pointer(1, build.I32)
	x := f.Load(f.At(in, f.Thread()))
	for k := range 250 {
		x = f.For(build.Int(0), build.Int(4), build.Int(1), []build.Value{x}, func(i build.Value, c []build.Value) []build.Value {
			y := c[0]
			for j := range 10 {
				y = f.Add(f.Xor(f.MulI(y, 7+j), i), f.Load(f.At(in, f.Add(f.Thread(), build.Int(k+j)))))
			}
			return f.For(build.Int(0), f.AndI(y, 3), build.Int(1), []build.Value{y}, func(i build.Value, c []build.Value) []build.Value {
				z := c[0]
				for j := range 10 {
					z = f.Add(f.Xor(z, build.Int(j)), f.Select(f.Lt(z, x), i, y))
				}
				return []build.Value{z}
			})
		})[0]
	}
	f.Store(x, f.At(out, f.Thread()))
	f.Return()
	n := 0
	for _, b := range f.IR.Blocks {
		n += len(b.Insts)
	}
	start := time.Now()
	if _, err := Print(m, Arch{Name: "sm_80"}); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	t.Logf("%d instructions: %v", n, took)
	if took > time.Duration(n)*40*time.Microsecond {
		t.Errorf("%v for %d instructions", took, n)
	}
}
