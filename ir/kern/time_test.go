package kern_test

import (
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/ir/kern"
)

// The longer of arithmetic and traffic counts, and each kind of kernel has its rate.
func TestTimeIsTheLongerOfArithmeticAndTraffic(t *testing.T) {
	rates := kern.Rates{Product: 100, Narrow: 1000, Template: 50, Loop: 10, Bytes: 4, Launch: 7}
	product := func(dtype ir.DType) *kern.Kernel {
		b := kern.NewBuilder("product")
		m, n := b.Dim(64), b.Dim(32)
		k := b.NewVar(16)
		x, y := b.Buf("x", dtype, 64*16, kern.In), b.Buf("y", dtype, 16*32, kern.In)
		sum := b.Contract([]*kern.Var{k}, x, kern.V(m).Scale(16).Add(kern.V(k)), nil, y, kern.V(k).Scale(32).Add(kern.V(n)), nil)
		b.Store(b.Buf("z", ir.F32, 64*32, kern.Out), kern.V(m).Scale(32).Add(kern.V(n)), sum)
		p := b.Done()
		p.FLOPs = 2_000_000
		return p
	}
	loop := func(flops int64, mode kern.Mode) *kern.Kernel {
		b := kern.NewBuilder("loop")
		i := b.Dim(1000)
		x := b.Buf("x", ir.F32, 50_000, kern.In) // of which 1,000 are read
		b.Store(b.Buf("y", ir.F32, 1000, mode), kern.V(i), b.Load(x, kern.V(i)))
		p := b.Done()
		p.FLOPs = flops
		return p
	}
	template := &kern.Kernel{Template: &kern.Template{Name: "attention_fwd"}, FLOPs: 5000, Bufs: []kern.Buf{{DType: ir.F32, Len: 20, Mode: kern.In}}}
	for _, c := range []struct {
		what string
		k    *kern.Kernel
		want int64
	}{
		{"a product of f32", product(ir.F32), 7 + 20_000},
		{"a product of f16", product(ir.F16), 7 + (64*16*2+16*32*2+64*32*4)/4},
		{"a loop bound by traffic", loop(1000, kern.Out), 7 + 8000/4},
		{"that reads what it writes", loop(1000, kern.InOut), 7 + 12_000/4},
		{"a loop bound by arithmetic", loop(90_000, kern.Out), 7 + 9000},
		{"attention", template, 7 + 100},
	} {
		if got := rates.Time(c.k); got != c.want {
			t.Errorf("%s: %d ns, want %d", c.what, got, c.want)
		}
	}
}
