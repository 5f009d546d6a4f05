// Package keys declares the operations of the service that holds private keys:
// token signing, login decryption, TLS. It owns no behaviour.
package keys

import (
	"time"

	"vpnd/pkg/api/id"
	"vpnd/pkg/rpc"
)

// LoginKey is an HPKE public key that clients seal their sign-in to.
// Numbers are those of RFC 9180 and its registry.
type LoginKey struct {
	KID       string    `json:"kid"`
	KEM       uint16    `json:"kem_id"`
	KDF       uint16    `json:"kdf_id"`
	AEAD      uint16    `json:"aead_id"`
	PublicKey string    `json:"public_key" doc:"base64, standard, padded"`
	ExpiresAt time.Time `json:"expires_at"`
}

// LoginKeys is the key set, best first.
type LoginKeys struct {
	Keys []LoginKey `json:"keys"`
}

// Login gives the login keys.
var Login = rpc.Op[struct{}, LoginKeys]{Info: rpc.Info{
	ID: "keys.login", Method: "GET", Path: "/v1/keys/login", Access: rpc.Internal, From: []string{"gateway", "auth"},
	Summary: "Public keys that sign-ins are sealed to",
}}

// OpenRequest is a sealed sign-in.
type OpenRequest struct {
	Body struct {
		KID        string `json:"kid" maxLength:"128"`
		Enc        string `json:"enc" maxLength:"4096" doc:"base64"`
		Ciphertext string `json:"ciphertext" maxLength:"16384" doc:"base64"`
	}
}

// Opened is what was inside.
type Opened struct {
	Plaintext []byte `json:"plaintext"`
}

// Open decrypts a sign-in. An unknown kid is invalid with reason "unknown_key",
// a ciphertext that does not open is invalid with reason "not_sealed_for_us".
var Open = rpc.Op[OpenRequest, Opened]{Info: rpc.Info{
	ID: "keys.open", Method: "POST", Path: "/v1/keys/login/open", Access: rpc.Internal, From: []string{"auth"},
	Repeatable: true, Quiet: true, Summary: "Open a sealed sign-in",
}}

// Verifier is a public key that access tokens verify with.
type Verifier struct {
	KID       string    `json:"kid"`
	Algorithm string    `json:"alg" enum:"EdDSA"`
	PublicKey []byte    `json:"public_key" doc:"32 bytes Ed25519"`
	NotAfter  time.Time `json:"not_after" doc:"no token signed with it lives longer"`
}

// VerifierSet is every key that may still verify.
type VerifierSet struct {
	Issuer string     `json:"issuer"`
	Keys   []Verifier `json:"keys"`
}

// Verifiers gives the keys that tokens verify with.
var Verifiers = rpc.Op[struct{}, VerifierSet]{Info: rpc.Info{
	ID: "keys.verifiers", Method: "GET", Path: "/v1/keys/tokens", Access: rpc.Internal, From: []string{"gateway", "auth"},
	Summary: "Public keys of access tokens",
}}

// SignRequest says what an access token states. Keys adds issuer, audience,
// times and a token id: it signs tokens, not arbitrary bytes.
type SignRequest struct {
	Body struct {
		User   id.User   `json:"user_id" maxLength:"64"`
		Device id.Device `json:"device_id" maxLength:"64"`
		TTL    int       `json:"ttl" minimum:"1" maximum:"86400" doc:"seconds"`
	}
}

// Signed is an access token.
type Signed struct {
	Token     string    `json:"token"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Sign makes an access token: a JWT (RFC 7519), EdDSA, with claims iss, aud
// "vpnd", sub (user id), device_id, iat, nbf, exp, jti, and header kid.
var Sign = rpc.Op[SignRequest, Signed]{Info: rpc.Info{
	ID: "keys.sign", Method: "POST", Path: "/v1/keys/tokens", Access: rpc.Internal, From: []string{"auth"},
	Repeatable: true, Quiet: true, Summary: "Sign an access token",
}}

// Certificate is the TLS certificate of the client API.
type Certificate struct {
	Chain [][]byte `json:"chain" doc:"DER, leaf first"`
	Pin   string   `json:"pin" doc:"sha256/ and base64 of the SHA-256 of the SubjectPublicKeyInfo"`
}

// TLSCertificate gives the certificate, not its key.
var TLSCertificate = rpc.Op[struct{}, Certificate]{Info: rpc.Info{
	ID: "keys.certificate", Method: "GET", Path: "/v1/keys/tls", Access: rpc.View, From: []string{"gateway", "control"},
	Summary: "TLS certificate of the client API and its pin",
}}

// SignTLSRequest is a digest to sign in a TLS 1.3 handshake.
type SignTLSRequest struct {
	Body struct {
		Digest []byte `json:"digest" doc:"SHA-256, 32 bytes"`
	}
}

// Signature is an ASN.1 ECDSA signature.
type Signature struct {
	Signature []byte `json:"signature"`
}

// SignTLS signs a handshake with the TLS key, which is used for nothing else.
var SignTLS = rpc.Op[SignTLSRequest, Signature]{Info: rpc.Info{
	ID: "keys.sign_tls", Method: "POST", Path: "/v1/keys/tls/sign", Access: rpc.Internal, From: []string{"gateway"},
	Repeatable: true, Quiet: true, Summary: "Sign a TLS handshake",
}}

// KeyStatus is one key file as the service found it.
type KeyStatus struct {
	Name      string    `json:"name" doc:"file name"`
	Kind      string    `json:"kind" enum:"token,login,tls"`
	KID       string    `json:"kid"`
	State     string    `json:"state" enum:"valid,made,replaced" doc:"made: was missing; replaced: was broken and set aside"`
	CreatedAt time.Time `json:"created_at"`
}

// StatusReply is the readiness report.
type StatusReply struct {
	Ready bool        `json:"ready"`
	Keys  []KeyStatus `json:"keys"`
}

// Status reports the keys.
var Status = rpc.Op[struct{}, StatusReply]{Info: rpc.Info{
	ID: "keys.status", Method: "GET", Path: "/v1/keys", Access: rpc.View, From: []string{"control"},
	Summary: "Which keys there are and how they were found",
}}
