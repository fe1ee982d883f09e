// Package cuda compiles kernels for NVIDIA's GPUs.
//
// Compile turns kern.Kernels into PTX, which the driver assembles when
// runtime/device/cuda loads it, and says how each is launched. There are three
// ways in which a kernel becomes what a thread does, all written with package
// build and printed by package ptx:
//
//   - loops (loops.go): a thread for every point of the grid, or several
//     threads, of a block or of a cluster's blocks, that share the loops of a
//     point and add up what each has; scatter.go has the one with two loops;
//   - products (contract.go, mma.go with mma_core.go, wgmma.go): a kernel with a
//     Contract becomes a blocked matrix product, whose tiles of operands are computed where they are copied to
//     shared memory (the prologue) and whose results run through the rest of the
//     body (the epilogue);
//   - templates (attention*.go, householder.go): kernels written by hand.
//
// Sums have one order: fixed by sizes alone, without atomic operations. So results
// are the same bits on every run; they differ from those of package cpu in
// the last ones.
//
// Nothing here needs a GPU or NVIDIA's tools: package simt executes the PTX in
// tests. Start at Compile; the semantics is kern.Eval.
package cuda
