package cuda

import (
	"fmt"
	"math"
	"slices"

	"github.com/llir/llvm/ir/enum"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops/mask"
)

// Attention on matrix units, as FlashAttention-2 (Dao 2023) does it: 16-bit
// operands, sums in f32. A warp's rows, and all that is summed for them, stay in
// its registers. Tiles of columns take turns in shared memory: while one is
// worked on, the next ones are copied asynchronously, from sm_80 on. Before it they
// are copied through registers when their turn comes, and other blocks of the
// multiprocessor work meanwhile.

const (
	tileSize  = mask.TileSize
	groupSize = mask.GroupSize
	maskBits  = 32
)

// flash is such a kernel under construction.
//
// A warp's sums of n columns are, by piece of 16 rows, by 8 columns, four
// values a thread: element e of them belongs to row x.row + x.apart*(e/2) and to
// column x.column + e%2, which the instruction decides.
type flash struct {
	*attender
	unit
	kind       string
	core       *mmaCore // whose sums they are, wgmma's being as mma's
	row        Value    // of the lane's first sum,
	column     Value    // its column,
	apart      int      // and how far the lane's other row of a piece is
	pieces     int      // of 16 rows, that a warp has
	threads    int
	tiles      *rowBlock
	together   int    // warps that the table takes for one
	lane, warp Value  // warp: its number in the block
	shared     Value  // address, as copies and products take it
	async      bool   // copies are
	stages     int    // one unless they are
	stage      int    // bytes of one
	fill       []int  // operands whose rows a stage has, one tile after the other
	perColumn  []int  // operands [B,H,T] of which it then has an element a column
	meanwhile  func() // what the walk does once its first copies are under way, or nil
}

// unit multiplies matrices whose rows lie in shared memory.
type unit interface {
	// tileBytes is the size of a tile of rows of a.d elements.
	tileBytes(rows int) int
	// place is where 16 bytes of a row begin in a tile of so many rows.
	place(row, part Value, rows int) Value
	// own is the warp's rows of the block's as a left operand, loaded where they
	// are used or held in registers.
	own(at Value, rows int, hold bool) left
	// scores adds to acc, or gives if that is nil, the products of left with n
	// rows, from a row on, of a tile.
	scores(acc []Value, l left, tile, from Value, n int) []Value
	// collect adds to acc, rows of a.d columns, the product of left, n columns
	// wide, with n rows, from a row on, of a tile.
	collect(acc []Value, l left, tile, from Value, n int) []Value
	// settle gives the sums of the oldest products when at most so many begun
	// after them are under way; until then nobody may use them.
	settle(acc []Value, later int) []Value
	// fragments are 16 columns of a piece as a left operand, of which a lane has these
	// sums, rounded, in pairs.
	fragments(words [4]Value) [][4]Value
	// arrived makes copies that have come visible to products.
	arrived()
}

// left is a left operand of 16-bit elements: fragments of a piece, each of as many
// columns as the instruction has terms, or something in shared memory that only the
// unit knows.
type left struct {
	fragment func(piece, number int) [4]Value
	shared   Value
	rows     int // of the tile in shared memory
}

// held is a left operand of so many columns that stays in registers.
func (x *flash) held(l left, columns int) left {
	var all [][][4]Value
	for p := range x.pieces {
		all = append(all, nil)
		for k := range columns / x.core.terms {
			all[p] = append(all[p], l.fragment(p, k))
		}
	}
	return left{fragment: func(p, k int) [4]Value { return all[p][k] }}
}

// rounded are sums of n columns as a left operand.
func (x *flash) rounded(acc []Value, n int) left {
	all := make([][][4]Value, x.pieces)
	for p := range all {
		for k := range n / 16 {
			var words [4]Value
			for i := range words {
				s := sumsOf(acc, n, p, 2*k+i/2)[i%2*2:]
				words[i] = x.Pack(x.kind, s[0], s[1])
			}
			all[p] = append(all[p], x.fragments(words)...)
		}
	}
	return left{fragment: func(p, k int) [4]Value { return all[p][k] }}
}

// zeros are n sums.
func zeros(n int) []Value {
	out := make([]Value, n)
	for i := range out {
		out[i] = build.Float(0)
	}
	return out
}

