package glue

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

// Write puts files into dir. Files whose contents are already right are left
// alone, for the build cache's sake, and z_ files that files doesn't have are
// removed from every folder it writes to.
func Write(dir string, files []File) error {
	keep := map[string]bool{}
	folders := map[string]bool{dir: true, filepath.Join(dir, "trainer"): true}
	for _, f := range files {
		p := filepath.Join(dir, filepath.FromSlash(f.Path))
		keep[p] = true
		folders[filepath.Dir(p)] = true
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if old, err := os.ReadFile(p); err == nil && bytes.Equal(old, f.Data) {
			continue
		}
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			return err
		}
	}
	for folder := range folders {
		entries, err := os.ReadDir(folder)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			p := filepath.Join(folder, e.Name())
			if strings.HasPrefix(e.Name(), "z_") && !e.IsDir() && !keep[p] {
				if err := os.Remove(p); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
