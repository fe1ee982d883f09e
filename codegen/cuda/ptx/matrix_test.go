package ptx

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
)

// small is a whole number from -2 to 2, as all formats have it.
func small(x uint32) float32 { return float32(x&0xffff%5) - 2 }

func smallOf(f *build.Func, in, i build.Value) build.Value {
	return f.FAdd(f.ToFloat(f.Rem(f.AndI(f.Load(f.At(in, i)), 0xffff), 5)), build.Float(-2))
}

// cooperative are programs of operations that lanes, warps or blocks do
// together.
func cooperative() []program {
	ps := []program{
		each("votes", func(f *build.Func, in, i build.Value) build.Value {
			x := f.Load(f.At(in, i))
			neg := f.Lt(x, build.Int(0))
			set := f.Call("gpu.ballot", build.I32, f.Zext(neg, build.I32))
			n := f.Call("gpu.popc", build.I32, set)
			rare := f.Any(f.Eq(f.AndI(x, 63), build.Int(5)))
			return f.Add(f.Xor(set, f.MulI(n, 1000)), f.Select(rare, build.Int(7), build.Int(0)))
		}, func(in []uint32, i int) uint32 {
			set, n, rare := uint32(0), uint32(0), uint32(0)
			for l := range 32 {
				x := in[i/32*32+l]
				set |= x >> 31 << l
				n += x >> 31
				if x&63 == 5 {
					rare = 7
				}
			}
			return (set ^ n*1000) + rare
		}),
		// Half of the warps write and go on, the other half waits for them.
		each("named_barrier", func(f *build.Func, in, i build.Value) build.Value {
			f.Shared(4 * threads)
			t := f.Thread()
			s := f.SharedAt(build.Int(0), build.I32)
			return f.IfElse(f.Lt(t, build.Int(64)), func() []build.Value {
				x := f.Load(f.At(in, i))
				f.Store(x, f.At(s, t))
				f.Call("gpu.bar.arrive", build.Void, build.Int(1), build.Int(threads))
				return []build.Value{f.Xor(x, build.Int(1))}
			}, func() []build.Value {
				f.Call("gpu.bar.sync", build.Void, build.Int(1), build.Int(threads))
				return []build.Value{f.Load(f.At(s, f.Sub(build.Int(threads-1), t)))}
			})[0]
		}, func(in []uint32, i int) uint32 {
			if t := i % threads; t >= 64 {
				return in[i-t+threads-1-t]
			}
			return in[i] ^ 1
		}),
		each("async_words", func(f *build.Func, in, i build.Value) build.Value {
			f.Shared(4 * threads)
			t := f.Thread()
			at := f.Add(f.SharedAddress(), f.MulI(t, 4))
			n := f.Select(f.Eq(f.AndI(t, 3), build.Int(2)), build.Int(0), build.Int(4))
			f.Call("gpu.cp.async.4", build.Void, at, f.GlobalAddress(f.At(in, i)), n)
			f.Call("gpu.cp.async.commit", build.Void)
			f.Call("gpu.cp.async.wait.0", build.Void)
			f.Barrier()
			return f.Load(f.At(f.SharedAt(build.Int(0), build.I32), f.Xor(t, build.Int(1))))
		}, func(in []uint32, i int) uint32 {
			if i&3 == 3 {
				return 0
			}
			return in[i^1]
		}),
	}
	// Fragments of matrices: lane l of a matrix gets columns 2*(l%4) and one
	// more of row l/4, or of column l/4 where they are transposed.
	for _, x := range []struct {
		name       string
		n          int
		transposed bool
	}{{"x4", 4, false}, {"x4.trans", 4, true}, {"x2", 2, false}, {"x2.trans", 2, true}} {
		ps = append(ps, each(fmt.Sprintf("ldmatrix_%d_%t", x.n, x.transposed), func(f *build.Func, in, i build.Value) build.Value {
			f.Shared(16 * threads)
			t := f.Thread()
			row := f.At(f.SharedAt(build.Int(0), build.Vec(4, build.I32)), t)
			f.Store(f.Load(f.At(f.Cast(in, build.Vec(4, build.I32)), i)), row)
			f.Barrier()
			r := f.Call("gpu.ldmatrix."+x.name, build.Struct(x.n, build.I32), f.Address(row))
			var sum build.Value = build.Int(0)
			for k := range x.n {
				sum = f.Add(f.MulI(sum, 3), f.Part(r, k))
			}
			return sum
		}, func(in []uint32, i int) uint32 {
			b, l := bytesOf(in), i%32
			element := func(m, r, c int) uint32 {
				at := 16*(i/32*32+8*m+r) + 2*c
				return uint32(b[at]) | uint32(b[at+1])<<8
			}
			sum := uint32(0)
			for m := range x.n {
				if x.transposed {
					sum = sum*3 + (element(m, l%4*2, l/4) | element(m, l%4*2+1, l/4)<<16)
				} else {
					sum = sum*3 + (element(m, l/4, l%4*2) | element(m, l/4, l%4*2+1)<<16)
				}
			}
			return sum
		}))
	}
	// A product of 16x16 and 16x8 by each warp.
	for _, kind := range []string{"f16", "bf16"} {
		ps = append(ps, program{name: "mma_" + kind, out: 4 * threads * blocks, kernel: func(f *build.Func, in, out build.Value) {
			lane := f.AndI(f.Thread(), 31)
			group, two := f.Shr(lane, 2), f.MulI(f.AndI(lane, 3), 2)
			at := func(base int, r, c build.Value, cols int) build.Value {
				return smallOf(f, in, f.AddI(f.Add(f.MulI(r, cols), c), base))
			}
			var a [4]build.Value
			for k := range a {
				r, c := f.AddI(group, k%2*8), f.AddI(two, k/2*8)
				a[k] = f.Pack(kind, at(0, r, c, 16), at(0, r, f.AddI(c, 1), 16))
			}
			var b [2]build.Value
			for k := range b {
				r := f.AddI(two, k*8)
				b[k] = f.Pack(kind, at(256, r, group, 8), at(256, f.AddI(r, 1), group, 8))
			}
			var c [4]build.Value
			for k := range c {
				c[k] = at(512, f.AddI(group, k/2*8), f.AddI(two, k%2), 8)
			}
			d := f.Mma(kind, a, b, c)
			d = f.Mma(kind, a, b, d)
			f.Store(f.Vector(d[:]...), f.At(f.Cast(out, build.Vec(4, build.F32)), index(f)))
		}, want: func(in []uint32) []uint32 {
			out := make([]uint32, 4*threads*blocks)
			for i := range out {
				lane, k := i/4%32, i%4
				r, c := lane/4+k/2*8, lane%4*2+k%2
				sum := small(in[512+8*r+c])
				for j := range 16 {
					sum += 2 * small(in[16*r+j]) * small(in[256+8*j+c])
				}
				out[i] = math.Float32bits(sum)
			}
			return out
		}})
	}
	// Four products of 8x4 and 4x8 by each warp, one by each quad pair, in all layouts.
	for layouts := range 4 {
		aByRow, bByRow := layouts&1 == 0, layouts&2 != 0
		ps = append(ps, program{name: fmt.Sprintf("mma884_%t_%t", aByRow, bByRow), arch: "sm_70", out: 8 * threads * blocks, kernel: func(f *build.Func, in, out build.Value) {
			lane := f.AndI(f.Thread(), 31)
			high := f.MulI(f.Shr(lane, 4), 4)
			four := f.AndI(lane, 3)
			place := f.Add(high, four)
			set := f.MulI(f.AndI(f.Shr(lane, 2), 3), 128)
			at := func(base int, r, c build.Value, cols int) build.Value {
				return smallOf(f, in, f.Add(set, f.AddI(f.Add(f.MulI(r, cols), c), base)))
			}
			// The lane's elements are four neighbours in its row of the matrix or of
			// the transposed one.
			pack := func(element func(place, k build.Value) build.Value, own bool) (x [2]build.Value) {
				for k := range x {
					var e [2]build.Value
					for i := range e {
						n := build.Value(build.Int(2*k + i))
						if own {
							e[i] = element(place, n)
						} else {
							e[i] = element(f.Add(high, n), four)
						}
					}
					x[k] = f.Pack("f16", e[0], e[1])
				}
				return x
			}
			a := pack(func(r, k build.Value) build.Value { return at(0, r, k, 4) }, aByRow)
			b := pack(func(c, k build.Value) build.Value { return at(32, k, c, 8) }, !bByRow)
			var c [8]build.Value
			for k := range c {
				c[k] = at(64, f.Add(high, f.AddI(f.AndI(lane, 1), k&2)), f.AddI(f.AndI(lane, 2), k&4+k&1), 8)
			}
			c = f.Mma884(aByRow, bByRow, a, b, c)
			c = f.Mma884(aByRow, bByRow, a, b, c)
			to := f.At(f.Cast(out, build.Vec(4, build.F32)), f.MulI(index(f), 2))
			f.Store(f.Vector(c[:4]...), to)
			f.Store(f.Vector(c[4:]...), f.At(to, build.Int(1)))
		}, want: func(in []uint32) []uint32 {
			out := make([]uint32, 8*threads*blocks)
			for i := range out {
				lane, k := i/8%32, i%8
				m := in[lane%16/4*128:]
				r, c := lane/16*4+lane%2+k/2%2*2, k/4*4+lane/2%2*2+k%2
				sum := small(m[64+8*r+c])
				for j := range 4 {
					sum += 2 * small(m[4*r+j]) * small(m[32+8*j+c])
				}
				out[i] = math.Float32bits(sum)
			}
			return out
		}})
	}
	return append(ps, hopper()...)
}

