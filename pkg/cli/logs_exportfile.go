package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"vpnd/pkg/fault"
)

// exportFile is a file that is there when it is complete: it is written
// beside under another name.
type exportFile struct {
	*os.File
	path  string
	force bool
	kept  bool
}

func newExportFile(ctx context.Context, f *factory, path string, force bool) (*exportFile, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fault.Wrap(err, fault.Invalid, "--out %s: %v", path, err)
	case !info.Mode().IsRegular():
		return nil, fault.New(fault.Invalid, "--out %s is no regular file", path).WithHint("without --out the lines go to standard output")
	case !force:
		return nil, overwriting(path)
	}
	if err := refuseFolder(ctx, f, "--out "+path, path); err != nil {
		return nil, err
	}
	// Whoever may read the logs decides who may read this: nobody else, at first.
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.part")
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "--out %s cannot be written: %v", path, err)
	}
	return &exportFile{File: file, path: path, force: force}, nil
}

func overwriting(path string) error {
	return fault.New(fault.Exists, "%s exists", path).WithHint("add --force to replace it")
}

// keep gives the file its name.
func (e *exportFile) keep() error {
	if err := errors.Join(e.Sync(), e.Close()); err != nil {
		return fmt.Errorf("write %s: %w", e.path, err)
	}
	if !e.force {
		// A link replaces nothing, not even what came since we looked.
		err := os.Link(e.Name(), e.path)
		if err == nil {
			return nil // discard takes the other name away
		}
		if _, there := os.Lstat(e.path); errors.Is(err, fs.ErrExist) || there == nil {
			return overwriting(e.path)
		}
	}
	if err := os.Rename(e.Name(), e.path); err != nil {
		return fmt.Errorf("write %s: %w", e.path, err)
	}
	e.kept = true
	return nil
}

// discard takes away what was not kept.
func (e *exportFile) discard() {
	_ = e.Close()
	if !e.kept {
		_ = os.Remove(e.Name())
	}
}
