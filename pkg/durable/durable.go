// Package durable replaces small files whole: after a crash or a power failure
// the old content is there or the new one, never a part or a mixture.
//
// It owns the order of writing, syncing and renaming, and what a full or broken
// disk is called. It leaves to others what is in the files.
package durable

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// Write replaces the file at path, with mode 0600, and returns when disk and
// folder have it. Unavailable, with a reason of disk_full or disk_error, means
// that the old content is still there.
func Write(path string, data []byte) error {
	if err := replace(path, data); err != nil {
		return classify(path, err)
	}
	return nil
}

// WriteJSON is Write of v as one line of JSON.
func WriteJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return Write(path, append(data, '\n'))
}

// RemoveLeftovers deletes what Writes to path that were killed left behind.
// Nobody may be writing to path meanwhile.
func RemoveLeftovers(path string) error {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix(path)) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// tempPrefix begins the names of the files that become path.
func tempPrefix(path string) string { return ".tmp-" + filepath.Base(path) + "-" }

func replace(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, tempPrefix(path)) // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func classify(path string, err error) error {
	dir := filepath.Dir(path)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fault.Wrap(err, fault.Unavailable, "no space left on the disk that holds %s; nothing was changed", path).
			WithReason("disk_full").WithHint("free space at %s", dir)
	}
	return fault.Wrap(err, fault.Unavailable, "%s cannot be written: %v", path, err).
		WithReason("disk_error").WithHint("look at the disk and the permissions of %s", dir)
}
