// Package toy is a system in plain Go behind the interfaces of a compiled one: a
// dVAE of 27 colours, a prior that counts, and a contrastive model of mean colours.
//
// It is for tests of the training loop, of sampling and of the command line, which
// need models that learn something within milliseconds, depend on every input they
// are given, and keep state where compiled models do. It is no reference for the real
// models.
//
// Start with New.
package toy
