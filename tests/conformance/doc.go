// Package conformance checks every op of the table by the samples it gives:
// type rule, reference, gradient and kernel must agree. It has tests only; an
// op is covered by being registered.
package conformance
