package shapes

import (
	"strings"
	"testing"
)

func TestCaptionsParseBack(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range append(singles(), pairs()...) {
		c := s.Caption()
		if seen[c] {
			t.Fatalf("%q stands for two scenes", c)
		}
		seen[c] = true
		back, err := ParseCaption(c)
		if err != nil {
			t.Fatal(err)
		}
		if back.Caption() != c || back.Position != s.Position || back.Relation != s.Relation {
			t.Fatalf("%q parses as %+v", c, back)
		}
	}
	s, err := ParseCaption("  A small RED circle  to the left of a large blue cross ")
	if err != nil || s.Caption() != "a small red circle to the left of a large blue cross" {
		t.Errorf("got %q, %v", s.Caption(), err)
	}
}

func TestParseCaptionNamesTheWrongWord(t *testing.T) {
	for caption, want := range map[string]string{
		"":                               `ends early, want "a"`,
		"a small pink circle":            `word 3 is "pink", want a color (red, green, blue, yellow, purple, orange, cyan, black)`,
		"a small red":                    `ends early, want a shape`,
		"a small red circle at top left": `word 6 is "top", want "the"`,
		"a small red circle near a small red cross":                  `word 5 is "near", want a relation`,
		"a small red circle above a large red circle":                `both objects are a red circle`,
		"a small red circle at the top left please":                  `word 9 is "please", want the end`,
		"a small red circle above a large red cross at the top left": `word 10 is "at", want the end`,
	} {
		_, err := ParseCaption(caption)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", caption, err, want)
		}
	}
}

func TestDrawRefusesWhatItCannotDraw(t *testing.T) {
	ok := Scene{Objects: []Object{{Small, Red, Circle}}}
	if _, err := ok.Draw(8, nil); err == nil || !strings.Contains(err.Error(), "16..1024") {
		t.Errorf("size 8: %v", err)
	}
	for _, s := range []Scene{
		{},
		{Objects: []Object{{Small, numColors, Circle}}},
		{Objects: []Object{{Small, Red, Circle}}, Relation: Above},
		{Objects: []Object{{Small, Red, Circle}, {Small, Red, Cross}}},
		{Objects: []Object{{Small, Red, Circle}, {Small, Red, Cross}}, Relation: Above, Position: Center},
		{Objects: []Object{{Small, Red, Circle}, {Large, Red, Circle}}, Relation: Above},
	} {
		if _, err := s.Draw(32, nil); err == nil {
			t.Errorf("%+v: drawn", s)
		}
	}
}
