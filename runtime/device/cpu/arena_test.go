package cpu

import "testing"

func TestArenaIsZeroedAndAligned(t *testing.T) {
	a, err := NewArena(3<<20 + 5)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if a.Size() != 3<<20+5 {
		t.Errorf("size is %d", a.Size())
	}
	if a.Addr(0)%Align != 0 {
		t.Errorf("address %#x is not aligned to %d", a.Addr(0), Align)
	}
	for i, x := range a.Bytes(0, 3<<20+5) {
		if x != 0 {
			t.Fatalf("byte %d is %d", i, x)
		}
	}
}

func TestArenaViewsShareMemory(t *testing.T) {
	a, err := NewArena(4096)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	a.F32(64, 4)[1] = 1
	if got := a.I32(68, 1)[0]; got != 0x3f800000 {
		t.Errorf("bits of 1.0 are %#x", got)
	}
	if got := a.U16(70, 1)[0]; got != 0x3f80 {
		t.Errorf("upper half of 1.0 is %#x", got)
	}
	a.I64(128, 1)[0] = -2
	if got := a.I32(132, 1)[0]; got != -1 {
		t.Errorf("upper half of -2 is %d", got)
	}
}

func TestArenaViewsStayInside(t *testing.T) {
	a, err := NewArena(256)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if n := len(a.F32(256, 0)); n != 0 {
		t.Errorf("empty view at the end has %d elements", n)
	}
	for name, f := range map[string]func(){
		"past the end":    func() { a.F32(0, 65) },
		"start outside":   func() { a.F32(260, 0) },
		"negative offset": func() { a.F32(-4, 1) },
		"negative count":  func() { a.F32(0, -1) },
		"overflow":        func() { a.F32(4, 1<<62) },
		"misaligned":      func() { a.F32(2, 1) },
		"address":         func() { a.Addr(257) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
	if _, err := NewArena(-1); err == nil {
		t.Error("an arena of -1 bytes was made")
	}
}
