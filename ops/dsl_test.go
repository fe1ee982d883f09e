package ops_test

import (
	"math"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/interp"
	"github.com/gouache-ml/gouache/ops"
	"github.com/gouache-ml/gouache/ops/mask"
)

func newFunc() *ir.Func { return ir.NewModule("m").NewFunc("f") }

// run evaluates v on inputs counting 0, 1, 2, ...
func run(t *testing.T, v *ir.Value) []float64 {
	t.Helper()
	f := v.Func
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	f.Results = nil
	f.Result("v", v)
	inputs := map[string]*ir.Tensor{}
	for _, in := range f.Inputs {
		x := ir.NewTensor(in.Type)
		for i := range x.Data {
			x.Data[i] = float64(i)
		}
		inputs[in.Name] = x
	}
	out, _, err := interp.Run(f, inputs, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out["v"].Data
}

func wantValue(t *testing.T, v *ir.Value, typ ir.Type, want ...float64) {
	t.Helper()
	got := run(t, v)
	if !v.Type.Equal(typ) {
		t.Fatalf("type %s, want %s", v.Type, typ)
	}
	for i := range want {
		if math.Abs(got[i]-want[i]) > 1e-12 {
			t.Fatalf("%v, want %v", got, want)
		}
	}
}

func TestBinaryFunctionsBroadcastByExplicitViews(t *testing.T) {
	f := newFunc()
	x, row, col := f.Input("x", ir.T(ir.F32, 2, 3)), f.Input("row", ir.T(ir.F32, 3)), f.Input("col", ir.T(ir.F32, 2, 1))
	wantValue(t, ops.Add(x, row), ir.T(ir.F32, 2, 3), 0, 2, 4, 3, 5, 7)
	wantValue(t, ops.Sub(row, col), ir.T(ir.F32, 2, 3), 0, 1, 2, -1, 0, 1)
	wantValue(t, ops.Mul(ops.Scalar(f, 3), x), ir.T(ir.F32, 2, 3), 0, 3, 6, 9, 12, 15)
	for _, in := range f.Body {
		if len(in.Args) == 2 && !in.Args[0].Type.Equal(in.Args[1].Type) {
			t.Errorf("%s has operands %s and %s", in.Op.Name(), in.Args[0].Type, in.Args[1].Type)
		}
	}
	n := len(f.Body)
	ops.Add(x, x)
	if len(f.Body) != n+1 {
		t.Error("operands of one shape are broadcast all the same")
	}
}

func TestViewsMoveElements(t *testing.T) {
	f := newFunc()
	x := f.Input("x", ir.T(ir.F32, 2, 3))
	wantValue(t, ops.Transpose(x), ir.T(ir.F32, 3, 2), 0, 3, 1, 4, 2, 5)
	wantValue(t, ops.Reshape(x, 3, -1), ir.T(ir.F32, 3, 2), 0, 1, 2, 3, 4, 5)
	wantValue(t, ops.SliceAxis(x, -1, 1, 3), ir.T(ir.F32, 2, 2), 1, 2, 4, 5)
	wantValue(t, ops.Concat(-1, x, ops.SliceAxis(x, 1, 0, 1)), ir.T(ir.F32, 2, 4), 0, 1, 2, 0, 3, 4, 5, 3)
	wantValue(t, ops.Pad(x, []int{0, 1}, []int{1, 0}), ir.T(ir.F32, 3, 4), 0, 0, 1, 2, 0, 3, 4, 5, 0, 0, 0, 0)
	wantValue(t, ops.Dilate(x, 1, 2), ir.T(ir.F32, 2, 6), 0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0)
	n := len(f.Body)
	for _, same := range []*ir.Value{ops.Reshape(x, 2, 3), ops.Transpose(x, 0, 1), ops.BroadcastTo(x, 2, 3), ops.Cast(x, ir.F32), ops.Pad(x, []int{0, 0}, []int{0, 0}), ops.Slice(x, []int{0, 0}, []int{2, 3})} {
		if same != x {
			t.Error("a view that changes nothing is a new value")
		}
	}
	if len(f.Body) != n {
		t.Error("views that change nothing leave instructions behind")
	}
}

func TestReductionsDropOrKeepTheirAxes(t *testing.T) {
	f := newFunc()
	x := f.Input("x", ir.T(ir.F32, 2, 3))
	wantValue(t, ops.Sum(x), ir.T(ir.F32), 15)
	wantValue(t, ops.Sum(x, -1), ir.T(ir.F32, 2), 3, 12)
	wantValue(t, ops.SumKeep(x, 0), ir.T(ir.F32, 1, 3), 3, 5, 7)
	wantValue(t, ops.Mean(x, 0), ir.T(ir.F32, 3), 1.5, 2.5, 3.5)
	wantValue(t, ops.ReduceMax(x, 1, 0), ir.T(ir.F32), 5)
	wantValue(t, ops.Argmax(ops.Neg(x)), ir.T(ir.I32, 2), 0, 0)
}

func TestPicturesArePooledAndRepeated(t *testing.T) {
	f := newFunc()
	x := f.Input("x", ir.T(ir.F32, 1, 2, 2, 1))
	up := ops.Upsample(x, 2)
	wantValue(t, up, ir.T(ir.F32, 1, 4, 4, 1), 0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3)
	wantValue(t, ops.AvgPool2D(up, 2), x.Type, 0, 1, 2, 3)
	wantValue(t, ops.AvgPool2D(x, 2), ir.T(ir.F32, 1, 1, 1, 1), 1.5)
	wantValue(t, ops.MaxPool2D(x, 2), ir.T(ir.F32, 1, 1, 1, 1), 3)
}

func TestTiedMaximaShareTheGradientEqually(t *testing.T) {
	f := newFunc()
	x := ops.Full(f, ir.T(ir.F32, 4), 2)
	y := ops.ReduceMaxKeep(x, 0)
	dx := y.Def.Op.VJP(y.Def, []*ir.Value{ops.Full(f, y.Type, 1)})[0]
	wantValue(t, dx, x.Type, 0.25, 0.25, 0.25, 0.25)
}

// Philox4x32-10 with all counters and keys zero gives these words (the
// generator's published test vectors): the first is the first element's, and each is
// that of one of four neighbours which are rounded.
func TestRandomNumbersAreThoseOfPhilox(t *testing.T) {
	f := newFunc()
	zero := ops.Full(f, ir.T(ir.I32), 0)
	words := []uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}
	uniform := func(w uint32) float64 { return (float64(w>>9) + 0.5) / (1 << 23) }
	wantValue(t, ops.RandomUniform(zero, zero, 0, 1), ir.T(ir.F32, 1), uniform(words[0]))
	// Beside 1 bf16 has 1 + 1/128: x is rounded up if its distance from 1, in
	// these, and the random number are 1 together.
	for i, w := range words {
		for _, up := range []bool{false, true} {
			x, want := 1+(1-uniform(w))/128-1e-6, 1.
			if up {
				x, want = 1+(1-uniform(w))/128+1e-6, 1+1./128
			}
			y := ops.CastRandomly(ops.Full(f, ir.T(ir.F32, 4), x), ir.BF16, zero, zero, 0)
			wantValue(t, ops.SliceAxis(y, 0, i, i+1), ir.T(ir.BF16, 1), want)
		}
	}
}

