package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	fileVersion = 1
	maxKeyFile  = 64 << 10

	// active is the only state of version 1. A schedule of rotation adds
	// staged, published and verify-only, in files of their own.
	active = "active"
)

// errNewer is a file of a later version: it is not ours to replace.
var errNewer = errors.New("written by a newer version")

// keyFile is a private key on disk.
type keyFile struct {
	Version   int       `json:"version"`
	Kind      string    `json:"kind"`      // token, login or tls
	Algorithm string    `json:"algorithm"` // name of a scheme
	KID       string    `json:"kid"`       // hash of the public key, which finds bit rot
	State     string    `json:"state"`
	CreatedAt time.Time `json:"created_at"`
	Private   []byte    `json:"private_key"`
}

// key is a key pair in memory.
type key struct {
	kid       string
	createdAt time.Time
	public    []byte
	private   any // what the scheme's parse made
}

// parseKeyFile reads what encodeKeyFile wrote, and nothing else.
func parseKeyFile(data []byte, s slot) (key, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return key{}, fmt.Errorf("not a key file: %w", err)
	}
	if head.Version > fileVersion {
		return key{}, fmt.Errorf("version %d: %w", head.Version, errNewer)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var f keyFile
	if err := dec.Decode(&f); err != nil {
		return key{}, fmt.Errorf("not a key file: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return key{}, errors.New("something follows the key")
	}
	switch {
	case f.Version != fileVersion:
		return key{}, fmt.Errorf("version is %d", f.Version)
	case f.Kind != s.kind:
		return key{}, fmt.Errorf("kind is not %s", s.kind)
	case f.Algorithm != s.scheme.name:
		return key{}, fmt.Errorf("algorithm is not %s", s.scheme.name)
	case f.State != active:
		return key{}, fmt.Errorf("state is not %s", active)
	case f.CreatedAt.IsZero():
		return key{}, errors.New("created_at is missing")
	}
	private, public, err := s.scheme.parse(f.Private)
	if err != nil {
		return key{}, errors.New("the private key is not valid") // the cause might quote it
	}
	if kid := keyID(public); f.KID != kid {
		return key{}, errors.New("the kid is not that of the key")
	}
	return key{kid: f.KID, createdAt: f.CreatedAt.UTC(), public: public, private: private}, nil
}

// encodeKeyFile makes the file of a fresh key.
func encodeKeyFile(s slot, secret []byte, now time.Time) (key, []byte, error) {
	private, public, err := s.scheme.parse(secret)
	if err != nil {
		return key{}, nil, err
	}
	k := key{kid: keyID(public), createdAt: now.UTC().Truncate(time.Second), public: public, private: private}
	data, err := json.MarshalIndent(keyFile{
		Version: fileVersion, Kind: s.kind, Algorithm: s.scheme.name, KID: k.kid, State: active,
		CreatedAt: k.createdAt, Private: secret,
	}, "", "  ")
	return k, append(data, '\n'), err
}

// keyID names a public key: the first 8 bytes of its SHA-256.
func keyID(public []byte) string {
	h := sha256.Sum256(public)
	return hex.EncodeToString(h[:8])
}
