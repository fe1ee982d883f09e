//go:build !unix

package metrics

func peakUsage() int64 { return 0 }
