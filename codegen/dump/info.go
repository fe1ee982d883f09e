package dump

import (
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/codegen/sched"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/ops"
)

// info compiles the input to a checked plan and prints what it consists of:
// per module parameters, stored bytes and attention masks; per function
// instructions, launches, work memory and arithmetic.
func (in *input) info(w io.Writer) error {
	ms, err := in.build()
	if err != nil {
		return err
	}
	before := map[*ir.Func]int{}
	for _, m := range ms {
		params := 0
		for _, g := range m.Globals {
			if g.Role == ir.Param {
				params += g.Type.Len()
			}
		}
		fmt.Fprintf(w, "%s.%s: %d parameters\n", in.name, m.Name, params)
		for _, f := range m.Funcs {
			before[f] = len(f.Body)
			if s := masks(f); s != "" {
				fmt.Fprintf(w, "  %-12s attention masks: %s\n", f.Name, s)
			}
		}
	}
	fmt.Fprintf(w, "%-20s %12s %12s %10s %14s %14s\n", "function", "instructions", "after passes", "launches", "work bytes", "MFLOP")
	s, err := pipeline.Compile(in.name, ms, pipeline.Options{Backend: in.target(), Placed: func(m *ir.Module, p *plan.Program, r sched.Report) {
		f := m.Func(p.Name)
		fmt.Fprintf(w, "%-20s %12d %12d %10d %14d %14.1f\n", m.Name+"."+p.Name, before[f], len(f.Body), len(p.Launches), p.WorkBytes, float64(p.FLOPs)/1e6)
		if r.Cheap.Buffers > 0 {
			fmt.Fprintf(w, "%-20s %s\n", "", r.Cheap)
		}
		if r.Delayed > 0 {
			fmt.Fprintf(w, "%-20s launches that run later than they could, so that less is alive: %d\n", "", r.Delayed)
		}
		if r.Again.Launches > 0 {
			fmt.Fprintf(w, "%-20s in place of %d work bytes: %s\n", "", r.Again.Kept, r.Again)
		}
	}})
	if err != nil {
		return err
	}
	for _, m := range ms { // types of stored tensors are known now
		stored := 0
		for _, g := range m.Globals {
			stored += g.Type.Bytes()
		}
		fmt.Fprintf(w, "%s.%s: %d bytes stored\n", in.name, m.Name, stored)
	}
	fmt.Fprintf(w, "verified after every pass; every buffer placed and checked; %d distinct kernels\n", len(s.Kernels))
	return nil
}

// masks counts the attention instructions of f by mask.
func masks(f *ir.Func) string {
	count := map[string]int{}
	for _, i := range f.Body {
		if a, ok := i.Op.(ops.AttentionOp); ok {
			count[a.Mask.String()]++
		}
	}
	var s []string
	for m, n := range count {
		s = append(s, fmt.Sprintf("%d of %s", n, m))
	}
	sort.Strings(s)
	return strings.Join(s, ", ")
}
