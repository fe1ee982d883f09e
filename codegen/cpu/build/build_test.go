package build_test

import (
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/internal/jit"
	"github.com/gouache-ml/gouache/runtime/device/cpu"
)

// machine runs single kernels on slots of 64 bits and a float area.
type machine struct {
	arena *cpu.Arena
	pool  *cpu.Pool
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	a, err := cpu.NewArena(1 << 16)
	if err != nil {
		t.Fatal(err)
	}
	p, err := cpu.NewPool(cpu.PoolOptions{Workers: 1, Scratch: 4096})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close(); a.Close() })
	return &machine{a, p}
}

// run compiles the kernel that body writes for every target of this machine and runs it once.
// slots are its arguments; slot 0 is replaced by the address of 1024 floats, 0.5, 1.5, ...
func (m *machine) run(t *testing.T, body func(k *build.Func, args V), slots []int64, check func(t *testing.T, slots []int64, floats []float32)) {
	t.Helper()
	targets, err := jit.Targets()
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range targets {
		mod := build.NewModule(target)
		k, args, _, _, _ := mod.Kernel("k")
		body(k, args)
		k.Return()
		l, err := jit.Load(mod)
		if err != nil {
			t.Fatal(err)
		}
		s := m.arena.I64(0, len(slots))
		copy(s, slots)
		s[0] = int64(m.arena.Addr(4096))
		f := m.arena.F32(4096, 1024)
		for i := range f {
			f[i] = float32(i) + 0.5
		}
		fn, err := l.Symbol("k")
		if err != nil {
			t.Fatal(err)
		}
		m.pool.Run(fn, m.arena.Addr(0), 1)
		check(t, s, f)
		l.Close()
	}
}

type V = build.V

func TestForCarriesValuesAndSkipsEmptyRanges(t *testing.T) {
	m := newMachine(t)
	body := func(k *build.Func, args V) {
		sum := k.For(k.Slot(args, 1), k.Slot(args, 2), build.Int(3), []V{build.Int(100)}, func(i V, c []V) []V {
			return []V{k.Add(c[0], i)}
		})
		k.Store(sum[0], k.Offset(args, 3))
		fixed := k.For(build.Int(0), build.Int(5), build.Int(1), []V{build.Int(1)}, func(i V, c []V) []V {
			return []V{k.Mul(c[0], build.Int(2))}
		})
		k.Store(fixed[0], k.Offset(args, 4))
	}
	for _, c := range []struct{ lo, hi, want int64 }{{0, 10, 118}, {5, 5, 100}, {7, 2, 100}, {0, 1, 100}} {
		m.run(t, body, []int64{0, c.lo, c.hi, 0, 0}, func(t *testing.T, s []int64, _ []float32) {
			if s[3] != c.want || s[4] != 32 {
				t.Errorf("from %d to %d: sum %d, want %d; power %d", c.lo, c.hi, s[3], c.want, s[4])
			}
		})
	}
}

func TestBranchesMergeValues(t *testing.T) {
	m := newMachine(t)
	body := func(k *build.Func, args V) {
		x := k.Slot(args, 1)
		r := k.If(k.Lt(x, build.Int(10)), func() []V { return []V{k.Add(x, build.Int(1))} }, func() []V { return []V{build.Int(-1)} })
		k.Store(r[0], k.Offset(args, 2))
		k.Switch(x, []int64{3, 11}, func(j int) { k.Store(build.Int(int64(70+j)), k.Offset(args, 3)) })
		w := k.While([]V{x, build.Int(0)}, func(c []V) V { return k.Lt(build.Int(0), c[0]) }, func(c []V) []V {
			return []V{k.LShr(c[0], build.Int(1)), k.Add(c[1], build.Int(1))}
		})
		k.Store(w[1], k.Offset(args, 4))
	}
	for _, c := range []struct{ x, merged, cased, bits int64 }{{3, 4, 70, 2}, {11, -1, 71, 4}, {0, 1, 0, 0}} {
		m.run(t, body, []int64{0, c.x, 0, 0, 0}, func(t *testing.T, s []int64, _ []float32) {
			if s[2] != c.merged || s[3] != c.cased || s[4] != c.bits {
				t.Errorf("x %d: got %v, want %+v", c.x, s[2:], c)
			}
		})
	}
}

