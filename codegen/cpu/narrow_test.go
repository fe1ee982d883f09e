package cpu

import (
	"fmt"
	"math"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/internal/jit"
	"github.com/gouache-ml/gouache/ir"
	device "github.com/gouache-ml/gouache/runtime/device/cpu"
)

// eachNarrow runs f on every target of this machine that multiplies in type in. Where there is none, the best is made to, without
// the instructions: of f16, LLVM then widens, multiplies and rounds for each, to the same numbers but for double rounding, and
// dot products of bf16 are made of multiply-adds.
func eachNarrow(t *testing.T, in ir.DType, f func(t *testing.T, r *rig)) {
	t.Helper()
	targets, err := jit.Targets()
	if err != nil {
		t.Fatal(err)
	}
	ran := false
	for _, target := range targets {
		if multiplies(target, in) == in {
			ran = true
			t.Run(target.Name, func(t *testing.T) { f(t, newRig(t, target, 2)) })
		}
	}
	if !ran {
		able := *targets[0]
		able.F16, able.BF16 = in == ir.F16, in == ir.BF16
		t.Run(fmt.Sprintf("%s with %s in software", able.Name, in), func(t *testing.T) { f(t, newRig(t, &able, 2)) })
	}
}

// round makes the operands numbers of type d.
func (p *problem) round(d ir.DType) {
	format, _ := d.Format()
	for _, data := range [][]float32{p.a, p.b} {
		for i, x := range data {
			data[i] = format.Round(x)
		}
	}
}

// Packed operands of all layouts: rows and columns, odd sizes, several blocks of the sum, an odd number of elements
// in the last, chunks that start inside a register tile, batches, and weight gradients with and without shared packing.
func TestGemmMultipliesIn16Bits(t *testing.T) {
	for _, in := range []ir.DType{ir.F16, ir.BF16} {
		t.Run(in.String(), func(t *testing.T) {
			eachNarrow(t, in, func(t *testing.T, r *rig) {
				var x problems
				add := func(p *problem, name ...any) {
					p.Multiply = in
					x.add(p, name...)
				}
				for _, s := range [][5]int{{33, 100, 7, 33, 100}, {1, 7, 1, 1, 7}, {15, 70, 515, 11, 40}, {130, 96, 65, 112, 32}, {9, 20, 1103, 9, 20}, {3, 40, 71, 3, 40}, {260, 50, 20, 250, 7}} {
					for _, tr := range [][2]bool{{false, false}, {false, true}, {true, false}, {true, true}} {
						p := simple(s[0], s[1], s[2], tr[0], tr[1])
						p.Rows, p.Cols = s[3], s[4]
						p.ldc += 3
						add(p, s, " transposed ", tr)
					}
				}
				p := simple(130, 96, 515, true, false)
				p.Rows, p.Cols = 13, 40
				if !p.together() {
					t.Fatal("chunks don't share anything")
				}
				add(p, "together")
				p = simple(128, 32, 64, false, false)
				if p.direct(true).form != rowsForm {
					t.Fatal("in f32 it isn't read in place")
				}
				add(p, "read in place in f32")
				p = &problem{ldc: 37, a: make([]float32, 3*5*70), b: make([]float32, 3*70*37)}
				p.Gemm = Gemm{Batch: []int{3}, M: []int{5}, N: []int{37}, K: []int{70}, Rows: 5, Cols: 37,
					A: Operand{Slot: slotA, At: Affine{Batch: []int{350}, Outer: []int{70}, Sum: []int{1}}},
					B: Operand{Slot: slotB, At: Affine{Batch: []int{70 * 37}, Outer: []int{1}, Sum: []int{37}}}}
				add(p, "batches")
				// Products of NaN leave them in all of the scratch memory that others then find.
				var spoil []int
				for _, columns := range []bool{false, true} {
					spoil = append(spoil, len(x.ps))
					p := simple(224, 96, 1200, columns, false)
					p.Rows = 112 // a chunk for each worker
					for _, data := range [][]float32{p.a, p.b} {
						for i := range data {
							data[i] = float32(math.NaN())
						}
					}
					add(p, "NaN")
				}
				l := r.compile(t, x.ps)
				for i, p := range x.ps[:spoil[0]] {
					for _, s := range spoil {
						r.place(x.ps[s])
						r.deal(t, l, fmt.Sprint("g", s), 2, device.Equal)
					}
					p.fill(uint64(i)).round(in)
					r.check(t, l, i, p, x.names[i])
				}
			})
		})
	}
}

// Sums of f16 are as long as f16Terms and no longer: of 2048 ones each, 4096 of them are exact in pieces and
// would stop growing in one.
func TestShortSumsInF16(t *testing.T) {
	eachNarrow(t, ir.F16, func(t *testing.T, r *rig) {
		p := simple(3, 40, 32*f16Terms, false, false)
		p.Multiply = ir.F16
		for i := range p.a {
			p.a[i] = 1
		}
		for i := range p.b {
			p.b[i] = 0x1p11 / f16Terms
		}
		l := r.compile(t, []*problem{p})
		c, _ := r.place(p)
		for _, way := range []string{"g0", "p0"} {
			if way == "p0" {
				r.launch(t, l, "b0", 3)
			}
			r.launch(t, l, way, p.Chunks())
			for i, x := range c[:3*40] {
				if x != 32*0x1p11 {
					t.Fatalf("%s: element %d is %v, want %v", way, i, x, float32(32*0x1p11))
				}
			}
		}
	})
}

// The error that docs/precision.md states, and that a target without the instructions multiplies in f32.
func TestErrorOfF16(t *testing.T) {
	rms := func(r *rig, k int) float64 {
		p := simple(64, 128, k, false, false)
		p.Multiply = ir.F16
		p.fill(7).round(ir.F16)
		l := r.compile(t, []*problem{p})
		c, _ := r.place(p)
		r.launch(t, l, "g0", p.Chunks())
		var d, size float64
		for x := range 64 {
			for y := range 128 {
				want := 0.0
				for z := range k {
					want += float64(p.a[x*k+z]) * float64(p.b[z*128+y])
				}
				d += (float64(c[x*128+y]) - want) * (float64(c[x*128+y]) - want)
				size += want * want
			}
		}
		return math.Sqrt(d / size)
	}
	eachNarrow(t, ir.F16, func(t *testing.T, r *rig) {
		for _, k := range []int{512, 2048} {
			e := rms(r, k)
			t.Logf("sums of %d: relative error %.2g (root of the mean square)", k, e)
			if e < 3e-4 || e > 3e-3 {
				t.Errorf("sums of %d have an error of %.2g, docs/precision.md says 1.8e-3", k, e)
			}
		}
	})
	for _, target := range build.Targets() {
		if want := target.F16; (multiplies(target, ir.F16) == ir.F16) != want {
			t.Errorf("%s: multiplies in f16: %v, want %v", target.Name, !want, want)
		}
	}
}
