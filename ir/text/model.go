package text

import (
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

func (p *parser) key(key string) {
	p.want(key)
	p.want("=")
}

func (p *parser) model() {
	p.skip()
	at := p.at
	m := &plan.Model{Name: p.after("@", "a model name such as @prior")}
	for _, old := range p.out.System.Models {
		if old.Name == m.Name {
			p.fail(at, "model @%s is defined twice", m.Name)
		}
	}
	p.key("fingerprint")
	m.Fingerprint = p.name("a fingerprint")
	p.key("state")
	m.StateBytes = p.count("a number of bytes")
	p.want("{")
	globals := ir.NewModule(m.Name) // for names
	for !p.take("}") {
		at := p.at
		switch {
		case p.take("global"):
			g := &plan.Global{Global: p.global(globals)}
			p.key("offset")
			g.Offset = p.count("an offset")
			g.Pos = p.pos()
			if globals.AddGlobal(g.Global) != nil {
				p.fail(at, "@%s is declared twice", g.Name)
			}
			m.Globals = append(m.Globals, g)
		case p.take("program"):
			p.program(m)
		default:
			p.expected("global, program or }")
		}
	}
	p.out.System.Models = append(p.out.System.Models, m)
}

func (p *parser) program(m *plan.Model) {
	g := &plan.Program{Name: p.after("@", "a program name such as @train")}
	p.key("work")
	g.WorkBytes = p.count("a number of bytes")
	p.key("flops")
	g.FLOPs = int64(p.count("a number of operations"))
	p.want("{")
	buffers := map[int]*plan.Buffer{}
	use := func() *plan.Buffer {
		p.skip()
		at := p.at
		p.want("#")
		id := p.count("a buffer number")
		b := buffers[id]
		if b == nil {
			p.fail(at, "buffer #%d is not declared above", id)
		}
		return b
	}
	for !p.take("}") {
		switch {
		case p.take("buffer"):
			p.skip()
			at := p.at
			b := p.planBuffer()
			if buffers[b.ID] != nil {
				p.fail(at, "buffer #%d is declared twice", b.ID)
			}
			buffers[b.ID] = b
			g.Buffers = append(g.Buffers, b)
		case p.take("input"):
			g.Inputs = append(g.Inputs, use())
		case p.take("output"):
			name := p.name("the name of an output")
			g.Outputs = append(g.Outputs, plan.Output{Name: name, Buffer: use()})
		case p.take("launch"):
			g.Launches = append(g.Launches, p.launch(use))
		default:
			p.expected("buffer, input, launch, output or }")
		}
	}
	m.Programs = append(m.Programs, g)
}

func (p *parser) planBuffer() *plan.Buffer {
	p.want("#")
	b := &plan.Buffer{ID: p.count("a buffer number"), Name: p.quoted()}
	p.want(":")
	b.Type = p.typ()
	p.key("bytes")
	b.Bytes = p.count("a number of bytes")
	switch {
	case p.take(plan.State.String()):
		b.Arena = plan.State
	case p.take(plan.Work.String()):
		b.Arena = plan.Work
	default:
		p.expected("state or work")
	}
	p.key("offset")
	b.Offset = p.anyInt("an offset")
	p.key("live")
	b.First = p.integer("a launch number", -1, math.MaxInt)
	p.want(":")
	b.Last = p.integer("a launch number", -1, math.MaxInt)
	return b
}

func (p *parser) launch(use func() *plan.Buffer) plan.Launch {
	p.skip()
	at := p.at
	name := p.after("@", "a kernel such as @map_1")
	k := p.kernels[name]
	if k == nil {
		p.fail(at, "kernel @%s is not defined above", name)
	}
	l := plan.Launch{Kernel: k}
	p.want("(")
	for !p.take(")") {
		if len(l.Args) > 0 {
			p.want(",")
		}
		l.Args = append(l.Args, use())
	}
	if len(l.Args) != len(k.Bufs) {
		p.fail(at, "@%s has %d arguments, expected %d as %s", name, len(l.Args), len(k.Bufs), kernelHead(k))
	}
	if p.take("block") {
		p.want("=")
		l.Block = p.after("@", "a block name such as @attn0")
	}
	l.Backward = p.take("backward")
	if p.take("values") {
		p.want("=")
		l.Values = p.quoted()
	}
	l.Copy = p.take("copy")
	l.Pos = p.pos()
	return l
}

func kernelHead(k *kern.Kernel) string {
	s := "("
	for i, b := range k.Bufs {
		if i > 0 {
			s += ", "
		}
		s += ir.T(b.DType, b.Len).String() + " " + b.Mode.String()
	}
	return s + ")"
}
