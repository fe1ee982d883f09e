package kernel

import (
	"slices"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cpu"
	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// rows is a kernel over 64 rows of 32 numbers x[i][j] with a bias b[j], a number r[i]
// for each row, and its body's stores.
type rows struct {
	*kern.Builder
	i, j    *kern.Var
	x, b, r *kern.Node
}

func newRows(product bool) *rows {
	k := &rows{Builder: kern.NewBuilder("")}
	k.i, k.j = k.Dim(64), k.Dim(32)
	k.b = k.Load(k.Buf("b", ir.F32, 32, kern.In), kern.V(k.j))
	k.r = k.Load(k.Buf("r", ir.F32, 64, kern.In), kern.V(k.i))
	if product {
		s := k.NewVar(16)
		x, y := k.Buf("x", ir.F32, 64*16, kern.In), k.Buf("y", ir.F32, 16*32, kern.In)
		k.x = k.Contract([]*kern.Var{s}, x, kern.V(k.i).Scale(16).Add(kern.V(s)), nil, y, kern.V(s).Scale(32).Add(kern.V(k.j)), nil)
	} else {
		k.x = k.Load(k.Buf("x", ir.F32, 64*32, kern.In), k.at())
	}
	return k
}

func (k *rows) at() kern.Index { return kern.V(k.i).Scale(32).Add(kern.V(k.j)) }

func (k *rows) store(x *kern.Node, d ir.DType) int {
	b := k.Buf("", d, 64*32, kern.Out)
	k.Store(b, k.at(), x)
	return b
}

func (k *rows) add(x, y *kern.Node) *kern.Node { return k.Op(kern.Add, x, y) }
func (k *rows) mul(x, y *kern.Node) *kern.Node { return k.Op(kern.Mul, x, y) }

// An activation that a product stores besides its sums is made again from these,
// and a normalised row from its sums.
func TestRemakeLoadsWhatIsStored(t *testing.T) {
	k := newRows(true)
	sum := k.store(k.x, ir.F32)
	x := k.add(k.x, k.b)
	out := k.store(k.Op(kern.Div, x, k.add(k.F(1), k.Op(kern.Exp, k.mul(x, k.F(-1.702))))), ir.F16)
	again, args := Remake(k.Done(), out, cpu.Backend{})
	if again == nil {
		t.Fatal("an activation is not made again")
	}
	if want := []int{0, sum, out}; !slices.Equal(args, want) {
		t.Errorf("takes buffers %v, want %v", args, want)
	}
	want := `grid(i0<64, i1<32) tile(64,32) chunks(1) vector(i1) {
  %0 = load #0[i1] : f32
  %1 = load #1[i0*32 + i1] : f32
  %2 = add %1 %0 : f32
  %3 = const 0x1p+00 : f32
  %4 = const -0x1.b3b645a1cac08p+00 : f32
  %5 = mul %2 %4 : f32
  %6 = exp %5 : f32
  %7 = add %3 %6 : f32
  %8 = div %2 %7 : f32
  store #2[i0*32 + i1], %8
}`
	if text := again.String(); !strings.Contains(text, want) {
		t.Errorf("got %s\nwant %s", text, want)
	}
	if again.FLOPs != 5*64*32 {
		t.Errorf("%d operations, want 5 for each of %d numbers", again.FLOPs, 64*32)
	}
}

// Nothing is made again where the code generators could compute other bits than
// they did, or where that takes what isn't in memory.
func TestRemakeGivesTheSameBitsOrNothing(t *testing.T) {
	for _, c := range []struct {
		name    string
		product bool
		want    bool
		emit    func(k *rows) (out int)
	}{
		{"an activation of stored sums", true, true, func(k *rows) int {
			k.store(k.x, ir.F32)
			return k.store(k.Op(kern.Tanh, k.x), ir.F32)
		}},
		{"of sums that are not stored", true, false, func(k *rows) int {
			return k.store(k.Op(kern.Tanh, k.x), ir.F32)
		}},
		{"of sums stored in 16 bits", true, false, func(k *rows) int {
			k.store(k.x, ir.BF16)
			return k.store(k.Op(kern.Tanh, k.x), ir.F32)
		}},
		{"of sums rounded as they are stored in 16 bits", true, true, func(k *rows) int {
			x := k.Round(ir.BF16, k.x, nil)
			k.store(x, ir.BF16)
			return k.store(k.Op(kern.Tanh, x), ir.F32)
		}},
		{"of sums rounded otherwise than they are stored", true, false, func(k *rows) int {
			k.store(k.x, ir.BF16)
			return k.store(k.Op(kern.Tanh, k.Round(ir.F16, k.x, nil)), ir.F32)
		}},
		{"of sums that were in the place", true, false, func(k *rows) int {
			b := k.Buf("", ir.F32, 64*32, kern.InOut)
			k.Store(b, k.at(), k.add(k.x, k.Load(b, k.at())))
			return k.store(k.Op(kern.Tanh, k.add(k.x, k.Load(b, k.at()))), ir.F32)
		}},
		{"a product fused into a sum here and there", false, true, func(k *rows) int {
			return k.store(k.add(k.mul(k.x, k.x), k.x), ir.F32)
		}},
		{"a product that something else reads here alone", false, false, func(k *rows) int {
			m := k.mul(k.x, k.x)
			k.store(k.Op(kern.Tanh, m), ir.F32)
			return k.store(k.add(m, k.x), ir.F32)
		}},
		{"a stored product", false, true, func(k *rows) int {
			m := k.mul(k.x, k.x)
			k.store(m, ir.F32)
			return k.store(k.add(m, k.x), ir.F32)
		}},
		{"a product of what varies less than the sum", false, false, func(k *rows) int {
			return k.store(k.add(k.mul(k.b, k.b), k.x), ir.F32)
		}},
		{"a quotient by a row's number", false, false, func(k *rows) int {
			return k.store(k.Op(kern.Div, k.x, k.r), ir.F32)
		}},
		{"a quotient of numbers of rows", false, true, func(k *rows) int {
			return k.store(k.mul(k.x, k.Op(kern.Div, k.F(1), k.r)), ir.F32)
		}},
		{"an exponential that something else reads here alone", false, false, func(k *rows) int {
			x := k.Op(kern.Exp, k.x)
			k.store(k.mul(x, k.b), ir.F32)
			return k.store(k.Op(kern.Sqrt, k.add(x, k.F(1))), ir.F32)
		}},
		{"a quotient by a stored sum", false, false, func(k *rows) int {
			y := k.add(k.Op(kern.Exp, k.x), k.F(1))
			k.store(y, ir.F32)
			return k.store(k.Op(kern.Div, k.x, y), ir.F32)
		}},
		{"a sum", false, false, func(k *rows) int {
			s, err := k.For(4, []kern.Combine{kern.Sum}, func(v *kern.Var) ([]*kern.Node, error) {
				return []*kern.Node{k.mul(k.x, k.Load(k.Buf("z", ir.F32, 4, kern.In), kern.V(v)))}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return k.store(s[0], ir.F32)
		}},
		{"a random number", false, false, func(k *rows) int {
			seed := k.Load(k.Buf("seed", ir.I32, 1, kern.In), kern.Index{})
			return k.store(k.mul(k.x, k.Random(seed, seed, 1, k.at())), ir.F32)
		}},
	} {
		k := newRows(c.product)
		out := c.emit(k)
		if again, _ := Remake(k.Done(), out, cpu.Backend{}); (again != nil) != c.want {
			t.Errorf("%s: made again: %v, want %v", c.name, again != nil, c.want)
		}
	}
}

// A row that is normalised where it is made is made again from what is stored of it,
// though another loop stores that, and not where a product is in it.
func TestRemakeKnowsWhatAnotherLoopStores(t *testing.T) {
	for _, product := range []bool{false, true} {
		k := kern.NewBuilder("")
		i := k.Dim(64)
		x, p := k.Buf("x", ir.F32, 64*32, kern.In), k.Buf("p", ir.F32, 64*32, kern.In)
		row, sum, out := k.Buf("row", ir.F32, 64*32, kern.Out), k.Buf("sum", ir.F32, 64, kern.Out), k.Buf("out", ir.F32, 64*32, kern.Out)
		at := func(v *kern.Var) kern.Index { return kern.V(i).Scale(32).Add(kern.V(v)) }
		made := func(v *kern.Var) *kern.Node {
			y := k.Load(p, at(v))
			if product {
				y = k.Op(kern.Mul, y, y)
			}
			return k.Op(kern.Add, k.Load(x, at(v)), y)
		}
		s, err := k.For(32, []kern.Combine{kern.Sum}, func(v *kern.Var) ([]*kern.Node, error) {
			y := made(v)
			k.Store(row, at(v), y)
			return []*kern.Node{y}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		k.Store(sum, kern.V(i), s[0])
		if _, err := k.For(32, nil, func(v *kern.Var) ([]*kern.Node, error) {
			k.Store(out, at(v), k.Op(kern.Sub, made(v), s[0]))
			return nil, nil
		}); err != nil {
			t.Fatal(err)
		}
		again, args := Remake(k.Done(), out, cpu.Backend{})
		want := []int{sum, row, out}
		if product {
			want = []int{sum, p, x, out}
		}
		if again == nil || !slices.Equal(args, want) {
			t.Errorf("product %v: takes buffers %v, want %v", product, args, want)
		}
	}
}
