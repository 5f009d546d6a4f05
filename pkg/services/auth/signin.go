package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/sessions"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/fault"
	"vpnd/pkg/store"
)

// signIn gives a verified user a token pair for the device. began is the count
// of revocations from before the password was looked up.
func (a *Auth) signIn(ctx context.Context, cred *usersapi.Credentials, in signIn, began uint64, remote string) (*client.Tokens, error) {
	device := in.device
	if device == "" {
		device = id.NewDevice()
	}
	// Signed first: what fails after it has changed nothing.
	access, err := a.keys.Sign(ctx, cred.ID, device, a.cfg.AccessTTL.D())
	if err != nil {
		return nil, siblingFailed(err)
	}
	a.changing.Lock()
	defer a.changing.Unlock()
	if a.revoked[cred.ID] > began {
		// The password was changed, or the account deleted, since it was looked up.
		return nil, fault.New(fault.Unavailable, "the account was changed during the sign-in").
			WithReason(reasonChanged).WithRetryAfter(time.Second)
	}
	d, isNew, err := a.chooseDevice(cred, in, device)
	if err != nil {
		return nil, err
	}
	selector, sealKey := newSelector()
	refresh := newToken(selector, sealKey[:])
	d.address = addressOf(remote)
	d.username, d.lastSeen, d.expires, d.revoked = cred.Username, a.stamp(), a.stamp().Add(a.cfg.RefreshTTL.D()), ""
	err = a.db.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(`INSERT INTO nonces (nonce, expires_at) VALUES (?, ?)`,
			in.nonce[:], in.issuedAt.Add(client.LoginWindow)); err != nil {
			return err
		}
		if err := writeDevice(tx, d); err != nil {
			return err
		}
		// A session that an earlier sign-out could not close yet is now the
		// new sign-in's to keep.
		if err := dropTask(tx, d.id, sessions.LoggedOut); err != nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO families (device_id, selector, seal_key, current, issued_at, expires_at) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (device_id) DO UPDATE SET selector = excluded.selector, seal_key = excluded.seal_key,
			current = excluded.current, issued_at = excluded.issued_at, expires_at = excluded.expires_at, revoked = '',
			traded = x'', traded_by = ''`,
			d.id, refresh.lookup(), sealKey[:], refresh.hash(), d.lastSeen, d.expires)
		return err
	})
	if constraint, unique := store.IsUnique(err); unique && constraint == "nonces.nonce" {
		return nil, replayed()
	}
	if err != nil {
		return nil, err
	}
	a.devices.put(d)
	if isNew {
		a.announce(ctx, slog.LevelInfo, "device.created", d, remote, "")
	}
	a.announce(ctx, slog.LevelInfo, "auth.login", d, remote, "")
	select {
	case a.seen <- sighting{cred.ID, d.lastSeen}:
	default: // users has been away for long; the time of one sign-in is no loss
	}
	return a.pair(access, refresh, d, client.TokenUser{ID: cred.ID, Username: cred.Username, Email: cred.Email}), nil
}

func (a *Auth) pair(access string, refresh refreshToken, d device, user client.TokenUser) *client.Tokens {
	return &client.Tokens{
		AccessToken: access, TokenType: "Bearer", ExpiresIn: a.cfg.AccessTTL.Seconds(),
		RefreshToken: refresh.text(), RefreshExpiresIn: a.cfg.RefreshTTL.Seconds(),
		DeviceID: d.id, User: user,
	}
}

// chooseDevice finds the device that signs in, or makes one if the account may
// have another. The caller holds changing.
func (a *Auth) chooseDevice(cred *usersapi.Credentials, in signIn, fresh id.Device) (d device, isNew bool, err error) {
	own := slices.DeleteFunc(a.devices.of(cred.ID), func(d device) bool { return d.deleting })
	if in.device != "" {
		i := slices.IndexFunc(own, func(d device) bool { return d.id == in.device })
		if i < 0 {
			return d, false, fault.New(fault.Invalid, "this account has no device with that id").WithReason("unknown_device").
				WithHint("it may have been deleted; sign in without a device id to make a new device").
				WithFields(fault.Field{Path: "plaintext.device.id", Message: "is no device of this account"})
		}
		d = own[i]
		d.os = in.os
	} else {
		if len(own) >= cred.DeviceLimit {
			return d, false, fault.New(fault.Exhausted, "the account has all %d devices it may have", cred.DeviceLimit).
				WithReason("device_limit").
				WithHint("the operator can remove one ('vpnctl device delete %s/NAME') or allow more ('vpnctl user set %s --device-limit N')",
					cred.Username, cred.Username)
		}
		d = device{id: fresh, user: cred.ID, os: in.os, createdAt: a.stamp()}
		isNew = true
	}
	d.name = freeName(in.name, d.id, a.devices.of(cred.ID))
	return d, isNew, nil
}

// freeName gives the wanted name or, where another device has it, the first
// free of name-2, name-3, … A device that has such a name keeps it.
func freeName(want string, self id.Device, own []device) string {
	taken := map[string]bool{}
	for _, d := range own {
		taken[d.name] = d.id != self
	}
	if !taken[want] {
		return want
	}
	for n := 2; ; n++ {
		suffix := fmt.Sprintf("-%d", n)
		base := want
		for utf8.RuneCountInString(base)+len(suffix) > maxDeviceName {
			_, size := utf8.DecodeLastRuneInString(base)
			base = base[:len(base)-size]
		}
		if name := strings.TrimRight(base, " ") + suffix; !taken[name] {
			return name
		}
	}
}

func writeDevice(tx *store.Tx, d device) error {
	_, err := tx.Exec(`INSERT INTO devices (id, user_id, username, name, os, created_at, last_seen_at, address) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET username = excluded.username, name = excluded.name, os = excluded.os,
		last_seen_at = excluded.last_seen_at, address = excluded.address`,
		d.id, d.user, d.username, d.name, d.os, d.createdAt, d.lastSeen, d.address)
	return err
}

// sighting is a sign-in that users should hear of.
type sighting struct {
	user id.User
	at   time.Time
}

// tellUsers passes sightings on. Losing one is no harm, so nothing is retried.
func (a *Auth) tellUsers(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-a.seen:
			if err := a.users.Seen(ctx, s.user, s.at); err != nil && !errors.Is(err, fault.NotFound) && ctx.Err() == nil {
				a.log.Warn("auth.login_not_noted", "err", err, "user_id", s.user)
			}
		}
	}
}