// sumsOf are the four sums of a piece and 8 columns, of n columns in all.
func sumsOf(acc []Value, n, piece, columns int) []Value {
	at := (piece*n/8 + columns) * 4
	return acc[at : at+4]
}

// rowOf is the thread's row, of two a piece, that sum i of n columns belongs to.
func rowOf(i, n int) int { return i/(n/2)*2 + i%4/2 }

// columnOf is its column, less what the lane adds.
func columnOf(i, n int) int { return i/4%(n/8)*8 + i%2 }

// rowsOf calls f for every row of the thread: its number there and in the block.
func (x *flash) rowsOf(f func(r int, row Value)) {
	first := x.Add(x.MulI(x.warp, 16*x.pieces), x.row)
	for r := range 2 * x.pieces {
		f(r, x.AddI(first, r/2*16+r%2*x.apart))
	}
}

// quad combines v of the four lanes that have a row.
func (x *flash) quad(v Value, combine func(a, b Value) Value) Value {
	for _, bit := range x.core.bits {
		v = combine(v, x.ShuffleXor(v, bit))
	}
	return v
}

// words loads the mask words of a step of 32 columns for the thread's rows, so
// shifted that bit columnOf(i) is sum i's.
func (x *flash) words(at Value) []Value {
	out := []Value{}
	x.rowsOf(func(_ int, row Value) {
		out = append(out, x.ShrV(x.LoadOnly(x.At(at, row)), x.column))
	})
	return out
}

// where replaces the sums of n columns that words don't allow.
func (x *flash) where(words, acc []Value, n int, other Value) {
	if words == nil {
		return
	}
	for i := range acc {
		bit := x.AndI(words[rowOf(i, n)], 1<<columnOf(i, n))
		acc[i] = x.Select(x.Compare(enum.IPredNE, bit, build.Int(0)), acc[i], other)
	}
}

// copier copies rows of some operands to shared memory, 16 bytes a thread at a
// time.
type copier struct {
	x     *flash
	rows  int     // of a tile
	turn  int     // rows of a turn, if each thread has the same part of each; else 0
	row   []Value // of each turn: the row of the tile,
	to    []Value // where its 16 bytes go,
	from  []Value // and where in a row they are, in elements
	turns int
}

func (x *flash) copier(rows int) *copier {
	parts := x.d / 8
	c := &copier{x: x, rows: rows, turns: rows * parts / x.threads} // 64 rows and an even number of parts: no rest
	if x.threads%(8*parts) == 0 {
		c.turn = x.threads / parts // whole swizzles too
	}
	for i := range c.turns {
		at := x.AddI(x.Thread(), i*x.threads)
		row, part := x.Div(at, parts), x.Rem(at, parts)
		to, from := x.place(row, part, rows), x.MulI(part, 8)
		if i > 0 && c.turn > 0 { // the same, in fewer registers
			row, from = x.AddI(c.row[0], i*c.turn), c.from[0]
			to = x.AddI(c.to[0], i*c.turn*x.tileBytes(rows)/rows/x.panels())
		}
		c.row, c.to, c.from = append(c.row, row), append(c.to, to), append(c.from, from)
	}
	return c
}

// positions loads the positions that a list has for the rows.
func (c *copier) positions(list Value) []Value {
	out := []Value{}
	first := c.x.At(list, c.row[0])
	for i := range c.turns {
		if c.turn > 0 {
			out = append(out, c.x.LoadOnly(c.x.At(first, build.Int(i*c.turn))))
		} else {
			out = append(out, c.x.LoadOnly(c.x.At(list, c.row[i])))
		}
	}
	return out
}

// copy starts copying the rows of operands, which lie one tile after the other
// in shared memory; those from n on, if not nil, become 0.
func (c *copier) copy(ops []int, bases, positions []Value, n, to Value) {
	x := c.x
	var puts []func()
	put := func() {
		for _, p := range puts {
			p()
		}
		puts = puts[:0]
	}
	for i, p := range positions {
		var exists Value = build.Bool(true)
		if n != nil {
			exists = x.Lt(c.row[i], n)
			if c.turn > 0 {
				exists = x.Lt(c.row[0], x.AddI(n, -i*c.turn))
			}
		}
		var first Value
		for j, op := range ops {
			v, w := x.view(op), x.view(ops[0])
			from := x.At(bases[j], x.Add(x.MulI(p, x.stride(op)), c.from[i]))
			if j == 0 {
				first = from
			} else if v.Buf == w.Buf && slices.Equal(v.Strides, w.Strides) {
				from = x.At(first, build.Int(v.Offset-w.Offset))
			}
			place := x.AddI(x.Add(to, c.to[i]), j*x.tileBytes(c.rows))
			if puts = append(puts, x.bring(v.Buf, from, place, 4, exists)); len(puts) == loadedAtOnce {
				put()
			}
		}
	}
	put()
}