func TestErrorsNameOperandsAndTypes(t *testing.T) {
	for _, c := range []struct {
		build func(f *ir.Func, x, y *ir.Value)
		want  string
	}{
		{func(_ *ir.Func, x, y *ir.Value) { ops.Add(x, y) }, "add: shapes differ and don't broadcast: %x is f32[2,3], %y is f32[4]"},
		{func(_ *ir.Func, x, y *ir.Value) { ops.MatMul(x, ops.Reshape(y, 2, 2)) }, "matmul: inner dimensions differ: %x is f32[2,3], %2 is f32[2,2]"},
		{func(_ *ir.Func, x, y *ir.Value) { ops.Mul(x, ops.Cast(x, ir.F16)) }, "mul: element types differ; cast one operand: %x is f32[2,3], %2 is f16[2,3]"},
		{func(_ *ir.Func, x, y *ir.Value) { ops.Reshape(x, 4) }, "reshape: shape [4] has 4 elements, the operand has 6: %x is f32[2,3]"},
		{func(_ *ir.Func, x, y *ir.Value) { ops.Sum(x, 2) }, "reduce_sum: axes [2] must be ascending and below the rank 2: %x is f32[2,3]"},
		{func(_ *ir.Func, x, y *ir.Value) { ops.SliceAxis(x, 1, 2, 4) }, "slice: range 2:4:1 does not fit dimension 1 of extent 3: %x is f32[2,3]"},
		{func(_ *ir.Func, x, y *ir.Value) { ops.MaxPool2D(ops.Reshape(x, 1, 2, 3, 1), 2) }, "max_pool2d: height 2 and width 3 must be divisible by k = 2: %2 is f32[1,2,3,1]"},
		{func(f *ir.Func, x, y *ir.Value) {
			q := ops.Reshape(x, 1, 3, 1, 2)
			ops.Attention(q, q, q, mask.Causal().And(mask.RowWindow(1)).And(mask.Prefix(1)))
		}, "attention: mask causal&row(1)&prefix(1) allows position 2 no key: %2 is f32[1,3,1,2]"},
		{func(_ *ir.Func, x, y *ir.Value) { ops.Orthogonalize(x, 1e-6) }, "orthogonalize: 3 columns of 2 elements cannot be orthogonal: %x is f32[2,3]"},
		{func(_ *ir.Func, x, y *ir.Value) { ops.Orthogonalize(y, 1e-6) }, "orthogonalize: wants f32 matrices [...,n,r]: %y is f32[4]"},
		{func(_ *ir.Func, x, y *ir.Value) { ops.Orthogonalize(ops.Transpose(x), -1) }, "orthogonalize: eps must be from 0 to 1, not -1: %2 is f32[3,2]"},
		{func(f *ir.Func, x, y *ir.Value) { ops.Gradient(x, y) }, "gradient: the loss must be one floating-point number: %x is f32[2,3], %y is f32[4]"},
	} {
		f := newFunc()
		c.build(f, f.Input("x", ir.T(ir.F32, 2, 3)), f.Input("y", ir.T(ir.F32, 4)))
		if err := f.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v\nwant %s", err, c.want)
		}
	}
}

