package ptx

import (
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"math/rand/v2"

	"github.com/llir/llvm/ir/constant"
	"github.com/llir/llvm/ir/enum"
	"github.com/llir/llvm/ir/types"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/runtime/format16"
)

// test is an operation, built as a kernel of its own, and what Go computes in
// its place.
type test struct {
	name  string
	in    []types.Type
	build func(f *build.Func, x []build.Value) build.Value
	want  func(x []uint64) uint64 // of bits, the upper ones ignored
	ulps  int                     // how far off an approximation may be
}

func f32(x uint64) float32  { return math.Float32frombits(uint32(x)) }
func b32(x float32) uint64  { return uint64(math.Float32bits(x)) }
func b64(b bool) uint64     { return map[bool]uint64{true: 1}[b] }
func half(x uint64) float32 { return format16.Half.Decode(uint16(x)) }

func width64(t types.Type) int {
	if t.Equal(build.I1) {
		return 1
	}
	return 8 * build.SizeOf(t)
}

// signed is the number that n bits are.
func signed(x uint64, n int) int64 { return int64(x<<(64-n)) >> (64 - n) }

func mask(x uint64, n int) uint64 { return x << (64 - n) >> (64 - n) }

// samples are operands of a type: those at the edges first.
func samples(t types.Type, r *rand.Rand, n int) []uint64 {
	var edge []uint64
	w := width64(t)
	switch {
	case t.Equal(build.F32):
		for _, x := range []float64{0, math.Copysign(0, -1), 1, -1, 0.5, 1.5, 2.5, -2.5, 3.7, -3.7, 1e-40, -1e-45, 1e30, -1e30, 65504, 1e-7, math.Inf(1), math.Inf(-1), math.NaN()} {
			edge = append(edge, b32(float32(x)))
		}
	case t.Equal(build.F16):
		edge = []uint64{0, 0x8000, 0x3c00, 0xbc00, 1, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0x3555}
	default:
		edge = []uint64{0, 1, 2, 3, 7, 31, 32, 33, 1<<(w-1) - 1, 1 << (w - 1), 1<<(w-1) + 1, math.MaxUint64, math.MaxUint64 - 1, 100}
	}
	out := make([]uint64, n)
	for i := range out {
		switch {
		case r.IntN(2) == 0:
			out[i] = edge[r.IntN(len(edge))]
		case t.Equal(build.F32):
			out[i] = b32(float32(r.NormFloat64() * math.Pow(2, float64(r.IntN(40)-20))))
		case r.IntN(2) == 0:
			out[i] = uint64(r.IntN(64) - 32)
		default:
			out[i] = r.Uint64()
		}
		out[i] = mask(out[i], w)
	}
	return out
}

var integers = []*types.IntType{build.I8, build.I16, build.I32, build.I64}

func two(t types.Type) []types.Type { return []types.Type{t, t} }

