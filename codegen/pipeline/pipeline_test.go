package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/sched"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/models/system"
	_ "github.com/gouache-ml/gouache/models/systems"
)

// The arenas of every system are at most 5% larger than what is alive at once,
// with recomputation too. Check, which shares no code with placement, passes in
// Compile.
func TestSystemsArePlacedWithinFivePercent(t *testing.T) {
	for _, c := range []struct {
		system string
		remat  ir.Remat
		budget string
	}{
		{"demo", ir.RematOff, ""},
		{"demo", ir.RematCheap, ""},
		{"demo", ir.RematBlocks, ""},
		{"demo", ir.RematAuto, "64MiB"},
		{"deep", ir.RematAuto, ""},
		{"peers", ir.RematAuto, ""},
		{"emoji", ir.RematAuto, ""},
		{"emoji", ir.RematBlocks, ""},
		{"paper", ir.RematAuto, ""},
	} {
		t.Run(strings.TrimSpace(fmt.Sprintf("%s %s %s", c.system, c.remat, c.budget)), func(t *testing.T) {
			t.Parallel()
			s, err := system.Lookup(c.system)
			if err != nil {
				t.Fatal(err)
			}
			ms, err := s.Build()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range ms {
				m.Remat = c.remat
			}
			if err := system.SetBudget(ms, c.budget); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			p, err := Compile(c.system, ms, Options{Backend: cpu.Backend{}, Placed: func(m *ir.Module, p *plan.Program, r sched.Report) {
				if r.Gap() > 0 {
					t.Logf("%s.%s: %s", m.Name, p.Name, r)
				}
				if r.Gap() > 0.05 {
					t.Errorf("%s.%s: %s, want at most 5%%", m.Name, p.Name, r)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d kernels in %v", len(p.Kernels), time.Since(start))
		})
	}
}

// demo's transformer gets into less memory by launches that run again alone than together with what is cheap:
// a budget that the first can meet is met.
func TestABudgetIsMetWithoutWhatIsCheap(t *testing.T) {
	t.Parallel()
	compile := func(way ir.Remat, budget int) error {
		s, err := system.Lookup("demo")
		if err != nil {
			t.Fatal(err)
		}
		ms, err := s.Build()
		if err != nil {
			t.Fatal(err)
		}
		m := ms[slices.IndexFunc(ms, func(m *ir.Module) bool { return m.Name == "prior" })]
		m.Funcs = slices.DeleteFunc(m.Funcs, func(f *ir.Func) bool { return f.Name != "train" })
		m.Remat, m.Budget = way, budget
		_, err = Compile("demo", []*ir.Module{m}, Options{Backend: cpu.Backend{}})
		return err
	}
	err := compile(ir.RematOff, 1)
	if err == nil {
		t.Fatal("one byte is enough")
	}
	_, amount, _ := strings.Cut(err.Error(), "give -budget ")
	budget, err := ir.ParseBudget(amount)
	if err != nil {
		t.Fatal(err)
	}
	if err := compile(ir.RematCheap, budget); err == nil {
		t.Fatalf("%s do with what is cheap made again; the test needs another model", amount)
	}
	if err := compile(ir.RematAuto, budget); err != nil {
		t.Error(err)
	}
}
