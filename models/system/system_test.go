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
