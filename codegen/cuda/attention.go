package cuda

import (
	"fmt"
	"hash/fnv"
	"math"

	"github.com/gouache-ml/gouache/codegen/cuda/build"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops/mask"
)

// The attention templates (package ops documents their operands).
//
// A block of threads has the rows of a block of a tile table (package
// ops/mask) of one head: queries, or, for the gradients of keys and values,
// keys. It goes through the block's columns, keys or queries, in tiles, which
// it gathers from wherever they lie into shared memory. A warp has some of the
// rows, with all that is summed over columns in registers, and leaves out the
// columns that none of them is allowed. So every sum has one order, and nothing
// is written twice.
//
// The tables come from the template's mask and lie in the module: blocks of 32
// queries, which the table operand has, would read every key four times as
// often.
//
// There are two kinds of such kernels: products of 16-bit operands on matrix
// units (attention_flash.go, with the units in attention_mma.go and
// attention_wgmma.go) and everything else in f32 (attention_f32.go). Decoding
// (attention_decode.go) has one query for a head and reads the list of its keys
// from its operand.

func init() {
	templates["attention_fwd"] = emitAttentionForward
	templates["attention_bwd"] = emitAttentionBackward
	templates["attention_decode"] = emitAttentionDecode
}

// mostElements is the longest row that 16 rows and tiles of 16 columns leave
// enough of sm_70's shared memory for, 96 KB.
const mostElements = 256

// attention is what the kernels of a template have in common.
type attention struct {
	m          *build.Module
	k          *kern.Kernel
	mask       mask.Mask
	b, t, h, d int
	scale      float64
}

func newAttention(m *build.Module, k *kern.Kernel) (*attention, error) {
	p := k.Template
	a := &attention{m: m, k: k, b: p.Int("B"), t: p.Int("T"), h: p.Int("H"), d: p.Int("D"), scale: p.F}
	if p.Mask == "" {
		return nil, fmt.Errorf("internal: kernel %s: template %s has no mask", k.Name, p.Name)
	}
	if a.d > mostElements {
		return nil, fmt.Errorf("kernel %s: heads of %d elements; attention on a GPU takes up to %d", k.Name, a.d, mostElements)
	}
	var err error
	if a.mask, err = mask.Parse(p.Mask); err != nil {
		return nil, fmt.Errorf("internal: kernel %s: %w", k.Name, err)
	}
	return a, nil
}

// heads is the number of heads of the batch.
func (a *attention) heads() int { return a.b * a.h }

func (a *attention) view(op int) kern.View { return a.k.Template.Views[op] }

// dtype is the element type of operand op.
func (a *attention) dtype(op int) ir.DType { return a.k.Bufs[a.view(op).Buf].DType }

// delta is the operand of attention_bwd that delta is or becomes, and whether it
// is given, in the place of out.
func (a *attention) delta() (op int, given bool) {
	const with, result = 4, 10
	if len(a.k.Template.Views) == result {
		return with, true
	}
	return result, false
}

// aligned reports whether the rows of operands [B,T,H,D] start at multiples of
// 16 bytes, if their buffers do.
func (a *attention) aligned(ops ...int) bool {
	for _, op := range ops {
		if !a.inPieces(op, 16/a.dtype(op).Size()) {
			return false
		}
	}
	return true
}

// inPieces reports whether the rows of operand op, [B,T,H,D], are pieces of n elements
// that start at multiples of n, if its buffer does. The stride of an axis of extent 1
// says nothing: programs have 1 there.
func (a *attention) inPieces(op, n int) bool {
	v := a.view(op)
	ok := v.Offset%n == 0 && a.d%n == 0
	for i, extent := range []int{a.b, a.t, a.h} {
		ok = ok && (extent == 1 || v.Strides[i]%n == 0)
	}
	return ok
}

// attender is an attention kernel under construction.
type attender struct {
	*attention
	*emitter
	batch, head Value
}

// kernel starts a kernel of the template.
func (a *attention) kernel(name string, l build.Limits) *attender {
	f := a.m.Kernel(name, l, 0, len(a.k.Bufs))
	return &attender{attention: a, emitter: newEmitter(f, a.k)}
}

// of sets batch and head from the head's number in the batch.
func (a *attender) of(head Value) {
	a.head = a.Rem(head, a.h)
	a.batch = a.Div(head, a.h)
}

// rows is the address of position 0 of operand op, [B,T,H,D], in this head.
func (a *attender) rows(op int) Value {
	v := a.view(op)
	at := a.Add(a.MulI(a.batch, v.Strides[0]), a.AddI(a.MulI(a.head, v.Strides[2]), v.Offset))
	return a.At(a.bases[v.Buf], at)
}

