package compiled

import (
	"bytes"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/ir"
)

// Recomputation changes no bit of training, and takes less memory.
func TestRecomputingHasTheSameBits(t *testing.T) {
	kept, again := models(t), models(t)
	for _, m := range again {
		m.Name += "_again"
		m.Remat = ir.RematBlocks
	}
	b := NewBatch("remat")
	if err := b.Add(false, append(kept, again...)...); err != nil {
		t.Fatal(err)
	}
	work := map[string]int{}
	for _, m := range b.Plan().Models {
		work[m.Name] = m.Programs[0].WorkBytes
	}
	spec, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range Targets() {
		x := open(t, spec, target, 1)
		for i, m := range kept {
			if target == Targets()[0] {
				t.Logf("%s: %d bytes of work memory, %d with recomputation", m.Name, work[m.Name], work[again[i].Name])
				if work[again[i].Name] >= work[m.Name] {
					t.Errorf("%s: recomputation takes %d bytes, %d without", m.Name, work[again[i].Name], work[m.Name])
				}
			}
			y, err := x.Model(m.Name)
			if err != nil {
				t.Fatal(err)
			}
			z, err := x.Model(again[i].Name)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(train(t, y, 1, 4), train(t, z, 1, 4)) {
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
			t.Errorf("%s on %s: recomputation changes bits; after one step those of %s", m.Name, target, strings.Join(names, " "))
		}
	}
}
