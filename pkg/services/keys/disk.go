package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"vpnd/pkg/durable"
)

// folder is the service's state folder.
type folder string

// lock keeps a second process from making keys at the same time. The kernel
// drops it with the process.
func (d folder) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.Open(string(d))
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", d, err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", d, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// errBroken is a file that is there but cannot be what it should be, as
// opposed to one that cannot be read just now.
var errBroken = errors.New("not a readable regular file")

// read gives a file's content and tightens its mode. A missing file is
// os.ErrNotExist.
func (d folder) read(name string) (data []byte, tightened bool, err error) {
	path := filepath.Join(string(d), name)
	info, err := os.Stat(path)
	if err != nil {
		return nil, false, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, false, errBroken
	}
	if info.Mode().Perm() != 0o600 {
		if err := os.Chmod(path, 0o600); err != nil {
			return nil, false, err
		}
		tightened = true
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, tightened, err
	}
	defer f.Close()
	data, err = io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	return data, tightened, err
}

// write replaces a file so that after a crash either the old or the new one
// is there, whole.
func (d folder) write(name string, data []byte) error {
	return durable.Write(filepath.Join(string(d), name), data)
}

// setAside keeps a broken file under another name, for people to look at.
func (d folder) setAside(name string, now time.Time) (string, error) {
	aside := name + ".broken-" + now.UTC().Format("20060102T150405.000000000Z")
	if err := os.Rename(filepath.Join(string(d), name), filepath.Join(string(d), aside)); err != nil {
		return "", err
	}
	return aside, d.sync()
}

// removeLeftovers deletes what a write that was killed left behind. The caller
// holds the lock, so nobody is writing.
func (d folder) removeLeftovers() error {
	errs := []error{durable.RemoveLeftovers(filepath.Join(string(d), certFile))}
	for _, s := range slots() {
		errs = append(errs, durable.RemoveLeftovers(filepath.Join(string(d), s.file)))
	}
	return errors.Join(errs...)
}

func (d folder) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
