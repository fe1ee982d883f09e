// Package interp executes graphs in float64 by the ops' reference semantics.
//
// It is the oracle that compiled kernels and passes are compared with: slow,
// without rounding to storage types, one tensor a value. It is not an
// execution engine and does no checking beyond types of what it is given.
//
// Start at Run.
package interp
