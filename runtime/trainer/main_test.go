package trainer

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/train"
	"github.com/gouache-ml/gouache/runtime/train/toy"
)

// short are settings under which the toy trains in a moment.
var short = []string{
	"data.source=shapes", "data.pictures=100", "data.min_words=0",
	"dvae.steps=30", "dvae.warm_up=2", "dvae.lr=0.1", "dvae.validate_every=10", "dvae.validate_batches=2",
	"prior.steps=30", "prior.warm_up=2", "prior.lr=0.1", "prior.validate_every=10", "prior.validate_batches=2", "prior.average_every=2",
	"clip.steps=10", "clip.warm_up=2", "clip.lr=0.1", "clip.validate_every=5", "clip.validate_batches=2",
	"snapshot.every=10", "log.every=5", "sample.captions=10", "sample.candidates=3",
}

// trainer runs the command line with the toy and returns what it printed.
func trainer(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return trainerOf(t, toy.New(), args...)
}

func trainerOf(t *testing.T, sys train.System, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Run(context.Background(), args, &out, &err, func(exec.Options) (train.System, error) { return sys, nil })
	return code, out.String(), err.String()
}

func TestDemoTrainsSamplesAndReports(t *testing.T) {
	dir := t.TempDir()
	code, stdout, stderr := trainer(t, append([]string{"demo", "-out", dir}, short...)...)
	if code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	if !strings.Contains(stdout, "10 held-out captions") {
		t.Errorf("stdout: %s", stdout)
	}
	for _, f := range []string{"samples.png", "report.html", "metrics.jsonl", "summary.json", "tokenizer.json", "config.toml"} {
		if info, err := os.Stat(filepath.Join(dir, f)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "summary.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"judge_accuracy", "judge_accuracy_random", "captions", "seconds", "peak_bytes", "codebook_perplexity", "cpu", "commit"} {
		if s[key] == nil {
			t.Errorf("summary.json has no %s: %s", key, text)
		}
	}

	// What is done is not done again.
	before, err := train.Inspect(dir, "prior")
	if err != nil {
		t.Fatal(err)
	}
	code, _, stderr = trainer(t, "demo", "-out", dir)
	if code != 0 || strings.Count(stderr, "already") != 3 {
		t.Errorf("second demo: exit %d: %s", code, stderr)
	}
	after, err := train.Inspect(dir, "prior")
	if err != nil || after.Weights != before.Weights || after.Step != 30 {
		t.Errorf("second demo changed the prior: %v, %+v before %+v", err, after, before)
	}
}
