package feed

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Report says what a source holds and what of it is not used.
type Report struct {
	Source  string
	Usable  uint64 // samples left; 0 for a source without end
	Skipped []Skipped
	// Faults are shards that could only be read in part: name, offset and cause.
	Faults []string
}

// Skipped counts the samples skipped for one reason.
type Skipped struct {
	Reason string
	Count  int
	Names  []string // the first few
}

// namesKept is how many names a report shows for each reason.
const namesKept = 5

// Total is the number of samples skipped.
func (r Report) Total() int {
	n := 0
	for _, s := range r.Skipped {
		n += s.Count
	}
	return n
}

// String is a first line with the counts, then one line for each reason and fault.
func (r Report) String() string {
	var b strings.Builder
	if r.Usable > 0 {
		fmt.Fprintf(&b, "%s: %d samples, %d skipped", r.Source, r.Usable, r.Total())
	} else {
		fmt.Fprintf(&b, "%s: %d skipped", r.Source, r.Total())
	}
	for _, s := range r.Skipped {
		more := ""
		if s.Count > len(s.Names) {
			more = ", ..."
		}
		fmt.Fprintf(&b, "\n  %d %s: %s%s", s.Count, s.Reason, strings.Join(s.Names, ", "), more)
	}
	for _, f := range r.Faults {
		b.WriteString("\n  " + f)
	}
	return b.String()
}

// Add merges another report's skips and faults into this one.
func (r *Report) Add(o Report) {
	t := tally{skipped: r.Skipped}
	for _, s := range o.Skipped {
		t.add(s.Reason, s.Count, s.Names...)
	}
	r.Skipped = t.list()
	r.Faults = append(slices.Clone(r.Faults), o.Faults...)
}

// tally counts skips; it may be used from several goroutines.
type tally struct {
	mu      sync.Mutex
	skipped []Skipped
}

func (t *tally) add(reason string, count int, names ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := slices.IndexFunc(t.skipped, func(s Skipped) bool { return s.Reason == reason })
	if at < 0 {
		at = len(t.skipped)
		t.skipped = append(t.skipped, Skipped{Reason: reason})
	}
	s := &t.skipped[at]
	s.Count += count
	for _, n := range names {
		if len(s.Names) < namesKept {
			s.Names = append(slices.Clone(s.Names), n)
		}
	}
}

func (t *tally) skip(e *SkipError) { t.add(e.Reason, 1, e.Name) }

// list sorts by reason, so that a report doesn't depend on the order of discovery.
func (t *tally) list() []Skipped {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Skipped, len(t.skipped))
	for i, s := range t.skipped {
		out[i] = Skipped{s.Reason, s.Count, slices.Clone(s.Names)}
	}
	slices.SortFunc(out, func(a, b Skipped) int { return strings.Compare(a.Reason, b.Reason) })
	return out
}

// unusable is the error of a source in which nothing is left.
func unusable(r Report, advice string) error {
	var why []string
	for _, s := range r.Skipped {
		why = append(why, fmt.Sprintf("%d %s, such as %s", s.Count, s.Reason, s.Names[0]))
	}
	why = append(why, r.Faults...)
	if len(why) == 0 {
		return fmt.Errorf("%s: no captioned pictures: %s", r.Source, advice)
	}
	return fmt.Errorf("%s: no usable captioned picture (%s): %s", r.Source, strings.Join(why, "; "), advice)
}

// Validate decodes every sample of a finite source and reports all that can't be
// used. progress, which may be nil, is called after each sample.
func Validate(ctx context.Context, src Source, progress func(done, total uint64)) (Report, error) {
	r := src.Report()
	n := src.Len()
	if n == 0 {
		return r, fmt.Errorf("%s: has no end, there is nothing to validate", r.Source)
	}
	var t tally
	for i := range n {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		_, err := src.At(i)
		var skip *SkipError
		switch {
		case errors.As(err, &skip):
			t.skip(skip)
		case err != nil:
			return r, err
		}
		if progress != nil {
			progress(i+1, n)
		}
	}
	found := Report{Skipped: t.list()}
	r.Usable = n - uint64(found.Total())
	r.Add(found)
	return r, nil
}
