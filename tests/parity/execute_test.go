package parity

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"

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

// evaluated runs a plan by the kernel evaluator in float64, every buffer at
// its planned place: element i of a buffer is at its byte offset plus i, which
// is inside the buffer and overlaps with whatever the buffer overlaps with.
type evaluated struct {
	plan        *plan.Model
	state, work []float64
}

// uncut is a backend that leaves kernels whole.
type uncut struct{}

func (uncut) Tile(*kern.Kernel) (kern.Tile, int)    { return kern.Tile{}, 1 }
func (uncut) Pack(*kern.Kernel) (*kern.Kernel, int) { return nil, 0 }

func planned(t *testing.T, m *ir.Module) model {
	t.Helper()
	sys, err := pipeline.Compile("tiny", []*ir.Module{m}, pipeline.Options{Backend: uncut{}})
	if err != nil {
		t.Fatal(err)
	}
	x := &evaluated{plan: sys.Models[0], state: make([]float64, sys.Models[0].StateBytes)}
	for _, g := range x.plan.Globals {
		data := make([]float64, g.Type.Len())
		for i := range data {
			if g.Role == ir.Const {
				data[i] = float64(int32(binary.LittleEndian.Uint32(g.Data[4*i:])))
			} else if g.Init.Kind == "const" {
				data[i] = g.Init.Std
			}
		}
		x.set(g.Name, data)
	}
	return x
}

func (x *evaluated) at(b *plan.Buffer) []float64 {
	mem := x.work
	if b.Arena == plan.State {
		mem = x.state
	}
	return mem[b.Offset:][:b.Type.Len()]
}

func (x *evaluated) call(name string, in map[string][]float64) (map[string][]float64, error) {
	for _, p := range x.plan.Programs {
		if p.Name != name {
			continue
		}
		x.work = make([]float64, p.WorkBytes)
		for i := range x.work {
			x.work[i] = math.NaN()
		}
		for _, b := range p.Inputs {
			if len(in[b.Name]) != b.Type.Len() {
				return nil, fmt.Errorf("%s: input %s is %s, got %d elements", name, b.Name, b.Type, len(in[b.Name]))
			}
			copy(x.at(b), in[b.Name])
		}
		for _, l := range p.Launches {
			var bufs [][]float64
			for _, b := range l.Args {
				bufs = append(bufs, x.at(b))
			}
			if err := kern.Eval(l.Kernel, bufs); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", name, l.Values, err)
			}
		}
		out := map[string][]float64{}
		for _, o := range p.Outputs {
			out[o.Name] = append([]float64(nil), x.at(o.Buffer)...)
		}
		return out, nil
	}
	return nil, fmt.Errorf("no program %q", name)
}

func (x *evaluated) global(name string) []float64 {
	for _, g := range x.plan.Globals {
		if g.Name == name {
			return x.state[g.Offset:][:g.Type.Len()]
		}
	}
	return nil
}

func (x *evaluated) get(g string) []float64       { return append([]float64(nil), x.global(g)...) }
func (x *evaluated) set(g string, data []float64) { copy(x.global(g), data) }
