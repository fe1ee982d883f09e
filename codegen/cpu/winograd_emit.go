package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
)

func (l *winogradLayout) emit(m *build.Module) {
	g := l.g
	f, args, c0, c1, scratch := m.Kernel(g.Name)
	floats := func(offset int) V { return f.Cast(f.Offset(scratch, offset), build.F32) }
	e := &winogradKernel{maps: maps{f, m.Target.Lanes}, l: l, args: args, batch: c64(0),
		padded: floats(l.padded), pixels: floats(l.pixels), wait: floats(l.waiting), temp: floats(l.temp), out: floats(l.out)}
	e.from = g.A.base(f, args, digits(f, e.batch, g.Batch))
	e.filters = f.SlotPtr(args, g.B.Slot, build.F32)
	runs := ceilDiv(l.winograd.n, g.Cols)
	inBatches(f, c0, c1, runs, runs, func(block, first, count V) {
		l.transform(e.maps, e.from, f.Mul(block, c64(l.high)), e.padded, e.pixels, e.temp)
		e.multiply(block, f.Mul(first, c64(g.Cols)), f.Min(f.Mul(f.Add(first, count), c64(g.Cols)), c64(l.winograd.n)))
	})
	f.Return()
}

// winogradKernel emits one convolution by minimal filtering.
type winogradKernel struct {
	maps
	l                               *winogradLayout
	args, batch, from, filters      V
	padded, pixels, wait, temp, out V // scratch
}

// multiply does columns [col0, col1) of a block whose pixels are transformed.
func (e *winogradKernel) multiply(block, col0, col1 V) {
	l, t := e.l, e.l.t
	nr := t.NR()
	panelAt := func(col V, from, to int) V {
		return e.Max(c64(from), e.Min(e.CeilDiv(col, int64(nr)), c64(to)))
	}
	at := 0
	for _, s := range panels(t, l.winograd.n) {
		first, last := panelAt(col0, at, at+s.count), panelAt(col1, at, at+s.count)
		e.Range(first, last, c64(l.wait), func(j0 V) {
			j1 := e.Min(e.Add(j0, c64(l.wait)), last)
			e.Range(c64(0), c64(tileParts), c64(1), func(part V) {
				from := e.At(e.pixels, e.Mul(part, c64(l.plane)))
				e.Range(j0, j1, c64(1), func(j V) {
					filters := e.At(e.filters, e.Mul(e.Add(e.Mul(j, c64(tileParts)), part), c64(l.c*nr)))
					sums := e.At(e.wait, e.Mul(e.Add(e.Mul(e.Sub(j, j0), c64(tileParts)), part), c64(l.sums)))
					down(e.Func, t, l.tiles, s.extent, tileArgs{a: from, b: filters, part: sums, c: sums,
						run: c64(l.c), segs: c64(1), times: c64(1), ldb: c64(nr), ldc: c64(nr)}, l.tile)
				})
			})
			e.Range(j0, j1, c64(1), func(j V) {
				sums := e.At(e.wait, e.Mul(e.Sub(j, j0), c64(tileParts*l.sums)))
				e.Range(c64(0), c64(l.tiles), c64(1), func(i V) {
					e.finish(block, i, e.Mul(j, c64(nr)), s.extent, e.At(sums, e.Mul(i, c64(nr))))
				})
			})
		})
		at += s.count
	}
}

// finish transforms the sums of tile i of a block and runs the epilogue over its results, in cols columns from col.
func (e *winogradKernel) finish(block, i, col V, cols int, sums V) {
	l, lanes := e.l, e.Target.Lanes
	nr := l.t.NR()
	across := e.URem(i, c64(l.across))
	first := e.Add(e.Mul(block, c64(l.g.Rows)), e.Add(e.Mul(e.UDiv(i, c64(l.across)), c64(l.line())), e.Mul(across, c64(tileOut))))
	lines := func(body func(y, row V)) {
		e.Range(c64(0), c64(tileOut), c64(1), func(y V) { body(y, e.Add(first, e.Mul(y, c64(l.x)))) })
	}
	lines(func(y, row V) { l.g.fetch(e.Func, e.args, e.batch, row, c64(tileOut), col) })
	for v := range ceilDiv(cols, lanes) {
		e.square(tileIn, e.results,
			func(row, col int) V { return e.load(sums, (row*tileIn+col)*l.sums+v*lanes) }, e.temp,
			func(row, col int, x V) { e.Store(x, e.Offset(e.out, (row*tileOut+col)*nr+v*lanes)) })
	}
	lines(func(y, row V) {
		l.g.segments(e.Func, e.args, e.batch, row, tileOut, col, cols, e.At(e.out, e.Mul(y, c64(tileOut*nr))), nr)
	})
}

// emitFilters adds the kernel that transforms filters to m.
func (l *packLayout) emitFilters(m *build.Module, p *PackB) {
	t := l.t
	f, args, c0, c1, scratch := m.Kernel(p.Name)
	floats := func(offset int) V { return f.Cast(f.Offset(scratch, offset), build.F32) }
	c, n, nr := product(p.K)/9, product(p.N), t.NR()
	const some = winogradChannels
	units := c64(ceilDiv(n, nr) * (c / some))
	s := bind(f, l.v, args, digits(f, c64(0), p.Batch), f.Cast(f.Offset(scratch, l.table), build.I64))
	to, g, e := f.SlotPtr(args, p.Slot, build.F32), floats(l.panel), maps{f, t.Lanes}
	f.Range(f.UDiv(f.Mul(units, c0), c64(p.Chunks)), f.UDiv(f.Mul(units, c1), c64(p.Chunks)), c64(1), func(u V) {
		j := f.UDiv(u, c64(c/some))
		first := f.Mul(f.Sub(u, f.Mul(j, c64(c/some))), c64(some))
		n0 := f.Mul(j, c64(nr))
		f.Range(c64(0), c64(9), c64(1), func(tap V) {
			s.packPanel(l.sum, f.Add(f.Mul(tap, c64(c)), first), c64(some), n0, f.Sub(c64(n), n0), floats(l.temp), f.At(g, f.Mul(tap, c64(some*nr))))
		})
		f.Range(c64(0), c64(some), c64(1), func(i V) {
			from := f.At(g, f.Mul(i, c64(nr)))
			to := f.At(to, f.Mul(f.Add(f.Mul(j, c64(tileParts*c)), f.Add(first, i)), c64(nr)))
			for v := range t.NV {
				e.square(3, e.filter,
					func(row, col int) V { return e.load(from, (row*3+col)*some*nr+v*t.Lanes) }, floats(l.square),
					func(row, col int, x V) { f.Store(x, f.Offset(to, (row*tileIn+col)*c*nr+v*t.Lanes)) })
			}
		})
	})
	f.Return()
}
