package cpu

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/runtime/device/cpu"
)

// product is a [batch,m,n] product with optional transposes and a bias and
// tanh in its epilogue.
func matmulKernel(batch, m, n, k int, ta, tb, shared bool, d ir.DType) *kern.Kernel {
	b := kern.NewBuilder("matmul")
	var dims []*kern.Var
	for _, x := range []int{batch, m, n} {
		dims = append(dims, b.Dim(x))
	}
	bi, i, j := kern.V(dims[0]), kern.V(dims[1]), kern.V(dims[2])
	v := b.NewVar(k)
	s := kern.V(v)
	bufA := b.Buf("a", d, batch*m*k, kern.In)
	sizeB := batch * n * k
	if shared {
		sizeB = n * k
	}
	bufB, bias := b.Buf("b", d, sizeB, kern.In), b.Buf("bias", ir.F32, n, kern.In)
	a := bi.Scale(m * k).Add(i.Scale(k)).Add(s)
	if ta {
		a = bi.Scale(m * k).Add(s.Scale(m)).Add(i)
	}
	bx := s.Scale(n).Add(j)
	if tb {
		bx = j.Scale(k).Add(s)
	}
	if !shared {
		bx = bx.Add(bi.Scale(n * k))
	}
	c := b.Contract([]*kern.Var{v}, bufA, a, nil, bufB, bx, nil)
	out := bi.Scale(m * n).Add(i.Scale(n)).Add(j)
	x := b.Op(kern.Add, c, b.Load(bias, j))
	b.Store(b.Buf("y", ir.F32, batch*m*n, kern.Out), out, x)
	b.Store(b.Buf("z", d, batch*m*n, kern.Out), out, b.Op(kern.Tanh, b.Op(kern.Mul, x, b.F(0.1))))
	b.K.Vector = dims[2]
	return chunked(b.Done())
}

func chunked(k *kern.Kernel) *kern.Kernel {
	k.Tile, k.Chunks = TileFor(k)
	return k
}

func TestContractionsAgreeWithTheEvaluator(t *testing.T) {
	var ss []sample
	for _, s := range [][4]int{{1, 1, 1, 1}, {2, 7, 16, 33}, {1, 100, 33, 7}, {3, 16, 100, 16}, {1, 130, 200, 70}, {1, 1, 100, 300}, {1, 33, 1, 20}} {
		for i := 0; i < 4; i++ {
			ss = append(ss, sample{k: matmulKernel(s[0], s[1], s[2], s[3], i&1 != 0, i&2 != 0, i == 0, ir.F32), tol: 3e-5})
		}
	}
	ss = append(ss, sample{k: matmulKernel(2, 33, 40, 50, false, false, true, ir.F16)}, sample{k: matmulKernel(2, 33, 40, 50, false, true, false, ir.BF16)})
	check(t, ss)
}

