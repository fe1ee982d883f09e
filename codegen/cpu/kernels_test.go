package cpu

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/x448/float16"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/internal/jit"
	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/runtime/device/cpu"
)

// sample is a kernel with its input; fill gives element i of buffer b, by
// default a normal number.
type sample struct {
	k     *kern.Kernel
	fill  func(b, i int, rng *rand.Rand) float64
	exact bool // bit for bit
	// rounded says to round the evaluator's results to the buffer's type.
	rounded bool
	tol     float64
}

// tiled sets the tile and the number of chunks of a loop kernel.
func tiled(k *kern.Kernel, rows, cols int) *kern.Kernel {
	k.Tile = kern.Tile{Rows: rows, Cols: cols}
	rowDims, colRuns := k.Dims, 1
	if n := len(k.Dims); n > 0 && cols > 0 {
		rowDims, colRuns = k.Dims[:n-1], (k.Dims[n-1].Extent+cols-1)/cols
	}
	k.Chunks = (points(rowDims) + rows - 1) / rows * colRuns
	return k
}

func normals(_, _ int, rng *rand.Rand) float64 { return rng.NormFloat64() }

// roundTo is the nearest storable value.
func roundTo(d ir.DType, x float64) float64 {
	b := make([]byte, 4)
	put(d, b, x)
	return get(d, b)
}

func put(d ir.DType, b []byte, x float64) {
	switch d {
	case ir.F32:
		binary.LittleEndian.PutUint32(b, math.Float32bits(float32(x)))
	case ir.F16:
		binary.LittleEndian.PutUint16(b, uint16(float16.Fromfloat32(float32(x))))
	case ir.BF16:
		u := math.Float32bits(float32(x))
		u += 0x7fff + u>>16&1
		binary.LittleEndian.PutUint16(b, uint16(u>>16))
	case ir.E6M9:
		binary.LittleEndian.PutUint16(b, smallCode(x, 9, true))
	case ir.UE6M10:
		binary.LittleEndian.PutUint16(b, smallCode(x, 10, false))
	case ir.I32:
		binary.LittleEndian.PutUint32(b, uint32(int32(x)))
	case ir.I8:
		b[0] = byte(int8(x))
	case ir.Bool:
		b[0] = 0
		if x != 0 {
			b[0] = 1
		}
	}
}

func get(d ir.DType, b []byte) float64 {
	switch d {
	case ir.F32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	case ir.F16:
		return float64(float16.Frombits(binary.LittleEndian.Uint16(b)).Float32())
	case ir.BF16:
		return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16))
	case ir.E6M9:
		u := binary.LittleEndian.Uint16(b)
		x := smallValue(u&0x7fff, 9)
		if u>>15 != 0 {
			return -x
		}
		return x
	case ir.UE6M10:
		return smallValue(binary.LittleEndian.Uint16(b), 10)
	case ir.I32:
		return float64(int32(binary.LittleEndian.Uint32(b)))
	case ir.I8:
		return float64(int8(b[0]))
	}
	return float64(b[0])
}

// smallValue decodes the paper's formats: 2^(e-60) (1+f/2^frac).
func smallValue(m uint16, frac int) float64 {
	if m == 0 {
		return 0
	}
	one := 1 << frac
	return math.Ldexp(1+float64(int(m)%one)/float64(one), int(m)/one-60)
}

// smallCode finds the nearest code by search, ties away from zero.
func smallCode(x float64, frac int, signed bool) uint16 {
	negative := x < 0
	if negative && !signed {
		return 0
	}
	x = math.Abs(x)
	lo, hi := 0, 1<<(6+frac)-1
	if math.IsNaN(x) || x >= smallValue(uint16(hi), frac) {
		lo = hi
	}
	for hi-lo > 1 {
		if m := (lo + hi) / 2; smallValue(uint16(m), frac) <= x {
			lo = m
		} else {
			hi = m
		}
	}
	if hi != lo && x >= (max(smallValue(uint16(lo), frac), math.Ldexp(1, -60))+smallValue(uint16(hi), frac))/2 {
		lo = hi
	}
	if negative && lo != 0 {
		lo |= 0x8000
	}
	return uint16(lo)
}

// machine runs compiled kernels of one target.
type machine struct {
	target *build.Target
	lib    *cpu.Library
}

// here is what this machine can run and compile for, but for targets that differ in what eachNarrow tries.
func here(t testing.TB) ([]*build.Target, *toolchain.Tools) {
	t.Helper()
	targets, err := jit.Targets()
	if err != nil {
		t.Fatal(err)
	}
	tools, err := toolchain.Find()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(targets, func(t *build.Target) bool { return t.Special }), tools
}

