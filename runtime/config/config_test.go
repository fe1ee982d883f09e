package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

type optimizer struct {
	LR    float64   `toml:"lr" comment:"peak learning rate"`
	Betas []float64 `toml:"betas"`
}

type source struct {
	Path   string  `toml:"path"`
	Weight float64 `toml:"weight"`
}

type level int

func (l *level) UnmarshalText(text []byte) error {
	switch string(text) {
	case "low":
		*l = 1
	case "high":
		*l = 2
	default:
		return fmt.Errorf("%q is neither low nor high", text)
	}
	return nil
}

func (l level) MarshalText() ([]byte, error) { return []byte([]string{"", "low", "high"}[l]), nil }

type trainer struct {
	Steps     int                `toml:"steps"`
	Name      string             `toml:"name"`
	Resume    bool               `toml:"resume"`
	Bits      uint8              `toml:"bits"`
	Mesh      []int              `toml:"mesh"`
	Tags      []string           `toml:"tags"`
	Level     level              `toml:"level"`
	Scales    map[string]float64 `toml:"scales"`
	Optimizer optimizer          `toml:"optimizer"`
	Sources   []source           `toml:"sources"`
	hidden    int
}

func (t *trainer) Validate() error {
	if t.Steps <= 0 {
		return errors.New("steps: want at least 1, got " + fmt.Sprint(t.Steps))
	}
	return nil
}

func defaults() trainer {
	return trainer{Steps: 100, Name: "demo", Bits: 16, Level: 1, Mesh: []int{1, 2}, Tags: []string{},
		Scales: map[string]float64{"base": 1}, Optimizer: optimizer{1e-4, []float64{0.9, 0.95}}}
}

func write(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "train.toml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFileAndOverridesGoOverDefaults(t *testing.T) {
	path := write(t, "steps = 7\n[optimizer]\nlr = 1\n[[sources]]\npath = 'a.tar'\n")
	cfg := defaults()
	err := Load(&cfg, path, []string{"optimizer.lr=3e-4", "name=a b = c", "mesh=4,8", "tags=x,y z", "resume=true",
		"level=high", "scales.wide=2", "optimizer.betas=[0.5, 0.25]", "steps = 1_000"})
	if err != nil {
		t.Fatal(err)
	}
	want := trainer{Steps: 1000, Name: "a b = c", Resume: true, Bits: 16, Mesh: []int{4, 8}, Tags: []string{"x", "y z"}, Level: 2,
		Scales:    map[string]float64{"base": 1, "wide": 2},
		Optimizer: optimizer{3e-4, []float64{0.5, 0.25}}, Sources: []source{{Path: "a.tar"}}}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("%+v\nwant %+v", cfg, want)
	}
}

func TestFormatReadsBackTheSame(t *testing.T) {
	cfg := defaults()
	cfg.Name, cfg.Sources = "quo\"te\n", []source{{"a", 1}, {"b", 0.1}}
	text, err := Format(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "# peak learning rate\nlr = 0.0001") {
		t.Errorf("no comment in:\n%s", text)
	}
	var back trainer
	if err := Parse(&back, "x", text); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if !reflect.DeepEqual(back, cfg) {
		t.Errorf("%+v\nwant %+v", back, cfg)
	}
}

