package compiled

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/models/system"
)

// Recomputation changes no bit of training, and takes less memory: of what is
// cheap, of blocks, and what a budget halfway between these asks for. The last
// model is the transformer in 16 bits.
func TestRecomputingHasTheSameBits(t *testing.T) {
	all := func() []*ir.Module {
		ms, paper := models(t), models(t)[1]
		paper.Name += "_paper"
		if err := system.SetPrecision([]*ir.Module{paper}, "paper"); err != nil {
			t.Fatal(err)
		}
		return append(ms, paper)
	}
	kept, cheap, blocks, budget := all(), all(), all(), all()
	for i, m := range cheap {
		kept[i].Remat = ir.RematOff
		m.Name += "_cheap"
		m.Remat = ir.RematCheap
	}
	for _, m := range blocks {
		m.Name += "_blocks"
		m.Remat = ir.RematBlocks
	}
	b := NewBatch("remat")
	if err := b.Add(false, slices.Concat(kept, cheap, blocks)...); err != nil {
		t.Fatal(err)
	}
	state, work := map[string]int{}, map[string]int{}
	sizes := func() {
		for _, m := range b.Plan().Models {
			state[m.Name], work[m.Name] = m.StateBytes, m.Programs[0].WorkBytes
		}
	}
	sizes()
	for _, m := range budget {
		m.Budget = state[m.Name] + (work[m.Name+"_cheap"]+work[m.Name+"_blocks"])/2
		m.Name += "_budget"
	}
	if err := b.Add(false, budget...); err != nil {
		t.Fatal(err)
	}
	sizes()
	activations := map[string]int{}
	for _, m := range b.Plan().Models {
		for _, l := range m.Programs[0].Launches {
			if strings.HasPrefix(l.Kernel.Name, "remake_") && slices.ContainsFunc(l.Kernel.Body, func(n *kern.Node) bool { return n.Prim == kern.Exp }) {
				activations[m.Name]++
			}
		}
	}
	if n, paper := activations["prior_cheap"], activations["prior_paper_cheap"]; n == 0 || paper == 0 {
		t.Errorf("%d activations are made again, in 16 bits %d", n, paper)
	}
	spec, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range Targets() {
		x := open(t, spec, target, 1)
		for i, m := range kept {
			y, err := x.Model(m.Name)
			if err != nil {
				t.Fatal(err)
			}
			want := train(t, y, 1, 4)
			for _, again := range []*ir.Module{cheap[i], blocks[i], budget[i]} {
				if target == Targets()[0] {
					t.Logf("%s: %d bytes of work memory, %s: %d", m.Name, work[m.Name], again.Name, work[again.Name])
					if work[again.Name] >= work[m.Name] {
						t.Errorf("%s takes %d bytes, %s %d", again.Name, work[again.Name], m.Name, work[m.Name])
					}
				}
				z, err := x.Model(again.Name)
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Equal(want, train(t, z, 1, 4)) {
					continue
				}
				train(t, y, 1, 1)
				train(t, z, 1, 1)
				var names []string
				for j, g := range y.Globals() {
					if !bytes.Equal(g.Data, z.Globals()[j].Data) {
						names = append(names, g.Name)
					}
				}
				t.Errorf("%s on %s: recomputation changes bits; after one step those of %s", again.Name, target, strings.Join(names, " "))
			}
		}
	}
}
