package simt_test

import (
	"regexp"
	"strings"
	"testing"
)

// A line that synchronises, and what makes it not do so.
var mutations = []struct {
	line *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`^\s*(bar\.sync|cp\.async\.(wait|commit)|mbarrier\.arrive|wgmma\.(fence|commit|wait)|fence\.).*$`), ""},
	{regexp.MustCompile(`^\s*@P (bra D_\d+;)$`), "$1"}, // waits at an mbarrier loop
}

// Without any one of their synchronising instructions, the kernels must not pass; but
// for two waits behind the last loops, when no copy is under way.
func TestMutations(t *testing.T) {
	for _, x := range []struct {
		name string
		run  func(ptx string, seed int64) error
	}{
		{"gemm64", func(p string, seed int64) error { _, err := runGemm(p, seed, 64, 64, 256, true); return err }},
		{"attn_causal", runAttn},
		{"hopper128", func(p string, seed int64) error {
			_, err := runHopper(p, "hopper128", seed, 128, false, 128, 128, 640)
			return err
		}},
		{"fa3", func(p string, seed int64) error { return runFA3(p, seed, 512) }},
	} {
		lines := strings.Split(text(t, x.name), "\n")
		total, caught := 0, 0
		for i, l := range lines {
			for _, m := range mutations {
				if !m.line.MatchString(l) {
					continue
				}
				lines[i] = m.line.ReplaceAllString(l, m.with)
				var err error
				for seed := int64(1); seed < 5 && err == nil; seed++ {
					err = x.run(strings.Join(lines, "\n"), seed)
				}
				lines[i] = l
				total++
				if err != nil {
					caught++
					if testing.Verbose() {
						t.Logf("%s without %s: %.160v", x.name, strings.TrimSpace(l), err)
					}
				} else if strings.TrimSpace(l) != "cp.async.wait_group 0;" {
					t.Errorf("%s:%d: not noticed without %s", x.name, i+1, strings.TrimSpace(l))
				}
			}
		}
		if caught < total-1 {
			t.Errorf("%s: %d of %d noticed", x.name, caught, total)
		}
		t.Logf("%s: %d of %d noticed", x.name, caught, total)
	}
}
