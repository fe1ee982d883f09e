package cuda

import (
	"fmt"
	"strings"

	"github.com/gouache-ml/gouache/codegen/cuda/ptx"
)

// Target is a generation of GPUs.
type Target struct {
	ptx.Arch
	// Tensor is the matrix instruction that 16-bit products use: wgmma, mma, or
	// none.
	Tensor string
	// Shape, when set, is how all products by tensor cores are cut, for
	// measurements and tests. By size it varies.
	Shape *Shape
}

var targets = []*Target{
	{ptx.Arch{Name: "sm_90a", Version: "8.0"}, "wgmma", nil},
	{ptx.Arch{Name: "sm_80", Version: "7.0"}, "mma", nil},
	{ptx.Arch{Name: "sm_70", Version: "6.4"}, "", nil},
}

// Targets lists the GPUs that kernels can be compiled for, best first.
func Targets() []*Target { return targets }

// TargetByName finds a target.
func TargetByName(name string) (*Target, error) {
	var names []string
	for _, t := range targets {
		if t.Name == name {
			return t, nil
		}
		names = append(names, t.Name)
	}
	return nil, fmt.Errorf("no GPU target %q; there are %s", name, strings.Join(names, ", "))
}
