package metrics

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Hardware is what a run ran on.
type Hardware struct {
	CPU         string // model name, or the architecture where the system doesn't tell
	Cores       int    // usable by this process
	MemoryBytes int64  // the machine's, or the container's limit if lower; 0 if unknown
}

// ReadHardware describes this machine.
func ReadHardware() Hardware {
	h := Hardware{CPU: field("/proc/cpuinfo", "model name"), Cores: runtime.NumCPU()}
	if h.CPU == "" {
		h.CPU = runtime.GOARCH
	}
	h.CPU = strings.Join(strings.Fields(h.CPU), " ")
	h.MemoryBytes = kilobytes(field("/proc/meminfo", "MemTotal"))
	if text, err := os.ReadFile("/sys/fs/cgroup/memory.max"); err == nil {
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && limit > 0 && (h.MemoryBytes == 0 || limit < h.MemoryBytes) {
			h.MemoryBytes = limit
		}
	}
	return h
}

// String gives it in a line: "Intel Xeon, 2 cores, 7.80 GiB".
func (h Hardware) String() string {
	s := fmt.Sprintf("%s, %d cores", h.CPU, h.Cores)
	if h.MemoryBytes > 0 {
		s += ", " + FormatBytes(h.MemoryBytes)
	}
	return s
}

// PeakMemory is the largest resident set this process has had, in bytes; 0 where
// the system doesn't tell.
func PeakMemory() int64 {
	if n := kilobytes(field("/proc/self/status", "VmHWM")); n > 0 {
		return n
	}
	return peakUsage()
}

// ResidentMemory is the resident set of this process, in bytes; 0 where the system
// doesn't tell.
func ResidentMemory() int64 { return kilobytes(field("/proc/self/status", "VmRSS")) }

// field finds "name: value" in one of the kernel's text files.
func field(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func kilobytes(text string) int64 {
	n, err := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	if err != nil {
		return 0
	}
	return n * 1024
}
