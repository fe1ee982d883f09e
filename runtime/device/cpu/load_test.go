//go:build linux && (amd64 || arm64)

package cpu

import (
	"bytes"
	"os"
	"runtime"
	"strings"
	"testing"
)

func readObject(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name + "_" + runtime.GOARCH + ".so")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func loadKernels(t testing.TB) *Library {
	t.Helper()
	l, err := Load(readObject(t, "kernels"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func symbol(t testing.TB, l *Library, name string) uintptr {
	t.Helper()
	a, err := l.Symbol(name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestLoadListsExportedFunctions(t *testing.T) {
	l := loadKernels(t)
	if got := strings.Join(l.Symbols(), " "); got != "chunks spin stack" {
		t.Errorf("symbols are %q", got)
	}
	if _, err := l.Symbol("absent"); err == nil || !strings.Contains(err.Error(), `"absent"`) {
		t.Errorf("missing symbol gives error %v", err)
	}
}

func TestLoadRefusesWhatNeedsADynamicLoader(t *testing.T) {
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	foreign, err := os.ReadFile("testdata/kernels_" + other + ".so")
	if err != nil {
		t.Fatal(err)
	}
	good := readObject(t, "kernels")
	for _, c := range []struct {
		name string
		so   []byte
		want string
	}{
		{"imports", readObject(t, "imports"), "imports expf"},
		{"relocations", readObject(t, "relocations"), "dynamic relocations"},
		{"foreign", foreign, "compile the kernels for it"},
		{"text", []byte("not an object"), "not a shared object"},
		{"empty", nil, "not a shared object"},
		{"truncated", good[:len(good)/2], "cpu: "},
	} {
		if _, err := Load(c.so); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v does not say %q", c.name, err, c.want)
		}
	}
}

// Damaged objects must give errors or load; they must not make the loader panic.
func TestLoadSurvivesDamage(t *testing.T) {
	good := readObject(t, "kernels")
	for i := 0; i < 0x240 && i < len(good); i++ {
		for _, x := range []byte{0xff, 0x80, 0x01} {
			bad := bytes.Clone(good)
			bad[i] ^= x
			if l, err := Load(bad); err == nil {
				l.Close()
			}
		}
	}
}
