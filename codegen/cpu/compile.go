package cpu

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	"github.com/gouache-ml/gouache/ir/kern"
)

// Compile turns kernels into one shared object for every target, by target
// name. Each kernel is an exported function
//
//	void name(i64 *args, i64 c0, i64 c1, i8 *scratch)
//
// that does chunks c0 to c1-1 of Kernel.Chunks; args[i] is the address of
// buffer i, and scratch is ScratchBytes of memory, 64-byte aligned, for the
// calling worker alone. The result depends on the kernels and the LLVM version.
func Compile(ctx context.Context, tools *toolchain.Tools, kernels []*kern.Kernel, targets []*build.Target) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, t := range targets {
		ms, err := batches(kernels, t)
		if err != nil {
			return nil, err
		}
		for _, k := range kernels {
			if k.FindContract() != nil {
				m := build.NewModule(t)
				EmitMicroKernels(m)
				ms = append(ms, toolchain.Module{Name: "gemm register tiles", Text: m.Text()})
				break
			}
		}
		for _, m := range tileModules(kernels, t) {
			ms = append(ms, toolchain.Module{Name: "gemm register tiles", Text: m.Text()})
		}
		so, err := tools.Compile(ctx, t, ms)
		if err != nil {
			return nil, err
		}
		out[t.Name] = so
	}
	return out, nil
}

// tileModules defines the register tiles that kernels' products call, a few
// modules for all.
func tileModules(kernels []*kern.Kernel, t *build.Target) []*build.Module {
	known := map[tile]bool{}
	var tiles []tile
	for _, k := range kernels {
		if k.Template != nil || k.FindContract() == nil {
			continue
		}
		r := classify(k)
		if r == nil {
			continue
		}
		for _, x := range r.gemm(k).Tiles(t) {
			if !known[x] {
				known[x] = true
				tiles = append(tiles, x)
			}
		}
	}
	slices.SortFunc(tiles, func(a, b tile) int { return strings.Compare(a.name(), b.name()) })
	var ms []*build.Module
	for run := range slices.Chunk(tiles, 8) {
		m := build.NewModule(t)
		EmitTiles(m, run)
		ms = append(ms, m)
	}
	return ms
}

// batchCount is the number of modules a large system's kernels are spread
// over: starting llc costs as much as compiling a small kernel (10 ms), but
// the cache of objects works by module, so they should stay small.
const batchCount = 32

// batches puts kernels into modules. Which module a kernel goes to depends on
// its name alone, so that a changed kernel leaves the other modules as they
// were.
func batches(kernels []*kern.Kernel, t *build.Target) ([]toolchain.Module, error) {
	var ms [batchCount]*build.Module
	var names [batchCount]string
	for _, k := range kernels {
		h := fnv.New32a()
		h.Write([]byte(k.Name))
		i := h.Sum32() % batchCount
		if ms[i] == nil {
			ms[i] = build.NewModule(t)
			names[i] = "kernels"
		}
		if err := emit(ms[i], k); err != nil {
			return nil, err
		}
		names[i] += " " + k.Name
	}
	var out []toolchain.Module
	for i, m := range ms {
		if m != nil {
			out = append(out, toolchain.Module{Name: names[i], Text: m.Text()})
		}
	}
	return out, nil
}

// Text is the LLVM IR of one kernel for t.
func Text(k *kern.Kernel, t *build.Target) (string, error) {
	m := build.NewModule(t)
	if err := emit(m, k); err != nil {
		return "", err
	}
	return m.Text(), nil
}

// emit adds kernel k to m.
func emit(m *build.Module, k *kern.Kernel) error {
	switch {
	case k.Template != nil:
		t := templates[k.Template.Name]
		if t == nil {
			return fmt.Errorf("internal: kernel %s: no generator on cpu for template %q", k.Name, k.Template.Name)
		}
		return t.emit(m, k)
	case k.FindContract() != nil:
		return emitContract(m, k)
	}
	f, args, c0, c1, _ := m.Kernel(k.Name)
	err := newEmitter(f, k, args).grid(c0, c1)
	f.Return()
	return err
}

// template is a hand-written kernel.
type template struct {
	emit    func(m *build.Module, k *kern.Kernel) error
	tile    func(k *kern.Kernel) (kern.Tile, int)
	scratch func(k *kern.Kernel, t *build.Target) int
}

var templates = map[string]*template{}

// ScratchBytes is the scratch memory a worker needs to run any of kernels on
// any of targets.
func ScratchBytes(kernels []*kern.Kernel, targets []*build.Target) int {
	n := 0
	for _, k := range kernels {
		for _, t := range targets {
			switch {
			case k.Template != nil && templates[k.Template.Name] != nil:
				n = max(n, templates[k.Template.Name].scratch(k, t))
			case k.Template == nil && k.FindContract() != nil:
				if r := classify(k); r != nil {
					n = max(n, r.gemm(k).Scratch(t))
				}
			}
		}
	}
	return n
}
