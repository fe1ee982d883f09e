package glue

import (
	"fmt"
	"strings"

	"github.com/dave/jennifer/jen"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/plan"
)

// modelFiles writes a file per model.
func (g *generator) modelFiles() error {
	for _, m := range g.models {
		if err := g.modelFile(m); err != nil {
			return err
		}
	}
	return nil
}

// modelFile has the tables of a model and the functions of its programs.
func (g *generator) modelFile(m model) error {
	f := g.file()
	globals, consts, err := g.globals(m)
	if err != nil {
		return err
	}
	code := &regions{g: g, m: m, bySignature: map[string]*regionFunc{}}
	var programs, tables []jen.Code
	for _, p := range m.Programs {
		row, table := code.program(p)
		programs = append(programs, row)
		tables = append(tables, table)
	}
	spec := []jen.Code{
		jen.Id("Name").Op(":").Lit(m.Name),
		jen.Id("Fingerprint").Op(":").Lit(m.Fingerprint),
		jen.Id("StateBytes").Op(":").Lit(m.StateBytes),
	}
	if len(consts) > 0 {
		name := "z_" + m.stem + ".bin"
		g.files = append(g.files, File{name, consts})
		id := g.names.take(m.id + "Consts")
		f.Anon("embed")
		f.Comment("//go:embed " + name)
		f.Var().Id(id).Index().Byte()
		f.Line()
		spec = append(spec, jen.Id("Consts").Op(":").Id(id))
	}
	spec = append(spec,
		jen.Id("Globals").Op(":").Index().Qual(execPath, "GlobalSpec").Add(lines(globals)),
		jen.Id("Programs").Op(":").Index().Qual(execPath, "ProgramSpec").Add(lines(programs)))
	f.Comment(fmt.Sprintf("%s is model %s.", m.id, m.Name))
	f.Var().Id(m.id).Op("=").Qual(execPath, "ModelSpec").Add(lines(spec))
	for _, c := range code.funcs {
		f.Line().Add(c)
	}
	for _, c := range tables {
		f.Line().Add(c)
	}
	return g.emit("z_"+m.stem+".go", f)
}

// globals returns the rows of the stored tensors, and the constants' contents.
func (g *generator) globals(m model) (rows []jen.Code, consts []byte, err error) {
	for _, x := range m.Globals {
		of, at := "", -1
		if x.Of != nil {
			of = x.Of.Name
		}
		if len(x.Data) > 0 {
			if len(x.Data) != x.Type.Bytes() {
				return nil, nil, fmt.Errorf("%s: @%s is %s, its contents are %d bytes", x.Pos, x.Name, x.Type, len(x.Data))
			}
			at = len(consts)
			consts = append(consts, x.Data...)
		}
		rows = append(rows, fields(
			"Name", lit(x.Name), "Role", lit(string(x.Role)), "DType", lit(x.Type.DType.String()), "Shape", ints(x.Type.Shape),
			"Offset", lit(x.Offset), "Init", lit(x.Init.Kind), "Std", lit(x.Init.Std), "Of", lit(of), "Decay", lit(x.Decay),
			"Const", jen.Lit(at)))
	}
	return rows, consts, nil
}

// regions makes the functions of one model's programs.
type regions struct {
	g           *generator
	m           model
	bySignature map[string]*regionFunc
	funcs       []jen.Code
}

type regionFunc struct{ id string }

// group is a run of launches of one region.
type group struct {
	first, end int
	block      string
	backward   bool
}

func (a group) title() string {
	if a.backward {
		return a.block + " backward"
	}
	return a.block
}

func groups(ls []plan.Launch) []group {
	var out []group
	for i, l := range ls {
		if n := len(out); n > 0 && out[n-1].block == l.Block && out[n-1].backward == l.Backward {
			out[n-1].end = i + 1
			continue
		}
		out = append(out, group{i, i + 1, l.Block, l.Backward})
	}
	return out
}

