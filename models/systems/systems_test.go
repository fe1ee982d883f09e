package systems

import (
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/dvae"
	"github.com/gouache-ml/gouache/ops/mask"
)

func TestEverySystemBuilds(t *testing.T) {
	for _, name := range []string{"demo", "emoji", "paper"} {
		s, err := Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		modules, err := s.Build()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, m := range modules {
			names = append(names, m.Name)
		}
		if got := strings.Join(names, " "); got != "dvae prior clip" {
			t.Errorf("%s has the modules %s", name, got)
		}
	}
}

func TestPaperDVAEHasTheReleasedParameterCount(t *testing.T) {
	m, err := dvae.Build(Paper.DVAE)
	if err != nil {
		t.Fatal(err)
	}
	for prefix, want := range map[string]int{"enc.": 53_786_240, "dec.": 43_829_766, "": 97_616_006} {
		if got := Params(m, prefix); got != want {
			t.Errorf("parameters in %q: %d, want %d", prefix, got, want)
		}
	}
}

func TestPaperPriorHasTwelveBillionParameters(t *testing.T) {
	m, err := dalle.Build(Paper.Prior)
	if err != nil {
		t.Fatal(err)
	}
	d := 3968
	layers := 64 * (12*d*d + 13*d) // matrices; biases, gains
	rest := (16384+256+1+8192)*d + (257+32+32)*d + 2*d + d*(16384+256+8192)
	if got := Params(m, ""); got != layers+rest {
		t.Errorf("parameters: %d, want %d", got, layers+rest)
	}
	if got := Params(m, "layer"); got < 12.09e9 || got > 12.11e9 {
		t.Errorf("parameters in layers: %d, want about 12.1e9", got)
	}
}

func TestPaperPriorMaskOrder(t *testing.T) {
	c := Paper.Prior
	count := map[mask.Kind]int{}
	for i, k := range mask.Order(c.Layers) {
		count[k]++
		m := c.Mask(i)
		q := c.TextLen + 1 + 20*32 + 10 // image token of row 20, column 10
		n := 0
		for j := c.TextLen + 1; j < c.Stream(); j++ {
			if m.Allowed(q, j) {
				n++
			}
		}
		want := map[mask.Kind]int{mask.RowKind: 33, mask.ColumnKind: 21, mask.ConvKind: 61}[k]
		if n != want {
			t.Errorf("layer %d (%s): token (20,10) sees %d image tokens, want %d", i, k, n, want)
		}
	}
	if count[mask.RowKind] != 47 || count[mask.ColumnKind] != 16 || count[mask.ConvKind] != 1 {
		t.Errorf("layers by mask: %v, want 47 row, 16 column, 1 conv", count)
	}
}

func TestSizesThatDoNotFitAreRefused(t *testing.T) {
	for want, change := range map[string]func(*Sizes){
		"tokens":          func(s *Sizes) { s.Prior.GridW = 4 },
		"codes":           func(s *Sizes) { s.Prior.ImageVocab = 5 },
		"wide":            func(s *Sizes) { s.CLIP.ImageSize = 64 },
		"tokenizer":       func(s *Sizes) { s.CLIP.TextVocab = 7 },
		"is even":         func(s *Sizes) { s.DVAE.Stem = 4 },
		"don't divide":    func(s *Sizes) { s.Prior.Heads = 7 },
		"divide an image": func(s *Sizes) { s.CLIP.Patch = 5 },
	} {
		s := Demo
		change(&s)
		if _, err := s.Build(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
}

func TestMatricesAloneDecay(t *testing.T) {
	modules, err := Demo.Build()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		for _, g := range m.Globals {
			if g.Role != ir.Param {
				continue
			}
			last := g.Name[strings.LastIndexByte(g.Name, '.')+1:]
			want := last == "w" || last == "token" || last == "projection"
			if g.Decay != want {
				t.Errorf("%s @%s %s: decay %v", m.Name, g.Name, g.Type, g.Decay)
			}
		}
	}
}

func TestUnknownSystemNamesTheKnownOnes(t *testing.T) {
	if _, err := Lookup("nope"); err == nil || !strings.Contains(err.Error(), "demo, emoji, gpupeers, paper, peers") {
		t.Errorf("error %v", err)
	}
}

func TestPeersHaveTheProgramsThatAreTimed(t *testing.T) {
	s, err := Lookup("peers")
	if err != nil {
		t.Fatal(err)
	}
	modules, err := s.Build()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range modules {
		for _, f := range m.Funcs {
			got = append(got, m.Name+"."+f.Name)
		}
	}
	want := []string{"s.train", "s.prefill", "s.decode", "s8.prefill", "s8.decode", "t.train", "t.prefill", "t.decode", "t8.prefill", "t8.decode", "half.prefill", "half.decode", "half8.prefill", "half8.decode", "lean.train", "dvae.train", "gpt2.train"}
	if len(got) < len(want) || strings.Join(got[:len(want)], " ") != strings.Join(want, " ") {
		t.Errorf("programs %v, want first %v", got, want)
	}
	if want := len(want) + 2*3 + 3*len(PeerGEMM); len(got) != want {
		t.Errorf("%d programs, want %d: each mask's attention twice, each product three times", len(got), want)
	}
}
