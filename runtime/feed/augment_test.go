package feed

import (
	"errors"
	"slices"
	"testing"

	"github.com/gouache-ml/gouache/runtime/feed/dice"
	"github.com/gouache-ml/gouache/runtime/feed/picture"
)

// gray is a picture whose three channels are the given levels.
func gray(width int, levels ...uint8) picture.Picture {
	p := picture.Picture{Width: width, Height: len(levels) / width}
	for _, v := range levels {
		p.Pixels = append(p.Pixels, v, v, v)
	}
	return p
}

func levels(p picture.Picture) []uint8 {
	var out []uint8
	for i := 0; i < len(p.Pixels); i += 3 {
		out = append(out, p.Pixels[i])
	}
	return out
}

func TestResizeByHand(t *testing.T) {
	for _, c := range []struct {
		name          string
		in            picture.Picture
		width, height int
		want          []uint8
	}{
		{"same size", gray(3, 1, 2, 3), 3, 1, []uint8{1, 2, 3}},
		// k = 3/1: [0,3) averages pixels 0..2; [3,6) is pixel 3, repeated.
		{"4 to 2", gray(4, 10, 20, 30, 80), 2, 1, []uint8{20, 80}},
		// k = 3/2: [0,1.5) is (10+20/2)/1.5 = 13.3; [1.5,3) is (20/2+30)/1.5 = 26.7;
		// [3,4.5) is the last pixel.
		{"4 to 3", gray(4, 10, 20, 30, 80), 3, 1, []uint8{13, 27, 80}},
		// k = 7/3: (0+8+16/3)/(7/3) = 5.7; (16*2/3+24+32*2/3)/(7/3) = 24;
		// (32/3+40+48)/(7/3) = 42.3; the last pixel.
		{"8 to 4", gray(8, 0, 8, 16, 24, 32, 40, 48, 56), 4, 1, []uint8{6, 24, 42, 56}},
		// One output pixel has no corners to align: k = in/out.
		{"4 to 1", gray(4, 10, 20, 30, 80), 1, 1, []uint8{35}},
		{"both axes", gray(4, 0, 0, 0, 90, 0, 0, 0, 90, 0, 0, 0, 90, 30, 30, 30, 60), 2, 2, []uint8{0, 90, 30, 60}},
		// k = 1/2: outputs 0 and 1 lie in pixel 0; output 2 is the last one.
		{"2 to 3", gray(2, 10, 20), 3, 1, []uint8{10, 10, 20}},
		{"1 to 3", gray(1, 7), 3, 1, []uint8{7, 7, 7}},
		// Halves go to even: (0+1)/2 = 0.5 to 0, (1+2)/2 = 1.5 to 2.
		{"half to even, down", gray(2, 0, 1), 1, 1, []uint8{0}},
		{"half to even, up", gray(2, 1, 2), 1, 1, []uint8{2}},
	} {
		got := Resize(c.in, c.width, c.height)
		if err := got.Check(); err != nil || !slices.Equal(levels(got), c.want) {
			t.Errorf("%s: %v, want %v (%v)", c.name, levels(got), c.want, err)
		}
	}
}

func TestResizeKeepsConstantPictures(t *testing.T) {
	p := gray(37, slices.Repeat([]uint8{123}, 37*41)...)
	for _, n := range []int{1, 2, 16, 31, 37, 41, 60} {
		if got := Resize(p, n, n+1); slices.Min(got.Pixels) != 123 || slices.Max(got.Pixels) != 123 {
			t.Errorf("%d: levels %d..%d, want 123", n, slices.Min(got.Pixels), slices.Max(got.Pixels))
		}
	}
}

func TestResizeKeepsChannelsApart(t *testing.T) {
	p := picture.Picture{Width: 2, Height: 1, Pixels: []uint8{10, 100, 200, 20, 110, 210}}
	if got := Resize(p, 1, 1).Pixels; !slices.Equal(got, []uint8{15, 105, 205}) {
		t.Errorf("%v", got)
	}
}

// ramp has the column in red, the row in green, so that a crop shows where it is from.
func ramp(w, h int) picture.Picture {
	p := picture.Picture{Width: w, Height: h}
	for y := range h {
		for x := range w {
			p.Pixels = append(p.Pixels, uint8(x), uint8(y), 0)
		}
	}
	return p
}

