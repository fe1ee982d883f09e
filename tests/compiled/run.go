package compiled

import (
	"fmt"
	"math"

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
	if err := m.Err(); err != nil {
		return nil, err
	}
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

// bits encodes v.
func bits(d exec.DType, v float64) uint32 {
	if f, ok := d.Format(); ok {
		return uint32(f.Encode(float32(v)))
	}
	if d == exec.F32 {
		return math.Float32bits(float32(v))
	}
	return uint32(int32(v))
}