func TestMasksLimitLoadsAndStores(t *testing.T) {
	m := newMachine(t)
	var lanes int
	body := func(k *build.Func, args V) {
		lanes = k.Target.Lanes
		vt := k.Module.Vec()
		p := k.SlotPtr(args, 0, build.F32)
		mask := k.LaneMask(lanes, k.Slot(args, 1))
		v := k.MaskLoad(vt, p, mask)
		k.MaskStore(k.FAdd(v, build.FloatOf(vt, 1)), k.Offset(p, 100), mask)
		k.Store(v, k.Offset(p, 200))
	}
	for _, rem := range []int64{-5, 0, 1, 3, 100} {
		m.run(t, body, []int64{0, rem}, func(t *testing.T, _ []int64, f []float32) {
			for i := range lanes {
				stored, loaded := float32(i)+1.5, float32(i)+0.5
				if int64(i) >= rem {
					stored, loaded = float32(100+i)+0.5, 0
				}
				if f[100+i] != stored || f[200+i] != loaded {
					t.Fatalf("rem %d lane %d: stored %v want %v, loaded %v want %v", rem, i, f[100+i], stored, f[200+i], loaded)
				}
			}
		})
	}
}

func TestTransposeReduceAndGather(t *testing.T) {
	m := newMachine(t)
	lanes := 0
	body := func(k *build.Func, args V) {
		vt := k.Module.Vec()
		lanes = k.Target.Lanes
		p := k.SlotPtr(args, 0, build.F32)
		rows := make([]V, lanes)
		for i := range rows {
			rows[i] = k.Load(vt, k.Offset(p, i*lanes))
		}
		for i, r := range k.Transpose(rows) {
			k.Store(r, k.Offset(p, 256+i*lanes))
		}
		k.Store(k.Reduce(rows[0], k.FAdd), k.Offset(p, 512))
		tenfold := k.Mul(build.Iota(lanes, build.I32), build.IntOf(build.VecOf(lanes, build.I32), 10))
		k.Store(k.Gather(p, tenfold, nil), k.Offset(p, 600))
		tab := k.Module.Table(build.I32, []int64{4, 9, 2})
		k.Store(k.SExt(k.Load(build.I32, k.Offset(tab, 1)), build.I64), k.Offset(args, 1))
	}
	m.run(t, body, []int64{0, 0}, func(t *testing.T, s []int64, f []float32) {
		for i := 0; i < lanes; i++ {
			for j := 0; j < lanes; j++ {
				if f[256+i*lanes+j] != float32(j*lanes+i)+0.5 {
					t.Fatalf("transpose[%d][%d] is %v", i, j, f[256+i*lanes+j])
				}
			}
			if f[600+i] != float32(10*i)+0.5 {
				t.Errorf("gathered[%d] is %v", i, f[600+i])
			}
		}
		if want := float32(lanes*lanes) / 2; f[512] != want {
			t.Errorf("sum is %v, want %v", f[512], want)
		}
		if s[1] != 9 {
			t.Errorf("table entry is %d", s[1])
		}
	})
}

func TestTextIsReproducible(t *testing.T) {
	for _, target := range build.Targets() {
		text := func() string {
			m := build.NewModule(target)
			k, args, c0, c1, _ := m.Kernel("k")
			k.Range(c0, c1, build.Int(1), func(i V) { k.Store(i, k.At(args, i)) })
			k.Return()
			return m.Text()
		}
		if text() != text() {
			t.Errorf("%s: two builds differ", target.Name)
		}
	}
	if _, err := build.TargetByName("vax"); err == nil {
		t.Error("an unknown target was found")
	}
}
