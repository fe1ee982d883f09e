package train_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/feed/picture"
	"github.com/gouache-ml/gouache/runtime/metrics"
	"github.com/gouache-ml/gouache/runtime/snapshot"
	"github.com/gouache-ml/gouache/runtime/train"
	"github.com/gouache-ml/gouache/runtime/train/toy"
)

func options() train.Options {
	return train.Options{
		Steps: 40, LR: 0.1, LRMin: 0.01, Schedule: train.ScheduleCosine, WarmUp: 3, DecayOver: 1, PlateauWindow: 2,
		Clip: 4, AverageDecay: 0.9, AverageEvery: 3,
		ValidateEvery: 7, ValidateBatches: 2, MaxSkipped: 3,
	}
}

func configIn(dir string) *train.Config {
	return &train.Config{
		Seed: 3, Out: dir,
		Data:     train.DataConfig{Source: "shapes", HoldBack: 16, Pictures: 50, Views: 1},
		DVAE:     train.DVAEConfig{Options: options(), Beta: 1, BetaOver: 0.5, Tau: 0.1, TauOver: 0.5},
		Prior:    train.PriorConfig{Options: options(), Dropout: 0.3},
		CLIP:     train.CLIPConfig{Options: options(), Dropout: 0.3},
		Snapshot: train.SnapConfig{Every: 10},
		Log:      train.LogConfig{Every: 5},
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// trainModel runs one stage of the toy; stop, if it isn't nil, is called after each
// batch is filled in and may cancel.
func trainModel(t *testing.T, sys *toy.System, c *train.Config, name string, resume bool, stop func(step int64, cancel func())) error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m := must[train.Model](t)(sys.Model(name))
	defer m.Close()
	d := must[*train.Data](t)(train.OpenData(c, toy.Side))
	var s *train.Stage
	var err error
	switch name {
	case "dvae":
		s, err = train.DVAE(c, d, m, toy.Codes)
	case "prior":
		tok := must[*train.Tokenizer](t)(train.MakeTokenizer(c, d, toy.TextVocab, io.Discard))
		dvae := must[train.Model](t)(sys.Model("dvae"))
		training, held, e := train.Encode(ctx, c, d, dvae, "hash", 12, io.Discard)
		if e != nil {
			t.Fatal(e)
		}
		s, err = train.Prior(c, m, training, held, tok, "hash")
	case "clip":
		tok := must[*train.Tokenizer](t)(train.MakeTokenizer(c, d, toy.TextVocab, io.Discard))
		s, err = train.CLIP(c, d, m, tok)
	}
	if err != nil {
		t.Fatal(err)
	}
	if stop != nil {
		fill := s.Fill
		s.Fill = func(ctx context.Context, step int64) (float64, error) {
			units, err := fill(ctx, step)
			stop(step, cancel)
			return units, err
		}
	}
	return (&train.Loop{Model: m, Stage: s, Config: c, Text: "text", Resume: resume, Log: io.Discard}).Run(ctx)
}

func files(t *testing.T, dir string, step int64) string {
	t.Helper()
	var all []byte
	for _, f := range []string{"model.safetensors", "optimizer.safetensors"} {
		all = append(all, must[[]byte](t)(os.ReadFile(filepath.Join(dir, snapshot.StepDir(step), f)))...)
	}
	return string(all)
}

func TestInterruptedTrainingGivesTheSameBits(t *testing.T) {
	for _, name := range []string{"dvae", "prior", "clip"} {
		whole, broken := configIn(t.TempDir()), configIn(t.TempDir())
		if err := trainModel(t, toy.New(), whole, name, false, nil); err != nil {
			t.Fatal(err)
		}
		at := []int64{13, 27}
		for k := range 3 {
			err := trainModel(t, toy.New(), broken, name, k > 0, func(step int64, cancel func()) {
				if k < len(at) && step == at[k] {
					cancel()
				}
			})
			if k < len(at) && !errors.Is(err, train.ErrInterrupted) || k == len(at) && err != nil {
				t.Fatalf("%s: run %d: %v", name, k, err)
			}
			// The step in progress is finished.
			if k < len(at) {
				if got := must[*train.Trained](t)(train.Inspect(broken.Out, name)); got.Step != at[k]+1 {
					t.Errorf("%s: interrupted in step %d, snapshot of %d", name, at[k], got.Step)
				}
			}
		}
		for _, step := range []int64{20, 30, 40} {
			if files(t, filepath.Join(whole.Out, name), step) != files(t, filepath.Join(broken.Out, name), step) {
				t.Errorf("%s: step %d differs from that of a run without interruption", name, step)
			}
		}
		a := must[[]metrics.Record](t)(metrics.ReadLog(filepath.Join(whole.Out, name, "metrics.jsonl")))
		b := must[[]metrics.Record](t)(metrics.ReadLog(filepath.Join(broken.Out, name, "metrics.jsonl")))
		if len(a) != len(b) {
			t.Errorf("%s: %d records, %d after interruptions", name, len(a), len(b))
		}
	}
}

func TestTrainingLearns(t *testing.T) {
	for _, stage := range []struct {
		name, figure string
		below        float64
	}{
		{"dvae", "validation_reconstruction", 0.04},
		{"prior", "validation_loss", 0.6 * math.Log(toy.Codes)}, // of knowing nothing
		{"clip", "validation_loss", 0.5},
	} {
		name, figure := stage.name, stage.figure
		c := configIn(t.TempDir())
		if err := trainModel(t, toy.New(), c, name, false, nil); err != nil {
			t.Fatal(err)
		}
		v := metrics.SeriesOf(must[[]metrics.Record](t)(metrics.ReadLog(filepath.Join(c.Out, name, "metrics.jsonl"))), figure).Y
		if len(v) != 6 || !(v[5] < stage.below) {
			t.Errorf("%s: %s went %v, want %g at last", name, figure, v, stage.below)
		}
	}
}

func TestDivergedTrainingStopsWithStepAndModel(t *testing.T) {
	sys := toy.New()
	sys.Explode = 15
	c := configIn(t.TempDir())
	err := trainModel(t, sys, c, "dvae", false, nil)
	if err == nil {
		t.Fatal("training went on")
	}
	for _, want := range []string{"toy.dvae: step 18", "3 skipped updates in a row", "+Inf", "last snapshot is of step 10", "dvae.lr"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error doesn't say %q: %v", want, err)
		}
	}
}

