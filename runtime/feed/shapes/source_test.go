package shapes

import (
	"hash/fnv"
	"slices"
	"testing"

	"github.com/gouache-ml/gouache/runtime/feed/dice"
)

func TestSampleDependsOnSeedAndIndexOnly(t *testing.T) {
	s := Source{Seed: 5, Size: 32}
	a, ca := s.Sample(123)
	s.Sample(7)
	b, cb := s.Sample(123)
	if !slices.Equal(a, b) || ca != cb {
		t.Error("the same index gives another picture")
	}
	c, _ := Source{Seed: 6, Size: 32}.Sample(123)
	if slices.Equal(a, c) {
		t.Error("another seed gives the same picture")
	}
}

// A change of this figure breaks every saved training run: the data of step n is no
// longer what it was.
func TestSamplesStayTheSameBits(t *testing.T) {
	h := fnv.New64a()
	for i := range uint64(50) {
		for _, size := range []int{32, 48, 64} {
			img, caption := Source{Seed: 1, Size: size}.Sample(i)
			h.Write(img)
			h.Write([]byte(caption))
		}
	}
	if got, want := h.Sum64(), uint64(0xfd56f41c8e2ebe3d); got != want {
		t.Errorf("hash %#x, want %#x", got, want)
	}
}

func TestObjectsLieInsideAndApart(t *testing.T) {
	r := dice.New(9)
	for i, s := range append(singles(), pairs()...) {
		size := []int{32, 48, 64}[i%3]
		var all []placed
		if len(s.Objects) == 1 {
			all = append(all, s.placeSingle(size, r, func(Position) bool { return false }))
		} else {
			p := s.placePair(size, r)
			all = p[:]
		}
		for _, o := range all {
			if o.cx-o.extent/2 < 0 || o.cy-o.extent/2 < 0 || o.cx+o.extent/2 > size*unit || o.cy+o.extent/2 > size*unit {
				t.Fatalf("%q: %+v leaves the picture", s.Caption(), o)
			}
			if o.extent%unit != 0 || (o.cx-o.extent/2)%unit != 0 || (o.cy-o.extent/2)%unit != 0 {
				t.Fatalf("%q: %+v is not on whole pixels", s.Caption(), o)
			}
		}
		if len(all) == 2 {
			apart := max(abs(all[0].cx-all[1].cx), abs(all[0].cy-all[1].cy)) - (all[0].extent+all[1].extent)/2
			if apart < scale(gap, size)-unit { // whole pixels cost up to one

				t.Fatalf("%q: %+v are %d units apart", s.Caption(), all, apart)
			}
		}
	}
}

func abs(x int) int { return max(x, -x) }

func TestHeldOutLeavesEveryWordInTraining(t *testing.T) {
	// Every (colour, shape) keeps most positions, and every pair of words in any two
	// places of a caption still occurs.
	type singleKey struct {
		size     Size
		position Position
		color    Color
	}
	type half struct {
		object   Object
		relation Relation
		second   bool
	}
	seenSingle, seenHalf := map[singleKey]bool{}, map[half]bool{}
	open := map[Object]int{}
	for _, s := range singles() {
		if !HeldOut(s) && s.Position != Anywhere {
			o := s.Objects[0]
			seenSingle[singleKey{o.Size, s.Position, o.Color}] = true
			open[o]++
		}
		if HeldOut(s) && s.Position == Anywhere {
			t.Errorf("%q has no position and is held out", s.Caption())
		}
	}
	for _, s := range pairs() {
		if !HeldOut(s) {
			seenHalf[half{s.Objects[0], s.Relation, false}] = true
			seenHalf[half{s.Objects[1], s.Relation, true}] = true
		}
	}
	if want := 2 * 5 * 8; len(seenSingle) != want {
		t.Errorf("%d of %d (size, position, colour) occur", len(seenSingle), want)
	}
	if want := 64 * 4 * 2; len(seenHalf) != want {
		t.Errorf("%d of %d (object, relation, place) occur", len(seenHalf), want)
	}
	for o, n := range open {
		if n < 2 {
			t.Errorf("%v has %d positions left", o, n)
		}
	}
	c := CountCaptions()
	if c != (CaptionCounts{Singles: 357, Pairs: 14240, HeldOutSingles: 27, HeldOutPairs: 1632}) {
		t.Errorf("the held-out list changed: %+v", c)
	}
	if n := len(TrainingCaptions()); n != c.Training() {
		t.Errorf("%d training captions listed, %d counted", n, c.Training())
	}
}

func TestHeldOutIsTheSameForBothWordings(t *testing.T) {
	for _, s := range pairs() {
		m := Scene{Objects: []Object{s.Objects[1], s.Objects[0]}, Relation: s.Relation.Inverse()}
		if HeldOut(s) != HeldOut(m) {
			t.Fatalf("%q and %q differ", s.Caption(), m.Caption())
		}
	}
}

func TestTrainingNeverShowsHeldOut(t *testing.T) {
	src := Source{Seed: 2, Size: 32}
	kinds := map[int]int{}
	for i := range uint64(20000) {
		r := dice.New(src.Seed, i)
		s := randomScene(r)
		for HeldOut(s) {
			s = randomScene(r)
		}
		if len(s.Objects) == 2 {
			kinds[2]++
		} else if s.Position != Anywhere {
			kinds[1]++
		} else {
			kinds[0]++
			p := s.placeSingle(32, r, func(p Position) bool {
				return HeldOut(Scene{Objects: s.Objects, Position: p})
			})
			s.Position = nearestPosition(p.cx, p.cy, 32*unit)
			if HeldOut(s) {
				t.Fatalf("a picture of %q is drawn", s.Caption())
			}
		}
	}
	for k, want := range []int{3000, 7000, 10000} {
		if d := abs(kinds[k] - want); d > 400 {
			t.Errorf("kind %d occurs %d times of 20000, want about %d", k, kinds[k], want)
		}
	}
	for i := range uint64(2000) {
		_, caption := src.Sample(i)
		s, err := ParseCaption(caption)
		if err != nil {
			t.Fatal(err)
		}
		if HeldOut(s) {
			t.Fatalf("sample %d shows held-out %q", i, caption)
		}
	}
}

func TestHeldOutCaptionsAreDistinctAndMixed(t *testing.T) {
	list := HeldOutCaptions(40, 1)
	if len(list) != 40 {
		t.Fatalf("got %d captions, want 40", len(list))
	}
	seen := map[string]bool{}
	single := 0
	for _, c := range list {
		s, err := ParseCaption(c)
		if err != nil {
			t.Fatal(err)
		}
		if seen[c] || !HeldOut(s) {
			t.Errorf("%q: seen before %v, held out %v", c, seen[c], HeldOut(s))
		}
		seen[c] = true
		if len(s.Objects) == 1 {
			single++
		}
	}
	if single != 20 {
		t.Errorf("%d of 40 are singles, want half", single)
	}
	if !slices.Equal(list[:10], HeldOutCaptions(10, 1)) || slices.Equal(list[:10], HeldOutCaptions(10, 2)) {
		t.Error("the order must follow from the seed alone")
	}
	if n := len(HeldOutCaptions(1<<20, 1)); n != 27+1632 {
		t.Errorf("%d held-out captions in all", n)
	}
}
