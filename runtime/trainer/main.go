package trainer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/gouache-ml/gouache/runtime/bench"
	"github.com/gouache-ml/gouache/runtime/config"
	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/train"
)

// Main runs the command line of a compiled system and ends the process. An interrupt
// or a termination signal ends training after the step in progress, with a snapshot;
// a second one ends the process at once. The command bench is that of runtime/bench.
func Main(open func(exec.Options) (*exec.System, error)) {
	if len(os.Args) > 1 && os.Args[1] == "bench" {
		bench.Main(open)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	code := Run(ctx, os.Args[1:], os.Stdout, os.Stderr, func(o exec.Options) (train.System, error) {
		s, err := open(o)
		if err != nil {
			return nil, err
		}
		return train.Compiled(s), nil
	})
	os.Exit(code)
}

// The exit codes of Run.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// commands is the grammar.
type commands struct {
	Train  trainCommand  `cmd:"" help:"Train the models, one after the other or one of them."`
	Sample sampleCommand `cmd:"" help:"Draw pictures for captions."`
	Eval   evalCommand   `cmd:"" help:"Measure the trained models on validation data, and judge samples."`
	Encode encodeCommand `cmd:"" help:"Turn the pictures into tokens for the prior, ahead of training it."`
	Info   infoCommand   `cmd:"" help:"Show the system, its memory, the settings and what is trained."`
	Demo   demoCommand   `cmd:"" help:"Train everything, sample, and write a report; continues what was begun."`
}

// common are the flags of every command.
type common struct {
	Config  string `short:"c" placeholder:"FILE" help:"Settings in TOML; by default config.toml of the run, if it has one."`
	Out     string `placeholder:"DIR" help:"Folder of the run."`
	Threads int    `placeholder:"N" help:"Threads; by default GOUACHE_THREADS or one for each processor."`
	Target  string `placeholder:"NAME" help:"Kernels to use, such as x86-64-v4; by default the best."`
}

// command is what Run calls.
type command interface {
	flags() *common
	overrides() ([]string, error)
	run(ctx context.Context, a *app) error
}

func (c *common) flags() *common { return c }

// exited carries an exit code out of the parser, which ends the process for -help.
type exited int

// Run does what the arguments say and returns the exit code; errors are one line on
// stderr.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer, open func(exec.Options) (train.System, error)) (code int) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exited)
			if !ok {
				panic(r)
			}
			code = int(e)
		}
	}()
	fail := func(code int, err error) int {
		line := strings.ReplaceAll(err.Error(), "\n", "; ")
		if errors.Is(err, syscall.ENOSPC) && !strings.Contains(line, "free some space") {
			line += "; free some space"
		}
		fmt.Fprintf(stderr, "trainer: %s\n", line)
		return code
	}
	var grammar commands
	parser, err := kong.New(&grammar, kong.Name("trainer"), kong.Writers(stdout, stderr),
		kong.Description("Trains and samples a compiled text-to-image system. Flags take one dash or two; settings are given as key=value. A further command, bench, times one program; see bench -help."),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		return fail(exitFailed, err)
	}
	parsed, err := parser.Parse(flagsFirst(twoDashes(args), valued(parser.Model.Node)))
	if err != nil {
		return fail(exitUsage, fmt.Errorf("%w; see -help", err))
	}
	cmd, ok := parsed.Selected().Target.Addr().Interface().(command)
	if !ok {
		return fail(exitFailed, fmt.Errorf("internal: command %s can't run", parsed.Command()))
	}
	overrides, err := cmd.overrides()
	if err != nil {
		return fail(exitUsage, err)
	}
	err = start(ctx, cmd, overrides, stdout, stderr, open)
	switch {
	case errors.Is(err, train.ErrInterrupted), errors.Is(err, context.Canceled):
		return fail(exitInterrupted, err)
	case err != nil:
		return fail(exitFailed, err)
	}
	return 0
}

