package simt

// kind says how warp.run executes an instruction. Those that are most frequent
// have their own, so that they cost one indirect call for 32 lanes.
type kind uint8

const (
	kFn     kind = iota // fn does everything
	k32                 // f32: d, a, b, c are 32-bit registers
	k64                 // f64: d, a, b, c are 64-bit registers
	kWide               // fwide: a and b are 32-bit, c and d are 64-bit
	kNarrow             // fnarrow: a is 64-bit, d is 32-bit
	kSet32              // fset32: d is a predicate
	kSet64
	kSel32 // d = c ? a : b, c is a predicate
	kSel64
	kMov32
	kMov64
	kBra
	kRet
	kTrap
)

// inst is a decoded instruction. Operands are slots of the register files.
type inst struct {
	kind kind
	not  bool // the guard, or kSel's c, is negated
	notC bool
	// uniform says that all lanes must take the branch, or none.
	uniform bool
	count   counter
	guard   int32 // predicate, or -1
	d       int32
	a       int32
	b       int32
	c       int32

	target int32 // of a branch
	join   int32 // where the two sides of a branch meet again, -1 for nowhere
	// uses is set where the instruction touches a register that some wgmma of the
	// kernel uses too, which is checked.
	uses []use

	fn      func(w *warp, in *inst, mask uint32)
	f32     func(d, a, b, c *v32)
	f64     func(d, a, b, c *v64)
	fwide   func(d *v64, a, b *v32, c *v64)
	fnarrow func(d *v32, a *v64)
	fset32  func(a, b *v32) uint32
	fset64  func(a, b *v64) uint32

	mem *memOp
	x   any // what else fn needs
}

// use is a register that an instruction reads or writes.
type use struct {
	ref
	write bool
}
