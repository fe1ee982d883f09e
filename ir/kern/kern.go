package kern

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
)

// Prim is a primitive of the kernel language.
type Prim uint8

// The primitives. Arithmetic is on f32 unless the node's type is i32.
const (
	Const    Prim = iota // F (f32), or I (i32, bool)
	Pos                  // the value of At as i32
	Test                 // bool: all Guards hold
	Load                 // Buf[At], or 0 where a guard fails
	Store                // Buf[At] = Args[0]
	Loop                 // sequential loop of Var over Body, with accumulators
	Acc                  // accumulator number I of the loop Args[0]
	Contract             // sum over Vars of Args[0]*Args[1], both as Expression says; I is in what, see below
	Random               // uniform in (0,1): Philox4x32-10, see Builder.Random
	Cast                 // to Type: f32->i32 truncates, bool->f32 gives 0 or 1
	Round                // f32 to the nearest number of the storage type I, see Builder.Round
	Neg
	Abs
	Exp
	Log
	Tanh
	Sqrt
	Floor
	Add
	Sub
	Mul
	Div
	Min
	Max
	Lt // bool
	Le
	Eq
	And // bool, bool
	Or
	Not
	Select // Args[0] ? Args[1] : Args[2]
	NumPrims
)

var primNames = [NumPrims]string{"const", "pos", "test", "load", "store", "loop", "acc", "contract", "random", "cast", "round",
	"neg", "abs", "exp", "log", "tanh", "sqrt", "floor", "add", "sub", "mul", "div", "min", "max",
	"lt", "le", "eq", "and", "or", "not", "select"}

// String is the text name.
func (p Prim) String() string { return primNames[p] }

// A Contract's operands are numbers of the storage type I if that is F16 or BF16, and where there are
// instructions for it processors multiply in that type. Of F16 they then also make sums over short runs, of
// BF16 all sums are f32. F16 is more than the type of the operands: without it those are multiplied in
// f32. GPUs always make f32 sums, in the operands' type.

// Guard holds where Lo <= At < Hi.
type Guard struct {
	At     Index
	Lo, Hi int
}

// Combine is how an accumulator takes in a value.
type Combine uint8

// The accumulator operations and their text names sum and max. Every
// accumulation has one fixed order on a target, whatever the thread count.
const (
	Sum Combine = iota
	MaxOf
)

// String is the text name.
func (c Combine) String() string { return [...]string{"sum", "max"}[c] }

// Reduction is one accumulator of a loop: Val is combined over its iterations.
type Reduction struct {
	Combine Combine
	Val     *Node
}

// Node is one scalar computation or statement.
type Node struct {
	ID   int // unique in the kernel; the text name is %ID
	Prim Prim
	Type ir.DType // F32, I32 or Bool; Invalid for statements
	Args []*Node

	F      float64
	I      int64
	Buf    int
	At     Index
	Guards []Guard
	Vars   []*Var // Loop: one; Contract: the summed variables, outermost first
	Body   []*Node
	Accs   []Reduction
}

// Mode says how a kernel uses a buffer.
type Mode uint8

// Buffer modes.
const (
	In Mode = iota
	Out
	InOut
)

// String is the text name.
func (m Mode) String() string { return [...]string{"in", "out", "inout"}[m] }

// Buf is a buffer argument of a kernel.
type Buf struct {
	Name  string
	DType ir.DType
	Len   int // elements that may be touched
	Mode  Mode
}

// Tile fixes how the grid is cut into chunks, the unit of work a thread takes.
// It depends on sizes alone, so results don't depend on the thread count.
//
// The iterations of all Dims but the last are numbered row-major and cut into
// runs of Rows; the last is cut into runs of Cols. For a kernel with a
// Contract, rows are those of the matrix product (all Dims that only the left
// operand uses) and columns those only the right one uses, and every batch is
// cut on its own. Chunk c is row run c/colRuns, column run c%colRuns (after
// the batch number).
type Tile struct {
	Rows, Cols int
	// Together says that chunks have work in common, which a thread does once for all that it
	// takes in one go.
	Together bool
}

