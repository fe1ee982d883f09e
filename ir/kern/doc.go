// Package kern is the kernel level: a closed language of loops and scalars in
// which every compiled kernel is written, and its evaluator.
//
// A Kernel is a grid of parallel loop variables around a body of Nodes:
// loads and stores at affine indices, scalar arithmetic, sequential loops with
// accumulators, and contractions (sums of products of two loads), which code
// generators implement with their matrix-multiply template. What doesn't fit
// the language well (attention with a mask) is a named Template with
// parameters. The language says what is computed; how (vector width, blocking)
// is the code generator's business, guided by Tile.
//
// Loads widen every floating-point storage type to f32 and stores narrow it,
// so scalars are f32, i32 or bool only.
//
// Start at Kernel and Builder; Eval is the semantics.
package kern