func TestFileErrorsSayWhereAndWhat(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"\nstep = 1\n", `2: unknown key "step"; did you mean "steps"?`},
		{"[optimiser]\nlr = 1\n", `1: unknown key "optimiser"; did you mean "optimizer"?`},
		{"optimiser.lr = 1\n", `1: unknown key "optimiser.lr"; did you mean "optimizer.lr"?`},
		{"lr = 1\n", `1: unknown key "lr"; did you mean "optimizer.lr"?`},
		{"[optimizer]\nlearning_rate = 1\n", `2: unknown key "optimizer.learning_rate"; the keys of optimizer are lr, betas`},
		{"zzzzzzzz = 1\n", `1: unknown key "zzzzzzzz"; the keys are steps, name, resume, bits, mesh, tags, level, scales, optimizer, sources`},
		{"stesp = 1\nnmae = 'x'\n", `1: unknown key "stesp"; did you mean "steps"? (and 1 more)`},
		{"[[sources]]\npth = 'x'\n", `2: unknown key "sources.pth"; did you mean "sources.path"?`},
		{"steps = 'many' # x\n", `1: steps: want a whole number, got 'many'`},
		{"steps = 1.5 # x\n", `1: steps: want a whole number, got 1.5`},
		{"name = 5\n", `1: name: want text in quotes, got 5`},
		{"resume = 1\n", `1: resume: want true or false, got 1`},
		{"bits = 300\n", `1: bits: want a whole number from 0 to 255, got 300`},
		{"bits = -1\n", `1: bits: want a whole number from 0 to 255, got -1`},
		{"optimizer = 3\n", `1: optimizer: want a table, got 3`},
		{"[steps]\na = 1\n", `1: steps: want a whole number, got a table`},
		{"[optimizer]\n\nbetas = [1, 'a']\n", `3: optimizer.betas: want a list, each a number, got [1, 'a']`},
		{"steps = 1\nsteps = 2\n", `2: key steps is already defined`},
		{"steps = = 3\n", `1: unexpected character U+003D '=' at start of value`},
		{"level = 'medium'\n", `1: level: "medium" is neither low nor high`},
	} {
		path := write(t, c.text)
		cfg := defaults()
		err := Load(&cfg, path, nil)
		if err == nil || err.Error() != path+":"+c.want {
			t.Errorf("%q:\n%v, want\n%s:%s", c.text, err, path, c.want)
		}
		if !reflect.DeepEqual(cfg, defaults()) {
			t.Errorf("%q: an error changed the configuration: %+v", c.text, cfg)
		}
	}
}

func TestOverrideErrorsSayWhichAndWhat(t *testing.T) {
	for _, c := range []struct{ override, want string }{
		{"optimiser.lr=1", `unknown key "optimiser.lr"; did you mean "optimizer.lr"?`},
		{"Lr=1", `unknown key "Lr"; did you mean "optimizer.lr"?`},
		{"steps", `want key=value`},
		{"=3", `want key=value`},
		{"steps=many", `steps: want a whole number, got many`},
		{"steps=1.5", `steps: want a whole number, got 1.5`},
		{"steps=", `want a whole number, got nothing`},
		{"steps=1\nname='x'", `want a whole number, got "1\nname='x'"`},
		{"resume=yes", `resume: want true or false, got yes`},
		{"bits=256", `bits: want a whole number from 0 to 255, got 256`},
		{"mesh=1,x", `mesh: want a list, each a whole number, got 1,x`},
		{"optimizer=1", `optimizer is a table; set one of its keys: lr, betas`},
		{"steps.x=1", `unknown key "steps.x"; did you mean "steps"?`},
		{"hidden=1", `unknown key "hidden"; the keys are steps, name, resume, bits, mesh, tags, level, scales, optimizer, sources`},
	} {
		cfg := defaults()
		err := Set(&cfg, c.override)
		if want := fmt.Sprintf("override %q: %s", c.override, c.want); err == nil || err.Error() != want {
			t.Errorf("%v, want\n%s", err, want)
		}
		if !reflect.DeepEqual(cfg, defaults()) {
			t.Errorf("%q: an error changed the configuration: %+v", c.override, cfg)
		}
	}
}

func TestValidateHasTheLastWord(t *testing.T) {
	cfg := defaults()
	if err := Load(&cfg, "", []string{"steps=0"}); err == nil || err.Error() != "configuration with overrides: steps: want at least 1, got 0" {
		t.Errorf("%v", err)
	}
}

func TestMissingFileIsNamed(t *testing.T) {
	cfg := defaults()
	err := Load(&cfg, "/nowhere/x.toml", nil)
	if err == nil || err.Error() != "/nowhere/x.toml: no such file or directory; give an existing TOML file" {
		t.Errorf("%v", err)
	}
}

func TestSharedDefaultListsAreNotOverwritten(t *testing.T) {
	shared := []int{1, 2}
	a, b := trainer{Mesh: shared}, trainer{Mesh: shared}
	if err := Set(&a, "mesh=7,8"); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b.Mesh, []int{1, 2}) {
		t.Errorf("setting one configuration changed another: %v", b.Mesh)
	}
}

func TestKeysAndDifferences(t *testing.T) {
	a, b := defaults(), defaults()
	b.Optimizer.LR, b.Name, b.Mesh = 3e-4, "x", []int{2, 2}
	want := []string{`name: "demo" -> "x"`, "mesh: [1 2] -> [2 2]", "optimizer.lr: 0.0001 -> 0.0003"}
	if got := Differences(a, b); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Keys(a); !slices.Contains(got, "optimizer.betas") || slices.Contains(got, "optimizer") || slices.Contains(got, "hidden") {
		t.Errorf("%q", got)
	}
}
