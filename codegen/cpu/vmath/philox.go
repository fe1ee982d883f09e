package vmath

import (
	"github.com/llir/llvm/ir/types"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
)

// Philox is Philox4x32-10: four words of 32 random bits for each counter under a key. counter
// and key are i32 scalars or vectors of one length.
func Philox(fn *build.Func, counter [4]V, key [2]V) [4]V {
	k := kit{fn, counter[0]}
	c0, c1, c2, c3 := counter[0], counter[1], counter[2], counter[3]
	k0, k1 := key[0], key[1]
	for round := 0; round < 10; round++ {
		if round > 0 {
			k0 = fn.Add(k0, k.i(0x9e3779b9-1<<32))
			k1 = fn.Add(k1, k.i(0xbb67ae85-1<<32))
		}
		hi0, lo0 := mulWide(fn, c0, 0xd2511f53)
		hi1, lo1 := mulWide(fn, c2, 0xcd9e8d57)
		c0, c1, c2, c3 = fn.Xor(fn.Xor(hi1, c1), k0), lo1, fn.Xor(fn.Xor(hi0, c3), k1), lo0
	}
	return [4]V{c0, c1, c2, c3}
}

// PhiloxRun is Philox of the counters (first, stream, 0, 0), (first+1, stream, 0, 0), ... under a
// key, i32 scalars all: one vector of n lanes, a multiple of 4, the four words of a counter after
// those of the one before.
//
// Four lanes hold the state of a counter as Philox has it. The machine multiplies lanes 0 and 2
// of them into 64 bits; the halves of both products in reverse order are what the other halves of
// the round's results start from. So a round is a multiplication, a shuffle, a shift and two xors.
func PhiloxRun(fn *build.Func, first V, stream uint32, key [2]V, n int) V {
	wide := build.VecOf(n/2, build.I64)
	low, at32 := build.IntOf(wide, 1<<32-1), build.IntOf(wide, 32)
	repeat, reverse, number := make([]int, n), make([]int, n), make([]int64, n)
	for i := range n {
		repeat[i], reverse[i], number[i] = i%4, i^3, int64(i/4)
	}
	cycle := func(t *types.IntType, xs ...int64) V {
		out := make([]int64, 128/int(t.BitSize)*n/4)
		for i := range out {
			out[i] = xs[i%len(xs)]
		}
		return build.IntVec(t, out...)
	}
	factors := cycle(build.I64, 0xd2511f53, 0xcd9e8d57)
	weyl := cycle(build.I32, 0x9e3779b9-1<<32, 0, 0xbb67ae85-1<<32, 0)
	none := build.Zero(build.VecOf(4, build.I32))
	k := fn.Shuffle(fn.Insert(fn.Insert(none, key[0], 0), key[1], 2), none, repeat...)
	c := fn.Add(fn.Splat(n, first), build.IntVec(build.I32, number...))
	c = fn.Or(fn.And(c, cycle(build.I32, -1, 0, 0, 0)), cycle(build.I32, 0, int64(int32(stream)), 0, 0))
	for round := range 10 {
		if round > 0 {
			k = fn.Add(k, weyl)
		}
		w := fn.Bitcast(c, wide)
		p := fn.Bitcast(fn.Mul(fn.And(w, low), factors), c.Type())
		odd := fn.Bitcast(fn.LShr(w, at32), c.Type())
		c = fn.Xor(fn.Shuffle(p, p, reverse...), fn.Xor(odd, k))
	}
	return c
}

// mulWide is the 64-bit product of unsigned x and m in two halves.
func mulWide(fn *build.Func, x V, m int64) (hi, lo V) {
	if n := build.Lanes(x); n > 1 {
		// The machine multiplies every other lane. Picking the halves apart by
		// shifts takes a third of the time of widening and narrowing.
		wide := build.VecOf(n/2, build.I64)
		at32, low := build.IntOf(wide, 32), build.IntOf(wide, 1<<32-1)
		w := fn.Bitcast(x, wide)
		even := fn.Mul(fn.And(w, low), build.IntOf(wide, m))
		odd := fn.Mul(fn.LShr(w, at32), build.IntOf(wide, m))
		lanes := make([]int, n)
		for i := range lanes {
			lanes[i] = i/2*2 + 1 + i%2*n // odd i32 lanes of even, then of odd
		}
		e, o := fn.Bitcast(even, x.Type()), fn.Bitcast(odd, x.Type())
		hi = fn.Shuffle(e, o, lanes...)
		for i := range lanes {
			lanes[i]--
		}
		return hi, fn.Shuffle(e, o, lanes...)
	}
	wide := build.LikeType(x, build.I64)
	p := fn.Mul(fn.ZExt(x, build.I64), build.IntOf(wide, m))
	return fn.Trunc(fn.LShr(p, build.IntOf(wide, 32)), build.I32), fn.Trunc(p, build.I32)
}

// Uniform turns 32 random bits into a float32 inside (0, 1): (b + 1/2) 2^-23 with b the upper 23
// bits, exactly. Neither 0 nor 1 occurs, so logarithms of it and of 1 minus it are finite.
func Uniform(fn *build.Func, bits V) V {
	ft := build.LikeType(bits, build.F32)
	b := fn.LShr(bits, build.IntOf(bits.Type(), 9))
	x := fn.FAdd(fn.SIToFP(b, build.F32), build.FloatOf(ft, 0.5))
	return fn.FMul(x, build.FloatOf(ft, 0x1p-23))
}
