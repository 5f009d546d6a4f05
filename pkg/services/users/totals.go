package users

import (
	"context"

	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/rpc"
	"vpnd/pkg/store"
)

// Seen notes a successful sign-in. An account that is gone by now is no error.
func (u *Users) Seen(ctx context.Context, req *usersapi.SeenRequest) (*rpc.None, error) {
	acc, err := u.accounts.resolve(req.User)
	if err != nil {
		return nil, err
	}
	err = u.db.Write(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE users SET last_login_at = max(last_login_at, ?1), last_seen_at = max(last_seen_at, ?1) WHERE id = ?2`,
			req.Body.LoginAt, acc.ID)
		return err
	})
	return &rpc.None{}, err
}

// AddUsage adds one report to the totals. A report whose number is not higher
// than the latest was applied before.
func (u *Users) AddUsage(ctx context.Context, req *usersapi.UsageRequest) (*rpc.None, error) {
	err := u.db.Write(ctx, func(tx *store.Tx) error {
		res, err := tx.Exec(`UPDATE usage_reports SET seq = ?1 WHERE seq < ?1`, req.Body.Seq)
		if err != nil || res.RowsAffected == 0 {
			return err
		}
		for _, add := range req.Body.Usage {
			_, err := tx.Exec(`UPDATE users SET rx_bytes = rx_bytes + ?, tx_bytes = tx_bytes + ?, sessions = sessions + ?,
				last_seen_at = max(last_seen_at, ?) WHERE id = ?`, add.RxBytes, add.TxBytes, add.Sessions, add.SeenAt, add.User)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return &rpc.None{}, err
}
