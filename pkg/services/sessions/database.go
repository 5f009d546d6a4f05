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
	"vpnd/pkg/fault"
	"vpnd/pkg/store"
)

func migrations() []store.Migration {
	return []store.Migration{{Name: "sessions, usage", SQL: `
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
  seen_vpn_rx INTEGER NOT NULL DEFAULT 0, seen_vpn_tx INTEGER NOT NULL DEFAULT 0,
  seen_tor_rx INTEGER NOT NULL DEFAULT 0, seen_tor_tx INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
-- one open session a device, and no key in two open sessions
CREATE UNIQUE INDEX sessions_open_device ON sessions (device) WHERE closed = 0;
CREATE UNIQUE INDEX sessions_open_key ON sessions (public_key) WHERE closed = 0;
CREATE INDEX sessions_closed ON sessions (closed, id) WHERE closed > 0;
CREATE INDEX sessions_device ON sessions (device, opened);
-- traffic not yet counted by users; seq 0 gathers, another seq is on its way
CREATE TABLE usage (
  seq      INTEGER NOT NULL,
  user     TEXT NOT NULL,
  rx       INTEGER NOT NULL,
  tx       INTEGER NOT NULL,
  sessions INTEGER NOT NULL,
  seen     INTEGER NOT NULL,
  PRIMARY KEY (seq, user)
) WITHOUT ROWID;
CREATE TABLE reports (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL);
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
// transaction.
func (d *database) insert(ctx context.Context, s, old *session) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		if old != nil {
			if err := closeTx(tx, old.ID, api.Replaced, s.OpenedAt); err != nil {
				return err
			}
		}
		_, err := tx.Exec(`INSERT INTO sessions (id, user, username, device, device_name, state, reason, since, opened, expires,
			public_key, preshared_key, vpn4, vpn6, tor4, tor6, remote, heartbeat)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			s.ID, s.User, s.Username, s.Device, s.DeviceName, s.State, s.Reason, store.FromTime(s.Since), store.FromTime(s.OpenedAt),
			store.FromTime(s.ExpiresAt), s.PublicKey, s.presharedKey, s.VPNIPv4.String(), s.VPNIPv6.String(), s.TorIPv4.String(),
			s.TorIPv6.String(), s.Remote, micros(s.LastHeartbeat))
		return err
	})
}

// uniqueKey tells a key that another device has just taken from other errors.
func uniqueKey(err error) error {
	if c, ok := store.IsUnique(err); ok {
		return fault.Wrap(errors.New(c), fault.Conflict, "body.public_key: belongs to another device").WithReason("public_key_in_use")
	}
	return err
}

func (d *database) close(ctx context.Context, sid id.Session, reason api.Reason, at time.Time) error {
	return d.db.Write(ctx, func(tx *store.Tx) error { return closeTx(tx, sid, reason, at) })
}

func closeTx(tx *store.Tx, sid id.Session, reason api.Reason, at time.Time) error {
	_, err := tx.Exec(`UPDATE sessions SET state = ?, reason = ?, since = ?, closed = ? WHERE id = ? AND closed = 0`,
		api.Closed, reason, store.FromTime(at), store.FromTime(at), sid)
	return err
}

// checkpoint writes counters and signs of life. State and reason are left
// alone once a session is closed: closing is written by close alone.
func (d *database) checkpoint(ctx context.Context, changed []*session, usage []users.Usage) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		for _, s := range changed {
			_, err := tx.Exec(`UPDATE sessions SET remote = ?, endpoint = ?, lane = ?, heartbeat = ?, handshake = ?,
				vpn_rx = ?, vpn_tx = ?, tor_rx = ?, tor_tx = ?,
				seen_vpn_rx = ?, seen_vpn_tx = ?, seen_tor_rx = ?, seen_tor_tx = ? WHERE id = ?`,
				s.Remote, s.Endpoint, s.Lane, micros(s.LastHeartbeat), micros(s.LastHandshake),
				s.VPNRxBytes, s.VPNTxBytes, s.TorRxBytes, s.TorTxBytes,
				s.vpn.seen.RxBytes, s.vpn.seen.TxBytes, s.tor.seen.RxBytes, s.tor.seen.TxBytes, s.ID)
			if err != nil {
				return err
			}
			if _, err = tx.Exec(`UPDATE sessions SET state = ?, reason = ?, since = ? WHERE id = ? AND closed = 0`,
				s.State, s.Reason, store.FromTime(s.Since), s.ID); err != nil {
				return err
			}
		}
		for _, u := range usage {
			_, err := tx.Exec(`INSERT INTO usage (seq, user, rx, tx, sessions, seen) VALUES (0, ?, ?, ?, ?, ?)
				ON CONFLICT (seq, user) DO UPDATE SET rx = rx + excluded.rx, tx = tx + excluded.tx,
				sessions = sessions + excluded.sessions, seen = max(seen, excluded.seen)`,
				u.User, u.RxBytes, u.TxBytes, u.Sessions, store.FromTime(u.SeenAt))
			if err != nil {
				return err
			}
		}
		return nil
	})
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
			var seen int64
			if err := rows.Scan(&seq, &u.User, &u.RxBytes, &u.TxBytes, &u.Sessions, &seen); err != nil {
				return err
			}
			u.SeenAt = store.Time(seen)
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
func (d *database) lastReason(device id.Device) (r api.Reason, err error) {
	err = d.db.Read(context.Background(), func(q store.Querier) error {
		err := q.QueryRow(`SELECT reason FROM sessions WHERE device = ? AND closed > 0 ORDER BY opened DESC LIMIT 1`, device).Scan(&r)
		if errors.Is(err, store.ErrNoRows) {
			return nil
		}
		return err
	})
	return r, err
}

func (d *database) forget(ctx context.Context, before time.Time) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM sessions WHERE closed > 0 AND closed < ?`, store.FromTime(before))
		return err
	})
}
