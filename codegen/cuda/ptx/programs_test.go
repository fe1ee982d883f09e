package ptx

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/llir/llvm/ir/types"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
)

// program is a kernel that reads words and writes words, and what it must
// write. Blocks are along x, as many as blocks.
type program struct {
	name    string
	out     int // words
	kernel  func(f *build.Func, in, out build.Value)
	want    func(in []uint32) []uint32
	arch    string // sm_80 where it is empty
	cluster int
	maps    []tensor
}

const words = 4096 // of input

func inputs() []uint32 {
	r := rand.New(rand.NewPCG(7, 7))
	in := make([]uint32, words)
	for i := range in {
		in[i] = r.Uint32()
	}
	return in
}

func (p program) build(m *build.Module) *build.Func {
	f := m.Kernel(p.name, build.Limits{Threads: threads, Cluster: p.cluster}, len(p.maps), 2)
	p.kernel(f, f.Pointer(0, build.I32), f.Pointer(1, build.I32))
	f.Return()
	return f
}

// each makes a program of one that computes a word from its index.
func each(name string, kernel func(f *build.Func, in, i build.Value) build.Value, want func(in []uint32, i int) uint32) program {
	return program{name: name, out: threads * blocks, kernel: func(f *build.Func, in, out build.Value) {
		i := index(f)
		f.Store(kernel(f, in, i), f.At(out, i))
	}, want: func(in []uint32) []uint32 {
		out := make([]uint32, threads*blocks)
		for i := range out {
			out[i] = want(in, i)
		}
		return out
	}}
}

func index(f *build.Func) build.Value { return f.Add(f.MulI(f.BlockX(), threads), f.Thread()) }

