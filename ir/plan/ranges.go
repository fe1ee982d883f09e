package plan

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// Range is the numbers from Lo to Hi, or any.
type Range struct {
	Lo, Hi float64
	Any    bool
}

// Anything is what nothing is known about.
var Anything = Range{Any: true}

func only(x float64) Range { return Range{Lo: x, Hi: x} }

func (a Range) union(b Range) Range {
	if a.Any || b.Any {
		return Anything
	}
	return Range{Lo: min(a.Lo, b.Lo), Hi: max(a.Hi, b.Hi)}
}

func (a Range) plus(b Range) Range {
	if a.Any || b.Any {
		return Anything
	}
	return Range{Lo: a.Lo + b.Lo, Hi: a.Hi + b.Hi}
}

// times is exact for products that don't overflow, which indices don't.
func (a Range) times(b Range) Range {
	if a.Any || b.Any {
		return Anything
	}
	p := []float64{a.Lo * b.Lo, a.Lo * b.Hi, a.Hi * b.Lo, a.Hi * b.Hi}
	return Range{Lo: slices.Min(p), Hi: slices.Max(p)}
}

// to applies a function that never falls.
func (a Range) to(f func(x float64) float64) Range {
	if a.Any {
		return a
	}
	return Range{Lo: f(a.Lo), Hi: f(a.Hi)}
}

// Ranges follows numbers through the launches of a program, to find contents
// of its index buffers for which no gather leaves its buffer.
type Ranges struct {
	Launches []Launch
	Known    map[*Buffer]Range // constants, and the contents being tried
}

// Limits are integers from From on that are less than Below.
type Limits struct{ From, Below int32 }

// InputRanges are the integers that inputs of p, a program of m, may hold, as far as that is limited. It fails where what
// some index is made of is beyond what can be followed.
func InputRanges(m *Model, p *Program) (map[*Buffer]Limits, error) {
	var launches []Launch
	for _, l := range p.Launches {
		if integers(l) {
			launches = append(launches, l)
		}
	}
	r := &Ranges{Launches: launches, Known: Constants(m, launches)}
	var wanted []*Buffer
	for _, b := range p.Inputs {
		if b.Type.DType == ir.I32 {
			wanted = append(wanted, b)
		}
	}
	if err := r.Solve(wanted); err != nil {
		return nil, err
	}
	out := map[*Buffer]Limits{}
	for _, b := range wanted {
		if x := r.Known[b]; x.Hi-x.Lo < most-1 {
			out[b] = Limits{int32(x.Lo), int32(x.Hi) + 1}
		}
	}
	return out, nil
}

// integers reports whether l reads or writes integers, or floats that are places.
func integers(l Launch) bool {
	found := l.Kernel.Template != nil
	for _, b := range l.Kernel.Bufs {
		found = found || b.DType == ir.I32
	}
	kern.Walk(l.Kernel.Body, func(n *kern.Node) { found = found || len(n.At.Ind) > 0 })
	return found
}

// Constants gives the ranges of constant integer tensors among the launches'
// buffers.
func Constants(m *Model, launches []Launch) map[*Buffer]Range {
	data := map[string][]byte{}
	for _, g := range m.Globals {
		if len(g.Data) > 0 && g.Type.DType == ir.I32 {
			data["@"+g.Name] = g.Data
		}
	}
	out := map[*Buffer]Range{}
	for _, l := range launches {
		for _, b := range l.Args {
			d := data[b.Name]
			if _, done := out[b]; done || d == nil || b.Arena != State {
				continue
			}
			x := only(float64(int32(binary.LittleEndian.Uint32(d))))
			for ; len(d) >= 4; d = d[4:] {
				x = x.union(only(float64(int32(binary.LittleEndian.Uint32(d)))))
			}
			out[b] = x
		}
	}
	return out
}

// most is how far from 0, and how far apart, contents are looked for. All such integers are
// exact in float32.
const most = 1 << 15