// loadedAtOnce is how many copies through registers are under way at a time, of 16
// bytes each.
const loadedAtOnce = 8

// bring starts copying one or four words, which are 0 unless they exist, to an
// address of shared memory, and gives what puts them there if they come through
// registers.
func (x *flash) bring(buf int, from, to Value, words int, exists Value) (put func()) {
	if x.async {
		name := fmt.Sprintf("gpu.cp.async.%d", 4*words)
		x.Call(name, build.Void, to, x.GlobalAddress(from), x.Select(exists, build.Int(4*words), build.Int(0)))
		return func() {}
	}
	if words == 1 {
		v := x.Select(exists, x.read(buf, from), build.Float(0))
		return func() { x.Store(v, x.SharedAt(to, build.F32)) }
	}
	t := build.Vec(words, build.I32)
	v := x.read(buf, x.Cast(from, t))
	out := make([]Value, words)
	for i := range out {
		out[i] = x.Select(exists, x.Elem(v, i), build.Int(0))
	}
	return func() { x.Store(x.Vector(out...), x.SharedAt(to, t)) }
}

// commit makes what bring has started since the last time a group.
func (x *flash) commit() {
	if x.async {
		x.Call("gpu.cp.async.commit", build.Void)
	}
}

// flash starts a kernel. Without wgmma a warp has so many pieces, if rows have at
// most 64 elements: a second one halves what is read from shared memory for each
// of them. A block has 128 rows, where registers allow: so columns are read from
// the L2 cache half as often as with 64.
func (a *attention) flash(name string, t *Target, kind string, pieces int, transposed bool, fill, perColumn []int) *flash {
	x := &flash{kind: kind, fill: fill, perColumn: perColumn, core: cores[t.Tensor], together: 1, stages: 2, async: true}
	if x.core == nil {
		x.core = cores["mma"]
	}
	if a.d > 64 {
		pieces = 1
	}
	s := mask.Shape{Lanes: 64 * pieces, Warp: 16 * pieces}
	budget := 255 // registers of a thread
	switch {
	case t.Tensor == "wgmma" && a.d%64 == 0:
		s, x.together, x.stages = mask.Shape{Lanes: 128, Warp: 64}, 4, 3
		if a.d == 64 {
			budget = 128
		}
	case a.d <= 64 && pieces == 1 && (t.Tensor != "m8n8k4" || !transposed): // left operands have more registers there
		budget = 168
	}
	if t.Tensor == "m8n8k4" {
		x.async, x.stages = false, 1
	}
	if a.t <= 64 {
		s = mask.Shape{Lanes: 64, Warp: 16 * x.together}
	}
	x.pieces = s.Warp / 16 / x.together
	x.threads = s.Lanes / 16 / x.pieces * warp
	x.attender = a.kernel(name, build.Limits{Threads: x.threads, Blocks: 64 << 10 / (budget * x.threads)})
	x.tiles = x.begin(a.tiling(s, transposed))
	id := x.Thread()
	x.lane, x.warp = x.AndI(id, 31), x.Shr(id, 5)
	x.row, x.column = x.core.first(x.emitter, x.lane)
	x.apart = x.core.pairs[1][0]
	x.shared = build.Int(0)
	if x.async {
		x.shared = x.SharedAddress()
	}
	if x.together > 1 {
		x.unit = x.wgmmaUnit()
	} else {
		x.unit = x.mmaUnit()
	}
	x.stage = len(fill)*x.tileBytes(tileSize) + 4*tileSize*len(perColumn)
	x.stage = ceil(x.stage, 1024) * 1024 // a swizzle repeats after so many
	x.Shared(x.stages * x.stage)
	return x
}

func (x *flash) entry(name string) Entry {
	e := x.grid(name, x.tiles.tiling, x.threads)
	e.Shared = x.SharedBytes
	return e
}

