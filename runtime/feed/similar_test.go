package feed

import (
	"slices"
	"strings"
	"testing"
)

// meanShared is the mean share of words that captions of one batch have in common.
func meanShared(captions []string) float64 {
	bag := func(s string) []int {
		var b []int
		for _, w := range strings.Fields(s) {
			h := 0
			for _, c := range w {
				h = h*131 + int(c)
			}
			b = append(b, h)
		}
		slices.Sort(b)
		return b
	}
	sum, n := 0.0, 0
	for i := range captions {
		for j := range i {
			sum += jaccard(bag(captions[i]), bag(captions[j]))
			n++
		}
	}
	return sum / float64(n)
}

func TestPoolsBringSimilarCaptionsTogether(t *testing.T) {
	const batch, pool, steps = 4, 16, 16
	for name, src := range sources(t) {
		o := optionsFor(name)
		o.Batch = batch
		plain := mustLoader(t, src, o)
		o.Pool = pool
		pooled := mustLoader(t, src, o)
		var before, after float64
		for first := 0; first < steps; first += pool {
			names := [2][]string{}
			for step := first; step < first+pool; step++ {
				a, b := mustNext(t, plain), mustNext(t, pooled)
				before, after = before+meanShared(a.Captions), after+meanShared(b.Captions)
				names[0], names[1] = append(names[0], a.Names...), append(names[1], b.Names...)
				if again, err := pooled.At(uint64(step)); err != nil || !same(b, again) {
					t.Errorf("%s step %d: Next and At differ, error %v", name, step, err)
				}
			}
			for i := range names {
				slices.Sort(names[i])
			}
			if !slices.Equal(names[0], names[1]) {
				t.Errorf("%s: the pool at step %d has other samples than without pools", name, first)
			}
		}
		if after < 1.3*before {
			t.Errorf("%s: captions of a batch share %.3f of their words, %.3f without pools", name, after/steps, before/steps)
		}
	}
}

func TestGroupsHoldNoCaptionTwice(t *testing.T) {
	captions := []string{"a red cat", "a red dog", "A red cat", "a blue cat", "a red cat", "two birds"}
	s := &similar{size: uint64(len(captions)), caption: func(slot uint64) (string, error) { return captions[slot%6], nil }}
	order, err := s.deal(0)
	if err != nil {
		t.Fatal(err)
	}
	// The first group takes every caption once, the most similar first.
	if len(order) != 6 || order[0] != 0 || order[3] != 5 {
		t.Fatalf("order %v; want 0, then its likes 1 and 3, then 5", order)
	}
	var left []uint32
	for _, i := range order[4:] {
		left = append(left, i)
	}
	if !slices.Equal(left, []uint32{2, 4}) {
		t.Errorf("order %v ends with %v; want the two repetitions, each in a group of its own", order, left)
	}
}
