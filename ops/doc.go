// Package ops holds every op of the graph IR, one place each, one file per
// family: type rule, float64 reference, vector-Jacobian product, cost,
// lowering into the kernel language and samples for the conformance suite are
// methods of one small struct whose fields are the op's attributes. Beside it
// stands the function models call, such as Tanh or MatMul.
//
// Code generation never names an op. It sees the families of op.go: Inline
// (any op that computes an element from elements of its arguments: pointwise,
// views, gathers, random numbers), Reducer, Contracter and Opaque.
//
// Start at op.go, then pointwise.go.
package ops
