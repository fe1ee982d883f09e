package build

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/llir/llvm/ir"
	"github.com/llir/llvm/ir/constant"
	"github.com/llir/llvm/ir/enum"
	"github.com/llir/llvm/ir/metadata"
	"github.com/llir/llvm/ir/types"
	"github.com/llir/llvm/ir/value"
)

// Value is a scalar of one thread: an SSA value or a constant.
type Value = value.Value

// The types of values.
var (
	I1, I8, I16, I32, I64 = types.I1, types.I8, types.I16, types.I32, types.I64
	F16, F32              = types.Half, types.Float
	Void                  = types.Void
)

// Global and Shared are pointers to elements of type t in device memory and in
// the block's shared memory.
func Global(t types.Type) *types.PointerType { return pointer(t, 1) }

// Shared is a pointer into the block's shared memory.
func Shared(t types.Type) *types.PointerType { return pointer(t, 3) }

func pointer(t types.Type, space int) *types.PointerType {
	return &types.PointerType{ElemType: t, AddrSpace: types.AddrSpace(space)}
}

// Vec is n elements that are loaded and stored together.
func Vec(n int, t types.Type) *types.VectorType { return types.NewVector(uint64(n), t) }

// Struct is n values of one type: the result of operations that give several.
func Struct(n int, t types.Type) types.Type {
	fs := make([]types.Type, n)
	for i := range fs {
		fs[i] = t
	}
	return types.NewStruct(fs...)
}

// Module is a set of kernels that are printed together.
type Module struct {
	IR    *ir.Module
	Funcs []*Func
	// Lines asks for the source line of every instruction (Func.Line), for the
	// emulator's reports. It costs time and makes the text longer.
	Lines bool

	decls map[string]*ir.Func
	smem  *ir.Global
	none  *metadata.Tuple
}

// empty is metadata that says something by being there.
func (m *Module) empty() *metadata.Tuple {
	if m.none == nil {
		m.none = &metadata.Tuple{MetadataID: -1}
		m.IR.MetadataDefs = append(m.IR.MetadataDefs, m.none)
	}
	return m.none
}

// NewModule returns an empty module.
func NewModule() *Module {
	m := ir.NewModule()
	m.TargetTriple = "nvptx64-nvidia-cuda"
	m.DataLayout = "e-i64:64-i128:128-v16:16-v32:32-n16:32:64"
	return &Module{IR: m, decls: map[string]*ir.Func{}}
}

// Limits are what a kernel promises about its launches.
type Limits struct {
	Threads int // a block has exactly so many
	Blocks  int // so many blocks should fit on a multiprocessor; 0: no wish
	Cluster int // blocks of a cluster along x; 0 or 1: none
}

// Func is a kernel under construction. Methods append to its current block.
type Func struct {
	M      *Module
	IR     *ir.Func
	Limits Limits
	// SharedBytes is the dynamic shared memory that a launch must give.
	SharedBytes int

	b      *ir.Block
	blocks int
	lines  map[ir.Instruction]string
	line   string
	marked int
}

// TensorMap is the type of parameter that holds a tensor map by value.
var TensorMap = types.NewArray(128, I8)

// Kernel starts a kernel that takes so many tensor maps and then so many
// pointers to device memory.
func (m *Module) Kernel(name string, l Limits, maps, pointers int) *Func {
	var ps []*ir.Param
	for i := range maps {
		p := ir.NewParam(fmt.Sprintf("m%d", i), types.NewPointer(TensorMap))
		p.Attrs = append(p.Attrs, ir.Byval{Typ: TensorMap}, ir.Align(64))
		ps = append(ps, p)
	}
	for i := range pointers {
		ps = append(ps, ir.NewParam(fmt.Sprintf("p%d", i), Global(I8)))
	}
	f := &Func{M: m, IR: m.IR.NewFunc(name, Void, ps...), Limits: l, lines: map[ir.Instruction]string{}}
	f.b = f.IR.NewBlock("entry")
	f.annotate("kernel", constant.NewInt(I32, 1))
	f.annotate("maxntidx", constant.NewInt(I32, int64(l.Threads)))
	if l.Blocks > 0 {
		f.annotate("minctasm", constant.NewInt(I32, int64(l.Blocks)))
	}
	if maps > 0 {
		// One node for all parameters: LLVM reads one only, and copies the
		// maps of others to local memory.
		in := &metadata.Tuple{MetadataID: -1}
		for i := range maps {
			in.Fields = append(in.Fields, constant.NewInt(I32, int64(i+1)))
		}
		m.IR.MetadataDefs = append(m.IR.MetadataDefs, in)
		f.annotate("grid_constant", in)
	}
	m.Funcs = append(m.Funcs, f)
	return f
}

