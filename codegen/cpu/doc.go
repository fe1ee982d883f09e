// Package cpu compiles kernels for processors.
//
// Compile turns kern.Kernels into one shared object for each target, which
// runtime/device/cpu loads. There are five ways in which a kernel becomes
// vector code, all written with package build:
//
//   - loops (emit*.go): the grid and body of a kernel as they are, with vector
//     lanes over the last grid dimension or over the innermost loops;
//   - products (contract.go): a kernel with a Contract becomes a Gemm, the
//     packed and blocked matrix product of gemm.go, with the rest of its body
//     as the epilogue; operand.go reads operands that are no matrices, such as
//     the patches of a picture, and micro.go holds the register tiles; direct*.go
//     read operands in place where packing would cost more than it saves, with
//     the pictures of picture.go and the tiles of tile.go, winograd*.go make convolutions
//     of 3x3 by minimal filtering, and thin.go has products of few rows; ways.go
//     chooses among them;
//   - pack_b (pack.go): the copy of a right operand that many chunks share;
//   - attention (attention*.go): block-sparse attention and its gradients, and
//     the attention of one more position;
//   - householder (householder.go): columns of a matrix made orthonormal.
//
// TileFor, WantsPack and PackKernel tell the passes before this one how
// products and templates are cut into chunks. Chunks depend on sizes alone and
// sums have one order on a target, so results don't depend on the number of
// threads; they do differ between targets in their last bits.
//
// The package decides nothing about what is computed together or where it is
// stored, and compiles nothing at run time. Start at Compile; the semantics is
// kern.Eval.
package cpu
