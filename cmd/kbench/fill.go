package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/plan"
)

// contents are suitable bytes for a kernel's buffers, one slice each.
type contents struct{ data [][]byte }

// fill makes contents for the buffers of a kernel: normal numbers, random
// booleans, the constants it is launched with, and indices that stay inside
// what they index.
func fill(x *subject) (*contents, error) {
	rng := rand.New(rand.NewPCG(1, uint64(len(x.Name))))
	consts := map[string][]byte{}
	for _, g := range x.model.Globals {
		if len(g.Data) > 0 {
			consts["@"+g.Name] = g.Data
		}
	}
	launch := []plan.Launch{x.example}
	r := &plan.Ranges{Launches: launch, Known: plan.Constants(x.model, launch)}
	var wanted []*plan.Buffer
	seen := map[*plan.Buffer]bool{}
	indexing := plan.Indexing(x.Kernel)
	for i, b := range x.example.Args {
		if _, fixed := r.Known[b]; (x.Bufs[i].DType == ir.I32 || indexing[i]) && !fixed && !seen[b] {
			seen[b] = true
			wanted = append(wanted, b)
		}
	}
	if err := r.Solve(wanted); err != nil {
		return nil, err
	}
	c := &contents{}
	for i, b := range x.Bufs {
		data := make([]byte, b.Len*b.DType.Size())
		arg := x.example.Args[i]
		if d := consts[arg.Name]; d != nil && arg.Arena == plan.State {
			if len(d) != len(data) {
				return nil, fmt.Errorf("kernel %s: constant %s has %d bytes, its buffer %d", x.Name, arg.Name, len(d), len(data))
			}
			copy(data, d)
		} else {
			in, known := r.Known[arg]
			if !known {
				in = plan.Anything
			}
			random(data, b.DType, in, rng)
		}
		c.data = append(c.data, data)
	}
	return c, nil
}

// random fills data with elements of type d. in is the range of integers; floats are such integers too where
// it is known, and normal numbers elsewhere.
func random(data []byte, d ir.DType, in plan.Range, rng *rand.Rand) {
	for i := 0; i < len(data)/d.Size(); i++ {
		switch d {
		case ir.F32:
			x := rng.NormFloat64()
			if !in.Any {
				x = in.Lo + float64(rng.IntN(int(in.Hi-in.Lo)+1))
			}
			putF32(data[4*i:], x)
		case ir.F16, ir.E6M9, ir.UE6M10, ir.BF16:
			binary.LittleEndian.PutUint16(data[2*i:], sixteen(d, rng.NormFloat64()))
		case ir.I32:
			v := 0
			if !in.Any {
				v = int(in.Lo) + rng.IntN(int(in.Hi-in.Lo)+1)
			}
			binary.LittleEndian.PutUint32(data[4*i:], uint32(int32(v)))
		default:
			data[i] = byte(rng.IntN(2))
		}
	}
}

// sixteen rounds x towards zero to a 16-bit format; which numbers exactly is
// of no consequence here, only that they are ordinary ones.
func sixteen(d ir.DType, x float64) uint16 {
	sign, exponent, bias := uint16(0), uint(5), 15
	switch d {
	case ir.BF16:
		exponent, bias = 8, 127
	case ir.E6M9:
		exponent, bias = 6, 60
	case ir.UE6M10:
		exponent, bias = 6, 60
	}
	if math.Signbit(x) && d != ir.UE6M10 {
		sign = 1 << 15
	}
	m, e := math.Frexp(math.Abs(x)) // |x| = m * 2^e, m in [0.5, 1)
	mantissa := 15 - exponent
	if d == ir.UE6M10 {
		mantissa = 10
	}
	if m == 0 || e-1+bias <= 0 {
		return sign
	}
	return sign | uint16(e-1+bias)<<mantissa | uint16((2*m-1)*float64(int(1)<<mantissa))
}

func putF32(b []byte, x float64) {
	binary.LittleEndian.PutUint32(b, math.Float32bits(float32(x)))
}
