package sessions

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/sessions"
	"vpnd/pkg/api/users"
	"vpnd/pkg/store"
)

// Migrations is the history of sessions.db. Times are microseconds since 1970,
// 0 for never.
func Migrations() []store.Migration {
	return []store.Migration{{Name: "sessions, keys, usage", SQL: `
CREATE TABLE sessions (
  id            TEXT PRIMARY KEY,
  user          TEXT NOT NULL,
  username      TEXT NOT NULL,
  device        TEXT NOT NULL,
  device_name   TEXT NOT NULL,
  state         TEXT NOT NULL,
  reason        TEXT NOT NULL,
  since         INTEGER NOT NULL,
  opened        INTEGER NOT NULL,
  closed        INTEGER NOT NULL DEFAULT 0,
  expires       INTEGER NOT NULL,
  public_key    TEXT NOT NULL,
  preshared_key TEXT NOT NULL,
  vpn4 TEXT NOT NULL, vpn6 TEXT NOT NULL, tor4 TEXT NOT NULL, tor6 TEXT NOT NULL,
  remote        TEXT NOT NULL,
  endpoint      TEXT NOT NULL DEFAULT '',
  lane          TEXT NOT NULL DEFAULT '',
  heartbeat     INTEGER NOT NULL DEFAULT 0,
  handshake     INTEGER NOT NULL DEFAULT 0,
  vpn_rx INTEGER NOT NULL DEFAULT 0, vpn_tx INTEGER NOT NULL DEFAULT 0,
  tor_rx INTEGER NOT NULL DEFAULT 0, tor_tx INTEGER NOT NULL DEFAULT 0,
  -- counters of the interfaces at the latest reading
  seen_vpn_rx INTEGER NOT NULL DEFAULT 0, seen_vpn_tx INTEGER NOT NULL DEFAULT 0,
  seen_tor_rx INTEGER NOT NULL DEFAULT 0, seen_tor_tx INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
-- one open session a device
CREATE UNIQUE INDEX sessions_open ON sessions (device) WHERE closed = 0;
CREATE INDEX sessions_closed ON sessions (closed, id) WHERE closed > 0;
CREATE INDEX sessions_device ON sessions (device, opened);

-- the key that a device has used last; nobody else may use it
CREATE TABLE keys (
  device     TEXT PRIMARY KEY,
  user       TEXT NOT NULL,
  public_key TEXT NOT NULL UNIQUE
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_user ON keys (user);

-- traffic not yet counted by users; seq 0 gathers, another seq is on its way
CREATE TABLE usage (
  seq      INTEGER NOT NULL,
  user     TEXT NOT NULL,
  rx       INTEGER NOT NULL,
  tx       INTEGER NOT NULL,
  sessions INTEGER NOT NULL,
  seen     INTEGER NOT NULL,
  PRIMARY KEY (seq, user)
) STRICT, WITHOUT ROWID;
CREATE TABLE reports (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL) STRICT;
INSERT INTO reports VALUES (1, 0);
`}}
}

// database is sessions.db.
type database struct{ db *store.DB }

const columns = `id, user, username, device, device_name, state, reason, since, opened, closed, expires,
 public_key, preshared_key, vpn4, vpn6, tor4, tor6, remote, endpoint, lane, heartbeat, handshake,
 vpn_rx, vpn_tx, tor_rx, tor_tx, seen_vpn_rx, seen_vpn_tx, seen_tor_rx, seen_tor_tx`

func scan(rows *store.Rows) (*session, error) {
	var s session
	var since, opened, closed, expires, heartbeat, handshake int64
	var addr [4]string
	err := rows.Scan(&s.ID, &s.User, &s.Username, &s.Device, &s.DeviceName, &s.State, &s.Reason, &since, &opened, &closed, &expires,
		&s.PublicKey, &s.presharedKey, &addr[0], &addr[1], &addr[2], &addr[3], &s.Remote, &s.Endpoint, &s.Lane, &heartbeat, &handshake,
		&s.VPNRxBytes, &s.VPNTxBytes, &s.TorRxBytes, &s.TorTxBytes,
		&s.vpn.seen.RxBytes, &s.vpn.seen.TxBytes, &s.tor.seen.RxBytes, &s.tor.seen.TxBytes)
	if err != nil {
		return nil, err
	}
	for i, dest := range []*netip.Addr{&s.VPNIPv4, &s.VPNIPv6, &s.TorIPv4, &s.TorIPv6} {
		if *dest, err = netip.ParseAddr(addr[i]); err != nil {
			return nil, fmt.Errorf("session %s: %w", s.ID, err)
		}
	}
	s.Since, s.OpenedAt, s.ExpiresAt = store.Time(since), store.Time(opened), store.Time(expires)
	s.ClosedAt, s.LastHeartbeat, s.LastHandshake = optional(closed), optional(heartbeat), optional(handshake)
	s.RxBytes, s.TxBytes = s.VPNRxBytes+s.TorRxBytes, s.VPNTxBytes+s.TorTxBytes
	return &s, nil
}

