package dump

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/interp"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/ops"
)

// bisect looks for the first step of compilation after which a function computes
// something else, in float64, and for the value at which that begins. The graph
// is interpreted before and after every pass, and the plan is evaluated launch by
// launch beside the last graph. Machine code is not run: package tests/compiled
// holds that against the same evaluator.
func (in *input) bisect(passes []pipeline.Pass, w io.Writer) error {
	ms, err := in.build()
	if err != nil {
		return err
	}
	var names []string
	shown := 0
	for _, m := range ms {
		for _, f := range m.Funcs {
			name := m.Name + "." + f.Name
			names = append(names, name)
			if in.only != nil && !in.only.MatchString(name) {
				continue
			}
			shown++
			found, err := suspect(m, f, passes)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if found != "" {
				return fmt.Errorf("%s: %s", name, found)
			}
			if _, err := fmt.Fprintf(w, "%s: the same after every pass, and launch by launch\n", name); err != nil {
				return err
			}
		}
	}
	if shown == 0 && in.only != nil {
		return in.noFunc(names)
	}
	return nil
}

// trial is a function with numbers to run it on.
type trial struct {
	f               *ir.Func
	inputs, globals map[string]*ir.Tensor
	tolerance       float64 // relative to the largest magnitude of a tensor
}

// suspect says what goes wrong where, "" for nothing.
func suspect(m *ir.Module, f *ir.Func, passes []pipeline.Pass) (found string, err error) {
	defer func() {
		// References index by what the inputs say and may run out of a table.
		if r := recover(); r != nil {
			err = fmt.Errorf("can't be run on made-up inputs: %v", r)
		}
	}()
	if err := f.Err(); err != nil {
		return "", err
	}
	x := newTrial(m, f)
	var last []*ir.Tensor
	var before []*ir.Value // what last's results and updates were
	for i := -1; i < len(passes); i++ {
		if i >= 0 {
			if err := passes[i].Run(f); err != nil {
				return "", err
			}
		}
		if expanded(f) {
			continue // gradients have no meaning of their own
		}
		now, err := interp.Values(f, x.inputs, x.globals)
		if err != nil {
			return "", err
		}
		if last != nil {
			if d := x.outcome(before, last, now); d != "" {
				return fmt.Sprintf("after %s %s%s", passes[i].Name, d, x.begins(last, now)), nil
			}
		}
		last, before = now, results(f)
	}
	if last == nil {
		return "", nil
	}
	return x.launches(m, last)
}

func newTrial(m *ir.Module, f *ir.Func) *trial {
	x := &trial{f: f, inputs: map[string]*ir.Tensor{}, globals: map[string]*ir.Tensor{}, tolerance: 1e-9}
	if m.Precision != (ir.Precision{}) {
		x.tolerance = 1e-2 // passes move roundings to 16 bits
	}
	r := rand.New(rand.NewPCG(1, 1))
	for _, v := range f.Inputs {
		t := ir.NewTensor(v.Type)
		for i := range t.Data {
			switch {
			case v.Type.Rank() == 0 && v.Type.DType.IsFloat():
				t.Data[i] = 0.5 // a rate, a temperature
			case v.Type.Rank() == 0:
				t.Data[i] = 1 // a step, a position
			case v.Type.DType.IsFloat():
				t.Data[i] = float64(float32(r.NormFloat64()))
			default:
				t.Data[i] = float64(r.IntN(2))
			}
		}
		x.inputs[v.Name] = t
	}
	for _, v := range f.Reads() {
		g := v.Global
		if g.Role == ir.Const {
			continue // the interpreter reads it itself
		}
		t := ir.NewTensor(g.Type)
		for i := range t.Data {
			switch g.Role {
			case ir.Param, ir.Average:
				t.Data[i] = float64(float32(0.1 * r.NormFloat64()))
				if g.Init.Kind == "const" {
					t.Data[i] += g.Init.Std
				}
			}
		}
		x.globals[g.Name] = t
	}
	return x
}

func expanded(f *ir.Func) bool {
	for _, in := range f.Body {
		if _, ok := in.Op.(ops.Expanded); ok {
			return true
		}
	}
	return false
}

// results lists what f gives, in an order that passes keep.
func results(f *ir.Func) []*ir.Value {
	var vs []*ir.Value
	for _, r := range f.Results {
		vs = append(vs, r.Value)
	}
	for _, u := range f.Updates {
		vs = append(vs, u.Value)
	}
	return vs
}

