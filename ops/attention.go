package ops

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ops/mask"
)

// The attention ops are templates of the kernel language. Every template has
// the integers B, T, H, D (batch, positions, heads, head size) and blocks
// (those of the mask's table), the scale as F, the mask as text, and these
// operands, found through Views; q, k, v, out and their gradients are [B,T,H,D]
// in one element type, lse and delta are f32 [B,H,T], tables are those of
// package mask:
//
//	attention_fwd      q k v table -> out lse
//	attention_bwd      q k v do out lse table -> dq dk dv delta
//	attention_bwd      q k v do delta lse table -> dq dk dv
//	attention_decode   q[B,1,H,D] k v pos[] keys from[B] -> out[B,1,H,D]
//
// attention_decode has the integer prefix besides; see AttentionDecodeOp.
//
// With s = scale * q.k over the allowed pairs and p = exp(s - lse):
//
//	out[q] = sum over k of p*v[k]         lse[q] = ln sum over k of exp(s)
//	ds = p * (do[q].v[k] - delta[q])      dv[k] = sum over q of p*do[q]
//	dq = scale * sum over k of ds*k[k]    dk = scale * sum over q of ds*q[q]
//	delta[q] = do[q].out[q]
//
// The first form of attention_bwd computes delta, in f32 from the elements as
// they are stored; the second, which has a result less, is given it.
//
// Every query is allowed at least one key.
const (
	attentionForward = "attention_fwd"
	attentionGrad    = "attention_bwd"
	attentionDecode  = "attention_decode"
)

func init() {
	ir.Register(AttentionOp{}, AttentionGradOp{}, AttentionDecodeOp{})
	kern.RegisterTemplate(attentionForward, evalForward)
	kern.RegisterTemplate(attentionGrad, evalGrad)
	kern.RegisterTemplate(attentionDecode, evalDecode)
}

// heads checks tensors of one float type [B,T,H,D].
func heads(args []ir.Type) error {
	for _, t := range args {
		switch {
		case t.Rank() != 4 || !isFloat(t):
			return fmt.Errorf("wants floating-point [B,T,H,D]")
		case !t.Equal(args[0]):
			return fmt.Errorf("queries, keys and values must have one type")
		}
	}
	return nil
}

func isTable(t ir.Type) bool { return t.DType == ir.I32 && t.Rank() == 1 }

func perHead(t ir.Type) ir.Type { return ir.T(ir.F32, t.Shape[0], t.Shape[2], t.Shape[1]) }

// headStrides accepts tensors of heads anywhere, as long as the elements of a
// head lie side by side.
func headStrides(s []int) bool { return len(s) == 0 || s[len(s)-1] == 1 }

// attentionKernel is a template whose buffers are the arguments and results.
func attentionKernel(name string, m mask.Mask, shape []int, scale float64, args, outs []ir.Type, argNames, outNames string) *kern.Kernel {
	k := &kern.Kernel{Name: name, Template: &kern.Template{Name: name, F: scale, Mask: m.String(), Ints: []kern.Int{
		{Key: "B", Val: shape[0]}, {Key: "T", Val: shape[1]}, {Key: "H", Val: shape[2]}, {Key: "D", Val: shape[3]}, {Key: "blocks", Val: int(mask.Blocks(m, shape[1])[0])}}}}
	for i, n := range strings.Fields(argNames) {
		k.Template.Views = append(k.Template.Views, kern.Dense(len(k.Bufs), args[i].Shape))
		k.Bufs = append(k.Bufs, kern.Buf{Name: n, DType: args[i].DType, Len: args[i].Len(), Mode: kern.In})
	}
	for i, n := range strings.Fields(outNames) {
		k.Template.Views = append(k.Template.Views, kern.Dense(len(k.Bufs), outs[i].Shape))
		k.Bufs = append(k.Bufs, kern.Buf{Name: n, DType: outs[i].DType, Len: outs[i].Len(), Mode: kern.Out})
	}
	return k
}