func integerTests() []test {
	var ts []test
	add := func(name string, t types.Type, in []types.Type, b func(f *build.Func, x []build.Value) build.Value, want func(x []uint64) uint64) {
		ts = append(ts, test{name: fmt.Sprintf("%s_%s", name, t), in: in, build: b, want: want})
	}
	for _, t := range integers {
		w := width64(t)
		c := func(n int64) build.Value { return constantInt(t, n) }
		bin := func(name string, b func(f *build.Func, x, y build.Value) build.Value, want func(x, y uint64) uint64) {
			add(name, t, two(t), func(f *build.Func, x []build.Value) build.Value { return b(f, x[0], x[1]) },
				func(x []uint64) uint64 { return want(mask(x[0], w), mask(x[1], w)) })
			add(name+"_number", t, two(t), func(f *build.Func, x []build.Value) build.Value { return b(f, x[0], c(13)) },
				func(x []uint64) uint64 { return want(mask(x[0], w), 13) })
			add(name+"_of_number", t, two(t), func(f *build.Func, x []build.Value) build.Value { return b(f, c(-77), x[1]) },
				func(x []uint64) uint64 { n := int64(-77); return want(mask(uint64(n), w), mask(x[1], w)) })
		}
		bin("add", (*build.Func).Add, func(x, y uint64) uint64 { return x + y })
		bin("sub", (*build.Func).Sub, func(x, y uint64) uint64 { return x - y })
		bin("mul", (*build.Func).Mul, func(x, y uint64) uint64 { return x * y })
		bin("and", (*build.Func).And, func(x, y uint64) uint64 { return x & y })
		bin("or", (*build.Func).Or, func(x, y uint64) uint64 { return x | y })
		bin("xor", (*build.Func).Xor, func(x, y uint64) uint64 { return x ^ y })
		// Division by zero and of the smallest number by -1 have no result.
		bin("sdiv", func(f *build.Func, x, y build.Value) build.Value {
			bad := f.Or(f.Eq(y, c(0)), f.Eq(y, c(-1)))
			return f.SDiv(x, f.Select(bad, c(3), y))
		}, func(x, y uint64) uint64 {
			if y == 0 || signed(y, w) == -1 {
				y = 3
			}
			return uint64(signed(x, w) / signed(y, w))
		})
		for _, n := range []int{1, 7, 8, 100} {
			add(fmt.Sprint("div", n), t, two(t), func(f *build.Func, x []build.Value) build.Value { return f.Div(f.Shr(x[0], 1), n) },
				func(x []uint64) uint64 { return x[0] >> 1 / uint64(n) })
			add(fmt.Sprint("rem", n), t, two(t), func(f *build.Func, x []build.Value) build.Value { return f.Rem(f.Shr(x[0], 1), n) },
				func(x []uint64) uint64 { return x[0] >> 1 % uint64(n) })
		}
		for _, n := range []int{1, 3, w - 1} {
			add(fmt.Sprint("shl", n), t, two(t), func(f *build.Func, x []build.Value) build.Value { return f.Shl(x[0], n) },
				func(x []uint64) uint64 { return x[0] << n })
			add(fmt.Sprint("shr", n), t, two(t), func(f *build.Func, x []build.Value) build.Value { return f.Shr(x[0], n) },
				func(x []uint64) uint64 { return x[0] >> n })
			add(fmt.Sprint("sar", n), t, two(t), func(f *build.Func, x []build.Value) build.Value { return f.Sar(x[0], n) },
				func(x []uint64) uint64 { return uint64(signed(x[0], w) >> n) })
		}
		for p := range comparisons {
			bin("compare_"+p.String(), func(f *build.Func, x, y build.Value) build.Value { return f.Compare(p, x, y) },
				func(x, y uint64) uint64 { return b64(compared(p, x, y, w)) })
		}
		bin("le", (*build.Func).Le, func(x, y uint64) uint64 { return b64(compared(enum.IPredSLE, x, y, w)) })
		add("select", t, []types.Type{build.I1, t, t}, func(f *build.Func, x []build.Value) build.Value { return f.Select(x[0], x[1], x[2]) }, choice)
		add("select_numbers", t, []types.Type{build.I1}, func(f *build.Func, x []build.Value) build.Value { return f.Select(x[0], c(5), c(-6)) },
			func(x []uint64) uint64 { n := int64(-6); return choice([]uint64{x[0], 5, uint64(n)}) })
		for _, to := range append([]*types.IntType{build.I1}, integers...) {
			v := width64(to)
			one := []types.Type{t}
			if v < w {
				add("trunc_"+to.String(), t, one, func(f *build.Func, x []build.Value) build.Value { return f.Trunc(x[0], to) }, func(x []uint64) uint64 { return x[0] })
				from := []types.Type{to}
				add("zext_"+to.String(), t, from, func(f *build.Func, x []build.Value) build.Value { return f.Zext(x[0], t) }, func(x []uint64) uint64 { return x[0] })
				add("sext_"+to.String(), t, from, func(f *build.Func, x []build.Value) build.Value { return f.Sext(x[0], t) }, func(x []uint64) uint64 { return uint64(signed(x[0], v)) })
			}
		}
	}
	for _, t := range []*types.IntType{build.I32, build.I64} {
		w := width64(t)
		add("shlv", t, two(t), func(f *build.Func, x []build.Value) build.Value { return f.ShlV(x[0], f.AndI(x[1], 127)) }, func(x []uint64) uint64 { return x[0] << (x[1] & 127) })
		add("shrv", t, two(t), func(f *build.Func, x []build.Value) build.Value { return f.ShrV(x[0], f.AndI(x[1], 127)) }, func(x []uint64) uint64 { return mask(x[0], w) >> (x[1] & 127) })
		add("shlv_number", t, two(t), func(f *build.Func, x []build.Value) build.Value {
			return f.ShlV(constantInt(t, 5), f.AndI(x[1], 127))
		}, func(x []uint64) uint64 { return 5 << (x[1] & 127) })
	}
	// Logic.
	p := two(build.I1)
	ts = append(ts,
		test{name: "and_i1", in: p, build: func(f *build.Func, x []build.Value) build.Value { return f.And(x[0], x[1]) }, want: func(x []uint64) uint64 { return x[0] & x[1] }},
		test{name: "or_i1", in: p, build: func(f *build.Func, x []build.Value) build.Value { return f.Or(x[0], x[1]) }, want: func(x []uint64) uint64 { return x[0] | x[1] }},
		test{name: "xor_i1", in: p, build: func(f *build.Func, x []build.Value) build.Value { return f.Xor(x[0], x[1]) }, want: func(x []uint64) uint64 { return x[0] ^ x[1] }},
		test{name: "not_i1", in: p, build: func(f *build.Func, x []build.Value) build.Value { return f.Not(x[0]) }, want: func(x []uint64) uint64 { return 1 - x[0] }},
		test{name: "or_true", in: p, build: func(f *build.Func, x []build.Value) build.Value { return f.Or(x[0], build.Bool(true)) }, want: func(x []uint64) uint64 { return 1 }},
		test{name: "or_false", in: p, build: func(f *build.Func, x []build.Value) build.Value { return f.Or(build.Bool(false), x[0]) }, want: func(x []uint64) uint64 { return x[0] }},
		test{name: "xor_false", in: p, build: func(f *build.Func, x []build.Value) build.Value { return f.Xor(x[0], build.Bool(false)) }, want: func(x []uint64) uint64 { return x[0] }},
		test{name: "and_false", in: p, build: func(f *build.Func, x []build.Value) build.Value { return f.Or(x[1], f.And(x[0], build.Bool(false))) }, want: func(x []uint64) uint64 { return x[1] }},
		test{name: "select_i1", in: []types.Type{build.I1, build.I1, build.I1}, build: func(f *build.Func, x []build.Value) build.Value { return f.Select(x[0], x[1], x[2]) }, want: choice},
		test{name: "select_true", in: p, build: func(f *build.Func, x []build.Value) build.Value { return f.Select(x[0], build.Bool(true), x[1]) }, want: func(x []uint64) uint64 { return x[0] | x[1] }},
		test{name: "select_false", in: p, build: func(f *build.Func, x []build.Value) build.Value { return f.Select(x[0], build.Bool(false), x[1]) }, want: func(x []uint64) uint64 { return x[1] &^ x[0] }},
		test{name: "select_else_true", in: p, build: func(f *build.Func, x []build.Value) build.Value { return f.Select(x[0], x[1], build.Bool(true)) }, want: func(x []uint64) uint64 { return x[1] | (1 - x[0]) }},
		test{name: "select_else_false", in: p, build: func(f *build.Func, x []build.Value) build.Value { return f.Select(x[0], x[1], build.Bool(false)) }, want: func(x []uint64) uint64 { return x[1] & x[0] }},
		test{name: "mulhi", in: two(build.I32), build: func(f *build.Func, x []build.Value) build.Value { return f.MulHi(x[0], x[1]) }, want: func(x []uint64) uint64 { h, _ := bits.Mul32(uint32(x[0]), uint32(x[1])); return uint64(h) }},
		test{name: "mulwide_low", in: two(build.I32), build: func(f *build.Func, x []build.Value) build.Value { low, _ := f.MulWide(x[0], x[1]); return low }, want: func(x []uint64) uint64 { return x[0] * x[1] }},
		test{name: "mulwide_high", in: two(build.I32), build: func(f *build.Func, x []build.Value) build.Value {
			_, high := f.MulWide(x[0], build.Word(0xd2511f53))
			return high
		}, want: func(x []uint64) uint64 { h, _ := bits.Mul32(uint32(x[0]), 0xd2511f53); return uint64(h) }},
		test{name: "minu", in: two(build.I32), build: func(f *build.Func, x []build.Value) build.Value { return f.MinU(x[0], x[1]) }, want: func(x []uint64) uint64 { return min(x[0], x[1]) }},
		test{name: "long", in: two(build.I32), build: func(f *build.Func, x []build.Value) build.Value { return f.Long(x[0]) }, want: func(x []uint64) uint64 { return x[0] }},
		test{name: "signed", in: two(build.I32), build: func(f *build.Func, x []build.Value) build.Value { return f.Signed(x[0]) }, want: func(x []uint64) uint64 { return uint64(signed(x[0], 32)) }},
	)
	for p := range comparisons {
		ts = append(ts, test{name: "compare_" + p.String() + "_i1", in: two(build.I1), build: func(f *build.Func, x []build.Value) build.Value { return f.Compare(p, x[0], x[1]) },
			want: func(x []uint64) uint64 { return b64(compared(p, x[0], x[1], 1)) }})
	}
	return ts
}

