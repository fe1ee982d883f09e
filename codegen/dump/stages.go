package dump

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/ir/text"
	"github.com/gouache-ml/gouache/ir/verify"
)

// input is what is shown.
type input struct {
	name  string
	build func() ([]*ir.Module, error) // afresh at each call: passes change modules
	file  *text.File                   // the parsed file, nil for a system
	only  *regexp.Regexp               // of model.function; nil: all
	// backend is what programs are planned for; nil: processors.
	backend pipeline.Backend
}

// The stages after the graph passes.
const (
	buildStage = "build"
	kernStage  = "kern"
	planStage  = "plan"
)

// Stages lists the stages in order.
func Stages() []string {
	s := []string{buildStage}
	for _, p := range pipeline.Passes {
		s = append(s, p.Name)
	}
	return append(s, kernStage, planStage)
}

func (in *input) reparse(name, src string) func() ([]*ir.Module, error) {
	return func() ([]*ir.Module, error) {
		f, err := text.Parse(name, src)
		if err != nil {
			return nil, err
		}
		if len(f.Modules) == 0 {
			return nil, fmt.Errorf("%s: no modules to compile; show it with -stage %s, -stage %s, -memory or -kernel", name, kernStage, planStage)
		}
		return f.Modules, nil
	}
}

func (in *input) target() pipeline.Backend {
	if in.backend == nil {
		return cpu.Backend{}
	}
	return in.backend
}

// stage is the text of one stage; "" is the input as it comes.
func (in *input) stage(name string) (string, error) {
	switch {
	case name == "" && in.file != nil && in.only == nil:
		return in.file.String(), nil
	case name == "" && (in.file == nil || len(in.file.Modules) > 0):
		name = buildStage
	case name == "":
		name = planStage
	}
	if !slices.Contains(Stages(), name) {
		return "", fmt.Errorf("unknown stage %q; one of %s", name, strings.Join(Stages(), ", "))
	}
	switch name {
	case kernStage:
		return in.kernText()
	case planStage:
		return in.planText()
	}
	found := ""
	err := in.graphs(pipeline.Passes, func(stage string, ms []*ir.Module) error {
		if stage != name {
			return nil
		}
		var err error
		if found, err = in.modules(ms); err != nil {
			return err
		}
		return errStop
	})
	return found, err
}

var errStop = fmt.Errorf("stop")

// passes prints what the passes from..to, which may be empty for the first and the
// last one, make of the input as it is.
func (in *input) passes(from, to string, w io.Writer) error {
	var names []string
	for _, p := range pipeline.Passes {
		names = append(names, p.Name)
	}
	first, last := 0, len(names)-1
	for _, end := range []struct {
		flag, name string
		at         *int
	}{{"-from", from, &first}, {"-to", to, &last}} {
		if end.name == "" {
			continue
		}
		if *end.at = slices.Index(names, end.name); *end.at < 0 {
			return fmt.Errorf("%s: unknown pass %q; one of %s", end.flag, end.name, strings.Join(names, ", "))
		}
	}
	if last < first {
		return fmt.Errorf("-from %s comes after -to %s; the order is %s", from, to, strings.Join(names, ", "))
	}
	return in.graphs(pipeline.Passes[first:last+1], func(stage string, ms []*ir.Module) error {
		if stage != names[last] {
			return nil
		}
		s, err := in.modules(ms)
		if err == nil {
			_, err = io.WriteString(w, s)
		}
		return err
	})
}

