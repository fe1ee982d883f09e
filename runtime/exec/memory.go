package exec

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// machineBytes is the memory this process may use: the machine's, or less under a control
// group's limit; 0 where the system doesn't tell.
var machineBytes = func() int64 {
	var n int64
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
				kib, _ := strconv.ParseInt(f[1], 10, 64)
				n = kib << 10
			}
		}
	}
	if b, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && (n == 0 || limit < n) {
			n = limit
		}
	}
	return n
}

// fits refuses a program that cannot run here: arenas are mapped without reserving memory, and
// a device's are taken by the first run, so that it would be stopped in the middle of a step instead.
func (p *Program) fits() error {
	have, where := machineBytes(), "this machine"
	if d := p.model.sys.device; d != nil {
		have, where = d.Memory(), d.Name()
	}
	state, work := p.model.state.Size(), p.spec.WorkBytes
	if have == 0 || state+work <= have {
		return nil
	}
	return fmt.Errorf("%s: it needs %s of memory (%s stored tensors, %s work), %s has %s; choose a smaller system or batch",
		p.Name(), gib(state+work), gib(state), gib(work), where, gib(have))
}

func gib(n int64) string { return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30)) }
