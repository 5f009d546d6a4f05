package wgdev

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"

	"vpnd/pkg/fault"
)

// KeySize is the size of every WireGuard key in bytes.
const KeySize = 32

// keyText is the length of a key in base64: 43 characters and one "=".
const keyText = 44

// Key is a WireGuard public key: the identity of a peer. It is comparable and
// may key a map.
type Key [KeySize]byte

// String is the key in standard padded base64, the form every WireGuard tool uses.
func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// IsZero tells whether no key is set.
func (k Key) IsZero() bool { return k == Key{} }

// MarshalText gives the base64 form, and nothing for the zero key.
func (k Key) MarshalText() ([]byte, error) {
	if k.IsZero() {
		return nil, nil
	}
	return []byte(k.String()), nil
}

// UnmarshalText is ParsePublicKey, and the zero key for an empty text.
func (k *Key) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*k = Key{}
		return nil
	}
	p, err := ParsePublicKey(string(text))
	if err != nil {
		return err
	}
	*k = p
	return nil
}

// ParsePublicKey reads a public key that somebody sent. It accepts only what an
// honest device can have: canonical base64 of 32 bytes, a canonical field
// element, and not one of the points of low order, with which the shared secret
// would be the same for everybody. The error is fault.Invalid and says which.
func ParsePublicKey(s string) (Key, error) {
	b, err := decodeKey(s)
	if err != nil {
		return Key{}, err
	}
	k := Key(b)
	switch {
	case k.IsZero():
		return Key{}, fault.New(fault.Invalid, "the public key is all zero")
	case lowOrder(k):
		return Key{}, fault.New(fault.Invalid, "the public key is a point of low order: nothing encrypted with it would be secret")
	case !canonical(k):
		return Key{}, fault.New(fault.Invalid, "the public key is not in canonical form: no WireGuard device makes such a key")
	}
	return k, nil
}

// decodeKey is strict: 44 characters, no line breaks (which the decoder would
// skip), no stray bits in the last character.
func decodeKey(s string) ([KeySize]byte, error) {
	var out [KeySize]byte
	if len(s) != keyText {
		return out, fault.New(fault.Invalid, "a key has %d characters of base64, not %d", keyText, len(s)).
			WithHint("it looks like the output of `wg pubkey`")
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != KeySize || base64.StdEncoding.EncodeToString(b) != s {
		return out, fault.New(fault.Invalid, "the key is not canonical base64 of %d bytes", KeySize)
	}
	return [KeySize]byte(b), nil
}

// canonical tells whether k, little endian, is below the field prime 2^255-19.
// X25519 accepts other spellings of the same point (RFC 7748, 5), but an
// identity must have one spelling.
func canonical(k Key) bool {
	if k[31] != 0x7f {
		return k[31] < 0x7f
	}
	for _, b := range k[1:31] {
		if b != 0xff {
			return true
		}
	}
	return k[0] < 0xed
}

// lowOrder tells whether k is a point whose order divides 8, on the curve or on
// its twist, in any spelling: X25519 ignores the top bit and reduces modulo p.
func lowOrder(k Key) bool {
	k[31] &= 0x7f
	// 0, 1, the two of order 8, p-1; then 0 and 1 again, spelled p and p+1.
	for _, low := range [...]Key{
		{},
		{1},
		{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
			0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
		{0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
			0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
		nearPrime(0xec), nearPrime(0xed), nearPrime(0xee),
	} {
		if bytes.Equal(k[:], low[:]) {
			return true
		}
	}
	return false
}

// nearPrime is a number that differs from p = 2^255-19 (…ed) in its last byte.
func nearPrime(last byte) Key {
	var k Key
	for i := range k {
		k[i] = 0xff
	}
	k[0], k[31] = last, 0x7f
	return k
}

// PrivateKey is the secret half of a device's identity.
type PrivateKey struct{ redacted }

// PresharedKey is an optional second secret between two peers; the zero value
// means none.
type PresharedKey struct{ redacted }

// GeneratePrivateKey makes a new key.
func GeneratePrivateKey() (PrivateKey, error) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("generate private key: %w", err)
	}
	return PrivateKey{redacted{clamp([KeySize]byte(k.Bytes()))}}, nil
}

// ParsePrivateKey reads the base64 form of a private key.
func ParsePrivateKey(s string) (PrivateKey, error) {
	b, err := decodeKey(s)
	if err != nil {
		return PrivateKey{}, err
	}
	if b == [KeySize]byte{} {
		return PrivateKey{}, fault.New(fault.Invalid, "the private key is all zero")
	}
	return PrivateKey{redacted{clamp(b)}}, nil
}

// clamp brings a scalar into the form that X25519 uses anyway (RFC 7748, 5) and
// that devices report back, so that two spellings of one key compare equal.
func clamp(b [KeySize]byte) [KeySize]byte {
	b[0] &= 248
	b[31] = b[31]&127 | 64
	return b
}

// Public is the public key that belongs to k. The zero private key has the zero
// public key.
func (k PrivateKey) Public() Key {
	if k.IsZero() {
		return Key{}
	}
	// 32 bytes are always a valid X25519 private key.
	p, err := ecdh.X25519().NewPrivateKey(k.b[:])
	if err != nil {
		return Key{}
	}
	return Key(p.PublicKey().Bytes())
}

// Equal compares in constant time.
func (k PrivateKey) Equal(o PrivateKey) bool { return subtle.ConstantTimeCompare(k.b[:], o.b[:]) == 1 }

// Equal compares in constant time.
func (k PresharedKey) Equal(o PresharedKey) bool {
	return subtle.ConstantTimeCompare(k.b[:], o.b[:]) == 1
}

// GeneratePresharedKey makes a new key.
func GeneratePresharedKey() (PresharedKey, error) {
	var k PresharedKey
	if _, err := rand.Read(k.b[:]); err != nil {
		return PresharedKey{}, fmt.Errorf("generate preshared key: %w", err)
	}
	return k, nil
}

// ParsePresharedKey reads the base64 form of a preshared key; an empty string is
// the zero value.
func ParsePresharedKey(s string) (PresharedKey, error) {
	if s == "" {
		return PresharedKey{}, nil
	}
	b, err := decodeKey(s)
	if err != nil {
		return PresharedKey{}, err
	}
	return PresharedKey{redacted{b}}, nil
}