// hopper are the programs for sm_90a.
func hopper() []program {
	var ps []program
	// Rows of 64 f16 in a tile of 128 bytes each, swizzled as TMA would; the
	// left one from registers too.
	for _, from := range []string{"ss", "rs"} {
		for _, kind := range []string{"f16", "bf16"} {
			const n, k = 16, 64
			ps = append(ps, program{name: "wgmma_" + from + "_" + kind, arch: "sm_90a", out: n / 2 * threads * blocks, kernel: func(f *build.Func, in, out build.Value) {
				f.Shared(64*128 + n*128)
				t := f.Thread()
				row := func(base int, at, r build.Value) {
					for j := range k / 2 {
						e := f.AddI(f.MulI(r, k), base+2*j)
						x := f.Pack(kind, smallOf(f, in, e), smallOf(f, in, f.AddI(e, 1)))
						chunk := f.Xor(build.Int(j/4), f.AndI(r, 7))
						f.Store(x, f.SharedAt(f.Add(f.Add(at, f.MulI(r, 128)), f.Add(f.MulI(chunk, 16), build.Int(j%4*4))), build.I32))
					}
				}
				f.If(f.Lt(t, build.Int(64)), func() { row(0, build.Int(0), t) })
				f.If(f.Lt(t, build.Int(n)), func() { row(1024, build.Int(64*128), t) })
				f.Call("gpu.fence.async", build.Void)
				f.Barrier()
				base := f.SharedAddress()
				a, b := descriptor(f, base, 16), descriptor(f, f.AddI(base, 64*128), 16)
				lane, warp := f.AndI(t, 31), f.Shr(t, 5)
				var regs []build.Value
				for j := range k / 4 {
					r := f.Add(f.MulI(warp, 16), f.AddI(f.Shr(lane, 2), j%2*8))
					e := f.Add(f.MulI(r, k), f.AddI(f.MulI(f.AndI(lane, 3), 2), j/2*8))
					regs = append(regs, f.Pack(kind, smallOf(f, in, e), smallOf(f, in, f.AddI(e, 1))))
				}
				acc := zeros(n / 2)
				f.Call("gpu.wgmma.fence", build.Void)
				for j := range k / 16 {
					left := []build.Value{f.Add(a, build.Long(int64(2*j)))}
					if from == "rs" {
						left = regs[4*j : 4*j+4]
					}
					args := append(append([]build.Value(nil), left...), f.Add(b, build.Long(int64(2*j))), build.Int(min(j, 1)))
					acc = wgmma(f, fmt.Sprintf("gpu.wgmma.m64n%dk16.%s.%s.t00", n, kind, from), acc, args...)
				}
				f.Call("gpu.wgmma.commit", build.Void)
				acc = await(f, 0, acc)
				for j, x := range acc {
					f.Store(x, f.At(f.Cast(out, build.F32), f.AddI(f.MulI(index(f), n/2), j)))
				}
			}, want: func(in []uint32) []uint32 {
				out := make([]uint32, n/2*threads*blocks)
				for i := range out {
					j, t := i%(n/2), i/(n/2)%threads
					r, c := t/32*16+t%32/4+j/2%2*8, j/4*8+t%4*2+j%2
					sum := float32(0)
					for q := range k {
						sum += small(in[r*k+q]) * small(in[1024+c*k+q])
					}
					out[i] = math.Float32bits(sum)
				}
				return out
			}})
		}
	}
	// Each block fetches a tile, turns it over and sends it off.
	for _, dims := range []int{2, 3, 4} {
		ps = append(ps, program{name: fmt.Sprintf("tma_%dd", dims), arch: "sm_90a", out: blocks * 64, maps: []tensor{tensorOf(dims, false), tensorOf(dims, true)}, kernel: func(f *build.Func, in, out build.Value) {
			f.Shared(1024)
			base := f.SharedAddress()
			bar := f.AddI(base, 512)
			t := f.Thread()
			first := f.Eq(t, build.Int(0))
			// The box is 8 by 8, in the innermost and the outermost dimension.
			place := func(x, y build.Value) []build.Value {
				at := []build.Value{x}
				for range dims - 2 {
					at = append(at, build.Int(0))
				}
				return append(at, y)
			}
			f.If(first, func() {
				f.Call("gpu.tma.prefetch", build.Void, f.Map(0))
				f.Call("gpu.mbarrier.init", build.Void, bar, build.Int(1))
				f.Call("gpu.mbarrier.fence", build.Void)
				f.Call("gpu.mbarrier.expect", build.Void, bar, build.Int(256))
				args := append([]build.Value{base, f.Map(0)}, place(f.MulI(f.BlockX(), 8), build.Int(8))...)
				f.Call(fmt.Sprintf("gpu.tma.load.%dd", dims), build.Void, append(args, bar)...)
			})
			f.Barrier()
			f.Call("gpu.mbarrier.wait", build.Void, bar, build.Int(0))
			s := f.SharedAt(build.Int(0), build.I32)
			half := f.Lt(t, build.Int(64))
			x := f.IfElse(half, func() []build.Value { return []build.Value{f.Load(f.At(s, f.Sub(build.Int(63), t)))} }, func() []build.Value { return []build.Value{build.Int(0)} })[0]
			f.Barrier()
			f.If(half, func() { f.Store(x, f.At(s, t)) })
			f.Call("gpu.fence.async", build.Void)
			f.Barrier()
			f.If(first, func() {
				if dims == 3 { // there is no store of three dimensions
					return
				}
				args := append([]build.Value{f.Map(1)}, place(build.Int(0), f.MulI(f.BlockX(), 8))...)
				f.Call(fmt.Sprintf("gpu.tma.store.%dd", dims), build.Void, append(args, base)...)
				f.Call("gpu.bulk.commit", build.Void)
				f.Call("gpu.bulk.wait_read.0", build.Void)
				f.Call("gpu.bulk.wait.0", build.Void)
			})
			if dims == 3 {
				f.If(half, func() { f.Store(f.Load(f.At(s, t)), f.At(out, f.Add(f.MulI(f.BlockX(), 64), t))) })
			}
		}, want: func(in []uint32) []uint32 {
			out := make([]uint32, blocks*64)
			for i := range out {
				b, t := i/64, 63-i%64
				out[i] = in[(8+t/8)*32+8*b+t%8]
			}
			return out
		}})
	}
	// Two blocks of a cluster read each other's memory, and one fetches for both.
	ps = append(ps, program{name: "cluster", arch: "sm_90a", cluster: 2, out: threads * blocks, maps: []tensor{tensorOf(2, false)}, kernel: func(f *build.Func, in, out build.Value) {
		f.Shared(1024)
		base := f.SharedAddress()
		bar, other := f.AddI(base, 512), f.AddI(base, 520)
		t := f.Thread()
		first := f.Eq(t, build.Int(0))
		rank := f.Call("gpu.cluster.rank", build.I32)
		f.If(first, func() {
			f.Call("gpu.mbarrier.init", build.Void, bar, build.Int(1))
			f.Call("gpu.mbarrier.init", build.Void, other, build.Int(2))
			f.Call("gpu.mbarrier.fence", build.Void)
			f.Call("gpu.mbarrier.expect", build.Void, bar, build.Int(256))
		})
		f.If(f.Lt(t, build.Int(32)), func() {
			f.Store(f.ToFloat(f.Add(f.MulI(f.BlockX(), 1000), t)), f.At(f.SharedAt(build.Int(256), build.F32), t))
		})
		f.Call("gpu.cluster.arrive", build.Void)
		f.Call("gpu.cluster.wait", build.Void)
		f.If(f.And(first, f.Eq(rank, build.Int(0))), func() {
			f.Call("gpu.tma.load.2d.cluster", build.Void, base, f.Map(0), build.Int(0), f.MulI(f.BlockX(), 8), bar, constantInt(build.I16, 3))
		})
		f.Call("gpu.mbarrier.wait", build.Void, bar, build.Int(0))
		// One arrival from each block.
		f.If(first, func() {
			f.Call("gpu.mbarrier.arrive", build.Void, other)
			f.Call("gpu.mbarrier.arrive.at", build.Void, other, f.Xor(rank, build.Int(1)))
		})
		f.Call("gpu.mbarrier.wait", build.Void, other, build.Int(0))
		x := f.Load(f.At(f.SharedAt(build.Int(0), build.I32), f.AndI(t, 63)))
		y := f.Call("gpu.cluster.load", build.F32, f.AddI(base, 256+4*5), f.Xor(rank, build.Int(1)))
		f.Call("gpu.cluster.arrive", build.Void)
		f.Call("gpu.cluster.wait", build.Void)
		f.Store(f.Add(x, f.ToInt(y)), f.At(out, index(f)))
	}, want: func(in []uint32) []uint32 {
		out := make([]uint32, threads*blocks)
		for i := range out {
			b, t := i/threads, i%64
			out[i] = in[(b/2*16+t/8)*32+t%8] + uint32((b^1)*1000+5)
		}
		return out
	}})
	// Registers go from one warpgroup to another; matrices are stored as loaded.
	ps = append(ps, each("stmatrix", func(f *build.Func, in, i build.Value) build.Value {
		f.Shared(32 * threads)
		t := f.Thread()
		v := build.Vec(4, build.I32)
		row := f.At(f.SharedAt(build.Int(0), v), t)
		f.Store(f.Load(f.At(f.Cast(in, v), i)), row)
		f.Call("gpu.setmaxnreg.dec", build.Void, build.Int(104))
		f.Barrier()
		m := f.LoadMatrix(f.Address(row), false)
		f.Call("gpu.stmatrix.x4", build.Void, f.AddI(f.Address(row), 16*threads), m[1], m[0], m[3], m[2])
		f.Call("gpu.setmaxnreg.inc", build.Void, build.Int(112))
		f.Barrier()
		x := f.Load(f.At(f.SharedAt(build.Int(16*threads), v), t))
		return f.Xor(f.Xor(f.Elem(x, 0), f.MulI(f.Elem(x, 1), 3)), f.Xor(f.MulI(f.Elem(x, 2), 5), f.MulI(f.Elem(x, 3), 7)))
	}, func(in []uint32, i int) uint32 {
		// Rows 0..7 of a warp change places with 8..15, 16..23 with 24..31.
		x := in[4*(i^8):]
		return x[0] ^ x[1]*3 ^ x[2]*5 ^ x[3]*7
	}))
	ps[len(ps)-1].arch = "sm_90a"
	return ps
}

// tensor is what a tensor map says about the words that a program reads or
// writes; its boxes are 8 by 8 in the first and last dimension.
type tensor struct {
	dims []int
	out  bool
}

// tensorOf is the input as an array of so many dimensions, or the output as one
// whose rows are 8 words.
func tensorOf(dims int, out bool) tensor {
	t := tensor{dims: []int{32}, out: out}
	if out {
		t.dims[0] = 8
	}
	for range dims - 2 {
		t.dims = append(t.dims, 1)
	}
	t.dims = append(t.dims, 8*blocks)
	return t
}
