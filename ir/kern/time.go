package sched

import "github.com/gouache-ml/gouache/ir/kern"

// Rates of one core, in operations and bytes a nanosecond, and nanoseconds of an
// empty launch: those that fit the least times of the 1,262 launches of demo's three
// training steps best (trainer bench -kernels, one thread of an AMD EPYC, AVX2).
// Estimates are then off by 14% of the time, summed over launches. Choices hang on
// the ratios alone, and those differ less between machines.
const (
	productRate  = 77
	templateRate = 28
	loopRate     = 20
	byteRate     = 23
	launchTime   = 600
)

// estimate is the time of one launch of k in nanoseconds, as far as sizes tell:
// the longer of arithmetic and traffic.
func estimate(k *kern.Kernel) int64 {
	rate := int64(loopRate)
	switch {
	case k.Template != nil:
		rate = templateRate
	case k.FindContract() != nil:
		rate = productRate
	}
	bytes := 0
	reach := iterations(k)
	for _, b := range k.Bufs {
		n := min(b.Len, reach) * b.DType.Size()
		if b.Mode == kern.InOut {
			n *= 2
		}
		bytes += n
	}
	return launchTime + max(k.FLOPs/rate, int64(bytes)/byteRate)
}

// iterations bounds the elements of one buffer that k touches: a gather from a
// table touches few of its rows.
func iterations(k *kern.Kernel) int {
	if k.Template != nil {
		return 1 << 62
	}
	n := k.Points()
	var inner func(body []*kern.Node) int
	inner = func(body []*kern.Node) int {
		most := 1
		for _, x := range body {
			at := 1
			for _, v := range x.Vars {
				at *= v.Extent
			}
			if x.Prim == kern.Loop {
				at *= inner(x.Body)
			}
			most = max(most, at)
		}
		return most
	}
	return n * inner(k.Body)
}