// attentionCost is perPair FLOPs for each allowed pair and head dimension.
func attentionCost(m mask.Mask, x ir.Type, perPair int) ir.Cost {
	s := x.Shape
	return ir.Cost{FLOPs: int64(perPair) * int64(s[0]*s[2]*s[3]) * int64(mask.Pairs(m, s[1]))}
}

// table is the constant of that name with the given contents, added to the
// module when it is first used.
func table(f *ir.Func, name string, data []int32) *ir.Value {
	g := f.Module.Global(name)
	if g == nil {
		g = &ir.Global{Name: name, Type: ir.T(ir.I32, len(data)), Role: ir.Const, Init: ir.Init{Kind: "data"}}
		for _, w := range data {
			g.Data = binary.LittleEndian.AppendUint32(g.Data, uint32(w))
		}
		if err := f.Module.AddGlobal(g); err != nil {
			f.Errs = append(f.Errs, err)
		}
	}
	return f.Read(g)
}

// tableName spells a mask as part of a global's name: letters and digits,
// with dots and underscores. Masks of different text get different names.
func tableName(kind string, m mask.Mask, t int) string {
	text := strings.NewReplacer("&", ".and.", "|", ".or.", "(", "_", ")", "_").Replace(m.String())
	return fmt.Sprintf("mask.%s.%d.%s", text, t, kind)
}

func blockTable(f *ir.Func, m mask.Mask, t int) *ir.Value {
	return table(f, tableName("blocks", m, t), mask.Blocks(m, t))
}

// AttentionOp is softmax attention within one sequence: for q, k, v
// [B,T,H,D] and the block table of Mask over T positions it gives out
// [B,T,H,D] and lse f32[B,H,T], the logarithm of each softmax's denominator.
// Scores are multiplied by Scale first. Mask says the same as the table; it
// is what Ref and people read.
type AttentionOp struct {
	Mask  mask.Mask
	Scale float64
}

// Name is attention.
func (AttentionOp) Name() string { return "attention" }

// Infer wants q, k, v of one type and a table.
func (op AttentionOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 4); err != nil {
		return nil, err
	}
	if err := heads(args[:3]); err != nil {
		return nil, err
	}
	if !isTable(args[3]) {
		return nil, fmt.Errorf("the block table must be i32 of rank 1")
	}
	if q := mask.FirstEmpty(op.Mask, args[0].Shape[1]); q >= 0 {
		return nil, fmt.Errorf("mask %s allows position %d no key", op.Mask, q)
	}
	return []ir.Type{args[0], perHead(args[0])}, nil
}

// Cost is two matrix products over the allowed pairs.
func (op AttentionOp) Cost(args, _ []ir.Type) ir.Cost { return attentionCost(op.Mask, args[0], 4) }

// softmaxRow gives the probabilities of query (b, i, h) over all keys and the
// logarithm of their denominator.
func softmaxRow(q, k *ir.Tensor, m mask.Mask, scale float64, b, i, h int) (p []float64, lse float64) {
	s := q.Type.Shape
	p = make([]float64, s[1])
	top := math.Inf(-1)
	for j := range p {
		if !m.Allowed(i, j) {
			continue
		}
		for d := 0; d < s[3]; d++ {
			p[j] += scale * at(q, b, i, h, d) * at(k, b, j, h, d)
		}
		top = math.Max(top, p[j])
	}
	sum := 0.0
	for j := range p {
		if m.Allowed(i, j) {
			p[j] = math.Exp(p[j] - top)
			sum += p[j]
		}
	}
	for j := range p {
		p[j] /= sum
	}
	return p, top + math.Log(sum)
}

// each calls f for every batch, position and head.
func each(s []int, f func(b, t, h int)) {
	for b := 0; b < s[0]; b++ {
		for t := 0; t < s[1]; t++ {
			for h := 0; h < s[2]; h++ {
				f(b, t, h)
			}
		}
	}
}

