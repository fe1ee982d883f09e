package sched

import (
	"fmt"
	"slices"

	"github.com/gouache-ml/gouache/ir/kern"
	"github.com/gouache-ml/gouache/ir/plan"
)

// Again is what a program computes again to fit a budget. Times are estimated
// from sizes, in nanoseconds; of them the ratios are worth something.
type Again struct {
	Launches int   // that run again
	Time     int64 // of these
	Bound    int64 // no choice of launches that fits takes less; never above Time
	Step     int64 // of all other launches
	Kept     int   // bytes of the work arena if nothing ran again
}

// Share is the time of what runs again as a share of the other launches'.
func (a Again) Share() float64 { return float64(a.Time) / float64(max(a.Step, 1)) }

// Gap bounds from above how much of that a better choice might save.
func (a Again) Gap() float64 { return float64(a.Time-a.Bound) / float64(max(a.Step, 1)) }

// String is one line for the compiler's log.
func (a Again) String() string {
	return fmt.Sprintf("%d launches run again, %.1f%% of a step's estimated time (at least %.1f%% would)", a.Launches, 100*a.Share(), 100*(a.Share()-a.Gap()))
}

// Fit places p in a work arena of at most budget bytes. If it needs more, the
// backward pass computes again what makes it fit in the least estimated time, as
// Remat does but buffer by buffer, with the same bits. If no choice of buffers
// makes it fit, p gets the smallest arena that was found. Blocks are what Remat
// would be given, and rates are the device's.
//
// Less budget never gets a larger program, nor more budget a slower one.
func Fit(p *plan.Program, blocks map[string]bool, budget int, rates kern.Rates) (Report, error) {
	report, err := Place(p)
	if err != nil || report.Bytes <= budget {
		return report, err
	}
	f := readForward(p)
	if len(f.latest) == 0 {
		return report, nil
	}
	s := newSearch(newTally(f, rates), blocks)
	s.run(s.choose(f.inside(blocks)))
	points := thin(s.points)
	place := func(x point) (*plan.Program, Report, error) {
		q := f.again(f.launches(s.set(x.choice)))
		r, err := Place(q)
		return q, r, err
	}
	// A program takes more than is alive, if little, so what fits is found by
	// placing: in order of cost, that is of falling peaks.
	for i := len(points) - 1; i >= 0; i-- {
		x := points[i]
		if x.peak > budget {
			continue
		}
		q, r, err := place(x)
		if err != nil {
			return r, err
		}
		if r.Bytes <= budget {
			r.Again = Again{Launches: len(q.Launches) - len(p.Launches), Time: x.cost, Step: s.t.time, Kept: report.Bytes}
			r.Again.Bound = int64(s.relax.bound(budget, x.cost, boundRounds, nil))
			*p = *q
			return r, nil
		}
	}
	least := -1
	for i, x := range points {
		if least >= 0 && x.peak >= report.Bytes {
			break
		}
		_, r, err := place(x)
		if err != nil {
			return r, err
		}
		if least < 0 || r.Bytes < report.Bytes {
			least, report = i, r
		}
	}
	q, report, err := place(points[least])
	if err == nil {
		*p = *q
	}
	return report, err
}

// boundRounds is how often prices are changed for the bound that is reported.
const boundRounds = 300

// set is a choice as a set of buffers.
func (s *search) set(choice []bool) map[*plan.Buffer]bool {
	set := map[*plan.Buffer]bool{}
	for x, c := range choice {
		if c {
			set[s.t.buffers[x]] = true
		}
	}
	return set
}

// thin leaves points a thousandth of the largest peak apart, so that few have to
// be placed: the least peak and none again stay.
func thin(points []point) []point {
	last := points[len(points)-1]
	out := points[:1:1]
	for _, x := range points[1:] {
		if x.peak-out[len(out)-1].peak >= last.peak/1000 {
			out = append(out, x)
		}
	}
	if !slices.Equal(out[len(out)-1].choice, last.choice) {
		out = append(out, last)
	}
	return out
}
