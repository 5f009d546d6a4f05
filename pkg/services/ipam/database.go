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

// Migrations is the history of ipam.db. Times are microseconds since 1970.
func Migrations() []store.Migration {
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
) STRICT;
CREATE INDEX leases_user ON leases (user, seq);
CREATE TABLE quarantine (
  address TEXT PRIMARY KEY,
  until   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX quarantine_until ON quarantine (until);
`}}
}

// database is ipam.db.
type database struct{ db *store.DB }

type resting struct {
	addr  netip.Addr
	until time.Time
}

const leaseColumns = `device, user, vpn4, vpn6, tor4, tor6, created`

func scanLease(rows *store.Rows, extra ...any) (api.Lease, error) {
	var l api.Lease
	var text [slots]string
	dest := append([]any{&l.Device, &l.User, &text[0], &text[1], &text[2], &text[3], &l.CreatedAt}, extra...)
	if err := rows.Scan(dest...); err != nil {
		return l, err
	}
	var addrs addresses
	for i, s := range text {
		var err error
		if addrs[i], err = netip.ParseAddr(s); err != nil {
			return l, fmt.Errorf("lease of %s: %w", l.Device, err)
		}
	}
	addrs.into(&l)
	return l, nil
}

func (d *database) load(ctx context.Context) (leases []api.Lease, rest []resting, err error) {
	err = d.db.Read(ctx, func(q store.Querier) error {
		rows, err := q.Query(`SELECT ` + leaseColumns + ` FROM leases ORDER BY seq`)
		if err != nil {
			return err
		}
		for rows.Next() {
			l, err := scanLease(rows)
			if err != nil {
				return err
			}
			leases = append(leases, l)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		if rows, err = q.Query(`SELECT address, until FROM quarantine`); err != nil {
			return err
		}
		for rows.Next() {
			var text string
			var r resting
			if err := rows.Scan(&text, &r.until); err != nil {
				return err
			}
			if r.addr, err = netip.ParseAddr(text); err != nil {
				return fmt.Errorf("quarantine: %w", err)
			}
			rest = append(rest, r)
		}
		return rows.Err()
	})
	return leases, rest, err
}

func (d *database) insert(ctx context.Context, l api.Lease) error {
	addrs := addressesOf(l)
	return d.db.Write(ctx, func(tx *store.Tx) error {
		for _, a := range addrs {
			if _, err := tx.Exec(`DELETE FROM quarantine WHERE address = ?`, a.String()); err != nil {
				return err
			}
		}
		_, err := tx.Exec(`INSERT INTO leases (`+leaseColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			l.Device, l.User, addrs[0].String(), addrs[1].String(), addrs[2].String(), addrs[3].String(), l.CreatedAt)
		return err
	})
}

// release ends leases, all or none; their addresses rest until then.
func (d *database) release(ctx context.Context, until time.Time, leases ...api.Lease) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		for _, l := range leases {
			if _, err := tx.Exec(`DELETE FROM leases WHERE device = ?`, l.Device); err != nil {
				return err
			}
			for _, a := range addressesOf(l) {
				_, err := tx.Exec(`INSERT INTO quarantine (address, until) VALUES (?, ?)
					ON CONFLICT (address) DO UPDATE SET until = excluded.until`, a.String(), until)
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// shorten ends every rest at limit at the latest.
func (d *database) shorten(ctx context.Context, limit time.Time) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE quarantine SET until = ? WHERE until > ?`, limit, limit)
		return err
	})
}

// sweep forgets rests that have ended; the pools treat an address without a
// row as never used.
func (d *database) sweep(ctx context.Context, before time.Time) error {
	return d.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM quarantine WHERE until < ?`, before)
		return err
	})
}

// list pages leases, oldest first: those after the sequence number of the last
// one seen. next is the number to go on from, 0 on the last page.
func (d *database) list(ctx context.Context, user id.User, after int64, limit int) (items []api.Lease, total int, next int64, err error) {
	// Two conditions instead of one that covers both, so that one user's leases
	// are found by the index.
	where, args := ` FROM leases WHERE true`, []any{}
	if user != "" {
		where, args = ` FROM leases WHERE user = ?`, []any{user}
	}
	err = d.db.Read(ctx, func(q store.Querier) error {
		if err := q.QueryRow(`SELECT count(*)`+where, args...).Scan(&total); err != nil {
			return err
		}
		rows, err := q.Query(`SELECT `+leaseColumns+`, seq`+where+` AND seq > ? ORDER BY seq LIMIT ?`, append(args, after, limit+1)...)
		if err != nil {
			return err
		}
		var last int64
		for rows.Next() {
			if len(items) == limit {
				next = last
				return nil
			}
			l, err := scanLease(rows, &last)
			if err != nil {
				return err
			}
			items = append(items, l)
		}
		return rows.Err()
	})
	return items, total, next, err
}
