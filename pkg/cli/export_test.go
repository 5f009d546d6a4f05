package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// Terminal is a terminal, or not, for a command that is run inside a test.
type Terminal struct {
	Host          string
	In            string
	TTY           bool
	Width, Height int
	Env           map[string]string
	Now           time.Time
	Secrets       []string // what is typed without echo
	Out           io.Writer
}

// Result is what a command left behind.
type Result struct {
	Status   int
	Out, Err string
}

// Run runs a command as Main does, on a made-up terminal.
func (tt Terminal) Run(ctx context.Context, args ...string) Result {
	var out, errs bytes.Buffer
	var w io.Writer = &out
	if tt.Out != nil {
		w = tt.Out
	}
	secrets := tt.Secrets
	status := run(ctx, append([]string{"--host", tt.Host}, args...), streams{
		in: strings.NewReader(tt.In), out: w, err: &errs, inTTY: tt.TTY, outTTY: tt.TTY, errTTY: tt.TTY,
		size: func() (int, int) { return tt.Width, tt.Height },
		secret: func() ([]byte, error) {
			if len(secrets) == 0 {
				return nil, errors.New("nothing more is typed")
			}
			s := secrets[0]
			secrets = secrets[1:]
			return []byte(s), nil
		},
		env: func(name string) string { return tt.Env[name] },
		now: func() time.Time {
			if tt.Now.IsZero() {
				return time.Now()
			}
			return tt.Now
		},
	})
	return Result{status, out.String(), errs.String()}
}

// Leaves lists every command that does something, as typed.
func Leaves(t *testing.T) map[string]*cobra.Command {
	t.Helper()
	out := map[string]*cobra.Command{}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if !c.HasSubCommands() {
			out[strings.TrimPrefix(c.CommandPath(), "vpnctl ")] = c
		}
		for _, s := range c.Commands() {
			walk(s)
		}
	}
	walk(newRoot(&factory{streams: streams{now: time.Now, env: func(string) string { return "" }}}))
	return out
}

// Outputs are the values of -o.
func Outputs() []string { return outputs() }

// EnvNames are the environment variables of the global flags.
func EnvNames() map[string]string { return envNames() }

var (
	ParseSince  = parseSince
	SSHCommand  = sshCommand
	ParseTarget = func(s string) error { _, err := parseTarget(s); return err }
	JSONText    = jsonText
	YAMLText    = yamlText
)
