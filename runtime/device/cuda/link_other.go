//go:build !linux

package cuda

import (
	"fmt"
	"runtime"
)

// link says that there is no driver to open.
func (d *driver) link() error {
	return fmt.Errorf("cuda: GPUs are used on linux alone, this is %s; choose a processor target", runtime.GOOS)
}
