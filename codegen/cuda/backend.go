package cuda

import (
	"github.com/gouache-ml/gouache/ir/kern"
)

// Backend is the GPU as kernel.Backend asks about it. Blocks of threads are
// chosen when code is generated, so kernels have one chunk.
type Backend struct{}

// Tile is the whole kernel.
func (Backend) Tile(*kern.Kernel) (kern.Tile, int) { return kern.Tile{}, 1 }

// Pack is never wanted: tiles are laid out in shared memory.
func (Backend) Pack(*kern.Kernel) (*kern.Kernel, int) { return nil, 0 }

// Copied is how often an operand's elements are copied to shared memory: once
// for every tile across the other operand. Operands of 16 bits are left to the
// copy engine, which computes nothing.
func (Backend) Copied(k *kern.Kernel, i int) int {
	c := k.FindContract()
	if kern.Narrow(k, c) {
		return 0
	}
	p := productOf(k)
	t := p.tile()
	elements := points(p.batch) * points(p.k)
	if c.Args[i] == p.left {
		return elements * points(p.m) * ceil(points(p.n), t.n)
	}
	return elements * points(p.n) * ceil(points(p.m), t.m)
}

// Repeats is true: a thread has few points.
func (Backend) Repeats() bool { return true }

// Spared is 0.
func (Backend) Spared(*kern.Kernel) int64 { return 0 }

// Rates are an H200's, from docs/gpu-results.md: products of f32 40 and of 16 bits 700
// TFLOP/s, attention 250; other kernels are bound by traffic, at 3.6 TB/s, and a launch
// in a graph costs 2 us.
func (Backend) Rates() kern.Rates {
	return kern.Rates{Product: 40_000, Narrow: 700_000, Template: 250_000, Loop: 20_000, Bytes: 3600, Launch: 2000}
}

func points(vars []*kern.Var) int {
	n := 1
	for _, v := range vars {
		n *= v.Extent
	}
	return n
}

func ceil(a, b int) int { return (a + b - 1) / b }

// Halves is false: a product of few rows is cut for many more threads as it is.
func (Backend) Halves() bool { return false }
