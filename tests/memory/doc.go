// Package memory holds a test alone: the memory that a compiled system says it
// will take is what its process takes.
package memory