// check compiles samples for every target of this machine, runs them with 1, 2
// and 3 workers and compares with the evaluator.
func check(t *testing.T, samples []sample) {
	t.Helper()
	targets, tools := here(t)
	var ks []*kern.Kernel
	for i, s := range samples {
		s.k.Name = fmt.Sprintf("%s_%d", s.k.Name, i)
		ks = append(ks, s.k)
	}
	libs, err := Compile(context.Background(), tools, ks, targets)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range targets {
		lib, err := cpu.Load(libs[target.Name])
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range samples {
			t.Run(s.k.Name+"/"+target.Name, func(t *testing.T) { (&machine{target, lib}).compare(t, s) })
		}
		lib.Close()
	}
}

const margin = 256 // bytes of NaNs around every buffer

func (m *machine) compare(t *testing.T, s sample) {
	k := s.k
	fill := s.fill
	if fill == nil {
		fill = normals
	}
	rng := rand.New(rand.NewPCG(7, uint64(len(k.Name))))
	want := make([][]float64, len(k.Bufs))
	offset := make([]int64, len(k.Bufs))
	size := int64(4096)
	for b, buf := range k.Bufs {
		want[b] = make([]float64, buf.Len)
		for i := range want[b] {
			want[b][i] = roundTo(buf.DType, fill(b, i, rng))
		}
		offset[b] = size + margin
		size = (offset[b] + int64(buf.Len*buf.DType.Size()) + margin + 63) &^ 63
	}
	a, err := cpu.NewArena(size)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for i := range a.Bytes(0, int(size)) {
		a.Bytes(0, int(size))[i] = 0xff
	}
	input := append([]byte(nil), a.Bytes(0, int(size))...)
	for b, buf := range k.Bufs {
		binary.LittleEndian.PutUint64(input[8*b:], uint64(a.Addr(offset[b])))
		if buf.Mode == kern.Out {
			continue
		}
		for i, x := range want[b] {
			put(buf.DType, input[int(offset[b])+i*buf.DType.Size():], x)
		}
	}
	if err := kern.Eval(k, want); err != nil {
		t.Fatal(err)
	}
	fn, err := m.lib.Symbol(k.Name)
	if err != nil {
		t.Fatal(err)
	}
	var first []byte
	for _, workers := range []int{1, 2, 3} {
		copy(a.Bytes(0, int(size)), input)
		pool, err := cpu.NewPool(cpu.PoolOptions{Workers: workers, Scratch: ScratchBytes([]*kern.Kernel{k}, []*build.Target{m.target})})
		if err != nil {
			t.Fatal(err)
		}
		pool.RunDealt(fn, a.Addr(0), k.Chunks, cpu.DealFor(k.Tile.Together, k.FLOPs, int64(k.Traffic())))
		pool.Close()
		if first == nil {
			first = append(first, a.Bytes(0, int(size))...)
		} else if string(first) != string(a.Bytes(0, int(size))) {
			t.Errorf("%d workers give other bits than 1", workers)
		}
	}
	end := int64(8 * len(k.Bufs))
	for b, buf := range k.Bufs {
		for i := end; i < offset[b]; i++ {
			if first[i] != 0xff {
				t.Fatalf("byte %d before buffer %s was written", i-offset[b], buf.Name)
			}
		}
		end = offset[b] + int64(buf.Len*buf.DType.Size())
		if buf.Mode == kern.In {
			continue
		}
		tol := s.tol
		if tol == 0 {
			tol = 1e-5
		}
		switch buf.DType {
		case ir.F16, ir.E6M9, ir.UE6M10:
			tol = max(tol, 1e-3)
		case ir.BF16:
			tol = max(tol, 8e-3)
		}
		scale := 0.0
		for _, x := range want[b] {
			if !math.IsInf(x, 0) && !math.IsNaN(x) {
				scale = max(scale, math.Abs(x))
			}
		}
		if s.exact || !buf.DType.IsFloat() {
			tol = 0
		}
		bad := 0
		for i, x := range want[b] {
			if s.rounded {
				x = roundTo(buf.DType, x)
			}
			y := get(buf.DType, first[offset[b]+int64(i*buf.DType.Size()):])
			if x == y || math.Abs(x-y) <= tol*scale || math.IsNaN(x) && math.IsNaN(y) {
				continue
			}
			if bad++; bad <= 3 {
				t.Errorf("%s[%d] is %v, want %v (largest %g)", buf.Name, i, y, x, scale)
			}
		}
		if bad > 3 {
			t.Errorf("%s: %d of %d wrong", buf.Name, bad, buf.Len)
		}
	}
}

