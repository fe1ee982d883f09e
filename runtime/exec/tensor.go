package exec

import (
	"fmt"
	"math"
	"strings"
	"unsafe"

	"github.com/gouache-ml/gouache/runtime/format16"
)

// DType is the storage type of one element; the names are those of the IR.
type DType string

// The element types.
const (
	F32    DType = "f32"
	F16    DType = "f16"
	BF16   DType = "bf16"
	E6M9   DType = "e6m9"   // 1-6-9, exponent bias 60, all-zero fields are zero
	UE6M10 DType = "ue6m10" // 0-6-10, likewise
	I32    DType = "i32"
	I8     DType = "i8"
	Bool   DType = "bool"
)

// Size is the size of an element in bytes, 0 for an unknown type.
func (d DType) Size() int {
	switch d {
	case F32, I32:
		return 4
	case F16, BF16, E6M9, UE6M10:
		return 2
	case I8, Bool:
		return 1
	}
	return 0
}

// Format is how a 16-bit floating-point type is stored; ok is false for the other types.
func (d DType) Format() (f format16.Format, ok bool) {
	return format16.ByName(string(d))
}

// Tensor is a dense row-major view into a model's memory. It is valid until the model is closed.
//
// Where the model is on a device, a stored tensor's Data are the host's copy: current, and read by
// the next run that uses the tensor, when they come from Model or from a method of Tensor that was
// called since the last run.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte // little-endian, 64-byte aligned
	Range        // of an input: a program that is given other integers reads and writes where it must not

	home *home // nil on a processor
}

// sync makes Data current; write says that the caller may change them.
func (t *Tensor) sync(write bool) error {
	switch h := t.home; {
	case h == nil:
		return nil
	case h.stored >= 0:
		return h.model.hand(write, h.stored)
	default:
		return h.model.Err()
	}
}

// Len is the number of elements.
func (t *Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// String is the name and type, such as "tokens i32[4,64]".
func (t *Tensor) String() string {
	s := make([]string, len(t.Shape))
	for i, d := range t.Shape {
		s[i] = fmt.Sprint(d)
	}
	return fmt.Sprintf("%s %s[%s]", t.Name, t.DType, strings.Join(s, ","))
}

// F32 returns the elements of an f32 tensor, sharing memory with it.
func (t *Tensor) F32() ([]float32, error) { return view[float32](t, F32) }

// I32 returns the elements of an i32 tensor, sharing memory with it.
func (t *Tensor) I32() ([]int32, error) { return view[int32](t, I32) }

func view[T any](t *Tensor, want DType) ([]T, error) {
	if t.DType != want {
		return nil, fmt.Errorf("exec: %s is not %s; use Data or Float64s", t, want)
	}
	if err := t.sync(true); err != nil {
		return nil, err
	}
	return raw[T](t), nil
}

// raw is view without a question.
func raw[T any](t *Tensor) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(t.Data))), t.Len())
}

// Float64s returns a copy of the elements, whatever their type: NaNs after a device has failed.
func (t *Tensor) Float64s() []float64 {
	x := make([]float64, t.Len())
	failed := t.sync(false) != nil
	for i := range x {
		if failed {
			x[i] = math.NaN()
			continue
		}
		x[i] = t.at(i)
	}
	return x
}

// NonFinite returns the number of the first element that is infinite or not a number, or -1; it is
// 0 after a device has failed.
func (t *Tensor) NonFinite() int {
	if t.sync(false) != nil {
		return 0
	}
	return t.nonFinite()
}

func (t *Tensor) nonFinite() int {
	switch t.DType {
	case F32:
		for i, v := range raw[float32](t) {
			if math.Float32bits(v)&0x7f800000 == 0x7f800000 {
				return i
			}
		}
	case F16, BF16:
		for i := 0; i < t.Len(); i++ {
			if v := t.at(i); math.IsNaN(v) || math.IsInf(v, 0) {
				return i
			}
		}
	}
	return -1
}

func (t *Tensor) bits16(i int) uint16 { return uint16(t.Data[2*i]) | uint16(t.Data[2*i+1])<<8 }

func (t *Tensor) at(i int) float64 {
	if f, ok := t.DType.Format(); ok {
		return float64(f.Decode(t.bits16(i)))
	}
	switch t.DType {
	case F32:
		return float64(math.Float32frombits(uint32(t.bits16(2*i)) | uint32(t.bits16(2*i+1))<<16))
	case I32:
		return float64(int32(uint32(t.bits16(2*i)) | uint32(t.bits16(2*i+1))<<16))
	case I8:
		return float64(int8(t.Data[i]))
	}
	return float64(t.Data[i])
}

// set stores x rounded to the tensor's type.
func (t *Tensor) set(i int, x float64) {
	put := func(size int, b uint32) {
		for j := 0; j < size; j++ {
			t.Data[size*i+j] = byte(b >> (8 * j))
		}
	}
	if f, ok := t.DType.Format(); ok {
		put(2, uint32(f.Encode(float32(x))))
		return
	}
	switch t.DType {
	case F32:
		put(4, math.Float32bits(float32(x)))
	case I32:
		put(4, uint32(int32(x)))
	default:
		put(1, uint32(uint8(int8(x))))
	}
}
