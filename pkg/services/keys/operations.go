package keys

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"vpnd/pkg/api/client"
	keysapi "vpnd/pkg/api/keys"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

const (
	audience = "vpnd"
	// issuer does not follow the configuration: an endpoint that changes must
	// not void the tokens that are out.
	issuer   = "vpnd"
	jtiBytes = 16

	// keyLifetime is what key sets state; rotation, when it comes, is earlier.
	keyLifetime = 10 * 365 * 24 * time.Hour
	// leastLifetime is how long a key that nothing has replaced goes on, however old.
	leastLifetime = 365 * 24 * time.Hour
)

func (k *Keeper) endOf(key key) time.Time {
	end := key.createdAt.Add(keyLifetime)
	if least := k.now().Add(leastLifetime).UTC().Truncate(24 * time.Hour); end.Before(least) {
		return least
	}
	return end
}

// LoginKeys gives the public keys that sign-ins are sealed to, best first.
func (k *Keeper) LoginKeys(context.Context, *struct{}) (*keysapi.LoginKeys, error) {
	r, err := k.loaded()
	if err != nil {
		return nil, err
	}
	out := &keysapi.LoginKeys{}
	for _, l := range r.login {
		out.Keys = append(out.Keys, keysapi.LoginKey{
			KID: l.kid, KEM: l.private.(hpke.PrivateKey).KEM().ID(),
			KDF: hpke.HKDFSHA256().ID(), AEAD: hpke.AES256GCM().ID(),
			PublicKey: base64.StdEncoding.EncodeToString(l.public), ExpiresAt: k.endOf(l),
		})
	}
	return out, nil
}

// Open decrypts a sign-in.
func (k *Keeper) Open(_ context.Context, req *keysapi.OpenRequest) (*keysapi.Opened, error) {
	r, err := k.loaded()
	if err != nil {
		return nil, err
	}
	enc, err := base64.StdEncoding.Strict().DecodeString(req.Body.Enc)
	if err != nil {
		return nil, fault.InvalidField("body.enc", "is not base64 (standard, padded)")
	}
	sealed, err := base64.StdEncoding.Strict().DecodeString(req.Body.Ciphertext)
	if err != nil {
		return nil, fault.InvalidField("body.ciphertext", "is not base64 (standard, padded)")
	}
	for _, l := range r.login {
		if l.kid != req.Body.KID {
			continue
		}
		plain, err := open(l.private.(hpke.PrivateKey), enc, sealed)
		if err != nil {
			return nil, fault.New(fault.Invalid, "the sign-in does not open with the key it names").
				WithReason("not_sealed_for_us").WithHint("fetch the public keys again and seal it anew")
		}
		return &keysapi.Opened{Plaintext: plain}, nil
	}
	return nil, fault.New(fault.Invalid, "the sign-in is sealed to a key this server does not have").
		WithReason("unknown_key").WithHint("fetch the public keys again and seal it anew")
}

func open(priv hpke.PrivateKey, enc, sealed []byte) ([]byte, error) {
	r, err := hpke.NewRecipient(enc, priv, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(client.LoginInfo))
	if err != nil {
		return nil, err
	}
	return r.Open(nil, sealed)
}

// Verifiers gives the public keys that access tokens verify with.
func (k *Keeper) Verifiers(context.Context, *struct{}) (*keysapi.VerifierSet, error) {
	r, err := k.loaded()
	if err != nil {
		return nil, err
	}
	return &keysapi.VerifierSet{Issuer: issuer, Keys: []keysapi.Verifier{{
		KID: r.token.kid, Algorithm: jwt.SigningMethodEdDSA.Alg(), PublicKey: r.token.public, NotAfter: k.endOf(r.token),
	}}}, nil
}

type claims struct {
	jwt.RegisteredClaims
	DeviceID string `json:"device_id"`
}

// Sign makes an access token.
func (k *Keeper) Sign(_ context.Context, req *keysapi.SignRequest) (*keysapi.Signed, error) {
	r, err := k.loaded()
	if err != nil {
		return nil, err
	}
	switch {
	case req.Body.User == "":
		return nil, fault.InvalidField("body.user_id", "is empty")
	case req.Body.Device == "":
		return nil, fault.InvalidField("body.device_id", "is empty")
	}
	now := k.now().UTC().Truncate(time.Second) // NumericDate holds whole seconds
	expires := now.Add(time.Duration(req.Body.TTL) * time.Second)
	var jti [jtiBytes]byte
	_, _ = rand.Read(jti[:]) // never fails
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: issuer, Audience: jwt.ClaimStrings{audience}, Subject: string(req.Body.User),
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(expires),
			ID: hex.EncodeToString(jti[:]),
		},
		DeviceID: string(req.Body.Device),
	})
	t.Header["kid"] = r.token.kid
	text, err := t.SignedString(r.token.private.(ed25519.PrivateKey))
	if err != nil {
		return nil, err
	}
	return &keysapi.Signed{Token: text, ExpiresAt: expires}, nil
}

// Certificate gives the TLS certificate and its pin.
func (k *Keeper) Certificate(context.Context, *struct{}) (*keysapi.Certificate, error) {
	r, err := k.loaded()
	if err != nil {
		return nil, err
	}
	return &keysapi.Certificate{Chain: r.chain, Pin: r.pin}, nil
}

// SignTLS signs the digest of a TLS 1.3 handshake.
func (k *Keeper) SignTLS(_ context.Context, req *keysapi.SignTLSRequest) (*keysapi.Signature, error) {
	r, err := k.loaded()
	if err != nil {
		return nil, err
	}
	if len(req.Body.Digest) != sha256.Size {
		return nil, fault.InvalidField("body.digest", "is %d bytes, not %d", len(req.Body.Digest), sha256.Size)
	}
	sig, err := r.tls.private.(*ecdsa.PrivateKey).Sign(rand.Reader, req.Body.Digest, crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return &keysapi.Signature{Signature: sig}, nil
}

// Status reports how the keys were found.
func (k *Keeper) Status(context.Context, *struct{}) (*keysapi.StatusReply, error) {
	out := &keysapi.StatusReply{Keys: []keysapi.KeyStatus{}}
	if r := k.ring.Load(); r != nil {
		out.Ready, out.Keys = true, r.status
	}
	return out, nil
}

func (k *Keeper) register(s *rpc.Server) {
	rpc.Handle(s, keysapi.Login, k.LoginKeys)
	rpc.Handle(s, keysapi.Open, k.Open)
	rpc.Handle(s, keysapi.Verifiers, k.Verifiers)
	rpc.Handle(s, keysapi.Sign, k.Sign)
	rpc.Handle(s, keysapi.TLSCertificate, k.Certificate)
	rpc.Handle(s, keysapi.SignTLS, k.SignTLS)
	rpc.Handle(s, keysapi.Status, k.Status)
}
