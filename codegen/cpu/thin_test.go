package cpu

import (
	"fmt"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

func TestThinProductsAgreeWithTheEvaluator(t *testing.T) {
	var ss []sample
	for _, c := range []struct {
		batch, m, n, k int
		turned         bool
	}{
		{1, 1, 512, 300, false}, {1, 1, 64, 257, false}, {2, 1, 300, 130, true}, {1, 2, 130, 200, false}, {1, 3, 200, 99, true}, {2, 3, 200, 98, false},
		{1, 7, 67, 512, false}, {1, 8, 384, 100, false}, {1, 9, 1000, 33, true}, {1, 16, 145, 200, false},
		// Sums that end in a part of a block, columns that end in a part of a vector,
		// and more columns than are summed at a time.
		{1, 5, 64, 256, true}, {1, 13, 4096, 70, false}, {1, 4, 512, 33, true}, {1, 6, 200, 90, false}, {1, 2, 76, 300, false},
		{2, 8, 600, 300, false}, // weights that come from memory
	} {
		for i, d := range []ir.DType{ir.F32, ir.F16, ir.BF16} {
			if i > 0 && c.m%3 != i-1 {
				continue
			}
			k := chunked(matmulKernel(c.batch, c.m, c.n, c.k, c.turned, false, true, d))
			if !isThin(classify(k).gemm(k)) {
				t.Errorf("%+v in %s is not thin", c, d)
			}
			ss = append(ss, sample{k: k})
		}
	}
	// Weights that are stored in 32 bits and used in 16.
	for _, m := range []int{1, 6} {
		const n, depth = 140, 130
		b := kern.NewBuilder("rounded")
		r, c := b.Dim(m), b.Dim(n)
		v := b.NewVar(depth)
		i, j, q := kern.V(r), kern.V(c), kern.V(v)
		x, y := b.Buf("a", ir.BF16, m*depth, kern.In), b.Buf("b", ir.F32, depth*n, kern.In)
		rounded := operandOf(t, b, []*kern.Var{c, v}, y, q.Scale(n).Add(j), func(b *kern.Builder, x *kern.Node) *kern.Node { return b.Round(ir.BF16, x, nil) })
		sum := b.ContractOf([]*kern.Var{v}, operandOf(t, b, []*kern.Var{r, v}, x, i.Scale(depth).Add(q), nil), nil, rounded, nil)
		b.Store(b.Buf("y", ir.F32, m*n, kern.Out), i.Scale(n).Add(j), sum)
		k := chunked(b.Done())
		if !isThin(classify(k).gemm(k)) {
			t.Errorf("%d rows of weights to be rounded are not thin", m)
		}
		ss = append(ss, sample{k: k})
	}
	// Halves of sums, with more columns than are summed at a time, parts of vectors
	// and of blocks, and rows so short that the kernel asks for them.
	for _, c := range [][3]int{{1, 1030, 130}, {3, 2000, 65}, {5, 300, 450}, {8, 2100, 75}, {16, 1500, 90}} {
		m, n, depth := c[0], c[1], c[2]
		b := kern.NewBuilder("halves")
		h, r, c := b.Dim(2), b.Dim(m), b.Dim(n)
		v := b.NewVar(depth)
		half, i, j, q := kern.V(h), kern.V(r), kern.V(c), kern.V(v)
		x, y := b.Buf("a", ir.F32, 2*m*depth, kern.In), b.Buf("b", ir.F32, 2*depth*n, kern.In)
		left := operandOf(t, b, []*kern.Var{h, r, v}, x, i.Scale(2*depth).Add(half.Scale(depth)).Add(q), nil)
		right := operandOf(t, b, []*kern.Var{h, c, v}, y, half.Scale(depth).Add(q).Scale(n).Add(j), nil)
		b.Store(b.Buf("y", ir.F32, 2*m*n, kern.Out), half.Scale(m).Add(i).Scale(n).Add(j), b.ContractOf([]*kern.Var{v}, left, nil, right, nil))
		k := chunked(b.Done())
		if g := classify(k).gemm(k); !isThin(g) || product(g.Batch) != 2 || !k.Tile.Together {
			t.Errorf("halves of %dx%d with sums of %d are cut as %+v", m, n, depth, k.Tile)
		}
		ss = append(ss, sample{k: k})
	}
	check(t, ss)
}

func isThin(g *Gemm) bool {
	_, ok := g.code(build.Targets()[0]).(thinCode)
	return ok
}

// Chunks of every size of the result are strips of columns, so that threads
// share the weights.
func TestThinProductsAreCutByColumns(t *testing.T) {
	for _, m := range []int{1, 8, 16} {
		if k := chunked(matmulKernel(1, m, 512, 2048, false, false, true, ir.F32)); k.Chunks != 4 {
			t.Errorf("%d rows: %d chunks, want 4", m, k.Chunks)
		}
	}
	k := chunked(matmulKernel(1, 17, 512, 512, false, false, true, ir.F32))
	if g := classify(k).gemm(k); g.thin() {
		t.Error("17 rows are thin")
	}
}

func BenchmarkThin(b *testing.B) {
	for _, m := range []int{1, 4, 8, 16} {
		for _, s := range [][2]int{{512, 2048}, {2048, 512}, {1536, 512}, {8192, 512}} {
			b.Run(fmt.Sprintf("%dx%dx%d", m, s[0], s[1]), func(b *testing.B) {
				k := chunked(matmulKernel(1, m, s[0], s[1], false, false, true, ir.F32))
				bench(b, k, float64(2*m*s[0]*s[1]), normals)
			})
		}
	}
}
