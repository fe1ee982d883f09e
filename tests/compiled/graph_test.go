package compiled

import (
	"bytes"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/load"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/models/clip"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/dvae"
	"github.com/gouache-ml/gouache/models/systems"
	"github.com/gouache-ml/gouache/runtime/exec"
)

// Every launch reads what it would read in the program's order, whatever order of the recorded
// graph it runs in. The emulator would also report reads of what nobody has written.
func TestReplaysInAnyAllowedOrderHaveTheSameBits(t *testing.T) {
	t.Setenv("GOUACHE_TEST_DEVICE", "emu")
	modules := trained(t,
		dvae.Config{ImageSize: 8, Width: 8, Groups: 2, BlocksPerGroup: 1, Stem: 3, Codebook: 8, CodeDim: 4, Batch: 2, Optimizer: adam},
		dalle.Config{TextLen: 4, TextVocab: 12, GridW: 4, GridH: 4, ImageVocab: 12, Dim: 16, Heads: 2, Layers: 3, Kernel: 3, Batch: 2, SampleBatch: 2, Optimizer: adam},
		clip.Config{ImageSize: 8, Patch: 4, ImageDim: 8, ImageHeads: 2, TextLen: 12, TextVocab: 12, TextDim: 8, TextHeads: 2, Layers: 1, Embed: 6, Batch: 3, Optimizer: adam})
	spec, err := Compile("tiny", modules...)
	if err != nil {
		t.Fatal(err)
	}
	seed := ReplaySeed
	defer func() { ReplaySeed = seed }()
	choices.Store(0)
	t.Setenv("GOUACHE_LAUNCH", "chain")
	chain := open(t, spec, "sm_80", 1)
	t.Setenv("GOUACHE_LAUNCH", "graph")
	graph := open(t, spec, "sm_80", 1)
	for _, m := range modules {
		run := func(s *exec.System) []byte {
			x, err := s.Model(m.Name)
			if err != nil {
				t.Fatal(err)
			}
			out := train(t, x, 1, 2)
			if err := x.Close(); err != nil { // so that the next one records anew
				t.Fatal(err)
			}
			return out
		}
		want := run(chain)
		for ReplaySeed = 1; ReplaySeed <= 2; ReplaySeed++ {
			if got := run(graph); !bytes.Equal(got, want) {
				t.Errorf("%s: orders of seed %d give other bits than the program's", m.Name, ReplaySeed)
			}
		}
	}
	if n := choices.Load(); n < 1000 {
		t.Errorf("there were several calls to choose from %d times only", n)
	}
}

// graphs is a device that keeps what it is given to record, and runs nothing.
type graphs struct {
	*emulator
	next  uint64
	calls int
	after [][]int
}

func (g *graphs) Load(string, []exec.Part) (exec.Code, error) { return g, nil }

func (g *graphs) Prepare(*exec.Entry, []uint64) (exec.Call, error) { return nil, nil }

func (g *graphs) Alloc(n int64, _ bool) (uint64, error) {
	at := g.next
	g.next += uint64(n+255) &^ 255
	return at, nil
}

func (*graphs) Upload(uint64, []byte) error { return nil }

func (*graphs) Download([]byte, uint64) error { return nil }

func (*graphs) Wait() error { return nil }

func (g *graphs) Record(calls []exec.Call, after [][]int) (exec.Recording, error) {
	g.calls, g.after = len(calls), after
	return g, nil
}

func (*graphs) Replay() error { return nil }

// The graphs of demo's programs order what the plan's buffers demand, and nothing else.
func TestGraphsOfDemoOrderWhatMemoryDemands(t *testing.T) {
	g := &graphs{emulator: newEmulator(), next: 1 << 40}
	exec.RegisterDevice("graphs", func() (exec.Device, error) { return g, nil })
	s, err := systems.Lookup("demo")
	if err != nil {
		t.Fatal(err)
	}
	modules, err := s.Build()
	if err != nil {
		t.Fatal(err)
	}
	sys, err := pipeline.Compile("demo", modules, pipeline.Options{Backend: cuda.Backend{}})
	if err != nil {
		t.Fatal(err)
	}
	spec, err := load.Spec(sys)
	if err != nil {
		t.Fatal(err)
	}
	spec.Objects = []exec.Object{{Target: "sm_90a", Device: "graphs"}}
	for range sys.Kernels {
		spec.Objects[0].Entries = append(spec.Objects[0].Entries, make([]exec.Entry, 1))
	}
	system := open(t, spec, "", 1)
	for _, m := range sys.Models {
		x, err := system.Model(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range m.Programs {
			y, err := x.Program(p.Name)
			if err != nil {
				t.Fatal(err)
			}
			g.calls, g.after = 0, nil
			y.Run()
			if err := x.Err(); err != nil {
				t.Fatal(err)
			}
			if g.calls != len(p.Launches) || len(g.after) != g.calls {
				t.Fatalf("%s: %d launches, %d calls, %d lists of what they wait for", y.Name(), len(p.Launches), g.calls, len(g.after))
			}
			checkGraph(t, y.Name(), p, g.after)
		}
	}
}

// checkGraph compares a graph with the hazards between all pairs of launches.
func checkGraph(t *testing.T, name string, p *plan.Program, after [][]int) {
	t.Helper()
	edges, longest := 0, 0
	depth := make([]int, len(after))
	before := make([][]bool, len(after))
	for i, l := range after {
		before[i] = make([]bool, i)
		for _, j := range l {
			if !conflict(&p.Launches[i], &p.Launches[j]) {
				t.Errorf("%s: launch %d waits for %d, without having memory in common", name, i, j)
			}
			before[i][j] = true
			for k, b := range before[j] {
				before[i][k] = before[i][k] || b
			}
			depth[i] = max(depth[i], depth[j])
		}
		depth[i]++
		longest = max(longest, depth[i])
		edges += len(l)
		for j := range i {
			if !before[i][j] && conflict(&p.Launches[i], &p.Launches[j]) {
				t.Fatalf("%s: launch %d (%s) does not wait for %d (%s)", name, i, p.Launches[i].Kernel.Name, j, p.Launches[j].Kernel.Name)
			}
		}
	}
	t.Logf("%-20s %4d launches, %4d edges, longest path %4d", name, len(after), edges, longest)
	if edges > 3*len(after) {
		t.Errorf("%s: %d launches have %d edges", name, len(after), edges)
	}
	if p.Name == "train" && 10*longest > 9*len(after) {
		t.Errorf("%s: of %d launches %d are a chain", name, len(after), longest)
	}
}

// conflict tells whether one of two launches writes what the other one uses.
func conflict(a, b *plan.Launch) bool {
	for i, x := range a.Args {
		for j, y := range b.Args {
			writes := a.Kernel.Bufs[i].Mode != kern.In || b.Kernel.Bufs[j].Mode != kern.In
			if writes && x.Arena == y.Arena && x.Offset < y.Offset+y.Bytes && y.Offset < x.Offset+x.Bytes {
				return true
			}
		}
	}
	return false
}
