package ir

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/gouache-ml/gouache/runtime/format16"
)

// DType is the storage type of one tensor element.
type DType uint8

// The element types. E6M9 is 1-6-9 (sign, exponent, mantissa) and UE6M10 is
// 0-6-10: the paper's formats for Adam's mean and variance (section 5.2 and
// appendix D). Arithmetic on every 16-bit type happens in f32.
const (
	Invalid DType = iota
	F32
	F16
	BF16
	E6M9
	UE6M10
	I32
	I8
	Bool
)

var dtypeNames = [...]string{"invalid", "f32", "f16", "bf16", "e6m9", "ue6m10", "i32", "i8", "bool"}
var dtypeSizes = [...]int{0, 4, 2, 2, 2, 2, 4, 1, 1}

// String returns the text name, such as "f32".
func (d DType) String() string { return dtypeNames[d] }

// Size is the storage size of one element in bytes.
func (d DType) Size() int { return dtypeSizes[d] }

// IsFloat reports whether d holds real numbers.
func (d DType) IsFloat() bool { return d >= F32 && d <= UE6M10 }

// Format is how a 16-bit floating-point type is stored; ok is false for the
// other types.
func (d DType) Format() (f format16.Format, ok bool) {
	return format16.ByName(d.String())
}

// ParseDType is the inverse of String.
func ParseDType(s string) (DType, error) {
	for i, n := range dtypeNames {
		if i > 0 && n == s {
			return DType(i), nil
		}
	}
	return Invalid, fmt.Errorf("unknown element type %q; one of %s", s, strings.Join(dtypeNames[1:], " "))
}

// UnmarshalText is ParseDType, for attributes.
func (d *DType) UnmarshalText(text []byte) error {
	v, err := ParseDType(string(text))
	if err == nil {
		*d = v
	}
	return err
}

// Type is the type of a value: an element type and a shape. Tensors are dense
// and row-major; a nil shape is a scalar.
type Type struct {
	DType DType
	Shape []int
}

// T builds a Type.
func T(d DType, shape ...int) Type { return Type{d, shape} }

// Len is the number of elements.
func (t Type) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Bytes is the storage size in bytes.
func (t Type) Bytes() int { return t.Len() * t.DType.Size() }

// Rank is the number of dimensions.
func (t Type) Rank() int { return len(t.Shape) }

// With returns the type with the same element type and another shape.
func (t Type) With(shape ...int) Type { return Type{t.DType, shape} }

// Equal reports equality of element type and shape.
func (t Type) Equal(u Type) bool { return t.DType == u.DType && SameShape(t.Shape, u.Shape) }

// String prints the text form, such as f32[4,128].
func (t Type) String() string {
	s := make([]string, len(t.Shape))
	for i, d := range t.Shape {
		s[i] = strconv.Itoa(d)
	}
	return t.DType.String() + "[" + strings.Join(s, ",") + "]"
}

// Strides returns the row-major strides of a shape, in elements.
func Strides(shape []int) []int {
	s := make([]int, len(shape))
	n := 1
	for i := len(shape) - 1; i >= 0; i-- {
		s[i] = n
		n *= shape[i]
	}
	return s
}

// SameShape reports whether two shapes are equal.
func SameShape(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// Pos is a line of the user's model source.
type Pos struct {
	File string
	Line int
}

// String prints file:line, or "-" when unknown.
func (p Pos) String() string {
	if p.File == "" {
		return "-"
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}
