package simt

import "math/bits"

// counter is what an instruction is counted as.
type counter uint8

const (
	countALU counter = iota
	countSpecial
	countControl
	countGlobal
	countShared
	countOtherMem
	countAsync
	countSync
	countShuffle
	countMatrix
	countMMA
	countWGMMA
	numCounters
)

type counts [numCounters]int64

// Stats of all launches of a machine. Instructions are those of warps.
type Stats struct {
	Instructions int64
	ALU          int64 // arithmetic, moves, conversions
	Special      int64 // exponentials, logarithms, roots, divisions
	Control      int64 // branches and returns
	Global       int64 // loads, stores and atomics on global memory
	Shared       int64 // the same on shared memory
	Other        int64 // parameters, constants
	Async        int64 // cp.async and the tensor copy engine
	Sync         int64 // barriers, fences, waits
	Shuffle      int64 // shuffles, votes
	Matrix       int64 // ldmatrix, stmatrix
	MMA, WGMMA   int64

	// Diverged counts branches at which the lanes of a warp parted.
	Diverged int64

	// Of Options.Count. Wavefronts is how many passes shared memory needs for the
	// accesses of warps, WavefrontsIdeal what it would need without bank conflicts.
	Wavefronts, WavefrontsIdeal int64
	// Sectors is how many 32-byte pieces of global memory are touched, counted for
	// each access of a warp, SectorsIdeal how many the bytes would fill.
	Sectors, SectorsIdeal int64
}

// Stats are the counts since the machine was made.
func (m *Machine) Stats() Stats { return m.stats }

// collect adds the counts of a launch to Stats.
func (m *Machine) collect() {
	s, c := &m.stats, &m.counts
	for _, n := range c {
		s.Instructions += n
	}
	s.ALU += c[countALU]
	s.Special += c[countSpecial]
	s.Control += c[countControl]
	s.Global += c[countGlobal]
	s.Shared += c[countShared]
	s.Other += c[countOtherMem]
	s.Async += c[countAsync]
	s.Sync += c[countSync]
	s.Shuffle += c[countShuffle]
	s.Matrix += c[countMatrix]
	s.MMA += c[countMMA]
	s.WGMMA += c[countWGMMA]
	s.Diverged += m.diverged
	m.counts, m.diverged = counts{}, 0
}

// countSectors counts an access of n bytes a lane to global memory.
func (m *Machine) countSectors(at *[32]uint64, mask uint32, n int) {
	var seen [64]uint64
	k, lanes := 0, 0
	bytes := 0
	for q := mask; q != 0; q &= q - 1 {
		a := at[bits.TrailingZeros32(q)]
		for s := a / 32; s <= (a+uint64(n)-1)/32; s++ {
			dup := false
			for i := k - 1; i >= 0; i-- {
				if seen[i] == s {
					dup = true
					break
				}
			}
			if !dup && k < len(seen) {
				seen[k] = s
				k++
			}
		}
		lanes++
	}
	// Lanes that read the same bytes need them once.
	var first [32]uint64
	d := 0
	for q := mask; q != 0; q &= q - 1 {
		a := at[bits.TrailingZeros32(q)]
		dup := false
		for i := d - 1; i >= 0; i-- {
			if first[i] == a {
				dup = true
				break
			}
		}
		if !dup {
			first[d] = a
			d++
			bytes += n
		}
	}
	m.stats.Sectors += int64(k)
	m.stats.SectorsIdeal += int64((bytes + 31) / 32)
}

// countBanks counts an access of n bytes a lane to shared memory, which has 32
// banks of 4 bytes. Accesses of 8 bytes go by half warps, of 16 by quarters.
func (m *Machine) countBanks(at *[32]uint64, mask uint32, n int) {
	per := 32
	switch n {
	case 16:
		per = 8
	case 8:
		per = 16
	}
	for g := 0; g < 32; g += per {
		sub := mask >> g
		if per < 32 {
			sub &= 1<<per - 1
		}
		if sub == 0 {
			continue
		}
		var words [32][8]uint64
		var cnt [32]int
		worst := 1
		for ; sub != 0; sub &= sub - 1 {
			a := at[g+bits.TrailingZeros32(sub)]
			for o := 0; o < max(n, 4); o += 4 {
				wd := (a + uint64(o)) / 4
				bk := wd % 32
				dup := false
				for i := range min(cnt[bk], 8) {
					dup = dup || words[bk][i] == wd
				}
				if !dup {
					if cnt[bk] < 8 {
						words[bk][cnt[bk]] = wd
					}
					cnt[bk]++
					worst = max(worst, cnt[bk])
				}
			}
		}
		m.stats.Wavefronts += int64(worst)
		m.stats.WavefrontsIdeal++
	}
}
