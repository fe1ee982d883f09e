package vmath

import (
	"math"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/internal/jit"
	"github.com/gouache-ml/gouache/runtime/device/cpu"
)

// floats is how many arguments one kernel call maps.
const floats = 4096

type function struct {
	name   string
	emit   func(*build.Func, V) V
	want   func(float64) float64
	maxULP float64
	lo, hi float64 // where the bound holds
}

var functions = []function{
	{"exp", Exp, math.Exp, 1, -87.336, 88.7228},
	{"log", Log, math.Log, 1, 0, math.Inf(1)},
	{"tanh", Tanh, math.Tanh, 2, math.Inf(-1), math.Inf(1)},
	{"sigmoid", Sigmoid, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, 2.5, -87, math.Inf(1)},
	{"erf", Erf, math.Erf, 2, math.Inf(-1), math.Inf(1)},
}

// runStream is the second word of philox_run's counters.
const runStream = 0xdeadbeef

// bench holds the compiled functions of one target: name for vectors, name_1 for scalars.
type bench struct {
	lib   *cpu.Library
	pool  *cpu.Pool
	arena *cpu.Arena
}

// newBench compiles, for each function, a kernel that maps floats numbers from args[0] to args[1].
func newBench(t testing.TB, target *build.Target) *bench {
	t.Helper()
	m := build.NewModule(target)
	for _, f := range functions {
		for _, lanes := range []int{target.Lanes, 0} {
			name, step := f.name, lanes
			if lanes == 0 {
				name, step = f.name+"_1", 1
			}
			k, args, _, _, _ := m.Kernel(name)
			in, out := k.SlotPtr(args, 0, build.F32), k.SlotPtr(args, 1, build.F32)
			k.Range(build.Int(0), build.Int(floats), build.Int(int64(step)), func(i V) {
				if lanes == 0 {
					k.Store(f.emit(k, k.Load(build.F32, k.At(in, i))), k.At(out, i))
					return
				}
				k.Store(f.emit(k, k.Load(m.Vec(), k.At(in, i))), k.At(out, i))
			})
			k.Return()
		}
	}
	// philox: for each group of four words of counters at args[0], key in slots 2 and 3.
	k, args, _, _, _ := m.Kernel("philox")
	in, out := k.SlotPtr(args, 0, build.I32), k.SlotPtr(args, 1, build.I32)
	vt := build.VecOf(target.Lanes, build.I32)
	key := [2]V{}
	for j := range key {
		key[j] = k.Splat(target.Lanes, k.Trunc(k.Slot(args, 2+j), build.I32))
	}
	var c [4]V
	for j := range c {
		c[j] = k.Load(vt, k.Offset(in, j*target.Lanes))
	}
	r := Philox(k, c, key)
	for j := range r {
		k.Store(r[j], k.Offset(out, j*target.Lanes))
		k.Store(Uniform(k, r[j]), k.Offset(out, (4+j)*target.Lanes))
	}
	k.Return()
	// philox_run: from the counter at args[0] on, key in slots 2 and 3.
	k, args, _, _, _ = m.Kernel("philox_run")
	in, out = k.SlotPtr(args, 0, build.I32), k.SlotPtr(args, 1, build.I32)
	for j := range key {
		key[j] = k.Trunc(k.Slot(args, 2+j), build.I32)
	}
	k.Store(PhiloxRun(k, k.Load(build.I32, in), runStream, key, target.Lanes), out)
	k.Return()
	lib, err := jit.Load(m)
	if err != nil {
		t.Fatal(err)
	}
	arena, err := cpu.NewArena(64 + 8*floats)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := cpu.NewPool(cpu.PoolOptions{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close(); arena.Close(); lib.Close() })
	s := arena.I64(0, 2)
	s[0], s[1] = int64(arena.Addr(64)), int64(arena.Addr(64+4*floats))
	return &bench{lib, pool, arena}
}

func (b *bench) in() []float32  { return b.arena.F32(64, floats) }
func (b *bench) out() []float32 { return b.arena.F32(64+4*floats, floats) }

