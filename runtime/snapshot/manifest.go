package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gouache-ml/gouache/runtime/disk"
)

// FormatVersion is the manifest format written; older ones are migrated when read.
const FormatVersion = 1

const (
	manifestName  = "manifest.json"
	modelName     = "model.safetensors"
	optimizerName = "optimizer.safetensors"
)

// Identity says which model a snapshot is of.
type Identity struct {
	Model       string `json:"model"`       // for people: "demo/prior"
	Fingerprint string `json:"fingerprint"` // hash of the compiled model; what is compared
}

// Manifest is manifest.json: everything of the training state that isn't a tensor.
type Manifest struct {
	Format int `json:"format"`
	Identity
	Step   int64           `json:"step"`
	Seed   uint64          `json:"seed"`
	Config string          `json:"config"`           // the full resolved configuration, TOML
	Cursor json.RawMessage `json:"cursor,omitempty"` // where the data source stands; its own format
	State  json.RawMessage `json:"state,omitempty"`  // the loop's own small state: schedule, counters
	Files  []FileSum       `json:"files"`
	SHA256 string          `json:"sha256"` // of the manifest itself, with this field empty
}

// FileSum is one file of a snapshot with its size and SHA-256.
type FileSum struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// seal sets the manifest's own hash.
func (m *Manifest) seal() error {
	m.SHA256 = ""
	text, err := m.format()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	m.SHA256 = hex.EncodeToString(sum[:])
	return nil
}

func (m *Manifest) format() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(m)
	return b.Bytes(), err
}

// ReadManifest reads the manifest of a snapshot directory without touching its tensors.
func ReadManifest(dir string) (*Manifest, error) {
	path := filepath.Join(dir, manifestName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: no %s, so this is no complete snapshot", dir, manifestName)
	}
	if err != nil {
		return nil, disk.Explain(path, err)
	}
	var version struct{ Format int }
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, fmt.Errorf("%s: damaged: %w", path, err)
	}
	if version.Format != FormatVersion {
		return nil, fmt.Errorf("%s: format %d, this program reads %d; use the Gouache that wrote it", path, version.Format, FormatVersion)
	}
	m := new(Manifest)
	strict := json.NewDecoder(bytes.NewReader(data))
	strict.DisallowUnknownFields()
	if err := strict.Decode(m); err != nil {
		return nil, fmt.Errorf("%s: damaged: %w", path, err)
	}
	was := m.SHA256
	if err := m.seal(); err != nil || m.SHA256 != was {
		return nil, fmt.Errorf("%s: damaged: its own SHA-256 is not the one it states", path)
	}
	for _, f := range m.Files {
		if f.Name != filepath.Base(f.Name) || f.Name == "." || f.Name == ".." {
			return nil, fmt.Errorf("%s: damaged: file name %q", path, f.Name)
		}
	}
	return m, nil
}
