package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

var demo = Identity{"demo/prior", "3fa94711aa00bb11cc22"}

func state(step int64, seed byte) State {
	return State{
		Identity: demo, Step: step, Seed: 1<<63 + 5, Config: "[train]\nsteps = 10\n",
		Cursor: json.RawMessage(`{"shard":3,"sample":17}`), State: json.RawMessage(`[1,2]`),
		Weights:   sample(seed),
		Optimizer: []Tensor{{Name: "res0.wi.m", DType: "U16", Shape: []int{2}, Data: []byte{seed, 2, 3, 4}}},
		Metadata:  map[string]string{"res0.wi.m": "e6m9"},
	}
}

func mustSave(t *testing.T, s *Store, st State) string {
	t.Helper()
	dir, err := s.Save(st)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// holds fails unless the snapshot that latest names is st.
func holds(s *Store, st State) error {
	snap, err := s.LoadLatest(demo)
	if err != nil {
		return err
	}
	defer snap.Close()
	if snap.Step != st.Step || snap.Seed != st.Seed || snap.Config != st.Config {
		return fmt.Errorf("step %d seed %d, want %d %d", snap.Step, snap.Seed, st.Step, st.Seed)
	}
	var a, b any
	json.Unmarshal(snap.Cursor, &a)
	json.Unmarshal(st.Cursor, &b)
	if fmt.Sprint(a) != fmt.Sprint(b) {
		return fmt.Errorf("cursor %s, want %s", snap.Cursor, st.Cursor)
	}
	for _, part := range []struct {
		file *File
		want []Tensor
	}{{snap.Weights, st.Weights}, {snap.Optimizer, st.Optimizer}} {
		got := part.file.Tensors()
		for i := range got {
			if got[i], err = part.file.Read(got[i].Name); err != nil {
				return err
			}
		}
		if err := sameTensors(part.want, got); err != nil {
			return err
		}
	}
	return nil
}

func names(t *testing.T, dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestSavedStateLoadsWhole(t *testing.T) {
	s := &Store{Dir: filepath.Join(t.TempDir(), "out", "prior")}
	dir := mustSave(t, s, state(1200, 1))
	if want := filepath.Join(s.Dir, "step-00001200"); dir != want {
		t.Errorf("saved in %s, want %s", dir, want)
	}
	if err := holds(s, state(1200, 1)); err != nil {
		t.Error(err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"manifest.json", "model.safetensors", "optimizer.safetensors"}) {
		t.Errorf("files %v", got)
	}
	if got := names(t, s.Dir); !slices.Equal(got, []string{"latest", "step-00001200"}) {
		t.Errorf("left behind: %v", got)
	}
}

func TestSameStateGivesTheSameFiles(t *testing.T) {
	var texts [2]string
	for i := range texts {
		s := &Store{Dir: t.TempDir()}
		dir := mustSave(t, s, state(7, 1))
		for _, n := range names(t, dir) {
			b, _ := os.ReadFile(filepath.Join(dir, n))
			texts[i] += string(b)
		}
	}
	if texts[0] != texts[1] {
		t.Error("two saves of one state differ")
	}
}

type killed struct{}

// points runs Save once and returns the names of all points where it can be stopped.
func points(t *testing.T, before []State, st State) []string {
	s := &Store{Dir: t.TempDir(), Keep: 2}
	for _, b := range before {
		mustSave(t, s, b)
	}
	var list []string
	s.inject = func(point string) error { list = append(list, point); return nil }
	mustSave(t, s, st)
	return list
}

var scenarios = []struct {
	name   string
	before []State
	next   State
}{
	{"first", nil, state(10, 1)},
	{"second", []State{state(10, 1)}, state(20, 2)},
	{"with pruning", []State{state(10, 1), state(20, 2)}, state(30, 3)},
	{"same step again", []State{state(10, 1), state(20, 2)}, state(20, 9)},
	{"after resuming earlier", []State{state(10, 1), state(30, 2)}, state(20, 9)},
}

func TestKillAtAnyPointLosesNothing(t *testing.T) {
	for _, sc := range scenarios {
		list := points(t, sc.before, sc.next)
		if len(list) < 20 {
			t.Fatalf("%s: only %d points", sc.name, len(list))
		}
		for i, point := range list {
			s := &Store{Dir: t.TempDir(), Keep: 2}
			for _, b := range sc.before {
				mustSave(t, s, b)
			}
			n := 0
			s.inject = func(string) error {
				if n++; n == i+1 {
					panic(killed{})
				}
				return nil
			}
			func() {
				defer func() {
					if r := recover(); r != (killed{}) {
						t.Fatalf("%s: at %q: %v", sc.name, point, r)
					}
				}()
				s.Save(sc.next)
			}()
			after := &Store{Dir: s.Dir, Keep: 2}
			err := holds(after, sc.next)
			if err != nil && len(sc.before) > 0 {
				err = holds(after, sc.before[len(sc.before)-1])
			}
			if len(sc.before) == 0 && errors.Is(err, ErrNone) {
				err = nil
			}
			if err != nil {
				t.Errorf("%s: killed at %q: neither the state before nor after: %v", sc.name, point, err)
			}
			mustSave(t, after, sc.next) // the run goes on
			if err := holds(after, sc.next); err != nil {
				t.Errorf("%s: killed at %q, saved again: %v", sc.name, point, err)
			}
			for _, name := range names(t, s.Dir) {
				if strings.HasPrefix(name, ".") {
					t.Errorf("%s: killed at %q, saved again: %s is left behind", sc.name, point, name)
				}
			}
		}
	}
}

func TestFailingDiskLeavesThePreviousSnapshot(t *testing.T) {
	for _, cause := range []error{syscall.ENOSPC, syscall.EACCES, syscall.EIO} {
		for _, sc := range scenarios[1:] {
			last := sc.before[len(sc.before)-1]
			for i, point := range points(t, sc.before, sc.next) {
				s := &Store{Dir: t.TempDir(), Keep: 2}
				for _, b := range sc.before {
					mustSave(t, s, b)
				}
				n, warnings := 0, 0
				s.Warn = func(string) { warnings++ }
				s.inject = func(string) error {
					if n++; n == i+1 {
						return &fs.PathError{Op: "write", Path: "/d/" + point, Err: cause}
					}
					return nil
				}
				_, err := s.Save(sc.next)
				s.inject = nil
				if err == nil {
					if warnings != 1 {
						t.Errorf("%s: %v at %q: neither error nor warning", sc.name, cause, point)
					}
					if err := holds(s, sc.next); err != nil {
						t.Errorf("%s: %v at %q was a warning, but: %v", sc.name, cause, point, err)
					}
					continue
				}
				text := err.Error()
				if !strings.Contains(text, "/d/"+point+": "+cause.Error()) || strings.Contains(text, "\n") || !strings.Contains(text, "is intact") {
					t.Errorf("%s: at %q: %s", sc.name, point, text)
				}
				if cause == syscall.ENOSPC && !strings.Contains(text, "free some space") {
					t.Errorf("at %q no remedy: %s", point, text)
				}
				if err := holds(s, last); err != nil {
					// Past the rename only the last syncs can fail: the new state is there.
					if err := holds(s, sc.next); err != nil || !strings.HasSuffix(point, "/") {
						t.Errorf("%s: %v at %q: %v", sc.name, cause, point, err)
					}
				}
				for _, name := range names(t, s.Dir) {
					if strings.HasPrefix(name, ".") {
						t.Errorf("%s: %v at %q: %s is left behind", sc.name, cause, point, name)
					}
				}
			}
		}
	}
}

func TestUnwritableDirectoryIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	os.WriteFile(file, nil, 0o644)
	s := &Store{Dir: filepath.Join(file, "out")}
	_, err := s.Save(state(1, 1))
	if err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "not a directory; something that is not a directory is in the way") {
		t.Errorf("%v", err)
	}
}

