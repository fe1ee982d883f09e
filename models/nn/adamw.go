package nn

import (
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// AdamW holds the constants of the optimiser; what changes from step to step
// comes in as inputs of the function, see Update.
type AdamW struct {
	Beta1, Beta2 float64
	Eps          float64
	Decay        float64 // decoupled weight decay, on globals with Decay set
	// VarianceMax limits the second moment before it is used or stored
	// (appendix B.2 uses 5); 0 is no limit.
	VarianceMax float64
	// Moment1 and Moment2 are the storage types of the moments; Invalid
	// stands for f32. They apply to parameters of at least SmallSize
	// elements, as in the public 16-bit Adam kernel.
	Moment1, Moment2 ir.DType
}

// SmallSize is the number of elements below which moments stay f32.
const SmallSize = 8192

// Update ends a training function: it differentiates loss by every parameter
// the function reads and stores new parameters and moments (globals NAME.m and
// NAME.v). It declares these scalar f32 inputs:
//
//	lr       step size
//	clip     largest global gradient norm; 0 or less is no limit
//
// the scalar i32 input
//
//	update   number t of this update, counting from 1; skipped ones don't count
//
// and these results:
//
//	grad_norm  global norm of the gradient before clipping
//	skipped    1 when that is not finite: nothing is updated then; else 0
//
// New parameter: p - lr*(m*bias1/(sqrt(v*bias2)+eps) + decay*p), where bias is
// 1/(1-beta^t): the means start at zero.
func (c AdamW) Update(f *ir.Func, loss *ir.Value) {
	lr, clip, t := f.Input("lr", ir.T(ir.F32)), f.Input("clip", ir.T(ir.F32)), f.Input("update", ir.T(ir.I32))
	if loss.Invalid() {
		return
	}
	var params []*ir.Value
	for _, v := range f.Reads() {
		if v.Global.Role == ir.Param {
			params = append(params, v)
		}
	}
	grads := ops.Gradient(loss, params...)
	var norm *ir.Value
	f.Region("grad_norm", false, func() { norm = globalNorm(f, grads) })
	if norm.Invalid() {
		return
	}
	f.Region("optimizer", false, func() {
		one := ops.Scalar(f, 1)
		// NaN compares false, so it counts as not finite.
		finite := ops.Le(norm, ops.Scalar(f, 3e38))
		limited := ops.Min(one, ops.Div(clip, ops.Max(norm, ops.Scalar(f, 1e-30))))
		factor := ops.Select(ops.Lt(ops.Scalar(f, 0), clip), limited, one)
		f.Result("grad_norm", norm)
		f.Result("skipped", ops.Select(finite, ops.Scalar(f, 0), one))
		bias1, bias2 := bias(t, c.Beta1), bias(t, c.Beta2)
		for i, p := range params {
			c.update(f, p, ops.Mul(grads[i], factor), lr, bias1, bias2, finite)
		}
	})
}

// bias is 1/(1-beta^t). Written like that it would lose the digits in which
// beta^t differs from 1, a thousandth at beta 0.999; with u = tanh(-t*ln(beta)/2)
// it is (1+u)/2u, and keeps them all.
func bias(t *ir.Value, beta float64) *ir.Value {
	if beta == 0 {
		return ops.Scalar(t.Func, 1)
	}
	u := ops.Tanh(ops.MulConst(ops.Cast(t, ir.F32), -math.Log(beta)/2))
	return ops.Div(ops.AddConst(u, 1), ops.MulConst(u, 2))
}

func (c AdamW) update(f *ir.Func, p, g, lr, bias1, bias2, finite *ir.Value) {
	if p.Invalid() || g.Invalid() {
		return
	}
	m := moment(f, p.Global, ".m", ir.Moment1, c.Moment1)
	v := moment(f, p.Global, ".v", ir.Moment2, c.Moment2)
	if m.Invalid() || v.Invalid() {
		return
	}
	m32, v32, p32 := ops.Cast(m, ir.F32), ops.Cast(v, ir.F32), ops.Cast(p, ir.F32)
	m1 := ops.Add(ops.MulConst(m32, c.Beta1), ops.MulConst(g, 1-c.Beta1))
	v1 := ops.Add(ops.MulConst(v32, c.Beta2), ops.MulConst(ops.Square(g), 1-c.Beta2))
	if c.VarianceMax > 0 {
		v1 = ops.Min(v1, ops.Scalar(f, c.VarianceMax))
	}
	move := ops.Div(ops.Mul(m1, bias1), ops.AddConst(ops.Sqrt(ops.Mul(v1, bias2)), c.Eps))
	if p.Global.Decay && c.Decay > 0 {
		move = ops.Add(move, ops.MulConst(p32, c.Decay))
	}
	p1 := ops.Sub(p32, ops.Mul(move, lr))
	f.Update(p.Global, ops.Cast(ops.Select(finite, p1, p32), p.Type.DType))
	f.Update(m.Global, ops.Cast(ops.Select(finite, m1, m32), m.Type.DType))
	f.Update(v.Global, ops.Cast(ops.Select(finite, v1, v32), v.Type.DType))
}

func moment(f *ir.Func, p *ir.Global, suffix string, role ir.Role, d ir.DType) *ir.Value {
	if d == ir.Invalid || p.Type.Len() < SmallSize {
		d = ir.F32
	}
	return beside(f, p, suffix, role, ir.T(d, p.Type.Shape...), Zeros())
}

// beside reads the global that accompanies parameter p, declaring it at its
// first use.
func beside(f *ir.Func, p *ir.Global, suffix string, role ir.Role, t ir.Type, init ir.Init) *ir.Value {
	name := p.Name + suffix
	g := f.Module.Global(name)
	if g == nil {
		g = &ir.Global{Name: name, Type: t, Role: role, Init: init, Of: p, Pos: p.Pos}
		if err := f.Module.AddGlobal(g); err != nil {
			f.Errorf("%v", err)
		}
	}
	if !g.Type.Equal(t) || g.Role != role {
		f.Errorf("@%s is %s %s, declared at %s; here it is used as %s %s", name, g.Role, g.Type, g.Pos, role, t)
	}
	return f.Read(g)
}

// globalNorm is the square root of the sum of the squares of all elements.
func globalNorm(f *ir.Func, vs []*ir.Value) *ir.Value {
	sum := ops.Scalar(f, 0)
	for _, v := range vs {
		square := ops.Square(ops.Cast(v, ir.F32))
		if v.Type.Rank() > 0 {
			square = ops.Sum(square)
		}
		sum = ops.Add(sum, square)
	}
	return ops.Sqrt(sum)
}

// Averages adds the function "average" to m: it moves the average of every
// parameter (global NAME.avg, f32) towards the parameter,
//
//	avg = decay*avg + (1-decay)*p
//
// with the scalar f32 input decay; the first call passes 0, which copies.
// Functions read parameters, not
// averages; whoever samples from averages loads them in place of the
// parameters.
func Averages(m *ir.Module) *ir.Func {
	f := m.NewFunc("average")
	decay := f.Input("decay", ir.T(ir.F32))
	rest := ops.Sub(ops.Scalar(f, 1), decay)
	for _, g := range append([]*ir.Global(nil), m.Globals...) {
		if g.Role != ir.Param {
			continue
		}
		avg := beside(f, g, ".avg", ir.Average, ir.T(ir.F32, g.Type.Shape...), Zeros())
		p := ops.Cast(f.Read(g), ir.F32)
		f.Update(avg.Global, ops.Add(ops.Mul(avg, decay), ops.Mul(p, rest)))
	}
	return f
}
