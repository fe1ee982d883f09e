package dice

import "testing"

func TestPermutationHitsEveryIndexOnce(t *testing.T) {
	for _, n := range []uint64{1, 2, 3, 4, 5, 16, 17, 100, 1000} {
		p := Permute(n, 42, n)
		seen := make([]bool, n)
		for i := range n {
			j := p.At(i)
			if j >= n || seen[j] {
				t.Fatalf("n=%d: %d -> %d, outside or twice", n, i, j)
			}
			seen[j] = true
		}
	}
}

func TestPermutationDependsOnKeys(t *testing.T) {
	a, b, c := Permute(1000, 1, 0), Permute(1000, 1, 1), Permute(1000, 1, 0)
	same, fixed := 0, 0
	for i := range uint64(1000) {
		if a.At(i) == b.At(i) {
			same++
		}
		if a.At(i) == i {
			fixed++
		}
		if a.At(i) != c.At(i) {
			t.Fatal("the same keys give another order")
		}
	}
	if same > 20 || fixed > 20 {
		t.Errorf("%d places agree between epochs, %d stay put; want about 1", same, fixed)
	}
}

func TestStreamBounds(t *testing.T) {
	s := New(1, 2)
	count := [5]int{}
	for range 5000 {
		v := s.Between(3, 7)
		if v < 3 || v > 7 {
			t.Fatalf("%d is outside 3..7", v)
		}
		count[v-3]++
		if f := s.Float64(); f < 0 || f >= 1 {
			t.Fatalf("%g is outside [0,1)", f)
		}
	}
	for i, n := range count {
		if n < 850 || n > 1150 {
			t.Errorf("%d drawn %d times of 5000, want about 1000", i+3, n)
		}
	}
	if got := s.Between(4, 2); got != 4 {
		t.Errorf("an empty range gives %d, want its low end", got)
	}
}

func TestKeysMatterInOrderAndNumber(t *testing.T) {
	seen := map[uint64]string{}
	for name, h := range map[string]uint64{
		"": Hash(), "0": Hash(0), "0 0": Hash(0, 0), "1 2": Hash(1, 2), "2 1": Hash(2, 1), "1": Hash(1),
	} {
		if other, ok := seen[h]; ok {
			t.Errorf("keys %q and %q give the same stream", name, other)
		}
		seen[h] = name
	}
	// Known values: a change would change every data set drawn from a seed.
	if got := New(1, 2).Uint64(); got != 0xd17a56fa50db125f {
		t.Errorf("first draw of (1, 2) is %#x", got)
	}
}