func TestDamagedSnapshotNamesTheLastGoodOne(t *testing.T) {
	for _, name := range []string{"model.safetensors", "optimizer.safetensors", "manifest.json"} {
		for _, damage := range []struct {
			name string
			do   func(path string, size int64)
		}{
			{"emptied", func(p string, n int64) { os.Truncate(p, 0) }},
			{"halved", func(p string, n int64) { os.Truncate(p, n/2) }},
			{"one byte short", func(p string, n int64) { os.Truncate(p, n-2) }},
			{"removed", func(p string, n int64) { os.Remove(p) }},
			{"one bit flipped", func(p string, n int64) {
				b, _ := os.ReadFile(p)
				b[n/2] ^= 1
				os.WriteFile(p, b, 0o644)
			}},
		} {
			s := &Store{Dir: t.TempDir()}
			mustSave(t, s, state(10, 1))
			mustSave(t, s, state(20, 2))
			dir := mustSave(t, s, state(30, 3))
			path := filepath.Join(dir, name)
			info, _ := os.Stat(path)
			damage.do(path, info.Size())
			os.Truncate(filepath.Join(s.Dir, "step-00000020", "model.safetensors"), 5) // damaged too: not to be named
			_, err := s.LoadLatest(demo)
			if err == nil || !strings.Contains(err.Error(), dir) || !strings.HasSuffix(err.Error(), "step-00000010 is good: to go on from it write its name into "+s.path("latest")) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s %s: %v", name, damage.name, err)
			}
			// The advice works.
			os.WriteFile(s.path("latest"), []byte("step-00000010\n"), 0o644)
			if err := holds(s, state(10, 1)); err != nil {
				t.Errorf("%s %s: %v", name, damage.name, err)
			}
		}
	}
}

