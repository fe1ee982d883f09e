package feed

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/gouache-ml/gouache/runtime/feed/picture"
	"github.com/gouache-ml/gouache/runtime/feed/shapes"
)

// Sample is a captioned picture of any size.
type Sample struct {
	picture.Picture
	Caption string
	Name    string // where it comes from, for messages
}

// Source is a collection of captioned pictures, looked up by index; its methods may
// be called from several goroutines at once.
type Source interface {
	// Len is the number of samples, 0 for a source without end. It includes samples
	// that At may still find unusable.
	Len() uint64
	// At decodes sample i. A *SkipError says that this one sample can't be used;
	// any other error ends the run.
	At(i uint64) (Sample, error)
	// Caption is the caption of sample i, without decoding the picture where that
	// can be avoided.
	Caption(i uint64) (string, error)
	// Report says what was found and what was skipped when the source was opened.
	Report() Report
}

// SkipError tells that one sample can't be used, and why.
type SkipError struct {
	Name   string // the sample
	Reason string // one of a small set, to count by
	Err    error  // what happened, may be nil
}

func (e *SkipError) Error() string {
	if e.Err == nil {
		return e.Name + ": " + e.Reason
	}
	return e.Name + ": " + e.Reason + ": " + e.Err.Error()
}

func (e *SkipError) Unwrap() error { return e.Err }

// Info is what a Filter can judge by.
type Info struct {
	Width, Height int
	Caption       string
}

// Filter drops samples when a source is opened. Reason is what they are counted under.
type Filter struct {
	Reason string
	Drop   func(Info) bool
}

// MinSide drops pictures whose shorter side is below n: a crop of n would not fit.
func MinSide(n int) Filter {
	return Filter{fmt.Sprintf("shorter side below %d", n), func(i Info) bool { return min(i.Width, i.Height) < n }}
}

// MaxAspect drops pictures whose longer side exceeds ratio times the shorter; the
// paper uses 2.
func MaxAspect(ratio float64) Filter {
	return Filter{fmt.Sprintf("aspect ratio above %g", ratio), func(i Info) bool {
		return float64(max(i.Width, i.Height)) > ratio*float64(min(i.Width, i.Height))
	}}
}

// MinWords drops captions of fewer than n words.
func MinWords(n int) Filter {
	return Filter{fmt.Sprintf("caption below %d words", n), func(i Info) bool { return len(strings.Fields(i.Caption)) < n }}
}

// Open opens a source by name: "shapes" (drawn, at the given side and seed), a folder
// of pictures with .txt captions, or a pattern of WebDataset shards such as
// "data/train-{000..127}.tar". Side and seed matter to shapes alone, filters to
// everything else.
func Open(name string, side int, seed uint64, filters ...Filter) (Source, error) {
	if name == "shapes" {
		return Shapes(shapes.Source{Seed: seed, Size: side})
	}
	if name == "" {
		return nil, errors.New(`data source: empty name, want "shapes", a folder, or a pattern of .tar shards`)
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return Folder(name, filters...)
	}
	return Shards(name, filters...)
}

// Shapes is the drawn source: endless, square pictures of one size.
func Shapes(s shapes.Source) (Source, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	return drawn{s}, nil
}

type drawn struct{ src shapes.Source }

func (d drawn) Len() uint64 { return 0 }

func (d drawn) At(i uint64) (Sample, error) {
	img, caption := d.src.Sample(i)
	return Sample{picture.Square(img, d.src.Side()), caption, fmt.Sprintf("shapes %d", i)}, nil
}

func (d drawn) Caption(i uint64) (string, error) {
	return d.src.Caption(i), nil
}

func (d drawn) Report() Report {
	return Report{Source: fmt.Sprintf("shapes %dx%d, seed %d", d.src.Side(), d.src.Side(), d.src.Seed)}
}
