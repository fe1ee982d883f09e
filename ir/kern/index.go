package kern

import (
	"fmt"
	"sort"
	"strings"
)

// Var is a loop variable running from 0 to Extent-1.
type Var struct {
	ID     int // unique in the kernel, in order of creation
	Extent int
}

// String is the text name.
func (v *Var) String() string { return fmt.Sprintf("i%d", v.ID) }

// Term is Coef*Var.
type Term struct {
	Var  *Var
	Coef int
}

// Indirect is Coef times an i32 scalar computed by the kernel (a gather).
type Indirect struct {
	Node *Node
	Coef int
}

// Index is an affine expression over loop variables, plus gathers.
type Index struct {
	Terms []Term // sorted by Var.ID, no zero coefficients
	Ind   []Indirect
	Const int
}

// C is a constant index.
func C(n int) Index { return Index{Const: n} }

// V is the index equal to a loop variable.
func V(v *Var) Index {
	if v.Extent == 1 {
		return Index{}
	}
	return Index{Terms: []Term{{v, 1}}}
}

// At is the index equal to an i32 scalar.
func At(n *Node) Index { return Index{Ind: []Indirect{{n, 1}}} }

// Add returns a+b.
func (a Index) Add(b Index) Index {
	out := Index{Const: a.Const + b.Const}
	i, j := 0, 0
	for i < len(a.Terms) || j < len(b.Terms) {
		switch {
		case j == len(b.Terms) || i < len(a.Terms) && a.Terms[i].Var.ID < b.Terms[j].Var.ID:
			out.Terms = append(out.Terms, a.Terms[i])
			i++
		case i == len(a.Terms) || b.Terms[j].Var.ID < a.Terms[i].Var.ID:
			out.Terms = append(out.Terms, b.Terms[j])
			j++
		default:
			if c := a.Terms[i].Coef + b.Terms[j].Coef; c != 0 {
				out.Terms = append(out.Terms, Term{a.Terms[i].Var, c})
			}
			i++
			j++
		}
	}
	for _, d := range append(append([]Indirect(nil), a.Ind...), b.Ind...) {
		merged := false
		for k := range out.Ind {
			if out.Ind[k].Node == d.Node {
				out.Ind[k].Coef += d.Coef
				merged = true
			}
		}
		if !merged {
			out.Ind = append(out.Ind, d)
		}
	}
	return out
}

// Scale returns a*k.
func (a Index) Scale(k int) Index {
	if k == 0 {
		return Index{}
	}
	out := Index{Const: a.Const * k}
	for _, t := range a.Terms {
		out.Terms = append(out.Terms, Term{t.Var, t.Coef * k})
	}
	for _, d := range a.Ind {
		out.Ind = append(out.Ind, Indirect{d.Node, d.Coef * k})
	}
	return out
}

// Plus returns a+n.
func (a Index) Plus(n int) Index { a.Const += n; return a }

// Range is the smallest and largest value over all loop variables; ok is false
// when a gather makes it unknown.
func (a Index) Range() (lo, hi int, ok bool) {
	lo, hi = a.Const, a.Const
	for _, t := range a.Terms {
		if d := t.Coef * (t.Var.Extent - 1); d < 0 {
			lo += d
		} else {
			hi += d
		}
	}
	return lo, hi, len(a.Ind) == 0
}

// Coef is the coefficient of v.
func (a Index) Coef(v *Var) int {
	for _, t := range a.Terms {
		if t.Var == v {
			return t.Coef
		}
	}
	return 0
}

// Runs reports whether a goes from element to element with v, and is a multiple
// of n wherever v is one, whatever the other variables and gathers are.
func (a Index) Runs(v *Var, n int) bool {
	ok := a.Coef(v) == 1 && a.Const%n == 0
	for _, t := range a.Terms {
		ok = ok && (t.Var == v || t.Coef%n == 0)
	}
	for _, d := range a.Ind {
		ok = ok && d.Coef%n == 0
	}
	return ok
}

// IsConst reports whether a has no variable part.
func (a Index) IsConst() bool { return len(a.Terms) == 0 && len(a.Ind) == 0 }

// SplitError says that an index can be divided only if loop variable Var is
// split into an outer variable and an inner one of extent Inner.
type SplitError struct {
	Var   *Var
	Inner int
}

func (e *SplitError) Error() string {
	return fmt.Sprintf("loop variable %s of extent %d must be split by %d", e.Var, e.Var.Extent, e.Inner)
}

// DivMod returns a/n and a%n when both are affine. When splitting a variable
// would make them so, the error is a *SplitError.
func (a Index) DivMod(n int) (q, r Index, err error) {
	if n == 1 {
		return a, Index{}, nil
	}
	for _, t := range a.Terms {
		if t.Coef%n == 0 {
			q.Terms = append(q.Terms, Term{t.Var, t.Coef / n})
		} else {
			r.Terms = append(r.Terms, t)
		}
	}
	for _, d := range a.Ind {
		if d.Coef%n != 0 {
			return q, r, fmt.Errorf("gathered index is not divisible by %d", n)
		}
		q.Ind = append(q.Ind, Indirect{d.Node, d.Coef / n})
	}
	q.Const = floorDiv(a.Const, n)
	r.Const = a.Const - q.Const*n
	lo, hi, _ := r.Range()
	if lo >= 0 && hi < n {
		return q, r, nil
	}
	// The remainder overflows: split the variable whose steps reach past n.
	for i := len(r.Terms) - 1; i >= 0; i-- {
		t := r.Terms[i]
		if t.Coef > 0 && n%t.Coef == 0 && t.Var.Extent > n/t.Coef && t.Var.Extent%(n/t.Coef) == 0 {
			return q, r, &SplitError{t.Var, n / t.Coef}
		}
	}
	return q, r, fmt.Errorf("index %s is not divisible by %d", a, n)
}

func floorDiv(a, n int) int {
	q := a / n
	if a%n != 0 && a < 0 {
		q--
	}
	return q
}

// String prints the text form, such as i0*64 + i1 + 3.
func (a Index) String() string {
	var s []string
	for _, t := range a.Terms {
		if t.Coef == 1 {
			s = append(s, t.Var.String())
		} else {
			s = append(s, fmt.Sprintf("%s*%d", t.Var, t.Coef))
		}
	}
	ind := append([]Indirect(nil), a.Ind...)
	sort.Slice(ind, func(i, j int) bool { return ind[i].Node.ID < ind[j].Node.ID })
	for _, d := range ind {
		s = append(s, fmt.Sprintf("%%%d*%d", d.Node.ID, d.Coef))
	}
	if a.Const != 0 || len(s) == 0 {
		s = append(s, fmt.Sprint(a.Const))
	}
	return strings.Join(s, " + ")
}

// Flat turns one index per dimension into an element offset in a row-major
// tensor of that shape.
func Flat(shape []int, idx []Index) Index {
	out := Index{}
	stride := 1
	for d := len(shape) - 1; d >= 0; d-- {
		out = out.Add(idx[d].Scale(stride))
		stride *= shape[d]
	}
	return out
}

// Unflatten is the inverse of Flat.
func Unflatten(shape []int, off Index) ([]Index, error) {
	out := make([]Index, len(shape))
	for d := len(shape) - 1; d >= 0; d-- {
		if d == 0 {
			out[0] = off
			break
		}
		q, r, err := off.DivMod(shape[d])
		if err != nil {
			return nil, err
		}
		out[d], off = r, q
	}
	return out, nil
}
