// Package simt executes PTX text as a GPU would, and reports what a GPU would let
// pass: races, reads of memory that was never written, accesses outside of buffers,
// barriers that not all threads reach, data used while a copy or a product is under
// way, fences that are missing.
//
// Parse turns the text that is shipped into decoded instructions. A Machine has
// global memory (Alloc) and runs kernels on it (Launch); what goes wrong is a Fault,
// which says where in the text and, by the builder's comment, where in its source.
// The order in which blocks and warps run and asynchronous operations complete
// depends on the machine's seed: a test that passes with some seeds has seen some
// orders, but most faults don't depend on luck, see below.
//
// # What is executed
//
// Arithmetic of f32 rounds as IEEE 754 says, fused where the instruction is, and has
// the GPU's NaN, so results are the same bits as on a GPU; f16 and bf16 likewise. It
// is not so where PTX leaves results open: approximate functions are nearly exact
// here; products of matrices are sums of exact terms in float32, which tensor cores
// add in another order and precision; add and mul without .rn are not fused here but
// may be by ptxas.
//
// Warps are 32 lanes with a stack of masks: lanes that part at a branch meet at its
// immediate post-dominator. Lanes of one warp that wait for one another in a loop,
// which Volta and later can do, would hang here. What a GPU may do either way is left
// to chance: which side of a branch comes first, the order of atomic operations, the
// lane that elect.sync takes (one for a whole launch), a try_wait that gives up. As
// many blocks run side by side as wait for one another.
//
// Instructions that aren't known are errors of Parse. Not known are, among others:
// local memory and calls, surfaces and textures, wgmma of other types than f16 and
// bf16 with f32 sums, sparse products, fp8, im2col, tensor maps with strides between
// elements or rows shorter than the swizzle, cache policies that are more than a
// modifier.
//
// # What is checked
//
// Accesses to shared and global memory are ordered by vector clocks (order.go):
// barriers, mbarriers, fences with atomic operations, cluster barriers and waits pass
// knowledge on, and an access that doesn't know of a conflicting one is a race even
// if this run had them in a harmless order. That is exact, but that
// where more than three clusters read or update one place of global memory, what each
// warp did last there stands for its page of 512 bytes. Copies and products run as agents of their own,
// and a thread learns of them only through the wait that PTX asks for; through
// fence.proxy.async it makes its ordinary stores known to them. Lanes of a warp are
// ordered by bar.warp.sync, barriers, and nothing else. Stores of equal values count
// as races.
//
// It is stricter than GPUs in some ways: a barrier waits for warps that have
// returned (a deadlock), a thread may not return with copies under way that touch
// shared memory, an accumulator may not be set between wgmma.fence and wgmma, shared
// memory starts at an address that is aligned as declared and no better.
//
// It can't know whether its picture of the hardware is right: layouts of swizzles,
// descriptors and fragments are those of the manual. Nor can it tell anything of
// time, but for bank conflicts and sectors (Stats).
//
// The files: lex.go, parse.go, operand.go, compile.go and families.go read text;
// flow.go finds where branches meet; integer.go, float.go, compare.go, convert.go,
// memory.go, atomic.go, sync.go, copy.go, mma.go, mbarrier.go, bulk.go, wgmma.go and
// cluster.go have the instructions; warp.go and launch.go run them; order.go and
// shadow.go find races.
//
// Start at Parse and Machine.Launch. It is for tests: nothing that is shipped to
// users imports it.
package simt
