package ops

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir/kern"
)

// The float64 meaning of the attention templates. Unlike Ref they know no
// mask: what is allowed they read from the tables, as kernels do.

// layout is the geometry of a template's operands and their memory.
type layout struct {
	b, t, h, d, block int
	views             []kern.View
	bufs              [][]float64
}

func layoutOf(k *kern.Kernel, bufs [][]float64) layout {
	p := k.Template
	return layout{p.Int("B"), p.Int("T"), p.Int("H"), p.Int("D"), p.Int("block"), p.Views, bufs}
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

// partners lists, in order, what a block table pairs position i with.
func (l layout) partners(table []float64, i int) ([]int, error) {
	block := i / l.block
	var out []int
	for at, end := int(table[block]), int(table[block+1]); at < end; at += 2 {
		other, bits := int(table[at]), int(table[at+1])
		for c := 0; c < l.block; c++ {
			if bits != 0 && uint32(int32(table[bits+i%l.block]))>>c&1 == 0 {
				continue
			}
			j := other*l.block + c
			if j >= l.t {
				return nil, fmt.Errorf("internal: block table pairs %d with %d, past %d positions", i, j, l.t)
			}
			out = append(out, j)
		}
	}
	return out, nil
}

func (l layout) each(f func(b, i, h int) error) error {
	for b := 0; b < l.b; b++ {
		for h := 0; h < l.h; h++ {
			for i := 0; i < l.t; i++ {
				if err := f(b, i, h); err != nil {
					return err
				}
			}
		}
	}
	return nil
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
	return l.each(func(b, i, h int) error {
		keys, err := l.partners(l.list(table), i)
		*l.row(lse, b, h, i) = attend(l.vec(q, b, i, h), keys, kn.Template.F,
			func(j int) []float64 { return l.vec(k, b, j, h) }, func(j int) []float64 { return l.vec(v, b, j, h) }, l.vec(out, b, i, h))
		return err
	})
}

// pairGrad is p and ds of one pair, from the operands q k v do lse delta.
func (l layout) pairGrad(scale float64, b, h, i, j int) (p, ds float64) {
	p = math.Exp(scale*dot(l.vec(0, b, i, h), l.vec(1, b, j, h)) - *l.row(4, b, h, i))
	return p, p * (dot(l.vec(3, b, i, h), l.vec(2, b, j, h)) - *l.row(5, b, h, i))
}

func evalGradQ(kn *kern.Kernel, bufs [][]float64) error {
	l, scale := layoutOf(kn, bufs), kn.Template.F
	return l.each(func(b, i, h int) error {
		keys, err := l.partners(l.list(6), i)
		dq := l.vec(7, b, i, h)
		clear(dq)
		for _, j := range keys {
			_, ds := l.pairGrad(scale, b, h, i, j)
			axpy(dq, scale*ds, l.vec(1, b, j, h))
		}
		return err
	})
}

func evalGradKV(kn *kern.Kernel, bufs [][]float64) error {
	l, scale := layoutOf(kn, bufs), kn.Template.F
	return l.each(func(b, j, h int) error {
		queries, err := l.partners(l.list(6), j)
		dk, dv := l.vec(7, b, j, h), l.vec(8, b, j, h)
		clear(dk)
		clear(dv)
		for _, i := range queries {
			p, ds := l.pairGrad(scale, b, h, i, j)
			axpy(dk, scale*ds, l.vec(0, b, i, h))
			axpy(dv, p, l.vec(3, b, i, h))
		}
		return err
	})
}

func evalDecode(kn *kern.Kernel, bufs [][]float64) error {
	const q, k, v, pos, keys, out = 0, 1, 2, 3, 4, 5
	l := layoutOf(kn, bufs)
	at, list := int(l.list(pos)[0]), l.list(keys)
	if at < 0 || at >= l.t {
		return fmt.Errorf("internal: attention_decode at position %d of %d", at, l.t)
	}
	var allowed []int
	for i := int(list[at]); i < int(list[at+1]); i++ {
		allowed = append(allowed, int(list[i]))
	}
	for b := 0; b < l.b; b++ {
		for h := 0; h < l.h; h++ {
			attend(l.vec(q, b, 0, h), allowed, kn.Template.F,
				func(j int) []float64 { return l.vec(k, b, j, h) }, func(j int) []float64 { return l.vec(v, b, j, h) }, l.vec(out, b, 0, h))
		}
	}
	return nil
}
