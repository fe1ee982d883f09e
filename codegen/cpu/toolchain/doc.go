// Package toolchain compiles LLVM IR to the shared objects that trainers embed, with llc and
// ld.lld of LLVM 19 or later.
//
// Find looks for the tools; Tools.Compile turns the modules of one target into one shared object
// without imports or dynamic relocations. Modules are compiled in parallel and kept in a cache,
// keyed by everything their object depends on, so a small change costs a small compilation. The
// same input gives the same bytes.
//
// The package neither writes IR (see codegen/cpu/build) nor loads objects (runtime/device/cpu).
package toolchain
