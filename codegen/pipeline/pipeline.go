package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/gouache-ml/gouache/codegen/graph"
	"github.com/gouache-ml/gouache/codegen/kernel"
	"github.com/gouache-ml/gouache/codegen/sched"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/ir/verify"
)

// Pass is one row of the pass table.
type Pass struct {
	Name string
	Does string
	Run  func(*ir.Func) error
	For  func(Backend) bool // whether a kind of device wants it; nil: all do
}

// Passes are the graph passes, in order.
var Passes = []Pass{
	{"precision", "give values the storage types of the module's precision", graph.Precision, nil},
	{"autodiff", "expand gradients by the ops' vector-Jacobian products", graph.Autodiff, nil},
	{"reread", "read what is stored in 16 bits anyway from there", graph.Reread, nil},
	{"join", "make sums of padded parts, the gradient of slices, concatenations", graph.Join, nil},
	{"simplify", "skip what computes nothing", graph.Simplify, nil},
	{"split", "cut long reductions into partial ones", graph.Split, nil},
	{"halve", "cut products of few rows and many weights in two, for two threads", graph.Halve, Backend.Halves},
	{"order", "put the end of the forward pass beside its backward pass, region by region", graph.Order, nil},
	{"cse", "make equal instructions one", graph.CSE, nil},
	{"dce", "drop what no result or update needs", graph.DCE, nil},
}

// order lists what must come before what, and why.
var order = []struct{ Before, After, Why string }{
	{"precision", "autodiff", "gradients have the types of what they belong to, and are scaled by ops whose gradients do so"},
	{"autodiff", "split", "the gradient of a split sum would be built from its parts"},
	{"autodiff", "reread", "it is the backward pass that stores values so"},
	{"reread", "cse", "it widens a value as often as there are blocks"},
	{"autodiff", "join", "the sums are those of gradients"},
	{"join", "dce", "the paddings are left without a reader"},
	{"autodiff", "simplify", "gradients negate and reshape back"},
	{"simplify", "cse", "what reads past a step may equal what never took it"},
	{"simplify", "dce", "the steps are left without a reader"},
	{"autodiff", "cse", "gradients repeat forward computations"},
	{"split", "cse", "equal reductions split alike, and their parts should be shared"},
	{"autodiff", "order", "it is the backward pass that regions are put beside"},
	{"split", "order", "what it cuts takes the places of the whole"},
	{"simplify", "halve", "weights are told by the steps to them"},
	{"halve", "order", "what it cuts takes the places of the whole"},
	{"order", "cse", "regions that share an instruction would wait for each other"},
	{"cse", "dce", "what cse replaces is left without a reader"},
	{"dce", "lower", "lowering counts uses to decide what is stored"},
}

func init() {
	at := map[string]int{"lower": len(Passes)}
	for i, p := range Passes {
		at[p.Name] = i
	}
	for _, o := range order {
		i, ok1 := at[o.Before]
		j, ok2 := at[o.After]
		if !ok1 || !ok2 || i >= j {
			panic(fmt.Sprintf("pipeline: %s must come before %s: %s", o.Before, o.After, o.Why))
		}
	}
}

// Backend is a kind of device: how it cuts kernels, and how long they take.
type Backend interface {
	kernel.Backend
	Rates() kern.Rates
	// Halves is whether products of few rows gain by being cut in two (graph.Halve).
	Halves() bool
}

// Options say how to compile.
type Options struct {
	Backend Backend
	// Observe, when set, sees every function after it is built ("build") and
	// after every pass.
	Observe func(stage string, m *ir.Module, f *ir.Func)
	// Placed, when set, sees every program with its placement report.
	Placed func(m *ir.Module, p *plan.Program, r sched.Report)
	// After, when set, runs between passes, e.g. to interpret both sides.
	After func(pass string, f *ir.Func) error
}

// Graph runs the graph passes on one function.
func Graph(f *ir.Func, o Options) error {
	if err := f.Err(); err != nil {
		return err
	}
	see := func(stage string) error {
		if err := verify.Func(f); err != nil {
			return fmt.Errorf("internal: %s: after %s: %w", f.Name, stage, err)
		}
		if o.Observe != nil {
			o.Observe(stage, f.Module, f)
		}
		if o.After != nil {
			return o.After(stage, f)
		}
		return nil
	}
	if err := see("build"); err != nil {
		return err
	}
	for _, p := range Passes {
		if p.For == nil || o.Backend != nil && p.For(o.Backend) {
			if err := p.Run(f); err != nil {
				return err
			}
		}
		if err := see(p.Name); err != nil {
			return err
		}
	}
	return nil
}

