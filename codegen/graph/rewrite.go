package graph

import "github.com/gouache-ml/gouache/ir"

// rewrite replaces the results of instructions of f, in order, by the values that with gives for them; an
// instruction for which it gives none stays. What with appends to f takes the instruction's place, position
// and block. The arguments it sees are rewritten already.
func rewrite(f *ir.Func, with func(in *ir.Instr) []*ir.Value) {
	old := f.Body
	f.Body = nil
	subst := map[*ir.Value]*ir.Value{}
	for _, in := range old {
		substitute(in, subst)
		var made []*ir.Value
		f.At(in.Pos, func() { f.InBlock(in.Block, func() { made = with(in) }) })
		if made == nil {
			f.Body = append(f.Body, in)
			continue
		}
		for i, r := range in.Results {
			subst[r] = made[i]
		}
	}
	replace(f, subst)
}

// substitute replaces arguments of an instruction.
func substitute(in *ir.Instr, subst map[*ir.Value]*ir.Value) {
	for i, a := range in.Args {
		if w := subst[a]; w != nil {
			in.Args[i] = w
		}
	}
}

// replace substitutes values everywhere in f.
func replace(f *ir.Func, subst map[*ir.Value]*ir.Value) {
	if len(subst) == 0 {
		return
	}
	get := func(v *ir.Value) *ir.Value {
		for {
			w, ok := subst[v]
			if !ok {
				return v
			}
			v = w
		}
	}
	for _, in := range f.Body {
		for i, a := range in.Args {
			in.Args[i] = get(a)
		}
	}
	for i := range f.Results {
		f.Results[i].Value = get(f.Results[i].Value)
	}
	for i := range f.Updates {
		f.Updates[i].Value = get(f.Updates[i].Value)
	}
}
