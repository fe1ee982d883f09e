package ir

import (
	"fmt"
	"strings"
)

// Module is one model: its stored tensors and the functions that use them.
type Module struct {
	Name    string
	Globals []*Global
	Funcs   []*Func
	// Precision is what the precision pass will do.
	Precision Precision
	// Remat says what gradients compute again.
	Remat Remat
	// Budget is how many bytes stored tensors and the work memory of one
	// function may take together: gradients compute again what makes them fit.
	// 0 sets no bound.
	Budget int

	globals map[string]*Global
}

// NewModule returns an empty module.
func NewModule(name string) *Module { return &Module{Name: name, globals: map[string]*Global{}} }

// Role says what a stored tensor is for.
type Role string

// Roles of globals. A Param is learned; Moment1, Moment2 and Average belong to
// the parameter named by Global.Of; a Buffer is kept with the parameters but
// not learned by gradient (running statistics); State lives from one call to the next
// (a KV cache, a step counter); Const has fixed contents.
const (
	Param   Role = "param"
	Moment1 Role = "moment1"
	Moment2 Role = "moment2"
	Average Role = "average"
	Buffer  Role = "buffer"
	State   Role = "state"
	Const   Role = "const"
)

// Init says how a global is filled before the first step.
type Init struct {
	Kind string  // "zeros", "const", "normal"
	Std  float64 // standard deviation of normal, or the value of const
}

// Global is a tensor that outlives a call.
type Global struct {
	Name  string
	Type  Type
	Role  Role
	Init  Init
	Of    *Global // the parameter a moment or average belongs to
	Decay bool    // weight decay applies (matrices only)
	Data  []byte  // contents of a Const, little-endian
	Pos   Pos
	// Keep stores the parameter as declared, whatever Module.Precision says.
	Keep bool
}

// Global finds a stored tensor by name, or nil.
func (m *Module) Global(name string) *Global { return m.globals[name] }

// AddGlobal adds g; the name must be new.
func (m *Module) AddGlobal(g *Global) error {
	if m.globals == nil {
		m.globals = map[string]*Global{}
	}
	if old := m.globals[g.Name]; old != nil {
		return fmt.Errorf("%s: @%s is already declared at %s; give it another name", g.Pos, g.Name, old.Pos)
	}
	m.globals[g.Name] = g
	m.Globals = append(m.Globals, g)
	return nil
}

