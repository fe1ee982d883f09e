//go:build linux

package cpu

// syncInstructions does nothing: x86 keeps instruction caches coherent.
func syncInstructions(addr, size uintptr) {}
