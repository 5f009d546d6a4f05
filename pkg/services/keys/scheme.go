package keys

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"errors"
)

// scheme is an algorithm as far as making and reading a private key goes.
type scheme struct {
	name     string
	generate func() ([]byte, error)
	// parse gives the private key to work with and the public key's bytes.
	parse func(secret []byte) (private any, public []byte, err error)
}

// slot is a key that there must be, and its file.
type slot struct {
	file   string
	kind   string
	scheme scheme
}

const (
	tokenFile     = "token.json"
	hybridFile    = "login-mlkem768-x25519.json"
	classicalFile = "login-x25519.json"
	tlsFile       = "tls.json"
	certFile      = "tls.crt"
)

// slots lists every key; login keys in the order clients should prefer.
func slots() []slot {
	return []slot{
		{tokenFile, "token", ed25519Scheme()},
		{hybridFile, "login", hpkeScheme("MLKEM768-X25519", hpke.MLKEM768X25519())},
		{classicalFile, "login", hpkeScheme("X25519", hpke.DHKEM(ecdh.X25519()))},
		{tlsFile, "tls", ecdsaScheme()},
	}
}

func ed25519Scheme() scheme {
	return scheme{
		name: "Ed25519",
		generate: func() ([]byte, error) {
			_, priv, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				return nil, err
			}
			return priv.Seed(), nil
		},
		parse: func(secret []byte) (any, []byte, error) {
			if len(secret) != ed25519.SeedSize {
				return nil, nil, errors.New("wrong length")
			}
			priv := ed25519.NewKeyFromSeed(secret)
			return priv, priv.Public().(ed25519.PublicKey), nil
		},
	}
}

func hpkeScheme(name string, kem hpke.KEM) scheme {
	return scheme{
		name: name,
		generate: func() ([]byte, error) {
			priv, err := kem.GenerateKey()
			if err != nil {
				return nil, err
			}
			return priv.Bytes()
		},
		parse: func(secret []byte) (any, []byte, error) {
			priv, err := kem.NewPrivateKey(secret)
			if err != nil {
				return nil, nil, err
			}
			return priv, priv.PublicKey().Bytes(), nil
		},
	}
}

// ecdsaScheme makes TLS keys. The public key's bytes are the
// SubjectPublicKeyInfo, which is what clients pin.
func ecdsaScheme() scheme {
	return scheme{
		name: "ECDSA-P256",
		generate: func() ([]byte, error) {
			priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return nil, err
			}
			return priv.Bytes()
		},
		parse: func(secret []byte) (any, []byte, error) {
			priv, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), secret)
			if err != nil {
				return nil, nil, err
			}
			spki, err := x509.MarshalPKIXPublicKey(&priv.PublicKey)
			return priv, spki, err
		},
	}
}
