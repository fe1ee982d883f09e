//go:build linux && (amd64 || arm64)

package cpu

const canCall = true

// call runs kernel(args, c0, c1, scratch) with the stack pointer at stackTop. There is no
// entersyscall: the goroutine keeps its P, so short calls cost 5 ns and the scheduler's monitor
// has nothing to retake.
//
//go:noescape
func call(kernel, stackTop, args uintptr, c0, c1 int64, scratch uintptr)

// pause tells the core that this is a spinning loop, for about 100 cycles.
//
//go:noescape
func pause()
