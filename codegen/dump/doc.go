// Package dump is irdump: it prints a system, or the text of one, at every
// stage of compilation. A program that registers systems of its own gets the
// same tool by calling Main.
//
// It runs the passes of codegen/pipeline and prints with ir/text; it changes
// nothing and writes no generated code.
//
// Start at Run; page.go makes the HTML page, memory.go the memory picture, and
// bisect.go finds the pass or the launch that changes what is computed.
package dump
