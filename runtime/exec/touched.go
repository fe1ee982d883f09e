package exec

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gouache-ml/gouache/runtime/device/cpu"
)

// ProgramBytes is about what a process of a compiled system takes besides arenas and data: code and
// heap of the Go program, machine code of the kernels, scratch memory of two threads. Measured on
// demo (Linux, x86-64-v3): resident sets of bench were 10.7 to 11.1 MiB above what Touched says.
const ProgramBytes = 11 << 20

// Touched is how much memory the model's arenas take once it is initialised and these programs have
// run. Arenas are mapped, and a page takes memory when something other than zero is written to it:
// stored tensors that start as zeros, and constants, take none where no program names them.
func (m *Model) Touched(programs ...string) (int64, error) {
	if m.remote != nil {
		return 0, fmt.Errorf("%s: it works in the memory of %s", m.Name(), m.sys.device.Name())
	}
	named := map[int64]bool{} // offsets of stored tensors
	work := int64(0)
	for _, name := range programs {
		i := slices.IndexFunc(m.programs, func(p *Program) bool { return p.spec.Name == name })
		if i < 0 {
			return 0, unknown(m.Name(), "program", name, m.Programs())
		}
		p := m.programs[i]
		work = max(work, p.spec.WorkBytes)
		maps.Copy(named, p.named())
	}
	var state []interval
	for i, g := range m.globals {
		at := m.spec.Globals[i].Offset
		lo, hi := at, at+int64(len(g.Data))
		switch {
		case named[at]:
		case m.waits(&g):
			lo = hi
		case g.init != "normal" && g.init != "const" && g.Role != RoleAverage:
			lo = hi - int64(len(g.Data)%zeroBytes) // zero writes the rest
		}
		state = append(state, interval{lo, hi})
	}
	return pages(state, cpu.PageBytes(m.state.Size())) + pages([]interval{{0, work}}, cpu.PageBytes(m.workBytes)), nil
}

type interval struct{ lo, hi int64 }

// pages is the size of all pages that contain some of the bytes.
func pages(of []interval, page int64) int64 {
	slices.SortFunc(of, func(a, b interval) int { return int(a.lo - b.lo) })
	total, end := int64(0), int64(0)
	for _, x := range of {
		if x.hi <= x.lo {
			continue
		}
		lo, hi := max(x.lo/page*page, end), (x.hi+page-1)/page*page
		if hi > lo {
			total += hi - lo
			end = hi
		}
	}
	return total
}
