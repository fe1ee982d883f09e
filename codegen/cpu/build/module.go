package build

import (
	"fmt"

	"github.com/llir/llvm/ir"
	"github.com/llir/llvm/ir/constant"
	"github.com/llir/llvm/ir/enum"
	"github.com/llir/llvm/ir/types"
)

// Linkage says who can call a function.
type Linkage int

const (
	Exported Linkage = iota // the runtime, by name
	Hidden                  // other modules linked into the same object
	Internal                // this module
)

// Module is the IR of one object file.
type Module struct {
	Target *Target
	ir     *ir.Module
	decls  map[string]*ir.Func
	tables int
}

// NewModule returns an empty module for t.
func NewModule(t *Target) *Module {
	m := ir.NewModule()
	m.TargetTriple = t.Triple
	return &Module{Target: t, ir: m, decls: map[string]*ir.Func{}}
}

// Text returns the module as LLVM assembly. It depends only on the calls that built it.
func (m *Module) Text() string { return m.ir.String() }

// Vec is the type of one vector register of float32.
func (m *Module) Vec() *types.VectorType { return VecOf(m.Target.Lanes, F32) }

// Param declares a parameter of Func.
func Param(name string, t types.Type) *ir.Param { return ir.NewParam(name, t) }

// NoAlias declares a pointer parameter through which alone the function reaches its memory.
func NoAlias(name string, t types.Type) *ir.Param {
	p := ir.NewParam(name, t)
	p.Attrs = append(p.Attrs, enum.ParamAttrNoAlias)
	return p
}

// Func starts a function without result. A Hidden function may have been declared by Extern
// before.
func (m *Module) Func(name string, l Linkage, params ...*ir.Param) *Func {
	f := m.ir.NewFunc(name, types.Void, params...)
	f.FuncAttrs = append(f.FuncAttrs, enum.FuncAttrNoUnwind)
	switch l {
	case Hidden:
		f.Visibility = enum.VisibilityHidden
	case Internal:
		f.Linkage = enum.LinkageInternal
	}
	k := &Func{Module: m, Target: m.Target, fn: f}
	k.b = f.NewBlock("entry")
	return k
}

// Kernel starts an exported kernel: void name(i64 *args, i64 c0, i64 c1, i8 *scratch).
func (m *Module) Kernel(name string) (k *Func, args, c0, c1, scratch V) {
	a, b, c, d := NoAlias("args", PtrTo(I64)), Param("c0", I64), Param("c1", I64), NoAlias("scratch", PtrTo(I8))
	k = m.Func(name, Exported, a, b, c, d)
	return k, a, b, c, d
}

// Extern declares, once, a Hidden function without result of another module.
func (m *Module) Extern(name string, params ...types.Type) V {
	f := m.declare(name, types.Void, params...)
	f.Visibility = enum.VisibilityHidden
	return f
}

func (m *Module) declare(name string, result types.Type, params ...types.Type) *ir.Func {
	if f, ok := m.decls[name]; ok {
		return f
	}
	ps := make([]*ir.Param, len(params))
	for i, t := range params {
		ps[i] = ir.NewParam("", t)
	}
	f := m.ir.NewFunc(name, result, ps...)
	m.decls[name] = f
	return f
}

// Table puts constants into the module's read-only data and returns a pointer to the first.
func (m *Module) Table(elem *types.IntType, xs []int64) V {
	e := make([]constant.Constant, len(xs))
	for i, x := range xs {
		e[i] = constant.NewInt(elem, x)
	}
	at := types.NewArray(uint64(len(xs)), elem)
	g := m.ir.NewGlobalDef(fmt.Sprintf("table%d", m.tables), constant.NewArray(at, e...))
	m.tables++
	g.Linkage = enum.LinkageInternal
	g.Immutable = true
	g.Align = ir.Align(64)
	zero := constant.NewInt(types.I64, 0)
	return constant.NewGetElementPtr(at, g, zero, zero)
}
