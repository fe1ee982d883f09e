package compiled

import (
	"context"
	"fmt"
	"sort"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/load"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	device "github.com/gouache-ml/gouache/runtime/device/cpu"
	"github.com/gouache-ml/gouache/runtime/exec"
)

// Targets are the processors to test on this machine: the best it has, and
// x86-64-v3 where it runs that too. On a GPU they are those of GPUs.
func Targets() []string {
	if Device() != "" {
		var out []string
		for _, t := range gpuTargets() {
			out = append(out, t.Name)
		}
		return out
	}
	able := device.Targets()
	if len(able) > 2 {
		able = []string{able[0], able[len(able)-1]}
	}
	return able
}

// Batch collects functions that are compiled together, each on its own: a
// function that cannot be compiled does not spoil the others.
type Batch struct {
	sys     plan.System
	kernels map[string]*kern.Kernel
}

// NewBatch returns an empty batch.
func NewBatch(name string) *Batch {
	return &Batch{sys: plan.System{Name: name}, kernels: map[string]*kern.Kernel{}}
}

// Add plans modules. With fine set their loop kernels are cut into chunks as
// small as the code generator allows, so that small tensors have several.
func (b *Batch) Add(fine bool, modules ...*ir.Module) error {
	var backend pipeline.Backend = cpu.Backend{}
	if Device() != "" {
		backend = cuda.Backend{}
	}
	sys, err := pipeline.Compile(b.sys.Name, modules, pipeline.Options{Backend: backend})
	if err != nil {
		return err
	}
	for _, k := range sys.Kernels {
		if fine && Device() == "" {
			cut(k)
		}
		if old := b.kernels[k.Name]; old != nil && old.Canonical() != k.Canonical() {
			return fmt.Errorf("two kernels are called %s", k.Name)
		}
	}
	for _, k := range sys.Kernels {
		b.kernels[k.Name] = k
	}
	b.sys.Models = append(b.sys.Models, sys.Models...)
	return nil
}

func cpuTargets() []*build.Target {
	var out []*build.Target
	for _, n := range Targets() {
		if t, err := build.TargetByName(n); err == nil {
			out = append(out, t)
		}
	}
	return out
}

// cut makes the chunks of a loop kernel small.
func cut(k *kern.Kernel) {
	if k.Template != nil || k.FindContract() != nil || len(k.Dims) == 0 {
		return
	}
	runs := func(n, size int) int { return (n + size - 1) / size }
	if k.Vector == nil {
		k.Tile = kern.Tile{Rows: runs(k.Points(), 3)}
		k.Chunks = runs(k.Points(), k.Tile.Rows)
		return
	}
	last := k.Dims[len(k.Dims)-1].Extent
	outer := k.Points() / last
	k.Tile = kern.Tile{Rows: runs(outer, 3), Cols: min(last, 64)}
	k.Chunks = runs(outer, k.Tile.Rows) * runs(last, k.Tile.Cols)
}

// Plan is what has been added so far.
func (b *Batch) Plan() *plan.System {
	b.sys.Kernels = b.sys.Kernels[:0]
	for _, k := range b.kernels {
		b.sys.Kernels = append(b.sys.Kernels, k)
	}
	sort.Slice(b.sys.Kernels, func(i, j int) bool { return b.sys.Kernels[i].Name < b.sys.Kernels[j].Name })
	return &b.sys
}

// Compile makes machine code of the whole batch for Targets.
func (b *Batch) Compile() (*exec.Spec, error) {
	if Device() != "" {
		s, err := load.Spec(b.Plan())
		if err == nil {
			err = compileForGPU(b.Plan(), s)
		}
		return s, err
	}
	tools, err := toolchain.Find()
	if err != nil {
		return nil, err
	}
	sys, targets := b.Plan(), cpuTargets()
	objects, err := cpu.Compile(context.Background(), tools, sys.Kernels, targets)
	if err != nil {
		return nil, err
	}
	s, err := load.Spec(sys)
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		s.Objects = append(s.Objects, exec.Object{Target: t.Name, Code: objects[t.Name], Scratch: cpu.ScratchBytes(sys.Kernels, []*build.Target{t})})
	}
	return s, nil
}

// Compile compiles whole models as gouachec does.
func Compile(name string, modules ...*ir.Module) (*exec.Spec, error) {
	b := NewBatch(name)
	if err := b.Add(false, modules...); err != nil {
		return nil, err
	}
	return b.Compile()
}
