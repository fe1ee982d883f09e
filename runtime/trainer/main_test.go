package trainer

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
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

func TestSameSettingsGiveTheSameWeightsAndSamples(t *testing.T) {
	var weights, samples []string
	for range 2 {
		dir := t.TempDir()
		if code, _, stderr := trainer(t, append([]string{"train", "-out", dir}, short...)...); code != 0 {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		w, err := train.Inspect(dir, "prior")
		if err != nil {
			t.Fatal(err)
		}
		weights = append(weights, w.Weights)
		if code, _, stderr := trainer(t, "sample", "-out", dir, "-held-out", "3", "-n", "4", "-top-k=5", "-seed", "7"); code != 0 {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		text, err := os.ReadFile(filepath.Join(dir, "samples", "samples.json"))
		if err != nil {
			t.Fatal(err)
		}
		samples = append(samples, string(text))
	}
	if weights[0] != weights[1] || samples[0] != samples[1] {
		t.Errorf("two runs differ: weights %v, samples\n%s\n%s", weights, samples[0], samples[1])
	}
}

func TestMistakesAreOneLineWithAdvice(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	done := filepath.Join(dir, "done")
	if code, _, stderr := trainer(t, append([]string{"train", "dvae", "-out", done}, short...)...); code != 0 {
		t.Fatal(stderr)
	}
	bad := filepath.Join(dir, "bad.toml")
	if err := os.WriteFile(bad, []byte("seed = 1\n[dvae]\nlearning_rate = 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"fly"}, []string{"fly", "-help"}},
		{[]string{"train", "vae"}, []string{`"vae"`, "dvae, prior, clip"}},
		{[]string{"train", "-resum"}, []string{"--resum", "--resume"}},
		{[]string{"train", "dvae.lt=3"}, []string{"dvae.lt", `"dvae.lr"`}},
		{[]string{"train", "dvae.lr=much"}, []string{"a number", "much"}},
		{[]string{"train", "dvae.schedule=sine"}, []string{"dvae.schedule", "sine", "cosine"}},
		{[]string{"train", "-c", bad}, []string{"bad.toml:3", "learning_rate"}},
		{[]string{"train", "-c", "nowhere.toml"}, []string{"nowhere.toml", "existing"}},
		{append([]string{"train", "prior", "-out", dir + "/a"}, short...), []string{"dvae is not trained", "train dvae first"}},
		{append([]string{"train", "dvae", "-out", done}, short...), []string{"snapshot of step 30", "-resume"}},
		{append([]string{"train", "dvae", "-resume", "-out", done, "seed=5", "dvae.steps=40"}, short[:3]...), []string{"seed 1", "seed 5"}},
		{append(append([]string{"train", "dvae", "-out", dir + "/b"}, short...), "data.source="+empty), []string{empty, "no captioned pictures"}},
		{append(append([]string{"train", "dvae", "-out", dir + "/b"}, short...), "data.source=missing.tar"), []string{"missing.tar", "no file matches"}},
		{append([]string{"train", "dvae", "-out", file}, short...), []string{file, "is a file", "folder"}},
		{[]string{"sample", "-out", done}, []string{"nothing to draw", "-caption"}},
		{[]string{"sample", "-out", done, "-caption", "a dog"}, []string{"prior is not trained", "train prior first"}},
		{[]string{"sample", "-out", done, "-caption", "a dog", "-temperature", "-1"}, []string{"temperature"}},
		{[]string{"sample", "-out", done, "-caption", "a dog", "-top-p", "2"}, []string{"sample.top_p is 2"}},
		{[]string{"eval", "-out", dir + "/c", "data.source=shapes", "data.pictures=3"}, []string{"nothing is trained"}},
		{[]string{"sample", "dog"}, []string{`"dog"`, "key=value"}},
	} {
		code, _, stderr := trainer(t, c.args...)
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		last := lines[len(lines)-1]
		if code == 0 || !strings.HasPrefix(last, "trainer: ") {
			t.Errorf("%v: exit %d, %s", c.args, code, stderr)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(last, w) {
				t.Errorf("%v: error %q doesn't say %q", c.args, last, w)
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(done, "config.toml"))
	if err != nil || !strings.Contains(string(text), "seed = 1\n") {
		t.Errorf("a refused run changed the settings of the folder: %v\n%s", err, text)
	}
}

func TestSnapshotsOfOtherModelsAreRefused(t *testing.T) {
	dir := t.TempDir()
	if code, _, stderr := trainer(t, append([]string{"train", "-out", dir}, short...)...); code != 0 {
		t.Fatal(stderr)
	}
	other := toy.New()
	other.Kernel = "2"
	code, _, stderr := trainerOf(t, other, "sample", "-out", dir, "-caption", "a small red circle")
	if code == 0 || !strings.Contains(stderr, "toy-dvae") {
		t.Errorf("exit %d: %s", code, stderr)
	}

	// A prior goes with the dVAE that encoded its pictures.
	if err := os.RemoveAll(filepath.Join(dir, "dvae")); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := trainer(t, "train", "dvae", "-out", dir, "dvae.lr=0.2"); code != 0 {
		t.Fatal(stderr)
	}
	for _, args := range [][]string{{"sample", "-caption", "a small red circle"}, {"train", "prior", "-resume", "prior.steps=50"}} {
		code, _, stderr := trainer(t, append(args, "-out", dir)...)
		if code == 0 || !strings.Contains(stderr, "was trained with another dvae") {
			t.Errorf("%v: exit %d: %s", args, code, stderr)
		}
	}
}

func TestFlagsAndPromptDecideWhatIsDrawn(t *testing.T) {
	dir := t.TempDir()
	if code, _, stderr := trainer(t, append([]string{"train", "-out", dir}, short...)...); code != 0 {
		t.Fatal(stderr)
	}
	draw := func(to string, args ...string) []savedSample {
		t.Helper()
		to = filepath.Join(dir, to)
		args = append([]string{"sample", "-out", dir, "-to", to, "-caption", "a large blue square, please", "-n", "5"}, args...)
		if code, _, stderr := trainer(t, args...); code != 0 {
			t.Fatal(stderr)
		}
		text, err := os.ReadFile(filepath.Join(to, "samples.json"))
		if err != nil {
			t.Fatal(err)
		}
		var s struct{ Samples []savedSample }
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatal(err)
		}
		return s.Samples
	}
	first := draw("first")
	if len(first) != 4 || first[0].Caption != "a large blue square, please" {
		t.Fatalf("%d samples: %+v", len(first), first)
	}
	flags := draw("flags", "-temperature", "0.3", "-top-k", "2", "-seed", "9")
	settings := draw("settings", "sample.temperature=0.3", "sample.top_k=2", "seed=9")
	if !reflect.DeepEqual(flags, settings) || reflect.DeepEqual(flags, first) {
		t.Errorf("drawn with flags %v, with the same as settings %v, with neither %v", flags, settings, first)
	}
	// The toy encodes what it decodes to one code at least.
	again := draw("again", "-prompt", filepath.Join(dir, "first", first[0].File), "-prompt-rows", "2")
	for _, s := range again[1:] {
		for i := range 2 * toy.Grid {
			if s.Tokens[i] != again[0].Tokens[i] {
				t.Errorf("candidate %d: token %d is %d, given was %d", s.Number, i, s.Tokens[i], again[0].Tokens[i])
			}
		}
	}
}

func TestInfoShowsModelsAndSettings(t *testing.T) {
	code, stdout, stderr := trainer(t, "info", "-out", t.TempDir(), "data.source=shapes", "data.pictures=3")
	if code != 0 {
		t.Fatal(stderr)
	}
	for _, want := range []string{"4x4 tokens of 27 codes", "12 text tokens of 300", "not trained", "takes  images f32[6,16,16,3]", "pictures = 3"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("info doesn't say %q:\n%s", want, stdout)
		}
	}
}

func TestOneDashOrTwo(t *testing.T) {
	got := strings.Join(twoDashes([]string{"train", "-resume", "--out", "x", "-c", "f", "-n=4", "-top-k=3", "-1", "a=-b", "--", "-x"}), " ")
	if want := "train --resume --out x -c f -n 4 --top-k=3 -1 a=-b -- -x"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEveryRecipeIsValid(t *testing.T) {
	for _, name := range []string{"demo", "emoji", "paper", "yours"} {
		c := Recipe(name)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
