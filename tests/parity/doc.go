// Package parity compares the models with PyTorch: goldens.py writes the three
// models down a second time at tiny sizes, runs three AdamW steps in float64
// and stores parameters, inputs, losses, gradients and results under testdata.
// The tests build the same sizes here and demand the same numbers.
//
// Start at goldens.py, then parity_test.go.
package parity
