package client

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"vpnd/client/profile"
	"vpnd/pkg/fault"
)

// Main runs vpn with the arguments after its name and gives the exit status.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	f := &factory{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		terminal: func() bool { return term.IsTerminal(int(os.Stdin.Fd())) },
	}
	root := newRoot(f)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if !f.json() && slices.ContainsFunc(args, func(a string) bool { return strings.HasSuffix(a, "=json") || a == "json" || a == "-ojson" }) {
		f.output = outputJSON // the mistake may be before the flag
	}
	var ran *commandError
	if !errors.As(err, &ran) {
		err = usageError(err)
	}
	if ctx.Err() != nil {
		err = fault.Wrap(err, fault.Canceled, "interrupted")
	}
	f.printError(err)
	return fault.ExitStatus(err)
}

// factory is what every command needs.
type factory struct {
	in       *os.File
	out, err *os.File
	terminal func() bool // whether somebody can be asked
	output   output
}

// store opens the profile of whoever runs the command.
func (f *factory) store() (*profile.Store, error) {
	loc, err := profile.Locate()
	if err != nil {
		return nil, err
	}
	return profile.New(loc), nil
}

// commandError tells an error of a command that ran from one of its arguments.
type commandError struct{ err error }

func (e *commandError) Error() string { return e.err.Error() }
func (e *commandError) Unwrap() error { return e.err }

// run adapts a command's function to cobra.
func run(fn func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		if err := fn(c.Context(), args); err != nil {
			return &commandError{err}
		}
		return nil
	}
}

// atMostOne is for commands that take one argument or none.
func atMostOne(c *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fault.New(fault.Invalid, "%s takes one argument at most, not %d", c.CommandPath(), len(args)).
			WithHint("see: %s --help", c.CommandPath())
	}
	return nil
}

func usageError(err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	// cobra appends what it thinks was meant.
	msg, meant, ok := strings.Cut(err.Error(), "Did you mean this?")
	f := fault.New(fault.Invalid, "%s", strings.TrimSpace(msg))
	if ok {
		return f.WithHint("did you mean: vpn %s", strings.Join(strings.Fields(meant), ", vpn "))
	}
	return f.WithHint("see: vpn help")
}

func newRoot(f *factory) *cobra.Command {
	c := &cobra.Command{
		Use:   "vpn",
		Short: "Sign in to a VPN server and keep a tunnel to it",
		Long: `vpn signs this device in to a VPN server and keeps a tunnel to it.

  vpn login vpn.example.org     sign in; asks for user and password
  sudo vpn up                   bring the tunnel up
  vpn status                    see how it is
  vpn lane tor                  go on in the other lane
  vpn down                      take the tunnel down
  vpn logout                    sign out

Once the tunnel is up, what it does not carry goes nowhere until 'vpn down'.`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.SetOut(f.out)
	c.SetErr(f.err)
	c.SetIn(f.in)
	c.PersistentFlags().VarP(&f.output, "output", "o", "table or json")
	c.AddCommand(newLogin(f), newUp(f), newDown(f), newLane(f), newStatus(f), newLogout(f), newVersion(f), newAgent(f))
	return c
}
