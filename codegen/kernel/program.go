package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
	"strings"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
	"github.com/gouache-ml/gouache/ops"
)

// Library collects the distinct kernels of a system.
type Library struct {
	byText map[string]*kern.Kernel
	names  map[string]bool
}

// NewLibrary returns an empty library.
func NewLibrary() *Library {
	return &Library{byText: map[string]*kern.Kernel{}, names: map[string]bool{}}
}

// Kernels lists the distinct kernels, sorted by name.
func (l *Library) Kernels() []*kern.Kernel {
	var ks []*kern.Kernel
	for _, k := range l.byText {
		ks = append(ks, k)
	}
	sort.Slice(ks, func(i, j int) bool { return ks[i].Name < ks[j].Name })
	return ks
}

// intern names k after what it does and its contents, and returns the kernel
// of the same contents if there is one already.
func (l *Library) intern(k *kern.Kernel, label string) *kern.Kernel {
	text := k.Canonical()
	if old := l.byText[text]; old != nil {
		return old
	}
	h := sha256.Sum256([]byte(text))
	k.Name = label + "_" + hex.EncodeToString(h[:4])
	if l.names[k.Name] {
		k.Name = label + "_" + hex.EncodeToString(h[:12])
	}
	l.names[k.Name] = true
	l.byText[text] = k
	return k
}

// Places gives every global of a module its buffer in the state arena.
type Places map[*ir.Global]*plan.Buffer

// program is a plan under construction.
type program struct {
	a    *analysis
	lib  *Library
	be   Backend
	p    *plan.Program
	buf  map[*ir.Value]*plan.Buffer
	glob Places

	reader  map[*ir.Value]*ir.Instr // the last instruction that reads a value
	kept    map[*ir.Value]bool      // results and new contents of globals
	written map[*ir.Value]bool      // lies inside the concatenation that reads it
}

// Lower compiles the passes' final graph of f into launches; offsets are left
// to codegen/sched.
func Lower(f *ir.Func, lib *Library, be Backend) (*plan.Program, error) {
	// A unit that cannot be written with affine indices gets its arguments
	// stored, and everything is decided again.
	force := map[*ir.Value]bool{}
	for {
		a := analyse(f, be, force)
		units, err := fuse(a)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		again := false
		for _, u := range units {
			if u.root != nil && u.sp == nil {
				continue
			}
			if _, _, err := u.lower(a); err != nil {
				n := len(force)
				for _, v := range u.outs {
					for _, x := range v.Def.Args {
						if a.find(x) == nil {
							force[x] = true
						}
					}
				}
				if len(force) == n {
					return nil, fmt.Errorf("internal: %s: lower %s: %w", u.outs[0].Def.Pos, u.outs[0], err)
				}
				again = true
			}
		}
		if !again {
			return assemble(f, a, units, lib, be)
		}
	}
}

func assemble(f *ir.Func, a *analysis, units []*unit, lib *Library, be Backend) (*plan.Program, error) {
	pr := &program{a: a, lib: lib, be: be, p: &plan.Program{Name: f.Name}, buf: map[*ir.Value]*plan.Buffer{}, glob: Places{},
		reader: map[*ir.Value]*ir.Instr{}, kept: map[*ir.Value]bool{}, written: map[*ir.Value]bool{}}
	for _, in := range f.Body {
		for _, x := range in.Args {
			pr.reader[x] = in
		}
	}
	for _, r := range f.Results {
		pr.kept[r.Value] = true
	}
	for _, up := range f.Updates {
		pr.kept[up.Value] = true
	}
	for _, v := range f.Inputs {
		b := pr.work(v, v.Type)
		b.Name = v.Name
		pr.p.Inputs = append(pr.p.Inputs, b)
	}
	for _, v := range f.Reads() {
		pr.buf[v] = pr.global(v.Global)
	}
	pr.updates(units)
	for _, u := range units {
		if err := pr.launch(u); err != nil {
			return nil, err
		}
	}
	if err := pr.copies(); err != nil {
		return nil, err
	}
	for _, r := range f.Results {
		pr.p.Outputs = append(pr.p.Outputs, plan.Output{Name: r.Name, Type: r.Value.Type, Buffer: pr.buf[a.find(r.Value)]})
	}
	pr.lifetimes()
	return pr.p, nil
}

func (pr *program) global(g *ir.Global) *plan.Buffer {
	if b := pr.glob[g]; b != nil {
		return b
	}
	b := &plan.Buffer{Name: "@" + g.Name, Type: g.Type, Bytes: g.Type.Bytes(), Arena: plan.State}
	pr.glob[g] = b
	pr.addBuffer(b)
	return b
}

