package cuda_test

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/cuda/ptx/ptxas"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/system"
	"github.com/gouache-ml/gouache/models/systems"
)

// assembled are the systems whose kernels NVIDIA's assembler is asked about; a sample
// is of the first two.
var assembled = []struct {
	name, precision string
	build           func() ([]*ir.Module, error)
}{
	{"transformer", "paper", func() ([]*ir.Module, error) {
		m, err := dalle.Build(dalle.Config{TextLen: 64, TextVocab: 512, GridW: 16, GridH: 16, ImageVocab: 256,
			Dim: 256, Heads: 4, Layers: 4, Kernel: 11, Batch: 8, SampleBatch: 8, Optimizer: systems.Emoji.Prior.Optimizer})
		return []*ir.Module{m}, err
	}},
	{"demo", "fp32", systems.Demo.Build},
	{"demo", "paper", systems.Demo.Build},
	{"emoji", "fp32", systems.Emoji.Build},
}

// spills are the kernels that may keep registers in memory: by what matches their
// target and kind, a stack of at most so many bytes.
var spills = []struct {
	target, kind string
	most         int
	why          string
}{
	{`^sm_(70|80)$`, `^loops`, 16, "unasked, ptxas prefers eight blocks of a multiprocessor, or six, to registers; told of one it spills nothing"},
}

// assembly is a kernel's text, and what ptxas says about it.
type assembly struct {
	kernel  *kern.Kernel
	name    string // with its system's
	target  *cuda.Target
	text    string
	entries []cuda.Entry
	reports map[string]*ptxas.Report
	err     error
}

// kernelKind is the way in which a kernel is compiled.
func kernelKind(k *kern.Kernel) string {
	kind := "map"
	switch c := k.FindContract(); {
	case k.Template != nil:
		kind = k.Template.Name
	case c != nil && c.Args[0].Prim == kern.Load && c.Args[1].Prim == kern.Load:
		kind = "product"
	case c != nil:
		kind = "product of expressions"
	case strings.HasPrefix(k.Name, "scatter_add"):
		kind = "scatter_add"
	case k.HasLoop():
		kind = "loops"
	}
	if slices.ContainsFunc(k.Bufs, func(b kern.Buf) bool { return b.DType == ir.F16 || b.DType == ir.BF16 }) {
		kind += ", 16 bits"
	}
	return kind
}

// kind is kernelKind, with the matrix instructions of the text.
func (a *assembly) kind() string {
	for _, unit := range []string{"wgmma", "mma"} {
		if strings.Contains(a.text, unit+".mma_async") || strings.Contains(a.text, "\t"+unit+".sync") {
			return kernelKind(a.kernel) + ", " + unit
		}
	}
	return kernelKind(a.kernel)
}

// longest keeps the kernel of each kind that has the longest body.
func longest(kernels []*kern.Kernel) []*kern.Kernel {
	most := map[string]*kern.Kernel{}
	for _, k := range kernels {
		if x := most[kernelKind(k)]; x == nil || k.NumNodes > x.NumNodes {
			most[kernelKind(k)] = k
		}
	}
	return slices.DeleteFunc(slices.Clone(kernels), func(k *kern.Kernel) bool { return most[kernelKind(k)] != k })
}

// assemblies are the different kernels of systems, for every target.
func assemblies(t *testing.T) []*assembly {
	t.Helper()
	var out []*assembly
	seen := map[string]bool{}
	some := assembled
	if !*long {
		some = some[:2]
	}
	for _, s := range some {
		ms, err := s.build()
		if err == nil {
			err = system.SetPrecision(ms, s.precision)
		}
		if err != nil {
			t.Fatal(err)
		}
		plan, err := pipeline.Compile(s.name, ms, pipeline.Options{Backend: cuda.Backend{}})
		if err != nil {
			t.Fatal(err)
		}
		kernels := plan.Kernels
		if !*long {
			kernels = longest(kernels)
		}
		for _, k := range kernels {
			for _, tg := range cuda.Targets() {
				a := &assembly{kernel: k, name: fmt.Sprintf("%s %s: %s %s", s.name, s.precision, tg.Name, k.Name), target: tg}
				nameless := *k
				nameless.Name = "k"
				if a.text, a.entries, err = cuda.Text(&nameless, tg, false); err != nil {
					t.Fatal(err)
				}
				if !seen[a.text] {
					seen[a.text] = true
					out = append(out, a)
				}
			}
		}
	}
	return out
}

