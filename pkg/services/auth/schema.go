package auth

import "vpnd/pkg/store"

// Migrations is the history of auth.db. Times are microseconds since 1970,
// 0 for never.
func Migrations() []store.Migration {
	return []store.Migration{{Name: "sign-in", SQL: `
CREATE TABLE devices (
	id           TEXT PRIMARY KEY,
	user_id      TEXT NOT NULL,
	username     TEXT NOT NULL,  -- as it was when last asked, for the order of lists
	name         TEXT NOT NULL,
	os           TEXT NOT NULL,
	created_at   INTEGER NOT NULL,
	last_seen_at INTEGER NOT NULL,
	address      TEXT NOT NULL,  -- that the latest sign-in came from; IPv6: its /64
	deleting     INTEGER NOT NULL DEFAULT 0,
	UNIQUE (user_id, name)
) STRICT;
CREATE INDEX devices_listed ON devices (username, name, id);

-- The refresh family of a device. A new sign-in replaces it. See token.go for
-- how one row recognises every token of the family.
CREATE TABLE families (
	device_id  TEXT PRIMARY KEY REFERENCES devices (id) ON DELETE CASCADE,
	selector   BLOB NOT NULL UNIQUE,  -- hash of what all tokens of the family have in common
	seal_key   BLOB NOT NULL,         -- proves that a token was issued here
	current    BLOB NOT NULL,         -- hash of the one token that is not spent
	traded     BLOB NOT NULL DEFAULT x'',  -- hash of the token that current was traded for …
	traded_by  TEXT NOT NULL DEFAULT '',   -- … and the request that did it
	issued_at  INTEGER NOT NULL,
	expires_at INTEGER NOT NULL,
	revoked    TEXT NOT NULL DEFAULT ''  -- reason, empty while it works
) STRICT;

CREATE TABLE nonces (
	nonce      BLOB PRIMARY KEY,
	expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX nonces_expiry ON nonces (expires_at);

-- What sessions still has to be told. A repeated intent gets a new id, so that
-- finishing the old one leaves it alone.
CREATE TABLE tasks (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	device_id  TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
	kind       TEXT NOT NULL,
	created_at INTEGER NOT NULL,
	UNIQUE (device_id, kind)
) STRICT;

CREATE TABLE guard (
	bucket TEXT PRIMARY KEY,
	until  INTEGER NOT NULL  -- see guard.go
) STRICT;
`}}
}