// Compile turns models into a plan: launches in order, every buffer at its
// offset, checked.
func Compile(name string, modules []*ir.Module, o Options) (*plan.System, error) {
	sys := &plan.System{Name: name}
	lib := kernel.NewLibrary()
	var over excess
	for _, m := range modules {
		pm := &plan.Model{Name: m.Name}
		for _, f := range m.Funcs {
			if err := Graph(f, o); err != nil {
				return nil, err
			}
		}
		for _, f := range m.Funcs {
			p, err := kernel.Lower(f, lib, o.Backend)
			if err != nil {
				return nil, fmt.Errorf("%s.%w", m.Name, err)
			}
			pm.Programs = append(pm.Programs, p)
		}
		for _, g := range m.Globals {
			pm.Globals = append(pm.Globals, &plan.Global{Global: g})
		}
		if err := sched.PlaceState(pm); err != nil {
			return nil, err
		}
		for i, p := range pm.Programs {
			report, err := place(m, pm, p, blocks(m.Funcs[i]), o.Backend)
			if err != nil {
				return nil, fmt.Errorf("%s.%s: %w", m.Name, p.Name, err)
			}
			lib.Adopt(p)
			if o.Placed != nil {
				o.Placed(m, p, report)
			}
		}
		if m.Budget > 0 {
			over.add(m, pm)
		}
		if err := sched.CheckState(pm); err != nil {
			return nil, fmt.Errorf("internal: %s: %w", m.Name, err)
		}
		for _, p := range pm.Programs {
			if err := sched.Check(p); err != nil {
				return nil, fmt.Errorf("internal: %s.%s: placement: %w", m.Name, p.Name, err)
			}
		}
		pm.Fingerprint = fingerprint(m)
		sys.Models = append(sys.Models, pm)
	}
	sys.Kernels = lib.Kernels()
	if err := over.err(); err != nil {
		return nil, err
	}
	return sys, nil
}

// cheapWorth is by how many times as large a share the work memory must become
// less as a step's estimated time becomes more, for what is cheap to be made again
// without being asked for.
const cheapWorth = 30

// place gives p's buffers their places, after changing what its backward pass
// keeps as m asks. Where it gets no budget small enough with what is cheap made
// again, launches that run again may alone.
func place(m *ir.Module, pm *plan.Model, p *plan.Program, blocks map[string]bool, be Backend) (sched.Report, error) {
	whole := *p
	budget := max(0, m.Budget-pm.StateBytes)
	try := func(way ir.Remat) (sched.Report, error) {
		*p = whole
		p.Launches = slices.Clone(whole.Launches)
		return placeBy(way, m.Budget > 0, budget, p, blocks, be)
	}
	r, err := try(m.Remat)
	if err != nil || m.Budget == 0 || r.Bytes <= budget || m.Remat != ir.RematAuto || r.Cheap.Buffers == 0 {
		return r, err
	}
	if plain, err := try(ir.RematOff); err != nil || plain.Bytes < r.Bytes {
		return plain, err
	}
	return try(m.Remat)
}

// placeBy places p in one way, if limited in a work arena of budget bytes if that can be.
func placeBy(way ir.Remat, limited bool, budget int, p *plan.Program, blocks map[string]bool, be Backend) (r sched.Report, err error) {
	rates := be.Rates()
	var cheap sched.Cheap
	makeCheap := func(worth float64) {
		cheap = sched.MakeCheap(p, rates, worth, func(k *kern.Kernel, out int) (*kern.Kernel, []int) { return kernel.Remake(k, out, be) })
	}
	switch way {
	case ir.RematAuto:
		makeCheap(cheapWorth)
	case ir.RematCheap:
		makeCheap(0)
	case ir.RematBlocks:
		sched.Remat(p, blocks)
	}
	delayed := sched.Delay(p)
	r, err = sched.Place(p)
	if err == nil && limited && r.Bytes > budget {
		if way == ir.RematAuto && cheap.Buffers == 0 {
			makeCheap(0) // costs less than launches that run again
		}
		r, err = sched.Fit(p, blocks, budget, rates)
	}
	r.Cheap, r.Delayed = cheap, delayed
	return r, err
}

// excess is the model that most exceeds its budget, if any does.
type excess struct {
	least   int // bytes it needs
	model   *plan.Model
	program *plan.Program // the one that does
}

func (x *excess) add(m *ir.Module, pm *plan.Model) {
	for _, p := range pm.Programs {
		if n := pm.StateBytes + p.WorkBytes; n > m.Budget && n > x.least {
			*x = excess{n, pm, p}
		}
	}
}

// err says in one line what would do for all models.
func (x *excess) err() error {
	if x.model == nil {
		return nil
	}
	return fmt.Errorf("%s.%s: the budget is too small: it needs at least %s (state %s, work %s); give -budget %s",
		x.model.Name, x.program.Name, ir.Bytes(x.least), ir.Bytes(x.model.StateBytes), ir.Bytes(x.program.WorkBytes), ir.Bytes(x.least))
}

// blocks names the resblocks of f, or all its regions if it has none but those
// with which the backward pass begins and what comes after: there nothing is
// kept for long.
func blocks(f *ir.Func) map[string]bool {
	all, res := map[string]bool{}, map[string]bool{}
	last := ""
	for _, in := range f.Body {
		switch b := in.Block; {
		case b == nil:
		case b.Backward && last == "":
			last = b.Name
		case !b.Backward && last == "":
			all[b.Name] = true
			if b.Resblock {
				res[b.Name] = true
			}
		}
	}
	delete(all, last)
	if len(res) > 0 {
		return res
	}
	return all
}

// fingerprint identifies the stored tensors a snapshot holds.
func fingerprint(m *ir.Module) string {
	h := sha256.New()
	for _, g := range m.Globals {
		if g.Role != ir.Const && g.Role != ir.State {
			fmt.Fprintf(h, "%s %s %s\n", g.Name, g.Type, g.Role)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
