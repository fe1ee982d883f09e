package ptx

import (
	"slices"

	"github.com/llir/llvm/ir"
	"github.com/llir/llvm/ir/types"
	"github.com/llir/llvm/ir/value"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
)

// translate turns a kernel into PTX instructions. It returns the version of
// PTX that they need.
func translate(k *build.Func, a arch) (*fn, version, error) {
	s := &selection{
		k: k, arch: a, templates: templates{}, f: &fn{name: k.IR.Name(), class: make([]class, 1)},
		vals: map[value.Value]val{}, globals: map[*ir.Global]reg{}, blocks: map[*ir.Block]*block{},
		phis: map[*ir.InstPhi][]*phi{}, inFlight: map[reg]bool{},
	}
	for i, p := range k.IR.Params {
		s.param(i, p)
	}
	order := s.graph()
	if s.err != nil {
		return nil, 0, s.err
	}
	for _, b := range order {
		s.joins(b)
	}
	for _, b := range order {
		s.cur = s.blocks[b]
		for _, in := range b.Insts {
			if _, ok := in.(*ir.InstPhi); ok {
				continue
			}
			if s.line = k.Line(in); s.err == nil {
				s.inst(in)
			}
		}
		if s.line = ""; len(s.cur.succs) == 2 {
			c := b.Term.(*ir.TermCondBr).Cond
			if !c.Type().Equal(types.I1) {
				s.fail("condition is %s", c.Type())
			}
			s.cur.cond = s.reg(c).r
		}
	}
	for _, b := range order {
		for _, in := range b.Insts {
			if p, ok := in.(*ir.InstPhi); ok && s.err == nil {
				s.join(s.blocks[b], p)
			}
		}
	}
	if s.err != nil {
		return nil, 0, s.err
	}
	s.f.blocks[0].insts = append(s.prologue, s.f.blocks[0].insts...)
	return s.f, s.needs, nil
}

// param loads a parameter; of a tensor map it takes the address.
func (s *selection) param(i int, p *ir.Param) {
	name := paramName(s.k, i)
	if byValue(p) != nil {
		r := s.head(long, "mov.b64 $0, "+name+";")
		s.set(p, operand{r: s.head(long, "cvta.param.u64 $0, $1;", operand{r: r})})
		s.needs = max(s.needs, 77)
		return
	}
	c := s.class(p.Typ)
	if c == pred || c == short {
		s.fail("parameter %d is %s", i, p.Typ)
		return
	}
	s.set(p, operand{r: s.head(c, "ld.param."+classes[c].move+" $0, ["+name+"];")})
}

// byValue is the type of what a parameter holds itself, or nil.
func byValue(p *ir.Param) types.Type {
	for _, a := range p.Attrs {
		if b, ok := a.(ir.Byval); ok {
			return b.Typ
		}
	}
	return nil
}

// succs are where a block goes, of which a constant condition leaves one.
func succs(b *ir.Block) ([]*ir.Block, bool) {
	target := func(v value.Value) *ir.Block { b, _ := v.(*ir.Block); return b }
	switch t := b.Term.(type) {
	case *ir.TermRet:
		return nil, true
	case *ir.TermBr:
		return []*ir.Block{target(t.Target)}, true
	case *ir.TermCondBr:
		yes, no := target(t.TargetTrue), target(t.TargetFalse)
		if n, ok := known(t.Cond); ok {
			if n&1 == 0 {
				yes = no
			}
			return []*ir.Block{yes}, true
		}
		if yes == no {
			return []*ir.Block{yes}, true
		}
		return []*ir.Block{yes, no}, true
	}
	return nil, false
}

// graph makes the blocks that are reached, in reverse postorder: loops stay
// together, and what a condition guards comes before what follows it.
func (s *selection) graph() []*ir.Block {
	if len(s.k.IR.Blocks) == 0 {
		s.fail("has no code")
		return nil
	}
	type frame struct {
		b    *ir.Block
		next []*ir.Block
	}
	var order []*ir.Block
	var stack []frame
	push := func(b *ir.Block) {
		next, ok := succs(b)
		if !ok {
			s.fail("block %s does not end: Return is missing", b.Name())
		}
		s.blocks[b] = &block{}
		stack = append(stack, frame{b, next})
	}
	push(s.k.IR.Blocks[0])
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		n := len(top.next)
		if n == 0 {
			order = append(order, top.b)
			stack = stack[:len(stack)-1]
			continue
		}
		// The last first: in the reverse it follows the others.
		b := top.next[n-1]
		top.next = top.next[:n-1]
		if s.blocks[b] == nil {
			push(b)
		}
	}
	slices.Reverse(order)
	for n, b := range order {
		x := s.blocks[b]
		x.n = n
		s.f.blocks = append(s.f.blocks, x)
	}
	for _, b := range order {
		next, _ := succs(b)
		x := s.blocks[b]
		for _, t := range next {
			x.succs = append(x.succs, s.blocks[t])
			s.blocks[t].preds = append(s.blocks[t].preds, x)
		}
	}
	return order
}

// joins gives the phis of a block registers, before anything uses them.
func (s *selection) joins(b *ir.Block) {
	x := s.blocks[b]
	for _, in := range b.Insts {
		p, ok := in.(*ir.InstPhi)
		if !ok {
			continue
		}
		var out []operand
		for _, c := range s.shape(p.Type()) {
			j := &phi{dst: s.f.reg(c), src: make([]operand, len(x.preds))}
			x.phis = append(x.phis, j)
			s.phis[p] = append(s.phis[p], j)
			s.inFlight[j.dst] = c == float
			out = append(out, operand{r: j.dst})
		}
		s.set(p, out...)
	}
}

// join finds the operands of a phi.
func (s *selection) join(b *block, p *ir.InstPhi) {
	for n, from := range b.preds {
		var x value.Value
		for _, inc := range p.Incs {
			if f, ok := inc.Pred.(*ir.Block); ok && s.blocks[f] == from {
				x = inc.X
			}
		}
		if x == nil {
			s.fail("a phi has no value for one way into its block")
			return
		}
		if !x.Type().Equal(p.Type()) {
			s.fail("a loop or branch gives %s where it had %s", x.Type(), p.Type())
			return
		}
		// What must be computed for it goes to the end of that way.
		s.cur = from
		o := s.operands(x)
		for k, j := range s.phis[p] {
			j.src[n] = o[k]
			if s.f.class[j.dst] == pred {
				j.src[n] = s.inReg(pred, o[k])
			}
		}
	}
}
