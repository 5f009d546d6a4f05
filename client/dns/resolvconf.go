package dns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// resolvconfTimeout bounds one run: its hooks may restart a local resolver.
const resolvconfTimeout = 10 * time.Second

// resolvconf hands the servers to the program of that name. It has no interface
// but its command line.
type resolvconf struct {
	conf  string
	order string
}

func (r resolvconf) path() (string, bool) {
	p, err := exec.LookPath("resolvconf")
	if err != nil {
		return "", false
	}
	// systemd's program of that name only talks to systemd-resolved, which was
	// found not to be in use.
	real, err := filepath.EvalSymlinks(p)
	return p, err == nil && filepath.Base(real) != "resolvectl"
}

func (r resolvconf) usable(context.Context) bool {
	_, ok := r.path()
	return ok
}

func (r resolvconf) prepare(s Setting, _ *Record) (Record, error) {
	return Record{Method: Resolvconf, Interface: s.Interface}, nil
}

// record is the name under which resolvconf keeps the servers. Debian's ranks
// records by name, those of "tun" before those of network cards.
func (r resolvconf) record(iface string) string {
	if _, err := os.Stat(r.order); err == nil {
		return "tun." + iface
	}
	return iface
}

func (r resolvconf) set(ctx context.Context, s Setting) error {
	var in strings.Builder
	for _, a := range s.Servers {
		fmt.Fprintf(&in, "nameserver %s\n", a)
	}
	// -m 0 -x: first and only, in openresolv; Debian's ignores both.
	if err := r.run(ctx, in.String(), "-a", r.record(s.Interface), "-m", "0", "-x"); err != nil {
		return err
	}
	b, err := readConf(r.conf)
	if err != nil {
		return err
	}
	// A local cache in front of them is as good.
	have := parseServers(b)
	if anyLoopback(have) || slices.ContainsFunc(have, func(a netip.Addr) bool { return slices.Contains(s.Servers, a) }) {
		return nil
	}
	return errors.New("its change does not show in " + r.conf)
}

func (r resolvconf) undo(ctx context.Context, rec Record) error {
	if _, ok := r.path(); !ok {
		return nil // uninstalled since
	}
	return r.run(ctx, "", "-d", r.record(rec.Interface), "-f")
}

func (r resolvconf) run(ctx context.Context, stdin string, args ...string) error {
	path, ok := r.path()
	if !ok {
		return errors.New("it is not installed")
	}
	ctx, cancel := context.WithTimeout(ctx, resolvconfTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second // a hook may keep the pipe open
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("resolvconf %s: %w: %.200q", args[0], err, stderr.String())
	}
	return nil
}
