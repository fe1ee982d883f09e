// Package jit compiles modules for the machine it runs on and loads them, for the tests and
// benchmarks of the kernel generators. Trainers never compile at run time.
//
// Start with Load.
package jit
