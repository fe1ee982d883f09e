package graph

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// A scale is kept as its binary logarithm in thousandths, an integer: one
// clean update of a resblock multiplies its scale by 2^(1/1000), an overflow
// divides it by the square root of 2, and neither ever rounds.
const octave = 1000

// schedule says how scales move.
type schedule struct {
	start, least, most int
	grow               int // after so many clean updates in a row ...
	every              int // ... which are these
	drop               int // at an overflow
	window             int // updates after a drop in which no other one happens
}

// The paper's schedule (appendix D.1) for one device, and the customary one for
// the loss.
var schedules = map[ir.Scaling]schedule{
	ir.ResblockScaling: {start: 13 * octave, least: 7 * octave, most: 24 * octave, grow: 1, every: 1, drop: octave / 2, window: 125},
	ir.LossScaling:     {start: 16 * octave, least: 0, most: 24 * octave, grow: octave, every: 2000, drop: octave, window: 0},
}

// The stored tensors of the scales, one element for each.
const (
	scaleLevels  = "scale.levels"  // logarithms
	scaleApplied = "scale.applied" // what gradients are multiplied by
	scaleClean   = "scale.clean"   // updates since the last drop, or the last growth
)

// group is the part of a model that shares a scale.
type group struct {
	name   string
	block  *ir.Block // nil: all of it
	scale  *ir.Value
	params []*ir.Value // as the gradient instruction has them
}

// scaleGradients scales the gradients of a function that computes any: where
// they enter a resblock they are multiplied by its scale, where they leave it
// divided, and the scales follow from whether the gradients of the resblock's
// parameters are finite.
func scaleGradients(f *ir.Func) error {
	p := f.Module.Precision
	at := -1
	for i, in := range f.Body {
		if _, ok := in.Op.(ops.GradientOp); ok && at < 0 {
			at = i
		} else if ok && p.Scaling != ir.NoScaling {
			return fmt.Errorf("%s: a second gradient in %s; gradients of several losses can't be scaled", in.Pos, f.Name)
		}
	}
	if at < 0 || p.Scaling == ir.NoScaling {
		return nil
	}
	gradient := f.Body[at]
	var groups []*group
	switch p.Scaling {
	case ir.LossScaling:
		groups = []*group{{name: "loss", params: gradient.Args[1:]}}
	case ir.ResblockScaling:
		seen := map[*ir.Block]bool{}
		for _, in := range f.Body[:at] {
			if b := in.Block; b != nil && b.Resblock && !seen[b] {
				seen[b] = true
				groups = append(groups, &group{name: b.Name, block: b})
			}
		}
	}
	if len(groups) == 0 {
		return nil
	}
	s := schedules[p.Scaling]
	n := len(groups)
	applied := state(f, scaleApplied, ir.T(ir.F32, n), ir.Init{Kind: "const", Std: math.Exp2(float64(s.start) / octave)})
	body := f.Body
	f.Body = nil
	for i, g := range groups {
		f.At(gradient.Pos, func() { g.scale = ops.Reshape(ops.SliceAxis(applied, 0, i, i+1)) })
	}
	heads := f.Body
	f.Body = nil
	isParam := map[*ir.Value]bool{}
	for _, v := range gradient.Args[1:] {
		isParam[v] = true
	}
	if p.Scaling == ir.LossScaling {
		scaleLoss(f, body, gradient, groups[0], isParam)
	} else if err := scaleBlocks(f, body[:at], groups, isParam); err != nil {
		return err
	} else {
		f.Body = append(f.Body, body[at:]...)
	}
	f.Body = append(heads, f.Body...)
	moveScales(f, gradient, groups, s)
	return f.Err()
}

// scaleLoss multiplies the gradient of the loss, and divides those of the
// parameters.
func scaleLoss(f *ir.Func, body []*ir.Instr, gradient *ir.Instr, g *group, isParam map[*ir.Value]bool) {
	unscaled := map[*ir.Value]*ir.Value{}
	for _, in := range body {
		if in == gradient {
			f.At(in.Pos, func() { in.Args[0] = ops.GradScale(in.Args[0], g.scale) })
			f.Body = append(f.Body, in)
			unscaled = nil // what follows is the optimizer's
			continue
		}
		for i, v := range in.Args {
			if !isParam[v] || unscaled == nil {
				continue
			}
			if unscaled[v] == nil {
				f.At(in.Pos, func() { unscaled[v] = ops.GradUnscale(v, g.scale) })
			}
			in.Args[i] = unscaled[v]
		}
		f.Body = append(f.Body, in)
	}
}

// scaleBlocks puts the scales around the residual branches of resblocks
// (figure 4 of the paper).
func scaleBlocks(f *ir.Func, forward []*ir.Instr, groups []*group, isParam map[*ir.Value]bool) error {
	of := map[*ir.Block]*group{}
	for _, g := range groups {
		of[g.block] = g
	}
	sums, err := residualSums(f, forward, of)
	if err != nil {
		return err
	}
	inside := map[*ir.Block]map[*ir.Value]*ir.Value{} // what comes from outside, with its gradient divided
	for _, in := range forward {
		g := of[in.Block]
		if in.Block == nil || g == nil {
			f.Body = append(f.Body, in)
			continue
		}
		m := inside[in.Block]
		if m == nil {
			m = map[*ir.Value]*ir.Value{}
			inside[in.Block] = m
		}
		f.At(in.Pos, func() {
			f.InBlock(in.Block, func() {
				for i, v := range in.Args {
					switch branch, sum := sums[in]; {
					case v.Type.DType != ir.F32 || v.Def != nil && v.Def.Block == in.Block && !isParam[v]:
						if sum && i == branch {
							in.Args[i] = ops.GradScale(v, g.scale)
						}
						continue
					case sum && i != branch:
						continue // the identity path
					case isParam[v] && m[v] == nil:
						m[v] = ops.GradUnscale(v, g.scale)
						g.params = append(g.params, v)
					case m[v] == nil && (v.Global == nil || v.Global.Role == ir.Param):
						m[v] = ops.GradFilter(v, g.scale)
					}
					if m[v] != nil {
						in.Args[i] = m[v]
					}
				}
			})
		})
		f.Body = append(f.Body, in)
	}
	return f.Err()
}