// mapKernel applies f to elements of inputs of one shape [rows, cols].
func mapKernel(name string, rows, cols int, in []ir.DType, out ir.DType, f func(b *kern.Builder, x []*kern.Node, at kern.Index) *kern.Node) *kern.Kernel {
	b := kern.NewBuilder(name)
	i, j := b.Dim(rows), b.Dim(cols)
	at := kern.V(i).Scale(cols).Add(kern.V(j))
	var x []*kern.Node
	for n, d := range in {
		x = append(x, b.Load(b.Buf(fmt.Sprint("x", n), d, rows*cols, kern.In), at))
	}
	o := b.Buf("y", out, rows*cols, kern.Out)
	b.Store(o, at, f(b, x, at))
	b.K.Vector = j
	return b.Done()
}

func TestMapKernelsAgreeWithTheEvaluator(t *testing.T) {
	f32 := ir.F32
	var ss []sample
	for _, n := range []int{1, 7, 16, 33, 100} {
		k := mapKernel("axpy", 3, n, []ir.DType{f32, f32}, f32, func(b *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node {
			return b.Op(kern.Add, b.Op(kern.Mul, x[0], b.F(1.5)), x[1])
		})
		ss = append(ss, sample{k: tiled(k, 2, 48)})
	}
	for _, p := range []kern.Prim{kern.Neg, kern.Abs, kern.Exp, kern.Tanh, kern.Floor} {
		k := mapKernel(p.String(), 5, 37, []ir.DType{f32}, f32, func(b *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node { return b.Op(p, x[0]) })
		ss = append(ss, sample{k: tiled(k, 2, 32)})
	}
	for _, p := range []kern.Prim{kern.Log, kern.Sqrt} {
		k := mapKernel(p.String(), 5, 37, []ir.DType{f32}, f32, func(b *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node { return b.Op(p, x[0]) })
		ss = append(ss, sample{k: tiled(k, 5, 37), fill: func(_, _ int, r *rand.Rand) float64 { return 0.1 + r.Float64() }})
	}
	for _, p := range []kern.Prim{kern.Add, kern.Sub, kern.Mul, kern.Div, kern.Min, kern.Max} {
		k := mapKernel(p.String(), 4, 50, []ir.DType{f32, f32}, f32, func(b *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node { return b.Op(p, x[0], x[1]) })
		ss = append(ss, sample{k: tiled(k, 4, 0)})
		k = mapKernel(p.String()+"_i32", 4, 50, []ir.DType{ir.I32, ir.I32}, ir.I32, func(b *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node { return b.Op(p, x[0], x[1]) })
		ss = append(ss, sample{k: tiled(k, 1, 16), fill: func(b, i int, r *rand.Rand) float64 {
			if b == 1 {
				return float64([]int{-3, -1, 1, 2, 7}[i%5])
			}
			return float64(r.IntN(2000) - 1000)
		}})
	}
	for _, p := range []kern.Prim{kern.Lt, kern.Le, kern.Eq} {
		for _, d := range []ir.DType{f32, ir.I32} {
			k := mapKernel(p.String(), 4, 50, []ir.DType{d, d}, ir.Bool, func(b *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node { return b.Op(p, x[0], x[1]) })
			ss = append(ss, sample{k: tiled(k, 4, 64), fill: func(_, _ int, r *rand.Rand) float64 { return float64(r.IntN(3)) }})
		}
	}
	for _, d := range []ir.DType{ir.F16, ir.BF16, f32} {
		for _, o := range []ir.DType{ir.F16, ir.BF16, f32} {
			k := mapKernel("cast", 4, 50, []ir.DType{d}, o, func(b *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node { return x[0] })
			ss = append(ss, sample{k: tiled(k, 4, 64), exact: false})
		}
	}
	k := mapKernel("bytes", 4, 50, []ir.DType{ir.I8, ir.Bool, ir.Bool}, ir.I8, func(b *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node {
		c := b.Op(kern.Or, b.Op(kern.Not, x[1]), b.Op(kern.And, x[1], x[2]))
		return b.Op(kern.Select, c, x[0], b.Cast(ir.I32, b.Op(kern.Mul, b.Cast(f32, x[1]), b.F(3))))
	})
	ss = append(ss, sample{k: tiled(k, 4, 64), fill: func(b, _ int, r *rand.Rand) float64 {
		if b == 0 {
			return float64(r.IntN(200) - 100)
		}
		return float64(r.IntN(2))
	}})
	k = mapKernel("pos", 4, 50, []ir.DType{f32}, f32, func(b *kern.Builder, x []*kern.Node, at kern.Index) *kern.Node {
		in := b.Test([]kern.Guard{{At: at, Lo: 13, Hi: 150}})
		return b.Op(kern.Select, in, b.Cast(f32, b.Pos(at)), x[0])
	})
	ss = append(ss, sample{k: tiled(k, 4, 64)})
	check(t, ss)
}

// Every code of the paper's formats widens exactly, and numbers around and
// between codes round as its appendix D says.
func TestOptimiserFormatsAreExact(t *testing.T) {
	var ss []sample
	for _, d := range []ir.DType{ir.E6M9, ir.UE6M10} {
		frac := 9
		if d == ir.UE6M10 {
			frac = 10
		}
		wide := mapKernel("widen_"+d.String(), 256, 256, []ir.DType{d}, ir.F32, func(_ *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node { return x[0] })
		ss = append(ss, sample{k: tiled(wide, 64, 256), exact: true, fill: func(_, i int, _ *rand.Rand) float64 {
			if d == ir.E6M9 && i >= 1<<15 {
				return -smallValue(uint16(i&0x7fff), frac)
			}
			return smallValue(uint16(i), frac)
		}})
		small := mapKernel("narrow_"+d.String(), 256, 256, []ir.DType{ir.F32}, d, func(_ *kern.Builder, x []*kern.Node, _ kern.Index) *kern.Node { return x[0] })
		ss = append(ss, sample{k: tiled(small, 64, 256), exact: true, rounded: true, fill: func(_, i int, r *rand.Rand) float64 {
			sign := float64(1 - 2*(i&1))
			switch m := uint16(r.IntN(1<<(6+frac) - 1)); i % 8 {
			case 0, 1:
				return sign * (smallValue(m, frac) + smallValue(m+1, frac)) / 2 // a tie
			case 2, 3:
				return sign * smallValue(m, frac)
			case 4:
				return []float64{0, math.Inf(1), math.NaN(), 1e9, math.Ldexp(1, -60), math.Ldexp(1, -61), 1e-40, math.Inf(-1)}[i/8%8]
			}
			return sign * math.Exp(60*r.Float64()-50)
		}})
	}
	check(t, ss)
}

// Random numbers of elements that lie side by side from multiples of 4 on, and
// of all others.
func TestRandomBitsAreExact(t *testing.T) {
	const rows, cols = 3, 44
	gathered := func(b *kern.Builder, at kern.Index) kern.Index {
		return kern.At(b.Load(b.Buf("id", ir.I32, rows+cols, kern.In), at))
	}
	flat := func(_ *kern.Builder, i, j kern.Index) kern.Index { return i.Scale(cols).Add(j) }
	var ss []sample
	for _, c := range []struct {
		name string
		at   func(b *kern.Builder, i, j kern.Index) kern.Index
		run  bool // four elements share an evaluation in vector lanes
	}{
		{"flat", flat, true},
		{"from4", func(_ *kern.Builder, i, j kern.Index) kern.Index { return i.Scale(cols).Add(j).Plus(4) }, true},
		{"from5", func(_ *kern.Builder, i, j kern.Index) kern.Index { return i.Scale(cols).Add(j).Plus(5) }, false},
		{"late", func(_ *kern.Builder, i, j kern.Index) kern.Index { return i.Scale(cols).Add(j).Plus(3 << 30) }, true},
		{"negative", func(_ *kern.Builder, i, j kern.Index) kern.Index { return i.Scale(-8).Add(j).Plus(-40) }, true},
		{"odd_rows", func(_ *kern.Builder, i, j kern.Index) kern.Index { return i.Scale(cols - 3).Add(j) }, false},
		{"strided", func(_ *kern.Builder, i, j kern.Index) kern.Index { return i.Scale(cols).Add(j.Scale(4)) }, false},
		{"transposed", func(_ *kern.Builder, i, j kern.Index) kern.Index { return j.Scale(rows).Add(i) }, false},
		{"row", func(_ *kern.Builder, i, _ kern.Index) kern.Index { return i }, false},
		{"gathered_row", func(b *kern.Builder, i, j kern.Index) kern.Index { return gathered(b, i).Scale(cols).Add(j) }, true},
		{"gathered_column", func(b *kern.Builder, i, j kern.Index) kern.Index {
			return gathered(b, j.Plus(rows)).Scale(4).Add(j).Add(i.Scale(cols))
		}, false},
	} {
		for _, lanes := range []string{"grid", "loop", "none"} {
			for _, out := range []ir.DType{ir.F32, ir.F16} {
				b := kern.NewBuilder(c.name + "_" + lanes)
				i := b.Dim(rows)
				key := b.Buf("key", ir.I32, 2, kern.In)
				seed, step := b.Load(key, kern.C(0)), b.Load(key, kern.C(1))
				y := b.Buf("y", out, rows*cols, kern.Out)
				write := func(j *kern.Var) {
					u := b.Random(seed, step, 0x7fffffff, c.at(b, kern.V(i), kern.V(j)))
					if out == ir.F16 {
						u = b.Round(ir.F16, b.F(1+0x1p-12), u)
					}
					b.Store(y, flat(b, kern.V(i), kern.V(j)), u)
				}
				if lanes == "loop" {
					b.For(cols, nil, func(j *kern.Var) ([]*kern.Node, error) { write(j); return nil, nil })
				} else {
					j := b.Dim(cols)
					write(j)
					if lanes == "grid" {
						b.K.Vector = j
					}
				}
				k := b.Done()
				// Rows are cut at multiples of 4, at others, and not at all.
				for _, tile := range []int{20, 18, 64} {
					k := *k
					if tile != 20 && (lanes != "grid" || out == ir.F16) {
						continue
					}
					run := c.run && lanes != "none" && tile != 18
					for _, target := range build.Targets() {
						if got := sharesPhilox(t, tiled(&k, 2, tile), target); got != run {
							t.Errorf("%s, tiles of %d, %s: shares evaluations: %v, want %v", k.Name, tile, target.Name, got, run)
						}
					}
					if lanes == "loop" {
						tiled(&k, 1, 0)
					}
					ss = append(ss, sample{k: &k, exact: true, fill: func(b, i int, r *rand.Rand) float64 {
						if b == 0 {
							return float64(-1<<30 + 1234567890*i)
						}
						return float64(r.IntN(1 << 20))
					}})
				}
			}
		}
	}
	check(t, ss)
}

// sharesPhilox reports whether lanes of k's code multiply by both factors of
// Philox in turn, as the words of one counter do.
func sharesPhilox(t *testing.T, k *kern.Kernel, target *build.Target) bool {
	t.Helper()
	text, err := Text(k, target)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(text, fmt.Sprintf("<i64 %d, i64 %d", 0xd2511f53, 0xcd9e8d57))
}

func TestIndexedAccess(t *testing.T) {
	f32 := ir.F32
	var ss []sample
	// broadcast of a row, a column and a scalar
	b := kern.NewBuilder("broadcast")
	i, j := b.Dim(6), b.Dim(45)
	at := kern.V(i).Scale(45).Add(kern.V(j))
	x := b.Load(b.Buf("x", f32, 270, kern.In), at)
	row := b.Load(b.Buf("row", f32, 45, kern.In), kern.V(j))
	col := b.Load(b.Buf("col", f32, 6, kern.In), kern.V(i))
	one := b.Load(b.Buf("one", f32, 1, kern.In), kern.C(0))
	y := b.Op(kern.Add, b.Op(kern.Mul, x, col), b.Op(kern.Mul, row, b.Op(kern.Exp, one)))
	b.Store(b.Buf("y", f32, 270, kern.Out), at, y)
	b.K.Vector = j
	ss = append(ss, sample{k: tiled(b.Done(), 4, 32)})
	// transpose, reading and writing with a stride, and a reversal
	for _, write := range []bool{false, true} {
		b = kern.NewBuilder("transpose")
		i, j = b.Dim(9), b.Dim(45)
		from, to := kern.V(j).Scale(9).Add(kern.V(i)), kern.V(i).Scale(45).Add(kern.V(j))
		if write {
			from, to = to, from
		}
		v := b.Load(b.Buf("x", f32, 405, kern.In), from)
		b.Store(b.Buf("y", f32, 405, kern.Out), to, v)
		b.K.Vector = j
		ss = append(ss, sample{k: tiled(b.Done(), 4, 32)})
	}
	b = kern.NewBuilder("reverse")
	j = b.Dim(45)
	v := b.Load(b.Buf("x", ir.F16, 45, kern.In), kern.V(j).Scale(-1).Plus(44))
	b.Store(b.Buf("y", ir.Bool, 45, kern.Out), kern.V(j), b.Op(kern.Lt, v, b.F(0)))
	b.K.Vector = j
	ss = append(ss, sample{k: tiled(b.Done(), 1, 32)})
	// a window with padding: guards on lanes and on rows
	b = kern.NewBuilder("window")
	i, j = b.Dim(7), b.Dim(45)
	src := kern.V(i).Plus(-2).Scale(40).Add(kern.V(j)).Plus(-3)
	buf := b.Buf("x", f32, 5*40, kern.In)
	vec := b.Buf("c", f32, 40, kern.In)
	v, _ = b.Within([]kern.Guard{{At: kern.V(i).Plus(-2), Lo: 0, Hi: 5}, {At: kern.V(j).Plus(-3), Lo: 0, Hi: 40}}, func() (*kern.Node, error) { return b.Load(buf, src), nil })
	w, _ := b.Within([]kern.Guard{{At: kern.V(i).Plus(-2), Lo: 0, Hi: 5}}, func() (*kern.Node, error) { return b.Load(vec, kern.V(i).Plus(-2)), nil })
	u, _ := b.Within([]kern.Guard{{At: kern.V(j), Lo: 3, Hi: 20}}, func() (*kern.Node, error) { return b.Load(vec, kern.V(i).Plus(4)), nil })
	b.Store(b.Buf("y", f32, 7*45, kern.Out), kern.V(i).Scale(45).Add(kern.V(j)), b.Op(kern.Add, b.Op(kern.Add, v, w), u))
	b.K.Vector = j
	ss = append(ss, sample{k: tiled(b.Done(), 4, 32)})
	// embedding rows, and a gather that differs between lanes
	for _, d := range []ir.DType{f32, ir.BF16} {
		b = kern.NewBuilder("embed")
		i, j = b.Dim(10), b.Dim(45)
		id := b.Load(b.Buf("id", ir.I32, 10, kern.In), kern.V(i))
		v = b.Load(b.Buf("table", d, 20*45, kern.In), kern.At(id).Scale(45).Add(kern.V(j)))
		b.Store(b.Buf("y", f32, 450, kern.Out), kern.V(i).Scale(45).Add(kern.V(j)), v)
		b.K.Vector = j
		ss = append(ss, sample{k: tiled(b.Done(), 3, 64), fill: func(b, i int, r *rand.Rand) float64 {
			if b == 0 {
				return float64(r.IntN(20))
			}
			return r.NormFloat64()
		}})
		b = kern.NewBuilder("pick")
		j = b.Dim(45)
		id = b.Load(b.Buf("id", ir.I32, 45, kern.In), kern.V(j))
		v = b.Load(b.Buf("x", d, 45*20, kern.In), kern.V(j).Scale(20).Add(kern.At(id)))
		b.Store(b.Buf("y", d, 45*20, kern.InOut), kern.V(j).Add(kern.At(id).Scale(45)), v)
		b.K.Vector = j
		ss = append(ss, sample{k: tiled(b.Done(), 1, 20), fill: func(b, i int, r *rand.Rand) float64 {
			if b == 0 {
				return float64(r.IntN(20))
			}
			return 1
		}})
	}
	check(t, ss)
}

func sumOf(n int, c kern.Combine, f func(v *kern.Var) *kern.Node, b *kern.Builder) *kern.Node {
	acc, _ := b.For(n, []kern.Combine{c}, func(v *kern.Var) ([]*kern.Node, error) { return []*kern.Node{f(v)}, nil })
	return acc[0]
}

func softmax(rows, n int, d ir.DType) *kern.Kernel {
	b := kern.NewBuilder("softmax")
	i := b.Dim(rows)
	x, y := b.Buf("x", d, rows*n, kern.In), b.Buf("y", ir.F32, rows*n, kern.Out)
	at := func(v *kern.Var) kern.Index { return kern.V(i).Scale(n).Add(kern.V(v)) }
	top := sumOf(n, kern.MaxOf, func(v *kern.Var) *kern.Node { return b.Load(x, at(v)) }, b)
	ex := func(v *kern.Var) *kern.Node { return b.Op(kern.Exp, b.Op(kern.Sub, b.Load(x, at(v)), top)) }
	inv := b.Op(kern.Div, b.F(1), sumOf(n, kern.Sum, ex, b))
	b.For(n, nil, func(v *kern.Var) ([]*kern.Node, error) {
		b.Store(y, at(v), b.Op(kern.Mul, ex(v), inv))
		return nil, nil
	})
	return b.Done()
}

func layerNorm(rows, n int) *kern.Kernel {
	b := kern.NewBuilder("layer_norm")
	i := b.Dim(rows)
	x, g, y := b.Buf("x", ir.F32, rows*n, kern.In), b.Buf("gain", ir.F32, n, kern.In), b.Buf("y", ir.F32, rows*n, kern.Out)
	m := b.Buf("mean", ir.F32, rows, kern.Out)
	at := func(v *kern.Var) kern.Index { return kern.V(i).Scale(n).Add(kern.V(v)) }
	mean := b.Op(kern.Mul, sumOf(n, kern.Sum, func(v *kern.Var) *kern.Node { return b.Load(x, at(v)) }, b), b.F(1/float64(n)))
	b.Store(m, kern.V(i), mean)
	variance := sumOf(n, kern.Sum, func(v *kern.Var) *kern.Node {
		d := b.Op(kern.Sub, b.Load(x, at(v)), mean)
		return b.Op(kern.Mul, d, d)
	}, b)
	r := b.Op(kern.Div, b.F(1), b.Op(kern.Sqrt, b.Op(kern.Add, b.Op(kern.Mul, variance, b.F(1/float64(n))), b.F(1e-5))))
	b.For(n, nil, func(v *kern.Var) ([]*kern.Node, error) {
		b.Store(y, at(v), b.Op(kern.Mul, b.Op(kern.Mul, b.Op(kern.Sub, b.Load(x, at(v)), mean), r), b.Load(g, kern.V(v))))
		return nil, nil
	})
	return b.Done()
}

func TestReductions(t *testing.T) {
	f32 := ir.F32
	var ss []sample
	for _, n := range []int{1, 7, 16, 33, 100, 300} {
		ss = append(ss, sample{k: tiled(softmax(5, n, f32), 2, 0)}, sample{k: tiled(layerNorm(5, n), 3, 0)})
	}
	ss = append(ss, sample{k: tiled(softmax(5, 77, ir.BF16), 2, 0)}, sample{k: tiled(softmax(5, 77, ir.F16), 2, 0)})
	// column sums: lanes over columns, loop over rows
	for _, n := range []int{1, 7, 16, 33, 100} {
		b := kern.NewBuilder("column_sums")
		j := b.Dim(n)
		x := b.Buf("x", f32, 37*n, kern.In)
		s := sumOf(37, kern.Sum, func(v *kern.Var) *kern.Node { return b.Load(x, kern.V(v).Scale(n).Add(kern.V(j))) }, b)
		w := sumOf(37, kern.MaxOf, func(v *kern.Var) *kern.Node { return b.Load(x, kern.V(v).Scale(n).Add(kern.V(j))) }, b)
		b.Store(b.Buf("sum", f32, n, kern.Out), kern.V(j), s)
		b.Store(b.Buf("max", ir.F16, n, kern.Out), kern.V(j), w)
		b.K.Vector = j
		ss = append(ss, sample{k: tiled(b.Done(), 1, 48)})
	}
	// full sum of squares over two loops, no grid; i32 sum and maximum
	b := kern.NewBuilder("full")
	x := b.Buf("x", f32, 11*77, kern.In)
	acc, _ := b.For(11, []kern.Combine{kern.Sum, kern.MaxOf}, func(r *kern.Var) ([]*kern.Node, error) {
		return b.For(77, []kern.Combine{kern.Sum, kern.MaxOf}, func(c *kern.Var) ([]*kern.Node, error) {
			v := b.Load(x, kern.V(r).Scale(77).Add(kern.V(c)))
			return []*kern.Node{b.Op(kern.Mul, v, v), b.Op(kern.Abs, v)}, nil
		})
	})
	b.Store(b.Buf("sum", f32, 1, kern.Out), kern.C(0), acc[0])
	b.Store(b.Buf("max", f32, 1, kern.Out), kern.C(0), acc[1])
	ss = append(ss, sample{k: tiled(b.Done(), 1, 0)})
	b = kern.NewBuilder("count")
	i := b.Dim(4)
	x = b.Buf("x", ir.I32, 400, kern.In)
	acc, _ = b.For(100, []kern.Combine{kern.Sum, kern.MaxOf}, func(c *kern.Var) ([]*kern.Node, error) {
		v := b.Load(x, kern.V(i).Scale(100).Add(kern.V(c)))
		return []*kern.Node{b.Op(kern.Mul, v, v), v}, nil
	})
	b.Store(b.Buf("sum", ir.I32, 4, kern.Out), kern.V(i), acc[0])
	b.Store(b.Buf("max", ir.I32, 4, kern.Out), kern.V(i), acc[1])
	ss = append(ss, sample{k: tiled(b.Done(), 1, 0), fill: func(_, _ int, r *rand.Rand) float64 { return float64(-1 - r.IntN(50)) }})
	// a row sum inside a kernel with lanes over columns
	b = kern.NewBuilder("centre")
	i, j := b.Dim(4), b.Dim(45)
	x = b.Buf("x", f32, 180, kern.In)
	mean := sumOf(45, kern.Sum, func(v *kern.Var) *kern.Node { return b.Load(x, kern.V(i).Scale(45).Add(kern.V(v))) }, b)
	at := kern.V(i).Scale(45).Add(kern.V(j))
	b.Store(b.Buf("y", f32, 180, kern.Out), at, b.Op(kern.Sub, b.Load(x, at), b.Op(kern.Mul, mean, b.F(1.0/45))))
	b.K.Vector = j
	ss = append(ss, sample{k: tiled(b.Done(), 1, 32)})
	check(t, ss)
}

func TestScatterAddKeepsItsOrder(t *testing.T) {
	var ss []sample
	fill := func(b, _ int, r *rand.Rand) float64 {
		if b == 0 {
			return float64(r.IntN(6))
		}
		return r.NormFloat64()
	}
	// lanes over columns
	b := kern.NewBuilder("scatter_columns")
	j := b.Dim(45)
	id, x, y := b.Buf("id", ir.I32, 30, kern.In), b.Buf("x", ir.F32, 30*45, kern.In), b.Buf("y", ir.F32, 6*45, kern.InOut)
	b.For(30, nil, func(v *kern.Var) ([]*kern.Node, error) {
		at := kern.At(b.Load(id, kern.V(v))).Scale(45).Add(kern.V(j))
		b.Store(y, at, b.Op(kern.Add, b.Load(y, at), b.Load(x, kern.V(v).Scale(45).Add(kern.V(j)))))
		return nil, nil
	})
	b.K.Vector = j
	ss = append(ss, sample{k: tiled(b.Done(), 1, 20), fill: fill})
	// iterations that meet in memory: lanes are not allowed
	b = kern.NewBuilder("scatter")
	id, x, y = b.Buf("id", ir.I32, 100, kern.In), b.Buf("x", ir.F32, 100, kern.In), b.Buf("y", ir.F32, 6, kern.InOut)
	b.For(100, nil, func(v *kern.Var) ([]*kern.Node, error) {
		at := kern.At(b.Load(id, kern.V(v)))
		b.Store(y, at, b.Op(kern.Add, b.Load(y, at), b.Load(x, kern.V(v))))
		return nil, nil
	})
	ss = append(ss, sample{k: tiled(b.Done(), 1, 0), fill: fill})
	// an update in place
	b = kern.NewBuilder("update")
	j = b.Dim(100)
	g, w := b.Buf("g", ir.BF16, 100, kern.In), b.Buf("w", ir.F32, 100, kern.InOut)
	b.Store(w, kern.V(j), b.Op(kern.Sub, b.Load(w, kern.V(j)), b.Op(kern.Mul, b.F(0.1), b.Load(g, kern.V(j)))))
	b.K.Vector = j
	ss = append(ss, sample{k: tiled(b.Done(), 1, 64)})
	check(t, ss)
}

func TestKernelsCompileForArm64(t *testing.T) {
	tools, err := toolchain.Find()
	if err != nil {
		t.Fatal(err)
	}
	arm, err := build.TargetByName("arm64")
	if err != nil {
		t.Fatal(err)
	}
	uniform := mapKernel("uniform", 3, 50, []ir.DType{ir.E6M9, ir.UE6M10, ir.Bool, ir.I8}, ir.BF16, func(b *kern.Builder, x []*kern.Node, at kern.Index) *kern.Node {
		y := b.Op(kern.Select, x[2], b.Op(kern.Mul, x[0], x[1]), b.Cast(ir.F32, b.Op(kern.Div, x[3], b.I(3))))
		return b.Op(kern.Max, b.Op(kern.Tanh, b.Op(kern.Log, y)), b.Random(b.I(1), b.I(2), 3, at))
	})
	product := matmulKernel(2, 300, 50, 1100, true, true, false, ir.F16)
	product.Name = "product"
	ks := []*kern.Kernel{tiled(softmax(5, 77, ir.F16), 2, 0), tiled(layerNorm(5, 33), 2, 0), tiled(uniform, 2, 32),
		product, PackKernel(product, "pack"), matmulKernel(1, 5, 9, 7, false, false, true, ir.BF16)}
	for _, name := range attentionForms {
		k, _ := attentionCases[6].kernel(name)
		ks = append(ks, k)
	}
	if _, err := Compile(context.Background(), tools, ks, []*build.Target{arm}); err != nil {
		t.Fatal(err)
	}
}
