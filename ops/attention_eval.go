package ops

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops/mask"
)

// The float64 meaning of the attention templates. Unlike Ref they know no
// mask: what is allowed they read from the tables, as kernels do.

// layout is the geometry of a template's operands and their memory.
type layout struct {
	b, t, h, d int
	views      []kern.View
	bufs       [][]float64
}

func layoutOf(k *kern.Kernel, bufs [][]float64) layout {
	p := k.Template
	return layout{p.Int("B"), p.Int("T"), p.Int("H"), p.Int("D"), p.Views, bufs}
}

// vec is a head's elements in operand op, [B,T,H,D].
func (l layout) vec(op, b, t, h int) []float64 {
	n := l.views[op].At(b, t, h)
	return l.bufs[l.views[op].Buf][n : n+l.d]
}

// row is an element of operand op, [B,H,T].
func (l layout) row(op, b, h, t int) *float64 {
	return &l.bufs[l.views[op].Buf][l.views[op].At(b, h, t)]
}

// list is operand op, of rank 1 or 0.
func (l layout) list(op int) []float64 { return l.bufs[l.views[op].Buf] }

func dot(x, y []float64) float64 {
	s := 0.0
	for i := range x {
		s += x[i] * y[i]
	}
	return s
}

func axpy(y []float64, a float64, x []float64) {
	for i := range x {
		y[i] += a * x[i]
	}
}

// keys lists what a block table allows each query.
func (l layout) keys(table []float64) ([][]int, error) {
	out := make([][]int, l.t)
	at := func(i int) int { return int(table[i]) }
	for b := 0; b < at(0); b++ {
		lanes := at(at(1+b) + 1)
		for e := at(1+b) + 2; e < at(2+b); e += mask.EntryWords {
			for c := 0; c < (at(e)+7)&^7; c++ {
				k := at(at(e+1) + c)
				for lane := at(e + 3); lane < at(e+4); lane++ {
					bits := at(e + 2)
					if bits != 0 && uint32(int32(at(bits+c/32*mask.Lanes+lane)))>>(c%32)&1 == 0 {
						continue
					}
					q := at(lanes + lane)
					if q >= l.t || k >= l.t {
						return nil, fmt.Errorf("internal: block table pairs %d with %d, past %d positions", q, k, l.t)
					}
					out[q] = append(out[q], k)
				}
			}
		}
	}
	return out, nil
}

func (l layout) each(f func(b, i, h int)) {
	for b := 0; b < l.b; b++ {
		for h := 0; h < l.h; h++ {
			for i := 0; i < l.t; i++ {
				f(b, i, h)
			}
		}
	}
}

// attend writes the attention of one query over the given keys.
func attend(q []float64, keys []int, scale float64, k, v func(j int) []float64, out []float64) (lse float64) {
	scores := make([]float64, len(keys))
	top := math.Inf(-1)
	for n, j := range keys {
		scores[n] = scale * dot(q, k(j))
		top = max(top, scores[n])
	}
	sum := 0.0
	clear(out)
	for n, j := range keys {
		p := math.Exp(scores[n] - top)
		sum += p
		axpy(out, p, v(j))
	}
	for i := range out {
		out[i] /= sum
	}
	return top + math.Log(sum)
}

func evalForward(kn *kern.Kernel, bufs [][]float64) error {
	const q, k, v, table, out, lse = 0, 1, 2, 3, 4, 5
	l := layoutOf(kn, bufs)
	keys, err := l.keys(l.list(table))
	if err != nil {
		return err
	}
	l.each(func(b, i, h int) {
		*l.row(lse, b, h, i) = attend(l.vec(q, b, i, h), keys[i], kn.Template.F,
			func(j int) []float64 { return l.vec(k, b, j, h) }, func(j int) []float64 { return l.vec(v, b, j, h) }, l.vec(out, b, i, h))
	})
	return nil
}

// pairGrad is p and ds of one pair, from the operands q k v do, lse and delta.
func (l layout) pairGrad(scale float64, b, h, i, j, delta int) (p, ds float64) {
	p = math.Exp(scale*dot(l.vec(0, b, i, h), l.vec(1, b, j, h)) - *l.row(5, b, h, i))
	return p, p * (dot(l.vec(3, b, i, h), l.vec(2, b, j, h)) - *l.row(delta, b, h, i))
}

func evalGrad(kn *kern.Kernel, bufs [][]float64) error {
	const q, k, do, given, table, dq, dk, dv, result = 0, 1, 3, 4, 6, 7, 8, 9, 10
	l, scale := layoutOf(kn, bufs), kn.Template.F
	keys, err := l.keys(l.list(table))
	if err != nil {
		return err
	}
	delta := given
	if len(l.views) > result {
		delta = result
		l.each(func(b, i, h int) {
			*l.row(delta, b, h, i) = dot(l.vec(do, b, i, h), l.vec(given, b, i, h)) // operand 4 is out
		})
	}
	l.each(func(b, i, h int) {
		for op := dq; op <= dv; op++ {
			clear(l.vec(op, b, i, h))
		}
	})
	l.each(func(b, i, h int) {
		for _, j := range keys[i] {
			p, ds := l.pairGrad(scale, b, h, i, j, delta)
			axpy(l.vec(dq, b, i, h), scale*ds, l.vec(k, b, j, h))
			axpy(l.vec(dk, b, j, h), scale*ds, l.vec(q, b, i, h))
			axpy(l.vec(dv, b, j, h), p, l.vec(do, b, i, h))
		}
	})
	return nil
}

func evalDecode(kn *kern.Kernel, bufs [][]float64) error {
	const q, k, v, pos, keys, from, out = 0, 1, 2, 3, 4, 5, 6
	l, prefix := layoutOf(kn, bufs), kn.Template.Int("prefix")
	at, list := int(l.list(pos)[0]), l.list(keys)
	if at < 0 || at >= l.t {
		return fmt.Errorf("internal: attention_decode at position %d of %d", at, l.t)
	}
	var allowed []int
	for i := int(list[at]); i < int(list[at+1]); i++ {
		allowed = append(allowed, int(list[i]))
	}
	for b := 0; b < l.b; b++ {
		other := l.bufs[l.views[from].Buf][l.views[from].At(b)]
		if other < 0 || int(other) >= l.b {
			return fmt.Errorf("internal: attention_decode of a prefix in stream %g of %d", other, l.b)
		}
		for h := 0; h < l.h; h++ {
			row := func(op, j int) []float64 {
				if j < prefix {
					return l.vec(op, int(other), j, h)
				}
				return l.vec(op, b, j, h)
			}
			attend(l.vec(q, b, 0, h), allowed, kn.Template.F,
				func(j int) []float64 { return row(k, j) }, func(j int) []float64 { return row(v, j) }, l.vec(out, b, 0, h))
		}
	}
	return nil
}