// twoDashes lets long flags have a single dash, as Go's own tools do: -resume is
// --resume, and -n=4 is -n 4.
func twoDashes(args []string) []string {
	var out []string
	for i, a := range args {
		if a == "--" {
			return append(out, args[i:]...)
		}
		letter := len(a) > 1 && a[0] == '-' && (a[1] >= 'a' && a[1] <= 'z' || a[1] >= 'A' && a[1] <= 'Z')
		switch {
		case letter && len(a) > 2 && a[2] == '=':
			out = append(out, a[:2], a[3:])
		case letter && len(a) > 2:
			out = append(out, "-"+a)
		default:
			out = append(out, a)
		}
	}
	return out
}

// valued collects the flags, with their dashes, that take a value.
func valued(n *kong.Node) map[string]bool {
	names := map[string]bool{}
	for _, f := range n.Flags {
		if f.IsBool() {
			continue
		}
		names["--"+f.Name] = true
		if f.Short != 0 {
			names["-"+string(f.Short)] = true
		}
	}
	for _, c := range n.Children {
		for name := range valued(c) {
			names[name] = true
		}
	}
	return names
}

// flagsFirst moves the arguments that are no flags, but for the command, behind the
// flags: the parser doesn't take lists of arguments with flags between them.
func flagsFirst(args []string, valued map[string]bool) []string {
	var command, flags, rest []string
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "--":
			rest = append(rest, args[i:]...)
			i = len(args)
		case strings.HasPrefix(a, "-") && len(a) > 1:
			flags = append(flags, a)
			if valued[a] && i+1 < len(args) {
				i++
				flags = append(flags, args[i])
			}
		case command == nil:
			command = []string{a}
		default:
			rest = append(rest, a)
		}
	}
	return slices.Concat(command, flags, rest)
}

// start settles the configuration, opens the system and runs the command.
func start(ctx context.Context, cmd command, overrides []string, stdout, stderr io.Writer, open func(exec.Options) (train.System, error)) (err error) {
	flags := cmd.flags()
	options := exec.Options{Threads: flags.Threads, Target: flags.Target}
	if p, ok := cmd.(interface{ profiled() bool }); ok {
		options.Profile = p.profiled()
	}
	sys, err := open(options)
	if err != nil {
		return err
	}
	defer func() {
		if closed := sys.Close(); err == nil {
			err = closed
		}
	}()
	cfg, err := configure(sys.Name(), flags, overrides)
	if err != nil {
		return err
	}
	text, err := config.Format(cfg)
	if err != nil {
		return err
	}
	sizes, err := train.ReadSizes(sys)
	if err != nil {
		return err
	}
	a := &app{sys: sys, cfg: cfg, text: string(text), sizes: sizes, out: stdout, log: stderr}
	return cmd.run(ctx, a)
}

// configure reads the settings: the system's recipe, then the file, then overrides.
// Without -c the file is the run's own, where there is one.
func configure(system string, flags *common, overrides []string) (*train.Config, error) {
	cfg := Recipe(system)
	folder := cfg.Out
	for _, o := range overrides {
		if key, value, ok := strings.Cut(o, "="); ok && strings.TrimSpace(key) == "out" {
			folder = strings.TrimSpace(value)
		}
	}
	if flags.Out != "" {
		folder = flags.Out
	}
	if info, err := os.Stat(folder); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("%s: is a file; give -out a folder", folder)
	}
	file, own := flags.Config, false
	if file == "" {
		file = configPath(folder)
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			file = ""
		} else {
			own = true
		}
	}
	if err := config.Load(&cfg, file, overrides); err != nil {
		return nil, err
	}
	if own || flags.Out != "" {
		cfg.Out = folder // a run that was moved has another folder in its file
	}
	return &cfg, nil
}

func configPath(out string) string { return filepath.Join(out, "config.toml") }

// settings are the key=value arguments of commands that take nothing else.
type settings struct {
	Settings []string `arg:"" optional:"" name:"key=value" help:"Settings; info lists them."`
}

func (s settings) overrides() ([]string, error) {
	for _, o := range s.Settings {
		if !strings.Contains(o, "=") {
			return nil, fmt.Errorf("argument %q: want key=value", o)
		}
	}
	return s.Settings, nil
}
