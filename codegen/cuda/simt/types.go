package simt

// typ is a PTX type.
type typ struct {
	name string
	bits int
	// kind is b (bits), u, s, f (also a pair of f16), p (predicate).
	kind byte
}

var types = map[string]typ{
	"pred": {"pred", 1, 'p'},
	"b8":   {"b8", 8, 'b'}, "u8": {"u8", 8, 'u'}, "s8": {"s8", 8, 's'},
	"b16": {"b16", 16, 'b'}, "u16": {"u16", 16, 'u'}, "s16": {"s16", 16, 's'},
	"f16": {"f16", 16, 'f'}, "bf16": {"bf16", 16, 'f'},
	"b32": {"b32", 32, 'b'}, "u32": {"u32", 32, 'u'}, "s32": {"s32", 32, 's'},
	"f32": {"f32", 32, 'f'}, "tf32": {"tf32", 32, 'f'},
	"f16x2": {"f16x2", 32, 'f'}, "bf16x2": {"bf16x2", 32, 'f'},
	"b64": {"b64", 64, 'b'}, "u64": {"u64", 64, 'u'}, "s64": {"s64", 64, 's'},
	"f64": {"f64", 64, 'f'},
}

// bytes is the size in memory.
func (t typ) bytes() int { return t.bits / 8 }

// half says whether t is made of 16-bit floating-point numbers.
func (t typ) half() bool {
	switch t.name {
	case "f16", "bf16", "f16x2", "bf16x2":
		return true
	}
	return false
}

// takes says whether an instruction of type t works on a register declared as r
// of the same size: bits go with everything, signed with unsigned.
func (t typ) takes(r typ) bool {
	switch {
	case t.kind == 'b' || r.kind == 'b':
		return true
	case t.kind == 'f' || r.kind == 'f':
		return t.name == r.name
	}
	return true
}

// A register lives in the file of its class: predicates are masks of 32 lanes,
// registers of up to 32 bits are in words with zeros above them.
type class uint8

const (
	classP class = iota
	class32
	class64
)

func (t typ) class() class {
	switch {
	case t.kind == 'p':
		return classP
	case t.bits <= 32:
		return class32
	}
	return class64
}

// ref names a register: its class and its place in that class's file.
type ref struct {
	class class
	slot  int32
}

// The values of a register in the 32 lanes of a warp.
type (
	v32 [32]uint32
	v64 [32]uint64
)
