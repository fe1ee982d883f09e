package exec

import "slices"

// Spec is what a generated package says about its system. Only generated code writes one.
type Spec struct {
	Name    string
	Objects []Object
	Kernels []Kernel
	Models  []ModelSpec
}

// Object is the compiled code of all kernels for one target.
type Object struct {
	Target string // as in cpu.Targets, or as the device calls it
	// Code is a shared object; for a device texts with a zero byte after each, all of it
	// compressed by gzip or not.
	Code []byte
	// Binaries are what the texts of a device become when they are assembled for Target, one after
	// the other, compressed or not; Lengths are the bytes of each. Without them the device
	// assembles the texts when it loads them.
	Binaries []byte
	Lengths  []int
	Scratch  int // bytes of scratch memory each worker needs
	// Device is the kind of device that runs the code, as in RegisterDevice; "" is this
	// processor.
	Device  string
	Entries [][]Entry // for a device: what a launch of each kernel runs, by the kernel's number
}

// Entry is one function of an Object for a device, and how it is started. A launch of a kernel
// starts its entries one after the other.
type Entry struct {
	Name    string
	Grid    [3]int // blocks
	Block   int    // threads of a block
	Shared  int    // bytes of dynamic shared memory
	Cluster int    // blocks of a cluster, along the first dimension of Grid; 0 and 1: none
	// Maps are the first parameters, passed by value; the addresses of the launch's buffers that
	// Args names follow, 64 bits each.
	Maps []TensorMap
	Args []int
}

// TensorMap describes a buffer, or a part of it, to a device's copy engine.
type TensorMap struct {
	Arg     int   // the launch's buffer
	Offset  int64 // bytes from its beginning
	DType   DType
	Dims    []int   // elements, the innermost dimension first
	Strides []int64 // bytes from one index to the next, of all dimensions but the innermost
	Box     []int   // elements that one copy moves
	Swizzle int     // bytes of the pattern in shared memory: 0, 32, 64 or 128
}

// Kernel is one compiled kernel. Its number is its index in Spec.Kernels.
type Kernel struct {
	Name   string // exported symbol
	Args   int    // number of buffers
	Chunks int    // units of work; fixed by the plan, so that no result depends on the threads
	// Together says that chunks have work in common, which a worker does once for those that it takes in one go.
	Together bool
	FLOPs    int64
	Bytes    int64     // that it must move: what it touches once, what it changes twice; 0: nobody has counted
	Writes   []Written // for Program.Trace; may be empty
	// Changes lists the buffers that it may write: on a device nothing else is copied back, and
	// launches wait for nothing else; nil: it may write all.
	Changes []int
	// Sizes are the bytes of each buffer, so that launches on a device wait for those alone whose
	// memory they touch; nil: each of its launches waits for all before it, and all after wait for it.
	Sizes []int
}

// changes tells whether it may write buffer arg.
func (k *Kernel) changes(arg int) bool { return k.Changes == nil || slices.Contains(k.Changes, arg) }

// Written is a floating-point buffer that a kernel writes every element of.
type Written struct {
	Arg   int
	DType DType
	Len   int
}

// Addr is a place in a model's memory: a byte offset plus Work or State. Offsets are multiples
// of 64, so the two can't be confused.
type Addr int64

// The arenas of a model.
const (
	Work  Addr = 0 // shared by the model's programs
	State Addr = 1 // the stored tensors
)

func (a Addr) split() (arena Addr, offset int64) { return a & 1, int64(a &^ 1) }

// ModelSpec is one model of a Spec.
type ModelSpec struct {
	Name        string
	Fingerprint string // hash of names, types and roles of the stored tensors
	StateBytes  int64
	Consts      []byte // contents of the constant tensors, one after the other
	Globals     []GlobalSpec
	Programs    []ProgramSpec
}

// GlobalSpec is one stored tensor of a ModelSpec.
type GlobalSpec struct {
	Name   string
	Role   Role
	DType  DType
	Shape  []int
	Offset int64 // in the state arena
	Init   string
	Std    float64
	Of     string // the parameter this tensor belongs to
	Decay  bool
	Const  int // offset in ModelSpec.Consts; -1 for none
}

// TensorSpec is one input or output of a ProgramSpec.
type TensorSpec struct {
	Name  string
	DType DType
	Shape []int
	Addr  Addr
	Range
}

// Range is which integers an input may hold, those from From on that are less than Below, because
// others are places outside of what the program looks them up in. Where both are 0 nothing is known.
type Range struct{ From, Below int32 }

// Launch is one row of a program's table of launches: its buffers, and what it is called in
// profiles. The function of the program says which kernel it runs.
type Launch struct {
	Block    string // region of the model
	Gradient bool   // computes gradients of that region, rather than again what the forward pass has
	Values   string // IR values computed
	Pos      string // line of the model's source
	Args     []Addr
}

// ProgramSpec is one program of a ModelSpec.
type ProgramSpec struct {
	Name            string
	WorkBytes       int64
	Inputs, Outputs []TensorSpec
	Launches        []Launch
	Run             func(*Run)
}

// Role says what a stored tensor is for; the names are those of the IR.
type Role string

// Roles of stored tensors.
const (
	RoleParam   Role = "param"
	RoleMoment1 Role = "moment1"
	RoleMoment2 Role = "moment2"
	RoleAverage Role = "average"
	RoleBuffer  Role = "buffer"
	RoleState   Role = "state"
	RoleConst   Role = "const"
)
