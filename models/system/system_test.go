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
		Moment ir.DType
	}
	type sizes struct {
		Prior  part
		Preset string
	}
	own := sizes{Prior: part{Layers: 3}}
	var got sizes
	s := Sized(System{Name: "sized"}, own, func(s sizes) ([]*ir.Module, error) { got = s; return nil, nil })
	for _, c := range []struct {
		set  string
		want sizes
		err  string
	}{
		{"prior.layers=5 PRIOR.rate=1e-3 prior.moment=f16 preset=bf16", sizes{part{5, 1e-3, ir.F16}, "bf16"}, ""},
		{"prior.layers=5 prior.layers=6", sizes{Prior: part{Layers: 6}}, ""},
		{"", own, ""}, // what was set before is gone
		{"prior.layers", own, `-set: override "prior.layers": want key=value`},
		{"prior.layer=5", own, `unknown key "prior.layer"; did you mean "Prior.Layers"?`},
		{"prior.layers=many", own, `want a whole number, got many`},
	} {
		got = own
		_, err := Choices{Set: strings.Fields(c.set)}.Build(s)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %+v, %v, want %+v, %q", c.set, got, err, c.want, c.err)
		}
	}
	if _, err := (Choices{Set: []string{"a=1"}}).Build(System{Name: "plain"}); err == nil || !strings.Contains(err.Error(), `system "plain"`) {
		t.Errorf("a system without sizes: %v", err)
	}
}

func TestBudgetsAreForAllOrByModel(t *testing.T) {
	for _, c := range []struct {
		budget string
		want   [3]int // of prior, clip and one that recomputes
		err    string
	}{
		{"", [3]int{7, 0, 0}, ""},
		{"1KiB", [3]int{}, "give -remat auto in place of blocks"},
		{"prior=1KiB", [3]int{1024, 0, 0}, ""},
		{"prior=1KiB,clip=2KiB", [3]int{1024, 2048, 0}, ""},
		{"other=1KiB", [3]int{}, `-budget: there is no model "other"; one of prior, clip, deep`},
		{"prior=much", [3]int{}, `unknown budget "much"`},
		{"deep=1KiB", [3]int{}, "deep: a budget chooses by itself"},
	} {
		ms := []*ir.Module{{Name: "prior", Budget: 7}, {Name: "clip"}, {Name: "deep", Remat: ir.RematBlocks}}
		err := SetBudget(ms, c.budget)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: %v, want %q", c.budget, err, c.err)
		}
		if got := [3]int{ms[0].Budget, ms[1].Budget, ms[2].Budget}; err == nil && got != c.want {
			t.Errorf("%q: %v, want %v", c.budget, got, c.want)
		}
	}
}