// Solve widens the range of every wanted buffer from {0} (or the first value
// that will do) as far as all gathers stay inside their buffers: upwards, or downwards where that is out. Scalars
// come first, such as positions: their range must not hang on a choice of tokens. Of buffers of one number each value
// is tried by itself where all together would leave a buffer, as everything made of one number is known exactly.
func (r *Ranges) Solve(wanted []*Buffer) error {
	wanted = slices.Clone(wanted)
	slices.SortStableFunc(wanted, func(a, b *Buffer) int { return cmp.Compare(a.Type.Rank(), b.Type.Rank()) })
	for _, b := range wanted {
		r.Known[b] = Range{}
	}
	first := r.check()
	for _, b := range wanted {
		if first == nil {
			break
		}
		for v := 1; v < most; v++ {
			r.Known[b] = only(float64(v))
			if err := r.check(); err == nil {
				first = nil
				break
			}
		}
	}
	if first != nil {
		return first
	}
	found := map[*Buffer]Range{}
	for _, b := range wanted {
		start := r.Known[b].Lo
		to := func(n int) Range { return Range{Lo: start, Hi: start + float64(n)} }
		up := r.farthest(b, to)
		if b.Type.DType == ir.I32 && b.Type.Len() == 1 {
			up = r.farther(b, start, up)
		}
		if up > 0 {
			found[b] = to(up)
		} else {
			down := r.farthest(b, func(n int) Range { return Range{Lo: start - float64(n), Hi: start} })
			found[b] = Range{Lo: start - float64(down), Hi: start}
		}
		r.Known[b] = found[b]
		if r.check() != nil { // of single numbers the largest stands for all
			r.Known[b] = only(found[b].Hi)
		}
	}
	for b, x := range found {
		r.Known[b] = x
	}
	return nil
}

// farthest finds the largest n below most for which everything stays inside with the contents of b in
// to(n), given that it does with those in to(0).
func (r *Ranges) farthest(b *Buffer, to func(n int) Range) int {
	good, bad := 0, most
	for good+1 < bad {
		mid := (good + bad) / 2
		r.Known[b] = to(mid)
		if r.check() == nil {
			good = mid
		} else {
			bad = mid
		}
	}
	return good
}

// farther goes on from n, one number after the other.
func (r *Ranges) farther(b *Buffer, start float64, n int) int {
	for ; n+1 < most; n++ {
		r.Known[b] = only(start + float64(n+1))
		if r.check() != nil {
			break
		}
	}
	return n
}

// check follows the ranges through all launches.
func (r *Ranges) check() error {
	now := map[*Buffer]Range{}
	written := map[*Buffer]bool{}
	for b, x := range r.Known {
		now[b] = x
	}
	for _, l := range r.Launches {
		if l.Kernel.Template != nil {
			if err := checkTemplate(l, now); err != nil {
				return err
			}
			continue
		}
		e := &bounds{k: l.Kernel, bufs: make([]Range, len(l.Args)), val: make([]Range, l.Kernel.NumNodes), stored: map[int]Range{}}
		for i, b := range l.Args {
			x, ok := now[b]
			if !ok {
				x = Anything
			}
			e.bufs[i] = x
		}
		if err := e.walk(l.Kernel.Body); err != nil {
			return err
		}
		for i, x := range e.stored {
			if b := l.Args[i]; written[b] {
				now[b] = now[b].union(x)
			} else {
				now[b], written[b] = x, true
			}
		}
	}
	return nil
}

// checkTemplate wants the position of attention_decode to be a row of its
// cache, and the streams of its prefixes to exist; the other integers of
// templates are constant tables.
func checkTemplate(l Launch, now map[*Buffer]Range) error {
	const pos, from = 3, 5
	t := l.Kernel.Template
	if t.Name != "attention_decode" {
		return nil
	}
	for _, o := range []struct {
		what       string
		view, most int
	}{{"position", pos, t.Int("T") - 1}, {"stream", from, t.Int("B") - 1}} {
		if x, ok := now[l.Args[t.Views[o.view].Buf]]; !ok || x.Any || x.Lo < 0 || x.Hi > float64(o.most) {
			return fmt.Errorf("kernel %s: %s outside 0..%d", l.Kernel.Name, o.what, o.most)
		}
	}
	return nil
}

// bounds is one kernel's numbers.
type bounds struct {
	k      *kern.Kernel
	bufs   []Range
	val    []Range // by Node.ID
	stored map[int]Range
}

func (e *bounds) index(ix kern.Index) Range {
	lo, hi, _ := ix.Range()
	out := Range{Lo: float64(lo), Hi: float64(hi)}
	for _, d := range ix.Ind {
		out = out.plus(e.val[d.Node.ID].times(only(float64(d.Coef))))
	}
	return out
}

// inside checks a gather: affine indices were checked when they were made.
func (e *bounds) inside(n *kern.Node) error {
	if len(n.At.Ind) == 0 {
		return nil
	}
	if x := e.index(n.At); x.Any || x.Lo < 0 || x.Hi >= float64(e.k.Bufs[n.Buf].Len) {
		return fmt.Errorf("kernel %s: no contents of its index buffers are known to keep %s #%d[%s] inside its %d elements", e.k.Name, n.Prim, n.Buf, n.At, e.k.Bufs[n.Buf].Len)
	}
	return nil
}

