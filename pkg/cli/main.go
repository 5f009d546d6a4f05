package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"vpnd/pkg/fault"
)

// restartTime is how long a vpnd that is being restarted may be away without
// anybody noticing.
const restartTime = 2 * time.Second

// streams are what a command reads, writes and knows of its surroundings.
type streams struct {
	in       io.Reader
	out, err io.Writer
	inTTY    bool
	outTTY   bool
	errTTY   bool
	size     func() (width, height int) // of the terminal at out
	secret   func() ([]byte, error)     // reads a line from the terminal without echo
	env      func(string) string
	now      func() time.Time
}

// Main runs vpnctl and gives its exit status. more are commands that other
// packages add.
func Main(args []string, more ...*cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	in, out := int(os.Stdin.Fd()), int(os.Stdout.Fd())
	return run(ctx, args, streams{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		inTTY: term.IsTerminal(in), outTTY: term.IsTerminal(out), errTTY: term.IsTerminal(int(os.Stderr.Fd())),
		size: func() (int, int) {
			w, h, err := term.GetSize(out)
			if err != nil {
				return 80, 24
			}
			return w, h
		},
		secret: func() ([]byte, error) { return term.ReadPassword(in) },
		env:    os.Getenv,
		now:    time.Now,
	}, more...)
}

func run(ctx context.Context, args []string, s streams, more ...*cobra.Command) int {
	f := &factory{streams: s, args: args, patience: restartTime}
	root := newRoot(f, more...)
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	err := root.ExecuteContext(ctx)
	f.close()
	if ctx.Err() != nil && err != nil {
		err = fault.Wrap(err, fault.Canceled, "interrupted")
	}
	return f.report(err)
}

// quietExit ends with the status of a code and says nothing: what there was
// to say has been printed as data.
type quietExit struct{ fault.Code }

// severalErrors are the errors of several names.
type severalErrors []error

func (e severalErrors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// usageError says what is wrong with the arguments of cmd.
func usageError(cmd *cobra.Command, format string, args ...any) error {
	return fault.New(fault.Invalid, format, args...).WithHint("'%s --help' tells more", cmd.CommandPath())
}

// report prints err for people or programs and gives the exit status.
func (f *factory) report(err error) int {
	if err == nil {
		return 0
	}
	if q, ok := errors.AsType[quietExit](err); ok {
		return q.ExitStatus()
	}
	if several, ok := errors.AsType[severalErrors](err); ok {
		status := 0
		for _, e := range several {
			if s := f.report(e); status == 0 {
				status = s
			}
		}
		return status
	}
	f.printError(err)
	return fault.ExitStatus(err)
}
