package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"vpnd/pkg/fault"
)

// Method is a way to tell the machine its name servers.
type Method string

// The methods.
const (
	Resolved   Method = "systemd-resolved"
	Resolvconf Method = "resolvconf"
	File       Method = "file" // /etc/resolv.conf itself
)

// Setting is what the machine should use.
type Setting struct {
	Interface string
	Index     int // of the interface
	Servers   []netip.Addr
}

// Record is what Undo needs. It holds no secrets.
type Record struct {
	Method    Method `json:"method"`
	Interface string `json:"interface"`
	Index     int    `json:"index,omitempty"`
	Before    *Saved `json:"before,omitempty"` // method File only
}

// method is one way. All its calls may be repeated.
type method interface {
	// usable tells whether the machine does it this way.
	usable(ctx context.Context) bool
	// prepare gives what undo will need and changes nothing. old is the record of
	// an earlier change that was not undone, or nil.
	prepare(s Setting, old *Record) (Record, error)
	set(ctx context.Context, s Setting) error
	undo(ctx context.Context, r Record) error
}

// Paths are the files that matter.
type Paths struct {
	ResolvConf string // /etc/resolv.conf
	Upstream   string // what systemd-resolved itself asks
	Interfaces string // order file of Debian's resolvconf
	SystemBus  string // address of the D-Bus system bus; empty: the usual one
}

// DefaultPaths are where things are on every Linux.
func DefaultPaths() Paths {
	return Paths{
		ResolvConf: "/etc/resolv.conf",
		Upstream:   "/run/systemd/resolve/resolv.conf",
		Interfaces: "/etc/resolvconf/interface-order",
	}
}

// Resolver is the machine's resolver. Make it with New.
type Resolver struct {
	paths   Paths
	methods []named
}

type named struct {
	name Method
	method
}

// New prepares the methods. It does no I/O.
func New(p Paths) *Resolver {
	return &Resolver{paths: p, methods: []named{
		{Resolved, resolved{conf: p.ResolvConf, bus: p.SystemBus}},
		{Resolvconf, resolvconf{conf: p.ResolvConf, order: p.Interfaces}},
		{File, file{path: p.ResolvConf}},
	}}
}

// Set makes the machine use s. Before anything is changed, save is called with
// what undoing takes. old is the record of an earlier Set that was not undone, or
// nil; what it did by another method is undone.
func (r *Resolver) Set(ctx context.Context, s Setting, old *Record, save func(Record) error) error {
	if len(s.Servers) == 0 {
		return nil
	}
	var all error
	for _, m := range r.methods {
		if !m.usable(ctx) {
			continue
		}
		if old != nil && old.Method != m.name {
			if err := r.Undo(ctx, *old); err != nil {
				return err
			}
			old = nil
		}
		rec, err := m.prepare(s, old)
		if err == nil {
			err = save(rec)
		}
		if err == nil {
			err = m.set(ctx, s)
		}
		if err == nil {
			return nil
		}
		all = errors.Join(all, fmt.Errorf("%s: %w", m.name, err))
		if rec.Method != "" {
			old = &rec
		}
	}
	return fault.Wrap(all, fault.Internal, "the name servers of this machine cannot be changed")
}

// Undo takes back what Set did, as far as nobody else has changed it since.
func (r *Resolver) Undo(ctx context.Context, rec Record) error {
	for _, m := range r.methods {
		if m.name == rec.Method {
			if err := m.undo(ctx, rec); err != nil {
				return fmt.Errorf("restore name servers (%s): %w", m.name, err)
			}
			return nil
		}
	}
	return fmt.Errorf("restore name servers: unknown method %q", rec.Method)
}
