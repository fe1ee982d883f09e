package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gouache-ml/gouache/runtime/disk"
)

// Snapshot is an open snapshot whose hashes have been checked.
type Snapshot struct {
	Manifest
	Dir       string
	Weights   *File
	Optimizer *File // nil if the snapshot has none
}

// Load opens the snapshot of a step, checked. If it is damaged, the error names
// the last good one before it.
func (s *Store) Load(step int64, want Identity) (*Snapshot, error) {
	dir := s.dirOf(step)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: there is no snapshot of step %d%s", s.Dir, step, s.suggest(-1))
	}
	snap, err := Open(dir, want)
	var mismatch *mismatchError
	if err != nil && !errors.As(err, &mismatch) {
		return nil, fmt.Errorf("%w%s", err, s.suggest(step))
	}
	return snap, err
}

// LoadLatest opens the snapshot that latest names. An error wraps ErrNone if
// there is nothing to resume from.
func (s *Store) LoadLatest(want Identity) (*Snapshot, error) {
	step, err := s.Latest()
	if err != nil {
		return nil, err
	}
	return s.Load(step, want)
}

// Open opens one snapshot directory, checking sizes, hashes and headers, and that it is of
// the model with want's fingerprint. A zero want accepts any model.
func Open(dir string, want Identity) (*Snapshot, error) {
	m, err := ReadManifest(dir)
	if err != nil {
		return nil, err
	}
	if want.Fingerprint != "" && m.Fingerprint != want.Fingerprint {
		return nil, &mismatchError{dir, m.Identity, want}
	}
	if err := verify(dir, m); err != nil {
		return nil, err
	}
	snap := &Snapshot{Manifest: *m, Dir: dir}
	for _, sum := range m.Files {
		var into **File
		switch sum.Name {
		case modelName:
			into = &snap.Weights
		case optimizerName:
			into = &snap.Optimizer
		default:
			continue
		}
		if *into, err = OpenFile(filepath.Join(dir, sum.Name)); err != nil {
			snap.Close()
			return nil, err
		}
	}
	if snap.Weights == nil {
		snap.Close()
		return nil, fmt.Errorf("%s: manifest lists no %s", dir, modelName)
	}
	return snap, nil
}

// Close closes the snapshot's files.
func (s *Snapshot) Close() error {
	var errs []error
	for _, f := range []*File{s.Weights, s.Optimizer} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

type mismatchError struct {
	dir        string
	have, want Identity
}

func (e *mismatchError) Error() string {
	return fmt.Sprintf("%s: snapshot of model %s (%s), this trainer is %s (%s); use the trainer that wrote it, or another directory",
		e.dir, e.have.Model, short(e.have.Fingerprint), e.want.Model, short(e.want.Fingerprint))
}

func short(fingerprint string) string {
	if len(fingerprint) > 12 {
		return fingerprint[:12]
	}
	return fingerprint
}

// verify compares every file's size and hash with the manifest.
func verify(dir string, m *Manifest) error {
	for _, want := range m.Files {
		path := filepath.Join(dir, want.Name)
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: missing, though the manifest lists it", path)
		}
		if err != nil {
			return disk.Explain(path, err)
		}
		info, err := f.Stat()
		if err == nil && info.Size() != want.Bytes {
			err = fmt.Errorf("damaged: %d bytes, the manifest says %d", info.Size(), want.Bytes)
		}
		if err == nil {
			hash := sha256.New()
			_, err = io.CopyBuffer(hash, onlyReader{f}, make([]byte, 256<<10))
			if sum := hex.EncodeToString(hash.Sum(nil)); err == nil && sum != want.SHA256 {
				err = fmt.Errorf("damaged: its SHA-256 is %.12s..., the manifest says %.12s...", sum, want.SHA256)
			}
		}
		f.Close()
		if err != nil {
			return disk.Explain(path, err)
		}
	}
	return nil
}

// onlyReader hides *os.File's WriteTo, which would ignore the buffer.
type onlyReader struct{ io.Reader }
