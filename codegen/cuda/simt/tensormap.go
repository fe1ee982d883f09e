package simt

import (
	"encoding/binary"
	"fmt"
)

// DType is the type of a tensor map's elements.
type DType uint8

// The element types.
const (
	F16 DType = iota
	BF16
	F32
	U8
	I32
)

// TypeOf finds a type by its name in the IR: f16, bf16, f32, i8 or i32.
func TypeOf(name string) (DType, error) {
	for d, n := range [...]string{"f16", "bf16", "f32", "i8", "i32"} {
		if n == name {
			return DType(d), nil
		}
	}
	return 0, fmt.Errorf("simt: a tensor map cannot hold elements of type %s", name)
}

func (d DType) size() int { return [...]int{2, 2, 4, 1, 4}[d] }

// TensorMap describes a tensor in global memory to the engine that copies boxes of
// it, as cuTensorMapEncodeTiled does. Dimensions run from the innermost outwards.
type TensorMap struct {
	Addr    uint64
	DType   DType
	Dims    []uint64
	Strides []uint64 // bytes between elements of dimensions 1, 2, ...
	Box     []uint32
	Swizzle int // 0, 32, 64 or 128 bytes
}

var mapMagic = [8]byte{'t', 'e', 'n', 's', 'o', 'r', 0, 1}

// MapOf encodes the tensor map that the compiler describes in these terms; dtype is
// as TypeOf has it.
func MapOf[S ~int | ~int64](addr uint64, dtype string, dims []int, strides []S, box []int, swizzle int) ([128]byte, error) {
	d, err := TypeOf(dtype)
	if err != nil {
		return [128]byte{}, err
	}
	t := TensorMap{Addr: addr, DType: d, Swizzle: swizzle}
	for i, n := range dims {
		t.Dims, t.Box = append(t.Dims, uint64(n)), append(t.Box, uint32(box[i]))
	}
	for _, s := range strides {
		t.Strides = append(t.Strides, uint64(s))
	}
	return EncodeTensorMap(t)
}

// EncodeTensorMap packs a tensor map into the bytes that a kernel gets. They mean
// something to the emulator only. What the driver would refuse is an error.
func EncodeTensorMap(t TensorMap) ([128]byte, error) {
	var b [128]byte
	rank := len(t.Dims)
	switch {
	case rank < 1 || rank > 5:
		return b, fmt.Errorf("simt: tensor map of rank %d", rank)
	case len(t.Strides) != rank-1 || len(t.Box) != rank:
		return b, fmt.Errorf("simt: tensor map of rank %d with %d strides and a box of rank %d", rank, len(t.Strides), len(t.Box))
	case t.Addr%16 != 0:
		return b, fmt.Errorf("simt: tensor map at %#x, which is no multiple of 16", t.Addr)
	case t.DType > I32:
		return b, fmt.Errorf("simt: tensor map of unknown type %d", t.DType)
	case t.Swizzle != 0 && t.Swizzle != 32 && t.Swizzle != 64 && t.Swizzle != 128:
		return b, fmt.Errorf("simt: swizzle of %d bytes", t.Swizzle)
	}
	size := uint64(t.DType.size())
	inner := uint64(t.Box[0]) * size
	for i, d := range t.Dims {
		if d == 0 || d > 1<<32 {
			return b, fmt.Errorf("simt: dimension %d of %d", i, d)
		}
		if n := t.Box[i]; n == 0 || n > 256 {
			return b, fmt.Errorf("simt: box of %d in dimension %d", n, i)
		}
	}
	for i, s := range t.Strides {
		if s%16 != 0 || s >= 1<<40 || s == 0 {
			return b, fmt.Errorf("simt: stride %d of dimension %d is no multiple of 16 below 2^40", s, i+1)
		}
	}
	if inner%16 != 0 {
		return b, fmt.Errorf("simt: rows of a box have %d bytes, no multiple of 16", inner)
	}
	// The driver takes shorter rows too, but how they are laid out isn't known here.
	if t.Swizzle != 0 && inner != uint64(t.Swizzle) {
		return b, fmt.Errorf("simt: rows of a box have %d bytes, swizzled by %d", inner, t.Swizzle)
	}
	copy(b[:], mapMagic[:])
	le := binary.LittleEndian
	le.PutUint64(b[8:], t.Addr)
	b[16], b[17], b[18] = byte(t.DType), byte(rank), byte(t.Swizzle)
	for i := range rank {
		le.PutUint64(b[24+8*i:], t.Dims[i])
		le.PutUint16(b[96+2*i:], uint16(t.Box[i]))
		if i > 0 {
			le.PutUint64(b[64+8*(i-1):], t.Strides[i-1])
		}
	}
	return b, nil
}

func decodeMap(b []byte) (t TensorMap, ok bool) {
	if len(b) < 128 || [8]byte(b[:8]) != mapMagic {
		return t, false
	}
	le := binary.LittleEndian
	t.Addr, t.DType, t.Swizzle = le.Uint64(b[8:]), DType(b[16]), int(b[18])
	for i := range int(b[17]) {
		t.Dims = append(t.Dims, le.Uint64(b[24+8*i:]))
		t.Box = append(t.Box, uint32(le.Uint16(b[96+2*i:])))
		if i > 0 {
			t.Strides = append(t.Strides, le.Uint64(b[64+8*(i-1):]))
		}
	}
	return t, true
}

// swizzle is where the byte at an address goes, by exchanging 16-byte pieces among
// rows of 32, 64 or 128 bytes.
func swizzle(at, mode int) int {
	switch mode {
	case 128:
		return at ^ at>>7&7<<4
	case 64:
		return at ^ at>>7&3<<4
	case 32:
		return at ^ at>>7&1<<4
	}
	return at
}