// graphs calls see with the modules as built and after each of the passes.
func (in *input) graphs(passes []pipeline.Pass, see func(stage string, ms []*ir.Module) error) error {
	ms, err := in.build()
	if err != nil {
		return err
	}
	check := func(stage string) error {
		for _, m := range ms {
			for _, f := range m.Funcs {
				if err := verify.Func(f); err != nil {
					return fmt.Errorf("internal: %s.%s: after %s: %w", m.Name, f.Name, stage, err)
				}
			}
		}
		err := see(stage, ms)
		return err
	}
	if err = check(buildStage); err == errStop {
		return nil
	} else if err != nil {
		return err
	}
	for _, p := range passes {
		for _, m := range ms {
			for _, f := range m.Funcs {
				if err := p.Run(f); err != nil {
					return err
				}
			}
		}
		if err := check(p.Name); err == errStop {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// modules prints the functions asked for. With a choice of functions only the
// globals they use are printed.
func (in *input) modules(ms []*ir.Module) (string, error) {
	var parts, names []string
	for _, m := range ms {
		show := m
		if in.only != nil {
			part := *m
			part.Funcs = nil
			for _, f := range m.Funcs {
				names = append(names, m.Name+"."+f.Name)
				if in.only.MatchString(m.Name + "." + f.Name) {
					part.Funcs = append(part.Funcs, f)
				}
			}
			if len(part.Funcs) == 0 {
				continue
			}
			part.Globals = used(m, part.Funcs)
			show = &part
		}
		parts = append(parts, text.Module(show))
	}
	if len(parts) == 0 && in.only != nil {
		return "", in.noFunc(names)
	}
	return strings.Join(parts, "\n"), nil
}

func (in *input) noFunc(names []string) error {
	return fmt.Errorf("no function matches %q; one of %s", in.only, strings.Join(names, ", "))
}

// used lists the globals that funcs read or update, and those these belong to.
func used(m *ir.Module, funcs []*ir.Func) []*ir.Global {
	need := map[*ir.Global]bool{}
	add := func(g *ir.Global) {
		for ; g != nil; g = g.Of {
			need[g] = true
		}
	}
	for _, f := range funcs {
		for _, i := range f.Body {
			for _, a := range i.Args {
				add(a.Global)
			}
		}
		for _, r := range f.Results {
			add(r.Value.Global)
		}
		for _, u := range f.Updates {
			add(u.Global)
			add(u.Value.Global)
		}
	}
	return slices.DeleteFunc(slices.Clone(m.Globals), func(g *ir.Global) bool { return !need[g] })
}

// plan compiles the input, or takes the plan it holds.
func (in *input) plan() (*plan.System, error) {
	if in.file != nil && in.file.System != nil {
		return in.file.System, nil
	}
	ms, err := in.build()
	if err != nil {
		return nil, err
	}
	return pipeline.Compile(in.name, ms, pipeline.Options{Backend: in.target()})
}

// kernels lists the kernels, with a choice of functions only theirs.
func (in *input) kernels() ([]*kern.Kernel, error) {
	if in.file != nil && len(in.file.Kernels) > 0 && in.only == nil {
		return in.file.Kernels, nil
	}
	s, err := in.plan()
	if err != nil {
		return nil, err
	}
	if in.only != nil {
		return in.launched(s)
	}
	return s.Kernels, nil
}

// programs lists the programs asked for as model.function.
func (in *input) programs(s *plan.System) (names []string, programs []*plan.Program, err error) {
	var all []string
	for _, m := range s.Models {
		for _, p := range m.Programs {
			n := m.Name + "." + p.Name
			all = append(all, n)
			if in.only == nil || in.only.MatchString(n) {
				names = append(names, n)
				programs = append(programs, p)
			}
		}
	}
	if len(names) == 0 && in.only != nil {
		return nil, nil, in.noFunc(all)
	}
	return names, programs, nil
}

// kernText prints the kernels.
func (in *input) kernText() (string, error) {
	ks, err := in.kernels()
	if err != nil {
		return "", err
	}
	var parts []string
	for _, k := range ks {
		parts = append(parts, k.String())
	}
	return strings.Join(parts, "\n"), nil
}

// launched lists the kernels of the programs asked for.
func (in *input) launched(s *plan.System) ([]*kern.Kernel, error) {
	_, programs, err := in.programs(s)
	if err != nil {
		return nil, err
	}
	need := map[*kern.Kernel]bool{}
	for _, p := range programs {
		for _, l := range p.Launches {
			need[l.Kernel] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(s.Kernels), func(k *kern.Kernel) bool { return !need[k] }), nil
}

func (in *input) planText() (string, error) {
	s, err := in.plan()
	if err != nil {
		return "", err
	}
	if in.only == nil {
		return text.System(s), nil
	}
	part := plan.System{Name: s.Name}
	if part.Kernels, err = in.launched(s); err != nil {
		return "", err
	}
	for _, m := range s.Models {
		pm := *m
		pm.Programs = slices.DeleteFunc(slices.Clone(m.Programs), func(p *plan.Program) bool { return !in.only.MatchString(m.Name + "." + p.Name) })
		if len(pm.Programs) > 0 {
			part.Models = append(part.Models, &pm)
		}
	}
	return text.System(&part), nil
}

// all writes one file a stage.
func (in *input) all(dir string, w io.Writer) error {
	n := 0
	write := func(stage, s string) error {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
		path := filepath.Join(dir, fmt.Sprintf("%d-%s.ir", n, stage))
		n++
		if err := os.WriteFile(path, []byte(s), 0o666); err != nil {
			return err
		}
		_, err := fmt.Fprintln(w, path)
		return err
	}
	err := in.graphs(pipeline.Passes, func(stage string, ms []*ir.Module) error {
		s, err := in.modules(ms)
		if err != nil {
			return err
		}
		return write(stage, s)
	})
	if err != nil {
		return err
	}
	for _, stage := range []string{kernStage, planStage} {
		s, err := in.stage(stage)
		if err != nil {
			return err
		}
		if err := write(stage, s); err != nil {
			return err
		}
	}
	return nil
}
