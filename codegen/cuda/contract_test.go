package cuda_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/cuda/emu"
	"github.com/gouache-ml/gouache/codegen/cuda/simt"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// tolerances are the largest errors allowed, relative to the largest magnitude of
// a buffer, by the type of what is stored. Sums of a few hundred terms in f32
// differ from those of the evaluator, in f64, by 4e-7 of the largest, after GELU
// and more by 1.3e-6; where the result or something on the way to it is rounded
// to 16 bits, that may tip it to the next number: 2^-11 or 2^-8 of it.
var tolerances = map[ir.DType]float64{
	ir.F32:  2e-6, // measured: 1.3e-6
	ir.F16:  5e-4, // measured: 3.6e-4
	ir.BF16: 4e-3, // measured: 7.8e-4
}

// productErrors are the largest errors so far by type; go test -v shows them.
var productErrors = map[ir.DType]float64{}

func showErrors(t *testing.T) {
	t.Cleanup(func() { t.Logf("largest errors so far: %v", productErrors) })
}

// on is a target, changed.
func on(t *testing.T, name, tensor string, s *cuda.Shape) *cuda.Target {
	t.Helper()
	tg, err := cuda.TargetByName(name)
	if err != nil {
		t.Fatal(err)
	}
	x := *tg
	x.Tensor, x.Shape = tensor, s
	return &x
}

// product checks a product on the emulator, under two schedules. coarse is the
// type that something on the way to a result is rounded to, or ir.Invalid.
func product(t *testing.T, k *kern.Kernel, tg *cuda.Target, coarse ir.DType) {
	t.Helper()
	x, err := emu.Compile(k, tg)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", tg.Name, tg.Tensor, err, k)
	}
	want := fill(k, 4)
	if err := kern.Eval(k, want); err != nil {
		t.Fatal(err)
	}
	var first [][]float64
	for seed := range 2 {
		got := fill(k, 4)
		if _, err := x.Run(simt.Options{Seed: int64(seed + 1), Check: true}, got); err != nil {
			t.Fatalf("%s %s %+v: %v\n%s", tg.Name, tg.Tensor, tg.Shape, err, k)
		}
		for i, b := range k.Bufs {
			if b.Mode == kern.In {
				continue
			}
			d := b.DType
			if tolerances[coarse] > tolerances[d] {
				d = coarse
			}
			size, diff, at := 1e-3, 0.0, 0
			for j, w := range want[i] {
				size = max(size, math.Abs(w))
				if e := math.Abs(got[i][j] - w); !(e <= diff) {
					diff, at = e, j
				}
				if first != nil && got[i][j] != first[i][j] {
					t.Fatalf("%s: buffer %d has other bits under another schedule\n%s", tg.Name, i, k)
				}
			}
			productErrors[d] = max(productErrors[d], diff/size)
			if !(diff <= tolerances[d]*size) {
				t.Fatalf("%s %s %+v: buffer %d: element %d is %v, want %v\n%s", tg.Name, tg.Tensor, tg.Shape, i, at, got[i][at], want[i][at], k)
			}
		}
		first = got
	}
}

// matmul is what matmulKernel makes: sizes, forms, and types of operands and
// result.
type matmul struct {
	batch, m, n, k int
	ta, tb         bool
	in, out        ir.DType
	rest           bool // after the product a bias, GELU and a residual sum, with the sum without them as another result
}

