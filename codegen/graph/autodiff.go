package graph

import (
	"fmt"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// Autodiff replaces every gradient instruction by the reverse-mode derivative
// of its loss: the ops' VJPs applied in reverse order. Instructions made for
// one of the forward pass carry its source line and the backward side of its
// block.
func Autodiff(f *ir.Func) error {
	backward := map[*ir.Block]*ir.Block{}
	for {
		at := -1
		for i, in := range f.Body {
			if _, ok := in.Op.(ops.GradientOp); ok {
				at = i
				break
			}
		}
		if at < 0 {
			pass(f)
			return f.Err()
		}
		if err := expand(f, at, backward); err != nil {
			return err
		}
	}
}

func expand(f *ir.Func, at int, backward map[*ir.Block]*ir.Block) error {
	g, post := f.Body[at], append([]*ir.Instr(nil), f.Body[at+1:]...)
	f.Body = f.Body[:at:at]
	loss, wrt := g.Args[0], g.Args[1:]
	if loss.Type.Len() != 1 || loss.Type.DType != ir.F32 {
		return fmt.Errorf("%s: gradient: the loss must be one f32 number: %s is %s", g.Pos, loss, loss.Type)
	}

	// need[v]: some wanted parameter reaches v.
	need := make([]bool, f.NumValues())
	for _, v := range wrt {
		need[v.ID] = true
	}
	for _, in := range f.Body {
		for _, a := range in.Args {
			if need[a.ID] {
				for _, r := range in.Results {
					if r.Type.DType.IsFloat() {
						need[r.ID] = true
					}
				}
				break
			}
		}
	}

	grad := make([]*ir.Value, f.NumValues())
	fwd := f.Body
	f.At(g.Pos, func() { grad[loss.ID] = ops.Full(f, loss.Type, 1) })
	for i := len(fwd) - 1; i >= 0; i-- {
		in := fwd[i]
		gs := make([]*ir.Value, len(in.Results))
		any := false
		for j, r := range in.Results {
			gs[j] = grad[r.ID]
			any = any || gs[j] != nil && need[r.ID]
		}
		if !any {
			continue
		}
		f.At(in.Pos, func() {
			f.InBlock(mirror(in.Block, backward), func() {
				for j, d := range in.Op.VJP(in, gs) {
					if j >= len(in.Args) || d == nil || d.Invalid() || !need[in.Args[j].ID] {
						continue
					}
					a := in.Args[j]
					if !d.Type.Equal(a.Type) {
						f.Errorf("internal: autodiff: %s: gradient of argument %d (%s, %s) has type %s", in.Op.Name(), j, a, a.Type, d.Type)
						continue
					}
					if grad[a.ID] == nil {
						grad[a.ID] = d
					} else {
						grad[a.ID] = ops.Add(grad[a.ID], d)
					}
				}
			})
		})
		if err := f.Err(); err != nil {
			return err
		}
	}

	subst := map[*ir.Value]*ir.Value{}
	f.At(g.Pos, func() {
		for i, v := range wrt {
			d := grad[v.ID]
			if d == nil {
				d = ops.Full(f, v.Type, 0)
			}
			subst[g.Results[i]] = d
		}
	})
	f.Body = append(f.Body, post...)
	replace(f, subst)
	return f.Err()
}

// pass drops the ops that matter to gradients alone.
func pass(f *ir.Func) {
	subst := map[*ir.Value]*ir.Value{}
	body := f.Body[:0:0]
	for _, in := range f.Body {
		if p, ok := in.Op.(ops.Passer); ok && p.Passes() {
			subst[in.Results[0]] = in.Args[0]
			continue
		}
		body = append(body, in)
	}
	f.Body = body
	replace(f, subst)
}

func mirror(b *ir.Block, backward map[*ir.Block]*ir.Block) *ir.Block {
	if b == nil || b.Backward {
		return b
	}
	m := backward[b]
	if m == nil {
		m = &ir.Block{Name: b.Name, Resblock: b.Resblock, Backward: true}
		backward[b] = m
	}
	return m
}
