package main

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/ir"
	"github.com/gouache-ml/gouache/models/dalle"
	"github.com/gouache-ml/gouache/models/nn"
	"github.com/gouache-ml/gouache/runtime/bench"
	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/tests/compiled"
)

// small is a system like peers, with one small transformer.
func small(t *testing.T) func(exec.Options) (*exec.System, error) {
	t.Helper()
	m, err := dalle.Build(dalle.Config{TextLen: 4, TextVocab: 32, GridW: 4, GridH: 4, ImageVocab: 16, Dim: 32, Heads: 2, Layers: 1, Kernel: 3, Batch: 1, SampleBatch: 2,
		Optimizer: nn.AdamW{Beta1: 0.9, Beta2: 0.96, Eps: 1e-8}})
	if err != nil {
		t.Fatal(err)
	}
	m.Name = "s"
	m.Funcs = slices.DeleteFunc(m.Funcs, func(f *ir.Func) bool { return !slices.Contains([]string{"train", "prefill", "decode"}, f.Name) })
	spec, err := compiled.Compile("small", m)
	if err != nil {
		t.Fatal(err)
	}
	return func(o exec.Options) (*exec.System, error) { return exec.Open(spec, o) }
}

func TestProgramsAreTimed(t *testing.T) {
	open := small(t)
	run := func(args string) (string, error) {
		var out bytes.Buffer
		err := bench.Run(strings.Fields(args), &out, io.Discard, open)
		return out.String(), err
	}
	const in = " -in text=32 -in image=16 -in lr=1e-4 -in update=1 -in clip=0"
	for _, args := range []string{"-program s.train -steps 3 -threads 1" + in, "-program s.train -steps 3 -threads 2 -kernels" + in, "-sample s -tokens 5 -steps 3 -in text=32", "-sample s -tokens 5 -steps 3", "-program s.decode -steps 3"} {
		out, err := run(args)
		if err != nil {
			t.Fatal(err)
		}
		var r bench.Result
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if r.Step.Median <= 0 || r.Step.Min > r.Step.Median || r.Step.Max < r.Step.Median || r.Step.N != 3 || r.GFLOP <= 0 || r.PeakMB <= 0 {
			t.Errorf("%s: %s", args, out)
		}
		if kernels := strings.Contains(args, "-kernels"); kernels != (len(r.Kernels) > 20) {
			t.Errorf("%s: %d kernels are timed", args, len(r.Kernels))
		}
	}
	out, err := run("-list")
	if want := "s.train\ns.prefill\ns.decode\n"; err != nil || out != want {
		t.Errorf("%v, list %q, want %q", err, out, want)
	}
	for _, c := range []struct{ args, want string }{
		{"", "-program"},
		{"-program s", "MODEL.PROGRAM"},
		{"-program s.fly", "train"},
		{"-program s.train", "-in update=NUMBER"},
		{"-program s.train -in update=1 -in text=1e9", "want at most"},
		{"-program s.decode -in pos=100000", "-in pos=100000: want 0 to"},
		{"-program s.decode -in pos=-1", "-in pos=-1: want 0 to"},
		{"-sample s -in text=1e9", "want at most"},
		{"-program s.train -in text=32 -in image=16 -in update=1 -in hat=1", `"hat"`},
		{"-program s.train -in text", "NAME=NUMBER"},
		{"-sample s -tokens 1", "-tokens"},
		{"-program s.train -in text=32 -in image=16 -in update=1 -in lr=nan", "-in lr=1e-4"},
	} {
		if _, err := run(c.args); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want one line with %q", c.args, err, c.want)
		}
	}
}
