package exec

import (
	"bytes"
	"testing"
)

func TestZeroClearsWhatIsNotClear(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 10_000} {
		b := make([]byte, n+1)
		for i := 0; i < n; i += 3 {
			b[i] = byte(i) | 1
		}
		b[n] = 7
		zero(b[:n])
		if !bytes.Equal(b[:n], make([]byte, n)) || b[n] != 7 {
			t.Errorf("%d bytes: not clear, or more than they", n)
		}
	}
}

// Constants wait for a program that reads them, or for somebody who looks.
func TestConstantsWait(t *testing.T) {
	spec, fakes := testSpec()
	const table = 5
	g := spec.Models[0].Globals[table]
	spec.Models[0].Programs[1].Launches = []Launch{{Values: "%t = look", Args: []Addr{State + Addr(g.Offset)}}}
	open := func() *Model {
		s, err := open(spec, Options{Threads: 1}, fakes)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		m, err := s.Model("prior")
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	want := spec.Models[0].Consts
	there := func(m *Model) bool { return bytes.Equal(m.state.Bytes(g.Offset, len(want)), want) }
	program := func(name string) func(m *Model) error {
		return func(m *Model) error { _, err := m.Program(name); return err }
	}
	for _, c := range []struct {
		name  string
		do    func(m *Model) error
		there bool
	}{
		{"nothing", func(*Model) error { return nil }, false},
		{"another program", program("forward"), false},
		{"Init", func(m *Model) error { return m.Init(1) }, false},
		{"its program", program("other"), true},
		{"I32", func(m *Model) error { _, err := m.I32("table"); return err }, true},
		{"Globals", func(m *Model) error { m.Globals(); return nil }, true},
		{"Select", func(m *Model) error { m.Select(func(g *Global) bool { return g.Name == "table" }); return nil }, true},
		{"Select of others", func(m *Model) error { m.Select(func(g *Global) bool { return g.Name != "table" }); return nil }, false},
		{"its program, then Init", func(m *Model) error {
			if err := program("other")(m); err != nil {
				return err
			}
			return m.Init(1)
		}, true},
	} {
		m := open()
		if err := c.do(m); err != nil {
			t.Fatal(err)
		}
		if there(m) != c.there {
			t.Errorf("%s: contents are there: %v, want %v", c.name, there(m), c.there)
		}
	}
}
