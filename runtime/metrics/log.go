package metrics

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"strconv"
)

// Record is one line of metrics.jsonl.
type Record struct {
	Step   int64
	Values map[string]float64
}

// Log appends records to metrics.jsonl. A record is one write, so that a kill
// tears at most the last line, which the next OpenLog removes.
type Log struct {
	lineFile
	line []byte
}

// lineFile is a file that lines are appended to.
type lineFile struct{ f *os.File }

// Sync forces the file to disk; trainers call it before they commit a snapshot.
func (l *lineFile) Sync() error { return l.f.Sync() }

// Close closes the file.
func (l *lineFile) Close() error { return l.f.Close() }

// OpenLog opens or creates a log for a run that goes on after resumeStep: records
// of later steps are cut off. resumeStep -1 begins an empty log.
func OpenLog(path string, resumeStep int64) (*Log, error) {
	f, err := openLines(path, resumeStep, parseRecord, func(r Record) int64 { return r.Step })
	if err != nil {
		return nil, err
	}
	return &Log{lineFile: lineFile{f}}, nil
}

// openLines opens or creates a file of lines that belong to steps, cut off after
// those of resumeStep; -1 empties it.
func openLines[T any](path string, resumeStep int64, parse func([]byte) (T, error), step func(T) int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("%w; check the output directory", err)
	}
	keep := int64(0)
	if resumeStep >= 0 {
		keep, err = scanLines(path, f, parse, func(x T) bool { return step(x) <= resumeStep })
	}
	if err == nil {
		err = f.Truncate(keep)
	}
	if err == nil {
		_, err = f.Seek(keep, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Write appends {"step":..., values by name in sorted order}. JSON has no NaN or infinity:
// they are written as the strings "NaN", "+Inf" and "-Inf".
func (l *Log) Write(step int64, values map[string]float64) error {
	names := make([]string, 0, len(values))
	for name := range values {
		if name == "step" {
			return errors.New(`internal: a metric is named "step"`)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	b := append(l.line[:0], `{"step":`...)
	b = strconv.AppendInt(b, step, 10)
	for _, name := range names {
		key, err := json.Marshal(name)
		if err != nil {
			return err
		}
		b = append(append(append(b, ','), key...), ':')
		if v := values[name]; math.IsNaN(v) || math.IsInf(v, 0) {
			b = strconv.AppendQuote(b, strconv.FormatFloat(v, 'g', -1, 64))
		} else {
			b = appendNumber(b, v)
		}
	}
	l.line = append(b, '}', '\n')
	_, err := l.f.Write(l.line)
	return err
}

// appendNumber writes the shortest form that reads back the same.
func appendNumber(b []byte, v float64) []byte {
	if a := math.Abs(v); a != 0 && (a < 1e-4 || a >= 1e15) {
		return strconv.AppendFloat(b, v, 'e', -1, 64)
	}
	return strconv.AppendFloat(b, v, 'f', -1, 64)
}

// ReadLog reads a metrics.jsonl. A torn last line is left out, a file that
// doesn't exist has no records.
func ReadLog(path string) ([]Record, error) {
	return readLines(path, parseRecord)
}

// readLines is what the lines of a file say; a torn last line is left out.
func readLines[T any](path string, parse func([]byte) (T, error)) ([]T, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []T
	_, err = scanLines(path, f, parse, func(x T) bool { out = append(out, x); return true })
	return out, err
}

// scanLines calls keep with what each line says until it says no, and returns the
// offset where the kept lines end.
func scanLines[T any](path string, r io.Reader, parse func([]byte) (T, error), keep func(T) bool) (int64, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	end := int64(0)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return end, nil // nothing, or a torn line
		}
		if err != nil {
			return 0, err
		}
		x, err := parse(line)
		if err != nil {
			return 0, fmt.Errorf("%s:%d: %w; repair the line or move the file away", path, n, err)
		}
		if !keep(x) {
			return end, nil
		}
		end += int64(len(line))
	}
}

func parseRecord(line []byte) (Record, error) {
	rec := Record{Step: -1, Values: map[string]float64{}}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(line, &raw); err != nil {
		return rec, fmt.Errorf("not a JSON object: %w", err)
	}
	for name, text := range raw {
		text = bytes.Trim(text, `"`)
		if name == "step" {
			step, err := strconv.ParseInt(string(text), 10, 64)
			if err != nil {
				return rec, fmt.Errorf("step %s is not a whole number", text)
			}
			rec.Step = step
			continue
		}
		v, err := strconv.ParseFloat(string(text), 64)
		if err != nil {
			return rec, fmt.Errorf("%q: %s is not a number", name, text)
		}
		rec.Values[name] = v
	}
	if rec.Step < 0 {
		return rec, errors.New("no step")
	}
	return rec, nil
}

// SeriesOf collects one metric over the records that have it.
func SeriesOf(records []Record, name string) Series {
	s := Series{Name: name}
	for _, r := range records {
		if v, ok := r.Values[name]; ok {
			s.X = append(s.X, float64(r.Step))
			s.Y = append(s.Y, v)
		}
	}
	return s
}
