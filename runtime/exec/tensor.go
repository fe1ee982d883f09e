package exec

import (
	"fmt"
	"math"
	"strings"
	"unsafe"

	"github.com/x448/float16"
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

// Tensor is a dense row-major view into a model's memory. It is valid until the model is closed.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte // little-endian, 64-byte aligned
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
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(t.Data))), t.Len()), nil
}

// Float64s returns a copy of the elements, whatever their type.
func (t *Tensor) Float64s() []float64 {
	x := make([]float64, t.Len())
	for i := range x {
		x[i] = t.at(i)
	}
	return x
}

// NonFinite returns the number of the first element that is infinite or not a number, or -1.
func (t *Tensor) NonFinite() int {
	switch t.DType {
	case F32:
		x, _ := t.F32()
		for i, v := range x {
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
	switch t.DType {
	case F32:
		return float64(math.Float32frombits(uint32(t.bits16(2*i)) | uint32(t.bits16(2*i+1))<<16))
	case F16:
		return float64(float16.Frombits(t.bits16(i)).Float32())
	case BF16:
		return float64(math.Float32frombits(uint32(t.bits16(i)) << 16))
	case E6M9:
		b := t.bits16(i)
		x := small(b&0x7fff, 9)
		if b>>15 != 0 {
			return -x
		}
		return x
	case UE6M10:
		return small(t.bits16(i), 10)
	case I32:
		return float64(int32(uint32(t.bits16(2*i)) | uint32(t.bits16(2*i+1))<<16))
	case I8:
		return float64(int8(t.Data[i]))
	}
	return float64(t.Data[i])
}

// small decodes the paper's optimiser formats: 2^(e-60) * (1 + f/2^frac), zero for all-zero bits
// (section 5.2 of the paper, appendix D).
func small(b uint16, frac uint) float64 {
	if b == 0 {
		return 0
	}
	return math.Ldexp(1+float64(b&(1<<frac-1))/float64(int(1)<<frac), int(b>>frac)-60)
}

// encodeSmall is the inverse of small for x >= 0: ties away from zero, flushed below the least
// value, clamped at the largest.
func encodeSmall(x float64, frac uint) uint16 {
	m, e := math.Frexp(x) // x = m * 2^e, m in [0.5, 1)
	if x == 0 || e-1 < -60 {
		return 0
	}
	f := int(math.Floor((2*m-1)*float64(int(1)<<frac) + 0.5))
	code := (e-1+60)<<frac + f // a carry out of f raises the exponent
	return uint16(min(code, 64<<frac-1))
}

// set stores x rounded to the tensor's type.
func (t *Tensor) set(i int, x float64) {
	put := func(size int, b uint32) {
		for j := 0; j < size; j++ {
			t.Data[size*i+j] = byte(b >> (8 * j))
		}
	}
	switch t.DType {
	case F32:
		put(4, math.Float32bits(float32(x)))
	case F16:
		put(2, uint32(float16.Fromfloat32(float32(x)).Bits()))
	case BF16:
		b := math.Float32bits(float32(x))
		put(2, (b+0x7fff+b>>16&1)>>16)
	case E6M9:
		b := encodeSmall(math.Abs(x), 9)
		if x < 0 {
			b |= 0x8000
		}
		put(2, uint32(b))
	case UE6M10:
		put(2, uint32(encodeSmall(max(x, 0), 10)))
	case I32:
		put(4, uint32(int32(x)))
	default:
		put(1, uint32(uint8(int8(x))))
	}
}
