package nn

import (
	"fmt"
	"strings"

	"github.com/gouache-ml/gouache/ir"
)

// Scope names the parameters of one part of a model within one function.
type Scope struct {
	Func   *ir.Func
	prefix string
}

// In returns the outermost scope of f.
func In(f *ir.Func) Scope { return Scope{Func: f} }

// Sub returns the scope whose names are prefixed with the formatted name and a
// dot.
func (s Scope) Sub(format string, args ...any) Scope {
	return Scope{s.Func, s.prefix + fmt.Sprintf(format, args...) + "."}
}

// Zeros starts a tensor at 0.
func Zeros() ir.Init { return ir.Init{Kind: "zeros"} }

// Ones starts a parameter at 1, as gains do.
func Ones() ir.Init { return Value(1) }

// Value starts every element of a parameter at x.
func Value(x float64) ir.Init { return ir.Init{Kind: "const", Std: x} }

// Normal starts a parameter with independent normal numbers of mean 0.
func Normal(std float64) ir.Init {
	if std == 0 {
		return Zeros()
	}
	return ir.Init{Kind: "normal", Std: std}
}

// Param reads the learned tensor of that name, declaring it as f32 when this
// is its first use in the module. Weight decay applies to it when it has two
// dimensions or more.
func (s Scope) Param(name string, init ir.Init, shape ...int) *ir.Value {
	return s.param(name, init, len(shape) >= 2, shape)
}

// Position is Param without weight decay, for learned positions.
func (s Scope) Position(name string, init ir.Init, shape ...int) *ir.Value {
	return s.param(name, init, false, shape)
}

func (s Scope) param(name string, init ir.Init, decay bool, shape []int) *ir.Value {
	return s.global(&ir.Global{
		Name: s.prefix + name, Type: ir.T(ir.F32, shape...),
		Role: ir.Param, Init: init, Decay: decay,
	})
}

// Buffer reads a tensor that is saved with the parameters and changed by
// Func.Update alone, such as running statistics.
func (s Scope) Buffer(name string, init ir.Init, shape ...int) *ir.Value {
	return s.global(&ir.Global{Name: s.prefix + name, Type: ir.T(ir.F32, shape...), Role: ir.Buffer, Init: init})
}

// State reads a zero-initialised tensor that lives from one call to the next,
// such as a KV cache. Write it with Func.Update.
func (s Scope) State(name string, t ir.Type) *ir.Value {
	return s.global(&ir.Global{Name: s.prefix + name, Type: t, Role: ir.State, Init: Zeros()})
}

// global returns the content of want's namesake in the module, declaring want
// when there is none.
func (s Scope) global(want *ir.Global) *ir.Value {
	m := s.Func.Module
	g := m.Global(want.Name)
	if g == nil {
		want.Pos = ir.CallerPos()
		if err := m.AddGlobal(want); err != nil {
			s.Func.Errorf("%v", err)
		}
		return s.Func.Read(want)
	}
	if !g.Type.Equal(want.Type) || g.Role != want.Role {
		s.Func.Errorf("@%s is %s %s, declared at %s; here it is used as %s %s", g.Name, g.Role, g.Type, g.Pos, want.Role, want.Type)
	}
	return s.Func.Read(g)
}

// Name is the scope's name without the final dot.
func (s Scope) Name() string { return strings.TrimSuffix(s.prefix, ".") }
