package dns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// marker is the first line of a resolv.conf of ours.
const marker = "# made by vpn; 'vpn down' puts back what was here before\n"

// maxConf bounds what is read of a resolv.conf.
const maxConf = 256 << 10

// Saved is a resolv.conf as it was.
type Saved struct {
	Absent  bool        `json:"absent,omitempty"`
	Link    string      `json:"link,omitempty"` // what the symbolic link said
	Content []byte      `json:"content,omitempty"`
	Mode    fs.FileMode `json:"mode,omitempty"`
}

// file replaces resolv.conf by a file of ours. A symbolic link is replaced, not
// followed: what it leads to belongs to another program.
type file struct{ path string }

func (file) usable(context.Context) bool { return true }

func (f file) prepare(s Setting, old *Record) (Record, error) {
	rec := Record{Method: File, Interface: s.Interface}
	ours, err := f.ours()
	if err != nil {
		return rec, err
	}
	if ours && old != nil && old.Before != nil {
		rec.Before = old.Before
		return rec, nil
	}
	rec.Before, err = f.save()
	if err == nil && ours {
		// Of a run whose record is lost. Its servers are better than none, but they
		// are nobody's to undo any more.
		rec.Before.Content = bytes.TrimPrefix(rec.Before.Content, []byte(marker))
	}
	return rec, err
}

func (f file) save() (*Saved, error) {
	info, err := os.Lstat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Saved{Absent: true}, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		link, err := os.Readlink(f.path)
		return &Saved{Link: link}, err
	}
	b, err := readConf(f.path)
	return &Saved{Content: b, Mode: info.Mode().Perm()}, err
}

// ours tells whether resolv.conf is the one that set wrote.
func (f file) ours() (bool, error) {
	info, err := os.Lstat(f.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	b, err := readConf(f.path)
	return bytes.HasPrefix(b, []byte(marker)), err
}

func (f file) set(_ context.Context, s Setting) error {
	var b bytes.Buffer
	b.WriteString(marker)
	for _, a := range s.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if have, err := readConf(f.path); err == nil && bytes.Equal(have, b.Bytes()) {
		if ours, err := f.ours(); err == nil && ours {
			return nil
		}
	}
	return f.replace(b.Bytes(), 0o644)
}

func (f file) undo(_ context.Context, r Record) error {
	ours, err := f.ours()
	if err != nil || !ours || r.Before == nil {
		return err // another program has written a newer one: that stands
	}
	switch old := r.Before; {
	case old.Absent:
		return os.Remove(f.path)
	case old.Link != "":
		tmp := f.temp()
		_ = os.Remove(tmp)
		if err := os.Symlink(old.Link, tmp); err != nil {
			return err
		}
		return f.rename(tmp)
	default:
		return f.replace(old.Content, old.Mode)
	}
}

func (f file) temp() string { return filepath.Join(filepath.Dir(f.path), ".resolv.conf.vpn") }

// replace changes the whole file at once. In a container the file may be a mount
// that cannot be renamed over; then it is written in place.
func (f file) replace(b []byte, mode fs.FileMode) error {
	tmp := f.temp()
	_ = os.Remove(tmp)
	w, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	err = errors.Join(err, w.Chmod(mode), w.Sync(), w.Close())
	if err == nil {
		err = os.Rename(tmp, f.path)
	}
	if errors.Is(err, syscall.EBUSY) {
		err = os.WriteFile(f.path, b, mode)
	}
	_ = os.Remove(tmp) // gone already, unless something failed
	return err
}

func (f file) rename(tmp string) error {
	if err := os.Rename(tmp, f.path); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return nil
}

func readConf(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxConf))
}

// Servers gives the name servers that the machine asked before the tunnel. Those
// of systemd-resolved stand behind its stub; the stub itself would ask the
// tunnel's.
func (r *Resolver) Servers() []netip.Addr {
	b, _ := readConf(r.paths.ResolvConf) // a missing one has none
	servers := parseServers(b)
	if !anyLoopback(servers) {
		return servers
	}
	b, err := readConf(r.paths.Upstream)
	if err != nil {
		return servers
	}
	return parseServers(b)
}

// parseServers reads the nameserver lines (resolv.conf(5)).
func parseServers(b []byte) []netip.Addr {
	var out []netip.Addr
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

func anyLoopback(servers []netip.Addr) bool {
	for _, a := range servers {
		if a.IsLoopback() {
			return true
		}
	}
	return false
}