// Kernel is one compiled kernel.
type Kernel struct {
	Name     string
	Bufs     []Buf
	Dims     []*Var // the parallel grid, outermost first
	Body     []*Node
	Template *Template // when set, Dims and Body are empty
	Tile     Tile
	Chunks   int // number of chunks; set with Tile

	// Vector is the loop variable that vector lanes run over: the last of
	// Dims, or nil for the innermost loops' own variables.
	Vector *Var
	// Packed says that buffer B of the Contract holds the right operand in
	// the target's packed panel layout, written by a pack_b kernel.
	Packed bool

	NumNodes, NumVars int
	FLOPs             int64  // that its code does, as its ops count them
	Source            string // graph values this kernel computes, for dumps
}

// Int is a named integer parameter of a template.
type Int struct {
	Key string
	Val int
}

// Template is a kernel that exists as a hand-written generator per target:
// operands are the kernel's Bufs in the order the template documents, or, for
// templates that document it, Views of them.
type Template struct {
	Name  string
	Ints  []Int
	F     float64 // a number, where the template takes one: a scale, householder's eps
	Views []View  // one for every operand, or none
	// Mask says which pairs attention allows, as package ops/mask writes it; ""
	// where nothing is masked. Targets whose blocks are not those of the table
	// operand make tables of their own from it.
	Mask string
}

// View is where an operand of a template lies: element i, j, ... is number
// Offset + i*Strides[0] + j*Strides[1] + ... of buffer Buf.
type View struct {
	Buf, Offset int
	Strides     []int
}

// Dense is the view of buffer buf that is a row-major tensor of that shape.
func Dense(buf int, shape []int) View {
	v := View{Buf: buf, Strides: make([]int, len(shape))}
	n := 1
	for d := len(shape) - 1; d >= 0; d-- {
		v.Strides[d] = n
		n *= shape[d]
	}
	return v
}

// At is the number of the element with these indices.
func (v View) At(idx ...int) int {
	n := v.Offset
	for d, i := range idx {
		n += i * v.Strides[d]
	}
	return n
}

// Int looks up a parameter; absent means 0.
func (t *Template) Int(key string) int {
	for _, p := range t.Ints {
		if p.Key == key {
			return p.Val
		}
	}
	return 0
}

// Points is the number of grid iterations.
func (k *Kernel) Points() int {
	n := 1
	for _, d := range k.Dims {
		n *= d.Extent
	}
	return n
}

// FindContract returns the Contract node, or nil.
func (k *Kernel) FindContract() *Node {
	for _, n := range k.Body {
		if n.Prim == Contract {
			return n
		}
	}
	return nil
}

// HasLoop reports whether the body has a sequential loop.
func (k *Kernel) HasLoop() bool {
	for _, n := range k.Body {
		if n.Prim == Loop {
			return true
		}
	}
	return false
}

// Builder appends nodes to a kernel. It numbers nodes, shares equal pure
// nodes, and places each in the outermost loop where its operands are known,
// so loop invariants need no care.
type Builder struct {
	K      *Kernel
	scopes []*scope
	vars   map[*Var]int // depth at which a variable is bound
	depth  map[*Node]int
	guards []Guard
}

type scope struct {
	nodes []*Node
	seen  map[string]*Node
}

// NewBuilder starts an empty kernel.
func NewBuilder(name string) *Builder {
	return &Builder{K: &Kernel{Name: name}, scopes: []*scope{{seen: map[string]*Node{}}},
		vars: map[*Var]int{}, depth: map[*Node]int{}}
}

// Buf adds a buffer argument and returns its number.
func (b *Builder) Buf(name string, d ir.DType, n int, m Mode) int {
	b.K.Bufs = append(b.K.Bufs, Buf{name, d, n, m})
	return len(b.K.Bufs) - 1
}

// Dim adds a parallel grid dimension inside those already there.
func (b *Builder) Dim(extent int) *Var {
	v := b.NewVar(extent)
	b.K.Dims = append(b.K.Dims, v)
	return v
}

// NewVar makes a variable not yet bound (see Contract).
func (b *Builder) NewVar(extent int) *Var {
	v := &Var{ID: b.K.NumVars, Extent: extent}
	b.K.NumVars++
	return v
}

func (b *Builder) level(n *Node) int {
	d := 0
	up := func(x int) {
		if x > d {
			d = x
		}
	}
	index := func(ix Index) {
		for _, t := range ix.Terms {
			up(b.vars[t.Var])
		}
		for _, i := range ix.Ind {
			up(b.depth[i.Node])
		}
	}
	for _, a := range n.Args {
		up(b.depth[a])
	}
	index(n.At)
	for _, g := range n.Guards {
		index(g.At)
	}
	return d
}

