// Package apiclient is a client of the client API as somebody else would write
// it: sign-in sealed with HPKE, tokens, sessions, nothing more. Tests and
// benchmarks use it. A Client is for one goroutine at a time.
package apiclient

import (
	"context"
	"crypto/hpke"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/keys"
	"vpnd/pkg/rpc"
	"vpnd/pkg/wgdev"
)

// Client is one device of one user.
type Client struct {
	Conn   *rpc.Conn
	Tokens client.Tokens
	Key    wgdev.PrivateKey
}

// Dial prepares a client of the server at addr. The certificate is not
// checked: these tests are about other things.
func Dial(addr string, dial func(ctx context.Context) (net.Conn, error), patience time.Duration) *Client {
	c := &Client{}
	c.Conn = rpc.DialTLS(addr, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}, rpc.Options{
		Dial: dial, Patience: patience, Token: func() string { return c.Tokens.AccessToken },
	})
	return c
}

// Seal encrypts a sign-in to one of the server's keys.
func Seal(k keys.LoginKey, login client.Login) (client.Sealed, error) {
	plain, err := json.Marshal(login)
	if err != nil {
		return client.Sealed{}, err
	}
	return SealBytes(k, plain)
}

// SealBytes encrypts any plaintext, for tests of what is inside.
func SealBytes(k keys.LoginKey, plain []byte) (client.Sealed, error) {
	raw, err := base64.StdEncoding.DecodeString(k.PublicKey)
	if err != nil {
		return client.Sealed{}, err
	}
	kem, err := hpke.NewKEM(k.KEM)
	if err != nil {
		return client.Sealed{}, err
	}
	pub, err := kem.NewPublicKey(raw)
	if err != nil {
		return client.Sealed{}, err
	}
	kdf, err := hpke.NewKDF(k.KDF)
	if err != nil {
		return client.Sealed{}, err
	}
	aead, err := hpke.NewAEAD(k.AEAD)
	if err != nil {
		return client.Sealed{}, err
	}
	enc, sender, err := hpke.NewSender(pub, kdf, aead, []byte(client.LoginInfo))
	if err != nil {
		return client.Sealed{}, err
	}
	ct, err := sender.Seal(nil, plain)
	if err != nil {
		return client.Sealed{}, err
	}
	return client.Sealed{
		KID: k.KID, Enc: base64.StdEncoding.EncodeToString(enc), Ciphertext: base64.StdEncoding.EncodeToString(ct),
	}, nil
}

// Login signs in with the last of the published keys, the cheapest. Without a
// device id it is a new device.
func (c *Client) Login(ctx context.Context, user, password, device string, did id.Device) error {
	set, err := client.GetPubkey.Call(ctx, c.Conn, nil)
	if err != nil {
		return err
	}
	if len(set.Keys) == 0 {
		return fmt.Errorf("no login keys")
	}
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails
	sealed, err := Seal(set.Keys[len(set.Keys)-1], client.Login{
		Login: user, Password: password, Device: client.LoginDevice{ID: did, Name: device, OS: "linux"},
		IssuedAt: time.Now().UTC(), Nonce: base64.StdEncoding.EncodeToString(nonce),
	})
	if err != nil {
		return err
	}
	t, err := client.PostLogin.Call(ctx, c.Conn, &client.LoginRequest{Body: sealed})
	if err != nil {
		return err
	}
	c.Tokens = *t
	return nil
}

// Reauth renews the token pair.
func (c *Client) Reauth(ctx context.Context) error {
	req := &client.RefreshRequest{}
	req.Body.RefreshToken = c.Tokens.RefreshToken
	t, err := client.PostReauth.Call(ctx, c.Conn, req)
	if err != nil {
		return err
	}
	c.Tokens = *t
	return nil
}

// NewKey makes a fresh WireGuard key pair.
func (c *Client) NewKey() error {
	k, err := wgdev.GeneratePrivateKey()
	if err == nil {
		c.Key = k
	}
	return err
}

// Initiate opens the session with the current key pair.
func (c *Client) Initiate(ctx context.Context) (*client.Initiated, error) {
	req := &client.InitiateRequest{}
	req.Body.PublicKey = c.Key.Public().String()
	return client.PostInitiate.Call(ctx, c.Conn, req)
}

// Beat sends a heartbeat.
func (c *Client) Beat(ctx context.Context) (*client.Beat, error) {
	return client.PostHeartbeat.Call(ctx, c.Conn, nil)
}

// Close closes the session.
func (c *Client) Close(ctx context.Context) error {
	_, err := client.PostClose.Call(ctx, c.Conn, nil)
	return err
}
