// Package sched gives every buffer of a plan its place in memory, and checks
// such places independently. Before that, Remat and Fit trade memory for launches.
//
// Place fixes the byte offset of each work buffer of a program, PlaceState
// that of each stored tensor of a model. Check and CheckState prove a result
// sound by other means: they follow the launches one by one and remember who
// wrote each byte last. They share no code and no assumption with the placing
// side, and the compiler runs them on every plan it emits.
//
// Place tries orders of buffers, each put into a gap that takes it. Where that leaves
// the arena larger than what must be held, squeeze lets buffers evict others.
//
// Remat launches again what blocks would keep for the backward pass. Fit does so
// buffer by buffer, for a number of bytes: a search over choices of buffers
// (search), which a tally measures without making the program, and a bound that
// says how far from the best it can be at most (relaxation).
//
// Apart from these two the package does not choose launches, their order or which
// buffers exist: codegen/kernel does. Start at Place.
package sched
