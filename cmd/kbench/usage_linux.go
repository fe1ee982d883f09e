package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// usage counts how often the system took a processor from this process's
// threads, and the processor time of the calling thread and of all threads.
func usage() (interruptions int64, thread, process time.Duration) {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0, 0, 0
	}
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0, 0, 0
	}
	return u.Nivcsw, time.Duration(t.Nano()), time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
