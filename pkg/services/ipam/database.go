package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"vpnd/pkg/api/id"
	api "vpnd/pkg/api/ipam"
	"vpnd/pkg/store"
)

func migrations() []store.Migration {
	return []store.Migration{{Name: "leases and quarantine", SQL: `
CREATE TABLE leases (
  seq     INTEGER PRIMARY KEY,
  device  TEXT NOT NULL UNIQUE,
  user    TEXT NOT NULL,
  vpn4    TEXT NOT NULL UNIQUE,
  vpn6    TEXT NOT NULL UNIQUE,
  tor4    TEXT NOT NULL UNIQUE,
  tor6    TEXT NOT NULL UNIQUE,
  created INTEGER NOT NULL
);
CREATE INDEX leases_user ON leases (user, seq);
CREATE TABLE quarantine (
  address TEXT PRIMARY KEY,
  until   INTEGER NOT NULL
) WITHOUT ROWID;
`}}
}

// database is ipam.db.
type database struct{ db *store.DB }

type resting struct {
	addr  netip.Addr
	until time.Time
}

const leaseColumns = `device, user, vpn4, vpn6, tor4, tor6, created`

func scanLease(rows *store.Rows, extra ...any) (*entry, error) {
	var e entry
	var text [slots]string
	var created int64
	dest := append([]any{&e.lease.Device, &e.lease.User, &text[0], &text[1], &text[2], &text[3], &created}, extra...)
	if err := rows.Scan(dest...); err != nil {
		return nil, err
	}
	for i, s := range text {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("lease of %s: %w", e.lease.Device, err)
		}
		e.addrs[i] = addr
	}
	e.lease.CreatedAt = store.Time(created)
	e.lease.VPN = api.Addresses{IPv4: e.addrs[0], IPv6: e.addrs[1]}
	e.lease.Tor = api.Addresses{IPv4: e.addrs[2], IPv6: e.addrs[3]}
	return &e, nil
}

func (d *database) load(ctx context.Context) (leases []*entry, rest []resting, err error) {
	err = d.db.Read(ctx, func(q store.Querier) error {
		rows, err := q.Query(`SELECT ` + leaseColumns + ` FROM leases ORDER BY seq`)
		if err != nil {
			return err
		}
		for rows.Next() {
			e, err := scanLease(rows)
			if err != nil {
				return err
			}
			leases = append(leases, e)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if rows, err = q.Query(`SELECT address, until FROM quarantine`); err != nil {
			return err
		}
		for rows.Next() {
			var text string
			var until int64
			if err := rows.Scan(&text, &until); err != nil {
				return err
			}
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return fmt.Errorf("quarantine: %w", err)
			}
			rest = append(rest, resting{addr, store.Time(until)})
		}
		return rows.Err()
	})
	return leases, rest, err
}

func (d *database) insert(ctx context.Context, e *entry) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		for _, a := range e.addrs {
			if _, err := tx.Exec(`DELETE FROM quarantine WHERE address = ?`, a.String()); err != nil {
				return err
			}
		}
		_, err := tx.Exec(`INSERT INTO leases (`+leaseColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			e.lease.Device, e.lease.User, e.addrs[0].String(), e.addrs[1].String(), e.addrs[2].String(), e.addrs[3].String(),
			store.FromTime(e.lease.CreatedAt))
		return err
	})
}

func (d *database) release(ctx context.Context, e *entry, until time.Time) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec(`DELETE FROM leases WHERE device = ?`, e.lease.Device); err != nil {
			return err
		}
		for _, a := range e.addrs {
			_, err := tx.Exec(`INSERT INTO quarantine (address, until) VALUES (?, ?)
				ON CONFLICT (address) DO UPDATE SET until = excluded.until`, a.String(), store.FromTime(until))
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *database) drop(ctx context.Context, devices []id.Device) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		for _, dev := range devices {
			if _, err := tx.Exec(`DELETE FROM leases WHERE device = ?`, dev); err != nil {
				return err
			}
		}
		return nil
	})
}

// sweep forgets rests that have long ended; the allocator treats an address
// without a row as never used.
func (d *database) sweep(ctx context.Context, before time.Time) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM quarantine WHERE until < ?`, store.FromTime(before))
		return err
	})
}

// list pages leases, oldest first. after is the sequence number of the last
// one seen.
func (d *database) list(ctx context.Context, user string, after int64, limit int) (items []api.Lease, total int, next int64, err error) {
	err = d.db.Read(ctx, func(q store.Querier) error {
		if err := q.QueryRow(`SELECT count(*) FROM leases WHERE ? = '' OR user = ?`, user, user).Scan(&total); err != nil {
			return err
		}
		rows, err := q.Query(`SELECT `+leaseColumns+`, seq FROM leases WHERE seq > ? AND (? = '' OR user = ?) ORDER BY seq LIMIT ?`,
			after, user, user, limit+1)
		if err != nil {
			return err
		}
		for rows.Next() {
			var seq int64
			e, err := scanLease(rows, &seq)
			if err != nil {
				return err
			}
			if len(items) == limit {
				return nil // there is more: next stays set
			}
			items, next = append(items, e.lease), seq
		}
		next = 0
		return rows.Err()
	})
	return items, total, next, err
}
