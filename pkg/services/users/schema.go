package users

import "vpnd/pkg/store"

// Migrations is the history of users.db. Times are microseconds since 1970,
// 0 for never.
func Migrations() []store.Migration {
	return []store.Migration{{Name: "accounts", SQL: `
CREATE TABLE users (
	id            TEXT PRIMARY KEY,
	username      TEXT NOT NULL UNIQUE,  -- lower case
	email         TEXT NOT NULL,         -- as given; empty for none
	email_key     TEXT UNIQUE,           -- lower case; NULL for none
	password_hash TEXT NOT NULL,
	status        TEXT NOT NULL CHECK (status IN ('active', 'suspended', 'deleting')),
	status_since  INTEGER NOT NULL,
	device_limit  INTEGER NOT NULL,
	created_at    INTEGER NOT NULL,
	updated_at    INTEGER NOT NULL,
	last_login_at INTEGER NOT NULL DEFAULT 0,
	last_seen_at  INTEGER NOT NULL DEFAULT 0,
	sessions      INTEGER NOT NULL DEFAULT 0,
	rx_bytes      INTEGER NOT NULL DEFAULT 0,
	tx_bytes      INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What siblings still have to be told. One row a user and kind; a repeated
-- intent gets a new id, so that finishing the old one leaves it alone.
CREATE TABLE tasks (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
	kind       TEXT NOT NULL,
	created_at INTEGER NOT NULL,
	UNIQUE (user_id, kind)
) STRICT;

CREATE TABLE usage_reports (
	only INTEGER PRIMARY KEY CHECK (only = 1),
	seq  INTEGER NOT NULL  -- latest report that was applied
) STRICT;
INSERT INTO usage_reports (only, seq) VALUES (1, 0);
`}}
}
