package graph

import (
	"fmt"
	"strings"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// CSE makes equal instructions (same op, attributes and arguments) one. An
// instruction that writes into its argument's memory is left alone.
func CSE(f *ir.Func) error {
	seen := map[string]*ir.Instr{}
	subst := map[*ir.Value]*ir.Value{}
	body := f.Body[:0:0]
	for _, in := range f.Body {
		substitute(in, subst)
		if al, ok := in.Op.(ops.Aliaser); ok && al.Aliases() {
			body = append(body, in)
			continue
		}
		var k strings.Builder
		k.WriteString(in.Op.Name())
		k.WriteString(ir.AttrString(in.Op))
		for _, a := range in.Args {
			fmt.Fprintf(&k, " %d", a.ID)
		}
		for _, r := range in.Results {
			fmt.Fprintf(&k, " %s", r.Type) // constants differ by type alone
		}
		if old := seen[k.String()]; old != nil {
			for i, r := range in.Results {
				subst[r] = old.Results[i]
			}
			continue
		}
		seen[k.String()] = in
		body = append(body, in)
	}
	f.Body = body
	replace(f, subst)
	return nil
}

// DCE drops instructions that no result or update needs.
func DCE(f *ir.Func) error {
	live := make([]bool, f.NumValues())
	for _, r := range f.Results {
		live[r.Value.ID] = true
	}
	for _, u := range f.Updates {
		live[u.Value.ID] = true
	}
	var keep []*ir.Instr
	for i := len(f.Body) - 1; i >= 0; i-- {
		in := f.Body[i]
		used := false
		for _, r := range in.Results {
			used = used || live[r.ID]
		}
		if !used {
			continue
		}
		for _, a := range in.Args {
			live[a.ID] = true
		}
		keep = append(keep, in)
	}
	for i, j := 0, len(keep)-1; i < j; i, j = i+1, j-1 {
		keep[i], keep[j] = keep[j], keep[i]
	}
	f.Body = keep
	return nil
}
