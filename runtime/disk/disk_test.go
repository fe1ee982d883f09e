package disk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReplaceWritesAndOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, text := range []string{"long text", "short", ""} {
		if err := Replace(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q, %v after writing %q", got, err, text)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("%d files are left", len(left))
	}
}

// A folder can't be replaced by a file, which stands for all that fails late.
func TestAFailureLeavesWhatWasThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	err := Replace(path, []byte("text"))
	if err == nil || !strings.HasPrefix(err.Error(), path+": ") || strings.Contains(err.Error(), ".new-") {
		t.Errorf("error %v, want one about %s", err, path)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 || !left[0].IsDir() {
		t.Errorf("%v is left", left)
	}
	err = Replace(filepath.Join(dir, "none", "f"), nil)
	if err == nil || !strings.HasSuffix(err.Error(), "check the path") {
		t.Errorf("error %v, want advice", err)
	}
}
