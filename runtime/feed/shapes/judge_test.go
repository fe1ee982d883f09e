package shapes

import (
	"math"
	"testing"

	"github.com/gouache-ml/gouache/runtime/feed/dice"
)

// score is how many of the first n samples the judge reads correctly, in shape and
// colour, size, relation or position, after the pictures went through spoil.
func score(t *testing.T, size, n int, spoil func(img []uint8, i int) []uint8) (objects, sizes, relations float64) {
	t.Helper()
	src := Source{Seed: 7, Size: size}
	for i := range n {
		img, caption := src.Sample(uint64(i))
		scene, err := ParseCaption(caption)
		if err != nil {
			t.Fatal(err)
		}
		if spoil != nil {
			img = spoil(img, i)
		}
		o, s, r := Judge(img, size).Matches(scene)
		for _, c := range []struct {
			ok  bool
			sum *float64
		}{{o, &objects}, {s, &sizes}, {r, &relations}} {
			if c.ok {
				*c.sum += 1 / float64(n)
			}
		}
	}
	t.Logf("%d px: shapes and colours %.4f, sizes %.4f, relations %.4f", size, objects, sizes, relations)
	return objects, sizes, relations
}

func TestJudgeReadsCleanDrawings(t *testing.T) {
	for _, size := range []int{32, 48, 64} {
		o, s, r := score(t, size, 2000, nil)
		if o < 0.99 || s < 0.97 || r < 0.97 {
			t.Errorf("%d px: shapes and colours %.4f (want 0.99), sizes %.4f, relations %.4f (want 0.97)", size, o, s, r)
		}
	}
}

// blurred convolves with a Gaussian and adds noise, clamped to 8 bits.
func blurred(img []uint8, size int, sigma, noise float64, seed uint64) []uint8 {
	r := int(math.Ceil(3 * sigma))
	kernel := make([]float64, 2*r+1)
	sum := 0.0
	for i := range kernel {
		kernel[i] = math.Exp(-float64((i-r)*(i-r)) / (2 * sigma * sigma))
		sum += kernel[i]
	}
	pass := func(in []float64, dx, dy int) []float64 {
		out := make([]float64, len(in))
		for y := range size {
			for x := range size {
				for k, w := range kernel {
					sx := min(max(x+dx*(k-r), 0), size-1)
					sy := min(max(y+dy*(k-r), 0), size-1)
					for c := range 3 {
						out[(y*size+x)*3+c] += w / sum * in[(sy*size+sx)*3+c]
					}
				}
			}
		}
		return out
	}
	f := make([]float64, len(img))
	for i, v := range img {
		f[i] = float64(v)
	}
	f = pass(pass(f, 1, 0), 0, 1)
	rnd := dice.New(seed)
	out := make([]uint8, len(img))
	for i, v := range f {
		normal := math.Sqrt(-2*math.Log(1-rnd.Float64())) * math.Cos(2*math.Pi*rnd.Float64())
		out[i] = uint8(min(max(math.Round(v+noise*normal), 0), 255))
	}
	return out
}

func TestJudgeReadsBlurredNoisyDrawings(t *testing.T) {
	// Blurs are for 32 pixels. The first is the softness of a good decoder, the
	// second that of a poor one.
	for _, sigma := range []float64{0.7, 1.3} {
		for _, size := range []int{32, 48, 64} {
			o, s, r := score(t, size, 150, func(img []uint8, i int) []uint8 {
				return blurred(img, size, sigma*float64(size)/32, 6, uint64(i))
			})
			if o < 0.95 || s < 0.95 || r < 0.95 {
				t.Errorf("blur %g, %d px: shapes and colours %.4f, sizes %.4f, relations %.4f, want 0.95", sigma, size, o, s, r)
			}
		}
	}
}

func TestJudgeIgnoresSpecksAndColorShift(t *testing.T) {
	const size = 32
	o, _, _ := score(t, size, 500, func(img []uint8, i int) []uint8 {
		r := dice.New(uint64(i), 99)
		shift := [3]int{r.Between(-15, 15), r.Between(-15, 15), r.Between(-15, 15)}
		for k, v := range img {
			img[k] = uint8(min(max(int(v)+shift[k%3], 0), 255))
		}
		x, y := r.Intn(size-1), r.Intn(size-1)
		for k := range 4 { // a 2x2 speck somewhere, perhaps on an object
			copy(img[((y+k/2)*size+x+k%2)*3:], []uint8{35, 70, 225})
		}
		return img
	})
	if o < 0.95 {
		t.Errorf("shapes and colours %.4f, want 0.95", o)
	}
}

