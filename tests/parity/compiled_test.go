package parity

import (
	"context"
	"fmt"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/plan"
	device "github.com/gouache-ml/gouache/runtime/device/cpu"
	"github.com/gouache-ml/gouache/runtime/exec"
)

// compiled runs a module as trainers do: kernels compiled for this processor,
// executed by runtime/exec. The specification that gouachec writes as Go code
// is made in memory.
type compiled struct{ *exec.Model }

func compile(t *testing.T, m *ir.Module) model {
	t.Helper()
	sys, err := pipeline.Compile("tiny", []*ir.Module{m}, pipeline.Options{Backend: cpu.Backend{}})
	if err != nil {
		t.Fatal(err)
	}
	tools, err := toolchain.Find()
	if err != nil {
		t.Fatal(err)
	}
	target, err := build.TargetByName(device.Targets()[0])
	if err != nil {
		t.Fatal(err)
	}
	targets := []*build.Target{target}
	objects, err := cpu.Compile(context.Background(), tools, sys.Kernels, targets)
	if err != nil {
		t.Fatal(err)
	}
	spec := specification(sys)
	spec.Objects = []exec.Object{{Target: target.Name, Code: objects[target.Name], Scratch: cpu.ScratchBytes(sys.Kernels, targets)}}
	s, err := exec.Open(spec, exec.Options{Threads: 2})
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

func specification(sys *plan.System) *exec.Spec {
	s := &exec.Spec{Name: sys.Name}
	number := map[string]int{}
	for i, k := range sys.Kernels {
		number[k.Name] = i
		s.Kernels = append(s.Kernels, exec.Kernel{Name: k.Name, Args: len(k.Bufs), Chunks: k.Chunks, FLOPs: k.FLOPs})
	}
	address := func(b *plan.Buffer) exec.Addr {
		if b.Arena == plan.State {
			return exec.State + exec.Addr(b.Offset)
		}
		return exec.Work + exec.Addr(b.Offset)
	}
	tensor := func(name string, t ir.Type, b *plan.Buffer) exec.TensorSpec {
		return exec.TensorSpec{Name: name, DType: exec.DType(t.DType.String()), Shape: t.Shape, Addr: address(b)}
	}
	for _, m := range sys.Models {
		ms := exec.ModelSpec{Name: m.Name, Fingerprint: m.Fingerprint, StateBytes: int64(m.StateBytes)}
		for _, g := range m.Globals {
			gs := exec.GlobalSpec{
				Name: g.Name, Role: exec.Role(g.Role), DType: exec.DType(g.Type.DType.String()), Shape: g.Type.Shape,
				Offset: int64(g.Offset), Init: g.Init.Kind, Std: g.Init.Std, Decay: g.Decay, Const: -1,
			}
			if g.Of != nil {
				gs.Of = g.Of.Name
			}
			if len(g.Data) > 0 {
				gs.Const = len(ms.Consts)
				ms.Consts = append(ms.Consts, g.Data...)
			}
			ms.Globals = append(ms.Globals, gs)
		}
		for _, p := range m.Programs {
			ps := exec.ProgramSpec{Name: p.Name, WorkBytes: int64(p.WorkBytes)}
			for _, b := range p.Inputs {
				ps.Inputs = append(ps.Inputs, tensor(b.Name, b.Type, b))
			}
			for _, o := range p.Outputs {
				t := o.Type
				if t.DType == ir.Invalid {
					t = o.Buffer.Type
				}
				ps.Outputs = append(ps.Outputs, tensor(o.Name, t, o.Buffer))
			}
			var kernels []int
			for _, l := range p.Launches {
				row := exec.Launch{Block: l.Block, Values: l.Values, Pos: l.Pos.String()}
				for _, b := range l.Args {
					row.Args = append(row.Args, address(b))
				}
				ps.Launches = append(ps.Launches, row)
				kernels = append(kernels, number[l.Kernel.Name])
			}
			ps.Run = func(r *exec.Run) {
				for i, k := range kernels {
					r.Launch(k, i)
				}
			}
			ms.Programs = append(ms.Programs, ps)
		}
		s.Models = append(s.Models, ms)
	}
	return s
}

func (c compiled) call(name string, in map[string][]float64) (map[string][]float64, error) {
	p, err := c.Program(name)
	if err != nil {
		return nil, err
	}
	for _, x := range p.Inputs() {
		if len(in[x.Name]) != x.Len() {
			return nil, fmt.Errorf("%s: input %s is %s, got %d elements", name, x.Name, &x, len(in[x.Name]))
		}
		if err := fill(&x, in[x.Name]); err != nil {
			return nil, err
		}
	}
	p.Run()
	out := map[string][]float64{}
	for _, x := range p.Outputs() {
		out[x.Name] = x.Float64s()
	}
	return out, nil
}

func fill(x *exec.Tensor, data []float64) error {
	if x.DType == exec.I32 {
		to, err := x.I32()
		for i := range to {
			to[i] = int32(data[i])
		}
		return err
	}
	to, err := x.F32()
	for i := range to {
		to[i] = float32(data[i])
	}
	return err
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
		_ = fill(x, data) // a wrong type shows as wrong numbers
	}
}