// panels is how many rows of at most 128 bytes the unit cuts a row into.
func (x *flash) panels() int {
	if x.together > 1 {
		return x.d / 64
	}
	return 1
}

// tile is operand number i of the stage at an address.
func (x *flash) tile(stage Value, i int) Value { return x.AddI(stage, i*x.tileBytes(tileSize)) }

// step works on n columns of a stage that begin with number from, an i32;
// words is nil where all is allowed. It returns what it was given, updated.
type step func(stage, from Value, n int, words, state []Value) []Value

// walk goes through the tiles of the block. First it calls begin, while the
// first tile is being copied: all but the last group of copies have come, and
// what is in the last stage stays until begin is done. A step has so many
// columns where all is allowed, else 32, or 16 where the warp needs no more.
func (x *flash) walk(columns int, begin func() (state []Value), f step) []Value {
	c := x.copier(tileSize)
	bases := []Value{}
	for _, op := range x.fill {
		bases = append(bases, x.rows(op))
	}
	per := x.perColumns()
	list := func(i Value) Value { return x.At(x.tiles.column, x.MulI(i, tileSize)) }
	stageAt := func(i Value) Value { return x.Add(x.shared, x.MulI(x.Rem(i, x.stages), x.stage)) }
	fetch := func(i Value, positions []Value) {
		n, to := x.Sub(x.tiles.columns, x.MulI(i, tileSize)), stageAt(i)
		c.copy(x.fill, bases, positions[:c.turns], n, to)
		if per != nil {
			per(positions[c.turns:], n, to)
		}
	}
	last := x.AddI(x.tiles.count, -1)
	positions := func(i Value) []Value {
		i = x.Select(x.Lt(i, last), i, last)
		out := c.positions(list(i))
		if per != nil {
			out = append(out, x.LoadOnly(x.At(list(i), x.AndI(x.Thread(), tileSize-1))))
		}
		return out
	}
	ahead := x.stages - 1
	for i := range ahead {
		first := func() { fetch(build.Int(i), positions(build.Int(i))) }
		if i == 0 {
			first()
		} else {
			x.If(x.Lt(build.Int(i), x.tiles.count), first)
		}
		x.commit()
	}
	if x.meanwhile != nil {
		x.meanwhile()
	}
	x.await(ahead)
	x.Barrier()
	state := begin()
	// What the next turn begins with is loaded before this one's work: the
	// positions to be copied, and the word of busy warps.
	busyAt := func(i Value) Value {
		j := x.Sub(i, x.tiles.whole)
		return x.LoadOnly(x.At(x.tiles.busy, x.Select(x.Lt(j, build.Int(0)), build.Int(0), j)))
	}
	n := len(state)
	turn := func(work func(i, stage, busy Value, state []Value) []Value) func(i Value, c []Value) []Value {
		return func(i Value, c []Value) []Value {
			next := x.AddI(i, ahead)
			if ahead > 0 {
				x.await(ahead - 1)
				x.Barrier()
				x.If(x.Lt(next, x.tiles.count), func() { fetch(next, c[n+1:]) })
				x.commit()
			} else {
				x.Barrier() // nobody needs the last tile any more
				fetch(next, c[n+1:])
				x.Barrier()
			}
			after := append([]Value{busyAt(x.AddI(i, 1))}, positions(x.AddI(next, 1))...)
			return append(work(i, stageAt(i), c[n], c[:n:n]), after...)
		}
	}
	state = append(append([]Value(nil), state...), busyAt(build.Int(0)))
	state = append(state, positions(build.Int(ahead))...)
	state = x.For(build.Int(0), x.tiles.whole, build.Int(1), state, turn(func(_, stage, _ Value, s []Value) []Value {
		for at := 0; at < tileSize; at += columns {
			s = f(stage, build.Int(at), columns, nil, s)
		}
		return s
	}))
	// The table's warps: the unit may take several for one.
	number, many := x.warp, x.tiles.shape.Lanes/x.tiles.shape.Warp
	if x.together > 1 {
		number = x.ShuffleFrom(x.Div(x.warp, x.together), build.Int(0)) // so that the assembler knows that a warp has one
	}
	state = x.For(x.tiles.whole, x.tiles.count, build.Int(1), state, turn(func(i, stage, busy Value, s []Value) []Value {
		busy = x.ShrV(busy, number)
		words := x.At(x.tiles.words, x.MulI(x.Sub(i, x.tiles.whole), tileSize/maskBits*x.tiles.shape.Lanes))
		return x.For(build.Int(0), build.Int(tileSize/maskBits), build.Int(1), s, func(half Value, s []Value) []Value {
			mine := x.ShrV(busy, x.MulI(half, 2*many))
			has := func(group int) Value {
				return x.Compare(enum.IPredNE, x.AndI(mine, 1<<(group*many)), build.Int(0))
			}
			run := func(n int) func() []Value {
				return func() []Value {
					w := x.words(x.At(words, x.MulI(half, x.tiles.shape.Lanes)))
					return f(stage, x.MulI(half, maskBits), n, w, s)
				}
			}
			return x.IfElse(has(1), run(2*groupSize), func() []Value {
				return x.IfElse(has(0), run(groupSize), func() []Value { return s })
			})
		})
	}))
	x.Barrier() // what follows may write to the stages
	return state[:n]
}

