//go:build !linux

package cpu

import (
	"os"
	"unsafe"
)

// mapMemory falls back to Go's heap, over-allocated so that the result is aligned to 64 bytes.
func mapMemory(size int, huge bool) ([]byte, error) {
	b := make([]byte, size+64)
	head := -int64(uintptr(unsafe.Pointer(&b[0]))) & 63
	return b[head : int(head)+size : int(head)+size], nil
}

func clearMemory(mem []byte) { clear(mem) }

// PageBytes is the size of the pages that an arena of that size takes memory in.
func PageBytes(arena int64) int64 { return int64(os.Getpagesize()) }

func unmapMemory(mem []byte) error { return nil }

func protectMemory(mem []byte, write, exec bool) error { return nil }

func guardMemory(mem []byte) error { return nil }

func allowedCPUs() []int { return nil }

func pinThread(cpu int) error { return nil }
