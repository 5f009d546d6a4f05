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

// answerPatience is how long the agent may take to say that it did not succeed.
const answerPatience = 25 * time.Second

// maxPatience is what the agent waits at most.
const maxPatience = 10 * time.Minute

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
	if o.timeout < time.Second || o.timeout > maxPatience {
		return fault.InvalidField("--timeout", "%s is not between 1s and 10m", o.timeout)
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
	switch {
	case ctx.Err() != nil:
		giveUp(ctx, conn)
		return err
	case errors.Is(err, fault.Unavailable) && fault.From(err).Hint == "" && agentEnded(ctx):
		return fault.Wrap(err, fault.Unavailable, "the agent has ended").WithHint("see its log: %s", agentLog())
	case err != nil:
		return err
	}
	r := report{SignedIn: new(account), Tunnel: *st}
	*r.SignedIn = accountOf(p)
	return f.printReport(r)
}

func (o *upOptions) ask(ctx context.Context, conn *rpc.Conn, lane profile.Lane) (*agentapi.Status, error) {
	req := &agentapi.UpRequest{}
	req.Body.Lane, req.Body.Interface, req.Body.Wait = lane, o.iface, o.wait
	req.Body.Patience = max(1, int(o.timeout.Seconds()))
	ctx, cancel := context.WithTimeout(ctx, o.timeout+answerPatience)
	defer cancel()
	return agentapi.PostUp.Call(ctx, conn, req)
}

// giveUp ends what an interrupted command began, unless traffic was blocked
// before: a command that failed leaves nothing behind.
func giveUp(ctx context.Context, conn *rpc.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	st, err := agentapi.GetStatus.Call(ctx, conn, nil)
	if err == nil && !st.Blocking {
		_ = stopAgent(ctx, conn) // what counts is that the command was interrupted
	}
}
