package kern

// Written lists the floating-point buffers that k writes every element of.
func (k *Kernel) Written() []int {
	if t := k.Template; t != nil {
		if t.Name == "pack_b" {
			return nil // the panels' padding is left as it was
		}
		var out []int
		for i, b := range k.Bufs {
			if b.Mode != In && b.DType.IsFloat() {
				out = append(out, i)
			}
		}
		return out
	}
	stores := make([]int, len(k.Bufs))
	var walk func(body []*Node, n int)
	walk = func(body []*Node, n int) {
		for _, x := range body {
			switch x.Prim {
			case Store:
				stores[x.Buf] += n
			case Loop:
				walk(x.Body, n*x.Vars[0].Extent)
			}
		}
	}
	walk(k.Body, k.Points())
	var out []int
	for i, b := range k.Bufs {
		if b.DType.IsFloat() && stores[i] >= b.Len {
			out = append(out, i)
		}
	}
	return out
}

// Changes are the buffers of k that it may write.
func (k *Kernel) Changes() []int {
	var out []int
	for i, b := range k.Bufs {
		if b.Mode != In {
			out = append(out, i)
		}
	}
	return out
}

// Sizes are the bytes of each buffer of k that it may touch.
func (k *Kernel) Sizes() []int {
	out := make([]int, len(k.Bufs))
	for i, b := range k.Bufs {
		out[i] = b.Len * b.DType.Size()
	}
	return out
}