func (s matmul) kernel() *kern.Kernel {
	b := kern.NewBuilder("product")
	var z kern.Index
	if s.batch > 1 {
		z = kern.V(b.Dim(s.batch))
	}
	i, j, v := b.Dim(s.m), b.Dim(s.n), b.NewVar(s.k)
	a, w := b.Buf("a", s.in, s.batch*s.m*s.k, kern.In), b.Buf("b", s.in, s.batch*s.k*s.n, kern.In)
	at := kern.V(i).Scale(s.k).Add(kern.V(v))
	if s.ta {
		at = kern.V(v).Scale(s.m).Add(kern.V(i))
	}
	wt := kern.V(v).Scale(s.n).Add(kern.V(j))
	if s.tb {
		wt = kern.V(j).Scale(s.k).Add(kern.V(v))
	}
	y := b.Contract([]*kern.Var{v}, a, at.Add(z.Scale(s.m*s.k)), nil, w, wt.Add(z.Scale(s.k*s.n)), nil)
	out := z.Scale(s.m * s.n).Add(kern.V(i).Scale(s.n)).Add(kern.V(j))
	if s.rest {
		b.Store(b.Buf("sum", ir.F32, s.batch*s.m*s.n, kern.Out), out, y)
		y = b.Op(kern.Add, y, b.Load(b.Buf("bias", s.in, s.n, kern.In), kern.V(j)))
		y = gelu(b, b.Op(kern.Mul, y, b.F(0.1)))
		y = b.Op(kern.Add, y, b.Load(b.Buf("residual", s.in, s.batch*s.m*s.n, kern.In), out))
	}
	b.Store(b.Buf("y", s.out, s.batch*s.m*s.n, kern.Out), out, y)
	return b.Done()
}

func gelu(b *kern.Builder, x *kern.Node) *kern.Node {
	cube := b.Op(kern.Mul, x, b.Op(kern.Mul, x, x))
	u := b.Op(kern.Mul, b.F(0.7978845608), b.Op(kern.Add, x, b.Op(kern.Mul, b.F(0.044715), cube)))
	return b.Op(kern.Mul, b.Op(kern.Mul, b.F(0.5), x), b.Op(kern.Add, b.F(1), b.Op(kern.Tanh, u)))
}

func forms(f func(ta, tb bool)) {
	for i := range 4 {
		f(i&1 != 0, i&2 != 0)
	}
}

func TestProductsOfAnySize(t *testing.T) {
	showErrors(t)
	sizes := []int{1, 7, 16, 33, 65, 129, 300}
	r := rand.New(rand.NewPCG(3, 4))
	size := func() int { return sizes[r.IntN(len(sizes))] }
	for _, tg := range []*cuda.Target{on(t, "sm_70", "m8n8k4", nil), on(t, "sm_80", "mma", nil), on(t, "sm_90a", "wgmma", nil)} {
		for _, d := range []ir.DType{ir.F32, ir.F16, ir.BF16} {
			forms(func(ta, tb bool) {
				for i := range 2 {
					out := ir.F32
					if i == 1 {
						out = d
					}
					product(t, matmul{batch: 1 + r.IntN(2), m: size(), n: size(), k: size(), ta: ta, tb: tb, in: d, out: out}.kernel(), tg, 0)
				}
			})
		}
	}
}

// Sizes of whole granules are copied 16 bytes at a time; the sum is long enough
// for every ring of stages to go round twice, four stages of 32 terms.
func TestProductsByMma(t *testing.T) {
	showErrors(t)
	for _, tg := range []*cuda.Target{on(t, "sm_70", "m8n8k4", nil), on(t, "sm_80", "mma", nil), on(t, "sm_90a", "mma", nil)} {
		d := ir.BF16
		if tg.Tensor == "m8n8k4" {
			d = ir.F16
		}
		forms(func(ta, tb bool) {
			product(t, matmul{batch: 2, m: 72, n: 136, k: 296, ta: ta, tb: tb, in: d, out: d, rest: true}.kernel(), tg, d)
			product(t, matmul{batch: 1, m: 24, n: 40, k: 288, ta: ta, tb: tb, in: ir.F16, out: ir.F32}.kernel(), tg, 0)
			// one operand by granules, the other not
			product(t, matmul{batch: 1, m: 64, n: 67, k: 288, ta: ta, tb: tb, in: ir.F16, out: ir.F32, rest: true}.kernel(), tg, 0)
		})
		for _, s := range []cuda.Shape{{M: 64, N: 64}, {M: 128, N: 128}} {
			tg := on(t, tg.Name, tg.Tensor, &s)
			product(t, matmul{batch: 1, m: 136, n: 72, k: 264, in: ir.F16, out: ir.F32}.kernel(), tg, 0)
			product(t, matmul{batch: 1, m: 130, n: 129, k: 296, tb: true, in: d, out: d, rest: true}.kernel(), tg, d)
		}
	}
}