func constantInt(t *types.IntType, n int64) build.Value {
	switch t.BitSize {
	case 32:
		return build.Int(int(n))
	case 64:
		return build.Long(n)
	}
	c := build.Int(int(n))
	c.Typ = t
	return c
}

func halfNumber(x float64) build.Value { return constant.NewFloat(build.F16, x) }

func choice(x []uint64) uint64 {
	if x[0] != 0 {
		return x[1]
	}
	return x[2]
}

func compared(p enum.IPred, x, y uint64, w int) bool {
	a, b := signed(x, w), signed(y, w)
	switch p {
	case enum.IPredEQ:
		return x == y
	case enum.IPredNE:
		return x != y
	case enum.IPredSGT:
		return a > b
	case enum.IPredSGE:
		return a >= b
	case enum.IPredSLT:
		return a < b
	case enum.IPredSLE:
		return a <= b
	case enum.IPredUGT:
		return x > y
	case enum.IPredUGE:
		return x >= y
	case enum.IPredULT:
		return x < y
	}
	return x <= y
}

func floatTests() []test {
	var ts []test
	unary := func(name string, b func(f *build.Func, x build.Value) build.Value, want func(x float32) float32) {
		ts = append(ts, test{name: name, in: []types.Type{build.F32}, build: func(f *build.Func, x []build.Value) build.Value { return b(f, x[0]) },
			want: func(x []uint64) uint64 { return b32(want(f32(x[0]))) }})
	}
	binary := func(name string, b func(f *build.Func, x, y build.Value) build.Value, want func(x, y float32) float32) {
		ts = append(ts,
			test{name: name, in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return b(f, x[0], x[1]) }, want: func(x []uint64) uint64 { return b32(want(f32(x[0]), f32(x[1]))) }},
			test{name: name + "_number", in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return b(f, x[0], build.Float(0.3)) }, want: func(x []uint64) uint64 { return b32(want(f32(x[0]), 0.3)) }},
			test{name: name + "_of_number", in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return b(f, build.Float(-7), x[1]) }, want: func(x []uint64) uint64 { return b32(want(-7, f32(x[1]))) }},
			test{name: name + "_of_numbers", in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return b(f, build.Float(-7), build.Float(0.7)) }, want: func(x []uint64) uint64 { return b32(want(-7, 0.7)) }})
	}
	binary("fadd", (*build.Func).FAdd, func(x, y float32) float32 { return x + y })
	binary("fadd_down", (*build.Func).FAddDown, func(x, y float32) float32 {
		s := float64(x) + float64(y)
		if s == 0 || s != s || math.IsInf(s, 0) {
			return float32(s)
		}
		exact := new(big.Float).SetPrec(2000).Add(big.NewFloat(float64(x)), big.NewFloat(float64(y)))
		r, _ := exact.Float32()
		if new(big.Float).SetFloat64(math.Abs(float64(r))).Cmp(exact.Abs(exact)) > 0 {
			r = math.Nextafter32(r, 0)
		}
		return r
	})
	binary("fsub", (*build.Func).FSub, func(x, y float32) float32 { return x - y })
	binary("fmul", (*build.Func).FMul, func(x, y float32) float32 { return x * y })
	binary("fdiv", (*build.Func).FDiv, func(x, y float32) float32 { return x / y })
	number := func(x, y float32, pick func(x, y float64) float64) float32 {
		switch {
		case x != x:
			return y
		case y != y:
			return x
		}
		return float32(pick(float64(x), float64(y)))
	}
	binary("fmax", (*build.Func).FMax, func(x, y float32) float32 { return number(x, y, math.Max) })
	binary("fmin", (*build.Func).FMin, func(x, y float32) float32 { return number(x, y, math.Min) })
	nan := func(pick func(x, y float64) float64) func(x, y float32) float32 {
		return func(x, y float32) float32 {
			if x != x || y != y {
				return float32(math.NaN())
			}
			return float32(pick(float64(x), float64(y)))
		}
	}
	binary("maximum", (*build.Func).Maximum, nan(math.Max))
	binary("minimum", (*build.Func).Minimum, nan(math.Min))
	// A product and a sum stay two roundings, whatever is written beside them.
	binary("mul_add", func(f *build.Func, x, y build.Value) build.Value { return f.FAdd(f.FMul(x, y), build.Float(0.1)) },
		func(x, y float32) float32 { return float32(x*y) + 0.1 })
	unary("fneg", (*build.Func).FNeg, func(x float32) float32 { return math.Float32frombits(math.Float32bits(x) ^ 1<<31) })
	unary("fabs", (*build.Func).FAbs, func(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) })
	unary("sqrt", (*build.Func).Sqrt, func(x float32) float32 { return float32(math.Sqrt(float64(x))) })
	unary("floor", (*build.Func).Floor, func(x float32) float32 { return float32(math.Floor(float64(x))) })
	unary("round", (*build.Func).Round, func(x float32) float32 { return float32(math.RoundToEven(float64(x))) })
	unary("abs_number", func(f *build.Func, x build.Value) build.Value { return f.FAdd(x, f.FAbs(build.Float(-2))) }, func(x float32) float32 { return x + 2 })
	near := func(name string, b func(f *build.Func, x build.Value) build.Value, want func(x float64) float64) {
		// Numbers for which the function neither overflows nor has a denormal result.
		tame := func(f *build.Func, x build.Value) build.Value {
			return f.FAdd(f.FAbs(f.FSub(x, f.Floor(x))), build.Float(1.25))
		}
		ts = append(ts, test{name: name, in: []types.Type{build.F32}, ulps: 8,
			build: func(f *build.Func, x []build.Value) build.Value { return b(f, tame(f, x[0])) },
			want: func(x []uint64) uint64 {
				y := f32(x[0])
				return b32(float32(want(float64(float32(math.Abs(float64(y-float32(math.Floor(float64(y)))))) + 1.25))))
			}})
	}
	near("ex2", (*build.Func).Ex2, math.Exp2)
	near("fast_ex2", (*build.Func).FastEx2, math.Exp2)
	near("fast_sqrt", (*build.Func).FastSqrt, math.Sqrt)
	near("lg2", (*build.Func).Lg2, math.Log2)
	near("rcp", (*build.Func).Rcp, func(x float64) float64 { return 1 / x })
	near("tanh", func(f *build.Func, x build.Value) build.Value {
		return f.FAdd(build.Float(64), f.Call("gpu.tanh", build.F32, x))
	}, func(x float64) float64 { return 64 + math.Tanh(x) })
	fma := func(name string, b func(f *build.Func, x []build.Value) build.Value, want func(x []float32) float32) {
		ts = append(ts, test{name: name, in: []types.Type{build.F32, build.F32, build.F32}, build: b, want: func(x []uint64) uint64 {
			return b32(want([]float32{f32(x[0]), f32(x[1]), f32(x[2])}))
		}})
	}
	fma("fma", func(f *build.Func, x []build.Value) build.Value { return f.FMA(x[0], x[1], x[2]) }, func(x []float32) float32 { return fused(x[0], x[1], x[2]) })
	fma("fma_numbers", func(f *build.Func, x []build.Value) build.Value {
		return f.FMA(build.Float(3), build.Float(0.1), build.Float(0.7))
	}, func([]float32) float32 { return fused(3, 0.1, 0.7) })
	fma("fma_of_number", func(f *build.Func, x []build.Value) build.Value {
		return f.FMA(build.Float(0.1), x[1], build.Float(0.7))
	}, func(x []float32) float32 { return fused(0.1, x[1], 0.7) })
	for p := range orders {
		ts = append(ts, test{name: "fcompare_" + p.String(), in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return f.FCompare(p, x[0], x[1]) },
			want: func(x []uint64) uint64 { return b64(ordered(p, f32(x[0]), f32(x[1]))) }})
		ts = append(ts, test{name: "fcompare_number_" + p.String(), in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return f.FCompare(p, build.Float(1), x[1]) },
			want: func(x []uint64) uint64 { return b64(ordered(p, 1, f32(x[1]))) }})
	}
	for name, b := range map[string]func(f *build.Func, x, y build.Value) build.Value{"add": (*build.Func).FAdd, "sub": (*build.Func).FSub, "mul": (*build.Func).FMul} {
		op := map[string]func(x, y float32) float32{"add": func(x, y float32) float32 { return x + y }, "sub": func(x, y float32) float32 { return x - y }, "mul": func(x, y float32) float32 { return x * y }}[name]
		// Sums and products of f16 are exact in f32 or rounded twice without harm.
		ts = append(ts,
			test{name: name + "_f16", in: two(build.F16), build: func(f *build.Func, x []build.Value) build.Value { return b(f, x[0], x[1]) }, want: func(x []uint64) uint64 { return uint64(format16.Half.Encode(op(half(x[0]), half(x[1])))) }},
			test{name: name + "_f16_number", in: two(build.F16), build: func(f *build.Func, x []build.Value) build.Value { return b(f, halfNumber(1.5), x[1]) }, want: func(x []uint64) uint64 { return uint64(format16.Half.Encode(op(1.5, half(x[1])))) }})
	}
	ts = append(ts,
		test{name: "fcompare_f16", in: two(build.F16), build: func(f *build.Func, x []build.Value) build.Value { return f.FCompare(enum.FPredOLT, x[0], x[1]) }, want: func(x []uint64) uint64 { return b64(half(x[0]) < half(x[1])) }},
		test{name: "fcompare_true", in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return f.FCompare(enum.FPredTrue, x[0], x[1]) }, want: func([]uint64) uint64 { return 1 }},
		test{name: "fcompare_false", in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return f.FCompare(enum.FPredFalse, x[0], x[1]) }, want: func([]uint64) uint64 { return 0 }},
		test{name: "select_f32", in: []types.Type{build.I1, build.F32, build.F32}, build: func(f *build.Func, x []build.Value) build.Value { return f.Select(x[0], x[1], x[2]) }, want: choice},
		test{name: "select_f32_numbers", in: []types.Type{build.I1}, build: func(f *build.Func, x []build.Value) build.Value {
			return f.Select(x[0], build.Float(1.5), build.Float(-1))
		}, want: func(x []uint64) uint64 { return choice([]uint64{x[0], b32(1.5), b32(-1)}) }},
		test{name: "select_f16", in: []types.Type{build.I1, build.F16, build.F16}, build: func(f *build.Func, x []build.Value) build.Value { return f.Select(x[0], x[1], x[2]) }, want: choice},
		test{name: "toint", in: two(build.I32), build: func(f *build.Func, x []build.Value) build.Value {
			return f.ToInt(f.FMul(f.ToFloat(f.Sar(x[0], 3)), build.Float(0.7)))
		}, want: func(x []uint64) uint64 { return uint64(int32(float32(int32(x[0])>>3) * 0.7)) }},
		test{name: "tofloat", in: two(build.I32), build: func(f *build.Func, x []build.Value) build.Value { return f.ToFloat(x[0]) }, want: func(x []uint64) uint64 { return b32(float32(int32(x[0]))) }},
		test{name: "widen", in: two(build.F16), build: func(f *build.Func, x []build.Value) build.Value { return f.Widen(x[0]) }, want: func(x []uint64) uint64 { return b32(half(x[0])) }},
		test{name: "narrow", in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return f.Narrow(x[0]) }, want: func(x []uint64) uint64 { return uint64(format16.Half.Encode(f32(x[0]))) }},
		test{name: "bits_f32", in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return f.Bits(x[0], build.I32) }, want: func(x []uint64) uint64 { return x[0] }},
		test{name: "bits_i32", in: two(build.I32), build: func(f *build.Func, x []build.Value) build.Value { return f.Bits(x[0], build.F32) }, want: func(x []uint64) uint64 { return x[0] }},
		test{name: "bits_number", in: two(build.I32), build: func(f *build.Func, x []build.Value) build.Value {
			return f.Add(x[0], f.Bits(build.Float(1), build.I32))
		}, want: func(x []uint64) uint64 { return x[0] + b32(1) }},
		test{name: "bits_f16", in: two(build.F16), build: func(f *build.Func, x []build.Value) build.Value { return f.Bits(x[0], build.I16) }, want: func(x []uint64) uint64 { return x[0] }},
		test{name: "bits_i16", in: two(build.I16), build: func(f *build.Func, x []build.Value) build.Value { return f.Bits(x[0], build.F16) }, want: func(x []uint64) uint64 { return x[0] }},
		test{name: "select_f16_numbers", in: []types.Type{build.I1}, build: func(f *build.Func, x []build.Value) build.Value {
			return f.Select(x[0], halfNumber(1.5), halfNumber(-2))
		}, want: func(x []uint64) uint64 { return choice([]uint64{x[0], 0x3e00, 0xc000}) }},
		test{name: "fadd_infinity", in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return f.FAdd(x[0], build.Float(math.Inf(-1))) }, want: func(x []uint64) uint64 { return b32(f32(x[0]) + float32(math.Inf(-1))) }},
		test{name: "fmul_nan", in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return f.FMul(x[0], build.Float(math.NaN())) }, want: func(x []uint64) uint64 { return b32(float32(math.NaN())) }},
		test{name: "vector_of_halves", in: two(build.F16), build: func(f *build.Func, x []build.Value) build.Value {
			return f.Bits(f.Vector(halfNumber(1.5), x[1]), build.I32)
		}, want: func(x []uint64) uint64 { return 0x3e00 | x[1]<<16 }},
		test{name: "fneg_f16", in: two(build.F16), build: func(f *build.Func, x []build.Value) build.Value { return f.FNeg(x[0]) }, want: func(x []uint64) uint64 { return x[0] ^ 0x8000 }},
		test{name: "pack_f16", in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return f.Pack("f16", x[0], x[1]) }, want: func(x []uint64) uint64 {
			return packed16(format16.Half, f32(x[0]), f32(x[1]))
		}},
		test{name: "pack_bf16", in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value { return f.Pack("bf16", x[0], build.Float(1.1)) }, want: func(x []uint64) uint64 {
			return packed16(format16.Brain, f32(x[0]), 1.1)
		}},
		test{name: "vector_bits", in: two(build.F16), build: func(f *build.Func, x []build.Value) build.Value {
			return f.Bits(f.Vector(x[0], x[1]), build.I32)
		}, want: func(x []uint64) uint64 { return x[0] | x[1]<<16 }},
		test{name: "vector_of_bits", in: two(build.I32), build: func(f *build.Func, x []build.Value) build.Value {
			v := f.Bits(x[0], build.Vec(2, build.I16))
			return f.Bits(f.Vector(f.Elem(v, 1), f.Elem(v, 0)), build.I32)
		}, want: func(x []uint64) uint64 { return x[0]>>16 | x[0]<<16 }},
		test{name: "vector_of_number", in: two(build.I16), build: func(f *build.Func, x []build.Value) build.Value {
			return f.Bits(f.Vector(constantInt(build.I16, 0x1234), x[0]), build.I32)
		}, want: func(x []uint64) uint64 { return 0x1234 | x[0]<<16 }},
		test{name: "vector_of_long", in: two(build.I64), build: func(f *build.Func, x []build.Value) build.Value {
			v := f.Bits(x[0], build.Vec(2, build.I32))
			return f.Bits(f.Vector(f.Elem(v, 1), f.Elem(v, 0)), build.I64)
		}, want: func(x []uint64) uint64 { return x[0]>>32 | x[0]<<32 }},
		test{name: "vector_f32_bits", in: two(build.F32), build: func(f *build.Func, x []build.Value) build.Value {
			return f.Elem(f.Bits(f.Vector(x[0], x[1]), build.Vec(2, build.I32)), 1)
		}, want: func(x []uint64) uint64 { return x[1] }},
	)
	return ts
}

