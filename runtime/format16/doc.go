// Package format16 defines the 16-bit floating-point formats that tensors are
// stored in: IEEE half precision, bfloat16, and the paper's two formats for the
// moments of Adam (section 5.2 and appendix D).
//
// It is the only definition. The compiler's kernel evaluator, the trainer's
// tensors and the tests of compiled code use it, and machine code must agree
// with it bit for bit. It depends on nothing, so that compiler and trainer can
// share it; arithmetic is not its business, that happens in float32.
//
// Start at Format.
package format16
