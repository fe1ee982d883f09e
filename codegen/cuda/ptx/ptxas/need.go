package ptxas

// Need is Find for a test, t, which it skips where there is none: that is all a test
// can do about a program that no script may install unasked.
func Need(t interface {
	Helper()
	Skipf(format string, args ...any)
}) *Tool {
	t.Helper()
	p, err := Find()
	if err != nil {
		t.Skipf("SKIPPED, NOTHING ASSEMBLED: %v; it is NVIDIA's and not free software, so no script installs it unasked", err)
	}
	return p
}
