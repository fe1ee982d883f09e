package load

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/runtime/exec"
)

// Spec is everything of sys but its machine code: Objects are the caller's to add.
func Spec(sys *plan.System) (*exec.Spec, error) {
	s := &exec.Spec{Name: sys.Name}
	number := map[string]int{}
	for i, k := range sys.Kernels {
		number[k.Name] = i
		e := exec.Kernel{Name: k.Name, Args: len(k.Bufs), Chunks: k.Chunks, Together: k.Tile.Together, FLOPs: k.FLOPs, Bytes: int64(k.Traffic()), Changes: k.Changes(), Sizes: k.Sizes()}
		for _, b := range k.Written() {
			e.Writes = append(e.Writes, exec.Written{Arg: b, DType: dtype(k.Bufs[b].DType), Len: k.Bufs[b].Len})
		}
		s.Kernels = append(s.Kernels, e)
	}
	for _, m := range sys.Models {
		x, err := model(m, number)
		if err != nil {
			return nil, err
		}
		s.Models = append(s.Models, x)
	}
	return s, nil
}

func model(m *plan.Model, number map[string]int) (exec.ModelSpec, error) {
	ms := exec.ModelSpec{Name: m.Name, Fingerprint: m.Fingerprint, StateBytes: int64(m.StateBytes)}
	for _, g := range m.Globals {
		gs := exec.GlobalSpec{Name: g.Name, Role: exec.Role(g.Role), DType: dtype(g.Type.DType), Shape: g.Type.Shape,
			Offset: int64(g.Offset), Init: g.Init.Kind, Std: g.Init.Std, Decay: g.Decay, Const: -1}
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
		ranges, _ := plan.InputRanges(m, p) // none are known otherwise
		for _, b := range p.Inputs {
			t := tensor(strings.TrimPrefix(b.Name, "%"), b.Type, b)
			t.Range = exec.Range(ranges[b])
			ps.Inputs = append(ps.Inputs, t)
		}
		for _, o := range p.Outputs {
			t := o.Type
			if t.DType == ir.Invalid {
				t = o.Buffer.Type
			}
			ps.Outputs = append(ps.Outputs, tensor(o.Name, t, o.Buffer))
		}
		var run []int
		for _, l := range p.Launches {
			n, ok := number[l.Kernel.Name]
			if !ok {
				return ms, fmt.Errorf("internal: %s.%s launches %s, which is not in the system's list", m.Name, p.Name, l.Kernel.Name)
			}
			run = append(run, n)
			ps.Launches = append(ps.Launches, launch(&l))
		}
		ps.Run = func(r *exec.Run) {
			for i, n := range run {
				r.Launch(n, i)
			}
		}
		ms.Programs = append(ms.Programs, ps)
	}
	return ms, nil
}

func launch(l *plan.Launch) exec.Launch {
	x := exec.Launch{Block: l.Block, Gradient: l.Backward && !l.Copy, Values: l.Values, Pos: l.Pos.String()}
	if l.Backward {
		x.Block += " backward"
	}
	for _, b := range l.Args {
		x.Args = append(x.Args, addr(b))
	}
	return x
}

func dtype(d ir.DType) exec.DType { return exec.DType(d.String()) }

func addr(b *plan.Buffer) exec.Addr {
	if b.Arena == plan.State {
		return exec.State + exec.Addr(b.Offset)
	}
	return exec.Work + exec.Addr(b.Offset)
}

func tensor(name string, t ir.Type, b *plan.Buffer) exec.TensorSpec {
	return exec.TensorSpec{Name: name, DType: dtype(t.DType), Shape: t.Shape, Addr: addr(b)}
}

// Entries are those of a GPU kernel.
func Entries(es []cuda.Entry) []exec.Entry {
	var out []exec.Entry
	for _, e := range es {
		x := exec.Entry{Name: e.Name, Grid: e.Grid, Block: e.Block, Shared: e.Shared, Cluster: e.Cluster, Args: slices.Clone(e.Args)}
		for _, m := range e.Maps {
			x.Maps = append(x.Maps, exec.TensorMap{Arg: m.Arg, Offset: m.Offset, DType: dtype(m.DType), Dims: m.Dims, Strides: m.Strides, Box: m.Box, Swizzle: m.Swizzle})
		}
		out = append(out, x)
	}
	return out
}
