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
	for _, a := range c.Args {
		for _, l := range kern.Loads(a) {
			if k.Bufs[l.Buf].DType.Size() == 2 {
				return 0
			}
		}
	}
	p := productOf(k)
	t := p.tile()
	elements := points(p.batch) * points(p.k)
	if c.Args[i] == p.left {
		return elements * points(p.m) * ceil(points(p.n), t.n)
	}
	return elements * points(p.n) * ceil(points(p.m), t.m)
}

func points(vars []*kern.Var) int {
	n := 1
	for _, v := range vars {
		n *= v.Extent
	}
	return n
}

func ceil(a, b int) int { return (a + b - 1) / b }
