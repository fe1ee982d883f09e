package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/runtime/bench"
)

func TestGoalsAreComparedTheRightWayRound(t *testing.T) {
	for _, c := range []struct {
		ratio float64
		goal  string
		met   bool
	}{{0.6, "<=0.60", true}, {0.61, "<=0.60", false}, {1.05, ">=1.05", true}, {1.04, ">=1.05", false}, {7, "", true}} {
		if got := (Row{Ratio: c.ratio, Goal: c.goal}).met(); got != c.met {
			t.Errorf("%g %s: met %v", c.ratio, c.goal, got)
		}
	}
}

func TestTableHasEveryGoal(t *testing.T) {
	var fought []outcome
	for _, d := range duels("llmc", "gomlx") {
		o := outcome{name: d.name, ours: score{"ours", 1, 200, 500}}
		for i, p := range d.peers {
			o.peers = append(o.peers, score{p.name, float64(2 + i), 100, 2000})
		}
		fought = append(fought, o)
	}
	rows := table(fought, 400)
	goals := map[string]int{}
	for _, r := range rows {
		goals[r.Goal]++
		switch r.Name {
		case "S step, 2 threads":
			if r.Ratio != 0.5 || r.Against != "PyTorch smart fp32" || !r.met() {
				t.Errorf("%+v: want the fastest peer", r)
			}
		case "S step, FLOPs":
			if r.Ratio != 0.5 || r.met() {
				t.Errorf("%+v", r)
			}
		case "S step, peak memory":
			if r.Ratio != 0.25 || r.Unit != "MB" {
				t.Errorf("%+v", r)
			}
		}
		if strings.HasPrefix(r.Name, "GEMM, geometric") && math.Abs(r.Ratio-2) > 1e-9 {
			t.Errorf("%+v: want 2", r)
		}
	}
	want := map[string]int{"<=0.60": 3, "<=0.65": 2, ">=0.80": 1, "<=0.50": 2, "<=0.25": 4 + 3, "<=0.20": 3, ">=1.05": 1, ">=1.00": 1, ">=0.95": 1, "<=0.67": 1, "<=0.02": 1, "": 2 + 2 + 30}
	if fmt.Sprint(goals) != fmt.Sprint(want) {
		t.Errorf("goals %v, want %v", goals, want)
	}
}

// A layer packs its weights once for all uses, so packing does not count where they are the right operand.
func TestPackingCountsForWeightGradientsAlone(t *testing.T) {
	for what, want := range map[string]float64{"gemm.forward_8x8x8": 10, "gemm.input_8x8x8": 10, "gemm.weight_8x8x8": 5} {
		r := turn{Result: bench.Result{What: what, GFLOP: 10, Kernels: []bench.Kernel{{Times: bench.Times{Name: "pack_1", Median: 1}}, {Times: bench.Times{Name: "matmul_1", Median: 1}}}}}
		if got := r.rate(); got != want {
			t.Errorf("%s: %g GFLOP/s, want %g", what, got, want)
		}
	}
}

// script writes a program that counts its calls in log and prints a line.
func script(t *testing.T, dir, name, line string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	text := fmt.Sprintf("#!/bin/sh\necho %s \"$@\" >>%s/log\n[ \"$1\" = -c ] || echo '%s'\n", name, dir, line)
	if err := os.WriteFile(path, []byte(text), 0o777); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSidesTakeTurns(t *testing.T) {
	dir := t.TempDir()
	ours := script(t, dir, "ours", `{"what":"s.train","gflop":30,"gflops":300,"peak_rss_mb":800,"s_step":{"median":0.1,"min":0.1,"max":0.1,"n":5}}`)
	python := script(t, dir, "python", `{"what":"transformer","peak_rss_mb":1600,"s_step":{"median":0.2,"min":0.2,"max":0.2,"n":5}}`)
	kbench := script(t, dir, "kbench", `{"gflops":[200,400]}`)
	emoji := script(t, dir, "emoji", `{"what":"prior.train","s_ready":0.15,"s_step":{"median":5}}`)
	var out bytes.Buffer
	args := []string{"-ours", ours, "-python", python, "-kbench", kbench, "-out", dir, "-emoji", emoji, "-run", "^S step, 2|GPT-2|^emoji", "-rounds", "2", "-quiet", "0"}
	if err := run(context.Background(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "peers.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rows []Row
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		got = append(got, fmt.Sprintf("%s %g %g %.2f %s %s", r.Name, r.Ours, r.Peer, r.Ratio, r.Goal, r.Unit))
	}
	want := []string{"S step, 2 threads 0.1 0.2 0.50 <=0.60 s", "S step, FLOPs 300 400 0.75 >=0.80 GFLOP/s", "S step, peak memory 800 1600 0.50 <=0.50 MB", "GPT-2 step 0.1 0.2 0.50  s", "emoji, start to first step 0.15 0.3 0.50 <=1.00 s"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("rows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, want := range []string{"S step, 2 threads", "met", "missed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	var turns []string
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "gpt2") {
			turns = append(turns, strings.Fields(line)[0])
		}
	}
	if got := strings.Join(turns, " "); got != "ours python python ours" {
		t.Errorf("turns %s; want ours first in one round and last in the next", got)
	}
}

func TestSlowWaysAreStoppedAndNamed(t *testing.T) {
	dir := t.TempDir()
	ours := script(t, dir, "ours", `{"what":"s.train","gflop":30,"gflops":300,"peak_rss_mb":800,"s_step":{"median":0.1,"min":0.1,"max":0.1,"n":5}}`)
	python := filepath.Join(dir, "python")
	text := "#!/bin/sh\ncase \"$*\" in *bf16*) exec sleep 60;; esac\n" + `echo '{"what":"transformer","peak_rss_mb":1600,"s_step":{"median":0.2,"min":0.2,"max":0.2,"n":5}}'` + "\n"
	if err := os.WriteFile(python, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	args := []string{"-ours", ours, "-python", python, "-out", dir, "-run", "^T step, 2", "-rounds", "2", "-quiet", "0"}
	if err := run(context.Background(), args, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"T step, 2 threads: PyTorch smart bf16 was stopped after", "T step, 2 threads: PyTorch dense bf16 was stopped after"} {
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("want %q once in\n%s", want, &out)
		}
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	dir := t.TempDir()
	good := script(t, dir, "good", `{"s_step":{"median":1}}`)
	silent := script(t, dir, "silent", "")
	for _, c := range []struct{ args, want string }{
		{"-python /nowhere/python3", "apt-get install"},
		{"-python " + good + " -run ^nothing$", "no row matches"},
		{"-python " + good + " -run (", "-run"},
		{"-python " + good + " -rounds 0", "-rounds"},
		{"-python " + good + " -patience 0.5", "-patience"},
		{"-python " + good + " -run GPT -quiet 0 -ours " + silent, "printed no times"},
		{"-python " + good + " -run GPT -quiet 0 -ours /nowhere/peers", "/nowhere/peers"},
	} {
		err := run(context.Background(), append(strings.Fields(c.args), "-out", dir), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", c.args, err, c.want)
		}
	}
}
