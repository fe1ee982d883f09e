package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gouache-ml/gouache/runtime/disk"
)

// Store is a directory of snapshots of one training run.
type Store struct {
	Dir       string
	Keep      int   // keep the last Keep snapshots; 0 keeps all
	KeepEvery int64 // and every one at a multiple of KeepEvery steps; 0 for none

	// Agree, if set, is called when all is written and before it becomes visible,
	// with this rank's error; every rank's Agree returns nil or every one an error.
	Agree func(err error) error

	// Warn receives one-line warnings; nil drops them.
	Warn func(message string)

	inject func(point string) error // tests fail or kill the process here
}

// State is what one snapshot saves.
type State struct {
	Identity
	Step      int64
	Seed      uint64
	Config    string
	Cursor    json.RawMessage
	State     json.RawMessage
	Weights   []Tensor          // model.safetensors
	Optimizer []Tensor          // optimizer.safetensors; none, no file
	Metadata  map[string]string // of both files: formats of U16 codes, by tensor name
}

const (
	stepPrefix = "step-"
	tmpPrefix  = ".tmp-" // half written or half removed; swept by the next Save
	oldPrefix  = ".old-" // a snapshot being replaced by one of the same step
	latestName = "latest"
)

// StepDir is the name of a step's directory, "step-00001200".
func StepDir(step int64) string { return fmt.Sprintf("%s%08d", stepPrefix, step) }

func (s *Store) path(name string) string { return filepath.Join(s.Dir, name) }

func (s *Store) at(point string) error {
	if s.inject == nil {
		return nil
	}
	return s.inject(point)
}

func (s *Store) warn(format string, args ...any) {
	if s.Warn != nil {
		s.Warn(fmt.Sprintf(format, args...))
	}
}

// Save commits a snapshot and returns its directory. After an error the previous
// snapshot is intact and latest names it (or the new one, complete, if only the
// very last sync failed). Trouble with pruning, after the commit, is a warning.
func (s *Store) Save(st State) (string, error) {
	if st.Step < 0 {
		return "", fmt.Errorf("%s: step %d is negative", s.Dir, st.Step)
	}
	name := StepDir(st.Step)
	tmp := s.path(tmpPrefix + name)
	err := s.prepare()
	if err == nil {
		err = s.write(tmp, st)
	}
	if s.Agree != nil {
		err = s.Agree(err)
	}
	if err == nil {
		err = s.publish(tmp, name)
	}
	if err != nil {
		os.RemoveAll(tmp)
		s.recover()
		return "", s.saveError(st.Step, err)
	}
	if err := s.point(name); err != nil {
		return "", s.saveError(st.Step, err)
	}
	if err := s.prune(st.Step); err != nil {
		s.warn("%v (old snapshots were not pruned)", err)
	}
	return s.path(name), nil
}

func (s *Store) saveError(step int64, err error) error {
	intact := "no earlier snapshot"
	if name, e := s.latestName(); e == nil && name != "" {
		intact = name + " is intact"
	}
	return fmt.Errorf("snapshot of step %d not saved: %w (%s)", step, err, intact)
}

// prepare makes the directory and sweeps what a killed Save left.
func (s *Store) prepare() error {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return disk.Explain(s.Dir, err)
	}
	if err := s.recover(); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return disk.Explain(s.Dir, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			if err := os.RemoveAll(s.path(e.Name())); err != nil {
				return disk.Explain(s.path(e.Name()), err)
			}
		}
	}
	return nil
}

