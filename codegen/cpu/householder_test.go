package cpu

import (
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops"
)

func householderKernel(b, n, r int) *kern.Kernel {
	x := ir.T(ir.F32, b, n, r)
	return chunked(ops.OrthogonalizeOp{Eps: 1e-6}.Kernel([]ir.Type{x}, []ir.Type{x}))
}

// Sizes at, below and above those of panels, vectors, strips and runs of rows.
func TestHouseholderAgreesWithTheEvaluator(t *testing.T) {
	var ss []sample
	for _, s := range [][3]int{{1, 1, 1}, {4, 2, 1}, {1, 7, 7}, {1, 65, 8}, {3, 64, 9}, {1, 67, 16}, {2, 129, 17}, {1, 200, 31}, {1, 96, 33}, {2, 130, 40}} {
		ss = append(ss, sample{k: householderKernel(s[0], s[1], s[2])})
	}
	check(t, ss)
}
