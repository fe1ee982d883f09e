package cuda

import (
	"github.com/llir/llvm/ir/enum"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// scatter is a kernel that starts a table with a constant and adds rows to those
// of it that a list names: two loops over what each point of the grid has of
// the table. One after the other, as written, a thread waits for memory at every
// step: 10,240 tokens take some 5 ms. Here a block of threads has some rows of the
// table. It reads the list once, writes down the places that name one of them, and
// adds up row by row in registers, in the list's order.
type scatter struct {
	start *kern.Node // what rows start with
	row   *kern.Var  // of the first loop
	loop  *kern.Node // the second
	index *kern.Node // the row that an iteration adds to
	add   *kern.Node // what it adds
	old   *kern.Node // to what: the table's element
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
			s.add, s.old = sum.Args[1-i], a
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

const (
	scatterThreads = 256
	scatterRows    = 32 // of the table that a block has at most: 5 bits of a note
	scatterEach    = 4  // places of the list that a thread looks at in a turn
	scatterTurn    = scatterThreads * scatterEach
	// scatterNotes is how many places a block can write down. When another turn may
	// not fit, it adds what it has to the table, and goes on.
	scatterNotes = 3 * scatterTurn
	// scatterAhead is how many rows a thread loads at once.
	scatterAhead = 4
)

// scattering is a scatter being written.
type scattering struct {
	*emitter
	*scatter
	err error
}

// eval computes what x needs of the second loop's body, for the iteration at.
func (e *scattering) eval(x *kern.Node, at Value) []Value {
	e.set(e.scatter.loop.Vars[0], at)
	need := map[*kern.Node]bool{}
	var visit func(n *kern.Node)
	visit = func(n *kern.Node) {
		if !need[n] {
			need[n] = true
			n.EachRead(visit)
		}
	}
	visit(x)
	for _, y := range e.scatter.loop.Body {
		if need[y] && e.vals[y.ID] == nil && e.err == nil {
			e.err = e.node(y)
		}
	}
	v := e.vals[x.ID]
	e.forget(e.scatter.loop.Body)
	return v
}

// emitScatter writes it. A thread has up to 8 points of the rows, neighbours where
// they can be loaded together.
func emitScatter(m *build.Module, k *kern.Kernel, s *scatter) ([]Entry, error) {
	n, last := k.Points(), k.Dims[len(k.Dims)-1]
	width := neighbours(k, k.Body, last)
	adjacent := width > 1
	if !adjacent {
		width = min(8, ceil(n, scatterThreads))
	}
	across := ceil(n, scatterThreads*width)
	rows, count := s.row.Extent, s.loop.Vars[0].Extent
	each := scatterRows
	for each > 1 && ceil(rows, each)*across < 4*multiprocessors {
		each /= 2
	}
	f := m.Kernel(k.Name, build.Limits{Threads: scatterThreads, Blocks: 2 * batchThreads / scatterThreads}, 0, len(k.Bufs))
	e := &scattering{emitter: newEmitter(f, k), scatter: s}
	const warps = scatterThreads / warp
	const words = warps * scatterEach // ballots of a turn, one for each lane of a warp
	entry := Entry{Name: k.Name, Grid: [3]int{ceil(rows, each) * across, 1, 1}, Block: scatterThreads, Shared: 4 * (words + scatterNotes), Args: allBuffers(k)}
	e.Shared(entry.Shared)
	wordAt := func(i Value) Value { return e.SharedAt(e.MulI(i, 4), build.I32) }
	noteAt := func(i Value) Value { return e.SharedAt(e.AddI(e.MulI(i, 4), 4*words), build.I32) }
	row0, part := e.MulI(e.Div(e.BlockX(), across), each), e.Rem(e.BlockX(), across)
	t := e.Thread()
	lane, w := e.AndI(t, warp-1), e.Shr(t, 5)

	// Points of this thread; those beyond the last are clamped and not stored.
	e.width = width
	first, apart := e.Add(e.MulI(part, scatterThreads*width), t), scatterThreads
	points := width
	if adjacent {
		first, apart, points = e.MulI(e.Add(e.MulI(part, scatterThreads), t), width), 0, 1
	}
	at := make([]Value, points)
	for p := range at {
		at[p] = e.AddI(first, p*apart)
		if n%(scatterThreads*width) != 0 {
			// Others read what is this thread's, or nothing of the table.
			e.live = append(e.live, e.Lt(at[p], build.Int(n)))
			other := Value(build.Int(0))
			if p > 0 {
				other = at[0]
			}
			at[p] = e.Select(e.live[p], at[p], other)
		}
	}
	e.unflatten(k.Dims, at...)
	if adjacent {
		e.run = last
		from := e.vars[last.ID][0]
		e.set(last, e.each(func(p int) Value { return e.AddI(from, p) })...)
	}
	// What stands before the loops.
	for _, x := range k.Body {
		if x.Prim != kern.Loop && e.uses[x.ID] > 0 {
			if err := e.node(x); err != nil {
				return nil, err
			}
		}
	}
	ballot := func(c Value) Value {
		return e.Call("gpu.ballot", build.I32, e.Select(c, build.Int(1), build.Int(0)))
	}
	popc := func(x Value) Value { return e.Call("gpu.popc", build.I32, x) }
	below := e.AddI(e.ShlV(build.Int(1), lane), -1) // the lanes before this one

	// add adds the noted rows to the table; what was there before them is the
	// start, at first.
	add := func(count, fresh Value) {
		e.For(build.Int(0), build.Int(each), build.Int(1), nil, func(r Value, _ []Value) []Value {
			row := e.Add(row0, r)
			e.If(e.Lt(row, build.Int(rows)), func() {
				table := func(n *kern.Node) {
					e.vals[s.index.ID] = []Value{row}
					if e.err == nil {
						e.err = e.node(n)
					}
				}
				empty := fresh
				if e.live != nil {
					empty = e.Or(fresh, e.Not(e.live[0]))
				}
				acc := e.IfElse(empty, func() []Value {
					return e.emitter.each(func(int) Value { return of(e.vals[s.start.ID], 0) })
				}, func() []Value {
					table(s.old)
					defer e.forget(s.loop.Body)
					return e.vals[s.old.ID]
				})
				acc = e.For(build.Int(0), count, build.Int(warp), acc, func(base Value, acc []Value) []Value {
					mine := e.Add(base, lane)
					in := e.Lt(mine, count)
					note := e.Load(noteAt(e.Select(in, mine, build.Int(0))))
					word := ballot(e.And(in, e.Eq(e.AndI(note, scatterRows-1), r)))
					c := e.For(build.Int(0), popc(word), build.Int(scatterAhead), append([]Value{word}, acc...), func(_ Value, c []Value) []Value {
						word, acc := c[0], c[1:]
						var oks []Value
						var vs [][]Value
						for range scatterAhead {
							oks = append(oks, e.Compare(enum.IPredNE, word, build.Int(0)))
							// The lowest bit: what lies below it counts its place. Of no bit
							// that is all, and any note will do.
							low := e.And(word, e.Sub(build.Int(0), word))
							place := e.AndI(popc(e.AddI(low, -1)), warp-1)
							from := e.Load(noteAt(e.Select(oks[len(oks)-1], e.Add(base, place), base)))
							vs = append(vs, e.eval(s.add, e.Shr(from, 5)))
							word = e.And(word, e.AddI(word, -1))
						}
						for i, v := range vs {
							acc = e.emitter.each(func(p int) Value { return e.Select(oks[i], e.FAdd(acc[p], of(v, p)), acc[p]) })
						}
						return append([]Value{word}, acc...)
					})
					return c[1:]
				})
				e.vals[s.store.Args[0].ID] = acc
				table(s.store)
				e.forget(s.loop.Body)
			})
			return nil
		})
	}

	e.For(build.Int(0), build.Int(count), build.Int(scatterTurn), []Value{build.Int(0), build.Bool(true)}, func(base Value, c []Value) []Value {
		noted, fresh := c[0], c[1]
		wide, run := e.width, e.run
		e.width, e.run = 1, nil
		var hits, masks, notes []Value
		for j := range scatterEach {
			place := e.Add(base, e.AddI(t, j*scatterThreads))
			in := e.Lt(place, build.Int(count))
			place = e.Select(in, place, build.Int(0))
			row := e.Sub(e.eval(s.index, place)[0], row0)
			hits = append(hits, e.And(in, e.Below(row, build.Int(each))))
			notes = append(notes, e.Or(e.Shl(place, 5), row))
		}
		e.width, e.run = wide, run
		for _, h := range hits {
			masks = append(masks, ballot(h))
		}
		e.If(e.Eq(lane, build.Int(0)), func() {
			for j, m := range masks {
				e.Store(m, wordAt(e.AddI(w, j*warps)))
			}
		})
		e.Barrier()
		// Hits before each word, of which a lane has one, and in all.
		own := popc(e.Load(wordAt(lane)))
		sum := own
		for d := 1; d < words; d *= 2 {
			x := e.ShuffleFrom(sum, e.AndI(e.AddI(lane, -d), warp-1))
			sum = e.Add(sum, e.Select(e.Lt(lane, build.Int(d)), build.Int(0), x))
		}
		before := e.Sub(sum, own)
		for j, h := range hits {
			at := e.Add(e.ShuffleFrom(before, e.AddI(w, j*warps)), popc(e.And(masks[j], below)))
			e.If(h, func() { e.Store(notes[j], noteAt(e.Add(noted, at))) })
		}
		noted = e.Add(noted, e.ShuffleFrom(sum, build.Int(words-1)))
		e.Barrier()
		end := e.Le(build.Int(count-scatterTurn), base)
		full := e.Lt(build.Int(scatterNotes-scatterTurn), noted)
		return e.IfElse(e.Or(end, full), func() []Value {
			add(noted, fresh) // before the next turn's first barrier, so before others are noted
			return []Value{build.Int(0), build.Bool(false)}
		}, func() []Value { return []Value{noted, fresh} })
	})
	e.Return()
	return []Entry{entry}, e.err
}
