package keys

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tempMark is in the names of files that are being written.
const tempMark = ".tmp-"

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
func (d folder) write(name string, data []byte) (err error) {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	temp := filepath.Join(string(d), name+tempMark+hex.EncodeToString(b[:]))
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	_, werr := f.Write(data)
	if err := errors.Join(werr, f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(string(d), name)); err != nil {
		return err
	}
	return d.sync()
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
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name, _, ok := strings.Cut(e.Name(), tempMark); ok && ours(name) {
			if err := os.Remove(filepath.Join(string(d), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func ours(name string) bool {
	for _, s := range slots() {
		if s.file == name {
			return true
		}
	}
	return name == certFile
}

func (d folder) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
