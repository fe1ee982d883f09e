package text

import (
	"strings"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// File is what a text holds.
type File struct {
	Modules []*ir.Module
	Kernels []*kern.Kernel // all, those of System included
	System  *plan.System   // nil when there is none
}

// String prints the file: modules, then the system or the kernels.
func (f *File) String() string {
	var parts []string
	for _, m := range f.Modules {
		parts = append(parts, Module(m))
	}
	if f.System != nil {
		parts = append(parts, System(f.System))
	} else {
		for _, k := range f.Kernels {
			parts = append(parts, k.String())
		}
	}
	return strings.Join(parts, "\n")
}

// Parse reads a text; name is what errors call the file. The error has the
// form file:line:column: what was found, expected what.
func Parse(name, src string) (f *File, err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case fault:
			f, err = nil, r.err
		default:
			panic(r)
		}
	}()
	p := &parser{scanner: scanner{file: name, src: src}, kernels: map[string]*kern.Kernel{}}
	p.document()
	return &p.out, nil
}

type parser struct {
	scanner
	out     File
	kernels map[string]*kern.Kernel
}

func (p *parser) document() {
	var m *ir.Module
	for !p.end() {
		at := p.at
		switch {
		case p.take("module"):
			m = ir.NewModule(p.after("@", "a module name such as @prior"))
			for _, old := range p.out.Modules {
				if old.Name == m.Name {
					p.fail(at, "module @%s is defined twice", m.Name)
				}
			}
			p.out.Modules = append(p.out.Modules, m)
		case m != nil && p.take("global"):
			g := p.global(m)
			g.Pos = p.pos()
			if err := m.AddGlobal(g); err != nil {
				p.fail(at, "@%s is declared twice", g.Name)
			}
		case m != nil && p.take("func"):
			p.function(m)
		case p.take("kernel"):
			m = nil
			k := p.kernel()
			if p.kernels[k.Name] != nil {
				p.fail(at, "kernel @%s is defined twice", k.Name)
			}
			p.kernels[k.Name] = k
			p.out.Kernels = append(p.out.Kernels, k)
			if p.out.System != nil {
				p.out.System.Kernels = append(p.out.System.Kernels, k)
			}
		case p.take("system"):
			m = nil
			if p.out.System != nil || len(p.out.Kernels) > 0 {
				p.fail(at, "a system must come before all kernels and once in a file")
			}
			p.out.System = &plan.System{Name: p.after("@", "a system name such as @demo")}
		case p.out.System != nil && p.take("model"):
			p.model()
		case m != nil:
			p.expected("global, func, module, kernel or system")
		case p.out.System != nil:
			p.expected("kernel or model")
		default:
			p.expected("module, kernel or system")
		}
	}
}