// put adds x to element idx.
func put(t *ir.Tensor, x float64, idx ...int) {
	n := 0
	for d, i := range idx {
		n = n*t.Type.Shape[d] + i
	}
	t.Data[n] += x
}

// Ref is attention by definition, from the mask and not from the table.
func (op AttentionOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	q, k, v := args[0], args[1], args[2]
	out, lse := ir.NewTensor(outs[0]), ir.NewTensor(outs[1])
	s := q.Type.Shape
	each(s, func(b, i, h int) {
		p, l := softmaxRow(q, k, op.Mask, op.Scale, b, i, h)
		put(lse, l, b, h, i)
		for j := range p {
			for d := 0; d < s[3]; d++ {
				put(out, p[j]*at(v, b, j, h, d), b, i, h, d)
			}
		}
	})
	return []*ir.Tensor{out, lse}
}

// Kernel is the template attention_fwd.
func (op AttentionOp) Kernel(args, outs []ir.Type) *kern.Kernel {
	return attentionKernel(attentionForward, op.Mask, args[0].Shape, op.Scale, args, outs, "q k v table", "out lse")
}

// Strides wants the elements of a head side by side.
func (AttentionOp) Strides(_ int, s []int) bool { return headStrides(s) }

// VJP uses the gradient op, which computes delta = sum of do*out over a head
// itself. A gradient of lse, which few have, is subtracted from delta, so then
// delta is given.
func (op AttentionOp) VJP(in *ir.Instr, g []*ir.Value) []*ir.Value {
	q, k, v, tab := in.Args[0], in.Args[1], in.Args[2], in.Args[3]
	out, lse := in.Results[0], in.Results[1]
	do, with := g[0], out
	if g[1] != nil {
		if do == nil {
			do = zeros(out)
			with = Neg(g[1])
		} else {
			dot := Sum(Mul(Cast(do, ir.F32), Cast(out, ir.F32)), 3) // [B,T,H]
			with = Sub(Transpose(dot, 0, 2, 1), g[1])
		}
	}
	d := q.Func.Append(AttentionGradOp{op.Mask, op.Scale, g[1] != nil}, q, k, v, do, with, lse, tab)
	return grads(d[0], d[1], d[2], nil)
}

// tableFill fills a sample's table argument.
func tableFill(data []int32) (ir.Type, Fill) {
	f := Fill{Kind: "data"}
	for _, w := range data {
		f.Data = append(f.Data, float64(w))
	}
	return ir.T(ir.I32, len(data)), f
}

// attentionSample is one size and mask the attention ops are tried with.
type attentionSample struct {
	m          mask.Mask
	b, t, h, d int
}

var attentionSamples = []attentionSample{
	{mask.All(), 1, 1, 1, 1},
	{mask.Causal(), 2, 7, 2, 3},
	{mask.All(), 1, 16, 1, 4},
	{mask.Causal(), 1, 33, 1, 2},
	{mask.All(), 1, 67, 1, 8},
	{mask.Row(5, 4, 4), 2, mask.Len(5, 4, 4), 2, 3},
	{mask.Column(3, 6, 6), 1, mask.Len(3, 6, 6), 1, 2},
	{mask.Conv(4, 4, 4, 3), 1, mask.Len(4, 4, 4), 1, 5},
}

// Samples covers every kind of mask, one block and several.
func (AttentionOp) Samples() []Sample {
	var out []Sample
	for _, s := range attentionSamples {
		x := ir.T(ir.F32, s.b, s.t, s.h, s.d)
		tt, fill := tableFill(mask.Blocks(s.m, s.t))
		out = append(out, Sample{Op: AttentionOp{s.m, 1 / math.Sqrt(float64(s.d))}, Args: []ir.Type{x, x, x, tt}, Fill: []Fill{{}, {}, {}, fill}})
	}
	return out
}