func TestContractionsWithUnusualIndices(t *testing.T) {
	var ss []sample
	add := func(b *kern.Builder) { ss = append(ss, sample{k: chunked(b.Done()), tol: 3e-5}) }
	f32 := ir.F32
	// 3x3 convolution of a padded picture with bias
	for _, s := range []struct{ n, h, w, c, o, stride int }{{2, 5, 6, 3, 7, 1}, {1, 8, 8, 16, 33, 2}, {1, 4, 4, 1, 1, 1}} {
		b := kern.NewBuilder("conv")
		oh, ow := (s.h+2-3)/s.stride+1, (s.w+2-3)/s.stride+1
		n, h, w, o := b.Dim(s.n), b.Dim(oh), b.Dim(ow), b.Dim(s.o)
		i, j, c := b.NewVar(3), b.NewVar(3), b.NewVar(s.c)
		x, wt := b.Buf("x", f32, s.n*s.h*s.w*s.c, kern.In), b.Buf("w", f32, 9*s.c*s.o, kern.In)
		r := kern.V(h).Scale(s.stride).Add(kern.V(i)).Plus(-1)
		q := kern.V(w).Scale(s.stride).Add(kern.V(j)).Plus(-1)
		at := kern.Flat([]int{s.n, s.h, s.w, s.c}, []kern.Index{kern.V(n), r, q, kern.V(c)})
		wat := kern.Flat([]int{3, 3, s.c, s.o}, []kern.Index{kern.V(i), kern.V(j), kern.V(c), kern.V(o)})
		y := b.Contract([]*kern.Var{i, j, c}, x, at, []kern.Guard{{At: r, Lo: 0, Hi: s.h}, {At: q, Lo: 0, Hi: s.w}}, wt, wat, nil)
		bias := b.Load(b.Buf("bias", f32, s.o, kern.In), kern.V(o))
		out := kern.Flat([]int{s.n, oh, ow, s.o}, []kern.Index{kern.V(n), kern.V(h), kern.V(w), kern.V(o)})
		b.Store(b.Buf("y", f32, s.n*oh*ow*s.o, kern.Out), out, b.Op(kern.Add, y, bias))
		b.K.Vector = o
		add(b)
		// gradient of the weights
		b = kern.NewBuilder("conv_weights")
		i, j, c, o = b.Dim(3), b.Dim(3), b.Dim(s.c), b.Dim(s.o)
		n, h, w = b.NewVar(s.n), b.NewVar(oh), b.NewVar(ow)
		x, wt = b.Buf("x", f32, s.n*s.h*s.w*s.c, kern.In), b.Buf("dy", f32, s.n*oh*ow*s.o, kern.In)
		r = kern.V(h).Scale(s.stride).Add(kern.V(i)).Plus(-1)
		q = kern.V(w).Scale(s.stride).Add(kern.V(j)).Plus(-1)
		at = kern.Flat([]int{s.n, s.h, s.w, s.c}, []kern.Index{kern.V(n), r, q, kern.V(c)})
		out = kern.Flat([]int{s.n, oh, ow, s.o}, []kern.Index{kern.V(n), kern.V(h), kern.V(w), kern.V(o)})
		y = b.Contract([]*kern.Var{n, h, w}, x, at, []kern.Guard{{At: r, Lo: 0, Hi: s.h}, {At: q, Lo: 0, Hi: s.w}}, wt, out, nil)
		b.Store(b.Buf("dw", f32, 9*s.c*s.o, kern.Out), kern.Flat([]int{3, 3, s.c, s.o}, []kern.Index{kern.V(i), kern.V(j), kern.V(c), kern.V(o)}), y)
		b.K.Vector = o
		add(b)
	}
	// heads: [t, h, d] x [t2, h, d] -> [h, t, t2]; d summed, h a batch
	b := kern.NewBuilder("heads")
	h, i, j := b.Dim(3), b.Dim(10), b.Dim(20)
	v := b.NewVar(8)
	q, k := b.Buf("q", f32, 10*3*8, kern.In), b.Buf("k", f32, 20*3*8, kern.In)
	y := b.Contract([]*kern.Var{v}, q, kern.Flat([]int{10, 3, 8}, []kern.Index{kern.V(i), kern.V(h), kern.V(v)}), nil,
		k, kern.Flat([]int{20, 3, 8}, []kern.Index{kern.V(j), kern.V(h), kern.V(v)}), nil)
	b.Store(b.Buf("s", f32, 600, kern.Out), kern.Flat([]int{3, 10, 20}, []kern.Index{kern.V(h), kern.V(i), kern.V(j)}), y)
	add(b)
	// rows last: the operands exchange their roles
	b = kern.NewBuilder("turned")
	j, i = b.Dim(20), b.Dim(37)
	v = b.NewVar(9)
	q, k = b.Buf("a", f32, 37*9, kern.In), b.Buf("b", f32, 9*20, kern.In)
	y = b.Contract([]*kern.Var{v}, q, kern.V(i).Scale(9).Add(kern.V(v)), nil, k, kern.V(v).Scale(20).Add(kern.V(j)), nil)
	b.Store(b.Buf("y", f32, 740, kern.Out), kern.V(j).Scale(37).Add(kern.V(i)), b.Op(kern.Mul, y, b.Cast(f32, b.Pos(kern.V(i)))))
	add(b)
	// columns of two dimensions that the result does not keep together
	b = kern.NewBuilder("apart")
	j0, i, j1 := b.Dim(3), b.Dim(5), b.Dim(20)
	v = b.NewVar(9)
	q, k = b.Buf("a", f32, 5*9, kern.In), b.Buf("b", f32, 9*60, kern.In)
	y = b.Contract([]*kern.Var{v}, q, kern.V(i).Scale(9).Add(kern.V(v)), nil, k, kern.V(v).Scale(60).Add(kern.V(j0).Scale(20)).Add(kern.V(j1)), nil)
	b.Store(b.Buf("y", f32, 300, kern.Out), kern.V(j0).Scale(100).Add(kern.V(i).Scale(20)).Add(kern.V(j1)), y)
	add(b)
	// columns of two dimensions that it does keep together
	b = kern.NewBuilder("together")
	i, j0, j1 = b.Dim(5), b.Dim(3), b.Dim(20)
	v = b.NewVar(9)
	q, k = b.Buf("a", f32, 5*9, kern.In), b.Buf("b", f32, 9*60, kern.In)
	y = b.Contract([]*kern.Var{v}, q, kern.V(i).Scale(9).Add(kern.V(v)), nil, k, kern.V(v).Scale(60).Add(kern.V(j0).Scale(20)).Add(kern.V(j1)), nil)
	b.Store(b.Buf("y", f32, 300, kern.Out), kern.V(i).Scale(60).Add(kern.V(j0).Scale(20)).Add(kern.V(j1)), y)
	add(b)
	// a full inner product, and a product of every pair
	b = kern.NewBuilder("inner")
	v = b.NewVar(100)
	q, k = b.Buf("a", f32, 100, kern.In), b.Buf("b", f32, 100, kern.In)
	y = b.Contract([]*kern.Var{v}, q, kern.V(v), nil, k, kern.V(v), nil)
	b.Store(b.Buf("y", f32, 1, kern.Out), kern.C(0), y)
	add(b)
	b = kern.NewBuilder("diagonal")
	i = b.Dim(20)
	v = b.NewVar(33)
	q, k = b.Buf("a", f32, 20*33, kern.In), b.Buf("b", f32, 20*33, kern.In)
	y = b.Contract([]*kern.Var{v}, q, kern.V(i).Scale(33).Add(kern.V(v)), nil, k, kern.V(i).Scale(33).Add(kern.V(v)), nil)
	b.Store(b.Buf("y", f32, 20, kern.Out), kern.V(i), y)
	add(b)
	check(t, ss)
}