func (b *Builder) key(n *Node) string {
	s := fmt.Sprintf("%d|%d|%x|%d|%d|%s", n.Prim, n.Type, n.F, n.I, n.Buf, n.At)
	for _, a := range n.Args {
		s += fmt.Sprintf("|%d", a.ID)
	}
	for _, g := range n.Guards {
		s += fmt.Sprintf("|%s:%d:%d", g.At, g.Lo, g.Hi)
	}
	return s
}

// add places a pure node.
func (b *Builder) add(n *Node) *Node {
	d := b.level(n)
	cur := len(b.scopes) - 1
	if n.Prim == Load && b.K.Bufs[n.Buf].Mode != In {
		d = cur // memory the kernel writes: keep program order
		return b.put(n, d)
	}
	k := b.key(n)
	for i := 0; i <= cur; i++ {
		if old := b.scopes[i].seen[k]; old != nil {
			return old
		}
	}
	b.scopes[d].seen[k] = n
	return b.put(n, d)
}

func (b *Builder) put(n *Node, d int) *Node {
	n.ID = b.K.NumNodes
	b.K.NumNodes++
	b.depth[n] = d
	b.scopes[d].nodes = append(b.scopes[d].nodes, n)
	return n
}

// F is an f32 constant.
func (b *Builder) F(x float64) *Node { return b.add(&Node{Prim: Const, Type: ir.F32, F: x}) }

// I is an i32 constant.
func (b *Builder) I(x int) *Node { return b.add(&Node{Prim: Const, Type: ir.I32, I: int64(x)}) }

// B is a bool constant.
func (b *Builder) B(x bool) *Node {
	n := &Node{Prim: Const, Type: ir.Bool}
	if x {
		n.I = 1
	}
	return b.add(n)
}

// Pos is the value of an index as i32.
func (b *Builder) Pos(at Index) *Node { return b.add(&Node{Prim: Pos, Type: ir.I32, At: at}) }

// ScalarType is the type a storage type has once loaded.
func ScalarType(d ir.DType) ir.DType {
	switch {
	case d.IsFloat():
		return ir.F32
	case d == ir.I8:
		return ir.I32
	}
	return d
}

// Load reads buf[at] under the guards in force.
func (b *Builder) Load(buf int, at Index) *Node {
	return b.add(&Node{Prim: Load, Type: ScalarType(b.K.Bufs[buf].DType), Buf: buf, At: at, Guards: b.live(b.guards)})
}

// live drops guards that always hold.
func (b *Builder) live(gs []Guard) []Guard {
	var out []Guard
	for _, g := range gs {
		if lo, hi, ok := g.At.Range(); ok && lo >= g.Lo && hi < g.Hi {
			continue
		}
		out = append(out, g)
	}
	return out
}

// Within emits body with every load inside it guarded: a load where a guard
// fails gives 0 instead of touching memory.
func (b *Builder) Within(gs []Guard, body func() (*Node, error)) (*Node, error) {
	n := len(b.guards)
	b.guards = append(b.guards, b.live(gs)...)
	r, err := body()
	b.guards = b.guards[:n]
	return r, err
}

// GuardKey identifies the guards in force, for callers that remember nodes.
func (b *Builder) GuardKey() string {
	if len(b.guards) == 0 {
		return ""
	}
	return guards(b.guards)
}

// Detached emits body as if inside a loop over vars and throws away what
// depends on them: it serves to find the operands of a Contract.
func (b *Builder) Detached(vars []*Var, body func() (*Node, error)) (*Node, error) {
	for _, v := range vars {
		b.vars[v] = len(b.scopes)
	}
	b.scopes = append(b.scopes, &scope{seen: map[string]*Node{}})
	n, err := body()
	b.scopes = b.scopes[:len(b.scopes)-1]
	return n, err
}

// Test is true where all guards hold.
func (b *Builder) Test(gs []Guard) *Node {
	gs = b.live(gs)
	if len(gs) == 0 {
		return b.B(true)
	}
	return b.add(&Node{Prim: Test, Type: ir.Bool, Guards: gs})
}

// Store writes buf[at] = x.
func (b *Builder) Store(buf int, at Index, x *Node) {
	if x.Prim == Round && len(x.Args) == 1 && ir.DType(x.I) == b.K.Bufs[buf].DType {
		x = x.Args[0] // the store rounds
	}
	b.put(&Node{Prim: Store, Buf: buf, At: at, Args: []*Node{x}}, len(b.scopes)-1)
}

