package ptx

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/llir/llvm/ir/constant"
	"github.com/llir/llvm/ir/types"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
)

// Print is the text of a module for an architecture.
func Print(m *build.Module, a Arch) (string, error) {
	arch, err := parse(a)
	if err != nil {
		return "", err
	}
	p := &printer{names: map[string]bool{}, version: arch.version}
	if err := p.variables(m); err != nil {
		return "", err
	}
	for _, k := range m.Funcs {
		if err := p.kernel(k, arch); err != nil {
			return "", err
		}
	}
	head := fmt.Sprintf(".version %d.%d\n.target %s\n.address_size 64\n", p.version/10, p.version%10, a.Name)
	return head + string(p.text), nil
}

type printer struct {
	text    []byte
	names   map[string]bool
	version version
}

func (p *printer) printf(format string, a ...any) { p.text = fmt.Appendf(p.text, format, a...) }

// A name could be a label's otherwise.
var identifier = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)

func (p *printer) declare(name string) error {
	if !identifier.MatchString(name) {
		return fmt.Errorf("internal: %q is no name in PTX", name)
	}
	if p.names[name] {
		return fmt.Errorf("internal: two kernels or tables are called %s", name)
	}
	p.names[name] = true
	return nil
}

// variables prints the shared array and the tables.
func (p *printer) variables(m *build.Module) error {
	for _, g := range m.IR.Globals {
		if err := p.declare(g.Name()); err != nil {
			return err
		}
		if g.AddrSpace == 3 && g.Init == nil {
			p.printf("\n.extern .shared .align %d .b8 %s[];\n", max(1, int(g.Align)), g.Name())
			continue
		}
		data, ok := g.Init.(*constant.Array)
		if !ok || g.AddrSpace != 1 || !data.Typ.ElemType.Equal(types.I32) || len(data.Elems) == 0 {
			return fmt.Errorf("internal: variable %s is neither shared memory nor a table with elements", g.Name())
		}
		p.printf("\n.global .align %d .b32 %s[%d]", max(4, int(g.Align)), g.Name(), len(data.Elems))
		for i, e := range data.Elems {
			c, ok := e.(*constant.Int)
			if !ok {
				return fmt.Errorf("internal: table %s: element %d is no number", g.Name(), i)
			}
			switch {
			case i == 0:
				p.printf(" = {")
			case i%16 == 0:
				p.printf(",\n\t")
			default:
				p.printf(", ")
			}
			p.printf("%s", integer(c))
		}
		p.printf("};\n")
	}
	return nil
}

func paramName(k *build.Func, i int) string { return k.IR.Name() + "_param_" + strconv.Itoa(i) }

// kernel prints one kernel.
func (p *printer) kernel(k *build.Func, a arch) error {
	name := k.IR.Name()
	if err := p.declare(name); err != nil {
		return err
	}
	l := k.Limits
	if l.Threads < 1 || l.Threads > 1024 || l.Blocks < 0 || l.Cluster < 0 {
		return fmt.Errorf("internal: kernel %s: a block of %d threads, %d of them, in clusters of %d", name, l.Threads, l.Blocks, l.Cluster)
	}
	if l.Cluster > 1 && a.sm < 90 {
		return fmt.Errorf("internal: kernel %s: clusters need sm_90", name)
	}
	f, needs, err := translate(k, a)
	if err != nil {
		return err
	}
	p.version = max(p.version, needs)
	optimize(f)
	regs, err := allocate(f)
	if err != nil {
		return err
	}
	p.printf("\n.visible .entry %s(", name)
	for i, q := range k.IR.Params {
		if i > 0 {
			p.printf(",")
		}
		if t := byValue(q); t != nil {
			p.printf("\n\t.param .align 64 .b8 %s[%d]", paramName(k, i), build.SizeOf(t))
			continue
		}
		c, _ := shape(q.Typ)
		p.printf("\n\t.param .%s %s", classes[c[0]].decl, paramName(k, i))
	}
	p.printf("\n)\n.maxntid %d, 1, 1\n", l.Threads)
	if l.Blocks > 0 {
		p.printf(".minnctapersm %d\n", l.Blocks)
	}
	if l.Cluster > 1 {
		p.printf(".reqnctapercluster %d, 1, 1\n", l.Cluster)
		p.version = max(p.version, 78)
	}
	b := &body{f: f, regs: regs, names: make([]string, len(f.class)), target: make([]bool, len(f.blocks)), text: make([][]byte, len(f.blocks))}
	for _, x := range f.blocks {
		b.block(x)
	}
	p.printf("{\n")
	for c, n := range b.count {
		if n > 0 {
			p.printf("\t.reg .%s %s<%d>;\n", classes[c].decl, classes[c].prefix, n+1)
		}
	}
	for i, t := range b.text {
		if b.target[i] {
			p.printf("%s:\n", label(i))
		}
		p.text = append(p.text, t...)
	}
	p.printf("}\n")
	return nil
}

// body prints a kernel's blocks.
type body struct {
	f      *fn
	regs   *allocation
	names  []string // of registers
	count  [len(classes)]int
	text   [][]byte // of blocks
	target []bool   // blocks that something branches to
	labels int
	unique int
	out    []byte
}

