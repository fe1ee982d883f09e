package snapshot

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"sort"

	"github.com/gouache-ml/gouache/runtime/disk"
)

// maxHeader is the format's own limit on the JSON header.
const maxHeader = 100_000_000

// WriteFile writes a safetensors file and syncs it to disk. Tensors are laid out
// by descending element size, then name (so all are aligned); the same tensors and
// metadata give the same bytes. For an atomic replacement write beside and rename.
func WriteFile(path string, tensors []Tensor, metadata map[string]string) error {
	f, err := os.Create(path)
	if err != nil {
		return disk.Explain(path, err)
	}
	err = Write(f, tensors, metadata)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	return disk.Explain(path, err)
}

// Write writes tensors in the safetensors format to w.
func Write(w io.Writer, tensors []Tensor, metadata map[string]string) error {
	order := slices.Clone(tensors)
	sort.SliceStable(order, func(i, j int) bool {
		a, b := elementBytes[order[i].DType], elementBytes[order[j].DType]
		if a != b {
			return a > b
		}
		return order[i].Name < order[j].Name
	})
	header, err := formatHeader(order, metadata)
	if err != nil {
		return err
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	for _, t := range order {
		want, _ := t.Bytes() // formatHeader has checked it
		counted := &countingWriter{w: w}
		if t.Stream != nil {
			err = t.Stream(counted)
		} else {
			err = writeChunks(counted, t.Data)
		}
		if err != nil {
			return fmt.Errorf("tensor %s: %w", t, err)
		}
		if counted.n != want {
			return fmt.Errorf("tensor %s: %d bytes streamed, want %d", t, counted.n, want)
		}
	}
	return nil
}

// writeChunks keeps single writes small enough for the hash beside them to find
// the bytes still in cache.
func writeChunks(w io.Writer, data []byte) error {
	const chunk = 256 << 10
	for len(data) > 0 {
		n := min(chunk, len(data))
		if _, err := w.Write(data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// formatHeader gives the length and the JSON header of tensors in file order.
func formatHeader(order []Tensor, metadata map[string]string) ([]byte, error) {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	b.WriteByte('{')
	if len(metadata) > 0 {
		text, err := json.Marshal(metadata) // map keys come out sorted
		if err != nil {
			return nil, err
		}
		b.WriteString(`"__metadata__":`)
		b.Write(text)
	}
	offset := int64(0)
	names := make(map[string]bool, len(order))
	for _, t := range order {
		if t.Name == "" || t.Name == "__metadata__" || names[t.Name] {
			return nil, fmt.Errorf("tensor name %q is empty, reserved or used twice", t.Name)
		}
		names[t.Name] = true
		size, err := t.Bytes()
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		if t.Stream == nil && int64(len(t.Data)) != size {
			return nil, fmt.Errorf("tensor %s: %d bytes of data, want %d", t, len(t.Data), size)
		}
		if offset > math.MaxInt64-size {
			return nil, fmt.Errorf("tensor %s: file too large", t)
		}
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		text, err := json.Marshal(struct {
			DType   string   `json:"dtype"`
			Shape   []int    `json:"shape"`
			Offsets [2]int64 `json:"data_offsets"`
		}{t.DType, shape, [2]int64{offset, offset + size}})
		if err != nil {
			return nil, err
		}
		name, err := json.Marshal(t.Name)
		if err != nil {
			return nil, err
		}
		if b.Len() > 9 {
			b.WriteByte(',')
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(text)
		offset += size
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	header := b.Bytes()
	if len(header)-8 > maxHeader {
		return nil, fmt.Errorf("header of %d bytes; the format allows %d", len(header)-8, maxHeader)
	}
	binary.LittleEndian.PutUint64(header, uint64(len(header)-8))
	return header, nil
}

// File is an open safetensors file whose header has been checked.
type File struct {
	path     string
	f        *os.File
	base     int64 // where the data begins
	entries  []entry
	byName   map[string]int
	metadata map[string]string
}

type entry struct {
	tensor     Tensor // without data
	begin, end int64
}

// OpenFile opens a safetensors file and checks its header: sizes that match types
// and shapes, data without overlap, gap or missing bytes.
func OpenFile(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, disk.Explain(path, err)
	}
	file := &File{path: path, f: f}
	if err := file.readHeader(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return file, nil
}

func (f *File) readHeader() error {
	info, err := f.f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("is a directory; give a .safetensors file")
	}
	size := info.Size()
	var length [8]byte
	if _, err := f.f.ReadAt(length[:], 0); err != nil {
		return fmt.Errorf("%d bytes long, too short for a safetensors file; copy it again", size)
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxHeader {
		return fmt.Errorf("header length %d is over the format's limit; this is not a safetensors file", n)
	}
	if int64(n) > size-8 {
		return fmt.Errorf("truncated: header of %d bytes, file of %d; copy it again", n, size)
	}
	header := make([]byte, n)
	if _, err := f.f.ReadAt(header, 8); err != nil {
		return err
	}
	f.base = 8 + int64(n)
	if err := f.parseHeader(header); err != nil {
		return err
	}
	return f.checkLayout(size - f.base)
}

func (f *File) parseHeader(header []byte) error {
	if len(header) == 0 || header[0] != '{' {
		return fmt.Errorf("header does not begin with {; this is not a safetensors file")
	}
	f.byName = make(map[string]int)
	dec := json.NewDecoder(bytes.NewReader(header))
	dec.Token() // the brace
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return fmt.Errorf("header: %w", err)
		}
		name, _ := tok.(string)
		if name == "__metadata__" {
			if f.metadata != nil {
				return fmt.Errorf("header: two __metadata__ entries")
			}
			if err := dec.Decode(&f.metadata); err != nil {
				return fmt.Errorf("header: __metadata__: %w", err)
			}
			continue
		}
		var e struct {
			DType   *string
			Shape   *[]int
			Offsets *[2]int64 `json:"data_offsets"`
		}
		if err := strictDecode(dec, &e); err != nil {
			return fmt.Errorf("header: tensor %q: %w", name, err)
		}
		if e.DType == nil || e.Shape == nil || e.Offsets == nil {
			return fmt.Errorf("header: tensor %q lacks dtype, shape or data_offsets", name)
		}
		if _, twice := f.byName[name]; twice {
			return fmt.Errorf("header: tensor %q occurs twice", name)
		}
		t := Tensor{Name: name, DType: *e.DType, Shape: *e.Shape}
		want, err := t.Bytes()
		if err != nil {
			return fmt.Errorf("header: tensor %q: %w", name, err)
		}
		begin, end := e.Offsets[0], e.Offsets[1]
		if begin < 0 || end < begin || end-begin != want {
			return fmt.Errorf("header: tensor %s: data_offsets [%d,%d] hold %d bytes, want %d", t, begin, end, end-begin, want)
		}
		f.byName[name] = len(f.entries)
		f.entries = append(f.entries, entry{t, begin, end})
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if rest := header[dec.InputOffset():]; len(bytes.Trim(rest, " ")) > 0 {
		return fmt.Errorf("header: %d bytes after its closing brace", len(rest))
	}
	return nil
}

// strictDecode decodes the next value, refusing unknown keys and arrays of the wrong length.
func strictDecode(dec *json.Decoder, into any) error {
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return err
	}
	var offsets struct {
		N []json.RawMessage `json:"data_offsets"`
	}
	if err := json.Unmarshal(raw, &offsets); err != nil {
		return err
	}
	if offsets.N != nil && len(offsets.N) != 2 {
		return fmt.Errorf("data_offsets has %d numbers, want 2", len(offsets.N))
	}
	strict := json.NewDecoder(bytes.NewReader(raw))
	strict.DisallowUnknownFields()
	return strict.Decode(into)
}

// checkLayout requires the tensors to cover the data exactly, as the format does.
func (f *File) checkLayout(dataBytes int64) error {
	order := make([]int, len(f.entries))
	for i := range order {
		order[i] = i
	}
	sort.SliceStable(order, func(i, j int) bool {
		a, b := f.entries[order[i]], f.entries[order[j]]
		if a.begin != b.begin {
			return a.begin < b.begin
		}
		return a.end < b.end
	})
	at, before := int64(0), "the header"
	for _, i := range order {
		e := f.entries[i]
		if e.begin < at {
			return fmt.Errorf("tensor %s overlaps %s: begins at %d, before %d", e.tensor, before, e.begin, at)
		}
		if e.begin > at {
			return fmt.Errorf("%d bytes between %s and tensor %s belong to no tensor", e.begin-at, before, e.tensor)
		}
		at, before = e.end, "tensor "+e.tensor.Name
	}
	if dataBytes < at {
		return fmt.Errorf("truncated: %d of %d bytes of data are there; copy it again", dataBytes, at)
	}
	if dataBytes > at {
		return fmt.Errorf("%d bytes after the last tensor belong to none; copy it again", dataBytes-at)
	}
	return nil
}

// Path is where the file was opened.
func (f *File) Path() string { return f.path }

// Metadata is the file's __metadata__, nil if it has none.
func (f *File) Metadata() map[string]string { return f.metadata }

// Tensors lists the tensors, without data, in the header's order.
func (f *File) Tensors() []Tensor {
	out := make([]Tensor, len(f.entries))
	for i, e := range f.entries {
		out[i] = e.tensor
	}
	return out
}

// Has says whether the file holds a tensor of this name.
func (f *File) Has(name string) bool { _, ok := f.byName[name]; return ok }

func (f *File) find(name string) (entry, error) {
	i, ok := f.byName[name]
	if !ok {
		return entry{}, fmt.Errorf("%s: no tensor %q among its %d", f.path, name, len(f.entries))
	}
	return f.entries[i], nil
}

// ReadInto reads a tensor's data straight into into.Data. Name, type and shape must be
// those of the file; both are named where they differ.
func (f *File) ReadInto(into Tensor) error {
	e, err := f.find(into.Name)
	if err != nil {
		return err
	}
	if e.tensor.DType != into.DType || !slices.Equal(e.tensor.Shape, into.Shape) {
		return fmt.Errorf("%s: tensor %s, the model wants %s", f.path, e.tensor, into)
	}
	if int64(len(into.Data)) != e.end-e.begin {
		return fmt.Errorf("%s: tensor %s: %d bytes to read into, want %d", f.path, into, len(into.Data), e.end-e.begin)
	}
	return f.readAt(into.Data, e)
}

// Read returns one tensor with its data in new memory.
func (f *File) Read(name string) (Tensor, error) {
	e, err := f.find(name)
	if err != nil {
		return Tensor{}, err
	}
	t := e.tensor
	t.Data = make([]byte, e.end-e.begin)
	return t, f.readAt(t.Data, e)
}

func (f *File) readAt(dst []byte, e entry) error {
	if _, err := f.f.ReadAt(dst, f.base+e.begin); err != nil {
		return fmt.Errorf("%s: tensor %s: %w", f.path, e.tensor, err)
	}
	return nil
}

// Reader streams one tensor's data, for tensors that go to a device in pieces.
func (f *File) Reader(name string) (io.Reader, error) {
	e, err := f.find(name)
	if err != nil {
		return nil, err
	}
	return bufio.NewReaderSize(io.NewSectionReader(f.f, f.base+e.begin, e.end-e.begin), 1<<18), nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }

// ReadFile reads a whole safetensors file into memory, in the header's order.
func ReadFile(path string) ([]Tensor, map[string]string, error) {
	f, err := OpenFile(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	out := f.Tensors()
	for i := range out {
		if out[i], err = f.Read(out[i].Name); err != nil {
			return nil, nil, err
		}
	}
	return out, f.metadata, nil
}
