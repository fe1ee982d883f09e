package ptx

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"testing"

	"github.com/llir/llvm/ir/types"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/codegen/cuda/ptx/ptxas"
)

// operations are the functions of build's asm.go, by name.
func operations(t *testing.T) []string {
	t.Helper()
	src, err := os.ReadFile("../build/asm.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^\t"(gpu\.[^"]+)":`).FindAllSubmatch(src, -1) {
		names = append(names, string(m[1]))
	}
	if len(names) < 40 {
		t.Fatalf("asm.go has %d operations only", len(names))
	}
	names = append(names, "gpu.wgmma.wait.0.4", "gpu.wgmma.wait.1.64")
	for _, n := range []int{8, 64, 128, 256} {
		for _, kind := range []string{"f16.ss.t00", "bf16.ss.t11", "bf16.rs.t01", "f16.rs.t00"} {
			names = append(names, fmt.Sprintf("gpu.wgmma.m64n%dk16.%s", n, kind))
		}
	}
	sort.Strings(names)
	return names
}

// operation is a kernel that does one of them, with operands from memory or,
// where constants is set, numbers where it can.
func operation(t *testing.T, m *build.Module, kernel, name string, constants bool) {
	t.Helper()
	_, cons, ok := build.Asm(name)
	if !ok {
		t.Fatalf("%s: no such operation", name)
	}
	f := m.Kernel(kernel, build.Limits{Threads: 128}, 0, 1)
	of := map[string]types.Type{"r": build.I32, "l": build.I64, "f": build.F32, "h": build.I16}
	p := func(c string) build.Value { return f.At(f.Pointer(0, of[c]), f.Thread()) }
	var result []types.Type
	var args []build.Value
	inputs := 0
	for _, c := range strings.Split(cons, ",") {
		if c[0] == '~' {
			continue
		}
		if out, ok := strings.CutPrefix(c, "="); ok {
			result = append(result, of[out])
			continue
		}
		inputs++
		switch {
		case c == "n":
			args = append(args, build.Int(40))
		case c == "r" && constants:
			args = append(args, build.Int(number(name, inputs)))
		case c == "l" && constants:
			args = append(args, build.Long(32))
		case c[0] >= '0' && c[0] <= '9':
			args = append(args, f.Load(f.At(f.Pointer(0, build.F32), f.AddI(f.Thread(), inputs))))
		default:
			args = append(args, f.Load(f.At(p(c), build.Int(inputs))))
		}
	}
	if strings.HasPrefix(name, "gpu.wgmma.m") {
		f.Call("gpu.wgmma.fence", build.Void)
	}
	switch len(result) {
	case 0:
		f.Call(name, build.Void, args...)
	case 1:
		r := f.Call(name, result[0], args...)
		f.Store(r, f.At(f.Pointer(0, r.Type()), f.Thread()))
	default:
		r := f.Call(name, build.Struct(len(result), result[0]), args...)
		if strings.HasPrefix(name, "gpu.wgmma.m") {
			f.Call("gpu.wgmma.commit", build.Void)
			var acc []build.Value
			for i := range result {
				acc = append(acc, f.Part(r, i))
			}
			r = f.Call(fmt.Sprintf("gpu.wgmma.wait.0.%d", len(acc)), build.Struct(len(result), result[0]), acc...)
		}
		for i := range result {
			v := f.Part(r, i)
			f.Store(v, f.At(f.At(f.Pointer(0, v.Type()), f.Thread()), build.Int(i)))
		}
	}
	f.Return()
}

// number is a constant that an operation takes as operand k, counted from 1.
func number(name string, k int) int {
	switch {
	case strings.HasPrefix(name, "gpu.bar."):
		return []int{3, 64}[k-1]
	case strings.HasPrefix(name, "gpu.cp.async.4"):
		return 4
	case strings.HasPrefix(name, "gpu.mbarrier.wait"):
		return 1
	}
	return 16
}

var targets = []Arch{{"sm_70", "6.4"}, {"sm_75", ""}, {"sm_80", "7.0"}, {"sm_89", ""}, {"sm_90", ""}, {"sm_90a", "8.0"}}

// Each operation assembles for the oldest target that Print allows and for
// later ones, in the version of PTX that Print chose.
func TestOperationsAssemble(t *testing.T) {
	p := ptxas.Need(t)
	names := operations(t)
	for _, a := range targets {
		t.Run(a.Name, func(t *testing.T) {
			t.Parallel()
			byVersion := map[string][]string{}
			for i, name := range names {
				for _, constants := range []bool{false, true} {
					m := build.NewModule()
					operation(t, m, fmt.Sprintf("k%d_%t", i, constants), name, constants)
					text, err := Print(m, a)
					if err != nil {
						if !strings.Contains(err.Error(), " needs sm_") {
							t.Error(err)
						}
						continue
					}
					// Kernels of one version share a run of ptxas.
					head, rest, _ := strings.Cut(text, ".address_size 64\n")
					byVersion[head] = append(byVersion[head], "// "+name+"\n"+rest)
				}
			}
			for head, texts := range byVersion {
				text := head + ".address_size 64\n" + strings.Join(texts, "")
				reports, err := p.Assemble(text, a.Name)
				if err != nil {
					dir := t.ArtifactDir()
					_ = os.WriteFile(dir+"/k.ptx", []byte(text), 0o666)
					t.Errorf("%v\nsee %s", err, dir)
				}
				for _, r := range reports {
					if err := r.Check(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// Every operation on numbers assembles for every target, within one module.
func TestArithmeticAssembles(t *testing.T) {
	p := ptxas.Need(t)
	for _, a := range []Arch{{"sm_70", "6.4"}, {"sm_80", "7.0"}, {"sm_90a", "8.0"}} {
		t.Run(a.Name, func(t *testing.T) {
			t.Parallel()
			m := build.NewModule()
			m.Lines = a.Name == "sm_90a"
			for _, c := range append(integerTests(), floatTests()...) {
				if a.Name == "sm_70" && (c.name == "tanh" || c.name == "pack_bf16") || a.Name == "sm_75" && c.name == "pack_bf16" {
					continue
				}
				kernelOf(m, c.name, c)
			}
			assemble(t, p, m, a)
		})
	}
}

// Whole programs do.
func TestProgramsAssemble(t *testing.T) {
	p := ptxas.Need(t)
	for _, a := range []Arch{{"sm_80", ""}, {"sm_90a", ""}} {
		m := build.NewModule()
		for _, q := range programs() {
			if q.arch == "" || q.arch == a.Name {
				q.build(m)
			}
		}
		for seed := range uint64(20) {
			randomProgram(seed, 8).build(m)
		}
		assemble(t, p, m, a)
	}
}

// assemble prints and assembles a module; no kernel may spill or the like.
func assemble(t *testing.T, p *ptxas.Tool, m *build.Module, a Arch) map[string]*ptxas.Report {
	t.Helper()
	text, err := Print(m, a)
	if err != nil {
		t.Fatal(err)
	}
	reports, err := p.Assemble(text, a.Name)
	if err != nil {
		dir := t.ArtifactDir()
		_ = os.WriteFile(dir+"/k.ptx", []byte(text), 0o666)
		t.Fatalf("%v\nsee %s", err, dir)
	}
	for _, r := range reports {
		if err := r.Check(); err != nil {
			t.Error(err)
		}
	}
	return reports
}

// No method of the builder is left out of these tests.
func TestEveryMethodIsTested(t *testing.T) {
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var src []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		src = append(src, b...)
	}
	for m := range reflect.TypeFor[*build.Func]().Methods() {
		// Line appears in the texts.
		if m.Name != "Line" && !regexp.MustCompile(`(\bf|\(\*build\.Func\))\.`+m.Name+`\b`).Match(src) {
			t.Errorf("nothing tests %s", m.Name)
		}
	}
}