// residualSums finds for every resblock the addition that ends it, and which
// of its operands is the branch; the other comes from outside.
func residualSums(f *ir.Func, forward []*ir.Instr, of map[*ir.Block]*group) (map[*ir.Instr]int, error) {
	leaves := map[*ir.Value]bool{} // read outside the block that computes it
	use := func(v *ir.Value, b *ir.Block) {
		if v.Def != nil && v.Def.Block != b {
			leaves[v] = true
		}
	}
	for _, in := range f.Body {
		for _, v := range in.Args {
			use(v, in.Block)
		}
	}
	for _, in := range forward {
		for _, v := range in.Args {
			use(v, in.Block)
		}
	}
	sums := map[*ir.Instr]int{}
	ends := map[*ir.Block]*ir.Instr{}
	for _, in := range forward {
		if in.Block == nil || of[in.Block] == nil {
			continue
		}
		for _, r := range in.Results {
			if !leaves[r] || !r.Type.DType.IsFloat() {
				continue
			}
			branch := -1
			if _, add := in.Op.(ops.AddOp); add {
				for i, v := range in.Args {
					outside := func(v *ir.Value) bool { return v.Def == nil || v.Def.Block != in.Block }
					if !outside(v) && outside(in.Args[1-i]) {
						branch = i
					}
				}
			}
			if branch < 0 || ends[in.Block] != nil {
				return nil, fmt.Errorf("%s: %s leaves resblock %s beside its residual sum, and its gradient would not be scaled; compute it outside, or choose another scaling", in.Pos, r, in.Block.Name)
			}
			sums[in], ends[in.Block] = branch, in
		}
	}
	for b, g := range of {
		if ends[b] == nil {
			return nil, fmt.Errorf("resblock %s has no residual sum to scale the gradient of", g.name)
		}
	}
	return sums, nil
}

// moveScales lets the scales grow or drop, and makes results of each group's
// gradient norm and of the logarithm of its scale.
func moveScales(f *ir.Func, gradient *ir.Instr, groups []*group, s schedule) {
	grad := map[*ir.Value]*ir.Value{}
	for i, v := range gradient.Args[1:] {
		grad[v] = gradient.Results[i]
	}
	n := len(groups)
	f.At(gradient.Pos, func() {
		f.InBlock(&ir.Block{Name: "scales"}, func() {
			levels := state(f, scaleLevels, ir.T(ir.I32, n), ir.Init{Kind: "const", Std: float64(s.start)})
			clean := state(f, scaleClean, ir.T(ir.I32, n), ir.Init{Kind: "const", Std: float64(s.window)})
			var squares []*ir.Value
			for i, g := range groups {
				sum := ops.Scalar(f, 0)
				for _, v := range g.params {
					square := ops.Square(grad[v])
					if square.Type.Rank() > 0 {
						square = ops.Sum(square)
					}
					sum = ops.Add(sum, square)
				}
				squares = append(squares, ops.Reshape(sum, 1))
				f.Result("grad_norm/"+g.name, ops.Sqrt(sum))
				f.Result("grad_scale/"+g.name, ops.MulConst(ops.Cast(ops.Reshape(ops.SliceAxis(levels, 0, i, i+1)), ir.F32), 1.0/octave))
			}
			finite := ops.Finite(ops.Concat(0, squares...))
			number := func(x int) *ir.Value { return ops.Full(f, levels.Type, float64(x)) }
			counted := ops.Add(clean, number(1))
			up, upClean := ops.Min(ops.Add(levels, number(s.grow)), number(s.most)), counted
			if s.every > 1 {
				due := ops.Le(number(s.every), counted)
				up, upClean = ops.Select(due, up, levels), ops.Select(due, number(0), counted)
			}
			down, downClean := ops.Max(ops.Sub(levels, number(s.drop)), number(s.least)), number(0)
			if s.window > 0 {
				may := ops.Le(number(s.window), clean)
				down, downClean = ops.Select(may, down, levels), ops.Select(may, number(0), counted)
			}
			next := ops.Select(finite, up, down)
			f.Update(levels.Global, next)
			f.Update(clean.Global, ops.Min(ops.Select(finite, upClean, downClean), number(1<<30)))
			f.Update(f.Module.Global(scaleApplied), power(next, f.Module.Precision.Exact))
		})
	})
}

// power is 2^(levels/octave), or the nearest power of two, by bits of the
// exponent: each product is exact.
func power(levels *ir.Value, exact bool) *ir.Value {
	f := levels.Func
	t := ir.T(ir.F32, levels.Type.Shape...)
	if exact {
		return ops.Exp(ops.MulConst(ops.Cast(levels, ir.F32), math.Ln2/octave))
	}
	number := func(x int) *ir.Value { return ops.Full(f, levels.Type, float64(x)) }
	rest := ops.Add(levels, number(octave/2))
	x := ops.Full(f, t, 1)
	for bit := 16; bit >= 1; bit /= 2 {
		has := ops.Le(number(bit*octave), rest)
		x = ops.Select(has, ops.MulConst(x, math.Exp2(float64(bit))), x)
		rest = ops.Select(has, ops.Sub(rest, number(bit*octave)), rest)
	}
	return x
}
