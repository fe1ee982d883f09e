package kernel

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops"
)

// maxSplits bounds how often loop variables are split to make an index affine.
const maxSplits = 24

// errShape says that a value computed by the unit is read at another index
// than the one the unit computes it at, so the units cannot be one kernel.
var errShape = errors.New("value is read at another index than it is computed at")

// space is the iteration space of a unit: the full shape, which of its axes
// are summed over, and how each axis is cut into loop variables.
type space struct {
	shape   []int
	reduced []bool
	parts   [][]int // extents per axis, outermost first
	kparts  [][]int // the same for the summed variables of a contraction
	owner   map[*kern.Var][3]int
}

func newSpace(shape []int, axes []int) *space {
	s := &space{shape: shape, reduced: make([]bool, len(shape))}
	for _, a := range axes {
		s.reduced[a] = true
	}
	for _, d := range shape {
		s.parts = append(s.parts, []int{d})
	}
	return s
}

// split reacts to a *kern.SplitError by cutting the variable; it reports
// whether it did, so that the caller tries again.
func (s *space) split(err error) bool {
	var se *kern.SplitError
	if !errors.As(err, &se) {
		return false
	}
	o, ok := s.owner[se.Var]
	if !ok {
		return false
	}
	table := s.parts
	if o[0] == 1 {
		table = s.kparts
	}
	p := table[o[1]]
	np := append([]int(nil), p[:o[2]]...)
	np = append(np, p[o[2]]/se.Inner, se.Inner)
	table[o[1]] = append(np, p[o[2]+1:]...)
	return true
}

// outerLen is the number of kept points; fullLen that of all points.
func (s *space) outerLen() int {
	n := 1
	for i, d := range s.shape {
		if !s.reduced[i] {
			n *= d
		}
	}
	return n
}

func (s *space) fullLen() int { return ir.Type{Shape: s.shape}.Len() }

func (s *space) reduces() bool {
	for _, r := range s.reduced {
		if r {
			return true
		}
	}
	return false
}

func (s *space) outerShape() []int {
	o := append([]int(nil), s.shape...)
	for i := range o {
		if s.reduced[i] {
			o[i] = 1
		}
	}
	return o
}

// emission writes one unit as a kernel.
type emission struct {
	a     *analysis
	u     *unit // nil in trial emissions
	sp    *space
	b     *kern.Builder
	full  []kern.Index // current point, one index per axis of the space
	outer []kern.Index // the same with reduced axes at 0
	done  map[*ir.Value]*kern.Node
	memo  map[string]*kern.Node
	bufs  []*ir.Value
	bufOf map[*ir.Value]int
}

// overSpace calls f with an emission over all points of shape, anew for every
// loop variable that must be split before its indices are affine. The error is
// that of f's last call.
func overSpace(a *analysis, shape []int, f func(e *emission) error) error {
	sp := newSpace(shape, nil)
	for try := 0; ; try++ {
		if err := f(newEmission(a, nil, sp)); try == maxSplits || !sp.split(err) {
			return err
		}
	}
}

func newEmission(a *analysis, u *unit, sp *space) *emission {
	e := &emission{a: a, u: u, sp: sp, b: kern.NewBuilder(""), done: map[*ir.Value]*kern.Node{}, memo: map[string]*kern.Node{}, bufOf: map[*ir.Value]int{}}
	sp.owner = map[*kern.Var][3]int{}
	e.full = make([]kern.Index, len(sp.shape))
	for d := range sp.shape {
		if sp.reduced[d] {
			continue
		}
		var vs []*kern.Var
		for i, n := range sp.parts[d] {
			v := e.b.Dim(n)
			sp.owner[v] = [3]int{0, d, i}
			vs = append(vs, v)
		}
		e.full[d] = join(vs)
	}
	e.outer = append([]kern.Index(nil), e.full...)
	return e
}

// join is the index that variables, outermost first, count through.
func join(vs []*kern.Var) kern.Index {
	var ix kern.Index
	stride := 1
	for i := len(vs) - 1; i >= 0; i-- {
		ix = ix.Add(kern.V(vs[i]).Scale(stride))
		stride *= vs[i].Extent
	}
	return ix
}

// buffer numbers the buffer of a stored value.
func (e *emission) buffer(v *ir.Value, m kern.Mode) int {
	if i, ok := e.bufOf[v]; ok {
		return i
	}
	i := e.b.Buf(v.String(), v.Type.DType, v.Type.Len(), m)
	e.bufOf[v] = i
	e.bufs = append(e.bufs, v)
	return i
}

// value emits element idx of v.
func (e *emission) value(v *ir.Value, idx []kern.Index) (*kern.Node, error) {
	s := e.a.find(v)
	if s != nil && !e.u.computes(s) {
		return e.b.Load(e.buffer(s, kern.In), kern.Flat(v.Type.Shape, idx)), nil
	}
	if v == s {
		if n := e.done[v]; n != nil {
			at := kern.Flat(v.Type.Shape, idx).String()
			if at == kern.Flat(e.sp.outerShape(), e.outer).String() && v.Type.Len() == e.sp.outerLen() {
				return n, nil
			}
			return nil, errShape
		}
		if _, ok := v.Def.Op.(ops.Inline); !ok {
			return nil, errShape // a reduction used before it is finished
		}
	}
	return e.inline(v, idx)
}

// inline emits element idx of v by its op.
func (e *emission) inline(v *ir.Value, idx []kern.Index) (*kern.Node, error) {
	var k strings.Builder
	fmt.Fprintf(&k, "%d", v.ID)
	for _, ix := range idx {
		k.WriteByte('|')
		k.WriteString(ix.String())
	}
	k.WriteString(e.b.GuardKey())
	key := k.String()
	if n := e.memo[key]; n != nil {
		return n, nil
	}
	in := v.Def
	types := make([]ir.Type, len(in.Args))
	for i, a := range in.Args {
		types[i] = a.Type
	}
	op, ok := in.Op.(ops.Inline)
	if !ok {
		return nil, fmt.Errorf("internal: %s: %s of %s is not stored", in.Pos, v, in.Op.Name())
	}
	n, err := op.Element(&ops.Emitter{B: e.b, Args: types, Out: v.Type,
		Arg: func(i int, at []kern.Index) (*kern.Node, error) { return e.value(in.Args[i], at) }}, idx)
	if err != nil {
		return nil, err
	}
	e.memo[key] = n
	return n, nil
}

// at is the index of v's element at the current full or outer point.
func (e *emission) at(v *ir.Value) ([]kern.Index, error) {
	if ir.SameShape(v.Type.Shape, e.sp.shape) {
		return e.full, nil
	}
	switch v.Type.Len() {
	case e.sp.fullLen():
		return kern.Unflatten(v.Type.Shape, kern.Flat(e.sp.shape, e.full))
	case e.sp.outerLen():
		return kern.Unflatten(v.Type.Shape, kern.Flat(e.sp.outerShape(), e.outer))
	}
	return nil, errShape
}

// output stores v's element at the current point.
func (e *emission) output(v *ir.Value) error {
	idx, err := e.at(v)
	if err != nil {
		return err
	}
	n := e.done[v]
	if n == nil {
		if n, err = e.inline(v, idx); err != nil {
			return err
		}
	}
	e.b.Store(e.buffer(v, kern.Out), kern.Flat(v.Type.Shape, idx), n)
	return nil
}
