package users

import (
	"errors"
	"strings"
	"time"

	"vpnd/pkg/api/id"
	usersapi "vpnd/pkg/api/users"
	"vpnd/pkg/store"
)

// record is a row of users.
type record struct {
	usersapi.User
	hash string
}

func (r record) account() usersapi.Account {
	return usersapi.Account{ID: r.ID, Username: r.Username, Email: r.Email, Status: r.Status, DeviceLimit: r.DeviceLimit}
}

const columns = `id, username, email, password_hash, status, status_since, device_limit, created_at, updated_at,
	last_login_at, last_seen_at, sessions, rx_bytes, tx_bytes`

type scanner interface{ Scan(dest ...any) error }

func scanRecord(s scanner) (record, error) {
	var r record
	var login, seen time.Time
	err := s.Scan(&r.ID, &r.Username, &r.Email, &r.hash, &r.Status, &r.StatusSince, &r.DeviceLimit, &r.CreatedAt, &r.UpdatedAt,
		&login, &seen, &r.Sessions, &r.RxBytes, &r.TxBytes)
	if !login.IsZero() {
		r.LastLoginAt = &login
	}
	if !seen.IsZero() {
		r.LastSeenAt = &seen
	}
	return r, err
}

// readRecord gives ErrNoRows when the account does not exist.
func readRecord(q store.Querier, user id.User) (record, error) {
	return scanRecord(q.QueryRow(`SELECT `+columns+` FROM users WHERE id = ?`, user))
}

// findLogin looks for a username or, where there is an @, an e-mail address.
func findLogin(q store.Querier, login string) (record, error) {
	login = strings.ToLower(login)
	if strings.Contains(login, "@") {
		return scanRecord(q.QueryRow(`SELECT `+columns+` FROM users WHERE email_key = ?`, login))
	}
	return scanRecord(q.QueryRow(`SELECT `+columns+` FROM users WHERE username = ?`, login))
}

func insertRecord(tx *store.Tx, r record) error {
	_, err := tx.Exec(`INSERT INTO users (id, username, email, email_key, password_hash, status, status_since, device_limit, created_at, updated_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		r.ID, r.Username, r.Email, emailKey(r.Email), r.hash, r.Status, r.StatusSince, r.DeviceLimit, r.CreatedAt, r.UpdatedAt)
	return err
}

// updateRecord writes what operators change; the totals have statements of
// their own.
func updateRecord(tx *store.Tx, r record) error {
	_, err := tx.Exec(`UPDATE users SET username = ?, email = ?, email_key = ?, password_hash = ?, status = ?, status_since = ?,
		device_limit = ?, updated_at = ? WHERE id = ?`,
		r.Username, r.Email, emailKey(r.Email), r.hash, r.Status, r.StatusSince, r.DeviceLimit, r.UpdatedAt, r.ID)
	return err
}

func emailKey(email string) *string {
	if email == "" {
		return nil
	}
	k := strings.ToLower(email)
	return &k
}

func isNoRows(err error) bool { return errors.Is(err, store.ErrNoRows) }
