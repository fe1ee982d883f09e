package driver

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/cuda/ptx/ptxas"
	"github.com/gouache-ml/gouache/codegen/glue"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	device "github.com/gouache-ml/gouache/runtime/device/cpu"
)

// generator is a code generator with the targets it compiles for.
type generator struct {
	backend pipeline.Backend
	tool    string // what the time of compile is spent in
	compile func(ctx context.Context, kernels []*kern.Kernel) ([]glue.Object, error)
	note    func(kernels []*kern.Kernel) string // what a user should know of kernels, or ""
}

// generatorFor finds the generator for targets by name, all processors if there are none. What it
// returns looks for the tools, which comes after all that may be wrong with the arguments. ptxas is
// the path of the assembler for GPUs, "" for none.
func generatorFor(names []string, ptxas string) (func() (*generator, error), error) {
	var processors []*build.Target
	var gpus []*cuda.Target
	for _, n := range names {
		if n == "native" {
			able := device.Targets()
			if len(able) == 0 {
				return nil, fmt.Errorf("this %s processor runs no kernels; name the target of one that does", runtime.GOARCH)
			}
			n = able[0]
		}
		if t, err := cuda.TargetByName(n); err == nil {
			gpus = append(gpus, t)
			continue
		}
		t, err := build.TargetByName(n)
		if err != nil {
			var known []string
			for _, t := range cuda.Targets() {
				known = append(known, t.Name)
			}
			return nil, fmt.Errorf("%w, native for this machine's, and of GPUs %s", err, strings.Join(known, ", "))
		}
		processors = append(processors, t)
	}
	switch {
	case len(processors) > 0 && len(gpus) > 0:
		return nil, fmt.Errorf("targets %s and %s are of a processor and of a GPU; compile them into folders of their own", processors[0].Name, gpus[0].Name)
	case len(gpus) > 0:
		return func() (*generator, error) { return forGPUs(gpus, ptxas) }, nil
	case len(processors) == 0:
		processors = build.Defaults()
	}
	return func() (*generator, error) { return forProcessors(processors) }, nil
}

func forProcessors(targets []*build.Target) (*generator, error) {
	tools, err := toolchain.Find()
	if err != nil {
		return nil, err
	}
	compile := func(ctx context.Context, kernels []*kern.Kernel) ([]glue.Object, error) {
		code, err := cpu.Compile(ctx, tools, kernels, targets)
		if err != nil {
			return nil, err
		}
		var out []glue.Object
		for _, t := range targets {
			out = append(out, glue.Object{Target: t.Name, Code: code[t.Name], Scratch: cpu.ScratchBytes(kernels, []*build.Target{t})})
		}
		return out, nil
	}
	note := func(kernels []*kern.Kernel) string { return withoutF16(kernels, targets) }
	return &generator{cpu.Backend{}, "LLVM " + tools.Version, compile, note}, nil
}

// withoutF16 names the targets that multiply in f32 what -precision multiply=f16 asks for in f16.
func withoutF16(kernels []*kern.Kernel, targets []*build.Target) string {
	asked := slices.ContainsFunc(kernels, func(k *kern.Kernel) bool {
		c := k.FindContract()
		return c != nil && ir.DType(c.I) == ir.F16
	})
	var lack, have []string
	for _, t := range build.Targets() {
		if t.F16 {
			have = append(have, t.Name)
		} else if slices.Contains(targets, t) {
			lack = append(lack, t.Name)
		}
	}
	if !asked || len(lack) == 0 {
		return ""
	}
	return fmt.Sprintf("multiply=f16: %s multiplies in f32; targets that multiply in f16 are %s", strings.Join(lack, ", "), strings.Join(have, ", "))
}

// forGPUs needs no tools: the driver assembles the code where it runs. With ptxas the result of
// that comes along.
func forGPUs(targets []*cuda.Target, assembler string) (*generator, error) {
	var tool *ptxas.Tool
	used := "PTX"
	if assembler != "" {
		var err error
		if tool, err = ptxas.At(assembler); err != nil {
			return nil, err
		}
		used = "PTX and ptxas"
	}
	compile := func(ctx context.Context, kernels []*kern.Kernel) ([]glue.Object, error) {
		code, err := cuda.Compile(kernels, targets)
		if err != nil {
			return nil, err
		}
		var out []glue.Object
		for _, t := range targets {
			o := glue.Object{Target: t.Name, Device: "cuda", Entries: map[string][]glue.Entry{}}
			for _, text := range code.PTX[t.Name] {
				o.Code = append(append(o.Code, text...), 0)
			}
			if tool != nil {
				if o.Binaries, err = assemble(ctx, tool, t.Arch.Name, code.PTX[t.Name]); err != nil {
					return nil, err
				}
			}
			for name, es := range code.Entries[t.Name] {
				for _, e := range es {
					o.Entries[name] = append(o.Entries[name], entry(e))
				}
			}
			out = append(out, o)
		}
		return out, nil
	}
	return &generator{cuda.Backend{}, used, compile, func([]*kern.Kernel) string { return "" }}, nil
}

// assemble makes the binary of each text, several at a time.
func assemble(ctx context.Context, tool *ptxas.Tool, arch string, texts []string) ([][]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := make([][]byte, len(texts))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, text := range texts {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			var err error
			if out[i], err = tool.Binary(ctx, text, arch); err != nil {
				cancel(err) // the first one counts
			}
		})
	}
	wg.Wait()
	return out, context.Cause(ctx)
}

func entry(e cuda.Entry) glue.Entry {
	out := glue.Entry{Name: e.Name, Grid: e.Grid, Block: e.Block, Shared: e.Shared, Cluster: e.Cluster, Args: e.Args}
	for _, m := range e.Maps {
		out.Maps = append(out.Maps, glue.TensorMap(m))
	}
	return out
}
