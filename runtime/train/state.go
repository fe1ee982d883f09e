package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unsafe"

	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/snapshot"
)

// state is the loop's own part of a snapshot.
type state struct {
	Applied  int64   `json:"applied"`  // updates that weren't skipped: the t of Adam's bias correction
	Skipped  int64   `json:"skipped"`  // updates with a non-finite gradient
	InARow   int     `json:"in_a_row"` // of those, the last ones without one that was applied
	Averaged int64   `json:"averaged"` // times the average was moved
	Plateau  Plateau `json:"plateau"`
	Seconds  float64 `json:"seconds"` // spent on steps, over all sessions
}

// Upstream says what else a model was trained with; snapshots carry it, so that a
// model is never used with another dVAE or tokenizer than its own.
type Upstream struct {
	DVAE      string `json:"dvae,omitempty"`      // SHA-256 of the dVAE's weights
	Tokenizer string `json:"tokenizer,omitempty"` // SHA-256 of tokenizer.json
}

// storedTypes are the names of the element types in safetensors files. The 16-bit
// formats of the optimiser are stored as codes.
var storedTypes = map[exec.DType]string{
	exec.F32: "F32", exec.F16: "F16", exec.BF16: "BF16", exec.E6M9: "U16", exec.UE6M10: "U16",
	exec.I32: "I32", exec.I8: "I8", exec.Bool: "BOOL",
}

func stored(g *exec.Global) snapshot.Tensor {
	return snapshot.Tensor{Name: g.Name, DType: storedTypes[g.DType], Shape: g.Shape, Data: g.Data}
}

// isCache tells KV caches from other state: they are filled anew by every sample, and
// large. Models name them LAYER.cache.k and LAYER.cache.v.
func isCache(g *exec.Global) bool {
	return g.Role == exec.RoleState && strings.Contains(g.Name, ".cache.")
}

// partition lists the stored tensors of a snapshot's two files: weights with their
// averages, and what only training needs.
func partition(m Model) (weights, optimizer []snapshot.Tensor, metadata map[string]string) {
	metadata = map[string]string{"format": "pt"} // what readers of safetensors expect
	for _, g := range m.Select(func(g *exec.Global) bool { return g.Role != exec.RoleConst && !isCache(g) }) {
		switch g.Role {
		case exec.RoleParam, exec.RoleAverage, exec.RoleBuffer:
			weights = append(weights, stored(g))
		default:
			optimizer = append(optimizer, stored(g))
		}
		if g.DType == exec.E6M9 || g.DType == exec.UE6M10 {
			metadata[g.Name] = string(g.DType)
		}
	}
	return weights, optimizer, metadata
}

func identity(m Model) snapshot.Identity {
	return snapshot.Identity{Model: m.Name(), Fingerprint: m.Fingerprint()}
}

// restore reads a snapshot into the model's memory.
func restore(m Model, snap *snapshot.Snapshot) error {
	weights, optimizer, _ := partition(m)
	for _, part := range []struct {
		file    *snapshot.File
		tensors []snapshot.Tensor
	}{{snap.Weights, weights}, {snap.Optimizer, optimizer}} {
		if part.file == nil {
			if len(part.tensors) > 0 {
				return fmt.Errorf("%s: no optimizer.safetensors, which training needs to go on", snap.Dir)
			}
			continue
		}
		for _, t := range part.tensors {
			if err := part.file.ReadInto(t); err != nil {
				return err
			}
		}
	}
	return nil
}

// Trained is what a loaded model came from.
type Trained struct {
	Step     int64
	Weights  string // SHA-256 of the weights' file
	Averaged bool   // the averaged weights were loaded
	Upstream Upstream
	Seconds  float64 // of training
	Config   string
}

// StageDir is where a stage keeps its snapshots and logs.
func StageDir(out, stage string) string { return filepath.Join(out, stage) }

// ErrUntrained is returned (wrapped) where a model is needed that isn't trained yet.
var ErrUntrained = errors.New("not trained")

// Inspect reads what the latest snapshot of a stage says of itself, without its
// tensors. The error wraps ErrUntrained if there is none.
func Inspect(out, stage string) (*Trained, error) {
	store := snapshot.Store{Dir: StageDir(out, stage)}
	step, err := store.Latest()
	if errors.Is(err, snapshot.ErrNone) {
		return nil, fmt.Errorf("%s: %s is %w; train %s first", store.Dir, stage, ErrUntrained, stage)
	}
	if err != nil {
		return nil, err
	}
	m, err := snapshot.ReadManifest(filepath.Join(store.Dir, snapshot.StepDir(step)))
	if err != nil {
		return nil, err
	}
	return trained(m)
}

func trained(m *snapshot.Manifest) (*Trained, error) {
	t := &Trained{Step: m.Step, Config: m.Config}
	var st state
	for _, j := range []struct {
		raw  json.RawMessage
		into any
	}{{m.State, &st}, {m.Cursor, &t.Upstream}} {
		if j.raw == nil {
			continue
		}
		if err := json.Unmarshal(j.raw, j.into); err != nil {
			return nil, fmt.Errorf("snapshot of %s, step %d: state %s: %w", m.Model, m.Step, j.raw, err)
		}
	}
	t.Averaged, t.Seconds = st.Averaged > 0, st.Seconds
	for _, f := range m.Files {
		if f.Name == "model.safetensors" {
			t.Weights = f.SHA256
		}
	}
	return t, nil
}

// Load fills the model with the latest weights of its stage, averaged ones where
// there are any, for everything but training. The error wraps ErrUntrained if the
// stage has no snapshot.
func Load(out, stage string, m Model) (*Trained, error) {
	store := snapshot.Store{Dir: StageDir(out, stage)}
	snap, err := store.LoadLatest(identity(m))
	if errors.Is(err, snapshot.ErrNone) {
		return nil, fmt.Errorf("%s: %s is %w; train %s first", store.Dir, stage, ErrUntrained, stage)
	}
	if err != nil {
		return nil, err
	}
	defer snap.Close()
	t, err := trained(&snap.Manifest)
	if err != nil {
		return nil, err
	}
	globals := m.Select(func(g *exec.Global) bool {
		return g.Role == exec.RoleParam || g.Role == exec.RoleBuffer || t.Averaged && g.Role == exec.RoleAverage
	})
	averageOf := map[string]*exec.Global{}
	for _, g := range globals {
		if g.Role == exec.RoleAverage {
			averageOf[g.Of] = g
		}
	}
	for _, g := range globals {
		if g.Role == exec.RoleAverage {
			continue
		}
		if avg := averageOf[g.Name]; avg != nil {
			if err := loadAverage(snap.Weights, avg, g); err != nil {
				return nil, err
			}
			continue
		}
		if err := snap.Weights.ReadInto(stored(g)); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// loadAverage reads an f32 average into its parameter, rounding to the parameter's type.
func loadAverage(f *snapshot.File, avg, param *exec.Global) error {
	if avg.DType == param.DType {
		t := stored(avg)
		t.Data = param.Data
		return f.ReadInto(t)
	}
	t, err := f.Read(avg.Name)
	if err != nil {
		return err
	}
	if t.DType != "F32" || len(t.Data) != 4*param.Len() {
		return fmt.Errorf("%s: %s is no average of %s", f.Path(), t, &param.Tensor)
	}
	x := unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(t.Data))), param.Len())
	out := unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(param.Data))), len(param.Data)/2)
	format, ok := param.DType.Format()
	if !ok {
		return fmt.Errorf("%s: averages can't be loaded into %s", f.Path(), &param.Tensor)
	}
	for i, v := range x {
		out[i] = format.Encode(v)
	}
	return nil
}
