package picture

import (
	"bytes"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSaveReadsBack(t *testing.T) {
	p := Picture{2, 1, []uint8{1, 2, 3, 250, 251, 252}}
	path := filepath.Join(t.TempDir(), "new", "x.png")
	if err := p.Save(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	r, g, b, a := m.At(1, 0).RGBA()
	if m.Bounds().Dx() != 2 || m.Bounds().Dy() != 1 || r>>8 != 250 || g>>8 != 251 || b>>8 != 252 || a != 0xffff {
		t.Errorf("%v: %d %d %d %d", m.Bounds(), r>>8, g>>8, b>>8, a)
	}
	rest, _ := os.ReadDir(filepath.Dir(path))
	if len(rest) != 1 {
		t.Errorf("%d files are left, want 1", len(rest))
	}
	if err := (Picture{2, 2, nil}).Save(path); err == nil || !strings.Contains(err.Error(), "0 bytes do not make 2x2 RGB") {
		t.Errorf("%v", err)
	}
}

func TestFromFloatsClampsAndRounds(t *testing.T) {
	p := FromFloats([]float32{-1, 0, 0.5, 1, 2, float32(math.NaN())}, 2, 1)
	if want := []uint8{0, 0, 128, 255, 255, 0}; !slices.Equal(p.Pixels, want) {
		t.Errorf("%v, want %v", p.Pixels, want)
	}
}

func TestGridPlacesPicturesAndCaptions(t *testing.T) {
	red := Picture{2, 2, slices.Repeat([]uint8{200, 0, 0}, 4)}
	blue := Picture{2, 2, slices.Repeat([]uint8{0, 0, 200}, 4)}
	opt := GridOptions{Columns: 2, CellWidth: 40}
	g, err := Grid([]Picture{red, blue, red}, []string{"", "", "word longerthanacell x"}, opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Check(); err != nil {
		t.Fatal(err)
	}
	at := func(x, y int) []uint8 { return g.Pixels[(y*g.Width+x)*3:][:3] }
	if g.Width != 3*padding+80 || !slices.Equal(at(padding+39, padding+39), red.Pixels[:3]) ||
		!slices.Equal(at(2*padding+40, padding), blue.Pixels[:3]) || !slices.Equal(at(padding, 2*padding+40), red.Pixels[:3]) {
		t.Errorf("grid of %dx%d has pictures elsewhere", g.Width, g.Height)
	}
	// 40 pixels are 5 characters: the caption takes five lines under the second row.
	if want := 3*padding + 80 + padding/2 + 5*lineHeight; g.Height != want {
		t.Errorf("height %d, want %d", g.Height, want)
	}
	black := 0
	for i := 0; i < len(g.Pixels); i += 3 {
		if g.Pixels[i] == 0 && g.Pixels[i+1] == 0 && g.Pixels[i+2] == 0 {
			black++
		}
	}
	if black < 50 {
		t.Errorf("%d black pixels: the caption isn't drawn", black)
	}
	if _, err := Grid(nil, nil, opt); err == nil {
		t.Error("an empty grid is drawn")
	}
	if _, err := Grid([]Picture{red, {1, 1, []uint8{0, 0, 0}}}, nil, opt); err == nil || !strings.Contains(err.Error(), "picture 1 is 1x1, the first is 2x2") {
		t.Errorf("%v", err)
	}
}

func TestWrapBreaksAtSpaces(t *testing.T) {
	for text, want := range map[string][]string{
		"":                  nil,
		"a bc def":          {"a bc", "def"},
		"abcdefghijk l":     {"abcde", "fghij", "k l"},
		"  a \n b  ":        {"a b"},
		"größe über alles!": {"größe", "über", "alles", "!"},
	} {
		if got := wrap(text, 5); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
