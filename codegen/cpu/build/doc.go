// Package build writes LLVM IR for processor kernels with Go functions for loops, branches and
// vector operations, so that a kernel's generator reads like the kernel.
//
// A Module collects the functions of one object file for one Target. Func holds a function under
// construction: each method appends instructions at the current place and returns the value.
// Values carry their LLVM type; most methods take scalars and vectors alike. Loops are For with
// carried values; there are no variables.
//
// The package checks nothing that LLVM checks, knows no kernels and runs no tools: see
// codegen/cpu/toolchain for compiling and runtime/device/cpu for loading. It writes vector code
// directly, because nothing after it vectorises: llc only selects instructions.
//
// Start with NewModule and Module.Kernel.
package build
