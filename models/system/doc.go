// Package system names what the compiler compiles: a System is a list of
// model modules under one name.
//
// It holds the type, the registry and what can be chosen when a system is compiled
// (Choices), so that a module outside this repository can register systems of its
// own. The systems that come with the compiler are in package systems.
package system
