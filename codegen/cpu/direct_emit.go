package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir"
)

// base is the address of the operand's first element in a batch.
func (op *Operand) base(f *build.Func, args V, batch []V) V {
	at := V(build.Int(int64(op.At.Const)))
	for i, b := range batch {
		if c := op.At.Batch[i]; c != 0 {
			at = f.Add(at, f.Mul(b, build.Int(int64(c))))
		}
	}
	return f.At(f.SlotPtr(args, op.Slot, op.elem()), at)
}

// emit adds the kernel to m.
func (l *directLayout) emit(m *build.Module) {
	g := l.g
	f, args, c0, c1, scratch := m.Kernel(g.Name)
	floats := func(offset int) V { return f.Cast(f.Offset(scratch, offset), build.F32) }
	rowRuns, colRuns := ceilDiv(l.m, l.rows), ceilDiv(l.n, l.cols)
	inBatches(f, c0, c1, rowRuns*colRuns, l.together, func(batch, first, count V) {
		position := digits(f, batch, g.Batch)
		if l.form == rowsForm {
			l.emitRows(f, args, batch, position, f.Mul(first, build.Int(int64(l.rows))), floats(l.padded), floats(l.c), floats(l.part))
		} else {
			l.emitSum(f, args, batch, position, first, count, floats)
		}
	})
	f.Return()
}

// inBatches cuts chunks [c0, c1), of which a batch has each, into runs of at most most chunks of one batch, and
// calls body with the batch, the first chunk in it, and how many they are.
func inBatches(f *build.Func, c0, c1 V, each, most int, body func(batch, first, count V)) {
	f.While([]V{c0}, func(s []V) V { return f.Lt(s[0], c1) }, func(s []V) []V {
		first := f.URem(s[0], c64(each))
		count := f.Min(f.Min(f.Sub(c1, s[0]), c64(most)), f.Sub(c64(each), first))
		body(f.UDiv(s[0], c64(each)), first, count)
		return []V{f.Add(s[0], count)}
	})
}

// emitRows does rows of the product, a line of rows after the other.
func (l *directLayout) emitRows(f *build.Func, args, batch V, position []V, row, padded, c, part V) {
	g, t := l.g, l.t
	line := build.Int(int64(l.line))
	nr := build.Int(int64(t.NR()))
	a := g.A.base(f, args, position)
	b := f.At(f.SlotPtr(args, g.B.Slot, build.F32), f.Mul(batch, build.Int(int64(packedFloats(t, ir.F32, l.n, l.k)))))
	first := f.UDiv(row, line)
	last := f.Min(f.Add(first, build.Int(int64(ceilDiv(l.rows, l.line)))), build.Int(int64(l.m/l.line)))
	cint := func(n int) V { return build.Int(int64(n)) }
	// Lines that fit in the L1 cache together go through all panels before the next ones do.
	lines := func(l0, count V, a V, pitch int, segs, skip int) {
		some := max(1, rowsFloats/pitch)
		if l.pieces != nil {
			some = l.group
		}
		f.Range(cint(0), count, cint(some), func(i0 V) {
			i1 := f.Min(f.Add(i0, cint(some)), count)
			at := 0
			for _, p := range panels(t, l.n) {
				sizes := split(l.line, maxRows(t, ceilDiv(p.extent, t.Lanes)))
				// tiles calls body with the first row of every tile, and its place in the left operand.
				tiles := func(body func(row V, rows int, from V)) {
					f.Range(i0, i1, cint(1), func(i V) {
						from := f.At(a, f.Mul(i, cint(pitch)))
						start := f.Mul(f.Add(l0, i), line)
						each(f, sizes, 1, l.line, func(r V, rows int) {
							body(f.Add(start, r), rows, f.At(from, f.Mul(r, cint(l.aRow))))
						})
					})
				}
				f.Range(cint(0), cint(p.count), cint(1), func(j V) {
					j = f.Add(j, cint(at))
					col := f.Mul(j, nr)
					if l.pieces == nil {
						panel := f.At(b, f.Mul(j, cint(t.NR()*l.k)))
						tiles(func(row V, rows int, from V) {
							g.fetch(f, args, batch, row, cint(rows), col)
							l.tile(rows, p.extent).call(f, tileArgs{a: from, b: panel, part: c, c: c, run: cint(l.run), segs: cint(segs), times: cint(1), aSkip: cint(skip), ldb: nr, ldc: cint(l.ldc)})
							g.segments(f, args, batch, row, rows, col, p.extent, c, l.ldc)
						})
						return
					}
					zero := f.Mul(f.Add(l0, i0), line)
					for _, x := range l.pieces {
						panel := f.Add(panelOf(f, ir.F32, cint(x.block), cint(x.size), j, ceilDiv(l.n, t.NR())), cint((x.k-x.block)*t.NR()))
						on := 1
						if x.first {
							on = 0
						}
						ends := x.k+x.n == l.k
						tiles(func(row V, rows int, from V) {
							waiting := f.Mul(f.Sub(row, zero), cint(l.ldc))
							sums := f.At(c, waiting)
							to, add := sums, min(x.block, 1)
							if !x.last {
								to, add = f.At(part, waiting), 0
							}
							if ends {
								g.fetch(f, args, batch, row, cint(rows), col)
							}
							l.tile(rows, p.extent).call(f, tileArgs{
								a: f.Offset(from, x.k/l.run*(l.run+skip)+x.k%l.run), b: f.At(b, panel), part: f.At(part, waiting), c: to,
								run: cint(x.n), segs: cint(1), times: cint(1), ldb: nr, ldc: cint(l.ldc), on: cint(on), add: cint(add),
							})
							if ends {
								g.segments(f, args, batch, row, rows, col, p.extent, sums, l.ldc)
							}
						})
					}
				})
				at += p.count
			}
		})
	}
	p := l.pic
	if p == nil {
		lines(first, f.Sub(last, first), f.At(a, f.Mul(row, build.Int(int64(l.aRow)))), l.line*l.aRow, 1, 0)
		return
	}
	f.While([]V{first}, func(s []V) V { return f.Lt(s[0], last) }, func(s []V) []V {
		n := f.UDiv(s[0], build.Int(int64(p.y)))
		y := f.Sub(s[0], f.Mul(n, build.Int(int64(p.y))))
		count := f.Min(f.Min(build.Int(int64(l.band)), f.Sub(build.Int(int64(p.y)), y)), f.Sub(last, s[0]))
		p.pad(f, a, n, y, count, padded)
		lines(s[0], count, padded, p.sy*p.pitch(), p.kh, p.pitch()-l.run)
		return []V{f.Add(s[0], count)}
	})
}

