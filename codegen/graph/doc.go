// Package graph holds the passes that rewrite graphs: autodiff expands
// gradient instructions, cse and dce clean up, split cuts long reductions so
// that they can run in parallel, and halve cuts products of few rows and many
// weights in two.
//
// Each pass is a function of one ir.Func; package codegen/pipeline lists them
// in order. They know ops by their families and hooks only.
package graph
