package cpu

import (
	"github.com/gouache-ml/gouache/codegen/cpu/build"
	"github.com/gouache-ml/gouache/ir/kern"
)

// grid emits a loop kernel: chunks, rows of a chunk, and within a row lanes
// over the vector variable or one point after the other.
func (e *emitter) grid(c0, c1 build.V) error {
	k := e.k
	rowDims, col := k.Dims, (*kern.Var)(nil)
	if n := len(k.Dims); n > 0 && (k.Vector == k.Dims[n-1] || k.Tile.Cols > 0) {
		rowDims, col = k.Dims[:n-1], k.Dims[n-1]
	}
	nRows := points(rowDims)
	rows := k.Tile.Rows
	if rows <= 0 || rows > nRows {
		rows = nRows
	}
	cols, nCols := 1, 1
	if col != nil {
		nCols = col.Extent
		cols = k.Tile.Cols
		if cols <= 0 || cols > nCols {
			cols = nCols
		}
	}
	colRuns := (nCols + cols - 1) / cols

	anywhere, byPoint := e.split(k.Body, k.Dims)
	e.enter(k.Body)
	defer e.leave()
	if err := e.list(anywhere); err != nil {
		return err
	}
	var err error
	e.Range(c0, c1, c64(1), func(c build.V) {
		r0 := e.Mul(e.UDiv(c, c64(colRuns)), c64(rows))
		r1 := e.Min(e.Add(r0, c64(rows)), c64(nRows))
		if rows == nRows {
			r0, r1 = c64(0), c64(nRows)
		} else if nRows%rows == 0 {
			r1 = e.Add(r0, c64(rows))
		}
		lo, hi := c64(0), c64(nCols)
		if colRuns > 1 {
			lo = e.Mul(e.URem(c, c64(colRuns)), c64(cols))
			hi = e.Min(e.Add(lo, c64(cols)), c64(nCols))
		}
		e.Range(r0, r1, c64(1), func(r build.V) {
			e.unflatten(rowDims, r)
			if e2 := e.row(byPoint, rowDims, col, lo, hi, cols); e2 != nil {
				err = e2
			}
		})
	})
	return err
}

func points(dims []*kern.Var) int {
	n := 1
	for _, d := range dims {
		n *= d.Extent
	}
	return n
}

// unflatten sets the variables dims from their row-major number.
func (e *emitter) unflatten(dims []*kern.Var, r build.V) {
	rest := points(dims)
	for i := len(dims) - 1; i >= 0; i-- {
		d := dims[i]
		rest /= d.Extent
		switch {
		case d.Extent == 1:
			e.vars[d.ID] = c64(0)
		case rest == 1:
			e.vars[d.ID] = r
			r = c64(0)
		default:
			e.vars[d.ID] = e.URem(r, c64(d.Extent))
			r = e.UDiv(r, c64(d.Extent))
		}
	}
}

// split parts body into nodes that don't depend on vars, nor have a place in
// program order, and the rest.
func (e *emitter) split(body []*kern.Node, vars []*kern.Var) (free, bound []*kern.Node) {
	dep := e.dependents(body, vars)
	for _, n := range body {
		if dep[n.ID] {
			bound = append(bound, n)
		} else {
			free = append(free, n)
		}
	}
	return free, bound
}

// row emits the points of one row: columns lo to hi, a multiple of cols apart
// from the end of the row.
func (e *emitter) row(body []*kern.Node, rowDims []*kern.Var, col *kern.Var, lo, hi build.V, cols int) error {
	e.enter(body, rowDims...)
	defer e.leave()
	if col == nil {
		return e.list(body)
	}
	inRow, byCol := e.split(body, []*kern.Var{col})
	if err := e.list(inRow); err != nil {
		return err
	}
	var err error
	if col != e.k.Vector || col.Extent == 1 {
		e.Range(lo, hi, c64(1), func(j build.V) {
			e.vars[col.ID] = j
			e.enter(byCol, col)
			defer e.leave()
			if e2 := e.list(byCol); e2 != nil {
				err = e2
			}
		})
		return err
	}
	return e.columns(byCol, col, lo, hi, cols)
}

// columns emits body for col from lo to hi in vector lanes: several vectors at
// a time, then one, then the lanes of the last.
func (e *emitter) columns(body []*kern.Node, col *kern.Var, lo, hi build.V, cols int) error {
	unit := e.units(body)
	for unit > 1 && cols < unit*e.vl {
		unit /= 2
	}
	var err error
	region := func(j build.V, u int, mask build.V) {
		e.lane, e.unit, e.mask = col, u, masks(mask)
		e.aligned = cols%4 == 0 || cols >= col.Extent
		defer func() { e.lane, e.unit, e.mask = nil, 1, nil }()
		e.vars[col.ID] = j
		e.enter(body, col)
		defer e.leave()
		if e2 := e.list(body); e2 != nil {
			err = e2
		}
	}
	even := func(n int) bool { return col.Extent%n == 0 && cols%n == 0 }
	to := func(n int) build.V {
		if even(n) {
			return hi
		}
		return e.Add(lo, e.Mul(e.UDiv(e.Sub(hi, lo), c64(n)), c64(n)))
	}
	at := lo
	for u := unit; ; u = 1 {
		end := to(u * e.vl)
		e.Range(at, end, c64(u*e.vl), func(j build.V) { region(j, u, nil) })
		at = end
		if even(u * e.vl) {
			return err
		}
		if u == 1 {
			break
		}
	}
	e.When(e.Lt(at, hi), func() { region(at, 1, e.LaneMask(e.vl, e.Sub(hi, at))) })
	return err
}
