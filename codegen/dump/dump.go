package dump

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/codegen/cpu/toolchain"
	"github.com/gouache-ml/gouache/codegen/cuda"
	"github.com/gouache-ml/gouache/codegen/driver"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/text"
	"github.com/gouache-ml/gouache/models/system"
)

type flags struct {
	File   string `arg:"" optional:"" help:"Text of modules, kernels or a plan, in place of -system."`
	System string `help:"System to compile." placeholder:"NAME"`

	Stage  string `help:"Print this stage: build, a pass, kern or plan." placeholder:"NAME"`
	From   string `help:"Apply the passes from this one on alone, up to -to, and print the result." placeholder:"PASS"`
	To     string `help:"Last pass to apply." placeholder:"PASS"`
	Bisect bool   `help:"Run the functions in float64 after every pass and launch, and say where the results change."`
	All    bool   `help:"Write every stage to a file in the folder -o."`
	HTML   string `name:"html" help:"Write a page that shows one function pass by pass." placeholder:"FILE"`
	Info   bool   `help:"Print parameters, masks, and every function's launches, memory and arithmetic."`
	Memory bool   `help:"Print where buffers lie and when they live; with -o draw them too."`
	Kernel string `help:"Print the kernels whose names match." placeholder:"RE"`

	Func   string `help:"Functions to show, matched against model.function." placeholder:"RE"`
	As     string `help:"Form of -kernel: kern; llvm or asm for a processor, ptx for a GPU." default:"kern" placeholder:"FORM"`
	Target string `help:"Processor of -as llvm and asm, or GPU such as sm_90a: everything after the passes is then planned for GPUs." default:"x86-64-v3" placeholder:"NAME"`
	Output string `name:"output" short:"o" help:"Folder to write to." placeholder:"DIR"`

	system.Choices
}

// Main is the whole program: it parses os.Args and exits.
func Main() {
	driver.Command("irdump", Run)
}

// Run does what the arguments say, printing to w.
func Run(ctx context.Context, args []string, w io.Writer) error {
	var f flags
	exit := false
	p, err := kong.New(&f, kong.Name("irdump"), kong.Description("Show a system at any stage of compilation."),
		kong.Writers(w, w), kong.Exit(func(int) { exit = true }))
	if err != nil {
		return err
	}
	if _, err = p.Parse(driver.Args(args)); exit {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w; see irdump -help", err)
	}
	in, err := f.open()
	if err != nil {
		return err
	}
	if strings.HasPrefix(f.Target, "sm_") {
		if _, err := cuda.TargetByName(f.Target); err != nil {
			return err
		}
		in.backend = cuda.Backend{}
	}
	if f.Func != "" {
		if in.only, err = regexp.Compile(f.Func); err != nil {
			return fmt.Errorf("-func: %w", err)
		}
	}
	modes := 0
	for _, on := range []bool{f.Stage != "", f.From != "" || f.To != "", f.Bisect, f.All, f.HTML != "", f.Info, f.Memory, f.Kernel != ""} {
		if on {
			modes++
		}
	}
	if modes > 1 {
		return fmt.Errorf("choose one of -stage, -from with -to, -bisect, -all, -html, -info, -memory and -kernel")
	}
	switch {
	case f.From != "" || f.To != "":
		return in.passes(f.From, f.To, w)
	case f.Bisect:
		return in.bisect(pipeline.Passes, w)
	case f.All:
		if f.Output == "" {
			return fmt.Errorf("-all writes one file a stage; say where with -o DIR")
		}
		return in.all(f.Output, w)
	case f.HTML != "":
		return in.html(f.HTML, w)
	case f.Info:
		return in.info(w)
	case f.Memory:
		return in.memory(f.Output, w)
	case f.Kernel != "":
		return in.kernel(ctx, f.Kernel, f.As, f.Target, w)
	}
	s, err := in.stage(f.Stage)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, s)
	return err
}

func (f *flags) open() (*input, error) {
	switch {
	case f.System != "" && f.File != "":
		return nil, fmt.Errorf("both -system %s and the file %s are given; choose one", f.System, f.File)
	case f.System != "":
		s, err := system.Lookup(f.System)
		if err != nil {
			return nil, err
		}
		return &input{name: s.Name, build: func() ([]*ir.Module, error) { return f.Build(s) }}, nil
	case len(f.Set) > 0:
		return nil, fmt.Errorf("-set %s: it changes a system's sizes, and a file has its own; give -system NAME", f.Set[0])
	case f.File == "":
		return nil, fmt.Errorf("nothing to show; give -system NAME (one of %s) or a file", strings.Join(system.Names(), ", "))
	}
	src, err := os.ReadFile(f.File)
	if err != nil {
		return nil, err
	}
	file, err := text.Parse(f.File, string(src))
	if err != nil {
		return nil, err
	}
	in := &input{name: strings.TrimSuffix(filepath.Base(f.File), filepath.Ext(f.File)), file: file}
	reparse := in.reparse(f.File, string(src))
	in.build = func() ([]*ir.Module, error) {
		ms, err := reparse()
		if err == nil {
			err = f.Apply(ms)
		}
		return ms, err
	}
	return in, nil
}

// kernel prints the matching kernels in the given form.
func (in *input) kernel(ctx context.Context, pattern, as, target string, w io.Writer) error {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return fmt.Errorf("-kernel: %w", err)
	}
	var t *build.Target
	var gpu *cuda.Target
	forms := []string{"kern", "llvm", "asm"}
	if in.backend == nil {
		t, err = build.TargetByName(target)
	} else {
		gpu, err = cuda.TargetByName(target)
		forms = []string{"kern", "ptx"}
	}
	if err != nil {
		return err
	}
	if !slices.Contains(forms, as) {
		return fmt.Errorf("unknown form %q for target %s; one of %s", as, target, strings.Join(forms, ", "))
	}
	var show func(k *kern.Kernel) (string, error)
	switch as {
	case "kern":
		show = func(k *kern.Kernel) (string, error) { return k.String(), nil }
	case "ptx":
		show = func(k *kern.Kernel) (string, error) {
			text, entries, err := cuda.Text(k, gpu, true)
			for _, e := range entries {
				text += fmt.Sprintf("// launch %s: grid %d x %d x %d, %d threads, %d bytes of shared memory\n", e.Name, e.Grid[0], e.Grid[1], e.Grid[2], e.Block, e.Shared)
			}
			return text, err
		}
	case "llvm":
		show = func(k *kern.Kernel) (string, error) { return cpu.Text(k, t) }
	case "asm":
		tools, err := toolchain.Find()
		if err != nil {
			return err
		}
		show = func(k *kern.Kernel) (string, error) {
			ll, err := cpu.Text(k, t)
			if err != nil {
				return "", err
			}
			return tools.Assembly(ctx, t, toolchain.Module{Name: "kernel " + k.Name, Text: ll})
		}
	}
	all, err := in.kernels()
	if err != nil {
		return err
	}
	found := false
	for _, k := range all {
		if !re.MatchString(k.Name) {
			continue
		}
		s, err := show(k)
		if err != nil {
			return err
		}
		if found {
			s = "\n" + s
		}
		found = true
		if _, err := io.WriteString(w, s); err != nil {
			return err
		}
	}
	if !found {
		var names []string
		for i, k := range all {
			if i == 8 {
				names = append(names, fmt.Sprintf("and %d more (-stage kern prints them)", len(all)-i))
				break
			}
			names = append(names, k.Name)
		}
		return fmt.Errorf("no kernel matches %q; there are %s", pattern, strings.Join(names, ", "))
	}
	return nil
}