// program emits the function of p after those of its regions, and returns its
// row in the model's table and its table of launches.
func (c *regions) program(p *plan.Program) (row, table jen.Code) {
	g := c.g
	id := g.names.take(c.m.id + camel(p.Name))
	tableID := g.names.take(id + "Launches")
	var body, rows []jen.Code
	for _, a := range groups(p.Launches) {
		if fn := c.region(id, p, a); fn != nil {
			body = append(body, jen.Id(fn.id).Call(jen.Id("r"), jen.Lit(a.first)).Comment(oneLine(a.title())))
		} else {
			for i := a.first; i < a.end; i++ {
				body = append(body, c.launch(p.Launches[i], jen.Lit(i)))
			}
		}
	}
	for _, l := range p.Launches {
		block, pos := l.Block, ""
		if l.Backward {
			block += " backward"
		}
		if l.Pos.File != "" {
			pos = l.Pos.String()
		}
		var args []jen.Code
		for _, b := range l.Args {
			args = append(args, addr(b))
		}
		rows = append(rows, fields("Block", lit(block), "Gradient", lit(l.Backward && !l.Copy), "Values", lit(oneLine(l.Values)), "Pos", lit(pos),
			"Args", jen.Index().Qual(execPath, "Addr").Values(args...)))
	}
	c.funcs = append(c.funcs, jen.Commentf("%s is program %s: %d launches.", id, p.Name, len(p.Launches)).Line().
		Func().Id(id).Params(jen.Id("r").Op("*").Qual(execPath, "Run")).Block(body...))
	var ins, outs []jen.Code
	ranges, _ := plan.InputRanges(c.m.Model, p) // none are known otherwise
	for _, b := range p.Inputs {
		ins = append(ins, tensor(strings.TrimPrefix(b.Name, "%"), b.Type, b, ranges[b]))
	}
	for _, o := range p.Outputs {
		t := o.Type
		if t.DType == ir.Invalid {
			t = o.Buffer.Type
		}
		outs = append(outs, tensor(o.Name, t, o.Buffer, plan.Limits{}))
	}
	row = lines([]jen.Code{
		jen.Id("Name").Op(":").Lit(p.Name),
		jen.Id("WorkBytes").Op(":").Lit(p.WorkBytes),
		jen.Id("Inputs").Op(":").Index().Qual(execPath, "TensorSpec").Add(lines(ins)),
		jen.Id("Outputs").Op(":").Index().Qual(execPath, "TensorSpec").Add(lines(outs)),
		jen.Id("Launches").Op(":").Id(tableID),
		jen.Id("Run").Op(":").Id(id),
	})
	table = jen.Commentf("%s are the buffers of each launch of %s.", tableID, id).Line().
		Var().Id(tableID).Op("=").Index().Qual(execPath, "Launch").Add(lines(rows))
	return row, table
}

// region returns the function for a, made and named after the given program
// function if no region with these kernels has come before; nil where a call
// would only hide a launch.
func (c *regions) region(program string, p *plan.Program, a group) *regionFunc {
	if a.block == "" || a.end-a.first < 2 {
		return nil
	}
	var sig strings.Builder
	for _, l := range p.Launches[a.first:a.end] {
		sig.WriteString(l.Kernel.Name + "\n")
	}
	if fn := c.bySignature[sig.String()]; fn != nil {
		return fn
	}
	way := ""
	if a.backward {
		way = "Backward"
	}
	fn := &regionFunc{id: c.g.names.take(program + region(a.block) + way)}
	c.bySignature[sig.String()] = fn
	var body []jen.Code
	for i := a.first; i < a.end; i++ {
		at := jen.Id("l")
		if i > a.first {
			at = at.Op("+").Lit(i - a.first)
		}
		body = append(body, c.launch(p.Launches[i], at))
	}
	c.funcs = append(c.funcs, jen.Commentf("%s runs %s, or a region like it, from launch l on; the comments are those of %s.", fn.id, oneLine(a.title()), oneLine(a.title())).Line().
		Func().Id(fn.id).Params(jen.Id("r").Op("*").Qual(execPath, "Run"), jen.Id("l").Int()).Block(body...))
	return fn
}

func (c *regions) launch(l plan.Launch, at jen.Code) jen.Code {
	s := jen.Id("r").Dot("Launch").Call(jen.Id(c.g.kernels[l.Kernel.Name].id), at)
	note := oneLine(l.Values)
	if l.Pos != (ir.Pos{}) {
		note = strings.TrimSpace(note + "  " + l.Pos.String())
	}
	if note != "" {
		s = s.Comment(note)
	}
	return s
}

// tensor is a row of inputs or outputs.
func tensor(name string, t ir.Type, b *plan.Buffer, in plan.Limits) jen.Code {
	var limits any
	if in != (plan.Limits{}) {
		limits = jen.Qual(execPath, "Range").Add(fields("From", jen.Lit(int(in.From)), "Below", jen.Lit(int(in.Below))))
	}
	return fields("Name", lit(name), "DType", lit(t.DType.String()), "Shape", ints(t.Shape), "Addr", addr(b), "Range", limits)
}

// addr is a buffer's place: w + 0x40.
func addr(b *plan.Buffer) jen.Code {
	base := "w"
	if b.Arena == plan.State {
		base = "s"
	}
	if b.Offset == 0 {
		return jen.Id(base)
	}
	return jen.Id(base).Op("+").Op(fmt.Sprintf("%#x", b.Offset))
}
