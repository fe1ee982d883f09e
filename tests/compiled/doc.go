// Package compiled compiles graphs in memory and runs the kernels on this
// machine, for tests: from functions of the IR to loaded machine code without
// generated Go files in between.
//
// Its own tests hold every op of the table against its reference, training steps
// of demo on an emulated GPU against those on a processor, and check that results
// depend neither on the number of threads nor on when and how often something is
// compiled. Package tests/parity uses it to hold the models against PyTorch.
//
// Start at Compile and Open.
package compiled