func optional(micros int64) *time.Time {
	if micros == 0 {
		return nil
	}
	t := store.Time(micros)
	return &t
}

func micros(t *time.Time) int64 {
	if t == nil {
		return 0
	}
	return store.FromTime(*t)
}

func (d *database) query(ctx context.Context, q string, args ...any) (out []*session, err error) {
	err = d.db.Read(ctx, func(r store.Querier) error {
		rows, err := r.Query(q, args...)
		if err != nil {
			return err
		}
		for rows.Next() {
			s, err := scan(rows)
			if err != nil {
				return err
			}
			out = append(out, s)
		}
		return rows.Err()
	})
	return out, err
}

func (d *database) loadOpen(ctx context.Context) ([]*session, error) {
	return d.query(ctx, `SELECT `+columns+` FROM sessions WHERE closed = 0`)
}

// insert records a session, and the end of the one it replaces, in one
// transaction. A key that another device has used last violates keys.public_key.
func (d *database) insert(ctx context.Context, s, old *session) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		if old != nil {
			if err := closeTx(tx, old, api.Replaced, s.OpenedAt); err != nil {
				return err
			}
		}
		_, err := tx.Exec(`INSERT INTO keys (device, user, public_key) VALUES (?, ?, ?)
			ON CONFLICT (device) DO UPDATE SET public_key = excluded.public_key`, s.Device, s.User, s.PublicKey)
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO sessions (id, user, username, device, device_name, state, reason, since, opened, expires,
			public_key, preshared_key, vpn4, vpn6, tor4, tor6, remote, heartbeat)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			s.ID, s.User, s.Username, s.Device, s.DeviceName, s.State, s.Reason, s.Since, s.OpenedAt, s.ExpiresAt,
			s.PublicKey, s.presharedKey, s.VPNIPv4.String(), s.VPNIPv6.String(), s.TorIPv4.String(), s.TorIPv6.String(),
			s.Remote, micros(s.LastHeartbeat))
		return err
	})
}

