package feed

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// span is the bytes of a file, or of a file inside a shard.
type span struct {
	file           string
	offset, length int64
}

func (s span) open() (*os.File, *io.SectionReader, error) {
	f, err := os.Open(s.file)
	if err != nil {
		return nil, nil, err
	}
	return f, io.NewSectionReader(f, s.offset, s.length), nil
}

func (s span) read() ([]byte, error) {
	f, r, err := s.open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, s.length)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	return data, nil
}

// entry is a usable sample of a collection.
type entry struct {
	name    string
	image   span
	caption string
}

// collection is a source of files; captions are kept in memory, pictures are not.
type collection struct {
	entries []entry
	report  Report
}

func (c *collection) Len() uint64 { return uint64(len(c.entries)) }

func (c *collection) Report() Report {
	r := c.report
	r.Skipped = slices.Clone(r.Skipped)
	r.Faults = slices.Clone(r.Faults)
	return r
}

func (c *collection) entry(i uint64) (entry, error) {
	if i >= uint64(len(c.entries)) {
		return entry{}, fmt.Errorf("%s: no sample %d, there are %d", c.report.Source, i, len(c.entries))
	}
	return c.entries[i], nil
}

func (c *collection) Caption(i uint64) (string, error) {
	e, err := c.entry(i)
	return e.caption, err
}

func (c *collection) At(i uint64) (Sample, error) {
	e, err := c.entry(i)
	if err != nil {
		return Sample{}, err
	}
	data, err := e.image.read()
	if err != nil {
		return Sample{}, &SkipError{e.name, ReasonUnreadable, err}
	}
	p, err := decode(data)
	if err != nil {
		return Sample{}, &SkipError{e.name, ReasonBadImage, err}
	}
	return Sample{p, e.caption, e.name}, nil
}

// halves gathers the files of one sample while a collection is listed.
type halves struct {
	name        string
	image, text *span
}

// gathering groups files by key, in the order in which keys first occur.
type gathering struct {
	order   []*halves
	byKey   map[string]*halves
	tally   tally
	filters []Filter
	entries []entry
}

func (g *gathering) add(key, name, ext string, s span) {
	image := imageExtensions[ext]
	if !image && ext != "txt" {
		return
	}
	h := g.byKey[key]
	if h == nil {
		h = &halves{name: name}
		g.byKey[key] = h
		g.order = append(g.order, h)
	}
	half := &h.text
	if image {
		half = &h.image
	}
	if *half != nil {
		g.tally.add(ReasonDuplicate, 1, name+"."+ext)
		return
	}
	*half = &s
}

// flush turns what was gathered into entries, reading captions and image headers.
func (g *gathering) flush() {
	for _, h := range g.order {
		e, skip := h.entry(g.filters)
		if skip != nil {
			g.tally.skip(skip)
			continue
		}
		g.entries = append(g.entries, e)
	}
	g.order, g.byKey = nil, map[string]*halves{}
}

func (h *halves) entry(filters []Filter) (entry, *SkipError) {
	switch {
	case h.image == nil:
		return entry{}, &SkipError{h.name, ReasonNoImage, nil}
	case h.text == nil:
		return entry{}, &SkipError{h.name, ReasonNoCaption, nil}
	}
	raw, err := h.text.read()
	if err != nil {
		return entry{}, &SkipError{h.name, ReasonUnreadable, err}
	}
	caption, reason := cleanCaption(raw)
	if reason != "" {
		return entry{}, &SkipError{h.name, reason, nil}
	}
	f, r, err := h.image.open()
	if err != nil {
		return entry{}, &SkipError{h.name, ReasonUnreadable, err}
	}
	defer f.Close()
	width, height, err := dimensions(r)
	if err != nil {
		return entry{}, &SkipError{h.name, ReasonBadImage, err}
	}
	if width > maxPixels/height {
		return entry{}, &SkipError{h.name, ReasonHuge, nil}
	}
	for _, f := range filters {
		if f.Drop(Info{width, height, caption}) {
			return entry{}, &SkipError{h.name, f.Reason, nil}
		}
	}
	return entry{h.name, *h.image, caption}, nil
}

func (g *gathering) collection(source string, faults []string, advice string) (Source, error) {
	r := Report{Source: source, Usable: uint64(len(g.entries)), Skipped: g.tally.list(), Faults: faults}
	if len(g.entries) == 0 {
		return nil, unusable(r, advice)
	}
	return &collection{g.entries, r}, nil
}

