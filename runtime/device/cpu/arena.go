package cpu

import (
	"fmt"
	"unsafe"
)

// Align is the alignment in bytes of an arena's start and of the offsets a plan should use: one
// cache line, and one AVX-512 register.
const Align = 64

// Arena is one zeroed block of memory outside Go's heap. The garbage collector neither scans nor
// moves it, so addresses inside it may be stored as integers in argument blocks.
type Arena struct {
	mem  []byte
	size int64
}

// NewArena maps size bytes. Pages are provided by the system when they are first touched.
func NewArena(size int64) (*Arena, error) {
	if size < 0 || size != int64(int(size)) {
		return nil, fmt.Errorf("cpu: arena of %d bytes is not possible", size)
	}
	mem, err := mapMemory(int(max(size, 1)), true)
	if err != nil {
		return nil, fmt.Errorf("cpu: arena of %d bytes: %v", size, err)
	}
	return &Arena{mem: mem, size: size}, nil
}

// Clear makes all of it zero, as it was at first.
func (a *Arena) Clear() { clearMemory(a.mem) }

// Size returns the number of bytes the arena was made with.
func (a *Arena) Size() int64 { return a.size }

// Addr returns the address of byte off, for argument blocks. off may equal Size.
func (a *Arena) Addr(off int64) uintptr {
	if off < 0 || off > a.size {
		panic(fmt.Sprintf("cpu: offset %d outside an arena of %d bytes", off, a.size))
	}
	return uintptr(unsafe.Pointer(unsafe.SliceData(a.mem))) + uintptr(off)
}

// Bytes returns n bytes from offset off.
func (a *Arena) Bytes(off int64, n int) []byte { return View[byte](a, off, n) }

// F32 returns n float32 from byte offset off.
func (a *Arena) F32(off int64, n int) []float32 { return View[float32](a, off, n) }

// I32 returns n int32 from byte offset off.
func (a *Arena) I32(off int64, n int) []int32 { return View[int32](a, off, n) }

// I64 returns n int64 from byte offset off: an argument block.
func (a *Arena) I64(off int64, n int) []int64 { return View[int64](a, off, n) }

// U16 returns n uint16 from byte offset off: 16-bit floats as bits.
func (a *Arena) U16(off int64, n int) []uint16 { return View[uint16](a, off, n) }

// View returns n elements from byte offset off, which must be a multiple of the element's size.
// T must not contain pointers. Like an index expression, it panics out of range.
func View[T any](a *Arena, off int64, n int) []T {
	var t T
	es := int64(unsafe.Sizeof(t))
	if off < 0 || n < 0 || off > a.size || int64(n) > (a.size-off)/es {
		panic(fmt.Sprintf("cpu: view of %d elements of %d bytes at offset %d outside an arena of %d bytes", n, es, off, a.size))
	}
	if off%es != 0 {
		panic(fmt.Sprintf("cpu: view at offset %d is not aligned to its elements of %d bytes", off, es))
	}
	return unsafe.Slice((*T)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(a.mem)), off)), n)
}

// Close returns the memory to the system. Views and addresses are invalid afterwards.
func (a *Arena) Close() error {
	m := a.mem
	a.mem, a.size = nil, 0
	if m == nil {
		return nil
	}
	return unmapMemory(m)
}