func TestSamplingUsesAveragedWeights(t *testing.T) {
	sys, c := toy.New(), configIn(t.TempDir())
	if err := trainModel(t, sys, c, "dvae", false, nil); err != nil {
		t.Fatal(err)
	}
	m := must[train.Model](t)(sys.Model("dvae"))
	tr := must[*train.Trained](t)(train.Load(c.Out, "dvae", m))
	tensors, _, err := snapshot.ReadFile(filepath.Join(c.Out, "dvae", snapshot.StepDir(40), "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	if len(tensors) != 2 || tensors[0].Name != "palette" || tensors[1].Name != "palette.avg" {
		t.Fatalf("tensors of the snapshot: %v", tensors)
	}
	loaded := m.Select(func(g *exec.Global) bool { return g.Name == "palette" })[0].Data
	if !tr.Averaged || !bytes.Equal(loaded, tensors[1].Data) || bytes.Equal(loaded, tensors[0].Data) {
		t.Errorf("loaded weights aren't the averages")
	}
}

func TestCodesAreKeptForOneDVAE(t *testing.T) {
	sys, c := toy.New(), configIn(t.TempDir())
	d := must[*train.Data](t)(train.OpenData(c, toy.Side))
	m := must[train.Model](t)(sys.Model("dvae"))
	encode := func(dvae string) *train.Codes {
		t.Helper()
		training, held, err := train.Encode(context.Background(), c, d, m, dvae, 8, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		if training.Len() != 50 || held.Len() != 8 || len(training.Tokens) != 50*toy.Grid*toy.Grid {
			t.Fatalf("%d and %d pictures, %d tokens", training.Len(), held.Len(), len(training.Tokens))
		}
		return training
	}
	path := train.CodesPath(c.Out, "training")
	first := encode("a")
	written := must[os.FileInfo](t)(os.Stat(path))
	second := encode("a")
	if again := must[os.FileInfo](t)(os.Stat(path)); !os.SameFile(written, again) {
		t.Error("codes of the same dvae were made twice")
	}
	for i := range first.Len() {
		if first.Captions[i] != second.Captions[i] || first.Picture(i)[3] != second.Picture(i)[3] {
			t.Fatalf("picture %d reads back as %q %v", i, second.Captions[i], second.Picture(i))
		}
	}
	encode("b")
	if again := must[os.FileInfo](t)(os.Stat(path)); os.SameFile(written, again) {
		t.Error("codes of another dvae were taken over")
	}
	whole := must[[]byte](t)(os.ReadFile(path))
	flipped := slices.Clone(whole)
	flipped[len(flipped)-100] ^= 1
	for name, data := range map[string][]byte{"cut": whole[:1000], "changed": flipped} {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, _, err := train.Encode(context.Background(), c, d, m, "b", 8, io.Discard); err == nil || !strings.Contains(err.Error(), "remove the file") {
			t.Errorf("%s codes: %v", name, err)
		}
	}
}

// A picture whose header is right and whose pixels are cut off is only found when
// it is decoded.
func TestPicturesFoundUnusableInTrainingAreReported(t *testing.T) {
	dir := t.TempDir()
	for i := range 30 {
		name := filepath.Join(dir, string(rune('a'+i)))
		data := whiteSquare(t, 20)
		if i%2 == 0 {
			data = data[:len(data)-30]
		}
		if err := errors.Join(os.WriteFile(name+".png", data, 0o644), os.WriteFile(name+".txt", []byte("white"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	c := configIn(t.TempDir())
	c.Data.Source, c.DVAE.Steps, c.DVAE.ValidateEvery = dir, 4, 0
	m := must[train.Model](t)(toy.New().Model("dvae"))
	s := must[*train.Stage](t)(train.DVAE(c, must[*train.Data](t)(train.OpenData(c, toy.Side)), m, toy.Codes))
	var log strings.Builder
	if err := (&train.Loop{Model: m, Stage: s, Config: c, Log: &log}).Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`\d+ samples, \d+ skipped\n  \d+ with a picture that does not decode`).MatchString(log.String()) {
		t.Errorf("no report in\n%s", log.String())
	}
}

func TestHeldBackSamplesAreNotTrainedOn(t *testing.T) {
	dir := t.TempDir()
	png := whiteSquare(t, 20)
	for i := range 40 {
		name := filepath.Join(dir, string(rune('a'+i/10))+string(rune('0'+i%10)))
		if err := errors.Join(os.WriteFile(name+".png", png, 0o644), os.WriteFile(name+".txt", []byte("caption of "+filepath.Base(name)), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	c := configIn(t.TempDir())
	c.Data.Source = dir
	d := must[*train.Data](t)(train.OpenData(c, toy.Side))
	if d.Training.Len() != 36 || d.Validation.Len() != 4 {
		t.Fatalf("%d for training, %d held back", d.Training.Len(), d.Validation.Len())
	}
	seen := map[string]bool{}
	for i := range d.Training.Len() {
		seen[must[string](t)(d.Training.Caption(i))] = true
	}
	for i := range d.Validation.Len() {
		if s := must[string](t)(d.Validation.Caption(i)); seen[s] {
			t.Errorf("%q is in both parts", s)
		}
	}
	if len(seen) != 36 {
		t.Errorf("%d distinct captions of 36", len(seen))
	}
}

func TestUsageOfCodes(t *testing.T) {
	u := train.NewUsage(8)
	if u.Perplexity() != 0 {
		t.Errorf("perplexity of nothing is %g", u.Perplexity())
	}
	u.Add([]int32{0, 1, 2, 3, 0, 1, 2, 3, -1, 9})
	if math.Abs(u.Perplexity()-4) > 1e-12 || u.Used() != 4 {
		t.Errorf("four codes used alike: perplexity %g, %d used", u.Perplexity(), u.Used())
	}
}

// whiteSquare is the PNG of a white square.
func whiteSquare(t *testing.T, side int) []byte {
	t.Helper()
	var b bytes.Buffer
	white := picture.Square(bytes.Repeat([]byte{255}, side*side*3), side)
	if err := white.Encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestEveryViewOfAPictureIsEncoded(t *testing.T) {
	dir := t.TempDir()
	for i := range 30 {
		name := filepath.Join(dir, string(rune('a'+i)))
		if err := errors.Join(os.WriteFile(name+".png", whiteSquare(t, 20), 0o644), os.WriteFile(name+".txt", []byte(filepath.Base(name)), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	c := configIn(t.TempDir())
	c.Data.Source, c.Data.Pictures, c.Data.Views = dir, 10, 3
	d := must[*train.Data](t)(train.OpenData(c, toy.Side))
	codes, _, err := train.Encode(context.Background(), c, d, must[train.Model](t)(toy.New().Model("dvae")), "a", 2, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, s := range codes.Captions {
		count[s]++
	}
	if codes.Len() != 30 || len(count) != 10 {
		t.Errorf("%d encoded of %d pictures, want 3 views of 10", codes.Len(), len(count))
	}
}