// await waits until at most n groups of copies have yet to come.
func (x *flash) await(n int) {
	if x.async {
		x.Call(fmt.Sprintf("gpu.cp.async.wait.%d", n), build.Void)
		x.arrived()
	}
}

// perColumns copies the elements of the operands [B,H,T] for the columns of a
// tile behind its rows: f32, a thread each. There are none or two.
func (x *flash) perColumns() func(positions []Value, n, stage Value) {
	if len(x.perColumn) == 0 {
		return nil
	}
	id := x.Thread()
	column := x.AndI(id, tileSize-1)
	first := x.Lt(id, build.Int(tileSize))
	base, s := x.perHead(x.perColumn[0])
	other, t := x.perHead(x.perColumn[1])
	base = x.Select(first, base, other)
	stride := x.Select(first, build.Int(s), build.Int(t))
	if s == t {
		stride = build.Int(s)
	}
	return func(positions []Value, n, stage Value) {
		x.If(x.Lt(id, build.Int(2*tileSize)), func() {
			from := x.At(base, x.Mul(positions[0], stride))
			to := x.Add(x.tile(stage, len(x.fill)), x.MulI(id, 4))
			x.bring(x.view(x.perColumn[1]).Buf, from, to, 1, x.Lt(column, n))()
		})
	}
}

// ownRegisters is how many registers of a thread hold the warp's rows of an operand.
func (x *flash) ownRegisters() int { return 4 * x.pieces * x.d / x.core.terms }

// ownRows starts copying the block's rows of some operands, which get takes once
// they have come. Those that are held in registers need the last stage's memory
// only until then, others have memory of their own.
func (x *flash) ownRows(hold bool, ops ...int) (get func() []left) {
	rows := x.tiles.shape.Lanes
	c := x.copier(rows)
	positions := c.positions(x.tiles.row)
	start := (x.stages - 1) * x.stage
	if !hold {
		start += x.stage
	}
	x.Shared(start + len(ops)*x.tileBytes(rows))
	at := x.AddI(x.shared, start)
	var bases []Value
	for _, op := range ops {
		bases = append(bases, x.rows(op))
	}
	c.copy(ops, bases, positions, nil, at)
	x.commit()
	return func() (out []left) {
		for i := range ops {
			out = append(out, x.own(x.AddI(at, i*x.tileBytes(rows)), rows, hold))
		}
		return out
	}
}

