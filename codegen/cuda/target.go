package cuda

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/gouache-ml/gouache/codegen/cuda/ptx"
)

// Target is a generation of GPUs.
type Target struct {
	ptx.Arch
	// Tensor is the matrix instruction that 16-bit products use: wgmma, mma (that
	// is, mma.m16n8k16), m8n8k4 of f16, or none.
	Tensor string
	// Shape, when set, is how all products by tensor cores are cut, for
	// measurements and tests. By size it varies.
	Shape *Shape
}

var targets = []*Target{
	{ptx.Arch{Name: "sm_90a", Version: "8.0"}, "wgmma", nil},
	{ptx.Arch{Name: "sm_80", Version: "7.0"}, "mma", nil},
	{ptx.Arch{Name: "sm_70", Version: "6.4"}, "m8n8k4", nil},
}

// multiplies says whether the target's matrix instruction takes a kind of operands:
// f16, bf16, or "" for others.
func (t *Target) multiplies(kind string) bool {
	switch t.Tensor {
	case "":
		return false
	case "m8n8k4":
		return kind == "f16"
	}
	return kind != ""
}

// from80 says whether the target has what came with sm_80: asynchronous copies,
// rounding in pairs.
func (t *Target) from80() bool { return t.Name != "sm_70" }

// Targets lists the GPUs that kernels can be compiled for, best first.
func Targets() []*Target { return targets }

// TargetByName finds a target. For measurements, what follows the name after
// commas changes it: mma, wgmma, m8n8k4 or none for its matrix instruction; such as
// 128x256 for the tiles of products, 128x256x2 with the blocks of a cluster,
// 64x64x1x8 with the parts of a sum as well; alternate.
func TargetByName(name string) (*Target, error) {
	name, change, changed := strings.Cut(name, ",")
	var names []string
	for _, t := range targets {
		if t.Name != name {
			names = append(names, t.Name)
			continue
		}
		if !changed {
			return t, nil
		}
		x := *t
		for _, c := range strings.Split(change, ",") {
			if err := x.change(c); err != nil {
				return nil, fmt.Errorf("GPU target %s: %w", name, err)
			}
		}
		return &x, nil
	}
	return nil, fmt.Errorf("no GPU target %q; there are %s", name, strings.Join(names, ", "))
}

func (t *Target) change(c string) error {
	switch c {
	case "mma", "wgmma", "m8n8k4":
		t.Tensor = c
		return nil
	case "none":
		t.Tensor = ""
		return nil
	case "alternate":
		if t.Shape == nil {
			return fmt.Errorf("alternate follows the tiles, such as 128x128x2,alternate")
		}
		t.Shape.Alternate = true
		return nil
	}
	s := &Shape{Cluster: 1, Parts: 1}
	to := []*int{&s.M, &s.N, &s.Cluster, &s.Parts}
	numbers := strings.Split(c, "x")
	for i, n := range numbers {
		x, err := strconv.Atoi(n)
		if err != nil || x < 1 || i >= len(to) || len(numbers) < 2 {
			return fmt.Errorf("%q is none of mma, wgmma, m8n8k4, none, alternate and tiles such as 128x256x2", c)
		}
		*to[i] = x
	}
	if s.M%64 != 0 || s.N%8 != 0 || s.M > 128 || s.N > 256 || s.Cluster > 1 && s.Parts > 1 || s.Cluster > 2 || s.Parts > 8 {
		return fmt.Errorf("no tiles of %s: 64 or 128 rows, up to 256 columns, 2 blocks of a cluster or 8 parts", c)
	}
	t.Shape = s
	return nil
}
