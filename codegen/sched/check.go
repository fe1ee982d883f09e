package sched

import (
	"errors"
	"fmt"
	"sort"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// maxProblems bounds how many problems one check reports.
const maxProblems = 12

// Check proves that p's buffers are soundly placed, by following the launches
// and remembering which buffer wrote each byte of the work arena last.
//
// Each launch must find all bytes of what it reads as that buffer left them;
// its written buffers must overlap no other argument; inputs must be intact
// after the last launch, so that a program can be run again, and outputs must
// be complete. Sizes, alignment, arena bounds and the declared lifetimes are
// checked too. The error has one line per problem, with buffer names and launch
// numbers. It uses neither Place nor First and Last to find overlaps.
func Check(p *plan.Program) error {
	c := checker{p: p}
	c.bounds()
	if len(c.errs) > 0 {
		return c.err()
	}
	c.follow()
	c.lifetimes()
	return c.err()
}

type checker struct {
	p       *plan.Program
	errs    []error
	more    int
	segs    []segment // who wrote the work arena, sorted, disjoint
	written map[*plan.Buffer]bool
}

// segment is a range of the work arena last written by by, in launch at.
type segment struct {
	lo, hi int
	by     *plan.Buffer
	at     int
}

func (c *checker) problem(format string, args ...any) {
	if len(c.errs) == maxProblems {
		c.more++
		return
	}
	c.errs = append(c.errs, fmt.Errorf("internal: check: %s: %s", c.p.Name, fmt.Sprintf(format, args...)))
}

func (c *checker) err() error {
	if c.more > 0 {
		c.errs = append(c.errs, fmt.Errorf("internal: check: %s: and %d more", c.p.Name, c.more))
	}
	return errors.Join(c.errs...)
}

// bounds checks each buffer by itself and that launches use declared ones.
func (c *checker) bounds() {
	known := map[*plan.Buffer]bool{}
	for _, b := range c.p.Buffers {
		known[b] = true
		if b.Offset%64 != 0 {
			c.problem("buffer %s: offset %d is not a multiple of 64", b.Name, b.Offset)
		}
		if b.Bytes < b.Type.Bytes() {
			c.problem("buffer %s: %d bytes hold no %s, which needs %d", b.Name, b.Bytes, b.Type, b.Type.Bytes())
		}
		if b.Offset < 0 || b.Arena == plan.Work && b.Offset+b.Bytes > c.p.WorkBytes {
			c.problem("buffer %s: bytes %d to %d lie outside the work arena of %d", b.Name, b.Offset, b.Offset+b.Bytes, c.p.WorkBytes)
		}
	}
	for i, l := range c.p.Launches {
		if len(l.Args) != len(l.Kernel.Bufs) {
			c.problem("launch %d: kernel %s takes %d buffers, got %d", i, l.Kernel.Name, len(l.Kernel.Bufs), len(l.Args))
			continue
		}
		for j, b := range l.Args {
			kb := l.Kernel.Bufs[j]
			if !known[b] {
				c.problem("launch %d: kernel %s: argument %s is not among the program's buffers", i, l.Kernel.Name, b.Name)
			}
			if need := kb.Len * kb.DType.Size(); need > b.Bytes {
				c.problem("launch %d: kernel %s touches %d bytes of %s, buffer %s has %d", i, l.Kernel.Name, need, kb.Name, b.Name, b.Bytes)
			}
		}
	}
	for _, b := range c.p.Inputs {
		if !known[b] {
			c.problem("input %s is not among the program's buffers", b.Name)
		}
	}
	for _, o := range c.p.Outputs {
		if !known[o.Buffer] {
			c.problem("output %s: buffer %s is not among the program's buffers", o.Name, o.Buffer.Name)
		}
		if o.Type.DType != ir.Invalid && o.Type.Bytes() > o.Buffer.Bytes {
			c.problem("output %s: %s is more than the %d bytes of buffer %s", o.Name, o.Type, o.Buffer.Bytes, o.Buffer.Name)
		}
	}
}

// follow runs the program on segments instead of bytes.
func (c *checker) follow() {
	c.written = map[*plan.Buffer]bool{}
	inputs := map[*plan.Buffer]bool{}
	for _, b := range c.p.Inputs {
		inputs[b] = true
		c.write(b, -1)
	}
	for i, l := range c.p.Launches {
		for j, b := range l.Args {
			if l.Kernel.Bufs[j].Mode != kern.Out {
				c.read(b, i, fmt.Sprintf("launch %d (%s) reads", i, l.Kernel.Name))
			}
		}
		for j, b := range l.Args {
			if l.Kernel.Bufs[j].Mode == kern.In {
				continue
			}
			if inputs[b] {
				c.problem("launch %d (%s) writes the input %s, which belongs to the caller", i, l.Kernel.Name, b.Name)
			}
			for k, o := range l.Args {
				if k != j && b.Arena == o.Arena && b.Offset < o.Offset+o.Bytes && o.Offset < b.Offset+b.Bytes {
					c.problem("launch %d (%s): %s, which it writes, overlaps its argument %s", i, l.Kernel.Name, b.Name, o.Name)
				}
			}
			c.write(b, i)
		}
	}
	n := len(c.p.Launches)
	for _, b := range c.p.Inputs {
		c.read(b, n, "after the last launch, the input is")
	}
	for _, o := range c.p.Outputs {
		c.read(o.Buffer, n, fmt.Sprintf("output %s is", o.Name))
	}
}

// write makes b the writer of its bytes.
func (c *checker) write(b *plan.Buffer, at int) {
	c.written[b] = true
	if b.Arena != plan.Work || b.Bytes == 0 {
		return
	}
	lo, hi := b.Offset, b.Offset+b.Bytes
	i := sort.Search(len(c.segs), func(i int) bool { return c.segs[i].hi > lo })
	j := i
	var mid []segment
	for ; j < len(c.segs) && c.segs[j].lo < hi; j++ {
		if s := c.segs[j]; s.lo < lo {
			mid = append(mid, segment{s.lo, lo, s.by, s.at})
		}
	}
	mid = append(mid, segment{lo, hi, b, at})
	if j > i {
		if s := c.segs[j-1]; s.hi > hi {
			mid = append(mid, segment{hi, s.hi, s.by, s.at})
		}
	}
	tail := append(mid, c.segs[j:]...)
	c.segs = append(c.segs[:i:i], tail...)
}

// read checks that all of b's bytes were last written as b.
func (c *checker) read(b *plan.Buffer, at int, what string) {
	if b.Arena != plan.Work || b.Bytes == 0 {
		return
	}
	if !c.written[b] {
		c.problem("%s %s, which nothing has written", what, b.Name)
		return
	}
	lo, hi := b.Offset, b.Offset+b.Bytes
	for i := sort.Search(len(c.segs), func(i int) bool { return c.segs[i].hi > lo }); i < len(c.segs) && c.segs[i].lo < hi; i++ {
		if s := c.segs[i]; s.by != b {
			c.problem("%s %s, but launch %d wrote %s over its bytes %d to %d", what, b.Name, s.at, s.by.Name, max(lo, s.lo)-lo, min(hi, s.hi)-lo)
			return
		}
	}
}

// lifetimes compares the declared lifetimes with the launches.
func (c *checker) lifetimes() {
	first, last := uses(c.p)
	for _, b := range c.p.Buffers {
		if _, used := first[b]; !used || b.Arena != plan.Work {
			continue
		}
		if b.First > first[b] || b.Last < last[b] {
			c.problem("buffer %s is declared alive from launch %d to %d but used from %d to %d", b.Name, b.First, b.Last, first[b], last[b])
		}
	}
}

// uses are the first and the last launch that touch a buffer; -1 is before the
// first launch and their number after the last.
func uses(p *plan.Program) (first, last map[*plan.Buffer]int) {
	first, last = map[*plan.Buffer]int{}, map[*plan.Buffer]int{}
	touch := func(b *plan.Buffer, at int) {
		if _, seen := first[b]; !seen {
			first[b] = at
		}
		last[b] = at
	}
	for _, b := range p.Inputs {
		touch(b, -1)
	}
	for i, l := range p.Launches {
		for _, b := range l.Args {
			touch(b, i)
		}
	}
	for _, b := range p.Inputs {
		touch(b, len(p.Launches))
	}
	for _, o := range p.Outputs {
		touch(o.Buffer, len(p.Launches))
	}
	return first, last
}

// Alive are the bytes of the work arena that must be held during each launch, by
// what the launches touch, each buffer up to the next multiple of 64. The arena is
// no smaller than the largest.
func Alive(p *plan.Program) []int {
	alive := make([]int, len(p.Launches)+1)
	first, last := uses(p)
	for b, i := range first {
		if b.Arena != plan.Work {
			continue
		}
		size := (b.Bytes + 63) / 64 * 64
		alive[max(i, 0)] += size
		if last[b]+1 < len(alive) {
			alive[last[b]+1] -= size
		}
	}
	for i := 1; i < len(alive); i++ {
		alive[i] += alive[i-1]
	}
	return alive[:len(p.Launches)]
}

// CheckState proves that the globals of m are disjoint, aligned and inside the
// state arena, and that every program's state buffers lie where their global
// does.
func CheckState(m *plan.Model) error {
	var errs []error
	problem := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("internal: check: %s: %s", m.Name, fmt.Sprintf(format, args...)))
	}
	gs := append([]*plan.Global(nil), m.Globals...)
	sort.SliceStable(gs, func(i, j int) bool { return gs[i].Offset < gs[j].Offset })
	named := map[string]*plan.Global{}
	for i, g := range gs {
		if g.Offset%64 != 0 {
			problem("@%s: offset %d is not a multiple of 64", g.Name, g.Offset)
		}
		if g.Offset < 0 || g.Offset+g.Type.Bytes() > m.StateBytes {
			problem("@%s: bytes %d to %d lie outside the state arena of %d", g.Name, g.Offset, g.Offset+g.Type.Bytes(), m.StateBytes)
		}
		if i > 0 {
			if p := gs[i-1]; p.Offset+p.Type.Bytes() > g.Offset {
				problem("@%s and @%s overlap at byte %d", p.Name, g.Name, g.Offset)
			}
		}
		if named[g.Name] != nil {
			problem("@%s is placed twice", g.Name)
		}
		named[g.Name] = g
	}
	for _, p := range m.Programs {
		for _, b := range p.Buffers {
			if b.Arena != plan.State {
				continue
			}
			switch g := named[trimAt(b.Name)]; {
			case g == nil:
				problem("%s: state buffer %s is no global", p.Name, b.Name)
			case g.Offset != b.Offset || g.Type.Bytes() < b.Bytes:
				problem("%s: state buffer %s has %d bytes at %d, the global %d at %d", p.Name, b.Name, b.Bytes, b.Offset, g.Type.Bytes(), g.Offset)
			}
		}
	}
	return errors.Join(errs...)
}

func trimAt(name string) string {
	if len(name) > 0 && name[0] == '@' {
		return name[1:]
	}
	return name
}
