package compiled

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ops"
)

// orthogonal is a tensor of matrices to be orthogonalised.
type orthogonal struct {
	name    string
	b, n, r int
	eps     float64
	at      func(m, i, j int) float64 // elements
	data    []float64
	// exact says that Q must be the identity's first columns, and bad which matrix
	// has an element that is no number.
	exact bool
	bad   int
}

// orthogonals are matrices of the paper's size (on an emulated GPU smaller ones), and such as have
// dependent columns, or columns that are hardly there.
func orthogonals() []*orthogonal {
	r := rand.New(rand.NewPCG(1, 2))
	normal := func(_, _, _ int) float64 { return r.NormFloat64() }
	ones := func(_, i, _ int) float64 { return math.Sin(float64(i + 1)) }
	lowRank := func(_, i, j int) float64 {
		x := 0.0
		for k := range 5 {
			x += math.Sin(float64(7*i+k*k)) * math.Cos(float64(3*j+k))
		}
		return x
	}
	one := func(bad float64) func(m, i, j int) float64 {
		return func(m, i, j int) float64 {
			if m == 2 && i == 20 && j == 9 {
				return bad
			}
			return math.Sin(float64(3*i+1)*float64(j+2)) / float64(m+1)
		}
	}
	const eps = 1e-6
	// What follows the last two finds its scratch memory full of NaNs.
	out := []*orthogonal{
		{name: "number", b: 3, n: 90, r: 20, eps: eps, at: one(0.5)},
		{name: "NaN", b: 3, n: 90, r: 20, eps: eps, at: one(math.NaN()), bad: 2},
		{name: "infinity", b: 3, n: 90, r: 20, eps: eps, at: one(math.Inf(1)), bad: 2},
		{name: "square", b: 2, n: 33, r: 33, eps: eps, at: normal},
		{name: "one", b: 5, n: 1, r: 1, eps: eps, at: normal},
		{name: "batch", b: 3, n: 150, r: 20, eps: eps, at: normal},
		{name: "zeros", b: 2, n: 30, r: 12, eps: eps, at: func(_, _, _ int) float64 { return 0 }, exact: true},
		{name: "zeros alone", b: 1, n: 30, r: 12, at: func(_, _, _ int) float64 { return 0 }, exact: true},
		{name: "equal columns", b: 1, n: 60, r: 20, eps: eps, at: ones},
		{name: "equal columns alone", b: 1, n: 60, r: 20, at: ones},
		{name: "equal huge columns", b: 1, n: 60, r: 20, eps: eps, at: func(m, i, j int) float64 { return 3e38 * ones(m, i, j) }},
		{name: "low rank", b: 1, n: 90, r: 24, eps: eps, at: lowRank},
		{name: "nearly zero", b: 1, n: 90, r: 24, eps: eps, at: func(m, i, j int) float64 { return 1e-8 * lowRank(m, i, j) }},
		{name: "denormal", b: 1, n: 50, r: 9, at: func(m, i, j int) float64 { return 1e-40 * normal(m, i, j) }},
		{name: "of all sizes", b: 1, n: 50, r: 20, at: func(m, i, j int) float64 { return math.Ldexp(normal(m, i, j), 12*j-118) }},
		{name: "triangular", b: 1, n: 40, r: 17, at: func(_, i, j int) float64 { return float64(max(0, j+1-i)) * float64(1-2*(i&1)) }},
	}
	if Device() == "" {
		out = append(out, &orthogonal{name: "paper", b: 1, n: 3968, r: 112, eps: eps, at: normal},
			&orthogonal{name: "tall", b: 1, n: 8000, r: 30, eps: eps, at: normal},
			&orthogonal{name: "wide", b: 1, n: 420, r: 410, eps: eps, at: normal})
	}
	for _, c := range out {
		for i := range c.b * c.n * c.r {
			c.data = append(c.data, float64(float32(c.at(i/(c.n*c.r), i/c.r%c.n, i%c.r))))
		}
	}
	return out
}

