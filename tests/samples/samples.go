// Package samples fills the samples that ops give of themselves with numbers,
// for the suites that go through the op table: tests/conformance, which looks at
// the ops, and tests/compiled, which looks at their machine code. It checks
// nothing itself.
//
// Start at Ops and Fill.
package samples

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// Ops lists the op table. An op without samples is an error.
func Ops() ([]ops.Op, error) {
	var all []ops.Op
	for _, name := range ir.OpNames() {
		proto, _ := ir.LookupOp(name)
		op, ok := proto.(ops.Op)
		if !ok || len(op.Samples()) == 0 {
			return nil, fmt.Errorf("%s: no samples", name)
		}
		all = append(all, op)
	}
	return all, nil
}

// Fill makes the arguments of a sample: always the same ones for a name, and
// exact in their element types.
func Fill(name string, s ops.Sample) []*ir.Tensor {
	h := fnv.New64a()
	h.Write([]byte(name))
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
				panic(s.Op.Name() + ": unknown fill " + f.Kind)
			}
			args[a].Data[e] = rounded(t.DType, x)
		}
	}
	return args
}

// rounded is the number nearest to x that d has; d without signs gets |x|.
func rounded(d ir.DType, x float64) float64 {
	if d == ir.UE6M10 {
		x = math.Abs(x)
	}
	if f, ok := d.Format(); ok {
		return float64(f.Round(float32(x)))
	}
	if d == ir.F32 {
		return float64(float32(x))
	}
	return x
}
