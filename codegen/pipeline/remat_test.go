package pipeline_test

import (
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/ops"
)

type uncut struct{}

func (uncut) Tile(k *kern.Kernel) (kern.Tile, int)    { return kern.Tile{}, 1 }
func (uncut) Pack(k *kern.Kernel) (*kern.Kernel, int) { return nil, 0 }
func (uncut) Copied(k *kern.Kernel, i int) int        { return k.Bufs[k.FindContract().Args[i].Buf].Len }

// A plan that computes again gives, evaluated in float64, the very numbers of
// one that keeps, in less memory.
func TestRematKeepsWhatIsComputed(t *testing.T) {
	var first []map[string][]float64
	var bytes []int
	for _, remat := range []ir.Remat{ir.NoRemat, ir.RematBlocks} {
		ms := tinyModels(t)
		for _, m := range ms {
			m.Remat = remat
		}
		sys, err := pipeline.Compile("tiny", ms, pipeline.Options{Backend: uncut{}})
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range sys.Models {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			x := plan.NewEvaluator(m)
			for _, g := range m.Globals {
				if g.Role == ir.Param {
					copy(x.Global(g.Name), filled(r, g.Type, ops.Fill{}).Data)
				}
			}
			for _, p := range m.Programs {
				if p.Name != "train" {
					continue
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
				if remat == ir.NoRemat {
					first, bytes = append(first, out), append(bytes, p.WorkBytes)
					continue
				}
				if p.WorkBytes >= bytes[i] {
					t.Errorf("%s: %d bytes of work memory, %d without recomputation", m.Name, p.WorkBytes, bytes[i])
				}
				for name, want := range first[i] {
					for e, v := range out[name] {
						if v != want[e] && (v == v || want[e] == want[e]) {
							t.Fatalf("%s: %s[%d] is %v, without recomputation %v", m.Name, name, e, v, want[e])
						}
					}
				}
			}
		}
	}
}
