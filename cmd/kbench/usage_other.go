//go:build !linux

package main

import "time"

// usage is not known on this system.
func usage() (interruptions int64, thread, process time.Duration) { return 0, 0, 0 }
