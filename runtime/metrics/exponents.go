package metrics

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Exponents is a histogram of the binary exponents of the numbers that one step
// computed in one part of a model: one line of exponents.jsonl.
type Exponents struct {
	Step  int64  `json:"step"`
	Block string `json:"block"`
	DType string `json:"dtype"` // in which they are stored
	// Zero and NonFinite are the numbers that have no exponent.
	Zero      int64 `json:"zero"`
	NonFinite int64 `json:"nonfinite"`
	// Counts[i] numbers lie in [2^(First+i), 2^(First+i+1)) by magnitude.
	First  int     `json:"first"`
	Counts []int64 `json:"counts"`
}

// Len is how many numbers were counted.
func (e *Exponents) Len() int64 {
	n := e.Zero + e.NonFinite
	for _, c := range e.Counts {
		n += c
	}
	return n
}

// Below is how many numbers other than zero are smaller than 2^exponent by magnitude.
func (e *Exponents) Below(exponent int) int64 {
	n := int64(0)
	for i, c := range e.Counts {
		if e.First+i < exponent {
			n += c
		}
	}
	return n
}

// ExponentsLog appends histograms to a file, as Log does records.
type ExponentsLog struct{ lineFile }

// OpenExponents opens or creates exponents.jsonl for a run that goes on after
// resumeStep: histograms of later steps are cut off. resumeStep -1 begins an empty
// file.
func OpenExponents(path string, resumeStep int64) (*ExponentsLog, error) {
	f, err := openLines(path, resumeStep, parseExponents, func(e Exponents) int64 { return e.Step })
	if err != nil {
		return nil, err
	}
	return &ExponentsLog{lineFile{f}}, nil
}

// Write appends the histograms, each a line.
func (l *ExponentsLog) Write(es []Exponents) error {
	var b []byte
	for i := range es {
		line, err := json.Marshal(&es[i])
		if err != nil {
			return err
		}
		b = append(append(b, line...), '\n')
	}
	_, err := l.f.Write(b)
	return err
}

// ReadExponents reads an exponents.jsonl. A torn last line is left out, a file that
// doesn't exist has no histograms.
func ReadExponents(path string) ([]Exponents, error) {
	return readLines(path, parseExponents)
}

func parseExponents(line []byte) (Exponents, error) {
	e := Exponents{Step: -1}
	if err := json.Unmarshal(line, &e); err != nil {
		return e, fmt.Errorf("not a histogram: %w", err)
	}
	if e.Step < 0 || e.Block == "" {
		return e, errors.New("not a histogram: no step or no block")
	}
	return e, nil
}
