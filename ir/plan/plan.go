package plan

import (
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// System is everything one gouachec run compiles: models and their distinct
// kernels. Kernels that are the same up to their names are compiled once.
type System struct {
	Name    string
	Models  []*Model
	Kernels []*kern.Kernel // distinct, sorted by name
}

// Model is one network with its stored tensors and programs.
type Model struct {
	Name        string
	Fingerprint string // hash of names, types and roles of the stored tensors: what a snapshot must match
	Globals     []*Global
	StateBytes  int // size of the state arena
	Programs    []*Program
}

// Global is a stored tensor with its place in the state arena.
type Global struct {
	*ir.Global
	Offset int // bytes
}

// Arena says which memory a buffer lives in.
type Arena uint8

// Arenas: State holds the model's globals and outlives calls; Work is reused
// by every program of a model.
const (
	State Arena = iota
	Work
)

// String is the text name.
func (a Arena) String() string { return [...]string{"state", "work"}[a] }

// Buffer is a range of bytes holding one value.
type Buffer struct {
	ID     int
	Name   string // the IR value it holds, as in the dumps: %name, @global, or a workspace
	Type   ir.Type
	Bytes  int // at least Type.Bytes; workspaces may be larger
	Arena  Arena
	Offset int
	// First and Last are the launches between which the contents must
	// survive: the first that writes it (-1: on entry) and the last that
	// touches it (len(Launches): after return).
	First, Last int
}

// Launch runs one kernel.
type Launch struct {
	Kernel *kern.Kernel
	Args   []*Buffer // one per kernel buffer
	Block  string    // region of the model, "" outside any
	// Backward marks the backward pass of Block.
	Backward bool
	// Copy marks what makes no value of its own: it computes again, or packs, what another launch has.
	Copy   bool
	Pos    ir.Pos
	Values string // the IR values computed, as in the dumps
}

// Program is one compiled function.
type Program struct {
	Name      string
	Inputs    []*Buffer // Name is the input's name without %
	Outputs   []Output
	Buffers   []*Buffer // all, State ones included, sorted by ID
	Launches  []Launch
	WorkBytes int // size of the work arena
	FLOPs     int64
}

// Output is a named result.
type Output struct {
	Name   string
	Buffer *Buffer
	// Type is the result's own type, where it is another view of the same
	// elements than Buffer.Type (a reshape); Invalid means Buffer.Type.
	Type ir.Type
}
