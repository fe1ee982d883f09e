package compiled

import (
	"fmt"
	"strings"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// variant is one sample, perhaps at another size or element type.
type variant struct {
	name string
	ops.Sample
}

// extents are those every op is tried at besides its samples' own: one, below,
// at and above a vector's width, and above four vectors.
var extents = []int{1, 7, 16, 33, 67}

// variants lists the samples of op, samples with another last extent where
// the type rule accepts it, and samples in 16-bit storage likewise.
func variants(op ops.Op) []variant {
	var out []variant
	seen := map[string]bool{}
	add := func(kind string, s ops.Sample) {
		if _, err := s.Op.Infer(s.Args); err != nil {
			return
		}
		key := ir.AttrString(s.Op)
		for i, a := range s.Args {
			key += " " + a.String()
			if i < len(s.Fill) {
				key += fmt.Sprint(s.Fill[i])
			}
		}
		if !seen[key] {
			seen[key] = true
			out = append(out, variant{fmt.Sprintf("%s/%d%s", op.Name(), len(out), kind), s})
		}
	}
	samples := op.Samples()
	for _, s := range samples {
		add("", s)
	}
	for _, e := range extents {
		if s, ok := resized(samples[len(samples)-1], e); ok {
			add(fmt.Sprintf("/last%d", e), s)
		}
	}
	for _, d := range []ir.DType{ir.F16, ir.BF16} {
		for i, s := range samples {
			if i == 0 || i > 2 {
				continue // 0 has one element
			}
			if s, ok := stored(s, d); ok {
				add("/"+d.String(), s)
			}
		}
	}
	return out
}

// resized gives every filled argument the last extent e.
func resized(s ops.Sample, e int) (ops.Sample, bool) {
	args := append([]ir.Type(nil), s.Args...)
	changed := false
	for i, a := range args {
		if a.Rank() == 0 || i < len(s.Fill) && s.Fill[i].Kind == "data" {
			continue
		}
		shape := append([]int(nil), a.Shape...)
		shape[len(shape)-1] = e
		args[i] = a.With(shape...)
		changed = true
	}
	s.Args = args
	return s, changed
}

// stored keeps the f32 arguments in d.
func stored(s ops.Sample, d ir.DType) (ops.Sample, bool) {
	args := append([]ir.Type(nil), s.Args...)
	changed := false
	for i, a := range args {
		if a.DType == ir.F32 {
			args[i] = ir.T(d, a.Shape...)
			changed = true
		}
	}
	s.Args = args
	return s, changed
}

func data(ts []*ir.Tensor) map[string][]float64 {
	m := map[string][]float64{}
	for i, t := range ts {
		m[argument(i)] = t.Data
	}
	return m
}

func argument(i int) string { return fmt.Sprintf("a%d", i) }

// forward has one function with v's op applied to inputs.
func forward(v variant) (*ir.Module, error) {
	m := ir.NewModule(v.name)
	f := m.NewFunc("f")
	in := inputs(f, v)
	for i, y := range f.Append(v.Op, in...) {
		switch {
		case y.Invalid():
		case i == 0 && aliases(v.Op):
			f.Update(in[0].Global, y)
		default:
			f.Result(fmt.Sprintf("y%d", i), y)
		}
	}
	return m, f.Err()
}

// aliases reports whether op overwrites its first argument, which then must be
// a stored tensor.
func aliases(op ops.Op) bool {
	a, ok := op.(ops.Aliaser)
	return ok && a.Aliases()
}

func inputs(f *ir.Func, v variant) []*ir.Value {
	var in []*ir.Value
	for i, t := range v.Args {
		if i == 0 && aliases(v.Op) {
			g := &ir.Global{Name: argument(i), Type: t, Role: ir.State}
			if err := f.Module.AddGlobal(g); err != nil {
				f.Errorf("%v", err)
			}
			in = append(in, f.Read(g))
			continue
		}
		in = append(in, f.Input(argument(i), t))
	}
	return in
}

// backward has one function with the gradients of the results' weighted sum.
func backward(v variant) (*ir.Module, error) {
	m := ir.NewModule(strings.ReplaceAll(v.name, "/", ".") + ".gradient")
	f := m.NewFunc("f")
	in := inputs(f, v)
	loss := ops.Scalar(f, 0)
	for i, y := range f.Append(v.Op, in...) {
		if !y.Invalid() && y.Type.DType.IsFloat() {
			w := f.Input(fmt.Sprintf("w%d", i), ir.T(ir.F32, y.Type.Shape...))
			loss = ops.Add(loss, ops.Sum(ops.Mul(ops.Cast(y, ir.F32), w)))
		}
	}
	var by []*ir.Value
	for _, x := range in {
		if x.Type.DType.IsFloat() {
			by = append(by, x)
		}
	}
	if f.Err() == nil {
		for i, g := range ops.Gradient(loss, by...) {
			f.Result("d"+by[i].Name, g)
		}
	}
	return m, f.Err()
}
