package logstore

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// errDamaged is content that its checksum or its own structure contradicts.
var errDamaged = errors.New("content of a day file is damaged")

// isDamage tells failures of one day's file from those of the machine.
func isDamage(err error) bool {
	if errors.Is(err, errDamaged) {
		return true
	}
	s, ok := errors.AsType[sqlite3.Error](err)
	if !ok {
		return false
	}
	switch s.Code {
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB, sqlite3.ErrFormat, sqlite3.ErrError, sqlite3.ErrSchema, sqlite3.ErrMismatch:
		// ErrError: our statements are right, so the schema they meet is not.
		return true
	case sqlite3.ErrIoErr:
		return s.ExtendedCode == sqlite3.ErrIoErrShortRead
	}
	return false
}

// isFull tells whether it was for want of space.
func isFull(err error) bool {
	errno, _ := errors.AsType[unix.Errno](err)
	s, isSQLite := errors.AsType[sqlite3.Error](err)
	if isSQLite {
		errno = s.SystemErrno
	}
	return errno == unix.ENOSPC || errno == unix.EDQUOT || isSQLite && s.Code == sqlite3.ErrFull
}

func classify(path string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	dir := filepath.Dir(path)
	s, isSQLite := errors.AsType[sqlite3.Error](err)
	errno, isErrno := errors.AsType[unix.Errno](err)
	switch {
	case isFull(err):
		return fault.Wrap(err, fault.Unavailable, "the disk that holds %s is full; nothing was lost", dir).
			WithReason("disk_full").WithHint("free space at %s, or lower logs.max_size_mib", dir)
	case isSQLite && s.Code == sqlite3.ErrReadonly, errno == unix.EROFS:
		return fault.Wrap(err, fault.Unavailable, "%s is read-only", dir).
			WithReason("read_only").WithHint("make %s writable for this service", dir)
	case isSQLite && (s.Code == sqlite3.ErrBusy || s.Code == sqlite3.ErrLocked):
		return fault.Wrap(err, fault.Unavailable, "%s is locked by another program", path).
			WithReason("busy").WithHint("close the program that has %s open", path)
	case isSQLite, isErrno:
		return fault.Wrap(err, fault.Unavailable, "%s cannot be read or written", path).
			WithReason("disk_error").WithHint("look at the disk and the permissions of %s", dir)
	}
	return err
}

// ended says why a query stopped: its own time limit, or its caller.
func ended(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errTimeLimit) {
		return fault.New(fault.Timeout, "the query took longer than it may").WithReason("query_time").
			WithHint("ask about a shorter time with since= and until=, or add a word or a service")
	}
	return ctx.Err()
}

var errTimeLimit = errors.New("time limit of the query")
