// Package pipeline runs the compiler's passes in order: the graph passes on
// every function of every model, then lowering to kernels, recomputation,
// placement of buffers and its check. The passes stand in one table, and beside it the
// constraints on their order with the reason for each; a table that breaks one
// is refused when the program starts.
//
// After every graph pass the function is verified. Options.Observe sees every
// stage, for dumps.
package pipeline
