package snapshot

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func sample(seed byte) []Tensor {
	fill := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(i)*7 + seed
		}
		return b
	}
	return []Tensor{
		{Name: "res0.wi", DType: "F16", Shape: []int{3, 5}, Data: fill(30)},
		{Name: "res0.gain", DType: "F32", Shape: []int{5}, Data: fill(20)},
		{Name: "res0.scale", DType: "F32", Shape: []int{}, Data: fill(4)},
		{Name: "m", DType: "U16", Shape: []int{7}, Data: fill(14)},
		{Name: "skip", DType: "BOOL", Shape: []int{3}, Data: []byte{1, 0, 1}},
		{Name: "none", DType: "I8", Shape: []int{0, 4}},
		{Name: "é\n\"", DType: "BF16", Shape: []int{1}, Data: fill(2)},
	}
}

func sameTensors(a, b []Tensor) error {
	byName := map[string]Tensor{}
	for _, t := range a {
		byName[t.Name] = t
	}
	if len(a) != len(b) {
		return fmt.Errorf("%d tensors, want %d", len(b), len(a))
	}
	for _, t := range b {
		w := byName[t.Name]
		if t.String() != w.String() || !bytes.Equal(t.Data, w.Data) {
			return fmt.Errorf("%s %x, want %s %x", t, t.Data, w, w.Data)
		}
	}
	return nil
}

func TestWriteThenReadGivesTheSameTensors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	meta := map[string]string{"m": "e6m9", "format": "pt"}
	if err := WriteFile(path, sample(1), meta); err != nil {
		t.Fatal(err)
	}
	got, gotMeta, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := sameTensors(sample(1), got); err != nil {
		t.Error(err)
	}
	if !maps.Equal(meta, gotMeta) {
		t.Errorf("metadata %v, want %v", gotMeta, meta)
	}
}

func TestDataIsAligned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	WriteFile(path, sample(1), nil)
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, e := range f.entries {
		if (f.base+e.begin)%int64(elementBytes[e.tensor.DType]) != 0 {
			t.Errorf("%s begins at byte %d", e.tensor, f.base+e.begin)
		}
	}
}

