package exec

import "math/rand/v2"

// hashName is FNV-1a.
func hashName(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// normals returns the source of the standard normal numbers (ziggurat) of part number part of
// the tensor whose name has the given hash. Parts have generators of their own, so they can be
// drawn on any thread.
func normals(seed, name uint64, part int) *rand.Rand {
	// Neighbouring numbers make neighbouring states of a PCG; the outputs of another
	// generator lie apart.
	mix := rand.NewPCG(seed, name^uint64(part)*0x9E3779B97F4A7C15)
	return rand.New(rand.NewPCG(mix.Uint64(), mix.Uint64()))
}
