package pipeline

import (
	"fmt"
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