// Every shape of blocks, sums long enough for the ring to go round twice, sizes
// that are no multiples of tiles, and more tiles than blocks.
func TestProductsByWgmma(t *testing.T) {
	showErrors(t)
	for _, s := range []struct {
		shape cuda.Shape
		k     int
	}{{cuda.Shape{M: 128, N: 256, Cluster: 1, Parts: 1}, 536}, {cuda.Shape{M: 128, N: 256, Cluster: 2, Parts: 1}, 536}, {cuda.Shape{M: 128, N: 224, Cluster: 1, Parts: 1}, 536},
		{cuda.Shape{M: 128, N: 240, Cluster: 2, Parts: 1}, 536}, {cuda.Shape{M: 128, N: 128, Cluster: 2, Parts: 1}, 904}, {cuda.Shape{M: 64, N: 48, Cluster: 1, Parts: 1}, 1096}} {
		forms(func(ta, tb bool) {
			d := ir.F16
			tg := on(t, "sm_90a", "wgmma", &s.shape)
			if ta != tb {
				d = ir.BF16
				product(t, matmul{batch: 1, m: s.shape.M + 8, n: s.shape.N - 24, k: s.k, ta: ta, tb: tb, in: d, out: ir.F32}.kernel(), tg, 0)
			}
			product(t, matmul{batch: 2, m: 72, n: s.shape.N + 8, k: 72, ta: ta, tb: tb, in: d, out: d, rest: true}.kernel(), tg, d)
		})
	}
	// a block has several tiles
	for _, s := range []cuda.Shape{{M: 64, N: 32, Cluster: 1}, {M: 128, N: 64, Cluster: 2}, {M: 64, N: 32, Cluster: 1, Alternate: true},
		{M: 64, N: 48, Cluster: 2, Alternate: true}, {M: 128, N: 32, Cluster: 2, Alternate: true}} {
		s.Parts, s.Blocks = 1, 4
		tg := on(t, "sm_90a", "wgmma", &s)
		for _, k := range []int{40, 200, 584} {
			product(t, matmul{batch: 2, m: 280, n: 168, k: k, tb: k == 40, in: ir.F16, out: ir.F16}.kernel(), tg, 0)
		}
	}
	tg := on(t, "sm_90a", "wgmma", &cuda.Shape{M: 128, N: 128, Cluster: 2, Parts: 1, Alternate: true, Blocks: 2})
	forms(func(ta, tb bool) {
		product(t, matmul{batch: 1, m: 264, n: 272, k: 72, ta: ta, tb: tb, in: ir.BF16, out: ir.BF16, rest: true}.kernel(), tg, ir.BF16)
	})
}

// Few tiles of long sums: the blocks of a cluster have parts of them.
func TestProductsInParts(t *testing.T) {
	showErrors(t)
	for _, parts := range []int{2, 4, 8} {
		tg := on(t, "sm_90a", "wgmma", &cuda.Shape{M: 64, N: 64, Cluster: 1, Parts: parts})
		product(t, matmul{batch: 1, m: 136, n: 80, k: 1096, ta: true, in: ir.F16, out: ir.F16, rest: true}.kernel(), tg, ir.F16)
	}
	for _, tg := range []*cuda.Target{on(t, "sm_90a", "wgmma", nil), on(t, "sm_90a", "mma", nil)} {
		for _, d := range []ir.DType{ir.F16, ir.F32} {
			product(t, matmul{batch: 1, m: 136, n: 80, k: 1096, ta: true, in: d, out: ir.F32, rest: true}.kernel(), tg, d)
			product(t, matmul{batch: 2, m: 33, n: 67, k: 900, in: d, out: ir.F32}.kernel(), tg, 0)
		}
	}
}

