package exec

import (
	"math"
	"math/bits"
)

// philox is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3").
func philox(c [4]uint32, k0, k1 uint32) [4]uint32 {
	for r := 0; r < 10; r++ {
		h0, l0 := bits.Mul32(0xD2511F53, c[0])
		h1, l1 := bits.Mul32(0xCD9E8D57, c[2])
		c = [4]uint32{h1 ^ c[1] ^ k0, l1, h0 ^ c[3] ^ k1, l0}
		k0 += 0x9E3779B9
		k1 += 0xBB67AE85
	}
	return c
}

// hashName is FNV-1a.
func hashName(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// normals returns the standard normal numbers of elements 2*pair and 2*pair+1 of the tensor
// whose name has the given hash: Box-Muller on two 53-bit uniforms from one Philox block with
// counter (pair, name) and key seed.
func normals(seed, name, pair uint64) (float64, float64) {
	w := philox([4]uint32{uint32(pair), uint32(pair >> 32), uint32(name), uint32(name >> 32)}, uint32(seed), uint32(seed>>32))
	u := (float64((uint64(w[0])<<32|uint64(w[1]))>>11) + 0.5) * 0x1p-53
	v := float64((uint64(w[2])<<32|uint64(w[3]))>>11) * 0x1p-53
	r := math.Sqrt(-2 * math.Log(u))
	sin, cos := math.Sincos(2 * math.Pi * v)
	return r * cos, r * sin
}
