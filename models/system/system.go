package system

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/runtime/config"
)

// System is a set of models compiled together, such as autoencoder,
// transformer and contrastive model at one size.
type System struct {
	Name string // lower case, as in gouachec -system NAME
	Doc  string // one line: sizes and purpose
	// Build makes the modules. It runs once per compilation and must give the
	// same modules each time.
	Build func() ([]*ir.Module, error)
	// Runner is the import path of a package whose Main(open) a trainer
	// command calls; without one, only the package is generated.
	Runner string

	resized func(settings []string) ([]*ir.Module, error) // Build with other sizes, of a system that is Sized
}

var (
	mu      sync.Mutex
	systems = map[string]System{}
	refused = map[string]error{} // by name
)

// Sized is s with a Build that makes modules of the given sizes, a struct, which
// Choices can set: by the names of its fields with dots between them, in any case.
func Sized[T any](s System, sizes T, build func(T) ([]*ir.Module, error)) System {
	s.Build = func() ([]*ir.Module, error) { return build(sizes) }
	s.resized = func(settings []string) ([]*ir.Module, error) {
		changed := sizes
		if err := config.Load(&changed, "", settings); err != nil {
			return nil, fmt.Errorf("-set: %w", err)
		}
		return build(changed)
	}
	return s
}

// Register enters s; a name can be registered once. What is wrong with s is
// also what Lookup says of its name, so an init function may ignore the error.
func Register(s System) error {
	mu.Lock()
	defer mu.Unlock()
	var err error
	if s.Name == "" || s.Build == nil {
		err = fmt.Errorf("system %q: it needs a name and a Build function", s.Name)
	} else if _, dup := systems[s.Name]; dup {
		err = fmt.Errorf("system %q is registered twice; choose another name", s.Name)
	}
	if err != nil {
		refused[s.Name] = err
		return err
	}
	systems[s.Name] = s
	return nil
}

// Lookup finds a registered system; the error lists the names there are.
func Lookup(name string) (System, error) {
	mu.Lock()
	s, ok := systems[name]
	err := refused[name]
	mu.Unlock()
	if err != nil {
		return System{}, err
	}
	if !ok {
		return System{}, fmt.Errorf("unknown system %q; one of %s", name, strings.Join(Names(), ", "))
	}
	return s, nil
}

// Names lists the registered systems, sorted.
func Names() []string {
	mu.Lock()
	defer mu.Unlock()
	var names []string
	for n := range systems {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// SetRemat makes modules be compiled with a way of recomputation, as
// ir.ParseRemat reads it; "" leaves them their own.
func SetRemat(modules []*ir.Module, name string) error {
	return setAll(modules, name, ir.ParseRemat, func(m *ir.Module, r ir.Remat) error {
		m.Remat = r
		return nil
	})
}

// SetBudget makes modules be compiled for an amount of memory each, as
// ir.ParseBudget reads it: one for all, or NAME=AMOUNT for some, with commas
// between; "" leaves them their own.
func SetBudget(modules []*ir.Module, amounts string) error {
	for part := range strings.SplitSeq(amounts, ",") {
		of := modules
		if name, amount, ok := strings.Cut(part, "="); ok {
			part = amount
			i := slices.IndexFunc(modules, func(m *ir.Module) bool { return m.Name == strings.TrimSpace(name) })
			if i < 0 {
				return fmt.Errorf("-budget: there is no model %q; one of %s", name, names(modules))
			}
			of = modules[i : i+1]
		}
		err := setAll(of, part, ir.ParseBudget, func(m *ir.Module, n int) error {
			if m.Remat == ir.RematBlocks {
				return fmt.Errorf("%s: a budget chooses by itself what to compute again; give -remat auto in place of %s", m.Name, m.Remat)
			}
			m.Budget = n
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func names(modules []*ir.Module) string {
	var out []string
	for _, m := range modules {
		out = append(out, m.Name)
	}
	return strings.Join(out, ", ")
}

// SetPrecision makes modules be compiled with a preset or a change of one, as
// ir.ParsePrecision reads it; "" leaves them their own.
func SetPrecision(modules []*ir.Module, name string) error {
	return setAll(modules, name, ir.ParsePrecision, func(m *ir.Module, p ir.Precision) error {
		m.Precision = p
		return nil
	})
}

func setAll[T any](modules []*ir.Module, text string, parse func(string) (T, error), set func(*ir.Module, T) error) error {
	if text == "" {
		return nil
	}
	x, err := parse(text)
	if err != nil {
		return err
	}
	for _, m := range modules {
		if err := set(m, x); err != nil {
			return err
		}
	}
	return nil
}
