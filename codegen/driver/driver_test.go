package driver

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cuda/ptx/ptxas"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/models/system"
	"github.com/gouache-ml/gouache/ops"
)

func TestTargetsAreOfOneKind(t *testing.T) {
	for want, names := range map[string]string{
		`unknown CPU target "z80"; known are .*x86-64-v3.*, native for this machine's, and of GPUs .*sm_90a`:    "sm_80 z80",
		`^targets x86-64-v3 and sm_80 are of a processor and of a GPU; compile them into folders of their own$`: "sm_80 x86-64-v3",
	} {
		if _, err := generatorFor(strings.Fields(names), ""); err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
			t.Errorf("%s: got %v", names, err)
		}
	}
	for _, names := range []string{"", "native", "arm64 x86-64-v3", "sm_90a", "sm_80 sm_90a"} {
		if _, err := generatorFor(strings.Fields(names), ""); err != nil {
			t.Errorf("%s: %v", names, err)
		}
	}
}

// Who asks for products in f16 learns which targets have none.
func TestTargetsWithoutF16AreNamed(t *testing.T) {
	product := func(in ir.DType) []*kern.Kernel {
		c := &kern.Node{Prim: kern.Contract, I: int64(in)}
		return []*kern.Kernel{{}, {Body: []*kern.Node{c}}}
	}
	all := build.Targets()
	const want = "multiply=f16: x86-64-v4-bf16, x86-64-v4, x86-64-v3, arm64 multiplies in f32; targets that multiply in f16 are x86-64-v4-fp16, arm64-v8.6"
	if got := withoutF16(product(ir.F16), all); got != want {
		t.Errorf("got %q", got)
	}
	for _, got := range []string{withoutF16(product(ir.F16), all[:1]), withoutF16(product(ir.BF16), all), withoutF16(product(ir.Invalid), all)} {
		if got != "" {
			t.Errorf("got %q, want nothing", got)
		}
	}
	for _, x := range build.Defaults() {
		if x.Special {
			t.Errorf("%s is compiled for by default", x.Name)
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

var register = sync.OnceFunc(func() {
	if err := system.Register(system.System{Name: "square", Doc: "a parabola", Build: square}); err != nil {
		panic(err)
	}
})

// No tool of anybody's is needed for GPUs.
func TestGPUPackagesAreWritten(t *testing.T) {
	register()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.org\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOUACHE_LLVM", filepath.Join(dir, "nowhere"))
	t.Setenv(ptxas.Env, "")
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
	if cubins, err := filepath.Glob(filepath.Join(dir, "gen", "*.cubin.gz")); err != nil || len(cubins) > 0 {
		t.Errorf("code was assembled that nobody asked for: %v (%v)", cubins, err)
	}
	if err := Run(context.Background(), []string{"-system", "square", "-o", filepath.Join(dir, "gen"), "-target", "sm_80", "-ptxas", filepath.Join(dir, "ptxas")}, &out); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "ptxas")+": not found") {
		t.Errorf("without the assembler that was asked for: %v", err)
	}
}

// By the flag and by the variable, the same bytes each time.
func TestPackagesCarryWhatPtxasMakes(t *testing.T) {
	tool := ptxas.Need(t)
	register()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.org\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var first []byte
	for i, args := range [][]string{{"-ptxas", tool.Path}, nil} {
		t.Setenv(ptxas.Env, []string{"", tool.Path}[i])
		var out bytes.Buffer
		gen := filepath.Join(dir, []string{"a", "b"}[i])
		if err := Run(context.Background(), append(args, "-system", "square", "-o", gen, "-target", "sm_90a"), &out); err != nil {
			t.Fatal(err)
		}
		if want := `MB and \d+\.\d MB assembled, in .*PTX and ptxas`; !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("got %q", &out)
		}
		packed, err := os.ReadFile(filepath.Join(gen, "z_sm_90a.cubin.gz"))
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = packed
		}
		if !bytes.Equal(packed, first) {
			t.Error("two runs give two binaries")
		}
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		const cuda = 190 // EM_CUDA
		if !bytes.HasPrefix(data, []byte("\x7fELF")) || binary.LittleEndian.Uint16(data[18:]) != cuda {
			t.Errorf("the binary is none for GPUs: %q", data[:min(len(data), 20)])
		}
		source, err := os.ReadFile(filepath.Join(gen, "z_kernels.go"))
		if err != nil || !strings.Contains(string(source), "Binaries: binariesSm90a, Lengths: []int{") {
			t.Errorf("the package knows of no binaries (%v)", err)
		}
	}
}
