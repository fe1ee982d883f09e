package cuda

import (
	"fmt"
	"hash/fnv"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/codegen/cuda/ptx"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// Code is what Compile makes, by target name.
type Code struct {
	// PTX is several texts, to be loaded one by one or side by side.
	PTX map[string][]string
	// Entries says how each kernel is launched, by the kernel's name: its
	// entries one after the other.
	Entries map[string]map[string][]Entry
}

// Entry is one launch of a PTX entry.
type Entry struct {
	Name    string
	Grid    [3]int
	Block   int // threads
	Shared  int // bytes of dynamic shared memory
	Cluster int // blocks of a cluster along x; 0: none
	Maps    []TensorMap
	Args    []int // buffers of the kernel whose addresses follow the maps
}

// TensorMap describes a buffer to the copy engine: what a box of it is and how
// a box lies in shared memory.
type TensorMap struct {
	Arg     int      // buffer of the kernel
	Offset  int64    // bytes from its beginning
	DType   ir.DType // of its elements
	Dims    []int    // innermost first
	Strides []int64  // bytes, of all dimensions but the first
	Box     []int
	Swizzle int // bytes: 0, 32, 64 or 128
}

// textCount is the number of texts that the kernels of a system are spread
// over: the driver assembles them side by side.
const textCount = 32

// Compile turns kernels into PTX for every target. The result depends on the
// kernels alone.
func Compile(kernels []*kern.Kernel, targets []*Target) (*Code, error) {
	c := &Code{PTX: map[string][]string{}, Entries: map[string]map[string][]Entry{}}
	for _, t := range targets {
		var ms [textCount]*build.Module
		entries := map[string][]Entry{}
		for _, k := range kernels {
			h := fnv.New32a()
			h.Write([]byte(k.Name))
			i := h.Sum32() % textCount
			if ms[i] == nil {
				ms[i] = build.NewModule()
			}
			es, err := emit(ms[i], t, k)
			if err != nil {
				return nil, err
			}
			entries[k.Name] = es
		}
		for _, m := range ms {
			if m == nil {
				continue
			}
			text, err := ptx.Print(m, t.Arch)
			if err != nil {
				return nil, err
			}
			c.PTX[t.Name] = append(c.PTX[t.Name], text)
		}
		c.Entries[t.Name] = entries
	}
	return c, nil
}

// Text is the PTX of one kernel for t and its launches; with lines set, each
// instruction says where in this package it was written.
func Text(k *kern.Kernel, t *Target, lines bool) (string, []Entry, error) {
	m := build.NewModule()
	m.Lines = lines
	es, err := emit(m, t, k)
	if err != nil {
		return "", nil, err
	}
	text, err := ptx.Print(m, t.Arch)
	return text, es, err
}

// emit adds kernel k to m.
func emit(m *build.Module, t *Target, k *kern.Kernel) ([]Entry, error) {
	switch {
	case k.Template != nil:
		emit := templates[k.Template.Name]
		if emit == nil {
			return nil, fmt.Errorf("internal: kernel %s: no generator on cuda for template %q", k.Name, k.Template.Name)
		}
		return emit(m, t, k)
	case k.FindContract() != nil:
		return emitContract(m, t, k)
	}
	if s := scatterOf(k); s != nil {
		return emitScatter(m, k, s)
	}
	return emitLoops(m, t, k)
}

// templates are the hand-written kernels.
var templates = map[string]func(m *build.Module, t *Target, k *kern.Kernel) ([]Entry, error){}

// allBuffers numbers the buffers of k: an entry that takes them all.
func allBuffers(k *kern.Kernel) []int {
	out := make([]int, len(k.Bufs))
	for i := range out {
		out[i] = i
	}
	return out
}