func (f *Func) annotate(key string, v metadata.Field) {
	t := &metadata.Tuple{MetadataID: -1, Fields: []metadata.Field{f.IR, &metadata.String{Value: key}, v}}
	m := f.M.IR
	m.MetadataDefs = append(m.MetadataDefs, t)
	nd := m.NamedMetadataDefs["nvvm.annotations"]
	if nd == nil {
		nd = &metadata.NamedDef{Name: "nvvm.annotations"}
		m.NamedMetadataDefs["nvvm.annotations"] = nd
	}
	nd.Nodes = append(nd.Nodes, t)
}

// Map is the generic address of tensor map i.
func (f *Func) Map(i int) Value { return f.at().NewPtrToInt(f.IR.Params[i], I64) }

// Pointer is pointer i (counted without the maps) to elements of type t.
func (f *Func) Pointer(i int, t types.Type) Value {
	for _, p := range f.IR.Params {
		if _, ok := p.Typ.(*types.PointerType).ElemType.(*types.ArrayType); ok {
			i++
		}
	}
	return f.Cast(f.IR.Params[i], t)
}

// at is the current block; what is appended to it belongs to the line of the
// builder's caller.
func (f *Func) at() *ir.Block {
	if f.M.Lines {
		f.mark()
		f.line = caller()
	}
	return f.b
}

// mark gives instructions appended since the last call their line.
func (f *Func) mark() {
	for ; f.marked < len(f.b.Insts); f.marked++ {
		f.lines[f.b.Insts[f.marked]] = f.line
	}
}

// Line is where the builder's caller wrote an instruction, as file:line, or ""
// without Module.Lines.
func (f *Func) Line(in ir.Instruction) string { return f.lines[in] }

func caller() string {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		fr, more := frames.Next()
		if !strings.Contains(fr.Function, "codegen/cuda/build.") {
			return fmt.Sprintf("%s:%d", filepath.Base(fr.File), fr.Line)
		}
		if !more {
			return ""
		}
	}
}

// enter makes b the current block.
func (f *Func) enter(b *ir.Block) {
	f.mark()
	f.b, f.marked = b, len(b.Insts)
}

func (f *Func) block(name string) *ir.Block {
	f.blocks++
	return f.IR.NewBlock(fmt.Sprintf("%s%d", name, f.blocks))
}

// Call calls an intrinsic or a function of asm.go.
func (f *Func) Call(name string, result types.Type, args ...Value) Value {
	d := f.M.decls[name]
	if d == nil {
		ps := make([]*ir.Param, len(args))
		for i, a := range args {
			ps[i] = ir.NewParam("", a.Type())
		}
		d = f.M.IR.NewFunc(name, result, ps...)
		d.FuncAttrs = append(d.FuncAttrs, enum.FuncAttrNoUnwind)
		f.M.decls[name] = d
	}
	c := f.at().NewCall(d, append([]Value(nil), args...)...) // llir keeps the slice
	if convergent(name) {
		c.FuncAttrs = append(c.FuncAttrs, enum.FuncAttrConvergent)
	}
	return c
}

func convergent(name string) bool {
	for _, s := range []string{"barrier", "bar.", "shfl", "mma", "ldmatrix", "stmatrix", "vote", "ballot", "setmaxnreg", "elect"} {
		if strings.Contains(name, s) {
			return true
		}
	}
	return false
}

// Shared is the block's dynamic shared memory, of which a launch must give at
// least so many bytes, aligned to 1024.
func (f *Func) Shared(bytes int) Value {
	f.SharedBytes = max(f.SharedBytes, bytes)
	m := f.M
	if m.smem == nil {
		g := &ir.Global{ContentType: types.NewArray(0, I8), AddrSpace: 3, Linkage: enum.LinkageExternal, Align: 1024}
		g.SetName("smem")
		g.Type()
		m.smem = g
		m.IR.Globals = append(m.IR.Globals, g)
	}
	return m.smem
}

// Table is constant data in device memory, of 32-bit integers.
func (m *Module) Table(name string, data []int32) Value {
	elems := make([]constant.Constant, len(data))
	for i, x := range data {
		elems[i] = constant.NewInt(I32, int64(x))
	}
	t := types.NewArray(uint64(len(data)), I32)
	g := &ir.Global{ContentType: t, AddrSpace: 1, Immutable: true, Linkage: enum.LinkageInternal, Init: constant.NewArray(t, elems...), Align: 16}
	g.SetName(name)
	g.Type()
	m.IR.Globals = append(m.IR.Globals, g)
	return g
}