// Attention is softmax attention of q over k and v, all [B,T,H,D], at the
// pairs m allows, with scores multiplied by 1/sqrt(D). The result is
// [B,T,H,D].
func Attention(q, k, v *ir.Value, m mask.Mask) *ir.Value {
	if q.Invalid() {
		return q
	}
	t, d := 1, 1
	if q.Type.Rank() == 4 { // if not, the type rule says so
		t, d = q.Type.Shape[1], q.Type.Shape[3]
	}
	return apply(AttentionOp{m, 1 / math.Sqrt(float64(d))}, q, k, v, blockTable(q.Func, m, t))
}

// gradRef calls f with p and ds of every pair, as the reference of the
// gradients. It takes lse as given, as the kernels do.
func gradRef(args []*ir.Tensor, delta *ir.Tensor, m mask.Mask, scale float64, f func(b, i, j, h int, p, ds float64)) {
	q, k, v, do, lse := args[0], args[1], args[2], args[3], args[5]
	s := q.Type.Shape
	each(s, func(b, i, h int) {
		for j := 0; j < s[1]; j++ {
			if !m.Allowed(i, j) {
				continue
			}
			score, dp := 0.0, 0.0
			for d := 0; d < s[3]; d++ {
				score += scale * at(q, b, i, h, d) * at(k, b, j, h, d)
				dp += at(do, b, i, h, d) * at(v, b, j, h, d)
			}
			p := math.Exp(score - at(lse, b, h, i))
			f(b, i, j, h, p, p*(dp-at(delta, b, h, i)))
		}
	})
}

// AttentionGradOp is the gradient of attention with respect to q, k and v; see
// AttentionOp.VJP. From q, k, v, do and out [B,T,H,D], lse f32[B,H,T] and the
// block table it gives dq, dk, dv and delta f32[B,H,T], the sum of do*out over a
// head, which it needs twice: delta is where the kernel keeps it. With Given the
// operand after do is delta, in the place of out, and there is no fourth result.
type AttentionGradOp struct {
	Mask  mask.Mask
	Scale float64
	Given bool
}

// Name is attention_grad.
func (AttentionGradOp) Name() string { return "attention_grad" }

// Infer gives the types of q, k and v, and that of delta.
func (op AttentionGradOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 7); err != nil {
		return nil, err
	}
	if err := heads(args[:4]); err != nil {
		return nil, err
	}
	row := perHead(args[0])
	if op.Given && !args[4].Equal(row) {
		return nil, fmt.Errorf("delta must be %s", row)
	}
	if !op.Given && !args[4].Equal(args[0]) {
		return nil, fmt.Errorf("the result of attention must be %s", args[0])
	}
	if !args[5].Equal(row) {
		return nil, fmt.Errorf("lse must be %s", row)
	}
	if !isTable(args[6]) {
		return nil, fmt.Errorf("the block table must be i32 of rank 1")
	}
	if op.Given {
		return args[:3], nil
	}
	return []ir.Type{args[0], args[1], args[2], row}, nil
}

// Cost is five matrix products over the allowed pairs, and the sum before them.
func (op AttentionGradOp) Cost(args, _ []ir.Type) ir.Cost {
	c := attentionCost(op.Mask, args[0], 10)
	if !op.Given {
		c.FLOPs += 2 * int64(args[0].Len())
	}
	return c
}

// Ref is the formula.
func (op AttentionGradOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	var results []*ir.Tensor
	for _, t := range outs {
		results = append(results, ir.NewTensor(t))
	}
	dq, dk, dv, delta := results[0], results[1], results[2], args[4]
	s := outs[0].Shape
	if !op.Given {
		delta = results[3]
		each(s, func(b, i, h int) {
			for d := 0; d < s[3]; d++ {
				put(delta, at(args[3], b, i, h, d)*at(args[4], b, i, h, d), b, h, i)
			}
		})
	}
	gradRef(args, delta, op.Mask, op.Scale, func(b, i, j, h int, p, ds float64) {
		for d := 0; d < s[3]; d++ {
			put(dq, op.Scale*ds*at(args[1], b, j, h, d), b, i, h, d)
			put(dk, op.Scale*ds*at(args[0], b, i, h, d), b, j, h, d)
			put(dv, p*at(args[3], b, i, h, d), b, j, h, d)
		}
	})
	return results
}

