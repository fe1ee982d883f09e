package kern

import (
	"testing"

	"github.com/gouache-ml/gouache/ir"
)

func TestTrafficCountsWhatIsReached(t *testing.T) {
	b := NewBuilder("embedding")
	i, j := b.Dim(5), b.Dim(8)
	ids, table, out := b.Buf("", ir.I32, 5, In), b.Buf("", ir.F32, 160, In), b.Buf("", ir.F32, 40, Out)
	b.Store(out, V(i).Scale(8).Add(V(j)), b.Load(table, At(b.Load(ids, V(i))).Scale(8).Add(V(j))))
	k := b.Done()
	if got, want := k.Traffic(), 4*(5+40+40); got != want {
		t.Errorf("traffic %d bytes, want %d: 5 indices, 40 of 160 elements gathered, 40 written", got, want)
	}
	b = NewBuilder("scale")
	i = b.Dim(64)
	x := b.Buf("", ir.F16, 100, InOut)
	b.Store(x, V(i), b.Op(Mul, b.Load(x, V(i)), b.F(2)))
	if got, want := b.Done().Traffic(), 2*2*64; got != want {
		t.Errorf("in place: traffic %d bytes, want %d", got, want)
	}
}
