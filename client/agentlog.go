package client

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"vpnd/pkg/fault"
)

// maxLog is the size at which the agent's log begins anew; the file before is
// kept as well.
const maxLog = 1 << 20

// cappedLog is a log file of bounded size. It may be used concurrently.
type cappedLog struct {
	path string

	mu   sync.Mutex
	file *os.File
	size int64
}

func openLog(path string) (*cappedLog, error) {
	l := &cappedLog{path: path}
	if err := l.open(); err != nil {
		return nil, fault.Wrap(err, fault.Denied, "cannot write %s", path)
	}
	if l.size > maxLog {
		if err := l.turn(); err != nil {
			return nil, fmt.Errorf("begin a new log: %w", err)
		}
	}
	return l, nil
}

func (l *cappedLog) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// turn sets the full file aside.
func (l *cappedLog) turn() error {
	if err := os.Rename(l.path, l.path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	old := l.file
	if err := l.open(); err != nil {
		return err
	}
	return old.Close()
}

// Write appends a record.
func (l *cappedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size+int64(len(b)) > maxLog {
		if err := l.turn(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(b)
	l.size += int64(n)
	return n, err
}

// Close closes the file.
func (l *cappedLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}
