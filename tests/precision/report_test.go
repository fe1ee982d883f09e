package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A study of two ways with made-up logs.
func TestReportOfWhatTrainingWroteDown(t *testing.T) {
	out := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(out, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("fp32-1/prior/metrics.jsonl", `{"step":10,"loss":5,"skipped":0,"seconds":1}
{"step":100,"loss":2,"validation_loss":2}
{"step":100,"loss":2,"skipped":0,"seconds":10}
`)
	// 100 numbers: 10 zeros, 20 that f16 would make zero, 30 with fewer bits, 40 whole.
	write("fp32-1/prior/exponents.jsonl", `{"step":100,"block":"attn0","dtype":"f32","zero":10,"first":-26,"counts":[20,0,30,0,0,0,0,0,0,0,0,0,40]}
{"step":100,"block":"unembed","dtype":"f32","zero":1000,"counts":[]}
`)
	write("resblock-1/prior/metrics.jsonl", `{"step":100,"validation_loss":2.5}
{"step":100,"loss":3,"skipped":4,"seconds":20,"grad_scale/attn0":12.5,"grad_scale/mlp0":14}
`)
	write("resblock-1/prior/exponents.jsonl", `{"step":100,"block":"mlp0","dtype":"f16","zero":0,"first":-3,"counts":[100]}
{"step":100,"block":"attn0","dtype":"f16","zero":50,"first":-15,"counts":[50]}
{"step":100,"block":"attn0","dtype":"f32","zero":7,"counts":[]}
`)
	s, err := parse([]string{"-out", out, "-run", "fp32,resblock"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := s.report(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| fp32 | everything in 32 bits | 2.0000 | 2.0000 | +0.00% | 2.0000 | 0 | 0.100 |",
		"| 3.0000 | 2.5000 | +25.00% | 2.5000 | 4 | 0.200 |",
		"| fp32 | 100 | f32; counted as f16 would keep them | 30.00% | 30.0% | 30.0% (attn0) | -24, -24 |",
		"| resblock | 100 | f16 | 25.00% | 25.0% | 50.0% (attn0) | -15, -3 |",
		"| resblock | 2^12.5 (attn0) | 2^14.0 | 2^14.0 (mlp0) |",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
	if n := strings.Count(b.String(), "| fp32 | 100 |"); n != 1 {
		t.Errorf("the one step with histograms stands there %d times", n)
	}
	page, err := os.ReadFile(filepath.Join(out, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(page), "<svg"); n != 4 { // losses, scales, two maps
		t.Errorf("%d pictures, want 4", n)
	}
}

func TestStudyRefusesWhatItDoesNotKnow(t *testing.T) {
	for args, want := range map[string]string{
		"-run nope":   `-run: no way "nope"; one of fp32,`,
		"-seeds 1,x":  `-seeds: "x" is no`,
		"prior":       `argument "prior": want key=value`,
		"-steps 3":    "flag provided but not defined: -steps; see -help",
		"-run fp32,,": `-run: no way ""`,
	} {
		if _, err := parse(strings.Fields(args), io.Discard); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}
