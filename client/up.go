package client

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"vpnd/client/agentapi"
	"vpnd/client/profile"
	"vpnd/client/tunnel"
	"vpnd/pkg/fault"
	"vpnd/pkg/rpc"
)

type upOptions struct {
	lane    string
	iface   string
	wait    bool
	timeout time.Duration
}

func newUp(f *factory) *cobra.Command {
	o := &upOptions{}
	c := &cobra.Command{
		Use:   "up",
		Short: "Bring the tunnel up, or change its lane",
		Long: `Bring the tunnel up, or change its lane. Needs root.

It returns when the server has answered through the tunnel; then all traffic goes
through it, and what it does not carry goes nowhere until 'vpn down'. A tunnel that
does not come up in time is taken back, unless traffic was blocked already.`,
		Args: cobra.NoArgs,
		RunE: run(func(ctx context.Context, _ []string) error { return runUp(ctx, f, o) }),
	}
	c.Flags().StringVar(&o.lane, "lane", "", "vpn or tor (default: the one used last)")
	c.Flags().StringVar(&o.iface, "interface", tunnel.DefaultInterface, "name of the network interface")
	c.Flags().BoolVar(&o.wait, "wait", true, "wait until the tunnel is up")
	c.Flags().DurationVar(&o.timeout, "timeout", 30*time.Second, "how long to wait")
	return c
}

func runUp(ctx context.Context, f *factory, o *upOptions) error {
	lane := profile.Lane(o.lane)
	if lane != "" && lane != profile.VPN && lane != profile.Tor {
		return fault.InvalidField("--lane", "%q is neither vpn nor tor", o.lane)
	}
	store, err := f.store()
	if err != nil {
		return err
	}
	p, err := store.Load()
	if err != nil {
		return err
	}
	if !p.SignedIn() {
		return fault.New(fault.Unauthenticated, "nobody is signed in").WithReason("not_signed_in").WithHint("sign in first: vpn login URL")
	}
	conn, err := findAgent(ctx)
	found := conn != nil
	if err == nil && !found {
		conn, err = startAgent(ctx)
	}
	if err != nil {
		return err
	}
	st, err := o.ask(ctx, conn, lane)
	if found && errors.Is(err, fault.Unavailable) && agentEnded(ctx) {
		// It was ending, or dying, when it was found.
		if conn, err = startAgent(ctx); err != nil {
			return err
		}
		st, err = o.ask(ctx, conn, lane)
	}
	if err != nil {
		return explainUp(ctx, conn, o, err)
	}
	r := report{SignedIn: new(account), Tunnel: *st}
	*r.SignedIn = accountOf(p)
	return f.printReport(r)
}

func (o *upOptions) ask(ctx context.Context, conn *rpc.Conn, lane profile.Lane) (*agentapi.Status, error) {
	req := &agentapi.UpRequest{}
	req.Body.Lane, req.Body.Interface, req.Body.Wait = lane, o.iface, o.wait
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return agentapi.PostUp.Call(ctx, conn, req)
}

// explainUp says why the tunnel is not up, and takes it back where nothing was
// blocked before: a command that failed leaves nothing behind.
func explainUp(ctx context.Context, conn *rpc.Conn, o *upOptions, err error) error {
	late := errors.Is(err, fault.Timeout) && ctx.Err() == nil
	if !late && ctx.Err() == nil {
		if errors.Is(err, fault.Unavailable) && fault.From(err).Hint == "" && agentEnded(ctx) {
			return fault.Wrap(err, fault.Unavailable, "the agent has ended").WithHint("see its log: %s", agentLog())
		}
		return err
	}
	clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	st, serr := agentapi.GetStatus.Call(clean, conn, nil)
	if serr != nil {
		return err
	}
	if !st.Blocking {
		_ = stopAgent(clean, conn) // the error that counts is err
	}
	if !late {
		return err
	}
	f := fault.New(fault.Timeout, "the tunnel is not up after %s: %s", o.timeout, st.Message)
	switch {
	case st.Blocking:
		return f.WithReason("no_handshake").WithHint("it is still being tried, and traffic is blocked: 'vpn status' to see how it goes, 'vpn down' to leave")
	case st.Endpoint != "":
		return f.WithReason("no_handshake").WithHint("nothing was changed; perhaps the network does not let UDP to %s through", st.Endpoint)
	}
	return f.WithReason("no_answer").WithHint("nothing was changed; check that the server runs and try again")
}
