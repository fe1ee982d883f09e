//go:build linux

package cpu

// syncInstructions makes freshly written code visible to instruction fetches.
//
//go:noescape
func syncInstructions(addr, size uintptr)