// forgetKeys frees the keys of a device, or of all devices of a user.
func (d *database) forgetKeys(ctx context.Context, user id.User, device id.Device) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM keys WHERE device = ? OR user = ?`, device, user)
		return err
	})
}

// close records the end of open sessions, all or none.
func (d *database) close(ctx context.Context, reason api.Reason, at time.Time, open ...*session) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		for _, s := range open {
			if err := closeTx(tx, s, reason, at); err != nil {
				return err
			}
		}
		return nil
	})
}

func closeTx(tx *store.Tx, s *session, reason api.Reason, at time.Time) error {
	_, err := tx.Exec(`UPDATE sessions SET state = ?, reason = ?, since = ?, closed = ? WHERE id = ? AND closed = 0`,
		api.Closed, reason, at, at, s.ID)
	if err != nil || reason == api.Failed { // which never was one for its user
		return err
	}
	return gather(tx, users.Usage{User: s.User, Sessions: 1, SeenAt: at})
}

// gather adds to the next report.
func gather(tx *store.Tx, u users.Usage) error {
	_, err := tx.Exec(`INSERT INTO usage (seq, user, rx, tx, sessions, seen) VALUES (0, ?, ?, ?, ?, ?)
		ON CONFLICT (seq, user) DO UPDATE SET rx = rx + excluded.rx, tx = tx + excluded.tx,
		sessions = sessions + excluded.sessions, seen = max(seen, excluded.seen)`,
		u.User, u.RxBytes, u.TxBytes, u.Sessions, u.SeenAt)
	return err
}

// checkpoint writes what changes while sessions are open. One that has been
// closed meanwhile is left alone: its end is written by close and final.
func (d *database) checkpoint(ctx context.Context, changed []*session) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		for _, s := range changed {
			open, err := countTx(tx, s, `closed = 0`)
			if err != nil {
				return err
			}
			if !open {
				continue
			}
			_, err = tx.Exec(`UPDATE sessions SET state = ?, reason = ?, since = ?, remote = ?, heartbeat = ? WHERE id = ?`,
				s.State, s.Reason, s.Since, s.Remote, micros(s.LastHeartbeat), s.ID)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// final writes the last counters of closed sessions.
func (d *database) final(ctx context.Context, closed []*session) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		for _, s := range closed {
			if _, err := countTx(tx, s, `closed > 0`); err != nil {
				return err
			}
		}
		return nil
	})
}

// countTx writes what lanes told of a session, if the row meets the condition,
// and gathers for users what the totals on disk rise by: whatever crashes when,
// each byte is counted once.
func countTx(tx *store.Tx, s *session, condition string) (found bool, err error) {
	var rx, sent int64
	err = tx.QueryRow(`SELECT vpn_rx + tor_rx, vpn_tx + tor_tx FROM sessions WHERE id = ? AND `+condition, s.ID).Scan(&rx, &sent)
	if errors.Is(err, store.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, err = tx.Exec(`UPDATE sessions SET endpoint = ?, lane = ?, handshake = ?, vpn_rx = ?, vpn_tx = ?, tor_rx = ?, tor_tx = ?,
		seen_vpn_rx = ?, seen_vpn_tx = ?, seen_tor_rx = ?, seen_tor_tx = ? WHERE id = ?`,
		s.Endpoint, s.Lane, micros(s.LastHandshake), s.VPNRxBytes, s.VPNTxBytes, s.TorRxBytes, s.TorTxBytes,
		s.vpn.seen.RxBytes, s.vpn.seen.TxBytes, s.tor.seen.RxBytes, s.tor.seen.TxBytes, s.ID)
	if err != nil {
		return false, err
	}
	rx, sent = s.RxBytes-rx, s.TxBytes-sent
	if rx == 0 && sent == 0 {
		return true, nil
	}
	return true, gather(tx, users.Usage{User: s.User, RxBytes: rx, TxBytes: sent, SeenAt: s.seen()})
}

// seen is when the device was last heard from.
func (s *session) seen() time.Time {
	at := s.OpenedAt
	for _, t := range []*time.Time{s.LastHeartbeat, s.LastHandshake} {
		if t != nil && t.After(at) {
			at = *t
		}
	}
	return at
}

// nextReport gives the report on its way, or makes one of what has gathered.
// seq is 0 when there is nothing to report.
func (d *database) nextReport(ctx context.Context) (seq int64, usage []users.Usage, err error) {
	var gathered int
	if err := d.db.Read(ctx, func(q store.Querier) error {
		return q.QueryRow(`SELECT count(*) FROM usage`).Scan(&gathered)
	}); err != nil || gathered == 0 {
		return 0, nil, err
	}
	err = d.db.Write(ctx, func(tx *store.Tx) error {
		var onTheWay int
		if err := tx.QueryRow(`SELECT count(*) FROM usage WHERE seq > 0`).Scan(&onTheWay); err != nil {
			return err
		}
		if onTheWay == 0 {
			if _, err := tx.Exec(`UPDATE reports SET seq = seq + 1`); err != nil {
				return err
			}
			if _, err := tx.Exec(`UPDATE usage SET seq = (SELECT seq FROM reports) WHERE seq = 0`); err != nil {
				return err
			}
		}
		rows, err := tx.Query(`SELECT seq, user, rx, tx, sessions, seen FROM usage WHERE seq > 0`)
		if err != nil {
			return err
		}
		for rows.Next() {
			var u users.Usage
			if err := rows.Scan(&seq, &u.User, &u.RxBytes, &u.TxBytes, &u.Sessions, &u.SeenAt); err != nil {
				return err
			}
			usage = append(usage, u)
		}
		return rows.Err()
	})
	return seq, usage, err
}

func (d *database) reported(ctx context.Context, seq int64) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM usage WHERE seq = ?`, seq)
		return err
	})
}

// lastReason is why the device's latest session ended; "" when it never had one.
func (d *database) lastReason(ctx context.Context, user id.User, device id.Device) (r api.Reason, err error) {
	err = d.db.Read(ctx, func(q store.Querier) error {
		return q.QueryRow(`SELECT reason FROM sessions WHERE device = ? AND user = ? AND closed > 0 ORDER BY opened DESC LIMIT 1`,
			device, user).Scan(&r)
	})
	if errors.Is(err, store.ErrNoRows) {
		return "", nil
	}
	return r, err
}

// forget removes sessions that ended before. It goes in steps, so that others
// may write in between.
func (d *database) forget(ctx context.Context, before time.Time) error {
	const step = 1000
	for {
		var gone int64
		err := d.db.Write(ctx, func(tx *store.Tx) error {
			r, err := tx.Exec(`DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE closed > 0 AND closed < ? LIMIT ?)`, before, step)
			gone = r.RowsAffected
			return err
		})
		if err != nil || gone < step {
			return err
		}
	}
}
