package compiled

import (
	"fmt"
	"math"

	"github.com/x448/float16"

	"github.com/gouache-ml/gouache/runtime/exec"
)

// Call runs program name of m on flat inputs by name and returns copies of its
// outputs.
func Call(m *exec.Model, name string, in map[string][]float64) (map[string][]float64, error) {
	p, err := m.Program(name)
	if err != nil {
		return nil, err
	}
	for i := range p.Inputs() {
		t := &p.Inputs()[i]
		if err := Put(t, in[t.Name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	p.Run()
	out := map[string][]float64{}
	for i := range p.Outputs() {
		out[p.Outputs()[i].Name] = p.Outputs()[i].Float64s()
	}
	return out, nil
}

// Put stores x in t, each element rounded to the nearest value of t's type.
func Put(t *exec.Tensor, x []float64) error {
	if len(x) != t.Len() {
		return fmt.Errorf("%s: %d elements are given", t, len(x))
	}
	size := t.DType.Size()
	for i, v := range x {
		b := bits(t.DType, v)
		for j := range size {
			t.Data[size*i+j] = byte(b >> (8 * j))
		}
	}
	return nil
}

// bits encodes v. The 16-bit optimiser formats only take values they hold
// exactly: rounding to them is what tests are about.
func bits(d exec.DType, v float64) uint32 {
	switch d {
	case exec.F32:
		return math.Float32bits(float32(v))
	case exec.F16:
		return uint32(float16.Fromfloat32(float32(v)).Bits())
	case exec.BF16:
		b := math.Float32bits(float32(v))
		return (b + 0x7fff + b>>16&1) >> 16
	case exec.E6M9, exec.UE6M10:
		frac := 10
		if d == exec.E6M9 {
			frac = 9
		}
		m, e := math.Frexp(math.Abs(v))
		if v == 0 || e < -59 {
			return 0
		}
		code := uint32(e+59)<<frac + uint32((2*m-1)*math.Ldexp(1, frac))
		if v < 0 {
			code |= 0x8000
		}
		return code
	}
	return uint32(int32(v))
}
