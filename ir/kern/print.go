package kern

import (
	"fmt"
	"github.com/gouache-ml/gouache/ir"
	"strconv"
	"strings"
)

// String is the text form of the kernel. Two kernels with the same text but
// for their names are the same kernel.
func (k *Kernel) String() string { return k.text(k.Name) }

// Canonical is the text form without the name: equal kernels have equal
// canonical texts.
func (k *Kernel) Canonical() string { return k.text("") }

func (k *Kernel) text(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "kernel @%s(", name)
	for i, a := range k.Bufs {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "#%d %s[%d] %s", i, a.DType, a.Len, a.Mode)
	}
	b.WriteString(")")
	if len(k.Dims) > 0 {
		b.WriteString(" grid(")
		for i, v := range k.Dims {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s<%d", v, v.Extent)
		}
		b.WriteString(")")
	}
	fmt.Fprintf(&b, " tile(%d,%d) chunks(%d)", k.Tile.Rows, k.Tile.Cols, k.Chunks)
	if k.Tile.Together {
		b.WriteString(" together")
	}
	if k.Vector != nil {
		fmt.Fprintf(&b, " vector(%s)", k.Vector)
	}
	if k.Packed {
		b.WriteString(" packed")
	}
	if t := k.Template; t != nil {
		fmt.Fprintf(&b, " template %s {", t.Name)
		for i, p := range t.Ints {
			if i > 0 {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "%s=%d", p.Key, p.Val)
		}
		fmt.Fprintf(&b, "} scale=%s", hexFloat(t.F))
		if t.Mask != "" {
			fmt.Fprintf(&b, " mask=%s", t.Mask)
		}
		if len(t.Views) > 0 {
			b.WriteString(" views(")
			for i, v := range t.Views {
				if i > 0 {
					b.WriteString(", ")
				}
				fmt.Fprintf(&b, "#%d[%d]", v.Buf, v.Offset)
				for _, s := range v.Strides {
					fmt.Fprintf(&b, " %d", s)
				}
			}
			b.WriteString(")")
		}
	}
	b.WriteString(" {\n")
	printBody(&b, k.Body, "  ")
	b.WriteString("}\n")
	return b.String()
}

func hexFloat(x float64) string { return strconv.FormatFloat(x, 'x', -1, 64) }

func guards(gs []Guard) string {
	var s strings.Builder
	for _, g := range gs {
		fmt.Fprintf(&s, " if %d <= %s < %d", g.Lo, g.At, g.Hi)
	}
	return s.String()
}

func printBody(b *strings.Builder, body []*Node, indent string) {
	for _, n := range body {
		b.WriteString(indent)
		switch n.Prim {
		case Store:
			fmt.Fprintf(b, "store #%d[%s], %%%d\n", n.Buf, n.At, n.Args[0].ID)
			continue
		case Loop:
			fmt.Fprintf(b, "%%%d = loop %s<%d {\n", n.ID, n.Vars[0], n.Vars[0].Extent)
			printBody(b, n.Body, indent+"  ")
			b.WriteString(indent + "}")
			for _, a := range n.Accs {
				fmt.Fprintf(b, " %s %%%d", a.Combine, a.Val.ID)
			}
			b.WriteString("\n")
			continue
		}
		printScalar(b, n)
		b.WriteString("\n")
	}
}

// printScalar prints a node that has a value, and its type.
func printScalar(b *strings.Builder, n *Node) {
	fmt.Fprintf(b, "%%%d = %s", n.ID, n.Prim)
	switch n.Prim {
	case Const:
		if n.Type == ir.F32 {
			fmt.Fprintf(b, " %s", hexFloat(n.F))
		} else {
			fmt.Fprintf(b, " %d", n.I)
		}
	case Pos:
		fmt.Fprintf(b, " [%s]", n.At)
	case Test:
		b.WriteString(guards(n.Guards))
	case Load:
		fmt.Fprintf(b, " #%d[%s]%s", n.Buf, n.At, guards(n.Guards))
	case Acc:
		fmt.Fprintf(b, " %%%d %d", n.Args[0].ID, n.I)
	case Contract:
		if n.I != 0 {
			fmt.Fprintf(b, " %s", ir.DType(n.I))
		}
		for _, v := range n.Vars {
			fmt.Fprintf(b, " %s<%d", v, v.Extent)
		}
		for _, a := range n.Args {
			b.WriteString(" (")
			printOperand(b, a)
			b.WriteString(")")
		}
	case Random:
		fmt.Fprintf(b, " %%%d %%%d %d [%s]", n.Args[0].ID, n.Args[1].ID, n.I, n.At)
	case Round:
		fmt.Fprintf(b, " %s", ir.DType(n.I))
		for _, a := range n.Args {
			fmt.Fprintf(b, " %%%d", a.ID)
		}
	default:
		for _, a := range n.Args {
			fmt.Fprintf(b, " %%%d", a.ID)
		}
	}
	fmt.Fprintf(b, " : %s", n.Type)
}

// printOperand prints a load without its type, or an expression and then the
// guards of the whole.
func printOperand(b *strings.Builder, root *Node) {
	if root.Prim == Load {
		fmt.Fprintf(b, "%%%d = load #%d[%s]%s", root.ID, root.Buf, root.At, guards(root.Guards))
		return
	}
	for i, n := range Expression(root) {
		if i > 0 {
			b.WriteString("; ")
		}
		printScalar(b, n)
	}
	b.WriteString(guards(root.Guards))
}
