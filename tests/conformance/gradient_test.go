package conformance

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/interp"
	"github.com/gouache-ml/gouache/ops"
)

// TestGradientsAreDerivatives compares each VJP, executed in float64, with
// central differences of the reference: the loss is the sum of the results
// weighted at random, or of one of them if there are several.
func TestGradientsAreDerivatives(t *testing.T) {
	eachSample(t, func(t *testing.T, s ops.Sample, args []*ir.Tensor) {
		if s.NoGrad {
			return
		}
		outs, err := s.Op.Infer(s.Args)
		if err != nil {
			t.Fatal(err)
		}
		checkGradient(t, s, args, -1)
		for i := range outs {
			if len(outs) > 1 && outs[i].DType.IsFloat() {
				checkGradient(t, s, args, i)
			}
		}
	})
}

// checkGradient takes result alone of s for the loss, or all where alone is -1.
func checkGradient(t *testing.T, s ops.Sample, args []*ir.Tensor, alone int) {
	t.Helper()
	r := rand.New(rand.NewPCG(3, uint64(len(args))))
	f := ir.NewModule("m").NewFunc("f")
	inputs := map[string]*ir.Tensor{}
	var vs []*ir.Value
	for i, a := range args {
		v := f.Input(string(rune('a'+i)), a.Type)
		inputs[v.Name] = a
		vs = append(vs, v)
	}
	results := f.Append(s.Op, vs...)
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	in := f.Body[len(f.Body)-1]
	dys := make([]*ir.Value, len(results))
	weights := make([]*ir.Tensor, len(results))
	for i, y := range results {
		if !y.Type.DType.IsFloat() || alone >= 0 && i != alone {
			continue
		}
		dys[i] = f.Input("dy"+y.Name, y.Type)
		weights[i] = ir.NewTensor(y.Type)
		for e := range weights[i].Data {
			weights[i].Data[e] = r.NormFloat64()
		}
		inputs[dys[i].Name] = weights[i]
	}
	grads := s.Op.VJP(in, dys)
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	if len(grads) != len(args) {
		t.Fatalf("VJP gives %d gradients for %d arguments", len(grads), len(args))
	}
	for i, g := range grads {
		if g == nil {
			if alone < 0 && args[i].Type.DType.IsFloat() && !(s.Op.Name() == "mul" && i == 1) {
				t.Errorf("argument %d has no gradient", i)
			}
			continue
		}
		if !g.Type.Equal(args[i].Type) {
			t.Fatalf("gradient of argument %d is %s, the argument %s", i, g.Type, args[i].Type)
		}
		f.Result(vs[i].Name, g)
	}
	got, _, err := interp.Run(f, inputs, nil)
	if err != nil {
		t.Fatal(err)
	}
	loss := func() float64 {
		sum := 0.0
		for i, y := range reference(t, s, args) {
			if weights[i] == nil {
				continue
			}
			for e, x := range y.Data {
				sum += x * weights[i].Data[e]
			}
		}
		return sum
	}
	for i, g := range grads {
		if g == nil {
			continue
		}
		data := args[i].Data
		elements := r.Perm(len(data))
		if len(elements) > 40 {
			elements = elements[:40]
		}
		for _, e := range elements {
			const h = 1e-5
			old := data[e]
			data[e] = old + h
			up := loss()
			data[e] = old - h
			down := loss()
			data[e] = old
			want := (up - down) / (2 * h)
			if d := got[vs[i].Name].Data[e]; math.Abs(d-want) > 1e-6*math.Max(1, math.Abs(want)) {
				t.Fatalf("argument %d element %d: VJP %.9g, central difference %.9g", i, e, d, want)
			}
		}
	}
}