func (pr *program) addBuffer(b *plan.Buffer) {
	b.ID = len(pr.p.Buffers)
	pr.p.Buffers = append(pr.p.Buffers, b)
}

func (pr *program) work(v *ir.Value, t ir.Type) *plan.Buffer {
	b := &plan.Buffer{Name: v.String(), Type: t, Bytes: t.Bytes(), Arena: plan.Work}
	pr.buf[v] = b
	pr.addBuffer(b)
	return b
}

// updates decides which updated globals are written in place: by the kernel
// that computes the new value, when no later kernel reads the old one and the
// kernel itself reads it, if at all, only at the element it writes.
func (pr *program) updates(units []*unit) {
	f := pr.a.f
	reads := map[*ir.Global]*ir.Value{}
	for _, v := range f.Reads() {
		reads[v.Global] = v
	}
	home, lastRead := map[*ir.Value]int{}, map[*ir.Value]int{}
	for i, u := range units {
		for _, v := range u.outs {
			home[v] = i
		}
		for v := range pr.a.reads(u) {
			lastRead[v] = i
		}
	}
	claimed := map[*ir.Value]bool{}
	for _, r := range f.Results {
		claimed[pr.a.find(r.Value)] = true
	}
	for _, up := range f.Updates {
		s := pr.a.find(up.Value)
		if s == nil || s.Def == nil || claimed[s] {
			continue
		}
		at := home[s]
		if old := reads[up.Global]; old != nil {
			last, read := lastRead[old]
			if read && (last > at || last == at && !pr.elementwise(units[at], old, s)) {
				continue
			}
		}
		claimed[s] = true
		pr.buf[s] = pr.global(up.Global)
	}
}

// elementwise reports whether u's kernel reads old only at the element where
// it stores s.
func (pr *program) elementwise(u *unit, old, s *ir.Value) bool {
	if u.root != nil {
		al, ok := u.root.Op.(ops.Aliaser)
		return ok && al.Aliases() && pr.a.find(u.root.Args[0]) == old && u.root.Results[0] == s
	}
	if !u.isMap() {
		return false
	}
	k, vals, err := u.lower(pr.a)
	if err != nil {
		return false
	}
	var store string
	for _, n := range k.Body {
		if n.Prim == kern.Store && vals[n.Buf] == s {
			store = n.At.String()
		}
	}
	for _, n := range k.Body {
		if n.Prim == kern.Load && vals[n.Buf] == old && n.At.String() != store {
			return false
		}
	}
	return store != ""
}

// launch appends the launches of a unit.
func (pr *program) launch(u *unit) error {
	if u.root != nil && u.sp == nil {
		return pr.whole(u)
	}
	k, vals, err := u.lower(pr.a)
	if err != nil {
		return fmt.Errorf("internal: %s: lower %s: %w", u.outs[0].Def.Pos, u.outs[0], err)
	}
	args := make([]*plan.Buffer, len(vals))
	for i, v := range vals {
		if args[i] = pr.buf[v]; args[i] == nil {
			args[i] = pr.work(v, v.Type)
		}
	}
	args = inPlace(k, args)
	k.FLOPs = pr.flops(u)
	main := u.outs[0].Def
	if u.root != nil {
		main = u.root
		if pack, bytes := pr.be.Pack(k); pack != nil {
			args = pr.pack(k, pack, bytes, args, main)
		}
	}
	tile(k, pr.be)
	if u.root != nil {
		k.FLOPs -= pr.be.Spared(k)
	}
	pr.emit(k, label(u), args, main, values(u))
	return nil
}

// pack launches the packing of the right operand of contraction k and makes k
// read the packed panels.
func (pr *program) pack(k, pack *kern.Kernel, bytes int, args []*plan.Buffer, in *ir.Instr) []*plan.Buffer {
	name := "packed " + in.Args[1].String()
	ws := &plan.Buffer{Name: name, Type: ir.T(ir.F32, bytes/4), Bytes: bytes, Arena: plan.Work}
	pr.addBuffer(ws)
	right := &k.FindContract().Args[1]
	var from []*plan.Buffer
	for _, i := range kern.Buffers(*right) {
		from = append(from, args[i])
	}
	pr.emit(pack, "pack", append(from, ws), in, name)
	pr.p.Launches[len(pr.p.Launches)-1].Copy = true
	k.Packed = true
	*right = &kern.Node{ID: (*right).ID, Prim: kern.Load, Type: ir.F32, Buf: len(k.Bufs), At: kern.Widest(*right).At, Guards: (*right).Guards}
	renumber(k)
	k.Bufs = append(k.Bufs, kern.Buf{DType: ir.F32, Len: bytes / 4, Mode: kern.In})
	return dropUnused(k, append(args, ws))
}

