//go:build linux

package wgdev

import (
	"fmt"
	"os"
	"sync"
)

// logFile is a log of bounded size. When it is full its content is copied to
// NAME.1 and it is cut to nothing, so that other descriptors on the same file, such
// as the process's stderr, go on writing to it.
type logFile struct {
	mu   sync.Mutex
	file *os.File
	max  int64
}

func openLog(path string, max int64) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return &logFile{file: f, max: max}, nil
}

// Write never fails for want of space: a full disk must not stop a tunnel.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s, err := l.file.Stat(); err == nil && s.Size()+int64(len(p)) > l.max {
		l.rotate(s.Size())
	}
	_, _ = l.file.Write(p)
	return len(p), nil
}

func (l *logFile) rotate(size int64) {
	// Something else may have written a lot; the last part is what counts.
	keep := make([]byte, min(size, l.max))
	if n, err := l.file.ReadAt(keep, size-int64(len(keep))); err == nil {
		_ = os.WriteFile(l.file.Name()+".1", keep[:n], 0o600)
	}
	_ = l.file.Truncate(0)
}

// Close closes the file.
func (l *logFile) Close() error { return l.file.Close() }
