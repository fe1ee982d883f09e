// Package disk replaces files whole and explains what the file system refuses:
// path, fact, and what to do about it, in one line.
//
// It is not for tensors, which package snapshot streams and commits as folders.
//
// Start at Replace.
package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Replace writes a file; it has its old contents, if it was there, until it has all
// of the new ones.
func Replace(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return Explain(path, err)
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if closed := tmp.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err == nil {
		return nil
	}
	os.Remove(tmp.Name())
	if cause := errors.Unwrap(err); cause != nil {
		err = cause // without the name of the temporary file
	}
	return Explain(path, err)
}

// Explain turns an error of the file system into one line. An error that knows its
// path overrules path.
func Explain(path string, err error) error {
	if err == nil {
		return nil
	}
	var at *fs.PathError
	var link *os.LinkError
	cause := err
	switch {
	case errors.As(err, &at):
		path, cause = at.Path, at.Err
	case errors.As(err, &link):
		path, cause = link.New, link.Err
	}
	remedy := ""
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		remedy = "free some space or choose another output directory"
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		remedy = "change its permissions or choose another output directory"
	case errors.Is(err, fs.ErrNotExist):
		remedy = "check the path"
	case errors.Is(err, syscall.ENOTDIR):
		remedy = "something that is not a directory is in the way"
	}
	prefix := path + ": "
	if strings.HasPrefix(cause.Error(), prefix) {
		prefix = ""
	}
	if remedy == "" {
		return fmt.Errorf("%s%w", prefix, cause)
	}
	return fmt.Errorf("%s%w; %s", prefix, cause, remedy)
}
