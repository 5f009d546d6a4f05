package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"strings"

	authapi "vpnd/pkg/api/auth"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/sessions"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

const defaultPage = 100

// DeviceCheck answers whether a device may connect, from memory.
func (a *Auth) DeviceCheck(_ context.Context, req *authapi.CheckRequest) (*authapi.Device, error) {
	d, ok := a.devices.get(req.Device)
	switch {
	case !ok || d.user != req.User || d.deleting:
		return nil, revokedError(deviceDeleted)
	case d.revoked != "":
		return nil, revokedError(signedOut)
	}
	return d.public(a.now()), nil
}

// resolve finds what an operator typed: username/name, id, or unique prefix of
// an id.
func (a *Auth) resolve(ctx context.Context, ref string) (device, error) {
	username, name, ok := strings.Cut(ref, "/")
	if !ok {
		d, err := a.devices.byPrefix(ref)
		if err != nil {
			return d, err
		}
		d.username = a.usernames(ctx, []device{d})[d.user]
		return d, nil
	}
	acc, err := a.users.Standing(ctx, username)
	if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Conflict) || errors.Is(err, fault.Invalid) {
		return device{}, err
	}
	if err != nil {
		return device{}, siblingFailed(err)
	}
	for _, d := range a.devices.of(acc.ID) {
		if d.name == name {
			d.username = acc.Username
			return d, nil
		}
	}
	return device{}, noDevice(ref)
}

// usernames asks for the names of the devices' users as they are now. Where
// users does not answer the name of the latest sign-in stands.
func (a *Auth) usernames(ctx context.Context, list []device) map[id.User]string {
	out := map[id.User]string{}
	down := false
	for _, d := range list {
		if _, ok := out[d.user]; ok {
			continue
		}
		out[d.user] = d.username
		if down {
			continue
		}
		acc, err := a.users.Standing(ctx, string(d.user))
		switch {
		case err == nil:
			out[d.user] = acc.Username
		case !errors.Is(err, fault.NotFound):
			down = true
		}
	}
	return out
}

// DeviceGet gives one device.
func (a *Auth) DeviceGet(ctx context.Context, req *authapi.DeviceRef) (*authapi.Device, error) {
	d, err := a.resolve(ctx, req.Device)
	if err != nil {
		return nil, err
	}
	return d.public(a.now()), nil
}

// DeviceDelete forgets a device and returns after its peer is gone.
func (a *Auth) DeviceDelete(ctx context.Context, req *authapi.DeviceRef) (*rpc.None, error) {
	d, err := a.resolve(ctx, req.Device)
	if err != nil {
		return nil, err
	}
	t, err := a.planDelete(ctx, d.id)
	if err != nil {
		return nil, err
	}
	if err := a.attempt(ctx, t, longPatience); err != nil {
		return nil, pending(err, "the device is locked out and will be deleted, but its peer could not be removed yet")
	}
	return &rpc.None{}, nil
}

func (a *Auth) planDelete(ctx context.Context, dev id.Device) (t task, err error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	d, ok := a.devices.get(dev)
	if !ok {
		return t, noDevice(string(dev))
	}
	err = a.db.Write(ctx, func(tx *store.Tx) (err error) {
		if _, err := tx.Exec(`UPDATE devices SET deleting = 1 WHERE id = ?`, dev); err != nil {
			return err
		}
		if _, err := tx.Exec(`UPDATE families SET revoked = ? WHERE device_id = ?`, deviceDeleted, dev); err != nil {
			return err
		}
		t, err = plan(tx, dev, sessions.DeviceDeleted, a.now())
		return err
	})
	if err != nil {
		return t, err
	}
	d.deleting, d.revoked = true, deviceDeleted
	a.devices.put(d)
	return t, nil
}

