package client

import (
	"context"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vpnd/client/agentapi"
	"vpnd/client/gate"
	"vpnd/client/profile"
	"vpnd/client/tunnel"
	"vpnd/pkg/api/client"
	"vpnd/pkg/fault"
	"vpnd/pkg/secret"
)

type loginOptions struct {
	url           string
	pin           string
	user          string
	device        string
	passwordStdin bool
	passwordFile  string
	timeout       time.Duration
}

func newLogin(f *factory) *cobra.Command {
	o := &loginOptions{}
	c := &cobra.Command{
		Use:   "login [URL]",
		Short: "Sign this device in to a server",
		Long: `Sign this device in to a server.

URL is https://host[:port], host, host:port or [v6]:port; the port is 4605 when
none is given. Without URL it is the server of the last sign-in.

A server is known again by its pin. On first contact the pin is shown and has to
be confirmed, or given with --pin; a server whose pin has changed is refused.`,
		Args: atMostOne,
		RunE: run(func(ctx context.Context, args []string) error {
			if o.passwordStdin && o.passwordFile != "" {
				return fault.New(fault.Invalid, "--password-stdin and --password-file exclude each other").WithHint("give one of them")
			}
			if len(args) > 0 {
				o.url = args[0]
			}
			return runLogin(ctx, f, o)
		}),
	}
	c.Flags().StringVar(&o.pin, "pin", "", "pin of the server, sha256/… (the operator sees it in 'vpnctl status')")
	c.Flags().StringVarP(&o.user, "user", "u", "", "username or e-mail")
	c.Flags().StringVar(&o.device, "device", "", "name for this device (default: the host name)")
	c.Flags().BoolVar(&o.passwordStdin, "password-stdin", false, "read the password from standard input")
	c.Flags().StringVar(&o.passwordFile, "password-file", "", "read the password from the first line of a file")
	c.Flags().DurationVar(&o.timeout, "timeout", time.Minute, "time for the server to answer")
	return c
}

// account is what login prints and status shows.
type account struct {
	Server     string           `json:"server"`
	Pin        string           `json:"pin"`
	User       client.TokenUser `json:"user"`
	DeviceID   string           `json:"device_id"`
	DeviceName string           `json:"device_name"`
}

func accountOf(p *profile.Profile) account {
	return account{
		Server: gate.Address{Host: p.Server.Host, Port: p.Server.Port}.String(), Pin: p.Server.Pin,
		User: p.User, DeviceID: string(p.Device.ID), DeviceName: p.Device.Name,
	}
}

