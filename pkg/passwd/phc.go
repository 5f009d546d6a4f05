package passwd

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Bounds on what may be read back. Shorter salts and tags are not secure,
// longer ones are not ours, and both would be work for a forger to choose.
const (
	minSalt, maxSalt = 8, 64
	minTag, maxTag   = 16, 64
	maxEncoded       = 256
)

// stored is a parsed hash.
type stored struct {
	Params
	salt, tag []byte
}

// String is the PHC form: $argon2id$v=19$m=65536,t=3,p=4$salt$tag, base64
// without padding.
func (h stored) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.Memory, h.Time, h.Threads,
		b64.EncodeToString(h.salt), b64.EncodeToString(h.tag))
}

// parse accepts exactly what String writes, within the limits. Its errors show
// nothing of the hash.
func parse(s string) (stored, error) {
	if len(s) > maxEncoded {
		return stored{}, errors.New("too long")
	}
	part := strings.Split(s, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" {
		return stored{}, errors.New("not an argon2id PHC string")
	}
	if part[2] != "v="+strconv.Itoa(argon2.Version) {
		return stored{}, errors.New("unknown argon2 version")
	}
	var h stored
	cost := strings.Split(part[3], ",")
	if len(cost) != 3 {
		return stored{}, errors.New("malformed parameters")
	}
	m, errM := number(cost[0], "m=", 32)
	t, errT := number(cost[1], "t=", 32)
	p, errP := number(cost[2], "p=", 8)
	if err := errors.Join(errM, errT, errP); err != nil {
		return stored{}, errors.New("malformed parameters")
	}
	h.Params = Params{Memory: uint32(m), Time: uint32(t), Threads: uint8(p)}
	if err := h.Validate(); err != nil {
		// Not a fault of the caller's input, so not a fault.Error here.
		return stored{}, errors.New(err.Error())
	}
	var err error
	if h.salt, err = decode(part[4], minSalt, maxSalt); err != nil {
		return stored{}, fmt.Errorf("salt: %w", err)
	}
	if h.tag, err = decode(part[5], minTag, maxTag); err != nil {
		return stored{}, fmt.Errorf("tag: %w", err)
	}
	return h, nil
}

func number(s, prefix string, bits int) (uint64, error) {
	digits, ok := strings.CutPrefix(s, prefix)
	n, err := strconv.ParseUint(digits, 10, bits)
	if !ok || err != nil || strconv.FormatUint(n, 10) != digits {
		return 0, errors.New("malformed number")
	}
	return n, nil
}

func decode(s string, shortest, longest int) ([]byte, error) {
	b, err := base64.RawStdEncoding.Strict().DecodeString(s)
	// The decoder skips line breaks; only the one canonical form is accepted.
	if err != nil || base64.RawStdEncoding.EncodeToString(b) != s {
		return nil, errors.New("malformed base64")
	}
	if len(b) < shortest || len(b) > longest {
		return nil, fmt.Errorf("%d bytes, want %d to %d", len(b), shortest, longest)
	}
	return b, nil
}