// heads are [b, t, h, d] x [b, s, h, d] -> [b, h, t, s]: batches of two
// dimensions that lie apart.
func TestProductsOfHeads(t *testing.T) {
	showErrors(t)
	nb, nh, nt, ns, nd := 2, 3, 72, 64, 40
	b := kern.NewBuilder("heads")
	z, h, i, j, v := b.Dim(nb), b.Dim(nh), b.Dim(nt), b.Dim(ns), b.NewVar(nd)
	q, k := b.Buf("q", ir.F16, nb*nt*nh*nd, kern.In), b.Buf("k", ir.F16, nb*ns*nh*nd, kern.In)
	y := b.Contract([]*kern.Var{v}, q, kern.Flat([]int{nb, nt, nh, nd}, []kern.Index{kern.V(z), kern.V(i), kern.V(h), kern.V(v)}), nil,
		k, kern.Flat([]int{nb, ns, nh, nd}, []kern.Index{kern.V(z), kern.V(j), kern.V(h), kern.V(v)}), nil)
	out := kern.Flat([]int{nb, nh, nt, ns}, []kern.Index{kern.V(z), kern.V(h), kern.V(i), kern.V(j)})
	b.Store(b.Buf("s", ir.F32, nb*nh*nt*ns, kern.Out), out, y)
	kn := b.Done()
	for _, tg := range []*cuda.Target{on(t, "sm_70", "m8n8k4", nil), on(t, "sm_80", "mma", nil), on(t, "sm_90a", "wgmma", nil)} {
		product(t, kn, tg, 0)
	}
}

