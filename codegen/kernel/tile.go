package kernel

import (
	"github.com/gouache-ml/gouache/ir/kern"
)

// Backend is what the tile pass asks a code generator. The answers must not
// depend on the target CPU: chunks and workspaces are part of the plan.
type Backend interface {
	// Tile cuts a contraction or template into chunks.
	Tile(k *kern.Kernel) (kern.Tile, int)
	// Pack returns the kernel that writes the right operand of contraction k,
	// made of its first buffers (kern.Buffers of the operand), into packed
	// panels, its last buffer, of so many bytes; or nil when k had better read
	// the operand in place. Lower makes k read the panels.
	Pack(k *kern.Kernel) (pack *kern.Kernel, bytes int)
	// Copied is how many elements of operand i of contraction k, a plain load,
	// the generator copies, counting again what it copies more than once: each
	// would go through a prologue. It is 0 for an operand read in place.
	Copied(k *kern.Kernel, i int) int
	// Spared is how many of the operations that contraction k stands for its code does without.
	Spared(k *kern.Kernel) int64
	// Repeats is whether a kernel computes what is the same for all its points more than
	// once or a few times: for each thread, on GPUs.
	Repeats() bool
}

// chunkWork is the work of one chunk in node evaluations: about 0.1 ms, small
// enough to balance two threads, large enough to hide a claim (about 50 ns).
const chunkWork = 1 << 19

// tile chooses the vectorised variable and the chunks of a loop kernel.
func tile(k *kern.Kernel, be Backend) {
	if k.Template != nil || k.FindContract() != nil {
		k.Tile, k.Chunks = be.Tile(k)
		return
	}
	last := k.Dims[len(k.Dims)-1]
	inner, extent := strides(k, last)
	if !k.HasLoop() || inner[1] > inner[0] {
		k.Vector = last
	}
	outer := k.Points() / last.Extent
	per := max(1, chunkWork/max(1, k.NumNodes*extent)) // grid points per chunk
	if k.Vector == nil {
		k.Tile = kern.Tile{Rows: clamp(per, 1, k.Points())}
		k.Chunks = ceil(k.Points(), k.Tile.Rows)
		return
	}
	cols := clamp(ceil(per, 64)*64, 64, ceil(last.Extent, 64)*64)
	if cols >= last.Extent {
		cols = last.Extent
	}
	k.Tile = kern.Tile{Rows: clamp(per/cols, 1, outer), Cols: cols}
	k.Chunks = ceil(outer, k.Tile.Rows) * ceil(last.Extent, cols)
}

// strides counts accesses with unit stride along the innermost loops'
// variables and along the last grid dimension, and the iterations of all
// loops per grid point.
func strides(k *kern.Kernel, last *kern.Var) (unit [2]int, extent int) {
	var walk func(body []*kern.Node, v *kern.Var) int
	walk = func(body []*kern.Node, v *kern.Var) int {
		leaf := true
		total := 0
		for _, n := range body {
			if n.Prim == kern.Loop {
				leaf = false
				total += n.Vars[0].Extent * walk(n.Body, n.Vars[0])
			}
		}
		for _, n := range body {
			if n.Prim != kern.Load && n.Prim != kern.Store {
				continue
			}
			if leaf && v != nil && n.At.Coef(v) == 1 {
				unit[0]++
			}
			if n.At.Coef(last) == 1 {
				unit[1]++
			}
		}
		return max(1, total)
	}
	extent = walk(k.Body, nil)
	return unit, extent
}

func ceil(a, b int) int { return (a + b - 1) / b }

func clamp(x, lo, hi int) int { return max(lo, min(x, hi)) }
