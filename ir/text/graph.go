package text

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/gouache-ml/gouache/ir"
)

var roles = []ir.Role{ir.Param, ir.Moment1, ir.Moment2, ir.Average, ir.Buffer, ir.State, ir.Const}

// global reads a declaration without its position.
func (p *parser) global(m *ir.Module) *ir.Global {
	g := &ir.Global{Name: p.after("@", "a global such as @w")}
	p.want(":")
	g.Type = p.typ()
	for _, r := range roles {
		if p.take(string(r)) {
			g.Role = r
			break
		}
	}
	if g.Role == "" {
		p.expected("a role: param, moment1, moment2, average, state or const")
	}
	if p.take("of") {
		p.want("=")
		p.skip()
		at := p.at
		of := p.after("@", "a parameter such as @w")
		if g.Of = m.Global(of); g.Of == nil {
			p.fail(at, "@%s is not declared above", of)
		}
	}
	if p.take("init") {
		p.want("=")
		g.Init.Kind = p.name("a kind of initial value such as zeros")
		if p.take("(") {
			g.Init.Std = p.float("a number")
			p.want(")")
		}
	}
	g.Decay = p.take("decay")
	if p.take("data") {
		p.want("=")
		p.skip()
		at := p.at
		digits, ok := strings.CutPrefix(p.run(nameByte), "0x")
		data, err := hex.DecodeString(digits)
		if !ok || err != nil {
			p.fail(at, "found no bytes, expected 0x and an even number of hexadecimal digits")
		}
		if len(data) != g.Type.Bytes() {
			p.fail(at, "the data has %d bytes, %s has %d", len(data), g.Type, g.Type.Bytes())
		}
		g.Data = data
	}
	return g
}

// graph is a function being read.
type graph struct {
	*parser
	f      *ir.Func
	values map[string]*ir.Value // by name, without those of globals
	blocks map[ir.Block]*ir.Block
}

func (p *parser) function(m *ir.Module) {
	p.skip()
	at := p.at
	name := p.after("@", "a function name such as @train")
	if m.Func(name) != nil {
		p.fail(at, "function @%s is defined twice", name)
	}
	g := &graph{p, m.NewFunc(name), map[string]*ir.Value{}, map[ir.Block]*ir.Block{}}
	p.want("(")
	for !p.take(")") {
		if len(g.f.Inputs) > 0 {
			p.want(",")
		}
		p.skip()
		at := p.at
		in := p.after("%", "an input such as %x")
		p.want(":")
		v := g.f.Input(in, p.typ())
		v.Name = in
		g.define(at, in, v)
	}
	p.want("{")
	for !p.take("}") {
		switch {
		case p.take("block"):
			g.block()
		case p.take("result"):
			name := p.name("the name of a result")
			p.want("=")
			g.f.Result(name, g.operand())
		case p.take("update"):
			g.update()
		default:
			g.instr()
		}
	}
	g.number()
}

func (g *graph) define(at int, name string, v *ir.Value) {
	if g.values[name] != nil {
		g.fail(at, "%%%s is defined twice", name)
	}
	g.values[name] = v
}

func (g *graph) block() {
	b := ir.Block{Name: g.after("@", "a block name such as @attn0")}
	b.Resblock = g.take("resblock")
	b.Backward = g.take("backward")
	if g.blocks[b] == nil {
		c := b
		g.blocks[b] = &c
	}
	g.want("{")
	g.f.InBlock(g.blocks[b], func() {
		for !g.take("}") {
			g.instr()
		}
	})
}

func (g *graph) update() {
	g.skip()
	at := g.at
	name := g.after("@", "a global such as @w")
	to := g.f.Module.Global(name)
	if to == nil {
		g.fail(at, "@%s is not declared", name)
	}
	g.want("=")
	v := g.operand()
	if !v.Type.Equal(to.Type) {
		g.fail(at, "update of @%s: it is %s, the new value is %s", name, to.Type, v.Type)
	}
	g.f.Update(to, v)
}

