package pipeline

import (
	"testing"
	"time"

	"github.com/gouache-ml/gouache/codegen/sched"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/models/system"
	_ "github.com/gouache-ml/gouache/models/systems"
)

type whole struct{}

func (whole) Tile(k *kern.Kernel) (kern.Tile, int)    { return kern.Tile{}, 1 }
func (whole) Pack(k *kern.Kernel) (*kern.Kernel, int) { return nil, 0 }
func (whole) Copied(k *kern.Kernel, i int) int        { return k.Bufs[k.FindContract().Args[i].Buf].Len }

func TestDemoCompilesToAPlan(t *testing.T) {
	s, err := system.Lookup("demo")
	if err != nil {
		t.Fatal(err)
	}
	ms, err := s.Build()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	p, err := Compile("demo", ms, Options{Backend: whole{}, Placed: func(m *ir.Module, p *plan.Program, r sched.Report) {
		t.Logf("%s.%s: %d launches, %s, %.1f MFLOP", m.Name, p.Name, len(p.Launches), r, float64(p.FLOPs)/1e6)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d kernels in %v", len(p.Kernels), time.Since(start))
}
