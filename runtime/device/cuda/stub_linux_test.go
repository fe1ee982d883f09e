package cuda

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ebitengine/purego"
)

// stub is testdata/libcuda.c, in the place of the driver.
type stub struct {
	log     func() string
	reset   func()
	fail    func(name string, code int32)
	devices func(n int32)
	live    func() int32
}

// useStub compiles the stub and makes Open find it.
func useStub(t *testing.T, flags ...string) *stub {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Fatal("gcc: not found; it compiles the library that stands in for the driver here: make test installs it on Debian")
	}
	path := filepath.Join(t.TempDir(), "libcuda-stub.so")
	args := append(slices.Clone(flags), "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", "-o", path, filepath.Join("testdata", "libcuda.c"))
	if out, err := exec.Command(gcc, args...).CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	t.Setenv("GOUACHE_LIBCUDA", path)
	h, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		t.Fatal(err)
	}
	s := &stub{}
	for name, f := range map[string]any{"stub_log": &s.log, "stub_reset": &s.reset, "stub_fail": &s.fail, "stub_devices": &s.devices, "stub_live": &s.live} {
		purego.RegisterLibFunc(f, h, name)
	}
	t.Cleanup(func() {
		if n := s.live(); n != 0 && !t.Failed() {
			t.Errorf("%d things of the driver's are not given back", n)
		}
	})
	return s
}

// device opens the stub's GPU.
func (s *stub) device(t *testing.T) *Device {
	t.Helper()
	d, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.reset() // what failed on purpose need not fail again
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// lines are what the stub has recorded, those that begin with prefix.
func (s *stub) lines(prefix string) []string {
	var out []string
	for line := range strings.Lines(s.log()) {
		if strings.HasPrefix(line, prefix) {
			out = append(out, strings.TrimSuffix(line, "\n"))
		}
	}
	return out
}