// One wrong call gives one error: what is built on its result adds none.
func TestInvalidValuesStaySilent(t *testing.T) {
	f := newFunc()
	x := f.Input("x", ir.T(ir.F32, 2, 3))
	bad := ops.Add(x, ops.Full(f, ir.T(ir.F32, 5), 1))
	q := ops.Attention(bad, bad, bad, mask.Causal())
	for _, v := range []*ir.Value{
		ops.Add(x, bad), ops.Tanh(bad), ops.Sum(bad, 1), ops.Mean(bad), ops.ReduceMax(bad), ops.Reshape(bad, 6), ops.Transpose(bad),
		ops.SliceAxis(bad, 0, 0, 1), ops.Concat(0, bad, x), ops.Concat(0, x, bad), ops.Take(bad, bad), ops.MatMul(x, bad), ops.Upsample(bad, 2),
		ops.AvgPool2D(bad, 2), ops.MaxPool2D(bad, 2), ops.Conv2D(bad, bad, 1, 0), ops.Select(bad, x, x), ops.Cast(bad, ir.F16), ops.Argmax(bad), q,
		ops.AttentionDecode(bad, bad, bad, bad, bad, 0, mask.Causal()), ops.CacheWrite(bad, bad, bad), ops.Pad(bad, []int{1}, []int{1}), ops.Dilate(bad, 2),
		ops.Orthogonalize(bad, 0), ops.BroadcastTo(bad, 2), ops.StopGradient(bad), ops.Gradient(bad, x)[0], ops.Gradient(bad, x, x, x, x, x, x)[5],
	} {
		if !v.Invalid() {
			t.Errorf("%s of an invalid value is %s", v.Def.Op.Name(), v.Type)
		}
	}
	if len(f.Errs) != 1 {
		t.Errorf("%d errors, want one: %v", len(f.Errs), f.Errs)
	}
}

func TestEqualMasksShareTheirTables(t *testing.T) {
	f := newFunc()
	q := f.Input("q", ir.T(ir.F32, 1, 20, 1, 2))
	for _, m := range mask.Layers(4, 4, 4, 4) { // row column row conv
		out := ops.Attention(q, q, q, m)
		out.Def.Op.VJP(out.Def, []*ir.Value{out, nil})
	}
	if err := f.Err(); err != nil {
		t.Fatal(err)
	}
	if n := len(f.Module.Globals); n != 3 {
		t.Errorf("%d tables, want one for each of three masks", n)
	}
	for _, g := range f.Module.Globals {
		if g.Role != ir.Const || len(g.Data) != g.Type.Bytes() {
			t.Errorf("@%s is %s %s with %d bytes", g.Name, g.Role, g.Type, len(g.Data))
		}
	}
}

