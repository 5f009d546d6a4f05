package gate

import (
	"context"
	"time"

	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
)

// Reasons that the server gives for refusing a sign-in and that this client
// knows an answer to.
const (
	reasonExpired       = "expired" // made more than two minutes ago, by the server's clock
	reasonClock         = "clock"   // made in the future
	reasonUnknownKey    = "unknown_key"
	reasonUnknownDevice = "unknown_device"
	reasonDeviceDeleted = "device_deleted"
)

// SignIn signs in. A login key that was replaced in between, and a device that
// the server no longer knows, are dealt with by one more try.
func (c *Client) SignIn(ctx context.Context, cred Credentials) (client.Tokens, error) {
	t, err := c.signInOnce(ctx, cred)
	switch fault.ReasonOf(err) {
	case reasonUnknownKey:
		t, err = c.signInOnce(ctx, cred)
	case reasonUnknownDevice, reasonDeviceDeleted:
		if cred.Device.ID != "" {
			cred.Device.ID = ""
			t, err = c.signInOnce(ctx, cred)
		}
	}
	if r := fault.ReasonOf(err); r == reasonExpired || r == reasonClock {
		return t, fault.From(err).WithHint("this machine's clock says %s; set it, for example with: timedatectl set-ntp true",
			time.Now().Format(time.RFC1123))
	}
	return t, err
}

func (c *Client) signInOnce(ctx context.Context, cred Credentials) (client.Tokens, error) {
	set, err := client.GetPubkey.Call(ctx, c.outside, nil)
	if err != nil {
		return client.Tokens{}, err
	}
	sealed, err := Seal(*set, cred, time.Now())
	if err != nil {
		return client.Tokens{}, err
	}
	t, err := client.PostLogin.Call(ctx, c.outside, &client.LoginRequest{Body: sealed})
	if err != nil {
		return client.Tokens{}, err
	}
	if t.AccessToken == "" || t.RefreshToken == "" || t.DeviceID == "" {
		return client.Tokens{}, fault.New(fault.Unavailable, "%s gave an answer that is not understood: tokens are missing", c.addr)
	}
	return *t, nil
}
