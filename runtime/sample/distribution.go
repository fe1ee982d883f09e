package sample

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Options is how tokens are drawn. The paper draws at temperature 1 from the whole
// distribution.
type Options struct {
	Temperature float64 // logits are divided by it; 0 takes the likeliest token
	TopK        int     // draw from the K likeliest tokens; 0 is all
	TopP        float64 // draw from the fewest tokens whose probabilities reach P; 0 and 1 are all
	Seed        uint64
	// Likelihood is what a nat of a candidate's log-likelihood adds to its cosine when
	// candidates are ranked; 0 ranks by the contrastive model alone, as the paper does.
	Likelihood float64
}

// Check tells what can't be drawn with.
func (o Options) Check() error {
	switch {
	case !(o.Temperature >= 0) || math.IsInf(o.Temperature, 1):
		return fmt.Errorf("temperature is %g; want 0 for the likeliest token, or a positive number", o.Temperature)
	case o.TopK < 0:
		return fmt.Errorf("top-k is %d; want 0 for all tokens, or a positive number", o.TopK)
	case !(o.TopP >= 0 && o.TopP <= 1):
		return fmt.Errorf("top-p is %g; want a number from 0 to 1", o.TopP)
	case !(o.Likelihood >= 0) || math.IsInf(o.Likelihood, 1):
		return fmt.Errorf("likelihood is %g; want 0 to rank by the contrastive model alone, or a positive number", o.Likelihood)
	}
	return nil
}

// Distribution turns logits into probabilities under some options and draws from them.
// It keeps its memory from one use to the next.
type Distribution struct {
	options Options
	p       []float64 // probabilities times total
	total   float64
	plain   []float64 // exponentials at temperature 1, if that isn't the options'
	order   []int
	logits  []float32
	top     float64 // of the logits
	sum     float64 // of the exponentials of what they are below it; 0: not known yet
}

// NewDistribution makes a distribution over n tokens.
func NewDistribution(o Options, n int) *Distribution {
	d := &Distribution{options: o, p: make([]float64, n)}
	if o.TopK > 0 || o.TopP > 0 && o.TopP < 1 {
		d.order = make([]int, n)
	}
	return d
}

// Set takes new logits, in double precision from here on. Top-k applies to the
// probabilities first, top-p to what it leaves; of equally likely tokens the lower
// id goes first. Logits that aren't numbers are an error.
func (d *Distribution) Set(logits []float32) error {
	if len(logits) != len(d.p) {
		return fmt.Errorf("%d logits, want %d", len(logits), len(d.p))
	}
	top, likeliest := float32(math.Inf(-1)), 0
	for i, v := range logits {
		if !(v <= math.MaxFloat32) {
			return fmt.Errorf("logit of token %d is %v; the weights are damaged or training has diverged", i, v)
		}
		if v > top {
			top, likeliest = v, i
		}
	}
	if math.IsInf(float64(top), -1) {
		return fmt.Errorf("all logits are %v; the weights are damaged or training has diverged", top)
	}
	d.logits, d.top, d.sum = logits, float64(top), 0
	if d.options.Temperature == 0 {
		clear(d.p)
		d.p[likeliest], d.total = 1, 1
		return nil
	}
	exponentials(d.p, logits, d.top, d.options.Temperature)
	d.total = sum(d.p)
	if d.options.Temperature == 1 {
		d.sum = d.total
	}
	if d.order == nil {
		return nil
	}
	for i := range d.order {
		d.order[i] = i
	}
	slices.SortStableFunc(d.order, func(a, b int) int { return cmp.Compare(d.p[b], d.p[a]) })
	keep := len(d.order)
	if k := d.options.TopK; k > 0 && k < keep {
		keep = k
		d.drop(keep)
	}
	if p := d.options.TopP; p > 0 && p < 1 {
		reached := 0.0
		for i, token := range d.order[:keep] {
			reached += d.p[token]
			if reached >= p*d.total {
				d.drop(i + 1)
				break
			}
		}
	}
	return nil
}

// drop leaves the first n of the order.
func (d *Distribution) drop(n int) {
	for _, token := range d.order[n:] {
		d.p[token] = 0
	}
	d.total = sum(d.p)
}

// sum adds up every fourth of p, and these four sums: a processor adds them side by side.
func sum(p []float64) float64 {
	var a, b, c, d float64
	for ; len(p) >= 4; p = p[4:] {
		a += p[0]
		b += p[1]
		c += p[2]
		d += p[3]
	}
	for _, x := range p {
		a += x
	}
	return (a + b) + (c + d)
}

// LogP is the logarithm of a token's probability at temperature 1, among all tokens. It
// reads the logits that Set was given.
func (d *Distribution) LogP(token int32) float64 {
	if d.sum == 0 {
		if d.plain == nil {
			d.plain = make([]float64, len(d.p))
		}
		exponentials(d.plain, d.logits, d.top, 1)
		d.sum = sum(d.plain)
	}
	return float64(d.logits[token]) - d.top - math.Log(d.sum)
}

// P is the probability of each token; it is overwritten by Set.
func (d *Distribution) P() []float64 {
	for i := range d.p {
		d.p[i] /= d.total
	}
	d.total = 1
	return d.p
}

// Draw is the token at u, in [0,1), of the cumulative distribution by id.
func (d *Distribution) Draw(u float64) int32 {
	sum, last := 0.0, 0
	u *= d.total
	for i, p := range d.p {
		if sum += p; u < sum {
			return int32(i)
		}
		if p > 0 {
			last = i
		}
	}
	return int32(last) // rounding left the sum below u
}
