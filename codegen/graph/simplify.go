package graph

import (
	"maps"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// Simplify drops instructions that compute what is there already, by the
// rules of the ops (ops.Simplifier): negations that cancel, views of views,
// casts to the same type. No rule changes a bit; merging constants would.
func Simplify(f *ir.Func) error {
	subst := map[*ir.Value]*ir.Value{}
	for _, in := range f.Body {
		substitute(in, subst)
		op, ok := in.Op.(ops.Simplifier)
		if !ok {
			continue
		}
		if w := op.Simplify(in); w != nil {
			subst[in.Results[0]] = w
		}
	}
	// A result keeps memory of its own, so there inputs and globals stay copied.
	maps.DeleteFunc(subst, func(_, w *ir.Value) bool { return w.Def == nil })
	replace(f, subst)
	return nil
}
