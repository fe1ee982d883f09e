package main

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// busy is the processor time that all processes have used since the machine started, where Linux tells; else 0.
func busy() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	ticks := 0
	for i, f := range strings.Fields(line) {
		n, err := strconv.Atoi(f)
		// user, nice, system, not idle and iowait, irq, softirq, steal
		if err == nil && i >= 1 && i <= 8 && i != 4 && i != 5 {
			ticks += n
		}
	}
	return time.Duration(ticks) * time.Second / 100
}

// share is time of all processors as a share of what they had.
func share(t, wall time.Duration) float64 {
	return max(0, t.Seconds()/wall.Seconds()/float64(runtime.NumCPU()))
}

// waitQuiet returns when other processes take less than a twelfth of the machine, or after a while.
func waitQuiet(ctx context.Context, most time.Duration) {
	const look = 250 * time.Millisecond
	for start := time.Now(); time.Since(start) < most && ctx.Err() == nil; {
		before := busy()
		time.Sleep(look)
		if share(busy()-before, look) < 1./12 {
			return
		}
	}
}