func programs() []program {
	var ps []program
	// Vectors of every kind are loaded, reversed, and stored, also by way of
	// shared memory, of a branch and of a choice.
	for _, v := range []*types.VectorType{
		build.Vec(2, build.F32), build.Vec(4, build.F32), build.Vec(2, build.I32), build.Vec(4, build.I32), build.Vec(2, build.I64),
		build.Vec(2, build.I16), build.Vec(4, build.I16), build.Vec(8, build.I16), build.Vec(2, build.F16), build.Vec(4, build.F16), build.Vec(8, build.F16),
		build.Vec(4, build.I8),
	} {
		n, size := int(v.Len), build.SizeOf(v)
		name := fmt.Sprintf("vector_%d_%s", n, v.ElemType)
		ps = append(ps, program{name: name, out: threads * blocks * size / 4, kernel: func(f *build.Func, in, out build.Value) {
			i := index(f)
			x := f.Load(f.At(f.Cast(in, v), i))
			shared := f.At(f.SharedAt(build.Int(64), v), f.Thread())
			f.Shared(64 + 16*threads)
			f.Store(x, shared)
			x = f.Load(shared)
			swap := func() []build.Value {
				var e []build.Value
				for k := range n {
					e = append(e, f.Elem(x, n-1-k))
				}
				return []build.Value{f.Vector(e...)}
			}
			odd := f.Eq(f.AndI(i, 1), build.Int(1))
			y := f.IfElse(odd, swap, func() []build.Value { return []build.Value{x} })[0]
			y = f.Select(f.Eq(f.AndI(i, 3), build.Int(2)), f.Load(f.At(f.Cast(in, v), f.AddI(i, 1))), y)
			f.Store(y, f.At(f.Cast(out, v), i))
		}, want: func(in []uint32) []uint32 {
			from := bytesOf(in)
			to := make([]byte, threads*blocks*size)
			e := size / n
			for i := range threads * blocks {
				for k := range n {
					src := i*size + k*e
					switch {
					case i%2 == 1:
						src = i*size + (n-1-k)*e
					case i%4 == 2:
						src += size
					}
					copy(to[i*size+k*e:], from[src:src+e])
				}
			}
			return wordsOf(to)
		}})
	}
	ps = append(ps,
		each("narrow_memory", func(f *build.Func, in, i build.Value) build.Value {
			b := f.Load(f.At(f.Cast(in, build.I8), i))
			h := f.Load(f.At(f.Cast(in, build.I16), i))
			s := f.SharedAt(build.Int(0), build.I8)
			f.Shared(4096)
			f.Store(b, f.At(s, f.Thread()))
			f.Store(f.Trunc(h, build.I1), f.At(f.SharedAt(build.Int(1024), build.I1), f.Thread()))
			f.Store(h, f.At(f.SharedAt(build.Int(2048), build.I16), f.Thread()))
			b, h = f.Load(f.At(s, f.Thread())), f.Load(f.At(f.SharedAt(build.Int(2048), build.I16), f.Thread()))
			bit := f.Load(f.At(f.SharedAt(build.Int(1024), build.I1), f.Thread()))
			return f.Add(f.Add(f.MulI(f.Sext(b, build.I32), 1000), f.Sext(h, build.I32)), f.Select(bit, build.Int(7), build.Int(9)))
		}, func(in []uint32, i int) uint32 {
			b, h := bytesOf(in)[i], binary.LittleEndian.Uint16(bytesOf(in)[2*i:])
			x := int32(int8(b))*1000 + int32(int16(h)) + 9
			if h&1 != 0 {
				x -= 2
			}
			return uint32(x)
		}),
		// Indices of both widths and signs, and offsets that need 64 bits.
		each("indices", func(f *build.Func, in, i build.Value) build.Value {
			end := f.At(in, build.Int(1000))
			back := f.Sub(build.Int(0), i)
			x := f.Load(f.At(end, back))
			x = f.Add(x, f.Load(f.At(end, f.Signed(back))))
			x = f.Xor(x, f.Load(f.At(in, f.Long(i))))
			x = f.Add(x, f.Load(f.At(f.At(end, f.AddI(back, 5)), build.Int(-7))))
			far := f.At(in, build.Long(1<<33))
			x = f.Xor(x, f.Load(f.At(far, build.Long(3-1<<33))))
			x = f.Add(x, f.Load(f.At(far, f.Sub(f.Long(i), build.Long(1<<33)))))
			x = f.Xor(x, f.Load(f.At(f.At(far, f.Sub(f.Long(i), f.Long(f.Load(in)))), f.Sub(f.Zext(f.Load(in), build.I64), build.Long(1<<33)))))
			bytes := f.At(f.Cast(in, build.I8), f.Add(f.MulI(i, 4), build.Int(4)))
			x = f.Add(x, f.Load(f.Cast(bytes, build.I32)))
			return f.Add(x, f.Load(f.Cast(f.At(f.Cast(in, build.I8), f.MulI(f.Long(i), 4)), build.I32)))
		}, func(in []uint32, i int) uint32 {
			x := 2 * in[1000-i]
			x ^= in[i]
			x += in[1000-i-2]
			x ^= in[3]
			x += in[i]
			x ^= in[i]
			x += in[i+1]
			return x + in[i]
		}),
		each("shared_indices", func(f *build.Func, in, i build.Value) build.Value {
			t := f.Thread()
			f.Shared(8 * threads)
			f.Store(f.LoadOnly(f.At(in, i)), f.At(f.SharedAt(build.Int(0), build.I32), t))
			f.Store(build.Int(3), f.At(f.SharedAt(build.Int(4*threads), build.I32), t))
			f.Barrier()
			end := f.SharedAt(build.Int(4*(threads-1)), build.I32)
			back := f.Sub(build.Int(0), t)
			x := f.Load(f.At(end, back))
			x = f.Add(x, f.Load(f.At(end, f.Signed(back))))
			x = f.Xor(x, f.Load(f.At(f.At(end, build.Int(1)), f.AddI(back, -1))))
			three := f.SharedAt(f.Add(f.MulI(t, 4), build.Int(4*threads)), build.I32)
			pair := f.Load(f.Cast(f.At(f.SharedAt(build.Int(0), build.Vec(2, build.I32)), f.Shr(t, 1)), build.Vec(2, build.I32)))
			// An address as a number is that of the pointer.
			there := f.Sub(f.Address(three), f.SharedAddress())
			return f.Add(f.Add(f.Mul(x, f.Load(three)), f.Elem(pair, 1)), there)
		}, func(in []uint32, i int) uint32 {
			t, b := i%threads, i/threads*threads
			x := in[b+threads-1-t] * 2
			x ^= in[b+threads-1-t]
			return x*3 + in[b+t/2*2+1] + uint32(4*t+4*threads)
		}),
		// Values that go round in a loop, of every kind of register.
		each("rotation", func(f *build.Func, in, i build.Value) build.Value {
			n := f.AndI(i, 7)
			x := f.Load(f.At(in, i))
			c := f.For(build.Int(0), n, build.Int(1), []build.Value{x, build.Int(1), build.Int(2), f.Long(i), build.Long(5), build.Bool(true), f.Lt(i, build.Int(50)), build.Float(1), build.Float(2), build.Float(3)}, func(k build.Value, c []build.Value) []build.Value {
				return []build.Value{c[1], c[2], c[0], c[4], c[3], c[6], c[5], c[8], c[9], f.FAdd(c[7], c[8])}
			})
			r := f.Xor(f.Xor(c[0], f.MulI(c[1], 3)), f.Trunc(c[3], build.I32))
			r = f.Add(r, f.Select(c[5], build.Int(1000), build.Int(0)))
			return f.Add(r, f.ToInt(c[7]))
		}, func(in []uint32, i int) uint32 {
			a, b, c, l, m, p, q, u, v, w := in[i], uint32(1), uint32(2), uint32(i), uint32(5), true, i < 50, float32(1), float32(2), float32(3)
			for range i & 7 {
				a, b, c, l, m, p, q, u, v, w = b, c, a, m, l, q, p, v, w, u+v
			}
			r := a ^ b*3 ^ l
			if p {
				r += 1000
			}
			_, _ = q, w
			return r + uint32(u)
		}),
		// A value of the previous turn outlives its successor.
		each("previous", func(f *build.Func, in, i build.Value) build.Value {
			c := f.For(build.Int(0), build.Int(6), build.Int(1), []build.Value{build.Int(0), build.Int(1)}, func(k build.Value, c []build.Value) []build.Value {
				next := f.Add(c[1], f.Load(f.At(in, f.Add(i, k))))
				return []build.Value{c[1], next}
			})
			return f.Xor(f.MulI(c[0], 5), c[1])
		}, func(in []uint32, i int) uint32 {
			a, b := uint32(0), uint32(1)
			for k := range 6 {
				a, b = b, b+in[i+k]
			}
			return a*5 ^ b
		}),
		each("branches", func(f *build.Func, in, i build.Value) build.Value {
			x := f.Load(f.At(in, i))
			s := f.SharedAt(build.Int(0), build.I32)
			f.Shared(4 * threads)
			f.Store(build.Int(17), f.At(s, f.Thread()))
			f.If(f.Lt(x, build.Int(0)), func() {
				f.If(f.Eq(f.AndI(x, 1), build.Int(0)), func() { f.Store(x, f.At(s, f.Thread())) })
			})
			f.If(build.Bool(false), func() { f.Store(build.Int(1), f.At(in, i)) })
			f.If(build.Bool(true), func() { x = f.AddI(x, 1) })
			r := f.IfElse(build.Bool(true), func() []build.Value { return []build.Value{f.AddI(x, 2)} }, func() []build.Value { return []build.Value{build.Int(0)} })[0]
			r = f.IfElse(build.Bool(false), func() []build.Value { return []build.Value{build.Int(0)} }, func() []build.Value { return []build.Value{f.AddI(r, 2)} })[0]
			y := f.IfElse(f.Below(i, build.Int(77)),
				func() []build.Value {
					v := f.For(build.Int(2), f.AndI(i, 15), build.Int(3), []build.Value{r}, func(k build.Value, c []build.Value) []build.Value {
						return []build.Value{f.Add(f.MulI(c[0], 3), k)}
					})
					return []build.Value{v[0], f.Lt(v[0], build.Int(0))}
				},
				func() []build.Value { return []build.Value{build.Int(5), build.Bool(true)} })
			return f.Add(f.Add(y[0], f.Select(y[1], build.Int(100), build.Int(200))), f.Load(f.At(s, f.Thread())))
		}, func(in []uint32, i int) uint32 {
			x, s := in[i], uint32(17)
			if int32(x) < 0 && x&1 == 0 {
				s = x
			}
			y, neg := uint32(5), true
			if i < 77 {
				y = x + 5
				for k := 2; k < i&15; k += 3 {
					y = y*3 + uint32(k)
				}
				neg = int32(y) < 0
			}
			if neg {
				return y + 100 + s
			}
			return y + 200 + s
		}),
		each("table", func(f *build.Func, in, i build.Value) build.Value {
			t := f.M.Table("squares", []int32{0, -1, 4, -9, 16, math.MaxInt32, math.MinInt32, 49, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10})
			p := f.Cast(t, build.I32)
			return f.Add(f.Load(f.At(p, f.AndI(i, 7))), f.Load(f.At(p, build.Int(17))))
		}, func(in []uint32, i int) uint32 {
			v := []int32{0, -1, 4, -9, 16, math.MaxInt32, math.MinInt32, 49}[i&7]
			return uint32(v) + 10
		}),
		each("shuffles", func(f *build.Func, in, i build.Value) build.Value {
			x := f.Load(f.At(in, i))
			a := f.ShuffleXor(x, 5)
			b := f.ShuffleFrom(x, f.AndI(f.MulI(i, 7), 31))
			c := f.ToInt(f.ShuffleXor(f.ToFloat(f.AndI(x, 1023)), 16))
			d := f.ToInt(f.ShuffleFrom(f.ToFloat(f.AndI(x, 1023)), build.Int(3)))
			e := f.ShuffleXor(build.Int(9), 1)
			f.Call("gpu.syncwarp", build.Void, build.Int(-1))
			return f.Add(f.Xor(f.Add(f.Xor(a, b), c), d), e)
		}, func(in []uint32, i int) uint32 {
			lane := func(l int) uint32 { return in[i/32*32+l] }
			return (((lane(i%32^5) ^ lane(i*7&31)) + lane(i%32^16)&1023) ^ lane(3)&1023) + 9
		}),
		each("places", func(f *build.Func, in, i build.Value) build.Value {
			return f.Add(f.Add(f.MulI(f.GridX(), 1000), f.BlockX()), f.Add(f.BlockY(), f.BlockZ()))
		}, func(in []uint32, i int) uint32 { return uint32(blocks*1000 + i/threads) }),
		// Asynchronous copies of 16 bytes, of which the last four are left out,
		// and fragments loaded from them.
		each("async", func(f *build.Func, in, i build.Value) build.Value {
			t := f.Thread()
			f.Shared(16 * threads)
			base := f.SharedAddress()
			src := f.At(f.Cast(in, build.Vec(4, build.I32)), i)
			f.Call("gpu.cp.async.16", build.Void, f.Add(base, f.MulI(t, 16)), f.GlobalAddress(src), build.Int(12))
			f.Call("gpu.cp.async.commit", build.Void)
			f.Call("gpu.cp.async.wait.0", build.Void)
			f.Barrier()
			// Lane l gets words l%4 of row l/4 of four matrices of 8 rows.
			warp := f.Shr(t, 5)
			row := f.Add(f.MulI(warp, 32), f.AndI(t, 31))
			m := f.LoadMatrix(f.Add(base, f.MulI(row, 16)), false)
			return f.Xor(f.Xor(m[0], f.MulI(m[1], 3)), f.Xor(f.MulI(m[2], 5), f.MulI(m[3], 7)))
		}, func(in []uint32, i int) uint32 {
			l := i % 32
			x := uint32(0)
			for k, f := range []uint32{1, 3, 5, 7} {
				if l%4 != 3 {
					x ^= f * in[4*(i/32*32+8*k+l/4)+l%4]
				}
			}
			return x
		}),
	)
	return append(ps, cooperative()...)
}

func bytesOf(w []uint32) []byte {
	b := make([]byte, 4*len(w))
	for i, x := range w {
		binary.LittleEndian.PutUint32(b[4*i:], x)
	}
	return b
}

func wordsOf(b []byte) []uint32 {
	w := make([]uint32, len(b)/4)
	for i := range w {
		w[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return w
}