// DeviceList gives a page of devices in order of username and name. The cursor
// is the last device seen, so that pages neither skip nor repeat when others
// come and go.
func (a *Auth) DeviceList(ctx context.Context, req *authapi.DeviceListRequest) (*rpc.List[authapi.Device], error) {
	after, err := parseCursor(req.After)
	if err != nil {
		return nil, err
	}
	var user id.User
	if req.User != "" {
		acc, err := a.users.Standing(ctx, req.User)
		if errors.Is(err, fault.NotFound) || errors.Is(err, fault.Conflict) {
			return nil, err
		}
		if err != nil {
			return nil, siblingFailed(err)
		}
		user = acc.ID
	}
	limit := req.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	out := &rpc.List[authapi.Device]{Items: []authapi.Device{}}
	var page []device
	err = a.db.Read(ctx, func(q store.Querier) error {
		if err := q.QueryRow(`SELECT count(*) FROM devices WHERE ?1 = '' OR user_id = ?1`, user).Scan(&out.Total); err != nil {
			return err
		}
		rows, err := q.Query(`SELECT id, username, name FROM devices WHERE (?1 = '' OR user_id = ?1)
			AND (username, name, id) > (?2, ?3, ?4) ORDER BY username, name, id LIMIT ?5`,
			user, after[0], after[1], after[2], limit+1)
		if err != nil {
			return err
		}
		for rows.Next() {
			var d device
			if err := rows.Scan(&d.id, &d.username, &d.name); err != nil {
				return err
			}
			page = append(page, d)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	if len(page) > limit {
		page = page[:limit]
		out.Next = cursor(page[limit-1])
	}
	for i := range page {
		if d, ok := a.devices.get(page[i].id); ok {
			page[i] = d
		}
	}
	names := a.usernames(ctx, page)
	for _, d := range page {
		if d.user == "" { // deleted since it was listed
			continue
		}
		d.username = names[d.user]
		out.Items = append(out.Items, *d.public(a.now()))
	}
	return out, nil
}

// A cursor is the username, name and id of the last device of a page; none of
// them can hold a zero byte.
func cursor(d device) string {
	return base64.RawURLEncoding.EncodeToString([]byte(d.username + "\x00" + d.name + "\x00" + string(d.id)))
}

func parseCursor(s string) (at [3]string, err error) {
	if s == "" {
		return at, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	parts := strings.Split(string(raw), "\x00")
	if err != nil || len(parts) != len(at) {
		return at, fault.InvalidField("query.after", "is not a cursor of this list")
	}
	return [3]string(parts), nil
}

// ForgetUser removes everything of a deleted user, whose sessions have been
// closed by whoever calls.
func (a *Auth) ForgetUser(ctx context.Context, req *authapi.UserRef) (*rpc.None, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.markRevoked(req.User)
	if err := a.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM devices WHERE user_id = ?`, req.User)
		return err
	}); err != nil {
		return nil, err
	}
	for _, d := range a.devices.of(req.User) {
		a.devices.remove(d.id)
		a.guard.forget(deviceBucket(d.id))
		a.announce(ctx, slog.LevelInfo, "device.deleted", d, "", string(sessions.UserDeleted))
	}
	a.guard.forget(accountBucket(req.User))
	return &rpc.None{}, nil
}

// RevokeUser voids all refresh tokens of a user.
func (a *Auth) RevokeUser(ctx context.Context, req *authapi.UserRef) (*rpc.None, error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.markRevoked(req.User)
	if err := a.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE families SET revoked = ? WHERE revoked = '' AND device_id IN (SELECT id FROM devices WHERE user_id = ?)`,
			signedOut, req.User)
		return err
	}); err != nil {
		return nil, err
	}
	for _, d := range a.devices.of(req.User) {
		if d.revoked == "" && !d.expires.IsZero() {
			d.revoked = signedOut
			a.devices.put(d)
			a.log.InfoContext(ctx, "auth.revoked", "user", d.username, "device", d.name, "request_id", rpc.RequestID(ctx))
		}
	}
	return &rpc.None{}, nil
}

// markRevoked makes sign-ins that looked the user up before now fail. The
// caller holds changing.
func (a *Auth) markRevoked(user id.User) {
	a.count++
	a.revoked[user] = a.count
}
