package conformance

import (
	"fmt"
	"math"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/tests/samples"
)

// eachOp runs f as a subtest for every op of the table.
func eachOp(t *testing.T, f func(t *testing.T, op ops.Op)) {
	all, err := samples.Ops()
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range all {
		t.Run(op.Name(), func(t *testing.T) { f(t, op) })
	}
}

// eachSample runs f as a subtest for every sample of every op that can be
// executed, with its arguments filled.
func eachSample(t *testing.T, f func(t *testing.T, s ops.Sample, args []*ir.Tensor)) {
	eachOp(t, func(t *testing.T, op ops.Op) {
		if _, ok := op.(ops.Expanded); ok {
			return
		}
		for i, s := range op.Samples() {
			name := fmt.Sprintf("%s %d", op.Name(), i)
			t.Run(fmt.Sprintf("%d%s", i, ir.AttrString(s.Op)), func(t *testing.T) { f(t, s, samples.Fill(name, s)) })
		}
	})
}

func types(ts []*ir.Tensor) []ir.Type {
	out := make([]ir.Type, len(ts))
	for i, t := range ts {
		out[i] = t.Type
	}
	return out
}

// reference runs the type rule and Ref.
func reference(t *testing.T, s ops.Sample, args []*ir.Tensor) []*ir.Tensor {
	t.Helper()
	outs, err := s.Op.Infer(types(args))
	if err != nil {
		t.Fatal(err)
	}
	return s.Op.Ref(args, outs)
}

// same fails unless got equals want up to tol, relative to the larger of 1
// and the element.
func same(t *testing.T, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d elements, want %d", what, len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g == w || math.IsNaN(g) && math.IsNaN(w) {
			continue
		}
		if !(math.Abs(g-w) <= tol*math.Max(1, math.Abs(w))) {
			t.Fatalf("%s: element %d is %.12g, want %.12g", what, i, g, w)
		}
	}
}
