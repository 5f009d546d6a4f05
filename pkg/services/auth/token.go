package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
)

// A refresh token is a selector that all tokens of a family have in common, a
// secret of its own, and a seal: a MAC of both under a key of the family. The
// database holds hashes of the selector and of the one token that is not spent.
//
// So one row recognises every token the family ever had: a sound seal around
// another secret is a spent token, a broken seal is no token of ours and
// changes nothing. Whoever reads the database learns no token that works; with
// the seal key they could make tokens that count as spent, which closes the
// family and no more.
const (
	tokenPrefix   = "vpr_"
	selectorBytes = 16
	secretBytes   = 32
	sealBytes     = 16
	tokenBytes    = selectorBytes + secretBytes + sealBytes
	sealKeyBytes  = 32
)

type refreshToken [tokenBytes]byte

// newSelector starts a family.
func newSelector() (selector [selectorBytes]byte, sealKey [sealKeyBytes]byte) {
	_, _ = rand.Read(selector[:]) // never fails
	_, _ = rand.Read(sealKey[:])
	return selector, sealKey
}

// newToken makes the next token of a family.
func newToken(selector [selectorBytes]byte, sealKey []byte) refreshToken {
	var t refreshToken
	copy(t[:], selector[:])
	_, _ = rand.Read(t[selectorBytes : selectorBytes+secretBytes])
	copy(t[selectorBytes+secretBytes:], t.seal(sealKey))
	return t
}

// parseToken reads what text wrote. It says nothing about whether the token
// was issued here.
func parseToken(s string) (refreshToken, bool) {
	var t refreshToken
	enc, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok || len(enc) != base64.RawURLEncoding.EncodedLen(tokenBytes) {
		return t, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(t[:], []byte(enc))
	return t, err == nil && n == tokenBytes
}

// text is the token as the client holds it.
func (t refreshToken) text() string { return tokenPrefix + base64.RawURLEncoding.EncodeToString(t[:]) }

func (t refreshToken) selector() [selectorBytes]byte { return [selectorBytes]byte(t[:selectorBytes]) }

// lookup is what the family is found by.
func (t refreshToken) lookup() []byte {
	h := sha256.Sum256(t[:selectorBytes])
	return h[:]
}

func (t refreshToken) hash() []byte {
	h := sha256.Sum256(t[:])
	return h[:]
}

func (t refreshToken) seal(key []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(t[:selectorBytes+secretBytes])
	return m.Sum(nil)[:sealBytes]
}

func (t refreshToken) sealedBy(key []byte) bool {
	return hmac.Equal(t.seal(key), t[selectorBytes+secretBytes:])
}

func (t refreshToken) is(hash []byte) bool { return subtle.ConstantTimeCompare(t.hash(), hash) == 1 }
