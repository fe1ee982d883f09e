//go:build !linux || !(amd64 || arm64)

package cpu

const canCall = false

func call(kernel, stackTop, args uintptr, c0, c1 int64, scratch uintptr) {
	panic("cpu: kernels cannot run on this platform")
}

func pause() {}

func syncInstructions(addr, size uintptr) {}
