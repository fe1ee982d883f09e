package dice

import "math/bits"

// Stream yields the random numbers that belong to one key; it is not safe for
// concurrent use, and costs nothing to make.
type Stream struct{ state uint64 }

// New returns the stream of the given keys; streams of different keys are independent.
func New(keys ...uint64) *Stream { return &Stream{state: Hash(keys...)} }

// Hash mixes integers into one, sensitive to their order and number.
func Hash(keys ...uint64) uint64 {
	h := uint64(0x6A09E667F3BCC908) + uint64(len(keys))
	for _, k := range keys {
		h = mix(h*0x9E3779B97F4A7C15 + mix(k+0x3C6EF372FE94F82B))
	}
	return h
}

// HashString mixes a text into one integer (FNV-1a, then a finaliser).
func HashString(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix is the finaliser of SplitMix64, a bijection with good avalanche.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// Uint64 draws 64 uniform bits.
func (s *Stream) Uint64() uint64 {
	s.state += 0x9E3779B97F4A7C15
	return mix(s.state)
}

// Intn draws uniformly from 0..n-1; n must be positive. The bias of the
// multiply-shift reduction is below n/2^64.
func (s *Stream) Intn(n int) int {
	hi, _ := bits.Mul64(s.Uint64(), uint64(n))
	return int(hi)
}

// Between draws uniformly from lo..hi, both inclusive; hi below lo counts as lo.
func (s *Stream) Between(lo, hi int) int {
	if hi <= lo {
		return lo
	}
	return lo + s.Intn(hi-lo+1)
}

// Float64 draws uniformly from [0,1) in steps of 2^-53.
func (s *Stream) Float64() float64 { return float64(s.Uint64()>>11) * 0x1p-53 }

// Permutation shuffles 0..n-1 without storing the order: a four-round Feistel
// network on the next power of four, walked until it lands inside.
type Permutation struct {
	n    uint64
	half uint
	keys [4]uint64
}

// Permute returns the permutation of 0..n-1 that belongs to the keys.
func Permute(n uint64, keys ...uint64) Permutation {
	p := Permutation{n: n}
	for p.half = 1; p.half < 32 && uint64(1)<<(2*p.half) < n; p.half++ {
	}
	s := New(append([]uint64{n}, keys...)...)
	for i := range p.keys {
		p.keys[i] = s.Uint64()
	}
	return p
}

// Len is the number of elements permuted.
func (p Permutation) Len() uint64 { return p.n }

// At returns the element at place i, for i below Len.
func (p Permutation) At(i uint64) uint64 {
	mask := uint64(1)<<p.half - 1
	for {
		l, r := i>>p.half, i&mask
		for _, k := range p.keys {
			l, r = r, l^(mix(r+k)&mask)
		}
		// The walk ends: the network is a bijection, so the cycle of an element
		// inside comes back inside.
		if i = l<<p.half | r; i < p.n {
			return i
		}
	}
}