// stride is how far apart the positions of operand op are, [B,T,H,D].
func (a *attender) stride(op int) int { return a.view(op).Strides[1] }

// perHead is the address of position 0 of operand op, [B,H,T], in this head,
// and how far apart positions are.
func (a *attender) perHead(op int) (Value, int) {
	v := a.view(op)
	at := a.Add(a.MulI(a.batch, v.Strides[0]), a.AddI(a.MulI(a.head, v.Strides[1]), v.Offset))
	return a.At(a.bases[v.Buf], at), v.Strides[2]
}

// rowTerms are what the gradient of a row's scores takes of the row besides its
// operands.
type rowTerms struct {
	*attender
	tiles        *rowBlock
	given        bool // delta is, and need not be summed
	lse, delta   Value
	every, apart int // elements from one position to the next, of lse and of delta
}

func (a *attender) rowTerms(tiles *rowBlock, lse int) *rowTerms {
	delta, given := a.attention.delta()
	t := &rowTerms{attender: a, tiles: tiles, given: given}
	t.lse, t.every = a.perHead(lse)
	t.delta, t.apart = a.perHead(delta)
	return t
}

// of gives -lse of a row as an exponent of 2, and -delta. Unless that is given,
// delta is what sum gives for the row's position, and the thread for which writes
// is true stores it.
func (t *rowTerms) of(row Value, sum func(position Value) Value, writes func() Value) (low, minus Value) {
	at := t.LoadOnly(t.At(t.tiles.row, row))
	low = t.FMul(t.Load(t.At(t.lse, t.MulI(at, t.every))), build.Float(-log2e))
	place := t.At(t.delta, t.MulI(at, t.apart))
	if t.given {
		return low, t.FNeg(t.Load(place))
	}
	delta := sum(at)
	t.If(t.And(writes(), t.Lt(row, t.tiles.rows)), func() { t.Store(delta, place) })
	return low, t.FNeg(delta)
}

// table is a module's constant with these contents.
func (a *attention) table(data []int32) Value {
	h := fnv.New64a()
	for _, x := range data {
		h.Write([]byte{byte(x), byte(x >> 8), byte(x >> 16), byte(x >> 24)})
	}
	name := fmt.Sprintf("mask_%016x", h.Sum64())
	for _, g := range a.m.IR.Globals {
		if g.Name() == name {
			return g
		}
	}
	return a.m.Table(name, data)
}

// tiling is a tile table: rows are queries, or keys.
type tiling struct {
	shape  mask.Shape
	blocks int
	words  []int32
}

func (a *attention) tiling(s mask.Shape, transposed bool) tiling {
	words := mask.Tiles(a.mask, a.t, s, transposed)
	return tiling{s, int(words[0]), words}
}

// rowBlock is a block of a tile table, as a block of threads reads it.
type rowBlock struct {
	tiling
	rows    Value // how many
	row     Value // the list of their positions
	columns Value // how many
	column  Value // the list of their positions
	count   Value // of tiles
	whole   Value // of leading tiles that need no words
	words   Value // of the others
	busy    Value
}

// open reads what the table says about a block.
func (a *attender) open(t tiling, block Value) *rowBlock {
	const record = 8 // words
	table := a.Cast(a.table(t.words), build.I32)
	at := a.At(table, a.MulI(a.AddI(block, 1), record))
	word := func(i int) Value { return a.LoadOnly(a.At(at, build.Int(i))) }
	x := &rowBlock{tiling: t, rows: word(0), columns: word(2), whole: word(3)}
	x.row, x.column = a.At(table, word(1)), a.At(table, word(4))
	x.words, x.busy = a.At(table, word(5)), a.At(table, word(6))
	x.count = a.Shr(a.AddI(x.columns, mask.TileSize-1), 6)
	return x
}

// grid is the launch of a block of threads for every block of a table and head.
func (a *attention) grid(name string, t tiling, threads int) Entry {
	return Entry{Name: name, Grid: [3]int{t.blocks * a.heads(), 1, 1}, Block: threads, Args: allBuffers(a.k)}
}

// begin finds the head and the block of the table that a block of threads has.
func (a *attender) begin(t tiling) *rowBlock {
	b := a.BlockX()
	a.of(a.Div(b, t.blocks))
	return a.open(t, a.Rem(b, t.blocks))
}

// log2e turns exponents of e into exponents of 2.
const log2e = math.Log2E

// matrixKind names the element type of matrix products, or says that there are none.
func (a *attention) matrixKind(t *Target, ops ...int) string {
	kind := packed[a.dtype(ops[0])]
	if !t.multiplies(kind) || a.d%16 != 0 || a.d > 128 || a.scale <= 0 || !a.aligned(ops...) {
		return ""
	}
	return kind
}