// The bytes were laid out by hand after the format's description.
func TestFileBytesFollowTheFormat(t *testing.T) {
	var b bytes.Buffer
	err := Write(&b, []Tensor{{Name: "a", DType: "U8", Shape: []int{2}, Data: []byte{1, 2}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "3800000000000000" + hex.EncodeToString([]byte(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}   `)) + "0102"
	if got := hex.EncodeToString(b.Bytes()); got != want {
		t.Errorf("\n%s, want\n%s", got, want)
	}
}

func TestStreamedTensorsMustHaveTheirSize(t *testing.T) {
	stream := func(n int) []Tensor {
		return []Tensor{{Name: "s", DType: "F32", Shape: []int{2}, Stream: func(w io.Writer) error {
			_, err := w.Write(make([]byte, n))
			return err
		}}}
	}
	if err := Write(io.Discard, stream(8), nil); err != nil {
		t.Error(err)
	}
	err := Write(io.Discard, stream(7), nil)
	if err == nil || err.Error() != "tensor s f32[2]: 7 bytes streamed, want 8" {
		t.Errorf("7 of 8 bytes: %v", err)
	}
}

func TestReadIntoNamesBothTensorsThatDiffer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.safetensors")
	WriteFile(path, sample(1), nil)
	f, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := make([]byte, 30)
	if err := f.ReadInto(Tensor{Name: "res0.wi", DType: "F16", Shape: []int{3, 5}, Data: buf}); err != nil || !bytes.Equal(buf, sample(1)[0].Data) {
		t.Errorf("%x %v", buf, err)
	}
	err = f.ReadInto(Tensor{Name: "res0.wi", DType: "F16", Shape: []int{5, 3}, Data: buf})
	if want := path + ": tensor res0.wi f16[3,5], the model wants res0.wi f16[5,3]"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if _, err := f.Read("nope"); err == nil || !strings.Contains(err.Error(), `no tensor "nope"`) {
		t.Errorf("%v", err)
	}
}

func TestBadFilesAreRefusedInOneLine(t *testing.T) {
	file := func(header string, data int) []byte {
		b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
		b = append(b, header...)
		return append(b, make([]byte, data)...)
	}
	entry := func(name string, begin, end int) string {
		return fmt.Sprintf(`"%s":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}`, name, end-begin, begin, end)
	}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "too short"},
		{"text", []byte("hello, I am no tensor file"), "this is not a safetensors file"},
		{"header cut", file("{"+entry("a", 0, 4)+"}", 0)[:20], "truncated: header"},
		{"data cut", file("{"+entry("a", 0, 4)+"}", 3), "truncated: 3 of 4"},
		{"data long", file("{"+entry("a", 0, 4)+"}", 5), "1 bytes after the last tensor"},
		{"overlap", file("{"+entry("a", 0, 4)+","+entry("b", 3, 6)+"}", 6), "tensor b u8[3] overlaps tensor a"},
		{"gap", file("{"+entry("a", 0, 4)+","+entry("b", 5, 6)+"}", 6), "1 bytes between tensor a and tensor b"},
		{"twice", file("{"+entry("a", 0, 4)+","+entry("a", 4, 6)+"}", 6), "occurs twice"},
		{"size", file(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}`, 4), "hold 4 bytes, want 8"},
		{"negative", file(`{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}`, 4), "negative dimension"},
		{"huge", file(`{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}`, 4), "too large"},
		{"dtype", file(`{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}`, 4), `unknown dtype "F33"`},
		{"lacks", file(`{"a":{"dtype":"F32","shape":[1]}}`, 4), "lacks dtype, shape or data_offsets"},
		{"three", file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}`, 4), "has 3 numbers"},
		{"unknown", file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}}`, 4), `unknown field "x"`},
		{"after", file("{"+entry("a", 0, 4)+"} x", 4), "after its closing brace"},
		{"json", file(`{"a":{"dtype"`, 4), "header"},
	} {
		path := filepath.Join(t.TempDir(), "bad.safetensors")
		os.WriteFile(path, c.file, 0o644)
		_, err := OpenFile(path)
		if err == nil || !strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line with %q", c.name, err, c.want)
		}
	}
}

func TestAnyChangedHeaderByteIsSafe(t *testing.T) {
	var good bytes.Buffer
	if err := Write(&good, sample(3), map[string]string{"m": "e6m9"}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "f.safetensors")
	rapid.Check(t, func(t *rapid.T) {
		b := bytes.Clone(good.Bytes())
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			b[rapid.IntRange(0, 500).Draw(t, "at")] = rapid.Byte().Draw(t, "to")
		}
		b = b[:rapid.IntRange(0, len(b)).Draw(t, "length")]
		os.WriteFile(path, b, 0o644)
		tensors, _, err := ReadFile(path) // must not panic, nor read past the end
		for _, x := range tensors {
			if n, _ := x.Bytes(); err == nil && int64(len(x.Data)) != n {
				t.Fatalf("%s: %d bytes", x, len(x.Data))
			}
		}
	})
}

func TestWriteRefusesTensorsThatDoNotFit(t *testing.T) {
	for want, tensors := range map[string][]Tensor{
		"used twice":          {{Name: "a", DType: "U8", Shape: []int{0}}, {Name: "a", DType: "U8", Shape: []int{0}}},
		"reserved":            {{Name: "__metadata__", DType: "U8", Shape: []int{0}}},
		"3 bytes of data":     {{Name: "a", DType: "F32", Shape: []int{1}, Data: make([]byte, 3)}},
		"unknown dtype \"x\"": {{Name: "a", DType: "x"}},
	} {
		var b bytes.Buffer
		if err := Write(&b, tensors, nil); err == nil || !strings.Contains(err.Error(), want) || b.Len() > 0 {
			t.Errorf("%v after %d bytes, want %q before any", err, b.Len(), want)
		}
	}
}
