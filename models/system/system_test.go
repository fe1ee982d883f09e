package system

import (
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/ir"
)

func TestNamesAreRegisteredOnce(t *testing.T) {
	build := func() ([]*ir.Module, error) { return nil, nil }
	if err := Register(System{Name: "mine", Build: build}); err != nil {
		t.Fatal(err)
	}
	if s, err := Lookup("mine"); err != nil || s.Name != "mine" {
		t.Errorf("found %q, %v", s.Name, err)
	}
	if err := Register(System{Name: "mine", Build: build}); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("second registration: %v", err)
	}
	if err := Register(System{Name: "empty"}); err == nil {
		t.Error("a system without Build is registered")
	}
	for _, name := range []string{"mine", "empty"} {
		if _, err := Lookup(name); err == nil || !strings.Contains(err.Error(), "system \""+name) {
			t.Errorf("%s: an init function that ignores the error hides it: %v", name, err)
		}
	}
	if _, err := Lookup("other"); err == nil || !strings.Contains(err.Error(), "mine") {
		t.Errorf("unknown name: %v", err)
	}
}

func TestSizesAreSetByName(t *testing.T) {
	type part struct {
		Layers int
		Rate   float64
		Wide   bool
		name   string
	}
	type sizes struct {
		Prior  part
		Preset string
		List   []int
	}
	var got sizes
	s := Sized(System{Name: "sized"}, sizes{Prior: part{Layers: 3}}, func(s sizes) ([]*ir.Module, error) { got = s; return nil, nil })
	for _, c := range []struct {
		set  string // with semicolons between settings
		want sizes
		err  string
	}{
		{"", sizes{Prior: part{Layers: 3}}, ""},
		{"prior.layers=5;PRIOR.rate=1e-3;prior.wide=true;preset=bf16", sizes{Prior: part{Layers: 5, Rate: 1e-3, Wide: true}, Preset: "bf16"}, ""},
		{"prior.layers=5;prior.layers=6", sizes{Prior: part{Layers: 6}}, ""},
		{"prior.layers", sizes{}, "-set prior.layers: want KEY=VALUE"},
		{"prior.depth=5", sizes{}, `there is no "depth"; one of layers, rate, wide`},
		{"prior.name=x", sizes{}, `there is no "name"`},
		{"prior=5", sizes{}, "it has sizes of its own: layers, rate, wide"},
		{"preset.x=5", sizes{}, "there is nothing below it; leave out .x"},
		{"prior.layers=many", sizes{}, `"many" is no int`},
		{"list=1", sizes{}, "a []int can't be given as text"},
	} {
		var settings []string
		if c.set != "" {
			settings = strings.Split(c.set, ";")
		}
		_, err := Choices{Set: settings}.Build(s)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || !strings.HasPrefix(err.Error(), "-set ") {
				t.Errorf("%q: %v, want %q", c.set, err, c.err)
			}
			continue
		}
		if err != nil || got.Prior != c.want.Prior || got.Preset != c.want.Preset {
			t.Errorf("%q: %+v, %v, want %+v", c.set, got, err, c.want)
		}
	}
	if _, err := (Choices{Set: []string{"a=1"}}).Build(System{Name: "plain"}); err == nil || !strings.Contains(err.Error(), `system "plain"`) {
		t.Errorf("a system without sizes: %v", err)
	}
}
