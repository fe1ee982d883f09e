// Package parity compares the models with PyTorch: goldens.py writes the three
// models down a second time at tiny sizes, runs three AdamW steps in float64
// and stores parameters, inputs, losses, gradients and results under testdata.
// The tests build the same sizes here and demand the same numbers at three
// stages: graphs by the ops' reference semantics, planned kernels by the
// kernel evaluator, and kernels compiled for this processor (which takes LLVM
// 19, as gouachec does). At sizes that fill tiles, compiled kernels are
// compared with the reference semantics.
//
// Start at goldens.py, then parity_test.go.
package parity
