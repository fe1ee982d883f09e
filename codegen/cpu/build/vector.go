package build

import (
	"fmt"
	"strings"

	"github.com/llir/llvm/ir/constant"
	"github.com/llir/llvm/ir/enum"
	"github.com/llir/llvm/ir/types"
)

// Splat copies a scalar to n lanes.
func (f *Func) Splat(n int, s V) V {
	if c, ok := s.(constant.Constant); ok {
		return fill(VecOf(n, s.Type()), c)
	}
	vt := VecOf(n, s.Type())
	x := f.b.NewInsertElement(constant.NewUndef(vt), s, constant.NewInt(types.I32, 0))
	return f.b.NewShuffleVector(x, constant.NewUndef(vt), constant.NewZeroInitializer(VecOf(n, I32)))
}

// Extract is lane i of v.
func (f *Func) Extract(v V, i int) V {
	return f.b.NewExtractElement(v, constant.NewInt(types.I32, int64(i)))
}

// Insert is v with lane i replaced by s.
func (f *Func) Insert(v, s V, i int) V {
	return f.b.NewInsertElement(v, s, constant.NewInt(types.I32, int64(i)))
}

// Shuffle picks lanes of a (0 ... n-1) and b (n ... 2n-1); -1 leaves a lane undefined.
func (f *Func) Shuffle(a, b V, lanes ...int) V {
	e := make([]constant.Constant, len(lanes))
	for i, l := range lanes {
		e[i] = constant.NewInt(types.I32, int64(l))
		if l < 0 {
			e[i] = constant.NewUndef(types.I32)
		}
	}
	return f.b.NewShuffleVector(a, b, constant.NewVector(nil, e...))
}

// Slice is lanes [lo, lo+n) of v.
func (f *Func) Slice(v V, lo, n int) V {
	lanes := make([]int, n)
	for i := range lanes {
		lanes[i] = lo + i
	}
	return f.Shuffle(v, Undef(v.Type()), lanes...)
}

// Concat is the lanes of a followed by those of b, which has the same type.
func (f *Func) Concat(a, b V) V {
	lanes := make([]int, 2*Lanes(a))
	for i := range lanes {
		lanes[i] = i
	}
	return f.Shuffle(a, b, lanes...)
}

// Transpose turns n vectors of n lanes, n a power of two, into their transpose.
func (f *Func) Transpose(rows []V) []V {
	n := len(rows)
	cur := append([]V(nil), rows...)
	for w := n / 2; w >= 1; w /= 2 {
		next := make([]V, n)
		lo, hi := make([]int, n), make([]int, n)
		for i := range lo {
			if i&w == 0 {
				lo[i], hi[i] = i, i+w
			} else {
				lo[i], hi[i] = n+i-w, n+i
			}
		}
		for r := 0; r < n; r++ {
			if r&w == 0 {
				next[r] = f.Shuffle(cur[r], cur[r+w], lo...)
				next[r+w] = f.Shuffle(cur[r], cur[r+w], hi...)
			}
		}
		cur = next
	}
	return cur
}

// Reduce combines the lanes of v, a power of two of them, with op: lanes i and i+n/2 first, then
// halves of what is left. The order is fixed, so sums are reproducible.
func (f *Func) Reduce(v V, op func(a, b V) V) V {
	for n := Lanes(v) / 2; n >= 1; n /= 2 {
		if n == 1 {
			return op(f.Extract(v, 0), f.Extract(v, 1))
		}
		v = op(f.Slice(v, 0, n), f.Slice(v, n, n))
	}
	return f.Extract(v, 0)
}

// LaneMask is true in the lanes i < rem, an i64 of any sign and size.
func (f *Func) LaneMask(n int, rem V) V {
	r := f.Trunc(f.Max(f.Min(rem, Int(int64(n))), Int(0)), I32)
	return f.b.NewICmp(enum.IPredULT, Iota(n, I32), f.Splat(n, r))
}

// DotBF16 adds to each f32 lane of sum the products of two pairs of bf16, those in that lane of a and b, vectors of
// I32 of one register: the lower half of one by the lower half of the other, the higher by the higher. Where there is an
// instruction for it, subnormal numbers count as 0; elsewhere it takes two multiply-adds, and as many operations to widen.
func (f *Func) DotBF16(a, b, sum V) V {
	n := Lanes(sum)
	if !strings.Contains(f.Target.Features, "bf16") {
		i := VecOf(n, I32)
		low := func(x V) V { return f.Bitcast(f.Shl(x, IntOf(i, 16)), sum.Type()) }
		high := func(x V) V { return f.Bitcast(f.And(x, IntOf(i, -1<<16)), sum.Type()) }
		return f.FMA(high(a), high(b), f.FMA(low(a), low(b), sum))
	}
	pairs := VecOf(2*n, &bfloat{})
	name := fmt.Sprintf("llvm.x86.avx512bf16.dpbf16ps.%d", 32*n)
	if strings.HasPrefix(f.Target.Triple, "aarch64") {
		name = fmt.Sprintf("llvm.aarch64.neon.bfdot.v%df32.v%dbf16", n, 2*n)
	}
	fn := f.Module.declare(name, sum.Type(), sum.Type(), pairs, pairs)
	return f.b.NewCall(fn, sum, f.b.NewBitCast(a, pairs), f.b.NewBitCast(b, pairs))
}
