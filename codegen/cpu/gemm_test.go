package cpu

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/internal/jit"
	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	"github.com/gouache-ml/gouache/ir"
	device "github.com/gouache-ml/gouache/runtime/device/cpu"
)

// Argument slots and arena of the tests: A, B, C, packed B.
const (
	slotA, slotB, slotC, slotP = 0, 1, 2, 3
)

// problem is one product, with its data laid out by the operands' addresses.
type problem struct {
	Gemm
	a, b []float32
	ldc  int
}

// matrix is an operand without batch, one outer and one summed dimension.
func matrix(slot, outer, sum int) Operand {
	return Operand{Slot: slot, At: Affine{Outer: []int{outer}, Sum: []int{sum}}}
}

// simple is a product of stored matrices; ta and tb say which are stored transposed.
func simple(m, n, k int, ta, tb bool) *problem {
	g := Gemm{M: []int{m}, N: []int{n}, K: []int{k}, Rows: m, Cols: n, A: matrix(slotA, k, 1), B: matrix(slotB, 1, n)}
	if ta {
		g.A = matrix(slotA, 1, m)
	}
	if tb {
		g.B = matrix(slotB, k, 1)
	}
	return &problem{Gemm: g, a: make([]float32, m*k), b: make([]float32, k*n), ldc: n}
}

func (p *problem) fill(seed uint64) *problem {
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range p.a {
		p.a[i] = r.Float32() - 0.5
	}
	for i := range p.b {
		p.b[i] = r.Float32() - 0.5
	}
	return p
}

// element reads an operand by the definition of Operand.
func element(op *Operand, data []float32, batch, outer, sum []int) float64 {
	at := func(a *Affine) int {
		x := a.Const
		for i, b := range batch {
			x += a.Batch[i] * b
		}
		for i, o := range outer {
			x += a.Outer[i] * o
		}
		for i, s := range sum {
			x += a.Sum[i] * s
		}
		return x
	}
	for _, g := range op.Guards {
		if x := at(&g.At); x < g.Lo || x >= g.Hi {
			return 0
		}
	}
	return float64(data[at(&op.At)])
}

func positions(i int, extents []int) []int {
	out := make([]int, len(extents))
	for d := len(extents) - 1; d >= 0; d-- {
		out[d] = i % extents[d]
		i /= extents[d]
	}
	return out
}

// rig compiles products for one target and runs them.
type rig struct {
	arena *device.Arena
	pool  *device.Pool
	core  *build.Module
	t     *build.Target
}

const rigScratch = 4 << 20

func newRig(t testing.TB, target *build.Target, workers int) *rig {
	t.Helper()
	arena, err := device.NewArena(256 << 20)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := device.NewPool(device.PoolOptions{Workers: workers, Scratch: rigScratch})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close(); arena.Close() })
	core := build.NewModule(target)
	EmitMicroKernels(core)
	return &rig{arena, pool, core, target}
}

// eachTarget runs f on all targets of this machine but those that differ in what eachNarrow tries.
func eachTarget(t *testing.T, f func(t *testing.T, r *rig)) {
	t.Helper()
	targets, err := jit.Targets()
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range targets {
		if !target.Special {
			t.Run(target.Name, func(t *testing.T) { f(t, newRig(t, target, 2)) })
		}
	}
}