// errors are how far matrix m of q is from orthonormal columns; from having all of p
// in their span; and from a triangular R without negative numbers on its diagonal.
// The last two are relative to the columns of p.
func (c *orthogonal) errors(q []float64, m int) (unit, span, triangle float64) {
	column := func(x []float64, j int) []float64 {
		out := make([]float64, c.n)
		for i := range out {
			out[i] = x[(m*c.n+i)*c.r+j]
		}
		return out
	}
	dot := func(x, y []float64) float64 {
		s := 0.0
		for i := range x {
			s += x[i] * y[i]
		}
		return s
	}
	var qs [][]float64
	for j := range c.r {
		qs = append(qs, column(q, j))
	}
	for j, x := range qs {
		for k, y := range qs[:j+1] {
			want := 0.0
			if k == j {
				want = 1
			}
			unit = max(unit, math.Abs(dot(x, y)-want))
		}
		p := column(c.data, j)
		p[j] += c.eps
		size := math.Sqrt(dot(p, p))
		if size == 0 {
			continue
		}
		rest := slices.Clone(p)
		for k, y := range qs {
			s := dot(p, y)
			for i := range rest {
				rest[i] -= s * y[i]
			}
			if k > j {
				triangle = max(triangle, math.Abs(s)/size)
			} else if k == j {
				triangle = max(triangle, -s/size)
			}
		}
		span = max(span, math.Sqrt(dot(rest, rest))/size)
	}
	return unit, span, triangle
}

// Also tests/conformance and TestCompiledOpsComputeTheReference try this op, against what it
// is defined to be. Here are matrices for which that can't be compared, since rounding
// decides, and what must hold for them all the same.
func TestOrthogonalizedColumnsAreOrthonormal(t *testing.T) {
	cases := orthogonals()
	b := NewBatch("orthogonal")
	for _, c := range cases {
		v := variant{name: c.name, Sample: ops.Sample{Op: ops.OrthogonalizeOp{Eps: c.eps}, Args: []ir.Type{ir.T(ir.F32, c.b, c.n, c.r)}}}
		m, err := forward(v)
		if err == nil {
			err = b.Add(true, m)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	spec, err := b.Compile()
	if err != nil {
		t.Fatal(err)
	}
	most := allowed("orthogonalize", ir.F32)
	for _, target := range Targets() {
		t.Run(target, func(t *testing.T) {
			results := map[string][]float64{}
			for _, threads := range threadCounts() {
				sys := open(t, spec, target, threads)
				for _, c := range cases {
					m, err := sys.Model(c.name)
					if err != nil {
						t.Fatal(err)
					}
					got, err := Call(m, "f", map[string][]float64{argument(0): c.data})
					if err != nil {
						t.Fatalf("%s: %v", c.name, err)
					}
					q := got["y0"]
					if first := results[c.name]; first == nil {
						results[c.name] = q
					} else if !slices.EqualFunc(q, first, func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) }) {
						t.Errorf("%s: other bits with %d threads", c.name, threads)
					}
				}
			}
			for _, c := range cases {
				q := results[c.name]
				for m := range c.b {
					one := q[m*c.n*c.r : (m+1)*c.n*c.r]
					if c.bad > 0 {
						if m == c.bad {
							if slices.ContainsFunc(one, func(x float64) bool { return !math.IsNaN(x) }) {
								t.Errorf("%s: not all of the result is NaN", c.name)
							}
						} else if !slices.Equal(one, results["number"][m*c.n*c.r:(m+1)*c.n*c.r]) {
							t.Errorf("%s: matrix %d is another than beside numbers", c.name, m)
						}
						continue
					}
					unit, span, triangle := c.errors(q, m)
					if !(unit <= most && span <= most && triangle <= most) {
						t.Errorf("%s: matrix %d: errors of columns %.2g, span %.2g, triangle %.2g, more than %.2g", c.name, m, unit, span, triangle, most)
					}
					if m == 0 {
						t.Logf("%s, %d x %d: errors of columns %.2g, span %.2g, triangle %.2g", c.name, c.n, c.r, unit, span, triangle)
					}
					for i, x := range one {
						if c.exact && x != truth(i/c.r == i%c.r) {
							t.Fatalf("%s: element %d,%d is %v", c.name, i/c.r, i%c.r, x)
						}
					}
				}
				switch c.name {
				case "one", "square", "batch", "paper", "tall", "of all sizes":
					typ := ir.T(ir.F32, c.b, c.n, c.r)
					want := ops.OrthogonalizeOp{Eps: c.eps}.Ref([]*ir.Tensor{{Type: typ, Data: c.data}}, []ir.Type{typ})[0]
					t.Logf("%s, %d x %d: error against float64 %.2g", c.name, c.n, c.r, errorOf(q, want.Data))
				}
			}
		})
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
