package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
)

// readRows reads what -json wrote, by kernel.
func readRows(path string) (map[string]row, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var rows []row
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		var r row
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil || r.Kernel == "" || r.Ns <= 0 {
			return nil, fmt.Errorf("%s:%d: no row of a kernel; write the file with kbench -json -run REGEXP", path, n)
		}
		rows = append(rows, r)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return byKernel(rows), nil
}

// byKernel joins the rows of each kernel, with -count there are several: the middle
// one, and the widest quartiles.
func byKernel(rows []row) map[string]row {
	all := map[string][]row{}
	for _, r := range rows {
		all[r.Kernel] = append(all[r.Kernel], r)
	}
	out := map[string]row{}
	for name, rs := range all {
		slices.SortFunc(rs, func(a, b row) int {
			if a.Ns < b.Ns {
				return -1
			}
			return 1
		})
		r := rs[len(rs)/2]
		for _, x := range rs {
			r.LowNs, r.HighNs = min(r.LowNs, x.LowNs), max(r.HighNs, x.HighNs)
		}
		out[name] = r
	}
	return out
}

// difference prints how the rows differ from those before. A change within the
// quartiles of both is none.
func (s *session) difference(before map[string]row, rows []row) {
	now := byKernel(rows)
	fmt.Fprintf(s.out, "\n%s%12s %12s %8s  kernel, against %s\n", s.comment(), "before", "now", "change", s.compare)
	logs, n, only := 0.0, 0, 0
	seen := map[string]bool{}
	for _, r := range rows {
		if seen[r.Kernel] {
			continue
		}
		seen[r.Kernel] = true
		old, ok := before[r.Kernel]
		r = now[r.Kernel]
		if !ok {
			only++
			fmt.Fprintf(s.out, "%s%12s %9.2f us %8s  %s\n", s.comment(), "-", r.Ns/1e3, "new", r.Kernel)
			continue
		}
		change := fmt.Sprintf("%+.1f%%", 100*(r.Ns/old.Ns-1))
		if r.LowNs <= old.HighNs && old.LowNs <= r.HighNs {
			change = "~"
		}
		if old.Threads != r.Threads || old.Target != r.Target {
			change += fmt.Sprintf(" (%s with %d threads before)", old.Target, old.Threads)
		}
		fmt.Fprintf(s.out, "%s%9.2f us %9.2f us %8s  %s\n", s.comment(), old.Ns/1e3, r.Ns/1e3, change, r.Kernel)
		logs += math.Log(r.Ns / old.Ns)
		n++
	}
	if n > 0 {
		fmt.Fprintf(s.out, "%sgeometric mean of %d kernels: %+.1f%%; %d are new, %d are gone\n", s.comment(), n, 100*(math.Exp(logs/float64(n))-1), only, len(before)-n)
	}
}
