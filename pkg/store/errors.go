package store

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"vpnd/pkg/fault"
)

// classify turns failures of the database into faults a caller can act on.
// Constraint violations and mistakes in SQL stay as they are.
func (db *DB) classify(err error) error { return unusable(db.path, err) }

func unusable(path string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	dir := filepath.Dir(path)
	s, isSQLite := errors.AsType[sqlite3.Error](err)
	switch {
	case outOfSpace(err), isSQLite && (s.Code == sqlite3.ErrFull || noSpace(s.SystemErrno)):
		return fault.Wrap(err, fault.Unavailable, "the disk that holds %s is full; nothing was changed", path).
			WithReason("disk_full").WithHint("free space at %s", dir)
	case !isSQLite && isPathError(err):
		return fault.Wrap(err, fault.Unavailable, "database %s cannot be opened", path).
			WithReason("disk_error").WithHint("see that %s exists and that this service may write to it", dir)
	case !isSQLite:
		return err
	}
	switch s.Code {
	case sqlite3.ErrIoErr, sqlite3.ErrCantOpen, sqlite3.ErrPerm:
		return fault.Wrap(err, fault.Unavailable, "database %s cannot be read or written", path).
			WithReason("disk_error").WithHint("look at the disk and the permissions of %s", dir)
	case sqlite3.ErrReadonly:
		return fault.Wrap(err, fault.Unavailable, "database %s is read-only; nothing was changed", path).
			WithReason("read_only").WithHint("make %s writable for this service", dir)
	case sqlite3.ErrCorrupt, sqlite3.ErrNotADB:
		return fault.Wrap(err, fault.Internal, "database %s is damaged", path).
			WithReason("corrupt").WithHint("stop vpnd and restore %s from a backup", path)
	case sqlite3.ErrBusy, sqlite3.ErrLocked:
		return fault.Wrap(err, fault.Unavailable, "database %s is locked by another program; nothing was changed", path).
			WithReason("busy").WithHint("close the program that has %s open", path)
	}
	return err
}

func outOfSpace(err error) bool {
	errno, ok := errors.AsType[unix.Errno](err)
	return ok && noSpace(errno)
}

func noSpace(errno unix.Errno) bool { return errno == unix.ENOSPC || errno == unix.EDQUOT }

func isPathError(err error) bool {
	_, ok := errors.AsType[unix.Errno](err)
	return ok
}

// IsUnique tells whether err is the violation of a UNIQUE or PRIMARY KEY
// constraint, and of which: "users.name", "leases.lane, leases.addr", or the
// index's name when the index is over an expression.
func IsUnique(err error) (constraint string, ok bool) {
	s, found := errors.AsType[sqlite3.Error](err)
	if !found {
		return "", false
	}
	switch s.ExtendedCode {
	case sqlite3.ErrConstraintUnique, sqlite3.ErrConstraintPrimaryKey, sqlite3.ErrConstraintRowID:
	default:
		return "", false
	}
	_, name, _ := strings.Cut(s.Error(), "failed: ")
	if index, isIndex := strings.CutPrefix(name, "index '"); isIndex {
		name = strings.TrimSuffix(index, "'")
	}
	return name, true
}
