package train

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/gouache-ml/gouache/runtime/exec"
	"github.com/gouache-ml/gouache/runtime/metrics"
)

// observer is implemented by programs that can show what every launch writes, as
// *exec.Program.
type observer interface {
	Observe(see func(*exec.Kernel, *exec.Launch, *exec.Tensor)) bool
}

// exponentCount is a histogram under way: by exponent, of a block and type.
type exponentCount struct {
	zero, nonFinite int64
	by              [leastExponent + mostExponent + 1]int64
}

// The exponents of an f32: subnormal ones reach down to -149.
const (
	leastExponent = 149
	mostExponent  = 127
)

// exponentHistograms runs p once and counts the exponents of the gradients that the
// backward pass of each part of the model stores. It is nil, and nothing has run,
// where p can't show them.
func exponentHistograms(p Program, step int64) []metrics.Exponents {
	o, ok := p.(observer)
	if !ok {
		return nil
	}
	type key struct{ block, dtype string }
	counts := map[key]*exponentCount{}
	tables := map[exec.DType]*[1 << 16]int16{}
	if !o.Observe(func(_ *exec.Kernel, l *exec.Launch, t *exec.Tensor) {
		if !l.Gradient || l.Block == "" {
			return
		}
		k := key{strings.TrimSuffix(l.Block, " backward"), string(t.DType)}
		if counts[k] == nil {
			counts[k] = &exponentCount{}
		}
		if _, small := t.DType.Format(); small && tables[t.DType] == nil {
			tables[t.DType] = exponentTable(t.DType)
		}
		counts[k].add(t, tables[t.DType])
	}) {
		return nil
	}
	var out []metrics.Exponents
	for k, c := range counts {
		e := metrics.Exponents{Step: step, Block: k.block, DType: k.dtype, Zero: c.zero, NonFinite: c.nonFinite}
		first, end := 0, len(c.by)
		for first < end && c.by[first] == 0 {
			first++
		}
		for end > first && c.by[end-1] == 0 {
			end--
		}
		e.First, e.Counts = first-leastExponent, append([]int64{}, c.by[first:end]...)
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b metrics.Exponents) int {
		return cmp.Or(cmp.Compare(a.Block, b.Block), cmp.Compare(a.DType, b.DType))
	})
	return out
}

// What exponentOf says of numbers without an exponent.
const (
	isZero      = math.MinInt16
	isNonFinite = math.MaxInt16
)

func exponentOf(x float32) int16 {
	b := math.Float32bits(x) &^ (1 << 31)
	switch {
	case b == 0:
		return isZero
	case b >= 255<<23:
		return isNonFinite
	case b >= 1<<23:
		return int16(b>>23) - 127
	}
	return int16(math.Ilogb(float64(x)))
}

// exponentTable has the exponent of every code of a 16-bit type.
func exponentTable(d exec.DType) *[1 << 16]int16 {
	f, _ := d.Format()
	t := &[1 << 16]int16{}
	for code := range t {
		t[code] = exponentOf(f.Decode(uint16(code)))
	}
	return t
}

// add counts the elements of t; table is that of its type if it has 16 bits.
func (c *exponentCount) add(t *exec.Tensor, table *[1 << 16]int16) {
	count := func(e int16) {
		switch e {
		case isZero:
			c.zero++
		case isNonFinite:
			c.nonFinite++
		default:
			c.by[int(e)+leastExponent]++
		}
	}
	if table != nil {
		for i := 0; i < len(t.Data); i += 2 {
			count(table[uint16(t.Data[i])|uint16(t.Data[i+1])<<8])
		}
		return
	}
	if x, err := t.F32(); err == nil {
		for _, v := range x {
			count(exponentOf(v))
		}
	}
}