// out writes sums of a.d columns to the rows of operand op, by way of shared
// memory, of which the walk that is over needs nothing, so that 16 bytes are
// written at once.
func (x *flash) out(op int, acc []Value) {
	pitch := 2*x.d + 16
	piece := 16 * pitch
	x.Shared(x.threads / warp * x.pieces * piece)
	base := x.MulI(x.warp, x.pieces*piece)
	mine := x.Add(base, x.Add(x.MulI(x.row, pitch), x.MulI(x.column, 2)))
	for p := range x.pieces {
		for j := range x.d / 8 {
			s := sumsOf(acc, x.d, p, j)
			for h := range 2 {
				x.Store(x.Pack(x.kind, s[2*h], s[2*h+1]), x.SharedAt(x.AddI(mine, p*piece+x.apart*h*pitch+16*j), build.I32))
			}
		}
	}
	x.Call("gpu.syncwarp", build.Void, build.Int(-1))
	parts := x.d / 8
	to := x.rows(op)
	first := x.MulI(x.warp, 16*x.pieces)
	quarter := build.Vec(4, build.I32)
	for i := 0; i < 16*x.pieces*parts; i += warp {
		at := x.AddI(x.lane, i)
		row, part := x.Div(at, parts), x.Rem(at, parts)
		v := x.Load(x.SharedAt(x.Add(base, x.Add(x.MulI(row, pitch), x.MulI(part, 16))), quarter))
		row = x.Add(first, row)
		x.If(x.Lt(row, x.tiles.rows), func() {
			place := x.Add(x.MulI(x.LoadOnly(x.At(x.tiles.row, row)), x.stride(op)), x.MulI(part, 8))
			x.Store(v, x.Cast(x.At(to, place), quarter))
		})
	}
	x.Call("gpu.syncwarp", build.Void, build.Int(-1))
}

// outScaled is out of sums that lack the factor of scores.
func (x *flash) outScaled(op int, acc []Value) {
	out := make([]Value, len(acc))
	for i := range acc {
		out[i] = x.FMul(acc[i], build.Float(x.scale))
	}
	x.out(op, out)
}

// emitAttentionForward writes attention_fwd: q k v table -> out lse.
func emitAttentionForward(m *build.Module, t *Target, k *kern.Kernel) ([]Entry, error) {
	const q, key, v, out = 0, 1, 2, 4
	a, err := newAttention(m, k)
	if err != nil {
		return nil, err
	}
	if kind := a.matrixKind(t, q, key, v, out); kind != "" {
		return []Entry{a.forwardMatrix(t, kind)}, nil
	}
	return []Entry{a.forward()}, nil
}

// emitAttentionBackward writes attention_bwd: q k v do out lse table -> dq dk dv
// delta, or q k v do delta lse table -> dq dk dv. The kernel of queries, which
// runs first, writes the delta that it and that of keys read.
func emitAttentionBackward(m *build.Module, t *Target, k *kern.Kernel) ([]Entry, error) {
	const q, key, v, do, out, dq, dk, dv = 0, 1, 2, 3, 4, 7, 8, 9
	a, err := newAttention(m, k)
	if err != nil {
		return nil, err
	}
	heads := []int{q, key, v, do, dq, dk, dv}
	if _, given := a.delta(); !given {
		heads = append(heads, out)
	}
	if kind := a.matrixKind(t, heads...); kind != "" {
		return []Entry{a.queryGradientMatrix(t, kind), a.keyGradientsMatrix(t, kind)}, nil
	}
	return a.backward(), nil
}

// lazy is how far scores, as exponents of 2, may rise above what is subtracted
// from them before sums are rescaled: then terms are at most 256, which 16 bits
// hold with the same relative error as 1.
const lazy = 8

func (a *attention) forwardMatrix(t *Target, kind string) Entry {
	const q, key, v, out, lse = 0, 1, 2, 4, 5
	name := a.k.Name
	x := a.flash(name, t, kind, 2, false, []int{key, v}, nil)
	get := x.ownRows(true, q)
	// State: what is subtracted from the scores of each row, the sums of their
	// powers, the sums of values.
	rows := 2 * x.pieces
	scale := build.Float(a.scale * log2e)
	var own left
	begin := func() []Value {
		own = get()[0]
		state := zeros(2*rows + x.pieces*x.d/2)
		for i := range rows {
			state[i] = build.Float(-1e30)
		}
		return state
	}
	state := x.walk(tileSize, begin, func(stage, from Value, n int, words, state []Value) []Value {
		s := x.settle(x.scores(nil, own, x.tile(stage, 0), from, n), 0)
		// exp2(-Inf) is 0, whatever is subtracted.
		x.where(words, s, n, build.Float(math.Inf(-1)))
		state = x.rescale(s, n, scale, state)
		top, sum, acc := state[:rows], state[rows:2*rows], state[2*rows:]
		for i := range s {
			r := rowOf(i, n)
			s[i] = x.FastEx2(x.FMA(s[i], scale, x.FNeg(top[r])))
			sum[r] = x.FAdd(sum[r], s[i])
		}
		acc = x.settle(x.collect(acc, x.rounded(s, n), x.tile(stage, 1), from, n), 0)
		return append(state[:2*rows:2*rows], acc...)
	})
	top, sum, acc := state[:rows], state[rows:2*rows], state[2*rows:]
	for r := range sum {
		sum[r] = x.quad(sum[r], x.FAdd)
	}
	for i := range acc {
		acc[i] = x.FMul(acc[i], x.Rcp(sum[rowOf(i, x.d)]))
	}
	x.out(out, acc)
	to, stride := x.perHead(lse)
	x.rowsOf(func(r int, row Value) {
		x.If(x.And(x.Eq(x.column, build.Int(0)), x.Lt(row, x.tiles.rows)), func() {
			l := x.FMul(x.FAdd(top[r], x.Lg2(sum[r])), build.Float(math.Ln2))
			x.Store(l, x.At(to, x.MulI(x.LoadOnly(x.At(x.tiles.row, row)), stride)))
		})
	})
	x.Return()
	return x.entry(name)
}

