// Package verify checks that a function is well formed: read-only, run after
// every pass. It reports the first fault, naming the instruction and the
// user's line; a fault is a bug of the compiler, not of the model.
//
// It says nothing about what a function computes: see ir/interp. Start at Func.
package verify