// Op applies a unary, binary or ternary arithmetic primitive. The result type
// is that of the first operand (second for Select), bool for comparisons.
func (b *Builder) Op(p Prim, args ...*Node) *Node {
	t := args[0].Type
	switch p {
	case Lt, Le, Eq:
		t = ir.Bool
	case Div:
		// A divisor known outside the loop: one division there and a product
		// here, a sixth of the time (vdivps against vmulps).
		if x, y := args[0], args[1]; t == ir.F32 && b.depth[y] < b.depth[x] {
			return b.Op(Mul, x, b.Op(Div, b.F(1), y))
		}
	case Select:
		t = args[1].Type
		if args[0].Prim == Const {
			return args[2-args[0].I]
		}
	}
	return b.add(&Node{Prim: p, Type: t, Args: args})
}

// Cast converts to F32, I32 or Bool (non-zero).
func (b *Builder) Cast(to ir.DType, x *Node) *Node {
	if x.Type == to {
		return x
	}
	return b.add(&Node{Prim: Cast, Type: to, Args: []*Node{x}})
}

// Random is uniform in (0,1): word at%4 of Philox4x32-10 with counter
// (at/4, stream, 0, 0) and key (seed, step), at taken as unsigned, mapped as
// (w>>9 + 0.5) / 2^23. So four neighbours share one evaluation of Philox. seed
// and step are i32 scalars; stream tells uses within one step apart.
func (b *Builder) Random(seed, step *Node, stream int, at Index) *Node {
	return b.add(&Node{Prim: Random, Type: ir.F32, Args: []*Node{seed, step}, I: int64(stream), At: at})
}

// For emits a sequential loop of the given extent. body gets the variable and
// returns the values to accumulate; For returns the accumulators.
func (b *Builder) For(extent int, combine []Combine, body func(v *Var) ([]*Node, error)) ([]*Node, error) {
	v := b.NewVar(extent)
	b.vars[v] = len(b.scopes)
	sc := &scope{seen: map[string]*Node{}}
	b.scopes = append(b.scopes, sc)
	vals, err := body(v)
	b.scopes = b.scopes[:len(b.scopes)-1]
	if err != nil {
		return nil, err
	}
	l := &Node{Prim: Loop, Vars: []*Var{v}, Body: sc.nodes}
	for i, x := range vals {
		l.Accs = append(l.Accs, Reduction{combine[i], x})
	}
	d := len(b.scopes) - 1
	b.put(l, d)
	var out []*Node
	for i, x := range vals {
		out = append(out, b.put(&Node{Prim: Acc, Type: x.Type, Args: []*Node{l}, I: int64(i)}, d))
	}
	return out, nil
}

// Contract emits the sum over vars (made by NewVar) of a*b, both plain loads.
func (b *Builder) Contract(vars []*Var, bufA int, a Index, ga []Guard, bufB int, bx Index, gb []Guard) *Node {
	return b.ContractOf(vars, &Node{Prim: Load, Type: ir.F32, Buf: bufA, At: a}, ga, &Node{Prim: Load, Type: ir.F32, Buf: bufB, At: bx}, gb)
}

// Done closes the kernel, dropping nodes nothing uses.
func (b *Builder) Done() *Kernel {
	b.K.Body = prune(b.scopes[0].nodes)
	return b.K
}

// prune removes pure nodes that no store, accumulator or index needs.
func prune(body []*Node) []*Node {
	live := map[*Node]bool{}
	var mark func(n *Node)
	index := func(ix Index) {
		for _, d := range ix.Ind {
			mark(d.Node)
		}
	}
	mark = func(n *Node) {
		if live[n] {
			return
		}
		live[n] = true
		for _, a := range n.Args {
			mark(a)
		}
		for _, a := range n.Accs {
			mark(a.Val)
		}
		index(n.At)
		for _, g := range n.Guards {
			index(g.At)
		}
	}
	var roots func(body []*Node) bool
	roots = func(body []*Node) bool {
		any := false
		for _, n := range body {
			if n.Prim == Store || n.Prim == Loop && roots(n.Body) {
				mark(n)
				any = true
			}
		}
		return any
	}
	roots(body)
	var keep func(body []*Node) []*Node
	keep = func(body []*Node) []*Node {
		var out []*Node
		for _, n := range body {
			if live[n] {
				if n.Prim == Loop {
					n.Body = keep(n.Body)
				}
				out = append(out, n)
			}
		}
		return out
	}
	return keep(body)
}
