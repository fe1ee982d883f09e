package main

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// interval is a set of integers lo to hi; unknown means any.
type interval struct {
	lo, hi  int
	unknown bool
}

var anyInt = interval{unknown: true}

func (a interval) union(b interval) interval {
	if a.unknown || b.unknown {
		return anyInt
	}
	return interval{min(a.lo, b.lo), max(a.hi, b.hi), false}
}

func (a interval) plus(b interval) interval {
	if a.unknown || b.unknown {
		return anyInt
	}
	return interval{a.lo + b.lo, a.hi + b.hi, false}
}

// times is exact for products that don't overflow, which indices don't.
func (a interval) times(b interval) interval {
	if a.unknown || b.unknown {
		return anyInt
	}
	p := []int{a.lo * b.lo, a.lo * b.hi, a.hi * b.lo, a.hi * b.hi}
	out := interval{p[0], p[0], false}
	for _, x := range p[1:] {
		out.lo, out.hi = min(out.lo, x), max(out.hi, x)
	}
	return out
}

// ranges follows integers through the launches of a program, to find contents
// of its index buffers for which no gather leaves its buffer.
type ranges struct {
	launches []plan.Launch
	known    map[*plan.Buffer]interval // constants, and the contents being tried
}

// constants gives the ranges of constant integer tensors among the launches'
// buffers.
func constants(m *plan.Model, launches []plan.Launch) map[*plan.Buffer]interval {
	data := map[string][]byte{}
	for _, g := range m.Globals {
		if len(g.Data) > 0 && g.Type.DType == ir.I32 {
			data["@"+g.Name] = g.Data
		}
	}
	out := map[*plan.Buffer]interval{}
	for _, l := range launches {
		for _, b := range l.Args {
			d := data[b.Name]
			if _, done := out[b]; done || d == nil || b.Arena != plan.State {
				continue
			}
			x := interval{math.MaxInt32, math.MinInt32, false}
			for ; len(d) >= 4; d = d[4:] {
				v := int(int32(binary.LittleEndian.Uint32(d)))
				x.lo, x.hi = min(x.lo, v), max(x.hi, v)
			}
			out[b] = x
		}
	}
	return out
}

// most is how far from 0, and how far apart, contents are looked for. All such integers are
// exact in float32.
const most = 1 << 15

// solve widens the range of every wanted buffer from {0} (or the first value
// that will do) as far as all gathers stay inside their buffers: upwards, or downwards where that is out.
func (r *ranges) solve(wanted []*plan.Buffer) error {
	for _, b := range wanted {
		r.known[b] = interval{}
	}
	first := r.check()
	for _, b := range wanted {
		if first == nil {
			break
		}
		for v := 1; v < most; v++ {
			r.known[b] = interval{v, v, false}
			if err := r.check(); err == nil {
				first = nil
				break
			}
		}
	}
	if first != nil {
		return first
	}
	for _, b := range wanted {
		start := r.known[b].lo
		up := r.farthest(b, func(n int) interval { return interval{start, start + n, false} })
		r.known[b] = interval{start, start + up, false}
		if up == 0 {
			down := r.farthest(b, func(n int) interval { return interval{start - n, start, false} })
			r.known[b] = interval{start - down, start, false}
		}
	}
	return nil
}

// farthest finds the largest n below most for which everything stays inside with the contents of b in
// to(n), given that it does with those in to(0).
func (r *ranges) farthest(b *plan.Buffer, to func(n int) interval) int {
	good, bad := 0, most
	for good+1 < bad {
		mid := (good + bad) / 2
		r.known[b] = to(mid)
		if r.check() == nil {
			good = mid
		} else {
			bad = mid
		}
	}
	return good
}

