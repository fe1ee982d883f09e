package driver

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/system"
	"github.com/gouache-ml/gouache/ops"
)

func TestTargetsAreOfOneKind(t *testing.T) {
	for want, names := range map[string]string{
		`unknown CPU target "z80"; known are .*x86-64-v3.*, and of GPUs .*sm_90a`:                               "sm_80 z80",
		`^targets x86-64-v3 and sm_80 are of a processor and of a GPU; compile them into folders of their own$`: "sm_80 x86-64-v3",
	} {
		if _, err := generatorFor(strings.Fields(names)); err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
			t.Errorf("%s: got %v", names, err)
		}
	}
	for _, names := range []string{"", "arm64 x86-64-v3", "sm_90a", "sm_80 sm_90a"} {
		if _, err := generatorFor(strings.Fields(names)); err != nil {
			t.Errorf("%s: %v", names, err)
		}
	}
}

// square is y = x*x + x.
func square() ([]*ir.Module, error) {
	m := ir.NewModule("m")
	f := m.NewFunc("f")
	x := f.Input("x", ir.T(ir.F32, 4, 8))
	f.Result("y", ops.Add(ops.Mul(x, x), x))
	return []*ir.Module{m}, f.Err()
}

// No tool of anybody's is needed for GPUs.
func TestGPUPackagesAreWritten(t *testing.T) {
	if err := system.Register(system.System{Name: "square", Doc: "a parabola", Build: square}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.org\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOUACHE_LLVM", filepath.Join(dir, "nowhere"))
	var out bytes.Buffer
	if err := Run(context.Background(), []string{"-system", "square", "-o", filepath.Join(dir, "gen"), "-target", "sm_90a,sm_80"}, &out); err != nil {
		t.Fatal(err)
	}
	if want := `^gouachec: square: 1 kernels for sm_80, sm_90a, \d+\.\d MB, in \d+\.\d s \(planning \d+\.\d s, PTX \d+\.\d s\)\n$`; !regexp.MustCompile(want).MatchString(out.String()) {
		t.Errorf("got %q", &out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "gen", "z_kernels.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`_ "github.com/gouache-ml/gouache/runtime/device/cuda"`, `//go:embed z_sm_80.ptx.gz`, `{Target: "sm_90a", Device: "cuda", Code: objectSm90a, Entries: entriesSm90a}`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}
