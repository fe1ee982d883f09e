package snapshot

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// DTypes of safetensors, by their names in the file, with bytes per element.
// Gouache writes F32, F16, BF16, I32, I8, BOOL, U8 and U16; the others are there
// to read other people's files.
var elementBytes = map[string]int{
	"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
	"U16": 2, "I16": 2, "F16": 2, "BF16": 2,
	"U32": 4, "I32": 4, "F32": 4,
	"U64": 8, "I64": 8, "F64": 8,
}

// Tensor is a named tensor as raw little-endian bytes, row-major.
type Tensor struct {
	Name  string
	DType string
	Shape []int
	Data  []byte // a view; never copied by this package

	// Stream, if set, writes the bytes in place of Data: for tensors that are on a
	// device or gathered from ranks piece by piece.
	Stream func(w io.Writer) error
}

// Bytes is the size of the tensor's data by its type and shape.
func (t Tensor) Bytes() (int64, error) {
	size, ok := elementBytes[t.DType]
	if !ok {
		return 0, fmt.Errorf("unknown dtype %q", t.DType)
	}
	n := int64(size)
	for _, d := range t.Shape {
		if d < 0 {
			return 0, fmt.Errorf("shape %v has a negative dimension", t.Shape)
		}
		if d != 0 && n > math.MaxInt64/int64(d) {
			return 0, fmt.Errorf("shape %v is too large", t.Shape)
		}
		n *= int64(d)
	}
	return n, nil
}

// String gives name, type and shape: "res0.wi f16[128,4096]".
func (t Tensor) String() string {
	dims := make([]string, len(t.Shape))
	for i, d := range t.Shape {
		dims[i] = fmt.Sprint(d)
	}
	return fmt.Sprintf("%s %s[%s]", t.Name, strings.ToLower(t.DType), strings.Join(dims, ","))
}
