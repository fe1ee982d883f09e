//go:build !unix

package metrics

import "os"

func terminalWidth(*os.File) int { return 0 }
