package simt

import (
	"fmt"
	"strings"
)

// Kind says what went wrong.
type Kind string

// The kinds of faults.
const (
	Race          Kind = "race"
	OutOfBounds   Kind = "out of bounds"
	Misaligned    Kind = "misaligned"
	Uninitialised Kind = "uninitialised"
	Divergent     Kind = "divergent"    // a barrier, shuffle or product that not all lanes execute
	Deadlock      Kind = "deadlock"     // nothing can go on
	MissingWait   Kind = "missing wait" // data of an asynchronous operation used while it is under way
	MissingFence  Kind = "missing fence"
	BadOperand    Kind = "bad operand" // an instruction got a value that it can't take
	StepLimit     Kind = "step limit"
)

// Fault is an error of a kernel, found while it ran.
type Fault struct {
	Kind   Kind
	Detail string // what happened, with the other party of a race
	Entry  string
	Line   int    // of the PTX text, from 1
	Text   string // the instruction
	Source string // the builder's file:line, from the comment behind the instruction
	CTA    [3]int
	Thread int // within the CTA, or -1: x + y*ntid.x + ...

	// Address is what the instruction accessed, as far as it accessed memory.
	// Buffer names the global allocation, or is "shared"; Offset counts from
	// its start.
	Address uint64
	Buffer  string
	Offset  int
}

func (f *Fault) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: %s: %s", f.Entry, f.Line, f.Kind, f.Detail)
	if f.Buffer != "" {
		fmt.Fprintf(&b, "; %s%+d (address %#x)", f.Buffer, f.Offset, f.Address)
	}
	fmt.Fprintf(&b, "; block %d,%d,%d", f.CTA[0], f.CTA[1], f.CTA[2])
	if f.Thread >= 0 {
		fmt.Fprintf(&b, " thread %d", f.Thread)
	}
	fmt.Fprintf(&b, "; %s", f.Text)
	if f.Source != "" {
		fmt.Fprintf(&b, "; from %s", f.Source)
	}
	return b.String()
}

// thrown carries a Fault from the depths of an instruction to Launch, which
// adds where it happened. It never leaves the package.
type thrown struct{ *Fault }

// lane is -1 where the fault is the whole warp's.
func throw(k Kind, lane int, format string, args ...any) {
	panic(thrown{&Fault{Kind: k, Thread: lane, Detail: fmt.Sprintf(format, args...)}})
}