// convolutions are 3x3 with a padding of 1: forward with a bias, and the
// gradients of weights and picture.
func TestConvolutions(t *testing.T) {
	showErrors(t)
	for _, s := range []struct {
		n, h, w, c, o, stride int
		d                     ir.DType
	}{{2, 5, 6, 3, 7, 1, ir.F16}, {2, 6, 6, 16, 24, 1, ir.BF16}, {1, 9, 8, 16, 40, 2, ir.F16}, {1, 4, 4, 1, 1, 1, ir.F32}, {1, 7, 7, 40, 16, 1, ir.F16}} {
		oh, ow := (s.h-1)/s.stride+1, (s.w-1)/s.stride+1
		picture, weights, result := []int{s.n, s.h, s.w, s.c}, []int{3, 3, s.c, s.o}, []int{s.n, oh, ow, s.o}
		count := func(shape []int) int { return shape[0] * shape[1] * shape[2] * shape[3] }
		ix := func(vs ...any) (out []kern.Index) {
			for _, v := range vs {
				switch v := v.(type) {
				case *kern.Var:
					out = append(out, kern.V(v))
				case kern.Index:
					out = append(out, v)
				}
			}
			return out
		}
		var ks []*kern.Kernel

		b := kern.NewBuilder("forward")
		n, h, w, o := b.Dim(s.n), b.Dim(oh), b.Dim(ow), b.Dim(s.o)
		i, j, c := b.NewVar(3), b.NewVar(3), b.NewVar(s.c)
		r, q := kern.V(h).Scale(s.stride).Add(kern.V(i)).Plus(-1), kern.V(w).Scale(s.stride).Add(kern.V(j)).Plus(-1)
		gs := []kern.Guard{{At: r, Lo: 0, Hi: s.h}, {At: q, Lo: 0, Hi: s.w}}
		x, wt := b.Buf("x", s.d, count(picture), kern.In), b.Buf("w", s.d, count(weights), kern.In)
		y := b.Contract([]*kern.Var{i, j, c}, x, kern.Flat(picture, ix(n, r, q, c)), gs, wt, kern.Flat(weights, ix(i, j, c, o)), nil)
		y = b.Op(kern.Add, y, b.Load(b.Buf("bias", ir.F32, s.o, kern.In), kern.V(o)))
		b.Store(b.Buf("y", s.d, count(result), kern.Out), kern.Flat(result, ix(n, h, w, o)), y)
		ks = append(ks, b.Done())

		b = kern.NewBuilder("weights")
		i, j, c, o = b.Dim(3), b.Dim(3), b.Dim(s.c), b.Dim(s.o)
		n, h, w = b.NewVar(s.n), b.NewVar(oh), b.NewVar(ow)
		r, q = kern.V(h).Scale(s.stride).Add(kern.V(i)).Plus(-1), kern.V(w).Scale(s.stride).Add(kern.V(j)).Plus(-1)
		gs = []kern.Guard{{At: r, Lo: 0, Hi: s.h}, {At: q, Lo: 0, Hi: s.w}}
		x, dy := b.Buf("x", s.d, count(picture), kern.In), b.Buf("dy", s.d, count(result), kern.In)
		y = b.Contract([]*kern.Var{n, h, w}, x, kern.Flat(picture, ix(n, r, q, c)), gs, dy, kern.Flat(result, ix(n, h, w, o)), nil)
		b.Store(b.Buf("dw", ir.F32, count(weights), kern.Out), kern.Flat(weights, ix(i, j, c, o)), y)
		ks = append(ks, b.Done())

		if s.stride == 1 {
			b = kern.NewBuilder("picture")
			n, h, w, c = b.Dim(s.n), b.Dim(s.h), b.Dim(s.w), b.Dim(s.c)
			i, j, o = b.NewVar(3), b.NewVar(3), b.NewVar(s.o)
			r, q = kern.V(h).Add(kern.V(i).Scale(-1)).Plus(1), kern.V(w).Add(kern.V(j).Scale(-1)).Plus(1)
			gs = []kern.Guard{{At: r, Lo: 0, Hi: oh}, {At: q, Lo: 0, Hi: ow}}
			dy, wt = b.Buf("dy", s.d, count(result), kern.In), b.Buf("w", s.d, count(weights), kern.In)
			y = b.Contract([]*kern.Var{i, j, o}, dy, kern.Flat(result, ix(n, r, q, o)), gs, wt, kern.Flat(weights, ix(i, j, c, o)), nil)
			b.Store(b.Buf("dx", s.d, count(picture), kern.Out), kern.Flat(picture, ix(n, h, w, c)), y)
			ks = append(ks, b.Done())
		}
		for _, k := range ks {
			for _, tg := range []*cuda.Target{on(t, "sm_70", "m8n8k4", nil), on(t, "sm_80", "mma", nil), on(t, "sm_90a", "wgmma", nil)} {
				product(t, k, tg, 0)
			}
		}
	}
}

