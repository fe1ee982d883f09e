package main

import (
	"context"
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/models/system"
	device "github.com/gouache-ml/gouache/runtime/device/cpu"
)

// session is a system compiled as the options say.
type session struct {
	options
	out, diag io.Writer
	tools     *toolchain.Tools
	variant   *build.Target
	backend   pipeline.Backend
	plan      *plan.System
	model     *plan.Model   // of -program
	prog      *plan.Program // of -program
	subjects  []*subject    // kernels to measure
	machine   *machine
	headed    bool // the table has its head
}

// subject is a kernel with a place where it is launched, which tells what its
// buffers hold.
type subject struct {
	*kern.Kernel
	kind     string // gemm, loops (a product without gemm), a template's name, or map or row
	example  plan.Launch
	model    *plan.Model
	launches map[string]int // by program
	bytes    int            // memory traffic if every buffer moves once
}

func newSession(o options, out, diag io.Writer) (*session, error) {
	s := &session{options: o, out: out, diag: diag}
	var err error
	name := o.target
	if name == "" {
		var known []string
		for _, t := range build.Targets() {
			known = append(known, t.Name)
		}
		if name, err = device.BestTarget(known); err != nil {
			return nil, err
		}
	}
	if s.variant, err = build.TargetByName(name); err != nil {
		return nil, err
	}
	s.tools, err = toolchain.Find()
	return s, err
}

// plans the system, up to machine code.
func (s *session) plans() error {
	sys, err := system.Lookup(s.system)
	if err != nil {
		return err
	}
	modules, err := sys.Build()
	if err != nil {
		return err
	}
	if s.program != "" {
		if modules, err = only(modules, s.program); err != nil {
			return fmt.Errorf("system %s: %w", s.system, err)
		}
	}
	if s.plan, err = pipeline.Compile(sys.Name, modules, pipeline.Options{Backend: s.backend}); err != nil {
		return err
	}
	if s.program != "" {
		s.model = s.plan.Models[0]
		s.prog = s.model.Programs[0]
	}
	s.collect()
	return nil
}

// only leaves one function of one module.
func only(modules []*ir.Module, program string) ([]*ir.Module, error) {
	var names []string
	for _, m := range modules {
		for _, f := range m.Funcs {
			name := m.Name + "." + f.Name
			if name == program {
				m.Funcs = []*ir.Func{f}
				return []*ir.Module{m}, nil
			}
			names = append(names, name)
		}
	}
	return nil, fmt.Errorf("no program %q; it has %s", program, strings.Join(names, ", "))
}

// collect makes the subjects, sorted by name.
func (s *session) collect() {
	byKernel := map[*kern.Kernel]*subject{}
	for _, k := range s.plan.Kernels {
		if s.run != nil && !s.run.MatchString(k.Name) {
			continue
		}
		x := &subject{Kernel: k, kind: s.kindOf(k), launches: map[string]int{}, bytes: k.Traffic()}
		byKernel[k] = x
		s.subjects = append(s.subjects, x)
	}
	for _, m := range s.plan.Models {
		for _, p := range m.Programs {
			for _, l := range p.Launches {
				x := byKernel[l.Kernel]
				if x == nil {
					continue
				}
				if x.model == nil {
					x.model, x.example = m, l
				}
				x.launches[m.Name+"."+p.Name]++
			}
		}
	}
	sort.Slice(s.subjects, func(i, j int) bool { return s.subjects[i].Name < s.subjects[j].Name })
}

func (s *session) kindOf(k *kern.Kernel) string {
	switch {
	case k.Template != nil:
		return k.Template.Name
	case k.FindContract() != nil && s.variant == nil: // for a GPU
		return "gemm"
	case k.FindContract() != nil && cpu.ScratchBytes([]*kern.Kernel{k}, []*build.Target{s.variant}) > 0:
		return "gemm"
	case k.FindContract() != nil:
		return "loops"
	case k.HasLoop():
		return "row"
	}
	return "map"
}

// load compiles kernels and maps them.
func (s *session) load(ctx context.Context, kernels []*kern.Kernel) (*device.Library, error) {
	so, err := s.compile(ctx, kernels)
	if err != nil {
		return nil, err
	}
	return device.Load(so)
}

func (s *session) compile(ctx context.Context, kernels []*kern.Kernel) ([]byte, error) {
	objects, err := cpu.Compile(ctx, s.tools, kernels, []*build.Target{s.variant})
	if err != nil {
		return nil, err
	}
	return objects[s.variant.Name], nil
}

// list prints kernels and programs.
func (s *session) list() error {
	w := tabwriter.NewWriter(s.out, 2, 8, 2, ' ', 0)
	fmt.Fprintln(w, "kernel\tkind\tchunks\tMFLOP\tMB\tlaunches")
	for _, x := range s.subjects {
		var in []string
		for p, n := range x.launches {
			in = append(in, fmt.Sprintf("%s:%d", p, n))
		}
		sort.Strings(in)
		fmt.Fprintf(w, "%s\t%s\t%d\t%.3f\t%.3f\t%s\n", x.Name, x.kind, x.Chunks, float64(x.FLOPs)/1e6, float64(x.bytes)/1e6, strings.Join(in, " "))
	}
	fmt.Fprintln(w, "\nprogram\t\tlaunches\tMFLOP\twork MB\t")
	for _, m := range s.plan.Models {
		for _, p := range m.Programs {
			fmt.Fprintf(w, "%s.%s\t\t%d\t%.1f\t%.1f\t\n", m.Name, p.Name, len(p.Launches), float64(p.FLOPs)/1e6, float64(p.WorkBytes)/1e6)
		}
	}
	return w.Flush()
}
