package parity

import (
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/models/modeltest"
)

// machine runs graphs by the ops' reference semantics.
type machine struct{ *modeltest.Machine }

func interpreted(t *testing.T, m *ir.Module, pass func(*ir.Func) error) model {
	t.Helper()
	for _, f := range m.Funcs {
		if err := pass(f); err != nil {
			t.Fatal(err)
		}
	}
	x, err := modeltest.New(m, 0)
	if err != nil {
		t.Fatal(err)
	}
	return machine{x}
}

func (m machine) call(name string, in map[string][]float64) (map[string][]float64, error) {
	results, err := m.Call(name, in)
	out := map[string][]float64{}
	for n, t := range results {
		out[n] = t.Data
	}
	return out, err
}

func (m machine) get(g string) []float64       { return append([]float64(nil), m.Globals[g].Data...) }
func (m machine) set(g string, data []float64) { copy(m.Globals[g].Data, data) }

// evaluated runs a plan in float64.
type evaluated struct{ *plan.Evaluator }

// uncut is a backend that leaves kernels whole.
type uncut struct{ cpu.Backend }

func (uncut) Tile(*kern.Kernel) (kern.Tile, int)    { return kern.Tile{}, 1 }
func (uncut) Pack(*kern.Kernel) (*kern.Kernel, int) { return nil, 0 }
func (uncut) Copied(k *kern.Kernel, i int) int      { return k.Bufs[k.FindContract().Args[i].Buf].Len }

func planned(t *testing.T, m *ir.Module) model {
	t.Helper()
	sys, err := pipeline.Compile("tiny", []*ir.Module{m}, pipeline.Options{Backend: uncut{}})
	if err != nil {
		t.Fatal(err)
	}
	return evaluated{plan.NewEvaluator(sys.Models[0])}
}

func (x evaluated) call(name string, in map[string][]float64) (map[string][]float64, error) {
	return x.Run(name, in, nil)
}

func (x evaluated) get(g string) []float64       { return append([]float64(nil), x.Global(g)...) }
func (x evaluated) set(g string, data []float64) { copy(x.Global(g), data) }
