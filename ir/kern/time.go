package kern

// Rates are what a device does, as a choice between ways of computing the same needs
// to know it: operations and bytes a nanosecond, and nanoseconds of an empty launch.
type Rates struct {
	Product int64 // products of 32 bits
	Narrow  int64 // products of 16 bits
	// Template is attention, Loop all other kernels.
	Template, Loop int64
	Bytes          int64
	Launch         int64
}

// Time is the time of one launch of k in nanoseconds, as far as sizes tell: the
// longer of arithmetic and traffic.
func (r Rates) Time(k *Kernel) int64 {
	rate := r.Loop
	if k.Template != nil {
		rate = r.Template
	} else if c := k.FindContract(); c != nil {
		rate = r.Product
		if Narrow(k, c) {
			rate = r.Narrow
		}
	}
	bytes := 0
	reach := iterations(k)
	for _, b := range k.Bufs {
		n := min(b.Len, reach) * b.DType.Size()
		if b.Mode == InOut {
			n *= 2
		}
		bytes += n
	}
	return r.Launch + max(k.FLOPs/rate, int64(bytes)/r.Bytes)
}

// Narrow tells whether an operand of contraction c of k is read in 16 bits.
func Narrow(k *Kernel, c *Node) bool {
	for _, a := range c.Args {
		for _, l := range Loads(a) {
			if k.Bufs[l.Buf].DType.Size() == 2 {
				return true
			}
		}
	}
	return false
}

// iterations bounds the elements of one buffer that k touches: a gather from a
// table touches few of its rows.
func iterations(k *Kernel) int {
	if k.Template != nil {
		return 1 << 62
	}
	n := k.Points()
	var inner func(body []*Node) int
	inner = func(body []*Node) int {
		most := 1
		for _, x := range body {
			at := 1
			for _, v := range x.Vars {
				at *= v.Extent
			}
			if x.Prim == Loop {
				at *= inner(x.Body)
			}
			most = max(most, at)
		}
		return most
	}
	return n * inner(k.Body)
}
