package client

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"vpnd/client/gate"
	"vpnd/client/profile"
	"vpnd/client/tunnel"
)

// logoutTimeout bounds telling the server, which is not waited for in vain.
const logoutTimeout = 10 * time.Second

func newLogout(f *factory) *cobra.Command {
	return &cobra.Command{
		Use:   "logout",
		Short: "Take the tunnel down and sign out",
		Long: `Take the tunnel down and sign out. The tokens are wiped here, whether or not the
server can be told; the device is kept for the next sign-in.`,
		Args: cobra.NoArgs,
		RunE: run(func(ctx context.Context, _ []string) error { return runLogout(ctx, f) }),
	}
}

type signedOut struct {
	SignedOut    bool   `json:"signed_out"`
	ServerTold   bool   `json:"server_told"`
	ServerAnswer string `json:"server_answer,omitempty"`
}

func runLogout(ctx context.Context, f *factory) error {
	store, err := f.store()
	if err != nil {
		return err
	}
	if err := takeDown(ctx); err != nil {
		return err
	}
	var before profile.Profile
	err = store.Update(ctx, func(p *profile.Profile, _ func() error) error {
		before = *p
		p.Tokens, p.Session = profile.Tokens{}, nil
		return nil
	})
	if err != nil {
		return err
	}
	out := signedOut{SignedOut: true}
	if before.SignedIn() {
		if err := tellServer(ctx, &before); err != nil {
			out.ServerAnswer = err.Error()
			f.note("the server could not be told (%v); its side of the sign-in ends by itself", err)
		} else {
			out.ServerTold = true
		}
	}
	return f.print(out, func(row func(string, string, ...any)) {
		row("Signed out", "of %s", gate.Address{Host: before.Server.Host, Port: before.Server.Port})
	})
}

func tellServer(ctx context.Context, p *profile.Profile) error {
	pin, err := gate.ParsePin(p.Server.Pin)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, logoutTimeout)
	defer cancel()
	addr := gate.Address{Host: p.Server.Host, Port: p.Server.Port}
	return gate.NewClient(addr, pin, gate.NewResolver(tunnel.Mark, p.Addresses), tunnel.Mark).Logout(ctx, p.Tokens.Refresh)
}
