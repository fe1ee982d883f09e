package train

import (
	"fmt"
	"math"
	"slices"
)

// Cosine goes from one value to another over a number of steps along half a cosine,
// and stays there (appendix A.2).
func Cosine(from, to float64, step, over int64) float64 {
	if step >= over {
		return to
	}
	return to + (from-to)*(1+math.Cos(math.Pi*float64(step)/float64(over)))/2
}

// Linear goes from one value to another on a straight line, and stays there.
func Linear(from, to float64, step, over int64) float64 {
	if step >= over {
		return to
	}
	return from + (to-from)*float64(step)/float64(over)
}

// The names of schedules of the step size.
const (
	ScheduleConstant = "constant"
	ScheduleCosine   = "cosine"
	ScheduleLinear   = "linear"
	SchedulePlateau  = "plateau"
)

var schedules = []string{ScheduleConstant, ScheduleCosine, ScheduleLinear, SchedulePlateau}

func checkSchedule(name string) error {
	if !slices.Contains(schedules, name) {
		return fmt.Errorf("%q is no schedule; one of %v", name, schedules)
	}
	return nil
}

// StepSize is the step size of update step, counted from 0: warm-up on a straight
// line to lr, then the schedule. halvings is the plateau's count.
func (o Options) StepSize(step int64, halvings int) float64 {
	if step < o.WarmUp {
		return o.LR * float64(step+1) / float64(o.WarmUp)
	}
	over := int64(math.Round(o.DecayOver*float64(o.Steps))) - o.WarmUp
	switch o.Schedule {
	case ScheduleCosine:
		return Cosine(o.LR, o.LRMin, step-o.WarmUp, over)
	case ScheduleLinear:
		return Linear(o.LR, o.LRMin, step-o.WarmUp, over)
	case SchedulePlateau:
		return math.Ldexp(o.LR, -halvings)
	}
	return o.LR
}

// ClipNorm is the limit on the gradient's norm in update step; 0 is none.
func (o Options) ClipNorm(step int64) float64 {
	if o.ClipInWarmUp && step >= o.WarmUp {
		return 0
	}
	return o.Clip
}

// Plateau decides when the step size is halved: when the validation loss, smoothed
// over a few validations, has not improved by 0.1% over a window of them; five times
// at most, so that the step size ends at 1/32 (appendix B.2).
type Plateau struct {
	Halvings int       `json:"halvings"`
	Best     float64   `json:"best"`
	Since    int       `json:"since"`  // validations since the best
	Recent   []float64 `json:"recent"` // the last values, to smooth over
	Started  bool      `json:"started"`
}

const (
	plateauSmooth   = 3
	plateauImproves = 1e-3
	plateauHalvings = 5
)

// Add takes a validation loss and tells whether the step size is halved now.
func (p *Plateau) Add(loss float64, window int) bool {
	if math.IsNaN(loss) || math.IsInf(loss, 0) {
		return false
	}
	p.Recent = append(p.Recent, loss)
	if n := len(p.Recent) - plateauSmooth; n > 0 {
		p.Recent = slices.Clone(p.Recent[n:])
	}
	mean := 0.0
	for _, v := range p.Recent {
		mean += v / float64(len(p.Recent))
	}
	if !p.Started || mean < p.Best-plateauImproves*math.Abs(p.Best) {
		p.Started, p.Best, p.Since = true, mean, 0
		return false
	}
	p.Since++
	if p.Since < window || p.Halvings >= plateauHalvings {
		return false
	}
	p.Halvings++
	p.Best, p.Since = mean, 0
	return true
}
