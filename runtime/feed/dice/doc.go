// Package dice is the source of random numbers for data: counter-based streams
// keyed by integers, and permutations that are looked up by index.
//
// A stream is a pure function of its keys, so sample i of epoch e draws the same
// numbers on any worker, in any order, on any machine and with any Go release
// (which math/rand does not promise for its derived draws). It is not the random
// numbers of the model (those are Philox, drawn inside kernels), and not for
// cryptography. Start with New.
package dice