// recover ends a replacement that was killed half way: the old snapshot comes
// back if the new one isn't in its place, else it goes.
func (s *Store) recover() error {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return disk.Explain(s.Dir, err)
	}
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), oldPrefix)
		if !ok {
			continue
		}
		if _, err := os.Lstat(s.path(name)); errors.Is(err, fs.ErrNotExist) {
			err = os.Rename(s.path(e.Name()), s.path(name))
			if err != nil {
				return disk.Explain(s.path(name), err)
			}
			continue
		}
		if err := s.remove(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// remove makes a directory invisible in one step before deleting it file by file.
func (s *Store) remove(name string) error {
	gone := s.path(tmpPrefix + "gone-" + strings.TrimPrefix(name, oldPrefix))
	if err := os.RemoveAll(gone); err != nil {
		return disk.Explain(gone, err)
	}
	if err := os.Rename(s.path(name), gone); err != nil {
		return disk.Explain(s.path(name), err)
	}
	if err := s.at("remove " + name); err != nil {
		return disk.Explain(gone, err)
	}
	return disk.Explain(gone, os.RemoveAll(gone))
}

// write fills the temporary directory; the manifest comes last.
func (s *Store) write(tmp string, st State) error {
	if err := s.at("mkdir"); err != nil {
		return disk.Explain(tmp, err)
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return disk.Explain(tmp, err)
	}
	m := Manifest{Format: FormatVersion, Identity: st.Identity, Step: st.Step, Seed: st.Seed,
		Config: st.Config, Cursor: st.Cursor, State: st.State}
	parts := []struct {
		name    string
		tensors []Tensor
	}{{modelName, st.Weights}}
	if len(st.Optimizer) > 0 {
		parts = append(parts, struct {
			name    string
			tensors []Tensor
		}{optimizerName, st.Optimizer})
	}
	for _, p := range parts {
		sum, err := s.writeFile(tmp, p.name, func(w io.Writer) error { return Write(w, p.tensors, st.Metadata) })
		if err != nil {
			return err
		}
		m.Files = append(m.Files, sum)
	}
	if err := m.seal(); err != nil {
		return fmt.Errorf("%s: %w", manifestName, err)
	}
	text, err := m.format()
	if err != nil {
		return fmt.Errorf("%s: %w", manifestName, err)
	}
	if _, err := s.writeFile(tmp, manifestName, func(w io.Writer) error { _, err := w.Write(text); return err }); err != nil {
		return err
	}
	return s.syncDir(tmp)
}

// writeFile writes, hashes and syncs one file.
func (s *Store) writeFile(dir, name string, write func(io.Writer) error) (FileSum, error) {
	path := filepath.Join(dir, name)
	if err := s.at("create " + name); err != nil {
		return FileSum{}, disk.Explain(path, err)
	}
	f, err := os.Create(path)
	if err != nil {
		return FileSum{}, disk.Explain(path, err)
	}
	hash := sha256.New()
	counted := &countingWriter{w: io.MultiWriter(&faultyWriter{s, name, f}, hash)}
	err = write(counted)
	if err == nil {
		err = s.at("sync " + name)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return FileSum{}, disk.Explain(path, err)
	}
	return FileSum{name, counted.n, hex.EncodeToString(hash.Sum(nil))}, nil
}

// faultyWriter asks the tests' hook before each write, and writes half of the
// bytes if it fails, as a full disk does.
type faultyWriter struct {
	s    *Store
	name string
	w    io.Writer
}

func (f *faultyWriter) Write(p []byte) (int, error) {
	if f.s.inject == nil {
		return f.w.Write(p)
	}
	n, err := f.w.Write(p[:len(p)/2])
	if err != nil {
		return n, err
	}
	if err := f.s.at("write " + f.name); err != nil {
		return n, err
	}
	m, err := f.w.Write(p[len(p)/2:])
	return n + m, err
}

func (s *Store) syncDir(dir string) error {
	if err := s.at("sync " + filepath.Base(dir) + "/"); err != nil {
		return disk.Explain(dir, err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return disk.Explain(dir, err)
	}
	err = d.Sync()
	if closed := d.Close(); err == nil {
		err = closed
	}
	return disk.Explain(dir, err)
}

// publish renames the complete directory into place. A snapshot of the same step
// steps aside first; recover knows how to end that at any point.
func (s *Store) publish(tmp, name string) error {
	final := s.path(name)
	replaced := false
	if _, err := os.Lstat(final); err == nil {
		if err := s.at("set aside"); err != nil {
			return disk.Explain(final, err)
		}
		if err := os.Rename(final, s.path(oldPrefix+name)); err != nil {
			return disk.Explain(final, err)
		}
		replaced = true
	}
	if err := s.at("rename"); err != nil {
		return disk.Explain(final, err)
	}
	if err := os.Rename(tmp, final); err != nil {
		return disk.Explain(final, err)
	}
	if err := s.syncDir(s.Dir); err != nil {
		return err
	}
	if replaced {
		if err := s.remove(oldPrefix + name); err != nil {
			s.warn("%v (the replaced snapshot is left there)", err)
		}
	}
	return nil
}

// point makes latest name a snapshot.
func (s *Store) point(name string) error {
	if now, err := s.latestName(); err == nil && now == name {
		return nil
	}
	tmp := tmpPrefix + latestName
	_, err := s.writeFile(s.Dir, tmp, func(w io.Writer) error { _, err := io.WriteString(w, name+"\n"); return err })
	if err != nil {
		os.Remove(s.path(tmp))
		return err
	}
	if err := s.at("rename latest"); err != nil {
		os.Remove(s.path(tmp))
		return disk.Explain(s.path(latestName), err)
	}
	if err := os.Rename(s.path(tmp), s.path(latestName)); err != nil {
		os.Remove(s.path(tmp))
		return disk.Explain(s.path(latestName), err)
	}
	return s.syncDir(s.Dir)
}

// prune removes snapshots older than the last Keep. Those of later steps belong
// to a run that was given up by resuming earlier; they stay until replaced.
func (s *Store) prune(step int64) error {
	if s.Keep <= 0 {
		return nil
	}
	steps, err := s.Steps()
	if err != nil {
		return err
	}
	steps = slices.DeleteFunc(steps, func(n int64) bool { return n > step })
	for i, n := range steps {
		if i >= len(steps)-s.Keep || s.KeepEvery > 0 && n%s.KeepEvery == 0 {
			continue
		}
		if err := s.remove(StepDir(n)); err != nil {
			return err
		}
	}
	return nil
}

// Steps lists the steps that have a snapshot, ascending. A directory that doesn't
// exist has none.
func (s *Store) Steps() ([]int64, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, disk.Explain(s.Dir, err)
	}
	var steps []int64
	for _, e := range entries {
		if step, ok := parseStep(strings.TrimPrefix(e.Name(), oldPrefix)); ok {
			steps = append(steps, step)
		}
	}
	slices.Sort(steps)
	return slices.Compact(steps), nil
}

// dirOf is the directory of a step's snapshot. When a replacement was killed half
// way that is the one set aside; readers leave the renaming to the next Save.
func (s *Store) dirOf(step int64) string {
	final := s.path(StepDir(step))
	if _, err := os.Stat(final); errors.Is(err, fs.ErrNotExist) {
		old := s.path(oldPrefix + StepDir(step))
		if _, err := os.Stat(old); err == nil {
			return old
		}
	}
	return final
}

func parseStep(name string) (int64, bool) {
	digits, ok := strings.CutPrefix(name, stepPrefix)
	if !ok {
		return 0, false
	}
	step, err := strconv.ParseInt(digits, 10, 64)
	return step, err == nil && StepDir(step) == name
}

// latestName reads the file latest; "" if there is none.
func (s *Store) latestName() (string, error) {
	data, err := os.ReadFile(s.path(latestName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", disk.Explain(s.path(latestName), err)
	}
	return strings.TrimSpace(string(data)), nil
}

// ErrNone is returned (wrapped) by Latest when there is no snapshot at all.
var ErrNone = errors.New("no snapshot")

// Latest is the step that latest names. If that file is missing (a kill right
// before the very first one was written), it is the last step there, with a warning.
func (s *Store) Latest() (int64, error) {
	name, err := s.latestName()
	if err != nil {
		return 0, err
	}
	if name != "" {
		step, ok := parseStep(name)
		if !ok {
			return 0, fmt.Errorf("%s: names %q, which is no snapshot; write the one to resume from into it%s", s.path(latestName), name, s.suggest(-1))
		}
		return step, nil
	}
	steps, err := s.Steps()
	if err != nil {
		return 0, err
	}
	if len(steps) == 0 {
		return 0, fmt.Errorf("%s: %w; train first or check the directory", s.Dir, ErrNone)
	}
	last := steps[len(steps)-1]
	s.warn("%s: missing; using the last snapshot, %s", s.path(latestName), StepDir(last))
	return last, nil
}

// suggest names the last snapshot before step (any, if negative) whose hashes are right.
func (s *Store) suggest(step int64) string {
	steps, _ := s.Steps()
	for _, n := range slices.Backward(steps) {
		if step >= 0 && n >= step {
			continue
		}
		dir := s.dirOf(n)
		if m, err := ReadManifest(dir); err == nil && verify(dir, m) == nil {
			return fmt.Sprintf("; %s is good: to go on from it write its name into %s", StepDir(n), s.path(latestName))
		}
	}
	return fmt.Sprintf("; no earlier snapshot is good: move %s away and train again", s.Dir)
}