// A product whose operand is gathered is written as loops.
func TestContractionsOfGatheredRows(t *testing.T) {
	var ss []sample
	for _, vector := range []bool{false, true} {
		b := kern.NewBuilder("gathered")
		i, j := b.Dim(6), b.Dim(21)
		v := b.NewVar(35)
		id := b.Load(b.Buf("id", ir.I32, 6, kern.In), kern.V(i))
		q, k := b.Buf("table", ir.F32, 9*35, kern.In), b.Buf("b", ir.F32, 35*21, kern.In)
		y := b.Contract([]*kern.Var{v}, q, kern.At(id).Scale(35).Add(kern.V(v)), nil, k, kern.V(v).Scale(21).Add(kern.V(j)), nil)
		b.Store(b.Buf("y", ir.F32, 6*21, kern.Out), kern.V(i).Scale(21).Add(kern.V(j)), b.Op(kern.Exp, b.Op(kern.Mul, y, b.F(0.1))))
		if vector {
			b.K.Vector = j
		}
		ss = append(ss, sample{k: chunked(b.Done()), tol: 3e-5, fill: func(b, _ int, r *rand.Rand) float64 {
			if b == 0 {
				return float64(r.IntN(9))
			}
			return r.NormFloat64()
		}})
	}
	check(t, ss)
}

