//go:build unix

package metrics

import (
	"os"

	"golang.org/x/sys/unix"
)

// terminalWidth is the width of the terminal a file is, 0 if it is none.
func terminalWidth(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if size.Col == 0 { // some serial consoles don't tell
		return 80
	}
	return int(size.Col)
}
