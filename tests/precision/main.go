package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gouache-ml/gouache/codegen/driver"
	"github.com/gouache-ml/gouache/runtime/flags"
	"github.com/gouache-ml/gouache/runtime/metrics"
)

// way is one way of storing the transformer.
type way struct {
	name, precision, doc string
}

var ways = []way{
	{"fp32", "fp32", "everything in 32 bits"},
	{"none", "paper,scaling=none", "16 bits, gradients as they are"},
	{"loss", "paper,scaling=loss", "16 bits, one scale for the loss"},
	{"resblock", "paper", "16 bits, a scale for each resblock (the paper)"},
	{"exact", "paper,scale=exact", "the same, scales not rounded to powers of two"},
	{"bf16", "bf16", "products in bfloat16, weights in 32 bits"},
}

// study is what the flags say.
type study struct {
	system, out string
	sizes       string // gouachec's -set
	ways        []way
	seeds       []int
	settings    []string
	log         io.Writer
}

func main() {
	driver.Command("precision", func(ctx context.Context, args []string, out io.Writer) error { return run(ctx, args, out, os.Stderr) })
}

func run(ctx context.Context, args []string, out, log io.Writer) error {
	s, err := parse(args, log)
	if err == flag.ErrHelp {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.train(ctx); err != nil {
		return err
	}
	return s.report(out)
}

func parse(args []string, log io.Writer) (*study, error) {
	s := &study{log: log}
	var only, seeds string
	f := flags.Set("precision")
	f.StringVar(&s.system, "system", "deep", "`system` to train")
	f.StringVar(&s.sizes, "set", "", "`sizes` in place of the system's own, such as prior.batch=2,dvae.batch=8")
	f.StringVar(&s.out, "out", "", "`folder` of the study (default out/precision/SYSTEM)")
	f.StringVar(&only, "run", "fp32,none,loss,resblock", "`ways` to store it, of "+wayNames())
	f.StringVar(&seeds, "seeds", "1", "`seeds` of the transformer's weights and data, with commas between them")
	if err := flags.Parse(f, args, math.MaxInt, log); err != nil {
		return nil, err
	}
	s.settings = f.Args()
	for _, x := range s.settings {
		if !strings.Contains(x, "=") {
			return nil, fmt.Errorf("argument %q: want key=value, a setting of the trainer", x)
		}
	}
	for _, name := range strings.Split(only, ",") {
		found := false
		for _, w := range ways {
			if w.name == name {
				s.ways, found = append(s.ways, w), true
			}
		}
		if !found {
			return nil, fmt.Errorf("-run: no way %q; one of %s", name, wayNames())
		}
	}
	for _, text := range strings.Split(seeds, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("-seeds: %q is no positive number", text)
		}
		s.seeds = append(s.seeds, n)
	}
	if s.out == "" {
		s.out = filepath.Join("out", "precision", s.system)
	}
	return s, nil
}

func wayNames() string {
	var names []string
	for _, w := range ways {
		names = append(names, w.name)
	}
	return strings.Join(names, ", ")
}

// command runs a program whose output goes to the log.
func (s *study) command(ctx context.Context, name string, args ...string) error {
	fmt.Fprintf(s.log, "%s %s\n", name, strings.Join(args, " "))
	c := exec.CommandContext(ctx, name, args...)
	c.Stdout, c.Stderr = s.log, s.log
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) } // the trainer saves
	if err := c.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

func (s *study) binary(w way) string { return filepath.Join("bin", s.system+"-"+w.name) }

func (s *study) dir(w way, seed int) string {
	return filepath.Join(s.out, fmt.Sprintf("%s-%d", w.name, seed))
}

// train compiles and trains all that is not there yet.
func (s *study) train(ctx context.Context) error {
	for _, w := range s.ways {
		gen := filepath.Join("gen", s.system+"_"+w.name)
		args := []string{"run", "./cmd/gouachec", "-system", s.system, "-target", "native", "-precision", w.precision, "-o", gen}
		if s.sizes != "" {
			args = append(args, "-set", s.sizes)
		}
		if err := s.command(ctx, "go", args...); err != nil {
			return err
		}
		if err := s.command(ctx, "go", "build", "-o", s.binary(w), "./"+filepath.ToSlash(gen)+"/trainer"); err != nil {
			return err
		}
	}
	// The dVAE is the same whatever the precision of the transformer, and so are the tokens of a seed.
	shared := filepath.Join(s.out, "shared")
	if err := s.trainer(ctx, s.ways[0], shared, "dvae"); err != nil {
		return err
	}
	for _, seed := range s.seeds {
		for _, w := range s.ways {
			dir := s.dir(w, seed)
			if err := share(shared, dir, "dvae"); err != nil {
				return err
			}
			if err := share(s.dir(s.ways[0], seed), dir, "codes"); err != nil {
				return err
			}
			if err := s.trainer(ctx, w, dir, "prior", fmt.Sprintf("seed=%d", seed)); err != nil {
				return err
			}
		}
	}
	return nil
}

// trainer trains a model in a folder, or goes on.
func (s *study) trainer(ctx context.Context, w way, dir, model string, settings ...string) error {
	args := append([]string{"train", "-resume", "-out", dir, model}, s.settings...)
	return s.command(ctx, s.binary(w), append(args, settings...)...)
}

// share copies a part of one run to another that lacks it.
func share(from, to, part string) error {
	from, to = filepath.Join(from, part), filepath.Join(to, part)
	if _, err := os.Stat(to); err == nil || from == to {
		return nil
	}
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil // still to be made
	}
	if err := os.RemoveAll(to + ".new"); err != nil {
		return err
	}
	if err := os.CopyFS(to+".new", os.DirFS(from)); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

// trained is what one training wrote down.
type trained struct {
	way
	seed      int
	records   []metrics.Record
	exponents []metrics.Exponents
}

func (s *study) results() ([]trained, error) {
	var out []trained
	for _, w := range s.ways {
		for _, seed := range s.seeds {
			t := trained{way: w, seed: seed}
			var err error
			dir := filepath.Join(s.dir(w, seed), "prior")
			if t.records, err = metrics.ReadLog(filepath.Join(dir, "metrics.jsonl")); err != nil {
				return nil, err
			}
			if t.exponents, err = metrics.ReadExponents(filepath.Join(dir, "exponents.jsonl")); err != nil {
				return nil, err
			}
			out = append(out, t)
		}
	}
	return out, nil
}
