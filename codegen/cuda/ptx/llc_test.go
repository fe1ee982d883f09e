package ptx

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/llir/llvm/ir"
	"github.com/llir/llvm/ir/types"

	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/codegen/cuda/ptx/ptxas"
)

// lower replaces calls of gpu.* by inline assembly, as LLVM wants it.
func lower(t *testing.T, m *ir.Module) {
	t.Helper()
	var keep []*ir.Func
	for _, f := range m.Funcs {
		for _, b := range f.Blocks {
			for _, in := range b.Insts {
				c, ok := in.(*ir.InstCall)
				if !ok {
					continue
				}
				callee := c.Callee.(*ir.Func)
				text, cons, ok := build.Asm(callee.Name())
				if !ok {
					continue
				}
				a := ir.NewInlineAsm(types.NewPointer(callee.Sig), text, cons)
				a.SideEffect = strings.Contains(cons, "~")
				c.Callee = a
			}
		}
		if !strings.HasPrefix(f.Name(), "gpu.") {
			keep = append(keep, f)
		}
	}
	m.Funcs = keep
}

// LLVM's own back end compiles the same modules: what the builder writes is
// LLVM IR, and the texts of asm.go are what its inline assembly takes.
func TestLLVMCompiles(t *testing.T) {
	tools, err := toolchain.Find()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tools.LLC, "--version").Output(); err != nil || !bytes.Contains(out, []byte("nvptx64")) {
		t.Fatalf("%s has no back end for NVPTX (%v); Debian's llvm-19 has: install it, and set GOUACHE_LLVM to its folder if another is found first", tools.LLC, err)
	}
	m := build.NewModule()
	for _, c := range append(integerTests(), floatTests()...) {
		kernelOf(m, c.name, c)
	}
	for _, p := range programs() {
		p.build(m)
	}
	for i, name := range operations(t) {
		operation(t, m, fmt.Sprintf("operation%d", i), name, false)
	}
	lower(t, m.IR)
	cmd := exec.Command(tools.LLC, "-march=nvptx64", "-mcpu=sm_90a", "-mattr=+ptx80", "-o", "-", "-")
	cmd.Stdin = strings.NewReader(m.IR.String())
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, diag.String())
	}
	if n, want := strings.Count(out.String(), ".visible .entry "), len(m.Funcs); n != want {
		t.Errorf("llc wrote %d kernels of %d", n, want)
	}
	t.Run("assembled", func(t *testing.T) {
		if _, err := ptxas.Need(t).Assemble(out.String(), "sm_90a"); err != nil {
			t.Error(err)
		}
	})
}
