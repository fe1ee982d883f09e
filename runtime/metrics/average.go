package metrics

import "math"

// Window is the mean of the last values, for losses on the terminal.
type Window struct {
	values []float64
	next   int
	full   bool
}

// NewWindow makes a mean over the last size values.
func NewWindow(size int) *Window { return &Window{values: make([]float64, max(size, 1))} }

// Add adds a value. Values that aren't finite are left out.
func (w *Window) Add(v float64) {
	if !finite(v) {
		return
	}
	w.values[w.next] = v
	w.next++
	if w.next == len(w.values) {
		w.next, w.full = 0, true
	}
}

// Mean is the mean of what the window holds, NaN if that is nothing. It is summed
// afresh each time: a running sum would drift.
func (w *Window) Mean() float64 {
	n := w.next
	if w.full {
		n = len(w.values)
	}
	sum := 0.0
	for _, v := range w.values[:n] {
		sum += v
	}
	return sum / float64(n)
}

// Smooth is the centred moving average of a series over window points. Centred, so
// that the curve doesn't lag behind the data; near the ends, where the window is
// one-sided, it is a straight-line fit over the window instead. Values that
// aren't finite stay as gaps.
func Smooth(s Series, window int) Series {
	n := min(len(s.X), len(s.Y))
	out := Series{Name: s.Name, X: s.X[:n], Y: make([]float64, n)}
	sums, counts := make([]float64, n+1), make([]int, n+1)
	for i, y := range s.Y[:n] {
		sums[i+1], counts[i+1] = sums[i], counts[i]
		if finite(y) {
			sums[i+1] += y
			counts[i+1]++
		}
	}
	for i := range n {
		from, to := i-window/2, i+window/2+1
		switch {
		case !finite(s.Y[i]):
			out.Y[i] = s.Y[i]
		case from < 0 || to > n:
			out.Y[i] = lineAt(s.Y, max(from, 0), min(to, n), i)
		default:
			out.Y[i] = (sums[to] - sums[from]) / float64(counts[to]-counts[from])
		}
	}
	return out
}

// lineAt fits a line to y[from:to] by least squares and evaluates it at index i.
func lineAt(y []float64, from, to, i int) float64 {
	var n, sx, sy, sxx, sxy float64
	for k := from; k < to; k++ {
		if finite(y[k]) {
			x := float64(k - i)
			n, sx, sy, sxx, sxy = n+1, sx+x, sy+y[k], sxx+x*x, sxy+x*y[k]
		}
	}
	if det := n*sxx - sx*sx; det > 0 {
		return (sy*sxx - sx*sxy) / det
	}
	return sy / n
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