func label(block int) string { return "$L" + strconv.Itoa(block) }

// name is a register's, numbered as the text mentions them.
func (b *body) name(r reg) string {
	r = b.regs.root(r)
	if b.names[r] == "" {
		c := b.f.class[r]
		b.count[c]++
		b.names[r] = classes[c].prefix + strconv.Itoa(b.count[c])
	}
	return b.names[r]
}

func (b *body) operand(o operand) string {
	if o.r != 0 {
		return b.name(o.r)
	}
	return o.s
}

func (b *body) line(s ...string) {
	b.out = append(b.out, '\t')
	for _, x := range s {
		b.out = append(b.out, x...)
	}
	b.out = append(b.out, '\n')
}

func (b *body) inst(in *inst) {
	if in.copy && in.src[0].r != 0 && b.regs.root(in.dst[0]) == b.regs.root(in.src[0].r) {
		return
	}
	b.unique++
	b.out = append(b.out, '\t')
	for _, p := range in.t.parts {
		b.out = append(b.out, p.text...)
		switch {
		case p.hole == unique:
			b.out = strconv.AppendInt(b.out, int64(b.unique), 10)
		case p.hole == none:
		case p.hole < len(in.dst):
			b.out = append(b.out, b.name(in.dst[p.hole])...)
		default:
			b.out = append(b.out, b.operand(in.src[p.hole-len(in.dst)])...)
		}
	}
	if in.line != "" {
		b.out = append(append(b.out, " // "...), in.line...)
	}
	b.out = append(b.out, '\n')
}

// jump goes from block n to another.
func (b *body) jump(n int, to *block) {
	if to.n != n+1 {
		b.target[to.n] = true
		b.line("bra ", label(to.n), ";")
	}
}

func (b *body) block(x *block) {
	b.out = nil
	for _, in := range x.insts {
		b.inst(in)
	}
	switch len(x.succs) {
	case 0:
		b.line("ret;")
	case 1:
		b.copies(x, x.succs[0])
		b.jump(x.n, x.succs[0])
	case 2:
		cond, yes, no := b.name(x.cond), x.succs[0], x.succs[1]
		switch {
		case !b.moves(x, yes) && yes.n != x.n+1:
			b.target[yes.n] = true
			b.line("@", cond, " bra ", label(yes.n), ";")
			b.copies(x, no)
			b.jump(x.n, no)
		case !b.moves(x, no):
			b.target[no.n] = true
			b.line("@!", cond, " bra ", label(no.n), ";")
			b.copies(x, yes)
			b.jump(x.n, yes)
		default:
			b.labels++
			other := "$M" + strconv.Itoa(b.labels)
			b.line("@!", cond, " bra ", other, ";")
			b.copies(x, yes)
			b.target[yes.n] = true
			b.line("bra ", label(yes.n), ";")
			b.out = append(append(b.out, other...), ":\n"...)
			b.copies(x, no)
			b.jump(x.n, no)
		}
	}
	b.text[x.n] = b.out
}

// way lists the phis that need a copy on the way from one block to another, and
// what they take.
func (b *body) way(from, to *block) (phis []*phi, src []operand) {
	for i, p := range to.preds {
		if p != from {
			continue
		}
		for _, j := range to.phis {
			if o := j.src[i]; o.r == 0 || b.regs.root(o.r) != b.regs.root(j.dst) {
				phis, src = append(phis, j), append(src, o)
			}
		}
	}
	return phis, src
}

func (b *body) moves(from, to *block) bool {
	phis, _ := b.way(from, to)
	return len(phis) > 0
}

// move is a copy between registers.
type move struct {
	class    class
	dst, src string
}

// copies prints the copies on the way from one block to another, which happen at
// once, one after another: first those whose result nobody reads any more; what
// is left are cycles, which a spare register opens.
func (b *body) copies(from, to *block) {
	phis, src := b.way(from, to)
	var todo []move
	readers := map[string]int{}
	for i, p := range phis {
		m := move{b.f.class[p.dst], b.name(p.dst), b.operand(src[i])}
		todo = append(todo, m)
		readers[m.src]++
	}
	for len(todo) > 0 {
		var rest []move
		for _, m := range todo {
			if readers[m.dst] > 0 {
				rest = append(rest, m)
				continue
			}
			b.mov(m)
			readers[m.src]--
		}
		if len(rest) == len(todo) {
			c := rest[0].class
			b.count[c]++
			spare := classes[c].prefix + strconv.Itoa(b.count[c])
			b.mov(move{c, spare, rest[0].src})
			readers[rest[0].src]--
			readers[spare]++
			rest[0].src = spare
		}
		todo = rest
	}
}

func (b *body) mov(m move) { b.line("mov.", classes[m.class].move, " ", m.dst, ", ", m.src, ";") }

// mnemonic is the instruction's name in a text.
func mnemonic(text string) string {
	if i := strings.Index(text, "wgmma."); i >= 0 {
		text = text[i:]
	}
	name, _, _ := strings.Cut(text, " ")
	return strings.TrimSuffix(name, ";")
}