// Func finds a function by name, or nil.
func (m *Module) Func(name string) *Func {
	for _, f := range m.Funcs {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// Func is a straight-line program over tensors. Instructions are in execution
// order; those of one resblock region carry the same Block.
type Func struct {
	Module  *Module
	Name    string
	Inputs  []*Value // named, read-only
	Body    []*Instr
	Results []Result
	Updates []Update

	Errs []error // user errors collected while building, in order

	block  *Block
	at     *Pos // overrides the caller's line, for instructions derived from another
	nextID int
	reads  map[*Global]*Value
	blocks map[string]*Block
}

// Result is a named output.
type Result struct {
	Name  string
	Value *Value
}

// Update stores Value into Global when the function returns.
type Update struct {
	Global *Global
	Value  *Value
}

// Block is a region of instructions: a resblock of the paper (attention or
// MLP with its layer norm), or another named part of the model.
type Block struct {
	Name     string
	Resblock bool
	Backward bool // holds the backward pass of the block of this name
}

// Value is one tensor in a function: an input, a global, or a result of an
// instruction.
type Value struct {
	Func   *Func
	ID     int
	Name   string // unique in the function
	Type   Type
	Def    *Instr  // nil for inputs and globals
	Index  int     // which result of Def
	Global *Global // set when the value is the content of a global on entry
}

// String is the text name: %name or @global.
func (v *Value) String() string {
	if v.Global != nil {
		return "@" + v.Global.Name
	}
	return "%" + v.Name
}

// Instr applies an op.
type Instr struct {
	Op      Op
	Args    []*Value
	Results []*Value
	Block   *Block // nil outside any region
	Pos     Pos
}

// NewFunc adds an empty function.
func (m *Module) NewFunc(name string) *Func {
	f := &Func{Module: m, Name: name, reads: map[*Global]*Value{}, blocks: map[string]*Block{}}
	m.Funcs = append(m.Funcs, f)
	return f
}

// Errorf records a user error at the calling line of the model, with the lines
// from where the model's own functions were called.
func (f *Func) Errorf(format string, args ...any) {
	from := ""
	if f.at == nil {
		from = callers()
	}
	f.Errs = append(f.Errs, fmt.Errorf("%s: %s%s", f.pos(), fmt.Sprintf(format, args...), from))
}

// Err returns the first collected error: what follows from it is left out.
func (f *Func) Err() error {
	if len(f.Errs) == 0 {
		return nil
	}
	return f.Errs[0]
}

// Invalid reports whether v stands for a value whose construction failed.
func (v *Value) Invalid() bool { return v == nil || v.Type.DType == Invalid }

func (f *Func) newValue(name string, t Type) *Value {
	v := &Value{Func: f, ID: f.nextID, Name: name, Type: t}
	if name == "" {
		v.Name = fmt.Sprint(v.ID)
	}
	f.nextID++
	return v
}

// NumValues is an upper bound of value IDs, for slices indexed by them.
func (f *Func) NumValues() int { return f.nextID }

// Input declares a named input.
func (f *Func) Input(name string, t Type) *Value {
	for _, in := range f.Inputs {
		if in.Name == name {
			f.Errorf("input %q is declared twice in %s", name, f.Name)
		}
	}
	v := f.newValue(name, t)
	f.Inputs = append(f.Inputs, v)
	return v
}

// Read returns the value of g on entry.
func (f *Func) Read(g *Global) *Value {
	if v := f.reads[g]; v != nil {
		return v
	}
	v := f.newValue(g.Name, g.Type)
	v.Global = g
	f.reads[g] = v
	return v
}

// Reads lists the globals read, in order of declaration in the module.
func (f *Func) Reads() []*Value {
	var vs []*Value
	for _, g := range f.Module.Globals {
		if v := f.reads[g]; v != nil {
			vs = append(vs, v)
		}
	}
	return vs
}

// Result declares a named output.
func (f *Func) Result(name string, v *Value) {
	for _, r := range f.Results {
		if r.Name == name {
			f.Errorf("result %q is declared twice in %s", name, f.Name)
			return
		}
	}
	f.Results = append(f.Results, Result{name, v})
}

// Update makes the function store v into g when it ends.
func (f *Func) Update(g *Global, v *Value) {
	for _, u := range f.Updates {
		if u.Global == g {
			f.Errorf("@%s is updated twice in %s", g.Name, f.Name)
			return
		}
	}
	if !v.Invalid() && !v.Type.Equal(g.Type) {
		f.Errorf("update of @%s: it is %s, the new value %s is %s", g.Name, g.Type, v, v.Type)
		return
	}
	f.Updates = append(f.Updates, Update{g, v})
}

// Region runs body with its instructions placed in the block of that name.
func (f *Func) Region(name string, resblock bool, body func()) {
	b := f.blocks[name]
	if b == nil {
		b = &Block{Name: name, Resblock: resblock}
		f.blocks[name] = b
	}
	f.InBlock(b, body)
}

// InBlock runs body with new instructions placed in b (nil: no region).
func (f *Func) InBlock(b *Block, body func()) {
	old := f.block
	f.block = b
	body()
	f.block = old
}

// At runs body with new instructions attributed to pos, for instructions that
// a pass derives from a user's line.
func (f *Func) At(pos Pos, body func()) {
	old := f.at
	f.at = &pos
	body()
	f.at = old
}

func (f *Func) pos() Pos {
	if f.at != nil {
		return *f.at
	}
	return CallerPos()
}

// Append adds an instruction, inferring its result types. On a type error it
// records the error and returns invalid results, so that models need not
// check each call.
func (f *Func) Append(op Op, args ...*Value) []*Value {
	types := make([]Type, len(args))
	for i, a := range args {
		if a.Invalid() {
			return []*Value{{Func: f, Name: "invalid"}, {Func: f, Name: "invalid"}, {Func: f, Name: "invalid"}, {Func: f, Name: "invalid"}}
		}
		if a.Func != f {
			f.Errorf("%s: %s belongs to function %s, not to %s", op.Name(), a, a.Func.Name, f.Name)
			return []*Value{{Func: f, Name: "invalid"}}
		}
		types[i] = a.Type
	}
	outs, err := op.Infer(types)
	if err != nil {
		var names []string
		for _, a := range args {
			names = append(names, fmt.Sprintf("%s is %s", a, a.Type))
		}
		f.Errorf("%s: %v: %s", op.Name(), err, strings.Join(names, ", "))
		return []*Value{{Func: f, Name: "invalid"}, {Func: f, Name: "invalid"}, {Func: f, Name: "invalid"}, {Func: f, Name: "invalid"}}
	}
	in := &Instr{Op: op, Args: append([]*Value(nil), args...), Block: f.block, Pos: f.pos()}
	for i, t := range outs {
		v := f.newValue("", t)
		v.Def, v.Index = in, i
		in.Results = append(in.Results, v)
	}
	f.Body = append(f.Body, in)
	return in.Results
}

// Named gives v a readable name in dumps and generated code and returns it.
// A name already taken gets the value's number appended.
func (v *Value) Named(name string) *Value {
	if v.Invalid() || v.Global != nil || v.Def == nil {
		return v
	}
	v.Name = fmt.Sprintf("%s.%d", name, v.ID)
	return v
}
