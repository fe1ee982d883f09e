package cuda

import (
	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// scatter is a kernel that starts a table with a constant and adds rows to those
// of it that a list names: two loops over what each point of the grid has of
// the table. One after the other, as written, a thread waits for memory at every
// step: 10,240 tokens take some 5 ms. Here a block of threads has one row of the
// table, finds the places of the list that name it, and adds up in registers, in
// the same order.
type scatter struct {
	start *kern.Node // what rows start with
	row   *kern.Var  // of the first loop
	loop  *kern.Node // the second
	index *kern.Node // the row that an iteration adds to
	add   *kern.Node // what it adds
	store *kern.Node // of the second loop
}

// scatterOf recognises such a kernel, or returns nil.
func scatterOf(k *kern.Kernel) *scatter {
	var loops []*kern.Node
	for _, n := range k.Body {
		switch n.Prim {
		case kern.Loop:
			loops = append(loops, n)
		case kern.Store:
			return nil
		}
	}
	if len(loops) != 2 || len(loops[0].Accs)+len(loops[1].Accs) > 0 {
		return nil
	}
	only := func(loop *kern.Node) *kern.Node {
		var s *kern.Node
		for _, n := range loop.Body {
			switch {
			case n.Prim == kern.Loop || n.Prim == kern.Store && s != nil:
				return nil
			case n.Prim == kern.Store:
				s = n
			}
		}
		return s
	}
	first, second := only(loops[0]), only(loops[1])
	if first == nil || second == nil || first.Buf != second.Buf || first.Args[0].Prim != kern.Const ||
		len(second.At.Ind) != 1 || len(first.At.Ind) != 0 {
		return nil
	}
	s := &scatter{start: first.Args[0], row: loops[0].Vars[0], loop: loops[1], index: second.At.Ind[0].Node, store: second}
	// The table's element is the same function of row and point in both loops.
	as := first.At.Add(kern.V(s.row).Scale(-first.At.Coef(s.row)))
	bs := kern.Index{Terms: second.At.Terms, Const: second.At.Const}
	sum := second.Args[0]
	if first.At.Coef(s.row) != second.At.Ind[0].Coef || as.String() != bs.String() || sum.Prim != kern.Add || sum.Type != ir.F32 ||
		k.Bufs[second.Buf].DType != ir.F32 {
		return nil
	}
	for i, a := range sum.Args {
		if a.Prim == kern.Load && a.Buf == second.Buf && a.At.String() == second.At.String() {
			s.add = sum.Args[1-i]
		}
	}
	if s.add == nil {
		return nil
	}
	for _, n := range loops[1].Body {
		if n.Prim == kern.Load && n.Buf == second.Buf && n != sum.Args[0] && n != sum.Args[1] {
			return nil
		}
	}
	// The list must not depend on the point.
	for _, d := range k.Dims {
		if d.Extent > 1 && dependsOn(s.index, d) {
			return nil
		}
	}
	return s
}

// dependsOn reports whether n is made of what depends on v.
func dependsOn(n *kern.Node, v *kern.Var) bool {
	if n.At.Coef(v) != 0 {
		return true
	}
	for _, g := range n.Guards {
		if g.At.Coef(v) != 0 {
			return true
		}
	}
	found := false
	n.EachRead(func(a *kern.Node) { found = found || dependsOn(a, v) })
	return found
}

// emitScatter writes it with 128 threads for a row of the table, each with up to
// 8 of its points.
func emitScatter(m *build.Module, k *kern.Kernel, s *scatter) ([]Entry, error) {
	const threads = 128
	n := k.Points()
	width := min(8, ceil(n, threads))
	across := ceil(n, threads*width)
	f := m.Kernel(k.Name, build.Limits{Threads: threads}, 0, len(k.Bufs))
	e := newEmitter(f, k)
	rows, count := s.row.Extent, s.loop.Vars[0].Extent
	entry := Entry{Name: k.Name, Grid: [3]int{rows * across, 1, 1}, Block: threads, Shared: 32, Args: allBuffers(k)}
	e.Shared(entry.Shared)
	row, part := e.Div(e.BlockX(), across), e.Rem(e.BlockX(), across)
	t := e.Thread()
	first := e.Add(e.MulI(part, threads*width), t)

	// Points of this thread; those beyond the last are clamped and not stored.
	live, at := make([]Value, width), make([]Value, width)
	for p := range width {
		at[p] = e.AddI(first, p*threads)
		if n%(threads*width) != 0 {
			live[p] = e.Lt(at[p], build.Int(n))
			at[p] = e.Select(live[p], at[p], build.Int(n-1))
		}
	}
	if n%(threads*width) != 0 {
		e.live = live
	}
	e.width = width
	e.unflatten(k.Dims, at...)
	// What stands before the loops.
	for _, x := range k.Body {
		if x.Prim != kern.Loop && e.uses[x.ID] > 0 {
			if err := e.node(x); err != nil {
				return nil, err
			}
		}
	}
	i := s.loop.Vars[0]
	var err error
	// eval computes what x needs of the second loop's body, for the iteration at.
	eval := func(x *kern.Node, at Value) []Value {
		e.set(i, at)
		need := map[*kern.Node]bool{}
		var visit func(n *kern.Node)
		visit = func(n *kern.Node) {
			if !need[n] {
				need[n] = true
				n.EachRead(visit)
			}
		}
		visit(x)
		for _, y := range s.loop.Body {
			if need[y] && e.vals[y.ID] == nil && err == nil {
				err = e.node(y)
			}
		}
		v := e.vals[x.ID]
		e.forget(s.loop.Body)
		return v
	}
	acc := []Value{}
	for range width {
		acc = append(acc, of(e.vals[s.start.ID], 0))
	}
	warpAt := func(w Value) Value { return e.SharedAt(e.MulI(w, 4), build.I32) }
	out := e.For(build.Int(0), build.Int(ceil(count, threads)*threads), build.Int(threads), acc, func(base Value, acc []Value) []Value {
		mine := e.Add(base, t)
		in := e.Lt(mine, build.Int(count))
		wide := e.width
		e.width = 1
		hit := e.And(in, e.Eq(eval(s.index, e.Select(in, mine, build.Int(0)))[0], row))
		e.width = wide
		word := e.Call("gpu.ballot", build.I32, e.Select(hit, build.Int(1), build.Int(0)))
		e.Barrier()
		e.If(e.Eq(e.AndI(t, warp-1), build.Int(0)), func() { e.Store(word, warpAt(e.Shr(t, 5))) })
		e.Barrier()
		for w := range threads / warp {
			word := e.Load(warpAt(build.Int(w)))
			from := e.AddI(base, w*warp)
			c := e.For(build.Int(0), e.Call("gpu.popc", build.I32, word), build.Int(1), append([]Value{word}, acc...), func(_ Value, c []Value) []Value {
				word := c[0]
				// The lowest bit: what lies below it counts its place.
				low := e.And(word, e.Sub(build.Int(0), word))
				place := e.Call("gpu.popc", build.I32, e.AddI(low, -1))
				v := eval(s.add, e.Add(from, place))
				next := []Value{e.And(word, e.AddI(word, -1))}
				for p := range width {
					next = append(next, e.FAdd(c[1+p], of(v, p)))
				}
				return next
			})
			acc = c[1:]
		}
		return acc
	})
	for p := range width {
		e.where(nil, e.liveAt(p), func() {
			index := e.MulI(row, s.store.At.Ind[0].Coef)
			rest := kern.Index{Terms: s.store.At.Terms, Const: s.store.At.Const}
			e.Store(out[p], e.At(e.bases[s.store.Buf], e.Add(index, e.index(rest, p))))
		})
	}
	e.Return()
	return []Entry{entry}, err
}
