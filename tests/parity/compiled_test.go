package parity

import (
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/runtime/exec"
	machinecode "github.com/gouache-ml/gouache/tests/compiled"
)

// compiled runs a module as trainers do: kernels compiled for a processor,
// executed by runtime/exec.
type compiled struct{ *exec.Model }

// compileFor prepares modules for one target.
func compileFor(target string) prepare {
	return func(t *testing.T, m *ir.Module) model {
		t.Helper()
		spec, err := machinecode.Compile("tiny", m)
		if err != nil {
			t.Fatal(err)
		}
		s, err := exec.Open(spec, exec.Options{Threads: 2, Target: target})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		x, err := s.Model(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Init(1); err != nil {
			t.Fatal(err)
		}
		return compiled{x}
	}
}

// compile prepares modules for this machine's best target.
func compile(t *testing.T, m *ir.Module) model {
	t.Helper()
	return compileFor(machinecode.Targets()[0])(t, m)
}

func (c compiled) call(name string, in map[string][]float64) (map[string][]float64, error) {
	return machinecode.Call(c.Model, name, in)
}

func (c compiled) get(g string) []float64 {
	x, err := c.Tensor(g)
	if err != nil {
		return nil
	}
	return x.Float64s()
}

func (c compiled) set(g string, data []float64) {
	if x, err := c.Tensor(g); err == nil {
		_ = machinecode.Put(x, data) // a wrong length shows as wrong numbers
	}
}