func (b *bench) run(t testing.TB, name string) {
	t.Helper()
	fn, err := b.lib.Symbol(name)
	if err != nil {
		t.Fatal(err)
	}
	b.pool.Run(fn, b.arena.Addr(0), 1)
}

func eachTarget(t *testing.T, f func(t *testing.T, b *bench, target *build.Target)) {
	t.Helper()
	targets, err := jit.Targets()
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range targets {
		t.Run(target.Name, func(t *testing.T) { f(t, newBench(t, target), target) })
	}
}

// ulps is the distance of got from want in units of the last place of want's float32.
func ulps(got float32, want float64) float64 {
	if float64(got) == want || math.IsNaN(float64(got)) && math.IsNaN(want) {
		return 0
	}
	w := float32(want)
	if got == w {
		w = got
	}
	_, e := math.Frexp(want)
	unit := math.Ldexp(1, max(e-24, -149))
	if math.IsInf(float64(w), 0) && math.IsInf(float64(got), 0) && (w > 0) == (got > 0) {
		return 0
	}
	return math.Abs(float64(got)-want) / unit
}

// Every 1,021st float32 of the range: about 4 million arguments a function.
func TestErrorsStayWithinBounds(t *testing.T) {
	eachTarget(t, func(t *testing.T, b *bench, _ *build.Target) {
		for _, f := range functions {
			worst, at := 0.0, float32(0)
			next := uint32(0)
			for done := false; !done; {
				in := b.in()
				for i := range in {
					if next > math.MaxUint32-1021 {
						done = true
					} else {
						next += 1021
					}
					in[i] = math.Float32frombits(next)
				}
				b.run(t, f.name)
				for i, y := range b.out() {
					x := float64(in[i])
					if !(x >= f.lo && x <= f.hi) {
						continue
					}
					if e := ulps(y, f.want(x)); e > worst {
						worst, at = e, in[i]
					}
				}
			}
			if worst > f.maxULP {
				t.Errorf("%s(%g) is off by %.2f ulp, bound %g", f.name, at, worst, f.maxULP)
			}
		}
	})
}

func TestSpecialArguments(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	tiny := float64(math.Float32frombits(1))
	cases := map[string][][2]float64{
		"exp":     {{0, 1}, {-inf, 0}, {inf, inf}, {nan, nan}, {89, inf}, {-88, 0}, {-1e30, 0}, {1e30, inf}, {tiny, 1}},
		"log":     {{0, -inf}, {math.Copysign(0, -1), -inf}, {1, 0}, {-1, nan}, {-tiny, nan}, {-inf, nan}, {inf, inf}, {nan, nan}, {tiny, math.Log(tiny)}},
		"tanh":    {{0, 0}, {inf, 1}, {-inf, -1}, {nan, nan}, {100, 1}, {-100, -1}, {tiny, tiny}},
		"sigmoid": {{0, 0.5}, {inf, 1}, {-inf, 0}, {nan, nan}, {-200, 0}, {200, 1}},
		"erf":     {{0, 0}, {inf, 1}, {-inf, -1}, {nan, nan}, {10, 1}, {-10, -1}},
	}
	eachTarget(t, func(t *testing.T, b *bench, _ *build.Target) {
		for _, f := range functions {
			for _, name := range []string{f.name, f.name + "_1"} {
				cs := cases[f.name]
				for i, c := range cs {
					b.in()[i] = float32(c[0])
				}
				// NaNs with any payload stay NaN: exp builds its result from bits.
				payload := []uint32{0x7f800001, 0xffffffff, 0x7fc00155}
				for i, p := range payload {
					b.in()[len(cs)+i] = math.Float32frombits(p)
				}
				b.run(t, name)
				for i, c := range cs {
					got := b.out()[i]
					if ulps(got, c[1]) > 1 {
						t.Errorf("%s(%g) is %g, want %g", name, c[0], got, c[1])
					}
				}
				for i, p := range payload {
					if got := b.out()[len(cs)+i]; got == got {
						t.Errorf("%s of NaN %#x is %g", name, p, got)
					}
				}
			}
		}
	})
}