func runLogin(ctx context.Context, f *factory, o *loginOptions) error {
	store, err := f.store()
	if err != nil {
		return err
	}
	p, err := store.Load()
	if err != nil {
		return err
	}
	addr, err := chooseServer(o.url, p)
	if err != nil {
		return err
	}
	known := addr.Host == p.Server.Host && addr.Port == p.Server.Port
	// Where a tunnel blocks everything else, root still gets around it.
	resolver := gate.NewResolver(tunnel.Mark, p.Addresses)
	pin, err := o.choosePin(ctx, f, addr, resolver, p, known)
	if err != nil {
		return err
	}
	cred, err := o.credentials(ctx, f, p, known)
	if err != nil {
		return err
	}
	same := known && p.Device.ID != "" && isUser(p.User, cred.Login)
	if !same || pin.String() != p.Server.Pin {
		if err := refuseWhileUp(ctx); err != nil {
			return err
		}
	}
	if same {
		cred.Device.ID = p.Device.ID
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	tokens, err := gate.NewClient(addr, pin, resolver, tunnel.Mark).SignIn(ctx, cred)
	if err != nil {
		return withLoginHint(err)
	}
	err = store.Update(ctx, func(now *profile.Profile, _ func() error) error {
		if now.Device.ID != tokens.DeviceID {
			now.Session, now.Lane = nil, ""
		}
		now.Server = profile.Server{Host: addr.Host, Port: addr.Port, Pin: pin.String()}
		now.Device.Name = cred.Device.Name
		now.Addresses = resolver.Remembered()
		now.SetTokens(tokens, time.Now())
		p = now
		return nil
	})
	if err != nil {
		return err
	}
	a := accountOf(p)
	err = f.print(a, func(row func(string, string, ...any)) {
		row("Signed in", "%s at %s", a.User.Username, a.Server)
		row("Device", "%s (%s)", a.DeviceName, a.DeviceID)
	})
	f.note("next: sudo vpn up")
	return err
}

func chooseServer(url string, p *profile.Profile) (gate.Address, error) {
	if url != "" {
		return gate.ParseAddress(url)
	}
	if p.Server.Host == "" {
		return gate.Address{}, fault.New(fault.Invalid, "which server?").WithHint("say it: vpn login https://vpn.example.org")
	}
	return gate.Address{Host: p.Server.Host, Port: p.Server.Port}, nil
}

// choosePin takes the pin that was given, or remembered, or confirmed just now.
func (o *loginOptions) choosePin(ctx context.Context, f *factory, addr gate.Address, r *gate.Resolver, p *profile.Profile, known bool) (gate.Pin, error) {
	if o.pin != "" {
		return gate.ParsePin(o.pin)
	}
	if known && p.Server.Pin != "" {
		return gate.ParsePin(p.Server.Pin)
	}
	short, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	pin, err := gate.FetchPin(short, addr, r, tunnel.Mark)
	if err != nil {
		return gate.Pin{}, err
	}
	if !f.terminal() || o.passwordStdin {
		return gate.Pin{}, fault.New(fault.Risk, "%s is not known yet: its pin is %s, and nobody can be asked whether that is right", addr, pin).
			WithReason("unknown_pin").WithHint("ask the operator for the pin and say it: vpn login %s --pin PIN", addr)
	}
	f.note("%s is not known yet. Its pin is", addr)
	f.note("    %s", pin)
	answer, err := f.ask(ctx, "Is that the pin the operator told you? Type yes to go on: ")
	if err != nil {
		return gate.Pin{}, err
	}
	if !strings.EqualFold(strings.TrimSpace(answer), "yes") {
		return gate.Pin{}, fault.New(fault.Risk, "the pin was not confirmed; nothing was sent").WithReason("unknown_pin").
			WithHint("ask the operator for the pin and say it: vpn login %s --pin PIN", addr)
	}
	return pin, nil
}

// credentials gathers who signs in, asking only on a terminal.
func (o *loginOptions) credentials(ctx context.Context, f *factory, p *profile.Profile, known bool) (gate.Credentials, error) {
	c := gate.Credentials{Login: o.user, Device: client.LoginDevice{Name: o.device, OS: runtime.GOOS}}
	ask := f.terminal() && !o.passwordStdin
	var err error
	if c.Login == "" && known && p.User.Username != "" {
		c.Login = p.User.Username
		f.note("signing in as %s", c.Login)
	}
	if c.Login == "" {
		if !ask {
			return c, fault.New(fault.Invalid, "who signs in?").WithHint("say it: vpn login URL --user NAME")
		}
		if c.Login, err = f.ask(ctx, "Username or e-mail: "); err != nil {
			return c, err
		}
	}
	if c.Password, err = o.password(ctx, f, ask); err != nil {
		return c, err
	}
	if c.Login == "" || c.Password.Empty() {
		return c, fault.New(fault.Invalid, "a user name and a password are needed")
	}
	if c.Device.Name == "" {
		c.Device.Name = p.Device.Name
	}
	if c.Device.Name == "" {
		if c.Device.Name, err = os.Hostname(); err != nil || c.Device.Name == "" {
			c.Device.Name = runtime.GOOS
		}
	}
	return c, nil
}

func (o *loginOptions) password(ctx context.Context, f *factory, ask bool) (secret.Text, error) {
	switch {
	case o.passwordFile != "":
		return readPasswordFile(o.passwordFile)
	case o.passwordStdin:
		s, err := readLine(f.in)
		return secret.New(s), err
	case ask:
		return f.askPassword(ctx, "Password: ")
	}
	return secret.Text{}, fault.New(fault.Invalid, "there is no terminal to ask for the password on").
		WithHint("say --password-stdin or --password-file FILE")
}

func isUser(u client.TokenUser, login string) bool {
	return strings.EqualFold(login, u.Username) || strings.EqualFold(login, u.Email)
}

// refuseWhileUp keeps a running agent from getting another server's tokens.
func refuseWhileUp(ctx context.Context) error {
	conn, err := findAgent(ctx)
	if err != nil || conn == nil {
		return err
	}
	st, err := agentapi.GetStatus.Call(ctx, conn, nil)
	if err != nil || st.State == agentapi.Down {
		return err
	}
	return fault.New(fault.Conflict, "the tunnel is up with another sign-in").WithHint("take it down first: vpn down")
}

func withLoginHint(err error) error {
	f := fault.From(err)
	if f.Hint != "" {
		return err
	}
	switch f.Code {
	case fault.Unauthenticated:
		return f.WithHint("check user name and password; the operator sets a new one with: vpnctl user passwd NAME")
	case fault.Unavailable, fault.Timeout:
		return f.WithHint("check the address, and that the server runs; then try again")
	case fault.Throttled:
		return f.WithHint("wait %s, then try again", f.RetryAfter)
	}
	return err
}
