package feed

import (
	"fmt"
	"math"

	"github.com/gouache-ml/gouache/runtime/feed/dice"
	"github.com/gouache-ml/gouache/runtime/feed/picture"
)

// Augment turns a picture into one of the size a model takes, with random numbers
// from the stream. It reports pictures it can't use as *SkipError without a name.
type Augment func(p picture.Picture, r *dice.Stream) (picture.Picture, error)

// AugmentVAE is the discrete VAE's augmentation (paper, listing 1) for target pixels:
// a square crop of the shorter side s anywhere, an area resize to t with t uniform in
// min(s, 9/8 target)..min(s, 12/8 target), a crop of target anywhere, and a mirror
// image every other time. Numbers are drawn in that order, y before x.
func AugmentVAE(target int) Augment {
	return func(p picture.Picture, r *dice.Stream) (picture.Picture, error) {
		s := min(p.Width, p.Height)
		if err := fits(p, target); err != nil {
			return picture.Picture{}, err
		}
		y := r.Between(0, p.Height-s)
		x := r.Between(0, p.Width-s)
		t := r.Between(min(s, 9*target/8), min(s, 12*target/8))
		out := randomCrop(Resize(crop(p, x, y, s), t, t), target, r)
		if r.Intn(2) == 1 {
			mirror(out)
		}
		return out, nil
	}
}

// AugmentPrior is the transformer's augmentation (paper, listing 2) for target pixels:
// a square crop of the shorter side from the middle quarter of where it can lie, an
// area resize to t with t uniform in target..min(s, 9/8 target), a crop of target
// anywhere. There is no mirror image, because pictures may show text. Numbers are
// drawn in that order, y before x.
func AugmentPrior(target int) Augment {
	return func(p picture.Picture, r *dice.Stream) (picture.Picture, error) {
		s := min(p.Width, p.Height)
		if err := fits(p, target); err != nil {
			return picture.Picture{}, err
		}
		y := r.Between(middle(p.Height - s))
		x := r.Between(middle(p.Width - s))
		t := r.Between(target, min(s, 9*target/8))
		return randomCrop(Resize(crop(p, x, y, s), t, t), target, r), nil
	}
}

// middle is the inclusive range of offsets of listing 2 for a slack of pixels; the
// listing's upper end is exclusive.
func middle(slack int) (lo, hi int) {
	lo = 3 * slack / 8
	return lo, max(lo+1, 5*slack/8) - 1
}

// Center is the deterministic preparation for measuring: the central square of the
// shorter side, area-resized to target. It uses no random numbers.
func Center(target int) Augment {
	return func(p picture.Picture, _ *dice.Stream) (picture.Picture, error) {
		s := min(p.Width, p.Height)
		if s < 1 {
			return picture.Picture{}, fits(p, target)
		}
		return Resize(crop(p, (p.Width-s)/2, (p.Height-s)/2, s), target, target), nil
	}
}

// fits refuses pictures whose shorter side is below the target.
func fits(p picture.Picture, target int) error {
	if min(p.Width, p.Height) < target || target < 1 {
		return &SkipError{Reason: ReasonTooSmall, Err: fmt.Errorf("%dx%d, the target is %d", p.Width, p.Height, target)}
	}
	return nil
}

func crop(p picture.Picture, x, y, side int) picture.Picture {
	if x == 0 && y == 0 && side == p.Width && side == p.Height {
		return p
	}
	out := picture.Picture{Width: side, Height: side, Pixels: make([]uint8, side*side*3)}
	for row := range side {
		from := ((y+row)*p.Width + x) * 3
		copy(out.Pixels[row*side*3:(row+1)*side*3], p.Pixels[from:])
	}
	return out
}

// randomCrop always copies, so that mirror may work in place.
func randomCrop(p picture.Picture, target int, r *dice.Stream) picture.Picture {
	y := r.Between(0, p.Height-target)
	x := r.Between(0, p.Width-target)
	out := crop(p, x, y, target)
	if &out.Pixels[0] == &p.Pixels[0] {
		out.Pixels = append([]uint8(nil), p.Pixels...)
	}
	return out
}

func mirror(p picture.Picture) {
	for y := range p.Height {
		row := p.Pixels[y*p.Width*3 : (y+1)*p.Width*3]
		for l, r := 0, p.Width-1; l < r; l, r = l+1, r-1 {
			for c := range 3 {
				row[l*3+c], row[r*3+c] = row[r*3+c], row[l*3+c]
			}
		}
	}
}

// Resize is the area resize with aligned corners that the paper's listings use:
// output pixel i averages the input over [i*k, (i+1)*k) with k = (in-1)/(out-1), where
// positions beyond the last pixel repeat it. Results are rounded to nearest, halves to
// even. Width and height must be positive; the same size returns p itself.
func Resize(p picture.Picture, width, height int) picture.Picture {
	if width == p.Width && height == p.Height {
		return p
	}
	columns, rows := areaTaps(p.Width, width), areaTaps(p.Height, height)
	across := make([]float64, width*p.Height*3)
	for y := range p.Height {
		line := p.Pixels[y*p.Width*3:]
		for x, t := range columns {
			var sum [3]float64
			for k, w := range t.weights {
				at := min(t.start+k, p.Width-1) * 3
				for c := range sum {
					// The conversion forbids a fused multiply-add, which would
					// round differently from one machine to the next.
					sum[c] += float64(w * float64(line[at+c]))
				}
			}
			copy(across[(y*width+x)*3:], sum[:])
		}
	}
	out := picture.Picture{Width: width, Height: height, Pixels: make([]uint8, width*height*3)}
	line := make([]float64, width*3)
	for y, t := range rows {
		clear(line)
		for k, w := range t.weights {
			from := across[min(t.start+k, p.Height-1)*width*3:]
			for i := range line {
				line[i] += float64(w * from[i])
			}
		}
		for i, v := range line {
			out.Pixels[y*width*3+i] = uint8(math.RoundToEven(min(max(v, 0), 255)))
		}
	}
	return out
}

// taps are the weights of consecutive input pixels that make an output pixel; they
// sum to 1.
type taps struct {
	start   int
	weights []float64
}

func areaTaps(in, out int) []taps {
	k := float64(in) / float64(out)
	if out > 1 {
		k = float64(in-1) / float64(out-1)
	}
	all := make([]taps, out)
	for i := range all {
		lo, hi := float64(float64(i)*k), float64(float64(i+1)*k)
		t := taps{start: int(lo)}
		if k == 0 { // one input pixel repeated
			t.weights = []float64{1}
			all[i] = t
			continue
		}
		for j := t.start; float64(j) < hi; j++ {
			t.weights = append(t.weights, (min(float64(j+1), hi)-max(float64(j), lo))/k)
		}
		all[i] = t
	}
	return all
}
