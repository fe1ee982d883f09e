// Package vmath writes elementary functions and random numbers as vector code.
//
// LLVM would turn vectors of exp, log or tanh into one libm call a lane; these are polynomials
// instead, in plain IR, for float32 scalars and vectors of any length. Each function's comment
// gives its largest error, measured over all or a dense sample of arguments by the tests, and its
// results for special arguments. Random numbers are Philox4x32-10 (Salmon et al. 2011), a
// function of key and counter alone, so any lane on any device can compute any of them; PhiloxRun
// computes those of neighbouring elements, which share counters.
//
// The package has no tables and no state. Start with Exp.
package vmath
