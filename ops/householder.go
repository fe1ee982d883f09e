package ops

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// householder is the template of OrthogonalizeOp: operands p and q, both f32 and
// dense [B,N,R], the integers B, N, R, and eps as F. What is said here about q
// holds for every code generator.
//
// Reflections are I - tau*v*v', with v[j] = 1 and zeros before it, and tau = 0
// where what is left of column j from row j on is 0, or less than 1e-15 of the
// column's largest element at the start, which is far below what rounding
// leaves of it. Their product is orthogonal whatever the matrix, which is what
// Gram-Schmidt lacks. A column may be multiplied by a positive number first:
// that changes its column of R and nothing of Q.
const householder = "householder"

func init() {
	ir.Register(OrthogonalizeOp{})
	kern.RegisterTemplate(householder, evalHouseholder)
}

// OrthogonalizeOp gives, for p f32[...,n,r] with n >= r, the q of the same type
// whose columns are orthonormal and span those of p + Eps*I (Eps on the diagonal
// of the upper r rows): the factor Q of p + Eps*I = Q*R with R upper triangular
// and no number below 0 on its diagonal. Leading dimensions are a batch.
//
// It is the orthogonalisation of PowerSGD as appendix E.2 of the paper has it: by
// Householder reflections instead of Gram-Schmidt, and with 1e-6*I added.
// Columns are orthonormal to a few roundings, also where those of p are
// dependent, or all 0: then it is the identity's first r columns.
//
// LAPACK leaves the sign of each column to the sign of a number on the diagonal
// that may be all rounding. With R's diagonal from 0 on, Q is the same
// whoever computes it, a smooth function of p while the columns of p + Eps*I are
// independent, and what Gram-Schmidt would give.
//
// Where an element of a matrix is NaN or infinite, all of its q is NaN.
type OrthogonalizeOp struct{ Eps float64 }

// Name is orthogonalize.
func (OrthogonalizeOp) Name() string { return "orthogonalize" }

// Infer gives the type of p.
func (op OrthogonalizeOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 1); err != nil {
		return nil, err
	}
	p := args[0]
	if p.DType != ir.F32 || p.Rank() < 2 {
		return nil, fmt.Errorf("wants f32 matrices [...,n,r]")
	}
	if _, n, r := matrices(p); n < r {
		return nil, fmt.Errorf("%d columns of %d elements cannot be orthogonal", r, n)
	}
	if !(op.Eps >= 0 && op.Eps <= 1) {
		return nil, fmt.Errorf("eps must be from 0 to 1, not %g", op.Eps)
	}
	return args[:1], nil
}

// matrices is how many there are in a tensor [...,n,r], and their size.
func matrices(t ir.Type) (b, n, r int) {
	s := t.Shape
	n, r = s[len(s)-2], s[len(s)-1]
	return t.Len() / (n * r), n, r
}

// Cost is that of the reduction to R and of forming Q.
func (OrthogonalizeOp) Cost(args, _ []ir.Type) ir.Cost {
	b, n, r := matrices(args[0])
	return ir.Cost{FLOPs: int64(b) * (4*int64(n)*int64(r)*int64(r) - 4*int64(r)*int64(r)*int64(r)/3)}
}

// Ref multiplies reflections out as they are defined, each with a vector of its
// own that is not scaled.
func (op OrthogonalizeOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	q := ir.NewTensor(outs[0])
	b, n, r := matrices(outs[0])
	for m := range b {
		p := args[0].Data[m*n*r : (m+1)*n*r]
		var a [][]float64 // columns
		finite := true
		for j := range r {
			a = append(a, make([]float64, n))
			for i := range n {
				a[j][i] = p[i*r+j]
				finite = finite && p[i*r+j]-p[i*r+j] == 0
			}
			a[j][j] += op.Eps
		}
		reflect := func(v, x []float64) {
			if s := dot(v, v); s > 0 {
				axpy(x, -2*dot(v, x)/s, v)
			}
		}
		vs := make([][]float64, r)
		qs := make([][]float64, r)
		for j := range r {
			v := make([]float64, n)
			copy(v[j:], a[j][j:])
			if s := math.Sqrt(dot(v, v)); v[j] < 0 {
				v[j] -= s
			} else {
				v[j] += s
			}
			for _, x := range a[j:] {
				reflect(v, x)
			}
			vs[j], qs[j] = v, make([]float64, n)
			qs[j][j] = 1
			if a[j][j] < 0 {
				qs[j][j] = -1
			}
		}
		for j := range r {
			for i := j; i >= 0; i-- {
				reflect(vs[i], qs[j])
			}
			for i, x := range qs[j] {
				if !finite {
					x = math.NaN()
				}
				q.Data[(m*n+i)*r+j] = x
			}
		}
	}
	return []*ir.Tensor{q}
}

// Kernel is the template householder.
func (op OrthogonalizeOp) Kernel(args, outs []ir.Type) *kern.Kernel {
	b, n, r := matrices(args[0])
	t := &kern.Template{Name: householder, F: op.Eps, Ints: []kern.Int{{Key: "B", Val: b}, {Key: "N", Val: n}, {Key: "R", Val: r}}}
	return &kern.Kernel{Name: householder, Template: t, Bufs: []kern.Buf{
		{Name: "p", DType: ir.F32, Len: args[0].Len(), Mode: kern.In}, {Name: "q", DType: ir.F32, Len: outs[0].Len(), Mode: kern.Out}}}
}