func (pr *program) emit(k *kern.Kernel, name string, args []*plan.Buffer, in *ir.Instr, vals string) {
	for i := range k.Bufs {
		k.Bufs[i].Name = ""
	}
	l := plan.Launch{Kernel: pr.lib.intern(k, name), Args: args, Pos: in.Pos, Values: vals}
	if in.Block != nil {
		l.Block, l.Backward = in.Block.Name, in.Block.Backward
	}
	pr.p.FLOPs += k.FLOPs
	pr.p.Launches = append(pr.p.Launches, l)
}

// inPlace makes an input and an output of k that share a buffer one argument.
func inPlace(k *kern.Kernel, args []*plan.Buffer) []*plan.Buffer {
	to := make([]int, len(args))
	first := map[*plan.Buffer]int{}
	for i, b := range args {
		to[i] = i
		if j, ok := first[b]; ok {
			to[i] = j
			if k.Bufs[i].Mode != k.Bufs[j].Mode {
				k.Bufs[j].Mode = kern.InOut
			}
		} else {
			first[b] = i
		}
	}
	eachNode(k.Body, func(n *kern.Node) {
		if n.Prim == kern.Load || n.Prim == kern.Store {
			n.Buf = to[n.Buf]
		}
	})
	return dropUnused(k, args)
}

// dropUnused removes buffers no node touches.
func dropUnused(k *kern.Kernel, args []*plan.Buffer) []*plan.Buffer {
	used := make([]bool, len(k.Bufs))
	eachNode(k.Body, func(n *kern.Node) {
		if n.Prim == kern.Load || n.Prim == kern.Store {
			used[n.Buf] = true
		}
	})
	to := make([]int, len(k.Bufs))
	var bufs []kern.Buf
	var out []*plan.Buffer
	for i := range k.Bufs {
		if used[i] {
			to[i] = len(bufs)
			bufs = append(bufs, k.Bufs[i])
			out = append(out, args[i])
		}
	}
	eachNode(k.Body, func(n *kern.Node) {
		if n.Prim == kern.Load || n.Prim == kern.Store {
			n.Buf = to[n.Buf]
		}
	})
	k.Bufs = bufs
	return out
}

// whole launches an op that is a kernel of its own, or one copy per part of a
// concatenation.
func (pr *program) whole(u *unit) error {
	in := u.root
	arg := func(i int) *plan.Buffer { return pr.buf[pr.a.find(in.Args[i])] }
	var types, outs []ir.Type
	for _, x := range in.Args {
		types = append(types, x.Type)
	}
	for _, r := range in.Results {
		outs = append(outs, r.Type)
	}
	switch op := in.Op.(type) {
	case ops.Opaque:
		k := op.Kernel(types, outs)
		al, ok := in.Op.(ops.Aliaser)
		if ok && al.Aliases() {
			want := pr.buf[in.Results[0]]
			if want != nil && want != arg(0) {
				return fmt.Errorf("internal: %s: %s writes into its argument %s, but its result lives elsewhere", in.Pos, in.Op.Name(), in.Args[0])
			}
			if in.Args[0].Global != nil && want == nil {
				return fmt.Errorf("%s: %s changes %s in place; make its result an update of that global and don't read it afterwards", in.Pos, in.Op.Name(), in.Args[0])
			}
			pr.buf[in.Results[0]] = arg(0)
		}
		var args []*plan.Buffer
		if st, ok := in.Op.(ops.Strided); ok {
			var err error
			if args, err = strided(k, pr.operands(in, st), append(types, outs...)); err != nil {
				return fmt.Errorf("internal: %s: %s: %w", in.Pos, in.Op.Name(), err)
			}
		} else {
			for i := range in.Args {
				args = append(args, arg(i))
			}
			for _, r := range in.Results {
				b := pr.buf[r]
				if b == nil {
					b = pr.work(r, r.Type)
				}
				args = append(args, b)
			}
		}
		k.FLOPs = in.Op.Cost(types, outs).FLOPs
		if k.Template == nil {
			args = inPlace(k, args)
			collapse(k)
		}
		tile(k, pr.be)
		pr.emit(k, in.Op.Name(), args, in, values(u))
	case ops.Concatenator:
		axis := op.ConcatAxis()
		out := pr.buf[in.Results[0]]
		if out == nil {
			out = pr.work(in.Results[0], in.Results[0].Type)
		}
		at := 0
		for i, x := range in.Args {
			if pr.written[pr.a.find(x)] {
				at += x.Type.Shape[axis]
				continue
			}
			k, src, err := pr.part(x, in.Results[0].Type, axis, at)
			if err != nil {
				return err
			}
			var args []*plan.Buffer
			for _, v := range src {
				args = append(args, pr.buf[v])
			}
			args = append(args, out)
			tile(k, pr.be)
			pr.emit(k, "concat", args, in, fmt.Sprintf("%s part %d", in.Results[0], i))
			at += x.Type.Shape[axis]
		}
	}
	return nil
}