// check follows the ranges through all launches.
func (r *ranges) check() error {
	now := map[*plan.Buffer]interval{}
	written := map[*plan.Buffer]bool{}
	for b, x := range r.known {
		now[b] = x
	}
	for _, l := range r.launches {
		if l.Kernel.Template != nil {
			if err := checkTemplate(l, now); err != nil {
				return err
			}
			continue
		}
		e := &bounds{k: l.Kernel, bufs: make([]interval, len(l.Args)), val: map[*kern.Node]interval{}, stored: map[int]interval{}}
		for i, b := range l.Args {
			x, ok := now[b]
			if !ok {
				x = anyInt
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
func checkTemplate(l plan.Launch, now map[*plan.Buffer]interval) error {
	const pos, from = 3, 5
	t := l.Kernel.Template
	if t.Name != "attention_decode" {
		return nil
	}
	for _, o := range []struct {
		what       string
		view, most int
	}{{"position", pos, t.Int("T") - 1}, {"stream", from, t.Int("B") - 1}} {
		if x, ok := now[l.Args[t.Views[o.view].Buf]]; !ok || x.unknown || x.lo < 0 || x.hi > o.most {
			return fmt.Errorf("kernel %s: %s outside 0..%d", l.Kernel.Name, o.what, o.most)
		}
	}
	return nil
}

// bounds is one kernel's integers.
type bounds struct {
	k      *kern.Kernel
	bufs   []interval
	val    map[*kern.Node]interval
	stored map[int]interval
}

func (e *bounds) index(ix kern.Index) interval {
	lo, hi, _ := ix.Range()
	out := interval{lo, hi, false}
	for _, d := range ix.Ind {
		out = out.plus(e.val[d.Node].times(interval{d.Coef, d.Coef, false}))
	}
	return out
}

// inside checks a gather: affine indices were checked when they were made.
func (e *bounds) inside(n *kern.Node) error {
	if len(n.At.Ind) == 0 {
		return nil
	}
	if x := e.index(n.At); x.unknown || x.lo < 0 || x.hi >= e.k.Bufs[n.Buf].Len {
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
			x := e.val[n.Args[0]]
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
		e.val[n] = e.eval(n)
	}
	return nil
}

// eval bounds what n is. Floats count as far as they are integers, such as the places in a list of rows.
func (e *bounds) eval(n *kern.Node) interval {
	switch n.Type {
	case ir.I32:
	case ir.F32:
		x := e.integer(n)
		if x.unknown || x.lo < -(1<<24) || x.hi > 1<<24 { // beyond that float32 rounds
			return anyInt
		}
		return x
	case ir.Bool:
		return interval{0, 1, false}
	default:
		return anyInt
	}
	return e.integer(n)
}

func (e *bounds) integer(n *kern.Node) interval {
	arg := func(i int) interval { return e.val[n.Args[i]] }
	minus := interval{-1, -1, false}
	switch n.Prim {
	case kern.Const:
		if n.Type == ir.F32 {
			if n.F != math.Trunc(n.F) || math.IsInf(n.F, 0) {
				return anyInt
			}
			return interval{int(n.F), int(n.F), false}
		}
		return interval{int(n.I), int(n.I), false}
	case kern.Pos:
		return e.index(n.At)
	case kern.Load:
		x := e.bufs[n.Buf]
		if len(n.Guards) > 0 {
			x = x.union(interval{})
		}
		return x
	case kern.Acc:
		l := n.Args[0]
		a := l.Accs[n.I]
		if a.Combine == kern.MaxOf {
			return e.val[a.Val]
		}
		return e.val[a.Val].times(interval{l.Vars[0].Extent, l.Vars[0].Extent, false})
	case kern.Cast:
		return arg(0)
	case kern.Neg:
		return arg(0).times(minus)
	case kern.Add:
		return arg(0).plus(arg(1))
	case kern.Sub:
		return arg(0).plus(arg(1).times(minus))
	case kern.Mul:
		return arg(0).times(arg(1))
	case kern.Min, kern.Max:
		a, b := arg(0), arg(1)
		if a.unknown || b.unknown {
			return anyInt
		}
		if n.Prim == kern.Min {
			return interval{min(a.lo, b.lo), min(a.hi, b.hi), false}
		}
		return interval{max(a.lo, b.lo), max(a.hi, b.hi), false}
	case kern.Select:
		return arg(1).union(arg(2))
	}
	return anyInt
}
