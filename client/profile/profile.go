package profile

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/secret"
	"vpnd/pkg/wgdev"
)

// version is that of the file's form. A file of a newer form is refused.
const version = 1

// Lane is one of the two ways to the internet.
type Lane string

// The lanes.
const (
	VPN Lane = "vpn"
	Tor Lane = "tor"
)

// Profile is what the client remembers. The zero value is somebody who never
// signed in.
type Profile struct {
	Server Server
	User   client.TokenUser
	Device Device
	Tokens Tokens

	// Key is the WireGuard key of device KeyOf: another device needs another key.
	Key   wgdev.PrivateKey
	KeyOf id.Device

	Lane    Lane     // the one used last; empty means VPN
	Session *Session // the latest one, nil when it is closed

	// Addresses are those that host names led to when a look-up last worked.
	Addresses map[string][]netip.Addr
}

// Server is where the client API is and how to know it again.
type Server struct {
	Host string `json:"host"`
	Port uint16 `json:"port"`
	Pin  string `json:"pin"`
}

// Device is this machine as the server knows it. It outlives a sign-out.
type Device struct {
	ID   id.Device `json:"id"`
	Name string    `json:"name"`
}

// Tokens are what a sign-in gave. The zero value is signed out.
type Tokens struct {
	Access         secret.Text
	AccessIssued   time.Time
	AccessExpires  time.Time
	Refresh        secret.Text
	RefreshExpires time.Time

	// RenewalSent is set before the refresh token is sent and unset with the
	// answer. Where it stayed, nobody knows whether the token is spent, and a spent
	// one, sent again, closes the session.
	RenewalSent bool
}

// SignedIn tells whether there are tokens.
func (p *Profile) SignedIn() bool { return !p.Tokens.Refresh.Empty() }

// PreferredLane is the lane to use when none is named.
func (p *Profile) PreferredLane() Lane {
	if p.Lane == "" {
		return VPN
	}
	return p.Lane
}

// Session is a session as the server described it, for both lanes.
type Session struct {
	client.Initiated
	PublicKey wgdev.Key `json:"public_key"`
	OpenedAt  time.Time `json:"opened_at"`
}

// Expires is when the session must be opened anew.
func (s *Session) Expires() time.Time {
	return s.OpenedAt.Add(time.Duration(s.HardTTL) * time.Second)
}

// In gives the configuration of a lane.
func (s *Session) In(l Lane) client.LaneConfig {
	if l == Tor {
		return s.Lanes.Tor
	}
	return s.Lanes.VPN
}

// SetTokens keeps an answer of the server, received at now.
func (p *Profile) SetTokens(t client.Tokens, now time.Time) {
	now = now.Round(0) // wall clock: tokens age while the machine sleeps
	p.User = t.User
	p.Device.ID = t.DeviceID
	p.Tokens = Tokens{
		Access:         secret.New(t.AccessToken),
		AccessIssued:   now,
		AccessExpires:  now.Add(time.Duration(t.ExpiresIn) * time.Second),
		Refresh:        secret.New(t.RefreshToken),
		RefreshExpires: now.Add(time.Duration(t.RefreshExpiresIn) * time.Second),
	}
}

// EnsureKey makes a WireGuard key when this device has none.
func (p *Profile) EnsureKey() error {
	if !p.Key.IsZero() && p.KeyOf == p.Device.ID {
		return nil
	}
	k, err := wgdev.GeneratePrivateKey()
	if err != nil {
		return err
	}
	p.Key, p.KeyOf, p.Session = k, p.Device.ID, nil
	return nil
}

// file is the form on disk: the only place where secrets are spelled out.
type file struct {
	Version int              `json:"version"`
	Server  Server           `json:"server"`
	User    client.TokenUser `json:"user"`
	Device  Device           `json:"device"`
	Tokens  struct {
		Access         string    `json:"access,omitempty"`
		AccessIssued   time.Time `json:"access_issued,omitzero"`
		AccessExpires  time.Time `json:"access_expires,omitzero"`
		Refresh        string    `json:"refresh,omitempty"`
		RefreshExpires time.Time `json:"refresh_expires,omitzero"`
		RenewalSent    bool      `json:"renewal_sent,omitempty"`
	} `json:"tokens"`
	Key       string                  `json:"wireguard_private_key,omitempty"`
	KeyOf     id.Device               `json:"wireguard_key_of,omitempty"`
	Lane      Lane                    `json:"lane,omitempty"`
	Session   *Session                `json:"session,omitempty"`
	Addresses map[string][]netip.Addr `json:"addresses,omitempty"`
}

func encode(p *Profile) ([]byte, error) {
	f := file{
		Version: version, Server: p.Server, User: p.User, Device: p.Device,
		Key: p.Key.Reveal(), KeyOf: p.KeyOf, Lane: p.Lane, Session: p.Session, Addresses: p.Addresses,
	}
	f.Tokens.Access = p.Tokens.Access.Reveal()
	f.Tokens.AccessIssued = p.Tokens.AccessIssued
	f.Tokens.AccessExpires = p.Tokens.AccessExpires
	f.Tokens.Refresh = p.Tokens.Refresh.Reveal()
	f.Tokens.RefreshExpires = p.Tokens.RefreshExpires
	f.Tokens.RenewalSent = p.Tokens.RenewalSent
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode profile: %w", err)
	}
	return append(b, '\n'), nil
}

// decode's errors say what is wrong without quoting the content.
func decode(b []byte) (*Profile, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("not the JSON it should be (%T)", err)
	}
	switch {
	case f.Version > version:
		return nil, fmt.Errorf("it was written by a newer vpn (form %d, this one reads %d)", f.Version, version)
	case f.Version < 1:
		return nil, fmt.Errorf("no version in it")
	case f.Lane != "" && f.Lane != VPN && f.Lane != Tor:
		return nil, fmt.Errorf("an unknown lane in it")
	}
	p := &Profile{
		Server: f.Server, User: f.User, Device: f.Device, KeyOf: f.KeyOf,
		Lane: f.Lane, Session: f.Session, Addresses: f.Addresses,
		Tokens: Tokens{
			Access: secret.New(f.Tokens.Access), AccessIssued: f.Tokens.AccessIssued, AccessExpires: f.Tokens.AccessExpires,
			Refresh: secret.New(f.Tokens.Refresh), RefreshExpires: f.Tokens.RefreshExpires,
			RenewalSent: f.Tokens.RenewalSent,
		},
	}
	if f.Key != "" {
		k, err := wgdev.ParsePrivateKey(f.Key)
		if err != nil {
			return nil, fmt.Errorf("its WireGuard key: %w", err)
		}
		p.Key = k
	}
	return p, nil
}