// compile names and compiles problems, each with and without a packed right operand, and
// returns the library. Problem i is kernels gi, pi (packed) and bi (packing).
func (r *rig) compile(t testing.TB, ps []*problem) *device.Library {
	t.Helper()
	// Two halves, to be compiled in parallel.
	modules := []*build.Module{build.NewModule(r.t), build.NewModule(r.t)}
	tiles, known := build.NewModule(r.t), map[tile]bool{}
	for i, p := range ps {
		m := modules[i%2]
		if p.Epilogue == nil {
			p.Epilogue = StoreTo(slotC, product(p.M)*p.ldc, p.ldc)
		}
		g := p.Gemm
		g.Name, g.Winograd = fmt.Sprintf("g%d", i), false
		pack := PackB{Name: fmt.Sprintf("b%d", i), Batch: g.Batch, N: g.N, K: g.K, B: g.B, Multiply: g.Multiply, Winograd: p.Winograd, Slot: slotP, Chunks: 3}
		h := p.Gemm
		h.Name, h.Packed = fmt.Sprintf("p%d", i), true
		h.B = Operand{Slot: slotP}
		for _, x := range append(g.Tiles(r.t), h.Tiles(r.t)...) {
			if !known[x] {
				known[x] = true
				EmitTiles(tiles, []tile{x})
			}
		}
		for _, err := range []error{EmitGemm(m, &g), EmitGemm(m, &h), EmitPackB(m, &pack)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if s := max(g.Scratch(r.t), h.Scratch(r.t), pack.Scratch(r.t)); s > rigScratch {
			t.Fatalf("problem %d needs %d bytes of scratch", i, s)
		}
	}
	l, err := jit.Load(append(modules, r.core, tiles)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// place lays out the arena for p and returns views of C and the packed operand.
func (r *rig) place(p *problem) (c, packed []float32) {
	off := int64(4096)
	next := func(n int) (int64, []float32) {
		at := off
		off = (off + int64(4*n) + 63) &^ 63
		return int64(r.arena.Addr(at)), r.arena.F32(at, n)
	}
	s := r.arena.I64(0, 16)
	var a, b []float32
	s[slotA], a = next(len(p.a))
	s[slotB], b = next(len(p.b))
	s[slotC], c = next(product(p.Batch)*product(p.M)*p.ldc + 64)
	// As much again, which must stay as it is.
	size := PackedFloats(r.t, p.Multiply, product(p.Batch), product(p.N), product(p.K))
	if p.Winograd {
		size = p.winograd().packedFloats(r.t)
	}
	s[slotP], packed = next(2 * size)
	copy(a, p.a)
	copy(b, p.b)
	return c, packed
}

func (r *rig) launch(t testing.TB, l *device.Library, name string, chunks int) {
	t.Helper()
	r.deal(t, l, name, chunks, device.Balanced)
}

func (r *rig) deal(t testing.TB, l *device.Library, name string, chunks int, deal device.Deal) {
	t.Helper()
	fn, err := l.Symbol(name)
	if err != nil {
		t.Fatal(err)
	}
	r.pool.RunDealt(fn, r.arena.Addr(0), chunks, deal)
}

const untouched = float32(12345)

// check runs problem i of l both ways and compares with float64 sums. It also deals the chunks so that each
// worker takes its share in one go, which must give the same bits.
func (r *rig) check(t *testing.T, l *device.Library, i int, p *problem, what string) {
	t.Helper()
	c, packed := r.place(p)
	m, n, k := product(p.M), product(p.N), product(p.K)
	var balanced []float32
	for _, way := range []string{"g", "equal", "p"} {
		for j := range c {
			c[j] = untouched
		}
		if way == "p" {
			for j := range packed {
				packed[j] = untouched
				if j < len(packed)/2 {
					packed[j] = float32(math.NaN())
				}
			}
			r.launch(t, l, fmt.Sprintf("b%d", i), 3)
		}
		if way == "equal" {
			r.deal(t, l, fmt.Sprintf("g%d", i), p.Chunks(), device.Equal)
			if !slices.Equal(c, balanced) {
				t.Fatalf("%s: other bits where workers take their chunks in one go", what)
			}
			continue
		}
		if way == "p" {
			for _, x := range packed[len(packed)/2:] {
				if x != untouched {
					t.Fatalf("%s: packed beyond the operand's place", what)
				}
			}
		}
		r.launch(t, l, fmt.Sprintf("%s%d", way, i), p.Chunks())
		if way == "g" {
			balanced = slices.Clone(c)
		}
		for b := 0; b < product(p.Batch); b++ {
			bp := positions(b, p.Batch)
			for x := 0; x < m; x++ {
				mp := positions(x, p.M)
				for y := 0; y < p.ldc; y++ {
					got := c[(b*m+x)*p.ldc+y]
					if y >= n {
						if got != untouched {
							t.Fatalf("%s (%s): wrote %v beyond the columns, at %d,%d,%d", what, way, got, b, x, y)
						}
						continue
					}
					np := positions(y, p.N)
					want, size := 0.0, 0.0
					for z := 0; z < k; z++ {
						kp := positions(z, p.K)
						e := element(&p.A, p.a, bp, mp, kp) * element(&p.B, p.b, bp, np, kp)
						want += e
						size += math.Abs(e)
					}
					// Each of k roundings is at most 2^-24 of a partial sum, of those in f16 2^-11; in software products
					// are rounded too. The largest error measured is 0.56 of what is allowed, of minimal filtering 0.66.
					unit := 1e-7
					if multiplies(r.t, p.Multiply) == ir.F16 {
						unit = 0x1p-10 * math.Sqrt(float64(min(k, f16Terms))/float64(k))
					}
					if d := math.Abs(float64(got) - want); !(d <= unit*size*math.Sqrt(float64(k))+1e-30) {
						t.Fatalf("%s (%s): element %d,%d,%d is %v, want %v", what, way, b, x, y, got, want)
					}
				}
			}
		}
		for _, x := range c[product(p.Batch)*m*p.ldc:] {
			if x != untouched {
				t.Fatalf("%s (%s): wrote beyond the last row", what, way)
			}
		}
	}
}

// problems are checked together: compiled as one library.
type problems struct {
	ps    []*problem
	names []string
}

func (x *problems) add(p *problem, name ...any) {
	x.ps, x.names = append(x.ps, p), append(x.names, fmt.Sprint(name...))
}

func (r *rig) checkAll(t *testing.T, x *problems) {
	t.Helper()
	l := r.compile(t, x.ps)
	for i, p := range x.ps {
		r.check(t, l, i, p.fill(uint64(i)), x.names[i])
	}
}

func TestGemmOfOddSizes(t *testing.T) {
	sizes := [][3]int{{1, 7, 16}, {7, 33, 1}, {16, 1, 100}, {33, 100, 7}, {100, 16, 33}}
	eachTarget(t, func(t *testing.T, r *rig) {
		var x problems
		for i, s := range sizes {
			for _, tr := range [][2]bool{{false, false}, {false, true}, {true, false}, {true, true}} {
				p := simple(s[0], s[1], s[2], tr[0], tr[1])
				p.ldc += i % 3 * 5
				x.add(p, s, " transposed ", tr)
			}
		}
		r.checkAll(t, &x)
	})
}

// K beyond one block, several chunks each way, chunks that do not align with tiles, and blocks
// of rows within a chunk.
func TestGemmInBlocksAndChunks(t *testing.T) {
	eachTarget(t, func(t *testing.T, r *rig) {
		var x problems
		for _, s := range [][5]int{{30, 70, 1100, 11, 40}, {260, 50, 20, 250, 7}, {19, 90, 2100, 100, 100}, {128, 96, 64, 1, 96}} {
			for _, tr := range [][2]bool{{false, false}, {true, true}} {
				p := simple(s[0], s[1], s[2], tr[0], tr[1])
				p.Rows, p.Cols = s[3], s[4]
				x.add(p, s, tr)
			}
		}
		r.checkAll(t, &x)
	})
}

// Weight gradients whose chunks share packed operands: chunks of one row and of several, panels that don't
// fill their chunk, a part of a block at the end of the sum, batches, and more chunks than sums have room for.
func TestGemmTogether(t *testing.T) {
	eachTarget(t, func(t *testing.T, r *rig) {
		var x problems
		add := func(p *problem, name any) {
			if !p.together() {
				t.Fatalf("%v: chunks don't share anything", name)
			}
			x.add(p, name)
		}
		for _, s := range [][5]int{{70, 50, 700, 16, 32}, {64, 256, 300, 64, 32}, {130, 96, 515, 13, 40}, {33, 7, 400, 4, 7}, {512, 250, 140, 16, 64}} {
			p := simple(s[0], s[1], s[2], true, false)
			p.Rows, p.Cols = s[3], s[4]
			p.ldc += 3
			add(p, s)
		}
		p := &problem{ldc: 40, a: make([]float32, 3*300*30), b: make([]float32, 3*300*40)}
		p.Gemm = Gemm{Batch: []int{3}, M: []int{30}, N: []int{40}, K: []int{300}, Rows: 12, Cols: 16,
			A: Operand{Slot: slotA, At: Affine{Batch: []int{9000}, Outer: []int{1}, Sum: []int{30}}},
			B: Operand{Slot: slotB, At: Affine{Batch: []int{12000}, Outer: []int{1}, Sum: []int{40}}}}
		add(p, "batches")
		r.checkAll(t, &x)
	})
}

func TestGemmInBatches(t *testing.T) {
	eachTarget(t, func(t *testing.T, r *rig) {
		// Attention's shape: heads inside rows of 3 heads of 20; B shared by the images of the batch.
		p := &problem{ldc: 23, a: make([]float32, 2*10*60), b: make([]float32, 3*23*20)}
		p.Gemm = Gemm{Batch: []int{2, 3}, M: []int{10}, N: []int{23}, K: []int{20}, Rows: 10, Cols: 23,
			A: Operand{Slot: slotA, At: Affine{Batch: []int{600, 20}, Outer: []int{60}, Sum: []int{1}}},
			B: Operand{Slot: slotB, At: Affine{Batch: []int{0, 460}, Outer: []int{20}, Sum: []int{1}}}}
		// A grid of columns that is not contiguous: n = (2, 9), stored as two blocks 100 apart.
		q := &problem{ldc: 18, a: make([]float32, 12*40), b: make([]float32, 40*200)}
		q.Gemm = Gemm{M: []int{3, 4}, N: []int{2, 9}, K: []int{5, 8}, Rows: 5, Cols: 10,
			A: Operand{Slot: slotA, At: Affine{Outer: []int{40, 120}, Sum: []int{8, 1}}},
			B: Operand{Slot: slotB, At: Affine{Outer: []int{100, 1}, Sum: []int{1600, 200}}}}
		r.checkAll(t, &problems{[]*problem{p, q}, []string{"heads", "split columns"}})
	})
}

// conv describes a convolution of images of h*w*ci with co filters of kh*kw*ci.
type conv struct{ images, h, w, ci, co, kh, kw, stride, pad int }

func (c conv) outH() int { return (c.h+2*c.pad-c.kh)/c.stride + 1 }
func (c conv) outW() int { return (c.w+2*c.pad-c.kw)/c.stride + 1 }

// forward multiplies patches (image, y, x | ky, kx, channel) with filters.
func (c conv) forward() *problem {
	p := &problem{ldc: c.co, a: make([]float32, c.images*c.h*c.w*c.ci), b: make([]float32, c.kh*c.kw*c.ci*c.co)}
	p.Gemm = Gemm{M: []int{c.images, c.outH(), c.outW()}, N: []int{c.co}, K: []int{c.kh, c.kw, c.ci}, Rows: 50, Cols: c.co,
		A: c.patches(slotA),
		B: Operand{Slot: slotB, At: Affine{Outer: []int{1}, Sum: []int{c.kw * c.ci * c.co, c.ci * c.co, c.co}}}}
	return p
}

func (c conv) patches(slot int) Operand {
	row := c.w * c.ci
	return Operand{Slot: slot,
		At: Affine{Const: -c.pad*row - c.pad*c.ci,
			Outer: []int{c.h * row, c.stride * row, c.stride * c.ci}, Sum: []int{row, c.ci, 1}},
		Guards: []Guard{
			{At: Affine{Const: -c.pad, Outer: []int{0, c.stride, 0}, Sum: []int{1, 0, 0}}, Lo: 0, Hi: c.h},
			{At: Affine{Const: -c.pad, Outer: []int{0, 0, c.stride}, Sum: []int{0, 1, 0}}, Lo: 0, Hi: c.w},
		}}
}

// swap makes a left operand of a right one's coefficients, and the reverse.
func swap(op Operand) Operand {
	s := op
	s.At.Outer, s.At.Sum = op.At.Sum, op.At.Outer
	s.Guards = nil
	for _, g := range op.Guards {
		g.At.Outer, g.At.Sum = g.At.Sum, g.At.Outer
		s.Guards = append(s.Guards, g)
	}
	return s
}

// filterGradient multiplies patches transposed with the output's gradient.
func (c conv) filterGradient() *problem {
	p := c.forward()
	pixels := []int{c.images, c.outH(), c.outW()}
	p.b = make([]float32, product(pixels)*c.co)
	p.Gemm = Gemm{M: p.K, N: p.N, K: pixels, Rows: 40, Cols: c.co, A: swap(c.patches(slotA)),
		B: Operand{Slot: slotB, At: Affine{Outer: []int{1}, Sum: []int{c.outH() * c.outW() * c.co, c.outW() * c.co, c.co}}}}
	return p
}

// inputGradient, for stride 1, convolves the output's gradient with the filters turned around.
func (c conv) inputGradient() *problem {
	back := conv{c.images, c.outH(), c.outW(), c.co, c.ci, c.kh, c.kw, 1, c.kh - 1 - c.pad}
	p := back.forward()
	p.B = Operand{Slot: slotB, At: Affine{Const: (c.kh*c.kw - 1) * c.ci * c.co,
		Outer: []int{c.co}, Sum: []int{-c.kw * c.ci * c.co, -c.ci * c.co, 1}}}
	return p
}

// The address arithmetic of these tests against a convolution written out.
func TestPatchesAreAConvolution(t *testing.T) {
	c := conv{2, 5, 6, 3, 2, 3, 3, 2, 1}
	p := c.forward().fill(3)
	for x := 0; x < product(p.M); x++ {
		mp := positions(x, p.M)
		for z := 0; z < product(p.K); z++ {
			kp := positions(z, p.K)
			y, xx := mp[1]*c.stride+kp[0]-c.pad, mp[2]*c.stride+kp[1]-c.pad
			want := 0.0
			if y >= 0 && y < c.h && xx >= 0 && xx < c.w {
				want = float64(p.a[((mp[0]*c.h+y)*c.w+xx)*c.ci+kp[2]])
			}
			if got := element(&p.A, p.a, nil, mp, kp); got != want {
				t.Fatalf("patch %v at %v is %v, want %v", mp, kp, got, want)
			}
		}
	}
}

func TestConvolutions(t *testing.T) {
	convs := []conv{
		{2, 7, 9, 16, 20, 3, 3, 1, 1},
		{1, 8, 8, 3, 33, 7, 7, 1, 3},
		{2, 9, 7, 5, 10, 3, 3, 2, 1},
		{1, 6, 5, 130, 40, 3, 3, 1, 1},
		{1, 10, 10, 1, 16, 5, 5, 1, 2},
	}
	eachTarget(t, func(t *testing.T, r *rig) {
		var x problems
		for _, c := range convs {
			x.add(c.forward(), "forward ", c)
			x.add(c.filterGradient(), "filter gradient ", c)
			if c.stride == 1 {
				x.add(c.inputGradient(), "input gradient ", c)
			}
		}
		r.checkAll(t, &x)
	})
}

// Products whose operands are read in place, in the chunks that TileFor gives them.
func TestProductsReadInPlace(t *testing.T) {
	convs := []conv{
		{8, 12, 12, 8, 16, 3, 3, 1, 1},
		{9, 12, 16, 5, 8, 5, 3, 1, 1},
		{16, 17, 17, 6, 24, 3, 3, 2, 1},
	}
	eachTarget(t, func(t *testing.T, r *rig) {
		var x problems
		add := func(p *problem, what string) {
			for _, packed := range []bool{false, true} {
				d := p.direct(packed)
				if d.form == packedForm {
					continue
				}
				q := *p
				q.Rows, q.Cols = d.tileFor(max(1, product(p.Batch)), product(p.M), product(p.N), product(p.K))
				q.Packed = packed
				if q.directLayout(r.t) == nil {
					t.Errorf("%s: chunks of %dx%d keep it from being read in place", what, q.Rows, q.Cols)
				}
				q.Packed = false
				x.add(&q, what)
				return
			}
			t.Errorf("%s is not read in place", what)
		}
		for _, c := range convs {
			add(c.forward(), fmt.Sprint("forward ", c))
			p := c.filterGradient()
			if c.co%16 != 0 {
				p.M, p.N, p.A, p.B = p.N, p.M, p.B, p.A
				p.A.Slot, p.B.Slot, p.ldc = slotA, slotB, product(p.N)
				p.a, p.b = p.b, p.a
			}
			add(p, fmt.Sprint("filter gradient ", c))
		}
		add(simple(64, 32, 80, false, false), "few columns")
		add(conv{2, 10, 12, 72, 20, 3, 3, 1, 1}.forward(), "sums of several blocks that begin inside a row of a patch")
		for _, c := range []struct {
			conv
			what string
		}{
			{conv{16, 8, 8, 32, 32, 3, 3, 1, 1}, "the right operand packed"},
			{conv{16, 16, 16, 32, 16, 3, 3, 2, 1}, "pixels apart, one panel"},
			{conv{2, 16, 16, 32, 64, 3, 3, 1, 1}, "blocks of some lines"},
			{conv{12, 8, 8, 32, 48, 3, 3, 1, 1}, "blocks of several pictures"},
			{conv{2, 8, 8, 128, 256, 3, 3, 1, 1}, "more results than have room together"},
		} {
			add(c.filterGradient(), c.what)
		}
		for _, s := range [][3]int{{40, 32, 1024}, {24, 48, 2048}, {72, 128, 1024}, {6, 16, 1280}} {
			add(simple(s[0], s[1], s[2], true, false), fmt.Sprint("two matrices ", s))
		}
		r.checkAll(t, &x)
	})
}

// Convolutions by minimal filtering, in the chunks that they are given. A machine without vectors of 16 lanes
// halves those.
func TestConvolutionsByMinimalFiltering(t *testing.T) {
	type sample struct {
		conv
		what string
	}
	each := func(t *testing.T, r *rig, samples ...sample) {
		var x problems
		add := func(p *problem, what string) {
			p.Winograd = what[0] != 'g'
			p.cut()
			if _, ok := p.code(r.t).(*gemmLayout); ok {
				t.Errorf("%s: chunks of %dx%d keep it from minimal filtering", what, p.Rows, p.Cols)
			}
			x.add(p, what)
		}
		for _, c := range samples {
			add(c.forward(), "forward, "+c.what)
			if c.pad == 1 {
				add(c.inputGradient(), "input gradient, "+c.what)
			}
			add(c.filterGradient(), "gradient of filters, "+c.what)
		}
		r.checkAll(t, &x)
	}
	samples := []sample{
		{conv{2, 16, 16, 16, 16, 3, 3, 1, 1}, "blocks of parts of pictures"},
		{conv{10, 8, 8, 16, 48, 3, 3, 1, 1}, "blocks of several pictures, runs of columns"},
		{conv{4, 32, 16, 16, 16, 3, 3, 1, 1}, "sums of several blocks"},
		{conv{3, 12, 20, 32, 16, 3, 3, 1, 1}, "three rows of tiles"},
		{conv{1, 26, 34, 16, 32, 3, 3, 1, 0}, "no border"},
		{conv{16, 4, 8, 144, 16, 3, 3, 1, 1}, "more channels than a block has room for"},
	}
	if runtime.GOARCH == "arm64" {
		samples = samples[:3] // it may be emulated, where the sums of the others take minutes
	}
	eachTarget(t, func(t *testing.T, r *rig) {
		each(t, r, samples...)
		if r.t.Lanes == 8 {
			wide := *r.t
			wide.Lanes, wide.MR, wide.KC = 16, 14, 1024
			t.Run("halved", func(t *testing.T) { each(t, newRig(t, &wide, 2), samples[:3]...) })
		}
	})
}

// Weight gradients pack both operands by columns, in the chunks that TileFor gives them.
func TestProductsByColumns(t *testing.T) {
	eachTarget(t, func(t *testing.T, r *rig) {
		var x problems
		add := func(p *problem, what string) {
			if !p.byColumns() {
				t.Errorf("%s is not packed by columns", what)
			}
			p.Rows, p.Cols = columnsTile(max(1, product(p.Batch)), product(p.M), product(p.N), product(p.K))
			x.add(p, what)
		}
		for _, s := range [][3]int{{40, 48, 1300}, {3, 16, 2052}, {130, 300, 70}, {15, 33, 513}, {112, 64, 5}, {13, 32, 1030}} {
			add(simple(s[0], s[1], s[2], true, false), fmt.Sprint(s))
		}
		p := &problem{ldc: 32, a: make([]float32, 2*300*27), b: make([]float32, 2*300*32)}
		p.Gemm = Gemm{Batch: []int{2}, M: []int{27}, N: []int{32}, K: []int{300},
			A: Operand{Slot: slotA, At: Affine{Batch: []int{300 * 27}, Outer: []int{1}, Sum: []int{27}}},
			B: Operand{Slot: slotB, At: Affine{Batch: []int{300 * 32}, Outer: []int{1}, Sum: []int{32}}}}
		add(p, "batches")
		// Columns in two runs are no matrix.
		p = &problem{ldc: 40, a: make([]float32, 300*100), b: make([]float32, 300*100)}
		p.Gemm = Gemm{M: []int{2, 17}, N: []int{2, 20}, K: []int{300},
			A: Operand{Slot: slotA, At: Affine{Outer: []int{50, 1}, Sum: []int{100}}},
			B: Operand{Slot: slotB, At: Affine{Outer: []int{50, 1}, Sum: []int{100}}}}
		add(p, "heads")
		r.checkAll(t, &x)
	})
}

func TestGemmDoesNotDependOnWorkers(t *testing.T) {
	targets, err := jit.Targets()
	if err != nil {
		t.Fatal(err)
	}
	var first []float32
	for _, workers := range []int{1, 2, 3} {
		r := newRig(t, targets[0], workers)
		p := simple(150, 130, 1500, false, false)
		p.Rows, p.Cols = 20, 48
		l := r.compile(t, []*problem{p.fill(9)})
		c, _ := r.place(p)
		r.launch(t, l, "b0", 3)
		r.launch(t, l, "p0", p.Chunks())
		if first == nil {
			first = append(first, c...)
		}
		for i := range first[:150*130] {
			if math.Float32bits(first[i]) != math.Float32bits(c[i]) {
				t.Fatalf("%d workers: element %d is %v, with one worker %v", workers, i, c[i], first[i])
			}
		}
	}
}

func TestEpilogueSeesRowsAndColumns(t *testing.T) {
	eachTarget(t, func(t *testing.T, r *rig) {
		p := simple(40, 75, 30, false, false)
		p.Rows, p.Cols = 16, 40
		// c = max(0, acc + row - 2*col)
		p.Epilogue = func(f *build.Func, s *Segment) {
			vt := f.Module.Vec()
			lanes := r.t.Lanes
			row := f.Splat(lanes, f.SIToFP(s.Row, build.F32))
			for i := range s.Acc {
				col := f.Add(f.Splat(lanes, f.Add(s.Col, build.Int(int64(i*lanes)))), build.Iota(lanes, build.I64))
				x := f.FMA(f.SIToFP(col, build.F32), build.FloatOf(vt, -2), f.FAdd(s.Acc[i], row))
				s.Acc[i] = f.FMax(x, build.Zero(vt))
			}
			StoreTo(slotC, 0, 75)(f, s)
		}
		l := r.compile(t, []*problem{p.fill(5)})
		c, _ := r.place(p)
		r.launch(t, l, "g0", p.Chunks())
		for x := 0; x < 40; x++ {
			for y := 0; y < 75; y++ {
				want := float64(x - 2*y)
				for z := 0; z < 30; z++ {
					want += float64(p.a[x*30+z]) * float64(p.b[z*75+y])
				}
				want = max(want, 0)
				if got := float64(c[x*75+y]); math.Abs(got-want) > 1e-4 {
					t.Fatalf("element %d,%d is %v, want %v", x, y, got, want)
				}
			}
		}
	})
}

// Operands stored as bfloat16, widened while they are packed.
func TestOperandsAreWidened(t *testing.T) {
	widen := func(f *build.Func, v V) V {
		bits := f.ZExt(v, build.I32)
		return f.Bitcast(f.Shl(bits, build.IntOf(bits.Type(), 16)), build.LikeType(v, build.F32))
	}
	eachTarget(t, func(t *testing.T, r *rig) {
		var ps []*problem
		for _, tr := range [][2]bool{{false, false}, {true, true}} {
			p := simple(21, 35, 50, tr[0], tr[1])
			p.A.Elem, p.A.Widen, p.B.Elem, p.B.Widen = build.I16, widen, build.I16, widen
			ps = append(ps, p.fill(8))
		}
		l := r.compile(t, ps)
		for i, p := range ps {
			c, _ := r.place(p)
			s := r.arena.I64(0, 4)
			base := int64(r.arena.Addr(0))
			round := func(slot int, data []float32) {
				u := r.arena.U16(s[slot]-base, len(data))
				for j := range data {
					bits := math.Float32bits(data[j]) >> 16
					data[j] = math.Float32frombits(bits << 16)
					u[j] = uint16(bits)
				}
			}
			round(slotA, p.a)
			round(slotB, p.b)
			r.launch(t, l, fmt.Sprintf("g%d", i), p.Chunks())
			for x := 0; x < 21; x++ {
				for y := 0; y < 35; y++ {
					want := 0.0
					for z := 0; z < 50; z++ {
						want += element(&p.A, p.a, nil, []int{x}, []int{z}) * element(&p.B, p.b, nil, []int{y}, []int{z})
					}
					if got := float64(c[x*35+y]); math.Abs(got-want) > 1e-5 {
						t.Fatalf("element %d,%d is %v, want %v", x, y, got, want)
					}
				}
			}
		}
	})
}

// Code for targets this machine does not run can at least be linked; and no kernel for arm64 may
// touch x28, where Go keeps g.
func TestGemmCompilesForEveryTarget(t *testing.T) {
	tools, err := toolchain.Find()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for _, target := range build.Targets() {
		core, m := build.NewModule(target), build.NewModule(target)
		EmitMicroKernels(core)
		p := conv{2, 7, 9, 16, 20, 3, 3, 1, 1}.filterGradient()
		p.Name, p.Epilogue = "gradient", StoreTo(slotC, 0, p.ldc)
		if err := EmitGemm(m, &p.Gemm); err != nil {
			t.Fatal(err)
		}
		for _, in := range arithmetic(target) {
			for _, columns := range []bool{false, true} {
				p := simple(40, 80, 90, columns, false)
				p.Name, p.Multiply, p.Epilogue = fmt.Sprint("in_", in, columns), in, StoreTo(slotC, 0, p.ldc)
				if err := EmitGemm(m, &p.Gemm); err != nil {
					t.Fatal(err)
				}
			}
		}
		c := conv{2, 16, 16, 16, 32, 3, 3, 1, 1}
		forward, back := c.forward(), c.filterGradient()
		forward.Name, forward.Winograd, forward.Epilogue = "minimal", true, StoreTo(slotC, 0, forward.ldc)
		back.Name, back.Epilogue = "minimal_gradient", StoreTo(slotC, 0, back.ldc)
		filters := PackB{Name: "filters", N: forward.N, K: forward.K, B: forward.B, Winograd: true, Slot: slotP, Chunks: 1}
		forward.cut()
		back.cut()
		for _, err := range []error{EmitGemm(m, &forward.Gemm), EmitGemm(m, &back.Gemm), EmitPackB(m, &filters)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		tiles := build.NewModule(target)
		EmitTiles(tiles, append(forward.Tiles(target), back.Tiles(target)...))
		ms := []toolchain.Module{{Name: "core", Text: core.Text()}, {Name: "tiles", Text: tiles.Text()}, {Name: "gradient", Text: m.Text()}}
		if _, err := tools.Compile(ctx, target, ms); err != nil {
			t.Errorf("%s: %v", target.Name, err)
		}
		if !strings.HasPrefix(target.Name, "arm64") {
			continue
		}
		for _, m := range ms {
			asm, err := tools.Assembly(ctx, target, m)
			if err != nil {
				t.Fatal(err)
			}
			if r := regexp.MustCompile(`\b[xw]28\b`).FindString(asm); r != "" {
				t.Errorf("%s uses %s", m.Name, r)
			}
		}
	}
}

func TestGemmRefusesWrongShapes(t *testing.T) {
	m := build.NewModule(build.Targets()[0])
	for want, change := range map[string]func(p *problem){
		"coefficients":  func(p *problem) { p.A.At.Sum = nil },
		"guard 0":       func(p *problem) { p.B.Guards = []Guard{{Hi: 3}} },
		"extent 0 in K": func(p *problem) { p.K = []int{0} },
		"chunks of 0":   func(p *problem) { p.Rows = 0 },
	} {
		p := simple(4, 4, 4, false, false)
		change(p)
		if err := EmitGemm(m, &p.Gemm); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}