// VJP records that there is none.
func (OrthogonalizeOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return undifferentiable(in) }

// Samples covers one column, square matrices, sizes around a panel of columns and a
// vector, zeros, columns of very different size, and numbers that are none.
func (OrthogonalizeOp) Samples() []Sample {
	const eps = 1e-6
	sample := func(eps float64, fill Fill, shape ...int) Sample {
		return Sample{Op: OrthogonalizeOp{eps}, Args: []ir.Type{ir.T(ir.F32, shape...)}, Fill: []Fill{fill}, NoGrad: true}
	}
	data := func(n int, f func(i int) float64) Fill {
		d := Fill{Kind: "data"}
		for i := range n {
			d.Data = append(d.Data, f(i))
		}
		return d
	}
	// Apart from their sizes, the columns of this matrix are far from dependent.
	graded := data(9*5, func(i int) float64 {
		x := 0.3 * math.Sin(float64(3*i+1))
		if i/5 == i%5+1 {
			x++
		}
		return math.Ldexp(x, 60*(i%5)-122)
	})
	// What is left of the second column is less than a rounding, and exact.
	close := data(4*2, func(i int) float64 { return []float64{1, 1, 0, 0, 0, 0x1p-40, 0, 0}[i] })
	one := func(bad float64) Fill {
		return data(3*9*5, func(i int) float64 {
			if i == 9*5+23 {
				return bad
			}
			return math.Sin(float64(3*i+1)) + truth(i/5%9 == i%5)
		})
	}
	return []Sample{
		sample(eps, Fill{}, 1, 1), sample(eps, Fill{}, 7, 3), sample(eps, Fill{}, 67, 1), sample(eps, Fill{}, 12, 12), sample(0.5, Fill{}, 33, 8),
		sample(eps, Fill{Kind: "const"}, 21, 12), sample(0, Fill{Kind: "const"}, 9, 9), sample(0, graded, 9, 5), sample(0, close, 4, 2),
		sample(eps, one(math.NaN()), 3, 9, 5), sample(eps, one(math.Inf(-1)), 3, 9, 5), sample(eps, Fill{}, 3, 2, 130, 24), sample(eps, Fill{}, 2, 40, 19)}
}

// Orthogonalize is p, f32[...,n,r] with n >= r, with the r columns of each matrix
// made orthonormal by Householder reflections, after eps has been added to the
// diagonal: 1e-6 in the paper (appendix E.2). See OrthogonalizeOp for signs.
func Orthogonalize(p *ir.Value, eps float64) *ir.Value { return apply(OrthogonalizeOp{eps}, p) }

// evalHouseholder is the float64 meaning of the template. It works as LAPACK's
// dgeqr2 and dorg2r do, in the place of q: reflections are kept below the
// diagonal and become the columns of q from the last one on.
func evalHouseholder(k *kern.Kernel, bufs [][]float64) error {
	b, n, r := k.Template.Int("B"), k.Template.Int("N"), k.Template.Int("R")
	if n < r || len(bufs[0]) != b*n*r || len(bufs[1]) != b*n*r {
		return fmt.Errorf("internal: householder of %d matrices %d x %d on buffers of %d and %d elements", b, n, r, len(bufs[0]), len(bufs[1]))
	}
	copy(bufs[1], bufs[0])
	for m := range b {
		q := bufs[1][m*n*r : (m+1)*n*r]
		at := func(i, j int) *float64 { return &q[i*r+j] }
		bad := 0.0 // NaN where a number is none
		for _, x := range q {
			bad += 0 * x
		}
		tau, sign := make([]float64, r), make([]float64, r)
		// apply makes column c what reflection j makes of it.
		apply := func(j, c int) {
			w := *at(j, c)
			for i := j + 1; i < n; i++ {
				w += *at(i, j) * *at(i, c)
			}
			*at(j, c) -= tau[j] * w
			for i := j + 1; i < n; i++ {
				*at(i, c) -= tau[j] * w * *at(i, j)
			}
		}
		for j := range r {
			*at(j, j) += k.Template.F
		}
		for j := range r {
			alpha, norm := *at(j, j), 0.0
			for i := j; i < n; i++ {
				norm = math.Hypot(norm, *at(i, j))
			}
			beta := -math.Copysign(norm, alpha)
			if norm > 0 {
				tau[j] = (beta - alpha) / beta
				for i := j + 1; i < n; i++ {
					*at(i, j) /= alpha - beta
				}
			}
			sign[j] = 1 + bad
			if beta < 0 {
				sign[j] = -1 + bad
			}
			for c := j + 1; c < r; c++ {
				apply(j, c)
			}
		}
		for j := r - 1; j >= 0; j-- {
			for c := j + 1; c < r; c++ {
				apply(j, c)
			}
			for i := range n {
				switch {
				case i < j:
					*at(i, j) = 0 * sign[j]
				case i == j:
					*at(i, j) = (1 - tau[j]) * sign[j]
				default:
					*at(i, j) *= -tau[j] * sign[j]
				}
			}
		}
	}
	return nil
}
