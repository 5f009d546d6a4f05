package dns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// The bus name, object and interface of systemd-resolved
// (org.freedesktop.resolve1(5)).
const (
	resolvedName    = "org.freedesktop.resolve1"
	resolvedPath    = "/org/freedesktop/resolve1"
	resolvedManager = "org.freedesktop.resolve1.Manager"
)

// busTimeout bounds connecting and one call.
const busTimeout = 5 * time.Second

// resolved tells systemd-resolved that the tunnel's link answers for all names.
// What it is told ends with the link.
type resolved struct {
	conf string
	bus  string
}

// linkAddress and linkDomain have the D-Bus signatures (iay) and (sb).
type linkAddress struct {
	Family  int32
	Address []byte
}

type linkDomain struct {
	Domain      string
	RoutingOnly bool
}

func (r resolved) usable(ctx context.Context) bool {
	if !r.inCharge() {
		return false
	}
	return r.talk(ctx, func(ctx context.Context, m dbus.BusObject) error {
		var v dbus.Variant
		return m.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, resolvedManager, "DNSEx").Store(&v)
	}) == nil
}

// inCharge tells whether programs ask its stub.
func (r resolved) inCharge() bool {
	if real, err := filepath.EvalSymlinks(r.conf); err == nil && strings.Contains(real, "/systemd/resolve/") {
		return true
	}
	b, err := readConf(r.conf)
	return err == nil && bytes.Contains(b, []byte("nameserver 127.0.0.53"))
}

func (resolved) prepare(s Setting, _ *Record) (Record, error) {
	if s.Index <= 0 {
		return Record{}, fmt.Errorf("interface %s has no index", s.Interface)
	}
	return Record{Method: Resolved, Interface: s.Interface, Index: s.Index}, nil
}

func (r resolved) set(ctx context.Context, s Setting) error {
	var addrs []linkAddress
	for _, a := range s.Servers {
		family := int32(unix.AF_INET6)
		if a.Is4() {
			family = unix.AF_INET
		}
		addrs = append(addrs, linkAddress{family, a.AsSlice()})
	}
	index := int32(s.Index)
	return r.talk(ctx, func(ctx context.Context, m dbus.BusObject) error {
		for _, c := range []struct {
			method string
			arg    any
		}{
			{"SetLinkDNS", addrs},
			{"SetLinkDomains", []linkDomain{{".", true}}}, // "~." of resolvectl: all names
			{"SetLinkDefaultRoute", true},
		} {
			if err := m.CallWithContext(ctx, resolvedManager+"."+c.method, 0, index, c.arg).Err; err != nil {
				return fmt.Errorf("%s: %w", c.method, err)
			}
		}
		// Answers from before the tunnel may be another network's.
		return m.CallWithContext(ctx, resolvedManager+".FlushCaches", 0).Err
	})
}

func (r resolved) undo(ctx context.Context, rec Record) error {
	err := r.talk(ctx, func(ctx context.Context, m dbus.BusObject) error {
		return m.CallWithContext(ctx, resolvedManager+".RevertLink", 0, int32(rec.Index)).Err
	})
	// Without the link, or without systemd-resolved, nothing of it is left.
	var remote dbus.Error
	if errors.As(err, &remote) && strings.HasSuffix(remote.Name, ".NoSuchLink") || errors.Is(err, errNoBus) {
		return nil
	}
	return err
}

// errNoBus is a system bus that is not there.
var errNoBus = errors.New("no system bus")

func (r resolved) talk(ctx context.Context, fn func(context.Context, dbus.BusObject) error) error {
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	var conn *dbus.Conn
	var err error
	if r.bus == "" {
		conn, err = dbus.ConnectSystemBus(dbus.WithContext(ctx))
	} else {
		conn, err = dbus.Connect(r.bus, dbus.WithContext(ctx))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errNoBus, err)
	}
	defer conn.Close()
	return fn(ctx, conn.Object(resolvedName, resolvedPath))
}
