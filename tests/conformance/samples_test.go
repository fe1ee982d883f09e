package conformance

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// eachOp runs f as a subtest for every op of the table.
func eachOp(t *testing.T, f func(t *testing.T, op ops.Op)) {
	for _, name := range ir.OpNames() {
		proto, _ := ir.LookupOp(name)
		op, ok := proto.(ops.Op)
		if !ok {
			t.Errorf("%s has no samples", name)
			continue
		}
		t.Run(name, func(t *testing.T) { f(t, op) })
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
			t.Run(fmt.Sprintf("%d%s", i, ir.AttrString(s.Op)), func(t *testing.T) { f(t, s, fill(s, i)) })
		}
	})
}

// fill makes the arguments of sample number i of an op: always the same ones,
// and exact in f32.
func fill(s ops.Sample, i int) []*ir.Tensor {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %d", s.Op.Name(), i)
	r := rand.New(rand.NewPCG(h.Sum64(), 1))
	args := make([]*ir.Tensor, len(s.Args))
	for a, t := range s.Args {
		var f ops.Fill
		if a < len(s.Fill) {
			f = s.Fill[a]
		}
		args[a] = ir.NewTensor(t)
		n := t.Len()
		perm := r.Perm(n)
		for e := range args[a].Data {
			var x float64
			switch f.Kind {
			case "", "normal":
				x = r.NormFloat64()
			case "positive":
				x = 0.1 + 2*r.Float64()
			case "index":
				x = float64(r.IntN(f.N))
			case "bool":
				x = float64(r.IntN(2))
			case "distinct":
				x = 0.04 * (float64(perm[e]-n/2) + 0.5)
			case "const":
				x = f.X
			case "data":
				x = f.Data[e]
			default:
				panic("unknown fill " + f.Kind)
			}
			if t.DType.IsFloat() {
				x = float64(float32(x))
			}
			args[a].Data[e] = x
		}
	}
	return args
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
