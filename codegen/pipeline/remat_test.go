package pipeline_test

import (
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/ops"
)

type uncut struct{ cpu.Backend }

func (uncut) Tile(k *kern.Kernel) (kern.Tile, int)    { return kern.Tile{}, 1 }
func (uncut) Pack(k *kern.Kernel) (*kern.Kernel, int) { return nil, 0 }
func (uncut) Copied(k *kern.Kernel, i int) int        { return k.Bufs[k.FindContract().Args[i].Buf].Len }

// compiled are the tiny models after a change to each.
func compiled(t *testing.T, change func(i int, m *ir.Module)) []*plan.Model {
	t.Helper()
	ms := tinyModels(t)
	for i, m := range ms {
		change(i, m)
	}
	sys, err := pipeline.Compile("tiny", ms, pipeline.Options{Backend: uncut{}})
	if err != nil {
		t.Fatal(err)
	}
	return sys.Models
}

// trained is what a step of train gives and leaves, evaluated in float64.
func trained(t *testing.T, m *plan.Model, p *plan.Program, seed uint64) map[string][]float64 {
	t.Helper()
	r := rand.New(rand.NewPCG(1, seed))
	x := plan.NewEvaluator(m)
	for _, g := range m.Globals {
		if g.Role == ir.Param {
			copy(x.Global(g.Name), filled(r, g.Type, ops.Fill{}).Data)
		}
	}
	in := map[string][]float64{}
	for _, b := range p.Inputs {
		fill := ops.Fill{Kind: "positive"}
		if b.Type.DType == ir.I32 {
			fill = ops.Fill{Kind: "index", N: 3}
		}
		in[b.Name] = filled(r, b.Type, fill).Data
	}
	out, err := x.Run("train", in, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range m.Globals {
		out["@"+g.Name] = append([]float64(nil), x.Global(g.Name)...)
	}
	return out
}

func train(m *plan.Model) *plan.Program {
	i := slices.IndexFunc(m.Programs, func(p *plan.Program) bool { return p.Name == "train" })
	return m.Programs[i]
}

// A plan that computes again gives, evaluated in float64, the very numbers of
// one that keeps, in less memory: what is cheap, whole blocks, and what a budget
// halfway between these asks for.
func TestRematKeepsWhatIsComputed(t *testing.T) {
	kept := compiled(t, func(_ int, m *ir.Module) { m.Remat = ir.RematOff })
	cheap := compiled(t, func(_ int, m *ir.Module) { m.Remat = ir.RematCheap })
	blocks := compiled(t, func(_ int, m *ir.Module) { m.Remat = ir.RematBlocks })
	budget := compiled(t, func(i int, m *ir.Module) {
		m.Budget = kept[i].StateBytes + (train(cheap[i]).WorkBytes+train(blocks[i]).WorkBytes)/2
	})
	for i, m := range kept {
		want := trained(t, m, train(m), uint64(i))
		for way, other := range map[string]*plan.Model{"cheap": cheap[i], "blocks": blocks[i], "budget": budget[i]} {
			p := train(other)
			if p.WorkBytes >= train(m).WorkBytes {
				t.Errorf("%s, %s: %d bytes of work memory, %d without recomputation", m.Name, way, p.WorkBytes, train(m).WorkBytes)
			}
			got := trained(t, other, p, uint64(i))
			for name, w := range want {
				for e, v := range got[name] {
					if v != w[e] && (v == v || w[e] == w[e]) {
						t.Fatalf("%s, %s: %s[%d] is %v, without recomputation %v", m.Name, way, name, e, v, w[e])
					}
				}
			}
		}
	}
}

// What the message says would do does, and nothing that prints as less: not without
// making again what is cheap either.
func TestTooSmallABudgetNamesTheLeast(t *testing.T) {
	compile := func(budget int) (*plan.System, error) {
		ms := tinyModels(t)
		for _, m := range ms {
			m.Budget = budget
		}
		return pipeline.Compile("tiny", ms, pipeline.Options{Backend: uncut{}})
	}
	_, err := compile(1)
	if err == nil {
		t.Fatal("one byte is enough")
	}
	found := regexp.MustCompile(`^(\w+)\.train: the budget is too small: it needs at least (\S+) \(state \S+, work \S+\); give -budget (\S+)$`).FindStringSubmatch(err.Error())
	if found == nil || found[2] != found[3] {
		t.Fatalf("got %v", err)
	}
	least, err := ir.ParseBudget(found[3])
	if err != nil {
		t.Fatal(err)
	}
	sys, err := compile(least)
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for _, m := range sys.Models {
		most = max(most, m.StateBytes+train(m).WorkBytes)
	}
	if most > least || least-most > 1<<10 {
		t.Errorf("the largest model takes %d bytes of a least budget of %d", most, least)
	}
	if _, err := compile(most - 1); err == nil {
		t.Errorf("%d bytes are said to be the least, and %d do", most, most-1)
	}
}