func TestSnapshotOfAnotherModelNamesBoth(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	dir := mustSave(t, s, state(10, 1))
	_, err := s.LoadLatest(Identity{"small/prior", "77770000111122223333"})
	want := dir + ": snapshot of model demo/prior (3fa94711aa00), this trainer is small/prior (777700001111); use the trainer that wrote it, or another directory"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if snap, err := Open(dir, Identity{}); err != nil {
		t.Error(err)
	} else {
		snap.Close()
	}
}

func TestLatestIsRobust(t *testing.T) {
	var warned string
	s := &Store{Dir: t.TempDir(), Warn: func(m string) { warned = m }}
	if _, err := s.LoadLatest(demo); !errors.Is(err, ErrNone) {
		t.Errorf("empty directory: %v", err)
	}
	mustSave(t, s, state(10, 1))
	mustSave(t, s, state(20, 2))
	latest := filepath.Join(s.Dir, "latest")
	os.Remove(latest)
	if err := holds(s, state(20, 2)); err != nil || !strings.Contains(warned, "using the last snapshot, step-00000020") {
		t.Errorf("latest missing: %v, warning %q", err, warned)
	}
	os.WriteFile(latest, []byte("step-00000030\n"), 0o644)
	if _, err := s.LoadLatest(demo); err == nil || !strings.Contains(err.Error(), "no snapshot of step 30; step-00000020 is good") {
		t.Errorf("latest names nothing: %v", err)
	}
	os.WriteFile(latest, []byte("../etc"), 0o644)
	if _, err := s.LoadLatest(demo); err == nil || !strings.Contains(err.Error(), `names "../etc"`) {
		t.Errorf("latest names a path: %v", err)
	}
}

func TestPruneKeepsTheLastAndEveryKth(t *testing.T) {
	s := &Store{Dir: t.TempDir(), Keep: 2, KeepEvery: 20}
	for step := int64(5); step <= 60; step += 5 {
		mustSave(t, s, state(step, 1))
	}
	steps, err := s.Steps()
	if want := []int64{20, 40, 55, 60}; err != nil || !slices.Equal(steps, want) {
		t.Errorf("%v %v, want %v", steps, err, want)
	}
}

func TestAgreeCanCallOff(t *testing.T) {
	s := &Store{Dir: t.TempDir()}
	mustSave(t, s, state(10, 1))
	s.Agree = func(err error) error { return errors.New("rank 3: disk full") }
	if _, err := s.Save(state(20, 2)); err == nil || !strings.Contains(err.Error(), "rank 3: disk full") {
		t.Errorf("%v", err)
	}
	if err := holds(s, state(10, 1)); err != nil {
		t.Error(err)
	}
	if got := names(t, s.Dir); !slices.Equal(got, []string{"latest", "step-00000010"}) {
		t.Errorf("left behind: %v", got)
	}
}