// Folder is a folder, with its subfolders, of pictures (png, jpg, jpeg, webp), each
// beside a caption of the same name with .txt. The order is that of the sorted paths.
// Headers of pictures and all captions are read at once; pictures when asked for.
func Folder(dir string, filters ...Filter) (Source, error) {
	g := &gathering{byKey: map[string]*halves{}, filters: filters}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			if p == dir {
				return err
			}
			g.tally.skip(&SkipError{p, ReasonUnreadable, err})
			return nil
		}
		if strings.HasPrefix(d.Name(), ".") && p != dir {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		info, err := os.Stat(p) // follows links
		if err != nil || !info.Mode().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		ext := filepath.Ext(rel)
		key := strings.TrimSuffix(rel, ext)
		g.add(key, key, strings.ToLower(strings.TrimPrefix(ext, ".")), span{p, 0, info.Size()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", dir, cause(err))
	}
	g.flush()
	return g.collection("folder "+dir, nil, "put NAME.txt with a caption beside every NAME.png, .jpg, .jpeg or .webp")
}

// cause drops the operation and path of a file error, which the message has already.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Shards is a set of WebDataset tar files: files whose paths agree up to the first
// dot of the base name form a sample, of which png, jpg, jpeg or webp is the picture
// and txt the caption; others, such as json, are ignored. A pattern may use *, ? and
// [] as in a shell, and one or more numeric ranges such as {000..127}. Shards are
// taken in sorted order. From a damaged or truncated shard the samples before the
// damage are used, and the report has a line about the rest, as about numbers of a
// range that have no file.
func Shards(pattern string, filters ...Filter) (Source, error) {
	var files, missing []string
	for _, p := range expandRanges(pattern) {
		match, err := filepath.Glob(p)
		if err != nil {
			return nil, fmt.Errorf("shards %s: %w: quote special characters with a backslash", pattern, err)
		}
		if len(match) == 0 {
			missing = append(missing, p)
		}
		files = append(files, match...)
	}
	slices.Sort(files)
	files = slices.Compact(files)
	if len(files) == 0 {
		return nil, fmt.Errorf("shards %s: no file matches: check the path, or name a folder of pictures", pattern)
	}
	g := &gathering{byKey: map[string]*halves{}, filters: filters}
	var faults []string
	switch n := len(missing); {
	case n == 1:
		faults = append(faults, fmt.Sprintf("shard %s: no such file", missing[0]))
	case n > 1:
		faults = append(faults, fmt.Sprintf("shards %s to %s: %d of the range have no file", missing[0], missing[n-1], n))
	}
	for _, f := range files {
		if fault := g.shard(f); fault != "" {
			faults = append(faults, fault)
		}
		g.flush()
	}
	return g.collection("shards "+pattern, faults, "a shard holds KEY.png, .jpg, .jpeg or .webp next to KEY.txt")
}

// shard lists one tar file, and describes what of it can't be read.
func (g *gathering) shard(file string) (fault string) {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Sprintf("shard %s: %v: none of it is used", file, cause(err))
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Sprintf("shard %s: %v: none of it is used", file, cause(err))
	}
	if info.IsDir() {
		return fmt.Sprintf("shard %s: is a folder: none of it is used", file)
	}
	var magic [4]byte
	if n, _ := f.ReadAt(magic[:], 0); n == 4 {
		for head, how := range map[string]string{"\x1f\x8b": "gunzip", "\x28\xb5\x2f\xfd": "unzstd", "BZh": "bunzip2"} {
			if bytes.HasPrefix(magic[:], []byte(head)) {
				return fmt.Sprintf("shard %s: is compressed: %s it first", file, how)
			}
		}
	}
	r := tar.NewReader(f)
	read := 0
	for end := int64(0); ; {
		h, err := r.Next()
		if err == io.EOF {
			if info.Size() < end+512 {
				return fmt.Sprintf("shard %s: ends at %d without the mark of an archive's end, so it may be cut: its %d files are used", file, info.Size(), read)
			}
			return ""
		}
		if err != nil {
			return fmt.Sprintf("shard %s: not readable from offset %d of %d on (%v): the %d files before are used", file, end, info.Size(), err, read)
		}
		// The reader of archive/tar takes whole 512-byte blocks and seeks over
		// data, so the file's offset is where this entry's data starts.
		start, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return fmt.Sprintf("shard %s: %v", file, cause(err))
		}
		if start+h.Size > info.Size() {
			return fmt.Sprintf("shard %s: %s is cut off: its data starts at offset %d and needs %d bytes, the file ends at %d: the %d files before are used",
				file, h.Name, start, h.Size, info.Size(), read)
		}
		end = start + (h.Size+511)/512*512
		read++
		if h.Typeflag != tar.TypeReg {
			continue
		}
		dir, base := path.Split(h.Name)
		stem, ext, _ := strings.Cut(base, ".")
		if stem == "" {
			continue // a hidden file
		}
		key := dir + stem
		g.add(key, file+":"+key, strings.ToLower(ext), span{file, start, h.Size})
	}
}

// expandRanges expands {LO..HI} with numbers, keeping leading zeros.
func expandRanges(pattern string) []string {
	open := strings.IndexByte(pattern, '{')
	if open < 0 {
		return []string{pattern}
	}
	length := strings.IndexByte(pattern[open:], '}')
	if length < 0 {
		return []string{pattern}
	}
	inside, rest := pattern[open+1:open+length], expandRanges(pattern[open+length+1:])
	lo, hi, isRange := strings.Cut(inside, "..")
	a, errA := strconv.ParseUint(lo, 10, 32)
	b, errB := strconv.ParseUint(hi, 10, 32)
	var out []string
	if !isRange || errA != nil || errB != nil || b < a || b-a >= 1_000_000 {
		for _, r := range rest {
			out = append(out, pattern[:open+length+1]+r)
		}
		return out
	}
	for n := a; n <= b; n++ {
		for _, r := range rest {
			out = append(out, fmt.Sprintf("%s%0*d%s", pattern[:open], len(lo), n, r))
		}
	}
	return out
}