// fused is x*y+z, rounded once.
func fused(x, y, z float32) float32 {
	exact := func(x float32) *big.Float { return new(big.Float).SetPrec(1000).SetFloat64(float64(x)) }
	for _, v := range []float32{x, y, z} {
		if v != v || math.IsInf(float64(v), 0) {
			return x*y + z
		}
	}
	sum := exact(x)
	sum.Mul(sum, exact(y)).Add(sum, exact(z))
	if sum.Sign() == 0 { // the sign of zero is another rule
		return x*y + z
	}
	r, _ := sum.Float32()
	return r
}

// packed16 has the processor's own NaN.
func packed16(f format16.Format, low, high float32) uint64 {
	code := func(x float32) uint64 {
		if x != x {
			return 0x7fff
		}
		return uint64(f.Encode(x))
	}
	return code(low) | code(high)<<16
}

func ordered(p enum.FPred, x, y float32) bool {
	nan := x != x || y != y
	name := p.String()
	switch name {
	case "ord":
		return !nan
	case "uno":
		return nan
	}
	if nan {
		return name[0] == 'u'
	}
	switch name[1:] {
	case "eq":
		return x == y
	case "ne":
		return x != y
	case "gt":
		return x > y
	case "ge":
		return x >= y
	case "lt":
		return x < y
	}
	return x <= y
}

const threads, blocks = 128, 4

// kernelOf loads operands of a test, from one pointer each, and stores the
// result to the last.
func kernelOf(m *build.Module, name string, c test) types.Type {
	f := m.Kernel(name, build.Limits{Threads: threads}, 0, len(c.in)+1)
	i := f.Add(f.MulI(f.BlockX(), threads), f.Thread())
	var x []build.Value
	for k, t := range c.in {
		x = append(x, f.Load(f.At(f.Pointer(k, t), i)))
	}
	r := c.build(f, x)
	f.Store(r, f.At(f.Pointer(len(c.in), r.Type()), i))
	f.Return()
	return r.Type()
}