// rescale makes what is subtracted from the scores of each row large enough for
// the scores s of n columns, if any row of the warp needs that.
func (x *flash) rescale(s []Value, n int, scale Value, state []Value) []Value {
	rows := 2 * x.pieces
	top := state[:rows]
	most := make([]Value, rows)
	for i := range s {
		if r := rowOf(i, n); most[r] == nil {
			most[r] = s[i]
		} else {
			most[r] = x.FMax(most[r], s[i])
		}
	}
	var rise Value
	for r := range most {
		most[r] = x.FMul(x.quad(most[r], x.FMax), scale)
		by := x.FSub(most[r], top[r])
		if rise == nil {
			rise = by
		} else {
			rise = x.FMax(rise, by)
		}
	}
	high := x.FCompare(enum.FPredOGT, rise, build.Float(lazy))
	return x.IfElse(x.Any(high), func() []Value {
		out := append([]Value(nil), state...)
		var factor []Value
		for r := range most {
			out[r] = x.FMax(top[r], most[r])
			factor = append(factor, x.FastEx2(x.FSub(top[r], out[r])))
			out[rows+r] = x.FMul(out[rows+r], factor[r])
		}
		for i := range out[2*rows:] {
			out[2*rows+i] = x.FMul(out[2*rows+i], factor[rowOf(i, x.d)])
		}
		return out
	}, func() []Value { return append([]Value(nil), state...) })
}

// product is the lane's share, every fourth 16 bytes, of the product of two
// operands' rows at a position; the four lanes of a row have all of it.
func (x *flash) product(op, other int, position Value) Value {
	parts := x.d / 8
	part := x.Shr(x.column, 1)
	row := func(op int) Value { return x.At(x.rows(op), x.MulI(position, x.stride(op))) }
	a, b := row(op), row(other)
	var sum Value = build.Float(0)
	for i := 0; i < parts; i += 4 {
		at := x.AddI(part, i)
		var exists Value
		if i+4 > parts {
			exists = x.Lt(at, build.Int(parts))
			at = x.Select(exists, at, build.Int(0))
		}
		at = x.MulI(at, 8)
		u, v := x.sixteen(x.dtype(op), x.At(a, at)), x.sixteen(x.dtype(other), x.At(b, at))
		with := sum
		for j := range u {
			with = x.FMA(u[j], v[j], with)
		}
		if exists != nil {
			with = x.Select(exists, with, sum)
		}
		sum = with
	}
	return sum
}

