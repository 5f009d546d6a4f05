package gate

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/keys"
	"vpnd/pkg/fault"
	"vpnd/pkg/secret"
)

// Numbers of RFC 9180, 7, and of the IANA registry of HPKE KEMs.
const (
	kemMLKEM768X25519 = 0x647a
	kemX25519         = 0x0020
	kdfHKDFSHA256     = 0x0001
	aeadAES256GCM     = 0x0002
)

// NonceSize is the size of a sign-in's nonce in bytes.
const NonceSize = 16

// Credentials are what a person signs in with.
type Credentials struct {
	Login    string // username or e-mail
	Password secret.Text
	Device   client.LoginDevice
}

// Seal encrypts a sign-in to the first key of the set that this client knows how
// to use, so that only the service with the private half reads it.
func Seal(set keys.LoginKeys, c Credentials, now time.Time) (client.Sealed, error) {
	key, pub, err := choose(set)
	if err != nil {
		return client.Sealed{}, err
	}
	var nonce [NonceSize]byte
	_, _ = rand.Read(nonce[:]) // never fails
	plain, err := json.Marshal(client.Login{
		Login: c.Login, Password: c.Password.Reveal(), Device: c.Device,
		IssuedAt: now.UTC(), Nonce: base64.StdEncoding.EncodeToString(nonce[:]),
	})
	if err != nil {
		return client.Sealed{}, fmt.Errorf("encode sign-in: %w", err)
	}
	defer clear(plain)
	enc, sender, err := hpke.NewSender(pub, hpke.HKDFSHA256(), hpke.AES256GCM(), []byte(client.LoginInfo))
	if err != nil {
		return client.Sealed{}, fmt.Errorf("seal sign-in: %w", err)
	}
	text, err := sender.Seal(nil, plain)
	if err != nil {
		return client.Sealed{}, fmt.Errorf("seal sign-in: %w", err)
	}
	return client.Sealed{
		KID:        key.KID,
		Enc:        base64.StdEncoding.EncodeToString(enc),
		Ciphertext: base64.StdEncoding.EncodeToString(text),
	}, nil
}

// choose takes the first usable key: the server lists the best one first.
func choose(set keys.LoginKeys) (keys.LoginKey, hpke.PublicKey, error) {
	for _, k := range set.Keys {
		var kem hpke.KEM
		switch k.KEM {
		case kemMLKEM768X25519:
			kem = hpke.MLKEM768X25519()
		case kemX25519:
			kem = hpke.DHKEM(ecdh.X25519())
		default:
			continue
		}
		if k.KDF != kdfHKDFSHA256 || k.AEAD != aeadAES256GCM {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(k.PublicKey)
		if err != nil {
			continue
		}
		if pub, err := kem.NewPublicKey(raw); err == nil {
			return k, pub, nil
		}
	}
	return keys.LoginKey{}, nil, fault.New(fault.Unimplemented, "the server offers no login key that this client knows how to use").
		WithHint("install a newer vpn")
}
