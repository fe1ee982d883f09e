package ptxas

import (
	"strings"
	"testing"
)

// What ptxas 12.4 printed.
const output = `ptxas info    : (C7514) Potential Performance Loss: wgmma.mma_async instructions are serialized due to non wgmma instructions reading accumulator registers of  a wgmma between start and end of the pipeline stage in the function 'tile'
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'tile' for 'sm_90a'
ptxas info    : Function properties for tile
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 30 registers
ptxas info    : Compiling entry function 'wide' for 'sm_90a'
ptxas info    : Function properties for wide
    48 bytes stack frame, 48 bytes spill stores, 52 bytes spill loads
ptxas info    : Used 64 registers, 1 barriers, 2048 bytes smem
ptxas info    : Compiling entry function 'local' for 'sm_90a'
ptxas info    : Function properties for local
    128 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers
ptxas info    : Compiling entry function 'good' for 'sm_90a'
ptxas info    : Function properties for good
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers
`

func TestParse(t *testing.T) {
	reports, err := parse(output)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		registers, stack, shared int
		problem                  string
	}{
		"tile":  {30, 0, 0, "tile: ptxas info    : (C7514) Potential Performance Loss: wgmma.mma_async instructions are serialized"},
		"wide":  {64, 48, 2048, "wide: spills 48 bytes and reads 52 of them back"},
		"local": {12, 128, 0, "local: has a stack frame of 128 bytes"},
		"good":  {255, 0, 0, ""},
	} {
		r := reports[name]
		if r == nil {
			t.Errorf("%s: no report", name)
			continue
		}
		if r.Entry != name || r.Registers != want.registers || r.Stack != want.stack || r.Shared != want.shared {
			t.Errorf("%s: %+v", name, *r)
		}
		if err := r.Check(); (err == nil) != (want.problem == "") || err != nil && !strings.HasPrefix(err.Error(), want.problem) {
			t.Errorf("%s: %v, want %q", name, err, want.problem)
		}
	}
	if len(reports) != 4 {
		t.Errorf("%d reports", len(reports))
	}
}

// An output that cannot be read is no good news.
func TestParseRejects(t *testing.T) {
	for _, out := range []string{"", "ptxas info    : Compiling entry function 'k' for 'sm_80'\n", "wgmma.mma_async instructions are serialized somewhere\n"} {
		if r, err := parse(out); err == nil {
			t.Errorf("%q gives %v", out, r)
		}
	}
}