func TestJudgeRefusesWrongPictures(t *testing.T) {
	r := dice.New(3)
	for _, o := range everyObject() {
		want := Scene{Objects: []Object{o}, Position: Center}
		wrong := []Scene{}
		for c := Red; c < numColors; c++ {
			for s := Circle; s < numShapes; s++ {
				if c != o.Color || s != o.Shape {
					wrong = append(wrong, Scene{Objects: []Object{{o.Size, c, s}}, Position: Center})
				}
			}
		}
		wrong = append(wrong, Scene{Objects: []Object{o, {Small, (o.Color + 1) % numColors, o.Shape}}, Relation: Above})
		for _, w := range wrong {
			img, err := w.Draw(32, r)
			if err != nil {
				t.Fatal(err)
			}
			if ok, _, _ := Judge(img, 32).Matches(want); ok {
				t.Errorf("a picture of %q passes for %q", w.Caption(), want.Caption())
			}
		}
		for _, check := range []struct {
			scene           Scene
			sizes, relation bool
		}{
			{Scene{Objects: []Object{o}, Position: TopLeft}, true, false},
			{Scene{Objects: []Object{{1 - o.Size, o.Color, o.Shape}}, Position: Center}, false, true},
			{want, true, true},
		} {
			img, err := check.scene.Draw(32, r)
			if err != nil {
				t.Fatal(err)
			}
			ok, sizes, relation := Judge(img, 32).Matches(want)
			if !ok || sizes != check.sizes || relation != check.relation {
				t.Errorf("a picture of %q against %q: %v %v %v", check.scene.Caption(), want.Caption(), ok, sizes, relation)
			}
		}
	}
}

func TestJudgeTellsRelationsApart(t *testing.T) {
	r := dice.New(4)
	a, b := Object{Large, Red, Circle}, Object{Large, Blue, Cross}
	for drawn := Above; drawn < numRelations; drawn++ {
		for range 50 {
			img, err := Scene{Objects: []Object{a, b}, Relation: drawn}.Draw(32, r)
			if err != nil {
				t.Fatal(err)
			}
			v := Judge(img, 32)
			for said := Above; said < numRelations; said++ {
				_, _, forward := v.Matches(Scene{Objects: []Object{a, b}, Relation: said})
				_, _, backward := v.Matches(Scene{Objects: []Object{b, a}, Relation: said})
				if forward != (said == drawn) || backward != (said.Inverse() == drawn) {
					t.Fatalf("drawn %q, asked %q: forward %v, backward %v", drawn, said, forward, backward)
				}
			}
		}
	}
}

func TestJudgeSeldomMatchesRandomCaptions(t *testing.T) {
	src, other := Source{Seed: 7}, Source{Seed: 8}
	const n = 2000
	loose, strict := 0, 0
	for i := range uint64(n) {
		img, _ := src.Sample(i)
		_, caption := other.Sample(i)
		scene, err := ParseCaption(caption)
		if err != nil {
			t.Fatal(err)
		}
		ok, sizes, relation := Judge(img, 32).Matches(scene)
		if ok {
			loose++
		}
		if ok && sizes && relation {
			strict++
		}
	}
	t.Logf("shapes and colours %.4f, everything %.4f", float64(loose)/n, float64(strict)/n)
	if loose >= n*2/100 {
		t.Errorf("%d of %d random captions match in shape and colour, want below 2%%", loose, n)
	}
}

func TestJudgeFindsNothingWhereNothingIs(t *testing.T) {
	blank := make([]uint8, 32*32*3)
	for i := range blank {
		blank[i] = Background
	}
	if v := Judge(blank, 32); len(v.Objects)+v.Unclear+v.Specks != 0 {
		t.Errorf("blank picture: %+v", v)
	}
	noise := make([]uint8, 32*32*3)
	r := dice.New(1)
	for i := range noise {
		noise[i] = uint8(r.Intn(256))
	}
	if v := Judge(noise, 32); len(v.Objects) != 0 {
		t.Errorf("random pixels: recognised %+v", v.Objects)
	}
	if v := Judge(blank[:100], 32); len(v.Objects)+v.Unclear+v.Specks != 0 {
		t.Errorf("short picture: %+v", v)
	}
}