func TestGradientOfADecodingStepIsAnError(t *testing.T) {
	f := newFunc()
	c, q := f.Input("c", ir.T(ir.F32, 1, 4, 1, 2)), f.Input("q", ir.T(ir.F32, 1, 1, 1, 2))
	y := ops.AttentionDecode(q, c, c, ops.Full(f, ir.T(ir.I32), 2), ops.Full(f, ir.T(ir.I32, 1), 0), 0, mask.Causal())
	y.Def.Op.VJP(y.Def, []*ir.Value{y})
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), "attention_decode has no gradient; put stop_gradient on its result") {
		t.Errorf("error %v", err)
	}
}

func TestGradientOfOrthogonalColumnsIsAnError(t *testing.T) {
	f := newFunc()
	y := ops.Orthogonalize(f.Input("x", ir.T(ir.F32, 3, 2)), 1e-6)
	y.Def.Op.VJP(y.Def, []*ir.Value{y})
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), "orthogonalize has no gradient; put stop_gradient on its result") {
		t.Errorf("error %v", err)
	}
}

// Columns have the sign that makes their product with their own column of p positive.
func TestOrthogonalizeByHand(t *testing.T) {
	f := newFunc()
	x := f.Input("x", ir.T(ir.F32, 2, 2, 2)) // 0 1, 2 3; 4 5, 6 7
	s := 1 / math.Sqrt(52)
	wantValue(t, ops.Orthogonalize(x, 0), x.Type, 0, 1, 1, 0, 4*s, 6*s, 6*s, -4*s)
	wantValue(t, ops.Orthogonalize(ops.Neg(x), 0), x.Type, 0, -1, -1, 0, -4*s, -6*s, -6*s, 4*s)
	zero := ops.MulConst(f.Input("y", ir.T(ir.F32, 3, 2)), 0)
	wantValue(t, ops.Orthogonalize(zero, 1e-6), zero.Type, 1, 0, 0, 1, 0, 0)
}

// Decoding position by position over a cache gives what attention over the
// whole sequence gives.
func TestDecodingEqualsAttention(t *testing.T) {
	const n = 8
	m := mask.Row(2, 2, 3)
	f := newFunc()
	x := ops.MulConst(f.Input("x", ir.T(ir.F32, 1, n, 2, 3)), 0.1)
	want := ops.Attention(x, ops.Neg(x), x, m)
	got := decoded(x, 0, ops.Full(f, ir.T(ir.I32, 1), 0), 0, m)
	wantValue(t, got, x.Type, run(t, want)...)
}

// decoded is attention of x over -x and x from position start on by decoding; the
// caches hold what comes before.
func decoded(x *ir.Value, start int, from *ir.Value, prefix int, m mask.Mask) *ir.Value {
	k, v := ops.Neg(x), ops.AddConst(x, 0) // stands for caches, which are overwritten
	var rows []*ir.Value
	for i := start; i < x.Type.Shape[1]; i++ {
		pos, row := ops.Full(x.Func, ir.T(ir.I32), float64(i)), ops.SliceAxis(x, 1, i, i+1)
		k, v = ops.CacheWrite(k, ops.Neg(row), pos), ops.CacheWrite(v, row, pos)
		rows = append(rows, ops.AttentionDecode(row, k, v, pos, from, prefix, m))
	}
	return ops.Concat(1, rows...)
}

// A stream whose prefix is another's is decoded as if it had it itself.
func TestDecodingReadsThePrefixOfAnotherStream(t *testing.T) {
	const n, prefix = 8, 3
	m := mask.Row(2, 2, 3)
	f := newFunc()
	x := ops.MulConst(f.Input("x", ir.T(ir.F32, 3, n, 2, 3)), 0.02)
	begin, rest := ops.SliceAxis(x, 1, 0, prefix), ops.SliceAxis(x, 1, prefix, n)
	third := ops.SliceAxis(begin, 0, 2, 3)
	whole := ops.Concat(1, ops.Concat(0, third, ops.SliceAxis(begin, 0, 1, 2), third), rest)
	want := ops.SliceAxis(ops.Attention(whole, ops.Neg(whole), whole, m), 1, prefix, n)
	got := decoded(x, prefix, f.Input("from", ir.T(ir.I32, 3)), prefix, m)
	own := run(t, got) // from is 0, 1, 2
	from := ops.Concat(0, ops.Full(f, ir.T(ir.I32, 1), 2), ops.Full(f, ir.T(ir.I32, 1), 1), ops.Full(f, ir.T(ir.I32, 1), 2))
	got = decoded(x, prefix, from, prefix, m)
	wantValue(t, got, want.Type, run(t, want)...)
	if moved := run(t, got); moved[0] == own[0] {
		t.Error("the first stream's own prefix gives the same, so this tests nothing")
	}
}