// Kernel is the template attention_bwd.
func (op AttentionGradOp) Kernel(args, outs []ir.Type) *kern.Kernel {
	if op.Given {
		return attentionKernel(attentionGrad, op.Mask, args[0].Shape, op.Scale, args, outs, "q k v do delta lse table", "dq dk dv")
	}
	return attentionKernel(attentionGrad, op.Mask, args[0].Shape, op.Scale, args, outs, "q k v do out lse table", "dq dk dv delta")
}

// Strides wants the elements of a head side by side; a delta that is given may
// lie anyhow.
func (op AttentionGradOp) Strides(i int, s []int) bool { return op.Given && i == 4 || headStrides(s) }

// VJP records that there is none.
func (AttentionGradOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return undifferentiable(in) }

// Samples covers every kind of mask, with and without delta.
func (AttentionGradOp) Samples() []Sample {
	var out []Sample
	for _, given := range []bool{false, true} {
		for _, s := range attentionSamples {
			x, row := ir.T(ir.F32, s.b, s.t, s.h, s.d), ir.T(ir.F32, s.b, s.h, s.t)
			with := x
			if given {
				with = row
			}
			tt, fill := tableFill(mask.Blocks(s.m, s.t))
			out = append(out, Sample{Op: AttentionGradOp{s.m, 1 / math.Sqrt(float64(s.d)), given}, Args: []ir.Type{x, x, x, x, with, row, tt},
				// A denominator near that of the scores keeps p below 1.
				Fill: []Fill{{}, {}, {}, {}, {}, {Kind: "const", X: 4}, fill}, NoGrad: true})
		}
	}
	return out
}

// AttentionDecodeOp is attention of the one query at position pos: q
// [B,1,H,D] over caches k, v [B,T,H,D], pos i32[] in [0, T), the key list
// table of Mask over T positions, and from i32[B] in [0, B). Stream b has its
// first Prefix positions in common with others: they are those of caches
// from[b]. It reads only the keys the mask allows.
type AttentionDecodeOp struct {
	Mask   mask.Mask
	Scale  float64
	Prefix int
}

// Name is attention_decode.
func (AttentionDecodeOp) Name() string { return "attention_decode" }

// Infer gives the type of q.
func (op AttentionDecodeOp) Infer(args []ir.Type) ([]ir.Type, error) {
	if err := arity(args, 6); err != nil {
		return nil, err
	}
	if err := heads(args[1:3]); err != nil {
		return nil, err
	}
	s := args[1].Shape
	if want := args[1].With(s[0], 1, s[2], s[3]); !args[0].Equal(want) {
		return nil, fmt.Errorf("the query must be %s", want)
	}
	if !args[3].Equal(ir.T(ir.I32)) {
		return nil, fmt.Errorf("the position must be i32[]")
	}
	if !isTable(args[4]) {
		return nil, fmt.Errorf("the key list must be i32 of rank 1")
	}
	if want := ir.T(ir.I32, s[0]); !args[5].Equal(want) {
		return nil, fmt.Errorf("the streams that prefixes are read from must be %s", want)
	}
	if op.Prefix < 0 || op.Prefix > s[1] {
		return nil, fmt.Errorf("a prefix of %d positions is not within %d", op.Prefix, s[1])
	}
	if q := mask.FirstEmpty(op.Mask, s[1]); q >= 0 {
		return nil, fmt.Errorf("mask %s allows position %d no key", op.Mask, q)
	}
	return args[:1], nil
}

// Cost is that of an average position.
func (op AttentionDecodeOp) Cost(args, _ []ir.Type) ir.Cost {
	c := attentionCost(op.Mask, args[1], 4)
	c.FLOPs /= int64(args[1].Shape[1])
	return c
}