func (e *bounds) walk(body []*kern.Node) error {
	for _, n := range body {
		switch n.Prim {
		case kern.Load:
			if err := e.inside(n); err != nil {
				return err
			}
		case kern.Store:
			if err := e.inside(n); err != nil {
				return err
			}
			x := e.val[n.Args[0].ID]
			if old, ok := e.stored[n.Buf]; ok {
				x = x.union(old)
			}
			e.stored[n.Buf] = x
			continue
		case kern.Contract:
			for _, a := range n.Args {
				for _, l := range kern.Loads(a) {
					if err := e.inside(l); err != nil {
						return err
					}
				}
			}
		case kern.Loop:
			if err := e.walk(n.Body); err != nil {
				return err
			}
		}
		e.val[n.ID] = e.eval(n)
	}
	return nil
}

// eval bounds what n is. Rounding never turns an order round.
func (e *bounds) eval(n *kern.Node) Range {
	x := e.exact(n)
	switch n.Type {
	case ir.I32:
		if !x.Any && (x.Lo < math.MinInt32 || x.Hi > math.MaxInt32) {
			return Anything
		}
	case ir.F32:
		x = x.to(func(x float64) float64 { return float64(float32(x)) })
		if math.IsNaN(x.Lo) || math.IsNaN(x.Hi) {
			return Anything
		}
	case ir.Bool:
		if x.Any {
			return Range{Lo: 0, Hi: 1}
		}
	default:
		return Anything
	}
	return x
}

// truth is what is known of a comparison: that it is so, that it isn't, or neither.
func truth(yes, no bool) Range {
	switch {
	case yes:
		return only(1)
	case no:
		return only(0)
	}
	return Range{Lo: 0, Hi: 1}
}

// exact is eval before it rounds.
func (e *bounds) exact(n *kern.Node) Range {
	arg := func(i int) Range { return e.val[n.Args[i].ID] }
	both := func(f func(a, b Range) Range) Range {
		if a, b := arg(0), arg(1); !a.Any && !b.Any {
			return f(a, b)
		}
		return Anything
	}
	switch n.Prim {
	case kern.Const:
		if n.Type == ir.F32 {
			return only(n.F)
		}
		return only(float64(n.I))
	case kern.Pos:
		return e.index(n.At)
	case kern.Load:
		x := e.bufs[n.Buf]
		if len(n.Guards) > 0 {
			x = x.union(Range{})
		}
		return x
	case kern.Acc:
		l := n.Args[0]
		a := l.Accs[n.I]
		if a.Combine == kern.MaxOf {
			return e.val[a.Val.ID]
		}
		return e.val[a.Val.ID].times(only(float64(l.Vars[0].Extent)))
	case kern.Cast:
		if n.Type == ir.I32 {
			return arg(0).to(math.Trunc)
		}
		return arg(0)
	case kern.Floor:
		return arg(0).to(math.Floor)
	case kern.Neg:
		return arg(0).times(only(-1))
	case kern.Add:
		return arg(0).plus(arg(1))
	case kern.Sub:
		return arg(0).plus(arg(1).times(only(-1)))
	case kern.Mul:
		return arg(0).times(arg(1))
	case kern.Min:
		return both(func(a, b Range) Range { return Range{Lo: min(a.Lo, b.Lo), Hi: min(a.Hi, b.Hi)} })
	case kern.Max:
		return both(func(a, b Range) Range { return Range{Lo: max(a.Lo, b.Lo), Hi: max(a.Hi, b.Hi)} })
	case kern.Lt:
		return both(func(a, b Range) Range { return truth(a.Hi < b.Lo, a.Lo >= b.Hi) })
	case kern.Le:
		return both(func(a, b Range) Range { return truth(a.Hi <= b.Lo, a.Lo > b.Hi) })
	case kern.Eq:
		return both(func(a, b Range) Range { return truth(a.Lo == a.Hi && a == b, a.Hi < b.Lo || b.Hi < a.Lo) })
	case kern.Select:
		if c := arg(0); !c.Any && c.Lo == c.Hi {
			return arg(2 - int(c.Lo))
		}
		return arg(1).union(arg(2))
	}
	return Anything
}

// Indexing tells the float32 buffers of k whose elements are places in others.
func Indexing(k *kern.Kernel) map[int]bool {
	out := map[int]bool{}
	kern.Walk(k.Body, func(n *kern.Node) {
		for _, d := range n.At.Ind {
			for _, l := range kern.Loads(d.Node) {
				if l.Type == ir.F32 {
					out[l.Buf] = true
				}
			}
		}
	})
	return out
}
