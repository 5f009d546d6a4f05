// Package passwd turns passwords into Argon2id hashes and compares them.
//
// It owns the parameters, the stored form (PHC string), the password policy and
// the queue in front of the computation, which takes tens of MiB and a tenth of
// a second a time. It is the only package that knows Argon2. It leaves accounts,
// login limits and storage to the services. Everything may be used
// concurrently; services call through Workers, so that memory stays bounded.
package passwd

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"vpnd/pkg/fault"
)

// The password policy: any valid UTF-8 of this many bytes. There is no
// normalisation: a password typed as other code points is another password.
const (
	MinBytes = 8
	MaxBytes = 1024
)

// Sizes of what new hashes are made of (RFC 9106, section 3.1).
const (
	saltBytes = 16
	tagBytes  = 32
)

// Limits on parameters, also on those read from storage: a forged hash must not
// be able to take all memory or keep a core busy for minutes. They leave room
// for the first recommended option of RFC 9106 (2 GiB, one pass).
const (
	MaxMemory  = 2 << 20 // KiB
	MaxTime    = 100
	MaxThreads = 64
	maxWork    = 8 << 20 // KiB times passes
)

// Params are Argon2id's cost parameters.
type Params struct {
	Memory  uint32 // KiB
	Time    uint32 // passes over the memory
	Threads uint8  // lanes
}

// Default is the second recommended option of RFC 9106: 64 MiB, three passes,
// four lanes.
func Default() Params { return Params{Memory: 64 << 10, Time: 3, Threads: 4} }

// Validate tells whether hashes can be made with p.
func (p Params) Validate() error {
	switch {
	case p.Time < 1 || p.Time > MaxTime:
		return fault.New(fault.Invalid, "argon2 time %d is not in 1 to %d", p.Time, MaxTime)
	case p.Threads < 1 || p.Threads > MaxThreads:
		return fault.New(fault.Invalid, "argon2 threads %d is not in 1 to %d", p.Threads, MaxThreads)
	case p.Memory < 8*uint32(p.Threads) || p.Memory > MaxMemory:
		return fault.New(fault.Invalid, "argon2 memory %d KiB is not in %d (8 per thread) to %d", p.Memory, 8*uint32(p.Threads), MaxMemory)
	case uint64(p.Memory)*uint64(p.Time) > maxWork:
		return fault.New(fault.Invalid, "argon2 memory %d KiB times time %d is above %d", p.Memory, p.Time, maxWork)
	}
	return nil
}

// Check applies the password policy; the error does not show the password.
func Check(password string) error {
	switch {
	case len(password) < MinBytes:
		return fault.InvalidField("password", "must have at least %d bytes", MinBytes)
	case len(password) > MaxBytes:
		return fault.InvalidField("password", "must have at most %d bytes", MaxBytes)
	case !utf8.ValidString(password):
		return fault.InvalidField("password", "must be valid UTF-8")
	}
	return nil
}

// Hash checks the policy and gives the PHC string to store.
func (p Params) Hash(password string) (string, error) {
	if err := Check(password); err != nil {
		return "", err
	}
	if err := p.Validate(); err != nil {
		return "", err
	}
	h := stored{Params: p, salt: random(saltBytes)}
	h.tag = h.compute(password, tagBytes)
	return h.String(), nil
}

// Verify compares in constant time and, when the password is right, tells
// whether its hash should be made anew because it differs from what p would
// make. An error means that encoded is not a hash that can be checked. The
// policy is not applied: what was accepted once stays valid.
func (p Params) Verify(encoded, password string) (ok, needsRehash bool, err error) {
	h, err := parse(encoded)
	if err != nil {
		return false, false, fmt.Errorf("stored password hash: %w", err)
	}
	if subtle.ConstantTimeCompare(h.tag, h.compute(password, len(h.tag))) != 1 {
		return false, false, nil
	}
	return true, h.Params != p || len(h.salt) != saltBytes || len(h.tag) != tagBytes, nil
}

func (h stored) compute(password string, size int) []byte {
	return argon2.IDKey([]byte(password), h.salt, h.Time, h.Memory, h.Threads, uint32(size))
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: it ends the process instead
	return b
}
