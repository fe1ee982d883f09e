package cpu

import (
	"runtime"
	"strings"
	"testing"
)

func TestBestTargetTakesTheFirstThatRuns(t *testing.T) {
	able := Targets()
	if len(able) == 0 {
		if _, err := BestTarget([]string{"x86-64-v3"}); err == nil {
			t.Error("a target was chosen for a processor that runs none")
		}
		return
	}
	got, err := BestTarget([]string{"arm64", "x86-64-v3", able[0], "x86-64-v4"})
	if err != nil || got != able[0] {
		t.Errorf("chose %q, %v; want %q", got, err, able[0])
	}
	if _, err := BestTarget([]string{"sm_90a"}); err == nil || !strings.Contains(err.Error(), "regenerate with -target "+able[0]) {
		t.Errorf("no common target gives error %v", err)
	}
	if runtime.GOARCH == "arm64" && able[len(able)-1] != "arm64" {
		t.Errorf("arm64 runs %q", able)
	}
}

func TestCachesArePlausible(t *testing.T) {
	l1, l2, l3 := Caches()
	if l1 < 8<<10 || l1 > 1<<20 || l2 < l1 || l2 > 64<<20 || l3 != 0 && l3 < 1<<20 {
		t.Errorf("caches of %d, %d and %d bytes", l1, l2, l3)
	}
}