// Ref is attention by definition, from the mask and not from the key list.
func (op AttentionDecodeOp) Ref(args []*ir.Tensor, outs []ir.Type) []*ir.Tensor {
	q, pos := args[0], int(args[3].Data[0])
	k, v := op.whole(args[1], args[5]), op.whole(args[2], args[5])
	out := ir.NewTensor(outs[0])
	s := k.Type.Shape
	full := ir.NewTensor(k.Type) // the query among zeros, at its position
	each(q.Type.Shape, func(b, _, h int) {
		for d := 0; d < s[3]; d++ {
			put(full, at(q, b, 0, h, d), b, pos, h, d)
		}
		p, _ := softmaxRow(full, k, op.Mask, op.Scale, b, pos, h)
		for j := range p {
			for d := 0; d < s[3]; d++ {
				put(out, p[j]*at(v, b, j, h, d), b, 0, h, d)
			}
		}
	})
	return []*ir.Tensor{out}
}

// whole is cache with every stream's prefix in its own place.
func (op AttentionDecodeOp) whole(cache, from *ir.Tensor) *ir.Tensor {
	s := cache.Type.Shape
	out := &ir.Tensor{Type: cache.Type, Data: append([]float64(nil), cache.Data...)}
	stream, prefix := s[1]*s[2]*s[3], op.Prefix*s[2]*s[3]
	for b, other := range from.Data {
		copy(out.Data[b*stream:], cache.Data[int(other)*stream:][:prefix])
	}
	return out
}

// Kernel is the template attention_decode.
func (op AttentionDecodeOp) Kernel(args, outs []ir.Type) *kern.Kernel {
	k := attentionKernel(attentionDecode, op.Mask, args[1].Shape, op.Scale, args, outs, "q k v pos keys from", "out")
	k.Template.Ints = append(k.Template.Ints, kern.Int{Key: "prefix", Val: op.Prefix})
	return k
}

// Strides wants the elements of a head side by side.
func (AttentionDecodeOp) Strides(_ int, s []int) bool { return headStrides(s) }

// VJP records that there is none.
func (AttentionDecodeOp) VJP(in *ir.Instr, _ []*ir.Value) []*ir.Value { return undifferentiable(in) }

// Samples covers first, middle and last positions, without a prefix and with one
// of several positions, each stream's own and another's.
func (AttentionDecodeOp) Samples() []Sample {
	var out []Sample
	for i, s := range attentionSamples {
		from := Fill{Kind: "data"}
		for b := range s.b {
			from.Data = append(from.Data, float64((b+i)%s.b))
		}
		x := ir.T(ir.F32, s.b, s.t, s.h, s.d)
		tt, fill := tableFill(mask.Keys(s.m, s.t))
		pos := Fill{Kind: "const", X: float64(i * (s.t - 1) / (len(attentionSamples) - 1))}
		out = append(out, Sample{Op: AttentionDecodeOp{s.m, 1 / math.Sqrt(float64(s.d)), i % 4 * s.t / 3},
			Args: []ir.Type{x.With(s.b, 1, s.h, s.d), x, x, ir.T(ir.I32), tt, ir.T(ir.I32, s.b)}, Fill: []Fill{{}, {}, {}, pos, fill, from}, NoGrad: true})
	}
	return out
}

// AttentionDecode is Attention for the one query q [B,1,H,D] at position pos
// i32[], over caches k and v [B,T,H,D] that hold every allowed position; of stream
// b the first prefix positions are in caches from[b], from being i32[B].
func AttentionDecode(q, k, v, pos, from *ir.Value, prefix int, m mask.Mask) *ir.Value {
	if q.Invalid() || k.Invalid() {
		return apply(AttentionDecodeOp{}, q, k)
	}
	t, d := 1, 1
	if k.Type.Rank() == 4 {
		t, d = k.Type.Shape[1], k.Type.Shape[3]
	}
	keys := table(q.Func, tableName("list", m, t), mask.Keys(m, t))
	return apply(AttentionDecodeOp{m, 1 / math.Sqrt(float64(d)), prefix}, q, k, v, pos, keys, from)
}
