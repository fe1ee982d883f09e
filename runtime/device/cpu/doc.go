// Package cpu runs compiled kernels on the processor of this machine, without cgo.
//
// It holds the four things a generated trainer needs: a loader for the shared objects that
// codegen/cpu emits (Load), a call into them on a stack of its own (Call, about 5 ns), memory
// outside Go's heap (Arena), and workers that share one kernel's chunks (Pool). BestTarget says
// which of several compiled variants this processor can run.
//
// A kernel is
//
//	void kernel(int64_t *args, int64_t c0, int64_t c1, void *scratch)
//
// and does the chunks c0 <= c < c1 of its work. args is a block of 64-bit slots: addresses of
// buffers first, then integers. What a chunk is was fixed when the kernel was compiled, so the
// number of workers never changes a result. To the Go scheduler a kernel is a loop that cannot
// be preempted: a garbage collection waits for it, hence a chunk should take at most 1 ms.
//
// The package does not know plans, graphs or tensor types, and it is not a general ELF loader:
// objects that need symbols or relocations are refused.
//
// Start with Load and Pool.Run. Kernels load on linux/amd64 and linux/arm64; elsewhere the
// package compiles, Load says so, and Arena and Pool.RunFunc still work.
package cpu
