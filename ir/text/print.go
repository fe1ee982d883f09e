package text

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/gouache-ml/gouache/ir"
)

// Module prints a module: its globals, then its functions.
func Module(m *ir.Module) string {
	var b strings.Builder
	fmt.Fprintf(&b, "module @%s\n", quote(m.Name))
	if len(m.Globals) > 0 {
		b.WriteString("\n")
	}
	for _, g := range m.Globals {
		fmt.Fprintf(&b, "global %s !%s\n", global(g), g.Pos)
	}
	for _, f := range m.Funcs {
		b.WriteString("\n")
		b.WriteString(Func(f))
	}
	return b.String()
}

// Func prints one function. It parses only as part of its module.
func Func(f *ir.Func) string {
	var b strings.Builder
	for _, l := range Lines(f) {
		b.WriteString(strings.Repeat("  ", l.Depth))
		b.WriteString(l.Text)
		b.WriteString("\n")
	}
	return b.String()
}

// Line is a line of a function's text.
type Line struct {
	Text  string
	Depth int
	Instr *ir.Instr // what the line defines; nil for the frame around it
	Block *ir.Block // set on the line that opens a block
}

// Lines is the text of f line by line, for viewers.
func Lines(f *ir.Func) []Line {
	var ls []Line
	ins := make([]string, len(f.Inputs))
	for i, v := range f.Inputs {
		ins[i] = fmt.Sprintf("%s : %s", value(v), v.Type)
	}
	ls = append(ls, Line{Text: fmt.Sprintf("func @%s(%s) {", quote(f.Name), strings.Join(ins, ", "))})
	var open *ir.Block
	depth := 1
	shut := func() {
		if open != nil {
			depth--
			ls = append(ls, Line{Text: "}", Depth: depth})
			open = nil
		}
	}
	for _, in := range f.Body {
		if !sameBlock(in.Block, open) {
			shut()
			if open = in.Block; open != nil {
				ls = append(ls, Line{Text: block(open) + " {", Depth: depth, Block: open})
				depth++
			}
		}
		ls = append(ls, Line{Text: instr(in), Depth: depth, Instr: in})
	}
	shut()
	for _, r := range f.Results {
		ls = append(ls, Line{Text: fmt.Sprintf("result %s = %s", quote(r.Name), value(r.Value)), Depth: 1})
	}
	for _, u := range f.Updates {
		ls = append(ls, Line{Text: fmt.Sprintf("update @%s = %s", quote(u.Global.Name), value(u.Value)), Depth: 1})
	}
	return append(ls, Line{Text: "}"})
}

func sameBlock(a, b *ir.Block) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func block(b *ir.Block) string {
	s := "block @" + quote(b.Name)
	if b.Resblock {
		s += " resblock"
	}
	if b.Backward {
		s += " backward"
	}
	return s
}

func instr(in *ir.Instr) string {
	names, types, args := make([]string, len(in.Results)), make([]string, len(in.Results)), make([]string, len(in.Args))
	for i, r := range in.Results {
		names[i], types[i] = value(r), r.Type.String()
	}
	for i, a := range in.Args {
		args[i] = value(a)
	}
	s := strings.Join(names, ", ") + " = " + in.Op.Name()
	if len(args) > 0 {
		s += " " + strings.Join(args, ", ")
	}
	if a := ir.AttrString(in.Op); a != "" {
		s += " " + a
	}
	return s + " : " + strings.Join(types, ", ") + " !" + in.Pos.String()
}

func value(v *ir.Value) string {
	if v.Global != nil {
		return "@" + quote(v.Global.Name)
	}
	return "%" + quote(v.Name)
}

// global is a declaration without its position.
func global(g *ir.Global) string {
	s := fmt.Sprintf("@%s : %s %s", quote(g.Name), g.Type, g.Role)
	if g.Of != nil {
		s += " of=@" + quote(g.Of.Name)
	}
	if g.Init.Kind != "" {
		s += " init=" + quote(g.Init.Kind)
		if g.Init.Std != 0 {
			s += "(" + strconv.FormatFloat(g.Init.Std, 'x', -1, 64) + ")"
		}
	}
	if g.Decay {
		s += " decay"
	}
	if g.Data != nil {
		s += " data=0x" + hex.EncodeToString(g.Data)
	}
	return s
}

// quote leaves plain names as they are and quotes the others.
func quote(s string) string {
	if s == "" {
		return `""`
	}
	for i := 0; i < len(s); i++ {
		if !nameByte(s[i]) {
			return strconv.Quote(s)
		}
	}
	return s
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.'
}
