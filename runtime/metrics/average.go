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
	if math.IsNaN(v) || math.IsInf(v, 0) {
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

// Smooth is the exponential moving average of a series with the given decay, its
// start-up bias removed. Values that aren't finite stay as gaps.
func Smooth(s Series, decay float64) Series {
	out := Series{Name: s.Name, X: s.X, Y: make([]float64, len(s.Y))}
	mean, weight := 0.0, 0.0
	for i, y := range s.Y {
		if math.IsNaN(y) || math.IsInf(y, 0) {
			out.Y[i] = y
			continue
		}
		mean = decay*mean + (1-decay)*y
		weight = decay*weight + (1 - decay)
		out.Y[i] = mean / weight
	}
	return out
}
