package ops

import (
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// Op is an op of the table. Besides this it implements exactly one of the
// family interfaces below.
type Op interface {
	ir.Op
	// Samples lists instances for the conformance suite; an op without
	// samples fails it.
	Samples() []Sample
}

// Sample is one instance the conformance suite checks: Ref against the
// compiled kernel and, unless NoGrad, VJP against central differences.
type Sample struct {
	Op     Op
	Args   []ir.Type
	Fill   []Fill // per argument; missing ones are Normal
	NoGrad bool   // has no gradient (integer results, randomness)
}

// Fill says how a sample's argument is filled.
type Fill struct {
	Kind string    // "normal" (default), "positive" (0.1 to 2.1), "index" (integers in [0, N)), "bool", "distinct" (no two closer than 1e-2), "const" (all equal to X), "data" (Data)
	N    int       // bound of "index"
	X    float64   // value of "const"
	Data []float64 // contents of "data"
}

// Inline ops compute the element at idx of their one result from elements of
// their arguments. The fuse pass substitutes them into their consumers.
type Inline interface {
	Op
	// Element emits the computation. idx has one index per dimension of the
	// result. A *kern.SplitError from an index division must be returned as
	// it is: lowering then splits that loop variable and starts again.
	Element(e *Emitter, idx []kern.Index) (*kern.Node, error)
	// Cheap reports that recomputing an element costs no more than loading it
	// (views, constants, comparisons, additions): such values are recomputed
	// in every consumer rather than stored.
	Cheap() bool
}

// Emitter is what Element works with.
type Emitter struct {
	B    *kern.Builder
	Args []ir.Type
	Out  ir.Type
	// Arg emits element idx of argument i.
	Arg func(i int, idx []kern.Index) (*kern.Node, error)
}

// Simplifier ops have uses that compute what is there already, or in two
// steps what takes one.
type Simplifier interface {
	Op
	// Simplify returns a value that equals the result of in bit for bit, or
	// nil. It may make in read a value further back instead.
	Simplify(in *ir.Instr) *ir.Value
}

// before is the argument of the instruction that makes v if its op is of type
// T, as the inner of two views.
func before[T ir.Op](v *ir.Value) (op T, arg *ir.Value) {
	if v.Def == nil {
		return op, nil
	}
	op, ok := v.Def.Op.(T)
	if !ok {
		return op, nil
	}
	return op, v.Def.Args[0]
}

// sameType is x if the result of in has its type.
func sameType(in *ir.Instr, x *ir.Value) *ir.Value {
	if in.Results[0].Type.Equal(x.Type) {
		return x
	}
	return nil
}

// Reducer ops combine the elements of argument 0 along some axes. The result
// keeps the reduced axes with extent 1.
type Reducer interface {
	Op
	Reduction() (c kern.Combine, axes []int)
}

// Contracter ops are sums of products of an element of argument 0 and one of
// argument 1: matrix products and convolutions.
type Contracter interface {
	Op
	// Contraction gives the operands' indices for the element out of the
	// result; newVar makes the summed variables.
	Contraction(args []ir.Type, out []kern.Index, newVar func(extent int) *kern.Var) Contraction
}

// Multiplier ops are products that can be multiplied in a type of 16 bits.
type Multiplier interface {
	Op
	In(d ir.DType) ir.Op
}

// Contraction is the sum over Vars of A*B. Where a guard fails the operand is 0.
type Contraction struct {
	Vars   []*kern.Var
	A, B   []kern.Index
	GA, GB []kern.Guard
	// Multiply is kern.Contract's.
	Multiply ir.DType
}

// Opaque ops are whole kernels: templates, or loops with stores that don't
// compute one element at a time (scatter).
type Opaque interface {
	Op
	// Kernel builds the kernel; its buffers are the arguments, then the
	// results, each dense and row-major.
	Kernel(args, outs []ir.Type) *kern.Kernel
}

// Strided is implemented by Opaque ops whose arguments may lie inside other
// tensors, and whose results may be written there: an operand is then a View.
// If their kernel is a template, it has Views.
type Strided interface {
	Opaque
	// Strides reports whether operand i (results are numbered on from the
	// arguments) may have these strides, one for each axis, instead of the
	// row-major ones. The stride of an axis of extent 1 is 1.
	Strides(i int, s []int) bool
}

// Aliaser is implemented by Opaque ops that write part of a result and leave
// the rest as argument 0 has it: result 0 lives in argument 0's memory.
type Aliaser interface{ Aliases() bool }

// Concatenator ops place each argument at an offset along Axis of the result.
type Concatenator interface {
	Op
	ConcatAxis() int
}

// Reshaper is implemented by Inline ops whose result has the bytes of their
// argument in the same order: where the argument is stored, so is the result.
type Reshaper interface{ Reshapes() bool }