func TestAugmentVAEWithoutSlackIsACropAndAMirror(t *testing.T) {
	// With s equal to the target, t is s: nothing is resized, and of a 10x8 picture
	// the crop starts at column 0, 1 or 2.
	seen := map[[2]int]int{}
	for i := range uint64(600) {
		out, err := AugmentVAE(8)(ramp(10, 8), dice.New(i))
		if err != nil {
			t.Fatal(err)
		}
		left, right := int(out.Pixels[0]), int(out.Pixels[7*3])
		mirrored := 0
		if left > right {
			left, mirrored = right, 1
		}
		seen[[2]int{left, mirrored}]++
		want := crop(ramp(10, 8), left, 0, 8)
		if mirrored == 1 {
			mirror(want)
		}
		if !slices.Equal(out.Pixels, want.Pixels) {
			t.Fatalf("draw %d is no crop from column %d", i, left)
		}
	}
	if len(seen) != 6 {
		t.Errorf("column and mirroring take %v, want all of 0..2 by 0..1", seen)
	}
	for k, n := range seen {
		if n < 60 || n > 140 {
			t.Errorf("%v drawn %d times of 600, want about 100", k, n)
		}
	}
}

func TestAugmentPriorCropsTheMiddleAndNeverMirrors(t *testing.T) {
	// Slack 16: offsets 6 up to, not including, 10.
	seen := map[int]bool{}
	for i := range uint64(300) {
		out, err := AugmentPrior(8)(ramp(24, 8), dice.New(i))
		if err != nil {
			t.Fatal(err)
		}
		left := int(out.Pixels[0])
		seen[left] = true
		if !slices.Equal(out.Pixels, crop(ramp(24, 8), left, 0, 8).Pixels) {
			t.Fatalf("draw %d is no crop from column %d", i, left)
		}
	}
	for x := range 24 {
		if seen[x] != (x >= 6 && x < 10) {
			t.Errorf("crop from column %d: %v", x, seen[x])
		}
	}
}

func TestMiddleFollowsTheListing(t *testing.T) {
	for slack, want := range map[int][2]int{0: {0, 0}, 1: {0, 0}, 2: {0, 0}, 3: {1, 1}, 4: {1, 1}, 8: {3, 4}, 16: {6, 9}, 100: {37, 61}} {
		if lo, hi := middle(slack); lo != want[0] || hi != want[1] {
			t.Errorf("slack %d: offsets %d..%d, want %d..%d", slack, lo, hi, want[0], want[1])
		}
	}
}

// The intermediate size t can't be seen from outside, but with s far above the target
// the width of what a crop shows tells it: target pixels of t show (s-1)/(t-1) each.
func TestIntermediateSizesReachBothBounds(t *testing.T) {
	const target, s = 16, 241
	sizes := func(a Augment) map[int]bool {
		seen := map[int]bool{}
		for i := range uint64(400) {
			out, err := a(ramp(s, s), dice.New(i))
			if err != nil {
				t.Fatal(err)
			}
			// Green grows with the row and is never mirrored; away from the last
			// row the steps are (s-1)/(t-1) pixels.
			step := float64(int(out.Pixels[13*16*3+1])-int(out.Pixels[1])) / 13
			seen[int(float64(s-1)/step+1.5)] = true
		}
		return seen
	}
	for name, c := range map[string]struct {
		a      Augment
		lo, hi int
	}{"listing 1": {AugmentVAE(target), 18, 24}, "listing 2": {AugmentPrior(target), 16, 18}} {
		seen := sizes(c.a)
		for n := range 40 {
			if seen[n] != (n >= c.lo && n <= c.hi) {
				t.Errorf("%s: size %d drawn: %v, want %d..%d", name, n, seen[n], c.lo, c.hi)
			}
		}
	}
}

func TestAugmentationsRefuseSmallPictures(t *testing.T) {
	for _, a := range []Augment{AugmentVAE(8), AugmentPrior(8)} {
		var skip *SkipError
		if _, err := a(ramp(20, 7), dice.New(1)); !errors.As(err, &skip) || skip.Reason != ReasonTooSmall {
			t.Errorf("%v", err)
		}
		p := ramp(8, 8)
		if _, err := a(p, dice.New(1)); err != nil || !slices.Equal(p.Pixels, ramp(8, 8).Pixels) {
			t.Errorf("8x8: %v, or the picture passed in changed", err)
		}
	}
}

func TestCenterTakesTheMiddle(t *testing.T) {
	out, err := Center(8)(ramp(18, 8), nil)
	if err != nil || out.Pixels[0] != 5 || out.Pixels[7*3] != 12 {
		t.Errorf("columns %d..%d, want 5..12 (%v)", out.Pixels[0], out.Pixels[7*3], err)
	}
}