var residents = regexp.MustCompile(`^[^{]*\.minnctapersm (\d+)`)

// blocks is how many blocks of an entry are to find room on a multiprocessor.
func (a *assembly) blocks(entry string) int {
	_, text, _ := strings.Cut(a.text, ".entry "+entry+"(")
	if m := residents.FindStringSubmatch(text); m != nil {
		n, _ := strconv.Atoi(m[1])
		return n
	}
	return 1
}

// No kernel of a system keeps registers in memory, runs products of wgmma one by one,
// or has more registers than its blocks find.
func TestKernelsAssemble(t *testing.T) {
	tool := ptxas.Need(t)
	start := time.Now()
	all := assemblies(t)
	written := time.Since(start)
	work := make(chan *assembly)
	var wg sync.WaitGroup
	for range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for a := range work {
				a.reports, a.err = tool.Assemble(a.text, a.target.Name)
			}
		}()
	}
	for _, a := range all {
		work <- a
	}
	close(work)
	wg.Wait()
	t.Logf("%d kernels, written in %.0f s, assembled in %.0f s", len(all), written.Seconds(), (time.Since(start) - written).Seconds())

	type row struct {
		kernels, spilling int
		registers         int // the most
		of                string
	}
	table := map[string]*row{}
	used := make([]bool, len(spills))
	for _, a := range all {
		if a.err != nil {
			t.Errorf("%s: %v\n%s", a.name, a.err, a.kernel)
			continue
		}
		key := fmt.Sprintf("%-6s %s", a.target.Name, a.kind())
		x := table[key]
		if x == nil {
			x = &row{}
			table[key] = x
		}
		x.kernels++
		spilling := false
		for _, e := range a.entries {
			r := a.reports[e.Name]
			if r == nil {
				t.Errorf("%s: nothing is reported about %s", a.name, e.Name)
				continue
			}
			if r.Registers > x.registers {
				x.registers, x.of = r.Registers, fmt.Sprintf("of %d threads, %s", e.Block, a.name)
			}
			if n := (r.Registers + 7) / 8 * 8 * e.Block * a.blocks(e.Name); n > 64<<10 {
				t.Errorf("%s: %s: %d registers for %d blocks of %d threads: %d, there are 65536", a.name, e.Name, r.Registers, a.blocks(e.Name), e.Block, n)
			}
			if r.Check() == nil {
				continue
			}
			spilling = spilling || r.SpillStores > 0
			known := false
			for i, s := range spills {
				if match(s.target, a.target.Name) && match(s.kind, a.kind()) && max(r.Stack, r.SpillStores, r.SpillLoads) <= s.most && len(r.Serialized) == 0 {
					known, used[i] = true, true
				}
			}
			if !known {
				t.Errorf("%s: %v\n%s", a.name, r.Check(), a.kernel)
			}
		}
		if spilling {
			x.spilling++
		}
	}
	var keys []string
	for key := range table {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b string) int { return cmp.Or(table[b].registers-table[a].registers, strings.Compare(a, b)) })
	for _, key := range keys {
		x := table[key]
		t.Logf("%-44s %4d kernels, %2d spill; at most %3d registers %s", key, x.kernels, x.spilling, x.registers, x.of)
	}
	for i, u := range used {
		if *long && !u {
			t.Errorf("no kernel spills any more as %+v", spills[i])
		}
	}
}
