package interp

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
)

// Run executes f on named inputs and on the contents of the globals it reads
// (Const globals it reads itself unless given). It returns the named results
// and the new contents of the globals f updates; neither map it is given
// changes.
func Run(f *ir.Func, inputs, globals map[string]*ir.Tensor) (results, updates map[string]*ir.Tensor, err error) {
	vals, err := Values(f, inputs, globals)
	if err != nil {
		return nil, nil, err
	}
	results, updates = map[string]*ir.Tensor{}, map[string]*ir.Tensor{}
	for _, r := range f.Results {
		results[r.Name] = vals[r.Value.ID]
	}
	for _, u := range f.Updates {
		updates[u.Global.Name] = vals[u.Value.ID]
	}
	return results, updates, nil
}

// Values is Run, and returns every value of f by its ID.
func Values(f *ir.Func, inputs, globals map[string]*ir.Tensor) ([]*ir.Tensor, error) {
	if err := f.Err(); err != nil {
		return nil, err
	}
	vals := make([]*ir.Tensor, f.NumValues())
	set := func(v *ir.Value, t *ir.Tensor, what string) error {
		switch {
		case t == nil:
			return fmt.Errorf("%s: %s %s is missing", f.Name, what, v)
		case !t.Type.Equal(v.Type) || len(t.Data) != v.Type.Len():
			return fmt.Errorf("%s: %s %s is %s, the tensor given is %s with %d elements", f.Name, what, v, v.Type, t.Type, len(t.Data))
		}
		vals[v.ID] = t
		return nil
	}
	for _, v := range f.Inputs {
		if err := set(v, inputs[v.Name], "input"); err != nil {
			return nil, err
		}
	}
	for _, v := range f.Reads() {
		t := globals[v.Global.Name]
		if t == nil && v.Global.Role == ir.Const {
			var err error
			if t, err = constant(v.Global); err != nil {
				return nil, err
			}
		}
		if err := set(v, t, "global"); err != nil {
			return nil, err
		}
	}
	for _, in := range f.Body {
		args := make([]*ir.Tensor, len(in.Args))
		for i, a := range in.Args {
			if args[i] = vals[a.ID]; args[i] == nil {
				return nil, fmt.Errorf("internal: %s: %s reads %s before it is computed", in.Pos, in.Op.Name(), a)
			}
		}
		outs := make([]ir.Type, len(in.Results))
		for i, r := range in.Results {
			outs[i] = r.Type
		}
		got := in.Op.Ref(args, outs)
		if len(got) != len(outs) {
			return nil, fmt.Errorf("%s: %s cannot be executed; expand it first", in.Pos, in.Op.Name())
		}
		for i, r := range in.Results {
			if err := set(r, got[i], "result"); err != nil {
				return nil, fmt.Errorf("internal: %s: %s: %w", in.Pos, in.Op.Name(), err)
			}
		}
	}
	return vals, nil
}
