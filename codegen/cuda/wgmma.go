package cuda

import (
	"fmt"
	"math"

	"github.com/llir/llvm/ir/constant"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// Shape is how a product by wgmma is cut: a block computes tiles of M rows, 64
// for each of its warpgroups, and N columns. Blocks of a Cluster have tiles one
// below the other and load the columns' operand once for all of them. Or each
// tile belongs to a cluster of so many Parts, which cut the sums. One is none.
//
// Where two warpgroups Alternate, each has every other tile for itself: while one
// finishes its tile, the other multiplies.
type Shape struct {
	M, N, Cluster, Parts int
	Alternate            bool
	Blocks               int // at most so many; 0: as many as multiprocessors
}

// consumers is how many warpgroups of a block multiply.
func (s Shape) consumers() int {
	if s.Alternate {
		return 2
	}
	return s.M / 64
}

// rows is how many of a tile a warpgroup has.
func (s Shape) rows() int {
	if s.Alternate {
		return s.M
	}
	return 64
}

const (
	wgmmaDepth = 64  // terms of a stage: with 16 bits each, the 128 bytes of a swizzle
	line       = 128 // bytes
	// blockShared is what a block may have of sm_90's shared memory.
	blockShared = 227 << 10
	// stagingBytes is what a warp writes its sums to, 16 rows of 64 columns, to
	// have neighbouring columns in one thread and a line of memory in half a warp.
	stagingBytes = 4 * 16 * stagingCols
	stagingCols  = 64
)

// wgmma is a product for sm_90a. A block has a warpgroup whose first thread
// starts the copies of operands' tiles to a ring of stages, and one or two
// warpgroups that multiply and finish what they have; meanwhile the next tile's
// stages fill. There are as many blocks as multiprocessors, each with every
// so-manieth tile.
type wgmma struct {
	p           *product
	kind        string
	left, right *matrix
	shape       Shape
	stages      int
}

// matrix is an operand as the copy engine sees it.
type matrix struct {
	buf    int
	offset int64
	dtype  ir.DType
	byK    bool // else lines are neighbours
	// extents and distances in elements: neighbours, the others, then batches.
	extents []int
	strides []int
	batch   [][]*kern.Var // of each batch dimension
}

// linear is how far apart elements are whose numbers, counted through vars,
// differ by 1, if that is the same everywhere.
func linear(ix kern.Index, vars []*kern.Var) (stride int, ok bool) {
	n := 1
	for i := len(vars) - 1; i >= 0; i-- {
		v := vars[i]
		if v.Extent == 1 {
			continue
		}
		c := ix.Coef(v)
		if n == 1 {
			stride = c
		} else if c != stride*n {
			return 0, false
		}
		n *= v.Extent
	}
	return stride, true
}

// matrix describes an operand, or returns nil if the copy engine cannot do it: it
// wants addresses and distances of whole 16 bytes.
func (p *product) matrix(root *kern.Node, lines []*kern.Var) *matrix {
	if root.Prim != kern.Load || len(root.Guards) > 0 || len(root.At.Ind) > 0 || root.At.Const%8 != 0 || root.At.Const < 0 {
		return nil
	}
	l, ok := linear(root.At, lines)
	k, ok2 := linear(root.At, p.k)
	if !ok || !ok2 {
		return nil
	}
	x := &matrix{buf: root.Buf, offset: int64(root.At.Const) * 2, dtype: p.kernel.Bufs[root.Buf].DType}
	nL, nK := points(lines), points(p.k)
	switch {
	case k == 1 && l > 0 && l%8 == 0:
		x.byK, x.extents, x.strides = true, []int{nK, nL}, []int{1, l}
	case l == 1 && k > 0 && k%8 == 0:
		x.extents, x.strides = []int{nL, nK}, []int{1, k}
	default:
		return nil
	}
	for _, v := range p.batch {
		c := root.At.Coef(v)
		if v.Extent == 1 || c == 0 {
			continue
		}
		if c < 0 || c%8 != 0 {
			return nil
		}
		if last := len(x.batch) - 1; last >= 0 && x.strides[last+2] == c*v.Extent {
			x.batch[last] = append(x.batch[last], v)
			x.extents[last+2] *= v.Extent
			x.strides[last+2] = c
			continue
		}
		x.batch = append(x.batch, []*kern.Var{v})
		x.extents, x.strides = append(x.extents, v.Extent), append(x.strides, c)
	}
	if len(x.extents) > 4 {
		return nil // the longest box of asm.go
	}
	return x
}

// tensorMap describes x to the copy engine, in boxes of so many neighbours and
// others.
func (x *matrix) tensorMap(others int) TensorMap {
	m := TensorMap{Arg: x.buf, Offset: x.offset, DType: x.dtype, Dims: x.extents, Box: []int{line / 2, others}, Swizzle: line}
	for i, s := range x.strides {
		if i > 0 {
			m.Strides = append(m.Strides, int64(s)*2)
		}
		if i > 1 {
			m.Box = append(m.Box, 1)
		}
	}
	return m
}

// bytes is the shared memory of so many lines of a stage.
func (x *matrix) bytes(lines int) int {
	if x.byK {
		return lines * line
	}
	return ceil(lines, line/2) * wgmmaDepth * line
}

// wgmma prepares p, or returns nil if it doesn't suit wgmma.
func (p *product) wgmma(t *Target, kind string) *wgmma {
	w := &wgmma{p: p, kind: kind, left: p.matrix(p.left, p.m), right: p.matrix(p.right, p.n)}
	if w.left == nil || w.right == nil || points(p.m) < 64 || points(p.n) < 32 || points(p.k) < 32 {
		return nil
	}
	best := 0.0
	for _, s := range shapes() {
		if c := w.cost(s); best == 0 || c < best {
			w.shape, best = s, c
		}
	}
	if t.Shape != nil {
		w.shape = *t.Shape
	}
	free := blockShared - 1024 - w.sums()
	w.stages = min(8, free/w.stage())
	return w
}

// sums is the bytes of shared memory that sums go through.
func (w *wgmma) sums() int {
	if w.shape.Parts > 1 {
		return w.results().bytes()
	}
	return w.shape.consumers() * 4 * stagingBytes
}

// results is a tile of parts of sums.
func (w *wgmma) results() results {
	return results{rows: w.shape.M, cols: w.shape.N, ld: w.shape.N + 8}
}

func (w *wgmma) stage() int { return w.left.bytes(w.shape.M) + w.right.bytes(w.shape.N) }

// shapes lists what may be chosen. Columns in steps of 16: waves of blocks come
// out even more often, and halves for clusters are whole swizzles of 8 lines.
func shapes() []Shape {
	var out []Shape
	for n := 256; n >= 32; n -= 16 {
		out = append(out, Shape{M: 128, N: n, Cluster: 1, Parts: 1}, Shape{M: 64, N: n, Cluster: 1, Parts: 1})
		if n >= 128 {
			out = append(out, Shape{M: 128, N: n, Cluster: 2, Parts: 1})
		}
		if n <= 128 && n >= 96 {
			out = append(out, Shape{M: 128, N: n, Cluster: 1, Parts: 1, Alternate: true}, Shape{M: 128, N: n, Cluster: 2, Parts: 1, Alternate: true})
		}
	}
	for _, n := range []int{128, 64, 32} {
		for parts := 2; parts <= min(8, n/8); parts *= 2 {
			out = append(out, Shape{M: 64, N: n, Cluster: 1, Parts: parts})
		}
	}
	return out
}

// cost is an estimate of the clocks that w takes with shape s.
func (w *wgmma) cost(s Shape) float64 {
	p := w.p
	tiles := ceil(points(p.m), s.M*s.Cluster) * ceil(points(p.n), s.N) * points(p.batch)
	steps := float64(ceil(ceil(points(p.k), wgmmaDepth), s.Parts))
	if s.Parts > 1 && tiles*s.Parts > multiprocessors {
		return math.Inf(1)
	}
	// Tiles of a block. Large products are limited by power, and multiprocessors
	// that wait at the end leave theirs to the others: a wave that is not full
	// costs less than a full one.
	blocks := float64(multiprocessors / (s.Cluster * s.Parts))
	each := float64(tiles) / blocks
	if each < 2 {
		each = math.Ceil(each)
	} else {
		each += 0.2 * (math.Ceil(each) - each)
	}
	// 2048 products a clock; operands from shared memory at 128 bytes, of device
	// memory's cache at 64. What comes from the cache costs power, which is clocks:
	// on an H200 tiles of 128x160 and 128x192 are 10 and 5% slower than 128x256
	// where sums are long.
	m, n := float64(s.M), float64(s.N)
	multiply := m * n * wgmmaDepth / 2048
	shared := (m + float64(s.M/64)*n) * line / 128
	cache := (m + n/float64(s.Cluster)) * line / 64
	step := max(multiply, shared, cache) + 0.3*(m+n)*line/64
	switch { // measured: -2 to 1% by a cluster, 2 to 6% where the left operand lies along its lines
	case s.Cluster > 1 && w.left.byK:
		step *= 0.985
	case s.Cluster > 1:
		step *= 1.03
	}
	// An instruction of the ending for every element takes a clock for 128 of them
	// on 4 schedulers, which a warp or two each keep busy a half of the time. Of
	// that, the stages that one warpgroup is ahead of the other hide 2000 clocks.
	ending := m * n / 128 * float64(8+w.work()) / 0.6
	if s.Alternate {
		// The others' products hide it: where sums are short that wins 4 to 9% over
		// tiles of 128x256.
		if steps <= 32 {
			step *= 0.9
		}
		return 1500 + each*max(steps*step+300, ending*2/3) + ending
	}
	cost := 1500 + each*(steps*step+300+max(0, ending-2000))
	if s.Parts > 1 {
		cost += 2000 // two meetings of the cluster, and loads from its blocks
	}
	return cost
}

// work is about the number of instructions for an element after the product.
func (w *wgmma) work() int {
	n := 0
	soft := absorbed(w.p.kernel)
	for _, x := range w.p.kernel.Body {
		switch x.Prim {
		case kern.Contract, kern.Const, kern.Pos:
		case kern.Exp, kern.Log:
			n += 14
			if soft[x.ID] {
				n -= 12
			}
		case kern.Tanh:
			n += 17
		case kern.Random:
			n += 80
		case kern.Div, kern.Sqrt:
			n += 8
			if x.Prim == kern.Div && soft[x.Args[1].ID] {
				n -= 6
			}
		case kern.Loop:
			n += 1000
		default:
			n++
		}
	}
	return n
}

// emit writes the kernel.
func (w *wgmma) emit(m *build.Module) ([]Entry, error) {
	p, k, s := w.p, w.p.kernel, w.shape
	consumers := s.consumers()
	threads := 128 * (1 + consumers)
	together := s.Cluster * s.Parts // blocks
	f := m.Kernel(k.Name, build.Limits{Threads: threads, Blocks: 1, Cluster: together}, 2, len(k.Bufs))
	e := newEmitter(f, k)
	e.pairs = true

	// Halves of a cluster's columns come from both blocks.
	others := [2]int{s.M, s.N / s.Cluster}
	for i, x := range []*matrix{w.left, w.right} {
		if !x.byK {
			others[i] = wgmmaDepth
		}
	}
	if !w.right.byK {
		others[1] /= s.Cluster
	}
	tilesM, tilesN := ceil(points(p.m), s.M*s.Cluster), ceil(points(p.n), s.N)
	tiles := tilesM * tilesN * points(p.batch)
	workers := multiprocessors / together
	if s.Blocks > 0 {
		workers = max(1, s.Blocks/together)
	}
	workers = min(workers, tiles)
	if s.Parts > 1 {
		workers = tiles // one for each cluster
	}
	leftBytes, stage := w.left.bytes(s.M), w.stage()
	staging := w.stages * stage
	barriers := staging + w.sums()
	entry := Entry{Name: k.Name, Grid: [3]int{workers * together, 1, 1}, Block: threads, Shared: barriers + 16*w.stages,
		Maps: []TensorMap{w.left.tensorMap(others[0]), w.right.tensorMap(others[1])}, Args: allBuffers(k)}
	if together > 1 {
		entry.Cluster = together
	}
	e.Shared(entry.Shared)
	base := e.SharedAddress()
	full := func(slot Value) Value { return e.Add(e.AddI(base, barriers), e.MulI(slot, 8)) }
	empty := func(slot Value) Value { return e.Add(e.AddI(base, barriers+8*w.stages), e.MulI(slot, 8)) }

	tid := e.Thread()
	group := e.ShuffleFrom(e.Shr(tid, 7), build.Int(0)) // the shuffle tells the assembler that a warp has one
	var rank, part Value = build.Int(0), build.Int(0)
	switch {
	case s.Cluster > 1:
		rank = e.Call("gpu.cluster.rank", build.I32)
	case s.Parts > 1:
		part = e.Call("gpu.cluster.rank", build.I32)
	}
	sharers := consumers // of a stage
	if s.Alternate {
		sharers = 1
	}
	e.If(e.Eq(tid, build.Int(0)), func() {
		for i := range w.stages {
			e.Call("gpu.mbarrier.init", build.Void, full(build.Int(i)), build.Int(1))
			e.Call("gpu.mbarrier.init", build.Void, empty(build.Int(i)), build.Int(sharers*s.Cluster))
		}
		e.Call("gpu.mbarrier.fence", build.Void)
		e.Call("gpu.tma.prefetch", build.Void, e.Map(0))
		e.Call("gpu.tma.prefetch", build.Void, e.Map(1))
	})
	e.meet(together)

	first := e.Div(e.BlockX(), together)
	steps := ceil(ceil(points(p.k), wgmmaDepth), s.Parts)
	start := e.MulI(part, steps*wgmmaDepth)
	// after is the stage so many later, and the parity of its phase.
	after := func(slot, phase Value, many int) (Value, Value) {
		n := e.AddI(slot, many%w.stages)
		wrap := e.Le(build.Int(w.stages), n)
		around := many / w.stages % 2
		return e.Select(wrap, e.AddI(n, -w.stages), n), e.Xor(phase, e.Select(wrap, build.Int(1-around), build.Int(around)))
	}
	var err error
	registers := consumers == 2 && s.Parts == 1
	e.IfElse(e.Eq(group, build.Int(0)), func() []Value {
		if registers {
			e.Call("gpu.setmaxnreg.dec", build.Void, build.Int(40))
		}
		e.If(e.Eq(tid, build.Int(0)), func() {
			e.For(first, build.Int(tiles), build.Int(workers), []Value{build.Int(0), build.Int(0)}, func(t Value, c []Value) []Value {
				m0, n0, b := w.tile(e, t, rank, tilesM, tilesN)
				e.unflatten(p.batch, b)
				return e.For(build.Int(0), build.Int(steps), build.Int(1), c, func(i Value, c []Value) []Value {
					slot, phase := c[0], c[1]
					e.Call("gpu.mbarrier.wait", build.Void, empty(slot), e.Xor(phase, build.Int(1)))
					bar := full(slot)
					e.Call("gpu.mbarrier.expect", build.Void, bar, build.Int(stage))
					at, k0 := e.Add(base, e.MulI(slot, stage)), e.Add(start, e.MulI(i, wgmmaDepth))
					w.load(e, 0, at, m0, k0, s.M, bar, nil)
					var half Value
					if s.Cluster > 1 {
						half = rank
					}
					w.load(e, 1, e.AddI(at, leftBytes), n0, k0, s.N, bar, half)
					slot, phase = after(slot, phase, 1)
					return []Value{slot, phase}
				})
			})
		})
		return nil
	}, func() []Value {
		if registers {
			e.Call("gpu.setmaxnreg.inc", build.Void, build.Int(232))
		}
		me := e.AddI(group, -1)
		thread := e.AndI(tid, 127)
		release := func(slot Value, also Value) {
			cond := e.Lt(thread, build.Int(s.Cluster))
			if also != nil {
				cond = e.And(cond, also)
			}
			e.If(cond, func() {
				if s.Cluster > 1 {
					e.Call("gpu.mbarrier.arrive.at", build.Void, empty(slot), thread)
				} else {
					e.Call("gpu.mbarrier.arrive", build.Void, empty(slot))
				}
			})
		}
		each := workers
		mine, rowsAt := first, me
		var slot, phase Value = build.Int(0), build.Int(0)
		if s.Alternate {
			// The second warpgroup begins with the second tile, and each leaves out
			// the stages of the other's.
			each, rowsAt = 2*workers, build.Int(0)
			mine = e.Add(first, e.MulI(me, workers))
			skipped, odd := after(slot, phase, steps)
			second := e.Eq(me, build.Int(1))
			slot, phase = e.Select(second, skipped, slot), e.Select(second, odd, phase)
		}
		// They multiply in turns: the parity of a stage's phase tells the next from
		// the one before, not from the one after that.
		turn := func(op string, whose Value) {
			e.Call("gpu.bar."+op, build.Void, e.AddI(whose, 1), build.Int(256))
		}
		other := e.Sub(build.Int(1), me)
		if s.Alternate {
			e.If(e.Eq(me, build.Int(1)), func() { turn("arrive", other) })
		}
		carried := []Value{slot, phase}
		regs := s.N / 2
		for range s.rows() / 64 * regs {
			carried = append(carried, build.Float(0))
		}
		w4 := e.AndI(e.Shr(tid, 5), 3) // the warp's number in its group
		e.For(mine, build.Int(tiles), build.Int(each), carried, func(t Value, c []Value) []Value {
			m0, n0, b := w.tile(e, t, rank, tilesM, tilesN)
			e.unflatten(p.batch, b)
			row0 := e.Add(m0, e.Add(e.MulI(rowsAt, 64), e.MulI(w4, 16)))
			if s.Parts == 1 {
				for i := 0; i < s.rows(); i += 64 {
					w.ahead(e, e.AddI(row0, i), n0, e.AndI(tid, 31))
				}
			}
			if s.Alternate {
				turn("sync", me)
			}
			c = e.For(build.Int(0), build.Int(steps), build.Int(1), append([]Value{build.Int(0)}, c...), func(i Value, c []Value) []Value {
				before, slot, phase, acc := c[0], c[1], c[2], c[3:]
				e.Call("gpu.mbarrier.wait", build.Void, full(slot), phase)
				at := e.Add(base, e.MulI(slot, stage))
				acc = w.multiply(e, e.Add(at, e.MulI(rowsAt, w.left.bytes(64))), e.AddI(at, leftBytes), i, acc)
				acc = w.wait(e, 1, acc)
				release(before, e.Lt(build.Int(0), i))
				n, ph := after(slot, phase, 1)
				return append([]Value{slot, n, ph}, acc...)
			})
			if s.Alternate {
				e.If(e.Lt(e.AddI(t, workers), build.Int(tiles)), func() { turn("arrive", other) })
			}
			acc := w.wait(e, 0, c[3:])
			release(c[0], nil)
			place := e.Add(e.MulI(me, 4), w4)
			if s.Parts > 1 {
				w.keep(e, staging, e.MulI(place, 16), e.AndI(tid, 31), acc)
				return append([]Value{c[1], c[2]}, acc...)
			}
			for i := range s.rows() / 64 {
				er := w.finish(e, e.AddI(e.MulI(place, stagingBytes), staging), e.AddI(row0, 64*i), n0, e.AndI(tid, 31), acc[i*regs:(i+1)*regs])
				if er != nil {
					err = er
				}
			}
			slot, phase := c[1], c[2]
			if s.Alternate {
				slot, phase = after(slot, phase, steps)
			}
			return append([]Value{slot, phase}, acc...)
		})
		return nil
	})
	if s.Parts > 1 {
		e.meet(together)
		e.If(e.Lt(build.Int(0), group), func() {
			m0, n0, b := w.tile(e, first, rank, tilesM, tilesN)
			e.unflatten(p.batch, b)
			d := e.ending(p)
			d.part, d.parts, d.at0 = part, s.Parts, staging
			if er := d.epilogue(w.results(), m0, n0, e.AddI(tid, -128), 128*consumers); er != nil {
				err = er
			}
		})
	}
	e.leave(together)
	return []Entry{entry}, err
}

// keep writes a warp's sums, rows from row on, to the block's tile of them at
// byte at of shared memory.
func (w *wgmma) keep(e *emitter, at int, row, lane Value, acc []Value) {
	c := w.results()
	row = e.Add(row, e.Shr(lane, 2))
	for i := 0; i < len(acc); i += 2 {
		to := e.Add(e.MulI(e.AddI(row, i/2%2*8), c.ld), e.AddI(e.MulI(e.AndI(lane, 3), 2), i/4*8))
		e.Store(e.Vector(acc[i:i+2]...), e.SharedAt(e.AddI(e.MulI(to, 4), at), build.Vec(2, build.F32)))
	}
}

// tile is where tile number t begins, and its batch. Tiles that are computed at
// a time, about multiprocessors in number, form a square: so the cache serves
// most of what they load.
func (w *wgmma) tile(e *emitter, t, rank Value, tilesM, tilesN int) (m0, n0, batch Value) {
	s := w.shape
	high := max(1, min(tilesM, 2048/(s.M*s.Cluster)))
	each := tilesM * tilesN
	batch, t = e.Div(t, each), e.Rem(t, each)
	band := e.Div(t, high*tilesN)
	t = e.Rem(t, high*tilesN)
	row, col := e.Rem(t, high), e.Div(t, high)
	if rest := tilesM % high; rest != 0 {
		last := e.Eq(band, build.Int(tilesM/high))
		row, col = e.Select(last, e.Rem(t, rest), row), e.Select(last, e.Div(t, rest), col)
	}
	row = e.Add(e.MulI(band, high), row)
	m0 = e.MulI(e.Add(e.MulI(row, s.Cluster), rank), s.M)
	return m0, e.MulI(col, s.N), batch
}

// load starts the copies of a stage of operand i, lines from l0 on and terms from
// k0 on; with part, of that half of it to both blocks of the cluster.
func (w *wgmma) load(e *emitter, i int, to, l0, k0 Value, lines int, bar, part Value) {
	x := []*matrix{w.left, w.right}[i]
	var batch []Value
	for _, vars := range x.batch {
		var at Value = build.Int(0)
		for _, v := range vars {
			at = e.Add(e.MulI(at, v.Extent), e.vars[v.ID][0])
		}
		batch = append(batch, at)
	}
	name := fmt.Sprintf("gpu.tma.load.%dd", len(x.extents))
	box := func(to, inner, outer Value) {
		args := append([]Value{to, e.Map(i), inner, outer}, batch...)
		args = append(args, bar)
		if part == nil {
			e.Call(name, build.Void, args...)
		} else {
			e.Call(name+".cluster", build.Void, append(args, constant.NewInt(build.I16, 1<<w.shape.Cluster-1))...)
		}
	}
	if x.byK {
		if part != nil {
			half := lines / w.shape.Cluster
			to, l0 = e.Add(to, e.MulI(part, half*line)), e.Add(l0, e.MulI(part, half))
		}
		box(to, k0, l0)
		return
	}
	if part != nil {
		half := wgmmaDepth / w.shape.Cluster
		to, k0 = e.Add(to, e.MulI(part, half*line)), e.Add(k0, e.MulI(part, half))
	}
	for j := 0; j < lines; j += line / 2 {
		box(e.AddI(to, j/(line/2)*wgmmaDepth*line), e.AddI(l0, j), k0)
	}
}

// multiply adds the product of a stage, whose operands are at these shared
// addresses, to the sums; step 0 replaces them.
//
// Descriptors are those of PTX's "matrix descriptor": the address, two distances
// and the swizzle of 128 bytes. Eight lines of 128 bytes are 1024 bytes apart
// from the next eight. Where lines are neighbours, 64 of them are a box, and the
// next box lies where the other distance says.
func (w *wgmma) multiply(e *emitter, left, right, step Value, acc []Value) []Value {
	describe := func(x *matrix, at Value) (d Value, advance int, trans int) {
		lead := 1
		if !x.byK {
			lead, trans = wgmmaDepth*line>>4, 1
		}
		d = e.Or(e.Long(e.AndI(e.Shr(at, 4), 0x3fff)), build.Long(1<<62|1024>>4<<32|int64(lead)<<16))
		if x.byK {
			return d, 16 * 2 >> 4, trans
		}
		return d, 16 * line >> 4, trans
	}
	a, stepA, transA := describe(w.left, left)
	b, stepB, transB := describe(w.right, right)
	name := fmt.Sprintf("gpu.wgmma.m64n%dk16.%s.ss.t%d%d", w.shape.N, w.kind, transA, transB)
	e.Call("gpu.wgmma.fence", build.Void)
	regs := w.shape.N / 2
	acc = append([]Value(nil), acc...)
	for q := range wgmmaDepth / 16 {
		var keep Value = build.Int(1)
		if q == 0 {
			keep = step
		}
		for i := 0; i*regs < len(acc); i++ {
			part := acc[i*regs : (i+1)*regs]
			rows := i * w.left.bytes(64) >> 4
			args := append(append([]Value(nil), part...), e.AddI(a, rows+q*stepA), e.AddI(b, q*stepB), keep)
			copy(part, e.parts(e.Call(name, build.Struct(regs, build.F32), args...), regs))
		}
	}
	e.Call("gpu.wgmma.commit", build.Void)
	return acc
}

// wait waits until at most n groups of products are under way.
func (w *wgmma) wait(e *emitter, n int, acc []Value) []Value {
	r := e.Call(fmt.Sprintf("gpu.wgmma.wait.%d.%d", n, len(acc)), build.Struct(len(acc), build.F32), acc...)
	return e.parts(r, len(acc))
}

func (e *emitter) parts(s Value, n int) []Value {
	out := make([]Value, n)
	for i := range out {
		out[i] = e.Part(s, i)
	}
	return out
}

// ahead asks for the lines of memory that finish will load for a warp's rows,
// those of operands as large as the result: its few warps would wait for each of
// them longer than for the products.
func (w *wgmma) ahead(e *emitter, row0, n0, lane Value) {
	p := w.p
	d := e.ending(p)
	nM, nN := points(p.m), points(p.n)
	for _, n := range p.kernel.Body {
		size := 0
		if n.Prim == kern.Load {
			size = p.kernel.Bufs[n.Buf].DType.Size()
		}
		if size < 2 || e.uses[n.ID] == 0 || d.along == nil || n.At.Coef(d.along) != 1 || len(n.At.Ind) > 0 || len(n.Guards) > 0 {
			continue
		}
		rows := false
		for _, v := range p.m {
			rows = rows || n.At.Coef(v) != 0
		}
		if !rows {
			continue
		}
		cols := line / size
		perRow := ceil(w.shape.N, cols)
		for i := 0; i < 16*perRow; i += warp {
			x := e.AddI(lane, i)
			row, col := e.Div(x, perRow), e.MulI(e.Rem(x, perRow), cols)
			var ok Value
			if i+warp > 16*perRow {
				ok = e.Lt(row, build.Int(16))
			}
			ok = e.both(ok, e.inside(e.Add(row0, row), nM, w.shape.M*w.shape.Cluster))
			ok = e.both(ok, e.Lt(e.Add(n0, col), build.Int(nN)))
			d.at(place{row: e.Add(row0, row), col: e.Add(n0, col), ok: ok})
			e.If(ok, func() {
				e.Call("gpu.prefetch", build.Void, e.Cast(e.At(e.bases[n.Buf], e.index(n.At, 0)), build.I8))
			})
		}
	}
	e.live, e.width, e.run = nil, 1, nil
	e.vals[p.contract.ID] = nil
}

// finish runs the rest of the body on a warp's sums, 16 rows from row0 on, 64
// columns at a time: they go through the warp's own shared memory, so that no
// warp waits for another. Its granules of 16 bytes are exchanged: the 16 lanes
// that write at a time, four rows of 32 bytes, use all banks, and so do the 8
// lanes that read a line.
func (w *wgmma) finish(e *emitter, staging, row0, n0, lane Value, acc []Value) error {
	p := w.p
	d := e.ending(p)
	nM, nN := points(p.m), points(p.n)
	quad, pair := e.Shr(lane, 2), e.AndI(lane, 3)
	swap := func(row Value) Value { return e.Shl(e.AndI(row, 3), 1) }
	from := e.Add(staging, e.Add(e.MulI(quad, 4*stagingCols), e.MulI(pair, 8)))
	var to [4]Value
	for g := range to {
		to[g] = e.Add(from, e.MulI(e.Xor(build.Int(2*g), swap(quad)), 16))
	}
	chunks := ceil(w.shape.N, stagingCols)
	each := warp * d.run
	rounds := 16 * stagingCols / each
	many := min(d.places, rounds)
	var err error
	e.For(build.Int(0), build.Int(chunks), build.Int(1), nil, func(chunk Value, _ []Value) []Value {
		for j := range chunks {
			e.If(e.Eq(chunk, build.Int(j)), func() {
				for g := range min(8, w.shape.N/8-8*j) {
					for h := range 2 {
						x := 4*(8*j+g) + 2*h
						at := e.AddI(to[g%4], g/4*128+h*8*4*stagingCols)
						e.Store(e.Vector(acc[x:x+2]...), e.SharedAt(at, build.Vec(2, build.F32)))
					}
				}
			})
		}
		e.Call("gpu.syncwarp", build.Void, build.Int(-1))
		e.For(build.Int(0), build.Int(rounds), build.Int(many), nil, func(round Value, _ []Value) []Value {
			var places []place
			for i := range many {
				// Two rows and more are whole: then a lane's columns stay, and
				// so do the places of its granules, which repeat after four rows.
				x := e.Add(e.MulI(e.AddI(round, i), each), e.MulI(lane, d.run))
				row, col := e.Div(x, stagingCols), e.Rem(x, stagingCols)
				repeats := row
				if rows := each / stagingCols; rows > 0 {
					mine := e.Div(e.MulI(lane, d.run), stagingCols)
					row, col = e.Add(e.MulI(e.AddI(round, i), rows), mine), e.Rem(e.MulI(lane, d.run), stagingCols)
					if many*rows%4 == 0 {
						repeats = e.AddI(mine, i*rows)
					}
				}
				var ok Value
				here := col
				if w.shape.N%stagingCols != 0 {
					ok = e.Lt(e.Add(e.MulI(chunk, stagingCols), col), build.Int(w.shape.N))
					here = e.Select(ok, col, build.Int(0)) // of the last chunk the rest is not written
				}
				at := e.Add(e.MulI(row, 4*stagingCols), e.MulI(e.Xor(e.Shr(here, 2), swap(repeats)), 16))
				if d.run < 4 {
					at = e.Add(at, e.MulI(e.AndI(here, 3), 4))
				}
				sums := e.sums(e.Add(staging, at), d.run)
				row, col = e.Add(row0, row), e.Add(e.Add(n0, e.MulI(chunk, stagingCols)), col)
				ok = e.both(ok, e.both(e.inside(row, nM, w.shape.M*w.shape.Cluster), e.inside(col, nN, w.shape.N)))
				places = append(places, place{row, col, ok, sums})
			}
			if er := d.finish(places); er != nil {
				err = er
			}
			return nil
		})
		e.Call("gpu.syncwarp", build.Void, build.Int(-1))
		return nil
	})
	return err
}

// sums loads so many neighbouring sums from byte at of shared memory.
func (e *emitter) sums(at Value, n int) []Value {
	if n == 1 {
		return []Value{e.Load(e.SharedAt(at, build.F32))}
	}
	v := e.Load(e.SharedAt(at, build.Vec(n, build.F32)))
	out := make([]Value, n)
	for j := range out {
		out[j] = e.Elem(v, j)
	}
	return out
}
