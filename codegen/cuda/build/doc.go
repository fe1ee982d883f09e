// Package build writes GPU kernels as LLVM IR.
//
// A Func is one kernel under construction: what one thread of a block does, in
// scalars, with loops that carry values (For), branches (If, IfElse) and the
// operations of NVIDIA's processors that matter here. What LLVM has no
// intrinsic for is a call of a function named gpu.*, whose meaning is the PTX
// text in asm.go; package ptx prints modules as PTX, and package simt executes
// that text.
//
// Floating-point operations round to nearest and are never contracted: FMA is
// fused because it says so. So results are the same bits on every run and on
// the emulator.
//
// The package decides nothing about tiles or threads. Start at NewModule.
package build
