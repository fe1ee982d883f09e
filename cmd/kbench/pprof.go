package main

import (
	"os"
	"regexp"
	"time"

	"github.com/google/pprof/profile"

	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// hash is the end of a kernel's name; what stands before it are its ops.
var hash = regexp.MustCompile(`_[0-9a-f]{8}$`)

// writePprof writes a profile with one sample for each launch of the programs whose
// kernel is a subject. took gives a launch's nanoseconds; 0 leaves it out.
func (s *session) writePprof(took func(p *plan.Program, i int, l *plan.Launch) float64) error {
	subjects := map[*kern.Kernel]*subject{}
	for _, x := range s.subjects {
		subjects[x.Kernel] = x
	}
	b := pprofBuilder{locations: map[frame]*profile.Location{}}
	b.SampleType = []*profile.ValueType{{Type: "time", Unit: "nanoseconds"}, {Type: "flops", Unit: "count"}, {Type: "bytes", Unit: "bytes"}}
	b.DefaultSampleType = "time"
	b.TimeNanos = time.Now().UnixNano()
	for _, m := range s.plan.Models {
		for _, p := range m.Programs {
			for i := range p.Launches {
				l := &p.Launches[i]
				x := subjects[l.Kernel]
				if x == nil {
					continue
				}
				ns := took(p, i, l)
				if ns <= 0 {
					continue
				}
				block := l.Block
				if block == "" {
					block = "-"
				}
				if l.Backward {
					block += " backward"
				}
				model := m.Name + "." + p.Name
				file, line := l.Pos.File, int64(l.Pos.Line)
				b.Sample = append(b.Sample, &profile.Sample{
					Location: []*profile.Location{
						b.at(x.Name, file, line), b.at(hash.ReplaceAllString(x.Name, ""), file, line), b.at(block, file, line), b.at(model, "", 0),
					},
					Value: []int64{int64(ns), x.FLOPs, int64(x.bytes)},
					Label: map[string][]string{"kind": {x.kind}, "values": {l.Values}},
				})
				b.DurationNanos += int64(ns)
			}
		}
	}
	f, err := os.Create(s.pprof)
	if err != nil {
		return err
	}
	err = b.Write(f)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

type frame struct {
	name, file string
	line       int64
}

// pprofBuilder numbers functions and locations.
type pprofBuilder struct {
	profile.Profile
	locations map[frame]*profile.Location
}

// at is the frame called name, at a line of the model.
func (b *pprofBuilder) at(name, file string, line int64) *profile.Location {
	key := frame{name, file, line}
	if l := b.locations[key]; l != nil {
		return l
	}
	f := &profile.Function{ID: uint64(len(b.Function) + 1), Name: name, SystemName: name, Filename: file}
	b.Function = append(b.Function, f)
	l := &profile.Location{ID: uint64(len(b.Location) + 1), Line: []profile.Line{{Function: f, Line: line}}}
	b.Location = append(b.Location, l)
	b.locations[key] = l
	return l
}
