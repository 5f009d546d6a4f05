//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/api/id"
	"vpnd/pkg/api/keys"
	"vpnd/pkg/api/users"
	"vpnd/pkg/e2e/apiclient"
	"vpnd/pkg/wgdev"
)

const (
	password = "correct horse battery staple"
	// devicesPerUser is as many as an account may have.
	devicesPerUser = 100
)

// population is whom the server knows.
type population struct {
	users   int
	devices []*device
}

// device is one device that has signed in.
type device struct {
	user, name string
	tokens     client.Tokens
}

func (d *device) token() string { return d.tokens.AccessToken }

// newUser makes an account.
func (s *suite) newUser(ctx context.Context) (string, error) {
	name := fmt.Sprintf("user%d", s.people.users)
	req := &users.CreateRequest{}
	req.Body.Username, req.Body.Password, req.Body.DeviceLimit = name, password, devicesPerUser
	if _, err := users.Create.Call(ctx, s.ops, req); err != nil {
		return "", fmt.Errorf("create user: %w", err)
	}
	s.people.users++
	return name, nil
}

// newDevices makes n devices of new accounts, at most perUser to each, and signs
// them in with some clients at once. None has connected when it returns.
func (s *suite) newDevices(ctx context.Context, n, perUser, clients int) ([]*device, error) {
	owners := make([]string, (n+perUser-1)/perUser)
	for i := range owners {
		var err error
		if owners[i], err = s.newUser(ctx); err != nil {
			return nil, err
		}
	}
	made := make([]*device, n)
	for i := range made {
		// Neighbours sign in at the same time, and to one account only so many may.
		made[i] = &device{user: owners[i%len(owners)], name: fmt.Sprintf("device%d", i/len(owners))}
	}
	key, err := s.loginKey(ctx)
	if err != nil {
		return nil, err
	}
	wires, err := s.openWires(ctx, clients, s.apiAddress())
	if err != nil {
		return nil, err
	}
	defer closeWires(wires)
	err = spreadOut(ctx, clients, n, func(w, i int) error { return made[i].signIn(wires[w], key) })
	s.people.devices = append(s.people.devices, made...)
	return made, err
}

// loginKey is the key that a sign-in is best sealed to.
func (s *suite) loginKey(ctx context.Context) (keys.LoginKey, error) {
	c, err := s.openWire(ctx, s.apiAddress())
	if err != nil {
		return keys.LoginKey{}, err
	}
	defer c.close()
	set, err := ask[keys.LoginKeys](c, client.GetPubkey.Info, "", nil)
	if err != nil {
		return keys.LoginKey{}, err
	}
	if len(set.Keys) == 0 {
		return keys.LoginKey{}, fmt.Errorf("the server offers no login key")
	}
	return set.Keys[0], nil
}

// sealed is what a sign-in of d sends; the first one is of a new device.
func (d *device) sealed(key keys.LoginKey) (client.Sealed, error) {
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // never fails
	return apiclient.Seal(key, client.Login{
		Login: d.user, Password: password, IssuedAt: time.Now().UTC(), Nonce: base64.StdEncoding.EncodeToString(nonce),
		Device: client.LoginDevice{ID: d.tokens.DeviceID, Name: d.name, OS: "linux"},
	})
}

func (d *device) signIn(c *wire, key keys.LoginKey) error {
	body, err := d.sealed(key)
	if err != nil {
		return err
	}
	tokens, err := ask[client.Tokens](c, client.PostLogin.Info, "", body)
	if err != nil {
		return err
	}
	if tokens.AccessToken == "" || tokens.DeviceID == id.Device("") {
		return fmt.Errorf("a sign-in was answered without tokens")
	}
	d.tokens = *tokens
	return nil
}

// newKeys makes public keys that nobody had before, ahead of a load.
func newKeys(n int) ([]wgdev.Key, error) {
	out := make([]wgdev.Key, n)
	for i := range out {
		k, err := wgdev.GeneratePrivateKey()
		if err != nil {
			return nil, err
		}
		out[i] = k.Public()
	}
	return out, nil
}

// newKey makes one.
func newKey() (wgdev.Key, error) {
	k, err := wgdev.GeneratePrivateKey()
	return k.Public(), err
}

// connect opens the device's session with a key.
func (d *device) connect(c *wire, k wgdev.Key) error {
	_, err := c.send(client.PostInitiate.Info, d.token(), []byte(`{"public_key":"`+k.String()+`"}`))
	return err
}

// open opens the device's session with a new key.
func (d *device) open(c *wire) (*client.Initiated, wgdev.PrivateKey, error) {
	private, err := wgdev.GeneratePrivateKey()
	if err != nil {
		return nil, private, err
	}
	body := client.InitiateRequest{}.Body
	body.PublicKey = private.Public().String()
	got, err := ask[client.Initiated](c, client.PostInitiate.Info, d.token(), body)
	return got, private, err
}

func (d *device) beat(c *wire) error {
	_, err := c.send(client.PostHeartbeat.Info, d.token(), nil)
	return err
}

func (d *device) disconnect(c *wire) error {
	_, err := c.send(client.PostClose.Info, d.token(), nil)
	return err
}
