package cuda_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/cuda/emu"
	"github.com/gouache-ml/gouache/codegen/cuda/simt"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/runtime/format16"
)

// around are n numbers of f and their neighbours: what lies next to them, half way and a quarter of the way to the
// next, of both signs; and what no code has.
func around(f format16.Format, n int) []float32 {
	r := rand.New(rand.NewPCG(3, uint64(n)))
	out := []float32{0, float32(math.Copysign(0, -1)), float32(math.NaN()), -float32(math.NaN()), math.Float32frombits(0x7fffffff), math.Float32frombits(0xff800001),
		float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32, -math.MaxFloat32, 65504, 65519.996, 65520, 65536, 1e-45, 0x1p-25, 0x1.000002p-25, 0x1p-14, 0x1.fffffep-15,
		0x1p-60, 0x1p-61, 0x1.fffffep-61, 0x1.8p-60, 16, 15.999, 32}
	for _, step := range []uint32{1 << 12, 1 << 13, 1 << 14} { // above the number that would have the code 0 in the paper's formats
		for k := range uint32(5) {
			for _, near := range []uint32{0, 1, 1<<32 - 1} {
				out = append(out, math.Float32frombits(67<<23+k*step+near), -math.Float32frombits(67<<23+k*step+near))
			}
		}
	}
	codes := []int{0, 1, 2, 3, 0x3ff, 0x400, 0x401, 0x7bfe, 0x7bff, 0x7c00, 0x7fff, 0x8000, 0x8001, 0xfbff, 0xfffe, 0xffff}
	for len(codes) < n {
		codes = append(codes, r.IntN(1<<16))
	}
	for _, c := range codes {
		x, y := f.Decode(uint16(c)), f.Decode(uint16(c+1))
		for _, v := range []float32{x, math.Nextafter32(x, 100), math.Nextafter32(x, -100), x + (y-x)/2, math.Nextafter32(x+(y-x)/2, 100), x + (y-x)/4, x + float32(r.Float64())*(y-x)} {
			out = append(out, v, -v)
		}
	}
	var each []float32
	for _, x := range out { // for each kind of u
		each = append(each, x, x, x, x)
	}
	return each
}

// Values are rounded to types of 16 bits as format16 does it, to the last bit: to the nearest and at random, by numbers that were
// stored and by those made in the same kernel, for a store and to go on with.
func TestRoundingIsExact(t *testing.T) {
	for _, target := range []string{"sm_90a", "sm_70"} {
		for _, d := range []ir.DType{ir.F16, ir.BF16, ir.E6M9, ir.UE6M10} {
			for _, how := range []string{"nearest", "stored", "made", "kept"} {
				t.Run(fmt.Sprint(target, " ", d, " ", how), func(t *testing.T) {
					f, _ := d.Format()
					xs := around(f, 300)
					n := len(xs)
					b := kern.NewBuilder("round")
					i := b.Dim(n)
					x, u := b.Buf("x", ir.F32, n, kern.In), b.Buf("u", ir.F32, n, kern.In)
					y, z := b.Buf("y", d, n, kern.Out), b.Buf("z", ir.F32, n, kern.Out)
					v := b.Load(x, kern.V(i))
					var random *kern.Node
					switch how {
					case "stored":
						random = b.Load(u, kern.V(i))
					case "made", "kept":
						random = b.Random(b.I(5), b.I(7), 11, kern.V(i))
					}
					if how == "kept" { // it's a number for others too
						b.Store(z, kern.V(i), random)
					}
					r := b.Round(d, v, random)
					b.Store(y, kern.V(i), r)
					if how != "kept" {
						b.Store(z, kern.V(i), r)
					}
					k := b.Done()
					bufs := func() [][]float64 {
						r := rand.New(rand.NewPCG(5, 6))
						us := func(j int) float32 { return []float32{0, 0.5, math.Nextafter32(1, 0), r.Float32()}[j%4] }
						out := [][]float64{make([]float64, n), make([]float64, n), make([]float64, n), make([]float64, n)}
						for j, v := range xs {
							out[0][j], out[1][j] = float64(v), float64(us(j))
						}
						return out
					}
					want, got := bufs(), bufs()
					if err := kern.Eval(k, want); err != nil {
						t.Fatal(err)
					}
					tg, err := cuda.TargetByName(target)
					if err != nil {
						t.Fatal(err)
					}
					c, err := emu.Compile(k, tg)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := c.Run(simt.Options{Seed: 1, Check: true}, got); err != nil {
						t.Fatal(err)
					}
					for buf := 2; buf < 4; buf++ {
						for j, w := range want[buf] {
							if g := got[buf][j]; math.Float64bits(g) != math.Float64bits(w) && !(g != g && w != w) {
								t.Fatalf("%v (%#x) is %v in buffer %d, want %v", xs[j], math.Float32bits(xs[j]), g, buf, w)
							}
						}
					}
				})
			}
		}
	}
}

// Every code of the types of 16 bits is read as the number that it means, alone and beside others.
func TestCodesAreWidened(t *testing.T) {
	for _, d := range []ir.DType{ir.F16, ir.BF16, ir.E6M9, ir.UE6M10} {
		for _, stride := range []int{1, 3} {
			t.Run(fmt.Sprint(d, " every ", stride), func(t *testing.T) {
				f, _ := d.Format()
				const n = 1 << 16
				b := kern.NewBuilder("widen")
				i := b.Dim(n)
				x, y := b.Buf("x", d, n*stride, kern.In), b.Buf("y", ir.F32, n, kern.Out)
				b.Store(y, kern.V(i), b.Load(x, kern.V(i).Scale(stride)))
				c, err := emu.Compile(b.Done(), cuda.Targets()[0])
				if err != nil {
					t.Fatal(err)
				}
				bufs := [][]float64{make([]float64, n*stride), make([]float64, n)}
				for code := range n {
					bufs[0][code*stride] = float64(f.Decode(uint16(code)))
				}
				if _, err := c.Run(simt.Options{Seed: 1, Check: true}, bufs); err != nil {
					t.Fatal(err)
				}
				for code, got := range bufs[1] {
					if want := float64(f.Decode(uint16(code))); got != want && !(got != got && want != want) {
						t.Fatalf("code %#04x is read as %v, want %v", code, got, want)
					}
				}
			})
		}
	}
}
