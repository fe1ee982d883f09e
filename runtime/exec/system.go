package exec

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gouache-ml/gouache/runtime/device/cpu"
)

// Options configures Open. The zero value is right for most uses.
type Options struct {
	Threads int    // 0: GOUACHE_THREADS, or GOMAXPROCS: the processors this process may use
	Target  string // "": GOUACHE_TARGET, or the best this processor or device runs
	Pin     bool   // bind threads to processors
	Profile bool   // measure each launch, see Program.Profile and System.Profile
}

// System is a loaded Spec: kernels in memory and the threads to run them.
//
// Programs of one system run one at a time: they share its threads. Run waits for its turn, so
// models may be used from several goroutines, each model from one.
type System struct {
	spec    *Spec
	target  string
	profile *Profile // nil unless asked for
	library *cpu.Library
	pool    *cpu.Pool
	kernels []entry
	turn    sync.Mutex

	device    Device // nil on a processor; used by whoever has the turn
	code      Code
	entries   [][]Entry
	launching launching

	mu     sync.Mutex // guards models; taken before turn
	models map[string]*Model
}

// entry is a kernel ready to run.
type entry struct {
	addr   uintptr
	chunks int
	deal   cpu.Deal // how workers take chunks
	fn     goKernel // when set, runs instead; for tests of this package
}

// goKernel does one chunk of a kernel; args are addresses.
type goKernel func(args []int64, chunk int)

// Open loads the kernels of spec and starts the threads. Memory for a model is taken when
// System.Model first asks for it; on a device, when one of its programs first runs.
func Open(spec *Spec, o Options) (*System, error) { return open(spec, o, nil) }

func open(spec *Spec, o Options, fakes map[string]goKernel) (*System, error) {
	threads, err := threads(o.Threads)
	if err != nil {
		return nil, err
	}
	s := &System{spec: spec, models: map[string]*Model{}}
	scratch := 0
	if fakes == nil {
		objects, target, err := choose(spec, o.Target)
		if err != nil {
			return nil, err
		}
		if objects[0].Device != "" {
			err = s.load(objects, target)
		} else {
			s.target, scratch = objects[0].Target, objects[0].Scratch
			if s.library, err = cpu.Load(objects[0].Code); err != nil {
				err = fmt.Errorf("%s: kernels for %s: %w", spec.Name, s.target, err)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if s.device == nil {
		for _, k := range spec.Kernels {
			e := entry{chunks: k.Chunks, deal: cpu.DealFor(k.Together, k.FLOPs, k.Bytes)}
			if fakes != nil {
				e.fn = fakes[k.Name]
			} else if e.addr, err = s.library.Symbol(k.Name); err != nil {
				s.library.Close()
				return nil, fmt.Errorf("%s: kernels for %s: %w", spec.Name, s.target, err)
			}
			s.kernels = append(s.kernels, e)
		}
	}
	s.pool, err = cpu.NewPool(cpu.PoolOptions{Workers: threads, Scratch: scratch, Pin: o.Pin, Timed: o.Profile})
	if err != nil {
		if s.library != nil {
			s.library.Close()
		}
		s.unload()
		return nil, fmt.Errorf("%s: %w", spec.Name, err)
	}
	if o.Profile {
		s.profile = newProfile(s)
	}
	return s, nil
}

// threads settles the number of threads.
func threads(asked int) (int, error) {
	switch v := os.Getenv("GOUACHE_THREADS"); {
	case asked > 0:
		return asked, nil
	case asked < 0:
		return 0, fmt.Errorf("exec: %d threads are not possible; give a positive number, or 0 for all processors", asked)
	case v != "":
		n, err := strconv.Atoi(v)
		if err != nil || n <= 0 {
			return 0, fmt.Errorf("exec: GOUACHE_THREADS=%q is not a positive number", v)
		}
		return n, nil
	}
	return runtime.GOMAXPROCS(0), nil
}

// choose picks the object to load. Those for a device are not chosen from here: it gets them all,
// with the target that was asked for, if any.
func choose(spec *Spec, target string) ([]Object, string, error) {
	var have []string
	for _, o := range spec.Objects {
		have = append(have, o.Target)
	}
	from := "target"
	if v := os.Getenv("GOUACHE_TARGET"); target == "" && v != "" {
		from, target = "GOUACHE_TARGET", v
	}
	if target != "" && !slices.Contains(have, target) {
		return nil, "", fmt.Errorf("%s: %s %q: kernels are compiled for %s", spec.Name, from, target, strings.Join(have, ", "))
	}
	i := slices.IndexFunc(spec.Objects, func(o Object) bool { return o.Device != "" && (target == "" || o.Target == target) })
	if i >= 0 {
		return slices.DeleteFunc(slices.Clone(spec.Objects), func(o Object) bool { return o.Device != spec.Objects[i].Device }), target, nil
	}
	if target == "" {
		best, err := cpu.BestTarget(have)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", spec.Name, err)
		}
		target = best
	} else if able := cpu.Targets(); !slices.Contains(able, target) {
		return nil, "", fmt.Errorf("%s: %s %q: this processor runs %s", spec.Name, from, target, strings.Join(able, ", "))
	}
	return spec.Objects[slices.Index(have, target):][:1], target, nil
}

// Name is the system's name.
func (s *System) Name() string { return s.spec.Name }

// Target is the kernel variant in use, such as "x86-64-v4".
func (s *System) Target() string { return s.target }

// Device is the name of the device that runs the kernels, "" where processors do.
func (s *System) Device() string {
	if s.device == nil {
		return ""
	}
	return s.device.Name()
}

// Threads is the number of threads that run kernels, the caller's included; with a device they
// only fill tensors.
func (s *System) Threads() int { return s.pool.Workers() }

// Models lists the names of the models.
func (s *System) Models() []string {
	var names []string
	for i := range s.spec.Models {
		names = append(names, s.spec.Models[i].Name)
	}
	return names
}

// Model returns the model of that name. The first call takes its memory and fills its constants;
// later calls return the same model.
func (s *System) Model(name string) (*Model, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.models[name]; m != nil {
		return m, nil
	}
	for i := range s.spec.Models {
		if s.spec.Models[i].Name == name {
			m, err := newModel(s, &s.spec.Models[i])
			if err != nil {
				return nil, err
			}
			s.models[name] = m
			return m, nil
		}
	}
	return nil, unknown(s.Name(), "model", name, s.Models())
}

// Close frees everything. Views into models are invalid afterwards.
func (s *System) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn.Lock()
	defer s.turn.Unlock()
	var errs []error
	for _, name := range s.Models() {
		if m := s.models[name]; m != nil {
			errs = append(errs, m.free())
		}
	}
	clear(s.models)
	errs = append(errs, s.unload()...)
	errs = append(errs, s.pool.Close())
	if s.library != nil {
		errs = append(errs, s.library.Close())
	}
	return errors.Join(errs...)
}

// unknown is the error for a name that doesn't exist. Long lists of valid names are cut.
func unknown(where, what, name string, valid []string) error {
	const most = 24
	list := strings.Join(valid[:min(len(valid), most)], ", ")
	switch {
	case len(valid) == 0:
		list = "none"
	case len(valid) > most:
		list += fmt.Sprintf(" and %d more", len(valid)-most)
	}
	return fmt.Errorf("%s: no %s %q; it has %s", where, what, name, list)
}
