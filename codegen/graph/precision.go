package graph

import (
	"hash/fnv"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// manyMoments is the number of elements below which moments stay as declared,
// as in the public 16-bit Adam kernel.
const manyMoments = 8192

// roundingSeed keys the random numbers of weight updates. Their step is a
// counter among the stored tensors, their stream the parameter's name.
const roundingSeed = 0x16

// RoundingStep is the name of that counter.
const RoundingStep = "rounding.step"

// Precision carries out Module.Precision: it gives stored tensors their types,
// scales gradients, and puts the operands and results of products and
// attention inside resblocks into 16 bits. What is pointwise between them is
// computed in f32, from and to those.
func Precision(f *ir.Func) error {
	p := f.Module.Precision
	if p == (ir.Precision{}) {
		return nil
	}
	if err := storage(f.Module); err != nil {
		return err
	}
	if err := scaleGradients(f); err != nil {
		return err
	}
	if narrow(p.Blocks) || narrow(p.Outside) {
		narrowProducts(f)
	}
	return f.Err()
}

func narrow(d ir.DType) bool { return d != ir.Invalid && d != ir.F32 }

// storage gives the module's weights and moments their types, and every
// function casts where it reads and writes them. Done again it changes nothing.
func storage(m *ir.Module) error {
	p := m.Precision
	to := map[*ir.Global]ir.DType{}
	if d := p.Weights; d != ir.Invalid && d != ir.F32 {
		for _, g := range weights(m) {
			to[g] = d
		}
	}
	for _, g := range m.Globals {
		if g.Of == nil || to[g.Of] == ir.Invalid || g.Type.Len() < manyMoments || g.Type.DType != ir.F32 {
			continue
		}
		for role, d := range map[ir.Role]ir.DType{ir.Moment1: p.Moment1, ir.Moment2: p.Moment2} {
			if g.Role == role && d != ir.Invalid && d != ir.F32 {
				to[g] = d
			}
		}
	}
	if len(to) == 0 {
		return nil
	}
	for g, d := range to {
		g.Type.DType = d
	}
	for _, f := range m.Funcs {
		if err := castStored(f, to); err != nil {
			return err
		}
	}
	return nil
}

// weights lists the f32 parameters that resblocks' products read and nothing
// outside them but pointwise ops, the optimizer's.
func weights(m *ir.Module) []*ir.Global {
	in, out := map[*ir.Global]bool{}, map[*ir.Global]bool{}
	for _, f := range m.Funcs {
		for _, i := range f.Body {
			for n, a := range i.Args {
				v := a
				for v.Def != nil && moves(v.Def) {
					v = v.Def.Args[0]
				}
				g := v.Global
				if g == nil || g.Role != ir.Param || g.Keep || g.Type.DType != ir.F32 {
					continue
				}
				switch op := i.Op.(type) {
				case ops.Contracter:
					if i.Block != nil && i.Block.Resblock && n < 2 && !kept(i) {
						in[g] = true
					} else {
						out[g] = true
					}
				case ops.Mover, ops.Opaque, ops.Concatenator:
					if _, plain := op.(ops.Mover); !plain || !moves(i) {
						out[g] = true
					}
				}
			}
		}
	}
	var gs []*ir.Global
	for _, g := range m.Globals {
		if in[g] && !out[g] {
			gs = append(gs, g)
		}
	}
	return gs
}

// moves reports whether i gives the elements of its one argument other places.
func moves(i *ir.Instr) bool {
	mv, ok := i.Op.(ops.Mover)
	return ok && mv.Moves() && len(i.Args) == 1
}

// kept reports whether i reads the result of a keep.
func kept(i *ir.Instr) bool {
	for _, v := range i.Args {
		for ; v.Def != nil && moves(v.Def); v = v.Def.Args[0] {
			if _, ok := v.Def.Op.(ops.KeepOp); ok {
				return true
			}
		}
	}
	return false
}

// castStored makes f compute in f32 with globals that are stored otherwise:
// what it reads is widened first, what it updates narrowed last, weights by
// stochastic rounding.
func castStored(f *ir.Func, to map[*ir.Global]ir.DType) error {
	old := f.Body
	f.Body = nil
	subst := map[*ir.Value]*ir.Value{}
	for _, v := range f.Reads() {
		if _, ok := to[v.Global]; !ok {
			continue
		}
		v.Type = v.Global.Type
		f.At(v.Global.Pos, func() { subst[v] = ops.Cast(v, ir.F32) })
	}
	heads := f.Body
	f.Body = old
	replace(f, subst)
	f.Body = append(heads, old...)
	var seed, step *ir.Value
	for i, u := range f.Updates {
		d, ok := to[u.Global]
		if !ok {
			continue
		}
		x := u.Value
		pos, block := u.Global.Pos, (*ir.Block)(nil)
		if x.Def != nil {
			pos, block = x.Def.Pos, x.Def.Block
		}
		f.At(pos, func() {
			f.InBlock(block, func() {
				if u.Global.Role != ir.Param {
					f.Updates[i].Value = ops.Cast(x, d)
					return
				}
				if step == nil {
					step = counter(f)
					seed = ops.Full(f, ir.T(ir.I32), roundingSeed)
				}
				f.Updates[i].Value = ops.CastRandomly(x, d, seed, step, stream(u.Global.Name))
			})
		})
	}
	return f.Err()
}

// counter reads the number of calls so far and has it counted on.
func counter(f *ir.Func) *ir.Value {
	step := state(f, RoundingStep, ir.T(ir.I32), ir.Init{Kind: "zeros"})
	f.Update(step.Global, ops.Add(step, ops.Full(f, step.Type, 1)))
	return step
}

// state reads a stored tensor of the pass's own.
func state(f *ir.Func, name string, t ir.Type, init ir.Init) *ir.Value {
	g := f.Module.Global(name)
	if g == nil {
		g = &ir.Global{Name: name, Type: t, Role: ir.State, Init: init}
		if err := f.Module.AddGlobal(g); err != nil {
			f.Errorf("%v", err)
		}
	}
	return f.Read(g)
}

// stream numbers the random numbers of a parameter's update.
func stream(name string) int {
	h := fnv.New32a()
	h.Write([]byte(name))
	return int(h.Sum32() >> 1)
}

// narrowProducts makes contractions and attention read and write the type of
// the precision. An operand that is a view of something is that view of it in 16
// bits, so that queries, keys and values stay parts of one tensor.
func narrowProducts(f *ir.Func) {
	type typed struct {
		v *ir.Value
		d ir.DType
	}
	twin := map[typed]*ir.Value{} // the same in another type
	var narrowed func(v *ir.Value, d ir.DType) *ir.Value
	narrowed = func(v *ir.Value, d ir.DType) *ir.Value {
		if t := twin[typed{v, d}]; t != nil {
			return t
		}
		var t *ir.Value
		if v.Def != nil && moves(v.Def) {
			x := narrowed(v.Def.Args[0], d)
			f.At(v.Def.Pos, func() { t = f.Append(v.Def.Op, x)[0] })
		} else {
			t = ops.Cast(v, d)
		}
		twin[typed{v, d}] = t
		return t
	}
	rewrite(f, func(in *ir.Instr) (made []*ir.Value) {
		d := productType(in, f.Module.Precision)
		if !narrow(d) {
			return nil
		}
		args := make([]*ir.Value, len(in.Args))
		for i, a := range in.Args {
			args[i] = a
			if a.Type.DType.IsFloat() {
				args[i] = narrowed(a, d)
			}
		}
		op := in.Op
		if m, ok := op.(ops.Multiplier); ok && f.Module.Precision.Multiply == ir.F16 && d == ir.F16 {
			op = m.In(ir.F16)
		}
		for i, r := range f.Append(op, args...) {
			if r.Type.DType != in.Results[i].Type.DType {
				wide := ops.Cast(r, in.Results[i].Type.DType)
				twin[typed{wide, d}] = r
				r = wide
			}
			made = append(made, r)
		}
		return made
	})
}

// productType is the type that the operands and results of in get, if it is a
// product or attention whose floating-point operands are all f32.
func productType(in *ir.Instr, p ir.Precision) ir.DType {
	if kept(in) {
		return ir.Invalid
	}
	switch op := in.Op.(type) {
	case ops.Contracter:
	case ops.Narrower:
		if !op.Narrows() {
			return ir.Invalid
		}
	default:
		return ir.Invalid
	}
	for _, a := range in.Args {
		if d := a.Type.DType; d.IsFloat() && d != ir.F32 {
			return ir.Invalid
		}
	}
	if in.Block != nil && in.Block.Resblock {
		return p.Blocks
	}
	return p.Outside
}

// Reread makes what a resblock's backward pass stores in 16 bits be read from
// there: where a value is an operand of a product, and so kept rounded, the
// sums over it need not have it kept in f32 as well.
func Reread(f *ir.Func) error {
	if d := f.Module.Precision.Blocks; d == ir.Invalid || d == ir.F32 {
		return nil
	}
	uses := make([]int, f.NumValues())
	for _, in := range f.Body {
		for _, a := range in.Args {
			uses[a.ID]++
		}
	}
	rounded := map[*ir.Value]*ir.Instr{} // the cast of a value
	for _, in := range f.Body {
		if _, cast := in.Op.(ops.CastOp); !cast || in.Block == nil || !in.Block.Resblock || !in.Block.Backward {
			continue
		}
		v, d := in.Args[0], in.Results[0].Type.DType
		if d != f.Module.Precision.Blocks || v.Type.DType != ir.F32 || uses[v.ID] < 2 || v.Def == nil || v.Def.Block != in.Block || rounded[v] != nil {
			continue
		}
		if _, cast := v.Def.Op.(ops.CastOp); !cast {
			rounded[v] = in
		}
	}
	old := f.Body
	f.Body = nil
	wide := map[*ir.Value]*ir.Value{}
	moved := map[*ir.Instr]bool{}
	for _, in := range old {
		if moved[in] {
			continue
		}
		for i, a := range in.Args {
			if w := wide[a]; w != nil && in.Block == a.Def.Block {
				in.Args[i] = w
			}
		}
		f.Body = append(f.Body, in)
		for _, r := range in.Results {
			c := rounded[r]
			if c == nil {
				continue
			}
			moved[c] = true
			f.Body = append(f.Body, c)
			f.At(c.Pos, func() { f.InBlock(c.Block, func() { wide[r] = ops.Cast(c.Results[0], ir.F32) }) })
		}
	}
	return f.Err()
}
