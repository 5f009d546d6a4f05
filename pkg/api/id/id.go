// Package id holds the named identifiers that operations carry. It owns their
// form and how new ones are made; it knows nothing of what they identify.
// Everything here may be used concurrently.
package id

import (
	"crypto/rand"
	"encoding/base32"
	"strings"
)

// The kinds of identifiers. Their text is a prefix and 20 characters of
// lower-case base32: 100 random bits, so two are never the same.
type (
	User    string // usr_…: an account, never reused
	Device  string // dev_…: one WireGuard client of an account, stable across sign-ins
	Session string // ses_…: one connection of one device
	Event   string // evt_…
)

// Prefixes of the kinds.
const (
	UserPrefix    = "usr_"
	DevicePrefix  = "dev_"
	SessionPrefix = "ses_"
	EventPrefix   = "evt_"
)

// NewUser makes a fresh user id.
func NewUser() User { return User(fresh(UserPrefix)) }

// NewDevice makes a fresh device id.
func NewDevice() Device { return Device(fresh(DevicePrefix)) }

// NewSession makes a fresh session id.
func NewSession() Session { return Session(fresh(SessionPrefix)) }

// NewEvent makes a fresh event id.
func NewEvent() Event { return Event(fresh(EventPrefix)) }

func fresh(prefix string) string {
	var b [13]byte
	_, _ = rand.Read(b[:]) // never fails
	s := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])
	return prefix + strings.ToLower(s[:20])
}
