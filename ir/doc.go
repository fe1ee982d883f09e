// Package ir is the graph level of the compiler: modules, functions, values,
// types, resblock regions and the interface every op implements.
//
// It holds data and the rules that keep it well formed; it executes nothing
// (see ir/interp), prints nothing (see ir/text) and knows no single op (see
// package ops, whose files register their ops in the table kept here).
//
// Start at Module, then Func, Instr and Op.
package ir
