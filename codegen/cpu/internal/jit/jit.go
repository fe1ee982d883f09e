package jit

import (
	"context"
	"fmt"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	"github.com/gouache-ml/gouache/runtime/device/cpu"
)

// Targets returns the targets that this machine runs, the fastest first.
func Targets() ([]*build.Target, error) {
	var ts []*build.Target
	for _, name := range cpu.Targets() {
		t, err := build.TargetByName(name)
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	if len(ts) == 0 {
		return nil, fmt.Errorf("this machine runs no kernel variant")
	}
	return ts, nil
}

// Load compiles modules, all of one target, and maps the result.
func Load(modules ...*build.Module) (*cpu.Library, error) {
	tools, err := toolchain.Find()
	if err != nil {
		return nil, err
	}
	var ms []toolchain.Module
	for i, m := range modules {
		ms = append(ms, toolchain.Module{Name: fmt.Sprintf("module %d", i), Text: m.Text()})
	}
	so, err := tools.Compile(context.Background(), modules[0].Target, ms)
	if err != nil {
		return nil, err
	}
	return cpu.Load(so)
}