// queryGradientMatrix computes dq: rows are queries.
func (a *attention) queryGradientMatrix(t *Target, kind string) Entry {
	const q, key, v, do, out, lse, dq = 0, 1, 2, 3, 4, 5, 7
	name := a.k.Name + "_q"
	pieces := 2
	if t.Tensor == "m8n8k4" {
		pieces = 1 // its left operands have twice the registers
	}
	x := a.flash(name, t, kind, pieces, false, []int{key, v}, nil)
	get := x.ownRows(x.together == 1 && x.ownRegisters() <= 32, q, do)
	scale := build.Float(a.scale * log2e)
	low, minus := make([]Value, 2*x.pieces), make([]Value, 2*x.pieces) // by row: -lse as an exponent of 2, -delta
	terms := x.rowTerms(x.tiles, lse)
	// The rows of do are under way to shared memory as well, so one of the
	// two finds them in the cache, and nothing has to wait for the other.
	sum := func(position Value) Value { return x.quad(x.product(do, out, position), x.FAdd) }
	writes := func() Value { return x.Eq(x.column, build.Int(0)) }
	x.meanwhile = func() {
		x.rowsOf(func(r int, row Value) { low[r], minus[r] = terms.of(row, sum, writes) })
	}
	var own []left
	begin := func() []Value {
		own = get()
		return zeros(x.pieces * x.d / 2)
	}
	columns := maskBits
	if x.together > 1 { // rows in shared memory leave registers
		columns = tileSize
	}
	acc := x.walk(columns, begin, func(stage, from Value, n int, words, acc []Value) []Value {
		s := x.scores(nil, own[0], x.tile(stage, 0), from, n)
		ds := make([]Value, len(s))
		for i := range ds {
			ds[i] = minus[rowOf(i, n)]
		}
		ds = x.scores(ds, own[1], x.tile(stage, 1), from, n)
		s = x.settle(s, 1)
		x.where(words, s, n, build.Float(math.Inf(-1)))
		for i := range s {
			s[i] = x.FastEx2(x.FMA(s[i], scale, low[rowOf(i, n)]))
		}
		ds = x.settle(ds, 0)
		for i := range s {
			ds[i] = x.FMul(s[i], ds[i])
		}
		return x.settle(x.collect(acc, x.rounded(ds, n), x.tile(stage, 0), from, n), 0)
	})
	x.outScaled(dq, acc)
	x.Return()
	return x.entry(name)
}

// keyGradientsMatrix computes dk and dv: rows are keys.
func (a *attention) keyGradientsMatrix(t *Target, kind string) Entry {
	const q, key, v, do, lse, dk, dv = 0, 1, 2, 3, 5, 8, 9
	name := a.k.Name + "_kv"
	delta, _ := a.delta()
	x := a.flash(name, t, kind, 1, true, []int{q, do}, []int{lse, delta})
	// Longer rows find no registers.
	get := x.ownRows(x.together == 1 && a.d <= 64, key, v)
	scale := build.Float(a.scale * log2e)
	half := x.pieces * x.d / 2
	var own []left
	begin := func() []Value {
		own = get()
		return zeros(2 * half)
	}
	pair := build.Vec(2, build.F32)
	state := x.walk(maskBits, begin, func(stage, from Value, n int, words, state []Value) []Value {
		p := x.scores(nil, own[0], x.tile(stage, 0), from, n)
		// lse and delta of the columns lie behind the rows.
		column := x.Add(x.Sub(x.tile(stage, 2), x.shared), x.MulI(x.Add(from, x.column), 4))
		perColumn := func(operand int, by Value) []Value {
			var out []Value
			for j := range n / 8 {
				v := x.Load(x.SharedAt(x.AddI(column, 32*j+4*tileSize*operand), pair))
				out = append(out, x.FMul(x.Elem(v, 0), by), x.FMul(x.Elem(v, 1), by))
			}
			return out
		}
		of := func(i int) int { return i/4%(n/8)*2 + i%2 }
		ds := make([]Value, len(p))
		minus := perColumn(1, build.Float(-1))
		for i := range ds {
			ds[i] = minus[of(i)]
		}
		ds = x.scores(ds, own[1], x.tile(stage, 1), from, n)
		p = x.settle(p, 1)
		x.where(words, p, n, build.Float(math.Inf(-1)))
		low := perColumn(0, build.Float(-log2e)) // not before: there are no registers for it
		for i := range p {
			p[i] = x.FastEx2(x.FMA(p[i], scale, low[of(i)]))
		}
		sumV := x.collect(state[half:], x.rounded(p, n), x.tile(stage, 1), from, n)
		ds = x.settle(ds, 1)
		for i := range p {
			ds[i] = x.FMul(p[i], ds[i])
		}
		sumK := x.collect(state[:half], x.rounded(ds, n), x.tile(stage, 0), from, n)
		sumV = x.settle(sumV, 1)
		sumK = x.settle(sumK, 0)
		return append(append([]Value(nil), sumK...), sumV...)
	})
	x.outScaled(dk, state[:half])
	x.out(dv, state[half:])
	x.Return()
	return x.entry(name)
}
