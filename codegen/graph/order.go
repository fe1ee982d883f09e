package graph

import "github.com/gouache-ml/gouache/ir"

// Order puts a region that the forward pass doesn't wait for, because nothing
// there reads more of it than single numbers, right before its backward part:
// what the one leaves for the other is then kept for no longer than that. The
// losses are such regions, and so is each chunk of one. Their sum follows the
// last of them.
func Order(f *ir.Func) error {
	moved, forward := lastRegions(f)
	late := map[*ir.Instr]bool{} // moved, or of the forward pass and made of what is
	for _, in := range f.Body {
		late[in] = moved[in.Block] != nil
		for _, a := range in.Args {
			late[in] = late[in] || forward[in] && late[a.Def]
		}
	}
	regions := map[string]*ir.Block{} // still to come
	for b := range moved {
		regions[b.Name] = b
	}
	var body []*ir.Instr
	done := map[*ir.Instr]bool{nil: true}
	var emit func(in *ir.Instr)
	emit = func(in *ir.Instr) {
		if done[in] {
			return
		}
		done[in] = true
		for _, a := range in.Args {
			emit(a.Def)
		}
		body = append(body, in)
	}
	for _, in := range f.Body {
		if late[in] {
			continue
		}
		if b := in.Block; b != nil && b.Backward && regions[b.Name] != nil {
			for _, x := range moved[regions[b.Name]] {
				emit(x)
			}
			if delete(regions, b.Name); len(regions) == 0 {
				for _, x := range f.Body {
					if late[x] {
						emit(x)
					}
				}
			}
		}
		emit(in)
	}
	f.Body = body
	return nil
}

// lastRegions lists the instructions of each region that has a backward part
// and nothing in the forward pass waits for. The forward pass is what needs no
// backward part.
func lastRegions(f *ir.Func) (last map[*ir.Block][]*ir.Instr, forward map[*ir.Instr]bool) {
	last, forward = map[*ir.Block][]*ir.Instr{}, map[*ir.Instr]bool{}
	backward := map[string]bool{}
	for _, in := range f.Body {
		b := in.Block
		forward[in] = b == nil || !b.Backward
		if !forward[in] {
			backward[b.Name] = true
		}
		for _, a := range in.Args {
			forward[in] = forward[in] && (a.Def == nil || forward[a.Def])
		}
	}
	for _, in := range f.Body {
		if b := in.Block; b != nil && !b.Backward && backward[b.Name] {
			last[b] = append(last[b], in)
		}
	}
	for _, in := range f.Body {
		if !forward[in] {
			continue
		}
		for _, a := range in.Args {
			if a.Def == nil || a.Def.Block == in.Block || last[a.Def.Block] == nil {
				continue
			}
			if a.Type.Len() > 1 {
				delete(last, a.Def.Block)
			} else {
				delete(last, in.Block) // a sum of losses follows them
			}
		}
	}
	return last, forward
}
