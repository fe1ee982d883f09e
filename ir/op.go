package ir

import (
	"fmt"
	"reflect"
	"regexp"
	"runtime"
	"sort"
	"strings"
)

// Op is one operation with its attributes: a plain struct whose exported
// fields are the attributes. Text form, hash and equality derive from them.
// Package ops adds the hooks that lowering and the conformance suite need.
type Op interface {
	// Name is the text name, snake_case.
	Name() string
	// Infer is the type rule; the error says what is wrong in a few words and
	// leaves naming the operands to the caller.
	Infer(args []Type) ([]Type, error)
	// Ref computes the results in float64 (integers exactly). It is written
	// independently of lowering, as the oracle.
	Ref(args []*Tensor, outs []Type) []*Tensor
	// VJP appends the vector-Jacobian product to in's function: given the
	// gradient of each result (nil where none), it returns the gradient of
	// each argument (nil where there is none).
	VJP(in *Instr, grads []*Value) []*Value
	// Cost counts arithmetic; bytes follow from the types.
	Cost(args, outs []Type) Cost
}

// Cost is the work of one instruction.
type Cost struct {
	FLOPs int64 // multiply-add counts as two
}

// Tensor is a dense float64 tensor of the reference semantics.
type Tensor struct {
	Type Type
	Data []float64
}

// NewTensor allocates zeros.
func NewTensor(t Type) *Tensor { return &Tensor{Type: t, Data: make([]float64, t.Len())} }

var opTable = map[string]Op{}

// Register enters a prototype into the op table. Called from init functions
// of package ops.
func Register(protos ...Op) {
	for _, p := range protos {
		if _, dup := opTable[p.Name()]; dup {
			panic("op registered twice: " + p.Name())
		}
		opTable[p.Name()] = p
	}
}

// LookupOp finds the prototype of an op by text name.
func LookupOp(name string) (Op, bool) { o, ok := opTable[name]; return o, ok }

// OpNames lists the op table, sorted.
func OpNames() []string {
	var s []string
	for n := range opTable {
		s = append(s, n)
	}
	sort.Strings(s)
	return s
}

// Attr is one attribute of an op in text form.
type Attr struct{ Key, Value string }

// Attrs derives the attributes of op from its exported fields, sorted by key,
// zero values left out. Keys are snake_case field names.
func Attrs(op Op) []Attr {
	v := reflect.ValueOf(op)
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	var as []Attr
	t := v.Type()
	for i := 0; i < t.NumField(); i++ {
		f := t.Field(i)
		if !f.IsExported() || f.Anonymous || v.Field(i).IsZero() {
			continue
		}
		as = append(as, Attr{snake(f.Name), formatAttr(v.Field(i))})
	}
	sort.Slice(as, func(i, j int) bool { return as[i].Key < as[j].Key })
	return as
}

// AttrString prints "{k=v, k=v}" or "" when there are none.
func AttrString(op Op) string {
	as := Attrs(op)
	if len(as) == 0 {
		return ""
	}
	s := make([]string, len(as))
	for i, a := range as {
		s[i] = a.Key + "=" + a.Value
	}
	return "{" + strings.Join(s, ", ") + "}"
}

// Same reports whether two ops are equal: same name, same attributes.
func Same(a, b Op) bool { return a.Name() == b.Name() && AttrString(a) == AttrString(b) }

func snake(s string) string {
	var b strings.Builder
	for i, r := range s {
		if r >= 'A' && r <= 'Z' {
			if i > 0 && !(s[i-1] >= 'A' && s[i-1] <= 'Z') {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// An attribute with a text form of its own implements fmt.Stringer and, on its
// pointer, encoding.TextUnmarshaler.
func formatAttr(v reflect.Value) string {
	if s, ok := v.Interface().(fmt.Stringer); ok {
		return s.String()
	}
	switch v.Kind() {
	case reflect.Float64, reflect.Float32:
		return fmt.Sprintf("%x", v.Float())
	case reflect.Slice:
		s := make([]string, v.Len())
		for i := range s {
			s[i] = formatAttr(v.Index(i))
		}
		return "[" + strings.Join(s, ",") + "]"
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	}
	return fmt.Sprint(v.Interface())
}

// CallerPos is the line of the model that asks for something: the first frame
// outside the packages that build the graph.
func CallerPos() Pos {
	if frames := modelFrames(1); len(frames) > 0 {
		return framePos(frames[0])
	}
	return Pos{}
}

// callers says which of the model's functions CallerPos's line belongs to and
// from where it was called, for errors: a layer that is used ten times is
// wrong in one of them. It is empty where the model is one function.
func callers() string {
	frames := modelFrames(4)
	if len(frames) < 2 {
		return ""
	}
	var lines []string
	for _, fr := range frames[1:] {
		lines = append(lines, framePos(fr).String())
	}
	return fmt.Sprintf(" (in %s, called at %s)", frames[0].Function, strings.Join(lines, ", at "))
}

// modelFrames lists up to n frames of the model, innermost first: those between
// the packages that build the graph and the one that asks for it. A function
// that hands a literal to a builder, as to Func.Region, is listed by the line in
// the literal alone.
func modelFrames(n int) []runtime.Frame {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	var out []runtime.Frame
	built := false // a builder called the last frame of out
	for {
		fr, more := frames.Next()
		switch {
		case len(out) > 0 && outside(fr.Function):
			return out
		case builderFrame(fr):
			built = true
		default:
			name := literal.ReplaceAllString(fr.Function[strings.LastIndexByte(fr.Function, '/')+1:], "")
			fr.Function = strings.TrimPrefix(name, "main.")
			if !built || len(out) == 0 || out[len(out)-1].Function != fr.Function {
				out = append(out, fr)
			}
			built = false
		}
		if !more || len(out) == n {
			return out
		}
	}
}

// literal is the end of the names of function literals.
var literal = regexp.MustCompile(`(\.func\d+|\.gowrap\d+|-range\d+|\.\d+)+$`)

func framePos(fr runtime.Frame) Pos {
	return Pos{fr.File[strings.LastIndexByte(fr.File, '/')+1:], fr.Line}
}

const mod = "github.com/gouache-ml/gouache/"

func builderFrame(fr runtime.Frame) bool {
	for _, p := range []string{"ir.", "ops.", "models/nn.", "codegen/"} {
		if strings.HasPrefix(fr.Function, mod+p) {
			return true
		}
	}
	// What a function of nn that was inlined returns bears its caller's name.
	return strings.Contains(fr.File, "/models/nn/") && !strings.HasSuffix(fr.File, "_test.go")
}

// outside tells the functions that call a model's outermost one.
func outside(fn string) bool {
	for _, p := range []string{mod + "codegen/", mod + "models/system.", "runtime.", "testing."} {
		if strings.HasPrefix(fn, p) {
			return true
		}
	}
	return false
}
