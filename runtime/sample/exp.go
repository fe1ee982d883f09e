package sample

import "math"

// expSteps are 2^(i/32).
var expSteps = func() (out [32]float64) {
	for i := range out {
		out[i] = math.Exp2(float64(i) / 32)
	}
	return out
}()

// exponentials are e^((x-top)/temperature) of logits that are at most top, within 2 units in the last place; 0 below
// e^-708. They take a third of math.Exp's time, on which a draw among thousands of tokens would spend most of its own.
func exponentials(out []float64, logits []float32, top, temperature float64) {
	const (
		magic = 3 << 51 // added to a number below 2^51 it leaves the nearest integer in the low bits
		// ln 2 as fdlibm cuts it: the first 32 bits, times an integer exact, and the rest.
		high = 6.93147180369123816490e-01 / 32
		low  = 1.90821492927058770002e-10 / 32
	)
	out = out[:len(logits)]
	for i, logit := range logits {
		x := (float64(logit) - top) / temperature
		if !(x >= -708) {
			out[i] = 0
			continue
		}
		t := x*(32/math.Ln2) + magic
		n := int64(math.Float64bits(t)) << 12 >> 12
		k := t - magic
		r := x - k*high - k*low
		r2 := r * r
		p := r + r2*((0.5+r*(1.0/6))+r2*((1.0/24+r*(1.0/120))+r2*(1.0/720)))
		s := math.Float64frombits(math.Float64bits(expSteps[n&31]) + uint64(n>>5)<<52)
		out[i] = s + s*p
	}
}
