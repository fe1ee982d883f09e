package modeltest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/interp"
)

// Machine holds a module's stored tensors.
type Machine struct {
	Module  *ir.Module
	Globals map[string]*ir.Tensor
}

// Start is New of a module as its builder returned it; an error ends the test.
func Start(t testing.TB, m *ir.Module, err error) *Machine {
	t.Helper()
	var x *Machine
	if err == nil {
		x, err = New(m, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// MustCall is Call; an error ends the test.
func (x *Machine) MustCall(t testing.TB, name string, inputs map[string][]float64) map[string]*ir.Tensor {
	t.Helper()
	out, err := x.Call(name, inputs)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// New fills the globals of m by their Init, normal numbers from seed.
func New(m *ir.Module, seed uint64) (*Machine, error) {
	r := rand.New(rand.NewPCG(seed, 0))
	x := &Machine{m, map[string]*ir.Tensor{}}
	for _, g := range m.Globals {
		t := ir.NewTensor(g.Type)
		switch {
		case g.Role == ir.Const:
			if g.Type.DType != ir.I32 {
				return nil, fmt.Errorf("@%s: constant of %s; only i32 is read here", g.Name, g.Type)
			}
			for i := range t.Data {
				t.Data[i] = float64(int32(binary.LittleEndian.Uint32(g.Data[4*i:])))
			}
		case g.Init.Kind == "normal":
			for i := range t.Data {
				t.Data[i] = r.NormFloat64() * g.Init.Std
			}
		case g.Init.Kind == "const":
			for i := range t.Data {
				t.Data[i] = g.Init.Std
			}
		}
		x.Globals[g.Name] = t
	}
	return x, nil
}

// Scramble replaces every parameter by normal numbers of the given standard
// deviation, added to 1 for gains, so that no part of the model is silent.
func (x *Machine) Scramble(seed uint64, std float64) {
	r := rand.New(rand.NewPCG(seed, 1))
	for _, g := range x.Module.Globals {
		if g.Role != ir.Param {
			continue
		}
		t := x.Globals[g.Name]
		for i := range t.Data {
			t.Data[i] = r.NormFloat64() * std
			if g.Init.Kind == "const" {
				t.Data[i] += g.Init.Std
			}
		}
	}
}

// Call runs function name and keeps what it updates. Inputs are given as flat
// values by name.
func (x *Machine) Call(name string, inputs map[string][]float64) (map[string]*ir.Tensor, error) {
	f := x.Module.Func(name)
	if f == nil {
		return nil, fmt.Errorf("module %s has no function %q", x.Module.Name, name)
	}
	in := map[string]*ir.Tensor{}
	for _, v := range f.Inputs {
		if data, ok := inputs[v.Name]; ok {
			in[v.Name] = &ir.Tensor{Type: v.Type, Data: data}
		}
	}
	results, updates, err := interp.Run(f, in, x.Globals)
	if err != nil {
		return nil, err
	}
	for name, t := range updates {
		x.Globals[name] = t
	}
	return results, nil
}
