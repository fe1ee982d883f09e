package toolchain

import (
	"bytes"
	"context"
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
)

func tools(t *testing.T) *Tools {
	t.Helper()
	x, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	x.CacheDir = t.TempDir()
	return x
}

// pair returns two modules; the first calls a hidden function of the second.
func pair(target *build.Target) []Module {
	a := build.NewModule(target)
	k, args, _, _, _ := a.Kernel("twice")
	helper := a.Extern("add", build.PtrTo(build.I64))
	k.Call(helper, args)
	k.Call(helper, args)
	k.Return()
	b := build.NewModule(target)
	p := build.Param("p", build.PtrTo(build.I64))
	f := b.Func("add", build.Hidden, p)
	f.Store(f.Add(f.Load(build.I64, p), build.Int(1)), p)
	f.Return()
	return []Module{{"a", a.Text()}, {"b", b.Text()}}
}

func TestCompileLinksSelfContainedObjects(t *testing.T) {
	x := tools(t)
	for _, target := range build.Targets() {
		so, err := x.Compile(context.Background(), target, pair(target))
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(so))
		if err != nil {
			t.Fatal(err)
		}
		syms, err := f.DynamicSymbols()
		if err != nil || len(syms) != 1 || syms[0].Name != "twice" {
			t.Errorf("%s: exports %v, %v", target.Name, syms, err)
		}
		for _, s := range f.Sections {
			if s.Type == elf.SHT_RELA && s.Size > 0 {
				t.Errorf("%s: relocations in %s", target.Name, s.Name)
			}
		}
	}
}

func TestCompileIsReproducibleWithAndWithoutCache(t *testing.T) {
	x := tools(t)
	target := build.Targets()[0]
	cold, err := x.Compile(context.Background(), target, pair(target))
	if err != nil {
		t.Fatal(err)
	}
	objects, _ := filepath.Glob(filepath.Join(x.CacheDir, "*", "*.o"))
	if len(objects) != 2 {
		t.Errorf("cache holds %q", objects)
	}
	warm, err := x.Compile(context.Background(), target, pair(target))
	if err != nil {
		t.Fatal(err)
	}
	x.CacheDir = ""
	none, err := x.Compile(context.Background(), target, pair(target))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(cold, warm) || !bytes.Equal(cold, none) {
		t.Error("the same modules gave different bytes")
	}
	if wd, _ := os.Getwd(); bytes.Contains(cold, []byte(wd)) || bytes.Contains(cold, []byte(os.TempDir()+"/")) {
		t.Error("the object contains a path")
	}
}

func TestCompileRefusesUndefinedFunctions(t *testing.T) {
	x := tools(t)
	target := build.Targets()[0]
	if _, err := x.Compile(context.Background(), target, pair(target)[:1]); err == nil || !strings.Contains(err.Error(), "add") {
		t.Errorf("error is %v", err)
	}
	_, err := x.Compile(context.Background(), target, []Module{{"broken", "define void @f( {"}})
	if err == nil || !strings.Contains(err.Error(), "broken: llc") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v", err)
	}
}

func TestFindSaysWhatToInstall(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(Env, dir)
	if _, err := Find(); err == nil || !strings.Contains(err.Error(), "llc: not found in "+Env) || !strings.Contains(err.Error(), "apt-get install llvm-19 lld-19") {
		t.Errorf("error is %v", err)
	}
	old := "#!/bin/sh\necho 'Debian LLVM version 14.0.6'\n"
	if err := os.WriteFile(filepath.Join(dir, "llc"), []byte(old), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(); err == nil || !strings.Contains(err.Error(), "is LLVM 14.0.6, 19 or later is needed") {
		t.Errorf("error is %v", err)
	}
}
