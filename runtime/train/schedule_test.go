package train

import (
	"math"
	"testing"
)

func TestCosineHasThePapersMidpoints(t *testing.T) {
	for _, c := range []struct {
		from, to   float64
		step, over int64
		want       float64
	}{
		{0, 6.6, 2500, 5000, 3.3},
		{1, 1. / 16, 75_000, 150_000, 0.53125},
		{1e-4, 1.25e-6, 600_000, 1_200_000, 5.0625e-5},
		{0, 6.6, 0, 5000, 0},
		{0, 6.6, 5000, 5000, 6.6},
		{0, 6.6, 3_000_000, 5000, 6.6},
		{1, 2, 0, 0, 2},
	} {
		if got := Cosine(c.from, c.to, c.step, c.over); math.Abs(got-c.want) > 1e-12*math.Abs(c.want) {
			t.Errorf("cosine %g to %g at %d of %d is %g, want %g", c.from, c.to, c.step, c.over, got, c.want)
		}
	}
}

func TestStepSize(t *testing.T) {
	o := Options{Steps: 1000, LR: 0.8, LRMin: 0.2, WarmUp: 100, DecayOver: 0.5}
	for _, c := range []struct {
		schedule string
		step     int64
		halvings int
		want     float64
	}{
		{ScheduleConstant, 0, 0, 0.008},
		{ScheduleConstant, 99, 0, 0.8},
		{ScheduleConstant, 999, 0, 0.8},
		{ScheduleCosine, 49, 0, 0.4},
		{ScheduleCosine, 300, 0, 0.5}, // midway from 100 to 500
		{ScheduleCosine, 500, 0, 0.2},
		{ScheduleCosine, 999, 0, 0.2},
		{ScheduleLinear, 200, 0, 0.65},
		{SchedulePlateau, 500, 0, 0.8},
		{SchedulePlateau, 500, 5, 0.025}, // 1/32
	} {
		o.Schedule = c.schedule
		if got := o.StepSize(c.step, c.halvings); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s at %d is %g, want %g", c.schedule, c.step, got, c.want)
		}
	}
}

func TestClippingEndsWithWarmUp(t *testing.T) {
	o := Options{WarmUp: 10, Clip: 4, ClipInWarmUp: true}
	if o.ClipNorm(9) != 4 || o.ClipNorm(10) != 0 {
		t.Errorf("norms %g, %g", o.ClipNorm(9), o.ClipNorm(10))
	}
	o.ClipInWarmUp = false
	if o.ClipNorm(10) != 4 {
		t.Errorf("norm %g", o.ClipNorm(10))
	}
}

func TestPlateauHalvesFiveTimesAtMost(t *testing.T) {
	var p Plateau
	halved := 0
	for i := range 200 {
		loss := 4.0
		if i < 10 {
			loss = 5 - 0.1*float64(i) // improves
		}
		if p.Add(loss, 4) {
			halved++
			if i < 10 {
				t.Errorf("halved at validation %d, while the loss falls", i)
			}
		}
		p.Add(math.NaN(), 4)
	}
	if halved != 5 || p.Halvings != 5 {
		t.Errorf("halved %d times", halved)
	}
}

func TestPlateauSeesThroughNoise(t *testing.T) {
	var p Plateau
	for i := range 60 {
		noise := 0.02 * float64(i%3-1)
		if p.Add(4-0.02*float64(i)+noise, 4) {
			t.Fatalf("halved at validation %d of a loss that falls", i)
		}
	}
}

func TestKLWeightRisesHoldsAndIsReleased(t *testing.T) {
	o := DVAEConfig{Options: Options{Steps: 1000}, Beta: 8, BetaOver: 0.1, ReleaseFrom: 0.5, ReleaseOver: 0.4, Release: 1}
	for step, want := range map[int64]float64{0: 0, 50: 4, 100: 8, 499: 8, 500: 8, 700: 4.5, 900: 1, 1000: 1} {
		if got := o.beta(step); math.Abs(got-want) > 1e-12 {
			t.Errorf("step %d: %g, want %g", step, got, want)
		}
	}
	o.ReleaseFrom = 0
	if got := o.beta(900); got != 8 {
		t.Errorf("without release: %g at the end, want 8", got)
	}
}
