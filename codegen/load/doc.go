// Package load describes a plan to the runtime in memory, as a generated package does in
// Go: for tools and tests that run what they have just compiled.
package load