// outcome compares the results before a pass with those after it.
func (x *trial) outcome(before []*ir.Value, last, now []*ir.Tensor) string {
	after := results(x.f)
	if len(before) != len(after) {
		return fmt.Sprintf("there are %d results, before %d", len(after), len(before))
	}
	for i, v := range after {
		name := ""
		if i < len(x.f.Results) {
			name = "result " + x.f.Results[i].Name
		} else {
			name = "the new @" + x.f.Updates[i-len(x.f.Results)].Global.Name
		}
		if d := x.differ(last[before[i].ID].Data, now[v.ID].Data); d != "" {
			return name + " " + d
		}
	}
	return ""
}

// begins names the first instruction whose value was another one before the pass.
func (x *trial) begins(last, now []*ir.Tensor) string {
	for _, in := range x.f.Body {
		for _, v := range in.Results {
			if v.ID >= len(last) || last[v.ID] == nil {
				continue // new
			}
			if d := x.differ(last[v.ID].Data, now[v.ID].Data); d != "" {
				return fmt.Sprintf("; it begins at %s: %s of %s, whose %s", in.Pos, in.Op.Name(), list(in.Args), v.String()+" "+d)
			}
		}
	}
	return ""
}

func list(vs []*ir.Value) string {
	var s []string
	for _, v := range vs {
		s = append(s, v.String())
	}
	return strings.Join(s, ", ")
}

// differ says where two tensors differ, "" for nowhere.
func (x *trial) differ(want, got []float64) string {
	if len(want) != len(got) {
		return fmt.Sprintf("has %d elements, before %d", len(got), len(want))
	}
	top := 0.0
	for _, v := range want {
		if a := math.Abs(v); a > top && !math.IsInf(a, 0) {
			top = a
		}
	}
	for i, v := range want {
		if v != got[i] && !(math.IsNaN(v) && math.IsNaN(got[i])) && !(math.Abs(v-got[i]) <= x.tolerance*top) {
			return fmt.Sprintf("[%d] is %.6g, before %.6g", i, got[i], v)
		}
	}
	return ""
}

// whole is a backend that neither cuts kernels into chunks nor packs operands:
// both belong to machine code.
type whole struct{ cpu.Backend }

func (whole) Tile(*kern.Kernel) (kern.Tile, int)    { return kern.Tile{}, 1 }
func (whole) Pack(*kern.Kernel) (*kern.Kernel, int) { return nil, 0 }

// launches evaluates the plan of x's function, whose passes are done, and
// compares each buffer with the value of its name once it is complete.
func (x *trial) launches(m *ir.Module, vals []*ir.Tensor) (string, error) {
	part := *m
	part.Funcs, part.Budget = []*ir.Func{x.f}, 0 // here programs have other sizes than on a machine
	sys, err := pipeline.Compile(m.Name, []*ir.Module{&part}, pipeline.Options{Backend: whole{}})
	if err != nil {
		return "", err
	}
	e := plan.NewEvaluator(sys.Models[0])
	for name, t := range x.globals {
		copy(e.Global(name), t.Data)
	}
	want := map[string][]float64{}
	for _, in := range x.f.Body {
		for _, v := range in.Results {
			want[v.String()] = vals[v.ID].Data
		}
	}
	inputs := map[string][]float64{}
	for name, t := range x.inputs {
		inputs[name] = t.Data
	}
	found := ""
	_, err = e.Run(x.f.Name, inputs, func(p *plan.Program, i int) error {
		l := p.Launches[i]
		for a, b := range l.Args {
			if l.Kernel.Bufs[a].Mode == kern.In || want[b.Name] == nil || writtenAfter(p, i, b) {
				continue
			}
			if d := x.differ(want[b.Name], e.At(b)); d != "" {
				found = fmt.Sprintf("lowering, or placement: launch %d of %s (%s) at %s writes %s, which %s", i, l.Kernel.Name, l.Values, l.Pos, b.Name, d)
				return errStop
			}
		}
		return nil
	})
	if err == errStop {
		err = nil
	}
	return found, err
}

// writtenAfter tells whether a launch after launch i writes to b: a buffer may be
// filled in parts.
func writtenAfter(p *plan.Program, i int, b *plan.Buffer) bool {
	for _, l := range p.Launches[i+1:] {
		for a, arg := range l.Args {
			if arg == b && l.Kernel.Bufs[a].Mode != kern.In {
				return true
			}
		}
	}
	return false
}
