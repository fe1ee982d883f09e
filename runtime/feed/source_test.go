package feed

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const emojiShard = "testdata/emoji.tar"

// file is a member of a tar file or folder made for a test.
type file struct {
	name string
	data []byte
}

func emoji(t *testing.T) []file {
	t.Helper()
	f, err := os.Open(emojiShard)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []file
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, file{h.Name, data})
	}
}

func (f file) in(t *testing.T, dir string) {
	t.Helper()
	p := filepath.Join(dir, f.name)
	if err := os.MkdirAll(filepath.Dir(p), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, f.data, 0o666); err != nil {
		t.Fatal(err)
	}
}

func tarred(t *testing.T, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func emojiFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range emoji(t) {
		f.in(t, dir)
	}
	return dir
}

var emojiCaptions = []string{"glasses", "customs", "feather", "taco", "crutch", "mobile phone", "goose", "satellite"}

func TestShardAndFolderGiveTheSameSamples(t *testing.T) {
	shard, err := Open(emojiShard, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	folder, err := Open(emojiFolder(t), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if shard.Len() != 8 || folder.Len() != 8 {
		t.Fatalf("%d samples in the shard, %d in the folder, want 8", shard.Len(), folder.Len())
	}
	for i, want := range emojiCaptions {
		a, err := shard.At(uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		b, err := folder.At(uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		if a.Caption != want || b.Caption != want {
			t.Errorf("sample %d is %q in the shard, %q in the folder, want %q", i, a.Caption, b.Caption, want)
		}
		if !slices.Equal(a.Pixels, b.Pixels) || a.Width != 128 || a.Height != 128 {
			t.Errorf("sample %d differs, or isn't 128x128", i)
		}
		// All have a transparent corner, or had before they were put on white.
		if !near(a.Pixels[:3], 255, 3) {
			t.Errorf("sample %d (%s): the transparent corner is %v, want white", i, want, a.Pixels[:3])
		}
		if c, err := shard.Caption(uint64(i)); err != nil || c != want {
			t.Errorf("caption %d is %q, %v", i, c, err)
		}
	}
	if _, err := shard.At(8); err == nil || !strings.Contains(err.Error(), "no sample 8, there are 8") {
		t.Errorf("beyond the end: %v", err)
	}
	r := shard.Report()
	if r.Usable != 8 || r.Total() != 0 || len(r.Faults) != 0 {
		t.Errorf("%+v", r)
	}
}

func near(px []uint8, want, tolerance int) bool {
	for _, v := range px {
		if int(v) < want-tolerance || int(v) > want+tolerance {
			return false
		}
	}
	return true
}

// spoiled are three good samples among seven bad ones, one for every reason.
func spoiled(t *testing.T) []file {
	e := emoji(t)
	png, taco := e[0].data, e[9].data
	return []file{
		{"a.png", png}, {"a.txt", []byte(" glasses,\n  clear ")},
		{"b.png", png},
		{"c.txt", []byte("nothing to see")},
		{"d.png", []byte("this is no image")}, {"d.txt", []byte("broken header")},
		{"e.png", png[:len(png)/2]}, {"e.txt", []byte("cut in half")},
		{"f.png", png}, {"f.txt", []byte(" \n\t")},
		{"g.png", png}, {"g.txt", []byte{0xff, 0xfe, 'x'}},
		{"h.png", taco}, {"h.txt", []byte("a JPEG called PNG")}, {"h.json", []byte("{}")},
		{"i.png", nil}, {"i.txt", []byte("empty file")},
		{"j.JPG", taco}, {"j.txt", []byte("upper case")}, {"j.jpeg", taco},
	}
}

func TestBadSamplesAreSkippedAndCounted(t *testing.T) {
	dir := t.TempDir()
	for _, f := range spoiled(t) {
		f.in(t, dir)
	}
	shard := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(shard, tarred(t, spoiled(t)), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, shard} {
		src, err := Open(name, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		var captions []string
		for i := range src.Len() {
			c, err := src.Caption(i)
			if err != nil {
				t.Fatal(err)
			}
			captions = append(captions, c)
		}
		// e has a good header: that it is cut shows only when it is decoded.
		if want := []string{"glasses, clear", "cut in half", "a JPEG called PNG", "upper case"}; !slices.Equal(captions, want) {
			t.Errorf("captions are %q, want %q", captions, want)
		}
		calls := 0
		r, err := Validate(context.Background(), src, func(done, total uint64) { calls++ })
		if err != nil {
			t.Fatal(err)
		}
		if r.Usable != 3 || calls != 4 {
			t.Errorf("%d usable after %d calls, want 3 after 4", r.Usable, calls)
		}
		got := map[string]int{}
		for _, s := range r.Skipped {
			got[s.Reason] = s.Count
			if len(s.Names) != s.Count {
				t.Errorf("%s: %d of %d named", s.Reason, len(s.Names), s.Count)
			}
		}
		want := map[string]int{ReasonNoCaption: 1, ReasonNoImage: 1, ReasonBadImage: 3, ReasonEmptyCaption: 1, ReasonBadText: 1, ReasonDuplicate: 1}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: skipped %v, want %v", name, got, want)
		}
		if s := r.String(); !strings.Contains(s, "3 samples, 8 skipped") || !strings.Contains(s, "1 without a caption: ") {
			t.Errorf("report reads\n%s", s)
		}
	}
}

func TestNumbersWithoutAShardAreReported(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "s-01.tar"), tarred(t, emoji(t)), 0o666); err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]string{
		"s-{00..04}.tar": "shards " + dir + "/s-00.tar to " + dir + "/s-04.tar: 4 of the range have no file",
		"s-{01..02}.tar": "shard " + dir + "/s-02.tar: no such file",
		"s-{01..01}.tar": "",
	} {
		src, err := Shards(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(src.Report().Faults, "\n"); got != want {
			t.Errorf("%s: faults are %q, want %q", pattern, got, want)
		}
	}
}

func TestTruncatedShardKeepsWhatComesBefore(t *testing.T) {
	whole := tarred(t, emoji(t))
	// Entry 9 is the taco; its data starts after nine entries and its own header.
	start := int64(0)
	for _, f := range emoji(t)[:9] {
		start += 512 + (int64(len(f.data))+511)/512*512
	}
	start += 512
	for name, c := range map[string]struct {
		data []byte
		used uint64
		want string
	}{
		"inside data":   {whole[:start+100], 3, fmt.Sprintf("emoji/000003.jpg is cut off: its data starts at offset %d", start)},
		"inside header": {whole[:start-200], 3, fmt.Sprintf("not readable from offset %d", start-512)},
		"no end mark":   {whole[:start-512], 3, "without the mark of an archive's end"},
		"garbage": {append(append(slices.Clone(whole[:start-512]), bytes.Repeat([]byte{0xAB}, 2048)...), whole[start:]...), 3,
			fmt.Sprintf("not readable from offset %d", start-512)},
	} {
		path := filepath.Join(t.TempDir(), "s.tar")
		if err := os.WriteFile(path, c.data, 0o666); err != nil {
			t.Fatal(err)
		}
		src, err := Shards(path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if src.Len() != c.used {
			t.Errorf("%s: %d samples, want %d", name, src.Len(), c.used)
		}
		for i := range src.Len() {
			if _, err := src.At(i); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		faults := strings.Join(src.Report().Faults, "\n")
		if c.want == "" && faults != "" || !strings.Contains(faults, c.want) || c.want != "" && !strings.Contains(faults, path) {
			t.Errorf("%s: fault is %q, want %q", name, faults, c.want)
		}
	}
}

func TestPatternsTakeRangesAndSort(t *testing.T) {
	dir := t.TempDir()
	e := emoji(t)
	for i := range 3 {
		f := file{fmt.Sprintf("s-%02d.tar", 9+i), tarred(t, e[i*3:i*3+3])}
		f.in(t, dir)
	}
	for pattern, want := range map[string]string{
		"s-*.tar":         "glasses customs feather",
		"s-{09..10}.tar":  "glasses customs",
		"s-{10..12}.tar":  "customs feather",
		"s-1[01].tar":     "customs feather",
		"{s,t}-09.tar":    "",
		"missing-*.tar":   "",
		"s-{10..09}.tar":  "",
		"s-09.tar":        "glasses",
		"s-{0..1}{1}.tar": "",
	} {
		src, err := Shards(filepath.Join(dir, pattern))
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "no file matches") {
				t.Errorf("%s: %v", pattern, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := range src.Len() {
			c, _ := src.Caption(i)
			got = append(got, c)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
	}
}

func TestNothingUsableIsAOneLineError(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o777); err != nil {
		t.Fatal(err)
	}
	file{"half/a.png", emoji(t)[0].data}.in(t, dir)
	file{"zipped.tar", []byte("\x1f\x8b\x08\x00....")}.in(t, dir)
	for name, want := range map[string]string{
		empty:                                "folder " + empty + ": no captioned pictures: put NAME.txt",
		filepath.Join(dir, "half"):           "no usable captioned picture (1 without a caption, such as a): put NAME.txt",
		filepath.Join(dir, "zipped.tar"):     "is compressed: gunzip it first",
		filepath.Join(dir, "absent"):         "no file matches: check the path",
		filepath.Join(dir, "[bad", "x.tar"):  "syntax error in pattern",
		"":                                   "empty name",
		filepath.Join(dir, "half", "a.png"):  "not readable from offset 0",
		filepath.Join(dir, "half", "no.tar"): "no file matches",
	} {
		_, err := Open(name, 32, 0)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
	if _, err := Open("shapes", 4, 0); err == nil || !strings.Contains(err.Error(), "16..1024") {
		t.Errorf("shapes of 4 pixels: %v", err)
	}
}

func TestFiltersDropAndCount(t *testing.T) {
	src, err := Open(emojiShard, 0, 0, MinWords(2), MinSide(64), MaxAspect(2))
	if err != nil {
		t.Fatal(err)
	}
	if src.Len() != 1 || src.Report().Skipped[0].Reason != "caption below 2 words" || src.Report().Skipped[0].Count != 7 {
		t.Errorf("%v", src.Report())
	}
	_, err = Open(emojiShard, 0, 0, MinSide(129))
	if err == nil || !strings.Contains(err.Error(), "8 shorter side below 129, such as "+emojiShard+":emoji/000000") {
		t.Errorf("%v", err)
	}
	if f := MaxAspect(2); f.Drop(Info{Width: 200, Height: 100}) || !f.Drop(Info{Width: 100, Height: 201}) {
		t.Error("an aspect ratio of exactly 2 is kept, above is dropped")
	}
}

func TestEveryFormatDecodes(t *testing.T) {
	e := emoji(t)
	formats := map[string]bool{}
	for _, f := range e {
		ext := strings.TrimPrefix(filepath.Ext(f.name), ".")
		if !imageExtensions[ext] {
			continue
		}
		formats[ext] = true
		p, err := decode(f.data)
		if err != nil || p.Check() != nil || p.Width != 128 {
			t.Errorf("%s: %v", f.name, err)
		}
		for cut := 0; cut < len(f.data); cut += 97 {
			// A cut file may decode (JPEG fills in) but must not panic.
			if p, err := decode(f.data[:cut]); err == nil && p.Check() != nil {
				t.Errorf("%s cut at %d: %v", f.name, cut, p.Check())
			}
		}
	}
	if len(formats) != 3 {
		t.Errorf("the test data has formats %v, want png, jpg and webp", formats)
	}
}
