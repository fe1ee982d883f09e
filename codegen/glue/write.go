package glue

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

// staged ends the names of files on their way; the go command does not look at them.
const staged = ".new"

// Write puts files into dir. Files whose contents are already right are left
// alone, for the build cache's sake, and z_ files that files doesn't have are
// removed from every folder it writes to. Nothing is changed before all of it is on
// disk: a package of which half is old would not fit together.
func Write(dir string, files []File) (err error) {
	keep := map[string]bool{}
	var ready []string // paths whose new contents stand beside them
	defer func() {
		if err != nil {
			for _, p := range ready {
				os.Remove(p + staged)
			}
		}
	}()
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
		ready = append(ready, p)
		if err := os.WriteFile(p+staged, f.Data, 0o644); err != nil {
			return err
		}
	}
	for _, p := range ready {
		if err := os.Rename(p+staged, p); err != nil {
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
