package profile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"vpnd/pkg/fault"
)

const (
	fileName = "profile.json"
	newName  = ".profile.json.new"
	lockName = "lock"
	maxFile  = 1 << 20 // a real one has about 4 KiB
)

// lockPatience is how long Update waits for another vpn command when its
// context sets no deadline. A command holds the lock for one request at most.
const lockPatience = 20 * time.Second

// lockPoll is how often a taken lock is tried again.
const lockPoll = 20 * time.Millisecond

// Store reads and writes the profile at a Location. Make it with New.
type Store struct{ loc Location }

// New makes a Store. It touches no file.
func New(loc Location) *Store { return &Store{loc: loc} }

// Location is where the profile lies.
func (s *Store) Location() Location { return s.loc }

// Load reads the profile. The zero Profile is the answer where there is none.
// A damaged file is an error that names it, and is left as it is.
func (s *Store) Load() (*Profile, error) {
	root, err := s.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return &Profile{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return s.read(root)
}

// Update changes the profile: it locks the folder, reads, calls fn and writes
// what fn made of it, durably, before it returns. When fn fails nothing is
// written. fn may save what it has so far with the function it is given.
func (s *Store) Update(ctx context.Context, fn func(p *Profile, save func() error) error) error {
	root, err := s.open(true)
	if err != nil {
		return err
	}
	defer root.Close()
	unlock, err := s.lock(ctx, root)
	if err != nil {
		return err
	}
	defer unlock()
	p, err := s.read(root)
	if err != nil {
		return err
	}
	save := func() error { return s.write(root, p) }
	if err := fn(p, save); err != nil {
		return err
	}
	return save()
}

// open opens the folder; with create, after making it. Under sudo the folder
// belongs to somebody who must not be able to point root elsewhere: it is made
// without following links out of the home directory, and used only when it is
// theirs.
func (s *Store) open(create bool) (*os.Root, error) {
	path := s.loc.Path()
	root, err := os.OpenRoot(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		if err := s.makeFolder(); err != nil {
			return nil, fault.Wrap(err, fault.Denied, "cannot make %s", path).
				WithHint("make it yourself, or set XDG_CONFIG_HOME to a folder of yours")
		}
		root, err = os.OpenRoot(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Denied, "cannot open %s", path)
	}
	info, err := root.Stat(".")
	if err == nil {
		err = checkOwner(info, s.loc.UID)
	}
	if err != nil {
		_ = root.Close()
		return nil, fault.Wrap(err, fault.Denied, "%s cannot be used", path).
			WithHint("it must be a folder of user %d with mode 0700", s.loc.UID)
	}
	return root, nil
}

func (s *Store) makeFolder() error {
	if err := os.MkdirAll(s.loc.Base, 0o700); err != nil {
		return err
	}
	base, err := os.OpenRoot(s.loc.Base)
	if err != nil {
		return err
	}
	defer base.Close()
	// Step by step, so that each new folder gets its owner.
	for _, dir := range parents(s.loc.Dir) {
		err := base.Mkdir(dir, 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := base.Lchown(dir, s.loc.UID, s.loc.GID); err != nil {
			return err
		}
	}
	return nil
}

// parents gives "a", "a/b", "a/b/c" for "a/b/c".
func parents(dir string) []string {
	var out []string
	for d := filepath.Clean(dir); d != "."; d = filepath.Dir(d) {
		out = append([]string{d}, out...)
	}
	return out
}

func (s *Store) lock(ctx context.Context, root *os.Root) (unlock func(), err error) {
	// Only a file made here gets an owner: an existing one might be a link to
	// something that is not its owner's to have.
	f, err := root.OpenFile(lockName, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Chown(s.loc.UID, s.loc.GID)
	} else if errors.Is(err, fs.ErrExist) {
		f, err = root.OpenFile(lockName, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Denied, "cannot write in %s", s.loc.Path())
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lockPatience)
		defer cancel()
	}
	for {
		ok, err := tryLock(f)
		switch {
		case err != nil:
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", s.loc.Path(), err)
		case ok:
			return func() { _ = f.Close() }, nil
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fault.Wrap(ctx.Err(), fault.From(ctx.Err()).Code, "another vpn command is using %s", s.loc.Path()).
				WithHint("try again when it has ended")
		case <-time.After(lockPoll):
		}
	}
}

func (s *Store) read(root *os.Root) (*Profile, error) {
	f, err := root.Open(fileName)
	if errors.Is(err, fs.ErrNotExist) {
		return &Profile{}, nil
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Denied, "cannot read %s", s.loc.File())
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.loc.File(), err)
	}
	var p *Profile
	if len(b) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	} else {
		p, err = decode(b)
	}
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "%s is damaged", s.loc.File()).WithReason("profile_damaged").
			WithHint("move it away and sign in again: mv %s %s.bad && vpn login URL", s.loc.File(), s.loc.File())
	}
	return p, nil
}

// write replaces the file as a whole: a reader, and a crash at any point, finds
// the old content or the new.
func (s *Store) write(root *os.Root, p *Profile) error {
	b, err := encode(p)
	if err != nil {
		return err
	}
	_ = root.Remove(newName) // of a crashed command: the lock is ours
	err = s.writeFile(root, newName, b)
	if err == nil {
		err = root.Rename(newName, fileName)
	}
	if err == nil {
		err = syncFolder(root)
	}
	if err != nil {
		_ = root.Remove(newName)
		return fmt.Errorf("write %s: %w", s.loc.File(), err)
	}
	return nil
}

func (s *Store) writeFile(root *os.Root, name string, b []byte) error {
	// O_EXCL does not follow a link that somebody put there.
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chown(s.loc.UID, s.loc.GID)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncFolder(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
