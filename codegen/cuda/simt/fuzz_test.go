package simt_test

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/codegen/cuda/simt"
)

var anyToken = regexp.MustCompile(`[%\w.:]+|\S`)

// Damaged text is refused, or faults, or runs: nothing panics.
func TestDamagedText(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var all []string
	for _, s := range scalars {
		all = append(all, s.text)
	}
	whole := strings.Split(kernel(loadOperands+strings.Join(all, "\n")+element+own+"bar.sync 0; st.shared.b32 [%r10], %r1; cp.async.ca.shared.global [%r10], [%rd3], 4; cp.async.wait_all;"), "\n")
	parse(t, strings.Join(whole, "\n"))
	parsed := 0
	for range 400 {
		lines := append([]string(nil), whole...)
		for range 1 + r.IntN(2) {
			i := r.IntN(len(lines))
			ts := anyToken.FindAllString(lines[i], -1)
			if len(ts) == 0 {
				continue
			}
			j := r.IntN(len(ts))
			switch r.IntN(4) {
			case 0:
				ts = append(ts[:j], ts[j+1:]...)
			case 1:
				ts[j] = ts[r.IntN(len(ts))]
			case 2:
				other := anyToken.FindAllString(whole[r.IntN(len(whole))], -1)
				if len(other) > 0 {
					ts[j] = other[r.IntN(len(other))]
				}
			default:
				ts[j] = ts[j][:r.IntN(len(ts[j]))]
			}
			lines[i] = strings.Join(ts, " ")
		}
		m, err := simt.Parse(strings.Join(lines, "\n"))
		if err != nil {
			continue
		}
		parsed++
		mach := simt.NewMachine(simt.Options{Check: true, Steps: 1 << 14, Count: true})
		b := mach.Alloc("b", 1<<18)
		b.Init()
		for _, e := range m.Entries() {
			mach.Launch(m, simt.Launch{Entry: e, Grid: [3]int{1, 1, 1}, Block: [3]int{64, 1, 1}, Shared: 1024, Params: []any{b.Addr(), b.Addr()}})
		}
	}
	if parsed == 0 {
		t.Error("no damaged text is valid")
	}
	// Pieces of Hopper's kernels.
	for _, name := range []string{"hopper128", "gemm64"} {
		ptx := text(t, name)
		for range 60 {
			a := r.IntN(len(ptx))
			simt.Parse(ptx[:a] + ptx[min(len(ptx), a+r.IntN(30)):])
		}
	}
}
