package cpu

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/runtime/device/cpu"
)

var formats = []ir.DType{ir.F16, ir.BF16, ir.E6M9, ir.UE6M10}

// Compiled conversions of every code of every 16-bit format, and of numbers on,
// beside and half way between codes, give the bits of package format16, in
// vectors and alone.
func TestConversionsAreTheFormats(t *testing.T) {
	const codes, floats = 1 << 16, 1 << 18
	x := make([]float32, floats)
	u := make([]float32, floats)
	var ks []*kern.Kernel
	for _, vector := range []bool{true, false} {
		add := func(name string, n int, in []ir.DType, out ir.DType, f func(b *kern.Builder, x []*kern.Node) *kern.Node) {
			k := mapKernel(name, n/256, 256, in, out, func(b *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node { return f(b, x) })
			if !vector {
				k.Name, k.Vector = "scalar_"+name, nil
				k.Tile, k.Chunks = kern.Tile{Rows: n}, 1
			} else {
				k.Tile, k.Chunks = kern.Tile{Rows: n / 256, Cols: 256}, 1
			}
			ks = append(ks, k)
		}
		for _, d := range formats {
			add("widen_"+d.String(), codes, []ir.DType{d}, ir.F32, func(_ *kern.Builder, x []*kern.Node) *kern.Node { return x[0] })
			add("narrow_"+d.String(), floats, []ir.DType{ir.F32}, d, func(_ *kern.Builder, x []*kern.Node) *kern.Node { return x[0] })
			add("round_"+d.String(), floats, []ir.DType{ir.F32}, ir.F32, func(b *kern.Builder, x []*kern.Node) *kern.Node { return b.Round(d, x[0], nil) })
			add("randomly_"+d.String(), floats, []ir.DType{ir.F32, ir.F32}, d, func(b *kern.Builder, x []*kern.Node) *kern.Node { return b.Round(d, x[0], x[1]) })
		}
	}
	targets, tools := here(t)
	libs, err := Compile(context.Background(), tools, ks, targets)
	if err != nil {
		t.Fatal(err)
	}
	arena, err := cpu.NewArena(4096 + 3*4*floats)
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Close()
	const at0, at1, at2 = 4096, 4096 + 4*floats, 4096 + 8*floats
	r := rand.New(rand.NewPCG(5, 6))
	for _, target := range targets {
		lib, err := cpu.Load(libs[target.Name])
		if err != nil {
			t.Fatal(err)
		}
		pool, err := cpu.NewPool(cpu.PoolOptions{Workers: 1, Scratch: 4096})
		if err != nil {
			t.Fatal(err)
		}
		run := func(name string, args ...int64) {
			for i, a := range args {
				binary.LittleEndian.PutUint64(arena.Bytes(int64(8*i), 8), uint64(arena.Addr(a)))
			}
			fn, err := lib.Symbol(name)
			if err != nil {
				t.Fatal(err)
			}
			pool.Run(fn, arena.Addr(0), 1)
		}
		for _, way := range []string{"", "scalar_"} {
			for _, d := range formats {
				f, _ := d.Format()
				for i := range codes {
					binary.LittleEndian.PutUint16(arena.Bytes(at0+int64(2*i), 2), uint16(i))
				}
				run(way+"widen_"+d.String(), at0, at1)
				for i := range codes {
					got := binary.LittleEndian.Uint32(arena.Bytes(at1+int64(4*i), 4))
					want := math.Float32bits(f.Decode(uint16(i)))
					if math.IsNaN(float64(f.Decode(uint16(i)))) {
						got, want = got|0x400000, want|0x400000 // widening makes NaNs quiet
					}
					if got != want {
						t.Fatalf("%s%s: code %#04x widens to %#08x, want %#08x", way, d, i, got, want)
					}
				}
				for i := range x {
					b := r.Uint32()
					switch i % 4 {
					case 1:
						b = math.Float32bits(f.Decode(uint16(b)))
					case 2: // half way to the next code, and beside it
						b = math.Float32bits((f.Decode(uint16(b)) + f.Decode(uint16(b)+1)) / 2)
						b += uint32(i/4%3) - 1
					case 3: // of ordinary size
						b = b&0x807fffff | (127-40+b>>23&63)<<23
					}
					x[i], u[i] = math.Float32frombits(b), (float32(r.Uint32()>>9)+0.5)/(1<<23)
					binary.LittleEndian.PutUint32(arena.Bytes(at0+int64(4*i), 4), b)
					binary.LittleEndian.PutUint32(arena.Bytes(at1+int64(4*i), 4), math.Float32bits(u[i]))
				}
				run(way+"narrow_"+d.String(), at0, at2)
				for i, v := range x {
					if got, want := binary.LittleEndian.Uint16(arena.Bytes(at2+int64(2*i), 2)), f.Encode(v); got != want {
						t.Fatalf("%s%s on %s: %v (%x) narrows to %#04x, want %#04x", way, d, target.Name, v, math.Float32bits(v), got, want)
					}
				}
				run(way+"randomly_"+d.String(), at0, at1, at2)
				for i, v := range x {
					if got, want := binary.LittleEndian.Uint16(arena.Bytes(at2+int64(2*i), 2)), f.EncodeRandomly(v, u[i]); got != want {
						t.Fatalf("%s%s on %s: %v with %v narrows randomly to %#04x, want %#04x", way, d, target.Name, v, u[i], got, want)
					}
				}
				run(way+"round_"+d.String(), at0, at2)
				for i, v := range x {
					if got, want := math.Float32frombits(binary.LittleEndian.Uint32(arena.Bytes(at2+int64(4*i), 4))), f.Round(v); got != want && (got == got || want == want) {
						t.Fatalf("%s%s on %s: %v rounds to %v, want %v", way, d, target.Name, v, got, want)
					}
				}
			}
		}
		pool.Close()
		lib.Close()
	}
}

func TestConversionsCompileForEveryTarget(t *testing.T) {
	tools, err := toolchain.Find()
	if err != nil {
		t.Fatal(err)
	}
	var ks []*kern.Kernel
	for _, d := range formats {
		k := mapKernel("convert_"+d.String(), 4, 256, []ir.DType{d, ir.F32}, d, func(b *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node {
			return b.Round(d, b.Op(kern.Add, b.Round(ir.BF16, x[0], nil), x[0]), x[1])
		})
		k.Tile, k.Chunks = kern.Tile{Rows: 4, Cols: 256}, 1
		ks = append(ks, k)
	}
	if _, err := Compile(context.Background(), tools, ks, build.Targets()); err != nil {
		t.Fatal(err)
	}
}