func TestScalarsEqualVectors(t *testing.T) {
	eachTarget(t, func(t *testing.T, b *bench, _ *build.Target) {
		for i := range b.in() {
			b.in()[i] = (float32(i) - floats/2) / 40
		}
		for _, f := range functions {
			b.run(t, f.name)
			vector := append([]float32(nil), b.out()...)
			b.run(t, f.name+"_1")
			for i, y := range b.out() {
				if math.Float32bits(y) != math.Float32bits(vector[i]) && (y == y || vector[i] == vector[i]) {
					t.Fatalf("%s(%g): scalar %g, vector %g", f.name, b.in()[i], y, vector[i])
				}
			}
		}
	})
}

// The known answers of Random123 1.14's kat_vectors.
func TestPhiloxGivesTheKnownAnswers(t *testing.T) {
	const f = 0xffffffff
	for _, c := range []struct {
		counter [4]uint32
		key     [2]uint32
		want    [4]uint32
	}{
		{[4]uint32{}, [2]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[4]uint32{f, f, f, f}, [2]uint32{f, f}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, [2]uint32{0xa4093822, 0x299f31d0},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		eachTarget(t, func(t *testing.T, b *bench, target *build.Target) {
			in := b.arena.I32(64, floats)
			for j, w := range c.counter {
				for l := 0; l < target.Lanes; l++ {
					in[j*target.Lanes+l] = int32(w) + int32(l) // only lane 0 has a known answer
				}
			}
			s := b.arena.I64(0, 4)
			s[2], s[3] = int64(c.key[0]), int64(c.key[1])
			b.run(t, "philox")
			out := b.arena.I32(64+4*floats, floats)
			for j, w := range c.want {
				if got := uint32(out[j*target.Lanes]); got != w {
					t.Errorf("counter %x word %d is %#x, want %#x", c.counter, j, got, w)
				}
				for l := 0; l < target.Lanes; l++ {
					bits := uint32(out[j*target.Lanes+l])
					want := (float32(bits>>9) + 0.5) / (1 << 23)
					if u := b.out()[(4+j)*target.Lanes+l]; u != want || u <= 0 || u >= 1 {
						t.Errorf("uniform of %#x is %v, want %v", bits, u, want)
					}
				}
			}
		})
	}
}

// The counters of a run one by one, which the known answers vouch for.
func TestPhiloxRunGivesTheWordsOfItsCounters(t *testing.T) {
	eachTarget(t, func(t *testing.T, b *bench, target *build.Target) {
		in, out := b.arena.I32(64, floats), b.arena.I32(64+4*floats, floats)
		s := b.arena.I64(0, 4)
		for _, key := range [][2]uint32{{0, 0}, {0xffffffff, 1 << 31}, {0xa4093822, 0x299f31d0}} {
			for _, first := range []uint32{0, 1, 0x243f6a88, 0xfffffffe} {
				s[2], s[3] = int64(key[0]), int64(key[1])
				in[0] = int32(first)
				b.run(t, "philox_run")
				got := append([]int32(nil), out[:target.Lanes]...)
				for l := range target.Lanes {
					in[l], in[target.Lanes+l] = int32(first+uint32(l/4)), int32(runStream-1<<32)
					in[2*target.Lanes+l], in[3*target.Lanes+l] = 0, 0
				}
				b.run(t, "philox")
				for l, w := range got {
					if want := out[l%4*target.Lanes+l]; w != want {
						t.Errorf("key %x, from %d: lane %d is %#x, want %#x", key, first, l, uint32(w), uint32(want))
					}
				}
			}
		}
	})
}

func BenchmarkFunctions(b *testing.B) {
	targets, err := jit.Targets()
	if err != nil {
		b.Fatal(err)
	}
	x := newBench(b, targets[0])
	for i := range x.in() {
		x.in()[i] = float32(i%97)/10 + 0.01
	}
	for _, f := range functions {
		b.Run(f.name, func(b *testing.B) {
			for b.Loop() {
				x.run(b, f.name)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/floats, "ns/element")
		})
	}
}
