package exec

import (
	"bytes"
	"testing"
)

func TestZeroClearsWhatIsNotClear(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 10_000} {
		b := make([]byte, n+1)
		for i := 0; i < n; i += 3 {
			b[i] = byte(i) | 1
		}
		b[n] = 7
		zero(b[:n])
		if !bytes.Equal(b[:n], make([]byte, n)) || b[n] != 7 {
			t.Errorf("%d bytes: not clear, or more than they", n)
		}
	}
}
