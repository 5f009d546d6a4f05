package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"vpnd/pkg/api/logs"
	"vpnd/pkg/fault"
)

// refuseFolder refuses a file where vpnd reads logs, since every line would
// come back as a new one, and where it keeps them. what is how the file was
// named.
func refuseFolder(ctx context.Context, f *factory, what, path string) error {
	if !strings.HasPrefix(f.host, "unix:") {
		return nil // the folders are elsewhere
	}
	dir, err := realDir(filepath.Dir(path))
	if err != nil {
		return fault.Wrap(err, fault.Invalid, "%s: %v", what, err).WithHint("make the folder first")
	}
	s, err := call(ctx, f, logs.GetStatus, nil)
	if err != nil {
		return err
	}
	for _, d := range s.Dirs {
		if within(dir, d) {
			return fault.New(fault.Invalid, "%s is where vpnd reads logs from: its lines would come back", what).WithHint("write it to another folder than %s", d)
		}
	}
	if s.Store != "" && within(dir, s.Store) {
		return fault.New(fault.Invalid, "%s is where vpnd keeps its log lines", what).WithHint("write it to another folder than %s", s.Store)
	}
	return nil
}

// refuseOutput is refuseFolder for standard output, where a shell has led it
// into a file.
func refuseOutput(ctx context.Context, f *factory) error {
	file, ok := f.out.(*os.File)
	if !ok {
		return nil
	}
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	if err != nil {
		return nil // no /proc: it cannot be known
	}
	err = refuseFolder(ctx, f, "standard output, "+path+",", path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it has lost its name, so nobody reads it
	}
	return err
}

// within tells whether a folder, which is one without links, lies in another.
func within(dir, other string) bool {
	real, err := realDir(other)
	return err == nil && (dir == real || strings.HasPrefix(dir, strings.TrimSuffix(real, "/")+"/"))
}

func realDir(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}
