package driver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/mod/modfile"

	"github.com/gouache-ml/gouache/codegen/glue"
	"github.com/gouache-ml/gouache/codegen/pipeline"
	"github.com/gouache-ml/gouache/codegen/sched"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/models/system"
)

type flags struct {
	System string   `help:"System to compile." required:"" placeholder:"NAME"`
	Output string   `name:"output" short:"o" help:"Folder of the generated package." required:"" placeholder:"DIR"`
	Target []string `help:"Processors or GPUs to compile for; native is this machine's processor (default: x86-64-v4, x86-64-v3 and arm64)." placeholder:"NAME"`
	Ptxas  string   `help:"NVIDIA's assembler, for GPUs: packages get machine code beside the PTX and load at once on GPUs of just the targets (default: none, their driver assembles the PTX)." env:"GOUACHE_PTXAS" placeholder:"PATH"`
	Quiet  bool     `short:"q" help:"Print errors only."`

	system.Choices
}

// Main is the whole program: it parses os.Args and exits.
func Main() {
	Command("gouachec", Run)
}

// Command runs the command of a main package, which an interrupt ends, and exits
// with 1 and a line on stderr if it fails.
func Command(name string, run func(ctx context.Context, args []string, w io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		advice := ""
		if errors.Is(err, syscall.ENOSPC) {
			advice = "; free some space or write elsewhere"
		}
		fmt.Fprintf(os.Stderr, "%s: %v%s\n", name, err, advice)
		os.Exit(1)
	}
}

// Args lets -flag stand for --flag, as Go's own tools do.
func Args(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if len(a) > 2 && a[0] == '-' && a[1] != '-' {
			a = "-" + a
		}
		out[i] = a
	}
	return out
}

// Run compiles as the arguments say, reporting to w.
func Run(ctx context.Context, args []string, w io.Writer) error {
	var f flags
	exit := false
	p, err := kong.New(&f, kong.Name("gouachec"), kong.Description("Compile a system into a Go package with its kernels inside."),
		kong.Writers(w, w), kong.Exit(func(int) { exit = true }))
	if err != nil {
		return err
	}
	if _, err = p.Parse(Args(args)); exit || err != nil {
		if exit {
			return nil
		}
		return fmt.Errorf("%w; see gouachec -help", err)
	}
	if f.Quiet {
		w = io.Discard
	}
	s, err := system.Lookup(f.System)
	if err != nil {
		return err
	}
	find, err := generatorFor(f.Target, f.Ptxas)
	if err != nil {
		return err
	}
	importPath, err := importPath(f.Output)
	if err != nil {
		return err
	}
	generator, err := find()
	if err != nil {
		return err
	}

	start := time.Now()
	modules, err := f.Build(s)
	if err != nil {
		return err
	}
	sys, err := pipeline.Compile(s.Name, modules, pipeline.Options{Backend: generator.backend, Placed: func(m *ir.Module, p *plan.Program, r sched.Report) {
		if r.Again.Launches > 0 {
			fmt.Fprintf(w, "gouachec: %s.%s: work memory %s in place of %s: %s\n", m.Name, p.Name, ir.Bytes(r.Bytes), ir.Bytes(r.Again.Kept), r.Again)
		}
	}})
	if err != nil {
		return err
	}
	if note := generator.note(sys.Kernels); note != "" {
		fmt.Fprintf(w, "gouachec: %s\n", note)
	}
	planned := time.Since(start)
	o := glue.Options{ImportPath: importPath, Runner: s.Runner}
	if o.Objects, err = generator.compile(ctx, sys.Kernels); err != nil {
		return err
	}
	files, err := glue.Generate(sys, o)
	if err != nil {
		return err
	}
	if err := glue.Write(f.Output, files); err != nil {
		return err
	}
	bytes, assembled, names := 0, 0, []string{}
	for _, x := range o.Objects {
		bytes += len(x.Code)
		for _, b := range x.Binaries {
			assembled += len(b)
		}
		names = append(names, x.Target)
	}
	sort.Strings(names)
	size := fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
	if assembled > 0 {
		size += fmt.Sprintf(" and %.1f MB assembled", float64(assembled)/1e6)
	}
	fmt.Fprintf(w, "gouachec: %s: %d kernels for %s, %s, in %.1f s (planning %.1f s, %s %.1f s)\n",
		s.Name, len(sys.Kernels), strings.Join(names, ", "), size, time.Since(start).Seconds(), planned.Seconds(), generator.tool, (time.Since(start) - planned).Seconds())
	return nil
}

// importPath finds the module around dir and gives dir's import path.
func importPath(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := abs; ; at = filepath.Dir(at) {
		data, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil {
			mod := modfile.ModulePath(data)
			if mod == "" {
				return "", fmt.Errorf("%s: no module line; run go mod init first", filepath.Join(at, "go.mod"))
			}
			rel, err := filepath.Rel(at, abs)
			if err != nil {
				return "", err
			}
			return strings.TrimSuffix(mod+"/"+filepath.ToSlash(rel), "/."), nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if filepath.Dir(at) == at {
			return "", fmt.Errorf("%s: not inside a Go module; run go mod init in your project first", dir)
		}
	}
}