// Operands are computed where they are copied: max(x*scale, 0) rounded to 16
// bits, by the other or the summed dimension's scale, whole or padded.
func TestProductsOfExpressions(t *testing.T) {
	showErrors(t)
	for _, s := range []struct {
		m, n, k int
		d       ir.DType
		round   bool
	}{{72, 40, 296, ir.BF16, true}, {33, 65, 129, ir.F16, true}, {65, 40, 72, ir.F16, false}} {
		forms(func(ta, tb bool) {
			b := kern.NewBuilder("expressions")
			i, j, v := b.Dim(s.m), b.Dim(s.n), b.NewVar(s.k)
			at, wt := kern.V(i).Scale(s.k).Add(kern.V(v)), kern.V(v).Scale(s.n).Add(kern.V(j))
			if ta {
				at = kern.V(v).Scale(s.m).Add(kern.V(i))
			}
			if tb {
				wt = kern.V(j).Scale(s.k).Add(kern.V(v))
			}
			load := func(name string, d ir.DType, n int, at kern.Index) *kern.Node {
				return &kern.Node{Prim: kern.Load, Type: ir.F32, Buf: b.Buf(name, d, n, kern.In), At: at}
			}
			op := func(p kern.Prim, args ...*kern.Node) *kern.Node {
				return &kern.Node{Prim: p, Type: ir.F32, Args: args}
			}
			round := func(x *kern.Node) *kern.Node {
				if !s.round {
					return x
				}
				r := op(kern.Round, x)
				r.I = int64(s.d)
				return r
			}
			x := op(kern.Mul, load("a", s.d, s.m*s.k, at), load("scale", ir.F32, s.k, kern.V(v)))
			x = round(op(kern.Max, x, op(kern.Const)))
			w := round(op(kern.Mul, load("b", s.d, s.k*s.n, wt), load("width", s.d, s.n, kern.V(j))))
			gs := []kern.Guard{{At: kern.V(i).Add(kern.V(v)), Lo: 5, Hi: s.m + s.k - 9}}
			y := b.ContractOf([]*kern.Var{v}, x, gs, w, nil)
			b.Store(b.Buf("y", ir.F32, s.m*s.n, kern.Out), kern.V(i).Scale(s.n).Add(kern.V(j)), y)
			k := b.Done()
			coarse := ir.Invalid
			if s.round {
				coarse = s.d
			}
			for _, tg := range []*cuda.Target{on(t, "sm_70", "m8n8k4", nil), on(t, "sm_80", "mma", nil), on(t, "sm_90a", "wgmma", nil)} {
				product(t, k, tg, coarse)
			}
		})
	}
}

// Results go where the body says: to two matrices, one turned, and with a
// column's scale that is gathered.
func TestProductsWithUnusualRests(t *testing.T) {
	showErrors(t)
	m, n, k := 72, 136, 72
	b := kern.NewBuilder("rest")
	i, j, v := b.Dim(m), b.Dim(n), b.NewVar(k)
	a, w := b.Buf("a", ir.F16, m*k, kern.In), b.Buf("b", ir.F16, k*n, kern.In)
	row := b.Load(b.Buf("rows", ir.I32, m, kern.In), kern.V(i))
	y := b.Contract([]*kern.Var{v}, a, kern.V(i).Scale(k).Add(kern.V(v)), nil, w, kern.V(v).Scale(n).Add(kern.V(j)), nil)
	table := b.Load(b.Buf("table", ir.F32, 4*n, kern.In), kern.At(row).Scale(n).Add(kern.V(j)))
	edge, _ := b.Within([]kern.Guard{{At: kern.V(j).Plus(-3), Lo: 0, Hi: n}}, func() (*kern.Node, error) {
		return b.Load(b.Buf("edge", ir.F32, n, kern.In), kern.V(j).Plus(-3)), nil
	})
	z := b.Op(kern.Add, b.Op(kern.Mul, y, table), edge)
	b.Store(b.Buf("y", ir.F16, m*n, kern.Out), kern.V(i).Scale(n).Add(kern.V(j)), z)
	b.Store(b.Buf("turned", ir.F32, m*n, kern.Out), kern.V(j).Scale(m).Add(kern.V(i)), b.Op(kern.Sub, y, edge))
	big := b.Op(kern.Lt, b.F(2), z)
	b.Store(b.Buf("mask", ir.F32, m*(n+8), kern.InOut), kern.V(i).Scale(n+8).Add(kern.V(j)).Plus(4), b.Cast(ir.F32, big))
	kn := b.Done()
	for _, tg := range []*cuda.Target{on(t, "sm_70", "m8n8k4", nil), on(t, "sm_80", "mma", nil), on(t, "sm_90a", "wgmma", nil)} {
		product(t, kn, tg, 0)
	}
}
