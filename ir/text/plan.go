package text

import (
	"fmt"
	"strings"

	"github.com/gouache-ml/gouache/ir/plan"
)

// System prints a compiled system: its kernels, then every model's stored
// tensors and programs.
func System(s *plan.System) string {
	var b strings.Builder
	fmt.Fprintf(&b, "system @%s\n", quote(s.Name))
	for _, k := range s.Kernels {
		b.WriteString("\n")
		b.WriteString(k.String())
	}
	for _, m := range s.Models {
		b.WriteString("\n")
		model(&b, m)
	}
	return b.String()
}

func model(b *strings.Builder, m *plan.Model) {
	fmt.Fprintf(b, "model @%s fingerprint=%s state=%d {\n", quote(m.Name), quote(m.Fingerprint), m.StateBytes)
	for _, g := range m.Globals {
		fmt.Fprintf(b, "  global %s offset=%d !%s\n", global(g.Global), g.Offset, g.Pos)
	}
	for _, p := range m.Programs {
		for _, l := range strings.SplitAfter(Program(p), "\n") {
			if l != "" {
				b.WriteString("  " + l)
			}
		}
	}
	b.WriteString("}\n")
}

// Program prints the buffers and launches of one compiled function. It parses
// only as part of its system.
func Program(p *plan.Program) string {
	var b strings.Builder
	fmt.Fprintf(&b, "program @%s work=%d flops=%d {\n", quote(p.Name), p.WorkBytes, p.FLOPs)
	for _, x := range p.Buffers {
		fmt.Fprintf(&b, "  buffer #%d %q : %s bytes=%d %s offset=%d live=%d:%d\n", x.ID, x.Name, x.Type, x.Bytes, x.Arena, x.Offset, x.First, x.Last)
	}
	for _, x := range p.Inputs {
		fmt.Fprintf(&b, "  input #%d\n", x.ID)
	}
	for i := range p.Launches {
		b.WriteString("  " + Launch(&p.Launches[i]) + "\n")
	}
	for _, o := range p.Outputs {
		fmt.Fprintf(&b, "  output %s #%d\n", quote(o.Name), o.Buffer.ID)
	}
	b.WriteString("}\n")
	return b.String()
}

// Launch prints one launch.
func Launch(l *plan.Launch) string {
	args := make([]string, len(l.Args))
	for i, a := range l.Args {
		args[i] = fmt.Sprintf("#%d", a.ID)
	}
	s := fmt.Sprintf("launch @%s(%s)", quote(l.Kernel.Name), strings.Join(args, ", "))
	if l.Block != "" {
		s += " block=@" + quote(l.Block)
	}
	if l.Backward {
		s += " backward"
	}
	if l.Values != "" {
		s += fmt.Sprintf(" values=%q", l.Values)
	}
	if l.Copy {
		s += " copy"
	}
	return s + " !" + l.Pos.String()
}