// part is the kernel that writes x into out from position at of an axis.
func (pr *program) part(x *ir.Value, out ir.Type, axis, at int) (*kern.Kernel, []*ir.Value, error) {
	var k *kern.Kernel
	var bufs []*ir.Value
	err := overSpace(pr.a, x.Type.Shape, func(e *emission) error {
		n, err := e.value(x, e.full)
		if err != nil {
			return err
		}
		idx := append([]kern.Index(nil), e.full...)
		idx[axis] = idx[axis].Plus(at)
		o := e.b.Buf("out", out.DType, out.Len(), kern.Out)
		e.b.Store(o, kern.Flat(out.Shape, idx), n)
		k, bufs = e.b.Done(), e.bufs
		collapse(k)
		return nil
	})
	return k, bufs, err
}

// copies stores updated values that could not be computed in place.
func (pr *program) copies() error {
	for _, up := range pr.a.f.Updates {
		src, dst := pr.buf[pr.a.find(up.Value)], pr.global(up.Global)
		if src == dst {
			continue
		}
		if src.Arena == plan.State {
			for _, other := range pr.a.f.Updates {
				if pr.glob[other.Global] == src {
					return fmt.Errorf("internal: update of @%s from @%s, which the same function updates", up.Global.Name, other.Global.Name)
				}
			}
		}
		b := kern.NewBuilder("")
		n := up.Global.Type.Len()
		v := b.Dim(n)
		x := b.Buf("", up.Global.Type.DType, n, kern.In)
		y := b.Buf("", up.Global.Type.DType, n, kern.Out)
		b.Store(y, kern.V(v), b.Load(x, kern.V(v)))
		k := b.Done()
		tile(k, pr.be)
		l := plan.Launch{Kernel: pr.lib.intern(k, "copy"), Args: []*plan.Buffer{src, dst}, Values: "@" + up.Global.Name}
		pr.p.Launches = append(pr.p.Launches, l)
	}
	return nil
}

// flops adds up the ops a unit computes.
func (pr *program) flops(u *unit) int64 {
	var n int64
	seen := map[*ir.Instr]bool{}
	var walk func(v *ir.Value)
	walk = func(v *ir.Value) {
		if s := pr.a.find(v); v.Def == nil || s != nil && !u.has[s] || seen[v.Def] {
			return
		}
		seen[v.Def] = true
		var ts, os []ir.Type
		for _, x := range v.Def.Args {
			ts = append(ts, x.Type)
			walk(x)
		}
		for _, r := range v.Def.Results {
			os = append(os, r.Type)
		}
		n += v.Def.Op.Cost(ts, os).FLOPs
	}
	for _, v := range u.outs {
		walk(v)
	}
	return n
}

// label names the kind of work of a unit after its main op and its outputs.
func label(u *unit) string {
	var names []string
	add := func(s string) {
		if len(names) < 3 && (len(names) == 0 || names[len(names)-1] != s) {
			names = append(names, s)
		}
	}
	for _, v := range u.outs {
		add(v.Def.Op.Name())
	}
	return strings.Join(names, "_")
}

func values(u *unit) string {
	var s []string
	for _, v := range u.outs {
		if u.stores(v) {
			s = append(s, v.String())
		}
	}
	return strings.Join(s, " ")
}

// lifetimes sets First and Last of every buffer.
func (pr *program) lifetimes() {
	n := len(pr.p.Launches)
	for _, b := range pr.p.Buffers {
		b.First, b.Last = n, -1
		if b.Arena == plan.State {
			b.First, b.Last = -1, n
		}
	}
	for i, l := range pr.p.Launches {
		for _, b := range l.Args {
			b.First, b.Last = min(b.First, i), max(b.Last, i)
		}
	}
	for _, b := range pr.p.Inputs {
		b.First, b.Last = -1, n
	}
	for _, o := range pr.p.Outputs {
		o.Buffer.Last = n
	}
}
