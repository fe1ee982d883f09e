package cuda

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/ebitengine/purego"
)

// link opens the library and looks its functions up.
func (d *driver) link() error {
	runtime.LockOSThread() // each thread has an error of its own
	defer runtime.UnlockOSThread()
	h, err := purego.Dlopen(d.path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		text := strings.TrimPrefix(strings.Join(strings.Fields(err.Error()), " "), d.path+": ")
		if strings.Contains(text, "No such file") {
			text = "not found"
		}
		return fmt.Errorf("cuda: %s: %s; install NVIDIA's driver, or choose a processor target", d.path, text)
	}
	for _, s := range d.symbols() {
		addr, err := purego.Dlsym(h, s.name)
		switch {
		case err == nil && addr != 0:
			purego.RegisterFunc(s.function, addr)
		case !s.optional:
			return fmt.Errorf("cuda: %s: it has no function %s; install a newer driver, of CUDA 11.4 or later", d.path, s.name)
		}
	}
	return nil
}
