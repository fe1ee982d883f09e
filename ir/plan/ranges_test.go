package plan

import (
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// embedding gathers rows shift+id of a table of 20 rows of 8.
func embedding(shift int) (*kern.Kernel, []*Buffer) {
	b := kern.NewBuilder("embedding")
	i, j := b.Dim(5), b.Dim(8)
	ids, table, out := b.Buf("", ir.I32, 5, kern.In), b.Buf("", ir.F32, 160, kern.In), b.Buf("", ir.F32, 40, kern.Out)
	id := b.Op(kern.Add, b.Load(ids, kern.V(i)), b.I(shift))
	b.Store(out, kern.V(i).Scale(8).Add(kern.V(j)), b.Load(table, kern.At(id).Scale(8).Add(kern.V(j))))
	k := b.Done()
	var bufs []*Buffer
	for range k.Bufs {
		bufs = append(bufs, &Buffer{Arena: Work})
	}
	return k, bufs
}

func TestIndicesFillTheirTable(t *testing.T) {
	for _, c := range []struct{ shift, lo, hi int }{{0, 0, 19}, {7, 0, 12}, {-3, 3, 22}} {
		k, bufs := embedding(c.shift)
		r := &Ranges{Launches: []Launch{{Kernel: k, Args: bufs}}, Known: map[*Buffer]Range{}}
		if err := r.Solve(bufs[:1]); err != nil {
			t.Fatal(err)
		}
		if got, want := r.Known[bufs[0]], (Range{Lo: float64(c.lo), Hi: float64(c.hi)}); got != want {
			t.Errorf("shift %d: indices %v, want %v", c.shift, got, want)
		}
	}
}

func TestIndicesAreFollowedThroughLaunches(t *testing.T) {
	b := kern.NewBuilder("double")
	i := b.Dim(5)
	x, y := b.Buf("", ir.I32, 5, kern.In), b.Buf("", ir.I32, 5, kern.Out)
	b.Store(y, kern.V(i), b.Op(kern.Mul, b.Load(x, kern.V(i)), b.I(2)))
	double := b.Done()
	k, bufs := embedding(0)
	in := &Buffer{Arena: Work}
	r := &Ranges{Launches: []Launch{{Kernel: double, Args: []*Buffer{in, bufs[0]}}, {Kernel: k, Args: bufs}}, Known: map[*Buffer]Range{}}
	if err := r.Solve([]*Buffer{in}); err != nil {
		t.Fatal(err)
	}
	if got := r.Known[in]; got.Lo != 0 || got.Hi != 9 {
		t.Errorf("indices %v, want 0..9", got)
	}
	// An index nobody gives is an error, not a fault in the kernel.
	r = &Ranges{Launches: r.Launches[1:], Known: map[*Buffer]Range{}}
	if err := r.Solve(nil); err == nil {
		t.Error("a gather with unknown indices was accepted")
	}
}

// The gradient of a long table is a list of rows, and a row's place in it a float: the negated largest of
// negated positions.
func TestIndicesMayBeFloats(t *testing.T) {
	b := kern.NewBuilder("place")
	i := b.Dim(5)
	x, y := b.Buf("", ir.F32, 5, kern.In), b.Buf("", ir.I32, 5, kern.Out)
	b.Store(y, kern.V(i), b.Cast(ir.I32, b.Op(kern.Neg, b.Load(x, kern.V(i)))))
	place := b.Done()
	k, bufs := embedding(0)
	in := &Buffer{Arena: Work, Type: ir.Type{DType: ir.F32}}
	launches := []Launch{{Kernel: place, Args: []*Buffer{in, bufs[0]}}, {Kernel: k, Args: bufs}}
	r := &Ranges{Launches: launches, Known: map[*Buffer]Range{}}
	if err := r.Solve([]*Buffer{in}); err != nil {
		t.Fatal(err)
	}
	if got, want := r.Known[in], (Range{Lo: -19}); got != want {
		t.Errorf("places %v, want %v", got, want)
	}

	b = kern.NewBuilder("rank")
	i = b.Dim(5)
	ids, out := b.Buf("", ir.I32, 20, kern.In), b.Buf("", ir.F32, 5, kern.Out)
	largest, err := b.For(20, []kern.Combine{kern.MaxOf}, func(v *kern.Var) ([]*kern.Node, error) {
		here := b.Op(kern.Eq, b.Load(ids, kern.V(v)), b.Pos(kern.V(i)))
		at := b.Op(kern.Neg, b.Cast(ir.F32, b.Pos(kern.V(v))))
		return []*kern.Node{b.Op(kern.Select, here, at, b.F(-19))}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Store(out, kern.V(i), largest[0])
	rank := b.Done()
	rows := &Buffer{Arena: Work, Type: ir.Type{DType: ir.I32}}
	r = &Ranges{Launches: append([]Launch{{Kernel: rank, Args: []*Buffer{rows, in}}}, launches...), Known: map[*Buffer]Range{rows: {Hi: 4}}}
	if err := r.check(); err != nil {
		t.Error(err)
	}
	r.Launches[2].Kernel, _ = embedding(1)
	if err := r.check(); err == nil {
		t.Error("a place beyond the table was accepted")
	}

	if got := Indexing(place); len(got) != 0 {
		t.Errorf("float buffers %v of a kernel without gathers are taken for indices", got)
	}
	b = kern.NewBuilder("gather")
	i = b.Dim(5)
	at, table, to := b.Buf("", ir.F32, 5, kern.In), b.Buf("", ir.F32, 20, kern.In), b.Buf("", ir.F32, 5, kern.Out)
	b.Store(to, kern.V(i), b.Load(table, kern.At(b.Cast(ir.I32, b.Load(at, kern.V(i))))))
	if got := Indexing(b.Done()); len(got) != 1 || !got[at] {
		t.Errorf("float buffers %v are taken for indices, want #%d", got, at)
	}
}

// decode looks up token, of 10, or 10 more after position 3, and row and column of the picture of 4x5 whose
// positions come after it.
func decode() []Launch {
	b := kern.NewBuilder("decode")
	i := b.Dim(8)
	pos, token := b.Buf("", ir.I32, 1, kern.In), b.Buf("", ir.I32, 1, kern.In)
	table, rows, columns := b.Buf("", ir.F32, 8*20, kern.In), b.Buf("", ir.F32, 8*4, kern.In), b.Buf("", ir.F32, 8*5, kern.In)
	out := b.Buf("", ir.F32, 8, kern.Out)
	p, id := b.Load(pos, kern.C(0)), b.Load(token, kern.C(0))
	id = b.Op(kern.Select, b.Op(kern.Le, p, b.I(3)), id, b.Op(kern.Add, id, b.I(10)))
	n := b.Op(kern.Max, b.Op(kern.Sub, p, b.I(4)), b.I(0))
	row := b.Cast(ir.I32, b.Op(kern.Floor, b.Op(kern.Mul, b.Op(kern.Add, b.Cast(ir.F32, n), b.F(0.5)), b.F(0.2))))
	column := b.Op(kern.Sub, n, b.Op(kern.Mul, row, b.I(5)))
	at := func(x *kern.Node) kern.Index { return kern.At(x).Scale(8).Add(kern.V(i)) }
	b.Store(out, kern.V(i), b.Op(kern.Add, b.Load(table, at(id)), b.Op(kern.Add, b.Load(rows, at(row)), b.Load(columns, at(column)))))
	k := b.Done()
	var bufs []*Buffer
	for _, x := range k.Bufs {
		bufs = append(bufs, &Buffer{Arena: Work, Type: ir.T(x.DType, x.Len)})
	}
	bufs[pos].Type = ir.T(ir.I32)
	return []Launch{{Kernel: k, Args: bufs}}
}

// Of a position everything is known that is made of it, and tokens are those that any position allows.
func TestPositionsAreTriedOneByOne(t *testing.T) {
	l := decode()
	pos, token := l[0].Args[0], l[0].Args[1]
	for _, inputs := range [][]*Buffer{{pos, token}, {token, pos}} {
		got, err := InputRanges(&Model{}, &Program{Launches: l, Inputs: inputs})
		if err != nil {
			t.Fatal(err)
		}
		if want := (Limits{0, 24}); got[pos] != want {
			t.Errorf("position %v, want %v", got[pos], want)
		}
		if want := (Limits{0, 10}); got[token] != want {
			t.Errorf("token %v, want %v", got[token], want)
		}
	}
}