// scaled makes the right operand of a matmulKernel relu(b*bias): its elements
// times those of the columns.
func scaled(k *kern.Kernel) {
	node := func(n kern.Node) *kern.Node {
		n.ID, n.Type = k.NumNodes, ir.F32
		k.NumNodes++
		return &n
	}
	c := k.FindContract()
	bias := node(kern.Node{Prim: kern.Load, Buf: 2, At: kern.V(k.Dims[len(k.Dims)-1])})
	x := node(kern.Node{Prim: kern.Mul, Args: []*kern.Node{c.Args[1], bias}})
	c.Args[1] = node(kern.Node{Prim: kern.Max, Args: []*kern.Node{x, node(kern.Node{Prim: kern.Const})}})
}

// A packed product has the bits of the same product in place: the order of
// its sums is that of its blocks alone.
func TestPackedOperandsGiveTheSameBits(t *testing.T) {
	targets, tools := here(t)
	for _, c := range []struct {
		batch, n, k int
		tb, shared  bool
		d           ir.DType
		prologue    bool
	}{{1, 130, 70, false, true, ir.F32, false}, {2, 90, 1100, true, false, ir.F32, false}, {2, 100, 65, true, true, ir.F16, false},
		{1, 130, 70, false, true, ir.F32, true}, {2, 100, 65, true, true, ir.F16, true}} {
		plain := matmulKernel(c.batch, 270, c.n, c.k, false, c.tb, c.shared, c.d)
		packed := matmulKernel(c.batch, 270, c.n, c.k, false, c.tb, c.shared, c.d)
		packed.Name = "packed"
		from := []int{1}
		if c.prologue {
			scaled(plain)
			scaled(packed)
			from = []int{1, 2}
		}
		if !WantsPack(packed) {
			t.Fatal("a product of 270 rows is not packed")
		}
		pack := PackKernel(packed, "pack")
		packed.Packed = true
		right := *kern.Widest(packed.FindContract().Args[1])
		right.Buf = len(packed.Bufs)
		packed.FindContract().Args[1] = &right
		packed.Bufs = append(packed.Bufs, pack.Bufs[len(pack.Bufs)-1])
		chunked(packed)
		ks := []*kern.Kernel{plain, pack, packed}
		libs, err := Compile(context.Background(), tools, ks, targets)
		if err != nil {
			t.Fatal(err)
		}
		for _, target := range targets {
			lib, err := cpu.Load(libs[target.Name])
			if err != nil {
				t.Fatal(err)
			}
			arena, err := cpu.NewArena(16 << 20)
			if err != nil {
				t.Fatal(err)
			}
			pool, err := cpu.NewPool(cpu.PoolOptions{Workers: 2, Scratch: ScratchBytes(ks, targets)})
			if err != nil {
				t.Fatal(err)
			}
			// a, b, bias, y and z of plain; y and z of packed; the workspace
			var at []int64
			next := int64(4096)
			rng := rand.New(rand.NewPCG(1, 2))
			for _, b := range append(append(append([]kern.Buf(nil), plain.Bufs...), plain.Bufs[3:]...), packed.Bufs[5]) {
				at = append(at, next)
				for i := 0; i < b.Len; i++ {
					put(b.DType, arena.Bytes(next+int64(i*b.DType.Size()), b.DType.Size()), rng.NormFloat64())
				}
				next += int64(roundUp(b.Len*b.DType.Size(), 64))
			}
			run := func(name string, chunks int, bufs ...int) {
				fn, err := lib.Symbol(name)
				if err != nil {
					t.Fatal(err)
				}
				for i, b := range bufs {
					arena.I64(int64(8*i), 1)[0] = int64(arena.Addr(at[b]))
				}
				pool.Run(fn, arena.Addr(0), chunks)
			}
			run(plain.Name, plain.Chunks, 0, 1, 2, 3, 4)
			run(pack.Name, pack.Chunks, append(from, 7)...)
			run(packed.Name, packed.Chunks, 0, 1, 2, 5, 6, 7)
			for i := 3; i < 5; i++ {
				n := plain.Bufs[i].Len * plain.Bufs[i].DType.Size()
				if string(arena.Bytes(at[i], n)) != string(arena.Bytes(at[i+2], n)) {
					t.Errorf("%s, %+v: %s differs", target.Name, c, plain.Bufs[i].Name)
				}
			}
			pool.Close()
			lib.Close()
			arena.Close()
		}
	}
}
