package cuda_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops"
)

func householderKernel(b, n, r int) *kern.Kernel {
	x := ir.T(ir.F32, b, n, r)
	return ops.OrthogonalizeOp{Eps: 1e-6}.Kernel([]ir.Type{x}, []ir.Type{x})
}

// Sizes at and around those of panels and of strips of 8, 16 and 32 threads with a column
// or four each, and rows for as many as each thread has under way, and more.
func TestHouseholder(t *testing.T) {
	for _, s := range [][3]int{{1, 1, 1}, {2, 5, 5}, {1, 140, 7}, {1, 48, 12}, {2, 97, 20}, {1, 41, 41}, {1, 600, 12}, {1, 530, 9}, {1, 144, 140}} {
		for _, tg := range cuda.Targets() {
			target := tg.Name
			if target != "sm_90a" && s[2] != 20 {
				continue // the texts differ in their heads
			}
			t.Run(fmt.Sprintf("%v/%s", s, target), func(t *testing.T) {
				t.Logf("%.3g", check(t, householderKernel(s[0], s[1], s[2]), target, 1, 2e-6)) // 1.3e-6
			})
		}
	}
}

func TestHouseholderOfTooManyColumns(t *testing.T) {
	for _, tg := range cuda.Targets() {
		_, _, err := cuda.Text(householderKernel(1, 4000, 3000), tg, false)
		if err == nil || !strings.Contains(err.Error(), "orthogonalize on "+tg.Name+" takes up to ") {
			t.Errorf("%s: error %v", tg.Name, err)
		}
	}
}