// operand reads a value that is defined above.
func (g *graph) operand() *ir.Value {
	g.skip()
	at := g.at
	if g.take("@") {
		g.at = at
		name := g.after("@", "a global")
		global := g.f.Module.Global(name)
		if global == nil {
			g.fail(at, "@%s is not declared", name)
		}
		return g.f.Read(global)
	}
	name := g.after("%", "a value such as %x or @w")
	v := g.values[name]
	if v == nil {
		g.fail(at, "%%%s is not defined above", name)
	}
	return v
}

func (g *graph) instr() {
	g.skip()
	start := g.at
	var names []string
	var places []int
	for {
		g.skip()
		places = append(places, g.at)
		names = append(names, g.after("%", "an instruction such as %y = exp %x : f32[4] !-, or the end of the block"))
		if !g.take(",") {
			break
		}
	}
	g.want("=")
	g.skip()
	at := g.at
	word := g.run(nameByte)
	proto, ok := ir.LookupOp(word)
	if !ok {
		g.fail(at, "unknown op %q, expected one of %s", word, strings.Join(ir.OpNames(), " "))
	}
	var args []*ir.Value
	for g.skip(); g.at < len(g.src) && g.src[g.at] != '{' && g.src[g.at] != ':'; g.skip() {
		if len(args) > 0 {
			g.want(",")
		}
		args = append(args, g.operand())
	}
	op := g.attributes(proto)
	g.want(":")
	g.skip()
	typesAt := g.at
	types := []ir.Type{g.typ()}
	for g.take(",") {
		types = append(types, g.typ())
	}
	pos := g.pos()
	want, err := infer(op, args)
	if err != nil {
		g.fail(start, "%s: %v", word, err)
	}
	if len(want) != len(names) || len(want) != len(types) {
		g.fail(start, "%s has %d results, here are %d names and %d types", word, len(want), len(names), len(types))
	}
	for i := range want {
		if !want[i].Equal(types[i]) {
			g.fail(typesAt, "%s: its type rule gives %s, the text says %s", word, want[i], types[i])
		}
	}
	var results []*ir.Value
	g.f.At(pos, func() { results = g.f.Append(op, args...) })
	if err := g.f.Err(); err != nil {
		g.fail(start, "%v", err)
	}
	for i, v := range results {
		v.Name = names[i]
		g.define(places[i], names[i], v)
	}
}

// infer applies the type rule. Attributes that no model can make may reach
// beyond what a rule guards against.
func infer(op ir.Op, args []*ir.Value) (out []ir.Type, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("its attributes don't fit its arguments: %v", r)
		}
	}()
	types := make([]ir.Type, len(args))
	for i, a := range args {
		types[i] = a.Type
	}
	return op.Infer(types)
}

// maxID bounds the numbers in names that are taken as value IDs.
const maxID = 1 << 22

// number gives every value the ID its name ends in, so that passes name new
// values as they would have in the function that was printed; the other
// values fill the gaps.
func (g *graph) number() {
	taken := map[int]bool{}
	var rest []*ir.Value
	give := func(v *ir.Value) {
		n, err := strconv.Atoi(v.Name[strings.LastIndexByte(v.Name, '.')+1:])
		if err != nil || n < 0 || n >= maxID || taken[n] || v.Def == nil {
			rest = append(rest, v)
			return
		}
		taken[n] = true
		v.ID = n
	}
	for _, v := range g.f.Inputs {
		give(v)
	}
	for _, v := range g.f.Reads() {
		give(v)
	}
	for _, in := range g.f.Body {
		for _, r := range in.Results {
			give(r)
		}
	}
	next := 0
	for _, v := range rest {
		for taken[next] {
			next++
		}
		taken[next] = true
		v.ID = next
	}
	for n := range taken {
		g.f.Reserve(n + 1)
	}
}
