package train

import "math"

// Usage counts how often codes are used.
type Usage struct {
	counts []int64
	total  int64
}

// NewUsage counts codes 0..n-1.
func NewUsage(n int) *Usage { return &Usage{counts: make([]int64, n)} }

// Add counts tokens; ids outside the range are left out.
func (u *Usage) Add(tokens []int32) {
	for _, t := range tokens {
		if t >= 0 && int(t) < len(u.counts) {
			u.counts[t]++
			u.total++
		}
	}
}

// Perplexity is exp of the entropy of the use of codes: the number of codes where all
// used ones are used alike. 0 before the first token.
func (u *Usage) Perplexity() float64 {
	if u.total == 0 {
		return 0
	}
	h := 0.0
	for _, c := range u.counts {
		if c > 0 {
			p := float64(c) / float64(u.total)
			h -= p * math.Log(p)
		}
	}
	return math.Exp(h)
}

// Used is the number of codes that occurred.
func (u *Usage) Used() int {
	n := 0
	for _, c := range u.counts {
		if c > 0 {
			n++
		}
	}
	return n
}

// Reset forgets everything.
func (u *Usage) Reset() {
	clear(u.counts)
	u.total = 0
}