// emitSum does count chunks of a batch of a product with a long sum, block after block. Chunks are numbered along
// the rows here: those that are done together are of few columns.
func (l *directLayout) emitSum(f *build.Func, args, batch V, position []V, first, count V, floats func(offset int) V) {
	g, t, p := l.g, l.t, l.pic
	cint := func(n int) V { return build.Int(int64(n)) }
	padded, c, packed := floats(l.padded), floats(l.c), floats(l.packed)
	a, b := g.A.base(f, args, position), g.B.base(f, args, position)
	rowRuns := ceilDiv(l.m, l.rows)
	// chunks calls body for every chunk, with its place in the product and that of its sums.
	chunks := func(body func(row, col, c V)) {
		f.Range(cint(0), count, cint(1), func(i V) {
			chunk := f.Add(first, i)
			col := f.UDiv(chunk, cint(rowRuns))
			body(f.Mul(f.Sub(chunk, f.Mul(col, cint(rowRuns))), cint(l.rows)), f.Mul(col, cint(l.cols)), f.At(c, f.Mul(i, cint(l.rows*l.ldc))))
		})
	}
	// columns calls body for the register tiles' columns in a chunk, with the place of their sums.
	columns := func(body func(n, slot V, cols int)) {
		at := 0
		for _, s := range panels(t, l.colUnit) {
			each(f, []size{s}, 1, 0, func(inUnit V, cols int) {
				inUnit = f.Add(inUnit, cint(at))
				f.Range(cint(0), cint(l.colUnits), cint(1), func(u V) {
					body(f.Add(f.Mul(u, cint(l.colUnit)), inUnit), f.Add(f.Mul(u, cint(l.slot)), inUnit), cols)
				})
			})
			at += s.extent * s.count
		}
	}
	rows := func(cols int, body func(r V, rows int)) {
		each(f, split(l.rowUnit, maxRows(t, ceilDiv(cols, t.Lanes))), l.rowUnits, l.rowUnit, body)
	}
	// Columns from col0 on are packed, one panel after the other.
	col0 := f.Mul(f.UDiv(first, cint(rowRuns)), cint(l.cols))
	col1 := f.Min(f.Mul(f.Add(f.UDiv(f.Sub(f.Add(first, count), cint(1)), cint(rowRuns)), cint(1)), cint(l.cols)), cint(l.n))
	panel0, panel1 := f.UDiv(col0, cint(t.NR())), f.CeilDiv(col1, int64(t.NR()))
	var bs *source
	if l.packs {
		bs = bind(f, l.bv, args, position, f.Cast(floats(l.tables), build.I64))
	}
	pad := func(n, y, lines, to V) {
		switch {
		case l.a != nil:
			p.pad(f, a, n, y, lines, to)
		case l.b != nil:
			p.pad(f, b, n, y, lines, to)
		}
	}
	// copyRight copies size elements of the sum from k on of the columns.
	copyRight := func(k, size, to V) {
		switch {
		case !l.packs:
		case l.bv.matrix():
			bs.packRows(k, size, panel0, panel1, cint(l.n), floats(l.temp), to)
		default:
			f.Range(panel0, panel1, cint(1), func(j V) {
				n0 := f.Mul(j, cint(t.NR()))
				bs.packPanel(true, k, size, n0, f.Sub(cint(l.n), n0), floats(l.temp), f.At(to, f.Mul(f.Sub(n0, col0), size)))
			})
		}
	}
	skip := p.sy*p.pitch() - p.x*p.sx*p.pixel
	picFloats := 0
	if l.a != nil || l.b != nil {
		picFloats = p.floats(p.y)
	}
	jump := picFloats - p.y*p.sy*p.pitch()
	// multiply does lines rows of patches of a chunk, from element k of the sum on, whose copies are at padded and packed.
	multiply := func(row, col, c, k, lines, padded, packed V) {
		size := f.Mul(lines, cint(p.x))
		columns(func(n, slot V, cols int) {
			// A part at a time goes through all rows: it stays in the L1 cache.
			f.Range(cint(0), lines, cint(l.sub), func(y V) {
				some := f.Min(cint(l.sub), f.Sub(lines, y))
				segs, times, down := some, V(cint(1)), f.Mul(y, cint(p.sy*p.pitch()))
				if l.pics > 1 {
					segs, times, down = cint(p.y), f.UDiv(some, cint(p.y)), f.Mul(f.UDiv(y, cint(p.y)), cint(picFloats))
				}
				k1 := f.Mul(y, cint(p.x))
				var with V
				from, ldb, aSkip, bSkip := f.At(padded, down), V(cint(l.bStep)), skip, 0
				switch {
				case l.packs:
					ldb = cint(t.NR())
					with = f.At(f.At(packed, f.Mul(f.Sub(f.Add(col, n), col0), size)), f.Mul(k1, ldb))
				case l.b == nil:
					with = f.At(f.At(b, f.Mul(f.Add(k, k1), ldb)), f.Add(col, n))
				default:
					with = f.At(from, p.inPatch(f, f.Add(col, n)))
					bSkip = skip
				}
				if l.a == nil {
					from, aSkip = f.At(a, f.Mul(f.Add(k, k1), cint(l.aStep))), 0
				}
				end := f.Le(lines, f.Add(y, some))
				rows(cols, func(r V, rows int) {
					at := f.Mul(f.Add(row, r), cint(l.aRow))
					if l.a != nil {
						at = p.inPatch(f, f.Add(row, r))
					}
					sums, waiting := f.At(c, f.Add(f.Mul(r, cint(l.ldc)), slot)), f.At(floats(l.part), f.Mul(r, cint(t.NR())))
					l.tile(rows, cols).call(f, tileArgs{
						a: f.At(from, at), b: with, part: waiting, c: f.Select(end, sums, waiting),
						run: cint(p.x), segs: segs, times: times, aSkip: cint(aSkip), bSkip: cint(bSkip), aJump: cint(jump),
						ldb: ldb, ldc: f.Select(end, cint(l.ldc), cint(t.NR())), on: y, add: f.Select(end, k, cint(0)),
					})
				})
			})
		})
	}
	finish := func(row, col, c V) {
		columns(func(n, slot V, cols int) {
			rows(cols, func(r V, rows int) {
				g.segments(f, args, batch, f.Add(row, r), rows, f.Add(col, n), cols, f.At(c, f.Add(f.Mul(r, cint(l.ldc)), slot)), l.ldc)
			})
		})
	}
	// blocks calls body for the blocks of the sum: lines rows of patches from row y of picture n on.
	blocks := func(body func(n, y, k, lines V)) {
		f.Range(cint(0), cint(p.n), cint(l.pics), func(n V) {
			if l.pics > 1 {
				body(n, cint(0), f.Mul(n, cint(p.y*p.x)), f.Mul(f.Min(cint(l.pics), f.Sub(cint(p.n), n)), cint(p.y)))
				return
			}
			f.Range(cint(0), cint(p.y), cint(l.band), func(y V) {
				body(n, y, f.Mul(f.Add(f.Mul(n, cint(p.y)), y), cint(p.x)), f.Min(cint(l.band), f.Sub(cint(p.y), y)))
			})
		})
	}
	blocks(func(n, y, k, lines V) {
		if l.pics > 1 {
			f.Range(cint(0), f.UDiv(lines, cint(p.y)), cint(1), func(i V) {
				pad(f.Add(n, i), cint(0), cint(p.y), f.At(padded, f.Mul(i, cint(picFloats))))
			})
		} else {
			pad(n, y, lines, padded)
		}
		copyRight(k, f.Mul(lines, cint(p.x)), packed)
		chunks(func(row, col, c V) { multiply(row, col, c, k, lines, padded, packed) })
	})
	chunks(finish)
}
