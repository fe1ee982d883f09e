package feed

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gouache-ml/gouache/runtime/feed/shapes"
)

func mustLoader(t *testing.T, src Source, opt LoaderOptions) *Loader {
	t.Helper()
	l, err := NewLoader(src, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func mustNext(t *testing.T, l *Loader) *Batch {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	b, err := l.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func same(a, b *Batch) bool {
	return a.Step == b.Step && slices.Equal(a.Pixels, b.Pixels) && slices.Equal(a.Captions, b.Captions) && slices.Equal(a.Names, b.Names)
}

func sources(t *testing.T) map[string]Source {
	t.Helper()
	drawn, err := Shapes(shapes.Source{Seed: 3, Size: 32})
	if err != nil {
		t.Fatal(err)
	}
	files, err := Open(emojiShard, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]Source{"shapes": drawn, "shard": files}
}

func optionsFor(name string) LoaderOptions {
	o := LoaderOptions{Side: 32, Batch: 3, Seed: 11}
	if name == "shard" {
		o.Augment = AugmentVAE(32)
	}
	return o
}

func TestBatchesDoNotDependOnWorkers(t *testing.T) {
	for name, src := range sources(t) {
		opt := optionsFor(name)
		plain := mustLoader(t, src, opt)
		for _, c := range []struct{ workers, ahead int }{{1, 1}, {3, 2}, {8, 5}} {
			opt.Workers, opt.Ahead = c.workers, c.ahead
			l := mustLoader(t, src, opt)
			for step := range uint64(7) {
				want, err := plain.At(step)
				if err != nil {
					t.Fatal(err)
				}
				if got := mustNext(t, l); !same(got, want) {
					t.Errorf("%s, %d workers: step %d differs", name, c.workers, step)
				}
			}
		}
	}
}

func TestStartAtResumesExactly(t *testing.T) {
	for name, src := range sources(t) {
		l := mustLoader(t, src, optionsFor(name))
		var all []*Batch
		for range 9 {
			all = append(all, mustNext(t, l))
		}
		l.StartAt(4)
		for step := 4; step < 7; step++ {
			if b := mustNext(t, l); !same(b, all[step]) {
				t.Errorf("%s: step %d differs after a jump back", name, step)
			}
		}
		l.Close() // and going on after a pause
		if b := mustNext(t, l); !same(b, all[7]) {
			t.Errorf("%s: step 7 differs after a pause, got step %d", name, b.Step)
		}
		fresh := mustLoader(t, src, optionsFor(name))
		fresh.StartAt(8)
		if b := mustNext(t, fresh); !same(b, all[8]) {
			t.Errorf("%s: step 8 differs in a new loader", name)
		}
	}
}

func TestEpochsSeeEverySampleOnceInNewOrder(t *testing.T) {
	src := sources(t)["shard"]
	opt := optionsFor("shard")
	opt.Batch = 8
	l := mustLoader(t, src, opt)
	if l.StepsPerEpoch() != 1 {
		t.Fatalf("%d steps an epoch, want 1", l.StepsPerEpoch())
	}
	a, b := mustNext(t, l), mustNext(t, l)
	for _, x := range []*Batch{a, b} {
		names := slices.Sorted(slices.Values(x.Captions))
		if want := slices.Sorted(slices.Values(emojiCaptions)); !slices.Equal(names, want) {
			t.Errorf("epoch %d has %q", x.Step, names)
		}
	}
	if slices.Equal(a.Captions, b.Captions) {
		t.Error("both epochs have the same order")
	}
	opt.Seed++
	if c := mustNext(t, mustLoader(t, src, opt)); slices.Equal(a.Captions, c.Captions) {
		t.Error("another seed gives the same order")
	}
	opt.InOrder = true
	if c := mustNext(t, mustLoader(t, src, opt)); !slices.Equal(c.Captions, emojiCaptions) {
		t.Errorf("in order: %q", c.Captions)
	}
	// The same picture is augmented differently in the next epoch.
	i, j := slices.Index(a.Captions, "taco"), slices.Index(b.Captions, "taco")
	if slices.Equal(a.Picture(i).Pixels, b.Picture(j).Pixels) {
		t.Error("the augmentation of a picture repeats")
	}
}

func TestRanksShareTheGlobalBatch(t *testing.T) {
	for name, src := range sources(t) {
		opt := optionsFor(name)
		opt.Batch = 6
		whole := mustNext(t, mustLoader(t, src, opt))
		opt.Batch, opt.Ranks = 2, 3
		var captions []string
		var pixels []uint8
		for opt.Rank = range 3 {
			b := mustNext(t, mustLoader(t, src, opt))
			captions = append(captions, b.Captions...)
			pixels = append(pixels, b.Pixels...)
		}
		if !slices.Equal(captions, whole.Captions) || !slices.Equal(pixels, whole.Pixels) {
			t.Errorf("%s: three ranks of 2 don't make the batch of 6", name)
		}
	}
}

func TestLoaderReplacesBadSamplesTheSameWayAnywhere(t *testing.T) {
	shard := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(shard, tarred(t, spoiled(t)), 0o666); err != nil {
		t.Fatal(err)
	}
	src, err := Open(shard, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	opt := LoaderOptions{Side: 32, Batch: 4, Seed: 1, Augment: Center(32), Workers: 4}
	l := mustLoader(t, src, opt)
	var all []*Batch
	for range 5 {
		b := mustNext(t, l)
		if slices.Contains(b.Captions, "cut in half") {
			t.Error("a picture that doesn't decode is used")
		}
		all = append(all, b)
	}
	late := mustLoader(t, src, opt)
	late.StartAt(3)
	if !same(mustNext(t, late), all[3]) {
		t.Error("step 3 differs when the bad sample wasn't met before")
	}
	r := l.Report()
	if r.Usable != 3 || r.Total() != 8 {
		t.Errorf("report is %v", r)
	}
}

func TestLoaderErrorsSayWhatToDo(t *testing.T) {
	srcs := sources(t)
	for want, c := range map[string]struct {
		src Source
		opt LoaderOptions
	}{
		"is 128x128, the model takes 32x32: set an augmentation": {srcs["shard"], LoaderOptions{Side: 32, Batch: 2}},
		"8 too small to crop":               {srcs["shard"], LoaderOptions{Side: 256, Batch: 2, Augment: AugmentVAE(256)}},
		"too small to crop, such as shapes": {srcs["shapes"], LoaderOptions{Side: 64, Batch: 2, Augment: AugmentVAE(64), Workers: 1, Ahead: 1}},
		"the model takes 64x64":             {srcs["shapes"], LoaderOptions{Side: 64, Batch: 2}},
	} {
		l := mustLoader(t, c.src, c.opt)
		for range 2 {
			_, err := l.Next(context.Background())
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v, want %q", err, want)
			}
		}
	}
	for want, opt := range map[string]LoaderOptions{
		"side is 0":               {Batch: 1},
		"batch is 0":              {Side: 32},
		"rank 2 is outside 0..1":  {Side: 32, Batch: 1, Rank: 2, Ranks: 2},
		"rank -1 is outside 0..0": {Side: 32, Batch: 1, Rank: -1},
	} {
		if _, err := NewLoader(srcs["shapes"], opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestNextHonorsItsContext(t *testing.T) {
	l := mustLoader(t, sources(t)["shapes"], optionsFor("shapes"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 50 { // a batch that is ready may still win the race
		if _, err := l.Next(ctx); err == context.Canceled {
			return
		}
	}
	t.Error("a cancelled context never ends Next")
}
