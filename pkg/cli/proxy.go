package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"

	"github.com/spf13/cobra"

	"vpnd/pkg/fault"
)

// newProxy is the other end of --host ssh://…: it runs on the server.
func newProxy(f *factory) *cobra.Command {
	return &cobra.Command{
		Use: "proxy", Short: "Connect standard input and output to the control socket", Hidden: true, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runProxy(cmd.Context(), f) },
	}
}

func runProxy(ctx context.Context, f *factory) error {
	u, err := url.Parse(f.host)
	if err != nil || u.Scheme != "unix" {
		return fault.New(fault.Invalid, "proxy needs a socket of this machine, not %q", f.host)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", u.Path)
	if err != nil {
		return fault.Wrap(err, fault.Unavailable, "vpnd is not reachable")
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	go func() {
		_, _ = io.Copy(c, f.in)
		_ = c.(*net.UnixConn).CloseWrite()
	}()
	if _, err := io.Copy(f.out, c); err != nil && !errors.Is(err, net.ErrClosed) {
		return fault.Wrap(err, fault.Unavailable, "the connection to vpnd broke")
	}
	return ctx.Err()
}
