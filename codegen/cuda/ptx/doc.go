// Package ptx prints kernels as PTX, the assembly language of NVIDIA's
// processors.
//
// Print takes a module of package build and gives the text that a driver
// loads: no LLVM and no toolkit is needed. It selects instructions one by one,
// then merges equal ones, moves out of loops what they do not change, and
// makes registers one where that saves a copy. Registers of the chip and the
// order of instructions are the business of NVIDIA's assembler, ptxas, which
// the driver contains.
//
// Floating-point operations say how they round, so the assembler neither fuses
// nor reorders them: each gives the same bits wherever it runs. The accumulators
// of wgmma stay in their registers, or Print says that they cannot.
//
// What a text asks of the chip is checked: operations that a target lacks are
// errors, and .version is the oldest that has all that is used. Package ptxas
// runs the assembler for tests. Start at Print.
package ptx
