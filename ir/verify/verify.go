package verify

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
)

// Func checks f: every argument is an input, a global of the module or a
// result of an earlier instruction of f; types are what the type rules give;
// names are unique; updates have the global's type.
func Func(f *ir.Func) error {
	known := map[*ir.Value]bool{}
	names := map[string]bool{}
	name := func(v *ir.Value) error {
		if names[v.Name] {
			return fmt.Errorf("two values are named %s", v)
		}
		names[v.Name] = true
		return nil
	}
	for _, v := range f.Inputs {
		if err := name(v); err != nil {
			return err
		}
		known[v] = true
	}
	visible := func(v *ir.Value) bool {
		if v.Global != nil {
			return f.Module.Global(v.Global.Name) == v.Global && v.Type.Equal(v.Global.Type)
		}
		return known[v]
	}
	for _, in := range f.Body {
		types := make([]ir.Type, len(in.Args))
		for i, a := range in.Args {
			if !visible(a) {
				return fmt.Errorf("%s: %s: argument %s is not defined before it is used", in.Pos, in.Op.Name(), a)
			}
			types[i] = a.Type
		}
		outs, err := in.Op.Infer(types)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", in.Pos, in.Op.Name(), err)
		}
		if len(outs) != len(in.Results) {
			return fmt.Errorf("%s: %s has %d results, its type rule gives %d", in.Pos, in.Op.Name(), len(in.Results), len(outs))
		}
		for i, r := range in.Results {
			if r.Def != in || r.Index != i || r.Func != f || r.ID >= f.NumValues() {
				return fmt.Errorf("%s: %s: result %s does not point back to its instruction", in.Pos, in.Op.Name(), r)
			}
			if !r.Type.Equal(outs[i]) {
				return fmt.Errorf("%s: %s: result %s is %s, its type rule gives %s", in.Pos, in.Op.Name(), r, r.Type, outs[i])
			}
			if err := name(r); err != nil {
				return fmt.Errorf("%s: %s: %w", in.Pos, in.Op.Name(), err)
			}
			known[r] = true
		}
	}
	for _, r := range f.Results {
		if !visible(r.Value) {
			return fmt.Errorf("result %q: %s is not defined", r.Name, r.Value)
		}
	}
	updated := map[*ir.Global]bool{}
	for _, u := range f.Updates {
		if updated[u.Global] {
			return fmt.Errorf("@%s is updated twice", u.Global.Name)
		}
		updated[u.Global] = true
		if !visible(u.Value) || !u.Value.Type.Equal(u.Global.Type) {
			return fmt.Errorf("update of @%s, %s, from %s, %s", u.Global.Name, u.Global.Type, u.Value, u.Value.Type)
		}
	}
	return nil
}
