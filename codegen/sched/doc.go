// Package sched gives every buffer of a plan its place in memory, and checks
// such places independently. Remat trades memory for launches before that.
//
// Place fixes the byte offset of each work buffer of a program, PlaceState
// that of each stored tensor of a model. Check and CheckState prove a result
// sound by other means: they follow the launches one by one and remember who
// wrote each byte last. They share no code and no assumption with the placing
// side, and the compiler runs them on every plan it emits.
//
// Apart from Remat the package does not choose launches, their order or which
// buffers exist: codegen/kernel does. Start at Place.
package sched
