// Package plan is the schedule level: for every function of a model the
// launches in order, and every buffer with its arena, byte offset and lifetime.
//
// It is what a generated package consists of: package codegen/glue turns a
// System into Go code and a table of kernels, package runtime/exec executes
// that. Nothing here decides anything: codegen/kernel makes launches and
// buffers, codegen/sched gives offsets, and its checker proves them sound. Ranges follows
// integers through launches, to tell which of them the inputs may hold.
//
// Start at System, then Program.
package plan
