// Package glue writes the Go package of a compiled system: tables of stored
// tensors, inputs, outputs and launches, one straight-line function per
// program, and the kernel objects embedded beside them.
//
// Launches of one region of the model become one call; regions that run the
// same kernels in the same order share one function, called with the number of
// its first launch. So the code grows with the distinct regions, not with the
// depth of the model. The result is meant to be read: every launch carries the
// IR values it computes and the model's source line.
//
// The package decides nothing: launches, buffers and offsets come from the
// plan, entries for a GPU from its code generator. The written package imports
// runtime/exec alone, see there for what the tables mean, and for a GPU the
// package that drives it. Start at Generate.
package glue
